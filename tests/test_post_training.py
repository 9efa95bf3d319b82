"""Activations quantized after training, and batch norm estimated anew: `kure eval` against the same network in NumPy."""
import csv

import numpy as np
import pytest

import networks
import programs
import simulated
from conftest import write_data_file
from test_eval import quantize_any

pytestmark = pytest.mark.sanitize

CLASSES, IMAGES, SIDE = 6, 192, 16
BODY = (networks.conv(8) + networks.section("maxpool", size=2, stride=2) + networks.conv(12, groups=2, batch_normalize=0)
        + networks.conv(12, activation="relu") + networks.section("shortcut", activation="linear", **{"from": -2})
        + networks.section("route", layers="-1,-3") + networks.conv(CLASSES, size=1, batch_normalize=0, activation="linear")
        + networks.section("avgpool") + networks.section("softmax", groups=1))
NORMALIZED = (0, 3)
DATA = "patches.data"


def cfg_of(batch=IMAGES, body=BODY):
    return networks.net(batch=batch, learning_rate=0.05, max_batches=40, seed=3, width=SIDE, height=SIDE) + body


@pytest.fixture(scope="module")
def trained(build, tmp_path_factory):
    """A folder with net.cfg, net.weights and the data; pixels [n, 3, h, w], truth [n] and the tensors."""
    from PIL import Image
    folder = tmp_path_factory.mktemp("patches")
    rng = np.random.default_rng(8)
    pixels = np.zeros((IMAGES, SIDE, SIDE, 3), np.uint8)
    paths = []
    for i in range(IMAGES):
        k = i % CLASSES
        colour = 128 + 60 * np.array([(k & 1) - .5, (k >> 1 & 1) - .5, (k >> 2 & 1) - .5]) + rng.normal(0, 40, 3)
        pixels[i] = np.clip(colour + rng.normal(0, 45, (SIDE, SIDE, 3)), 0, 255)
        paths.append(str(folder / f"{i:03d}_a{k}.png"))
        Image.fromarray(pixels[i]).save(paths[-1])
    for name in ("train.list", "valid.list"):
        (folder / name).write_text("\n".join(paths) + "\n")
    (folder / "labels.list").write_text("".join(f"_a{k}\n" for k in range(CLASSES)))
    write_data_file(folder / DATA, folder, classes=CLASSES, top=5)
    (folder / "train.cfg").write_text(cfg_of(16))
    (folder / "net.cfg").write_text(cfg_of())
    programs.succeed(build.darknet(folder, "classifier", "train", DATA, "train.cfg"))
    (folder / "train.weights").rename(folder / "net.weights")
    (folder / "train.weights.kure").unlink()
    tensors = {name: x.astype(np.float64) for name, x in build.tensors(folder, cfg_of(), "-weights", "net.weights").items()}
    return folder, pixels.transpose(0, 3, 1, 2) / 255.0, np.arange(IMAGES) % CLASSES, tensors


def evaluate(build, folder, *arguments, cfg="net.cfg", **options):
    programs.succeed(build.darknet(folder, "kure", "eval", cfg, "net.weights", DATA, "--csv", "out.csv", *arguments, **options))
    with open(folder / "out.csv", newline="") as file:
        return list(csv.DictReader(file))


def scores(tensors, x, activations=None, batch_statistics=None, means=None):
    """The network above. activations(name, values) quantizes or observes; batch_statistics: {layer: (mean, variance)}, filled
    from x and used in place of the rolling ones."""
    activations = activations or (lambda name, values: values)
    tape = simulated.Tape()

    def convolve(i, x, size, filters, groups=1):
        w = tensors[f"layers.{i}.weights"].reshape(filters, -1)
        bias = tensors[f"layers.{i}.biases"]
        if i not in NORMALIZED:
            return keep(i, simulated.convolve(x, w, bias, size, groups=groups))
        y = simulated.convolve(x, w, 0 * bias, size, groups=groups)
        mean, variance = tensors[f"layers.{i}.rolling_mean"], tensors[f"layers.{i}.rolling_variance"]
        if batch_statistics is not None:
            values = y.transpose(1, 0, 2, 3).reshape(filters, -1)
            batch_statistics[i] = mean, variance = values.mean(1), values.var(1, ddof=1)
        gamma = tensors[f"layers.{i}.scales"] / np.sqrt(variance + 1e-5)
        return keep(i, (y - mean[:, None, None]) * gamma[:, None, None] + bias[:, None, None])

    def keep(i, y):
        if means is not None:
            means[i] = y.mean((0, 2, 3))
        return y

    def leaky(i, x):
        return activations(f"{i} after", tape.leaky(activations(f"{i} before", x)))

    x = activations("input", x)
    x1 = simulated.maxpool2(tape, leaky(0, convolve(0, x, 3, 8)))
    x2 = leaky(2, convolve(2, x1, 3, 12, 2))
    x3 = activations("3 after", np.maximum(convolve(3, x2, 3, 12), 0))
    x4 = activations("4 after", x3 + x2)
    x5 = activations("5 after", np.concatenate([x4, x2], 1))
    x6 = activations("6 after", convolve(6, x5, 1, CLASSES))
    return activations("7 after", x6.mean((2, 3)))


class Quantizer:
    """Ranges of the float network by name, then the quantized values; the head and the input at 8 bits."""

    def __init__(self, bits, keys):
        self.bits, self.keys, self.seen, self.observing = bits, keys, {}, True

    def __call__(self, name, values):
        if self.observing:
            self.seen[name] = values
            return values
        bits = 8 if name in ("6 after", "7 after") else self.bits
        if name == "input":
            return np.round(values * 255) / 255
        whole = np.concatenate([self.seen[name].reshape(-1), values.reshape(-1)]).astype(np.float32)
        return self.quantize(whole, self.seen[name].size, bits).reshape(values.shape)

    def quantize(self, whole, seen, bits):
        """The range is that of whole[:seen]; what lies outside is clamped."""
        inside = np.clip(whole, whole[:seen].min(), whole[:seen].max())
        keys = {"symmetric": "0", "grid": "full", **self.keys, "truncation": "minmax"}
        return quantize_any(inside, bits, **keys).astype(np.float64)[seen:]


def hits(found, truth):
    return int((found.argmax(1) == truth).sum())


def top1_images(row):
    return round(float(row["top1"]) * IMAGES / 100)


KINDS = [dict(), dict(truncation="minmax"), dict(rounding="floor"), dict(step="power_of_two"), dict(symmetric="1", grid="narrow")]


@pytest.mark.parametrize("bits", (8, 4, 3, 2))
@pytest.mark.parametrize("keys", KINDS, ids=lambda keys: "-".join(keys.values()) or "default")
def test_activations_equal_numpy(bits, keys, build, trained):
    """One batch of all images calibrates; all policies see the float network."""
    folder, x, truth, tensors = trained
    text = "".join(f",activation_{key}={value}" for key, value in keys.items())
    row, = evaluate(build, folder, "--quantize", f"weight_bits=0,activation_bits={bits}{text}", "--calibration-images", IMAGES)
    quantizer = Quantizer(bits, keys)
    scores(tensors, x, quantizer)
    quantizer.observing = False
    expected = hits(scores(tensors, x, quantizer), truth)
    edge = 6 if keys.get("rounding") == "floor" else 2  # sums of values on a grid end just below or above a whole code
    assert abs(top1_images(row) - expected) <= edge, "some images are on the edge between two classes"
    assert (row["weight_bits"], row["activation_bits"], row["calibration_images"], row["bn_images"]) == ("0", str(bits), str(IMAGES), "0")


def test_cross_entropy_equals_numpy(build, trained):
    folder, x, truth, tensors = trained
    found = scores(tensors, x)
    found -= found.max(1, keepdims=True)
    expected = np.mean(np.log(np.exp(found).sum(1)) - found[np.arange(IMAGES), truth])
    row, = evaluate(build, folder)
    assert float(row["cross_entropy"]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.long
def test_the_quantizers_make_a_difference(build, trained):
    folder, *_ = trained
    rows = evaluate(build, folder, "--activation-bits", "8,3,2", "--activation-truncation", "ema,mse,gauss,laplace", "--weight-bits", "0,3")
    assert len(rows) == 24 and len({row["top1"] for row in rows}) > 8
    float_row, = evaluate(build, folder)
    assert all(abs(top1_images(row) - top1_images(float_row)) < 6 for row in rows if row["activation_bits"] == "8" and row["weight_bits"] == "0")


@pytest.mark.parametrize("truncation,value", (("percentile", "99"), ("mse", None), ("kl", None), ("lp", "3"), ("sigma", "3"), ("fixed", "4")))
def test_every_policy(truncation, value, build, trained):
    folder, *_ = trained
    extra = ("--activation-truncation-value", value) if value else ()
    row, = evaluate(build, folder, "--activation-bits", "6", "--activation-truncation", truncation, *extra)
    float_row, = evaluate(build, folder)
    assert row["activation_truncation"] == truncation and abs(top1_images(row) - top1_images(float_row)) < IMAGES // 4


def test_bare_keys_go_together(build, trained):
    folder, *_ = trained
    rows = evaluate(build, folder, "--bits", "8,4,2", "--rounding", "floor", "--first-bits", "4")
    assert [(row["weight_bits"], row["activation_bits"]) for row in rows] == [("8", "8"), ("4", "4"), ("2", "2")]
    assert all(row["weight_rounding"] == row["activation_rounding"] == "floor" for row in rows)
    row, = evaluate(build, folder, "--weight-bits", "0", "--activation-bits", "8", "--rounding", "floor")
    assert row["activation_rounding"] == "floor"
    apart = evaluate(build, folder, "--weight-bits", "8,4", "--activation-bits", "8,4")
    assert [(row["weight_bits"], row["activation_bits"]) for row in apart] == [("8", "8"), ("8", "4"), ("4", "8"), ("4", "4")]


def test_the_same_bits_at_any_number_of_threads(build, trained):
    folder, *_ = trained
    (folder / "batch.cfg").write_text(cfg_of(16))
    arguments = ("--quantize", "bits=3,activation_truncation=mse,rounding=stochastic", "--bn-images", 64, "--calibration-images", 100)
    expected = [{**row, "seconds": None} for row in evaluate(build, folder, *arguments, cfg="batch.cfg")]
    for isa, threads in (("baseline", 1), ("avx2", 3)):
        assert [{**row, "seconds": None} for row in evaluate(build, folder, *arguments, "--threads", threads, cfg="batch.cfg", env={"KURE_ISA": isa})] == expected


def test_keys_of_a_layer_stand(build, trained):
    """quantize=0 in the cfg leaves that layer float in an evaluation as well."""
    folder, *_ = trained
    body = BODY.replace("filters=12\n", "filters=12\nquantize=0\n")
    assert body.count("quantize=0") == 2
    (folder / "own.cfg").write_text(cfg_of(body=body + networks.section("quantization", bits=4)))
    own, = evaluate(build, folder, "--weight-bits", "2", cfg="own.cfg")
    all_8, = evaluate(build, folder, "--weight-bits", "8")
    assert own["top1"] == all_8["top1"] != evaluate(build, folder, "--weight-bits", "2")[0]["top1"], "what is left are the first and the last layer"


# ---- batch norm ------------------------------------------------------------------------

def quantized_weights(tensors, bits, fold, statistics):
    out, sqnr = dict(tensors), []
    for i, rows in ((0, 8), (2, 12), (3, 12), (6, CLASSES)):
        w = tensors[f"layers.{i}.weights"].reshape(rows, -1)
        s = np.ones((rows, 1))
        if fold and i in NORMALIZED:
            variance = statistics[i][1] if statistics else tensors[f"layers.{i}.rolling_variance"]
            s = (tensors[f"layers.{i}.scales"] / np.sqrt(variance + 1e-5))[:, None]
        exact = (w * s).astype(np.float32)
        q = np.stack([quantize_any(row, 8 if i in (0, 6) else bits) for row in exact])
        out[f"layers.{i}.weights"] = (q / s).reshape(-1)
        if i not in (0, 6):
            sqnr.append(10 * np.log10((exact.astype(np.float64) ** 2).sum() / ((exact.astype(np.float64) - q) ** 2).sum()))
    return out, np.mean(sqnr)


@pytest.mark.parametrize("fold", (False, True))
@pytest.mark.parametrize("bits", (4, 2))
def test_batch_norm_estimated_anew(bits, fold, build, trained):
    """All images are one batch. With folding, the weights are quantized again on the grid of the new statistics."""
    folder, x, truth, tensors = trained
    row, = evaluate(build, folder, "--quantize", f"weight_bits={bits},batchnorm={'fold' if fold else 'train'}", "--bn-images", IMAGES)
    weights, _ = quantized_weights(tensors, bits, fold, None)
    statistics = {}
    scores(weights, x, batch_statistics=statistics)
    weights, sqnr = quantized_weights(tensors, bits, fold, statistics)
    for i, (mean, variance) in statistics.items():
        weights[f"layers.{i}.rolling_mean"], weights[f"layers.{i}.rolling_variance"] = mean, variance
    assert abs(top1_images(row) - hits(scores(weights, x), truth)) <= 2
    assert row["bn_images"] == str(IMAGES) and abs(float(row["weight_sqnr"]) - sqnr) < 0.02


def means_of(tensors, x, activations=None):
    """Of every channel in front of the activation, by layer."""
    found = {}
    scores(tensors, x, activations, means=found)
    return found


@pytest.mark.parametrize("activation_bits", (0, 4))
@pytest.mark.parametrize("bits", (4, 2))
def test_biases_corrected(bits, activation_bits, build, trained):
    """One layer after another, by how far the means of its channels are from those of the float network."""
    folder, x, truth, tensors = trained
    row, = evaluate(build, folder, "--quantize", f"weight_bits={bits},activation_bits={activation_bits}", "--bias-images", IMAGES,
                    *(("--calibration-images", IMAGES) if activation_bits else ()))
    quantizer = None
    if activation_bits:
        quantizer = Quantizer(activation_bits, {})
        scores(tensors, x, quantizer)
        quantizer.observing = False
    wanted = means_of(tensors, x)
    weights, _ = quantized_weights(tensors, bits, True, None)
    before = means_of(weights, x, quantizer)
    for i in sorted(wanted):
        weights[f"layers.{i}.biases"] = weights[f"layers.{i}.biases"] + wanted[i] - means_of(weights, x, quantizer)[i]
    after = means_of(weights, x, quantizer)
    assert sum(abs(after[i] - wanted[i]).sum() for i in wanted) < 1e-6 * sum(abs(before[i] - wanted[i]).sum() for i in wanted)
    assert abs(top1_images(row) - hits(scores(weights, x, quantizer), truth)) <= 3
    assert row["bias_images"] == str(IMAGES)
    if bits == 4:  # at 2 both are as good as chance
        plain, = evaluate(build, folder, "--quantize", f"weight_bits={bits},activation_bits={activation_bits}",
                          *(("--calibration-images", IMAGES) if activation_bits else ()))
        assert float(row["cross_entropy"]) < float(plain["cross_entropy"])


def test_biases_come_back(build, trained):
    """A float point after a corrected one is the float network."""
    folder, *_ = trained
    rows = evaluate(build, folder, "--weight-bits", "2,0", "--bias-images", 64)
    assert rows[1]["top1"] == evaluate(build, folder)[0]["top1"]


def test_statistics_come_back(build, trained):
    """A point without quantization after one with new statistics: that of the float network with batch statistics."""
    folder, x, truth, tensors = trained
    rows = evaluate(build, folder, "--weight-bits", "2,0", "--bn-images", IMAGES)
    statistics = {}
    assert abs(top1_images(rows[1]) - hits(scores(tensors, x, batch_statistics=statistics), truth)) <= 1


def test_one_value_has_no_variance(build, trained):
    """Batch norm behind a connected layer: a batch of one image is named, not estimated from."""
    folder, *_ = trained
    body = networks.section("connected", output=8, activation="relu", batch_normalize=1) + networks.classifier_head(CLASSES, connected=True)
    (folder / "connected.cfg").write_text(cfg_of(16, body))
    programs.succeed(build.darknet(folder, "classifier", "train", DATA, "connected.cfg"))
    arguments = ("kure", "eval", "connected.cfg", "connected.weights", DATA, "--bn-images")
    programs.succeed(build.darknet(folder, *arguments, 32))
    programs.refuse(build.darknet(folder, *arguments, 33), "layer 0 [connected]", "variance", "--bn-images")


def test_layers_with_keys_of_their_own(build, trained):
    """A [quantize] layer is float in a float evaluation; a layer's value of a policy does not disturb the calibration."""
    folder, *_ = trained
    body = BODY.replace("[avgpool]", networks.section("quantize", bits=4) + "[avgpool]")
    (folder / "own.cfg").write_text(cfg_of(body=body))
    float_row, = evaluate(build, folder)
    assert evaluate(build, folder, cfg="own.cfg")[0]["top1"] == float_row["top1"]
    body = BODY.replace("filters=12\n", "filters=12\nactivation_truncation_value=4\n", 1)
    (folder / "own.cfg").write_text(cfg_of(body=body + networks.section("quantization", bits=8, activation_truncation="sigma", activation_truncation_value=3)))
    rows = evaluate(build, folder, "--activation-bits", "8", "--activation-truncation", "sigma", "--activation-truncation-value", "3", cfg="own.cfg")
    assert rows[0]["activation_truncation"] == "sigma"
    body = BODY.replace("filters=12\n", "filters=12\nactivation_bits=12\n", 1)
    (folder / "own.cfg").write_text(cfg_of(body=body + networks.section("quantization", bits=8)))
    result = build.darknet(folder, "kure", "eval", "own.cfg", "net.weights", DATA, "--activation-bits", "8", "--activation-truncation", "ema,mse")
    programs.refuse(result, "layer 2", "12", "mse")


def test_simulation_of_the_last_batch(build, trained):
    """`start` counts updates of the cfg's batch, whatever the number of images in the last batch of an evaluation."""
    folder, *_ = trained
    (folder / "start.cfg").write_text(cfg_of(16) + networks.section("quantization", bits=2, start=100))
    programs.succeed(build.darknet(folder, "classifier", "train", DATA, "start.cfg"))
    for images in (32, 33):
        rows = []
        for flags in ((), ("--simulate",)):
            programs.succeed(build.darknet(folder, "kure", "eval", "start.cfg", "start.weights", DATA, "--images", images, *flags, "--csv", "out.csv"))
            with open(folder / "out.csv", newline="") as file:
                rows += list(csv.DictReader(file))
        assert rows[0]["top1"] == rows[1]["top1"], "the training ended before the start of simulation"


# ---- faults ------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments,words,status", (
    (("--activation-bits", "8", "--calibration-images", IMAGES + 1), ("--calibration-images", IMAGES + 1, f"only {IMAGES}"), 1),
    (("--bn-images", IMAGES + 1), ("--bn-images", f"only {IMAGES}"), 1),
    (("--calibration-images", 5), ("--calibration-images 5", "--activation-bits"), 2),
    (("--seed", 5), ("--seed",), 2), (("--seed", "-1", "--bn-images", 5), ("--seed -1",), 2), (("--seed", "x", "--bn-images", 5), ("--seed x",), 2),
    (("--bias-images", 5), ("--bias-images 5", "nothing is quantized"), 2), (("--bias-images", IMAGES + 1, "--weight-bits", 4), ("--bias-images",), 1),
    (("--bn-images", 0), ("--bn-images 0",), 2), (("--simulate", "--bn-images", 5), ("--simulate",), 2),
    (("--activation-rounding", "floor"), ("activation_rounding=floor", "activation_bits=0"), 2),
    (("--quantize", "profile=onnx"), ("profile", "--simulate"), 2), (("--weight-truncation-value", 0), ("weight_truncation_value=0", "positive"), 2),
    (("--weight-bits", 0, "--activation-bits", 8, "--weight-grid", "full"), ("weight_grid=full", "weight_bits=0"), 2),
    (("--activation-bits", 8, "--activation-granularity", "channel"), ("activation_granularity=channel",), 2),
    (("--activation-bits", 12, "--activation-truncation", "mse"), ("activations'", "12", "mse"), 2),
    (("--activation-bits", 8, "--activation-grid", "midrise"), ("activations'", "midrise"), 2),
    (("--activation-bits", 8, "--activation-truncation", "percentile"), ("activations'", "truncation_value"), 2),
    (("--activation-bits", 8, "--activation-truncation-value", 3), ("activation_truncation_value=3", "ema"), 2),
), ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else str(value))
def test_faults(arguments, words, status, build, trained):
    folder, *_ = trained
    programs.refuse(build.darknet(folder, "kure", "eval", "net.cfg", "net.weights", DATA, *arguments), *words, status=status)


def test_images_of_the_training_list(build, trained):
    folder, *_ = trained
    first = evaluate(build, folder, "--activation-bits", "2", "--calibration-images", "2")[0]["top1"]
    others = {evaluate(build, folder, "--activation-bits", "2", "--calibration-images", "2", "--seed", seed)[0]["top1"] for seed in range(5)}
    assert first in others and len(others) > 1, "--seed 0 is the default, and other seeds draw other images"
    lines = (folder / "train.list").read_text()
    (folder / "train.list").write_text(lines.splitlines()[0] + "\nnowhere.png\n")
    try:
        programs.refuse(build.darknet(folder, "kure", "eval", "net.cfg", "net.weights", DATA, "--bn-images", 2), "train.list", "nowhere.png")
    finally:
        (folder / "train.list").write_text(lines)
