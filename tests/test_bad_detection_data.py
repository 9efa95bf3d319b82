"""Data that a detector cannot be measured with: one sentence each; what can be done without is said, and counted."""
import shutil

import pytest

import detectors
import networks
import programs

pytestmark = pytest.mark.sanitize


@pytest.fixture
def folder(build, tmp_path):
    """A network as it is built, and eight images."""
    detectors.make(tmp_path, train=2, valid=8)
    text = detectors.cfg()
    networks.write_weights(tmp_path / "net.weights", text, build.tensors(tmp_path, text))
    return tmp_path


def evaluate(build, folder, *options, cfg="net.cfg", data="boxes.data"):
    return build.darknet(folder, "kure", "eval", cfg, "net.weights", data, *options)


def label(folder, i=1):
    return folder / "labels" / f"valid_{i:04d}.txt"


@pytest.mark.parametrize("line,words", (
    ("3 .5 .5 .1 .1", ("class", "from 0 to 2")), ("-1 .5 .5 .1 .1", ("class", "from 0 to 2")), ("0 1.5 .5 .1 .1", ("centre", "1.5")),
    ("0 .5 -.1 .1 .1", ("centre",)), ("0 .5 .5 0 .1", ("width and height",)), ("0 .5 .5 .1 1.2", ("width and height", "1.2")), ("0 .5 .5 .1", ("no box",)),
    ("0 .5 .5 .1 .1 .1", ("no box",)), ("red .5 .5 .1 .1", ("no box", "red")), ("0 .5 nan .1 .1", ("centre",)), ("0.5 .5 .5 .1 .1", ("no box",)),
))
def test_labels(line, words, build, folder):
    label(folder).write_text(f"0 .5 .5 .2 .2\n\n{line}\n")
    programs.refuse(evaluate(build, folder), f"{label(folder)}:3", *words)


def test_line_ends_and_blanks(build, folder):
    label(folder).write_bytes(b"0 .5 .5 .2 .2 \r\n\r\n  1\t.5 .5 1e-1 .25")
    assert programs.succeed(evaluate(build, folder)).stdout


def test_class_counts(build, folder):
    detectors.write_data(folder, classes=2)
    programs.refuse(evaluate(build, folder), "boxes.data", "classes=2", "layer 6 [yolo]", "classes=3")
    text = detectors.cfg() + networks.section("route", layers="4") + detectors.head("yolo", 2)
    networks.write_weights(folder / "net.weights", text, build.tensors(folder, text))
    detectors.write_data(folder)
    programs.refuse(evaluate(build, folder), "layer 9 [yolo]", "classes=2", "layer 6", "classes=3")


def test_filters_that_do_not_fit(build, folder):
    """Darknet's own check says the right number."""
    (folder / "bad.cfg").write_text(detectors.cfg().replace("filters=16", "filters=18"))
    programs.refuse(evaluate(build, folder, cfg="bad.cfg"), "16")


def test_without_label_files(build, folder):
    label(folder, 2).unlink()
    label(folder, 5).unlink()
    result = programs.succeed(evaluate(build, folder))
    assert "2 of 8 images have no file of boxes" in result.stderr and str(label(folder, 2)) in result.stderr


def test_no_box_at_all(build, folder):
    for i in range(1, 9):
        label(folder, i).write_text("")
    programs.refuse(evaluate(build, folder), "valid.list", "none of its 8 images has a box")
    shutil.rmtree(folder / "labels")
    programs.refuse(evaluate(build, folder), "none of its 8 images has a box", "no file such as", "valid_0001.txt")


def test_empty_image(build, folder):
    (folder / "images" / "valid_0003.png").write_bytes(b"")
    programs.refuse(evaluate(build, folder), "valid.list:3", "an empty file", "--skip-bad")
    result = programs.succeed(evaluate(build, folder, "--skip-bad"))
    assert "1 of 8 images cannot be read" in result.stderr


def test_boxes_of_what_is_skipped(build, folder):
    """As if the image had not been in the list."""
    (folder / "images" / "valid_0003.png").write_bytes(b"no image")
    (folder / "images" / "valid_0006.png").write_bytes(b"")
    skipped = detectors.detections(build, folder, "--skip-bad")
    paths = (folder / "valid.list").read_text().split()
    (folder / "valid.list").write_text("\n".join(p for i, p in enumerate(paths) if i not in (2, 5)) + "\n")
    (row,), classes, _ = detectors.evaluate(build, folder)
    assert {**skipped[0][0][0], "seconds": 0} == {**row, "seconds": 0} and skipped[0][1] == classes
    assert not set(skipped[1][:, 0]) & {2, 5}, "image_id is the line of the list"


def test_a_classifier_with_boxes(build, folder):
    text = networks.classifier()
    networks.write_weights(folder / "net.weights", text, build.tensors(folder, text))
    programs.refuse(evaluate(build, folder), "boxes.data", "names=", "no [yolo] and no [region]")
    (folder / "classes.list").write_text("valid\n_0001\n.png\n")
    detectors.write_data(folder, labels=folder / "classes.list")
    programs.refuse(evaluate(build, folder, "--threshold", "0.5"), "--threshold", "detector")
    programs.refuse(evaluate(build, folder, "--detections", "boxes.json"), "--detections boxes.json", "no detector")
    assert not (folder / "boxes.json").exists()


def test_maps_are_refused(build, folder):
    detectors.write_data(folder, map="coco.map")
    programs.refuse(evaluate(build, folder), "boxes.data", "map=")


@pytest.mark.parametrize("options,words", (
    (("--threshold", "0"), ("--threshold 0",)), (("--threshold", "1"), ("--threshold 1",)), (("--threshold", "x"), ("--threshold x",)),
    (("--detections", "a.json", "--weight-bits", "8,4"), ("--detections", "2")), (("--detections", "net.cfg"), ("net.cfg",)),
))
def test_options(options, words, build, folder):
    programs.refuse(evaluate(build, folder, *options), *words, status=2)
