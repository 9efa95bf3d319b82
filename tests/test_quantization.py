"""[quantization] in training, on the real Darknet: outputs and gradients against tests/simulated.py."""
import csv
import re

import numpy as np
import pytest

import networks
import programs
import simulated
import test_update
from simulated import Quantizer, Tape

pytestmark = pytest.mark.sanitize

BATCH = 4
LAYERS = (networks.conv(8, batch_normalize=0) + networks.section("maxpool", size=2, stride=2)
          + networks.conv(8, batch_normalize=0, groups=2, activation="relu")
          + networks.section("shortcut", activation="linear", **{"from": -2})
          + networks.conv(6, size=1, batch_normalize=0, activation="linear")
          + networks.section("route", layers="-1,-2")
          + networks.section("connected", output=3, activation="linear") + networks.section("softmax", groups=1))
WEIGHTED = (0, 2, 4, 6)
MAKES = (0, 2, 3, 4, 5, 6)


def cfg_of(quantization, layers=LAYERS, kurtosis=None, **net_keys):
    text = networks.classifier({**dict(batch=BATCH, learning_rate=0.02), **net_keys}, kurtosis, layers)
    return text.replace("\n[", "\n" + networks.section("quantization", **quantization) + "[", 1)


def step(build, folder, cfg, updates=1, *arguments):
    (folder / "net.cfg").write_text(cfg)
    result = build.harness(folder, "step", "net.cfg", "out", "-updates", updates, *arguments)
    assert result.returncode == 0, result.stderr
    return [tuple(networks.read_tensors(folder / f"out.{u}.{moment}") for moment in ("before", "after")) for u in range(updates)]


def first_step(build, folder, cfg, updates=1):
    """As step, from random biases: zero ones make exact ties, which float sums decide by chance."""
    tensors = build.tensors(folder, cfg)
    rng = np.random.default_rng(5)
    for name, x in tensors.items():
        if name.endswith("biases"):
            x[:] = rng.normal(0, 0.1, x.size)
    networks.write_weights(folder / "start.weights", cfg, tensors)
    return step(build, folder, cfg, updates, "-weights", "start.weights")


def forward(tape, weights, biases, x, bits, first=8, last=8, scales=None, changes=None):
    """The network above; weights and biases by layer number. Returns every layer's output and the scores.
    changes: of learned steps, by name of a quantizer or by layer number (of its rows)"""
    changes = changes or {}
    act = Quantizer(bits, symmetric=False)
    head = Quantizer(last, symmetric=False)
    scales = scales or {}

    def quantize(values, quantizer, name):
        return tape.quantize(values, quantizer, scales.get(name), changes.get(name, 0))

    out = {}
    x = tape.quantize(x, Quantizer(first, symmetric=False), (np.float32(1 / (2 ** first - 1)), -2 ** (first - 1)))
    y = simulated.convolve(x, simulated.per_channel(tape, weights[0], first, changes.get(0)), biases[0], 3)
    out[0] = quantize(tape.leaky(quantize(y, act, "0 before")), act, "0 after")
    out[1] = simulated.maxpool2(tape, out[0])
    y = simulated.convolve(out[1], simulated.per_channel(tape, weights[2], bits, changes.get(2)), biases[2], 3, groups=2)
    out[2] = quantize(tape.leaky(y, 0), act, "2 after")
    out[3] = quantize(out[2] + out[1], act, "3 after")
    out[4] = quantize(simulated.convolve(out[3], simulated.per_channel(tape, weights[4], bits, changes.get(4)), biases[4], 1), act, "4 after")
    out[5] = quantize(np.concatenate([out[4], out[3]], 1), act, "5 after")
    y = out[5].reshape(BATCH, -1) @ simulated.per_channel(tape, weights[6], last, changes.get(6)).T + biases[6]
    out[6] = quantize(y, head, "6 after")
    return out, out[6]


def parts(before):
    weights = {i: before[f"layers.{i}.weights"].astype(np.float64).reshape(before[f"layers.{i}.biases"].size, -1) for i in WEIGHTED}
    biases = {i: before[f"layers.{i}.biases"].astype(np.float64) for i in WEIGHTED}
    x = before["layers.-1.input"].astype(np.float64).reshape(BATCH, 3, 16, 16)
    return weights, biases, x, before["layers.-1.truth"].astype(np.float64).reshape(BATCH, -1)


@pytest.mark.parametrize("bits", (2, 4, 8))
def test_outputs_and_gradients(bits, build, tmp_path):
    """The first update: the first minibatch sets the scales from itself."""
    before, _ = first_step(build, tmp_path, cfg_of(dict(bits=bits)))[0]
    weights, biases, x, truth = parts(before)
    tape = Tape()
    outputs, _ = forward(tape, weights, biases, x, bits)
    for i, expected in outputs.items():
        np.testing.assert_allclose(before[f"layers.{i}.output"], expected.reshape(-1), rtol=1e-5, atol=1e-6, err_msg=f"layer {i}")

    def loss(moved):
        tape.replay()
        return simulated.cross_entropy(forward(tape, moved, biases, x.astype(np.complex128), bits)[1], truth)

    rng = np.random.default_rng(bits)
    for i in WEIGHTED:
        elements = [(i, e) for e in rng.choice(weights[i].size, 40, replace=False)]
        expected = -BATCH * simulated.derivatives(loss, weights, elements)
        found = before[f"layers.{i}.weight_updates"][[e for _, e in elements]]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * abs(expected).max() + 1e-12, err_msg=f"layer {i}")
        assert abs(expected).max() > 0


@pytest.mark.parametrize("bits", (2, 3, 5))
def test_values_lie_on_a_grid(bits, build, tmp_path):
    for before, _ in step(build, tmp_path, cfg_of(dict(bits=bits), subdivisions=2), 3):
        for i in MAKES[:-1]:
            values = np.unique(before[f"layers.{i}.output"])
            assert 2 <= len(values) <= 2 ** bits, f"layer {i} has {len(values)} values"
            steps = np.diff(values)
            np.testing.assert_allclose(steps / steps.min(), np.rint(steps / steps.min()), atol=1e-3)


def test_scales_come_from_the_update_before(build, tmp_path):
    """Update 1 quantizes with the ranges of update 0: ema has one value only then."""
    (first, _), (second, _) = first_step(build, tmp_path, cfg_of(dict(bits=4)), 2)
    tape = Tape()
    weights, biases, x, _ = parts(first)
    forward(tape, weights, biases, x, 4)
    act, head = Quantizer(4, symmetric=False), Quantizer(8, symmetric=False)
    records = [r for r in tape.records if isinstance(r, tuple) and r[0].ndim != 1]  # activations; the input's comes first
    names = ["0 before", "0 after", "2 after", "3 after", "4 after", "5 after", "6 after"]
    scales = {name: (head if name == "6 after" else act).scale(r[0]) for name, r in zip(names, records[1:])}
    weights, biases, x, _ = parts(second)
    outputs, _ = forward(Tape(), weights, biases, x, 4, scales=scales)
    for i, expected in outputs.items():
        np.testing.assert_allclose(second[f"layers.{i}.output"], expected.reshape(-1), rtol=1e-4, atol=1e-5, err_msg=f"layer {i}")


@pytest.mark.parametrize("layers", ("every", "detector"))
def test_sixteen_bits_are_nearly_float(layers, build, tmp_path):
    """Every kind of layer is wired up: at 16 bits outputs and gradients are those of float to a part in a hundred."""
    text = (networks.every_layer() if layers == "every" else networks.detector(random=0)).replace("subdivisions=2", "subdivisions=1")
    ours = networks.section("quantization", bits=16, first_bits=16, last_bits=16)
    runs = []
    for name, cfg in (("float", text), ("simulated", text.replace("\n[", "\n" + ours + "[", 1))):
        (tmp_path / name).mkdir()
        runs.append(step(build, tmp_path / name, cfg)[0][0])
    compared = 0
    for name, plain in runs[0].items():
        if name.endswith(("weight_updates", "bias_updates", "scale_updates", "output")):
            difference = np.linalg.norm(runs[1][name] - plain)
            assert difference <= 0.02 * np.linalg.norm(plain) + 1e-6, name
            compared += 1
    assert compared > 15


def test_resizing(build, tmp_path):
    cfg = networks.detector(random=1).replace("\n[", "\n" + networks.section("quantization", bits=4) + "[", 1)
    build.train(tmp_path, cfg, "net.weights", "-updates", 4, "-sizes", "64,32,96")


@pytest.mark.parametrize("keys", ({}, dict(weight_truncation="mse", every=3), dict(activation_truncation="percentile", activation_truncation_value=99.5),
                                  dict(rounding="stochastic"), dict(method="lsq"), dict(method="lsq", step="power_of_two", learned_decay=0.01), dict(batchnorm="train", weight_symmetric=0, weight_grid="full")))
def test_resume_equals_uninterrupted(keys, build, tmp_path):
    """10 updates = 5 + save + new process + 5, with every state there is: ranges, scales, momentum."""
    ours = dict(bits=4, **keys)
    layers = networks.conv(8) + networks.conv(8, groups=2) + networks.section("shortcut", activation="leaky", **{"from": -2}) + networks.classifier_head(3)
    cfg = cfg_of(ours, layers, kurtosis={}, subdivisions=2, seed=1)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir(), halves.mkdir()
    expected = build.train(whole, cfg, "net.weights", "-updates", 10)
    build.train(halves, cfg, "net.weights", "-updates", 5)
    assert build.train(halves, cfg, "net.weights", "-updates", 10, "-weights", "net.weights") == expected
    assert (halves / "net.weights.kure").read_bytes() == (whole / "net.weights.kure").read_bytes()


def test_evaluation(build, pictures, tmp_path):
    """eval is float unless asked; --simulate equals `classifier valid` of the same cfg, which simulates as well."""
    text = cfg_of(dict(bits=3, first_bits=3, last_bits=3), seed=1, max_batches=60, learning_rate=0.01)
    (tmp_path / "net.cfg").write_text(text)
    programs.succeed(build.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg"))
    weights = tmp_path / "net.weights"
    rows = {}
    for name, flags in (("float", ()), ("simulate", ("--simulate",)), ("weights", ("--weight-bits", "3", "--first-bits", "3", "--last-bits", "3"))):
        programs.succeed(build.darknet(tmp_path, "kure", "eval", "net.cfg", weights, pictures / "classes.data", *flags, "--csv", f"{name}.csv"))
        with open(tmp_path / f"{name}.csv", newline="") as file:
            rows[name], = csv.DictReader(file)
    assert rows["float"]["weight_bits"] == rows["float"]["activation_bits"] == "0"
    assert rows["simulate"]["weight_bits"] == rows["simulate"]["activation_bits"] == "3" and rows["simulate"]["activation_truncation"] == "ema"
    assert rows["weights"]["weight_bits"] == "3" and rows["weights"]["activation_bits"] == "0"
    said = programs.succeed(build.darknet(tmp_path, "classifier", "valid", pictures / "classes.data", "net.cfg", weights)).stdout
    assert float(rows["simulate"]["top1"]) == pytest.approx(100 * float(re.findall(r"top 1: ([\d.]+)", said)[-1]), abs=0.01)
    (tmp_path / "net.weights.kure").unlink()
    programs.refuse(build.darknet(tmp_path, "kure", "eval", "net.cfg", weights, pictures / "classes.data", "--simulate"), "layer 0", "range", ".kure")


def test_values_that_are_not_finite(build, tmp_path):
    text = cfg_of(dict(bits=4), learning_rate=1e20)
    (tmp_path / "net.cfg").write_text(text)
    programs.refuse(build.harness(tmp_path, "train", "net.cfg", "out.weights", "-updates", 20), "layer 0", "update")
    assert not (tmp_path / "out.weights").exists()


@pytest.mark.parametrize("subdivisions", (1, 2))
def test_kurtosis_acts_on_the_float_weights(subdivisions, build, tmp_path):
    """With both sections the update is that of [kurtosis] on the master weights, to the formula."""
    keys = dict(batch=test_update.BATCH, learning_rate=test_update.RATE, momentum=test_update.MOMENTUM, decay=test_update.DECAY, subdivisions=subdivisions)
    text = networks.classifier(keys, test_update.FLAT).replace("\n[", "\n" + networks.section("quantization", bits=4) + "[", 1)
    for update, (before, after) in enumerate(step(build, tmp_path, text, 2)):
        test_update.check_update(before, after, test_update.Rule(test_update.FLAT).terms(before, update))


def test_clipped_weights_get_no_gradient(build, tmp_path):
    """A bound of half the weights: beyond it weights do not move but by decay, within it they do."""
    cfg = cfg_of(dict(bits=4, weight_truncation="fixed", weight_truncation_value=0.05))
    before, _ = first_step(build, tmp_path, cfg)[0]
    w, updates = before["layers.2.weights"], before["layers.2.weight_updates"]
    step_size = 0.05 / 7
    clipped = np.rint(abs(w) / np.float32(step_size)) > 7
    assert 0.1 < clipped.mean() < 0.9
    assert (updates[clipped] == 0).all() and (updates[~clipped] != 0).mean() > 0.5  # some filters are dead


@pytest.mark.parametrize("quantized", (False, True))
@pytest.mark.parametrize("activation", ("relu6", "leaky"))
def test_activations_of_the_adapter(activation, quantized, build, tmp_path):
    """relu6 and leaky with slope=, with and without [quantization]: outputs and gradients of the first layer."""
    keys = dict(activation="relu6") if activation == "relu6" else dict(activation="leaky", slope=0.25)
    layers = networks.conv(8, batch_normalize=0, **keys) + networks.section("connected", output=3, activation="linear") + networks.section("softmax", groups=1)
    cfg = cfg_of(dict(bits=8), layers)
    cfg = cfg if quantized else cfg.replace(networks.section("quantization", bits=8), "")
    tensors = build.tensors(tmp_path, cfg)
    tensors["layers.0.weights"] *= 12  # so that many outputs lie above 6
    tensors["layers.0.biases"][:] = 0.3
    networks.write_weights(tmp_path / "start.weights", cfg, tensors)
    before, _ = step(build, tmp_path, cfg, 1, "-weights", "start.weights")[0]
    weights = {i: before[f"layers.{i}.weights"].astype(np.float64).reshape(before[f"layers.{i}.biases"].size, -1) for i in (0, 1)}
    biases = {i: before[f"layers.{i}.biases"].astype(np.float64) for i in (0, 1)}
    x = before["layers.-1.input"].astype(np.float64).reshape(BATCH, 3, 16, 16)
    truth = before["layers.-1.truth"].astype(np.float64).reshape(BATCH, -1)

    def forward(tape, weights, x):
        def quantize(values):
            return tape.quantize(values, Quantizer(8, symmetric=False)) if quantized else values

        def weights_of(i):
            return simulated.per_channel(tape, weights[i], 8) if quantized else weights[i]

        if quantized:
            x = tape.quantize(x, Quantizer(8, symmetric=False), (np.float32(1 / 255), -128))
        y = simulated.convolve(x, weights_of(0), biases[0], 3)
        if activation == "relu6":
            inside = tape.keep(lambda: (y > 0) & (y < 6))
            y = np.where(inside, y, tape.keep(lambda: np.clip(y, 0, 6)))
            if tape.recording:
                assert 0.05 < (y == 6).mean() < 0.9
        else:
            y = tape.leaky(quantize(y), 0.25)
        y = quantize(y)
        return y, quantize(y.reshape(BATCH, -1) @ weights_of(1).T + biases[1])

    tape = Tape()
    y, _ = forward(tape, weights, x)
    np.testing.assert_allclose(before["layers.0.output"], y.reshape(-1), rtol=1e-4, atol=1e-5)

    def loss(moved):
        tape.replay()
        return simulated.cross_entropy(forward(tape, moved, x.astype(np.complex128))[1], truth)

    elements = [(0, e) for e in np.random.default_rng(1).choice(weights[0].size, 40, replace=False)]
    expected = -BATCH * simulated.derivatives(loss, weights, elements)
    np.testing.assert_allclose(before["layers.0.weight_updates"][[e for _, e in elements]], expected, rtol=1e-3, atol=1e-3 * abs(expected).max())
