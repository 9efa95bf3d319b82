"""Images that cannot be read: found before the work, named and counted, or left out with --skip-bad; in every list that is drawn from."""
import csv
import random
import re
import shutil

import pytest

import networks
import programs
from conftest import write_data_file
from test_post_training import CLASSES, IMAGES, cfg_of, trained  # noqa: F401 (a fixture)

pytestmark = pytest.mark.sanitize


def cut(content):
    return content[:len(content) // 2]


def save_as(extension, spoil):
    def make(path):
        from PIL import Image
        other = path.with_suffix("." + extension)
        Image.open(path).save(other)
        other.write_bytes(spoil(other.read_bytes()))
        return other
    return make


def spoil(change):
    def make(path):
        path.write_bytes(change(path.read_bytes()))
        return path
    return make


def missing(path):
    path.unlink()
    return path


def folder_instead(path):
    path.unlink()
    path.mkdir()
    return path


# name: (what makes of a good image's path the path of a bad one, what is said of it)
BAD = {
    "0 bytes": (spoil(lambda content: b""), "an empty file"),
    "missing": (missing, "no such file"),
    "a folder": (folder_instead, "a directory"),
    "cut png": (spoil(cut), "damaged, or cut short"),
    "cut jpg": (save_as("jpg", cut), "damaged, or cut short"),
    "jpg without its last bytes": (save_as("jpg", lambda content: content[:-2]), "damaged, or cut short"),
    "cut bmp": (save_as("bmp", cut), "damaged, or cut short"),
    "head of a png": (spoil(lambda content: content[:20]), "no image that Darknet can read"),
    "rubbish in a png": (spoil(lambda content: content[:60] + bytes(len(content) - 60)), "damaged, or cut short"),
    "text": (spoil(lambda content: b"not found\n"), "no image that Darknet can read"),
}


@pytest.fixture
def data(trained, tmp_path):  # noqa: F811
    """(folder, images): the network, and a copy of the images that may be spoiled; lists name them in order."""
    folder = trained[0]
    paths = [tmp_path / f"{i:03d}_a{i % CLASSES}.png" for i in range(IMAGES)]
    for path in paths:
        shutil.copy(folder / path.name, path)
    shutil.copy(folder / "labels.list", tmp_path / "labels.list")
    shutil.copy(folder / "net.weights", tmp_path / "net.weights")
    (tmp_path / "net.cfg").write_text(cfg_of(16))
    write_lists(tmp_path, paths)
    write_data_file(tmp_path / "d.data", tmp_path, classes=CLASSES)
    return tmp_path, paths


def write_lists(folder, valid, train=None):
    (folder / "valid.list").write_text("".join(f"{path}\n" for path in valid))
    (folder / "train.list").write_text("".join(f"{path}\n" for path in train or valid))


def kure(build, folder, command, *arguments):
    csv_file = ("--csv", "out.csv") if command == "sweep" else ()
    return build.darknet(folder, "kure", command, "net.cfg", "net.weights", "d.data", *csv_file, *arguments)


def rows(build, folder, command, *arguments):
    (folder / "out.csv").unlink(missing_ok=True)
    result = programs.succeed(kure(build, folder, command, *arguments, *(("--csv", "out.csv") if command != "sweep" else ())))
    with open(folder / "out.csv", newline="") as file:
        return [{**row, "seconds": None} for row in csv.DictReader(file)], result


@pytest.mark.parametrize("kind", BAD)
def test_every_kind_is_named(kind, build, data):
    """And without it the result is that of a list without it."""
    folder, paths = data
    make, words = BAD[kind]
    bad = make(paths[30])
    write_lists(folder, [*paths[:30], bad, *paths[31:]], paths[:30])
    said = programs.refuse(kure(build, folder, "eval"), "valid.list:31:", bad, words, f"of {IMAGES} images 1 cannot be read", "--skip-bad")
    assert said.count(str(bad)) == 1
    skipped, result = rows(build, folder, "eval", "--skip-bad")
    assert f"valid.list: 1 of {IMAGES} images cannot be read and is left out: {bad} (line 31: {words}" in result.stderr
    write_lists(folder, [*paths[:30], *paths[31:]], paths[:30])
    good, result = rows(build, folder, "eval", "--skip-bad")
    assert skipped == good and "cannot be read" not in result.stderr


DRAWN = {  # what is done with images of the training list: the command
    "eval, calibration": ("eval", "--activation-bits", "4", "--calibration-images"),
    "eval, batch norm": ("eval", "--weight-bits", "4", "--bn-images"),
    "eval, biases": ("eval", "--weight-bits", "4", "--bias-images"),
    "sweep, calibration": ("sweep", "--activation-bits", "4", "--calibration-images"),
    "sweep, batch norm": ("sweep", "--weight-bits", "4", "--bn-images"),
    "sweep, biases": ("sweep", "--weight-bits", "4", "--bias-images"),
    "calibrate": ("calibrate", "--images"),
}


@pytest.mark.parametrize("command", ("eval", "sweep"))
def test_several_are_counted(command, build, data):
    folder, paths = data
    bad = random.Random(3).sample(range(IMAGES), 6)
    for i in bad:
        paths[i].write_bytes(b"")
    programs.refuse(kure(build, folder, command, "--weight-bits", "4"), f"valid.list:{min(bad) + 1}:", f"of {IMAGES} images 6 cannot be read")
    assert not (folder / "out.csv").exists(), "no work has begun"
    skipped, result = rows(build, folder, command, "--weight-bits", "4", "--skip-bad")
    assert f"6 of {IMAGES} images cannot be read and are left out:" in result.stderr and ", and 2 more" in result.stderr
    write_lists(folder, [path for i, path in enumerate(paths) if i not in bad])
    assert skipped == rows(build, folder, command, "--weight-bits", "4")[0], "also the hash of a sweep is that of the good ones"


@pytest.mark.parametrize("use", DRAWN)
def test_images_of_the_training_list(use, build, data):
    """All of them are drawn, in another order than that of the list."""
    folder, paths = data
    drawn = [folder / f"drawn_{path.name}" for path in paths[:100]]
    for path, copy in zip(paths, drawn):
        shutil.copy(path, copy)
    drawn[17].write_bytes(cut(drawn[17].read_bytes()))
    drawn[60].unlink()
    write_lists(folder, paths, drawn)
    line = (*DRAWN[use], len(drawn))
    result = kure(build, folder, *line)
    assert re.search(r"train.list:(18: .*_017_a5|61: .*_060_a0)", programs.refuse(result, "of 100 images", "cannot be read")), result.stderr
    skipped, result = rows(build, folder, *line, "--skip-bad")
    assert "2 of 100 images cannot be read and are left out" in result.stderr
    column = {"--calibration-images": "calibration_images", "--bn-images": "bn_images", "--bias-images": "bias_images"}.get(line[-2])
    assert not column or skipped[-1][column] == "98"


def test_a_hash_knows_what_was_left_out(build, data):
    """The sweep of all images is not gone on with where one of them has become bad."""
    folder, paths = data
    whole, _ = rows(build, folder, "sweep", "--weight-bits", "4")
    same, _ = rows(build, folder, "sweep", "--weight-bits", "4", "--skip-bad")
    assert whole == same, "--skip-bad alone changes nothing"
    paths[5].write_bytes(b"")
    programs.refuse(kure(build, folder, "sweep", "--weight-bits", "4"), "valid.list:6:")
    result = kure(build, folder, "sweep", "--weight-bits", "4", "--skip-bad")
    assert result.returncode == 1 and "out.csv:2: a row of another grid of points or other images" in result.stderr
    assert len((folder / "out.csv").read_text().splitlines()) == 3


def test_all_bad(build, data):
    folder, paths = data
    for path in paths[:3]:
        path.write_bytes(b"rubbish")
    write_lists(folder, paths[:3])
    for skip in ((), ("--skip-bad",)):
        said = programs.refuse(kure(build, folder, "eval", *skip), "valid.list:1:", "of 3 images 3 cannot be read")
        assert "--skip-bad" not in said


@pytest.mark.parametrize("command", ("eval", "sweep", "calibrate"))
@pytest.mark.long
def test_more_images_than_are_kept(command, build, data):
    """Found in the batch that meets it; others are then looked for, so that the count is whole; --skip-bad looks first."""
    folder, paths = data
    side = 256 if command == "calibrate" else 1200
    count = 1 + (2 ** 25 if command == "calibrate" else 2 ** 30) // (3 * side * side * 4)
    cfg = (networks.net(batch=2, width=side, height=side) + networks.section("maxpool", size=side, stride=side)
           + networks.section("connected", output=CLASSES, activation="linear") + networks.section("softmax", groups=1))
    networks.write_weights(folder / "net.weights", cfg, build.tensors(folder, cfg))
    assert 8 < count <= IMAGES
    write_lists(folder, paths[:count])
    for i in (7, count - 1):
        paths[i].write_bytes(cut(paths[i].read_bytes()))
    arguments = {"eval": (), "sweep": ("--weight-bits", "8", "--jobs", 2), "calibrate": ("--images", count)}[command]
    programs.refuse(kure(build, folder, command, *arguments), f"of {count} images 2 cannot be read")
    _, result = rows(build, folder, command, *arguments, "--skip-bad")
    assert f"2 of {count} images cannot be read and are left out" in result.stderr
