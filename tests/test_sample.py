"""[quantization] sample=: a quantizer drawn in each update."""
import csv

import numpy as np
import pytest

import networks
import programs
from simulated import Tape
from test_learned import sidecar
from test_quantization import BATCH, cfg_of, first_step, forward, parts, step

pytestmark = pytest.mark.sanitize

USE_SAMPLE = 3


def philox(seed, stream, counter):
    """The first word of Philox4x32-10 (Salmon et al. 2011, figure 2)."""
    low, high = (lambda x: x & 0xffffffff), (lambda x: x >> 32)
    c, k = [low(counter), high(counter), low(stream), high(stream)], [low(seed), high(seed)]
    for _ in range(10):
        a, b = c[0] * 0xd2511f53, c[2] * 0xcd9e8d57
        c = [high(b) ^ c[1] ^ k[0], low(b), high(a) ^ c[3] ^ k[1], low(a)]
        k = [low(k[0] + 0x9e3779b9), low(k[1] + 0xbb67ae85)]
    return c[0]


def drawn(seed, update, item, values):
    """What item number `item` of sample= draws from these values."""
    return values[philox(seed, (update << 20) | USE_SAMPLE, item) * len(values) >> 32]


@pytest.mark.parametrize("seed", (1, 3, 4, 5))
def test_first_update_is_that_of_the_drawn_width(seed, build, tmp_path):
    cfg = cfg_of(dict(bits=6, sample="bits:2-8"), seed=seed)
    before, _ = first_step(build, tmp_path, cfg)[0]
    bits = drawn(seed, 0, 0, list(range(2, 9)))
    weights, biases, x, _ = parts(before)
    outputs, _ = forward(Tape(), weights, biases, x, bits)
    for i, expected in outputs.items():
        np.testing.assert_allclose(before[f"layers.{i}.output"], expected.reshape(-1), rtol=1e-4, atol=1e-5, err_msg=f"layer {i}, {bits} bits")


def test_every_update_draws(build, tmp_path):
    """The number of levels behind every layer, by update; the last layer keeps last_bits."""
    cfg = cfg_of(dict(bits=4, sample="weight_bits:3,4 activation_bits:2-6"), seed=9)
    levels = [np.unique(before["layers.4.output"]).size for before, _ in step(build, tmp_path, cfg, 12)]
    widths = [drawn(9, update, 1, list(range(2, 7))) for update in range(12)]
    assert len(set(widths)) > 3 and all(n <= 2 ** bits for n, bits in zip(levels, widths))
    assert all(n > 2 ** bits / 3 for n, bits in zip(levels, widths)), (levels, widths)


def test_step_ratio_and_rounding(build, tmp_path):
    def outputs(**keys):
        return np.concatenate([before["layers.4.output"] for before, _ in step(build, tmp_path, cfg_of(dict(bits=4, **keys), seed=2), 6)])

    plain = outputs()
    assert np.array_equal(outputs(sample="step_ratio:0.7-1.3"), outputs(sample="step_ratio:0.7-1.3"))
    for sample in ("step_ratio:0.7-1.3", "rounding:floor,ceil", "step:power_of_two,free", "weight_truncation:mse,minmax"):
        assert not np.array_equal(outputs(sample=sample), plain), sample
    assert np.array_equal(outputs(sample="rounding:half_even weight_step_ratio:1"), plain), "a family of one is that one"


def test_another_quantizer_is_said(build, tmp_path):
    """A training that goes on under another [quantization] says what it was trained with."""
    build.train(tmp_path, cfg_of(dict(bits=4, method="lsq"), seed=1), "net.weights", "-updates", 2)
    (tmp_path / "net.cfg").write_text(cfg_of(dict(bits=3, rounding="floor"), seed=1))
    said = programs.succeed(build.harness(tmp_path, "train", "net.cfg", "net.weights", "-updates", 3, "-weights", "net.weights")).stderr
    line, = (line for line in said.splitlines() if "trained so far with" in line)
    assert "method=lsq" in line and "bits=4" in line and "first_bits" not in line and line.endswith("unlike this cfg")


def test_the_plan_says_what_is_unusual(build, tmp_path):
    (tmp_path / "net.cfg").write_text(cfg_of(dict(bits=4, rounding="floor", weight_step_ratio=0.8, activation_symmetric=1, weight_truncation="sigma", weight_truncation_value=3)))
    programs.succeed(build.darknet(tmp_path, "kure", "plan", "net.cfg", "--csv", "plan.csv"))
    with open(tmp_path / "plan.csv", newline="") as file:
        row = list(csv.DictReader(file))[2]
    assert row["weights"] == "4 bits channel sigma 3 floor x0.8" and row["output"] == "4 bits tensor ema floor symmetric"


def test_a_layer_stands(build, tmp_path):
    layers = networks.conv(8, batch_normalize=0) + networks.conv(8, batch_normalize=0, activation="linear", activation_bits=5) + networks.classifier_head(3)
    text = cfg_of(dict(bits=4, sample="bits:2-4"), layers, seed=1)
    (tmp_path / "net.cfg").write_text(text)
    programs.succeed(build.darknet(tmp_path, "kure", "plan", "net.cfg", "--csv", "plan.csv"))
    with open(tmp_path / "plan.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["weights"] == "4 bits channel minmax, drawn" and rows[1]["output"] == "5 bits tensor ema"
    assert rows[0]["weights"] == "8 bits channel minmax", "first_bits stand"


FAMILIES = (
    dict(sample="bits:3-8 rounding:half_even,floor,stochastic step_ratio:0.8-1.2"),
    dict(sample="activation_bits:2-8 activation_truncation:ema,mse,minmax weight_truncation:minmax,mse"),
    dict(method="lsq", sample="weight_bits:2-5 activation_bits:3,8 rounding:half_even,half_up"),
)


@pytest.mark.parametrize("keys", FAMILIES, ids=("policies", "truncations", "lsq"))
@pytest.mark.long
def test_resume_equals_uninterrupted(keys, build, tmp_path):
    bits = dict(weight_bits=4, activation_bits=8)
    layers = networks.conv(8) + networks.conv(8, groups=2) + networks.section("shortcut", activation="leaky", **{"from": -2}) + networks.classifier_head(3)
    cfg = cfg_of({**bits, **keys}, layers, kurtosis={}, subdivisions=2, seed=1)
    whole, halves, threads = tmp_path / "whole", tmp_path / "halves", tmp_path / "threads"
    for folder in (whole, halves, threads):
        folder.mkdir()
    expected = build.train(whole, cfg, "net.weights", "-updates", 12)
    build.train(halves, cfg, "net.weights", "-updates", 5)
    assert build.train(halves, cfg, "net.weights", "-updates", 12, "-weights", "net.weights") == expected
    assert (halves / "net.weights.kure").read_bytes() == (whole / "net.weights.kure").read_bytes()
    assert build.train(threads, cfg, "net.weights", "-updates", 12, env={"OMP_NUM_THREADS": "3"}) == expected


def test_a_learned_step_for_every_width(build, tmp_path):
    cfg = cfg_of(dict(weight_bits=4, activation_bits=8, method="lsq", sample="weight_bits:3-5 activation_bits:6,8"), seed=3)
    build.train(tmp_path, cfg, "net.weights", "-updates", 30)
    tensors = sidecar(tmp_path / "net.weights.kure")
    steps = {bits: tensors[f"layers.2.weight_scales{suffix}"].reshape(-1, 4)[:, 0] for bits, suffix in ((3, ".lsq.3"), (4, ".lsq.4"), (5, ".lsq.5"))}
    assert (steps[3] > 1.5 * steps[4]).all() and (steps[4] > 1.5 * steps[5]).all(), "a width more halves the step, or nearly"
    assert tensors["layers.2.range_after.lsq.8"][5] < tensors["layers.2.range_after.lsq.6"][5] / 2
    assert "layers.0.weight_scales.lsq.3" not in tensors, "the first layer has first_bits"


def test_ranges_serve_all_widths(build, tmp_path):
    """Those of ema do not depend on the width: one range, observed in every update; those of mse do."""
    build.train(tmp_path, cfg_of(dict(bits=4, sample="activation_bits:2-8 activation_truncation:ema,mse"), seed=3), "net.weights", "-updates", 8)
    names = {name for name in sidecar(tmp_path / "net.weights.kure") if name.startswith("layers.2.range_after")}
    assert names == {"layers.2.range_after.ema"} | {f"layers.2.range_after.mse.{bits}" for bits in range(2, 9)}


def test_evaluation_uses_the_sections_own_keys(build, pictures, tmp_path):
    for name, extra in (("plain", {}), ("sampled", dict(sample="weight_bits:2-4 rounding:half_even,floor"))):
        text = cfg_of(dict(bits=4, **extra), seed=1, max_batches=30, learning_rate=0.01)
        (tmp_path / f"{name}.cfg").write_text(text)
    programs.succeed(build.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "sampled.cfg"))
    rows = []
    for cfg in ("sampled.cfg", "plain.cfg"):
        programs.succeed(build.darknet(tmp_path, "kure", "eval", cfg, "sampled.weights", pictures / "classes.data", "--simulate", "--csv", "out.csv"))
        with open(tmp_path / "out.csv", newline="") as file:
            rows += list(csv.DictReader(file))
    assert rows[0]["top1"] == rows[1]["top1"] and rows[0]["weight_bits"] == "4" and rows[0]["weight_rounding"] == "half_even"


def test_another_width_starts_anew(build, tmp_path):
    """A learned step belongs to its width, with sample= and without; what it knew of the others stays."""
    def steps(bits, suffix):
        return sidecar(tmp_path / "net.weights.kure")[f"layers.2.weight_scales.lsq.{suffix}"].reshape(-1, 4)[:, 0].copy()

    keys = dict(activation_bits=8, method="lsq")
    build.train(tmp_path, cfg_of(dict(weight_bits=4, sample="weight_bits:3-5", **keys), seed=3), "net.weights", "-updates", 20)
    three, four = steps(4, 3), steps(4, 4)
    build.train(tmp_path, cfg_of(dict(weight_bits=3, sample="weight_bits:3-5", learned_rate=0, **keys), seed=3), "net.weights", "-updates", 22,
                "-weights", "net.weights")
    assert np.array_equal(steps(3, 3), three) and np.array_equal(steps(3, 4), four)
    build.train(tmp_path, cfg_of(dict(weight_bits=8, learned_rate=0, **keys), seed=3), "net.weights", "-updates", 23, "-weights", "net.weights")
    assert (steps(8, 8) < three / 4).all()


@pytest.mark.parametrize("keys", (dict(activation_truncation="mse"), dict(method="lsq")), ids=("mse", "lsq"))
def test_prediction_is_possible_from_the_first_update_on(keys, build, tmp_path):
    """Whatever has been drawn so far, the range of the section's own quantizer is known."""
    cfg = cfg_of(dict(bits=8, sample="activation_bits:2-8", **keys), seed=2)
    build.train(tmp_path, cfg, "net.weights", "-updates", 1)
    programs.succeed(build.harness(tmp_path, "forward", "net.cfg", "out", "-weights", "net.weights"))


def test_a_value_for_one_of_the_policies(build, tmp_path):
    cfg = cfg_of(dict(bits=4, weight_truncation="percentile", weight_truncation_value=99, sample="weight_truncation:percentile,minmax,mse"), seed=2)
    build.train(tmp_path, cfg, "net.weights", "-updates", 6)


@pytest.mark.parametrize("sample,extra,words", (
    ("weight_bits:3-8 step_ratio", {}, ("step_ratio", "key:values")), ("weight_bit:3-8", {}, ("weight_bit", "weight_bits")),
    ("weight_bits:1-8", {}, ("1", "2 to 16")), ("weight_bits:8-3", {}, ("backwards",)), ("weight_bits:3-99", {}, ("99", "weight_bits", "2 to 16")),
    ("weight_bits:", {}, ("weight_bits", "no value")), ("weight_bits: 3-8", {}, ("weight_bits", "without a blank")),
    ("weight_bits:3-8;rounding:floor", {}, ("separated by blanks",)), ("weight_bits:4,4", {}, ("twice",)), ("weight_bits:3-8,", {}, ("3-8", "weight_bits")),
    ("weight_bits:4 activation_bits:3-8", dict(activation_bits=0), ("item 2", "nothing")), ("weight_bits:3-8", dict(method="lsq", every=5), ("every",)), ("rounding:nearest", {}, ("rounding=nearest", "half_even")), ("rounding:half_even,", {}, ("rounding",)),
    ("grid:full,narrow", {}, ("grid", "cannot be drawn")), ("granularity:tensor", {}, ("granularity", "cannot be drawn")),
    ("bits:3-8 weight_bits:4", {}, ("weight_bits", "twice")), ("weight_bits:2-3", {}, ("weight_bits:2-3", "bits=4")),
    ("weight_truncation:mse,kl", {}, ("truncation=minmax",)), ("weight_truncation:minmax,percentile", {}, ("percentile", "truncation_value")),
    ("truncation:minmax,ema", {}, ("ema",)), ("step_ratio:0-1", {}, ("step_ratio=0",)), ("bits:3-8", dict(method="pact"), ("sample", "method=ste")),
    ("bits:3-8", dict(method="dorefa"), ("sample", "method=ste")), ("step_ratio:0.8-1.2", dict(method="lsq"), ("lsq", "bits and rounding")),
    ("weight_bits:3-12 weight_truncation:minmax,mse", {}, ("mse", "9", "8")), ("weight_bits:3-8", dict(every=3), ("every", "sample")), ("", {}, ("sample",)),
))
def test_faults(sample, extra, words, build, tmp_path):
    (tmp_path / "net.cfg").write_text(cfg_of(dict(bits=4, sample=sample, **extra)))
    programs.refuse(build.darknet(tmp_path, "kure", "plan", "net.cfg"), "net.cfg:", *words)


def test_comments_and_blanks(build, tmp_path):
    texts = [cfg_of(dict(bits=4, sample=value), seed=1) for value in ("weight_bits:3-8 step_ratio:0.8-1.2", "  weight_bits:3-8 \t step_ratio:0.8-1.2   # why")]
    saved = []
    for i, text in enumerate(texts):
        (tmp_path / f"{i}").mkdir()
        saved.append(build.train(tmp_path / f"{i}", text.replace("\n", "\r\n") if i else text, "net.weights", "-updates", 3))
    assert saved[0] == saved[1]
    (tmp_path / "net.cfg").write_text(texts[0])
    assert 'sample="weight_bits:3-8 step_ratio:0.8-1.2"' in programs.succeed(build.darknet(tmp_path, "kure", "plan", "net.cfg")).stdout
