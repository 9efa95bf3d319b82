"""Faults in weights and sidecars, and in saving them: one sentence each, and what was there stays."""
import json
import random
import resource
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
    said = programs.succeed(build.darknet(folder, *commands(pictures, "part.weights")["train"], "-clear")).stderr
    assert f"part.weights is partial: layers 0-{layer} of 10 loaded" in said


def test_header_alone_is_partial(build, pictures, trained):
    folder, tensors = trained
    (folder / "part.weights").write_bytes((folder / "net.weights").read_bytes()[:networks.HEADER_BYTES])
    programs.refuse(build.darknet(folder, *commands(pictures, "part.weights")["eval"]), "part.weights", "partial")
    assert "no layer of 10 loaded" in programs.succeed(build.darknet(folder, *commands(pictures, "part.weights")["train"], "-clear")).stderr


@pytest.mark.parametrize("extra", (1, 4, 4000))
def test_bytes_left_over(extra, build, pictures, trained):
    """An error for evaluation, a warning for training."""
    folder, _ = trained
    (folder / "long.weights").write_bytes((folder / "net.weights").read_bytes() + bytes(extra))
    for name in ("stats", "eval"):
        programs.refuse(build.darknet(folder, *commands(pictures, "long.weights")[name]), "long.weights", f"{extra} bytes", "left over")
    assert f"{extra} bytes more" in programs.succeed(build.darknet(folder, *commands(pictures, "long.weights")["train"], "-clear")).stderr


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
