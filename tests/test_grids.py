"""Grids that are empty, absurd, long or large: said in a sentence before the work; the time of large ones grows with their number."""
import csv
import os
import pty
import re
import subprocess
import time

import pytest

import networks
import programs
from test_post_training import DATA, IMAGES, cfg_of, trained  # noqa: F401 (a fixture)
from test_sweep import rows_of

pytestmark = pytest.mark.sanitize


@pytest.fixture(scope="module")
def folder(trained):  # noqa: F811
    folder = trained[0]
    (folder / "grid.cfg").write_text(cfg_of(16))
    return folder


def kure(build, folder, command, *arguments, cfg="grid.cfg", weights="net.weights"):
    return build.darknet(folder, "kure", command, cfg, weights, DATA, *arguments)


WRONG = {  # arguments: words
    ("--weight-bits", ""): ("weight_bits=:", "an empty value", "8,6,4"),
    ("--weight-bits", ","): ("weight_bits=,:", "an empty value"),
    ("--weight-bits", "8,,6"): ("weight_bits=8,,6:", "an empty value"),
    ("--weight-bits", "8,", "6"): ("weight_bits=8,:", "without blanks, as 8,6,4"),
    ("--weight-bits", "8,6,8"): ("weight_bits=8,6,8: the value 8 is given twice",),
    ("--weight-bits", "8, 08"): ("the value 8 is given twice",),
    ("--weight-step-ratio", "1,1.0"): ("the value 1 is given twice",),
    ("--weight-step-ratio", "1e0,2,1"): ("the value 1e0 is given twice",),
    ("--weight-rounding", "floor,half_even,floor"): ("the value floor is given twice",),
    ("--weight-step-ratio", "nan"): ("weight_step_ratio=nan: must be a number from 0.01 to 100",),
    ("--weight-step-ratio", "1,-nan"): ("weight_step_ratio=-nan: must be",),
    ("--weight-step-ratio", "inf"): ("weight_step_ratio=inf: must be",),
    ("--weight-step-ratio", "1e400"): ("weight_step_ratio=1e400: must be",),
    ("--weight-step-ratio", "0"): ("weight_step_ratio=0: must be",),
    ("--weight-step-ratio", "-1"): ("weight_step_ratio=-1: must be",),
    ("--weight-bits", "8.5"): ("weight_bits=8.5: must be an integer",),
    ("--weight-bits", "999999999999999999999"): ("weight_bits=999999999999999999999: must be",),
    ("--weight-bits", "8" * 5000): ("weight_bits=88888", "must be"),
    ("--weight-bits", "8", "--weight-bits", "4"): ("'weight_bits' is given twice",),
    ("--quantize", "weight_bits=8,weight_bits=4"): ("'weight_bits' is given twice",),
    ("--weight-step-ratio", ",".join(f"{1 + i / 1000}" for i in range(1000)), "--activation-bits", "8", "--activation-step-ratio",
     ",".join(f"{1 + i / 1000}" for i in range(101))): ("more than 100000 combinations",),
}


@pytest.mark.parametrize("command", ("eval", "sweep"))
@pytest.mark.parametrize("arguments", WRONG, ids=lambda arguments: " ".join(arguments)[:40])
def test_wrong_lists(arguments, command, build, folder):
    result = kure(build, folder, command, *arguments, "--csv", "wrong.csv")
    said = programs.refuse(result, *WRONG[arguments], status=2)
    assert len(said) < 400 and not (folder / "wrong.csv").exists()


def test_blanks_that_do_no_harm(build, folder):
    """One sweep, however its list is written."""
    for spelling in ("8,4", "8, 4", " 8 , 4 "):
        result = programs.succeed(kure(build, folder, "sweep", "--weight-bits", spelling, "--csv", "blanks.csv"))
    assert "3 of 3 points are there already" in result.stderr and len(rows_of(folder / "blanks.csv")) == 3


def test_weights_that_nobody_asked_for(build, folder):
    for command in ("eval", "sweep"):
        said = "the weights have 8 bits, since --weight-bits was not given"
        assert said in programs.succeed(kure(build, folder, command, "--activation-bits", "4", "--csv", f"{command}.one.csv")).stderr
        for given in (("--bits", "4"), ("--activation-bits", "4", "--weight-bits", "8"), ("--weight-bits", "4")):
            result = programs.succeed(kure(build, folder, command, *given, "--csv", f"{command}.{''.join(given)}.csv"))
            assert "since --weight-bits" not in result.stderr


# ---- how long it takes -------------------------------------------------------------------

def many(count):
    return ",".join(f"{1 + i / 10000}" for i in range(count))


@pytest.fixture(scope="module")
def slow(build, folder):
    """A network whose 21600 points take days: slow.cfg, slow.weights."""
    cfg = (networks.net(batch=4, width=128, height=128) + networks.conv(128) + networks.conv(128)
           + networks.conv(6, size=1, batch_normalize=0, activation="linear") + networks.section("avgpool") + networks.section("softmax", groups=1))
    networks.write_weights(folder / "slow.weights", cfg, build.tensors(folder, cfg, name="slow.cfg"))
    return ("--weight-step-ratio", many(2400), "--weight-bits", "8,6,4", "--weight-rounding", "half_even,floor,ceil")


@pytest.mark.parametrize("command", ("eval", "sweep"))
@pytest.mark.long
def test_more_than_a_day(command, build, folder, slow):
    points = 21600 if command == "eval" else 21601
    result = kure(build, folder, command, *slow, "--csv", "long.csv", cfg="slow.cfg", weights="slow.weights")
    said = programs.refuse(result, f"a grid of {points} points x {IMAGES} images: about ", " days, which is more than a day: --long begins it")
    days = float(re.search(r"about ([\d.]+) days", said).group(1))
    assert 1 <= days < 1000 and not (folder / "long.csv").exists()
    programs.succeed(kure(build, folder, "eval", "--images", 32, "--csv", "short.csv", cfg="slow.cfg", weights="slow.weights"))
    with open(folder / "short.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    taken = points * float(row["seconds"]) / 32 * IMAGES / 86400
    assert taken / 10 < days < taken * 10, "what an evaluation takes, on a machine that others use as well"


def test_long_begins_it(build, folder, slow):
    line = [build.program("darknet"), "kure", "sweep", "slow.cfg", "slow.weights", DATA, *slow, "--csv", "begun.csv", "--long"]
    process = subprocess.Popen(line, cwd=folder, env=programs.ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert re.fullmatch(rf"a grid of 21601 points x {IMAGES} images: about [\d.]+ days\n", process.stderr.readline())
    process.terminate()
    assert "0 of 21601 points are in begun.csv" in process.communicate(timeout=60)[1] and process.returncode == 128 + 15


def test_a_file_that_was_there_stays(build, folder, slow):
    """Where the grid is refused for its length: what another one has left."""
    (folder / "there.csv").write_text("")
    kure(build, folder, "sweep", *slow, "--csv", "there.csv", cfg="slow.cfg", weights="slow.weights")
    assert (folder / "there.csv").exists()


def test_an_estimate_is_always_said(build, folder):
    result = programs.succeed(kure(build, folder, "sweep", "--weight-bits", "8,4", "--bias-images", 10, "--csv", "said.csv"))
    assert re.search(rf"^a grid of 3 points x {IMAGES + 4 * 10} images: a second or two$", result.stderr, re.M), result.stderr  # four layers with biases
    result = programs.succeed(kure(build, folder, "eval", "--weight-bits", "8,4"))
    assert re.search(rf"^a grid of 2 points x {IMAGES} images: ", result.stderr, re.M)


# ---- many points -----------------------------------------------------------------------

@pytest.mark.long
def test_time_grows_with_the_number_of_points(build, folder):
    """60000 rows of three shards are merged, sorted and scored in seconds; squares of their number would take minutes."""
    programs.succeed(kure(build, folder, "sweep", "--weight-bits", "8", "--csv", "one.csv"))
    header, plain, row = (folder / "one.csv").read_text().splitlines()
    columns, count = header.split(","), 60001
    ratio, points, point, top1 = (columns.index(name) for name in ("weight_step_ratio", "points", "point", "top1"))
    shards = [[header] for _ in range(3)]
    for i in range(count):
        cells = (row if i else plain).split(",")
        cells[points], cells[point] = str(count), str(i)
        if i:
            cells[ratio], cells[top1] = f"{0.5 + i / count:.6g}", "50.00"
        shards[i % 3].append(",".join(cells))
    names = [f"many{i}.csv" for i in range(3)]
    for name, lines in zip(names, shards):
        (folder / name).write_text("\n".join(lines) + "\n")
    started = time.monotonic()
    result = programs.succeed(build.darknet(folder, "kure", "merge", *names, "--csv", "merged.csv"))
    assert time.monotonic() - started < 60
    assert [int(row["point"]) for row in rows_of(folder / "merged.csv")] == list(range(count))
    assert f"robustness 50.00 % top-1 over {count - 1} points" in result.stdout


# ---- the keys on a terminal ----------------------------------------------------------------

def on_a_terminal(build, columns, *arguments):
    """What it prints on a terminal of so many columns."""
    import fcntl
    import struct
    import termios
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([build.program("darknet"), "kure", *arguments], stdout=child, stdin=subprocess.DEVNULL, env=programs.ENVIRONMENT)
    os.close(child)
    text = b""
    while True:
        try:
            read = os.read(parent, 65536)
        except OSError:  # the terminal is closed
            break
        if not read:
            break
        text += read
    os.close(parent)
    assert process.wait(timeout=60) == 0
    return text.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", (60, 100))
def test_keys_fit_a_terminal(columns, build, folder):
    text = on_a_terminal(build, columns, "keys")
    assert max(map(len, text.splitlines())) <= columns
    table = programs.succeed(build.darknet(folder, "kure", "keys", "--csv", "keys.csv")).stdout
    keys = rows_of(folder / "keys.csv")
    assert len(table.splitlines()) == 1 + len(keys) and max(map(len, table.splitlines())) > 200, "a line a key where it is no terminal"
    words = " ".join(text.split())
    for key in keys:
        assert f" {key['key']}: " in words and " ".join(key["meaning"].split()) in words
