"""hex/ read by Icarus Verilog's $readmemh; mem/ and coe/ line by line: the numbers of the model, and the golden feature maps."""
import re
import subprocess

import numpy as np
import pytest

import export_models
from test_clients_c import library, write  # noqa: F401


def expected(network, golden):
    """{name: (values, bits)}"""
    files = {}
    for layer, t in zip(network.layers, network.tensors[1:]):
        arrays = {name: layer.arrays[name] for name in ("weights", "biases", "multipliers", "table") if name in layer.arrays}
        if "weights" in arrays and "biases" not in arrays:
            arrays["biases"] = layer.extra["biases"].view(np.uint32)
        if layer.arithmetic != "none":
            arrays["parameter"] = layer.parameter
        for name, values in arrays.items():
            bits = layer.words["weight_bits"] if name == "weights" else 8 if name == "table" else 32
            files[f"{t.name}_{name}"] = (values.ravel().astype(np.int64) & (2 ** bits - 1), bits)
    for t, codes in zip(network.tensors, golden):
        files[f"{t.name}_codes"] = (codes.ravel().astype(np.int64) & 255, 8)
    return files


@pytest.mark.parametrize("profile, weight_bits", [("onnx", 8), ("tflite", 4), ("pow2", 4), ("ncnn", 8)])
def test_readmemh(library, tmp_path, profile, weight_bits):  # noqa: F811
    network, outputs, _ = export_models.detector(1, profile, weight_bits)
    golden = write(library, network, outputs, tmp_path, "kure_write_hex")
    files = expected(network, golden)
    assert {p.stem for p in (tmp_path / "hex").glob("*.hex")} == set(files)
    lines = ["module read;"]
    for i, (name, (values, bits)) in enumerate(files.items()):
        lines += [f"reg [{bits - 1}:0] m{i} [0:{len(values) - 1}]; integer i{i};",
                  f'initial begin #{i} $readmemh("{tmp_path}/hex/{name}.hex", m{i});',
                  f'for (i{i} = 0; i{i} < {len(values)}; i{i} = i{i} + 1) $display("%h", m{i}[i{i}]); end']
    (tmp_path / "read.v").write_text("\n".join(lines + ["endmodule", ""]))
    made = subprocess.run(["iverilog", "-g2005", "-Wall", "-o", "read", "read.v"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    result = subprocess.run(["vvp", "read"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and "WARNING" not in result.stdout + result.stderr and "ERROR" not in result.stdout + result.stderr
    want = [f"{value:0{bits // 4}x}" for values, bits in files.values() for value in values]
    assert result.stdout.split() == want


def test_mem_and_coe_hold_the_same(library, tmp_path):  # noqa: F811
    network, outputs, _ = export_models.detector(2, "onnx", 4)
    files = expected(network, write(library, network, outputs, tmp_path, "kure_write_hex"))
    for name, (values, bits) in files.items():
        want = [f"{value:0{bits // 4}x}" for value in values]
        assert (tmp_path / "mem" / f"{name}.mem").read_text().split() == ["@00000000", *want]
        coe = (tmp_path / "coe" / f"{name}.coe").read_text()
        match = re.fullmatch(r"memory_initialization_radix=16;\nmemory_initialization_vector=\n([0-9a-f,\n]*);\n", coe)
        assert match and match[1].split(",\n") == want
    index = (tmp_path / "hex" / "index.txt").read_text().splitlines()
    assert sorted(index) == sorted(f"{name}.hex {len(values)} values of {bits} bits" for name, (values, bits) in files.items())
