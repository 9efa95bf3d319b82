"""A yolov3-tiny in small, trained, exported for every target: two heads at two scales, route, upsample, maxpool with stride 1, leaky.

On the images of its validation list: codes of the clients against the bundle's golden ones, and boxes: of the integer runtime
(`kure eval --integer`), of onnxruntime's outputs decoded by tests/yolo.py in NumPy, and of Darknet with simulated quantization."""
import numpy as np
import pytest
from PIL import Image

import clients
import detectors
import exported
import networks
import programs
import yolo
from test_clients_c import compile_and_run
from test_clients_images import Bundle
from test_clients_onnx import LOOSE, counts

pytestmark = pytest.mark.clients
IMAGES, EDGE = 30, 64
FORMATS = {"onnx": {"onnx-qdq", "onnx-qop"}, "tflite": {"tflite"}, "tflite-single": {"tflite"}, "cmsis": {"tflite"}, "ncnn": {"ncnn"},
           "tensorrt": {"onnx-qdq"}, "pow2": set()}
COMPILED = ("onnx", "cmsis", "pow2")
NET = (networks.conv(12, stride=2) + networks.conv(24, stride=2) + networks.conv(32, stride=2) + networks.section("maxpool", size=2, stride=2)
       + networks.conv(32) + networks.section("maxpool", size=2, stride=1) + networks.conv(32) + detectors.head("yolo")
       + networks.section("route", layers="-3") + networks.conv(16, size=1) + networks.section("upsample", stride=2)
       + networks.section("route", layers="-1,2") + detectors.head("yolo"))
HEADS = [(7, "boxes", 8), (7, "scores", 8), (13, "boxes", 14), (13, "scores", 14)]  # layer, part, decoder


def cfg(profile=None, updates=400):
    keys = dict(batch=8, width=EDGE, height=EDGE, learning_rate=0.01, policy="steps", steps=f"{updates * 3 // 4},{updates * 9 // 10}", scales=".1,.1",
                max_batches=updates, seed=3)
    return networks.net(**keys) + (networks.section("quantization", profile=profile) if profile else "") + NET


@pytest.fixture(scope="module")
def trained(build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    detectors.make(folder, valid=IMAGES)
    detectors.write_data(folder, "golden.data", train=folder / "valid.list")
    detectors.train(build, folder, cfg())
    return folder


@pytest.fixture(scope="module")
def exports(build, trained):
    """export(profile): its bundle, with the images of valid.list as golden ones; P.cfg and P.weights lie beside it"""
    made = {}

    def export(profile):
        if profile not in made:
            (trained / f"{profile}.cfg").write_text(cfg(profile))
            (trained / f"{profile}.weights").write_bytes((trained / "net.weights").read_bytes())
            programs.succeed(build.darknet(trained, "kure", "calibrate", f"{profile}.cfg", f"{profile}.weights", "boxes.data"))
            read = exported.export(build, trained, "--data", "golden.data", "--golden", IMAGES, name=profile, bundle=f"{profile}.edge")
            made[profile] = Bundle(read.folder)
        return made[profile]
    return export


@pytest.mark.parametrize("profile", exported.PROFILES)
def test_every_target(build, exports, trained, profile):
    """The bundle is whole and computes its golden vectors; boxes and scores are apart; all formats of the profile can express the network."""
    b = exports(profile)
    programs.succeed(build.darknet(trained, "kure", "verify", f"{profile}.edge", "--csv", "verify.csv"))
    header, row = (trained / "verify.csv").read_text().splitlines()
    found = dict(zip(header.split(","), row.split(",")))
    assert (found["images"], found["different"]) == (str(IMAGES), "0") and int(found["codes"]) > 5e5
    assert [(o["source"], o["part"], o["decoder"]["layer"]) for o in b.manifest["outputs"]] == HEADS
    assert set(b.manifest["formats"].split()) == {"kure", "darknet", "c", "hex"} | FORMATS[profile]
    for output in b.manifest["outputs"]:
        assert len(np.unique(b.codes(b.manifest["tensors"][output["tensor"]]["name"]))) > 32
    if profile not in COMPILED:
        return
    status, codes = compile_and_run(b.folder)
    names = [b.manifest["tensors"][o["tensor"]]["name"] for o in b.manifest["outputs"]]
    assert status == 0 and codes == np.concatenate([b.codes(name)[0].transpose(1, 2, 0).ravel() for name in names]).tolist()


def heads_of(bundle, value):
    """[(values [images][rows][height][width], anchors)] of [yolo], boxes and scores together again; value(tensor): its values.
    All that it needs to know is in the manifest."""
    found, anchors = {}, {}
    for output in bundle.manifest["outputs"]:
        t = bundle.manifest["tensors"][output["tensor"]]
        values = value(t).reshape(IMAGES, *t["shape"])
        anchors[output["source"]] = output["decoder"]["anchors"]
        rows = output["head_rows"] * len(anchors[output["source"]])
        head = found.setdefault(output["source"], np.zeros((IMAGES, rows, *t["shape"][1:]), np.float32))
        head[:, (np.arange(rows) % output["head_rows"] < output["head_boxes"]) == (output["part"] == "boxes")] = values
    return [(head, anchors[source]) for source, head in sorted(found.items())]


def check_heads(bundle, got, most):
    """Codes of the outputs by the values T_value"""
    for output in bundle.manifest["outputs"]:
        t = bundle.manifest["tensors"][output["tensor"]]
        d = clients.apart(bundle, np.rint(got[f"{t['name']}_value"] / np.float32(t["scale"])) + t["zero_point"], t["name"])
        print(f"{t['name']}: {(d > 0).sum()} of {d.size} codes differ, by up to {d.max()}")
        assert d.max() <= most and (d > 0).mean() <= .01


# ---- codes ------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def onnxruntime(exports, tmp_path_factory):
    """run(file): what onnxruntime computes on all images"""
    made = {}

    def run(name):
        if name not in made:
            b = exports("onnx")
            made[name] = clients.run("client_onnxruntime.py", tmp_path_factory.mktemp("onnxruntime"), b.folder / name, 1, x=b.values)
        return made[name]
    return run


@pytest.mark.parametrize("name", ["model.qdq.onnx", "model.qop.onnx"])
def test_onnxruntime_has_the_codes(exports, onnxruntime, name):
    b, got = exports("onnx"), onnxruntime(name)
    assert not {"Conv", "FusedConv", "Gemm", "MatMul"} & set(counts(got))
    seen = [tensor for tensor in b.kinds if f"{tensor}_quantized" in got]
    for tensor in seen:
        d = clients.apart(b, got[f"{tensor}_quantized"], tensor)
        assert d.max() <= (b.kinds[tensor] in LOOSE), f"{tensor}: {(d > 0).sum()} of {d.size} codes differ, by up to {d.max()}"
    assert len(seen) >= len(b.kinds) - 2  # but for inputs of the concatenation
    check_heads(b, got, 0)


def test_opencv_has_the_codes(exports, tmp_path):
    """Of inputs that are codes: it adds the zero point before it rounds, in float32, so that of values between two pixels, as in a letterbox,
    some in a million get the next code."""
    b = exports("onnx")
    t = b.tensors["input"]
    x = (np.float32(t["scale"]) * (b.codes("input").astype(np.float32) - np.float32(t["zero_point"]))).astype(np.float32)
    check_heads(b, clients.run("client_opencv.py", tmp_path, b.folder / "model.qop.onnx", x=x), 0)


def test_litert_has_the_codes(exports, tmp_path):
    b = exports("tflite")
    got = clients.run("client_litert.py", tmp_path, b.folder / "model.tflite", x=b.codes("input"))
    clients.check_all_codes(b, got)


def test_ncnn_has_nearly_the_codes(exports, tmp_path):
    b = exports("ncnn")
    names = np.array([f"{b.manifest['tensors'][o['tensor']]['name']}_value" for o in b.manifest["outputs"]])
    check_heads(b, clients.run("client_ncnn.py", tmp_path, b.folder / "ncnn", 0, x=b.values, names=names), 2)


# ---- boxes -------------------------------------------------------------------------------------

def pictures(folder):
    return [np.array(Image.open(path)) for path in (folder / "valid.list").read_text().split()]


def golden_places(folder, bundle):
    """Of every picture of the list, which golden image it is: the only one that its letterbox equals"""
    near = [np.abs(bundle.values - yolo.letterbox(p, (EDGE, EDGE))).max(axis=(1, 2, 3)) < 1e-5 for p in pictures(folder)]
    places = [int(np.flatnonzero(n)[0]) for n in near if n.sum() == 1]
    assert sorted(places) == list(range(IMAGES)), "Darknet's letterboxes are not those of NumPy"
    return places


def boxes_by_numpy(folder, bundle, value):
    """[n][7] as detectors.detections has them"""
    places, heads, rows = golden_places(folder, bundle), heads_of(bundle, value), []
    for i, (place, picture) in enumerate(zip(places, pictures(folder))):
        found = yolo.detect([(values[place], anchors) for values, anchors in heads], (EDGE, EDGE), picture.shape[1::-1])
        rows.append(np.c_[np.full(len(found), i), found])
    return np.concatenate(rows)


def pairs(a, b, overlap):
    """[n][2] overlap and difference of the scores: boxes of one image and class, those of a by score, each with the best one left in b"""
    left, found = np.full(len(b), True), []
    corners = [np.c_[rows[:, 3:5] + rows[:, 5:] / 2, rows[:, 5:]] for rows in (a, b)]
    for i in np.argsort(-a[:, 2], kind="stable"):
        near = np.flatnonzero(left & (b[:, :2] == a[i, :2]).all(axis=1))
        over = yolo.overlaps(corners[0][i:i + 1], corners[1][near])[0]
        if (over > overlap).any():
            best = near[over.argmax()]
            left[best] = False
            found.append((over.max(), abs(a[i, 2] - b[best, 2])))
    return np.array(found).reshape(-1, 2)


def ap(folder, tmp_path, boxes):
    return clients.run("client_coco.py", tmp_path, truths=detectors.truths(folder), detected=boxes, categories=detectors.CLASSES)["ap"][-1, 0] * 100


@pytest.mark.parametrize("name", ["model.qdq.onnx", "model.qop.onnx"])
def test_boxes_of_onnxruntime_are_those_of_the_integer_runtime(build, exports, onnxruntime, trained, tmp_path, name):
    b = exports("onnx")
    got = onnxruntime(name)
    by_numpy = boxes_by_numpy(trained, b, lambda t: got[f"{t['name']}_value"])
    ((row,), _, _), by_runtime = detectors.detections(build, trained, "--integer", name="onnx")
    assert len(by_numpy) == len(by_runtime) > 200
    found = pairs(by_runtime, by_numpy, .99)
    print(f"{name}: {len(by_numpy)} boxes; overlaps from {found[:, 0].min():.6f}, scores apart by up to {found[:, 1].max():.1e}")
    assert len(found) == len(by_runtime) and found[:, 1].max() < 1e-5
    assert abs(ap(trained, tmp_path, by_numpy) - float(row["ap"])) <= .011  # of two digits


@pytest.mark.parametrize("profile", exported.PROFILES)
def test_boxes_of_integers_are_nearly_those_of_the_simulation(build, exports, trained, profile):
    exports(profile)
    ((simulated,), _, _), by_darknet = detectors.detections(build, trained, "--simulate", name=profile)
    ((integer,), _, _), by_runtime = detectors.detections(build, trained, "--integer", name=profile)
    sure, others = (rows[rows[:, 2] > .25] for rows in (by_darknet, by_runtime))
    found, back = pairs(sure, by_runtime, .5), pairs(others, by_darknet, .5)
    print(f"{profile}: AP {simulated['ap']} simulated, {integer['ap']} in integers; above 0.25: {len(found)} of {len(sure)} boxes are there, {len(back)} of "
          f"{len(others)} were; mean overlap {found[:, 0].mean():.4f}, scores apart by {found[:, 1].mean():.4f}, up to {found[:, 1].max():.3f}")
    assert min(len(sure), len(others)) > IMAGES and len(found) >= .97 * len(sure) and len(back) >= .97 * len(others)
    assert found[:, 0].mean() > .97 and found[:, 1].mean() < .02
    assert float(simulated["ap50"]) > 15 and abs(float(simulated["ap"]) - float(integer["ap"])) < .5
