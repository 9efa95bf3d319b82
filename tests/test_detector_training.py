"""Training a detector with KURE and QAT at once: two heads, random=1, subdivisions, a stop; partial weights under a frozen part."""
import csv
import re
import signal
import subprocess
import time

import numpy as np

import networks
import programs

QUANTIZATION = networks.section("quantization", bits=4, weight_truncation="mse", every=20)
REGULARIZED = (1, 2, 3, 6, 9)  # convolutions of networks.detector but the first


def detector(**keys):
    """Few filters, since random=1 trains at 320 x 320 to 608 x 608."""
    text = networks.detector({"log": "log.csv", "lambda": 100}, filters=4,
                             **{**dict(batch=2, subdivisions=2, seed=5, learning_rate=1e-4, burn_in=40, max_batches=100000), **keys})
    return text.replace("anchors=4,5, 8,10", "anchors=60,60, 200,200").replace("\n[", "\n" + QUANTIZATION + "[", 1)


def train_until(done, build, folder, boxes, *weights):
    """Until done(), then SIGINT."""
    with open(folder / "out.txt", "a") as out:
        process = subprocess.Popen([str(build.program("darknet")), "detector", "train", str(boxes / "boxes.data"), "net.cfg", *weights], cwd=folder,
                                   stdout=out, stderr=subprocess.STDOUT, env=programs.ENVIRONMENT)
        deadline = time.monotonic() + 250
        while not done():
            assert process.poll() is None and time.monotonic() < deadline, (folder / "out.txt").read_text()[-2000:]
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130, (folder / "out.txt").read_text()[-2000:]


def rows_of(folder):
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_stop_between_two_sizes(build, boxes, tmp_path):
    """200 updates: 100 without a stop; 100 that are stopped after about 44 and go on in a new process. The same
    weights, momentum and ranges, byte for byte. Both terms act: the loss falls, every kurtosis comes nearer its target."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    files = ("net_100.weights", "net_100.weights.kure")
    for folder in (whole, parts):
        folder.mkdir()
        (folder / "net.cfg").write_text(detector().replace("random=0", "random=1"))
    train_until(lambda: all((whole / name).exists() for name in files), build, whole, boxes)
    train_until(lambda: (parts / "log.csv").exists() and (parts / "log.csv").read_text().count("\n") > 44, build, parts, boxes)
    assert len(rows_of(parts)) < 100
    train_until(lambda: all((parts / name).exists() for name in files), build, parts, boxes, "net.backup")
    for name in files:
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), f"{name} differs after a stop"
    rows = rows_of(whole)[:100]
    assert rows == rows_of(parts)[:100] and [row["update"] for row in rows] == [str(u) for u in range(1, 101)]
    sizes = re.findall(r"^Resizing\n(\d+)$", (whole / "out.txt").read_text(), re.M)
    assert len(sizes) >= 10 and len(set(sizes)) >= 5
    loss = [float(row["loss"]) for row in rows]
    assert np.mean(loss[-40:]) < 0.1 * np.mean(loss[:10])
    for i in REGULARIZED:
        first, last = (abs(float(row[f"kurtosis_{i}"]) - 1.8) for row in (rows[0], rows[-1]))
        assert last < 0.7 * first, f"layer {i}: {first} -> {last}"


def test_partial_weights_under_a_frozen_part(build, boxes, tmp_path):
    """Two convolutions of another detector, frozen by stopbackward: their weights stay and are not regularized, the rest is trained."""
    text = detector(max_batches=12, decay=0)
    (tmp_path / "other.cfg").write_text(detector(max_batches=4, seed=9).replace("log=log.csv", "log=other.csv"))
    programs.succeed(build.darknet(tmp_path, "detector", "train", boxes / "boxes.data", "other.cfg"))
    programs.succeed(build.darknet(tmp_path, "partial", "other.cfg", "other_final.weights", "part.weights", 2))
    before, first, second, after = text.split("[convolutional]\n", 3)
    (tmp_path / "net.cfg").write_text("[convolutional]\n".join([before, first, "stopbackward=1\n" + second, after]))
    said = programs.succeed(build.darknet(tmp_path, "detector", "train", boxes / "boxes.data", "net.cfg", "part.weights", "-clear")).stderr
    assert "part.weights is partial: layers 0-1 of 11 loaded" in said
    given = build.tensors(tmp_path, text, "-weights", "part.weights", name="start.cfg", out="given")
    trained = build.tensors(tmp_path, text, "-weights", "net_final.weights", name="start.cfg", out="trained")
    for name in (n for n in given if n.endswith(".weights")):
        same = np.array_equal(given[name], trained[name])
        assert same == (name in ("layers.0.weights", "layers.1.weights")), name
    with open(tmp_path / "log.csv", newline="") as file:
        columns = next(csv.reader(file))
    assert [c for c in columns if re.fullmatch(r"kurtosis_\d+", c)] == [f"kurtosis_{i}" for i in REGULARIZED[1:]]
