"""batchnorm=freeze: outputs, and gradients of weights, gamma and beta, against the network with batch norm as part of its weights."""
import numpy as np
import pytest

import networks
import programs
import simulated
from simulated import Quantizer, Tape
from test_learned import sidecar
from test_quantization import BATCH, cfg_of, step

pytestmark = pytest.mark.sanitize

LAYERS = (networks.conv(8) + networks.conv(6, stride=2, groups=2, activation="relu")
          + networks.section("connected", output=5, activation="leaky", batch_normalize=1)
          + networks.section("connected", output=3, activation="linear") + networks.section("softmax", groups=1))
ROWS = {0: 8, 1: 6, 2: 5, 3: 3}
NORMALIZED = (0, 1, 2)
BITS, RATE, EPSILON = 4, 0.02, 1e-5


def freeze(**keys):
    return cfg_of({"bits": BITS, "batchnorm": "freeze", "freeze_at": 1, **keys}, LAYERS, learning_rate=RATE)


def start(build, folder, cfg, seen=BATCH):
    """start.weights: random batch norm, with a negative and a zero gamma in each layer."""
    tensors = build.tensors(folder, cfg)
    rng = np.random.default_rng(8)
    for name, x in tensors.items():
        kind = name.rsplit(".", 1)[1]
        if kind == "biases":
            x[:] = rng.normal(0, 0.2, x.size)
        if kind == "rolling_mean":
            x[:] = rng.normal(0, 0.3, x.size)
        if kind == "rolling_variance":
            x[:] = rng.uniform(0.3, 3, x.size)
        if kind == "scales":
            x[:] = rng.uniform(0.5, 1.5, x.size)
            x[1], x[2] = -0.7, 0
    networks.write_weights(folder / "start.weights", cfg, tensors, seen)


def forward(tape, p, x, step_change=None):
    """p: {"0.weights", "0.gamma", "0.beta", "0.mean", "0.variance"...}; the scores and each layer's output."""
    act, head = Quantizer(BITS, symmetric=False), Quantizer(8, symmetric=False)
    changes = step_change or {}

    def parts(i, bits):
        w = p[f"{i}.weights"].reshape(ROWS[i], -1)
        if i not in NORMALIZED:
            return simulated.per_channel(tape, w, bits, changes.get(i)), p[f"{i}.beta"]
        s = p[f"{i}.gamma"] / np.sqrt(p[f"{i}.variance"] + EPSILON)
        q = Quantizer(bits, symmetric=True, narrow=True)
        rows = [tape.quantize(w[c] * s[c], q, step_change=changes.get(i, np.zeros(ROWS[i]))[c]) if p[f"{i}.gamma"][c].real else w[c] * s[c]
                for c in range(ROWS[i])]
        return np.stack(rows), p[f"{i}.beta"] - p[f"{i}.mean"] * s

    out = {}
    x = tape.quantize(x, Quantizer(8, symmetric=False), (np.float32(1 / 255), -128))
    y = simulated.convolve(x, *parts(0, 8), 3)
    out[0] = tape.quantize(tape.leaky(tape.quantize(y, act)), act)
    out[1] = tape.quantize(tape.leaky(simulated.convolve(out[0], *parts(1, BITS), 3, stride=2, groups=2), 0), act)
    w, b = parts(2, BITS)
    out[2] = tape.quantize(tape.leaky(tape.quantize(out[1].reshape(BATCH, -1) @ w.T + b, act)), act)
    w, b = parts(3, 8)
    out[3] = tape.quantize(out[2] @ w.T + b, head)
    return out


NAMES = {"weights": "weights", "gamma": "scales", "beta": "biases", "mean": "rolling_mean", "variance": "rolling_variance"}


def parameters(before):
    return {f"{i}.{ours}": before[f"layers.{i}.{theirs}"].astype(np.float64) for i in ROWS for ours, theirs in NAMES.items()
            if f"layers.{i}.{theirs}" in before}


def data_of(before):
    return (before["layers.-1.input"].astype(np.float64).reshape(BATCH, 3, 16, 16),
            before["layers.-1.truth"].astype(np.float64).reshape(BATCH, -1))


def one_step(build, folder, cfg):
    start(build, folder, cfg)
    return step(build, folder, cfg, 2, "-weights", "start.weights")[0]


@pytest.mark.parametrize("method", ("ste", "lsq"))
def test_outputs_and_gradients(method, build, tmp_path):
    before, after = one_step(build, tmp_path, freeze(method=method))
    p, (x, truth) = parameters(before), data_of(before)
    tape = Tape()
    outputs = forward(tape, p, x)
    for i, expected in outputs.items():
        np.testing.assert_allclose(before[f"layers.{i}.output"], expected.reshape(-1), rtol=1e-5, atol=2e-6, err_msg=f"layer {i}")

    def loss(moved):
        tape.replay()
        return simulated.cross_entropy(forward(tape, moved, x.astype(np.complex128))[3], truth)

    rng = np.random.default_rng(8)
    updates = {"weights": "weight_updates", "gamma": "scale_updates", "beta": "bias_updates"}
    for i in ROWS:
        for ours, theirs in updates.items():
            name = f"{i}.{ours}"
            if name not in p:
                continue
            elements = [(name, e) for e in rng.choice(p[name].size, min(30, p[name].size), replace=False)]
            expected = -BATCH * simulated.derivatives(loss, p, elements)
            found = before[f"layers.{i}.{theirs}"][[e for _, e in elements]]
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * abs(expected).max() + 1e-12, err_msg=name)
            assert abs(expected).max() > 0, name
    for i in NORMALIZED:
        for kind in ("rolling_mean", "rolling_variance"):
            assert np.array_equal(before[f"layers.{i}.{kind}"], after[f"layers.{i}.{kind}"]), "frozen"


def test_step_sizes_of_the_folded_weights_are_learned(build, tmp_path):
    """LSQ's steps are those of the folded tensor, without the division by s."""
    rate = 0.5
    cfg = freeze(method="lsq", learned_rate=rate)
    before, _ = one_step(build, tmp_path, cfg)
    programs.succeed(build.harness(tmp_path, "train", "net.cfg", "after.weights", "-updates", 2, "-weights", "start.weights"))
    after = sidecar(tmp_path / "after.weights.kure")
    p, (x, truth) = parameters(before), data_of(before)
    tape = Tape()
    forward(tape, p, x)
    q = Quantizer(BITS, symmetric=True, narrow=True)
    s = p["1.gamma"] / np.sqrt(p["1.variance"] + EPSILON)
    rows = p["1.weights"].reshape(6, -1) * s[:, None]
    place = 0
    for c in range(6):
        if p["1.gamma"][c] == 0:
            continue
        change = np.zeros(6, np.complex128)
        change[c] = 1e-30j
        tape.replay()
        slope = simulated.cross_entropy(forward(tape, p, x.astype(np.complex128), {1: change})[3], truth).imag / 1e-30
        slope /= np.sqrt(rows[c].size * q.high)
        found = after["layers.1.weight_scales"].reshape(6, 4)[place, 0]
        np.testing.assert_allclose(found, q.scale(rows[c])[0] - rate * RATE * slope, rtol=2e-5)
        place += 1


def test_before_it_freezes_it_folds(build, tmp_path):
    """Updates 0 and 1 are those of batchnorm=fold; then the statistics stand still, after a resume as well."""
    frozen, folded, resumed = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for folder in (frozen, folded, resumed):
        folder.mkdir()
        start(build, folder, freeze(), seen=0)
    a = step(build, frozen, freeze(freeze_at=2), 4, "-weights", "start.weights")
    b = step(build, folded, freeze().replace("batchnorm=freeze", "batchnorm=fold").replace("freeze_at=1\n", ""), 4, "-weights", "start.weights")
    for u in range(2):
        assert all(np.array_equal(x, b[u][1][name]) for name, x in a[u][1].items())
    assert not np.array_equal(a[2][1]["layers.0.weights"], b[2][1]["layers.0.weights"])
    kept = [{name: x for name, x in a[u][1].items() if "rolling" in name} for u in range(4)]
    assert any(not np.array_equal(x, kept[1][name]) for name, x in kept[0].items())
    assert all(np.array_equal(x, kept[u][name]) for u in (2, 3) for name, x in kept[1].items())
    cfg = "seed=1\n".join(freeze(freeze_at=2).split("\n", 1)).replace("[net]seed", "[net]\nseed")
    whole = build.train(frozen, cfg, "whole.weights", "-updates", 5, "-weights", "start.weights")
    build.train(resumed, cfg, "net.weights", "-updates", 3, "-weights", "start.weights")
    assert build.train(resumed, cfg, "net.weights", "-updates", 5, "-weights", "net.weights") == whole


def test_prediction_is_that_of_stock_batch_norm(build, tmp_path):
    """With 16-bit weights the frozen network predicts nearly what the float one does."""
    cfg = freeze(bits=16, activation_bits=0, first_bits=16, last_bits=16)
    start(build, tmp_path, cfg)
    outputs = {}
    for name, text in (("frozen", cfg), ("float", networks.classifier(dict(batch=BATCH, learning_rate=RATE), None, LAYERS))):
        (tmp_path / "net.cfg").write_text(text)
        if name == "frozen":
            programs.succeed(build.harness(tmp_path, "train", "net.cfg", "start.weights", "-updates", 2, "-weights", "start.weights"))
        programs.succeed(build.harness(tmp_path, "forward", "net.cfg", name, "-weights", "start.weights"))
        outputs[name] = networks.read_tensors(tmp_path / f"{name}.0.forward")
    for name, expected in outputs["float"].items():
        if not name.endswith(".output"):
            continue
        np.testing.assert_allclose(outputs["frozen"][name], expected, rtol=2e-3, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("keys,words", (
    (dict(batchnorm="freeze"), ("freeze_at", "at least 1")), (dict(batchnorm="freeze", freeze_at=0), ("freeze_at", "at least 1")),
    (dict(freeze_at=5), ("freeze_at", "batchnorm=freeze")), (dict(batchnorm="freeze", freeze_at=5, start=9), ("freeze_at", "at least 9")),
    (dict(batchnorm="freeze", freeze_at=5, method="dorefa"), ("freeze", "dorefa")), (dict(batchnorm="freeze", freeze_at=5, weight_bits=0), ("freeze", "no layer")), (dict(batchnorm="freeze", freeze_at=-1), ("freeze_at=-1",)),
))
def test_faults(keys, words, build, tmp_path):
    (tmp_path / "net.cfg").write_text(cfg_of(dict(bits=4, **keys), LAYERS))
    programs.refuse(build.darknet(tmp_path, "kure", "plan", "net.cfg"), "net.cfg:", *words)
