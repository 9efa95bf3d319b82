"""The cfgs in cfg/ for networks that Darknet publishes weights of: their layers, their plans, two updates of each."""
import csv
import math
import re

import numpy as np
import pytest

import conftest
import programs
from test_learned import sidecar

CFG = programs.ROOT / "cfg"
SOURCES = {"yolov3-tiny": ("yolov3-tiny-qat", "yolov3-tiny-kure-qat"), "resnet18": ("resnet18-kure", "resnet18-qat", "resnet18-kure-qat")}
EXAMPLES = [(name, source) for source, names in SOURCES.items() for name in names]
HEADS = {"yolov3-tiny": (15, 22), "resnet18": (27,)}


def sections(text):
    """[(name, {key: value})], without comments and blanks"""
    out = []
    for line in text.splitlines():
        line = line.split("#")[0].replace(" ", "")
        if line.startswith("["):
            out.append((line[1:-1], {}))
        elif line:
            key, value = line.split("=", 1)
            out[-1][1][key] = value
    return out


def has(name, word):
    return word in name.split("-")


def darknets_own(build, source):
    return build.folder / "darknet-src/cfg" / f"{source}.cfg"


def test_all_are_listed():
    listed = re.findall(r"^\| `([^`]+)` \|", (CFG / "README.md").read_text().split("<!-- keys")[0], re.M)
    assert sorted(listed) == sorted(p.name for p in CFG.glob("*.cfg"))
    assert {f"{name}.cfg" for name, _ in EXAMPLES} == {p.name for p in CFG.glob("*.cfg") if not p.name.startswith("fashion")}


@pytest.mark.parametrize("name,source", EXAMPLES)
def test_layers_are_darknets(name, source, build, tmp_path):
    """Every key of every layer, so that published weights fit."""
    programs.succeed(build.darknet(tmp_path, "kure", "plan", CFG / f"{name}.cfg", "--clean", "clean.cfg"))
    clean, own = sections((tmp_path / "clean.cfg").read_text()), sections(darknets_own(build, source).read_text())
    assert clean[1:] == own[1:] and len(own) == (25 if source == "yolov3-tiny" else 30)
    assert all(clean[0][1][key] == own[0][1][key] for key in ("width", "height", "channels"))


@pytest.mark.parametrize("name,source", EXAMPLES)
def test_plan(name, source, build, tmp_path):
    """KURE on all convolutions but the first; every convolution quantized; boxes and scores apart on each yolo head."""
    programs.succeed(build.darknet(tmp_path, "kure", "plan", CFG / f"{name}.cfg", "--csv", "plan.csv"))
    with open(tmp_path / "plan.csv", newline="") as file:
        rows = {int(row["layer"]): row for row in csv.DictReader(file)}
    convolutions = [i for i, row in rows.items() if row["type"] == "convolutional"]
    if has(name, "kure"):
        assert [i for i in convolutions if rows[i]["kurtosis"] == "yes"] == convolutions[1:]
    if not has(name, "qat"):
        return
    outer = (0, *HEADS[source])
    for i in convolutions:
        assert rows[i]["weights"].startswith("8 bits channel mse" if i in outer else "4 bits channel mse"), rows[i]
        assert rows[i]["output"].startswith("8 bits tensor ema" if i in outer[1:] else "4 bits tensor ema"), rows[i]
    apart = [i for i, row in rows.items() if "boxes and scores apart" in row["output"]]
    assert apart == (list(HEADS[source]) if source == "yolov3-tiny" else [])
    assert all(rows[i]["output"].startswith("4 bits") for i, row in rows.items() if row["type"] in ("shortcut", "avgpool"))


def small(name):
    """The example with two updates of two small images; a rate that shows at once."""
    text = (CFG / f"{name}.cfg").read_text()
    changes = dict(batch=2, subdivisions=1, width=64, height=64, max_batches=2, policy="constant", learning_rate=0.001)
    if "resnet18" in name:
        changes.update(min_crop=64, max_crop=80)
    else:
        changes.update(burn_in=0, random=0)  # random=1 starts at 320 x 320
    for key, value in changes.items():
        text, count = re.subn(rf"^{key}=.*$", f"{key}={value}", text, flags=re.M)
        assert count == (2 if key == "random" else 1), key
    return text


def thousand_classes(pictures, folder):
    (folder / "labels.list").write_text("\n".join([*conftest.CLASSES, *(f"class-{i}" for i in range(3, 1000))]) + "\n")
    return conftest.write_data_file(folder / "thousand.data", pictures, classes=1000, labels=folder / "labels.list", names=folder / "labels.list")


def check_log(path, layers):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["update"] for row in rows] == ["1", "2"]
    for row in rows:
        assert all(math.isfinite(float(row[f"kurtosis_{i}"])) for i in layers)
        assert float(row["loss"]) > 0 and float(row["kurtosis_loss"]) > 0


def check_ranges(path, convolutions):
    ranges = {key: x for key, x in sidecar(path).items() if ".range_" in key or key.endswith("weight_scales")}
    for i in convolutions:
        assert {f"layers.{i}.weight_scales", f"layers.{i}.range_after"} <= ranges.keys()
    for key, x in ranges.items():
        assert np.isfinite(x).all() and x.any(), key


@pytest.mark.parametrize("source", SOURCES)
def test_two_updates(source, build, pictures, boxes, tmp_path):
    """Two updates of each from weights of Darknet's own cfg; KURE+QAT ends elsewhere than QAT, so both act."""
    data = boxes / "boxes.data" if source == "yolov3-tiny" else thousand_classes(pictures, tmp_path)
    command = "detector" if source == "yolov3-tiny" else "classifier"
    own = re.sub(r"^(batch|subdivisions)=.*$", r"\1=1", darknets_own(build, source).read_text(), flags=re.M)
    build.train(tmp_path, own, "start.weights", "-updates", 0)
    convolutions = [i for i, (kind, _) in enumerate(sections(own)[1:]) if kind == "convolutional"]
    trained = {}
    for name in SOURCES[source]:
        (tmp_path / f"{name}.cfg").write_text(small(name))
        result = programs.succeed(build.darknet(tmp_path, command, "train", data, f"{name}.cfg", "start.weights", "-clear"))
        assert "is partial" not in result.stderr, "the weights were taken for partial ones"
        losses = [float(x) for x in re.findall(r"([-\w.]+) avg,", result.stdout)]
        assert len(losses) == 2 and all(math.isfinite(x) and x > 0 for x in losses), losses
        weights = tmp_path / (f"{name}_final.weights" if command == "detector" else f"{name}.weights")
        trained[name] = weights.read_bytes()
        if has(name, "qat"):
            check_ranges(tmp_path / f"{weights.name}.kure", convolutions)
        if has(name, "kure"):
            check_log(tmp_path / f"{name}.log.csv", convolutions[1:])
    trained["start"] = (tmp_path / "start.weights").read_bytes()
    assert len({len(x) for x in trained.values()}) == 1 and len(set(trained.values())) == len(trained)
