"""method=lsq, pact and dorefa on the real Darknet: one update of all that is learned, against tests/simulated.py."""
import json
import re

import numpy as np
import pytest

import networks
import programs
import simulated
from simulated import Quantizer, Tape
from test_quantization import BATCH, WEIGHTED, cfg_of, first_step, forward, parts

pytestmark = pytest.mark.sanitize

RATE, LEARNED_RATE, BITS = 0.02, 0.5, 4
NAMES = {"0 before": "layers.0.range_before", "0 after": "layers.0.range_after", "2 after": "layers.2.range_after",
         "3 after": "layers.3.range_after", "4 after": "layers.4.range_after", "5 after": "layers.5.range_after",
         "6 after": "layers.6.range_after"}
LEARNED_AT = 5  # in a range's tensor: updates, low and high of two groups, then value, zero point, least, momentum


def sidecar(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    tensors = {name: np.frombuffer(data[8 + length:][slice(*entry["data_offsets"])], np.float32)
               for name, entry in header.items() if name != "__metadata__"}
    short = [re.sub(r"((?:weight_scales|range_\w+))\..*", r"\1", name) for name in tensors]  # without policy and width
    return {**{alias: x for alias, x in zip(short, tensors.values()) if short.count(alias) == 1}, **tensors}


def updated_steps(build, folder, **keys):
    """(tensors before the update, the learned steps after it)"""
    cfg = cfg_of(dict(bits=BITS, method="lsq", learned_rate=LEARNED_RATE, **keys), learning_rate=RATE)
    before, _ = first_step(build, folder, cfg)[0]
    programs.succeed(build.harness(folder, "train", "net.cfg", "after.weights", "-updates", 1, "-weights", "start.weights"))
    return before, sidecar(folder / "after.weights.kure")


def test_one_update_of_every_step(build, tmp_path):
    before, after = updated_steps(build, tmp_path)
    weights, biases, x, truth = parts(before)
    tape = Tape()
    forward(tape, weights, biases, x, BITS)

    def derivative(**changes):
        tape.replay()
        scores = forward(tape, weights, biases, x.astype(np.complex128), BITS, changes=changes.pop("changes"))[1]
        return simulated.cross_entropy(scores, truth).imag / 1e-30

    act, head = Quantizer(BITS, symmetric=False), Quantizer(8, symmetric=False)
    records = dict(zip(NAMES, [r for r in tape.records if isinstance(r, tuple) and r[0].ndim != 1][1:]))
    for name, tensor in NAMES.items():
        quantizer = head if name == "6 after" else act
        step, zero = quantizer.scale(records[name][0])
        features = records[name][0].size / BATCH
        slope = derivative(changes={name: 1e-30j}) / np.sqrt(features * (quantizer.high - zero))
        assert abs(slope) > 1e-6
        assert after[tensor][LEARNED_AT + 1] == zero
        np.testing.assert_allclose(after[tensor][LEARNED_AT], step - LEARNED_RATE * RATE * slope, rtol=1e-5, err_msg=name)

    for layer in WEIGHTED:
        bits = BITS if layer in (2, 4) else 8
        quantizer = Quantizer(bits, symmetric=True, narrow=True)
        rows = after[f"layers.{layer}.weight_scales"].reshape(-1, 4)
        for row in (0, len(rows) - 1):
            unit = np.zeros(len(rows), np.complex128)
            unit[row] = 1e-30j
            step, _ = quantizer.scale(weights[layer][row])
            slope = derivative(changes={layer: unit}) / np.sqrt(weights[layer].shape[1] * quantizer.high)
            np.testing.assert_allclose(rows[row, 0], step - LEARNED_RATE * RATE * slope, rtol=1e-5, err_msg=f"layer {layer}, row {row}")


def test_exponents_are_learned(build, tmp_path):
    """With step=power_of_two the values are log2 of the steps, and the steps in use are powers of two."""
    before, after = updated_steps(build, tmp_path, step="power_of_two")
    values = after["layers.2.weight_scales"].reshape(-1, 4)[:, 0]
    assert (values < 0).all() and (values != np.rint(values)).any()
    for layer in (2, 3, 4, 5):
        steps = np.diff(np.unique(before[f"layers.{layer}.output"]))
        assert np.log2(steps.min()) == np.rint(np.log2(steps.min()))


def test_learned_decay_shrinks(build, tmp_path):
    for name in ("plain", "decayed"):
        (tmp_path / name).mkdir()
    _, plain = updated_steps(build, tmp_path / "plain")
    _, decayed = updated_steps(build, tmp_path / "decayed", learned_decay=1)
    p, d = (x["layers.2.weight_scales"].reshape(-1, 4) for x in (plain, decayed))
    assert (d[:, 0] < p[:, 0]).all()


# ---- pact and dorefa -----------------------------------------------------------

RECTIFIED = (networks.conv(8, batch_normalize=0, activation="relu") + networks.section("maxpool", size=2, stride=2)
             + networks.conv(8, batch_normalize=0, groups=2, activation="relu")
             + networks.section("shortcut", activation="linear", **{"from": -2})
             + networks.conv(6, size=1, batch_normalize=0, activation="relu") + networks.section("route", layers="-1,-2")
             + networks.section("connected", output=3, activation="linear") + networks.section("softmax", groups=1))


def rectified(tape, method, weights, biases, x, clips, changes=None):
    """The network above; the last layer is float."""
    def clip(values, layer):
        values = tape.leaky(values, 0) if layer in (0, 2, 4) else values
        return tape.clipped(values, clips, BITS, (changes or {}).get(layer, 0))

    def inner(layer):
        return tape.dorefa(weights[layer], BITS) if method == "dorefa" else simulated.per_channel(tape, weights[layer], BITS)

    out = {}
    x = tape.quantize(x, Quantizer(8, symmetric=False), (np.float32(1 / 255), -128))
    out[0] = clip(simulated.convolve(x, simulated.per_channel(tape, weights[0], 8), biases[0], 3), 0)
    out[1] = simulated.maxpool2(tape, out[0])
    out[2] = clip(simulated.convolve(out[1], inner(2), biases[2], 3, groups=2), 2)
    out[3] = clip(out[2] + out[1], 3)
    out[4] = clip(simulated.convolve(out[3], inner(4), biases[4], 1), 4)
    out[5] = clip(np.concatenate([out[4], out[3]], 1), 5)
    out[6] = out[5].reshape(BATCH, -1) @ weights[6].T + biases[6]
    return out, out[6]


@pytest.mark.parametrize("method", ("pact", "dorefa"))
def test_rectified_methods(method, build, tmp_path):
    """Outputs, the gradient of the master weights, and with pact one update of every clip."""
    # a bound that no output meets to the bit: at its edge the gradient is a matter of the last digit
    keys = dict(learned_rate=LEARNED_RATE, activation_truncation="fixed", activation_truncation_value=0.7) if method == "pact" else {}
    cfg = cfg_of(dict(bits=BITS, method=method, last_bits=0, **keys), RECTIFIED, learning_rate=RATE)
    before, _ = first_step(build, tmp_path, cfg)[0]
    weights, biases, x, truth = parts(before)
    tape, clips = Tape(), 0.7 if method == "pact" else 1
    outputs, _ = rectified(tape, method, weights, biases, x, clips)
    for layer, expected in outputs.items():
        np.testing.assert_allclose(before[f"layers.{layer}.output"], expected.reshape(-1), rtol=1e-5, atol=1e-6, err_msg=f"layer {layer}")

    def loss(moved, changes=None):
        tape.replay()
        return simulated.cross_entropy(rectified(tape, method, moved, biases, x.astype(np.complex128), clips, changes)[1], truth)

    rng = np.random.default_rng(3)
    for layer in WEIGHTED:
        elements = [(layer, e) for e in {int(abs(weights[layer]).argmax()), *rng.choice(weights[layer].size, 40, replace=False)}]
        expected = -BATCH * simulated.derivatives(loss, weights, elements)
        found = before[f"layers.{layer}.weight_updates"][[e for _, e in elements]]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * abs(expected).max() + 1e-12, err_msg=f"layer {layer}")
    if method == "dorefa":
        return
    programs.succeed(build.harness(tmp_path, "train", "net.cfg", "after.weights", "-updates", 1, "-weights", "start.weights"))
    after = sidecar(tmp_path / "after.weights.kure")
    for layer in (0, 2, 3, 4, 5):
        slope = loss(weights, {layer: 1e-30j}).imag / 1e-30
        np.testing.assert_allclose(after[f"layers.{layer}.range_after"][LEARNED_AT], clips - LEARNED_RATE * RATE * slope, rtol=1e-5, err_msg=f"layer {layer}")


@pytest.mark.parametrize("method", ("pact", "dorefa"))
def test_rectified_methods_resume(method, build, tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir(), halves.mkdir()
    cfg = cfg_of(dict(bits=BITS, method=method), RECTIFIED.replace("batch_normalize=0", "batch_normalize=1", 2), subdivisions=2, seed=1, learning_rate=RATE)
    expected = build.train(whole, cfg, "net.weights", "-updates", 8)
    build.train(halves, cfg, "net.weights", "-updates", 4)
    assert build.train(halves, cfg, "net.weights", "-updates", 8, "-weights", "net.weights") == expected
    assert (halves / "net.weights.kure").read_bytes() == (whole / "net.weights.kure").read_bytes()


@pytest.mark.parametrize("method", ("pact", "dorefa"))
@pytest.mark.parametrize("keys,layers,words", (
    ({}, None, ("layer 0", "negative", "activation=relu")),
    (dict(activation_step="power_of_two"), RECTIFIED, ("activation_step", "method")),
))
def test_rectified_methods_are_refused(method, keys, layers, words, build, tmp_path):
    (tmp_path / "net.cfg").write_text(cfg_of(dict(bits=BITS, method=method, **keys), *([layers] if layers else [])))
    programs.refuse(build.darknet(tmp_path, "kure", "plan", "net.cfg"), method, *words)


def test_dorefa_does_not_fold(build, tmp_path):
    (tmp_path / "net.cfg").write_text(cfg_of(dict(bits=BITS, method="dorefa", batchnorm="fold"), RECTIFIED))
    programs.refuse(build.darknet(tmp_path, "kure", "plan", "net.cfg"), "batchnorm=fold", "dorefa", "train")
