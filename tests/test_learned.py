"""method=lsq on the real Darknet: one update of every learned step against tests/simulated.py."""
import json

import numpy as np
import pytest

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
    return {name: np.frombuffer(data[8 + length:][slice(*entry["data_offsets"])], np.float32)
            for name, entry in header.items() if name != "__metadata__"}


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
