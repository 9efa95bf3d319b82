"""Files that commands write: links and pipes stay what they are, no input and no second output is overwritten."""
import os
import subprocess

import pytest

import networks
import programs

pytestmark = pytest.mark.sanitize

CFG = networks.classifier({"seed": 3}, {})


@pytest.fixture
def folder(build, pictures, tmp_path):
    """net.cfg and net.weights"""
    build.train(tmp_path, CFG, "net.weights", "-updates", 2)
    return tmp_path


PLAN, STATS = ("plan", "net.cfg"), ("stats", "net.cfg", "net.weights")


def in_place(build, folder, read_from, *command):
    """(result, what the pipe got)"""
    os.mkfifo(folder / read_from)
    reader = subprocess.Popen(["cat", read_from], cwd=folder, stdout=subprocess.PIPE)
    try:
        result = build.darknet(folder, *command) if command[0] == "kure" else build.harness(folder, *command)
        got = reader.communicate(timeout=60)[0]
    finally:
        reader.kill()
    assert (folder / read_from).is_fifo(), "the pipe was replaced"
    return result, got


@pytest.mark.parametrize("option", ("--csv", "--json", "--clean"))
def test_a_pipe_is_written_into(option, build, folder):
    programs.succeed(build.darknet(folder, "kure", *PLAN, option, "file"))
    result, got = in_place(build, folder, "pipe", "kure", *PLAN, option, "pipe")
    programs.succeed(result)
    assert got == (folder / "file").read_bytes() != b""


def test_weights_into_a_pipe(build, folder):
    """They have no sidecar: nobody can read them again to say that it belongs to them."""
    result, got = in_place(build, folder, "pipe", "train", "net.cfg", "pipe", "-updates", 2)
    programs.succeed(result)
    assert got == (folder / "net.weights").read_bytes()
    assert not list(folder.glob("pipe.*"))


def chain(folder, target):
    """A link to a link in another folder"""
    (folder / "far").mkdir()
    (folder / "far" / "second").symlink_to(f"../{target}")
    (folder / "link").symlink_to("far/second")


@pytest.mark.parametrize("there", (0, 1), ids=("to nothing yet", "to a file"))
@pytest.mark.parametrize("option", ("--csv", "--json", "--clean"))
def test_a_link_is_followed(option, there, build, folder):
    chain(folder, "real")
    if there:
        (folder / "real").write_text("old")
    programs.succeed(build.darknet(folder, "kure", *PLAN, option, "link"))
    programs.succeed(build.darknet(folder, "kure", *PLAN, option, "file"))
    assert (folder / "link").is_symlink() and (folder / "far" / "second").is_symlink()
    assert (folder / "real").read_bytes() == (folder / "file").read_bytes()


@pytest.mark.parametrize("there", (0, 1), ids=("to nothing yet", "to a file"))
def test_weights_through_a_link(there, build, folder):
    """The sidecar lies beside the weights, found by both names."""
    chain(folder, "real.weights")
    if there:
        (folder / "real.weights").write_bytes(b"old")
    programs.succeed(build.harness(folder, "train", "net.cfg", "link", "-updates", 2))
    assert (folder / "link").is_symlink() and (folder / "real.weights").read_bytes() == (folder / "net.weights").read_bytes()
    assert (folder / "real.weights.kure").exists() and not (folder / "link.kure").exists()
    moved = [build.train(folder, CFG, name + ".out", "-weights", name, "-updates", 2) for name in ("link", "real.weights", "net.weights")]
    assert moved[0] == moved[1] == moved[2]


def test_a_circle_of_links(build, folder):
    (folder / "link").symlink_to("link")
    programs.refuse(build.darknet(folder, "kure", *PLAN, "--csv", "link"), "link: cannot be written")


SAME = {  # command: words
    (*PLAN, "--csv", "a", "--json", "a"): ("--csv a", "--json a", "the same file"),
    (*PLAN, "--csv", "a", "--json", "./a"): ("the same file",),
    (*PLAN, "--csv", "a", "--clean", "far/../a"): ("the same file",),
    (*STATS, "--csv", "a", "--json", "./a"): ("the same file",),
    ("keys", "--csv", "a", "--json", "./a"): ("the same file",),
    ("eval", "net.cfg", "net.weights", "DATA", "--csv", "a", "--json", "./a"): ("the same file",),
    (*PLAN, "--clean", "net.cfg"): ("--clean net.cfg", "overwrite"),
    (*PLAN, "--csv", "far/../net.cfg"): ("overwrite", "net.cfg"),
    (*STATS, "--csv", "net.weights"): ("--csv net.weights", "overwrite"),
    (*STATS, "--json", "link"): ("--json link", "overwrite"),
    ("eval", "net.cfg", "net.weights", "DATA", "--csv", "link"): ("--csv link", "overwrite"),
    ("eval", "net.cfg", "net.weights", "DATA", "--csv", "DATA"): ("overwrite",),
}


@pytest.mark.parametrize("command", SAME, ids=" ".join)
def test_no_file_is_written_over_another(command, build, pictures, folder):
    chain(folder, "net.weights")
    before = programs.files_under(folder)
    line = [str(pictures / "classes.data") if word == "DATA" else word for word in command]
    programs.refuse(build.darknet(folder, "kure", *line), *SAME[command], status=2)
    assert programs.files_under(folder) == before


@pytest.mark.parametrize("out", ("nowhere/out", "."))
def test_eval_says_first_that_it_cannot_write(out, build, pictures, folder):
    """Before it reads any network: these have no such file."""
    command = ("eval", "missing.cfg", "missing.weights", "missing.data", "--csv", out)
    programs.refuse(build.darknet(folder, "kure", *command), f"{out}: cannot be written")
    assert not (folder / "out").exists()
