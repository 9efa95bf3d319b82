"""Small networks with everything that joins, trained for a moment, exported and run by the clients: detector with two heads and a
route of two scales; shortcuts, groups, relu, leaky and linear, connected layers. The golden codes of the bundle are the measure."""
import numpy as np
import pytest

import clients
import exported
import networks
from test_clients_images import Bundle
from test_clients_onnx import LOOSE, counts

pytestmark = pytest.mark.clients


def joins():
    return (networks.net(width=16, height=16, batch=3, subdivisions=1, learning_rate=0.01)
            + networks.conv(8, activation="relu") + networks.conv(8) + networks.section("shortcut", activation="linear", **{"from": -2})
            + networks.section("maxpool", size=2, stride=2) + networks.conv(12, stride=2) + networks.conv(12, groups=12)
            + networks.section("shortcut", activation="relu", **{"from": -2}) + networks.conv(8, activation="linear")
            + networks.section("route", layers="-1,-2") + networks.section("maxpool", size=3, stride=1)
            + networks.section("connected", output=16, batch_normalize=1, activation="leaky")
            + networks.section("connected", output=5, activation="linear") + networks.section("softmax", groups=1))


NETS = {"joins": joins, "detector": networks.detector}


@pytest.fixture(scope="module", params=NETS)
def exports(request, build, tmp_path_factory):
    """export(profile): the bundle of the network trained so"""
    made = {}

    def export(profile):
        if profile not in made:
            folder = tmp_path_factory.mktemp(f"{request.param}-{profile}")
            exported.train(build, folder, exported.with_quantization(NETS[request.param](), profile=profile))
            exported.export(build, folder, "--golden", 8)
            made[profile] = Bundle(folder / "net.edge")
        return made[profile]
    return export


@pytest.mark.parametrize("name", ["model.qdq.onnx", "model.qop.onnx"])
def test_onnxruntime(exports, tmp_path, name):
    b = exports("onnx")
    got = clients.run("client_onnxruntime.py", tmp_path, b.folder / name, 1, x=b.values)
    assert not {"Conv", "FusedConv", "Gemm", "MatMul"} & set(counts(got))
    seen = 0
    for tensor, kind in b.kinds.items():
        if f"{tensor}_quantized" not in got:
            assert "_from_" in tensor  # part of the concatenation there
            continue
        d = clients.apart(b, got[f"{tensor}_quantized"], tensor)
        seen += 1
        assert d.max() <= (kind in LOOSE) and (d > 0).sum() <= 1e-4 * d.size, f"{tensor} ({kind}): {(d > 0).sum()} of {d.size} codes differ"
    assert seen > 10


def test_opencv(exports, tmp_path):
    b = exports("onnx")
    got = clients.run("client_opencv.py", tmp_path, b.folder / "model.qop.onnx", x=b.values)
    for output in b.manifest["outputs"]:
        t = b.manifest["tensors"][output["tensor"]]
        codes = np.rint(got[f"{t['name']}_value"] / np.float32(t["scale"])) + t["zero_point"]
        d = clients.apart(b, codes, t["name"])
        assert not d.any(), f"{t['name']}: {(d > 0).sum()} of {d.size} codes differ"


def test_litert(exports, tmp_path):
    b = exports("tflite")
    got = clients.run("client_litert.py", tmp_path, b.folder / "model.tflite", x=b.codes("input"))
    clients.check_all_codes(b, got)


def test_ncnn(exports, tmp_path):
    b = exports("ncnn")
    outputs = [b.manifest["tensors"][output["tensor"]] for output in b.manifest["outputs"]]
    names = np.array([f"{t['name']}_value" for t in outputs])
    got = clients.run("client_ncnn.py", tmp_path, b.folder / "ncnn", 0, x=b.values, names=names)
    for t in outputs:
        d = clients.apart(b, np.rint(got[f"{t['name']}_value"] / np.float32(t["scale"])), t["name"])
        print(f"ncnn {t['name']}: {(d > 0).sum()} of {d.size} codes differ, by up to {d.max()}")
        assert d.max() <= 1
