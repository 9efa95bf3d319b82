"""Training on the GPU. The build gpu-on-cpu has GPU=1 and runs Darknet's and our .cu files on the CPU
(tests/host/cuda_on_cpu); with KURE_GPU=native the build under test runs on a GPU (make test-gpu)."""
import csv
import os
import re

import numpy as np
import pytest

import networks
import programs

pytestmark = pytest.mark.gpu
NATIVE = os.environ.get("KURE_GPU") == "native"
ON_GPU = {"KURE_TEST_GPU": "1"}  # the harness'; `darknet` is on the GPU unless -nogpu says otherwise
KINDS = {"tensor": {}, "channel": {"granularity": "channel"}, "fold": {"fold": 1}, "max": {"mode": "max"}}


@pytest.fixture(scope="module")
def gpu(build, builds):
    return build if NATIVE else builds("gpu-on-cpu")


def tensors_after(build, folder, cfg, updates, env, *arguments):
    """[(before, after)] of each update"""
    (folder / "net.cfg").write_text(cfg)
    programs.succeed(build.harness(folder, "step", "net.cfg", "out", "-updates", updates, *arguments, env=env))
    return [tuple(networks.read_tensors(folder / f"out.{u}.{moment}") for moment in ("before", "after")) for u in range(updates)]


def off(a, b):
    return np.linalg.norm(a.astype(np.float64) - b) / max(np.linalg.norm(b.astype(np.float64)), 1e-30)


@pytest.mark.parametrize("kind", KINDS)
def test_training_equals_that_of_the_cpu(kind, gpu, tmp_path):
    """20 updates: weights and batch norm, to the roundings of products summed in another order; momentum, a sum of
    gradients that cancel, to ten times that. Without [kurtosis] the weights of some layer are ten times as far off."""
    net = dict(batch=8, subdivisions=2, learning_rate=0.01)
    cfg, without = networks.classifier(net, {"lambda": 5, **KINDS[kind]}), networks.classifier(net)
    here, there, control = (tensors_after(gpu, tmp_path, text, 20, env)[-1][1] for text, env in ((cfg, {}), (cfg, ON_GPU), (without, {})))
    largest = 0
    for name in here:
        assert off(there[name], here[name]) < (2e-2 if name.endswith("_updates") else 2e-3), name
        largest = max(largest, off(control[name], here[name]) if name.endswith(".weights") else 0)
    assert largest > 2e-2, f"the comparison would not see a term that is missing: {largest}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_term_is_that_of_the_cpu(kind, gpu, tmp_path):
    """A first update, whose weights are the same: the same kurtosis, and the same change by [kurtosis]."""
    ends = {}
    for where, env in (("cpu", {}), ("gpu", ON_GPU)):
        for kurtosis in (None, {"lambda": 20, "max_step": 0, **KINDS[kind]}):
            cfg = networks.classifier(dict(batch=8, learning_rate=0.05), kurtosis)
            (before, after), = tensors_after(gpu, tmp_path, cfg, 1, env)
            ends[where, kurtosis is not None] = before, after
    checked = 0
    for name in ends["cpu", True][1]:
        if not name.endswith("_updates"):
            continue
        term = {where: ends[where, True][1][name].astype(np.float64) - ends[where, False][1][name] for where in ("cpu", "gpu")}
        scale = np.linalg.norm(ends["cpu", False][1][name]) * 1e-5
        assert np.linalg.norm(term["cpu"] - term["gpu"]) <= 1e-4 * np.linalg.norm(term["cpu"]) + scale, name
        checked += np.linalg.norm(term["cpu"]) > 100 * scale
    assert checked >= (1 if kind == "max" else 4)


def test_detector_resizes(gpu, tmp_path):
    cfg = networks.detector({"lambda": 1}, learning_rate=1e-4)
    here, there = (tensors_of_training(gpu, tmp_path, cfg, env, "-updates", 6, "-sizes", "32,64,96") for env in ({}, ON_GPU))
    for name in here:
        assert off(there[name], here[name]) < 1e-5, name


def tensors_of_training(build, folder, cfg, env, *arguments):
    (folder / "net.cfg").write_text(cfg)
    programs.succeed(build.harness(folder, "train", "net.cfg", "out.weights", *arguments, env=env))
    programs.succeed(build.harness(folder, "show", "net.cfg", "dump", "-weights", "out.weights", env=env))
    return networks.read_tensors(folder / "dump.0.loaded")


def test_adam_regularizes(gpu, tmp_path):
    """adam=1 trains on the GPU alone: a network that learns nothing else goes to its target."""
    layers = networks.conv(8) + networks.conv(16, kurtosis=1) + networks.classifier_head(3)
    net = dict(batch=4, adam=1, learning_rate=0.003, decay=0)
    rows = {}
    for weight in (0, 1000):
        (tmp_path / "net.cfg").write_text(networks.classifier(net, {"lambda": weight, "max_step": 0}, layers))
        steps = tensors_after(gpu, tmp_path, (tmp_path / "net.cfg").read_text(), 40, ON_GPU)
        w = steps[-1][1]["layers.1.weights"].astype(np.float64)
        rows[weight] = np.mean((w - w.mean()) ** 4) / np.var(w) ** 2
    assert abs(rows[1000] - 1.8) < 0.15 < abs(rows[0] - 1.8), rows


def train(build, folder, pictures, *arguments, updates=6, env=None, net=None, kurtosis=None):
    cfg = networks.classifier({**dict(batch=4, subdivisions=2, seed=9, max_batches=updates), **(net or {})}, {"log": "log.csv", **(kurtosis or {})})
    folder.mkdir(exist_ok=True)
    (folder / "net.cfg").write_text(cfg)
    return build.darknet(folder, "classifier", "train", pictures / "classes.data", "net.cfg", *arguments, env=env)


def log_of(folder):
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_log_and_resume(gpu, pictures, tmp_path):
    """6 updates = 3 + save + 3, byte for byte, momentum from the GPU and back; the first row is the CPU's."""
    whole, parts, cpu = tmp_path / "whole", tmp_path / "parts", tmp_path / "cpu"
    programs.succeed(train(gpu, whole, pictures))
    programs.succeed(train(gpu, parts, pictures, updates=3))
    programs.succeed(train(gpu, parts, pictures, "net.weights"))
    programs.succeed(train(gpu, cpu, pictures, "-nogpu"))
    for name in ("net.weights", "net.weights.kure", "log.csv"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    first, want = log_of(whole)[0], log_of(cpu)[0]
    for column in want:
        if column.startswith("kurtosis_"):
            assert first[column] == want[column], column
    assert (whole / "net.weights").read_bytes() != (cpu / "net.weights").read_bytes(), "the GPU was not used"


@pytest.mark.skipif(NATIVE, reason="needs two GPUs")
def test_several_gpus(gpu, pictures, tmp_path):
    """One log, of the first; the weights of both averaged every four updates."""
    env = {"KURE_CUDA_DEVICES": "2"}
    programs.succeed(train(gpu, tmp_path, pictures, "-gpus", "0,1", updates=20, env=env))
    updates = [int(row["update"]) for row in log_of(tmp_path)]
    assert updates == sorted(set(updates)) and updates[-1] >= 20
    kurtosis = [float(row["kurtosis_1"]) for row in log_of(tmp_path)]
    assert len(set(kurtosis)) > 3


# ---- what an update costs -------------------------------------------------------------

def counts(build, folder, cfg, updates):
    """launches, copies up, copies down, waits of a training"""
    return counted(build, folder, cfg, updates)[:4]


def counted(build, folder, cfg, updates):
    (folder / "net.cfg").write_text(cfg)
    programs.succeed(build.harness(folder, "train", "net.cfg", "out.weights", "-updates", updates, env={**ON_GPU, "KURE_CUDA_COUNTS": "counts"}))
    return np.array([int(word) for word in (folder / "counts").read_text().split()])


@pytest.mark.skipif(NATIVE, reason="counted by cuda_on_cpu")
@pytest.mark.parametrize("kurtosis,launches,up,down,waits", (({}, 3, 1, 1, 1), ({"mode": "sum"}, 3, 1, 1, 1), ({"lambda": 0}, 0, 0, 0, 0)))
def test_launches_and_copies_of_an_update(kurtosis, launches, up, down, waits, gpu, tmp_path):
    """Of all layers together: sums, power sums, descent; statistics down, constants up. Nothing in the forward pass."""
    def of_an_update(section):
        cfg = networks.classifier(dict(batch=8, subdivisions=2, learning_rate=0.01), section)
        return (counts(gpu, tmp_path, cfg, 12) - counts(gpu, tmp_path, cfg, 2)) / 10
    assert list(of_an_update(kurtosis) - of_an_update(None)) == [launches, up, down, waits]


# ---- refusals -------------------------------------------------------------------------

@pytest.mark.skipif(NATIVE, reason="needs a machine without a GPU")
def test_no_gpu(gpu, pictures, tmp_path):
    none = {"KURE_CUDA_DEVICES": "0"}
    programs.refuse(train(gpu, tmp_path, pictures, env=none), "GPU 0 cannot be used: no CUDA-capable device is detected; -nogpu runs on the CPU")
    programs.succeed(train(gpu, tmp_path, pictures, "-nogpu", env=none))
    assert len(log_of(tmp_path)) == 6


@pytest.mark.skipif(NATIVE, reason="made to fail by cuda_on_cpu")
def test_out_of_memory_at_attach(gpu, pictures, tmp_path):
    said = programs.refuse(train(gpu, tmp_path, pictures, env={"KURE_CUDA_FAIL_PINNED": "1"}), "net.cfg", "[kurtosis]: GPU 0 is out of memory:", "bytes wanted")
    assert re.search(r"\d+ bytes wanted for its tables, \d+ of \d+ free", said)


@pytest.mark.skipif(NATIVE, reason="made to fail by cuda_on_cpu")
def test_error_in_the_middle(gpu, pictures, tmp_path):
    """One sentence, status 1, and what was saved before stays."""
    programs.succeed(train(gpu, tmp_path, pictures, updates=3))
    saved = (tmp_path / "net.weights").read_bytes()
    programs.refuse(train(gpu, tmp_path, pictures, "net.weights", env={"KURE_CUDA_FAIL_DOWN": "1"}),
                    "net.cfg: update 4: [kurtosis]: GPU 0: kernel power_sums: CUDA: unspecified launch failure")
    assert (tmp_path / "net.weights").read_bytes() == saved


@pytest.mark.skipif(NATIVE, reason="there is no other build")
def test_without_gpu_the_bits_are_those_of_the_other_build(build, gpu, tmp_path):
    """A build with GPU=1 computes on the CPU what one without does."""
    cfg = networks.classifier(dict(batch=8, subdivisions=2), {})
    assert build.train(tmp_path, cfg, "a.weights", "-updates", 5) == gpu.train(tmp_path, cfg, "b.weights", "-updates", 5)
