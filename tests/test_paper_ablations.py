"""scripts/paper_ablations.py: tables, sentences and marks from made-up evaluations, and the evaluations that it asks for."""
import pathlib
import statistics
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import paper_ablations as paper  # noqa: E402
import paper_seed  # noqa: E402


def seed(**changes):
    """A seed that agrees with the paper everywhere; changes: figure=(model, point, points added)."""
    two = {"baseline": 10, "control": 12, "kure": 70, "target 3": 50, "target 6": 30}
    found = {"targets": {m: {**dict.fromkeys(map(str, paper.BITS), 88.0), "2": float(two[m]), "float": 90.0} for m in paper.MODELS},
             "ratios": {"control": dict.fromkeys(paper.FAR_RATIOS, 80.0), "kure": {**dict.fromkeys(paper.FAR_RATIOS, 85.0), "0.5": 20.0}},
             "powers": {m: {"4 free": 88.0, "4 power_of_two": 88.0 - loss, "3 free": 85.0, "3 power_of_two": 85.0 - 2 * loss} for m, loss in (("control", 4), ("kure", 1))},
             "lapq": {m: {f"{w} {p}": 80.0 + 3 * (p == "lapq") for w in paper.LAPQ_BITS for p in ("mse", "lapq")} for m in ("control", "kure")}}
    for figure, (model, point, more) in changes.items():
        found[figure][model][point] += more
    return found


def test_agreement_and_tables():
    seeds = [seed(), seed(targets=("kure", "2", 2))]
    assert [agrees for agrees, _ in paper.agreement(seeds).values()] == [True] * 4
    text = paper.markdown(seeds, [1, 2], 5000)
    assert "keeps 71.0, 50.0, 30.0 and 12.0 %" in text and "loses 4.0 and 8.0, with KURE 1.0 and 2.0" in text
    assert "85.0 against 80.0 % at it, 20.0 against 80.0 % at half of it" in text and "gains 3.0 points at 2 bits" in text
    assert "| KURE, target 1.8 | 90.0 ± 0.0 | 88.0 ± 0.0 | 88.0 ± 0.0 | 88.0 ± 0.0 | 88.0 ± 0.0 | 71.0 ± 1.4 |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4 * 2 + len(paper.MODELS) + 3 * 2


@pytest.mark.parametrize("changes,figure", (({"targets": ("target 3", "2", 25)}, 0), ({"targets": ("control", "2", 20)}, 0), ({"ratios": ("kure", "1.7", -6)}, 1),
                                            ({"ratios": ("kure", "0.5", 70)}, 1), ({"powers": ("kure", "3 power_of_two", -7)}, 2), ({"lapq": ("kure", "2/float lapq", -4)}, 3)))
def test_disagreement(changes, figure):
    found = [agrees for agrees, _ in paper.agreement([seed(**changes)]).values()]
    assert found == [i != figure for i in range(4)]
    assert paper.markdown([seed(**changes)], [1], 0).count("Does not agree") == 1


def test_marks():
    assert len(paper.marks([seed()])) == 4 and all(holds for *_, holds in paper.marks([seed()]))
    missed = paper.marks([seed(lapq=("control", "3/float lapq", -3.5))])
    assert [holds for *_, holds in missed] == [False, True, True, True] and missed[0][1] == pytest.approx(-0.5)


def test_what_is_evaluated(tmp_path, monkeypatch):
    """Every list gives as many points as its options have combinations."""
    demo, asked = tmp_path / "seed-4", []
    demo.mkdir()
    (demo / "kure.cfg").write_text("[net]\nseed=4\n[kurtosis]\ntarget=1.8\nlambda=1.0\nlog=somewhere.csv\n[convolutional]\n")

    def step(self, out, command, inputs):
        asked.append(command)
        lists = [len(word.split(",")) for word in command if word[:1].isdigit()]
        count = 1
        for n in lists:
            count *= n
        out.write_text("top1\n" + "".join(f"{i}\n" for i in range(count)))

    monkeypatch.setattr(paper_seed.Seed, "step", step)
    found = paper.Ablations(demo, 4, 0).run()
    n = len(paper.RATIOS)
    assert found["targets"]["kure"]["8"] == statistics.mean(range(n)) and found["targets"]["target 6"]["2"] == statistics.mean(range(4 * n, 5 * n))
    assert found["ratios"]["kure"]["2.0"] == len(paper.FAR_RATIOS) - 1 and found["powers"]["control"]["3 power_of_two"] == 1
    text = (demo / "ablations/target-6.cfg").read_text()
    assert "target=6\n" in text and "lambda=1.0" in text and "seed=4" in text and str(demo / "ablations/target-6.log.csv") in text
    trained = [command for command in asked if "classifier" in command]
    assert len(trained) == 2 and all(str(demo / "baseline.weights") in command and "-clear" in command for command in trained)
    assert sum("--lapq-images" in command for command in asked) == 2 * len(paper.LAPQ_BITS)
    assert any(str(demo / "ablations/target-3.weights") in command for command in asked) and any(str(demo / "kure.weights") in command for command in asked)


def test_needs_the_demo_networks(tmp_path):
    result = subprocess.run([sys.executable, ROOT / "scripts/paper_ablations.py", "--out", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and "seed-1/kure.weights" in result.stderr and result.stderr.count("\n") == 1
