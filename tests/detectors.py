"""A small set of rectangles to detect, networks for it, and what the tests of detectors read back."""
import csv
import json

import numpy as np

import networks
import programs

CLASSES = 3  # the last one has no box among the images that are measured
COLOURS = np.array([[220, 60, 40], [40, 80, 220], [60, 200, 60]])
SIZES = ((80, 64), (64, 96), (128, 128), (64, 64), (150, 70), (240, 180))  # width, height
ANCHORS = "14,14, 36,36"


def draw(rng, width, height, categories):
    """[height][width][3], and [(class, x, y, width, height)] in shares; noise, some rectangles without a class."""
    picture = rng.integers(60, 150, (height, width, 3)).astype(int)
    boxes = []
    for k in [-1, *rng.integers(0, categories, rng.integers(1, 4))]:
        w, h = int(width * rng.uniform(.15, .6)), int(height * rng.uniform(.15, .6))
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        colour = COLOURS[k] + rng.normal(0, 12, 3) if k >= 0 else rng.integers(0, 256, 3)
        picture[y:y + h, x:x + w] = np.clip(colour + rng.normal(0, 10, (h, w, 3)), 0, 255)
        if k >= 0:
            boxes.append((int(k), (x + w / 2) / width, (y + h / 2) / height, w / width, h / height))
    return picture.astype(np.uint8), boxes


def write_labels(folder, name, boxes):
    (folder / "labels" / f"{name}.txt").write_text("".join("%d %.6f %.6f %.6f %.6f\n" % box for box in boxes))


def make(folder, train=120, valid=40, seed=4):
    """images/, labels/, boxes.data; the lists hold absolute paths. One image of `valid` has no box."""
    from PIL import Image
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for part, count in (("train", train), ("valid", valid)):
        paths = []
        for i in range(count):
            width, height = SIZES[i % len(SIZES)]
            picture, boxes = draw(rng, width, height, CLASSES if part == "train" else CLASSES - 1)
            name = f"{part}_{i + 1:04d}"
            Image.fromarray(picture).save(folder / "images" / f"{name}.png")
            write_labels(folder, name, boxes if (part, i) != ("valid", 2) else [])
            paths.append(str(folder / "images" / f"{name}.png"))
        (folder / f"{part}.list").write_text("\n".join(paths) + "\n")
    (folder / "names.list").write_text("red\nblue\ngreen\n")
    write_data(folder)


def write_data(folder, name="boxes.data", **changes):
    entries = dict(classes=CLASSES, train=folder / "train.list", valid=folder / "valid.list", names=folder / "names.list", backup=".", results=folder)
    entries.update(changes)
    (folder / name).write_text("".join(f"{key} = {value}\n" for key, value in entries.items() if value is not None))


def head(kind, classes=CLASSES):
    if kind == "yolo":
        return networks.yolo(classes, anchors=ANCHORS)
    return (networks.conv(2 * (5 + classes), size=1, batch_normalize=0, activation="linear")
            + networks.section("region", anchors="1.75,1.75, 4.5,4.5", bias_match=1, classes=classes, coords=4, num=2, softmax=1, jitter=".2", rescore=1,
                               object_scale=5, noobject_scale=1, class_scale=1, coord_scale=1, absolute=1, thresh=".6", random=0))


def cfg(kind="yolo", batch=8, ours="", **keys):
    """64 x 64 and a stride of 8; `two`: yolo at strides of 16 and 8."""
    text = networks.net(**{**dict(batch=batch, width=64, height=64, learning_rate=0.01, policy="steps", steps="450,540", scales=".1,.1",
                                   max_batches=600, seed=3), **keys}) + ours
    body = networks.conv(12, stride=2) + networks.conv(24, stride=2) + networks.conv(32, stride=2)
    if kind != "two":
        return text + body + 2 * networks.conv(32) + head(kind)
    return (text + body + networks.conv(32, stride=2) + networks.conv(32) + head("yolo") + networks.section("route", layers="-4") + networks.conv(16, size=1)
            + networks.section("upsample", stride=2) + networks.section("route", layers="-1,2") + head("yolo"))


def train(build, folder, text, name="net"):
    (folder / f"{name}.cfg").write_text(text)
    programs.succeed(build.darknet(folder, "detector", "train", "boxes.data", f"{name}.cfg"))
    (folder / f"{name}_final.weights").rename(folder / f"{name}.weights")


def evaluate(build, folder, *options, name="net", cfg_file=None, data="boxes.data", command="eval"):
    """Rows of the table, rows of the classes, what was printed, what was detected."""
    result = programs.succeed(build.darknet(folder, "kure", command, cfg_file or f"{name}.cfg", f"{name}.weights", data, "--csv", "out.csv", "--json",
                                            "out.json", *options))
    with open(folder / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((folder / "out.json").read_text()).get("classes"), result


def detections(build, folder, *options, **other):
    """The same, with [n][7] of what was detected: image (from 0), class, score, x, y, width, height."""
    found = evaluate(build, folder, "--detections", "detections.json", *options, **other)
    boxes = json.loads((folder / "detections.json").read_text())
    return found, np.array([[d["image_id"] - 1, d["category_id"], d["score"], *d["bbox"]] for d in boxes]).reshape(-1, 7)


def truths(folder, part="valid"):
    """[n][6] image (from 0), class, x, y, width, height in pixels."""
    from PIL import Image
    rows = []
    for i, path in enumerate((folder / f"{part}.list").read_text().split()):
        width, height = Image.open(path).size
        label = path.replace("images", "labels", 1).replace(".png", ".txt")
        for line in open(label):
            k, x, y, w, h = map(float, line.split())
            rows.append([i, k, (x - w / 2) * width, (y - h / 2) * height, w * width, h * height])
    return np.array(rows).reshape(-1, 6)
