"""scripts/report.py on detections and tables of sensitivity: what is kept, missing and new; pictures; which layers keep their bits."""
import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

import browser
from test_report import Balance, refused, report, write_csv

SIZE = (120, 90)  # of the images
SHAPES = {3: [(0, 10, 10, 40, 30), (1, 60, 40, 30, 40)], 5: [(2, 20, 20, 50, 50)]}  # image -> true boxes: class, left, top, width, height


def entry(image, category, box, score):
    return dict(image_id=image, category_id=category, bbox=list(box), score=score)


FLOAT = [entry(3, 0, (11, 10, 40, 30), .9), entry(3, 1, (60, 42, 30, 40), .6), entry(5, 2, (22, 20, 50, 50), .8), entry(4, 0, (5, 5, 20, 20), .4),
         entry(1, 0, (5, 5, 20, 20), .2)]
# the first one moved; the second one gone; a new one of another class at its place; below the threshold: no box
INT4 = [entry(3, 0, (15, 10, 40, 30), .7), entry(3, 2, (60, 42, 30, 40), .5), entry(5, 2, (22, 20, 50, 50), .8), entry(4, 0, (5, 5, 20, 20), .25),
        entry(5, 1, (70, 5, 40, 30), .3)]


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path)


def fill(folder):
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    paths = [folder / "images" / f"{'ab' if i % 2 else 'c'}{i}.png" for i in range(1, 7)]
    for i, path in enumerate(paths, 1):
        Image.fromarray(np.full((SIZE[1], SIZE[0], 3), (200, 20 * i, 40), np.uint8)).save(path)
        rows = [f"{k} {(x + w / 2) / SIZE[0]} {(y + h / 2) / SIZE[1]} {w / SIZE[0]} {h / SIZE[1]}\n" for k, x, y, w, h in SHAPES.get(i, [])]
        (folder / "labels" / f"{path.stem}.txt").write_text("".join(rows))
    (folder / "valid.list").write_text("".join(f"{path}\n" for path in paths))
    (folder / "names.list").write_text("cat & dog\nbird\nfish\n")
    (folder / "set.data").write_text(f"# a set\nclasses = 3\nvalid = {folder}/valid.list\nnames={folder}/names.list\n")
    (folder / "float.json").write_text(json.dumps(FLOAT))
    (folder / "int4.json").write_text(json.dumps(INT4))
    return folder


def page_of(folder, *arguments):
    result = report(folder, *arguments, "-o", "page.html")
    assert result.returncode == 0, result.stderr
    page = (folder / "page.html").read_text()
    balance = Balance()
    balance.feed(re.sub(r"<(rect|use|image)[^>]*/>", "", page))
    assert balance.open == []
    return page, balance.cells, result.stdout


BOXES = ("float.json", "int4.json", "--data", "set.data")


def test_numbers(folder):
    """Kept: 2 of image 3 and 5; missing: that of image 3 whose class is another one, and that of image 4, now at the threshold itself"""
    _, cells, said = page_of(folder, *BOXES)
    assert "int4 keeps 2 of the 4 boxes of float with a score above 0.25, and has 2 others." in said
    overlap = 36 * 30 / (2 * 40 * 30 - 36 * 30)
    row = cells.index("int4", cells.index("score change"))
    assert cells[row:row + 7] == ["int4", "4", "2", "2", "2", f"{(overlap + 1) / 2:.3f}", f"{(-.2 + 0) / 2:+.3f}"]
    rows = re.findall(r"int4 +4 +2 +2 +2 +(\S+) +(\S+)", said)
    assert rows == [(f"{(overlap + 1) / 2:.3f}", "-0.100")]


def test_pictures(folder):
    page, cells, _ = page_of(folder, *BOXES)
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["Image 3: ab3.png", "Image 4: c4.png", "Image 5: ab5.png"], "those with a change"
    embedded = re.findall(r'<image id="picture-(\d)" width="120" height="90" preserveAspectRatio="none" href="data:image/png;base64,([^"]*)"/>', page)
    assert [number for number, _ in embedded] == ["3", "4", "5"] and page.count("<use href=\"#picture-") == 3
    for number, data in embedded:
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert image.size == SIZE and image.getpixel((5, 5)) == (200, 20 * int(number), 40)
    third = page[page.index("<h3>Image 3"):page.index("<h3>Image 4")]
    before, after = re.findall(r'<svg role="img".*?</svg>', third)
    assert re.findall(r'<rect class="(\w+)" x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"/>', before)[1::2] == [
        ("truth", "60.00", "40.00", "30.00", "40.00"), ("truth", "10.00", "10.00", "40.00", "30.00"), ("kept", "60.00", "42.00", "30.00", "40.00"),
        ("kept", "11.00", "10.00", "40.00", "30.00")]
    assert re.findall(r'<text class="(\w+)"[^>]*>(.*?)</text>', after) == [
        ("truth", "bird"), ("truth", "cat &amp; dog"), ("missing", "missing: bird 0.60"), ("new", "new: fish 0.50"), ("kept", "cat &amp; dog 0.70")]
    at = cells.index("true boxes found")
    overlap = 36 * 30 / (2 * 40 * 30 - 36 * 30)
    assert cells[at + 6:at + 32] == [  # without those that are empty
        "float", "2", "2 of 2", "int4", "2", "1 of 2", "1", "1", "1", f"{overlap:.3f}", "-0.200",
        "class", "left, top, width, height", "float", "int4", "cat & dog", "11, 10, 40, 30", "0.900", "0.700", "bird", "60, 42, 30, 40", "0.600", "missing",
        "fish", "60, 42, 30, 40", "0.500 (new)"]


def test_chosen_pictures_and_several_networks(folder):
    (folder / "int8.json").write_text(json.dumps(FLOAT))
    page, cells, said = page_of(folder, "float.json", "w8=int8.json", "int4.json", "--data", "set.data", "--pictures", "ab5.png,2", "--threshold", "0.1")
    assert re.findall(r"<h3>Image (\d)", page) == ["5", "2"] and page.count('<svg role="img"') == 6 and page.count("--columns:3") == 2
    assert re.search(r"w8 +5 +5 +0 +0 +1.000 +\+0.000\n", said) and "above 0.1" in page
    alone, _, said = page_of(folder, "float.json", "--data", "set.data", "--pictures", "3")
    assert "float: 4 boxes with a score above 0.25." in said and alone.count('<svg role="img"') == 1 and "missing against" not in alone


def test_files_of_other_images_are_noted(folder):
    (folder / "few.json").write_text(json.dumps([FLOAT[-1]]))
    result = report(folder, "float.json", "few.json", "--data", "set.data", "-o", "page.html")
    assert result.returncode == 0 and "few has boxes up to image 1, float up to image 5" in result.stderr and "few has boxes" in (folder / "page.html").read_text()


def test_large_photographs_are_made_smaller(folder):
    noise = np.random.default_rng(1).integers(0, 256, (900, 1600, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "images" / "ab3.png")
    page, _, _ = page_of(folder, *BOXES, "--pictures", "3")
    data = re.search(r'href="data:image/jpeg;base64,([^"]*)"', page)[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (720, 405) and 'viewBox="0 0 1600 900"' in page


BAD = {
    "no data": (BOXES[:2], {}, ("boxes of float", "--data")),
    "data alone": (("table.csv", "--data", "set.data"), {"table.csv": "layer,kurtosis,n\n0,1.8,5\n"}, ("--data set.data", "no detections")),
    "no list": (BOXES, {"set.data": "classes=3\n"}, ("set.data", "valid=")),
    "a list that is not there": (BOXES, {"set.data": "valid=none.list\n"}, ("none.list", "set.data")),
    "no key": (BOXES, {"set.data": "classes=3\nvalid\n"}, ("set.data:2", "key=value")),
    "cut": (BOXES, {"int4.json": '[{"image_id": 1,'}, ("int4.json", "no list of detections")),
    "no object": (BOXES, {"int4.json": "[3]"}, ("int4.json", "detection 1")),
    "no image": (BOXES, {"int4.json": json.dumps([{**FLOAT[0], "image_id": 0}])}, ("int4.json", "detection 1", "image_id is 0")),
    "an image beyond the list": (BOXES, {"int4.json": json.dumps([{**FLOAT[0], "image_id": 7}])}, ("int4", "image_id 7", "6 images")),
    "a class beyond the names": (BOXES, {"int4.json": json.dumps([{**FLOAT[0], "category_id": 3}])}, ("int4", "category_id 3", "3 classes")),
    "three numbers": (BOXES, {"int4.json": json.dumps([FLOAT[0], {**FLOAT[0], "bbox": [1, 2, 3]}])}, ("int4.json", "detection 2", "bbox")),
    "infinite": (BOXES, {"int4.json": json.dumps([{**FLOAT[0], "score": float("inf")}])}, ("int4.json", "score is inf")),
    "one name twice": (("a=float.json", "a=int4.json", "--data", "set.data"), {}, ("int4.json", "boxes of a already")),
    "no such picture": ((*BOXES, "--pictures", "7"), {}, ("--pictures 7", "6 images")),
    "no such name": ((*BOXES, "--pictures", "x.png"), {}, ("--pictures x.png", "no image")),
    "an empty name": ((*BOXES, "--pictures", "3,"), {}, ("--pictures ", "no image")),
    "no share": ((*BOXES, "--threshold", "25"), {}, ("--threshold 25", "below 1")),
    "a threshold alone": (("table.csv", "--threshold", "0.5"), {"table.csv": "layer,kurtosis,n\n0,1.8,5\n"}, ("--threshold 0.5", "no detections")),
    "a damaged image": ((*BOXES, "--pictures", "3"), {"images/ab3.png": "PNG"}, ("ab3.png", "image 3", "cannot be read")),
    "a damaged label": ((*BOXES, "--pictures", "3"), {"labels/ab3.txt": "0 0.5 0.5 0.1\n"}, ("ab3.txt:1", "no box")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, folder):
    arguments, files, words = BAD[case]
    for name, text in files.items():
        (folder / name).write_text(text)
    refused(report(folder, *arguments, "-o", "page.html"), *words)
    assert not (folder / "page.html").exists()


# ---- sensitivity ---------------------------------------------------------------------------

COLUMNS = ["weight_bits", "activation_bits", "layer", "type", "weights", "weight_sqnr", "alone", "alone_loss", "others", "others_gain", "measure", "float", "all"]


def sensitivity(losses, bits=4, everything=30.0, measure="ap"):
    """losses: {layer: lost alone}"""
    return [dict(weight_bits=bits, activation_bits=0, layer=n, type="convolutional", weights=100 * (n + 1), weight_sqnr=20, alone=50 - loss, alone_loss=loss,
                 others=everything + loss / 2, others_gain=loss / 2, measure=measure, float=50, all=everything) for n, loss in losses.items()]


def test_layers_that_keep_their_bits(folder):
    """Of 10 points that layers lose alone, 8 are those of layers 7 and 2; at 8 bits nothing is lost."""
    rows = sensitivity({0: 1.0, 2: 3.0, 5: 0.95, 7: 5.0, 9: 0.05, 11: -0.2}) + sensitivity({0: 0.02, 7: 0.03}, bits=8, everything=49.95)
    write_csv(folder / "mine.csv", COLUMNS, rows)
    page, cells, said = page_of(folder, "mine.csv")
    assert "With 4 weight bits mine loses 20.00 points of AP: keep layers 7 (5.00), 2 (3.00) at 8 bits first." in said
    assert "With 8 weight bits mine loses 0.05 points of AP." in said
    assert page.count("<figure>") == page.count("<svg role") == 2 and "Sensitivity per layer" in page and "keep layers 7 (5.00)" in page
    assert "7 convolutional" in cells and "5.00" in cells and "suggested bits" not in cells


def test_suggestion(folder):
    rows = sensitivity({0: 1.0, 2: 3.0, 4: 0.2}, measure="top1")
    table = dict(schema="kure.sensitivity/1", model="", plan="", rows=rows, suggestion=[dict(layer=n, type="convolutional", weights=100 * (n + 1), weight_bits=b)
                                                                                        for n, b in ((0, 8), (2, 8), (4, 4))])
    (folder / "net.json").write_text(json.dumps(table))
    page, cells, said = page_of(folder, "net.json")
    assert "--suggest has chosen 5.78 bits on average over the weights: 8 bits: layers 0, 2; 4 bits: layer 4." in said  # (8 * 400 + 4 * 500) / 900
    assert "points of top-1" in said and "suggested bits" in cells


def test_many_layers(folder):
    write_csv(folder / "deep.csv", COLUMNS, sensitivity({n: 0.1 * n for n in range(75)}))
    page, cells, _ = page_of(folder, "deep.csv")
    assert "24 of 75 layers" in page and "74 convolutional" in page and cells.count("0 convolutional") == 1


# ---- in a browser --------------------------------------------------------------------------

@pytest.mark.browser
@pytest.mark.parametrize("width", (1280, 390))
def test_drawn_and_printed(width, folder):
    if not browser.find():
        pytest.fail("no browser: scripts/setup.sh browser installs one", pytrace=False)
    page_of(folder, *BOXES, "--pictures", "3,5")
    with browser.Page(browser.find()) as page:
        url = (folder / "page.html").as_uri()
        page.open(url, width)
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        assert page.complaints() == [] and [r for r in page.requests() if not r.startswith("data:image/png")] == [url]
        places = page.evaluate("[...document.querySelectorAll('.row svg')].map(s => (r => [r.left, r.top, r.width, r.height])(s.getBoundingClientRect()))")
        assert len(places) == 4 and all(abs(w / h - SIZE[0] / SIZE[1]) < .01 for _, _, w, h in places)
        beside = abs(places[0][1] - places[1][1]) < 1 and places[1][0] > places[0][0] + places[0][2] - 1
        assert beside == (width > 480) and all(w > 300 for _, _, w, _ in places)
        shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        for (left, top, w, h), green in zip(places, (60, 60, 100, 100)):  # the image lies under the boxes, in those that only refer to it, too
            colours = [shot.getpixel((int(left + x * w), int(top + y * h))) for x, y in ((.02, .97), (.97, .97))]
            assert (200, green, 40) in colours, colours
        assert page.pdf().startswith(b"%PDF-")
        assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0
