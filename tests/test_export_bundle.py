"""Bundles: whole or not there; what cannot be exported is refused by name. Bundles that were changed: test_export_verify.py."""
import hashlib
import json
import resource
import shutil
import signal
import subprocess

import numpy as np
import pytest
import xxhash

import conftest
import exported
import networks
import read_bundle
from programs import ENVIRONMENT, files_under, refuse, succeed

pytestmark = pytest.mark.sanitize


def small(**quantization):
    text = (networks.net(width=8, height=8, batch=2, subdivisions=1, learning_rate=0.01) + networks.conv(4) + networks.conv(5, stride=2)
            + networks.classifier_head(3))
    return exported.with_quantization(text, **{**dict(profile="onnx"), **quantization})


@pytest.fixture(scope="module")
def trained(build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    exported.train(build, folder, small())
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    for path in trained.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    return tmp_path


@pytest.fixture
def bundle(build, folder):
    exported.export(build, folder)
    return folder / "net.edge"


def wide(**quantization):
    """Weights are the most of it."""
    text = (networks.net(width=8, height=8, batch=2, subdivisions=1, learning_rate=0.01) + networks.conv(24) + networks.conv(48, stride=2)
            + networks.classifier_head(3))
    return exported.with_quantization(text, **quantization)


def export(build, folder, *options, output="net.edge", **how):
    return build.darknet(folder, "kure", "export", "net.cfg", "net.weights", "-o", output, *options, **how)


def nothing_left(folder):
    return not [p.name for p in folder.iterdir() if ".edge" in p.name]


# ---- what a bundle is ------------------------------------------------------------------

def test_files(build, bundle):
    files = files_under(bundle)
    manifest = json.loads(files["manifest.json"])
    sums = dict(reversed(line.split("  ")) for line in files["SHA256SUMS"].decode().splitlines())
    assert set(sums) == set(files) - {"SHA256SUMS"} and set(manifest["files"]) == set(sums) - {"manifest.json"}
    for name, digest in sums.items():
        assert hashlib.sha256(files[name]).hexdigest() == digest
    for name, entry in manifest["files"].items():
        assert entry["bytes"] == len(files[name]) and entry["sha256"] == sums[name]
    golden = {name for name in files if name.startswith("golden/")}
    assert golden == {t["golden"] for t in manifest["tensors"]} | {o["golden"] for o in manifest["outputs"]} | {"golden/values.npy"}
    for name in golden:
        array = np.load(bundle / name)
        assert array.dtype == (np.float32 if "values" in name or "output_" in name else np.int8) and len(array) == manifest["golden_images"] == 4
    assert not [row for row in read_bundle.Bundle(bundle).compare() if row[2]]
    result = succeed(build.darknet(bundle.parent, "kure", "verify", "net.edge", "--json", "verify.json"))
    row = json.loads((bundle.parent / "verify.json").read_text())["rows"][0]
    assert row["different"] == 0 and row["files"] == len(files) and row["images"] == 4, result.stdout


def test_same_bytes_again(build, folder):
    for name in ("a.edge", "b.edge"):
        succeed(export(build, folder, output=name))
    assert files_under(folder / "a.edge") == files_under(folder / "b.edge")


def test_the_hash_of_xxhash(build, bundle):
    for name, entry in json.loads((bundle / "manifest.json").read_text())["files"].items():
        assert xxhash.xxh3_128_hexdigest((bundle / name).read_bytes()) == entry["xxh3_128"]


def test_images_of_data(build, folder, pictures):
    """The golden inputs are images of the training list; names of classes come along."""
    succeed(export(build, folder, "--data", pictures / "classes.data", "--golden", 3))
    values = np.load(folder / "net.edge" / "golden" / "values.npy")
    assert values.shape == (3, 3, 8, 8) and values.min() >= 0 and values.max() <= 1 and values.std() > 0.05
    assert json.loads((folder / "net.edge" / "manifest.json").read_text())["classes"] == list(conftest.CLASSES)


# ---- whole or not at all ------------------------------------------------------------------

def test_an_existing_folder(build, folder):
    (folder / "net.edge").mkdir()
    (folder / "net.edge" / "mine.txt").write_text("mine")
    refuse(export(build, folder), "net.edge", "exists", "--force")
    refuse(export(build, folder, "--force"), "net.edge", "no bundle", "manifest.json")
    assert files_under(folder / "net.edge") == {"mine.txt": b"mine"}
    (folder / "net.edge" / "mine.txt").unlink()
    (folder / "net.edge").rmdir()
    (folder / "net.edge").write_text("a file")
    refuse(export(build, folder, "--force"), "net.edge", "no bundle")


def test_force_replaces_a_bundle(build, folder):
    succeed(export(build, folder))
    before = files_under(folder / "net.edge")
    succeed(export(build, folder, "--force", "--golden", 1))
    assert files_under(folder / "net.edge") != before
    succeed(build.darknet(folder, "kure", "verify", "net.edge"))
    assert sorted(p.name for p in folder.iterdir() if ".edge" in p.name) == ["net.edge"]


def test_no_folder_to_write_to(build, folder):
    refuse(export(build, folder, output="missing/net.edge"), "missing/net.edge", "No such file")


def on_small_disk(build, folder, kib, *options):
    """Exports to a file system of so many KiB, which must keep nothing of a bundle that finds no room."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    command = " ".join(map(str, (build.program("darknet"), "kure export net.cfg net.weights -o disk/net.edge", *options)))
    script = f"mount -t tmpfs -o size={kib}k none {disk} || exit 3; {command}; status=$?; ls -A disk > left; exit $status"
    result = subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, check=False)
    if "unshare:" in result.stderr or "mount:" in result.stderr:
        pytest.skip("no user namespaces here: " + result.stderr.strip())
    if result.returncode != 0:
        assert result.returncode == 1 and "No space left" in result.stderr.splitlines()[-1], result.stderr
        assert (folder / "left").read_text() == ""
    return result


@pytest.mark.parametrize("size", (4, 16, 64, 128))
def test_a_full_disk(size, build, folder):
    """One file after the other finds no room."""
    assert on_small_disk(build, folder, size, "--golden", 100).returncode == 1


def test_a_full_disk_of_ncnn(build, tmp_path):
    """Page by page until there is room for all: the network and its weights find none in turn."""
    exported.train(build, tmp_path, wide(profile="ncnn"))
    said = []
    while (result := on_small_disk(build, tmp_path, 4 * (len(said) + 1), "--formats", "ncnn", "--golden", 1)).returncode != 0:
        said.append(result.stderr.splitlines()[-1])
    assert all(any(file in line for line in said) for file in ("ncnn/model.param", "ncnn/model.bin")), said


def full_disk(build, folder, bytes_, *options):
    """Files may have so many bytes, which any user can set; the signal that would end the process is ignored, so that write says it."""
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
    return export(build, folder, *options, preexec_fn=limit)


def test_no_room_for_the_manifest(build, folder):
    succeed(export(build, folder, "--formats", "kure"))
    size = max(len(data) for data in files_under(folder / "net.edge").values())
    assert size == (folder / "net.edge" / "manifest.json").stat().st_size
    shutil.rmtree(folder / "net.edge")
    refuse(full_disk(build, folder, size - 1, "--formats", "kure"), "manifest.json", "cannot be written", "File too large")
    assert nothing_left(folder)


@pytest.mark.parametrize("profile,name", (("onnx", "onnx-qdq"), ("onnx", "onnx-qop"), ("onnx", "darknet"), ("tflite", "tflite"),
                                          ("onnx", "c"), ("onnx", "hex")))
def test_no_room_for_a_format(profile, name, build, tmp_path):
    """Each writer says it where its largest file does not fit, and the earlier bundle stays; model.kure packs weights of 4 bits and fits."""
    exported.train(build, tmp_path, wide(profile=profile, weight_bits=4))
    succeed(export(build, tmp_path, "--formats", "kure", "--golden", 1))
    without = files_under(tmp_path / "net.edge")
    succeed(export(build, tmp_path, "--formats", name, "--golden", 1, output="all.edge"))
    own = {file: len(data) for file, data in files_under(tmp_path / "all.edge").items() if file not in without}
    most = max(own.values())
    assert most > max(len(data) for file, data in without.items() if file != "manifest.json"), "it is the one that does not fit"
    said = refuse(full_disk(build, tmp_path, most - 1, "--formats", name, "--golden", 1, "--force"), "cannot be written", "File too large")
    assert any(file in said for file in own), said
    assert files_under(tmp_path / "net.edge") == without and sorted(p.name for p in tmp_path.iterdir() if ".edge" in p.name) == ["all.edge", "net.edge"]


# ---- what cannot be exported -----------------------------------------------------------------

def write_network(build, folder, text):
    (folder / "net.cfg").write_text(text)
    succeed(build.harness(folder, "train", "net.cfg", "net.weights", "-updates", 1))


def test_neither_trained_nor_calibrated(build, tmp_path):
    plain = networks.net(width=8, height=8, batch=2) + networks.conv(4) + networks.classifier_head(3)
    write_network(build, tmp_path, plain)
    refuse(export(build, tmp_path), "net.cfg", "--data", "kure calibrate")
    exported.train(build, tmp_path, small())
    (tmp_path / "net.weights.kure").unlink()
    refuse(export(build, tmp_path), "layer 0", "range", "--data", "kure calibrate net.cfg net.weights")
    assert nothing_left(tmp_path)


def test_calibrated_now(build, tmp_path, pictures):
    """A cfg without [quantization], and one whose ranges are missing."""
    write_network(build, tmp_path, networks.net(width=8, height=8, batch=2) + networks.conv(4) + networks.conv(5) + networks.classifier_head(3))
    succeed(export(build, tmp_path, "--data", pictures / "classes.data", "--weight-bits", 4, "--profile", "tflite", output="a.edge"))
    read = read_bundle.Bundle(tmp_path / "a.edge")
    assert read.manifest["profile"]["name"] == "tflite" and not [row for row in read.compare() if row[2]]
    assert [layer["weights"]["bits"] for layer in read.layers if "weights" in layer] == [8, 4, 8], "the first and the last layer keep theirs"
    exported.train(build, tmp_path, small())
    (tmp_path / "net.weights.kure").unlink()
    succeed(export(build, tmp_path, "--data", pictures / "classes.data", output="b.edge"))
    succeed(build.darknet(tmp_path, "kure", "verify", "b.edge"))
    assert not (tmp_path / "net.weights.kure").exists(), "export writes its bundle alone"


@pytest.mark.parametrize("layers,words", (
    (networks.section("local", filters=2, size=3, stride=1, pad=0, activation="relu"), ("layer 1 [local]", "no integer form")),
    (networks.section("activation", activation="relu"), ("layer 1 [activation]", "no integer form")),
    (networks.section("upsample", stride=2, scale=2), ("layer 1 [upsample]", "scale=")),
    (networks.section("upsample", stride=-2), ("layer 1 [upsample]", "negative stride")),
    (networks.conv(4, quantize=0), ("layer 1 [convolutional]", "float", "quantize=0")),
    (networks.conv(4, activation_bits=0), ("layer 1 [convolutional]", "activations are float")),
    (networks.section("shortcut", activation="linear", alpha=0, **{"from": -1}), ("layer 1 [shortcut]", "alpha=0")),
))
def test_no_integer_form(layers, words, build, tmp_path):
    text = networks.net(width=8, height=8, batch=2, subdivisions=1) + networks.conv(4) + layers + networks.classifier_head(3)
    text = exported.with_quantization(text, profile="onnx")
    exported.train(build, tmp_path, text, 1)
    refuse(export(build, tmp_path), "net.cfg", *words)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("quantization,profile,words", (
    (dict(profile=None, weight_bits=5), "onnx", ("weight_bits=5", "8, 4")), (dict(profile=None, activation_bits=4), "onnx", ("activation_bits=4",)),
    (dict(profile=None, rounding="floor"), "onnx", ("rounding=floor", "half_even")), (dict(profile=None), "tflite", ("rounding=half_even", "half_away")),
    (dict(profile=None), "pow2", ("profile=pow2", "activation_rounding=half_even", "half_up")), (dict(profile="onnx"), "tflite", ("profile=onnx", "--profile tflite", "contradict")),
    (dict(profile=None, activation_symmetric=1), "tensorrt", ("quantizer in front", "profile=tensorrt", "[quantization]")),
    (dict(profile=None, first_bits=0, last_bits=0), "onnx", ("network input", "first_bits=8")),
))
def test_contradictions(quantization, profile, words, build, tmp_path):
    text = small(**quantization).replace("profile=None\n", "")
    exported.train(build, tmp_path, text)
    refuse(export(build, tmp_path, "--profile", profile), "net.cfg", *words)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("options,words", (
    ((), ("-o",)), (("-o", "x.edge", "--profile", "onx"), ("onx", "onnx")), (("-o", "x.edge", "--formats", "kure,tar"), ("tar",)),
    (("-o", "x.edge", "--images", "5"), ("--images 5", "--data")), (("-o", "x.edge", "--golden", "0"), ("--golden 0",)),
    (("-o", "x.edge", "--weight-bits", "4,8"), ("weight_bits=4,8",)), (("-o", "x.edge", "--weight-bits", "99"), ("weight_bits=99",)),
    (("-o", "x.edge", "--bits", "4", "--frob"), ("--frob",)), (("-o", ""), ("-o ''", "net.edge")), (("-o", "/"), ("-o '/'",)),
    (("-o", "x.edge", "--formats", "onnx"), ("'onnx'", "onnx-qdq")), (("-o", "x.edge", "--lapq-images", "64"), ("--lapq-images", "--save NAME")),
    (("-o", "x.edge", "--equalize"), ("--equalize", "--save NAME")), (("-o", "x.edge", "--quantize", "bitz=4"), ("'bits'",)),
))
def test_wrong_command_lines(options, words, build, folder):
    refuse(build.darknet(folder, "kure", "export", "net.cfg", "net.weights", *options), *words, status=2)
    assert nothing_left(folder)


def test_before_the_simulation_begins(build, tmp_path):
    exported.train(build, tmp_path, small(start=5), 2)
    result = succeed(export(build, tmp_path))
    assert "start=5" in result.stderr and "2 updates" in result.stderr


def test_keys_beside_a_section(build, folder):
    refuse(export(build, folder, "--weight-bits", "4"), "net.cfg", "[quantization]", "contradict")


def test_a_float_activation_that_no_arithmetic_has(build, tmp_path):
    text = small(profile="ncnn").replace("activation=leaky", "activation=logistic")
    exported.train(build, tmp_path, text)
    refuse(export(build, tmp_path), "layer 0", "activation=logistic", "profile=ncnn", "onnx")


def test_a_table_for_any_activation(build, tmp_path):
    text = small().replace("activation=leaky", "activation=elu")
    exported.train(build, tmp_path, text)
    bundle = exported.export(build, tmp_path)
    assert [layer["activation"] for layer in bundle.layers if layer["kind"] == "lookup"] == ["elu", "elu"]
    assert not [row for row in bundle.compare() if row[2]]
    for name, apart in exported.differences(build, tmp_path, text, bundle).items():
        assert apart.mean() < 0.05, name
