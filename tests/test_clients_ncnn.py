"""ncnn/: param and bin in ncnn, outputs against model_file.run (NumPy).

ncnn computes 1/(scale*scale) where the model has a product of scales, so that one code in some thousands differs by one
in a layer; behind another layer that may be two. A trained network on real images: test_clients_images.py."""
import numpy as np
import pytest

import clients
import export_models
import integer_model
import model_file
from test_clients_c import library  # noqa: F401
from test_clients_onnx import images

pytestmark = pytest.mark.clients


def net(seed, bits):
    """As export_models.detector, in what ncnn has: one scale a group, no reorg"""
    m = export_models.Network(seed, "ncnn", (3, 16, 16))
    m.convolution(8)
    first = m.convolution(16, relu=True, weight_bits=bits)
    m.convolution(16, groups=16, weight_bits=bits)
    m.add(m.last, first)
    shortcut = m.last
    m.maxpool()
    m.maxpool(size=3, stride=1)
    m.convolution(6, size=1, padding=0, weight_bits=bits)
    head = m.last
    up = m.upsample()
    m.concatenate([up, shortcut])
    m.convolution(5, stride=2, weight_bits=bits)
    return m, [head, m.last]


NETWORKS = {"detector": net, "average": lambda seed, bits: export_models.classifier(seed, "ncnn", bits, connected=False)[:2]}


def connected(seed, bits):
    m = export_models.Network(seed, "ncnn", (3, 12, 12))
    m.convolution(8, relu=True, weight_bits=bits)
    m.maxpool()
    m.connected(20)
    m.connected(10)
    return m, [m.last]


NETWORKS["connected"] = connected


@pytest.mark.parametrize("winograd, bits", [(0, 8), (1, 6), (0, 4)])
@pytest.mark.parametrize("name", NETWORKS)
def test_nearly_the_same_codes(library, tmp_path, name, winograd, bits):  # noqa: F811
    for seed in (1, 2):
        network, outputs = NETWORKS[name](seed, bits)
        error = library.write("kure_write_ncnn", integer_model.IntegerModel(network, outputs), tmp_path)
        assert error is None, error
        x = images(network, 8)[0]
        t = network.tensors[0]
        codes = np.clip(np.copysign(np.floor(np.abs(x / t.scale) + .5), x), t.low, t.high).astype(np.int8)
        names = [f"{network.tensors[o].name}_value" for o in outputs]
        got = clients.run("client_ncnn.py", tmp_path, tmp_path / "ncnn", winograd, x=x, names=np.array(names))
        want = [model_file.run(network.model(outputs), image) for image in codes]
        for output, value in zip(outputs, names):
            t = network.tensors[output]
            have = np.rint(got[value] / t.scale).reshape(len(x), *t.shape)
            expected = np.stack([values[output] for values in want])
            assert len(np.unique(expected)) > 8
            apart = np.abs(have - expected)
            print(f"{name} {t.name}: {(apart > 0).sum()} of {apart.size} differ, by up to {apart.max()}")
            assert apart.max() <= 2 and (apart > 0).mean() <= .02
        weights = sum(layer.arrays["weights"].size for layer in network.layers if "weights" in layer.arrays)
        assert (tmp_path / "ncnn/model.bin").stat().st_size < .27 * 4 * weights + 16 * sum(len(layer.arrays["weights"]) + 2 for layer in network.layers
                                                                                          if "weights" in layer.arrays) + 8 * len(network.tensors)


def test_the_table(library, tmp_path):  # noqa: F811
    network, outputs = NETWORKS["average"](1, 8)
    assert library.write("kure_write_ncnn", integer_model.IntegerModel(network, outputs), tmp_path) is None
    lines = [line.split() for line in (tmp_path / "ncnn/model.table").read_text().splitlines()]
    table = {words[0]: np.array(words[1:], dtype=np.float32) for words in lines}
    for number, layer in enumerate(network.layers):
        if "weights" in layer.arrays:
            assert np.allclose(table[f"layer_{number}_param_0"], 1 / layer.extra["weight_scales"], rtol=1e-6)
            assert np.allclose(table[f"layer_{number}"], 1 / network.tensors[layer.inputs[0]].scale, rtol=1e-6)


def test_what_ncnn_cannot_express_is_refused(library, tmp_path):  # noqa: F811
    network = export_models.Network(1, "ncnn", (4, 8, 8))
    network.convolution(4, groups=2)
    error = library.write("kure_write_ncnn", integer_model.IntegerModel(network), tmp_path)
    assert error.startswith("net.cfg: layer 0 [convolutional]: ncnn has one weight scale for each of the 2 groups, rows 0 and 1 differ")
    network = export_models.Network(1, "ncnn", (4, 8, 8))
    network.reorg()
    assert "ncnn has no reorg" in library.write("kure_write_ncnn", integer_model.IntegerModel(network), tmp_path)
    assert list(tmp_path.iterdir()) == []
