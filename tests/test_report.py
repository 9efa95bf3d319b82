"""scripts/report.py on made-up tables, logs and weights, sound and damaged."""
import csv
import html.parser
import json
import pathlib
import re
import struct
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts/report.py"
CFG = """[net]
height=8
width=8
channels=3
[kurtosis]
lambda=1.0
[convolutional]
batch_normalize=1
filters=6   # a comment
size=3
pad=1
[maxpool]
size=2
stride=2
[route]
layers=-1,0
[convolutional]
filters=4
groups=3
size=1
[avgpool]
[connected]
output=5
[softmax]
"""
# biases, scales, mean, variance, weights of each layer of CFG
SIZES = (6, 18, 6 * 27, 4, 4 * 4, 5, 4 * 5)
BITS, RATIOS = (8, 3, 2), (0.8, 1.0, 1.4)
COLUMNS = ["model", "weight_bits", "weight_step_ratio", "weight_granularity", "weight_grid", "batchnorm", "top1", "seconds"]


def accuracy(model, bits, ratio):
    return {8: 90, 3: 80, 2: 40 if model == "control" else 60}[bits] - 10 * abs(ratio - 1)


def points(model):
    rows = [dict(model=model, weight_bits=0, top1=90.25)]
    for batchnorm in ("train", "fold"):
        rows += [dict(model=model, weight_bits=b, weight_step_ratio=r, weight_granularity="tensor", weight_grid="narrow", batchnorm=batchnorm,
                      top1=accuracy(model, b, r)) for b in BITS for r in RATIOS]
    return rows


def write_csv(path, columns, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_weights(path, sizes=SIZES, extra=b""):
    random = np.random.default_rng(3)
    floats = np.concatenate([random.uniform(-1, 1, n) for n in sizes]).astype("<f4")
    path.write_bytes(struct.pack("<iiiQ", 0, 2, 0, 12800) + floats.tobytes() + extra)


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path)


def fill(path):
    """Tables, logs and a network in a folder."""
    write_csv(path / "sweep.csv", COLUMNS, points("control") + points("kure"))
    for model, end in (("control", 3.0), ("kure", 1.8)):
        rows = [{"update": u, "loss": 2 / u, "kurtosis_loss": 1, "rate": 0.1, "capped": 0, "kurtosis_3": end + 1 / u} for u in range(1, 60)]
        write_csv(path / f"{model}.log.csv", list(rows[0]), rows)
        rows = [{"layer": n, "type": "convolutional", "n": 20, "kurtosis": end, "sqnr_2": 7 + n, "sqnr_8": 40} for n in (0, 3)]
        write_csv(path / f"{model}.stats.csv", list(rows[0]), rows)
    (path / "net.cfg").write_text(CFG)
    write_weights(path / "kure.weights")
    return path


def report(folder, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *arguments], cwd=folder, capture_output=True, text=True)


def refused(result, *words):
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr, result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


class Balance(html.parser.HTMLParser):
    """Every opened element is closed; the page's tables as text."""
    VOID = {"meta", "link", "br", "img", "input", "path", "use"}

    def __init__(self):
        super().__init__()
        self.open, self.cells = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_page_holds_every_plot_and_its_numbers(folder):
    files = ["sweep.csv", "control.log.csv", "kure.log.csv", "control.stats.csv", "kure.stats.csv", "kure=net.cfg,kure.weights"]
    result = report(folder, *files, "-o", "report.html")
    assert result.returncode == 0, result.stderr
    page = (folder / "report.html").read_text().replace("\xa0", " ")
    assert page.count("<figure>") == page.count("<svg") == page.count("<details>") == 2 + 4 + 1 + 1 + 3 + 2
    for heading in ("Accuracy over weight bits", "Accuracy over weight step ratio", "Kurtosis over training", "Loss over training", "Weights", "Quantization noise"):
        assert f"<h2>{heading}" in page
    assert "At 2 weight bits (per tensor, raw weights) kure keeps 58.0 % <span>top-1</span> where control keeps 38.0 %" in page and "90.2 %" in page
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    for number in ("58.00", "38.00", "90.25", "60.00"):
        assert number in balance.cells
    assert "58.00" in result.stdout and "per tensor, raw weights" in result.stdout


def test_page_refers_to_nothing_outside(folder):
    report(folder, "sweep.csv", "kure.log.csv", "-o", "report.html")
    page = (folder / "report.html").read_text()
    for forbidden in ("http:", "https:", "//", "@import", "src=", "<link", "/usr", str(folder)):
        assert forbidden not in page, forbidden
    assert not re.search(r'href="(?!#)', page)
    assert "None" not in page and "nan" not in re.sub(r"<[^>]*>", "", page)


def test_one_model_and_one_file(folder):
    write_csv(folder / "mine.csv", COLUMNS[1:], [{k: v for k, v in p.items() if k != "model"} for p in points("kure")])
    result = report(folder, "my net=mine.csv", "-o", "one.html")
    assert result.returncode == 0 and "my net keeps 58.0 % top-1" in result.stdout
    for name in ("kure.log.csv", "kure.stats.csv", "net.cfg,kure.weights"):
        assert report(folder, name, "-o", "one.html").returncode == 0
        assert "<svg" in (folder / "one.html").read_text()


def test_json_is_read_like_csv(folder):
    rows = [{c: p.get(c) for c in COLUMNS if c != "model"} for p in points("kure")]
    (folder / "kure.json").write_text(json.dumps({"schema": "kure.eval/1", "model": "00", "plan": "11", "rows": rows}))
    write_csv(folder / "kure.csv", COLUMNS, points("kure"))
    assert report(folder, "kure.json").stdout == report(folder, "kure.csv").stdout


def test_seeds_are_averaged(folder):
    for seed in (1, 2):
        write_csv(folder / f"{seed}.csv", COLUMNS, [dict(model="kure", weight_bits=4, weight_step_ratio=1, weight_granularity="tensor",
                                                         batchnorm="train", top1=80 + seed)])
    assert "81.50" in report(folder, "1.csv", "2.csv").stdout


def theory_rows(subject):
    paper = {"paper_mse": 0.01, "paper_gamma": 0.001} if "values" in subject else {}
    return [{"values": "", "layer": "", "n": 20, "kurtosis": 3, **subject, "bits": b, "grid": "midrise", "ratio": r, "step": r,
             "mse": 4.0 ** -b * (1 + abs(r - 1)), "gamma": 4.0 ** -b * abs(r - 1), **paper} for b in (2, 4) for r in (0.5, 1, 1.5)]


def test_theory_of_distributions_and_layers(folder):
    columns = [*theory_rows({"layer": 3})[0], "paper_mse", "paper_gamma"]
    write_csv(folder / "theory.csv", columns, theory_rows({"values": "uniform"}) + theory_rows({"values": "normal"}))
    for model in ("control", "kure"):
        write_csv(folder / f"{model}.theory.csv", columns, theory_rows({"layer": 3}))
    result = report(folder, "theory.csv", "control.theory.csv", "kure.theory.csv", "-o", "report.html")
    assert result.returncode == 0, result.stderr
    page = (folder / "report.html").read_text()
    assert page.count("<figure>") == page.count("<details>") == 2 * (1 + 2 * 2)  # least MSE; MSE and gamma at 2 bit widths
    for words in ("<h1>What another step size", "Least quantization error over bits", "Layer 3: Γ, 4 bits, midrise", "uniform, paper", "Thin dotted"):
        assert words in page
    balance = Balance()
    balance.feed(page)
    assert balance.open == [] and "0.09375" in balance.cells and "0.03125" in balance.cells  # 2 bits, ratio 0.5
    write_csv(folder / "bad.csv", columns, [{**theory_rows({"layer": 3})[0], "layer": ""}])
    refused(report(folder, "bad.csv", "-o", "bad.html"), "bad.csv", "row 1", "values or layer")
    assert not (folder / "bad.html").exists()


@pytest.mark.parametrize("name, begin", [("a.svg", b"<?xml"), ("a.png", b"\x89PNG")])
def test_figure(folder, name, begin):
    assert report(folder, "sweep.csv", "--figure", name).returncode == 0
    assert (folder / name).read_bytes().startswith(begin)


def test_kurtosis_is_that_of_the_weights(folder):
    weights = np.fromfile(folder / "kure.weights", "<f4")[5:]
    last = weights[-20:].astype(float)
    d = last - last.mean()
    expected = np.mean(d ** 4) / last.var(ddof=1) ** 2
    assert f"{expected:.2f}" in report(folder, "net.cfg,kure.weights").stdout.split("\n")[-2].split()[-1]


@pytest.mark.parametrize("text, words", [
    ("", ["is none of"]), ("a,b\n1,2\n", ["is none of"]), ("{", ["is no table"]), ('{"rows": 3}', ["is no table"]), ('{"rows": []}', ["is none of"]),
    ("weight_bits,top1\n8\n", ["bad:2"]), ("weight_bits,top1\n8,high\n", ["row 1", "top1", "high"]), ("weight_bits,top1\n", ["no row"]),
    ("weight_bits,top1\n8,nan\n", ["nan"]), ("update,loss,rate\n1,2,\n", ["rate"])])
def test_damaged_tables(folder, text, words):
    (folder / "bad").write_text(text)
    refused(report(folder, "bad", "-o", "report.html"), "bad", *words)
    assert not (folder / "report.html").exists()


def test_damaged_weights_and_cfgs(folder):
    write_weights(folder / "cut.weights", SIZES[:-1])
    refused(report(folder, "net.cfg,cut.weights"), "cut.weights", "layer 5")
    write_weights(folder / "long.weights", SIZES, b"\0" * 8)
    refused(report(folder, "net.cfg,long.weights"), "8 bytes left over")
    (folder / "odd.weights").write_bytes(b"\0" * 17)
    refused(report(folder, "net.cfg,odd.weights"), "odd.weights", "17 bytes")
    (folder / "nan.weights").write_bytes((folder / "kure.weights").read_bytes()[:-4] + b"\0\0\xc0\x7f")
    refused(report(folder, "net.cfg,nan.weights"), "layer 5")
    for text, word in (("", "[net]"), ("[net]\nheight=x\n[convolutional]\n", "layer 0"), ("[net]\n[lstm]\n", "lstm"), ("[net]\n[route]\nlayers=7\n", "layer 0")):
        (folder / "bad.cfg").write_text(text)
        refused(report(folder, "bad.cfg,kure.weights"), "bad.cfg", word)


def test_files_that_are_not_there_or_not_text(folder):
    refused(report(folder, "absent.csv"), "absent.csv")
    refused(report(folder, "net.cfg,absent.weights"), "absent.weights")
    refused(report(folder, "kure.weights"), "kure.weights")
    refused(report(folder, "."), ".")
    refused(report(folder, "sweep.csv", "-o", "absent/report.html"), "absent")
    refused(report(folder, "sweep.csv", "--figure", "a.bmp"), ".svg or .png")
    refused(report(folder, "kure.log.csv", "--figure", "a.png"), "kure eval")
    assert report(folder, "--help").returncode == 0
