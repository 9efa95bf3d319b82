"""Faults in data files, lists, images and logs, and trainings that cannot be: one sentence each, nothing written."""
import re
import shutil

import pytest

import networks
import programs
from conftest import write_data_file
from test_bad_files import trained  # trained is a fixture

pytestmark = pytest.mark.sanitize


# ---- data --------------------------------------------------------------------------------

def copy_of(pictures, folder):
    """A data set of this folder's own that may be spoiled."""
    for name in ("train.list", "valid.list", "labels.list"):
        shutil.copy(pictures / name, folder / name)
    return write_data_file(folder / "d.data", folder)


def edit(name, change):
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()))


def both_lists(change):
    return lambda folder: [edit(name, change)(folder) for name in ("train.list", "valid.list")]


def spoiled_image(content):
    def make(folder):
        (folder / "0_disc.png").write_bytes(content)
        both_lists(lambda s: f"{folder}/0_disc.png\n")(folder)
    return make


def first_line(name):
    return lambda s: f"{name}\n" + s.split("\n", 1)[1]


# name: (spoil, words for training, words for kure eval); None: Darknet takes it
DATA = {
    "no data file": (lambda f: (f / "d.data").unlink(), ("d.data",), ("d.data",)),
    "no list": (lambda f: [(f / n).unlink() for n in ("train.list", "valid.list")], ("train.list",), ("valid.list",)),
    "empty list": (both_lists(lambda s: ""), ("train.list", "no images"), ("valid.list", "no image")),
    "blank list": (both_lists(lambda s: "\n\n"), ("train.list", "no images"), ("valid.list", "no image")),
    "a folder as data file": (lambda f: [(f / "d.data").unlink(), (f / "d.data").mkdir()], ("d.data: Is a directory",), None),
    "a folder as list": (edit("d.data", lambda s: re.sub("train = .*", "train = .", s)), ("d.data:2: train=.: Is a directory",), None),
    "no key train": (edit("d.data", lambda s: s.replace("train", "trian")), ("d.data: no 'train='", "data/train.list"), None),
    "no key labels": (edit("d.data", lambda s: s.replace("labels =", "label =")), ("d.data: no 'labels='", "data/labels.list"), None),
    "missing image": (both_lists(lambda s: s + "/nowhere/0_disc.png\n"), ("train.list:25: image /nowhere/0_disc.png",), ("valid.list:25", "/nowhere/0_disc.png")),
    "empty line in the list": (both_lists(lambda s: s.replace("\n", "\n\n", 1)), ("train.list:2: an empty line",), ("valid.list:2",)),
    "empty image": (spoiled_image(b""), ("0_disc.png",), ("0_disc.png",)),
    "image of rubbish": (spoiled_image(b"\x89PNG\r\n\x1a\nrubbish"), ("0_disc.png",), ("0_disc.png",)),
    "a folder as image": (lambda f: [(f / "0_disc.png").mkdir(), both_lists(lambda s: f"{f}/0_disc.png\n")(f)], ("train.list:1", "0_disc.png", "directory"), ("0_disc.png",)),
    "no labels": (lambda f: (f / "labels.list").unlink(), ("labels.list",), ("labels.list",)),
    "labels that match nothing": (edit("labels.list", lambda s: "ape\nbee\ncat\n"), ("train.list:1: no label", "_"), ("valid.list:1", "label")),
    "a label that is missing": (edit("labels.list", lambda s: s.replace("stripe", "strope")), ("train.list:3: no label",), ("valid.list:3",)),
    "empty label": (edit("labels.list", lambda s: s.replace("cross", "")), ("labels.list:1: an empty label",), None),
    "fewer labels than classes": (edit("labels.list", lambda s: "cross\ndisc\n"), ("labels.list: 2 labels", "classes=3"), ("labels.list", "2 labels", "classes=3")),
    "more classes than outputs": (edit("d.data", lambda s: s.replace("classes = 3", "classes = 9")), ("d.data:1: classes=9: must be 3",), ("classes=9", "3")),
    "no classes": (edit("d.data", lambda s: s.replace("classes = 3", "classes = 0")), ("d.data:1: classes=0: must be 3",), ("classes=0",)),
    "negative classes": (edit("d.data", lambda s: s.replace("classes = 3", "classes = -1")), ("d.data:1: classes=-1: must be 3",), ("classes=-1",)),
    "classes a word": (edit("d.data", lambda s: s.replace("classes = 3", "classes = x")), ("d.data:1: classes=x: must be 3",), None),
    "no key classes": (edit("d.data", lambda s: s.replace("classes =", "clases =")), ("d.data: no 'classes='", "3"), None),
    "a file as backup": (edit("d.data", lambda s: re.sub("backup = .*", "backup = net.cfg", s)), ("d.data:6: backup=net.cfg: Not a directory",), None),
    "no key backup": (edit("d.data", lambda s: s.replace("backup", "bakup")), ("d.data: no 'backup='", "/backup/"), None),
}


@pytest.mark.parametrize("case,command", [(case, command) for case, (_, *words) in DATA.items()
                                          for command, wanted in zip(("train", "eval"), words) if wanted])
def test_data_fault(case, command, build, pictures, trained, tmp_path_factory):
    folder, _ = trained
    spoil, *words = DATA[case]
    words = words[("train", "eval").index(command)]
    data_folder = tmp_path_factory.mktemp("data")
    data = copy_of(pictures, data_folder)
    spoil(data_folder)
    before = programs.files_under(folder)
    line = (("classifier", "train", data, "net.cfg") if command == "train"
            else ("kure", "eval", "net.cfg", "net.weights", data, "--csv", "out.csv", "--json", "out.json"))
    programs.refuse(build.darknet(folder, *line), *words)
    assert programs.files_under(folder) == before


def test_lists_with_crlf(build, pictures, trained, tmp_path):
    """Windows files are not bad files."""
    folder, _ = trained
    for name in ("train.list", "valid.list", "labels.list"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (pictures / name).read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    data = write_data_file(folder / "d.data", folder)
    data.write_bytes(b"\xef\xbb\xbf" + data.read_bytes().replace(b"\n", b"\r\n"))
    crlf = programs.succeed(build.darknet(folder, "kure", "eval", "net.cfg", "net.weights", data)).stdout
    plain = programs.succeed(build.darknet(folder, "kure", "eval", "net.cfg", "net.weights", pictures / "classes.data")).stdout
    assert crlf.split("\n")[1].split()[:-1] == plain.split("\n")[1].split()[:-1]


def test_detector_faults(build, boxes, tmp_path):
    (tmp_path / "net.cfg").write_text(networks.detector({}, max_batches=2, seed=1))
    spoiled = tmp_path / "images" / "x.png"
    spoiled.parent.mkdir()
    shutil.copy(boxes / "images" / "000.png", spoiled)  # there is no labels/x.txt
    (tmp_path / "train.list").write_text(f"{spoiled}\n")
    data = write_data_file(tmp_path / "d.data", tmp_path, classes=2)
    programs.refuse(build.darknet(tmp_path, "detector", "train", data, "net.cfg"), "train.list:1", "labels/x.txt")
    good = (boxes / "train.list").read_text()
    (tmp_path / "train.list").write_text(good + "/nowhere/x.png\n")
    programs.refuse(build.darknet(tmp_path, "detector", "train", data, "net.cfg"), "train.list:13: image /nowhere/x.png")
    (tmp_path / "train.list").write_text("")
    programs.refuse(build.darknet(tmp_path, "detector", "train", data, "net.cfg"), "train.list", "no images")
    assert not list(tmp_path.glob("*.weights*"))


# ---- training ------------------------------------------------------------------------------

@pytest.mark.parametrize("log", ("nowhere/log.csv", ".", "/dev/null"))
def test_log_that_cannot_be_written(log, build, pictures, tmp_path):
    (tmp_path / "net.cfg").write_text(networks.classifier({"max_batches": 3}, {"log": log}))
    result = build.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg")
    programs.refuse(result, "net.cfg:", "[kurtosis] log=" + log)
    assert [p.name for p in tmp_path.iterdir()] == ["net.cfg"], "something was written"


def test_log_needs_a_training_loop_that_keeps_it(build, tmp_path):
    (tmp_path / "net.cfg").write_text(networks.classifier({}, {"log": "log.csv"}))
    programs.refuse(build.harness(tmp_path, "train", "net.cfg", "out.weights", "-updates", 3), "log=", "classifier train")


def test_adam_on_the_cpu(build, pictures, tmp_path):
    (tmp_path / "net.cfg").write_text("[net]\nadam=1\n" + networks.classifier({"max_batches": 3}, {}).split("\n", 1)[1])
    programs.refuse(build.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg"), "net.cfg:2: adam=1", "GPU")
    programs.refuse(build.harness(tmp_path, "train", "net.cfg", "out.weights"), "adam=1", "GPU")
    assert [p.name for p in tmp_path.iterdir()] == ["net.cfg"]


@pytest.mark.parametrize("command,data", (("classifier", "classes"), ("detector", "boxes")))
def test_several_gpus_on_the_cpu(command, data, build, pictures, boxes, tmp_path):
    cfg = networks.classifier({"max_batches": 3}, {"log": "log.csv"}) if command == "classifier" else networks.detector({}, max_batches=3)
    (tmp_path / "net.cfg").write_text(cfg)
    data = {"classes": pictures / "classes.data", "boxes": boxes / "boxes.data"}[data]
    programs.refuse(build.darknet(tmp_path, command, "train", data, "net.cfg", "-gpus", "0,1"), "-gpus names 2 GPUs", "GPU=1")
    assert [p.name for p in tmp_path.iterdir()] == ["net.cfg"]


@pytest.mark.parametrize("command,data,result", (("classifier", "classes", "net.weights"), ("detector", "boxes", "net_final.weights")))
def test_training_that_is_done(command, data, result, build, pictures, boxes, tmp_path):
    """Nothing is left to train: the model of that name and its sidecar stay. -clear and a longer schedule train."""
    data = {"classes": pictures / "classes.data", "boxes": boxes / "boxes.data"}[data]

    def train(updates, *arguments):
        keys = dict(batch=4, subdivisions=1, seed=1, max_batches=updates)
        log = {"log": "log.csv"}
        (tmp_path / "net.cfg").write_text(networks.classifier(keys, log) if command == "classifier" else networks.detector(log, **keys))
        return build.darknet(tmp_path, command, "train", data, "net.cfg", *arguments)

    programs.succeed(train(4))
    for end in ("", ".kure"):
        (tmp_path / (result + end)).rename(tmp_path / ("start.weights" + end))
    programs.succeed(train(6, "start.weights"))
    done = programs.files_under(tmp_path)
    assert {result, result + ".kure", "log.csv"} < set(done)
    for updates in (4, 3):
        wanted = f"start.weights: update 4 of max_batches={updates} is done already: add -clear to start the schedule anew"
        assert programs.refuse(train(updates, "start.weights")) == wanted
        programs.refuse(train(updates, result), f"{result}: update 6 of max_batches={updates}")
        assert programs.files_under(tmp_path) == {**done, "net.cfg": (tmp_path / "net.cfg").read_bytes()}
    for updates, arguments in ((5, ["start.weights"]), (4, ["start.weights", "-clear"])):
        programs.succeed(train(updates, *arguments))
        assert (tmp_path / result).read_bytes() not in (done[result], done["start.weights"])
        assert (tmp_path / "log.csv").read_text().splitlines()[-1].split(",")[0] == str(updates)


def test_detector_without_max_batches(build, boxes, tmp_path):
    """Its loop would do no update, and the start weights would be saved as the result."""
    cfg = networks.detector(max_batches=0)
    line = 1 + cfg.splitlines().index("max_batches=0")
    for text, place in ((cfg, f"net.cfg:{line}: "), (cfg.replace("max_batches=0\n", ""), "net.cfg: ")):
        (tmp_path / "net.cfg").write_text(text)
        programs.refuse(build.darknet(tmp_path, "detector", "train", boxes / "boxes.data", "net.cfg"), place + "max_batches=0: a detector")
        assert [p.name for p in tmp_path.iterdir()] == ["net.cfg"]


@pytest.mark.parametrize("command", ("classifier", "detector"))
def test_no_batch_is_loaded_past_the_last(command, build, boxes, tmp_path):
    """With one image a batch, as many of four images matter as there are updates: a rubbish one that is not trained on does no harm."""
    for folder in ("images", "labels"):
        shutil.copytree(boxes / folder, tmp_path / folder)
    images = sorted((tmp_path / "images").iterdir())[:4]
    (tmp_path / "train.list").write_text("".join(f"{image}\n" for image in images))
    (tmp_path / "labels.list").write_text("0\n1\n2\n")
    data = write_data_file(tmp_path / "d.data", tmp_path)
    for updates in (1, 2):
        keys = dict(batch=1, subdivisions=1, seed=2, max_batches=updates)
        (tmp_path / "net.cfg").write_text(networks.classifier(keys) if command == "classifier" else networks.detector(**keys))
        failed = 0
        for image in images:
            good = image.read_bytes()
            image.write_bytes(b"rubbish")
            failed += build.darknet(tmp_path, command, "train", data, "net.cfg").returncode
            image.write_bytes(good)
        assert failed == updates
