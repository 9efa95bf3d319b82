#!/usr/bin/env python3
"""Fashion-MNIST as Darknet wants a classifier's images: one PNG a picture, lists, labels, .data.

Darknet finds an image's class by searching its path for each label, so the class
stands in the file name (00001_shirt.png) and the labels (_shirt.) match nothing else.

The folder appears under its final name only when it is complete: an interrupted run
is done again, a finished one is recognised at once. Test: tests/test_prepare.py
"""
import argparse
import fcntl
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import struct
import sys
import time
import zlib

try:
    import numpy as np
except ImportError:
    sys.exit("prepare_fashion_mnist.py needs NumPy: run it with Debian's /usr/bin/python3 after 'make setup'")

from image_folders import Failure, exit_status, name_for_darknet

# label in the file name, name for people
CLASSES = (("t-shirt", "T-shirt/top"), ("trouser", "Trouser"), ("pullover", "Pullover"), ("dress", "Dress"),
           ("coat", "Coat"), ("sandal", "Sandal"), ("shirt", "Shirt"), ("sneaker", "Sneaker"), ("bag", "Bag"),
           ("ankle-boot", "Ankle boot"))

# part -> (stem of the IDX files, images, SHA-256 of the unpacked images and labels)
PARTS = {
    "train": ("train", 60000, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
              "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "test": ("t10k", 10000, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
             "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
SOURCES = ("build/sysroot/usr/share/datasets/fashion-mnist", "/usr/share/datasets/fashion-mnist")
MARKER = "complete.json"
FORMAT = 1  # of the folder; another number makes it anew


def read_idx(path: pathlib.Path, magic: int, expected_hash: str | None) -> np.ndarray:
    """An IDX file of unsigned bytes; `magic` ends in the number of dimensions."""
    try:
        with gzip.open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        raise Failure(f"{path} is missing: run 'make setup', which installs the package dataset-fashion-mnist, "
                      "or name the folder with --source") from None
    except (OSError, EOFError, zlib.error) as error:
        raise Failure(f"{path} cannot be read, it may be damaged: {error}") from None
    dimensions = magic & 0xFF
    header = 4 + 4 * dimensions
    if len(raw) < header or int.from_bytes(raw[:4], "big") != magic:
        raise Failure(f"{path} does not begin with {magic:#010x}: it is no IDX file of this kind")
    shape = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(dimensions)]
    size = 1
    for length in shape:
        size *= length
    if len(raw) - header != size:
        raise Failure(f"{path} holds {len(raw) - header} bytes of data, its header says {size}")
    if expected_hash and hashlib.sha256(raw).hexdigest() != expected_hash:
        raise Failure(f"{path} is not the file of Fashion-MNIST (another SHA-256); --any accepts it")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def read_part(source: pathlib.Path, part: str, any_data: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images [n][height][width] and labels [n] of a part."""
    stem, count, image_hash, label_hash = PARTS[part]
    images = read_idx(source / f"{stem}-images-idx3-ubyte.gz", 0x803, None if any_data else image_hash)
    labels = read_idx(source / f"{stem}-labels-idx1-ubyte.gz", 0x801, None if any_data else label_hash)
    if len(images) != len(labels):
        raise Failure(f"{source}: {len(images)} {part} images, but {len(labels)} labels")
    if len(images) == 0 or (not any_data and len(images) != count):
        raise Failure(f"{source}: {len(images)} {part} images, expected {count}")
    if labels.max() >= len(CLASSES):
        raise Failure(f"{source}: a {part} label is {labels.max()}, the largest allowed is {len(CLASSES) - 1}")
    return images, labels


def is_complete(out: pathlib.Path, description: dict) -> bool:
    try:
        return json.loads((out / MARKER).read_text()) == description
    except (OSError, ValueError):
        return False


def describe_sources(source: pathlib.Path, name: str) -> dict:
    """What the finished folder depends on."""
    sizes = {}
    for stem, *_ in PARTS.values():
        for kind in ("images-idx3", "labels-idx1"):
            path = source / f"{stem}-{kind}-ubyte.gz"
            sizes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return {"format": FORMAT, "folder": name, "sources": sizes}


class Progress:
    """One line on a terminal, redrawn; silent elsewhere."""

    def __init__(self, total: int):
        self.total, self.done, self.start, self.last = total, 0, time.monotonic(), 0.0
        self.shown = sys.stderr.isatty()

    def add(self) -> None:
        self.done += 1
        now = time.monotonic()
        if not self.shown or (now - self.last < 0.2 and self.done < self.total):
            return
        self.last = now
        rate = self.done / max(now - self.start, 1e-9)
        end = "\n" if self.done == self.total else "\r"
        print(f"images {self.done}/{self.total}  {rate:.0f}/s  ETA {(self.total - self.done) / rate:.0f} s\033[K",
              end=end, file=sys.stderr, flush=True)


def png(image: np.ndarray) -> bytes:
    """A greyscale image [height][width] as a PNG file; several times faster than an imaging library's."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter, 0 = none
    rows[:, 1:] = image
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 1)) + chunk(b"IEND", b"")


def write_part(folder: pathlib.Path, name: str, part: str, images: np.ndarray, labels: np.ndarray, progress: Progress) -> None:
    (folder / part).mkdir()
    lines = []
    for i, (image, label) in enumerate(zip(images, labels)):
        file = f"{part}/{i:05d}_{CLASSES[label][0]}.png"
        (folder / file).write_bytes(png(image))
        lines.append(f"{name}/{file}\n")
        progress.add()
    (folder / f"{part}.list").write_text("".join(lines))


def write_data_file(folder: pathlib.Path, name: str) -> None:
    (folder / "labels.txt").write_text("".join(f"_{label}.\n" for label, _ in CLASSES))
    (folder / "names.txt").write_text("".join(f"{title}\n" for _, title in CLASSES))
    (folder / "backup").mkdir()
    (folder / "fashion.data").write_text(
        f"classes={len(CLASSES)}\ntrain={name}/train.list\nvalid={name}/test.list\n"
        f"labels={name}/labels.txt\nnames={name}/names.txt\nbackup={name}/backup\ntop=5\n")


def lock(partial: pathlib.Path) -> int:
    partial.mkdir(parents=True, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failure(f"{partial} is being written by another run: wait for it") from None
    return handle


def prepare(source: pathlib.Path, out: pathlib.Path, any_data: bool) -> str:
    name = name_for_darknet(out, [f"_{label}." for label, _ in CLASSES], "by which Darknet would tell the class")
    description = describe_sources(source, name)
    if is_complete(out, description):
        return f"{name}: complete, nothing to do"
    if out.exists() and not (out / MARKER).exists() and (not out.is_dir() or any(out.iterdir())):
        raise Failure(f"{out} exists and was not made by this script: choose another --out")
    parts = {part: read_part(source, part, any_data) for part in PARTS}
    partial = out.with_name(out.name + ".partial")
    handle = lock(partial)
    for left in partial.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    progress = Progress(sum(len(labels) for _, labels in parts.values()))
    for part, (images, labels) in parts.items():
        write_part(partial, name, part, images, labels, progress)
    write_data_file(partial, name)
    (partial / MARKER).write_text(json.dumps(description, indent=1) + "\n")
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
    os.close(handle)
    counts = ", ".join(f"{len(labels)} {part}" for part, (_, labels) in parts.items())
    return f"{name}: {counts} images, {name}/fashion.data"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, help="folder of the four .gz files (default: where Debian's package "
                        "dataset-fashion-mnist puts them)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/fashion-mnist"), help="folder to make (default: %(default)s)")
    parser.add_argument("--any", action="store_true", help="accept other IDX files of ten classes than Fashion-MNIST's own")
    arguments = parser.parse_args()
    source = arguments.source or next((pathlib.Path(s) for s in SOURCES if os.path.isdir(s)), pathlib.Path(SOURCES[-1]))
    return exit_status(lambda: prepare(source, arguments.out, arguments.any), arguments.out)


if __name__ == "__main__":
    sys.exit(main())
