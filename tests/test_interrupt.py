"""Ctrl-C in eval, calibrate, compare, sweep and export: one sentence, status 130, no half-written line, no process left; a full disk."""
import os
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest

import programs
from test_post_training import DATA, IMAGES, cfg_of, trained  # noqa: F401 (a fixture)
from test_sweep import rows_of

pytestmark = pytest.mark.sanitize

# Rows of a grid that takes long, and of one that does not.
LONG = ("--weight-bits", "8,7,6,5,4,3", "--weight-step-ratio", ",".join(f"{1 + i / 1000}" for i in range(1000)))
SHORT = ("--weight-bits", "8,4,3", "--weight-step-ratio", "0.7,0.8,0.9,1,1.1,1.2", "--weight-rounding", "half_even,floor")
POINTS = 1 + 3 * 6 * 2


@pytest.fixture(scope="module")
def folder(trained):  # noqa: F811
    folder = trained[0]
    (folder / "stop.cfg").write_text(cfg_of(16))
    lines = (folder / "train.list").read_text()
    (folder / "many.list").write_text(lines * 1000)
    (folder / "many.data").write_text((folder / DATA).read_text().replace("train.list", "many.list"))
    return folder


def start(build, folder, command, *arguments, data=DATA):
    line = [build.program("darknet"), "kure", command, "stop.cfg", "net.weights", data, *arguments]
    return subprocess.Popen([str(word) for word in line], cwd=folder, env=programs.ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            text=True, start_new_session=True)


def children_of(pid):
    return {int(line.split()[0]) for line in subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout.splitlines()
            if int(line.split()[1]) == pid}


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def end(process, signal_number=signal.SIGINT, group=False):
    """What was said, but for how long it would have taken and how far it was."""
    (os.killpg if group else os.kill)(process.pid, signal_number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal_number, said
    return [line for line in said.splitlines() if not re.match(r"a grid of|\d+%: ", line)]


def wait_for_rows(process, path, rows):
    deadline = time.monotonic() + 120
    while not (path.exists() and path.read_text().count("\n") > rows):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("signal_number", (signal.SIGINT, signal.SIGTERM))
@pytest.mark.parametrize("command,arguments,data", (
    ("eval", LONG, DATA), ("calibrate", ("--images", 100 * IMAGES, "--report"), "many.data"),
    ("compare", ("--profiles", "onnx,tflite", "--calibration-images", 100 * IMAGES), "many.data"),
), ids=("eval", "calibrate", "compare"))
def test_nothing_is_kept(command, arguments, data, signal_number, build, folder):
    before = set(folder.iterdir())
    process = start(build, folder, command, *arguments, "--csv", "stopped.csv", "--json", "stopped.json", data=data)
    time.sleep(0.7)
    said = end(process, signal_number)
    assert len(said) == 1 and said[0].startswith("stopped: "), said
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("group", (False, True), ids=("process", "terminal"))
@pytest.mark.parametrize("jobs", (1, 3))
def test_a_sweep_says_how_far_it_is(jobs, group, build, folder):
    path = folder / f"stopped{jobs}{group}.csv"
    process = start(build, folder, "sweep", *LONG, "--csv", path.name, "--jobs", jobs)
    wait_for_rows(process, path, 5)
    workers = children_of(process.pid)
    assert len(workers) == (jobs if jobs > 1 else 0)
    said = end(process, group=group)
    rows = rows_of(path)
    assert said == [f"{len(rows)} of 6001 points are in {path.name}: run the same command again to go on"]
    text = path.read_text()
    assert text.endswith("\n") and len({line.count(",") for line in text.splitlines()}) == 1, "a line is cut"
    time.sleep(0.2)
    assert not any(alive(pid) for pid in workers)


def test_it_goes_on(build, folder):
    """Stopped again and again, from the first instant on, it ends as one that was not stopped."""
    line = ("sweep", "stop.cfg", "net.weights", DATA, *SHORT, "--jobs", 2, "--csv")
    programs.succeed(build.darknet(folder, "kure", *line, "whole.csv"))
    path = folder / "parts.csv"
    for stop in range(4):
        there = path.read_text().count("\n") if path.exists() else 0
        process = start(build, folder, "sweep", *SHORT, "--jobs", 2, "--csv", path.name)
        if stop == 0:  # perhaps before it has begun to catch signals
            time.sleep(0.05)
            process.terminate()
            process.communicate(timeout=60)
            continue
        wait_for_rows(process, path, there + 2)
        end(process)
    programs.succeed(build.darknet(folder, "kure", *line, path.name))
    assert rows_of(path) == rows_of(folder / "whole.csv") and len(rows_of(path)) == POINTS


def test_ignored_where_its_caller_says_so(build, folder):
    """nohup and scripts' background jobs: Ctrl-C is not for them."""
    result = build.darknet(folder, "kure", "sweep", "stop.cfg", "net.weights", DATA, *SHORT, "--jobs", 2, "--csv", "ignored.csv",
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    programs.succeed(result)
    process = subprocess.Popen([build.program("darknet"), "kure", "sweep", "stop.cfg", "net.weights", DATA, *SHORT, "--jobs", "1", "--csv", "ignored2.csv"],
                               cwd=folder, env=programs.ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    wait_for_rows(process, folder / "ignored2.csv", 2)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) == 0 and rows_of(folder / "ignored2.csv") == rows_of(folder / "ignored.csv")


# ---- export ----------------------------------------------------------------------------

def start_export(build, folder, *options):
    """Calibrates for a while, then writes for a while."""
    line = [build.program("darknet"), "kure", "export", "stop.cfg", "net.weights", "-o", "stop.edge", "--data", "many.data", "--golden", 1000, *options]
    return subprocess.Popen([str(word) for word in line], cwd=folder, env=programs.ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def wait_for_part(process, folder, inside=""):
    deadline = time.monotonic() + 120
    while not list(folder.glob(f"stop.edge.tmp-*/{inside}")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("force", (False, True), ids=("new", "force"))
@pytest.mark.parametrize("inside", ("", "golden/values.npy", "model.kure"), ids=("calibrating", "golden", "formats"))
@pytest.mark.parametrize("signal_number", (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
@pytest.mark.long
def test_no_part_of_a_bundle(inside, force, signal_number, build, folder):
    bundle = folder / "stop.edge"
    shutil.rmtree(bundle, ignore_errors=True)
    if force:
        programs.succeed(build.darknet(folder, "kure", "export", "stop.cfg", "net.weights", "-o", "stop.edge", "--data", DATA, "--formats", "kure"))
    before, files = set(folder.iterdir()), programs.files_under(bundle)
    process = start_export(build, folder, "--images", 5 * IMAGES if inside else 100 * IMAGES, *(["--force"] if force else []))
    wait_for_part(process, folder, inside)
    said = [line for line in end(process, signal_number) if ": onnxruntime" not in line]
    assert said == [f"stopped: stop.edge is {'as it was' if force else 'not written'}"]
    assert set(folder.iterdir()) == before and programs.files_under(bundle) == files


def test_killed_while_it_replaces(build, folder):
    """Whatever the instant, the name is that of a whole bundle: the earlier one or the new one."""
    line = ("kure", "export", "stop.cfg", "net.weights", "-o", "stop.edge", "--data", DATA, "--formats", "kure")
    shutil.rmtree(folder / "stop.edge", ignore_errors=True)
    programs.succeed(build.darknet(folder, *line))
    started = time.monotonic()
    programs.succeed(build.darknet(folder, *line, "--force"))
    takes = time.monotonic() - started
    for i in range(12):
        process = subprocess.Popen([str(word) for word in (build.program("darknet"), *line, "--force", "--golden", 1 + i)], cwd=folder, env=programs.ENVIRONMENT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(takes * (0.4 + 0.06 * i))
        process.kill()
        process.wait()
        programs.succeed(build.darknet(folder, "kure", "verify", "stop.edge"))
    for part in folder.glob("stop.edge.tmp-*"):
        shutil.rmtree(part)


# ---- a full disk -----------------------------------------------------------------------

def on_a_small_disk(size):
    """Files may have so many bytes; the signal that would end the process is ignored, so that write says it."""
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return limit


@pytest.mark.parametrize("jobs", (1, 2))
def test_a_full_disk(jobs, build, folder):
    """The rows that fit stay, whole, and the sweep goes on from them; also where only the table in order does not fit."""
    line = ("kure", "sweep", "stop.cfg", "net.weights", DATA, *SHORT, "--jobs", jobs, "--csv")
    programs.succeed(build.darknet(folder, *line, "roomy.csv"))
    text = (folder / "roomy.csv").read_text()
    name = f"full{jobs}.csv"
    for rows in (0, 2, 7, 20):
        lines = text.splitlines(keepends=True)
        size = sum(map(len, lines[:rows + 1])) + 60
        there = len(rows_of(folder / name)) if (folder / name).exists() else 0
        result = build.darknet(folder, *line, name, preexec_fn=on_a_small_disk(size))
        count = len(rows_of(folder / name))
        *news, said = programs.sentences(result)
        assert news == [f"{name}: {there} of {POINTS} points are there already"] * (there > 0), programs.describe(result)
        assert result.returncode == 1
        assert said == f"{name}: cannot be written: File too large: {count} of {POINTS} points are in it: run the same command again to go on"
        assert (folder / name).read_text().endswith("\n") and there <= count < POINTS
        assert not list(folder.glob("*.tmp"))
    programs.succeed(build.darknet(folder, *line, name))
    assert rows_of(folder / name) == rows_of(folder / "roomy.csv")


def test_a_disk_that_is_full_from_the_start(build, folder):
    result = build.darknet(folder, "kure", "sweep", "stop.cfg", "net.weights", DATA, *SHORT, "--csv", "none.csv", preexec_fn=on_a_small_disk(10))
    programs.refuse(result, "none.csv", "File too large")
    programs.succeed(build.darknet(folder, "kure", "sweep", "stop.cfg", "net.weights", DATA, "--weight-bits", "8", "--csv", "none.csv"))
