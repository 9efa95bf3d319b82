"""Folding and quantization of single rows: batch norm's edge cases, dorefa, grids, steps that grow with a bias."""
import numpy as np
import pytest

import exported
import networks
from programs import refuse

pytestmark = pytest.mark.sanitize

EPSILON = 1e-5


def cfg(layers=None, **quantization):
    body = networks.conv(6, activation="relu") + networks.conv(8, activation="relu") + networks.classifier_head(3)
    text = networks.net(width=8, height=8, batch=2, subdivisions=1, learning_rate=0) + (layers or body)
    return exported.with_quantization(text, **{k: v for k, v in {**dict(profile="onnx"), **quantization}.items() if v})


def prepare(build, folder, text, change, updates=2):
    """Weights that `change` has been at, and ranges for them: the learning rate is 0."""
    tensors = build.tensors(folder, text)
    rng = np.random.default_rng(5)
    for name, x in tensors.items():
        if name.endswith("rolling_variance"):
            x[:] = rng.uniform(0.2, 2, x.size)
        if name.endswith("rolling_mean") or name.endswith("biases"):
            x[:] = rng.normal(0, 0.3, x.size)
    change(tensors)
    networks.write_weights(folder / "start.weights", text, tensors)
    exported.train(build, folder, text, updates, weights="start.weights")
    return networks.read_weights(folder / "net.weights", text, tensors)  # rolling statistics have moved


def layer_of(bundle, source):
    return next(layer for layer in bundle.layers if layer["source"] == source and "weights" in layer)


def factors(tensors, layer):
    return tensors[f"layers.{layer}.scales"].astype(np.float64) / np.sqrt(tensors[f"layers.{layer}.rolling_variance"].astype(np.float64) + EPSILON)


def narrow(rows, bits=8):
    """Codes and steps of symmetric rows whose range is their largest magnitude"""
    high = 2 ** (bits - 1) - 1
    steps = (abs(rows).max(1) / high).astype(np.float32)
    codes = np.rint(rows / np.where(steps > 0, steps, 1)[:, None])
    return codes, steps


def check_rows(bundle, layer, tensors, source, folded, bits=8):
    """Codes but for those within float32's noise of a tie, steps, biases"""
    codes, steps = narrow(folded, bits)
    own = bundle.weights(layer)
    live = steps > 0
    assert abs(own[live] - codes[live]).max() <= 1 and (own[live] != codes[live]).mean() < 0.002
    assert (own[~live] == 0).all()
    np.testing.assert_allclose(np.array(layer["weight_scales"])[live], steps[live], rtol=1e-6)
    s = factors(tensors, source)
    bias = tensors[f"layers.{source}.biases"] - tensors[f"layers.{source}.rolling_mean"] * s
    scale_in = bundle.tensors[layer["inputs"][0]]["scale"]
    expected = bias / (scale_in * np.array(layer["weight_scales"]))
    assert abs(np.array(layer["biases"]) - expected)[live].max() <= 0.5 + 1e-6 * abs(expected).max()
    return expected


@pytest.mark.parametrize("bits", (8, 4))
def test_negative_and_zero_gamma(bits, build, tmp_path):
    def change(t):
        t["layers.1.scales"][:] = [1, -1, 0, -0.5, 1e-14, 2, -3, 0.25]
    text = cfg(weight_bits=bits)
    tensors = prepare(build, tmp_path, text, change)
    bundle = exported.export(build, tmp_path)
    layer = layer_of(bundle, 1)
    s = factors(tensors, 1)
    s[abs(s) < 2 ** -40 * abs(s).max()] = 0
    check_rows(bundle, layer, tensors, 1, tensors["layers.1.weights"].reshape(8, -1) * s[:, None], bits)
    scale = bundle.tensors[layer["inputs"][0]]["scale"] * np.array(layer["weight_scales"])
    for row in (2, 4):  # the bias alone, finer than the output
        out = bundle.tensors[layer["output"]]["scale"]
        assert abs(layer["biases"][row] * scale[row] - tensors["layers.1.biases"][row]) < out / 2 ** 15
    assert "2 of 8 rows" in bundle.said
    assert layer["weights"]["stored_bits"] == (8 if bits == 8 else 4)
    assert not [row for row in bundle.compare() if row[2]]
    for name, apart in exported.differences(build, tmp_path, text, bundle).items():
        assert apart.mean() < 0.05, name


def test_raw_weights(build, tmp_path):
    """batchnorm=train: the grid is that of w; |s| goes to the scale, its sign to the codes."""
    text = cfg(batchnorm="train")
    tensors = prepare(build, tmp_path, text, lambda t: t["layers.1.scales"].__setitem__(slice(None), [1, -1, 2, -0.5, 1, 2, -3, 0.25]))
    bundle = exported.export(build, tmp_path)
    layer, s = layer_of(bundle, 1), factors(tensors, 1)
    codes, steps = narrow(tensors["layers.1.weights"].reshape(8, -1))
    own = bundle.weights(layer)
    assert (own != codes * np.sign(s)[:, None]).mean() < 0.002
    np.testing.assert_allclose(layer["weight_scales"], steps * abs(s), rtol=1e-6)
    for name, apart in exported.differences(build, tmp_path, text, bundle).items():
        assert apart.mean() < 0.05, name


def test_dorefa(build, tmp_path):
    """Odd codes of one bit more, baked from tanh."""
    text = cfg(method="dorefa", weight_bits=4, profile=None)
    tensors = prepare(build, tmp_path, text, lambda t: None)
    bundle = exported.export(build, tmp_path, "--profile", "onnx")
    layer = layer_of(bundle, 1)
    t = np.tanh(tensors["layers.1.weights"].astype(np.float64))
    codes = 2 * np.rint(15 * (t / (2 * abs(t).max()) + 0.5)) - 15
    assert (bundle.weights(layer) != codes.reshape(8, -1)).mean() < 0.002
    assert layer["weights"]["bits"] == 5 and layer["weights"]["stored_bits"] == 8
    np.testing.assert_allclose(layer["weight_scales"], abs(factors(tensors, 1)) / 15, rtol=1e-6)
    for name, apart in exported.differences(build, tmp_path, text, bundle).items():
        assert apart.mean() < 0.05, name


def test_dorefa_of_eight_bits(build, tmp_path):
    exported.train(build, tmp_path, cfg(method="dorefa", weight_bits=8, profile=None))
    refuse(build.darknet(tmp_path, "kure", "export", "net.cfg", "net.weights", "-o", "net.edge", "--profile", "onnx"), "layer 1", "method=dorefa", "weight_bits=8", "9 bits", "7")


@pytest.mark.parametrize("quantization", (dict(weight_truncation="mse", weight_bits=4), dict(weight_granularity="tensor"), dict(weight_grid="full", weight_bits=4),
                                          dict(profile="pow2", weight_bits=5, activation_bits=7), dict(profile="pow2", weight_granularity="channel", weight_grid="narrow"),
                                          dict(profile="ncnn", weight_bits=6), dict(batchnorm="freeze", freeze_at=1), dict(method="pact", activation_symmetric=0)))
def test_other_quantizers(quantization, build, tmp_path):
    text = cfg(**quantization)
    prepare(build, tmp_path, text, lambda t: t["layers.1.scales"].__setitem__(slice(None), [1, -1, 2, -0.5, 1, 2, -3, 0.25]), 3)
    bundle = exported.export(build, tmp_path)
    layer = layer_of(bundle, 1)
    assert layer["granularity"] == quantization.get("weight_granularity", "tensor" if quantization.get("profile") == "pow2" else "channel")
    if layer["granularity"] == "tensor":
        assert len(set(layer["weight_scales"])) == 1
    assert not [row for row in bundle.compare() if row[2]]
    for name, apart in exported.differences(build, tmp_path, text, bundle).items():
        assert apart.mean() < 0.3, name


def test_a_bias_that_does_not_fit(build, tmp_path):
    """Beyond 2^30 steps: the row's step doubles until it does, and is reported."""
    def change(t):
        t["layers.1.weights"].reshape(8, -1)[3] *= 1e-7
        t["layers.1.biases"][3] = 50
    body = networks.conv(6, activation="relu") + networks.conv(8, activation="relu", batch_normalize=0) + networks.classifier_head(3)
    text = cfg(body)
    tensors = prepare(build, tmp_path, text, change)
    bundle = exported.export(build, tmp_path)
    layer = layer_of(bundle, 1)
    _, steps = narrow(tensors["layers.1.weights"].reshape(8, -1))
    grown = np.array(layer["weight_scales"]) / steps
    assert np.log2(grown[3]) >= 1 and abs(np.log2(grown[3]) - np.rint(np.log2(grown[3]))) < 1e-4 and np.allclose(np.delete(grown, 3), 1, rtol=1e-5)
    assert 2 ** 29 < abs(layer["biases"][3]) <= 2 ** 30
    assert "row 3 has" in bundle.said and any("2^30" in note["text"] for note in bundle.manifest["notes"])
    assert not [row for row in bundle.compare() if row[2]]


def bias_errors(bundle, tensors):
    """{layer: by how many codes of its output the rounding of its biases moves it at most}"""
    out = {}
    for layer in bundle.layers:
        if "weights" not in layer:
            continue
        i = layer["source"]
        s = factors(tensors, i) if f"layers.{i}.scales" in tensors else 1
        bias = tensors[f"layers.{i}.biases"].astype(np.float64) - (tensors[f"layers.{i}.rolling_mean"] * s if f"layers.{i}.scales" in tensors else 0)
        step = bundle.tensors[layer["inputs"][0]]["scale"] * np.array(layer["weight_scales"])
        out[i] = abs(np.array(layer["biases"]) * step - bias).max() / bundle.tensors[layer["output"]]["scale"]
    return out


def test_learned_steps(build, tmp_path):
    """At the start of lsq the steps of outputs are small beside those of sums, so that biases are coarse: which is said."""
    text = cfg(method="lsq", weight_bits=4).replace("learning_rate=0\n", "learning_rate=0.001\n")
    exported.train(build, tmp_path, text, 5)
    bundle = exported.export(build, tmp_path)
    tensors = networks.read_weights(tmp_path / "net.weights", text, build.tensors(tmp_path, text))
    assert not [row for row in bundle.compare() if row[2]]
    errors = bias_errors(bundle, tensors)
    assert {note["source"] for note in bundle.manifest["notes"] if "biases are rounded" in note["text"]} == {i for i, e in errors.items() if e > 0.25}
    assert max(errors.values()) > 0.25, "the case is there to show one"
    apart = exported.differences(build, tmp_path, text, bundle)
    assert apart["layer_0"].mean() < 0.05 and apart["layer_1"].mean() < 0.05 + 2 * errors[1]


def test_full_grid_and_negative_scales(build, tmp_path):
    """-128 times a negative scale of batchnorm=train has no int8 code."""
    def change(t):
        t["layers.1.scales"][:] = -1
        t["layers.1.weights"].reshape(8, -1)[:, 0] = -abs(t["layers.1.weights"]).max() * 1.05
    prepare(build, tmp_path, cfg(batchnorm="train", weight_grid="full"), change)
    refuse(build.darknet(tmp_path, "kure", "export", "net.cfg", "net.weights", "-o", "net.edge"), "layer 1", "weight_grid=full", "128", "narrow", "fold")


def test_raw_weights_have_no_powers_of_two(build, tmp_path):
    prepare(build, tmp_path, cfg(profile="pow2", batchnorm="train"), lambda t: None)
    refuse(build.darknet(tmp_path, "kure", "export", "net.cfg", "net.weights", "-o", "net.edge"), "layer 0", "power of two", "batchnorm=fold")


def test_proofs(build, tmp_path):
    """Bounds from the codes, in exact integers."""
    prepare(build, tmp_path, cfg(weight_bits=4), lambda t: None)
    bundle = exported.export(build, tmp_path)
    for proof in bundle.manifest["proofs"]:
        layer = bundle.layers[proof["layer"]]
        w, t = bundle.weights(layer), bundle.tensors[layer["inputs"][0]]
        low, high = min(t["low"] - t["zero_point"], 0), max(t["high"] - t["zero_point"], 0)
        bias = np.array(layer["biases"])
        below, above = np.minimum(w * low, w * high).sum(1), np.maximum(w * low, w * high).sum(1)
        assert proof["accumulator_low"] == (below + bias).min() and proof["accumulator_high"] == (above + bias).max()
        partial = max((above + np.maximum(bias, 0)).max(), (np.maximum(-bias, 0) - below).max())
        assert proof["accumulator_partial"] == partial and proof["accumulator_bits"] == int(partial).bit_length() + 1
        x = t["high"] + 128
        pairs = max((max(sum(sorted(row[row > 0])[-2:]), sum(sorted(-row[row < 0])[-2:])) for row in w)) * x
        assert proof["pair_high"] == pairs and proof["fits_int16_pairs"] == bool(pairs <= 32767)
        assert proof["bias_high"] == abs(bias).max() and proof["fits_float32"] == bool(partial <= 2 ** 24)
        assert proof["fits_int16_pairs"] or t["high"] > -128
    assert any(p["fits_int16_pairs"] for p in bundle.manifest["proofs"]), "4-bit weights fit"
