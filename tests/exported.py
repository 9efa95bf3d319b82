"""Networks exported for the tests: trained for a moment with a profile, written as a bundle, run as simulation and as integers."""
import numpy as np

import networks
import read_bundle
from programs import succeed

PROFILES = ("onnx", "tflite", "tflite-single", "cmsis", "ncnn", "tensorrt", "pow2")
FUSED = ("ncnn", "tensorrt")


def with_quantization(text, **keys):
    """The cfg with a section [quantization] behind [net]"""
    head, rest = text.split("\n[", 1)
    return head + "\n" + networks.section("quantization", **keys) + "[" + rest


def train(build, folder, text, updates=2, weights=None, name="net"):
    """net.cfg, net.weights and its sidecar, after some updates of the harness"""
    (folder / f"{name}.cfg").write_text(text)
    start = ["-weights", weights] if weights else []
    succeed(build.harness(folder, "train", f"{name}.cfg", f"{name}.weights", "-updates", updates, *start))


def export(build, folder, *options, name="net", bundle="net.edge"):
    """The bundle; stdout and stderr are in .said"""
    result = succeed(build.darknet(folder, "kure", "export", f"{name}.cfg", f"{name}.weights", "-o", bundle, *options))
    read = read_bundle.Bundle(folder / bundle)
    read.said = result.stdout + result.stderr
    return read


def simulate(build, folder, text, name="net"):
    """({layer: float32 outputs of a batch}, the batch), as Darknet predicts with simulated quantization"""
    succeed(build.harness(folder, "forward", f"{name}.cfg", "dump", "-weights", f"{name}.weights"))
    tensors = networks.read_tensors(folder / "dump.0.forward")
    outputs = {i: tensors[f"layers.{i}.output"] for i in range(len(networks.layer_types(text))) if f"layers.{i}.output" in tensors}
    return outputs, tensors["layers.-1.input"]


def integer(build, folder, bundle, images):
    """[int8 [images][shape]] codes of every tensor, by kure-run"""
    images.astype(np.float32).tofile(folder / "images.f32")
    dump = folder / "codes"
    succeed(build_run(build, folder, bundle.folder / "model.kure", "--dump", dump, "--top=0", "images.f32"))
    found = sorted(dump.iterdir(), key=lambda path: int(path.name.split("-")[0]))
    codes = [np.fromfile(path, np.int8).reshape(-1, *tensor["shape"]) for path, tensor in zip(found, bundle.tensors)]
    for path in found:
        path.unlink()
    dump.rmdir()
    return codes


def build_run(build, folder, *arguments):
    from programs import run
    return run([build.program("kure-run"), *arguments], folder)


def layer_codes(bundle, layer, simulated, images):
    """[(tensor, codes)] that the simulation has for a layer of the cfg, by the scale of each tensor that holds it; boxes and
    scores are taken apart"""
    out = []
    for number, tensor in enumerate(bundle.tensors):
        inner = tensor["name"].endswith("_raw") or "_from_" in tensor["name"]
        if tensor["source"] != layer or inner:
            continue
        values = simulated.reshape(images, -1, *tensor["shape"][1:])
        head = next((o for o in bundle.manifest["outputs"] if o["tensor"] == number and "part" in o), None)
        if head:
            place = np.arange(values.shape[1]) % head["head_rows"] < head["head_boxes"]
            values = values[:, place == (head["part"] == "boxes")]
        quotient = values.astype(np.float64) / float(np.float32(tensor["scale"]))
        assert abs(quotient - np.rint(quotient)).max() < 1e-2, f"{tensor['name']}: the simulation is on another grid"
        out.append((number, (np.rint(quotient) + tensor["zero_point"]).reshape(-1, *tensor["shape"])))
    return out


def differences(build, folder, text, bundle, name="net"):
    """{tensor's name: distances in codes} between simulation and integers"""
    outputs, batch = simulate(build, folder, text, name)
    shape = bundle.tensors[0]["shape"]
    images = batch.reshape(-1, *shape)
    codes = integer(build, folder, bundle, images)
    found = {}
    for layer, values in outputs.items():
        for number, expected in layer_codes(bundle, layer, values, len(images)):
            apart = abs(codes[number].astype(np.int64) - expected.astype(np.int64))
            found[bundle.tensors[number]["name"]] = apart
    return found
