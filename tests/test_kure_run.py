"""The program kure-run: what it prints and writes, and one sentence for whatever is wrong."""
import os
import subprocess

import numpy as np
import pytest

import model_file
from model_file import change, offset_of
from programs import files_under, run, succeed
from random_models import Maker, leaky, two_heads

pytestmark = pytest.mark.sanitize


class Case:
    """A folder with a model and images of codes; what the model gives for them"""

    def __init__(self, folder, program, maker, model):
        self.folder, self.program, self.model = folder, program, model
        self.images = maker.rng.integers(-128, 128, (3, *model.tensors[0].shape)).astype(np.int8)
        (folder / "model.kure").write_bytes(model.write())
        self.images.tofile(folder / "images.bin")
        self.values = [model_file.run(model, codes) for codes in self.images]

    def run(self, *arguments, **options):
        return run([self.program, *arguments], self.folder, **options)

    def refuse(self, *arguments, says=(), status=1, **options):
        before = files_under(self.folder)
        result = self.run(*arguments, **options)
        said = result.stderr.splitlines()
        assert result.returncode == status and len(said) == 1 and said[0].startswith("kure-run: "), (result.returncode, result.stdout, result.stderr)
        for word in says:
            assert word in said[0], (word, said[0])
        assert files_under(self.folder) == before, "something was written"


@pytest.fixture
def heads(build, tmp_path):
    return Case(tmp_path, build.program("kure-run"), *two_heads(3, "float32"))


@pytest.fixture
def small(build, tmp_path):
    """3x4x5 -> 5 values; pixels are codes + 128"""
    m = Maker(4, "float32", (3, 4, 5))
    m.convolution(4)
    m.lookup(leaky)
    m.connected(5)
    m.tensors[0] = model_file.Tensor((3, 4, 5), 1 / 255, -128, name="input")
    return Case(tmp_path, build.program("kure-run"), m, m.model(pixel_table=np.arange(256) - 128, profile="onnx"))


def test_help(small):
    for option in ("input", "top", "output", "dump", "time", "help"):
        assert f"--{option}" in succeed(small.run("--help")).stdout


def test_describe(heads):
    text = succeed(heads.run("model.kure")).stdout
    assert text.startswith("profile test, ")
    for kind in {layer.kind for layer in heads.model.layers}:
        assert kind in text
    assert len([line for line in text.splitlines() if line.strip()]) == 2 * len(heads.model.layers) + 5


def test_output(heads):
    succeed(heads.run("--top=0", "--output=out.bin", "model.kure", "images.bin", "images.bin"))
    want = b"".join(values[i].tobytes() for values in heads.values for i in heads.model.outputs)
    assert (heads.folder / "out.bin").read_bytes() == want + want
    assert not list(heads.folder.glob("*.part"))


def test_dump(heads):
    succeed(heads.run("--top=0", "--dump=tensors", "model.kure", "images.bin"))
    files = sorted((heads.folder / "tensors").iterdir())
    assert [f.name for f in files] == [f"{i:04d}-{i}.bin" for i in range(len(heads.model.tensors))]
    for i, file in enumerate(files):
        assert file.read_bytes() == b"".join(values[i].tobytes() for values in heads.values), file


def test_top(small):
    lines = succeed(small.run("--top=3", "model.kure", "images.bin")).stdout.splitlines()
    tensor = small.model.tensors[-1]
    assert len(lines) == 3
    for image, line in enumerate(lines):
        codes = small.values[image][-1].ravel().astype(int)
        words = line.split(":", 1)[1].split()
        order = sorted(range(5), key=lambda i: (-codes[i], i))[:3]
        assert [int(w) for w in words[0::2]] == order
        assert np.allclose([float(w) for w in words[1::2]], [float(tensor.scale) * (codes[i] - tensor.zero_point) for i in order], rtol=1e-5, atol=1e-9)
        assert line.startswith(f"images.bin {image}  ")


def test_values_and_pixels_are_the_codes(small):
    pixels = (small.images[0].astype(int) + 128).astype(np.uint8)
    (pixels / np.float32(255)).astype(np.float32).tofile(small.folder / "one.f32")
    (small.folder / "one.ppm").write_bytes(b"P6 # a comment\n5 4\n255\n" + np.ascontiguousarray(pixels.transpose(1, 2, 0)).tobytes())
    small.images[0].tofile(small.folder / "one.bin")
    gray = np.arange(0, 200, 10, dtype=np.uint8).reshape(4, 5)
    (small.folder / "gray.pgm").write_bytes(b"P5\n5 4\n255\n" + gray.tobytes())
    np.stack([gray.astype(int) - 128] * 3).astype(np.int8).tofile(small.folder / "gray.bin")
    for a, b in (("one.bin", "one.f32"), ("one.bin", "one.ppm"), ("gray.bin", "gray.pgm")):
        out = [succeed(small.run("--top=5", "model.kure", name)).stdout.split("  ", 1)[1] for name in (a, b)]
        assert out[0] == out[1], (a, b)
    os.rename(small.folder / "one.f32", small.folder / "one.raw")
    assert succeed(small.run("--input=float32", "model.kure", "one.raw")).stdout.split(":")[1] == succeed(small.run("model.kure", "one.bin")).stdout.split(":")[1]


def test_time(small):
    said = succeed(small.run("--time", "--top=0", "model.kure", "images.bin"))
    assert said.stdout == "" and said.stderr.startswith("3 images, ") and said.stderr.endswith(" ms each\n")


@pytest.mark.parametrize("arguments,says", [
    (["--tpo=3", "model.kure"], ["--tpo=3", "unknown option"]), (["-x", "model.kure"], ["-x"]), (["--top", "3x", "model.kure", "images.bin"], ["3x", "0..1000"]),
    (["--top=-1", "model.kure", "images.bin"], ["0..1000"]), (["--top=", "model.kure", "images.bin"], ["0..1000"]),
    (["--top=99999999999999999999", "model.kure", "images.bin"], ["0..1000"]), (["--input=jpeg", "model.kure", "images.bin"], ["jpeg", "codes, float32 or pixels"]),
    ([], ["model is missing"]), (["--output=x", "model.kure"], ["INPUT"]), (["--time", "model.kure"], ["INPUT"]), (["--top=3", "model.kure"], ["INPUT"]),
    (["--time=3", "model.kure", "images.bin"], ["--time"]), (["model.kure", "images.bin", "--output"], ["--output", "missing"])])
def test_options(small, arguments, says):
    small.refuse(*arguments, says=says, status=2)


def test_models(small):
    sound = (small.folder / "model.kure").read_bytes()
    for name, data, says in [
            ("empty", b"", ["no integer model"]), ("other", b"PK\3\4" * 100, ["no integer model"]), ("cut", sound[:-1], ["cut off", str(len(sound))]),
            ("longer", sound + b"\0", ["bytes behind its end"]), ("changed", sound[:200] + b"\xff" + sound[201:], ["damaged", "checksum"]),
            ("newer", change(sound, 8, 2), ["newer", "2"]), ("stride", change(sound, offset_of("layer", "stride", 0, 3), 0), ["layer 0", "stride is 0", "1..65535"]),
            ("scale", change(sound, offset_of("tensor", "scale", 1), 0x7fc00000), ["tensor 1", "scale is 0x7fc00000"]),
            ("layers", change(sound, offset_of("header", "layer_count"), 5000), ["header", "layer_count is 5000", "1..4096"])]:
        (small.folder / f"{name}.kure").write_bytes(data)
        small.refuse(f"{name}.kure", "images.bin", says=[f"{name}.kure", *says])
    small.refuse("missing.kure", says=["missing.kure", "No such file"])
    small.refuse(".", says=[".: Is a directory"])


@pytest.mark.parametrize("name,data,says", [
    ("a.bin", b"", ["0 bytes", "multiple of 60"]), ("a.bin", bytes(61), ["61 bytes", "multiple of 60", "3x4x5"]), ("a.f32", bytes(60), ["60 bytes", "multiple of 240"]),
    ("a.pgm", b"P5\n5 4\n255\n" + bytes(19), ["19 bytes of pixels, must be 20"]), ("a.pgm", b"P5\n5 4\n255\n" + bytes(21), ["21 bytes"]),
    ("a.pgm", b"P5\n4 5\n255\n" + bytes(20), ["1x5x4", "3x4x5"]), ("a.pgm", b"P5\n5 4\n65535\n" + bytes(40), ["header"]), ("a.pgm", b"P2\n5 4\n255\n1 2", ["no binary PGM"]),
    ("a.ppm", b"P6\n5", ["header"]), ("a.ppm", b"P6\n99999999999999999999 4\n255\n", ["header"]), ("a.ppm", b"", ["no binary PGM or PPM"]), ("a.pgm", b"P5 5 4 255", ["bytes of pixels"])])
def test_inputs(small, name, data, says):
    (small.folder / name).write_bytes(data)
    small.refuse("--output=out.bin", "--dump=tensors", "model.kure", name, says=[name, *says])


def test_nothing_half_written(small):
    """The second of two inputs is bad."""
    (small.folder / "a.f32").write_bytes(bytes(60))
    before = files_under(small.folder)
    result = small.run("--output=out.bin", "--dump=tensors", "model.kure", "images.bin", "a.f32")
    assert result.returncode == 1 and "a.f32: 60 bytes" in result.stderr and result.stderr.count("\n") == 1
    assert files_under(small.folder) == before and not (small.folder / "tensors.part").exists()


def test_no_table_of_pixels(heads):
    (heads.folder / "a.pgm").write_bytes(b"P5\n16 16\n255\n" + bytes(256))
    heads.refuse("model.kure", "a.pgm", says=["a.pgm", "no table of pixels"])


def test_outputs_that_cannot_be_written(small):
    small.refuse("--output=none/out.bin", "model.kure", "images.bin", says=["none/out.bin"])
    (small.folder / "there").mkdir()
    small.refuse("--dump=there", "model.kure", "images.bin", says=["there", "exists already"])
    small.refuse("--dump=none/there", "model.kure", "images.bin", says=["none/there"])
    small.refuse("--output=there", "--top=0", "model.kure", "images.bin", says=["there"])
    with open("/dev/full", "w") as full:
        result = subprocess.run([small.program, "model.kure", "images.bin"], cwd=small.folder, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1 and "standard output: No space left" in result.stderr
