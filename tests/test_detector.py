"""AP of detectors: core/average_precision.c and `darknet kure eval`, against pycocotools and `darknet detector valid`."""
import ctypes
import json
import re

import numpy as np
import pytest

import clients
import detectors
import exported
import networks
import programs
from detectors import CLASSES, evaluate
from detectors import detections as detect
from test_report import report

NAMES = ("red", "blue", "green")
SIZES = ("ap", "ap_small", "ap_medium", "ap_large")


# ---- the core ----------------------------------------------------------------------------

class Truth(ctypes.Structure):
    _fields_ = [("image", ctypes.c_int), ("category", ctypes.c_int), ("box", ctypes.c_double * 4)]


class Detected(ctypes.Structure):
    _fields_ = [("image", ctypes.c_int), ("category", ctypes.c_int), ("score", ctypes.c_double), ("box", ctypes.c_double * 4)]


class Set(ctypes.Structure):
    _fields_ = [("truths", ctypes.POINTER(Truth)), ("truth_count", ctypes.c_size_t), ("detected", ctypes.POINTER(Detected)),
                ("detected_count", ctypes.c_size_t), ("categories", ctypes.c_int), ("threshold", ctypes.c_double)]


class AveragePrecision(ctypes.Structure):
    _fields_ = [("ap", ctypes.c_double * 4), ("ap50", ctypes.c_double), ("ap75", ctypes.c_double), ("precision", ctypes.c_double),
                ("recall", ctypes.c_double), ("f1", ctypes.c_double), ("truths", ctypes.c_size_t), ("detections", ctypes.c_size_t), ("hits", ctypes.c_size_t)]


@pytest.fixture(scope="module")
def core(build):
    return ctypes.CDLL(str(build.program("libkure_export_test.so")))


def by_core(core, truths, detected, categories):
    t = (Truth * len(truths))(*[Truth(int(r[0]), int(r[1]), tuple(r[2:])) for r in truths])
    d = (Detected * len(detected))(*[Detected(int(r[0]), int(r[1]), r[2], tuple(r[3:])) for r in detected])
    rows = (AveragePrecision * (categories + 1))()
    status = core.kure_average_precision(ctypes.byref(Set(t, len(t), d, len(d), categories, 0.5)), rows, ctypes.byref(rows[categories]), None)
    assert status == 0
    return {"ap": np.array([list(r.ap) for r in rows]), "ap50": np.array([r.ap50 for r in rows]), "ap75": np.array([r.ap75 for r in rows])}


def by_pycocotools(folder, truths, detected, categories):
    return clients.run("client_coco.py", folder, truths=truths, detected=detected, categories=categories)


def check_same(got, want):
    for name in ("ap", "ap50", "ap75"):
        assert (np.isnan(got[name]) == np.isnan(want[name])).all(), name
        np.testing.assert_allclose(np.nan_to_num(got[name]), np.nan_to_num(want[name]), rtol=0, atol=1e-9, err_msg=name)


def random_set(rng, images, categories, boxes, others, score):
    """Boxes of all sizes, detections near them and anywhere, in ascending order of images."""
    n = int(rng.integers(0, boxes + 1)) if images > 1 else boxes
    edges = np.exp(rng.uniform(np.log(6), np.log(200), (n, 2)))
    truths = np.c_[rng.integers(0, images, n), rng.integers(0, categories, n), rng.uniform(0, 300, (n, 2)), edges]
    near = np.repeat(truths, rng.integers(0, 4, n), axis=0)
    far = np.c_[rng.integers(0, images, others), rng.integers(0, categories, others), rng.uniform(0, 300, (others, 2)), rng.uniform(-5, 150, (others, 2))]
    near[:, 2:] += rng.normal(0, 0.08, (len(near), 4)) * near[:, [4, 5, 4, 5]] * rng.integers(0, 2, (len(near), 1))
    found = np.r_[near, far]
    found = np.c_[found[:, :2], score(len(found)), found[:, 2:]][rng.permutation(len(found))]
    return truths[np.argsort(truths[:, 0], kind="stable")], found[np.argsort(found[:, 0], kind="stable")]


CASES = {"many": (12, 3, 60, 200), "one image": (1, 2, 25, 150), "one class": (8, 1, 40, 60), "crowded": (2, 1, 60, 400), "nothing to find": (5, 2, 0, 30),
         "nothing found": (5, 2, 20, 0), "few": (6, 4, 5, 3)}


@pytest.mark.clients
@pytest.mark.parametrize("ties", (False, True), ids=("distinct", "ties"))
@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_equals_pycocotools(case, ties, core, tmp_path):
    rng = np.random.default_rng(len(case) + 100 * ties)
    images, categories, boxes, others = CASES[case]
    score = (lambda n: rng.integers(1, 6, n) / 8) if ties else (lambda n: rng.uniform(0, 1, n))
    for _ in range(3):
        truths, found = random_set(rng, images, categories, boxes, others, score)
        if case == "nothing found":
            found = found[:0]
        check_same(by_core(core, truths, found, categories), by_pycocotools(tmp_path, truths, found, categories))


# ---- networks ----------------------------------------------------------------------------

KINDS = ("yolo", "region", "two")


@pytest.fixture(scope="module")
def folder(build, tmp_path_factory):
    """Trained yolo.weights, region.weights, two.weights with their cfgs, and boxes.data."""
    folder = tmp_path_factory.mktemp("rectangles")
    detectors.make(folder)
    for kind in ("yolo", "two"):
        detectors.train(build, folder, detectors.cfg(kind), kind)
    # Darknet trains [region] on a GPU only; with these anchors its outputs mean what [yolo]'s do.
    (folder / "region.cfg").write_text(detectors.cfg("region"))
    (folder / "region.weights").write_bytes((folder / "yolo.weights").read_bytes())
    return folder


def values(row, names):
    return [float(row[name]) / 100 if row[name] not in ("", None) else np.nan for name in names]


@pytest.mark.clients
@pytest.mark.parametrize("options", ((), ("--weight-bits", 3, "--activation-bits", 6)), ids=("float", "quantized"))
@pytest.mark.parametrize("kind", KINDS)
def test_table_equals_pycocotools(kind, options, build, folder, tmp_path):
    ((row,), classes, _), found = detect(build, folder, *options, name=kind)
    want = by_pycocotools(tmp_path, detectors.truths(folder), found, CLASSES)
    got = np.array([values(r, SIZES) for r in [*classes, row]])
    np.testing.assert_allclose(got, want["ap"], atol=1e-4)
    np.testing.assert_allclose([values(r, ("ap50", "ap75")) for r in [*classes, row]], np.c_[want["ap50"], want["ap75"]], atol=1e-4)
    assert [r["class"] for r in classes] == list(NAMES) and np.isnan(got[2, 0]), "no green box is in the list"
    if not options:
        assert 0.1 < got[3, 0] < 0.95, "a trained network, neither at chance nor perfect"


@pytest.mark.parametrize("batch", (2, 8))
@pytest.mark.parametrize("kind", KINDS)
def test_detections_equal_detector_valid(kind, batch, build, folder):
    """VOC's files, one a class: image, score, the box from 1; to the last of the six digits that Darknet writes."""
    (folder / "batch.cfg").write_text(detectors.cfg(kind, batch))
    _, found = detect(build, folder, name=kind, cfg_file="batch.cfg")
    programs.succeed(build.darknet(folder, "detector", "valid", "boxes.data", f"{kind}.cfg", f"{kind}.weights"))
    paths = [re.sub(r".*/|\.png", "", p) for p in (folder / "valid.list").read_text().split()]
    from PIL import Image
    sizes = [Image.open(p).size for p in (folder / "valid.list").read_text().split()]
    count = 0
    for k, name in enumerate(NAMES):
        lines = (folder / f"comp4_det_test_{name}.txt").read_text().split("\n")[:-1]
        own = [row for row in found if row[1] == k]
        assert len(lines) == len(own)
        for line, (image, _, score, x, y, w, h) in zip(lines, own):
            width, height = sizes[int(image)]
            words = line.split()
            assert words[0] == paths[int(image)]
            want = [score, x + 1, y + 1, min(x + w + 1, width), min(y + h + 1, height)]
            np.testing.assert_allclose([float(word) for word in words[1:]], want, rtol=3e-7, atol=2e-5)
            count += 1
    assert count > 200, "boxes of any score above 0.005"


def test_coco_file_of_detector_valid(build, folder):
    """eval=coco: the same boxes, cut at the edges of the image."""
    detectors.write_data(folder, "coco.data", eval="coco")
    _, found = detect(build, folder, name="yolo")
    programs.succeed(build.darknet(folder, "detector", "valid", "coco.data", "yolo.cfg", "yolo.weights"))
    boxes = json.loads((folder / "coco_results.json").read_text())
    got = np.array([[b["image_id"] - 1, b["category_id"] - 1, b["score"], *b["bbox"]] for b in boxes])
    np.testing.assert_allclose(got, found, atol=1e-5)


def by_hand(truths, found, threshold):
    """Hits, detections and boxes at an overlap of 0.5, by COCO's greedy matching."""
    def overlap(a, b):
        w, h = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]), min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        return w * h / (a[2] * a[3] + b[2] * b[3] - w * h) if w > 0 and h > 0 else 0

    free, hits, positives = list(range(len(truths))), 0, 0
    for row in sorted(found.tolist(), key=lambda r: -r[2]):
        if row[2] <= threshold or row[5] * row[6] < 0 or (row[5] < 0 and row[6] < 0):
            continue
        positives += 1
        rivals = [(overlap(row[3:], truths[t][2:]), t) for t in free if truths[t][0] == row[0] and truths[t][1] == row[1]]
        if rivals and max(rivals)[0] >= 0.5:
            hits += 1
            free.remove(max(rivals)[1])
    return hits, positives


@pytest.mark.parametrize("threshold", (0.1, 0.25, 0.6))
def test_precision_recall_f1(threshold, build, folder):
    options = () if threshold == 0.25 else ("--threshold", threshold)
    ((row,), _, _), found = detect(build, folder, *options, name="yolo")
    truths = detectors.truths(folder)
    hits, positives = by_hand(truths, found, threshold)
    want = [hits / positives, hits / len(truths), 2 * hits / (positives + len(truths))]
    np.testing.assert_allclose(values(row, ("precision", "recall", "f1")), want, atol=1e-4)
    assert float(row["threshold"]) == threshold and hits > 5


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_for_any_threads_and_batch(kind, build, folder):
    (folder / "one.cfg").write_text(detectors.cfg(kind, 1))
    rows = [evaluate(build, folder, "--threads", threads, name=kind, cfg_file=cfg)[0][0] for threads, cfg in ((1, None), (2, None), (3, None), (2, "one.cfg"))]
    assert all({**row, "seconds": 0} == {**rows[0], "seconds": 0} for row in rows)


# ---- all that classifiers have ---------------------------------------------------------------

def test_quantizers_matter(build, folder):
    rows, classes, result = evaluate(build, folder, "--weight-bits", "8,4,2", "--activation-bits", "8", name="yolo")
    ap = [float(row["ap"]) for row in rows]
    (float_row,), _, _ = evaluate(build, folder, name="yolo")
    assert abs(ap[0] - float(float_row["ap"])) < 3 and ap[2] < ap[0] - 10
    assert [r["row"] for r in classes] == [1] * 3 + [2] * 3 + [3] * 3
    assert "ap50" in result.stdout and "top1" not in result.stdout and rows[0]["top1"] == ""


@pytest.mark.parametrize("options", (("--bn-images", 30), ("--bias-images", 30), ("--equalize",)), ids=lambda o: o[0])
def test_help_after_training(options, build, folder):
    keys = ("--weight-bits", "4", "--weight-granularity", "tensor")  # some filters become 0: a constant, without a variance
    plain, helped = (evaluate(build, folder, *keys, *o, name="yolo")[0][0] for o in ((), options))
    assert plain["ap"] != helped["ap"] and float(helped["ap"]) > 5


def test_lapq_is_refused(build, folder):
    result = build.darknet(folder, "kure", "eval", "yolo.cfg", "yolo.weights", "boxes.data", "--weight-bits", "4", "--lapq-images", "8")
    programs.refuse(result, "--lapq-images", "[softmax]", "[yolo]")


def test_sweep_and_its_score(build, folder):
    (folder / "sweep.csv").unlink(missing_ok=True)
    arguments = ("kure", "sweep", "yolo.cfg", "yolo.weights", "boxes.data", "--weight-bits", "8,3", "--weight-step-ratio", "0.9,1,1.2", "--csv", "sweep.csv")
    result = programs.succeed(build.darknet(folder, *arguments))
    again = programs.succeed(build.darknet(folder, *arguments))
    score, plain = map(float, re.search(r"robustness ([\d.]+) % AP over 6 points, [\d.]+ of float \(([\d.]+) %\)", result.stdout).groups())
    import csv
    rows = list(csv.DictReader(open(folder / "sweep.csv", newline="")))
    ap = [float(row["ap"]) for row in rows]
    assert plain == ap[0] and len(ap) == 7 and "robustness" in again.stdout
    curves = [np.trapezoid(c, [0.9, 1, 1.2]) / 0.3 if hasattr(np, "trapezoid") else np.trapz(c, [0.9, 1, 1.2]) / 0.3 for c in (ap[1:4], ap[4:])]
    assert score == pytest.approx(np.mean(curves), abs=0.02)
    for i in (1, 2):
        programs.succeed(build.darknet(folder, *arguments[:-1], f"shard{i}.csv", "--shard", f"{i}/2"))
    merged = programs.succeed(build.darknet(folder, "kure", "merge", "shard1.csv", "shard2.csv"))
    assert re.search(r"robustness .*", merged.stdout)[0] == re.search(r"robustness .*", result.stdout)[0]


def test_another_threshold_is_another_grid(build, folder):
    arguments = ("kure", "sweep", "yolo.cfg", "yolo.weights", "boxes.data", "--weight-bits", "8", "--csv", "grid.csv")
    programs.succeed(build.darknet(folder, *arguments))
    programs.refuse(build.darknet(folder, *arguments, "--threshold", "0.5"), "grid.csv:2", "another grid")


QUANTIZATION = networks.section("quantization", bits=8, profile="onnx")


@pytest.mark.parametrize("kind", KINDS)
def test_simulated_and_integer(kind, build, folder):
    (folder / f"q_{kind}.cfg").write_text(detectors.cfg(kind, ours=QUANTIZATION))
    (folder / f"q_{kind}.weights").write_bytes((folder / f"{kind}.weights").read_bytes())
    programs.succeed(build.darknet(folder, "kure", "calibrate", f"q_{kind}.cfg", f"q_{kind}.weights", "boxes.data"))
    simulated, integer = (evaluate(build, folder, option, name=f"q_{kind}")[0][0] for option in ("--simulate", "--integer"))
    (plain,), _, _ = evaluate(build, folder, name=kind)
    assert abs(float(simulated["ap"]) - float(plain["ap"])) < 4
    assert abs(float(simulated["ap"]) - float(integer["ap"])) < 1.5 and abs(float(simulated["ap50"]) - float(integer["ap50"])) < 1.5
    one, three = (evaluate(build, folder, "--integer", "--threads", n, name=f"q_{kind}")[0][0] for n in (1, 3))
    assert one["ap"] == three["ap"] == integer["ap"]
    bundle = exported.export(build, folder, name=f"q_{kind}", bundle=f"{kind}.edge")
    decodes = dict(type="region", class_scores="softmax", anchors=[[1.75, 1.75], [4.5, 4.5]]) if kind == "region" else \
        dict(type="yolo", class_scores="sigmoid", anchors=[[14, 14], [36, 36]])
    decoders = [output["decoder"] for output in bundle.manifest["outputs"]]
    assert len(decoders) == (4 if kind == "two" else 2) and len({d.pop("layer") for d in decoders}) == len(decoders) / 2
    assert all(d == {**decodes, "classes": detectors.CLASSES} for d in decoders)


def test_compare_says_ap(build, folder):
    said = programs.succeed(build.darknet(folder, "kure", "compare", "two.cfg", "two.weights", "boxes.data", "--profiles", "onnx,pow2")).stdout
    onnx, pow2 = (float(re.search(rf"{name}: AP ([\d.]+) %, AP50 ", said)[1]) for name in ("onnx", "pow2"))
    difference = re.search(r"onnx less pow2: ([+-][\d.]+) points of AP on 40 images", said)[1]
    assert float(difference) == pytest.approx(onnx - pow2, abs=0.011)  # of rounded numbers


def test_report_draws_what_eval_has_found(build, folder):
    found = {}
    for name, options in (("float", ()), ("int3", ("--weight-bits", 3, "--activation-bits", 6))):
        _, found[name] = detect(build, folder, *options, name="two")
        (folder / "detections.json").rename(folder / f"{name}.json")
    drawn = report(folder, "float.json", "int3.json", "--data", "boxes.data", "--threshold", "0.3", "-o", "boxes.html")
    assert drawn.returncode == 0, drawn.stderr
    counts = {name: int((rows[:, 2] > .3).sum()) for name, rows in found.items()}
    kept, missing, new = map(int, re.search(rf"int3 +{counts['int3']} +(\d+) +(\d+) +(\d+) ", drawn.stdout).groups())
    assert kept + missing == counts["float"] and kept + new == counts["int3"] and kept > missing > 0
    assert (folder / "boxes.html").read_text().count('<svg role="img"') == 8
