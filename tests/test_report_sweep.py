"""scripts/report.py on tables of kure sweep: scores, comparisons, and what must not be compared."""
import json
import re

import numpy as np
import pytest

import programs
from test_post_training import DATA, cfg_of, trained  # noqa: F401 (a fixture)
from test_report import Balance, refused, report, write_csv

BITS, RATIOS, ROUNDINGS = (8, 3, 2), (0.5, 1.0, 1.5, 2.0), ("half_even", "floor")
QUANTIZER = ("bits", "step_ratio", "rounding", "truncation", "truncation_value", "granularity", "grid", "symmetric", "step")
COLUMNS = ["model_hash", "plan_hash", "grid_hash", "points", "point", *(f"{of}_{key}" for of in ("weight", "activation") for key in QUANTIZER),
           "batchnorm", "first_bits", "last_bits", "calibration_images", "bn_images", "bias_images", "equalized", "top1", "top5", "weight_sqnr", "seconds"]
HASHES = {"kure": "1" * 32, "control": "2" * 32, "per tensor": "a" * 32, "per channel": "b" * 32}
GAIN = {"kure": 6, "control": 0}


def accuracy(model, bits, ratio, rounding="half_even"):
    fall = {8: 2, 3: 9, 2: 23}[bits] * (1 if rounding == "half_even" else 1.5)
    return round(90 - fall * (1 + abs(np.log2(ratio))) + GAIN[model] * (bits == 2), 2)


def quantizer(of, bits, ratio=1.0, rounding="half_even", **changes):
    keys = dict(bits=bits, step_ratio=ratio, rounding=rounding, truncation="mse", granularity="tensor", grid="narrow", symmetric=1, step="free")
    return {f"{of}_{key}": value for key, value in {**keys, **changes}.items()}


def numbered(model, points, grid="per tensor"):
    """The rows of a sweep: float first."""
    points = [dict(weight_bits=0, activation_bits=0, top1=90.0 if model == "kure" else 90.5), *points]
    return [dict(model_hash=HASHES[model], plan_hash="c" * 32, grid_hash=HASHES.get(grid, grid), points=len(points), point=i, bn_images=0,
                 bias_images=0, equalized=0, seconds=i, **{"activation_bits": 0, **p}) for i, p in enumerate(points)]


def points(model, granularity="tensor", bits=BITS, ratios=RATIOS, roundings=ROUNDINGS):
    return [dict(quantizer("weight", b, r, o, granularity=granularity), batchnorm="fold", top1=accuracy(model, b, r, o) - (granularity == "channel"))
            for o in roundings for b in bits for r in ratios]


def sweep(model, grid="per tensor", **options):
    return numbered(model, points(model, "channel" if grid == "per channel" else "tensor", **options), grid)


def score(model, bits=BITS, ratios=RATIOS, roundings=ROUNDINGS):
    """By NumPy: areas over their width, then the mean."""
    return np.mean([np.trapz([accuracy(model, b, r, o) for r in ratios], ratios) / (ratios[-1] - ratios[0]) for o in roundings for b in bits])


@pytest.fixture
def folder(tmp_path):
    for model in GAIN:
        write_csv(tmp_path / f"{model}.sweep.csv", COLUMNS, sweep(model))
    return tmp_path


def page_of(folder, *arguments):
    """(cells of tables, text of the page, what was printed)"""
    result = report(folder, *arguments, "-o", "report.html")
    assert result.returncode == 0, result.stderr
    text = (folder / "report.html").read_text().replace("\xa0", " ")
    balance = Balance()
    balance.feed(text)
    assert balance.open == [] and text.count("<figure>") == text.count("<svg") == text.count("<details>")
    return balance.cells, text, result


def test_models_side_by_side(folder):
    cells, text, result = page_of(folder, "kure.sweep.csv", "other=control.sweep.csv")
    for model, name, plain in (("kure", "kure", 90), ("control", "other", 90.5)):
        assert f"{score(model):.2f} ({score(model) / plain:.3f})" in cells and f"{name} keeps {score(model):.1f} %" in result.stdout
        assert f"{np.mean([accuracy(model, 2, r, o) for r in RATIOS for o in ROUNDINGS]):.2f}" in cells and name in cells
    for heading in ("Robustness", "Fragility", "Accuracy over weight bits", "Accuracy over weight step ratio", "Accuracy over weight rounding"):
        assert text.count(f"<h2>{heading}</h2>") == 1
    assert text.count("<figure>") == 1 + 1 + 2 + 2 and "aaaaaaaa" in cells and "24" in cells and result.stderr == ""
    assert "weight step ratio (0.5, 1, 1.5, 2) and weight rounding (half_even, floor)" in text


def test_what_costs_most(folder):
    """Points lost along each axis, from the best to the worst mean."""
    cells, _, _ = page_of(folder, "kure.sweep.csv")
    means = {b: np.mean([accuracy("kure", b, r, o) for r in RATIOS for o in ROUNDINGS]) for b in BITS}
    assert f"{max(means.values()) - min(means.values()):.2f} (at 2)" in cells
    means = {o: np.mean([accuracy("kure", b, r, o) for r in RATIOS for b in BITS]) for o in ROUNDINGS}
    assert f"{means['half_even'] - means['floor']:.2f} (at floor)" in cells
    assert cells.index("weight bits") < cells.index("weight rounding") < len(cells)


def both_ratios(tied):
    grid = [(w, a) for w in RATIOS for a in (0.5, 1.0, 3.0) if not tied or w == a]
    return grid, [dict(quantizer("weight", 3, w), **quantizer("activation", 4, a), batchnorm="fold", top1=round(80 - 7 * w * a + a, 2)) for w, a in grid]


def test_area_over_two_step_ratios(folder):
    """Along both: the volume over its base; where one flag sets both, the area along it once; float activations have no ratio."""
    _, rows = both_ratios(tied=False)
    top1 = np.array([row["top1"] for row in rows]).reshape(4, 3)
    expected = np.trapz(np.trapz(top1, (0.5, 1.0, 3.0), axis=1) / 2.5, RATIOS) / 1.5
    write_csv(folder / "kure.csv", COLUMNS, numbered("kure", rows))
    assert f"{expected:.2f} (" in report(folder, "kure.csv").stdout
    plain = [dict(quantizer("weight", 3, w), batchnorm="fold", top1=50) for w in RATIOS for _ in range(3)]
    write_csv(folder / "kure.csv", COLUMNS, numbered("kure", rows + plain))
    assert f"{(expected + 50) / 2:.2f} (" in report(folder, "kure.csv").stdout
    rows = [dict(quantizer("weight", 3, r), **quantizer("activation", 4, r), batchnorm="fold", top1=t) for r, t in zip(RATIOS, (30, 70, 80, 60))]
    write_csv(folder / "kure.csv", COLUMNS, numbered("kure", rows))
    result = report(folder, "kure.csv")
    assert f"{np.trapz((30, 70, 80, 60), RATIOS) / 1.5:.2f} (" in result.stdout
    assert "step ratio of weights and activations (0.5, 1, 1.5, 2)" in result.stdout


def test_several_grids_in_one_table(folder):
    rows = [dict(model=model, **row) for model in GAIN for grid in ("per tensor", "per channel") for row in sweep(model, grid)]
    write_csv(folder / "sweep.csv", ["model", *COLUMNS], rows)
    cells, text, result = page_of(folder, "sweep.csv")
    for grid, less in (("per tensor", 0), ("per channel", 1)):
        at = cells.index(f"{grid}, folded weights")
        expected = [(score(model) - less, plain) for model, plain in (("control", 90.5), ("kure", 90))]
        assert cells[at + 1:at + 3] == [f"{top1:.2f} ({top1 / plain:.3f})" for top1, plain in expected]
        assert f"{grid}, folded weights" in result.stdout
    assert result.stderr == "" and text.count("<figure>") == 2 * (1 + 1 + 2 + 2)
    refused(report(folder, "kure=sweep.csv"), "sweep.csv", "kure=")


def test_json_and_repeated_headers(folder):
    write_csv(folder / "kure.csv", COLUMNS, sweep("kure"))
    rows = [{c: row.get(c) for c in COLUMNS} for row in sweep("kure")]
    (folder / "kure.json").write_text(json.dumps({"schema": "kure.sweep/1", "model": "00", "plan": "11", "rows": rows}))
    text = (folder / "kure.csv").read_bytes()
    (folder / "kure.twice.csv").write_bytes(text + text)
    expected = report(folder, "kure.csv").stdout
    assert report(folder, "kure.json").stdout == report(folder, "kure.twice.csv").stdout == report(folder, "kure.csv", "kure.json").stdout == expected


def test_an_incomplete_sweep_has_no_score(folder):
    rows = sweep("kure")
    write_csv(folder / "kure.sweep.csv", COLUMNS, rows[:-5])
    cells, text, result = page_of(folder, "kure.sweep.csv", "control.sweep.csv")
    assert "5 of 25 points of grid aaaaaaaa are missing" in result.stderr and "class=note" in text
    assert cells[cells.index("incomplete") - 1:][:3] == [f"{score('control'):.2f} ({score('control') / 90.5:.3f})", "incomplete", "24"]
    assert f"{score('kure'):.2f}" not in text and "robustness)" not in text
    three = [accuracy("control", 3, r, o) for o, rs in (("half_even", RATIOS), ("floor", RATIOS[:3])) for r in rs]
    assert f"{np.mean(three):.2f}" in cells  # the other model, over the points that both have
    write_csv(folder / "control.sweep.csv", COLUMNS, sweep("control")[-5:])
    _, text, result = page_of(folder, "kure.sweep.csv", "control.sweep.csv")
    assert "20 of 25" in result.stderr and "folded weights, control" in text


def test_other_grids_are_not_compared(folder):
    write_csv(folder / "control.sweep.csv", COLUMNS, sweep("control", "d" * 32, bits=(8, 2)))
    cells, text, result = page_of(folder, "kure.sweep.csv", "control.sweep.csv")
    assert result.stderr == "Note: kure and control are not compared: their grids aaaaaaaa and dddddddd differ in weight_bits.\n"
    assert "where control keeps" not in text and text.count("class=note") == 1
    alone = f"{score('kure'):.2f} ({score('kure') / 90:.3f})"
    rows = [cells[cells.index(f"per tensor, folded weights, bits {bits}") + 1:][:3] for bits in ("8, 3, 2", "8, 2")]  # without empty cells
    assert rows[0] == [alone, "24", "aaaaaaaa"] and rows[1][1:] == ["16", "dddddddd"]
    rows = [dict(row, grid_hash="d" * 32) for row in sweep("control")]
    write_csv(folder / "control.sweep.csv", COLUMNS, rows)
    assert "in no column: other images" in page_of(folder, "kure.sweep.csv", "control.sweep.csv")[2].stderr


def test_a_part_of_another_grid_is_not_drawn_twice(folder):
    """Widths of one grid and step ratios of the other, where both have the same setting."""
    few = sweep("kure", "d" * 32, ratios=RATIOS[::len(RATIOS) - 1])
    write_csv(folder / "both.csv", ["model", *COLUMNS], [dict(row, model="kure") for row in sweep("kure") + few])
    cells, text, _ = page_of(folder, "both.csv")
    assert cells.count("aaaaaaaa") == cells.count("dddddddd") == 1, "each has its score"
    alone = page_of(folder, "kure.sweep.csv")[1]
    section, expected = (page.split("<h2>Accuracy over weight step ratio</h2>")[1].split("<section>")[0].count("<figure>") for page in (text, alone))
    assert section == expected > 0


def test_one_name_stands_for_one_network(folder):
    refused(report(folder, "kure.sweep.csv", "kure=control.sweep.csv"), "control.sweep.csv", "kure", "22222222", "11111111", "--average")
    stdout = report(folder, "a=kure.sweep.csv", "a=control.sweep.csv", "--average").stdout
    assert f"{(score('kure') + score('control')) / 2:.2f} (" in stdout
    write_csv(folder / "other.csv", COLUMNS, [dict(row, grid_hash="d" * 32) for row in sweep("kure")])
    refused(report(folder, "kure.sweep.csv", "kure=other.csv"), "kure", "same quantizers", "aaaaaaaa", "dddddddd")


def change(rows, number, **cells):
    return [dict(row, **cells) if i == number else row for i, row in enumerate(rows)]


@pytest.mark.parametrize("number, cells, words", [
    (3, {"top1": "high"}, ["row 4", "top1", "high"]), (3, {"top1": "nan"}, ["row 4", "top1"]), (3, {"top1": 100.5}, ["row 4", "100.5", "percent"]),
    (3, {"weight_step_ratio": "x"}, ["row 4", "weight_step_ratio", "x"]), (3, {"weight_step_ratio": 0}, ["row 4", "more than 0"]),
    (3, {"grid_hash": "xyz"}, ["row 4", "grid_hash", "xyz"]), (3, {"model_hash": ""}, ["row 4", "model_hash"]), (3, {"point": 25}, ["row 4", "point", "24"]),
    (3, {"point": 2.5}, ["row 4", "2.5"]), (3, {"points": 26}, ["25", "26"]), (3, {"point": 2}, ["point 2", "weight_step_ratio"]),
    (0, {"weight_bits": 8}, ["row 1", "float"]), (3, {"model_hash": "3" * 32}, ["kure", "33333333"])])
def test_damaged_rows(folder, number, cells, words):
    write_csv(folder / "kure.csv", COLUMNS, change(sweep("kure"), number, **cells))
    refused(report(folder, "kure.csv", "-o", "report.html"), "kure", *words)
    assert not (folder / "report.html").exists()


def test_damaged_files(folder):
    text = (folder / "kure.sweep.csv").read_text()
    (folder / "cut.csv").write_text(text[:-3])
    refused(report(folder, "cut.csv"), "cut.csv:26", "cut")
    for column in ("weight_rounding", "points", "model_hash"):
        kept = [c for c in COLUMNS if c != column]
        write_csv(folder / "less.csv", kept, [{c: row[c] for c in kept if c in row} for row in sweep("kure")])
        refused(report(folder, "less.csv"), "less.csv", column)
    write_csv(folder / "empty.csv", COLUMNS, [])
    refused(report(folder, "empty.csv"), "empty.csv", "no row")
    (folder / "new.json").write_text(json.dumps({"schema": "kure.sweep/2", "rows": sweep("kure")}))
    refused(report(folder, "new.json"), "new.json", "kure.sweep/2", "kure.sweep/1")
    write_csv(folder / "b.csv", COLUMNS, change(sweep("kure"), 4, top1=1))
    refused(report(folder, "kure.sweep.csv", "kure=b.csv"), "b.csv", "point 4", "top1")
    write_csv(folder / "control.csv", COLUMNS, change(sweep("control"), 4, weight_rounding="ceil"))
    refused(report(folder, "kure.sweep.csv", "control.csv"), "control.csv", "point 4", "weight_rounding", "ceil")


def test_many_axes_do_not_make_many_panels(folder):
    rows = [dict(quantizer("weight", b, r, o, truncation=t, granularity=g, step=s), batchnorm=f, first_bits=8, top1=round(50 + b - r, 2))
            for b in (4, 3, 2) for r in (1, 2) for o in ROUNDINGS for t in ("mse", "gauss") for g in ("tensor", "channel")
            for s in ("free", "power_of_two") for f in ("fold", "train")]
    write_csv(folder / "kure.csv", COLUMNS, numbered("kure", rows))
    _, text, _ = page_of(folder, "kure.csv")
    assert text.count("<figure>") == 1 + 1 + 3 + 5  # fragility, bits, ratios at three widths, five choices over all widths


def test_the_score_is_that_of_kure_sweep(build, trained):  # noqa: F811
    folder = trained[0]
    (folder / "sweep.cfg").write_text(cfg_of(16))
    result = programs.succeed(build.darknet(folder, "kure", "sweep", "sweep.cfg", "net.weights", DATA, "--csv", "report.csv", "--weight-bits", "4,2",
                                            "--weight-step-ratio", "0.5,1,1.2", "--weight-rounding", "half_even,floor"))
    printed = next(line for line in result.stdout.splitlines() if line.startswith("robustness")).split()
    shown = report(folder, "report.csv").stdout
    assert f" {printed[1]} (" in shown and printed[-1] in shown


# ---- detectors --------------------------------------------------------------------------

def as_detector(rows):
    """AP in place of top-1, a third of it."""
    return [{**row, "top1": None, "threshold": 0.25, "ap": round(row["top1"] / 3, 2)} for row in rows]


DETECTOR_COLUMNS = [*COLUMNS, "threshold", "ap"]


def test_detectors_are_shown_in_ap(folder):
    for model in GAIN:
        write_csv(folder / f"{model}.sweep.csv", DETECTOR_COLUMNS, as_detector(sweep(model)))
    cells, text, result = page_of(folder, "kure.sweep.csv", "control.sweep.csv", "--figure", "figure.svg")
    kept = re.search(r"kure keeps ([\d.]+) % AP \(its robustness\)", result.stdout)[1]
    assert float(kept) == pytest.approx(score("kure") / 3, abs=0.06) and "Robustness: AP (%)" in result.stdout
    assert f"{np.mean([round(accuracy('kure', 2, r, o) / 3, 2) for r in RATIOS for o in ROUNDINGS]):.2f}" in cells
    assert "top-1" not in text + result.stdout and "points of AP lost" in text and "AP (%)" in text


def test_classifiers_and_detectors_do_not_mix(folder):
    write_csv(folder / "boxes.csv", DETECTOR_COLUMNS, as_detector(sweep("kure", grid="d" * 32)))
    refused(report(folder, "kure.sweep.csv", "boxes.csv"), "boxes.csv: has ap, but kure.sweep.csv has top1")
    rows = as_detector(sweep("control"))
    rows[3] = {**rows[3], "top1": 50.0, "ap": None}
    write_csv(folder / "mixed.csv", DETECTOR_COLUMNS, rows)
    refused(report(folder, "mixed.csv"), "mixed.csv: row 4: has top1, where row 1 has ap")


def test_ap_is_percent(folder):
    rows = as_detector(sweep("kure"))
    rows[1]["ap"] = 101.0
    write_csv(folder / "boxes.csv", DETECTOR_COLUMNS, rows)
    refused(report(folder, "boxes.csv"), "boxes.csv: row 2: ap is 101", "0 to 100")
