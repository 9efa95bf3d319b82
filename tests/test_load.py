"""How commands read a network: pipes, a crash of Darknet's, layers that no quantizer takes, mode=max."""
import csv
import os
import signal
import subprocess
import time

import pytest

import networks
import programs

pytestmark = pytest.mark.sanitize


def test_a_cfg_from_a_pipe(build, tmp_path):
    """Darknet empties it before the plugin reads it."""
    (tmp_path / "net.cfg").write_text(networks.classifier(None, {}))
    command = f"{build.program('darknet')} kure plan <(cat net.cfg)"
    programs.refuse(programs.run(["bash", "-c", command], tmp_path), "/dev/fd/", "must be a regular file")


def test_a_crash_while_stderr_is_held_is_said(build, tmp_path):
    """Weights that never come keep the loader waiting, until a signal that stands for a fault of its own."""
    (tmp_path / "net.cfg").write_text(networks.classifier(None, {}))
    os.mkfifo(tmp_path / "net.weights")
    process = subprocess.Popen([build.program("darknet"), "kure", "stats", "net.cfg", "net.weights"], cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    writer = None
    try:
        while writer is None and process.poll() is None:
            try:
                writer = os.open(tmp_path / "net.weights", os.O_WRONLY | os.O_NONBLOCK)  # fails until somebody reads
            except OSError:
                time.sleep(0.01)
        process.send_signal(signal.SIGABRT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        if writer is not None:
            os.close(writer)
    assert process.returncode == -signal.SIGABRT
    assert "net.cfg: Darknet crashed while it read this network" in said and "Loading weights" in said, said


LOCAL = networks.conv(4) + networks.section("local", filters=2, size=3, stride=2, pad=1, activation="leaky") + networks.conv(8) + networks.classifier_head(3)


def test_layers_that_stay_float_are_named(build, pictures, tmp_path):
    build.train(tmp_path, networks.classifier({"seed": 1}, layers=LOCAL), "net.weights")
    words = "not quantized: layers of these kinds stay float: 1 [local]\n"
    evaluate = ("kure", "eval", "net.cfg", "net.weights", pictures / "classes.data")
    assert words in programs.succeed(build.darknet(tmp_path, *evaluate, "--weight-bits", "4,2")).stderr
    assert words in programs.succeed(build.darknet(tmp_path, "kure", "stats", "net.cfg", "net.weights")).stderr
    assert "stay float" not in programs.succeed(build.darknet(tmp_path, *evaluate)).stderr


def test_mode_max_chooses_among_layers_with_a_weight(build, pictures, tmp_path):
    """With the worst layer's kurtosis_lambda=0 the next one is regularized: the weights differ from no term at all."""
    def train(name, **kurtosis):
        body = networks.conv(8) + networks.conv(8, kurtosis_lambda=0, kurtosis_target=90) + networks.conv(8) + networks.classifier_head(3)
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.cfg").write_text(networks.classifier({"seed": 1, "max_batches": 3}, {"mode": "max", "log": "log.csv", **kurtosis}, body))
        programs.succeed(build.darknet(tmp_path / name, "classifier", "train", pictures / "classes.data", "net.cfg"))
        with open(tmp_path / name / "log.csv", newline="") as file:
            return (tmp_path / name / "net.weights").read_bytes(), float(next(csv.DictReader(file))["kurtosis_loss"])

    weights, loss = train("max")
    without, logged = train("without", **{"lambda": 0})
    assert weights != without
    assert loss < 100 < logged, "lambda=0 everywhere still logs the worst of all layers"
