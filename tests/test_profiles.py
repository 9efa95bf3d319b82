"""[quantization] profile=: what a target can do, and where its quantizers sit."""
import csv
import re

import numpy as np
import pytest

import networks
import programs
from test_quantization import cfg_of, step

pytestmark = pytest.mark.sanitize

PROFILES = ("onnx", "tflite", "tflite-single", "cmsis", "ncnn", "tensorrt", "pow2")
SHARED = ("tflite", "tflite-single", "cmsis")
FUSED = ("ncnn", "tensorrt")


def detector(**quantization):
    return networks.detector().replace("\n[", "\n" + networks.section("quantization", **quantization) + "[", 1)


def plan(build, folder, text):
    (folder / "net.cfg").write_text(text)
    result = programs.succeed(build.darknet(folder, "kure", "plan", "net.cfg", "--csv", "plan.csv"))
    with open(folder / "plan.csv", newline="") as file:
        return list(csv.DictReader(file)), result.stdout


@pytest.mark.parametrize("profile", PROFILES)
def test_placement(profile, build, tmp_path):
    rows, said = plan(build, tmp_path, detector(profile=profile))
    kinds = networks.layer_types((tmp_path / "net.cfg").read_text())
    leaky = [row for row, kind in zip(rows, kinds) if kind == "convolutional" and "boxes" not in row["output"]]
    assert all(("before and after" in row["output"]) == (profile not in FUSED) for row in leaky)
    route = rows[[i for i, kind in enumerate(kinds) if kind == "route"][-1]]
    assert (route["output"] == "float: its inputs have one range") == (profile in SHARED), route
    assert any("range shared with layer 1" in row["output"] for row in rows) == (profile in SHARED)
    assert f"profile={profile} " in said
    assert re.search(r"network input: 8 bits with step 1/(\d+)", said).group(1) == {"ncnn": "127", "tensorrt": "127", "pow2": "128"}.get(profile, "255")


def test_shared_range(build, tmp_path):
    """Behind the first update both inputs of a route lie on one grid, whose zero point stands for 0."""
    layers = (networks.conv(6, batch_normalize=0) + networks.section("maxpool", size=2, stride=2) + networks.conv(4, batch_normalize=0, activation="linear")
              + networks.section("route", layers="-1,-2") + networks.conv(5, size=1, batch_normalize=0, activation="relu") + networks.classifier_head(3))
    for profile, one in (("tflite", True), ("onnx", False)):
        _, (before, _), _ = step(build, tmp_path, cfg_of(dict(profile=profile, first_bits=8), layers), 3)
        values = np.unique(np.concatenate([before["layers.1.output"], before["layers.2.output"]]).astype(np.float64))
        finest = np.diff(values).min()
        whole = values / np.median(np.diff(np.unique(before["layers.2.output"].astype(np.float64))))
        on_grid = abs(whole - np.rint(whole)).max() < 1e-3
        assert on_grid == one, (profile, finest)
        joined = before["layers.3.output"]
        assert np.isin(joined, np.concatenate([before["layers.1.output"], before["layers.2.output"]])).all() == one, "with one range nothing happens there"


@pytest.mark.parametrize("profile,keys", (
    ("tflite-single", dict(weight_rounding="half_away", activation_rounding="half_up")), ("onnx", dict(rounding="half_even")),
    ("tflite", dict(rounding="half_away")), ("pow2", dict(step="power_of_two", weight_granularity="tensor", weight_grid="full", activation_symmetric=1,
                                                          weight_rounding="half_away", activation_rounding="half_up")),
))
def test_defaults_are_the_keys(profile, keys, build, tmp_path):
    # leaky and avgpool go with the profile: its target has an arithmetic of its own there
    layers = networks.conv(6, activation="relu") + networks.conv(8, stride=2, activation="elu") + networks.classifier_head(3, connected=True)
    saved = []
    for i, quantization in enumerate((dict(profile=profile), keys)):
        (tmp_path / str(i)).mkdir()
        saved.append(build.train(tmp_path / str(i), cfg_of(quantization, layers, seed=1), "net.weights", "-updates", 4))
    assert saved[0] == saved[1]


def test_input_of_symmetric_targets(build, tmp_path):
    """The identity, whose weights lie on the grid, shows the quantized input."""
    layers = networks.conv(3, size=1, batch_normalize=0, activation="linear", activation_bits=0) + networks.classifier_head(3)
    for profile, levels, highest in (("ncnn", 127, 1), ("pow2", 128, 127 / 128), ("onnx", 255, 1)):
        cfg = cfg_of(dict(profile=profile), layers)
        tensors = build.tensors(tmp_path, cfg)
        tensors["layers.0.weights"][:] = np.eye(3).reshape(-1)
        networks.write_weights(tmp_path / "start.weights", cfg, tensors)
        before, _ = step(build, tmp_path, cfg, 1, "-weights", "start.weights")[0]
        seen = before["layers.0.output"].astype(np.float64) * (128 / 127 if profile == "pow2" else 1)  # 1 is not on the grid of powers of two
        image = before["layers.-1.input"].astype(np.float64)
        expected = np.minimum(np.rint(image * levels) / levels, highest)
        weight = (before["layers.0.output"] / np.where(expected > 0, expected, 1))[expected > 0.5].mean() if profile == "pow2" else 1
        np.testing.assert_allclose(before["layers.0.output"], expected * weight, rtol=1e-5, atol=1e-6), seen


@pytest.mark.parametrize("quantization,words", (
    (dict(profile="onx"), ("profile=onx", "onnx")), (dict(profile="onnx", rounding="floor"), ("profile=onnx", "weight_rounding=floor", "half_even")),
    (dict(profile="onnx", activation_bits=4), ("activation_bits=4", "it takes 8")), (dict(profile="onnx", weight_bits=3), ("weight_bits=3", "8, 4")),
    (dict(profile="tflite", weight_grid="full"), ("weight_grid=full", "narrow")), (dict(profile="tensorrt", activation_symmetric=0), ("activation_symmetric=0", "it takes 1")),
    (dict(profile="ncnn", weight_granularity="tensor"), ("weight_granularity=tensor", "channel")), (dict(profile="pow2", weight_step="free"), ("weight_step=free", "power_of_two")),
    (dict(profile="onnx", first_bits=5), ("weight_bits=5", "8, 4")), (dict(profile="onnx", method="dorefa", batchnorm="train"), ("dorefa",)),
    (dict(profile="onnx", sample="rounding:half_even,floor"), ("profile=onnx", "rounding=floor")),
    (dict(profile="tensorrt", method="pact"), ("pact", "tensorrt", "symmetric")), (dict(profile="ncnn", method="pact"), ("pact", "ncnn")),
    (dict(profile="onnx", first_bits=0, last_bits=4), ("activation_bits=4", "it takes 8")),
))
def test_refused(quantization, words, build, tmp_path):
    (tmp_path / "net.cfg").write_text(cfg_of(quantization, networks.conv(4, activation="relu") + networks.conv(4, activation="relu") + networks.classifier_head(3)))
    programs.refuse(build.darknet(tmp_path, "kure", "plan", "net.cfg"), "net.cfg:", *words)


def test_a_layer_is_refused(build, tmp_path):
    (tmp_path / "net.cfg").write_text(cfg_of(dict(profile="onnx"), networks.conv(4) + networks.conv(4, weight_step="power_of_two") + networks.classifier_head(3)))
    programs.refuse(build.darknet(tmp_path, "kure", "plan", "net.cfg"), "layer 1", "weight_step=power_of_two", "free")


@pytest.mark.parametrize("profile", SHARED)
def test_resume(profile, build, tmp_path):
    text = detector(profile=profile).replace("[net]\n", "[net]\nseed=4\n")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir(), halves.mkdir()
    expected = build.train(whole, text, "net.weights", "-updates", 6)
    build.train(halves, text, "net.weights", "-updates", 3)
    assert build.train(halves, text, "net.weights", "-updates", 6, "-weights", "net.weights") == expected


def test_drawn_widths_with_a_shared_range(build, tmp_path):
    """The route has no quantizer of its own, so nothing is drawn for it."""
    text = detector(profile="tflite", sample="weight_bits:4,8 activation_bits:8").replace("[net]\n", "[net]\nseed=4\n")
    build.train(tmp_path, text, "net.weights", "-updates", 3)


def test_other_draws_are_not_shared(build, tmp_path):
    """An input with a step ratio of its own has another range than the one whose ratio is drawn."""
    layers = (networks.conv(6, batch_normalize=0) + networks.conv(4, batch_normalize=0, activation="linear", activation_step_ratio=1)
              + networks.section("route", layers="-1,-2") + networks.conv(5, size=1, batch_normalize=0, activation="relu") + networks.classifier_head(3))
    rows, _ = plan(build, tmp_path, cfg_of(dict(profile="tflite", sample="activation_step_ratio:0.5-1.5"), layers))
    assert rows[2]["output"].startswith("8 bits") and not any("shared" in row["output"] for row in rows[:4])


@pytest.mark.parametrize("profile", PROFILES)
def test_average_pooling_keeps_the_scale(profile, build, tmp_path):
    """Where the target's does: avgpool has the range of what it reads."""
    rows, _ = plan(build, tmp_path, cfg_of(dict(profile=profile), networks.conv(4, activation="relu") + networks.classifier_head(3)))
    assert ("range shared with layer 1" in rows[2]["output"]) == (profile in SHARED), rows[2]


def test_learned_steps_requantize_at_the_route(build, tmp_path):
    rows, _ = plan(build, tmp_path, detector(profile="tflite", method="lsq"))
    assert not any("shared" in row["output"] or "one range" in row["output"] for row in rows)


ACTIVATIONS = (networks.conv(4, activation="elu") + networks.conv(4) + networks.conv(4, activation="elu") + networks.section("shortcut", activation="tanh", **{"from": -2})
               + networks.section("local", filters=4, size=1, stride=1, pad=0, activation="leaky") + networks.classifier_head(3))


@pytest.mark.parametrize("profile,without", ((None, "ncnn, tensorrt"), ("ncnn", "ncnn"), ("onnx", "")))
def test_layers_without_integer_form(profile, without, build, tmp_path):
    rows, said = plan(build, tmp_path, cfg_of(dict(profile=profile), ACTIVATIONS) if profile else networks.net() + ACTIVATIONS)
    assert [row["no_integer_form"] for row in rows] == [without, "", without, without, "all", "", "", ""]
    table = "" if profile else ", a table of 256 codes for onnx, tflite, tflite-single, cmsis, pow2"
    for activation, layers in (("elu", "layers 0, 2"), ("tanh", "layer 3")):
        assert (f"activation={activation} has no integer form for {without}{table}: {layers}\n" in said) == (without != "")
    assert "layer 4 [local] has no integer form: integer models are made of" in said and "leaky has" not in said
