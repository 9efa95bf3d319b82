"""`darknet kure`: command lines, plan, --clean, stats."""
import csv
import json
import re

import numpy as np
import pytest

import networks
import programs
import reference

pytestmark = pytest.mark.sanitize

BAD_LINES = {  # arguments: words of the sentence; status 2
    ("pan",): ("pan", "plan"),
    ("--version",): ("--version",),
    ("plan",): ("CFG",),
    ("plan", "net.cfg", "more"): ("too many",),
    ("plan", "net.cfg", "--colour"): ("--help",),
    ("plan", "net.cfg", "--clean"): ("--help",),
    ("stats", "net.cfg"): ("WEIGHTS",),
    ("stats", "net.cfg", "net.weights", "--weight-truncation", "best"): ("weight_truncation=best", "minmax", "mse"),
    ("stats", "net.cfg", "net.weights", "--weight-grid", "narrow,full"): ("one quantizer",),
    ("stats", "net.cfg", "net.weights", "--quantize", "weight_bits=4"): ("8, 6, 4, 3 and 2",),
    ("eval", "net.cfg", "net.weights"): ("DATA",),
    ("eval", "net.cfg", "net.weights", "d.data", "--images", "0"): ("--images 0",),
    ("eval", "net.cfg", "net.weights", "d.data", "--images", "ten"): ("--images ten",),
    ("eval", "net.cfg", "net.weights", "d.data", "--threads", "-1"): ("--threads -1",),
    ("eval", "net.cfg", "net.weights", "d.data", "--threads", "99999"): ("--threads 99999", "from 1 to 1024"),
    ("stats", "net.cfg", "net.weights", "--quantize", "activation_bits=8"): ("activation_bits", "weights only"),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-bits", "1"): ("weight_bits=1", "2 to 16"),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-bits", "8,x"): ("weight_bits=x",),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-bits", "8,"): ("weight_bits=",),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-bits", "4.5"): ("weight_bits=4.5",),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-bits", "17"): ("weight_bits=17",),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-step-ratio", "0"): ("weight_step_ratio=0", "0.01"),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-step-ratio", "nan"): ("weight_step_ratio=nan",),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-grid", "wide"): ("weight_grid=wide", "midrise"),
    ("eval", "net.cfg", "net.weights", "d.data", "--quantize", "bits"): ("bits", "key=value"),
    ("eval", "net.cfg", "net.weights", "d.data", "--quantize", "wieght_bits=4"): ("wieght_bits", "weight_bits"),
    ("eval", "net.cfg", "net.weights", "d.data", "--quantize", "weight_bits=4", "--weight-bits", "3"): ("weight_bits", "twice"),
    ("eval", "net.cfg", "net.weights", "d.data", "--csv", "a", "--json", "a"): ("--csv", "--json"),
    # keys of training are refused, not ignored
    ("eval", "net.cfg", "net.weights", "d.data", "--quantize", "batchnorm=freeze"): ("freeze", "train fold"),
    ("eval", "net.cfg", "net.weights", "d.data", "--quantize", "method=lsq"): ("method", "training"),
    ("eval", "net.cfg", "net.weights", "d.data", "--simulate", "--weight-bits", "4"): ("--simulate", "trained"),
    # what was meant
    ("eval", "net.cfg", "net.weights", "d.data", "--weights-bits", "4"): ("unknown option '--weights-bits'", "did you mean '--weight-bits'?"),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight_bits", "4"): ("--weight_bits", "'--weight-bits'"),
    ("eval", "net.cfg", "net.weights", "d.data", "-weight-bits", "4"): ("-weight-bits", "'--weight-bits'"),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-bits"): ("--weight-bits needs a value",),
    ("eval", "net.cfg", "net.weights", "d.data", "--simulate=1"): ("--simulate takes no value",),
    ("plan", "net.cfg", "--clen", "x"): ("--clen", "'--clean'"),
    ("theory", "--bitts", "4"): ("--bitts", "'--bits'"),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-bits", "4,4"): ("weight_bits=4,4", "twice"),
    # keys that do not go together
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-rounding", "nearest"): ("weight_rounding=nearest", "half_even", "stochastic"),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-truncation", "minmax,ema"): ("weight_truncation=ema", "batches"),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-truncation", "percentile"): ("percentile", "needs a truncation_value"),
    ("eval", "net.cfg", "net.weights", "d.data", "--quantize", "weight_truncation=lp,weight_truncation_value=0.5"): ("lp", "0.5", "from 1 to 10"),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-truncation-value", "3"): ("weight_truncation_value=3", "minmax", "takes none"),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-truncation-value", "-3"): ("weight_truncation_value=-3", "positive"),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-symmetric", "0"): ("narrow", "needs grid full"),
    ("eval", "net.cfg", "net.weights", "d.data", "--weight-bits", "8,12", "--weight-truncation", "kl"): ("12", "kl", "2 to 8"),
    ("stats", "net.cfg", "net.weights", "--weight-truncation", "sigma"): ("sigma", "needs a truncation_value"),
}


@pytest.fixture
def small(build, tmp_path):
    """net.cfg and net.weights of a small network; its tensors."""
    cfg = networks.classifier({"seed": 3}, {})
    build.train(tmp_path, cfg, "net.weights", "-updates", 2)
    tensors = build.tensors(tmp_path, cfg, "-weights", "net.weights")
    for name in ("dump.0.loaded", "net.weights.kure"):
        (tmp_path / name).unlink()
    return tmp_path, cfg, tensors


@pytest.mark.parametrize("arguments", BAD_LINES, ids=" ".join)
def test_bad_command_line(arguments, build, small):
    folder, _, _ = small
    before = programs.files_under(folder)
    result = build.darknet(folder, "kure", *arguments)
    assert result.returncode == 2, programs.describe(result)
    for word in BAD_LINES[arguments]:
        assert word in result.stderr, programs.describe(result)
    assert result.stdout == "" and programs.files_under(folder) == before


@pytest.mark.parametrize("arguments,status,word", (
    (("kure",), 2, "usage"), (("kure", "--help"), 0, "plan"), (("kure", "plan", "--help"), 0, "--clean"), (("kure", "stats", "--help"), 0, "kurtosis"),
    (("kure", "eval", "--help"), 0, "--weight-bits"), ((), 1, "usage"), (("clasifier",), 1, "clasifier"), (("classifier",), 1, "usage"),
    (("classifier", "trian", "d", "c"), 1, "trian"), (("detector", "train", "d"), 1, "usage"),
))
def test_help_and_unknown_commands(arguments, status, word, build, tmp_path):
    result = build.darknet(tmp_path, *arguments)
    assert result.returncode == status and word in result.stdout + result.stderr, programs.describe(result)


CLEAR, NOT_THERE = ("did you mean '-clear'?",), ("no such option",)
REFUSED = {  # arguments after DATA net.cfg net.weights: words
    ("--clear",): CLEAR, ("-claer",): CLEAR, ("-clear=1",): CLEAR, ("-clear", "-cleer"): CLEAR,
    ("-batch", "3"): NOT_THERE, ("-" + 10000 * "x",): NOT_THERE, ("--",): NOT_THERE, ("-1x",): NOT_THERE,
    ("--gpus", "0"): ("did you mean '-gpus'?",), ("-gpus=0",): ("did you mean '-gpus'?",), ("-no-gpu",): ("did you mean '-nogpu'?",),
    ("-clear", "-clear"): ("twice",), ("-gpus",): ("without its value",), ("-nogpu", "-c"): ("without its value",),
}


@pytest.mark.parametrize("function,command", (("classifier", "train"), ("classifier", "valid"), ("detector", "train"), ("detector", "test")))
def test_unknown_options(function, command, build, small):
    folder, _, _ = small
    before = programs.files_under(folder)
    for arguments, words in REFUSED.items():
        unknown = next(word for word in arguments[::-1] if word.startswith("-"))
        result = build.darknet(folder, function, command, "d.data", "net.cfg", "net.weights", *arguments)
        programs.refuse(result, f"{unknown}: ", *words)
    only_there = build.darknet(folder, function, command, "d.data", "net.cfg", "net.weights", "-thersh", ".3")
    programs.refuse(only_there, "-thersh: no such option of " + function + (": did you mean '-thresh'?" if function == "detector" else ""))
    programs.refuse(build.darknet(folder, function, "--clear", command, "d.data", "net.cfg"), "--clear: ", *CLEAR)
    assert programs.files_under(folder) == before


@pytest.mark.parametrize("function,arguments", (
    ("classifier", "-gpus 0 -c -1 -t 2 -clear -i 0 -nogpu -3 -1e3"),
    ("classifier", "-dashed.png"),
    ("detector", "-prefix -p -thresh .4 -hier .4 -c 0 -s 1 -avg 2 -gpus 0 -out o -clear -fullscreen -w 4 -h 4 -fps 9 -i 0 -nogpu -2"),
))
def test_known_options_numbers_and_files(function, arguments, build, tmp_path):
    """They get as far as the data file that is not there, or as its name."""
    (tmp_path / "-dashed.png").write_bytes(b"")
    (tmp_path / "net.cfg").write_text(networks.classifier({}, {}))
    result = build.darknet(tmp_path, function, "train", "d.data", "net.cfg", "net.weights", *arguments.split())
    assert result.returncode == 1 and "option" not in result.stderr, programs.describe(result)
    assert "net.weights" in result.stderr or "d.data" in result.stderr, programs.describe(result)


# ---- plan ------------------------------------------------------------------------

def plan(build, folder, cfg, name="net.cfg"):
    (folder / name).write_text(cfg)
    result = programs.succeed(build.darknet(folder, "kure", "plan", name, "--csv", "plan.csv", "--json", "plan.json"))
    with open(folder / "plan.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, result


def numbers(rows, column, value):
    return [int(row["layer"]) for row in rows if row[column] == value]


def roles(rows):
    """(first layers, last layers)"""
    return tuple([int(row["layer"]) for row in rows if role in row["role"].split(", ")] for role in ("first", "last"))


def stock_cfg(build, name):
    text = (build.folder / "darknet-src" / "cfg" / name).read_text()
    return re.sub(r"(?m)^(batch|subdivisions)=.*", r"\1=1", text)  # memory


def insert(cfg, section):
    """Behind [net]."""
    at = cfg.index("[convolutional]")
    return cfg[:at] + section + cfg[at:]


# Darknet's own networks: layers that read the input, that feed the loss, how many convolutions there are
STOCK = {
    "yolov3-tiny.cfg": ([0], [15, 22], 13),
    "resnet18.cfg": ([0], [27], 18),
    "cifar.cfg": ([0], None, None),
    "darknet19.cfg": ([0], [23], 19),
}


@pytest.mark.parametrize("name", STOCK)
def test_plan_of_stock_networks(name, build, tmp_path):
    first, last, convolutions = STOCK[name]
    cfg = insert(stock_cfg(build, name), "[kurtosis]\n\n")
    rows, _ = plan(build, tmp_path, cfg)
    weighted = numbers(rows, "type", "convolutional")
    got = roles(rows)
    assert got[0] == first
    if last is not None:
        assert got[1] == last and len(weighted) == convolutions
    assert numbers(rows, "kurtosis", "yes") == [i for i in weighted if i not in first], "all but those that read the network input"
    assert all(row["target"] == "1.8" and row["lambda"] == "1" for row in rows if row["kurtosis"] == "yes")


def test_first_layers_behind_layers_without_weights(build, tmp_path):
    """Two convolutions read the network input: one behind a maxpool, one by a route around the first."""
    body = (networks.section("maxpool", size=2, stride=2) + networks.conv(4) + networks.section("route", layers="0")
            + networks.conv(4) + networks.section("shortcut", activation="linear", **{"from": 1}) + networks.conv(8) + networks.classifier_head(3))
    rows, _ = plan(build, tmp_path, networks.net() + "[kurtosis]\n" + body)
    assert roles(rows) == ([1, 3], [6])
    assert numbers(rows, "kurtosis", "yes") == [5, 6]


def test_connected_is_by_choice(build, tmp_path):
    for choice in (0, 1):
        cfg = networks.every_layer().replace("[convolutional]", f"[kurtosis]\nconnected={choice}\n[convolutional]", 1)
        rows, _ = plan(build, tmp_path, cfg)
        yes = numbers(rows, "kurtosis", "yes")
        types = {rows[i]["type"] for i in yes}
        assert types == ({"convolutional", "connected"} if choice else {"convolutional"})
        assert all(rows[i]["reason"] == "connected=0" for i in numbers(rows, "type", "connected") if i not in yes)


# networks.classifier: weights in 0, 1, 3, 5, 7
LAYERS = {
    "1": [1], "1,3": [1, 3], "1-3": [1, 3], "0": [0], "0-": [0, 1, 3, 5, 7], "3-": [3, 5, 7], "first": [0], "last": [7], "first-last": [0, 1, 3, 5, 7],
    "3-last": [3, 5, 7], "first,5": [0, 5], "1, 5": [1, 5], "7,1": [1, 7], "1-3,3-5": [1, 3, 5], "2-4": [3],
}


@pytest.mark.parametrize("value", LAYERS)
def test_layers_syntax(value, build, tmp_path):
    rows, _ = plan(build, tmp_path, networks.classifier(None, {"layers": value}))
    assert numbers(rows, "kurtosis", "yes") == LAYERS[value]
    assert all(row["reason"] == "not in layers=" for row in rows if row["kurtosis"] == "no")


def test_layer_keys_in_the_plan(build, tmp_path):
    body = (networks.conv(8, kurtosis=1) + networks.conv(8, kurtosis_target=3) + networks.conv(8, kurtosis=0) + networks.conv(8, kurtosis_lambda="1e-1")
            + networks.conv(8) + networks.classifier_head(3))
    rows, result = plan(build, tmp_path, networks.net() + networks.section("kurtosis", target=2, **{"lambda": 5}) + body)
    assert numbers(rows, "kurtosis", "yes") == [0, 1, 3, 4, 5]
    assert [(rows[i]["target"], rows[i]["lambda"]) for i in (0, 1, 3, 4)] == [("2", "5"), ("3", "5"), ("2", "0.5"), ("2", "5")]
    assert rows[2]["reason"] == "kurtosis=0"
    assert "5 layers are regularized" in result.stdout


@pytest.mark.parametrize("keys,reason,frozen", (
    ({"stopbackward": 1}, "stopbackward", (0, 1)), ({"learning_rate": 0}, "learning_rate=0", (1,)), ({"binary": 1}, "binary", (1,)),
    ({"xnor": 1}, "binary", (1,)),
))
def test_layers_that_cannot_be_regularized(keys, reason, frozen, build, tmp_path):
    body = networks.conv(8) + networks.conv(8, **keys) + networks.conv(8) + networks.classifier_head(3)
    rows, _ = plan(build, tmp_path, networks.net() + "[kurtosis]\n" + body)
    assert numbers(rows, "kurtosis", "yes") == [2, 3]
    assert all(reason in rows[i]["reason"] for i in frozen)


def test_small_layers_are_left_out(build, tmp_path):
    body = networks.conv(8) + networks.conv(1, size=1) + networks.conv(8, size=1) + networks.conv(8) + networks.classifier_head(3)
    rows, _ = plan(build, tmp_path, networks.net() + "[kurtosis]\n" + body)
    assert numbers(rows, "kurtosis", "yes") == [3, 4] and "fewer than 16" in rows[1]["reason"]
    rows, _ = plan(build, tmp_path, networks.net() + "[kurtosis]\ngranularity=channel\n" + body)
    assert numbers(rows, "kurtosis", "yes") == [3] and "a channel" in rows[4]["reason"]


def test_plan_in_three_forms(build, tmp_path):
    """The printed table, CSV and JSON say the same; a plan's hash follows what it says."""
    cfg = networks.classifier(None, {"target": 2})
    rows, result = plan(build, tmp_path, cfg)
    document = json.loads((tmp_path / "plan.json").read_text())
    assert document["schema"] == "kure.plan/1" and document["plan"] in result.stdout
    for row, other in zip(rows, document["rows"]):
        assert {k: v for k, v in row.items()} == {k: "" if v is None else f"{v:g}" if isinstance(v, float) else str(v) for k, v in other.items()}
    table = result.stdout.splitlines()
    assert [line.split()[:2] for line in table[1:1 + len(rows)]] == [[row["layer"], row["type"]] for row in rows]
    hashes = {json.loads((plan(build, tmp_path, text) and tmp_path / "plan.json").read_text())["plan"]
              for text in (cfg, cfg.replace("target=2", "target=2.5"), cfg.replace("[kurtosis]", "[kurtosis]\nfold=1"),
                           cfg.replace("filters=8", "filters=10", 1))}
    assert len(hashes) == 4


def test_plan_without_section(build, tmp_path):
    _, result = plan(build, tmp_path, networks.classifier())
    assert "no [kurtosis]" in result.stdout


# ---- --clean -----------------------------------------------------------------------

CLEAN = {
    "at the start": (lambda s: insert(s, "[kurtosis]\ntarget=2\n"), lambda s: s),
    "at the end": (lambda s: s + "[kurtosis]\ntarget=2", lambda s: s),
    "layer keys": (lambda s: insert(s.replace("filters=8\n", "filters=8\nkurtosis = 1\nkurtosis_target=3 # three\n"), "[kurtosis]\n"), lambda s: s),
    "seed": (lambda s: s.replace("batch=4\n", "batch=4\nseed=5\n"), lambda s: s),
    "comments stay": (lambda s: insert("# mine\n" + s, "[kurtosis] # ours\ntarget=2 # two\n# about the next layer\n"),
                      lambda s: insert("# mine\n" + s, "# about the next layer\n")),
    "crlf": (lambda s: insert(s, "[kurtosis]\ntarget=2\n").replace("\n", "\r\n"), lambda s: s.replace("\n", "\r\n")),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_gives_the_cfg_without_our_lines(name, build, builds, tmp_path):
    original = networks.classifier()
    change, expected = CLEAN[name]
    (tmp_path / "net.cfg").write_bytes(change(original).encode())
    programs.succeed(build.darknet(tmp_path, "kure", "plan", "net.cfg", "--clean", "clean.cfg"))
    assert (tmp_path / "clean.cfg").read_bytes() == expected(original).encode()
    if name != "crlf":  # stock Darknet does not read CRLF
        programs.succeed(builds("stock").harness(tmp_path, "train", "clean.cfg", "out.weights"))
        assert builds("stock").harness(tmp_path, "train", "net.cfg", "out.weights").returncode != 0 or "[kurtosis]" not in change(original)


@pytest.mark.parametrize("flag", ("--clean", "--csv", "--json"))
def test_output_that_cannot_be_written(flag, build, tmp_path):
    (tmp_path / "net.cfg").write_text(networks.classifier())
    programs.refuse(build.darknet(tmp_path, "kure", "plan", "net.cfg", flag, "nowhere/file"), "nowhere/file")
    assert [p.name for p in tmp_path.iterdir()] == ["net.cfg"]


# ---- stats ---------------------------------------------------------------------------

@pytest.mark.parametrize("fold", (0, 1))
@pytest.mark.parametrize("std", ("unbiased", "biased"))
def test_stats_equal_numpy(std, fold, build, small):
    folder, cfg, tensors = small
    (folder / "net.cfg").write_text(cfg.replace("[kurtosis]\n", f"[kurtosis]\nstd={std}\n"))
    programs.succeed(build.darknet(folder, "kure", "stats", "net.cfg", "net.weights", "--csv", "stats.csv", "--json", "stats.json",
                                   "--batchnorm", ("train", "fold")[fold]))
    with open(folder / "stats.csv", newline="") as file:
        rows = {int(row["layer"]): row for row in csv.DictReader(file)}
    assert sorted(rows) == [0, 1, 3, 5, 7]
    for i, row in rows.items():
        w = tensors[f"layers.{i}.weights"].astype(np.float64).reshape(tensors[f"layers.{i}.biases"].size, -1)
        if fold and f"layers.{i}.scales" in tensors:
            s = tensors[f"layers.{i}.scales"] / np.sqrt(tensors[f"layers.{i}.rolling_variance"].astype(np.float64) + 1e-5)
            w = w * s[:, None]
        x = w.reshape(-1)
        d = x - x.mean()
        expected = dict(n=x.size, mean=x.mean(), std=x.std(ddof=1), skewness=(d ** 3).mean() / (d ** 2).mean() ** 1.5,
                        kurtosis=reference.kurtosis(x, std), min=x.min(), max=x.max())
        for column, value in expected.items():
            shown = 5.1e-4 if column in ("skewness", "kurtosis") else 5.1e-4 * abs(value)  # %.3f and %.4g
            assert abs(float(row[column]) - value) <= shown, (i, column, value)
        assert row["type"] == "convolutional"
        sqnr = [float(row[f"sqnr_{b}"]) for b in (8, 6, 4, 3, 2)]
        assert sqnr == sorted(sqnr, reverse=True) and 35 < sqnr[0] < 60
