"""[quantization] through strided, grouped and 1x1 convolutions, upsample, both kinds of route and avgpool, in parts of
a batch: outputs and gradients against tests/simulated.py. Two yolo heads, and sizes that change."""
import numpy as np
import pytest

import networks
import simulated
from simulated import Quantizer, Tape
from test_quantization import cfg_of, first_step, step

pytestmark = pytest.mark.sanitize

IMAGES, BITS = 8, 4
LAYERS = (networks.conv(8, stride=2, batch_normalize=0) + networks.conv(6, size=1, stride=2, batch_normalize=0, activation="relu")
          + networks.section("upsample", stride=2) + networks.section("route", layers="-1,0") + networks.section("route", layers="-1")
          + networks.conv(8, stride=2, groups=2, batch_normalize=0) + networks.conv(3, size=1, batch_normalize=0, activation="linear")
          + networks.section("avgpool") + networks.section("softmax", groups=1))
WEIGHTED = (0, 1, 5, 6)


class Scales:
    """Scales of activations: found from the first minibatch, used by those after it."""

    def __init__(self):
        self.known = {}

    def quantize(self, tape, x, name, bits=BITS):
        quantizer = Quantizer(bits, symmetric=False)
        if name not in self.known:
            self.known[name] = quantizer.scale(x)
        return tape.quantize(x, quantizer, self.known[name])


def forward(tape, scales, weights, biases, x):
    def conv(x, i, size, bits, **how):
        return simulated.convolve(x, simulated.per_channel(tape, weights[i], bits), biases[i], size, **how)

    out = {}
    x = tape.quantize(x, Quantizer(8, symmetric=False), (np.float32(1 / 255), -128))
    y = scales.quantize(tape, conv(x, 0, 3, 8, stride=2), "0 before")
    out[0] = scales.quantize(tape, tape.leaky(y), "0 after")
    out[1] = scales.quantize(tape, tape.leaky(conv(out[0], 1, 1, BITS, stride=2), 0), "1 after")
    out[2] = out[1].repeat(2, 2).repeat(2, 3)
    out[3] = scales.quantize(tape, np.concatenate([out[2], out[0]], 1), "3 after")
    out[4] = out[3]
    y = scales.quantize(tape, conv(out[4], 5, 3, BITS, stride=2, groups=2), "5 before")
    out[5] = scales.quantize(tape, tape.leaky(y), "5 after")
    out[6] = scales.quantize(tape, conv(out[5], 6, 1, 8), "6 after", 8)
    out[7] = scales.quantize(tape, out[6].mean((2, 3)), "7 after", 8)
    return out, out[7]


@pytest.mark.parametrize("subdivisions", (1, 2))
def test_outputs_and_gradients(subdivisions, build, tmp_path):
    """Of the last minibatch, and summed over all of them."""
    whole, _ = first_step(build, tmp_path, cfg_of(dict(bits=BITS), LAYERS, batch=IMAGES))[0]
    x = whole["layers.-1.input"].astype(np.float64).reshape(IMAGES, 3, 16, 16)
    truth = whole["layers.-1.truth"].astype(np.float64).reshape(IMAGES, -1)
    if subdivisions > 1:
        whole, _ = first_step(build, tmp_path, cfg_of(dict(bits=BITS), LAYERS, batch=IMAGES, subdivisions=subdivisions))[0]
    weights = {i: whole[f"layers.{i}.weights"].astype(np.float64).reshape(whole[f"layers.{i}.biases"].size, -1) for i in WEIGHTED}
    biases = {i: whole[f"layers.{i}.biases"].astype(np.float64) for i in WEIGHTED}
    scales, elements, expected = Scales(), {}, {}
    rng = np.random.default_rng(subdivisions)
    for i in WEIGHTED:
        elements[i] = [(i, e) for e in rng.choice(weights[i].size, 20, replace=False)]
        expected[i] = np.zeros(20)
    for part in range(subdivisions):
        images = slice(part * IMAGES // subdivisions, (part + 1) * IMAGES // subdivisions)
        tape = Tape()
        outputs, _ = forward(tape, scales, weights, biases, x[images])

        def loss(moved):
            tape.replay()
            return simulated.cross_entropy(forward(tape, scales, moved, biases, x[images].astype(np.complex128))[1], truth[images])

        for i in WEIGHTED:
            expected[i] -= len(x[images]) * simulated.derivatives(loss, weights, elements[i])
    np.testing.assert_array_equal(whole["layers.-1.input"], x[images].reshape(-1))
    for i, values in outputs.items():
        np.testing.assert_allclose(whole[f"layers.{i}.output"], values.reshape(-1), rtol=1e-5, atol=1e-6, err_msg=f"layer {i}")
    for i in WEIGHTED:
        found = whole[f"layers.{i}.weight_updates"][[e for _, e in elements[i]]]
        assert abs(expected[i]).max() > 0
        np.testing.assert_allclose(found, expected[i], rtol=1e-3, atol=1e-4 * abs(expected[i]).max() + 1e-12, err_msg=f"layer {i}")


def with_quantization(cfg, **keys):
    return cfg.replace("\n[", "\n" + networks.section("quantization", **keys) + "[", 1)


def test_two_yolo_heads(build, tmp_path):
    """Coordinates of boxes and scores lie on grids of their own, on both heads; the loss trains what is in front."""
    cfg = with_quantization(networks.detector(subdivisions=1, seed=1), bits=4, last_bits=3)
    for before, after in step(build, tmp_path, cfg, 2):
        for head, places in ((3, 4 * 4), (9, 8 * 8)):
            rows = before[f"layers.{head}.output"].reshape(4, 2, 7, places)  # image, anchor, row
            boxes, scores = np.unique(rows[:, :, :4]), np.unique(rows[:, :, 4:])
            for values in (boxes, scores):
                assert 4 <= len(values) <= 8 and 0 in values
                steps = np.diff(values)
                np.testing.assert_allclose(steps / steps.min(), np.rint(steps / steps.min()), atol=1e-3)
            assert not np.isin(boxes[boxes != 0], scores).any()
        for layer in (0, 1, 2, 3, 6, 9):
            assert before[f"layers.{layer}.weight_updates"].any() and np.isfinite(after[f"layers.{layer}.weights"]).all()


def test_resume_with_sizes_that_change(build, tmp_path):
    """6 updates of random=1 = 3 + save + new process + 3, byte for byte, in sizes from a quarter to four times."""
    cfg = with_quantization(networks.detector({}, random=1, seed=1, subdivisions=2), bits=4, method="lsq")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    sizes = ("-sizes", "64,32,128")
    expected = build.train(whole, cfg, "net.weights", "-updates", 6, *sizes)
    build.train(parts, cfg, "net.weights", "-updates", 3, *sizes)
    assert build.train(parts, cfg, "net.weights", "-updates", 6, "-weights", "net.weights", *sizes) == expected
    assert (parts / "net.weights.kure").read_bytes() == (whole / "net.weights.kure").read_bytes()
