#!/usr/bin/env python3
"""A detection set of Fashion-MNIST pieces on cluttered canvases, for demo and tests: no download.

Each canvas has a coloured, uneven ground, bars and ellipses, scrambled pieces that are no
object, and 1 to 6 whole ones of 20 to 120 pixels, tinted, some a little covered; boxes are
tight; --canvas, --edges and --pieces make other ones, --groups five classes of the ten. Training pieces go to train, test pieces to valid. The same pixels for the same
seed anywhere: NumPy's legacy generator, whose numbers never change, and no library that scales
or draws. Test: tests/test_detection_data.py
"""
import argparse
import pathlib
import struct
import sys
import zlib
from typing import NamedTuple

import numpy as np

import detection_set
import prepare_fashion_mnist as fashion
from detection_set import Box, Picture
from image_folders import Failure, exit_status

CANVAS = 208         # pixels of the square one
SIZES = ((224, 192), (192, 224), (208, 208), (256, 160))  # width, height of canvases where it has those
GROUPS = (("top", (0, 2, 4, 6)), ("trouser", (1,)), ("dress", (3,)), ("shoe", (5, 7, 9)), ("bag", (8,)))  # of Fashion-MNIST's classes
MOST_COVERED = 0.25  # share of a box that pieces in front of it may cover
INK = 0.08           # intensity from which a pixel belongs to a piece
PARTS = {"train": ("train", 0), "valid": ("test", 1)}  # of Fashion-MNIST; number of the stream


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, of [h][w] floats, between the centres of pixels."""
    def places(n: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.clip((np.arange(n) + 0.5) * size / n - 0.5, 0, size - 1)
        low = np.minimum(at.astype(int), size - 2) if size > 1 else np.zeros(n, int)
        return low, np.minimum(low + 1, size - 1), at - low

    y0, y1, dy = places(height, image.shape[0])
    x0, x1, dx = places(width, image.shape[1])
    rows = image[y0] * (1 - dy)[:, None] + image[y1] * dy[:, None]
    return rows[:, x0] * (1 - dx) + rows[:, x1] * dx


def ground(rng: np.random.RandomState, height: int, width: int) -> np.ndarray:
    """[height][width][3] in 0..1: two colours that flow into each other, coarse and fine noise."""
    colours = rng.uniform(0.1, 0.9, (2, 3))
    flow = resize(rng.uniform(0, 1, (5, 5)), height, width)[..., None]
    coarse = resize(rng.uniform(-0.12, 0.12, (14, 14)), height, width)[..., None]
    return colours[0] * flow + colours[1] * (1 - flow) + coarse + rng.uniform(-0.05, 0.05, (height, width, 3))


class Scene(NamedTuple):
    """What is drawn: pixels of the square canvas, of a piece's longer edge from and to, and the most pieces."""
    canvas: int = CANVAS
    edges: tuple[int, int] = (20, 120)
    pieces: int = 6

    def scale(self) -> float:
        return self.canvas / CANVAS

    def narrowest(self) -> int:
        return round(min(map(min, SIZES)) * self.scale())


def add_shapes(rng: np.random.RandomState, canvas: np.ndarray, scale: float) -> None:
    height, width, _ = canvas.shape
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(rng.randint(4, 10)):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        turn, long, short = rng.uniform(0, np.pi), rng.uniform(8, 70) * scale, rng.uniform(2, 14) * scale
        # cos and sin differ in the last bit between libraries, which moves no pixel but on an edge: round them off
        c, s = round(float(np.cos(turn)), 6), round(float(np.sin(turn)), 6)
        u, v = (c * (x - cx) + s * (y - cy)) / long, (c * (y - cy) - s * (x - cx)) / short
        inside = u * u + v * v < 1 if rng.randint(2) else (abs(u) < 1) & (abs(v) < 1)
        strength = rng.uniform(0.3, 0.9)
        canvas[inside] = canvas[inside] * (1 - strength) + rng.uniform(0, 1, 3) * strength


def paint(rng: np.random.RandomState, canvas: np.ndarray, piece: np.ndarray, top: int, left: int) -> None:
    """A piece [h][w] in a colour of its own: opaque where it has ink."""
    height, width = piece.shape
    part = canvas[top:top + height, left:left + width]
    cover = np.clip((piece - INK) * 8, 0, 1)[..., None]
    colour = rng.uniform(0.25, 1, 3) * (0.35 + 0.65 * piece)[..., None]
    part[:] = part * (1 - cover) + colour * cover


def crop(piece: np.ndarray) -> np.ndarray:
    """To where there is ink."""
    rows, columns = np.flatnonzero(piece.max(1) > INK), np.flatnonzero(piece.max(0) > INK)
    return piece[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


def scaled(rng: np.random.RandomState, piece: np.ndarray, edges: tuple[int, int]) -> np.ndarray:
    """Cropped, mirrored or not, its longer edge evenly spread on a logarithmic scale."""
    piece = crop(piece)
    edge = edges[0] * (edges[1] / edges[0]) ** (rng.randint(0, 65) / 64)
    factor = edge / max(piece.shape)
    if rng.randint(2):
        piece = piece[:, ::-1]
    return crop(resize(piece, max(round(piece.shape[0] * factor), 4), max(round(piece.shape[1] * factor), 4)))


def add_scraps(rng: np.random.RandomState, canvas: np.ndarray, pieces: np.ndarray, scale: float) -> None:
    """Pieces whose 7 x 7 tiles have changed places: texture that is no object."""
    for _ in range(rng.randint(1, 4)):
        piece = pieces[rng.randint(len(pieces))] / 255.
        tiles = piece.reshape(4, 7, 4, 7).transpose(0, 2, 1, 3).reshape(16, 7, 7)[rng.permutation(16)]
        scrap = tiles.reshape(4, 4, 7, 7).transpose(0, 2, 1, 3).reshape(28, 28)
        edge = rng.randint(round(20 * scale), round(60 * scale))
        paint(rng, canvas, resize(scrap, edge, edge), rng.randint(canvas.shape[0] - edge), rng.randint(canvas.shape[1] - edge))


def covered(box: tuple, others: list[tuple]) -> float:
    """Largest share of a box (left, top, right, bottom), or of another one, that the two have in common."""
    def area(b: tuple) -> int:
        return max(b[2] - b[0], 0) * max(b[3] - b[1], 0)

    shared = [(area((max(box[0], o[0]), max(box[1], o[1]), min(box[2], o[2]), min(box[3], o[3]))), min(area(box), area(o))) for o in others]
    return max((common / smaller for common, smaller in shared), default=0)


def draw(rng: np.random.RandomState, pieces: np.ndarray, labels: np.ndarray, scene: Scene) -> tuple[np.ndarray, list[Box]]:
    """A canvas [height][width][3] of bytes and its boxes."""
    scale = scene.scale()
    width, height = (round(n * scale) for n in SIZES[rng.randint(len(SIZES))])
    canvas = ground(rng, height, width)
    add_shapes(rng, canvas, scale)
    add_scraps(rng, canvas, pieces, scale)
    placed, boxes = [], []
    for _ in range(rng.randint(1, scene.pieces + 1)):
        number = rng.randint(len(pieces))
        piece = scaled(rng, pieces[number] / 255., scene.edges)
        h, w = piece.shape
        for _ in range(8):  # a canvas may be too full
            left, top = rng.randint(width - w + 1), rng.randint(height - h + 1)
            if covered((left, top, left + w, top + h), placed) <= MOST_COVERED:
                placed.append((left, top, left + w, top + h))
                boxes.append(detection_set.clip(int(labels[number]), left, top, left + w, top + h, width, height))
                paint(rng, canvas, piece, top, left)
                break
    canvas += rng.uniform(-0.03, 0.03, canvas.shape)
    return np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8), boxes


def png(image: np.ndarray) -> bytes:
    """[height][width][3] as a PNG file."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter, 0 = none
    rows[:, 1:] = image.reshape(height, -1)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows.tobytes(), 1)) + chunk(b"IEND", b""))


def make(source: pathlib.Path, out: pathlib.Path, counts: dict[str, int], seed: int, scene: Scene, groups: bool, any_data: bool) -> str:
    detection_set.darknet_name(out)
    files, parts, names = {}, {}, [name for _, name in fashion.CLASSES]
    if groups:
        names = [name for name, _ in GROUPS]
        group_of = np.array([next(g for g, (_, members) in enumerate(GROUPS) if k in members) for k in range(len(fashion.CLASSES))])
    progress = fashion.Progress(sum(counts.values()))
    for part, (stem, stream) in PARTS.items():
        pieces, labels = fashion.read_part(source, stem, any_data)
        parts[part] = []
        labels = group_of[labels] if groups else labels
        for i in range(counts[part]):
            image, boxes = draw(np.random.RandomState([seed, stream, i]), pieces, labels, scene)
            parts[part].append(Picture(f"{part}{i:05d}.png", boxes))
            files[parts[part][-1].name] = png(image)
            progress.add()
    data = detection_set.write(out, parts, names, lambda picture, path: path.write_bytes(files[picture.name]))
    boxes = {part: sum(len(p.boxes) for p in pictures) for part, pictures in parts.items()}
    return ", ".join(f"{counts[part]} {part} images with {boxes[part]} boxes" for part in PARTS) + f": {data}"


def check(scene: Scene) -> None:
    if not 64 <= scene.canvas <= 1024:
        raise Failure(f"--canvas {scene.canvas}: must be from 64 to 1024")
    if not 8 <= scene.edges[0] <= scene.edges[1] <= scene.narrowest():
        raise Failure(f"--edges {scene.edges[0]} {scene.edges[1]}: must be from 8 to {scene.narrowest()}, the narrowest canvas, the smaller one first")
    if not 1 <= scene.pieces <= 20:
        raise Failure(f"--pieces {scene.pieces}: must be from 1 to 20")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, help="folder of the four .gz files of Fashion-MNIST (default: where Debian's package puts them)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/fashion-boxes"), help="folder to make (default: %(default)s)")
    parser.add_argument("--train", type=int, default=4000, help="images to train with (default: %(default)s)")
    parser.add_argument("--valid", type=int, default=500, help="images to measure with (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--canvas", type=int, default=Scene().canvas, help="pixels of the square canvas; the others in proportion (default: %(default)s)")
    parser.add_argument("--edges", type=int, nargs=2, default=Scene().edges, metavar=("FROM", "TO"), help="pixels of a piece's longer edge (default: 20 120)")
    parser.add_argument("--pieces", type=int, default=Scene().pieces, help="the most pieces on a canvas (default: %(default)s)")
    parser.add_argument("--groups", action="store_true", help=f"classes {', '.join(name for name, _ in GROUPS)} instead of Fashion-MNIST's ten")
    parser.add_argument("--any", action="store_true", help="accept other IDX files of ten classes than Fashion-MNIST's own")
    arguments = parser.parse_args()
    source = arguments.source or next((pathlib.Path(s) for s in fashion.SOURCES if pathlib.Path(s).is_dir()), pathlib.Path(fashion.SOURCES[-1]))

    def made() -> str:
        if min(arguments.train, arguments.valid) < 1 or max(arguments.train, arguments.valid) > 99999:
            raise Failure(f"--train {arguments.train} --valid {arguments.valid}: must be from 1 to 99999")
        if not 0 <= arguments.seed < 2 ** 32:
            raise Failure(f"--seed {arguments.seed}: must be from 0 to {2 ** 32 - 1}")
        scene = Scene(arguments.canvas, tuple(arguments.edges), arguments.pieces)
        check(scene)
        return make(source, arguments.out, {"train": arguments.train, "valid": arguments.valid}, arguments.seed, scene, arguments.groups, arguments.any)

    return exit_status(made, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
