"""model.qdq.onnx and model.qop.onnx on onnxruntime's CPU provider: the codes of every tensor against model_file.run (NumPy).

Networks are random, their codes spread over the range (export_models.py); test_clients_images.py does the same with a
trained network and real images."""
import numpy as np
import pytest

import clients
import export_models
import integer_model
import model_file

pytestmark = pytest.mark.clients
FILES = {"kure_write_onnx_qdq": "model.qdq.onnx", "kure_write_onnx_qlinear": "model.qop.onnx"}


@pytest.fixture(scope="module")
def library(build):
    return integer_model.Library(build.program("libkure_export_test.so"))


def images(network, count, seed=5):
    """Pixels as float values, and their codes"""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *network.tensors[0].shape))
    x = pixels.astype(np.float32) / np.float32(255)
    t = network.tensors[0]
    return x, np.clip(np.rint(x / t.scale) + t.zero_point, t.low, t.high).astype(np.int8)


def written(library, writer, network, outputs, folder):
    model = integer_model.IntegerModel(network, outputs)
    error = library.write(writer, model, folder)
    assert error is None, error
    return folder / FILES[writer]


def differing(network, outputs, codes, got):
    """{kind of the layer that makes it: (codes that differ, most, codes)}; a tensor that the graph leaves out must be a requantizing table"""
    model, result = network.model(outputs), {}
    for i, image in enumerate(codes):
        values = model_file.run(model, image)
        for t, value in enumerate(values):
            name = network.tensors[t].name + "_quantized"
            kind = network.layers[t - 1].kind if t else "input"
            if name not in got:
                assert network.layers[t - 1].extra["lookup"] == "requantize", name
                continue
            difference = np.abs(got[name][i].astype(int) - value)
            count, most, total = result.get(kind, (0, 0, 0))
            result[kind] = (count + int((difference > 0).sum()), max(most, int(difference.max())), total + difference.size)
    return result


LOOSE = ("add", "average_pool")  # those that onnxruntime computes otherwise on other processors


def hold(result):
    for kind, (count, most, total) in result.items():
        if kind in LOOSE:
            assert most <= 1 and count <= 1e-4 * total + 1, f"{kind}: {count} of {total} codes differ, by up to {most}"
        else:
            assert count == 0, f"{kind}: {count} of {total} codes differ, by up to {most}"


def counts(got):
    return {name: int(count) for name, count in (line.split() for line in got["operators"].tolist())}


def spread_out(got, network):
    """Nothing is compared in vain: codes of every tensor take many values."""
    for t in network.tensors[1:]:
        if t.name + "_quantized" in got:
            assert len(np.unique(got[t.name + "_quantized"])) > 8, t.name


NETWORKS = {"detector": lambda seed, bits: export_models.detector(seed, "onnx", bits)[:2],
            "connected": lambda seed, bits: export_models.classifier(seed, "onnx", bits)[:2],
            "average": lambda seed, bits: export_models.classifier(seed, "onnx", bits, connected=False)[:2]}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("writer", FILES)
def test_the_same_codes_and_no_float_convolution(library, tmp_path, writer, name, threads):
    for seed in (1, 2):
        network, outputs = NETWORKS[name](seed, 8)
        path = written(library, writer, network, outputs, tmp_path)
        x, codes = images(network, 8)
        got = clients.run("client_onnxruntime.py", tmp_path, path, threads, x=x)
        spread_out(got, network)
        hold(differing(network, outputs, codes, got))
        have = counts(got)
        weighted = sum("weights" in layer.arrays for layer in network.layers)
        assert not have.get("Conv") and not have.get("Gemm") and not have.get("MatMul") and not have.get("FusedConv")
        assert have["QLinearConv"] == weighted
        for i, output in enumerate(outputs):
            t = network.tensors[output]
            want = t.scale * (got[f"{t.name}_quantized"].astype(np.float32) - np.float32(t.zero_point))
            assert (got[f"{t.name}_value"] == want).all(), "the plain session and the observed one differ"


@pytest.mark.parametrize("name", NETWORKS)
def test_int4_is_stored_in_half_bytes(library, tmp_path, name):
    network, outputs = NETWORKS[name](3, 4)
    path = written(library, "kure_write_onnx_qdq", network, outputs, tmp_path)
    x, codes = images(network, 8)
    got = clients.run("client_onnxruntime.py", tmp_path, path, 1, x=x)
    hold(differing(network, outputs, codes, got))
    assert not counts(got).get("Conv") and not counts(got).get("Round")
    weights = [(layer.arrays["weights"].size, layer.words["weight_bits"]) for layer in network.layers if "weights" in layer.arrays]
    assert got["weight_bytes"] == sum((n * bits + 7) // 8 for n, bits in weights)


@pytest.mark.parametrize("seed", range(6))
def test_random_convolutions_and_pools(library, tmp_path, seed):
    rng = np.random.default_rng(seed)
    network = export_models.Network(seed, "onnx", (int(rng.integers(1, 4)) * 2, *rng.integers(9, 20, 2).tolist()), symmetric=bool(seed % 2))
    network.convolution(int(rng.integers(1, 9)) * 2, int(rng.integers(1, 6)), int(rng.integers(1, 3)), int(rng.integers(0, 3)), 1 + seed % 2, relu=True)
    size = int(rng.integers(2, 5))
    network.maxpool(size, int(rng.integers(1, 4)), int(rng.integers(0, size)) if seed > 2 else None)
    network.leaky(float(rng.choice([.1, .5, 1e-3])))
    network.convolution(7, 1, padding=0)
    for writer in FILES:
        path = written(library, writer, network, [network.last], tmp_path)
        x, codes = images(network, 4)
        hold(differing(network, [network.last], codes, clients.run("client_onnxruntime.py", tmp_path, path, 1, x=x)))


@pytest.mark.parametrize("mode", ["forward", "reverse", "flatten", "unflatten"])
def test_reorg(library, tmp_path, mode):
    network = export_models.Network(4, "onnx", (8, 6, 4))
    network.convolution(8)
    network.reorg(mode)
    for writer in FILES:
        path = written(library, writer, network, [network.last], tmp_path)
        x, codes = images(network, 3)
        hold(differing(network, [network.last], codes, clients.run("client_onnxruntime.py", tmp_path, path, 1, x=x)))


def test_limits_of_codes(library, tmp_path):
    """relu whose zero point is not the lowest code; relu6"""
    network = export_models.Network(8, "onnx", (2, 9, 9), symmetric=True)
    network.convolution(5, relu=True)
    network.convolution(4, relu=True)
    network.tensors[-1].high = 90
    for writer in FILES:
        path = written(library, writer, network, [network.last], tmp_path)
        x, codes = images(network, 3)
        got = clients.run("client_onnxruntime.py", tmp_path, path, 1, x=x)
        assert got["layer_1_quantized"].min() == 0 and got["layer_1_quantized"].max() == 90
        hold(differing(network, [network.last], codes, got))
        assert counts(got)["QLinearConv"] == 2


def test_any_activation_as_a_table(library, tmp_path):
    network = export_models.Network(6, "onnx", (2, 9, 9))
    network.convolution(5)
    network.table(lambda x: 1 / (1 + np.exp(-x)), activation="logistic", lookup="activation")
    network.convolution(4)
    for writer in FILES:
        path = written(library, writer, network, [network.last], tmp_path)
        x, codes = images(network, 3)
        hold(differing(network, [network.last], codes, clients.run("client_onnxruntime.py", tmp_path, path, 1, x=x)))


def test_what_onnx_cannot_express_is_refused(library, tmp_path):
    network = export_models.Network(1, "onnx", (3, 8, 8))
    first = network.convolution(4)
    network.convolution(6, of=first)
    network.add(network.last, first)
    for writer in FILES:
        error = library.write(writer, integer_model.IntegerModel(network), tmp_path)
        assert error == ("net.cfg: layer 2 [shortcut]: ONNX has no operator for the sum of tensors of different shapes: "
                         "the formats kure, c and hex have")
        assert list(tmp_path.iterdir()) == []


def test_the_graph_for_tensorrt_means_the_same(library, tmp_path):
    """int8, float biases: onnxruntime runs it in float, where a sum near a tie may fall on the other side"""
    network = export_models.Network(3, "tensorrt", (3, 12, 12))
    first = network.convolution(8, relu=True)
    network.convolution(8)
    network.add(network.last, first)
    network.maxpool()
    network.convolution(6)
    network.average_pool()
    path = written(library, "kure_write_onnx_qdq", network, [network.last], tmp_path)
    x, codes = images(network, 4)
    for kind, (count, most, total) in differing(network, [network.last], codes, clients.run("client_onnxruntime.py", tmp_path, path, 1, x=x)).items():
        assert most <= 1 and count <= 1e-3 * total, f"{kind}: {count} of {total} codes differ, by up to {most}"
