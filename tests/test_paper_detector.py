"""scripts/paper_detector.py --no-run: table and marks from made-up runs of the detector's demo."""
import subprocess
import sys

import pytest

from test_paper import ROOT, write

# AP lost from a float 60 at 8, 4 and 3 bits
LOST = {("baseline", "tensor"): (.1, 1, 3), ("control", "tensor"): (.1, 1, 4), ("kure", "tensor"): (.1, 1, 1.9), ("baseline", "channel"): (.4, 1, 2),
        ("baseline", "pow2"): (1.8, 5, 9)}


def write_seed(folder, level=60, **changes):
    (folder / "points").mkdir(parents=True)
    lost = {**LOST, **{tuple(key.split("_")): value for key, value in changes.items()}}
    for model in ("baseline", "control", "kure"):
        for setting in ("tensor", "channel", "pow2"):
            points = zip((0, 8, 4, 3), (0, *lost.get((model, setting), (0, 0, 0))))
            write(folder / "points" / f"{model}-{setting}.csv", ["row", "weight_bits", "ap"], [[i, bits, level - x] for i, (bits, x) in enumerate(points)])


def paper(out, *options):
    return subprocess.run([sys.executable, ROOT / "scripts/paper_detector.py", "--no-run", "--out", out, *options], cwd=ROOT, capture_output=True, text=True)


def test_table_and_marks(tmp_path):
    for seed, level in ((1, 58), (2, 60), (3, 62)):
        write_seed(tmp_path / f"seed-{seed}", level)
    result = paper(tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("PASS") == 4 and "3 bits per tensor, where the baseline loses 3.00 AP and control 4.00" in result.stdout
    assert "| kure | 60.0 ± 2.0 | 59.9 ± 2.0 | 59.0 ± 2.0 | 58.1 ± 2.0 |" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("fault", ({"level": 39.9}, {"level": 80.1}, {"baseline_channel": (.6, 1, 2)}, {"baseline_pow2": (2, 5, 9)}, {"kure_tensor": (.1, 1, 2.1)},
                                   {"baseline_tensor": (.1, 1, 1.9)}))
def test_missed_marks(tmp_path, fault):
    write_seed(tmp_path / "seed-7", **fault)
    result = paper(tmp_path, "--seeds", "7")
    assert result.returncode == 1 and result.stdout.count("MISSED") == 1 and result.stdout.count("PASS") == 3, result.stdout


def test_runs_that_are_not_there(tmp_path):
    result = paper(tmp_path)
    assert result.returncode == 1 and "seed-1" in result.stderr and result.stderr.count("\n") == 1
