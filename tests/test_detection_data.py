"""scripts/make_detection_set.py and convert_boxes.py: the same pixels every time; boxes that come through; what is wrong is named and counted."""
import gzip
import hashlib
import json
import pathlib
import struct
import subprocess

import numpy as np
import pytest
from PIL import Image

import programs

SCRIPTS = programs.ROOT / "scripts"


def script(name, folder, *arguments):
    return subprocess.run(["/usr/bin/python3", str(SCRIPTS / name), *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=120)


def succeed(result):
    assert result.returncode == 0, result.stderr
    return result.stdout


def refuse(result, *words):
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    for word in words:
        assert str(word) in result.stderr, result.stderr


def read(folder, part):
    """{name: [(class, x, y, width, height)]} of a part, the files of boxes found as Darknet does."""
    found = {}
    for path in (folder / f"{part}.list").read_text().split():
        assert pathlib.Path(folder.parent / path).exists()
        label = (folder.parent / path.replace("images", "labels", 1)).with_suffix(".txt")
        rows = [line.split() for line in label.read_text().splitlines()]
        found[pathlib.Path(path).name] = [(int(r[0]), *map(float, r[1:])) for r in rows]
    return found


def data_of(path):
    return dict(line.split("=") for line in path.read_text().split())


# ---- the generated set ----------------------------------------------------------------------

@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """Four files laid out as Fashion-MNIST's: 30 pieces of which each is a filled rectangle."""
    folder = tmp_path_factory.mktemp("pieces")
    rng = np.random.default_rng(1)
    for stem, count in (("train", 30), ("t10k", 20)):
        images = np.zeros((count, 28, 28), np.uint8)
        for image in images:
            y, x, h, w = rng.integers(2, 8), rng.integers(2, 8), rng.integers(8, 20), rng.integers(8, 20)
            image[y:y + h, x:x + w] = rng.integers(90, 256)
        for kind, magic, content in (("images-idx3", 0x803, images), ("labels-idx1", 0x801, (np.arange(count) % 10).astype(np.uint8))):
            with gzip.open(folder / f"{stem}-{kind}-ubyte.gz", "wb") as file:
                file.write(struct.pack(">I", magic) + struct.pack(f">{content.ndim}I", *content.shape) + content.tobytes())
    return folder


def make(pieces, folder, *options, out="set"):
    return script("make_detection_set.py", folder, "--source", pieces, "--any", "--train", 6, "--valid", 3, "--out", out, *options)


def pixels(folder):
    return hashlib.sha256(b"".join(np.asarray(Image.open(p)).tobytes() for p in sorted((folder / "images").iterdir()))).hexdigest()


def test_the_same_set_every_time(pieces, tmp_path):
    assert "6 train images" in succeed(make(pieces, tmp_path)) and succeed(make(pieces, tmp_path, out="again"))
    assert pixels(tmp_path / "set") == pixels(tmp_path / "again")
    assert {n: read(tmp_path / "set", n) for n in ("train", "valid")} == {n: read(tmp_path / "again", n) for n in ("train", "valid")}
    succeed(make(pieces, tmp_path, "--seed", 2, out="other"))
    assert pixels(tmp_path / "set") != pixels(tmp_path / "other")
    succeed(script("make_detection_set.py", tmp_path, "--source", pieces, "--any", "--train", 8, "--valid", 3, "--out", "more"))
    assert (tmp_path / "more/images/train00005.png").read_bytes() == (tmp_path / "set/images/train00005.png").read_bytes(), "more images change none"


def test_known_pixels(pieces, tmp_path):
    """On any machine, with any NumPy: the hash of what was made when this test was written."""
    succeed(make(pieces, tmp_path))
    assert pixels(tmp_path / "set") == KNOWN


KNOWN = "8a84228b663dceb80f3d3d93f7f1446d964fca992cc9e63a233b742c2b278f59"


def test_boxes_of_the_set(pieces, tmp_path):
    succeed(make(pieces, tmp_path))
    found = {**read(tmp_path / "set", "train"), **read(tmp_path / "set", "valid")}
    boxes = [box for of in found.values() for box in of]
    assert len(found) == 9 and all(1 <= len(of) <= 6 for of in found.values()) and len({box[0] for box in boxes}) > 4
    for k, x, y, w, h in boxes:
        assert 0 <= k < 10 and x - w / 2 > -1e-6 and x + w / 2 < 1 + 1e-6 and y - h / 2 > -1e-6 and y + h / 2 < 1 + 1e-6
    data = data_of(tmp_path / "set/set.data")
    assert data["classes"] == "10" and len((tmp_path / data["names"]).read_text().splitlines()) == 10


def test_other_scenes(pieces, tmp_path):
    """--canvas, --edges, --pieces; --groups changes the classes and nothing else."""
    scene = ("--canvas", 104, "--edges", 36, 72, "--pieces", 2)
    succeed(make(pieces, tmp_path, *scene))
    succeed(make(pieces, tmp_path, *scene, "--groups", out="groups"))
    assert pixels(tmp_path / "set") == pixels(tmp_path / "groups")
    group_of = {"T-shirt/top": "top", "Pullover": "top", "Coat": "top", "Shirt": "top", "Sandal": "shoe", "Sneaker": "shoe", "Ankle boot": "shoe"}
    names = [(tmp_path / name / "names.txt").read_text().splitlines() for name in ("set", "groups")]
    assert names[1] == ["top", "trouser", "dress", "shoe", "bag"] and data_of(tmp_path / "groups/groups.data")["classes"] == "5"
    for part in ("train", "valid"):
        ten, five = read(tmp_path / "set", part), read(tmp_path / "groups", part)
        assert ten.keys() == five.keys()
        for name in ten:
            width, height = Image.open(tmp_path / "set/images" / name).size
            assert (width, height) in ((112, 96), (96, 112), (104, 104), (128, 80)) and 1 <= len(ten[name]) <= 2
            for a, b in zip(ten[name], five[name], strict=True):
                assert names[1][b[0]] == group_of.get(names[0][a[0]], names[0][a[0]].lower()) and a[1:] == b[1:]
                assert 28 <= max(a[3] * width, a[4] * height) <= 72.5


def test_scenes_that_cannot_be(pieces, tmp_path):
    for options, word in ((("--canvas", 63), "--canvas 63"), (("--canvas", 104, "--edges", 20, 90), "--edges 20 90"), (("--edges", 60, 50), "--edges 60 50"),
                          (("--pieces", 0), "--pieces 0")):
        refuse(make(pieces, tmp_path, *options), word)
        assert not (tmp_path / "set").exists()


def test_a_set_is_not_written_over(pieces, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/mine").write_text("")
    refuse(make(pieces, tmp_path), "set exists")
    refuse(make(pieces, tmp_path, out="my images"), "my images", "' '")
    refuse(make(pieces, tmp_path, out="drawings"), "'raw'")
    refuse(make(pieces, tmp_path, "--train", 0), "--train 0")


# ---- conversion --------------------------------------------------------------------------------

@pytest.fixture
def photographs(tmp_path):
    """photos/: p0.jpg ... p5.png of several sizes; [(name, width, height, [(class, left, top, right, bottom)])]"""
    rng = np.random.default_rng(3)
    (tmp_path / "photos").mkdir()
    found = []
    for i in range(6):
        width, height = int(rng.integers(50, 90)), int(rng.integers(50, 90))
        name = f"p{i}.{'jpg' if i % 2 else 'png'}"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
        boxes = []
        for _ in range(i % 3 + 1):
            x, y = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
            boxes.append((("cat", "dog")[int(rng.integers(2))], x, y, x + int(rng.integers(5, 20)), y + int(rng.integers(5, 20))))
        found.append((name, width, height, boxes))
    return tmp_path, found


def voc(boxes, file, extra=""):
    things = "".join(f"<object><name>{k}</name><difficult>0</difficult><bndbox><xmin>{l + 1}</xmin><ymin>{t + 1}</ymin><xmax>{r + 1}</xmax><ymax>{b + 1}</ymax>"
                     "</bndbox></object>" for k, l, t, r, b in boxes)
    return f"<annotation><filename>{file}</filename>{things}{extra}</annotation>"


def write_voc(folder, photographs):
    (folder / "xml").mkdir()
    for name, _, _, boxes in photographs:
        (folder / "xml" / f"{name[:-4]}.xml").write_text(voc(boxes, name))


def write_coco(folder, photographs, name="all.json", **changes):
    annotations = [dict(id=10 * i + j, image_id=i + 7, category_id={"cat": 30, "dog": 40}[k], bbox=[l, t, r - l, b - t], iscrowd=0)
                   for i, (_, _, _, boxes) in enumerate(photographs) for j, (k, l, t, r, b) in enumerate(boxes)]
    images = [dict(id=i + 7, file_name=n, width=w, height=h) for i, (n, w, h, _) in enumerate(photographs)]
    content = dict(images=images, annotations=annotations, categories=[dict(id=40, name="dog"), dict(id=30, name="cat")])
    content.update(changes)
    (folder / name).write_text(json.dumps(content))


def write_folder(folder, photographs):
    (folder / "names.list").write_text("cat\ndog\n")
    for name, w, h, boxes in photographs:
        (folder / "photos" / f"{name[:-4]}.txt").write_text("".join(
            f"{('cat', 'dog').index(k)} {(l + r) / 2 / w:.8f} {(t + b) / 2 / h:.8f} {(r - l) / w:.8f} {(b - t) / h:.8f}\n" for k, l, t, r, b in boxes))


FORMATS = {"voc": (write_voc, ("voc", "xml", "photos")), "coco": (write_coco, ("coco", "all.json", "photos")),
           "folder": (write_folder, ("folder", "photos", "--names", "names.list"))}


def convert(folder, *arguments, out="set"):
    return script("convert_boxes.py", folder, *arguments, "--out", out)


@pytest.mark.parametrize("kind", FORMATS)
def test_round_trip(kind, photographs):
    folder, pictures = photographs
    write, arguments = FORMATS[kind]
    write(folder, pictures)
    succeed(convert(folder, *arguments, "--valid-share", "0.4"))
    parts = [read(folder / "set", part) for part in ("train", "valid")]
    assert parts[0] and parts[1] and not set(parts[0]) & set(parts[1])
    found = {**parts[0], **parts[1]}
    assert sorted(found) == sorted(p[0] for p in pictures)
    for name, w, h, boxes in pictures:
        want = [(("cat", "dog").index(k), (l + r) / 2 / w, (t + b) / 2 / h, (r - l) / w, (b - t) / h) for k, l, t, r, b in boxes]
        np.testing.assert_allclose(found[name], want, atol=1e-6)
        assert (folder / "set/images" / name).read_bytes() == (folder / "photos" / name).read_bytes()
    assert (folder / "set/names.txt").read_text() == "cat\ndog\n" and data_of(folder / "set/set.data")["classes"] == "2"


def test_copies_and_another_seed(photographs):
    folder, pictures = photographs
    write_coco(folder, pictures)
    succeed(convert(folder, *FORMATS["coco"][1], "--copy"))
    assert not any(p.is_symlink() for p in (folder / "set/images").iterdir())
    parts = {seed: (succeed(convert(folder, *FORMATS["coco"][1], "--seed", seed, out=f"set{seed}")), set(read(folder / f"set{seed}", "valid")))[1] for seed in range(5)}
    assert len({tuple(sorted(p)) for p in parts.values()}) > 1
    refuse(convert(folder, *FORMATS["coco"][1]), "set exists")


def test_coco_with_a_part_to_measure(photographs):
    folder, pictures = photographs
    write_coco(folder, pictures[:4], "train.json")
    write_coco(folder, pictures[4:], "val.json")
    succeed(convert(folder, "coco", "train.json", "photos", "--valid-json", "val.json"))
    assert sorted(read(folder / "set", "valid")) == sorted(p[0] for p in pictures[4:]) and len(read(folder / "set", "train")) == 4


BAD = {
    "outside": (("cat", 200, 5, 220, 15), "boxes outside their image"), "empty": (("cat", 9, 5, 9, 15), "boxes without an area"),
    "turned": (("cat", 9, 15, 19, 5), "boxes without an area"), "unknown": (("cow", 2, 2, 12, 12), "boxes of an unknown class"),
}


@pytest.mark.parametrize("kind,case", [(kind, case) for kind in ("voc", "folder") for case in BAD if (kind, case) != ("folder", "unknown")])
def test_bad_boxes(kind, case, photographs):
    folder, pictures = photographs
    box, words = BAD[case]
    pictures[1][3].append(box)
    pictures[4][3].append(box)
    (folder / "names.list").write_text("cat\ndog\n")
    if kind == "folder":
        write_folder(folder, pictures)
    else:
        write_voc(folder, pictures)
    arguments = ("voc", "xml", "photos", "--names", "names.list") if kind == "voc" else FORMATS["folder"][1]
    refuse(convert(folder, *arguments), f"2 {words}", "p1.", "p4.", "--skip-bad")
    assert not (folder / "set").exists()
    result = convert(folder, *arguments, "--skip-bad")
    assert f"2 {words}" in result.stderr and succeed(result)
    assert sum(len(b) for part in ("train", "valid") for b in read(folder / "set", part).values()) == sum(len(p[3]) for p in pictures) - 2


def test_boxes_that_stick_out_are_cut(photographs):
    folder, pictures = photographs
    name, w, h, _ = pictures[0]
    pictures[0] = (name, w, h, [("dog", w - 10, h - 20, w + 30, h + 5)])
    write_voc(folder, pictures)
    result = convert(folder, *FORMATS["voc"][1])
    assert "1 boxes cut at the edge" in result.stderr and succeed(result)
    np.testing.assert_allclose({**read(folder / "set", "train"), **read(folder / "set", "valid")}[name], [(1, 1 - 5 / w, 1 - 10 / h, 10 / w, 20 / h)], atol=1e-6)


def test_folder_lines(photographs):
    folder, pictures = photographs
    write_folder(folder, pictures)
    (folder / "photos/p2.txt").write_text("0 .5 .5 .1\n7 .5 .5 .1 .1\n")
    (folder / "photos/p3.txt").unlink()
    refuse(convert(folder, *FORMATS["folder"][1]), "1 lines are no box", "p2.txt:1", "unknown class", "class 7", "1 images without a .txt", "p3.jpg")
    refuse(convert(folder, "folder", "photos"), "--names")


def test_bad_images(photographs):
    folder, pictures = photographs
    write_voc(folder, pictures)
    (folder / "photos/p0.png").write_bytes(b"")
    (folder / "photos/p1.jpg").unlink()
    content = (folder / "photos/p2.png").read_bytes()
    (folder / "photos/p2.png").write_bytes(content[:len(content) // 2])
    refuse(convert(folder, *FORMATS["voc"][1]), "2 images cannot be read", "p0.png", "an empty file", "p2.png", "1 images are missing", "p1.jpg")
    succeed(convert(folder, *FORMATS["voc"][1], "--skip-bad"))
    assert len(read(folder / "set", "train")) + len(read(folder / "set", "valid")) == 3


def test_bad_annotations(photographs):
    folder, pictures = photographs
    write_voc(folder, pictures)
    (folder / "xml/p0.xml").write_text("<annotation>")
    (folder / "xml/p1.xml").write_text(voc([], "p1.jpg", "<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>"))
    refuse(convert(folder, *FORMATS["voc"][1]), "2 annotations cannot be read", "p0.xml", "p1.xml", "<bndbox/ymin>")
    (folder / "bad.json").write_text("{")
    refuse(convert(folder, "coco", "bad.json", "photos"), "bad.json", "no COCO file")
    (folder / "bad.json").write_text("{}")
    refuse(convert(folder, "coco", "bad.json", "photos"), "bad.json", "categories")
    refuse(convert(folder, "coco", "none.json", "photos"), "none.json")
    refuse(convert(folder, "voc", "photos", "photos"), "no .xml")


def test_coco_checks(photographs):
    folder, pictures = photographs
    write_coco(folder, [(n, w + 1, h, b) if i == 1 else (n, w, h, b) for i, (n, w, h, b) in enumerate(pictures)])
    refuse(convert(folder, *FORMATS["coco"][1]), "1 images have another size", "p1.jpg")
    write_coco(folder, pictures, categories=[dict(id=30, name="cat")])
    (folder / "cat.list").write_text("cat\n")
    refuse(convert(folder, *FORMATS["coco"][1], "--names", "cat.list"), "unknown class", "category 40")


def test_names_that_darknet_cannot_use(photographs):
    folder, pictures = photographs
    (folder / "photos" / pictures[0][0]).rename(folder / "photos" / "raw one.png")
    pictures[0] = ("raw one.png", *pictures[0][1:])
    write_coco(folder, pictures)
    refuse(convert(folder, *FORMATS["coco"][1]), "names do not suit Darknet", "raw one.png")
