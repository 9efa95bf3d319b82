#!/usr/bin/env python3
"""Boxes of other formats as Darknet wants them: Pascal VOC, COCO, folders of images and text files.

  convert_boxes.py voc ANNOTATIONS IMAGES --out OUT      .xml files, one an image
  convert_boxes.py coco FILE.json IMAGES --out OUT       instances; --valid-json FILE for the validation part
  convert_boxes.py folder FOLDER --names FILE --out OUT  images with Darknet's .txt beside them

OUT/images holds links to the images (--copy: copies), OUT/labels the boxes, OUT/OUT.data what
Darknet reads. Nothing is written while something is wrong: boxes outside their image or
without an area, unknown classes, images that are missing or cannot be read are named and
counted; --skip-bad leaves them out. Boxes that stick out are cut at the edge, and
counted. VOC pixels as in Darknet's voc_label.py: from min - 1 to max - 1, without
"difficult" objects; COCO without crowds. Test: tests/test_detection_data.py
"""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from typing import Iterator, NamedTuple

from PIL import Image, UnidentifiedImageError

import detection_set
from detection_set import ENDINGS, Picture
from image_folders import Failure

NAMED = 3    # of the faults of a kind
EDGE = 0.01  # pixels that a box may stick out unnoticed: rounding


class Source(NamedTuple):
    """An image as a format describes it, pixels in `boxes`: (class, left, top, right, bottom)."""
    image: pathlib.Path
    origin: str  # what to name when something is wrong
    boxes: list[tuple[str, float, float, float, float]]
    size: tuple[int, int] | None = None  # width and height, where the format says them
    relative: bool = False  # boxes are shares of the image


class Report:
    """What is wrong, by kind: the first few by name, how many there are."""

    def __init__(self):
        self.faults: dict[str, list[str]] = {}
        self.notes: dict[str, list[str]] = {}

    @staticmethod
    def say(found: dict[str, list[str]]) -> None:
        for kind, names in found.items():
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            print(f"{len(names)} {kind}: {', '.join(names[:NAMED])}{more}", file=sys.stderr)

    def fault(self, kind: str, name: str) -> None:
        self.faults.setdefault(kind, []).append(name)

    def note(self, kind: str, name: str) -> None:
        self.notes.setdefault(kind, []).append(name)


# ---- formats --------------------------------------------------------------------------

def text_of(element: ElementTree.Element, path: str) -> str:
    found = element.findtext(path)
    if found is None or not found.strip():
        raise ValueError(f"no <{path}>")
    return found.strip()


def read_voc_file(path: pathlib.Path, images: pathlib.Path, report: Report) -> Source:
    root = ElementTree.parse(path).getroot()
    boxes = []
    for thing in root.iter("object"):
        name = text_of(thing, "name")
        if thing.findtext("difficult", "0").strip() == "1":
            report.note("difficult objects left out", f"{path.name} ({name})")
            continue
        low_x, low_y, high_x, high_y = (float(text_of(thing, f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append((name, low_x - 1, low_y - 1, high_x - 1, high_y - 1))
    image = images / pathlib.PurePath(root.findtext("filename", "").strip() or ".").name
    if not image.is_file():  # annotation tools rename images
        image = next((images / (path.stem + e) for e in (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG") if (images / (path.stem + e)).is_file()), image)
    return Source(image, path.name, boxes)


def read_voc(annotations: pathlib.Path, images: pathlib.Path, report: Report) -> Iterator[Source]:
    files = sorted(annotations.glob("*.xml"))
    if not files:
        raise Failure(f"{annotations}: no .xml file in it")
    for path in files:
        try:
            yield read_voc_file(path, images, report)
        except (ElementTree.ParseError, ValueError, OSError) as error:
            report.fault("annotations cannot be read", f"{path.name} ({error})")


def read_coco(file: pathlib.Path, images: pathlib.Path, report: Report) -> Iterator[Source]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        names = {c["id"]: c["name"] for c in content["categories"]}
        entries = {i["id"]: (i["file_name"], i.get("width"), i.get("height"), []) for i in content["images"]}
        for annotation in content["annotations"]:
            if annotation["image_id"] not in entries:
                report.fault("annotations of an image that is not in the list", f"annotation {annotation.get('id')}")
                continue
            file_name, _, _, boxes = entries[annotation["image_id"]]
            if annotation.get("iscrowd"):
                report.note("crowds left out", file_name)
                continue
            x, y, width, height = (float(value) for value in annotation["bbox"])
            boxes.append((names.get(annotation["category_id"], f"category {annotation['category_id']}"), x, y, x + width, y + height))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(f"{file}: is no COCO file of instances: {type(error).__name__}: {error}") from None
    for name, width, height, boxes in entries.values():
        yield Source(images / name, name, boxes, (width, height) if width and height else None)


def read_folder(folder: pathlib.Path, names: list[str], report: Report) -> Iterator[Source]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not files:
        raise Failure(f"{folder}: no .jpg and no .png in it")
    for path in files:
        boxes, text = [], path.with_suffix(".txt")
        if not text.is_file():
            report.note("images without a .txt, taken as without boxes", path.name)
        for number, line in enumerate(text.read_text().splitlines() if text.is_file() else [], 1):
            words = line.split()
            try:
                if not words:
                    continue
                category, (x, y, w, h) = int(words[0]), map(float, words[1:])
            except ValueError:
                report.fault("lines are no box (class x y width height)", f"{text.name}:{number}")
                continue
            name = names[category] if 0 <= category < len(names) else f"class {category}"
            boxes.append((name, x - w / 2, y - h / 2, x + w / 2, y + h / 2))
        yield Source(path, text.name, boxes, relative=True)


# ---- checks -----------------------------------------------------------------------------

def size_of(source: Source, report: Report) -> tuple[int, int] | None:
    """Width and height of an image that can be decoded to its end."""
    try:
        if source.image.is_file() and source.image.stat().st_size == 0:
            raise OSError("an empty file")
        with Image.open(source.image) as image:
            image.load()
            size = image.size
    except FileNotFoundError:
        report.fault("images are missing", str(source.image))
        return None
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = "no image" if isinstance(error, UnidentifiedImageError) else error
        report.fault("images cannot be read", f"{source.image} ({reason})")
        return None
    if source.size and source.size != size:
        report.fault("images have another size than their annotations say", f"{source.image} ({size[0]}x{size[1]}, not {source.size[0]}x{source.size[1]})")
        return None
    return size


def convert(source: Source, names: list[str], report: Report) -> Picture | None:
    file = source.image.stem + ENDINGS.get(source.image.suffix.lower(), source.image.suffix)
    reason = detection_set.check_file_name(file)
    if reason:
        report.fault("names do not suit Darknet", f"{source.image.name} ({reason})")
        return None
    size = size_of(source, report)
    if not size:
        return None
    boxes = []
    for name, left, top, right, bottom in source.boxes:
        described = f"{source.origin} ({name} {left:g} {top:g} {right:g} {bottom:g})"
        if source.relative:
            left, right, top, bottom = left * size[0], right * size[0], top * size[1], bottom * size[1]
        if name not in names:
            report.fault("boxes of an unknown class", described)
            continue
        if not (right > left and bottom > top):
            report.fault("boxes without an area", described)
            continue
        box = detection_set.clip(names.index(name), left, top, right, bottom, *size)
        if not box:
            report.fault("boxes outside their image", described)
            continue
        if min(left, top, size[0] - right, size[1] - bottom) < -EDGE:
            report.note("boxes cut at the edge of their image", described)
        boxes.append(box)
    return Picture(file, boxes)


def convert_all(sources: list[Source], names: list[str], report: Report) -> dict[str, tuple[Picture, pathlib.Path]]:
    """By the name that the picture will have: it, and its file."""
    found = {}
    for source in sources:
        picture = convert(source, names, report)
        if picture and picture.name in found:
            report.fault("images have one name", f"{source.image} and {found[picture.name][1]}")
        elif picture:
            found[picture.name] = (picture, source.image)
    return found


def split(pictures: list[Picture], share: float, seed: int) -> dict[str, list[Picture]]:
    """By a hash of the name: the same images stay in the same part when others come."""
    def place(picture: Picture) -> float:
        return int.from_bytes(hashlib.sha256(f"{seed}:{picture.name}".encode()).digest()[:6], "big") / 2 ** 48

    valid = [p for p in pictures if place(p) < share]
    if not valid and len(pictures) > 1:
        valid = [min(pictures, key=place)]
    train = [p for p in pictures if p not in valid]
    return {"train": train or pictures, "valid": valid or pictures}


# ---- the command line ----------------------------------------------------------------------

def read_names(path: pathlib.Path | None, found: set[str]) -> list[str]:
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()] if path else sorted(found)
    if len(set(names)) < len(names):
        raise Failure(f"{path}: a class stands there twice")
    if not names:
        raise Failure("no class: no image has a box")
    return names


def run(a: argparse.Namespace) -> str:
    report, valid = Report(), []
    detection_set.darknet_name(a.out)
    if a.format == "voc":
        train = list(read_voc(a.annotations, a.images, report))
    elif a.format == "coco":
        train = list(read_coco(a.annotations, a.images, report))
        valid = list(read_coco(a.valid_json, a.valid_images or a.images, report)) if a.valid_json else []
    else:
        train = list(read_folder(a.images, read_names(a.names, set()), report))
    names = read_names(a.names, {box[0] for source in train + valid for box in source.boxes})
    found = convert_all(train + valid, names, report)
    report.say(report.notes)
    report.say(report.faults)
    if report.faults and not a.skip_bad:
        raise Failure("nothing was written; --skip-bad leaves these out")
    pictures = [picture for picture, _ in found.values()]
    if not any(picture.boxes for picture in pictures):
        raise Failure("no image is left that has a box")
    files = {source.image for source in valid}
    parts = ({"train": [p for p, f in found.values() if f not in files], "valid": [p for p, f in found.values() if f in files]} if valid
             else split(pictures, a.valid_share, a.seed))
    for part, of_part in parts.items():
        if not of_part:
            raise Failure(f"no image is left to {'train' if part == 'train' else 'measure'} with")

    def put(picture: Picture, path: pathlib.Path) -> None:
        file = os.path.abspath(found[picture.name][1])
        shutil.copyfile(file, path) if a.copy else path.symlink_to(file)

    data = detection_set.write(a.out, parts, names, put)
    counts = ", ".join(f"{len(p)} {part} images with {sum(len(q.boxes) for q in p)} boxes" for part, p in parts.items())
    return f"{counts}, {len(names)} classes: {data}"


def main() -> int:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", type=pathlib.Path, required=True, help="folder to make")
    common.add_argument("--names", type=pathlib.Path, help="file of the classes, one a line (default: all that occur, sorted)")
    common.add_argument("--valid-share", type=float, default=0.2, help="of the images, to measure with (default: %(default)s)")
    common.add_argument("--seed", type=int, default=1, help="which ones (default: %(default)s)")
    common.add_argument("--copy", action="store_true", help="copy the images instead of linking to them")
    common.add_argument("--skip-bad", action="store_true", help="leave out what is wrong")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    formats = parser.add_subparsers(dest="format", required=True)
    for name, what in (("voc", "folder of .xml files"), ("coco", "JSON file of instances")):
        one = formats.add_parser(name, parents=[common])
        one.add_argument("annotations", type=pathlib.Path, help=what)
        one.add_argument("images", type=pathlib.Path, help="folder of the images")
        if name == "coco":
            one.add_argument("--valid-json", type=pathlib.Path, help="instances to measure with, in the place of --valid-share")
            one.add_argument("--valid-images", type=pathlib.Path, help="folder of their images (default: IMAGES)")
    formats.add_parser("folder", parents=[common]).add_argument("images", type=pathlib.Path, help="folder of images and .txt files")
    arguments = parser.parse_args()
    try:
        if arguments.format == "folder" and not arguments.names:
            raise Failure("--names FILE is needed: the .txt files hold numbers")
        if not 0 < arguments.valid_share < 1:
            raise Failure(f"--valid-share {arguments.valid_share}: must lie between 0 and 1")
        print(run(arguments))
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except (OSError, UnicodeDecodeError) as error:
        print(f"{getattr(error, 'filename', None) or arguments.out}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
