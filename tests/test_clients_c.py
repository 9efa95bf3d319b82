"""c/: compiled as strict C99, free-standing, it prints the codes that model_file.run (NumPy) computes; weights in CMSIS-NN's order."""
import re
import subprocess

import numpy as np
import pytest

import export_models
import integer_model
import model_file

FLAGS = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover"]


@pytest.fixture(scope="module")
def library(build):
    return integer_model.Library(build.program("libkure_export_test.so"))


def image(network, seed=3):
    t = network.tensors[0]
    return np.random.default_rng(seed).integers(t.low, t.high + 1, t.shape).astype(np.int8)


def write(library, network, outputs, folder, writer="kure_write_c"):
    """The folder's files, and the codes of every tensor"""
    golden = model_file.run(network.model(outputs), image(network))
    error = library.write(writer, integer_model.IntegerModel(network, outputs, golden), folder)
    assert error is None, error
    return golden


def compile_and_run(folder):
    command = ["gcc", *FLAGS, "-ffreestanding", "golden.c", "model.c", "-o", "golden"]
    made = subprocess.run(command, cwd=folder / "c", capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    result = subprocess.run(["./golden"], cwd=folder / "c", capture_output=True, text=True)
    return result.returncode, [int(line) for line in result.stdout.split()]


def in_order(golden, outputs):
    return np.concatenate([golden[t].transpose(1, 2, 0).ravel() for t in outputs]).tolist()


def check(library, network, outputs, folder):
    golden = write(library, network, outputs, folder)
    status, codes = compile_and_run(folder)
    assert codes == in_order(golden, outputs) and status == 0


@pytest.mark.parametrize("weight_bits", [8, 4])
@pytest.mark.parametrize("profile", export_models.ARITHMETIC)
def test_it_prints_the_golden_codes(library, tmp_path, profile, weight_bits):
    for i, make in enumerate((export_models.detector, export_models.classifier, lambda *a: export_models.classifier(*a, connected=False))):
        folder = tmp_path / str(i)
        folder.mkdir()
        network, outputs, _ = make(i, profile, weight_bits)
        check(library, network, outputs, folder)


@pytest.mark.parametrize("mode", ["forward", "reverse", "flatten", "unflatten"])
def test_reorg(library, tmp_path, mode):
    network = export_models.Network(4, "onnx", (8, 6, 4))
    network.convolution(8)
    network.reorg(mode)
    check(library, network, [network.last], tmp_path)


@pytest.mark.parametrize("rows, stride", [(6, 1), (3, 1), (4, 2)])
def test_shortcuts_of_other_shapes(library, tmp_path, rows, stride):
    for a_is_larger in (0, 1):
        folder = tmp_path / str(a_is_larger)
        folder.mkdir()
        network = export_models.Network(5, "tflite", (3, 8, 8))
        first = network.convolution(4)
        second = network.convolution(rows, 3, stride, of=first)
        network.add(*((first, second) if a_is_larger else (second, first)))
        check(library, network, [network.last], folder)


def test_no_floating_point_and_no_library(library, tmp_path):
    network, outputs, _ = export_models.detector(1, "ncnn")
    write(library, network, outputs, tmp_path)
    subprocess.run(["gcc", "-std=c99", "-O2", "-ffreestanding", "-mno-sse", "-mno-80387", "-c", "model.c"], cwd=tmp_path / "c", check=True)
    undefined = subprocess.run(["nm", "-u", "model.o"], cwd=tmp_path / "c", capture_output=True, text=True, check=True).stdout.split()
    assert set(undefined) <= {"U", "memcpy", "memset"}, undefined


def test_a_wrong_code_is_seen(library, tmp_path):
    network, outputs, _ = export_models.classifier(1, "onnx")
    write(library, network, outputs, tmp_path)
    path = tmp_path / "c" / "golden.c"
    text = path.read_text()
    at = text.index("output_0[")
    first = re.compile(r"\n    (-?\d+),").search(text, at)
    path.write_text(text[:first.start(1)] + str(int(first[1]) ^ 1) + text[first.end(1):])
    assert compile_and_run(tmp_path)[0] == 1


def numbers(folder, name):
    text = (folder / "c" / "model.c").read_text()
    return [int(x) for x in re.search(rf" {name}\[\d+\] = {{([^}}]*)}}", text)[1].replace("\n", " ").split(",")[:-1]]


def test_weights_are_in_the_order_of_cmsis_nn(library, tmp_path):
    """arm_nnfunctions.h: convolution [C_OUT, HK, WK, C_IN], depthwise [1, H, W, C_OUT], s4: low half first, no padding of filters"""
    network = export_models.Network(2, "cmsis", (3, 5, 5))
    network.convolution(5, weight_bits=4)                 # a filter of 27 weights: the next begins in a high half
    network.convolution(5, groups=5)
    network.connected(4)
    write(library, network, [network.last], tmp_path)
    codes = [layer.arrays["weights"].astype(int) for layer in network.layers]
    flat = codes[0].reshape(5, 3, 3, 3).transpose(0, 2, 3, 1).ravel() & 15
    flat = np.append(flat, 0)
    assert numbers(tmp_path, "layer_0_weights") == (flat[0::2] | flat[1::2] << 4).tolist()
    assert numbers(tmp_path, "layer_1_weights") == (codes[1].reshape(5, 3, 3).transpose(1, 2, 0).ravel() & 255).tolist()
    assert numbers(tmp_path, "layer_2_weights") == (codes[2].reshape(4, 5, 5, 5).transpose(0, 2, 3, 1).ravel() & 255).tolist()
