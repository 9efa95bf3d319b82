"""More than one network in a process, resizing between updates, any number of threads, any instruction set."""
import pytest

import networks
import programs

KURTOSIS = {"fold": 1, "max_step": 0.01}
RESIZABLE = (networks.conv(8) + networks.conv(8, groups=2) + networks.section("maxpool", size=2, stride=2) + networks.conv(8)
             + networks.section("shortcut", activation="linear", **{"from": -2}) + networks.conv(8, size=1)
             + networks.section("route", layers="-1,-3") + networks.classifier_head(3))


def cfg_of(seed, kurtosis=KURTOSIS, layers=None, **keys):
    return networks.classifier({"seed": seed, "batch": 8, "subdivisions": 2, **keys}, kurtosis, layers)


@pytest.mark.sanitize
def test_several_networks_in_one_process(build, tmp_path):
    """Trained in turns, each ends as it does alone: nothing is shared."""
    cfgs = {"a": cfg_of(1), "b": cfg_of(2, {"mode": "max"}), "c": cfg_of(3, None), "d": networks.detector({"granularity": "channel"}, seed=4)}
    alone = {name: build.train(tmp_path, cfg, f"{name}.alone", "-updates", 6, name=f"{name}.cfg") for name, cfg in cfgs.items()}
    pairs = [word for name in cfgs for word in (f"{name}.cfg", f"{name}.weights")]
    programs.succeed(build.harness(tmp_path, "many", *pairs, "-updates", 6))
    for name in cfgs:
        assert (tmp_path / f"{name}.weights").read_bytes() == alone[name], f"network {name} differs from itself alone"
        if (tmp_path / f"{name}.alone.kure").exists():
            assert (tmp_path / f"{name}.weights.kure").read_bytes() == (tmp_path / f"{name}.alone.kure").read_bytes()


@pytest.mark.sanitize
@pytest.mark.parametrize("kind", ("classifier", "detector"))
def test_resizing_between_updates(kind, build, tmp_path):
    """The sizes of activations change, those of weights do not: training goes on, and saving, stopping and resuming
    in between gives the same bytes."""
    cfg = cfg_of(5, layers=RESIZABLE) if kind == "classifier" else networks.detector(KURTOSIS, seed=5)
    sizes = "16,32,24,48" if kind == "classifier" else "32,64,96"
    whole = build.train(tmp_path, cfg, "whole.weights", "-updates", 12, "-sizes", sizes)
    assert whole != build.train(tmp_path, cfg, "fixed.weights", "-updates", 12), "resizing must make a difference"
    assert whole != build.train(tmp_path, cfg.replace("max_step=0.01", "max_step=0.001"), "other.weights", "-updates", 12, "-sizes", sizes)
    build.train(tmp_path, cfg, "half.weights", "-updates", 7, "-sizes", sizes)
    assert build.train(tmp_path, cfg, "half.weights", "-updates", 12, "-sizes", sizes, "-weights", "half.weights") == whole
    assert (tmp_path / "half.weights.kure").read_bytes() == (tmp_path / "whole.weights.kure").read_bytes()


WIDE = networks.conv(32) + networks.conv(64) + networks.conv(128) + networks.conv(64, groups=4) + networks.classifier_head(3)


@pytest.mark.parametrize("kurtosis", (KURTOSIS, {"granularity": "channel"}, None), ids=("fold", "channel", "none"))
def test_threads_change_no_bit(kurtosis, build, tmp_path):
    """Layers large enough for several chunks and threads (73728 weights)."""
    cfg = cfg_of(6, kurtosis, WIDE)
    results = {threads: build.train(tmp_path, cfg, "out.weights", "-updates", 3, env={"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": blas})
               for threads, blas in (("1", "1"), ("2", "2"), ("3", "1"), ("7", "4"))}
    assert len(set(results.values())) == 1, "the number of threads changes the weights"


def test_instruction_sets_change_no_bit(build, tmp_path):
    results = {build.train(tmp_path, cfg_of(6, layers=WIDE), "out.weights", "-updates", 3, env={"KURE_ISA": isa})
               for isa in ("baseline", "avx2", "avx512")}
    assert len(results) == 1


def test_kurtosis_reaches_its_target(build, tmp_path):
    """The term alone (rate for the data kept small): K comes close to K_T within the promised bounds, norms stay."""
    cfg = cfg_of(7, {"target": 1.8, "max_step": 0.01, "lambda": 100}, learning_rate=1e-3, decay=0)
    start = build.tensors(tmp_path, cfg)
    build.train(tmp_path, cfg, "net.weights", "-updates", 400)
    end = build.tensors(tmp_path, cfg, "-weights", "net.weights")
    for layer in (1, 3, 5, 7):
        before, after = (t[f"layers.{layer}.weights"].astype(float) for t in (start, end))
        d = after - after.mean()
        kurtosis = (d ** 4).mean() / (d ** 2).mean() ** 2 * (1 - 1 / d.size) ** 2
        assert abs(kurtosis - 1.8) < 0.1, f"layer {layer}: kurtosis {kurtosis:.3f}"
        assert 0.5 < after.std() / before.std() < 2
