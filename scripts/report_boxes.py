"""report_boxes.py: what `darknet kure eval --detections` has found, the true boxes beside it, and what becomes of boxes
from one file to the next, for report.py.

Boxes are [left, top, width, height] in pixels of the image, as in COCO's results; classes count from 0, images from 1, their
line in the list that `valid=` of the .data file names. Two boxes of a class are the same one where they overlap by half.

Test: tests/test_report_boxes.py
"""
import dataclasses
import functools
import itertools
import math
import pathlib

from report_weights import Failure

OVERLAP = 0.5  # intersection over union of boxes that are taken for the same one, as in AP50
# each at its first place in the path, one after the other: fill_truth_detection in Darknet's data.c
LABELS = (("images", "labels"), ("JPEGImages", "labels"), ("raw", "labels"), (".jpg", ".txt"), (".png", ".txt"), (".JPG", ".txt"), (".JPEG", ".txt"))


@dataclasses.dataclass(frozen=True)
class Box:
    category: int
    x: float
    y: float
    width: float
    height: float
    score: float = math.nan  # of a true box: none

    def overlap(self, other: "Box") -> float:
        """Intersection over union; 0 for another class"""
        w = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        h = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        if self.category != other.category or w <= 0 or h <= 0:
            return 0.0
        return w * h / (self.width * self.height + other.width * other.height - w * h)


Detections = dict[int, list[Box]]  # number of the image, from 1 -> boxes of any score


def finite(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_box(path: pathlib.Path, number: int, entry) -> tuple[int, Box]:
    """(image, box) of entry `number`, from 1"""
    where = f"{path}: detection {number}"
    if not isinstance(entry, dict):
        raise Failure(f"{where}: is no object")
    for key in ("image_id", "category_id"):
        if not isinstance(entry.get(key), int) or entry[key] < (key == "image_id"):
            raise Failure(f"{where}: {key} is {entry.get(key)!r}, a whole number from {int(key == 'image_id')} on was expected")
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(finite, box)):
        raise Failure(f"{where}: bbox is {box!r}, four numbers were expected")
    if not finite(entry.get("score")):
        raise Failure(f"{where}: score is {entry.get('score')!r}, a number was expected")
    return entry["image_id"], Box(entry["category_id"], *map(float, box), float(entry["score"]))


def read_detections(path: pathlib.Path, entries: list) -> Detections:
    """COCO's results, as `kure eval --detections` writes them"""
    found: Detections = {}
    for number, entry in enumerate(entries, 1):
        image, box = read_box(path, number, entry)
        found.setdefault(image, []).append(box)
    return found


def read_lines(path: str, what: str) -> list[str]:
    try:
        return [line.strip() for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path}: {what}, cannot be read: {error.strerror if isinstance(error, OSError) else 'it is no text'}") from None


class Data:
    """A .data file of Darknet: its validation list, the names of its classes, the true boxes."""

    def __init__(self, path: str):
        self.path, entries = path, {}
        for number, line in enumerate(read_lines(path, "a .data file"), 1):
            if not line or line[0] in "#;":
                continue
            key, equals, value = line.partition("=")
            if not equals:
                raise Failure(f"{path}:{number}: {line[:60]!r} is no key=value")
            entries[key.strip()] = value.strip()
        self.list = entries.get("valid") or entries.get("train") or ""
        if not self.list:
            raise Failure(f"{path}: has no valid=, the list of the images")
        self.images = read_lines(self.list, f"valid= of {path}")
        while self.images and not self.images[-1]:
            self.images.pop()
        names = entries.get("names") or entries.get("labels")
        self.names = read_lines(names, f"names= of {path}") if names else []

    def name(self, category: int) -> str:
        return self.names[category] if category < len(self.names) and self.names[category] else f"class {category}"

    @functools.lru_cache(maxsize=64)
    def picture(self, image: int):
        """RGB, as Darknet reads it"""
        from PIL import Image
        try:
            return Image.open(self.images[image - 1]).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise Failure(f"{self.images[image - 1]}: image {image} of {self.list}, cannot be read: {getattr(error, 'strerror', None) or error}") from None

    def truths(self, image: int) -> list[Box]:
        """Of Darknet's label file; without one there are none"""
        label = self.images[image - 1]
        for old, new in LABELS:
            label = label.replace(old, new, 1)
        if label == self.images[image - 1] or not pathlib.Path(label).exists():
            return []
        width, height = self.picture(image).size
        found = []
        for number, line in enumerate(read_lines(label, "the boxes of an image"), 1):
            try:
                category, x, y, w, h = (cast(word) for cast, word in zip((int, *[float] * 4), line.split(), strict=True)) if line else (-1, 0, 0, 0, 0)
            except ValueError:
                raise Failure(f"{label}:{number}: {line[:60]!r} is no box: class x y width height") from None
            if category >= 0:
                found.append(Box(category, (x - w / 2) * width, (y - h / 2) * height, w * width, h * height))
        return found

    def number(self, wanted: str) -> int:
        """Of an image, from 1: its line, or the end of its path"""
        if wanted.isdecimal():
            if not 1 <= int(wanted) <= len(self.images):
                raise Failure(f"--pictures {wanted}: {self.list} has {len(self.images)} images")
            return int(wanted)
        found = [i for i, path in enumerate(self.images, 1) if wanted and (path == wanted or path.endswith("/" + wanted))]
        if len(found) != 1:
            raise Failure(f"--pictures {wanted}: {'no image' if not found else f'{len(found)} images'} of {self.list} {'have' if len(found) > 1 else 'has'} that name")
        return found[0]

    def check(self, path: str, detections: Detections) -> None:
        """Are they boxes of these images and classes?"""
        for image, boxes in detections.items():
            if image > len(self.images):
                raise Failure(f"{path}: image_id {image}, but {self.list} has {len(self.images)} images: --data must be the one of kure eval")
            for box in boxes:
                if self.names and box.category >= len(self.names):
                    raise Failure(f"{path}: category_id {box.category}, but {self.path} names {len(self.names)} classes: --data must be the one of kure eval")


# ---- what became of a box -----------------------------------------------------------


@dataclasses.dataclass
class Change:
    """Boxes of an image in two files, those of the score wanted."""
    kept: list[tuple[Box, Box]]  # before, after
    missing: list[Box]           # before only
    new: list[Box]               # after only

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.new)


def pairs(a: list[Box], b: list[Box]) -> list[tuple[int, int]]:
    """Boxes that are the same, those with the largest overlap first; each at most once"""
    near = [(-x.overlap(y), i, j) for (i, x), (j, y) in itertools.product(enumerate(a), enumerate(b)) if x.overlap(y) >= OVERLAP]
    found: dict[int, int] = {}
    for _, i, j in sorted(near):
        if i not in found and j not in found.values():
            found[i] = j
    return sorted(found.items())


def compare(before: list[Box], after: list[Box]) -> Change:
    same = pairs(before, after)
    return Change([(before[i], after[j]) for i, j in same], [b for i, b in enumerate(before) if i not in dict(same)],
                  [b for j, b in enumerate(after) if j not in dict(same).values()])


def shown(detections: Detections, image: int, threshold: float) -> list[Box]:
    """From the surest on"""
    return sorted((b for b in detections.get(image, []) if b.score > threshold), key=lambda b: -b.score)


def changes(before: Detections, after: Detections, threshold: float) -> dict[int, Change]:
    """Of every image with a box in either file"""
    return {i: compare(shown(before, i, threshold), shown(after, i, threshold)) for i in sorted({*before, *after})}


def most_changed(files: dict[str, Detections], threshold: float, count: int) -> list[int]:
    """Images with the most boxes that are missing or new against the first file, in the order of the list; those with the most boxes
    where none is"""
    first, *others = files.values()
    total: dict[int, int] = {}
    for after in others:
        for image, change in changes(first, after, threshold).items():
            total[image] = total.get(image, 0) + change.count
    if not any(total.values()):
        total = {image: len(shown(first, image, threshold)) for image in first}
    busiest = sorted((image for image in total if total[image]), key=lambda i: (-total[i], i))
    return sorted(busiest[:count])
