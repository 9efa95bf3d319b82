"""scripts/paper_quantization.py: table and marks from made-up evaluations, and its steps on a stand-in for darknet."""
import csv
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import paper_quantization as paper  # noqa: E402
import paper_seed  # noqa: E402


def seed(**changes):
    """A seed in which every mark holds; changes: model=points added to all of its accuracies."""
    base = {"control": 90, "kure": 90, "ste": 89, "lsq": 89.5, "dorefa": 89.2, "kure-ste": 89.5, "kure-lsq": 89.6, "kure-sample": 89.9}
    found = {}
    for model, accuracy in base.items():
        accuracy += changes.get(model.replace("-", "_"), 0)
        found[model] = {"float": None if model == "dorefa" else accuracy, "trained": accuracy if model not in ("control", "kure") else None}
        for group, calls in paper.GROUPS.items():
            values = [f"{value} {i}" if len(calls) > 1 else value for i, options in enumerate(calls)
                      for value in options[options.index(paper.key_of(options)) + 1].split(",")]
            found[model][group] = dict.fromkeys(values, accuracy) if model != "dorefa" or group == "bits" else {}
    return found


def test_the_list_of_a_call():
    assert paper.key_of(["--weight-bits", "8,6"]) == "--weight-bits"
    assert paper.key_of(["--weight-bits", "4", "--weight-truncation", "lp,sigma", "--weight-truncation-value", "3"]) == "--weight-truncation"
    assert paper.key_of(["--weight-bits", "4", "--weight-truncation", "percentile", "--weight-truncation-value", "99.5"]) == "--weight-truncation"


def test_table():
    table = paper.markdown([seed(), seed(ste=1)], [1, 2], 5000)
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in table.splitlines() if line.startswith("|")}
    assert rows[""][:3] == ["float", "as trained", "8 bits"] and rows[""][-1] == "all"
    assert rows["QAT, ste"] == ["89.5 ± 0.7"] * 12
    assert rows["QAT, dorefa"][0] == "" and rows["QAT, dorefa"][1] == "89.2 ± 0.0" and rows["QAT, dorefa"][-1] == ""
    assert rows["float"][1] == "" and len({len(cells) for cells in rows.values()}) == 1


def test_marks_hold():
    assert len(paper.marks([seed()])) == 7 and all(holds for *_, holds in paper.marks([seed(), seed()]))


@pytest.mark.parametrize("changes,missed", (({"ste": -0.1}, 1), ({"lsq": -0.6}, 1), ({"dorefa": -0.3}, 1), ({"kure_ste": -0.6}, 3), ({"kure_sample": -0.5}, 1)))
def test_marks_missed(changes, missed):
    assert sum(not holds for *_, holds in paper.marks([seed(**changes)])) == missed


def test_cfgs(tmp_path, monkeypatch):
    """Every model's cfg is the demo's network with relu and its own sections."""
    monkeypatch.chdir(ROOT)
    run = paper.Network(tmp_path, 7, 100)
    for name, (_, section) in paper.MODELS.items():
        text = run.cfg(name, "cfg/fashion-qat.cfg", section).read_text()
        assert "leaky" not in text and text.count("[convolutional]") == 6 and "seed=7" in text
        assert text.count("[quantization]") == ("[quantization]" in section) and text.count("[kurtosis]") == ("[kurtosis]" in section)


def test_a_step_is_done_once(tmp_path, monkeypatch):
    """Again after its inputs have changed; a failure is named and leaves no stamp."""
    program = tmp_path / "darknet"
    program.write_text("#!/bin/sh\n")
    monkeypatch.setattr(paper_seed, "DARKNET", program)
    run, out, made_from = paper.Network(tmp_path / "seed", 1, 0), tmp_path / "out.csv", tmp_path / "input"
    made_from.write_text("one")
    command = [sys.executable, "-c", f"open({str(out)!r}, 'a').write('x')"]
    for text, expected in (("one", "x"), ("one", "x"), ("two", "xx")):
        made_from.write_text(text)
        run.step(out, command, [made_from])
        assert out.read_text() == expected
    with pytest.raises(SystemExit, match="failed"):
        run.step(tmp_path / "other", [sys.executable, "-c", "raise SystemExit(3)"], [made_from])
    assert not (tmp_path / "other.stamp").exists()


def test_evaluations_are_read(tmp_path, monkeypatch):
    run = paper.Network(tmp_path, 1, 50)
    seen = []

    def step(self, out, command, inputs):
        seen.append(command)
        with open(out, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["top1"], ["88.5"], ["87.25"]])

    monkeypatch.setattr(paper.Network, "step", step)
    assert paper.top1(run.evaluate_model("ste", "bits.0", ["--weight-bits", "8,4"])) == [88.5, 87.25]
    assert "--images" in seen[0] and "50" in seen[0]
