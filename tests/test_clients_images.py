"""A network trained on Fashion-MNIST, exported, run by the clients on real images; what the bundle's golden codes say is the measure.

The golden codes are proved elsewhere: tests/read_bundle.py computes them in NumPy from the manifest."""
import json
import re
import subprocess
import sys

import numpy as np
import pytest

import clients
from programs import ROOT, succeed
from test_clients_c import compile_and_run
from test_clients_onnx import LOOSE, counts

pytestmark = pytest.mark.clients
IMAGES = 1000


@pytest.fixture(scope="module")
def fashion():
    """The data set of `make demo`"""
    data = ROOT / "build" / "fashion-mnist" / "fashion.data"
    if not data.exists():
        subprocess.run([sys.executable, str(ROOT / "scripts" / "prepare_fashion_mnist.py"), "--out", str(data.parent)], check=True, cwd=ROOT)
    return data


@pytest.fixture(scope="module")
def network(build, fashion, tmp_path_factory):
    """cfg/fashion.cfg after 100 updates"""
    folder = tmp_path_factory.mktemp("network")
    text = re.sub(r"max_batches=\d+", "max_batches=100", (ROOT / "cfg" / "fashion.cfg").read_text())
    (folder / "net.cfg").write_text(text)
    (folder / "net.data").write_text(re.sub(r"backup=.*", f"backup={folder}", fashion.read_text()))
    succeed(build.darknet(ROOT, "classifier", "train", folder / "net.data", folder / "net.cfg", "-clear", timeout=600))
    return folder


class Bundle:
    def __init__(self, folder):
        self.folder, self.manifest = folder, json.loads((folder / "manifest.json").read_text())
        self.tensors = {t["name"]: t for t in self.manifest["tensors"]}
        self.kinds = dict(zip(self.tensors, ["input", *(layer["kind"] for layer in self.manifest["layers"])]))
        self.values = np.load(folder / "golden" / "values.npy")
        self.last = list(self.tensors)[-1]
        arrays = [layer["weights"] for layer in self.manifest["layers"] if "weights" in layer]
        self.weights = sum(w["rows"] * w["row"] for w in arrays)

    def codes(self, name):
        return np.load(self.folder / "golden" / f"{name}.npy")

    def top(self):
        return self.codes(self.last).reshape(len(self.values), -1).argmax(axis=1)


@pytest.fixture(scope="module")
def bundle(build, network, fashion):
    made = {}

    def export(profile, images, *options):
        key = (profile, images, options)
        if key not in made:
            folder = network / f"{len(made)}.edge"
            succeed(build.darknet(ROOT, "kure", "export", network / "net.cfg", network / "net.weights", "-o", folder, "--data", fashion, "--profile",
                                  profile, "--golden", images, *options))
            made[key] = Bundle(folder)
        return made[key]
    return export


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["model.qdq.onnx", "model.qop.onnx"])
def test_onnxruntime(bundle, tmp_path, name, bits, threads):
    b = bundle("onnx", 100, "--weight-bits", bits)
    got = clients.run("client_onnxruntime.py", tmp_path, b.folder / name, threads, x=b.values)
    assert not {"Conv", "FusedConv", "Gemm", "MatMul", "Round"} & set(counts(got)) and counts(got)["QLinearConv"] == 6
    for tensor, kind in b.kinds.items():
        want = b.codes(tensor)
        apart = np.abs(got[tensor + "_quantized"].reshape(want.shape).astype(int) - want)
        print(f"{name} W{bits} {tensor} ({kind}): {(apart > 0).sum()} of {apart.size} codes differ, by up to {apart.max()}")
        assert len(np.unique(want)) > 32
        assert apart.max() <= (kind in LOOSE) and (apart > 0).sum() <= 1e-4 * apart.size
    assert got["weight_bytes"] <= (.15 if bits == 4 and "qdq" in name else .27) * 4 * b.weights


def test_opencv_runs_qlinear_operators(bundle, tmp_path):
    b = bundle("onnx", IMAGES)
    got = clients.run("client_opencv.py", tmp_path, b.folder / "model.qop.onnx", x=b.values)[f"{b.last}_value"].reshape(IMAGES, -1)
    t = b.tensors[b.last]
    codes = np.rint(got / np.float32(t["scale"])) + t["zero_point"]
    want = b.codes(b.last).reshape(IMAGES, -1)
    print(f"OpenCV: {(codes != want).sum()} of {want.size} codes differ; top-1 equal on {(codes.argmax(1) == b.top()).sum()} of {IMAGES}")
    assert (codes.argmax(axis=1) == b.top()).sum() >= .999 * IMAGES


def float_network(folder, x):
    """NumPy: Darknet's cfg and weights of the demo's network; the scores before softmax"""
    sections = re.findall(r"\[(\w+)\]\n((?:[^\[\n#]+\n)*)", re.sub(r"#.*\n", "", (folder / "model.cfg").read_text()))
    data = np.fromfile(folder / "model.weights", dtype=np.float32)[5:]
    for kind, body in sections:
        keys = dict(line.split("=") for line in body.split())
        if kind == "convolutional":
            assert "batch_normalize" not in keys
            rows, size, stride, channels = int(keys["filters"]), int(keys["size"]), int(keys["stride"]), x.shape[1]
            bias, weights, data = data[:rows], data[rows:rows + rows * channels * size ** 2], data[rows + rows * channels * size ** 2:]
            pad = size // 2 if int(keys["pad"]) else 0
            x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
            windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))[:, :, ::stride, ::stride]
            x = np.tensordot(windows, weights.reshape(rows, channels, size, size), ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2) + bias.reshape(-1, 1, 1)
            x = np.where(x > 0, x, np.float32(.1) * x) if keys["activation"] == "leaky" else x
        elif kind == "maxpool":
            n, c, h, w = x.shape
            x = x.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))
        elif kind == "avgpool":
            x = x.mean(axis=(2, 3))
    assert data.size == 0
    return x


def test_opencv_reads_the_darknet_weights(bundle, tmp_path):
    b = bundle("onnx", IMAGES)
    folder = b.folder / "darknet"
    got = clients.run("client_opencv.py", tmp_path, folder / "model.cfg", folder / "model.weights", x=b.values)
    (probabilities,) = [values for name, values in got.items() if name != "version"]
    top, want = probabilities.reshape(IMAGES, -1).argmax(axis=1), float_network(folder, b.values).argmax(axis=1)
    print(f"OpenCV, .weights: top-1 equal to NumPy's on {(top == want).sum()} of {IMAGES}, to the integer model's on {(top == b.top()).sum()}")
    assert (top == want).sum() >= .999 * IMAGES
    assert (top == b.top()).sum() >= .95 * IMAGES  # activations are float here


@pytest.mark.parametrize("bits, winograd", [(8, 0), (6, 1)])
def test_ncnn(bundle, tmp_path, bits, winograd):
    b = bundle("ncnn", 100, "--weight-bits", bits)
    name = f"{b.last}_value"
    got = clients.run("client_ncnn.py", tmp_path, b.folder / "ncnn", winograd, x=b.values, names=np.array([name]))[name]
    want = b.codes(b.last)
    apart = np.abs(np.rint(got.reshape(want.shape) / np.float32(b.tensors[b.last]["scale"])) - want)
    print(f"ncnn W{bits}: {(apart > 0).sum()} of {apart.size} codes differ, by up to {apart.max()}")
    assert apart.max() <= 1
    assert (b.folder / "ncnn/model.bin").stat().st_size <= .27 * 4 * b.weights


@pytest.mark.parametrize("bits", [8, 4])
def test_litert(bundle, tmp_path, bits):
    b = bundle("tflite", 100, "--weight-bits", bits)
    got = clients.run("client_litert.py", tmp_path, b.folder / "model.tflite", x=b.codes("input"))
    for tensor in list(b.tensors)[1:]:
        want = b.codes(tensor)
        differ = got[tensor].reshape(want.shape) != want
        assert not differ.any(), f"{tensor} ({b.kinds[tensor]}): {differ.sum()} of {differ.size} codes differ"
    assert got["weight_bytes"] <= (.27 if bits == 8 else .15) * 4 * b.weights


@pytest.mark.parametrize("profile, bits", [("cmsis", 8), ("cmsis", 4), ("pow2", 4), ("onnx", 8), ("ncnn", 8)])
def test_c_source(bundle, profile, bits):
    b = bundle(profile, 100, "--weight-bits", bits)
    status, codes = compile_and_run(b.folder)
    assert status == 0 and codes == b.codes(b.last)[0].transpose(1, 2, 0).ravel().tolist()
