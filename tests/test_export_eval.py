"""eval --integer and compare: the integer model on a validation list."""
import csv

import numpy as np
import pytest

import exported
import networks
from programs import refuse, succeed

pytestmark = pytest.mark.sanitize

IMAGES = 24  # of the fixture `pictures`, whose training and validation lists are one


def cfg(**quantization):
    text = (networks.net(width=16, height=16, batch=8, subdivisions=1, learning_rate=0.05) + networks.conv(8, stride=2) + networks.conv(8, activation="relu")
            + networks.section("shortcut", activation="linear", **{"from": -2}) + networks.classifier_head(3))
    return exported.with_quantization(text, **quantization) if quantization else text


def train(build, folder, pictures, text):
    """On the pictures themselves, so that there is something to get right"""
    (folder / "net.cfg").write_text(text.replace("max_batches=10\n", "max_batches=30\n"))
    (folder / "classes.data").write_text((pictures / "classes.data").read_text().replace("backup = .", f"backup = {folder}"))
    succeed(build.darknet(folder, "classifier", "train", "classes.data", "net.cfg", "-nogpu"))


def evaluate(build, folder, *options):
    succeed(build.darknet(folder, "kure", "eval", "net.cfg", "net.weights", "classes.data", "--csv", "eval.csv", *options))
    with open(folder / "eval.csv", newline="") as file:
        row = next(csv.DictReader(file))
    return float(row["top1"]), float(row["top5"]), float(row["cross_entropy"])


@pytest.mark.parametrize("profile", exported.PROFILES)
def test_simulated_and_integer(profile, build, pictures, tmp_path):
    train(build, tmp_path, pictures, cfg(profile=profile))
    simulated, integer = evaluate(build, tmp_path, "--simulate"), evaluate(build, tmp_path, "--integer")
    image = 100 / IMAGES
    assert abs(simulated[0] - integer[0]) <= image + 0.01 and abs(simulated[1] - integer[1]) <= image + 0.01
    assert abs(simulated[2] - integer[2]) <= 0.05 * max(1, simulated[2])
    if profile in exported.FUSED:
        assert simulated[:2] == integer[:2], "no code differs there"
    assert evaluate(build, tmp_path, "--integer", "--threads", 1) == integer == evaluate(build, tmp_path, "--integer", "--threads", 3)


def test_after_training(build, pictures, tmp_path):
    """A cfg without [quantization]: as export quantizes it."""
    train(build, tmp_path, pictures, cfg())
    float_top1 = evaluate(build, tmp_path)[0]
    eight, two = evaluate(build, tmp_path, "--integer"), evaluate(build, tmp_path, "--integer", "--profile", "pow2", "--weight-bits", 2)
    assert abs(eight[0] - float_top1) <= 100 / IMAGES + 0.01
    assert two != eight


def compare(build, folder, profiles, *options):
    result = succeed(build.darknet(folder, "kure", "compare", "net.cfg", "net.weights", "classes.data", "--profiles", profiles, "--csv", "compare.csv", *options))
    with open(folder / "compare.csv", newline="") as file:
        return list(csv.DictReader(file)), result.stdout


def test_a_profile_with_itself(build, pictures, tmp_path):
    train(build, tmp_path, pictures, cfg())
    rows, said = compare(build, tmp_path, "onnx,onnx")
    assert [row["layer"] for row in rows] == ["", "0", "1", "2", "3", "4"]
    assert all(float(row["different"]) == 0 == float(row["largest"]) for row in rows) and "+0.00 points of top-1 on 24 images" in said


def test_keys_of_the_command_line(build, pictures, tmp_path):
    """--weight-bits and the same in --quantize: other weights, other differences."""
    train(build, tmp_path, pictures, cfg())
    by_key, by_list, plain = (compare(build, tmp_path, "onnx,tflite", *options)
                              for options in (("--weight-bits", 4), ("--quantize", "weight_bits=4"), ()))
    assert by_key == by_list != plain


@pytest.mark.parametrize("profiles", ("onnx,tflite-single", "tflite,tflite-single"))
def test_codes_of_both_bundles(profiles, build, pictures, tmp_path):
    """The same counts from the golden vectors of two bundles over the same images."""
    train(build, tmp_path, pictures, cfg())
    bundles = []
    for profile in profiles.split(","):
        options = ("--profile", profile, "--data", "classes.data", "--golden", IMAGES)
        bundles.append(exported.export(build, tmp_path, *options, bundle=f"{profile}.edge"))
    rows, _ = compare(build, tmp_path, profiles)
    for row in rows:
        name = f"layer_{row['layer']}" if row["layer"] else "input"
        a, b = (next(t for t in bundle.tensors if t["name"] == name) for bundle in bundles)
        x, y = (bundle.golden(t["golden"]).astype(np.int64) - t["zero_point"] for bundle, t in zip(bundles, (a, b)))
        apart = abs(x * a["scale"] - y * b["scale"]) / a["scale"]
        one = (a["scale"], a["zero_point"]) == (b["scale"], b["zero_point"])
        different = (x != y) if one else apart > 0.5
        assert int(row["values"]) == x.size and abs(float(row["different"]) - 100 * different.mean()) < 1e-4 + 0.01 * (not one), name
        assert abs(float(row["largest"]) - apart.max()) < 0.01
    assert any(float(row["different"]) > 0 for row in rows)


def test_trained_ranges_are_kept(build, pictures, tmp_path):
    train(build, tmp_path, pictures, cfg(activation_truncation="ema"))
    before = exported.export(build, tmp_path, "--profile", "onnx")
    rows, said = compare(build, tmp_path, "onnx,ncnn")
    scales = {t["name"]: t["scale"] for t in before.tensors}
    for row in rows:
        assert abs(float(row["scale_a"]) / scales[f"layer_{row['layer']}" if row["layer"] else "input"] - 1) < 1e-5
    assert "calibration" not in said


def test_wrong_command_lines(build, pictures, tmp_path):
    train(build, tmp_path, pictures, cfg())
    for profiles, word in (("onnx", "two names"), ("onnx,tflite,ncnn", "two names"), ("onnx,onx", "tflite-single")):
        refuse(build.darknet(tmp_path, "kure", "compare", "net.cfg", "net.weights", "classes.data", "--profiles", profiles), word, status=2)
    refuse(build.darknet(tmp_path, "kure", "compare", "net.cfg", "net.weights", "classes.data"), "--profiles", status=2)
    refuse(build.darknet(tmp_path, "kure", "compare", "net.cfg", "net.weights", "classes.data", "--profiles", "onnx,ncnn", "--weight-bits", "8,4"),
           "weight_bits=8,4", status=2)
    for options, words in ((("--integer", "--simulate"), ("contradict",)), (("--profile", "onnx"), ("--integer",)), (("--integer", "--equalize"), ("--equalize",)),
                           (("--integer", "--weight-bits", "8,4"), ("weight_bits=8,4",)), (("--integer", "--profile", "x"), ("--profile x", "onnx"))):
        refuse(build.darknet(tmp_path, "kure", "eval", "net.cfg", "net.weights", "classes.data", *options), *words, status=2)
