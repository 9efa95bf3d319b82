"""Runs a script of tests/ in the environment of the clients (scripts/clients.sh), arrays in and out."""
import pathlib
import subprocess

import numpy as np
import pytest

import programs

FOLDER = programs.ROOT / "build" / "clients"


def run(script, folder, *arguments, timeout=120, **arrays):
    """{name: array} that tests/SCRIPT wrote into out.npz; arrays: what it finds in in.npz"""
    python = FOLDER / "bin" / "python"
    if not (FOLDER / ".installed").exists():
        pytest.fail("build/clients is missing: run scripts/clients.sh", pytrace=False)
    folder = pathlib.Path(folder)
    np.savez(folder / "in.npz", **arrays)
    result = subprocess.run([str(python), str(programs.ROOT / "tests" / script), *map(str, arguments)], cwd=folder, timeout=timeout,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, f"{script}: status {result.returncode}\n{result.stdout[-3000:]}"
    with np.load(folder / "out.npz") as out:
        return dict(out)


def apart(bundle, got, name):
    """How far the codes of a tensor lie from the bundle's"""
    want = bundle.codes(name)
    return np.abs(got.reshape(want.shape).astype(int) - want)


def check_all_codes(bundle, got):
    """got: {tensor: codes}, but for the input's"""
    for tensor in list(bundle.tensors)[1:]:
        d = apart(bundle, got[tensor], tensor)
        assert not d.any(), f"{tensor} ({bundle.kinds[tensor]}): {(d > 0).sum()} of {d.size} codes differ, by up to {d.max()}"
