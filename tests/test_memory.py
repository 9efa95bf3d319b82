"""What [kurtosis], [quantization] and export take of memory: nothing in a hook once the first update is done, and at most
one more copy of outputs and weights, with room to work in for one layer at a time."""
import subprocess
import sys

import pytest

import conftest
import networks
import programs

COUNTER = programs.ROOT / "tests/host/count_allocations.c"
SECTIONS = {
    "kurtosis": dict(kurtosis={}),
    "kurtosis of channels": dict(kurtosis=dict(granularity="channel")),
    "ste": dict(quantization=dict(bits=4)),
    "searched ranges": dict(quantization=dict(bits=4, weight_truncation="mse", activation_truncation="percentile", activation_truncation_value=99, every=1)),
    "stochastic": dict(quantization=dict(bits=4, rounding="stochastic", weight_truncation="laplace", activation_truncation="gauss")),
    "lsq": dict(kurtosis={}, quantization=dict(bits=4, method="lsq")),
    "dorefa": dict(quantization=dict(bits=4, method="dorefa", activation_bits=0)),
}


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    library = tmp_path_factory.mktemp("counter") / "count_allocations.so"
    subprocess.run(["gcc", "-O2", "-fPIC", "-shared", "-Wall", "-Werror", COUNTER, "-o", library], check=True)
    return library


def with_sections(cfg, kurtosis=None, quantization=None):
    for name, keys in (("kurtosis", kurtosis), ("quantization", quantization)):
        if keys is not None:
            cfg = cfg.replace("\n[", "\n" + networks.section(name, **keys) + "[", 1)
    return cfg


def allocations(build, folder, counter, cfg, updates, threads):
    (folder / "net.cfg").write_text(cfg)
    environment = {"LD_PRELOAD": counter, "COUNT_ALLOCATIONS": folder / "count", "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": 1}
    programs.succeed(build.harness(folder, "train", "net.cfg", "out.weights", "-updates", updates, env={k: str(v) for k, v in environment.items()}))
    return int((folder / "count").read_text())


@pytest.mark.parametrize("threads", (1, 2))
def test_no_allocation_in_a_hook(threads, build, counter, tmp_path):
    """From update 4 to 8 a training asks for memory as often as the same training in float: Darknet's own data."""
    plain = networks.classifier(dict(width=32, height=32, seed=1), None, networks.conv(64) + networks.conv(64, groups=2)
                                + networks.section("shortcut", activation="leaky", **{"from": -2}) + networks.conv(64, stride=2)
                                + networks.classifier_head(3, connected=True))
    def counts(cfg):
        return [allocations(build, tmp_path, counter, cfg, updates, threads) for updates in (4, 8)]

    plain_counts, extra = counts(plain), {}
    assert plain_counts[1] > plain_counts[0] > 100, "Darknet allocates an update's data"
    for kind, sections in SECTIONS.items():
        ours = counts(with_sections(plain, **sections))
        assert ours[0] > plain_counts[0], "the counter sees what is allocated at the start"
        extra[kind] = (ours[1] - ours[0]) - (plain_counts[1] - plain_counts[0])
    assert not any(extra.values()), f"allocations in four updates: {extra}"


PEAK = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"


def peak_bytes(build, folder, cfg):
    """The most memory that two updates held at once. A small process stands between: a child begins with what its parent holds."""
    (folder / "net.cfg").write_text(cfg)
    command = [sys.executable, "-c", PEAK, build.program("harness"), "train", "net.cfg", "out.weights", "-updates", "2"]
    return 1024 * int(programs.succeed(programs.run(command, folder)).stdout)


@pytest.mark.parametrize("kind", ("ste", "searched ranges", "lsq"))
def test_one_more_copy_of_outputs_and_weights(kind, build, tmp_path):
    """And room to work in: the largest output, the largest weights, histograms."""
    batch, size = 4, 128
    cfg = (networks.net(batch=batch, width=size, height=size, learning_rate=0.01) + networks.conv(32) + networks.conv(32) + networks.conv(32)
           + networks.section("maxpool", size=2, stride=2) + networks.conv(64) + networks.section("shortcut", activation="leaky", **{"from": -1})
           + networks.section("maxpool", size=8, stride=8) + networks.conv(512) + networks.conv(512) + networks.classifier_head(3))
    outputs = batch * (size ** 2 * 32 * 3 + (size // 2) ** 2 * (32 + 64 + 64) + (size // 16) ** 2 * (64 + 512 + 512 + 3))
    weights = 9 * (3 * 32 + 32 * 32 * 2 + 32 * 64 + 64 * 512 + 512 * 512)
    copy = 4 * (outputs + weights)
    room = 4 * (batch * 32 * size ** 2 + 9 * 512 * 512) + 4e6
    extra = peak_bytes(build, tmp_path, with_sections(cfg, **SECTIONS[kind])) - peak_bytes(build, tmp_path, cfg)
    print(f"{extra / 1e6:.1f} MB more than in float; a copy of outputs and weights is {copy / 1e6:.1f} MB")
    assert extra <= copy + room
    assert extra > copy / 2, "outputs and weights have a copy: memory was not measured"


def test_export_of_yolov3_tiny(build, tmp_path):
    """Random weights, calibrated: from files to a verified bundle within three times the weights."""
    text = (programs.ROOT / "cfg/yolov3-tiny-qat.cfg").read_text().replace("\nbits=4\n", "\nprofile=onnx\nweight_bits=4\n")
    assert "profile=onnx" in text
    networks.write_weights(tmp_path / "net.weights", text, build.tensors(tmp_path, text))
    (tmp_path / "dump.0.loaded").unlink()
    conftest.make_classification(tmp_path, 2, [(80, 60)])
    programs.succeed(build.darknet(tmp_path, "kure", "calibrate", "net.cfg", "net.weights", "classes.data"))
    weights = (tmp_path / "net.weights").stat().st_size
    command = [sys.executable, "-c", PEAK, build.program("darknet"), "kure", "export", "net.cfg", "net.weights", "-o", "net.edge", "--golden", "1"]
    peak = 1024 * int(programs.succeed(programs.run(command, tmp_path)).stdout)
    programs.succeed(build.darknet(tmp_path, "kure", "verify", "net.edge"))
    ratio = (tmp_path / "net.edge" / "model.kure").stat().st_size / weights
    print(f"{peak / weights:.2f} times the weights; model.kure is {ratio:.3f} of them")
    assert 1 < peak / weights < 3 and ratio < 0.15
