"""scripts/prepare_fashion_mnist.py on small made-up IDX files, sound and damaged."""
import gzip
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts/prepare_fashion_mnist.py"
COUNTS = {"train": 23, "t10k": 11}


def idx(array: np.ndarray) -> bytes:
    shape = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def write_source(folder: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Four IDX files; every class is there."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(1)
    parts = {}
    for stem, count in COUNTS.items():
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
        parts[stem] = images, labels
    return parts


def prepare(source, out, cwd, *options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, "--source", source, "--out", out, *options], cwd=cwd, capture_output=True, text=True)


def refused(result: subprocess.CompletedProcess, *words: str) -> None:
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture
def source(tmp_path):
    write_source(tmp_path / "source")
    return tmp_path / "source"


def test_images_lists_and_labels(tmp_path):
    parts = write_source(tmp_path / "source")
    result = prepare("source", "made/fm", tmp_path, "--any")
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "made/fm.partial").exists()
    labels = (tmp_path / "made/fm/labels.txt").read_text().split("\n")[:-1]
    assert len(labels) == len((tmp_path / "made/fm/names.txt").read_text().splitlines()) == 10
    for stem, part in (("train", "train"), ("t10k", "test")):
        paths = (tmp_path / f"made/fm/{part}.list").read_text().splitlines()
        assert len(paths) == COUNTS[stem]
        for path, image, label in zip(paths, *parts[stem]):
            assert [i for i, text in enumerate(labels) if text in path] == [label]  # as Darknet tells the class
            assert (np.asarray(Image.open(tmp_path / path)) == image).all()
    data = dict(line.split("=") for line in (tmp_path / "made/fm/fashion.data").read_text().splitlines())
    assert data["classes"] == "10" and data["train"] == "made/fm/train.list" and data["valid"] == "made/fm/test.list"
    for key in ("train", "valid", "labels", "names", "backup"):
        assert (tmp_path / data[key]).exists()


def test_absolute_paths_outside_the_working_directory(source, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    assert prepare(source, tmp_path / "fm", tmp_path / "elsewhere", "--any").returncode == 0
    assert (tmp_path / "fm/test.list").read_text().startswith(f"{tmp_path}/fm/test/00000_")


def test_finished_is_skipped_and_other_source_is_not(source, tmp_path):
    prepare(source, "fm", tmp_path, "--any")
    before = (tmp_path / "fm/complete.json").stat().st_mtime_ns
    again = prepare(source, "fm", tmp_path, "--any")
    assert again.returncode == 0 and "nothing to do" in again.stdout
    assert (tmp_path / "fm/complete.json").stat().st_mtime_ns == before
    images = np.zeros((COUNTS["t10k"], 28, 28), np.uint8)
    (source / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    assert prepare(source, "fm", tmp_path, "--any").returncode == 0
    assert not np.asarray(Image.open(next((tmp_path / "fm/test").iterdir()))).any()


def test_interrupted_is_done_again(source, tmp_path):
    (tmp_path / "fm.partial/train").mkdir(parents=True)
    (tmp_path / "fm.partial/train/00000_bag.png").write_text("half")
    assert prepare(source, "fm", tmp_path, "--any").returncode == 0
    assert len(list((tmp_path / "fm/train").iterdir())) == COUNTS["train"]


def test_folder_of_somebody_else_is_left_alone(source, tmp_path):
    (tmp_path / "fm").mkdir()
    (tmp_path / "fm/precious").write_text("x")
    refused(prepare(source, "fm", tmp_path, "--any"), "fm", "--out")
    assert (tmp_path / "fm/precious").read_text() == "x"


def damage_missing(folder):
    (folder / "train-labels-idx1-ubyte.gz").unlink()


def damage_cut(folder):
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-200])


def damage_no_gzip(folder):
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"plain text")


def damage_flipped(folder):
    path = folder / "t10k-images-idx3-ubyte.gz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(bytes(raw))


def damage_magic(folder):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(5, np.uint8))))


def damage_short(folder):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((23, 28, 28), np.uint8))[:-1]))


def damage_counts(folder):
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(22, np.uint8))))


def damage_label(folder):
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.full(23, 10, np.uint8))))


@pytest.mark.parametrize("damage, words", [
    (damage_missing, ["train-labels-idx1-ubyte.gz", "make setup"]), (damage_cut, ["t10k-images", "damaged"]),
    (damage_no_gzip, ["t10k-images", "damaged"]), (damage_flipped, ["t10k-images"]), (damage_magic, ["train-images", "0x00000803"]),
    (damage_short, ["train-images", "header"]), (damage_counts, ["23", "22"]), (damage_label, ["10", "9"])])
def test_damaged_source(source, tmp_path, damage, words):
    damage(source)
    refused(prepare(source, "fm", tmp_path, "--any"), *words)
    assert not (tmp_path / "fm").exists()


def test_other_data_needs_any(source, tmp_path):
    refused(prepare(source, "fm", tmp_path), "SHA-256", "--any")


def test_unusable_names_and_places(source, tmp_path):
    refused(prepare(source, "with blank", tmp_path, "--any"), "with blank")
    refused(prepare(source, "my_bag.d/fm", tmp_path, "--any"), "_bag.")
    (tmp_path / "file").write_text("")
    refused(prepare(source, "file/fm", tmp_path, "--any"), "file")


def test_help():
    result = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "--out" in result.stdout
