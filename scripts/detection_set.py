"""A detector's data as Darknet wants them: OUT/images, OUT/labels, lists, names, .data; for
make_detection_set.py and convert_boxes.py.

Darknet finds the boxes of OUT/images/NAME.png in OUT/labels/NAME.txt: it replaces the first
"images" of the path by "labels", and so on, whence the rules for names below. The folder
appears under its final name only when it is complete.
"""
import os
import pathlib
import shutil
from typing import Callable, NamedTuple

from image_folders import Failure, name_for_darknet

# What Darknet replaces in the path of an image (fill_truth_detection in data.c), which must be found nowhere else in it.
REPLACED = ("images", "JPEGImages", "raw", ".jpg", ".png", ".JPG", ".JPEG")
ENDINGS = {".jpg": ".jpg", ".jpeg": ".jpg", ".png": ".png"}  # of a file in lower case -> one that Darknet knows


class Box(NamedTuple):
    category: int
    x: float  # the centre, share of the width
    y: float
    width: float
    height: float

    def line(self) -> str:
        return f"{self.category} {self.x:.7f} {self.y:.7f} {self.width:.7f} {self.height:.7f}\n"


class Picture(NamedTuple):
    name: str  # of the file, with .jpg or .png
    boxes: list[Box]


def clip(category: int, left: float, top: float, right: float, bottom: float, width: int, height: int) -> Box | None:
    """A box in pixels as shares of the image, of what lies inside; None: nothing does."""
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if not (right > left and bottom > top):
        return None
    return Box(category, (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height)


def darknet_name(out: pathlib.Path) -> str:
    return name_for_darknet(out, REPLACED, "which Darknet would replace to find the boxes")


def check_file_name(name: str) -> str | None:
    """Why Darknet cannot find the boxes of a file of this name; None: it can."""
    stem, ending = os.path.splitext(name)
    if ending not in set(ENDINGS.values()):
        return "ends neither in .jpg nor in .png"
    if any(c.isspace() for c in name):
        return "holds a blank, at which Darknet ends a path"
    found = [word for word in REPLACED if word in stem]
    return f"holds '{found[0]}', which Darknet would replace to find the boxes" if found else None


def write(out: pathlib.Path, parts: dict[str, list[Picture]], names: list[str], put_image: Callable[[Picture, pathlib.Path], None]) -> str:
    """parts: train and valid; put_image makes the file of a picture. Returns the path of the .data file."""
    name = darknet_name(out)
    partial = out.with_name(out.name + ".partial")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Failure(f"{out} exists: choose another --out, or delete it")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ("images", "labels", "backup"):
        (partial / folder).mkdir(parents=True)
    for part, pictures in parts.items():
        for picture in pictures:
            put_image(picture, partial / "images" / picture.name)
            (partial / "labels" / picture.name).with_suffix(".txt").write_text("".join(box.line() for box in picture.boxes))
        (partial / f"{part}.list").write_text("".join(f"{name}/images/{picture.name}\n" for picture in pictures))
    (partial / "names.txt").write_text("".join(f"{n}\n" for n in names))
    data = f"{out.name}.data"
    (partial / data).write_text(f"classes={len(names)}\ntrain={name}/train.list\nvalid={name}/valid.list\nnames={name}/names.txt\n"
                                f"backup={name}/backup\nresults={name}\n")
    if out.exists():
        out.rmdir()
    partial.rename(out)
    return f"{name}/{data}"
