"""The numbers of every arithmetic from scales, as each target's own preparation computes them: NumPy's float32 and Python's integers."""
import math

import numpy as np
import pytest

import exported
import integer_reference as reference
import networks
import test_export

pytestmark = pytest.mark.sanitize

f32 = np.float32


@pytest.fixture(scope="module", params=exported.PROFILES)
def bundles(request, build, tmp_path_factory):
    """(profile, bundles of the networks of test_export)"""
    found = []
    for name, net in (("joins", test_export.joins), ("pooled", test_export.pooled), ("routes", routes)):
        folder = tmp_path_factory.mktemp(name)
        exported.train(build, folder, exported.with_quantization(net(), profile=request.param, **({"method": "lsq"} if name == "routes" else {})))
        found.append(exported.export(build, folder, "--golden", 1))
    return request.param, found


def routes():
    """A route, a shortcut of two scales and avgpool; lsq gives every one of them a scale of its own."""
    return (networks.net(width=8, height=8, batch=2, subdivisions=1, learning_rate=0.001) + networks.conv(4, activation="relu") + networks.conv(4)
            + networks.section("route", layers="-1,-2") + networks.conv(8, activation="linear")
            + networks.section("shortcut", activation="linear", alpha=0.5, beta=2, **{"from": -2}) + networks.classifier_head(3))


def quantize_multiplier(x, single):
    """quantization_util.cc, QuantizeMultiplier, in exact fractions"""
    fraction, shift = math.frexp(x)
    numerator, denominator = fraction.as_integer_ratio()
    q = (2 * numerator * 2 ** 31 + denominator) // (2 * denominator)
    if q == 2 ** 31:
        q, shift = q // 2, shift + 1
    if shift < -31:
        q, shift = 0, 0
    return (2 ** 31 - 1, 30) if single and shift > 30 else (q, shift)


def scale_of(bundle, tensor):
    return f32(bundle.tensors[tensor]["scale"])


def layers(bundle, kind):
    return [layer for layer in bundle.layers if layer["kind"] == kind]


def test_rows(bundles):
    profile, found = bundles
    for bundle in found:
        for layer in bundle.layers:
            if "weights" not in layer:
                continue
            s_in, s_out, weights = scale_of(bundle, layer["inputs"][0]), scale_of(bundle, layer["output"]), np.array(layer["weight_scales"], dtype=f32)
            if profile == "onnx":
                assert (np.array(layer["scales"], f32) == s_in * weights / s_out).all()
            elif profile in ("tflite", "tflite-single", "cmsis"):
                words = [quantize_multiplier(float(s_in) * float(w) / float(s_out), profile == "tflite-single") for w in weights]
                assert list(zip(layer["multipliers"], layer["shifts"])) == words
            elif profile == "ncnn":
                one = f32(1)
                assert (np.array(layer["scales"], f32) == one / ((one / s_in) * (one / weights))).all() and f32(layer["last"]) == one / s_out
            elif profile == "tensorrt":
                assert (np.array(layer["scales"], f32) == s_in * weights).all() and f32(layer["last"]) == s_out
            else:
                assert [2.0 ** s for s in layer["shifts"]] == list(s_out.astype(np.float64) / (s_in.astype(np.float64) * weights))
            if "slope" in layer:
                assert f32(layer["slope"]) == f32(layer["activation_slope"] if layer["activation"] == "leaky" else 1)


def test_sums(bundles):
    profile, found = bundles
    count = 0
    for bundle in found:
        for layer in layers(bundle, "add"):
            count += 1
            a, b = (f32(layer[weight]) * scale_of(bundle, i) for weight, i in zip(("alpha", "beta"), layer["inputs"]))
            zero_a, zero_b = (f32(bundle.tensors[i]["zero_point"]) for i in layer["inputs"])
            out, zero = scale_of(bundle, layer["output"]), bundle.tensors[layer["output"]]["zero_point"]
            if profile == "onnx":
                ratio_a, ratio_b = a / out, b / out
                assert (f32(layer["ratio_a"]), f32(layer["ratio_b"])) == (ratio_a, ratio_b)
                assert f32(layer["fixed"]) == f32(zero) - (ratio_a * zero_a + ratio_b * zero_b)
            elif profile in ("tflite", "tflite-single", "cmsis"):
                most, single = 2 * float(max(a, b)), profile == "tflite-single"
                assert (layer["multiplier_a"], layer["shift_a"]) == quantize_multiplier(float(a) / most, single)
                assert (layer["multiplier_b"], layer["shift_b"]) == quantize_multiplier(float(b) / most, single)
                assert (layer["multiplier"], layer["shift"]) == quantize_multiplier(most / (2 ** 20 * float(out)), single) and layer["left"] == 20
            elif profile == "pow2":
                least = min(a, b)
                assert (2.0 ** layer["left_a"], 2.0 ** layer["left_b"], 2.0 ** layer["shift"]) == (a / least, b / least, out / least)
            else:
                assert (f32(layer["step_a"]), f32(layer["step_b"])) == (a, b) and f32(layer["last"]) == (f32(1) / out if profile == "ncnn" else out)
    assert count == 3


def test_means(bundles):
    profile, found = bundles
    for bundle in found:
        for layer in layers(bundle, "average_pool"):
            _, height, width = bundle.tensors[layer["inputs"][0]]["shape"]
            s_in, s_out = scale_of(bundle, layer["inputs"][0]), scale_of(bundle, layer["output"])
            if profile == "onnx":
                assert f32(layer["scale"]) == s_in / (s_out * f32(height * width))
            elif profile in exported.FUSED:
                assert f32(layer["scale"]) == s_in / f32(height * width)
            elif profile == "pow2":
                assert 2.0 ** layer["shift"] == s_out / s_in
            else:
                assert s_in == s_out and bundle.tensors[layer["inputs"][0]]["zero_point"] == bundle.tensors[layer["output"]]["zero_point"]


def table_of(profile, t, u, slope, is_leaky):
    """Codes for -128..127 of tensor t, in tensor u, before its limits"""
    codes = np.clip(np.arange(-128, 128), t["low"], t["high"]) - t["zero_point"]
    s, z = f32(t["scale"]), f32(u["scale"])
    value = codes.astype(f32) * s
    value = np.where(value > 0, value, value * f32(slope)).astype(f32)
    if profile in ("onnx", "tensorrt"):
        return reference.half_even(value / z)
    if profile == "ncnn":
        return reference.half_away(value * (f32(1) / z))
    if profile == "pow2":
        return np.floor((value / z).astype(np.float64) + 0.5).astype(np.int64)
    single = profile == "tflite-single"
    one = reference.single_rounding_one if single else reference.double_rounding_one
    if is_leaky:  # ratios of scales in float32
        above, below = quantize_multiplier(float(s / z), single), quantize_multiplier(float(s * f32(slope) / z), single)
    else:
        above = below = quantize_multiplier(float(s) / float(z), single)
    return np.array([one(int(x), *(below if x < 0 else above)) for x in codes])


def test_tables(bundles):
    profile, found = bundles
    leaky = requantized = 0
    for bundle in found:
        for layer in layers(bundle, "lookup"):
            is_leaky = layer["lookup"] == "activation"
            leaky, requantized = leaky + is_leaky, requantized + (not is_leaky)
            expected = table_of(profile, bundle.tensors[layer["inputs"][0]], bundle.tensors[layer["output"]], layer.get("activation_slope", 1), is_leaky)
            u = bundle.tensors[layer["output"]]
            assert layer["table"] == np.clip(expected + u["zero_point"], u["low"], u["high"]).tolist(), layer
    assert requantized >= 1 and (leaky >= 4) == (profile not in exported.FUSED)


def test_input(bundles):
    profile, found = bundles
    bundle = found[0]
    t, factor = bundle.tensors[0], f32(bundle.manifest["input"]["factor"])
    pixels = np.arange(256, dtype=f32) / f32(255)
    assert factor == (f32(1) / f32(t["scale"]) if profile == "ncnn" else f32(t["scale"]))
    assert bundle.manifest["input"]["pixels"] == bundle.quantize(pixels).tolist()
