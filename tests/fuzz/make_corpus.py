#!/usr/bin/python3
"""Writes what fuzzing starts from and the unit tests replay: tests/fuzz/corpus/TARGET, and with --bundle tests/fuzz/bundle.

--bundle DIR: DIR holds the darknet and harness that export the bundle (build)."""
import argparse
import json
import pathlib
import shutil
import struct
import sys
import tempfile

import xxhash

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import conftest  # noqa: E402
import exported  # noqa: E402
import networks  # noqa: E402
from random_models import Maker, leaky  # noqa: E402


def models():
    m = Maker(1, "float32", (2, 4, 5))
    m.convolution(3)
    yield "convolution", m.model(pixel_table=range(-128, 128))
    m = Maker(2, "double_rounding", (4, 3, 3))
    m.convolution(2, size=2, padding=1, stride=2, groups=2, weight_bits=4)
    m.lookup(leaky)
    yield "packed", m.model()
    m = Maker(3, "float32_multiplied", (1, 3, 3))
    m.connected(3, weight_bits=4)
    m.connected(2)
    yield "connected", m.model(input_rounding=3)
    m = Maker(4, "float32_divided", (2, 5, 5))
    m.maxpool(2, 2)
    m.average_pool()
    yield "pools", m.model()
    m = Maker(5, "single_rounding", (4, 2, 4))
    m.reorg("forward")
    m.reorg("reverse")
    m.upsample(2)
    m.reorg("flatten")
    m.average_pool()
    yield "moves", m.model(outputs=[3, 5])
    m = Maker(6, "shift_half_up", (2, 3, 3), bits=4)
    first = m.convolution(2, size=1, padding=0)
    m.upsample(1)
    m.concatenate([first, 0, m.last])
    m.average_pool()
    yield "route", m.model()
    m = Maker(7, "single_rounding", (3, 4, 4))
    small = m.convolution(2, size=1, stride=2, padding=0)
    m.convolution(3, of=0)
    m.add(m.last, small)
    m.add(small, m.last)
    yield "shortcut", m.model(outputs=[3, 4])
    m = Maker(8, "shift_half_away", (2, 3, 3))
    m.convolution(2, groups=2, of=0)
    m.add(m.last, 0)
    yield "shift", m.model()
    m = Maker(9, "float32", (2, 2, 2))
    m.lookup(of=0)
    m.add(m.last, 0)
    yield "float32_add", m.model()


# ---- a bundle, and its files as fuzz_bundle.c takes them -------------------------------------

def write_bundle(folder):
    text = exported.with_quantization(networks.net(width=4, height=4, channels=1, batch=2, subdivisions=1) + networks.conv(2)
                                      + networks.classifier_head(2), profile="onnx")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        exported.train(conftest.Build(folder), scratch, text)
        exported.export(conftest.Build(folder), scratch, "--golden", 2, "--formats", "kure")
        shutil.rmtree(HERE / "bundle", ignore_errors=True)
        shutil.copytree(scratch / "net.edge", HERE / "bundle")


def bundles():
    names = sorted(str(p.relative_to(HERE / "bundle")) for p in (HERE / "bundle").rglob("*") if p.is_file())
    for i, name in enumerate(names):
        data = (HERE / "bundle" / name).read_bytes()
        for flags, kind in ((0, "as_it_is"), (1, "sealed"), (2, "missing")):
            yield f"{name.replace('/', '_')}.{kind}", bytes([i, flags]) + (data if flags < 2 else b"")


# ---- sidecars ------------------------------------------------------------------------------------

def sidecar(texts, tensors):
    header, data = {"__metadata__": texts}, b""
    for name, values in tensors.items():
        raw = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    texts["data"] = xxhash.xxh3_128_hexdigest(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def sidecars():
    texts = {"format": "kure-sidecar-1", "weights": "0" * 32, "state": "f" * 32, "update": "12", "plan": "no [kurtosis]"}
    yield "empty", sidecar({}, {})
    yield "texts", sidecar(dict(texts), {})
    yield "momentum", sidecar(dict(texts), {"layers.0.weights": [0.5, -1, 2], "layers.0.biases": [1e-3], "layers.0.scales": []})
    yield "ranges", sidecar({**texts, "quantization": "method=ste weight_bits=4"},
                            {"layers.0.weight_scales.mse.4": [.1, 0, 0, 0], "layers.0.range_after.ema": [1, 0, 6, 0, 0, 0, 0]})


# ---- cfgs ------------------------------------------------------------------------------------------

def cfgs():
    body = networks.conv(4) + networks.classifier_head(2)
    yield "plain", networks.net(seed=3) + body
    yield "kurtosis", (networks.net() + networks.section("kurtosis", target=1.8, mode="max", layers="1,3-last", log="k.csv", ramp=5)
                       + networks.conv(4, kurtosis=1, kurtosis_target=2, kurtosis_lambda=".5") + body)
    yield "quantization", (networks.net() + networks.section("quantization", bits=4, weight_truncation="percentile", weight_truncation_value=99.9,
                                                             method="lsq", rounding="half_away", first_bits=8, batchnorm="freeze", freeze_at=10)
                           + networks.conv(4, quantize=1, weight_step_ratio=1.5, activation="relu6") + networks.section("quantize", bits=6) + body)
    yield "sample", networks.net() + networks.section("quantization", sample="weight_bits:3-8 step_ratio:0.8-1.2 rounding:half_even,floor") + body
    yield "profile", networks.net() + networks.section("quantization", profile="tflite", symmetric=0) + networks.conv(4, slope=".25") + body
    yield "editors", "\ufeff" + (networks.net() + "; a comment\n[kurtosis] # ours\n target = 1.8\n\n" + body).replace("\n", "\r\n")
    yield "misspelt", networks.net() + networks.section("kurtosis", taget=1.8) + networks.section("quantisation") + body


def write(target, name, data):
    path = HERE / "corpus" / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"{target}/{name}: {len(data)} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", metavar="DIR", help="export tests/fuzz/bundle anew")
    options = parser.parse_args()
    if options.bundle:
        write_bundle(options.bundle)
    for name, model in models():
        write("model", f"{name}.kure", model.write())
    for name, data in bundles():
        write("bundle", name, data)
    for name, data in sidecars():
        write("sidecar", f"{name}.kure", data)
    for name, text in cfgs():
        write("cfg", f"{name}.cfg", text.encode())


if __name__ == "__main__":
    main()
