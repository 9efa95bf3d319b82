"""Hand-stepped updates: what [kurtosis] adds to Darknet's SGD, against the definition of KURE in float64."""
import numpy as np
import pytest

import networks
import reference

pytestmark = pytest.mark.sanitize

BATCH, RATE, MOMENTUM, DECAY = 8, 0.05, 0.9, 0.0005
EPS = 2.0 ** -24
REGULARIZED = (1, 3, 5, 7)  # of networks.classifier: the layers that do not read the input
FLAT = dict(max_step=0, **{"lambda": 20})  # a step well above the rounding of the weights


def cfg_of(kurtosis, layers=None, **net_keys):
    keys = dict(batch=BATCH, learning_rate=RATE, momentum=MOMENTUM, decay=DECAY)
    return networks.classifier({**keys, **net_keys}, kurtosis, layers)


def step(build, folder, cfg, updates=1):
    """[(tensors before, tensors after)] of each update; before: gradients are summed, nothing has moved."""
    (folder / "net.cfg").write_text(cfg)
    result = build.harness(folder, "step", "net.cfg", "out", "-updates", updates)
    assert result.returncode == 0, result.stderr
    return [tuple(networks.read_tensors(folder / f"out.{u}.{moment}") for moment in ("before", "after")) for u in range(updates)]


def double(tensors, layer, name):
    x = tensors.get(f"layers.{layer}.{name}")
    return None if x is None else x.astype(np.float64)


def rows_of(before, layer):
    w = double(before, layer, "weights")
    return w.reshape(double(before, layer, "biases").size, -1)


class Rule:
    """What a [kurtosis] section asks for, layer by layer."""

    def __init__(self, kurtosis, layers=REGULARIZED, targets=None, lambdas=None):
        self.keys, self.layers = dict(kurtosis), layers
        self.targets, self.lambdas = targets or {}, lambdas or {}

    def of(self, key, default):
        return self.keys.get(key, default)

    def share(self, update):
        start, ramp = int(self.of("start", 0)), int(self.of("ramp", 0))
        if update < start:
            return 0.0
        return min(1.0, (update - start + 1) / ramp) if ramp else 1.0

    def losses(self, before):
        out = {}
        for i in self.layers:
            out[i] = reference.loss(rows_of(before, i), self.target(i), self.of("std", "unbiased"), self.of("granularity", "tensor"),
                                    self.fold(before, i))
        return out

    def target(self, i):
        return self.targets.get(i, self.of("target", 1.8))

    def fold(self, before, i):
        gamma = double(before, i, "rolling_variance")
        return (double(before, i, "scales"), gamma) if self.of("fold", 0) and gamma is not None else None

    def terms(self, before, update):
        """{tensor name: lambda * (1/L) * d L_K / d tensor}"""
        mode, terms = self.of("mode", "avg"), {}
        losses = self.losses(before)
        worst = max(losses, key=losses.get)
        for i in self.layers:
            if mode == "max" and i != worst:
                continue
            factor = self.share(update) * self.of("lambda", 1.0) * self.lambdas.get(i, 1.0) / (len(self.layers) if mode == "avg" else 1)
            gw, gg = reference.gradients(rows_of(before, i), self.target(i), self.of("std", "unbiased"),
                                         self.of("granularity", "tensor"), self.fold(before, i))
            terms[f"layers.{i}.weights"] = factor * gw.reshape(-1)
            if gg is not None:
                terms[f"layers.{i}.scales"] = factor * gg
        return terms


BUFFERS = {"weights": "weight_updates", "biases": "bias_updates", "scales": "scale_updates"}


def check_update(before, after, terms, rates=None, rate=RATE):
    """Every weight, bias and scale, and its momentum, is where Darknet's SGD with the extra term leads.

    Tolerance: the float32 roundings of one update: of the sum updates - B*term (relative 2^-24, twice, and 1e-5
    of the term itself, which is the promise of design.md section 5), of decay, of the step and of the weight."""
    checked = 0
    for name in before:
        layer, kind = name.rsplit(".", 1)
        if kind not in BUFFERS or f"{layer}.{BUFFERS[kind]}" not in before:
            continue
        w = before[name].astype(np.float64)
        u = before[f"{layer}.{BUFFERS[kind]}"].astype(np.float64)
        term = BATCH * terms.get(name, np.zeros_like(w))
        eta = rate * (rates or {}).get(int(layer.split(".")[1]), 1.0)
        expected, momentum = reference.updated(w, u - term, eta, BATCH, MOMENTUM, DECAY if kind == "weights" else 0)
        slack = 4 * EPS * (abs(u) + abs(term) + DECAY * BATCH * abs(w)) + 1e-5 * np.linalg.norm(term) / np.sqrt(term.size)
        np.testing.assert_array_less(abs(after[f"{layer}.{BUFFERS[kind]}"] - momentum), MOMENTUM * slack + 1e-30, err_msg=f"momentum of {name}")
        np.testing.assert_array_less(abs(after[name] - expected), eta / BATCH * slack + 2 * EPS * abs(w) + 2 * EPS * abs(expected) + 1e-30,
                                     err_msg=name)
        checked += 1
    assert checked >= 8


CASES = {
    "default": {},
    "sum": dict(mode="sum"),
    "max": dict(mode="max"),
    "channel": dict(granularity="channel"),
    "biased": dict(std="biased"),
    "channel, biased, sum": dict(granularity="channel", std="biased", mode="sum"),
    "target": dict(target=3.5),
    "fold": dict(fold=1),
    "fold, biased, max": dict(fold=1, std="biased", mode="max"),
}


@pytest.mark.parametrize("subdivisions", (1, 2, 4))
@pytest.mark.parametrize("case", CASES)
def test_update_equals_formula(case, subdivisions, build, tmp_path):
    kurtosis = {**FLAT, **CASES[case]}
    # rows have 36, 72, 72 and 16 weights: all layers are regularized by channel as well
    for update, (before, after) in enumerate(step(build, tmp_path, cfg_of(kurtosis, subdivisions=subdivisions), updates=2)):
        check_update(before, after, Rule(kurtosis).terms(before, update))


WRONG = {
    "1/L forgotten": lambda rule: rule.keys.update(mode="sum"),
    "the other std": lambda rule: rule.keys.update(std="biased"),
    "lambda 1 % off": lambda rule: rule.keys.update({"lambda": 20.2}),
    "another target": lambda rule: rule.keys.update(target=1.81),
    "channel for tensor": lambda rule: rule.keys.update(granularity="channel"),
    "a layer less": lambda rule: setattr(rule, "layers", REGULARIZED[1:]),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_check_can_fail(mistake, build, tmp_path):
    (before, after), = step(build, tmp_path, cfg_of(FLAT))
    rule = Rule(FLAT)
    check_update(before, after, rule.terms(before, 0))
    WRONG[mistake](rule)
    with pytest.raises(AssertionError):
        check_update(before, after, rule.terms(before, 0))


def test_layer_keys(build, tmp_path):
    """kurtosis_target, kurtosis_lambda, kurtosis=0, learning_rate of single layers."""
    layers = (networks.conv(8, kurtosis=1) + networks.conv(16, kurtosis_target=2.5) + networks.conv(16, kurtosis=0)
              + networks.conv(12, kurtosis_lambda=3, learning_rate=0.5) + networks.conv(12, batch_normalize=0, kurtosis_lambda=0)
              + networks.classifier_head(3))
    rule = Rule(FLAT, (0, 1, 3, 4, 5), targets={1: 2.5}, lambdas={3: 3.0, 4: 0.0})
    (before, after), = step(build, tmp_path, cfg_of(FLAT, layers))
    check_update(before, after, rule.terms(before, 0), rates={3: 0.5})


def test_connected_layers(build, tmp_path):
    layers = (networks.conv(8) + networks.section("maxpool", size=4, stride=4) + networks.section("connected", output=10, batch_normalize=1, activation="leaky")
              + networks.classifier_head(3, connected=True))
    kurtosis = {**FLAT, "connected": 1, "fold": 1}
    (before, after), = step(build, tmp_path, cfg_of(kurtosis, layers))
    check_update(before, after, Rule(kurtosis, (2, 3)).terms(before, 0))


@pytest.mark.parametrize("start,ramp", ((2, 0), (0, 3), (1, 2)))
def test_schedule(start, ramp, build, tmp_path):
    kurtosis = {**FLAT, "start": start, "ramp": ramp}
    for update, (before, after) in enumerate(step(build, tmp_path, cfg_of(kurtosis), updates=5)):
        check_update(before, after, Rule(kurtosis).terms(before, update))


def twin_step(build, folder, kurtosis, **net_keys):
    """weights with [kurtosis] minus weights without, after one update of train_network from the same start."""
    ends = []
    for section in (None, kurtosis):
        cfg = cfg_of(section, **net_keys)
        tensors = build.tensors(folder, cfg)
        build.train(folder, cfg, "out.weights")
        ends.append(networks.read_weights(folder / "out.weights", cfg, tensors))
    return {name: ends[1][name].astype(np.float64) - ends[0][name] for name in ends[0]}, tensors


@pytest.mark.parametrize("subdivisions", (1, 2, 4))
def test_twins_differ_by_the_term(subdivisions, build, tmp_path):
    """The same through Darknet's own train_network. Tolerance: the roundings of two weights (2^-23 of them)."""
    difference, start = twin_step(build, tmp_path, FLAT, subdivisions=subdivisions)
    terms = Rule(FLAT).terms(start, 0)
    for name, moved in difference.items():
        expected = -RATE * terms.get(name, np.zeros_like(moved))
        if name.endswith("weights"):
            np.testing.assert_array_less(abs(moved - expected), 6 * EPS * abs(start[name]) + 1e-5 * abs(expected).max() + 1e-9, err_msg=name)
        else:
            assert not moved.any(), f"{name} moved"


@pytest.mark.parametrize("fold", (0, 1))
@pytest.mark.parametrize("max_step", (0.003, 0.0001))
def test_max_step_limits(max_step, fold, build, tmp_path):
    """With a lambda that would blow the layers up every step has exactly the length that is allowed, and its direction."""
    kurtosis = {"max_step": max_step, "lambda": 1e5, "fold": fold}
    (before, after), = step(build, tmp_path, cfg_of(kurtosis))
    for name, term in Rule(kurtosis).terms(before, 0).items():
        layer, kind = name.rsplit(".", 1)
        w, u = before[name].astype(np.float64), before[f"{layer}.{BUFFERS[kind]}"].astype(np.float64)
        plain, _ = reference.updated(w, u, RATE, BATCH, MOMENTUM, DECAY if kind == "weights" else 0)
        moved = after[name] - plain
        size = np.linalg.norm(w - w.mean()) if kind == "weights" else np.linalg.norm(w)
        rounding = 4 * EPS * np.linalg.norm(w) + 4 * EPS * RATE / BATCH * np.linalg.norm(u)
        assert np.linalg.norm(RATE * term) > 2 * max_step * size, f"{name}: the case asks for no limit"
        assert abs(np.linalg.norm(moved) - max_step * size) < 1e-4 * max_step * size + rounding, name
        cosine = -(moved @ term) / np.linalg.norm(moved) / np.linalg.norm(term)
        assert cosine > 1 - 1e-4 - rounding / np.linalg.norm(moved), name


def test_small_steps_are_not_limited(build, tmp_path):
    """Where the term stays below max_step nothing changes: the same bytes as with max_step=0."""
    results = {build.train(tmp_path, cfg_of({"lambda": 1e-3, "max_step": m}), "out.weights", "-updates", 3) for m in (0, 0.003)}
    assert len(results) == 1
