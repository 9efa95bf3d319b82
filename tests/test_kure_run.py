"""The program kure-run: what it prints and writes, and one sentence for whatever is wrong."""
import errno
import os
import pathlib
import struct

import numpy as np
import pytest

import model_file
from model_file import change, offset_of
from programs import files_under, run, succeed
from random_models import Maker, leaky, two_heads

pytestmark = pytest.mark.sanitize


@pytest.fixture(scope="module")
def kure_run(build):
    program = build.program("kure-run")
    return lambda cwd, *arguments, **options: run([program, *arguments], cwd, **options)


def refuse(result, *words, status=1):
    said = result.stderr.splitlines()
    assert result.returncode == status and len(said) == 1 and said[0].startswith("kure-run: "), (result.returncode, result.stdout, result.stderr)
    for word in words:
        assert str(word) in said[0], (word, said[0])


@pytest.fixture
def folder(tmp_path):
    """model.kure: two heads; small.kure: one output of 5 values; images.bin: 3 images of codes for each"""
    m, model = two_heads(3, "float32")
    (tmp_path / "model.kure").write_bytes(model.write())
    rng = np.random.default_rng(0)
    small = Maker(4, "float32", (3, 4, 5))
    small.convolution(4)
    small.lookup(leaky)
    small.connected(5)
    small.tensors[0].low, small.tensors[0].high, small.tensors[0].zero_point, small.tensors[0].scale = -128, 127, -128, np.float32(1 / 255)
    small_model = small.model(pixel_table=np.arange(256) - 128)
    (tmp_path / "small.kure").write_bytes(small_model.write())
    codes = rng.integers(-128, 128, (3, 3, 4, 5)).astype(np.int8)
    codes.tofile(tmp_path / "small.bin")
    big = rng.integers(-128, 128, (3, 3, 16, 16)).astype(np.int8)
    big.tofile(tmp_path / "images.bin")
    tmp_path.model, tmp_path.small, tmp_path.codes, tmp_path.big = model, small_model, codes, big
    return tmp_path


if not hasattr(pathlib.PosixPath(), "__dict__"):  # paths take no attributes before Python 3.12's pathlib
    class Folder(type(pathlib.Path())):
        pass


def outputs(model, images):
    return [[model_file.run(model, codes)[i] for i in model.outputs] for codes in images]
