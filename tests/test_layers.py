"""Fixes of Darknet's layers: 1x1 convolutions against a centred 3x3 twin, and the batch-norm epsilon.

Each case also runs on the build without the fixes and must fail there: so the case can see the fault."""
import numpy as np
import pytest

import networks

pytestmark = pytest.mark.sanitize

CONV = networks.conv
SHORTCUT = networks.section("shortcut", activation="linear", **{"from": -2})
ROUTE = networks.section("route", layers="-1,-2")

# name: (layers with the 1x1 convolution as %s, filters before and behind it, keys of the 1x1, keys of its 3x3 twin)
TWINS = {
    "delta, shortcut": (CONV(6) + "%s" + SHORTCUT + CONV(4), 6, 6, {}, {}),
    "delta, shortcut, no batch norm": (CONV(6) + "%s" + SHORTCUT + CONV(4), 6, 6, {"batch_normalize": 0}, {"batch_normalize": 0}),
    "delta, route": (CONV(6) + "%s" + ROUTE + CONV(4), 6, 5, {}, {}),
    "delta, route, groups": (CONV(6) + "%s" + ROUTE + CONV(4), 6, 4, {"groups": 2}, {"groups": 2}),
    "stride 2": (CONV(6) + "%s" + CONV(4), 6, 5, {"stride": 2}, {"stride": 2}),
    "stride 2, groups": (CONV(6) + "%s" + CONV(4), 6, 4, {"stride": 2, "groups": 2}, {"stride": 2, "groups": 2}),
    "stride 3": (CONV(6) + "%s" + CONV(4), 6, 5, {"stride": 3}, {"stride": 3}),
}
LAYER = 1  # of the 1x1 convolution


def run(build, folder, cfg, name, start=None):
    """Tensors of one step, before the weights move: outputs and summed gradients of all layers."""
    (folder / f"{name}.cfg").write_text(cfg)
    arguments = []
    if start is not None:
        networks.write_weights(folder / f"{name}.weights", cfg, start)
        arguments = ["-weights", f"{name}.weights"]
    result = build.harness(folder, "step", f"{name}.cfg", name, *arguments)
    assert result.returncode == 0, result.stderr
    return networks.read_tensors(folder / f"{name}.0.before")


def centre(tensor):
    """The middle weight of each 3x3 filter."""
    return tensor.reshape(-1, 9)[:, 4]


def twin_differences(build, folder, case):
    """{tensor: relative difference between the net with the 1x1 and its twin}"""
    layers, _, behind, keys, twin_keys = TWINS[case]
    head = networks.classifier_head(3)
    small = networks.net(width=13, height=12) + layers % CONV(behind, size=1, **keys) + head
    large = networks.net(width=13, height=12) + layers % CONV(behind, size=3, **twin_keys) + head
    start = build.tensors(folder, small)
    twin_start = dict(start)
    filters = np.zeros((start[f"layers.{LAYER}.weights"].size, 9), np.float32)
    filters[:, 4] = start[f"layers.{LAYER}.weights"]
    twin_start[f"layers.{LAYER}.weights"] = filters.reshape(-1)
    one, three = run(build, folder, small, "one", start), run(build, folder, large, "three", twin_start)
    differences = {}
    for name in one:
        if not name.endswith(("output", "updates")):
            continue
        b = centre(three[name]) if name == f"layers.{LAYER}.weight_updates" else three[name]
        differences[name] = np.linalg.norm(one[name] - b) / np.linalg.norm(b)
    return differences


@pytest.mark.parametrize("case", TWINS)
def test_1x1_equals_centred_3x3(case, build, tmp_path):
    """Tolerance: float32 sums of up to a few hundred terms in another order."""
    for name, difference in twin_differences(build, tmp_path, case).items():
        assert difference < 2e-5, f"{name}: the 1x1 convolution differs from its 3x3 twin by {difference:.2g}"


@pytest.mark.parametrize("case", TWINS)
def test_without_fixes_1x1_is_wrong(case, builds, tmp_path):
    assert max(twin_differences(builds("seam-on"), tmp_path, case).values()) > 0.05


def batch_norm(x, scale, bias, mean, variance):
    return scale * (x - mean) / np.sqrt(variance + 1e-5) + bias


def epsilon_error(build, folder):
    """How far Darknet's forward with small variances is from (x - m) / sqrt(v + 1e-5)."""
    cfg = networks.net(batch=2) + CONV(5, size=1, activation="linear") + networks.classifier_head(3)
    start = build.tensors(folder, cfg)
    rng = np.random.default_rng(3)
    start["layers.0.rolling_variance"] = np.float32([1e-7, 1e-6, 1e-5, 1e-3, 1])
    start["layers.0.rolling_mean"] = rng.normal(size=5).astype(np.float32)
    start["layers.0.scales"] = rng.normal(size=5).astype(np.float32)
    start["layers.0.biases"] = rng.normal(size=5).astype(np.float32)
    networks.write_weights(folder / "net.weights", cfg, start)
    assert build.harness(folder, "forward", "net.cfg", "out", "-weights", "net.weights").returncode == 0
    seen = networks.read_tensors(folder / "out.0.forward")
    x = seen["layers.-1.input"].reshape(2, 3, -1).astype(np.float64)
    y = np.einsum("oc,bcp->bop", start["layers.0.weights"].reshape(5, 3).astype(np.float64), x)
    column = {name: start[f"layers.0.{name}"].astype(np.float64)[:, None] for name in ("scales", "biases", "rolling_mean", "rolling_variance")}
    expected = batch_norm(y, column["scales"], column["biases"], column["rolling_mean"], column["rolling_variance"])
    got = seen["layers.0.output"].reshape(2, 5, -1)
    return (abs(got - expected).max((0, 2)) / abs(expected).max((0, 2))).max()


def test_batch_norm_epsilon(build, builds, tmp_path):
    assert epsilon_error(build, tmp_path) < 1e-5
    assert epsilon_error(builds("seam-on"), tmp_path) > 0.5, "the case does not see the old epsilon"


def backward_error(build, folder):
    """How far the gradient of the weights before a batch norm is from a finite difference of the loss."""
    cfg = networks.net(batch=6) + CONV(4, size=1) + networks.classifier_head(3)
    start = build.tensors(folder, cfg)
    start["layers.0.weights"] *= np.float32(0.02)  # so that 1e-5 counts beside the variance
    direction = np.random.default_rng(4).normal(size=start["layers.0.weights"].size)

    def loss(t):
        moved = {**start, "layers.0.weights": start["layers.0.weights"] + t * direction}
        tensors = run(build, folder, cfg, "moved", moved)
        probability = tensors["layers.3.output"].astype(np.float64)
        return -np.log(probability[tensors["layers.-1.truth"] == 1]).sum()

    h = 2e-3 * np.linalg.norm(start["layers.0.weights"]) / np.linalg.norm(direction)
    numeric = (loss(h) - loss(-h)) / (2 * h)
    analytic = -(run(build, folder, cfg, "at", start)["layers.0.weight_updates"] @ direction)
    return abs(numeric - analytic) / abs(numeric)


def test_batch_norm_backward_fits_its_forward(build, builds, tmp_path):
    assert backward_error(build, tmp_path) < 0.01
    assert backward_error(builds("seam-on"), tmp_path) > 0.03, "the case does not see two epsilons"
