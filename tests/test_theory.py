"""`darknet kure theory`: the table of section 3 in three forms, layers of a network, command lines. The numbers
themselves: tests/unit/test_theory.c."""
import csv
import json

import numpy as np
import pytest

import networks
import programs

pytestmark = pytest.mark.sanitize

CFG = networks.classifier({"seed": 3}, {})  # weights in 0, 1, 3, 5, 7
WEIGHTED = [0, 1, 3, 5, 7]

# Exact best step and MSE of variance 1, piecewise integration: grid, bits, normal, uniform
EXACT = (
    ("midrise", 2, 0.99569, 0.118846, 0.86603, 0.062500), ("midrise", 3, 0.58602, 0.037440, 0.43301, 0.015625),
    ("midrise", 4, 0.33520, 0.011543, 0.21651, 0.003906), ("midrise", 6, 0.10406, 0.001040, 0.05413, 0.000244),
    ("midrise", 8, 0.03076, 0.0000877, 0.01353, 0.0000153), ("full", 2, 1.04839, 0.149431, 0.94475, 0.107438),
    ("full", 3, 0.60182, 0.040638, 0.47546, 0.020377), ("full", 4, 0.33861, 0.011864, 0.22891, 0.004444),
    ("full", 8, 0.03077, 0.0000877, 0.01358, 0.0000154), ("narrow", 2, 1.22401, 0.190174, 1.15470, 0.111111),
    ("narrow", 3, 0.65077, 0.046860, 0.49487, 0.020408), ("narrow", 4, 0.35341, 0.012889, 0.23094, 0.004444),
    ("narrow", 8, 0.03087, 0.0000883, 0.01358, 0.0000154),
)

BAD_LINES = {  # arguments: words of the sentence; status 2
    ("--bits", "9"): ("--bits 9", "an integer from 2 to 8"),
    ("--bits", "1"): ("--bits 1",),
    ("--bits", "4.5"): ("--bits 4.5",),
    ("--bits", "4,"): ("--bits :", "from 2 to 8"),
    ("--bits", ""): ("--bits :",),
    ("--bits", "four"): ("--bits four",),
    ("--bits", "4,3,4"): ("--bits", "4 twice"),
    ("--bits", "4", "--bits", "3"): ("--bits is given twice",),
    ("--grid", "wide"): ("--grid wide", "narrow full midrise"),
    ("--distribution", "normal,cauchy"): ("--distribution cauchy", "uniform normal laplace"),
    ("--step-ratio", "0"): ("--step-ratio 0", "from 0.01 to 100"),
    ("--step-ratio", "nan"): ("--step-ratio nan",),
    ("--step-ratio", "-1"): ("--step-ratio -1",),
    ("--step-ratio", ",".join(f"{i / 100}" for i in range(1, 1100))): ("more than 1000",),
    ("--layer", "0"): ("--layer", "CFG WEIGHTS"),
    ("net.cfg", "net.weights", "--layer", "-1"): ("--layer -1",),
    ("net.cfg",): ("argument is missing", "CFG WEIGHTS"),
    ("net.cfg", "net.weights", "more"): ("too many",),
    ("net.cfg", "net.weights", "--distribution", "normal"): ("--distribution", "CFG WEIGHTS"),
    ("net.cfg", "net.weights", "--csv", "net.weights"): ("--csv", "net.weights"),
    ("--csv", "a", "--json", "a"): ("--csv", "--json"),
    ("--colour",): ("--help",),
    ("--bits",): ("--help",),
}


def table(build, folder, *arguments):
    """Rows of the CSV file, and what was printed."""
    result = programs.succeed(build.darknet(folder, "kure", "theory", *arguments, "--csv", "theory.csv", "--json", "theory.json"))
    with open(folder / "theory.csv", newline="") as file:
        return list(csv.DictReader(file)), result


@pytest.fixture
def trained(build, tmp_path):
    """net.cfg and net.weights without a sidecar; its tensors."""
    build.train(tmp_path, CFG, "net.weights", "-updates", 2)
    tensors = build.tensors(tmp_path, CFG, "-weights", "net.weights")
    for name in ("dump.0.loaded", "net.weights.kure"):
        (tmp_path / name).unlink()
    return tmp_path, tensors


# ---- command lines ---------------------------------------------------------------

def test_help_answers_the_questions(build, tmp_path):
    text = programs.succeed(build.darknet(tmp_path, "kure", "theory", "--help")).stdout
    for words in ("uniform Q(X)?", "Below the best step uniform X loses more", "--step-ratio", "Theorem 4", "ACIQ", "Where the approximation holds"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 100
    assert "theory" in programs.succeed(build.darknet(tmp_path, "kure", "--help")).stdout


@pytest.mark.parametrize("arguments", BAD_LINES, ids=lambda a: " ".join(a)[:40])
def test_bad_command_line(arguments, build, tmp_path):
    (tmp_path / "net.cfg").write_text(CFG)
    (tmp_path / "net.weights").write_bytes(b"not read")
    before = programs.files_under(tmp_path)
    result = build.darknet(tmp_path, "kure", "theory", *arguments)
    assert result.returncode == 2, programs.describe(result)
    for word in BAD_LINES[arguments]:
        assert word in result.stderr, programs.describe(result)
    assert result.stdout == "" and programs.files_under(tmp_path) == before


LAYERS = len(networks.layer_types(CFG))


@pytest.mark.parametrize("layer,words", ((f"{LAYERS}", (f"--layer {LAYERS}", f"layers 0 to {LAYERS - 1}")), ("0,2", ("--layer 2", "max", "no weights"))))
def test_layers_that_are_not_there(layer, words, build, trained):
    folder, _ = trained
    before = programs.files_under(folder)
    result = build.darknet(folder, "kure", "theory", "net.cfg", "net.weights", "--layer", layer, "--csv", "a.csv")
    programs.refuse(result, *words)
    assert result.stdout == "" and programs.files_under(folder) == before


@pytest.mark.parametrize("flag", ("--csv", "--json"))
def test_output_that_cannot_be_written(flag, build, tmp_path):
    programs.refuse(build.darknet(tmp_path, "kure", "theory", flag, "nowhere/file"), "nowhere/file")
    assert not list(tmp_path.iterdir())


# ---- distributions -----------------------------------------------------------------

def test_default_table(build, tmp_path):
    rows, result = table(build, tmp_path)
    assert [(r["bits"], r["ratio"], r["values"]) for r in rows] == [
        (str(b), r, v) for b in range(2, 9) for r in ("0.8", "1", "1.2") for v in ("uniform", "normal", "laplace")]
    assert {r["grid"] for r in rows} == {"midrise"} and all(r["gamma"] == "0" for r in rows if r["ratio"] == "1")
    assert len(result.stdout.splitlines()) == 64 and max(map(len, result.stdout.splitlines())) <= 100


def test_three_forms_say_the_same(build, tmp_path):
    rows, result = table(build, tmp_path, "--grid", "narrow,full", "--step-ratio", "0.5,1,2.25")
    document = json.loads((tmp_path / "theory.json").read_text())
    assert document["schema"] == "kure.theory/1" and document["model"] == document["plan"] == ""
    assert [{k: "" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()} for row in document["rows"]] == rows
    printed = [line.split() for line in result.stdout.splitlines()]
    shown = [c for c in rows[0] if any(r[c] for r in rows)]
    assert printed == [shown] + [[r[c] for c in shown] for r in rows]


def test_numbers_of_every_grid(build, tmp_path):
    rows, _ = table(build, tmp_path, "--grid", "midrise,full,narrow", "--distribution", "normal,uniform", "--step-ratio", "1")
    found = {(r["grid"], int(r["bits"]), r["values"]): (float(r["step"]), float(r["mse"])) for r in rows}
    for grid, bits, *numbers in EXACT:
        got = [*found[grid, bits, "normal"], *found[grid, bits, "uniform"]]
        assert got == pytest.approx(numbers, rel=4e-3), (grid, bits)  # EXACT has three to six digits
        assert got[0] == pytest.approx(numbers[0], rel=5e-4)


def test_paper_columns(build, tmp_path):
    """Lemma 2 and 3 by hand for uniform, lemma 1 with a second derivative of 1/2."""
    rows, _ = table(build, tmp_path, "--distribution", "uniform", "--step-ratio", "0.9,1")
    a = 3 ** 0.5
    for r in rows:
        levels, ratio = 2 ** int(r["bits"]), float(r["ratio"])
        step = 2 * a / (levels + 1)
        d, t = ratio * step, ratio * step * levels / 2
        expected = [d, (a - t) ** 3 / (3 * a) + levels * d ** 3 / (24 * a), ((ratio - 1) * step) ** 2 / 4]
        assert [float(r[c]) for c in ("paper_step", "paper_mse", "paper_gamma")] == pytest.approx(expected, rel=6e-4, abs=1e-15)


# ---- layers ------------------------------------------------------------------------

def quantization_error(x, step, bits, grid):
    half, offset = 2 ** (bits - 1), 0.5 if grid == "midrise" else 0
    codes = np.clip(np.round(x / step - offset), 1 - half if grid == "narrow" else -half, half - 1)
    return ((x - step * (codes + offset)) ** 2).mean()


def test_layers_equal_numpy(build, trained):
    folder, tensors = trained
    rows, result = table(build, folder, "net.cfg", "net.weights", "--bits", "2,4,8", "--grid", "midrise,narrow,full", "--step-ratio", "0.7,1,1.3")
    assert sorted({int(r["layer"]) for r in rows}) == WEIGHTED and len(rows) == 5 * 27
    assert max(map(len, result.stdout.splitlines())) <= 100 and "paper_mse" not in result.stdout
    least = {}
    for r in sorted(rows, key=lambda r: r["ratio"] != "1"):
        x = tensors[f"layers.{r['layer']}.weights"].astype(np.float64).reshape(-1)
        std, key = x.std(ddof=1), (r["layer"], r["bits"], r["grid"])
        assert int(r["n"]) == x.size and float(r["std"]) == pytest.approx(std, rel=6e-4)
        error = lambda step: quantization_error(x, step * std, int(r["bits"]), r["grid"]) / std ** 2
        step = float(r["step"])
        span = [error(s) for s in np.linspace(0.9994, 1.0006, 41) * step]  # four digits are shown
        assert min(span) * 0.999 <= float(r["mse"]) <= max(span) * 1.001, r
        if r["ratio"] == "1":
            least[key] = float(r["mse"])
            assert all(error(s) > 0.998 * least[key] for s in np.geomspace(0.3, 3, 400) * step), "a better step"
        assert float(r["gamma"]) == pytest.approx(abs(float(r["mse"]) - least[key]), abs=1e-3 * float(r["mse"]) + 1e-3 * least[key])


def test_chosen_layers_and_hashes(build, trained):
    folder, _ = trained
    rows, _ = table(build, folder, "net.cfg", "net.weights", "--layer", "5,1", "--bits", "4")
    assert [int(r["layer"]) for r in rows] == [1] * 3 + [5] * 3
    document = json.loads((folder / "theory.json").read_text())
    programs.succeed(build.darknet(folder, "kure", "stats", "net.cfg", "net.weights", "--json", "stats.json"))
    stats = json.loads((folder / "stats.json").read_text())
    assert (document["model"], document["plan"]) == (stats["model"], stats["plan"]) and document["plan"]
    for row in rows:
        other = next(r for r in stats["rows"] if r["layer"] == int(row["layer"]))
        assert float(row["kurtosis"]) == other["kurtosis"] and float(row["std"]) == other["std"]


def test_layer_of_equal_weights(build, trained):
    folder, tensors = trained
    networks.write_weights(folder / "net.weights", CFG, {**tensors, "layers.1.weights": np.full_like(tensors["layers.1.weights"], 0.25)})
    rows, result = table(build, folder, "net.cfg", "net.weights", "--bits", "4")
    assert sorted({int(r["layer"]) for r in rows}) == [0, 3, 5, 7] and "layer 1: all " in result.stderr
    for name in ("theory.csv", "theory.json"):
        (folder / name).unlink()
    result = build.darknet(folder, "kure", "theory", "net.cfg", "net.weights", "--layer", "1", "--csv", "theory.csv")
    assert result.returncode == 1 and result.stdout == "" and not (folder / "theory.csv").exists()
    programs.refuse(result, "layer 1: all ")
