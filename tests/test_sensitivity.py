"""`darknet kure sensitivity`: finds a planted fragile layer, in top-1 and in AP; its numbers are those of eval; bits for an average."""
import csv
import json
import re

import numpy as np
import pytest

import detectors
import networks
import programs
from test_eval import cfg_of, trained  # noqa: F401 (a fixture)
from test_report import report

QUANTIZATION = networks.section("quantization", bits=8)  # that layers may have keys of their own
KEYS = ("--weight-granularity", "tensor", "--batchnorm", "train")
FACTOR = 20  # one filter's weights, taken back by its batch norm: the network computes the same, a step for the whole tensor does not


def plant(tensors, layer):
    """The same network but for what one step over the tensor of that layer leaves of its other filters."""
    out = {name: value.copy() for name, value in tensors.items()}
    for name, factor in (("weights", FACTOR), ("rolling_mean", FACTOR), ("rolling_variance", FACTOR ** 2)):
        rows = out[f"layers.{layer}.{name}"].reshape(out[f"layers.{layer}.biases"].size, -1)
        rows[0] *= factor
    return out


def sensitivity(build, folder, data, *options, name="fragile"):
    result = programs.succeed(build.darknet(folder, "kure", "sensitivity", f"{name}.cfg", f"{name}.weights", data, "--csv", "layers.csv", "--json",
                                            "layers.json", *options))
    with open(folder / "layers.csv", newline="") as file:
        return list(csv.DictReader(file)), json.loads((folder / "layers.json").read_text()), result.stdout


def worst(rows, column, bits="4"):
    return int(max((r for r in rows if r["weight_bits"] == bits), key=lambda r: float(r[column]))["layer"])


@pytest.mark.parametrize("planted", (2, 5))
def test_top1_of_a_fragile_layer(planted, build, trained):
    folder, tensors = trained
    (folder / "fragile.cfg").write_text(cfg_of())
    networks.write_weights(folder / "fragile.weights", cfg_of(), plant(tensors, planted))
    rows, content, said = sensitivity(build, folder, "colours.data", "--weight-bits", "8,4", *KEYS, "--suggest", "6")
    assert worst(rows, "alone_loss") == worst(rows, "others_gain") == planted
    assert {r["measure"] for r in rows} == {"top1"} and sorted({int(r["layer"]) for r in rows}) == [0, 2, 3, 5, 6] and len(rows) == 10
    bits = {b["layer"]: b["weight_bits"] for b in content["suggestion"]}
    sizes = {b["layer"]: b["weights"] for b in content["suggestion"]}
    average, reached = map(float, re.search(r"for an average of (\S+) bits: ([\d.]+) bits, top-1", said).groups())
    assert reached <= average == 6 and reached == pytest.approx(sum(bits[i] * sizes[i] for i in bits) / sum(sizes.values()), abs=0.005)
    assert bits[planted] == 8 and 4 in bits.values()
    drawn = report(folder, "net=layers.json", "-o", "layers.html")
    assert drawn.returncode == 0 and f"--suggest has chosen {reached:.2f} bits" in drawn.stdout, drawn.stderr
    assert re.search(rf"With 4 weight bits net loses [\d.]+ points of top-1: keep layers? {planted} \(", drawn.stdout)


def test_numbers_are_those_of_eval(build, trained):
    folder, tensors = trained
    (folder / "fragile.cfg").write_text(cfg_of())
    networks.write_weights(folder / "fragile.weights", cfg_of(), tensors)
    rows, _, _ = sensitivity(build, folder, "colours.data", "--weight-bits", "3")

    def top1(layers, *options):
        """quantize=0 in all other layers; None: float"""
        sections = iter(range(99))
        def mark(match):
            i = next(sections) - 1
            return match[0] + ("quantize=0\n" if i >= 0 and layers is not None and match[1] == "convolutional" and i not in layers else "")
        net, body = cfg_of().split("\n\n", 1)
        (folder / "marked.cfg").write_text(re.sub(r"\[(\w+)\]\n", mark, f"{net}\n\n") + QUANTIZATION + re.sub(r"\[(\w+)\]\n", mark, body))
        result = build.darknet(folder, "kure", "eval", "marked.cfg", "fragile.weights", "colours.data", "--csv", "out.csv", *options)
        programs.succeed(result)
        with open(folder / "out.csv", newline="") as file:
            return next(csv.DictReader(file))["top1"]

    quantized = ("--weight-bits", "3", "--first-bits", "3", "--last-bits", "3")
    every = {0, 2, 3, 5, 6}
    assert {r["float"] for r in rows} == {top1(None)} and {r["all"] for r in rows} == {top1(None, *quantized)}
    for row in rows:
        i = int(row["layer"])
        assert row["alone"] == top1({i}, *quantized) and row["others"] == top1(every - {i}, *quantized)


def test_ap_of_a_fragile_layer(build, tmp_path):
    detectors.make(tmp_path)
    detectors.train(build, tmp_path, detectors.cfg(), "fragile")
    tensors = networks.read_weights(tmp_path / "fragile.weights", detectors.cfg(), build.tensors(tmp_path, detectors.cfg()))
    networks.write_weights(tmp_path / "fragile.weights", detectors.cfg(), plant(tensors, 2))
    rows, _, said = sensitivity(build, tmp_path, "boxes.data", "--weight-bits", "4", "--activation-bits", "8", *KEYS)
    assert worst(rows, "alone_loss") == worst(rows, "others_gain") == 2 and {r["measure"] for r in rows} == {"ap"}
    assert "measure=ap" in said
    again, _, _ = sensitivity(build, tmp_path, "boxes.data", "--weight-bits", "4", "--activation-bits", "8", *KEYS, "--threads", 1)
    assert again == rows


@pytest.mark.parametrize("options,words", (
    ((), ("--weight-bits LIST",)), (("--weight-bits", "8,4", "--suggest", "3"), ("--suggest 3", "8,4")), (("--weight-bits", "4,8", "--suggest", "6"), ("go down",)),
    (("--weight-bits", "8,4", "--weight-rounding", "floor,ceil"), ("one value",)), (("--weight-bits", "8", "--first-bits", "4"), ("--first-bits",)),
    (("--weight-bits", "8", "--lapq-images", "4"), ("--lapq-images",)), (("--bits", "8,4", "--suggest", "6"), ("--activation-bits",)),
    (("--weight-bits", "8,4", "--suggest", "x"), ("--suggest x",)), (("--weight-bits", "8", "--shard", "1/2"), ("--shard",)),
))
def test_options(options, words, build, trained):
    folder, _ = trained
    result = build.darknet(folder, "kure", "sensitivity", "net.cfg", "net.weights", "colours.data", *options)
    programs.refuse(result, *words, status=2)
