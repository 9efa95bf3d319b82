"""scripts/paper.py --no-run: table and marks from made-up runs of the demo."""
import csv
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLUMNS = ["weight_bits", "weight_step_ratio", "weight_granularity", "batchnorm", "top1"]


def write(path, columns, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def write_seed(folder, two_bits=70, three_bits=82, float_kure=90, kurtosis=1.85):
    """A run: control has 90, 80 and 60 % in float, at 3 and at 2 bits."""
    (folder / "points").mkdir(parents=True)
    for model, accuracies in (("baseline", (90, 80, 60)), ("control", (90, 80, 60)), ("kure", (float_kure, three_bits, two_bits))):
        for setting, granularity, batchnorm in (("raw", "tensor", "train"), ("channel", "channel", "fold")):
            rows = [[0, "", "", "", accuracies[0]]]
            rows += [[bits, ratio, granularity, batchnorm, accuracy] for bits, accuracy in zip((3, 2), accuracies[1:]) for ratio in (0.8, 1.2)]
            write(folder / "points" / f"{model}-{setting}-bits.csv", COLUMNS, rows)
        final = kurtosis if model == "kure" else 3
        write(folder / f"{model}.log.csv", ["update", "loss", "kurtosis_loss", "rate", "kurtosis_2"], [[1, 1, 1, 0.1, 3], [2, 1, 1, 0.05, final]])
        write(folder / f"{model}.stats.csv", ["layer", "type", "n", "kurtosis"], [[0, "convolutional", 432, 3], [2, "convolutional", 4608, final]])


def paper(out, *options):
    return subprocess.run([sys.executable, ROOT / "scripts/paper.py", "--no-run", "--out", out, *options], cwd=ROOT, capture_output=True, text=True)


def test_table_and_marks(tmp_path):
    for seed, two_bits in ((1, 68), (2, 70), (3, 72)):
        write_seed(tmp_path / f"seed-{seed}", two_bits)
    result = paper(tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("PASS") == 4 and "MISSED" not in result.stdout
    assert "points: 10.00" in result.stdout  # 2 bits
    table = (tmp_path / "table.md").read_text()
    assert "| kure | 90.0 ± 0.0 | 82.0 ± 0.0 | 70.0 ± 2.0 |" in table and "| kure | 3.00 | 1.85 |" in table
    assert (tmp_path / "accuracy.svg").stat().st_size > 1000


@pytest.mark.parametrize("fault", [{"two_bits": 65.9}, {"three_bits": 80.9}, {"float_kure": 89.4}, {"kurtosis": 1.91}, {"kurtosis": 1.69}])
def test_missed_marks(tmp_path, fault):
    write_seed(tmp_path / "seed-7", **fault)
    result = paper(tmp_path, "--seeds", "7")
    assert result.returncode == 1 and result.stdout.count("MISSED") == 1 and result.stdout.count("PASS") == 3


def test_runs_that_are_not_there(tmp_path):
    result = paper(tmp_path)
    assert result.returncode == 1 and "seed-1" in result.stderr and result.stderr.count("\n") == 1
    assert paper(tmp_path, "--seeds", "one").returncode == 2
