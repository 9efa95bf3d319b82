"""Cfg texts, .weights files and dumped tensors: what the host tests feed to Darknet and read back.

The layout of .weights files is written down here a second time, from Darknet's parser.c."""
import struct

import numpy as np


def section(name, **keys):
    return f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items()) + "\n"


def net(**keys):
    defaults = dict(batch=4, subdivisions=1, width=16, height=16, channels=3, momentum=0.9, decay=0.0005,
                    learning_rate=0.1, policy="constant", max_batches=10)
    return section("net", **{**defaults, **keys})


def conv(filters, size=3, **keys):
    defaults = dict(batch_normalize=1, filters=filters, size=size, stride=1, pad=1, activation="leaky")
    return section("convolutional", **{**defaults, **keys})


def classifier_head(classes, connected=False):
    if connected:
        return section("connected", output=classes, activation="linear") + section("softmax", groups=1)
    return conv(classes, size=1, batch_normalize=0, activation="linear") + section("avgpool") + section("softmax", groups=1)


def yolo(classes, anchors="4,5, 8,10", **keys):
    pairs = anchors.count(",") // 2 + 1
    mask = ",".join(str(i) for i in range(pairs))
    return (conv(pairs * (5 + classes), size=1, batch_normalize=0, activation="linear")
            + section("yolo", mask=mask, anchors=anchors, classes=classes, num=pairs, jitter=".2", ignore_thresh=".7",
                      truth_thresh=1, **keys))


def classifier(net_keys=None, kurtosis=None, layers=None, classes=3):
    """A small classifier: groups, a shortcut, a route; layers 0, 1, 3, 5 and 7 have weights."""
    body = layers if layers is not None else (
        conv(8) + conv(8, groups=2) + section("maxpool", size=2, stride=2) + conv(8) + section("shortcut", activation="linear", **{"from": -2})
        + conv(8, batch_normalize=0) + section("route", layers="-1,-3") + classifier_head(classes))
    ours = "" if kurtosis is None else section("kurtosis", **kurtosis)
    return net(**(net_keys or {})) + ours + body


def every_layer(connected=True):
    """The layers of the seam test: batch norm, leaky, groups, maxpool, shortcut, route, dropout, connected, softmax."""
    return (net(batch=4, subdivisions=2)
            + conv(8) + conv(8, groups=4) + section("shortcut", activation="leaky", **{"from": -2})
            + section("maxpool", size=2, stride=2) + conv(12, activation="relu") + section("route", layers="-1,-2")
            + conv(10, size=1, batch_normalize=0) + section("dropout", probability=".3")
            + section("connected", output=16, batch_normalize=1, activation="leaky") + classifier_head(5, connected))


def detector(kurtosis=None, filters=6, random=0, **net_keys):
    """Two scales, upsample and route, as yolov3-tiny in small."""
    ours = "" if kurtosis is None else section("kurtosis", **kurtosis)
    return (net(**{**dict(width=32, height=32, batch=4, subdivisions=2, learning_rate=0.01), **net_keys}) + ours
            + conv(filters, stride=2) + conv(2 * filters, stride=2) + conv(2 * filters, stride=2) + yolo(2, random=random)
            + section("route", layers="-3") + conv(filters, size=1) + section("upsample", stride=2)
            + section("route", layers="-1,1") + yolo(2, random=random))


# ---- files ---------------------------------------------------------------------

def read_tensors(path):
    """A dump of tests/host/harness.c: {"layers.0.weights": float32 array, ...}"""
    tensors = {}
    with open(path, "rb") as file:
        while True:
            line = file.readline()
            if not line:
                return tensors
            name, count = line.split()
            tensors[name.decode()] = np.frombuffer(file.read(4 * int(count)), np.float32).copy()


def layer_types(cfg_text):
    types = [line.strip()[1:-1] for line in cfg_text.splitlines() if line.startswith("[")]
    return [t for t in types[1:] if t not in ("kurtosis", "quantization")]  # [quantize] is a layer


def weight_order(cfg_text, tensors):
    """Names of the tensors in the order in which a .weights file has them, with the layer they belong to."""
    for i, kind in enumerate(layer_types(cfg_text)):
        if kind not in ("convolutional", "connected"):
            continue
        norm = [f"layers.{i}.{x}" for x in ("scales", "rolling_mean", "rolling_variance") if f"layers.{i}.rolling_mean" in tensors]
        middle = [f"layers.{i}.weights"]
        rest = norm + middle if kind == "convolutional" else middle + norm
        for name in [f"layers.{i}.biases"] + rest:
            yield i, name


HEADER_BYTES = 20


def write_weights(path, cfg_text, tensors, seen=0):
    with open(path, "wb") as file:
        file.write(struct.pack("<iiiQ", 0, 2, 0, seen))
        for _, name in weight_order(cfg_text, tensors):
            file.write(np.asarray(tensors[name], np.float32).tobytes())


def read_weights(path, cfg_text, like):
    """`like`: tensors of the same network, for the sizes."""
    tensors = {}
    with open(path, "rb") as file:
        file.read(HEADER_BYTES)
        for _, name in weight_order(cfg_text, like):
            tensors[name] = np.frombuffer(file.read(4 * like[name].size), np.float32).copy()
        assert not file.read(1), f"{path}: bytes left over"
    return tensors


def weight_boundaries(cfg_text, tensors):
    """[(first byte, one past the last byte)] of every layer with weights."""
    ends, at = {}, HEADER_BYTES
    for layer, name in weight_order(cfg_text, tensors):
        start = ends[layer][0] if layer in ends else at
        at += 4 * tensors[name].size
        ends[layer] = (start, at)
    return ends
