"""`darknet kure sweep` and `merge`: a grid of quantizers, in parts, stopped and gone on with; the robustness score."""
import csv
import fcntl
import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest

import networks
import programs
from test_post_training import DATA, IMAGES, cfg_of, trained  # noqa: F401 (a fixture)

pytestmark = pytest.mark.sanitize

KEYS = ("--bits", "8,3", "--weight-step-ratio", "0.6,1,1.2", "--rounding", "half_even,floor", "--bn-images", 48, "--calibration-images", 64)
POINTS = 1 + 2 * 3 * 2


@pytest.fixture(scope="module")
def folder(build, trained):  # noqa: F811
    folder = trained[0]
    (folder / "sweep.cfg").write_text(cfg_of(16))
    return folder


def sweep(build, folder, *arguments, out="sweep.csv", keys=KEYS, **options):
    return build.darknet(folder, "kure", "sweep", "sweep.cfg", "net.weights", DATA, "--csv", out, *keys, *arguments, **options)


def rows_of(path):
    with open(path, newline="") as file:
        return [{**row, "seconds": None} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(build, folder):
    result = programs.succeed(sweep(build, folder, "--jobs", 2, "--json", "sweep.json", out="whole.csv"))
    return rows_of(folder / "whole.csv"), result


def test_points_are_those_of_eval(build, folder, whole):
    rows, _ = whole
    assert [int(row["point"]) for row in rows] == list(range(POINTS)) and all(row["points"] == str(POINTS) for row in rows)
    programs.succeed(build.darknet(folder, "kure", "eval", "sweep.cfg", "net.weights", DATA, "--csv", "eval.csv", *KEYS))
    expected = rows_of(folder / "eval.csv")
    for row, other in zip(rows[1:], expected, strict=True):
        assert {key: row[key] for key in other} == other
    programs.succeed(build.darknet(folder, "kure", "eval", "sweep.cfg", "net.weights", DATA, "--csv", "eval.csv", "--bn-images", 48))
    assert rows[0]["top1"] == rows_of(folder / "eval.csv")[0]["top1"] and rows[0]["weight_bits"] == "0"
    table = json.loads((folder / "sweep.json").read_text())
    assert table["schema"] == "kure.sweep/1" and len(table["rows"]) == POINTS and table["rows"][3]["point"] == 3


def test_the_score(folder, whole):
    """The area under accuracy over the step ratio, by NumPy, then the mean over all else."""
    rows, result = whole
    ratios = np.array([0.6, 1, 1.2])
    curves = {}
    for row in rows[1:]:
        curves.setdefault((row["weight_bits"], row["weight_rounding"]), {})[float(row["weight_step_ratio"])] = float(row["top1"])
    areas = [np.trapz([curve[r] for r in ratios], ratios) / np.ptp(ratios) for curve in curves.values()]
    score, relative, plain = map(float, re.search(r"robustness ([\d.]+) % top-1 over 12 points, ([\d.]+) of float \(([\d.]+) %\)", result.stdout).groups())
    assert len(areas) == 4 and score == pytest.approx(np.mean(areas), abs=0.006)
    assert plain == float(rows[0]["top1"]) and relative == pytest.approx(score / plain, abs=1e-4)


def area(points):
    """{(weight ratio, activation ratio): top-1} -> the volume under it over its base, by NumPy"""
    table = np.array([[points[x, y] for y in sorted({y for _, y in points})] for x in sorted({x for x, _ in points})])
    for axis, ratios in enumerate((sorted({x for x, _ in points}), sorted({y for _, y in points}))):
        table = np.trapz(table, ratios, axis=axis) / np.ptp(ratios) if len(ratios) > 1 else table.mean(axis)
        table = np.expand_dims(table, axis)
    return float(table.squeeze())


@pytest.mark.parametrize("keys", (
    ("--bits", "8,3", "--step-ratio", "0.5,0.8,2"),  # both ratios are one axis
    ("--bits", "4,2", "--weight-step-ratio", "0.5,1,2", "--activation-step-ratio", "0.7,1"),
    ("--weight-bits", "3", "--activation-bits", "0,3", "--activation-step-ratio", "0.5,1,1.2", "--weight-step-ratio", "0.6,1.5"),
    ("--weight-bits", "0,3", "--activation-bits", "0,3"),
))
def test_the_score_of_other_grids(keys, build, folder):
    """A curve counts once, with however many points; float activations have no ratio of their own."""
    result = programs.succeed(sweep(build, folder, keys=keys, out="score.csv"))
    rows, curves = rows_of(folder / "score.csv"), {}
    (folder / "score.csv").unlink()
    for row in rows:
        if row["weight_bits"] != "0" or row["activation_bits"] != "0":
            ratios = [float(row[f"{kind}_step_ratio"] or 1) for kind in ("weight", "activation")]
            curves.setdefault((row["weight_bits"], row["activation_bits"]), {})[ratios[0], 1 if "--step-ratio" in keys else ratios[1]] = float(row["top1"])
    score = float(re.search(r"robustness ([\d.]+) %", result.stdout)[1])
    assert score == pytest.approx(np.mean([area(points) for points in curves.values()]), abs=0.006)


def test_networks_share_a_grid(build, folder, whole):
    """Its hash is that of keys, images and options; cfg and weights are in the other two."""
    (folder / "again.cfg").write_text((folder / "sweep.cfg").read_text().replace("seed=3", "seed=4") + networks.section("kurtosis", **{"lambda": 0.5}))
    programs.succeed(build.darknet(folder, "kure", "sweep", "again.cfg", "net.weights", DATA, "--csv", "again.csv", *KEYS))
    first, other = whole[0][0], rows_of(folder / "again.csv")[0]
    assert other["grid_hash"] == first["grid_hash"] and other["model_hash"] == first["model_hash"] and other["plan_hash"] != first["plan_hash"]


@pytest.mark.parametrize("jobs", (1, 3))
def test_any_number_of_jobs(jobs, build, folder, whole):
    programs.succeed(sweep(build, folder, "--jobs", jobs, out=f"jobs{jobs}.csv"))
    assert rows_of(folder / f"jobs{jobs}.csv") == whole[0]


def test_shards_and_merge(build, folder, whole):
    names = [f"shard{i}.csv" for i in (1, 2, 3)]
    for i, name in enumerate(names, 1):
        result = programs.succeed(sweep(build, folder, "--shard", f"{i}/3", out=name))
        assert f"of {POINTS} points: no robustness score" in result.stdout
        assert [int(row["point"]) for row in rows_of(folder / name)] == list(range(i - 1, POINTS, 3))
    merged = programs.succeed(build.darknet(folder, "kure", "merge", *names, "--csv", "merged.csv"))
    assert rows_of(folder / "merged.csv") == whole[0]
    assert merged.stdout.splitlines()[-1] == whole[1].stdout.splitlines()[-1]
    (folder / "joined.csv").write_text("".join((folder / name).read_text() for name in names))
    programs.succeed(build.darknet(folder, "kure", "merge", "joined.csv", "--csv", "joined.csv"))
    assert rows_of(folder / "joined.csv") == whole[0], "one behind the other, and written over what was read"
    programs.succeed(build.darknet(folder, "kure", "merge", *names, *names))
    two = programs.succeed(build.darknet(folder, "kure", "merge", *names[:2]))
    assert f"9 of {POINTS} points" in two.stdout


def test_goes_on(build, folder, whole):
    """What is there stays, a line that was cut is made again; a sweep that is done evaluates nothing."""
    text = (folder / "whole.csv").read_text()
    lines = text.splitlines(keepends=True)
    (folder / "part.csv").write_text("".join(lines[:6]) + lines[6][:50])
    result = programs.succeed(sweep(build, folder, out="part.csv"))
    assert f"part.csv: 5 of {POINTS} points are there already" in result.stderr and rows_of(folder / "part.csv") == whole[0]
    lines[4] = lines[4].replace(rows_of(folder / "whole.csv")[3]["top1"], "12.34")
    (folder / "part.csv").write_text("".join(lines))
    programs.succeed(sweep(build, folder, out="part.csv"))
    assert rows_of(folder / "part.csv")[3]["top1"] == "12.34", "a row that is there is not evaluated again"


def test_killed_at_any_instant(build, folder, whole):
    rng = np.random.default_rng(11)
    path = folder / "killed.csv"
    for _ in range(4):
        process = subprocess.Popen([build.program("darknet"), *map(str, ("kure", "sweep", "sweep.cfg", "net.weights", DATA, "--csv", path, *KEYS))], cwd=folder,
                                   env=programs.ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(rng.uniform(0.05, 0.6))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    programs.succeed(sweep(build, folder, out="killed.csv"))
    assert rows_of(path) == whole[0]


def test_another_sweep_is_refused(build, folder, whole):
    """And nothing is lost of what lies there."""
    before = (folder / "whole.csv").read_bytes()
    programs.refuse(sweep(build, folder, keys=("--weight-bits", "8,4"), out="whole.csv"), "whole.csv:2", "grid")
    programs.refuse(sweep(build, folder, "--images", 10, out="whole.csv"), "whole.csv:2", "grid")
    tensors = build.tensors(folder, cfg_of(16), "-weights", "net.weights")
    tensors["layers.0.weights"][0] += 1
    networks.write_weights(folder / "other.weights", cfg_of(16), tensors)
    result = build.darknet(folder, "kure", "sweep", "sweep.cfg", "other.weights", DATA, "--csv", "whole.csv", *KEYS)
    programs.refuse(result, "whole.csv:2", "other weights")
    (folder / "text.csv").write_text("a,b\n1,2\n")
    programs.refuse(sweep(build, folder, out="text.csv"), "text.csv", "no table of kure sweep")
    (folder / "note.json").write_text('{"mine": 1}')
    programs.refuse(sweep(build, folder, out="note.json"), "note.json", "no table of kure sweep")
    assert (folder / "note.json").read_text() == '{"mine": 1}', "a file without a line end as well"
    text = (folder / "sweep.cfg").read_text()
    try:
        (folder / "sweep.cfg").write_text(text.replace("activation=leaky", "activation=relu"))
        programs.refuse(sweep(build, folder, out="whole.csv"), "whole.csv:2", "another cfg")
        (folder / "sweep.cfg").write_text(text)
        images = (folder / "valid.list").read_text()
        (folder / "valid.list").write_text("\n".join(reversed(images.split())) + "\n")
        programs.refuse(sweep(build, folder, out="whole.csv"), "whole.csv:2", "other images")
    finally:
        (folder / "sweep.cfg").write_text(text)
        (folder / "valid.list").write_text(images)
    assert (folder / "whole.csv").read_bytes() == before and (folder / "text.csv").read_text() == "a,b\n1,2\n"


def test_columns_of_another_version(build, folder, whole):
    """A table from before detectors were measured is kept as it is."""
    text = (folder / "whole.csv").read_text().replace(",ap,ap50", "", 1)
    (folder / "older.csv").write_text(text)
    programs.refuse(sweep(build, folder, out="older.csv"), "older.csv", "the columns of another version", "delete this one")
    programs.refuse(build.darknet(folder, "kure", "merge", "older.csv"), "older.csv", "the columns of another version")
    assert (folder / "older.csv").read_text() == text


def test_images_of_the_training_list_count(build, folder):
    """All that are drawn: those of the calibration, too, where --bn-images asks for fewer."""
    keys, images = ("--bits", "8", "--bn-images", 2), (folder / "train.list").read_text()
    programs.succeed(sweep(build, folder, keys=keys, out="drawn.csv"))
    try:
        lines = images.split()
        for i in range(0, len(lines), 2):
            (folder / "train.list").write_text("\n".join([*lines[:i], *lines[i + 2:]]) + "\n")
            result = sweep(build, folder, keys=keys, out="drawn.csv")
            programs.refuse(result, "drawn.csv:2", "other images")
            if i > 20:
                break
    finally:
        (folder / "train.list").write_text(images)


@pytest.mark.parametrize("arguments,words", (
    ((), ("quantizer key",)), (("--weight-bits", "8", "--shard", "0/3"), ("--shard 0/3", "i from 1")), (("--weight-bits", "8", "--shard", "4/3"), ("--shard 4/3",)),
    (("--weight-bits", "8", "--shard", "2"), ("--shard 2",)), (("--weight-bits", "8", "--shard", "3/3"), ("only 2 points",)),
    (("--weight-bits", "8", "--jobs", "0"), ("--jobs 0",)), (("--simulate",), ("--help",)), (("--weight-bits", "8", "--seed", "3"), ("--seed",)),
))
def test_wrong_command_lines(arguments, words, build, folder):
    result = sweep(build, folder, *arguments, keys=(), out="wrong.csv")
    assert result.returncode == 2 and all(word in result.stderr for word in words), programs.describe(result)
    assert not (folder / "wrong.csv").exists()


def test_where_the_rows_go_must_be_said(build, folder):
    result = build.darknet(folder, "kure", "sweep", "sweep.cfg", "net.weights", DATA, "--weight-bits", "8")
    assert result.returncode == 2 and "--csv" in result.stderr
    os.mkfifo(folder / "pipe")
    result = sweep(build, folder, out="pipe")
    assert result.returncode == 2 and "regular file" in result.stderr


def test_faults_of_merge(build, folder, whole):
    text = (folder / "whole.csv").read_text()
    top1 = whole[0][2]["top1"]
    (folder / "changed.csv").write_text(re.sub(rf"^(.*,2,.*,){re.escape(top1)},", r"\g<1>1.23,", text, flags=re.M))
    assert (folder / "changed.csv").read_text() != text
    programs.refuse(build.darknet(folder, "kure", "merge", "whole.csv", "changed.csv"), "changed.csv:", "top1", "1.23")
    programs.refuse(build.darknet(folder, "kure", "merge", "whole.csv", "nowhere.csv"), "nowhere.csv")
    (folder / "empty.csv").write_text(text.splitlines(keepends=True)[0])
    programs.refuse(build.darknet(folder, "kure", "merge", "empty.csv"), "no row")
    (folder / "short.csv").write_text(text + "1,2,3\n")
    programs.refuse(build.darknet(folder, "kure", "merge", "short.csv"), "short.csv:", "no row of a sweep")
    result = build.darknet(folder, "kure", "merge")
    assert result.returncode == 2 and "FILE" in result.stderr


def test_merge_writes_over_nothing_else(build, folder, whole):
    before = {name: (folder / name).read_bytes() for name in ("whole.csv", "net.cfg")}
    (folder / "one.csv").write_bytes(before["whole.csv"])
    for output in before:
        result = build.darknet(folder, "kure", "merge", "one.csv", "--csv", output)
        assert result.returncode == 2 and output in result.stderr and "choose another name" in result.stderr
    assert all((folder / name).read_bytes() == content for name, content in before.items())


def test_one_file_has_one_writer(build, folder, whole):
    (folder / "locked.csv").write_text("")
    with open(folder / "locked.csv", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        programs.refuse(sweep(build, folder, out="locked.csv"), "locked.csv", "another sweep", "merge")
    programs.succeed(sweep(build, folder, out="locked.csv"))


def test_float_points_do_not_count(build, folder):
    result = programs.succeed(sweep(build, folder, keys=("--weight-bits", "0,3"), out="float.csv"))
    assert "over 1 points" in result.stdout and len(rows_of(folder / "float.csv")) == 3
    rows = rows_of(folder / "float.csv")
    assert rows[0]["top1"] == rows[1]["top1"] and f"robustness {float(rows[2]['top1']):.2f} %" in result.stdout


def test_the_report_reads_it(folder, whole):
    result = subprocess.run(["/usr/bin/python3", programs.ROOT / "scripts/report.py", "net=whole.csv", "-o", "sweep.html"], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (folder / "sweep.html").stat().st_size > 10000
