"""`darknet kure eval`: float accuracy against `darknet classifier valid`, quantized weights against NumPy."""
import csv
import itertools
import json
import re

import numpy as np
import pytest

import networks
import programs
from conftest import write_data_file

pytestmark = pytest.mark.sanitize

CLASSES = 8
IMAGES = 208
SIZES = ((20, 20), (24, 18), (15, 31), (40, 33), (16, 16))


def draw_colours(rng, k, width, height):
    """A corner of the colour cube, off by chance, with noise: some images look like those of another class."""
    corner = np.array([k & 1, k >> 1 & 1, k >> 2 & 1])
    colour = 128 + 60 * (2 * corner - 1) + rng.normal(0, 45, 3)
    return np.clip(colour + rng.normal(0, 40, (height, width, 3)), 0, 255).astype(np.uint8)


BODY = (networks.conv(10) + networks.section("maxpool", size=2, stride=2) + networks.conv(16, groups=2)
        + networks.conv(16, batch_normalize=0) + networks.section("shortcut", activation="linear", **{"from": -2}) + networks.conv(12, stride=2)
        + networks.conv(CLASSES, size=1, batch_normalize=0, activation="linear") + networks.section("avgpool") + networks.section("softmax", groups=1))
WEIGHTED = (0, 2, 3, 5, 6)  # of the layers above; the first and the last at 8 bits


def cfg_of(batch=16, **keys):
    return networks.net(**{**dict(batch=batch, learning_rate=0.05, max_batches=60, seed=11), **keys}) + BODY


@pytest.fixture(scope="module")
def trained(build, tmp_path_factory):
    """A folder with net.cfg, trained net.weights and colours.data; the tensors of the weights."""
    from PIL import Image
    folder = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(5)
    paths = []
    for i in range(IMAGES):
        path = folder / f"{i:04d}_a{i % CLASSES}.png"
        Image.fromarray(draw_colours(rng, i % CLASSES, *SIZES[i % len(SIZES)])).save(path)
        paths.append(str(path))
    for name in ("train.list", "valid.list"):
        (folder / name).write_text("\n".join(paths) + "\n")
    (folder / "labels.list").write_text("".join(f"_a{k}\n" for k in range(CLASSES)))
    write_data_file(folder / "colours.data", folder, classes=CLASSES, top=5)
    (folder / "net.cfg").write_text(cfg_of())
    programs.succeed(build.darknet(folder, "classifier", "train", "colours.data", "net.cfg"))
    return folder, build.tensors(folder, cfg_of(), "-weights", "net.weights")


def evaluate(build, folder, *arguments, cfg="net.cfg", weights="net.weights", **options):
    """Rows of the table as dictionaries, and what was printed."""
    result = programs.succeed(build.darknet(folder, "kure", "eval", cfg, weights, "colours.data", "--csv", "out.csv", "--json", "out.json",
                                            *arguments, **options))
    with open(folder / "out.csv", newline="") as file:
        return list(csv.DictReader(file)), result


def accuracy(row):
    return row["top1"], row["top5"]


# ---- float ---------------------------------------------------------------------------

def valid(build, folder, cfg):
    """(top-1, top-5) in images, by Darknet's own command."""
    said = programs.succeed(build.darknet(folder, "classifier", "valid", "colours.data", cfg, "net.weights")).stdout
    top1, top5 = re.findall(r"top 1: ([\d.]+), top 5: ([\d.]+)", said)[-1]
    return round(float(top1) * IMAGES), round(float(top5) * IMAGES)


@pytest.mark.parametrize("batch,threads", itertools.product((1, 8), (1, 2)))
def test_float_equals_classifier_valid(batch, threads, build, trained):
    folder, _ = trained
    (folder / "batch.cfg").write_text(cfg_of(batch))
    (row,), _ = evaluate(build, folder, "--threads", threads, cfg="batch.cfg")
    got = tuple(round(float(value) * IMAGES / 100) for value in accuracy(row))
    assert got == valid(build, folder, "batch.cfg")
    assert IMAGES / CLASSES * 2 < got[0] < got[1] < IMAGES, "a trained network, neither at chance nor perfect"
    assert (row["weight_bits"], row["activation_bits"], row["weight_sqnr"]) == ("0", "0", "")


def test_first_images_only(build, trained):
    folder, _ = trained
    rows = [evaluate(build, folder, "--images", n)[0][0] for n in (1, 7, IMAGES)]
    assert accuracy(rows[0])[0] in ("0.00", "100.00")
    assert accuracy(rows[2]) == accuracy(evaluate(build, folder)[0][0])
    programs.refuse(build.darknet(folder, "kure", "eval", "net.cfg", "net.weights", "colours.data", "--images", IMAGES + 1), "--images", IMAGES)


def test_path_that_matches_several_labels(build, trained, tmp_path):
    """The first label counts, as in `classifier valid`; how many there are is said."""
    folder, _ = trained
    (folder / "labels.list").write_text("".join(f"_a{k}\n" for k in range(CLASSES - 1)) + ".png\n")
    try:
        (row,), result = evaluate(build, folder)
        assert round(float(row["top1"]) * IMAGES / 100) == valid(build, folder, "net.cfg")[0]
        assert f"{IMAGES - IMAGES // CLASSES} paths match several labels" in result.stderr
    finally:
        (folder / "labels.list").write_text("".join(f"_a{k}\n" for k in range(CLASSES)))


# ---- quantized -------------------------------------------------------------------------

def levels(bits, grid):
    """(lowest, highest code, offset)"""
    half = 2 ** (bits - 1)
    return (1 - half if grid == "narrow" else -half), half - 1, (0.5 if grid == "midrise" else 0.0)


def codes(x, step, bits, grid):
    low, high, offset = levels(bits, grid)
    return np.clip(np.round(x / step - x.dtype.type(offset)), low, high) + x.dtype.type(offset)


def covering(x, bits, grid):
    low, high, offset = levels(bits, grid)
    return max(x.max() / (high + offset), x.min() / (low + offset), 0)


def least_squares(x, bits, grid):
    """The step of least squared error: a dense scan, then Lloyd's iteration from the best."""
    def squared(steps):
        return ((x - steps * codes(x, steps, bits, grid)) ** 2).sum(-1)

    scan = covering(x, bits, grid) * np.geomspace(1.1, 0.02, 1000)
    errors = squared(scan[:, None])
    best = []
    for step in scan[np.argsort(errors)[:6]]:
        for _ in range(100):
            q = codes(x, step, bits, grid)
            if not (q * x).sum() > 0:
                break
            step = (q * x).sum() / (q * q).sum()
        best.append((squared(step), step))
    return min(best)[1]


def quantize_part(x, bits, grid, truncation, ratio):
    """x: float32; the quantized values in float32, as every instruction set computes them."""
    find = least_squares if truncation == "mse" else covering
    step = np.float32(find(x.astype(np.float64), bits, grid) * ratio)
    return step * codes(x, step, bits, grid).astype(np.float32)


def quantize(tensors, point):
    """(tensors with quantized weights, mean SQNR in dB of the layers between first and last)"""
    out, sqnr = dict(tensors), []
    for i in WEIGHTED:
        bits = 8 if i in (WEIGHTED[0], WEIGHTED[-1]) else int(point["weight_bits"])
        w = tensors[f"layers.{i}.weights"].reshape(tensors[f"layers.{i}.biases"].size, -1)
        s = np.ones((len(w), 1), np.float32)
        if point["batchnorm"] == "fold" and f"layers.{i}.scales" in tensors:
            variance = tensors[f"layers.{i}.rolling_variance"].astype(np.float64)
            s = (tensors[f"layers.{i}.scales"] / np.sqrt(variance + 1e-5)).astype(np.float32)[:, None]
        x = w * s
        parts = [x.reshape(-1)] if point["weight_granularity"] == "tensor" else list(x)
        q = np.stack([quantize_part(p, bits, point["weight_grid"], point["weight_truncation"], float(point["weight_step_ratio"])) for p in parts])
        q = q.reshape(x.shape)
        out[f"layers.{i}.weights"] = (q / s).reshape(-1)
        if i not in (WEIGHTED[0], WEIGHTED[-1]):
            exact = x.astype(np.float64)
            sqnr.append(10 * np.log10((exact ** 2).sum() / ((exact - q) ** 2).sum()))
    return out, np.mean(sqnr)


KEYS = dict(batchnorm=("train", "fold"), weight_granularity=("tensor", "channel"), weight_grid=("narrow", "full", "midrise"),
            weight_truncation=("minmax", "mse"), weight_bits=("4", "2"), weight_step_ratio=("1", "0.8"))


@pytest.fixture(scope="module")
def rows(build, trained):
    folder, _ = trained
    arguments = [word for key, values in KEYS.items() for word in ("--" + key.replace("_", "-"), ",".join(values))]
    return evaluate(build, folder, *arguments)[0]


def test_every_combination_is_there(rows):
    got = [tuple(row[key] for key in KEYS) for row in rows]
    assert sorted(got) == sorted(itertools.product(*KEYS.values()))
    assert len({accuracy(row) for row in rows}) > 10, "the quantizers must make a difference"


@pytest.mark.parametrize("index", range(0, 96, 3))
@pytest.mark.long
def test_quantized_equals_numpy(index, rows, build, trained):
    """Weights quantized by NumPy, written to a file and evaluated in float: the same images are hit. With mse the two
    searches may end in two minima of nearly the same error (tests/unit has the search itself): 0.1 dB, six images."""
    folder, tensors = trained
    point = rows[index]
    quantized, sqnr = quantize(tensors, point)
    exact = point["weight_truncation"] == "minmax"
    assert abs(sqnr - float(point["weight_sqnr"])) < (0.0051 if exact else 0.1), f"{point['weight_sqnr']} dB, NumPy {sqnr:.3f} dB"
    networks.write_weights(folder / "numpy.weights", cfg_of(), quantized)
    (row,), _ = evaluate(build, folder, weights="numpy.weights")
    for a, b in zip(accuracy(row), accuracy(point)):
        assert abs(float(a) - float(b)) * IMAGES / 100 < (0.5 if exact else 6.5)


ROUND = dict(half_even=np.round, half_away=lambda t: np.copysign(np.floor(np.abs(t) + 0.5), t), half_up=lambda t: np.floor(t + 0.5),
             half_down=lambda t: np.ceil(t - 0.5), half_to_zero=lambda t: np.copysign(np.ceil(np.abs(t) - 0.5), t), floor=np.floor, ceil=np.ceil, to_zero=np.trunc)


def covered(x, policy, value, symmetric):
    """(low, high) that the policy covers of x, float64"""
    if policy == "percentile":
        reach = np.percentile(np.abs(x), value)
        return (-reach, reach) if symmetric else (np.percentile(x, 100 - value), np.percentile(x, value))
    if policy == "sigma":
        return max(x.mean() - value * x.std(), x.min()), min(x.mean() + value * x.std(), x.max())
    if policy == "fixed":
        return (-value, value) if symmetric else (-value if x.min() < 0 else 0, value if x.max() > 0 else 0)
    return x.min(), x.max()


def quantize_any(x, bits, rounding="half_even", truncation="minmax", truncation_value=0, step="free", symmetric="1", grid="narrow"):
    """One row: rounding first, then the zero point, which a power of two leaves where it is."""
    exact = x.astype(np.float64)
    low, high = covered(exact, truncation, float(truncation_value), symmetric == "1")
    lowest, highest, _ = levels(bits, grid)
    if symmetric == "1":
        size = max(low / lowest, high / highest, 0)
    else:
        low, high = min(low, 0), max(high, 0)
        size = (high - low) / (2 ** bits - 1)
    zero = 0 if symmetric == "1" else int(np.clip(lowest - np.round(low / np.float64(np.float32(size))), lowest, highest))
    if step == "power_of_two":
        size = 2 ** np.round(np.log2(size))
    size = np.float32(size)
    code = np.clip(ROUND[rounding]((x / size).astype(np.float64)) + zero, lowest, highest)
    return size * (code - zero).astype(np.float32)


OTHERS = [{"rounding": name} for name in ROUND] + [
    dict(truncation="percentile", truncation_value="97.5"), dict(truncation="sigma", truncation_value="1.7"), dict(truncation="fixed", truncation_value="0.25"),
    dict(step="power_of_two"), dict(symmetric="0", grid="full"), dict(symmetric="0", grid="full", rounding="floor", step="power_of_two"),
    dict(symmetric="0", grid="full", truncation="percentile", truncation_value="98", rounding="to_zero"),
]


@pytest.mark.parametrize("keys", OTHERS, ids=lambda keys: "-".join(keys.values()))
def test_every_kind_of_quantizer_equals_numpy(keys, build, trained):
    """Raw weights per channel at 4 bits, first and last at 8: noise and images as NumPy has them."""
    folder, tensors = trained
    text = ",".join(f"weight_{key}={value}" for key, value in keys.items())
    (point,), _ = evaluate(build, folder, "--quantize", f"weight_bits=4,batchnorm=train,{text}")
    assert {key: point[f"weight_{key}"] for key in keys} == keys
    out, sqnr = dict(tensors), []
    for i in WEIGHTED:
        inner = i not in (WEIGHTED[0], WEIGHTED[-1])
        w = tensors[f"layers.{i}.weights"].reshape(tensors[f"layers.{i}.biases"].size, -1)
        q = np.stack([quantize_any(row, 4 if inner else 8, **keys) for row in w])
        out[f"layers.{i}.weights"] = q.reshape(-1)
        if inner:
            sqnr.append(10 * np.log10((w.astype(np.float64) ** 2).sum() / ((w.astype(np.float64) - q) ** 2).sum()))
    assert abs(np.mean(sqnr) - float(point["weight_sqnr"])) < 0.0051, f"{point['weight_sqnr']} dB, NumPy {np.mean(sqnr):.3f} dB"
    networks.write_weights(folder / "numpy.weights", cfg_of(), out)
    (row,), _ = evaluate(build, folder, weights="numpy.weights")
    for a, b in zip(accuracy(row), accuracy(point)):
        assert abs(float(a) - float(b)) * IMAGES / 100 < 0.5


def test_every_rounding_and_truncation_differs(build, trained):
    """One list of each; no two give the same noise but half_* ones, which differ at ties alone."""
    folder, _ = trained
    roundings, _ = evaluate(build, folder, "--quantize", "weight_bits=4,batchnorm=train", "--images", 1, "--weight-rounding", ",".join([*ROUND, "stochastic"]))
    assert [row["weight_rounding"] for row in roundings] == [*ROUND, "stochastic"]
    noise = {row["weight_rounding"]: float(row["weight_sqnr"]) for row in roundings}
    assert all(noise["half_even"] > noise[name] + 1 for name in ("floor", "ceil", "to_zero", "stochastic"))
    assert len({noise[name] for name in ("half_even", "floor", "ceil", "to_zero", "stochastic")}) == 5
    policies = ("minmax", "mse", "kl", "gauss", "laplace", "lp", "sigma")
    got, _ = evaluate(build, folder, "--images", 1, "--weight-bits", "3", "--weight-granularity", "tensor", "--weight-truncation", ",".join(policies),
                      "--weight-truncation-value", "3")
    noise = {row["weight_truncation"]: float(row["weight_sqnr"]) for row in got}
    assert list(noise) == list(policies) and len(set(noise.values())) == len(policies)
    assert max(noise, key=noise.get) == "mse", "it is the least squared error"
    assert {row["weight_truncation"] for row in got if row["weight_truncation_value"]} == {"lp", "sigma"}


def test_stochastic_is_the_same_every_time(build, trained):
    folder, _ = trained
    arguments = ("--quantize", "weight_bits=3,weight_rounding=stochastic,weight_symmetric=0,weight_grid=full", "--images", 20)
    want, _ = evaluate(build, folder, *arguments)
    for isa, threads in (("baseline", 1), ("avx2", 2), ("avx512", 2)):
        got, _ = evaluate(build, folder, *arguments, "--threads", threads, env={"KURE_ISA": isa})
        assert [{**row, "seconds": None} for row in got] == [{**row, "seconds": None} for row in want], isa


def test_first_and_last_bits(build, trained):
    folder, tensors = trained
    got = [evaluate(build, folder, "--quantize", f"weight_bits=8,first_bits={f},last_bits={l}")[0][0] for f, l in ((8, 8), (2, 8), (8, 2), (0, 0))]
    assert len({accuracy(row) for row in got}) > 1
    assert [(row["first_bits"], row["last_bits"]) for row in got] == [("8", "8"), ("2", "8"), ("8", "2"), ("0", "0")]


def test_zero_bits_are_float(build, trained):
    folder, _ = trained
    quantized, _ = evaluate(build, folder, "--weight-bits", "2,0")
    plain, _ = evaluate(build, folder)
    assert accuracy(quantized[0]) != accuracy(quantized[1]) == accuracy(plain[0]), "the float weights come back after a point"


def test_keys_in_one_option_or_many(build, trained):
    folder, _ = trained
    bare, _ = evaluate(build, folder, "--quantize",
                       "weight_bits=3,weight_grid=full,weight_granularity=tensor,weight_truncation=mse,weight_step_ratio=0.9")
    full, _ = evaluate(build, folder, "--weight-bits", "3", "--weight-grid", "full", "--weight-granularity", "tensor", "--weight-truncation", "mse",
                       "--weight-step-ratio", "0.9")
    drop = {"seconds": None}
    assert {**bare[0], **drop} == {**full[0], **drop}


def test_large_layer_by_histogram(build, trained):
    """Above 8192 weights the mse step comes from a histogram: the noise is that of the best step, within 0.01 dB."""
    folder, _ = trained
    cfg = networks.net(batch=1) + networks.conv(16) + networks.conv(128) + networks.conv(CLASSES, size=1) + networks.section("avgpool") + networks.section("softmax")
    tensors = build.tensors(folder, cfg, name="large.cfg", out="large")
    networks.write_weights(folder / "large.weights", cfg, tensors)
    x = tensors["layers.1.weights"]
    assert x.size > 8192
    for bits in (4, 2):
        (row,), _ = evaluate(build, folder, "--quantize", f"weight_bits={bits},weight_granularity=tensor,weight_truncation=mse,batchnorm=train", "--images", 2,
                             cfg="large.cfg", weights="large.weights")
        q = quantize_part(x, bits, "narrow", "mse", 1)
        best = 10 * np.log10((x.astype(np.float64) ** 2).sum() / ((x.astype(np.float64) - q) ** 2).sum())
        assert abs(float(row["weight_sqnr"]) - best) < 0.011


def test_same_on_every_instruction_set(build, trained):
    folder, _ = trained
    arguments = ("--weight-bits", "4,3,2", "--weight-truncation", "mse", "--weight-granularity", "tensor,channel")
    want = [{**row, "seconds": None} for row in evaluate(build, folder, *arguments)[0]]
    for isa in ("baseline", "avx2", "avx512"):
        for threads in ("1", "2"):
            got, _ = evaluate(build, folder, *arguments, "--threads", threads, env={"KURE_ISA": isa})
            assert [{**row, "seconds": None} for row in got] == want, isa


# ---- tables ------------------------------------------------------------------------------

def test_csv_json_and_print_agree(build, trained):
    folder, _ = trained
    from_csv, result = evaluate(build, folder, "--weight-bits", "8,3,0")
    document = json.loads((folder / "out.json").read_text())
    assert document["schema"] == "kure.eval/1" and len(document["model"]) == len(document["plan"]) == 32
    assert [list(row) for row in document["rows"]] == [list(row) for row in from_csv]
    for a, b in zip(from_csv, document["rows"]):
        for key, value in a.items():
            assert value == "" and b[key] is None or isinstance(b[key], str) and b[key] == value or float(value) == b[key], key
    table, constants = result.stdout.split("\n\n")
    header, *lines = table.splitlines()
    names = header.split()
    assert len(lines) == 3 and max(map(len, result.stdout.splitlines())) <= 100
    same = dict(word.split("=") for word in constants.split())
    assert all({row[key] for row in from_csv} - {""} == {value} for key, value in same.items()), "columns of one value stand in one line"
    for line, row in zip(lines[:2], from_csv):  # the float row has empty cells
        assert dict(zip(names, line.split())) == {key: row[key] for key in names}
    assert all(row[key] == "" for row in from_csv for key in row if key not in names and key not in same), "a column with values is not shown"


def test_results_are_always_columns(build, trained):
    """Whatever is the same in all rows, or in the only one, comes below."""
    folder, _ = trained
    for arguments in ((), ("--weight-bits", "4"), ("--first-bits", "8,7", "--images", 1), ("--bits", "4")):
        _, result = evaluate(build, folder, *arguments)
        assert {"top1", "top5", "seconds"} <= set(result.stdout.splitlines()[0].split())
        assert max(map(len, result.stdout.splitlines())) <= 100


def test_the_sidecar_is_not_an_output(build, trained):
    folder, _ = trained
    before = (folder / "net.weights.kure").read_bytes()
    for option in ("--csv", "--json"):
        result = build.darknet(folder, "kure", "eval", "net.cfg", "net.weights", "colours.data", option, "net.weights.kure")
        assert result.returncode == 2 and "net.weights.kure" in result.stderr
    assert (folder / "net.weights.kure").read_bytes() == before


def test_weights_in_the_place_of_the_cfg(build, trained):
    folder, _ = trained
    programs.refuse(build.darknet(folder, "kure", "eval", "net.weights", "net.cfg", "colours.data"), "net.weights: is no cfg", "CFG WEIGHTS")


def test_model_hash_is_that_of_the_file(build, trained):
    folder, tensors = trained
    hashes = set()
    for name, change in (("net.weights", 0), ("numpy.weights", 1e-3)):
        if change:
            networks.write_weights(folder / name, cfg_of(), {**tensors, "layers.0.biases": tensors["layers.0.biases"] + np.float32(change)})
        evaluate(build, folder, weights=name)
        hashes.add(json.loads((folder / "out.json").read_text())["model"])
    assert len(hashes) == 2
