"""[quantize]: a layer that quantizes what passes through it."""
import numpy as np
import pytest

import networks
import programs
import simulated
from simulated import Quantizer, Tape
from test_quantization import BATCH, step

pytestmark = pytest.mark.sanitize

HEAD = networks.section("connected", output=3, activation="linear") + networks.section("softmax", groups=1)


def cfg_of(before="", after="", **net_keys):
    """conv, [quantize], and a connected layer; before, after: other sections around it"""
    layers = networks.conv(6, batch_normalize=0) + before + networks.section("quantize", bits=3) + after + HEAD
    return networks.classifier({**dict(batch=BATCH, learning_rate=0.02), **net_keys}, None, layers)


def test_output_and_gradient(build, tmp_path):
    before, _ = step(build, tmp_path, cfg_of())[0]
    w = {i: before[f"layers.{i}.weights"].astype(np.float64).reshape(before[f"layers.{i}.biases"].size, -1) for i in (0, 2)}
    x = before["layers.-1.input"].astype(np.float64).reshape(BATCH, 3, 16, 16)
    truth = before["layers.-1.truth"].astype(np.float64).reshape(BATCH, -1)

    def forward(tape, w):
        y = tape.leaky(simulated.convolve(x, w[0], np.zeros(6), 3))
        q = tape.quantize(y, Quantizer(3, symmetric=False))
        return y, q, q.reshape(BATCH, -1) @ w[2].T

    tape = Tape()
    y, q, _ = forward(tape, w)
    np.testing.assert_allclose(before["layers.0.output"], y.reshape(-1), rtol=1e-4, atol=1e-5, err_msg="the layer before stays float")
    np.testing.assert_allclose(before["layers.1.output"], q.reshape(-1), rtol=1e-4, atol=1e-5)
    assert len(np.unique(before["layers.1.output"])) <= 8

    def loss(moved):
        tape.replay()
        return simulated.cross_entropy(forward(tape, moved)[2], truth)

    elements = [(0, e) for e in range(0, w[0].size, 5)]
    expected = -BATCH * simulated.derivatives(loss, w, elements)
    np.testing.assert_allclose(before["layers.0.weight_updates"][[e for _, e in elements]], expected, rtol=1e-3, atol=1e-4 * abs(expected).max())


def test_under_route_shortcut_and_resizing(build, tmp_path):
    """Layer numbers count it; random=1 resizes it."""
    detector = networks.detector(random=1).replace(networks.conv(12, stride=2), networks.conv(12, stride=2) + networks.section("quantize", bits=4), 1)
    detector = detector.replace("layers=-1,1", "layers=-1,2")
    build.train(tmp_path, detector, "net.weights", "-updates", 3, "-sizes", "64,32,96")


def test_resume(build, tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir(), halves.mkdir()
    expected = build.train(whole, cfg_of(seed=1), "net.weights", "-updates", 6)
    build.train(halves, cfg_of(seed=1), "net.weights", "-updates", 3)
    assert build.train(halves, cfg_of(seed=1), "net.weights", "-updates", 6, "-weights", "net.weights") == expected
    assert (halves / "net.weights.kure").read_bytes() == (whole / "net.weights.kure").read_bytes()


def test_plan_and_clean(build, tmp_path):
    (tmp_path / "net.cfg").write_text(cfg_of(after=networks.section("route", layers="-2")))
    said = programs.succeed(build.darknet(tmp_path, "kure", "plan", "net.cfg", "--clean", "clean.cfg")).stdout
    assert "1  quantize" in said and "3 bits tensor ema" in said
    clean = (tmp_path / "clean.cfg").read_text()
    assert "quantize" not in clean and "[route]\nlayers=-1\n" in clean and "bits" not in clean
    programs.succeed(build.darknet(tmp_path, "kure", "plan", "clean.cfg"))
