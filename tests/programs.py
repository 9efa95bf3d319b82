"""Runs the programs under test; says what went wrong and how to run it again."""
import os
import pathlib
import re
import shlex
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


# Threads that wait leave the processor to others: the tests run beside each other.
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "passive"}


def run(command, cwd, timeout=300, env=None, **options):
    command = [str(word) for word in command]
    return subprocess.run(command, cwd=cwd, timeout=timeout, env={**ENVIRONMENT, **(env or {})}, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace", **options)


def describe(result):
    return (f"\n$ {' '.join(shlex.quote(word) for word in result.args)}\nstatus {result.returncode}\n"
            f"--- stdout\n{result.stdout[-1500:]}\n--- stderr\n{result.stderr[-3000:]}")


def succeed(result):
    assert result.returncode == 0, describe(result)
    return result


def files_under(folder):
    """{relative path: bytes}: to say that nothing was written."""
    folder = pathlib.Path(folder)
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# What Darknet itself writes to stderr while it builds a network and loads weights; how long a grid takes.
CHATTER = re.compile(r"""\s*$ | layer\s+filters | Loading\ weights\ from\ .*\.\.\.(Done!)?$ | Saving\ weights\ to | dropout\s+p\ =
    | .*Using\ default\ ' | Unused\ field | Config\ file\ error\ line
    | a\ grid\ of\ \d+\ points\ x\ \d+\ images:\ (a\ second\ or\ two|about\ [\d.]+\ \w+)$
    | \s*\d+\s+(conv|max|avg|res|route|softmax|connected|dropout|yolo|detection|upsample|cost|reorg|crop|local|rnn|Batch)\b""", re.X)


def sentences(result):
    """stderr without Darknet's own chatter and without the beginning that it may have put on the line."""
    return [re.sub(r"^( {0,4}\d+ |Loading weights from .*\.\.\.)(?=.)", "", line) for line in result.stderr.splitlines() if not CHATTER.match(line)]


def refuse(result, *words, status=1):
    """The run ended with one sentence that contains the words, and with that status."""
    said = sentences(result)
    assert result.returncode == status, f"expected status {status}, got {result.returncode}{describe(result)}"
    assert len(said) == 1, f"expected one sentence on stderr, got {len(said)}: {said}{describe(result)}"
    for word in words:
        assert str(word) in said[0], f"the sentence lacks {word!r}: {said[0]!r}"
    return said[0]
