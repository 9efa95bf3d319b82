"""`kure verify`: every file of a bundle, changed, cut, missing, of a newer version, of absurd sizes: one sentence that names it."""
import hashlib
import json
import os
import struct
import zlib

import numpy as np
import pytest
import xxhash

import exported
from programs import files_under, refuse, succeed
from test_export_bundle import bundle, folder, small, trained  # noqa: F401 (fixtures)

pytestmark = pytest.mark.sanitize


def reseal(bundle):
    """Hashes that fit again, of files that were changed"""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        data = (bundle / name).read_bytes()
        entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), xxh3_128=xxhash.xxh3_128_hexdigest(data))
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    reseal_sums(bundle)


def reseal_sums(bundle):
    names = sorted(name for name in files_under(bundle) if name != "SHA256SUMS")
    (bundle / "SHA256SUMS").write_text("".join(f"{hashlib.sha256((bundle / n).read_bytes()).hexdigest()}  {n}\n" for n in names))


def verify(build, bundle):
    return build.darknet(bundle.parent, "kure", "verify", bundle.name)


@pytest.mark.long
def test_one_byte_of_any_file(build, bundle):
    for name, data in files_under(bundle).items():
        for at in (0, len(data) // 2, len(data) - 1):
            (bundle / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
            said = refuse(verify(build, bundle), "net.edge")
            assert name in said or "SHA256SUMS" in said, (name, at, said)
        (bundle / name).write_bytes(data)
    succeed(verify(build, bundle))


def test_cut_missing_and_foreign_files(build, bundle):
    for name, data in files_under(bundle).items():
        for cut in (data[:-1], b"", data + b"\n"):
            (bundle / name).write_bytes(cut)
            refuse(verify(build, bundle), "net.edge")
        (bundle / name).unlink()
        refuse(verify(build, bundle), "net.edge", *(() if name == "SHA256SUMS" else (name.split("/")[-1],)))
        (bundle / name).write_bytes(data)
    (bundle / "notes.txt").write_text("mine")
    refuse(verify(build, bundle), "notes.txt", "SHA256SUMS does not name it")
    (bundle / "notes.txt").unlink()
    os.symlink("model.kure", bundle / "link")
    refuse(verify(build, bundle), "link")
    (bundle / "link").unlink()
    os.mkfifo(bundle / "golden" / "pipe.npy")
    refuse(verify(build, bundle), "golden/pipe.npy")
    (bundle / "golden" / "pipe.npy").unlink()
    (bundle / "golden" / "deeper").mkdir()
    refuse(verify(build, bundle), "golden/deeper")


@pytest.mark.parametrize("profile,folders", (("tflite", ("model.tflite",)), ("ncnn", ("ncnn/model.param", "ncnn/model.bin", "ncnn/model.table"))))
def test_files_of_other_profiles(profile, folders, build, tmp_path):
    exported.train(build, tmp_path, small(profile=profile))
    exported.export(build, tmp_path)
    bundle = tmp_path / "net.edge"
    for name in folders:
        data = (bundle / name).read_bytes()
        for changed in (data[:-1], bytes([data[0] ^ 1]) + data[1:], data[:-1] + bytes([data[-1] ^ 128])):
            (bundle / name).write_bytes(changed)
            refuse(verify(build, bundle), name, "was changed")
        (bundle / name).write_bytes(data)
    succeed(verify(build, bundle))


def test_what_formats_want_said(build, tmp_path):
    """Notes of a format that was written stand in the manifest, and are said."""
    exported.train(build, tmp_path, small(profile="ncnn"))
    bundle = exported.export(build, tmp_path)
    assert set(bundle.manifest["format_notes"]) == {"ncnn"} and "use_winograd_convolution = false" in bundle.manifest["format_notes"]["ncnn"]
    assert "ncnn: set opt.use_winograd_convolution = false" in bundle.said
    bundle = exported.export(build, tmp_path, "--formats", "hex", "--force")
    assert bundle.manifest["format_notes"] == {} and "winograd" not in bundle.said


@pytest.mark.parametrize("change,words", (
    (lambda text: text.replace("  ", " ", 1), ("SHA256SUMS:1",)), (lambda text: text[:64].upper() + text[64:], ("SHA256SUMS:1",)),
    (lambda text: "\n" + text, ("SHA256SUMS:1",)), (lambda text: text + "\nmine\n", ("SHA256SUMS:",)), (lambda text: text + "\0", ("SHA256SUMS", "cut")),
    (lambda text: text + "\0mine\n", ("SHA256SUMS", "NUL")), (lambda text: "0" * 64 + "  ../net.weights\n" + text, ("net.weights", "missing")),
    (lambda text: "0" * 64 + "  SHA256SUMS\n" + text, ("SHA256SUMS", "was changed")), (lambda text: text * 3000, ("SHA256SUMS", "make sense")),
))
def test_other_sums(change, words, build, bundle):
    (bundle / "SHA256SUMS").write_text(change((bundle / "SHA256SUMS").read_text()))
    refuse(verify(build, bundle), "net.edge", *words)


def test_a_newer_version(build, bundle):
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace("kure-bundle-1", "kure-bundle-2"))
    reseal_sums(bundle)
    refuse(verify(build, bundle), "kure-bundle-2", "kure-bundle-1")


@pytest.mark.parametrize("offset,value,words", ((8, 2, ("newer",)), (16, 1 << 30, ("bytes",)), (20, 1 << 20, ("layer_count",))))
def test_a_model_of_other_sizes(offset, value, words, build, bundle):
    """With hashes that fit: model.kure is still read with suspicion."""
    data = bytearray((bundle / "model.kure").read_bytes())
    struct.pack_into("<I", data, offset, value)
    struct.pack_into("<I", data, 12, zlib.crc32(bytes(data[16:])))
    (bundle / "model.kure").write_bytes(data)
    reseal(bundle)
    refuse(verify(build, bundle), "model.kure", *words)


def test_other_golden_codes(build, bundle):
    """With hashes that fit: one golden code differs, which is exit status 1 and named."""
    codes = np.load(bundle / "golden" / "layer_1.npy")
    codes[2, 1, 3, 3] ^= 4
    np.save(bundle / "golden" / "layer_1.npy", codes)
    raw = (bundle / "golden" / "layer_1.npy").read_bytes()
    assert len(raw) == 128 + codes.size
    reseal(bundle)
    result = verify(build, bundle)
    assert result.returncode == 1 and "1 of" in result.stderr and "layer_1 of image 2" in result.stderr and "up to 4" in result.stderr, result.stderr


@pytest.mark.parametrize("name", ("values", "input", "layer_1", "output_0"))
@pytest.mark.parametrize("change", (
    lambda d: d[:-1], lambda d: d + b"\0", lambda d: d[:100], lambda d: b"", lambda d: d[:6] + b"\2" + d[7:], lambda d: d[:8] + b"\xff\xff" + d[10:],
    lambda d: d.replace(b"(4,", b"(9,", 1), lambda d: d.replace(b"'<f4'", b"'<f8'").replace(b"'|i1'", b"'|u1'"), lambda d: d.replace(b"False", b"True ", 1),
), ids=("cut", "longer", "header", "empty", "newer", "length", "images", "type", "order"))
def test_other_arrays(change, name, build, bundle):
    """With hashes that fit: cut, longer, of a newer .npy version, of absurd sizes and other types."""
    path = bundle / "golden" / f"{name}.npy"
    data = path.read_bytes()
    path.write_bytes(change(data))
    assert path.read_bytes() != data
    reseal(bundle)
    refuse(verify(build, bundle), f"golden/{name}.npy", "is not the array of shape (4, ")


def test_other_output_values(build, bundle):
    values = np.load(bundle / "golden" / "output_0.npy")
    values[3, 0] += 1
    np.save(bundle / "golden" / "output_0.npy", values)
    reseal(bundle)
    refuse(verify(build, bundle), "output_0.npy", "image 3", "is not what its codes stand for")


def test_names_that_lead_elsewhere(build, bundle):
    """With hashes that fit: a tensor's name is that of a file."""
    data = (bundle / "model.kure").read_bytes()
    assert data.count(b"layer_1\0") == 1
    data = bytearray(data.replace(b"layer_1\0", b"../../x\0"))
    struct.pack_into("<I", data, 12, zlib.crc32(bytes(data[16:])))
    (bundle / "model.kure").write_bytes(data)
    reseal(bundle)
    refuse(verify(build, bundle), "model.kure", "tensor", "a-z, 0-9 and _")


def test_a_huge_manifest(build, bundle):
    """Refused by its size and its depth, not read."""
    (bundle / "manifest.json").write_text('{"format": "kure-bundle-1", "files": ' + "[" * 100000)
    reseal_sums(bundle)
    refuse(verify(build, bundle), "manifest.json", "no JSON", "depth")
    os.truncate(bundle / "manifest.json", 1 << 29)
    reseal_sums(bundle)
    refuse(verify(build, bundle), "manifest.json", "make sense")


@pytest.mark.parametrize("change", (lambda m: m.update(golden_images=10 ** 9), lambda m: m.update(golden_images=-1), lambda m: m.update(golden_images="4"),
                                    lambda m: m.pop("files"), lambda m: m["files"].update({"../net.weights": m["files"]["model.kure"]}),
                                    lambda m: m["tensors"][1].update(scale=1.0), lambda m: m["tensors"].pop(), lambda m: m["profile"].update(name="pow2"),
                                    lambda m: m["files"]["model.kure"].update(bytes=7), lambda m: m.pop("format")))
def test_other_manifests(change, build, bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    reseal_sums(bundle)
    refuse(verify(build, bundle), "net.edge")


def test_no_manifest_and_no_json(build, bundle):
    (bundle / "manifest.json").write_text("{")
    reseal_sums(bundle)
    refuse(verify(build, bundle), "manifest.json", "no JSON")
    refuse(build.darknet(bundle.parent, "kure", "verify", "missing.edge"), "missing.edge", "No such file")
    refuse(build.darknet(bundle.parent, "kure", "verify", "net.cfg"), "net.cfg")
    (bundle.parent / "empty").mkdir()
    refuse(build.darknet(bundle.parent, "kure", "verify", "empty"), "empty", "no bundle")
