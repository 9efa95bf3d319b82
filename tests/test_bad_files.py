"""Faults in weights, sidecars, data files, lists, images and logs: one sentence each, and what was there stays."""
import json
import random
import re
import resource
import shutil
import signal

import numpy as np
import pytest

import networks
import programs
from conftest import write_data_file

pytestmark = pytest.mark.sanitize

CFG = networks.classifier({"seed": 1, "max_batches": 3}, {})
WEIGHTED = (0, 1, 3, 5, 7)  # layers of CFG, of 0 to 9


@pytest.fixture
def trained(build, pictures, tmp_path):
    """A folder with net.cfg, net.weights, net.weights.kure, and the tensors of the weights."""
    (tmp_path / "net.cfg").write_text(CFG)
    programs.succeed(build.darknet(tmp_path, "classifier", "train", pictures / "classes.data", "net.cfg"))
    tensors = build.tensors(tmp_path, CFG, "-weights", "net.weights")
    (tmp_path / "dump.0.loaded").unlink()
    return tmp_path, tensors


def commands(pictures, weights="net.weights"):
    """Every command that reads weights."""
    data = pictures / "classes.data"
    return {"train": ("classifier", "train", data, "net.cfg", weights), "valid": ("classifier", "valid", data, "net.cfg", weights),
            "stats": ("kure", "stats", "net.cfg", weights), "eval": ("kure", "eval", "net.cfg", weights, data, "--csv", "eval.csv")}


def refuse_everywhere(build, folder, pictures, *words, only=None):
    before = programs.files_under(folder)
    for name, command in commands(pictures).items():
        if only is None or name in only:
            programs.refuse(build.darknet(folder, *command), *words)
    assert programs.files_under(folder) == before, "something was written"


# ---- weights files -----------------------------------------------------------------

@pytest.mark.parametrize("size", (0, 1, 3, 4, 11, 19))
def test_cut_in_the_header(size, build, pictures, trained):
    folder, _ = trained
    (folder / "net.weights").write_bytes((folder / "net.weights").read_bytes()[:size])
    refuse_everywhere(build, folder, pictures, "net.weights", "header")


@pytest.mark.parametrize("layer", WEIGHTED)
@pytest.mark.parametrize("where", ("first byte", "inside a number", "middle", "last byte"))
def test_cut_inside_a_layer(layer, where, build, pictures, trained):
    folder, tensors = trained
    start, end = networks.weight_boundaries(CFG, tensors)[layer]
    size = {"first byte": start + 1, "inside a number": start + 6, "middle": (start + end) // 2, "last byte": end - 1}[where]
    (folder / "net.weights").write_bytes((folder / "net.weights").read_bytes()[:size])
    refuse_everywhere(build, folder, pictures, "net.weights", f"inside layer {layer}")


@pytest.mark.parametrize("layer", WEIGHTED[:-1])
def test_cut_between_layers_is_partial(layer, build, pictures, trained):
    """Training loads it and says so; the other layers keep their initial values. Evaluation refuses it."""
    folder, tensors = trained
    end = networks.weight_boundaries(CFG, tensors)[layer][1]
    (folder / "part.weights").write_bytes((folder / "net.weights").read_bytes()[:end])
    for name in ("stats", "eval"):
        programs.refuse(build.darknet(folder, *commands(pictures, "part.weights")[name]), "part.weights", "partial", f"layer {layer} of 9")
    fresh = build.tensors(folder, CFG)
    loaded = build.tensors(folder, CFG, "-weights", "part.weights")
    for i, name in networks.weight_order(CFG, tensors):
        np.testing.assert_array_equal(loaded[name], (tensors if i <= layer else fresh)[name], err_msg=name)
    said = programs.succeed(build.darknet(folder, *commands(pictures, "part.weights")["train"])).stderr
    assert f"part.weights is partial: layers 0-{layer} of 10 loaded" in said


def test_header_alone_is_partial(build, pictures, trained):
    folder, tensors = trained
    (folder / "part.weights").write_bytes((folder / "net.weights").read_bytes()[:networks.HEADER_BYTES])
    programs.refuse(build.darknet(folder, *commands(pictures, "part.weights")["eval"]), "part.weights", "partial")
    assert "no layer of 10 loaded" in programs.succeed(build.darknet(folder, *commands(pictures, "part.weights")["train"])).stderr


@pytest.mark.parametrize("extra", (1, 4, 4000))
def test_bytes_left_over(extra, build, pictures, trained):
    """An error for evaluation, a warning for training."""
    folder, _ = trained
    (folder / "long.weights").write_bytes((folder / "net.weights").read_bytes() + bytes(extra))
    for name in ("stats", "eval"):
        programs.refuse(build.darknet(folder, *commands(pictures, "long.weights")[name]), "long.weights", f"{extra} bytes", "left over")
    assert f"{extra} bytes more" in programs.succeed(build.darknet(folder, *commands(pictures, "long.weights")["train"])).stderr


@pytest.mark.parametrize("other", (networks.classifier(layers=networks.conv(9) + networks.conv(8) + networks.classifier_head(3)),
                                   networks.classifier(classes=4)))
def test_weights_of_another_network(other, build, pictures, tmp_path):
    build.train(tmp_path, other, "net.weights", name="other.cfg")
    (tmp_path / "net.cfg").write_text(CFG)
    before = programs.files_under(tmp_path)
    for name in ("stats", "eval"):
        programs.refuse(build.darknet(tmp_path, *commands(pictures)[name]), "net.weights")
    assert programs.files_under(tmp_path) == before


@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf))
@pytest.mark.parametrize("tensor,word", (("layers.0.weights", "weight"), ("layers.3.weights", "weight"), ("layers.7.biases", "bias"),
                                         ("layers.1.scales", "scale"), ("layers.1.rolling_mean", "mean"), ("layers.5.weights", "weight"),
                                         ("layers.3.rolling_variance", "variance")))
def test_weights_that_are_not_finite(tensor, word, value, build, pictures, trained):
    folder, tensors = trained
    tensors[tensor][2] = value
    networks.write_weights(folder / "net.weights", CFG, tensors)
    layer = tensor.split(".")[1]
    refuse_everywhere(build, folder, pictures, "net.weights", f"layer {layer}", f"{word} 2", "not finite")


@pytest.mark.parametrize("name", ("missing.weights", "."))
def test_no_weights_file(name, build, pictures, trained):
    folder, _ = trained
    before = programs.files_under(folder)
    for command in commands(pictures, name).values():
        programs.refuse(build.darknet(folder, *command), name)
    assert programs.files_under(folder) == before


# ---- sidecars ------------------------------------------------------------------------

def damage(data, kind, rng):
    data = bytearray(data)
    if kind == "cut":
        return bytes(data[:rng.randrange(len(data))])
    if kind == "bit":
        data[rng.randrange(8 + int.from_bytes(data[:8], "little"), len(data))] ^= 1 << rng.randrange(8)
    if kind == "header bit":
        data[rng.randrange(8 + int.from_bytes(data[:8], "little"))] ^= 1 << rng.randrange(8)
    if kind == "zeros":
        first = rng.randrange(len(data) - 64)
        data[first:first + 64] = bytes(64)
    if kind == "longer":
        data += bytes(rng.randrange(1, 100))
    return bytes(data)


@pytest.mark.parametrize("kind", ("cut", "bit", "header bit", "zeros", "longer"))
def test_damaged_sidecar(kind, build, trained):
    """Never a crash, never wrong momentum: one sentence names the file. A flipped bit in the header may hit a blank
    or a remark, and load."""
    folder, _ = trained
    seed = random.SystemRandom().randrange(2 ** 32)
    print(f"replay with seed {seed}")
    rng = random.Random(seed)
    sound, refused = (folder / "net.weights.kure").read_bytes(), 0
    for _ in range(12):
        (folder / "net.weights.kure").write_bytes(damage(sound, kind, rng))
        result = build.harness(folder, "show", "net.cfg", "dump", "-weights", "net.weights")
        if result.returncode != 0:
            programs.refuse(result, "net.weights.kure")
            refused += 1
    assert refused == 12 or kind == "header bit"


@pytest.mark.parametrize("size", (0, 1, 7, 8, 9))
def test_sidecar_cut_in_its_length(size, build, trained):
    folder, _ = trained
    (folder / "net.weights.kure").write_bytes((folder / "net.weights.kure").read_bytes()[:size])
    programs.refuse(build.harness(folder, "show", "net.cfg", "dump", "-weights", "net.weights"), "net.weights.kure", "damaged")


def test_sidecar_of_other_weights(build, pictures, trained):
    folder, tensors = trained
    networks.write_weights(folder / "net.weights", CFG, {**tensors, "layers.0.biases": tensors["layers.0.biases"] + 1})
    refuse_everywhere(build, folder, pictures, "net.weights.kure", "does not belong to net.weights", only=("train",))


def test_sidecar_of_another_network(build, pictures, trained):
    """The same bytes of weights read by a cfg with other shapes: layers of 8 filters read as groups."""
    folder, _ = trained
    other = networks.classifier({"seed": 1, "max_batches": 3}, {}).replace("[maxpool]\nsize=2\nstride=2\n", "[dropout]\n")
    (folder / "net.cfg").write_text(other)
    refuse_everywhere(build, folder, pictures, "net.weights.kure", "another network", only=("train",))


def test_sidecar_of_a_later_format(build, trained):
    folder, _ = trained
    data = (folder / "net.weights.kure").read_bytes()
    (folder / "net.weights.kure").write_bytes(data.replace(b"kure-sidecar-1", b"kure-sidecar-9"))
    programs.refuse(build.harness(folder, "show", "net.cfg", "dump", "-weights", "net.weights"), "kure-sidecar-9", "kure-sidecar-1")


def rewritten(data, change):
    """A sidecar with another header: change(header) edits the decoded JSON."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size:]


def overlap(header):
    names = [name for name in header if name != "__metadata__"]
    header[names[1]]["data_offsets"] = [0, 4 * header[names[1]]["shape"][0]]


HEADERS = {  # change of the header: words
    "update negative": (lambda h: h["__metadata__"].update(update="-5"), ("update '-5'",)),
    "update a word": (lambda h: h["__metadata__"].update(update="abc"), ("update 'abc'",)),
    "long metadata": (lambda h: h["__metadata__"].update(note="x" * 600), ("damaged", "note")),
    "much metadata": (lambda h: h["__metadata__"].update({f"note{i}": "x" for i in range(20)}), ("damaged", "note")),
    "metadata that is no text": (lambda h: h["__metadata__"].update(note=3), ("damaged", "no text")),
    "overlap": (overlap, ("damaged", "overlap")),
}


@pytest.mark.parametrize("case", HEADERS)
def test_sidecar_with_another_header(case, build, trained):
    folder, _ = trained
    change, words = HEADERS[case]
    (folder / "net.weights.kure").write_bytes(rewritten((folder / "net.weights.kure").read_bytes(), change))
    programs.refuse(build.harness(folder, "show", "net.cfg", "dump", "-weights", "net.weights"), "net.weights.kure", *words)


def test_foreign_metadata_that_fits_is_read(build, trained):
    folder, _ = trained
    sidecar = folder / "net.weights.kure"
    sidecar.write_bytes(rewritten(sidecar.read_bytes(), lambda h: h["__metadata__"].update(note="mine")))
    programs.succeed(build.harness(folder, "show", "net.cfg", "dump", "-weights", "net.weights"))


def test_a_folder_as_sidecar(build, trained):
    folder, _ = trained
    (folder / "net.weights.kure").unlink()
    (folder / "net.weights.kure").mkdir()
    programs.refuse(build.harness(folder, "show", "net.cfg", "dump", "-weights", "net.weights"), "net.weights.kure", "no regular file")


# ---- saving ----------------------------------------------------------------------------

def limited(size):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return limit


def test_save_into_a_missing_folder(build, tmp_path):
    (tmp_path / "net.cfg").write_text(CFG)
    programs.refuse(build.harness(tmp_path, "train", "net.cfg", "nowhere/out.weights"), "nowhere/out.weights", "No such file")


@pytest.mark.parametrize("what", ("weights", "sidecar"))
def test_full_disk_keeps_the_old_pair(what, build, trained):
    folder, _ = trained
    sizes = [(folder / name).stat().st_size for name in ("net.weights", "net.weights.kure")]
    assert sizes[0] + 200 < sizes[1]
    before = programs.files_under(folder)
    result = build.harness(folder, "train", "net.cfg", "net.weights", "-weights", "net.weights", "-updates", 9,
                           preexec_fn=limited(sizes[0] // 2 if what == "weights" else sizes[0] + 100))
    assert result.returncode == 1, programs.describe(result)
    assert "net.weights" in result.stderr.splitlines()[-1] and "File too large" in result.stderr.splitlines()[-1]
    assert programs.files_under(folder) == before
    programs.succeed(build.harness(folder, "show", "net.cfg", "dump", "-weights", "net.weights"))


def test_full_device(build, tmp_path):
    (tmp_path / "net.cfg").write_text(CFG)
    result = build.harness(tmp_path, "train", "net.cfg", "/dev/full")
    assert result.returncode == 1 and "No space left" in result.stderr.splitlines()[-1], programs.describe(result)
    assert [p.name for p in tmp_path.iterdir()] == ["net.cfg"]


def test_missing_backup_folder(build, pictures, tmp_path):
    (tmp_path / "net.cfg").write_text(CFG)
    data = write_data_file(tmp_path / "d.data", pictures, backup="nowhere")
    programs.refuse(build.darknet(tmp_path, "classifier", "train", data, "net.cfg"), "d.data:6: backup=nowhere")


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


def test_eval_of_a_detector(build, boxes, tmp_path):
    build.train(tmp_path, networks.detector({}), "net.weights")
    programs.refuse(build.darknet(tmp_path, "kure", "eval", "net.cfg", "net.weights", boxes / "boxes.data"), "detector", "yolo")


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
