"""The training log against NumPy and against what Darknet prints, and the status line of a terminal."""
import csv
import os
import pty
import re
import subprocess

import numpy as np
import pytest

import networks
import programs
import reference

REGULARIZED = (1, 3, 5, 7)  # of networks.classifier
NET = dict(batch=4, subdivisions=2, seed=9, max_batches=6)


def train(build, folder, pictures, kurtosis, net=None, *arguments):
    """(rows of the log, what was printed)"""
    cfg = networks.classifier({**NET, **(net or {})}, None if kurtosis is None else {"log": "log.csv", **kurtosis})
    (folder / "net.cfg").write_text(cfg)
    result = programs.succeed(build.darknet(folder, "classifier", "train", pictures / "classes.data", "net.cfg", *arguments))
    if not (folder / "log.csv").exists():
        return None, result.stdout
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file)), result.stdout


@pytest.mark.sanitize
@pytest.mark.parametrize("keys", ({}, {"mode": "sum"}, {"mode": "max"}, {"granularity": "channel"}, {"fold": 1}, {"std": "biased", "target": 3}),
                         ids=lambda keys: " ".join(f"{k}={v}" for k, v in keys.items()) or "default")
def test_first_row_equals_numpy(keys, build, pictures, tmp_path):
    """Kurtosis and loss are those of the weights as the update found them; the initial ones come from the seed."""
    rows, _ = train(build, tmp_path, pictures, keys, {"max_batches": 1})
    start = build.tensors(tmp_path, (tmp_path / "net.cfg").read_text())
    std, target, granularity = keys.get("std", "unbiased"), keys.get("target", 1.8), keys.get("granularity", "tensor")
    losses = []
    for i in REGULARIZED:
        w = start[f"layers.{i}.weights"].astype(np.float64).reshape(start[f"layers.{i}.biases"].size, -1)
        k = reference.kurtosis(w if granularity == "channel" else w.reshape(-1), std)
        if not keys.get("fold") or f"layers.{i}.scales" not in start:  # rolling variance moves before the update
            assert abs(float(rows[0][f"kurtosis_{i}"]) - np.mean(k)) < 2e-5, i
        losses.append(float(np.mean((k - target) ** 2)))
    if not keys.get("fold"):
        total = {"avg": np.mean, "sum": np.sum, "max": np.max}[keys.get("mode", "avg")](losses)
        assert abs(float(rows[0]["kurtosis_loss"]) - total) < 1e-4 * total + 2e-5


@pytest.mark.sanitize
def test_rows_equal_what_darknet_prints(build, pictures, tmp_path):
    rows, said = train(build, tmp_path, pictures, {}, {"policy": "poly", "power": 2, "max_batches": 8})
    printed = re.findall(r"^(\d+), [\d.]+: ([\d.]+), [\d.]+ avg, ([\d.]+) rate", said, re.M)
    assert [row["update"] for row in rows] == [update for update, _, _ in printed] == [str(u) for u in range(1, 9)]
    for row, (_, loss, _) in zip(rows, printed):
        assert abs(float(row["loss"]) - float(loss)) < 1e-5
    want = [0.1 * (1 - update / 8) ** 2 for update in range(1, 9)]  # Darknet counts an update before it takes the rate
    np.testing.assert_allclose([float(row["rate"]) for row in rows], want, rtol=1e-4, atol=1e-9)


def test_capped_counts_the_layers_that_max_step_held_back(build, pictures, tmp_path):
    for lam, capped in ((1e6, "4"), (1e-6, "0")):
        rows, _ = train(build, tmp_path, pictures, {"lambda": lam})
        assert [row["capped"] for row in rows] == [capped] * 6


def test_every(build, pictures, tmp_path):
    rows, _ = train(build, tmp_path, pictures, {"every": 4}, {"max_batches": 13})
    assert [row["update"] for row in rows] == ["4", "8", "12"]
    all_rows, _ = train(build, tmp_path, pictures, {"every": 1}, {"max_batches": 13})
    assert [row for row in all_rows if int(row["update"]) % 4 == 0] == rows


@pytest.mark.parametrize("keys", ({"lambda": 0}, {"start": 1000}), ids=("lambda 0", "not yet started"))
def test_a_term_without_weight_only_logs(keys, build, pictures, tmp_path):
    """The weights are those of a training without [kurtosis], the log has the kurtosis."""
    train(build, tmp_path, pictures, None)
    plain = (tmp_path / "net.weights").read_bytes()
    rows, _ = train(build, tmp_path, pictures, keys)
    assert (tmp_path / "net.weights").read_bytes() == plain
    assert len(rows) == 6 and all(float(row["kurtosis_1"]) > 1 and row["capped"] == "0" for row in rows)


def test_constant_layer_is_skipped_and_said_once(build, pictures, tmp_path):
    cfg = networks.classifier({**NET, "learning_rate": 0}, {"log": "log.csv"})
    tensors = build.tensors(tmp_path, cfg)
    tensors["layers.3.weights"][:] = 0.5
    networks.write_weights(tmp_path / "start.weights", cfg, tensors)
    (tmp_path / "net.cfg").write_text(cfg)
    result = programs.succeed(build.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg", "start.weights"))
    assert result.stderr.count("[kurtosis] skips layer 3 [convolutional]: all weights are equal") == 1
    with open(tmp_path / "log.csv", newline="") as file:
        assert [row["kurtosis_3"] for row in csv.DictReader(file)] == [""] * 6


def on_terminal(command, folder):
    """(status, what a terminal gets)"""
    parent, child = pty.openpty()
    process = subprocess.Popen([str(word) for word in command], cwd=folder, stdin=child, stdout=child, stderr=child, env=programs.ENVIRONMENT)
    os.close(child)
    shown = b""
    while True:
        try:
            data = os.read(parent, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        shown += data
    os.close(parent)
    return process.wait(timeout=60), shown.decode(errors="replace")


def test_one_status_line_on_a_terminal(build, pictures, tmp_path):
    (tmp_path / "net.cfg").write_text(networks.classifier({**NET, "max_batches": 200}, {}))
    status, shown = on_terminal([build.program("darknet"), "classifier", "train", pictures / "classes.data", "net.cfg"], tmp_path)
    assert status == 0, shown
    last = re.findall(r"update (\d+)/200  loss [\d.]+  rate \S+  \d+ images/s  ETA \d+:\d\d  kurtosis [\d.]+", shown)
    assert last and last[-1] == "200", shown[-500:]
    assert "Loaded:" not in shown and " avg, " not in shown
    assert "Saving weights" in shown
    left = [line.rstrip("\r").split("\r")[-1] for line in shown.split("\n")]  # what stands there in the end
    assert len([line for line in left if "update " in line]) == 1, "the status line scrolls"
    assert not [line for line in left if "Saving" in line and not line.endswith("\033[K")], "a rest of the status line stands behind"


def test_plain_output_elsewhere(build, pictures, tmp_path):
    _, said = train(build, tmp_path, pictures, {})
    assert "Loaded:" in said and " avg, " in said and "\033" not in said
