"""model.tflite on LiteRT's reference kernels: the codes of every tensor against model_file.run (NumPy). No code may differ."""
import numpy as np
import pytest

import clients
import export_models
import integer_model
import model_file
from test_clients_c import image, library  # noqa: F401

pytestmark = pytest.mark.clients


def check(library, network, outputs, folder, images=6):  # noqa: F811
    error = library.write("kure_write_tflite", integer_model.IntegerModel(network, outputs), folder)
    assert error is None, error
    x = np.stack([image(network, seed) for seed in range(images)])
    got = clients.run("client_litert.py", folder, folder / "model.tflite", x=x)
    want = [model_file.run(network.model(outputs), one) for one in x]
    faults = []
    for i, t in enumerate(network.tensors[1:], 1):
        expected = np.stack([values[i] for values in want])
        apart = np.abs(got[t.name].astype(int) - expected)
        assert len(np.unique(expected)) > 8, t.name
        if apart.any():
            faults.append(f"{t.name} ({network.layers[i - 1].kind}): {(apart > 0).sum()} of {apart.size} codes differ, by up to {apart.max()}")
    assert not faults, faults
    return got


NETWORKS = {"detector": lambda seed, bits: export_models.detector(seed, "tflite", bits, reorg=False)[:2],
            "connected": lambda seed, bits: export_models.classifier(seed, "tflite", bits)[:2],
            "average": lambda seed, bits: export_models.classifier(seed, "tflite", bits, connected=False)[:2]}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_codes(library, tmp_path, name, bits):  # noqa: F811
    for seed in (1, 2):
        network, outputs = NETWORKS[name](seed, bits)
        got = check(library, network, outputs, tmp_path)
        arrays = [(layer.arrays["weights"].size, layer.words["weight_bits"]) for layer in network.layers if "weights" in layer.arrays]
        assert got["weight_bytes"] == sum((n * b + 7) // 8 for n, b in arrays)


@pytest.mark.parametrize("seed", range(6))
def test_random_windows(library, tmp_path, seed):  # noqa: F811
    """Padding that is TensorFlow's SAME, and padding that is not"""
    rng = np.random.default_rng(seed)
    network = export_models.Network(seed, "tflite", (int(rng.integers(1, 4)) * 2, *rng.integers(9, 20, 2).tolist()))
    network.convolution(int(rng.integers(1, 9)) * 2, int(rng.integers(1, 6)), int(rng.integers(1, 3)), int(rng.integers(0, 3)), 1 + seed % 2, relu=True)
    size = int(rng.integers(2, 5))
    network.maxpool(size, int(rng.integers(1, 4)), int(rng.integers(0, size)) if seed > 2 else None)
    network.leaky(float(rng.choice([.1, .5, 1e-3])))
    network.convolution(7, 1, padding=0)
    check(library, network, [network.last], tmp_path)


def test_what_tensorflow_lite_cannot_express_is_refused(library, tmp_path):  # noqa: F811
    network, outputs, _ = export_models.detector(1, "tflite")
    error = library.write("kure_write_tflite", integer_model.IntegerModel(network, outputs), tmp_path)
    assert error == "net.cfg: layer 15 [reorg]: TensorFlow Lite has no reorg in Darknet's order of elements: the formats kure, c and hex have"
    assert list(tmp_path.iterdir()) == []
