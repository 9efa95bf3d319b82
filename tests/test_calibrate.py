"""`darknet kure calibrate`: what activations are, what policies make of them, and the ranges it writes."""
import csv
import json

import numpy as np
import pytest

import networks
import programs
from test_learned import sidecar
from test_post_training import BODY, DATA, IMAGES, Quantizer, cfg_of, scores, trained  # noqa: F401 (a fixture)

pytestmark = pytest.mark.sanitize

PLACES = {("0", "before"): "0 before", ("0", "after"): "0 after", ("2", "before"): "2 before", ("2", "after"): "2 after", ("3", "after"): "3 after",
          ("4", "after"): "4 after", ("5", "after"): "5 after", ("6", "after"): "6 after", ("7", "after"): "7 after"}


def calibrate(build, folder, *arguments, cfg="net.cfg", weights="net.weights", **options):
    result = programs.succeed(build.darknet(folder, "kure", "calibrate", cfg, weights, DATA, "--csv", "out.csv", "--json", "out.json", *arguments, **options))
    with open(folder / "out.csv", newline="") as file:
        return list(csv.DictReader(file)), result


def with_quantization(folder, name, batch=IMAGES, **keys):
    (folder / name).write_text(cfg_of(batch, BODY + networks.section("quantization", **keys)))


def test_the_report_equals_numpy(build, trained):
    folder, x, _, tensors = trained
    rows, _ = calibrate(build, folder, "--activation-truncation", "minmax,mse", "--activation-bits", "5")
    quantizer = Quantizer(5, {})
    scores(tensors, x, quantizer)
    assert [(row["layer"], row["place"]) for row in rows[::2]] == list(PLACES)
    for minmax, mse in zip(rows[::2], rows[1::2]):
        values = quantizer.seen[PLACES[minmax["layer"], minmax["place"]]].reshape(-1)
        bits = int(minmax["bits"])
        assert bits == (8 if minmax["layer"] in "67" else 5), "the layers that feed the loss keep last_bits"
        assert int(minmax["n"]) == values.size and minmax["truncation"] == "minmax" and mse["truncation"] == "mse"
        for column, expected in (("mean", values.mean()), ("std", values.std()), ("min", values.min()), ("max", values.max())):
            assert float(minmax[column]) == pytest.approx(expected, rel=2e-3, abs=2e-4), (minmax['layer'], minmax['place'], column)
        assert float(minmax["zeros"]) == pytest.approx(100 * (values == 0).mean(), abs=0.11)
        assert float(minmax["step"]) == pytest.approx((max(values.max(), 0) - min(values.min(), 0)) / (2 ** bits - 1), rel=1e-4)
        half = 2 ** (bits - 1)
        step, zero = float(mse["step"]), int(mse["zero_point"])
        codes = np.rint(values / step) + zero
        assert float(mse["clipped"]) == pytest.approx(100 * ((codes < -half) | (codes > half - 1)).mean(), abs=0.02)
        noise = ((values - step * (np.clip(codes, -half, half - 1) - zero)) ** 2).sum()
        assert float(mse["sqnr"]) == pytest.approx(10 * np.log10((values ** 2).sum() / noise), abs=0.05)
        assert float(mse["sqnr"]) >= float(minmax["sqnr"]) - 0.02 and float(minmax["clipped"]) == 0
        assert float(minmax["outlier"]) == pytest.approx(abs(values).max() / np.percentile(abs(values), 99.99), rel=0.03)


def test_table_in_csv_and_json(build, trained):
    folder, *_ = trained
    rows, _ = calibrate(build, folder)
    table = json.loads((folder / "out.json").read_text())
    assert table["schema"] == "kure.calibrate/1" and len(table["rows"]) == len(rows) == len(PLACES)
    assert [row["truncation"] for row in rows] == ["ema"] * len(rows) and all(row["bits"] == "8" for row in rows)


def test_without_quantization_nothing_is_written(build, trained):
    folder, *_ = trained
    _, result = calibrate(build, folder)
    assert "net.weights.kure is not written" in result.stderr and not (folder / "net.weights.kure").exists()


def test_simulation_with_the_ranges(build, trained, tmp_path):
    """eval --simulate with calibrated ranges is the same network as eval with the same quantizers."""
    folder, *_ = trained
    (folder / "copy.weights").write_bytes((folder / "net.weights").read_bytes())
    with_quantization(folder, "ptq.cfg", bits=3, activation_truncation="mse")
    programs.refuse(build.darknet(folder, "kure", "eval", "ptq.cfg", "copy.weights", DATA, "--simulate"), "range", ".kure")
    rows, result = calibrate(build, folder, "--report", cfg="ptq.cfg", weights="copy.weights")
    assert not (folder / "copy.weights.kure").exists() and {row["bits"] for row in rows} == {"3", "8"}
    rows, result = calibrate(build, folder, cfg="ptq.cfg", weights="copy.weights")
    assert f"wrote the ranges of {IMAGES} images, by the policies of ptq.cfg, to copy.weights.kure" in result.stderr
    found = {}
    for name, arguments in (("simulate", ("--simulate",)), ("points", ("--bits", "3", "--activation-truncation", "mse", "--calibration-images", IMAGES))):
        programs.succeed(build.darknet(folder, "kure", "eval", "ptq.cfg", "copy.weights", DATA, "--csv", "eval.csv", *arguments))
        with open(folder / "eval.csv", newline="") as file:
            found[name] = float(next(csv.DictReader(file))["top1"])
    assert abs(found["simulate"] - found["points"]) * IMAGES / 100 <= 1.5
    ranges = sidecar(folder / "copy.weights.kure")
    assert not any(name.endswith(".weights") for name in ranges), "no momentum: nothing was trained"
    assert ranges["layers.3.range_after.mse.3"][0] == 1


def test_training_goes_on_from_calibrated_ranges(build, trained):
    """And a calibration keeps the momentum of a training."""
    folder, *_ = trained
    (folder / "on.weights").write_bytes((folder / "net.weights").read_bytes())
    with_quantization(folder, "on.cfg", 16, bits=4)
    calibrate(build, folder, cfg="on.cfg", weights="on.weights")
    programs.succeed(build.darknet(folder, "classifier", "train", DATA, "on.cfg", "on.weights", "-clear"))
    before, trained_file = sidecar(folder / "on.weights.kure"), (folder / "on.weights.kure").read_bytes()
    arguments = ("--seed", 3, "--images", 20)
    programs.refuse(build.darknet(folder, "kure", "calibrate", "on.cfg", "on.weights", DATA, *arguments), "on.weights.kure", "--replace", "--report")
    calibrate(build, folder, *arguments, "--report", cfg="on.cfg", weights="on.weights")
    assert (folder / "on.weights.kure").read_bytes() == trained_file
    calibrate(build, folder, *arguments, "--replace", cfg="on.cfg", weights="on.weights")
    after = sidecar(folder / "on.weights.kure")
    assert np.array_equal(before["layers.3.weights"], after["layers.3.weights"]) and before["layers.3.weights"].any()
    assert not np.array_equal(before["layers.3.range_after"], after["layers.3.range_after"])


def test_learned_steps_of_weights_stay(build, trained):
    """--replace is about ranges of activations."""
    folder, *_ = trained
    with_quantization(folder, "lsq.cfg", 16, bits=4, method="lsq")
    programs.succeed(build.darknet(folder, "classifier", "train", DATA, "lsq.cfg", "net.weights", "-clear"))
    before = sidecar(folder / "lsq.weights.kure")
    calibrate(build, folder, "--replace", cfg="lsq.cfg", weights="lsq.weights")
    after = sidecar(folder / "lsq.weights.kure")
    assert np.array_equal(before["layers.3.weight_scales.lsq.4"], after["layers.3.weight_scales.lsq.4"]) and before["layers.3.weight_scales.lsq.4"].any()
    assert not np.array_equal(before["layers.3.range_after.lsq.4"], after["layers.3.range_after.lsq.4"])


def test_the_report_follows_the_cfg(build, trained):
    """What is not given on the command line is as in the cfg; without quantized activations nothing is written."""
    folder, *_ = trained
    (folder / "cfg.weights").write_bytes((folder / "net.weights").read_bytes())
    with_quantization(folder, "four.cfg", bits=4, activation_truncation="mse", activation_step="power_of_two")
    rows, _ = calibrate(build, folder, "--activation-truncation", "minmax,mse", "--report", cfg="four.cfg", weights="cfg.weights")
    own, _ = calibrate(build, folder, "--report", cfg="four.cfg", weights="cfg.weights")
    assert [row for row in rows if row["truncation"] == "mse"] == own and {row["bits"] for row in own} == {"4", "8"}
    rows, _ = calibrate(build, folder, "--activation-bits", "6", "--report", cfg="four.cfg", weights="cfg.weights")
    assert {row["truncation"] for row in rows} == {"mse"} and {row["bits"] for row in rows} == {"6", "8"}
    with_quantization(folder, "weights.cfg", bits=4, activation_bits=0)
    _, result = calibrate(build, folder, cfg="weights.cfg", weights="cfg.weights")
    assert "weights.cfg quantizes no activations: cfg.weights.kure is not written" in result.stderr and not (folder / "cfg.weights.kure").exists()


def test_the_same_every_time(build, trained):
    folder, *_ = trained
    (folder / "small.cfg").write_text(cfg_of(16))
    first, _ = calibrate(build, folder, "--images", 100, "--activation-truncation", "mse", cfg="small.cfg")
    for threads, isa in ((1, "baseline"), (3, "avx2")):
        assert calibrate(build, folder, "--images", 100, "--activation-truncation", "mse", "--threads", threads, cfg="small.cfg", env={"KURE_ISA": isa})[0] == first
    assert calibrate(build, folder, "--images", 100, "--activation-truncation", "mse", "--seed", 1, cfg="small.cfg")[0] != first


def test_outliers_are_named(build, trained):
    """Every place whose farthest value is 4 times as far as 99.99 % of them, and no other."""
    folder, x, _, tensors = trained
    spiky = {name: x.copy() for name, x in tensors.items()}
    quantizer = Quantizer(8, {})
    scores(tensors, x, quantizer)
    channel = np.sort(quantizer.seen["3 after"][:, 5].reshape(-1))[::-1]  # only its five largest values are to stay above 0
    gain = 10 * quantizer.seen["3 after"].max() / (channel[0] - channel[5])
    spiky["layers.3.biases"][5] = gain * (spiky["layers.3.biases"][5] - channel[5])
    spiky["layers.3.scales"][5] *= gain
    networks.write_weights(folder / "spiky.weights", cfg_of(), spiky)
    _, result = calibrate(build, folder, weights="spiky.weights")
    rows = {(row["layer"], row["place"]): float(row["outlier"]) for row in csv.DictReader(open(folder / "out.csv", newline=""))}
    named = [line for line in result.stderr.splitlines() if "outliers" in line]
    assert {line.split("[")[0] for line in named} == {f"layer {layer} " for (layer, _), times in rows.items() if times >= 4}
    assert any(line.startswith("layer 3 [convolutional], after: outliers: 99.99 % of its values lie within") for line in named)


@pytest.mark.parametrize("arguments,words,status", (
    (("--images", IMAGES + 1), ("--images", f"only {IMAGES}"), 1), (("--images", "0"), ("--images 0",), 2), (("--weight-bits", "4"), ("--help",), 2),
    (("--quantize", "weight_bits=4"), ("activations only",), 2), (("--activation-bits", "0"), ("activation_bits=0",), 2),
    (("--activation-truncation", "best"), ("activation_truncation=best", "mse"), 2), (("--activation-truncation", "percentile"), ("truncation_value",), 2),
    (("--seed", "x"), ("--seed x",), 2), (("--threads", "0"), ("--threads 0",), 2), (("--csv", "net.cfg"), ("net.cfg",), 2),
), ids=lambda v: " ".join(map(str, v)) if isinstance(v, tuple) else str(v))
def test_faults(arguments, words, status, build, trained):
    folder, *_ = trained
    programs.refuse(build.darknet(folder, "kure", "calibrate", "net.cfg", "net.weights", DATA, *arguments), *words, status=status)
