"""report_weights.py: reads the weights of a Darknet network for report.py, given its cfg.

.weights: int32 major, minor, revision; images seen (size_t, int32 before version 0.2);
then per layer biases[n], with batch norm scales[n], mean[n], variance[n], then
weights[n][channels/groups][size][size] (connected: biases, weights, then the rest).
"""
import dataclasses
import pathlib

import numpy as np


class Failure(Exception):
    """A sentence for the user."""


@dataclasses.dataclass
class Layer:
    number: int
    type: str
    weights: np.ndarray  # flat

    def kurtosis(self) -> float:
        """K = m4/s^4 with the n-1 variance, as the authors' code has it."""
        d = self.weights.astype(np.float64) - self.weights.mean(dtype=np.float64)
        return float(np.mean(d ** 4) / (np.sum(d ** 2) / (d.size - 1)) ** 2)


def read_sections(path: pathlib.Path) -> list[tuple[str, dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path}: cannot be read as a cfg: {error}") from None
    sections = []
    for line in text.splitlines():
        line = line.split("#")[0].split(";")[0].replace(" ", "").replace("\t", "")
        if line.startswith("["):
            sections.append((line.strip("[]"), {}))
        elif "=" in line and sections:
            key, value = line.split("=", 1)
            sections[-1][1][key] = value
    if not sections or sections[0][0] not in ("net", "network"):
        raise Failure(f"{path}: is no Darknet cfg: it does not begin with [net]")
    return sections


# sections of ours that are not layers
NOT_LAYERS = ("kurtosis", "quantization")


@dataclasses.dataclass
class Shape:
    height: int
    width: int
    channels: int


def sources_of(options: dict, number: int) -> list[int]:
    given = options.get("layers" if "layers" in options else "from", "-1")
    indices = [int(part) for part in given.split(",")]
    return [number + i if i < 0 else i for i in indices]


def next_shape(kind: str, options: dict, before: Shape, shapes: list[Shape]) -> Shape:
    """Output shape of a layer; raises KeyError for a type that is not known here."""
    size, stride = int(options.get("size", 1)), int(options.get("stride", 1))
    if kind in ("convolutional", "conv"):
        padding = size // 2 if options.get("pad", "0") != "0" else int(options.get("padding", 0))
        def out(n): return (n + 2 * padding - size) // stride + 1
        return Shape(out(before.height), out(before.width), int(options.get("filters", 1)))
    if kind in ("maxpool", "max"):
        size = int(options.get("size", stride))
        padding = int(options.get("padding", size - 1))
        def out(n): return (n + padding - size) // stride + 1
        return Shape(out(before.height), out(before.width), before.channels)
    if kind in ("avgpool", "avg"):
        return Shape(1, 1, before.channels)
    if kind in ("connected", "conn"):
        return Shape(1, 1, int(options.get("output", 1)))
    if kind == "upsample":
        stride = int(options.get("stride", 2))
        return Shape(before.height * stride, before.width * stride, before.channels)
    if kind == "reorg":
        return Shape(before.height // stride, before.width // stride, before.channels * stride * stride)
    if kind == "route":
        inputs = [shapes[i] for i in sources_of(options, len(shapes))]
        return Shape(inputs[0].height, inputs[0].width, sum(s.channels for s in inputs))
    return {"shortcut": before, "dropout": before, "softmax": before, "soft": before, "cost": before, "yolo": before,
            "region": before, "activation": before}[kind]


class Reader:
    """The floats of a .weights file, in order."""

    def __init__(self, path: pathlib.Path):
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise Failure(f"{path}: cannot be read: {error.strerror}") from None
        version = np.frombuffer(raw[:8], "<i4") if len(raw) >= 8 else (0, 0)
        header = 20 if version[0] * 10 + version[1] >= 2 else 16
        if len(raw) < header or (len(raw) - header) % 4:
            raise Failure(f"{path}: is no whole .weights file: {len(raw)} bytes")
        self.path, self.floats, self.at = path, np.frombuffer(raw[header:], "<f4"), 0

    def take(self, count: int, layer: int) -> np.ndarray:
        if self.at + count > self.floats.size:
            raise Failure(f"{self.path}: ends inside layer {layer}: it is cut, or belongs to another cfg")
        self.at += count
        return self.floats[self.at - count:self.at]


def read_weights(cfg: pathlib.Path, path: pathlib.Path) -> list[Layer]:
    """Every convolutional and connected layer of the network, with its weights."""
    sections = [s for s in read_sections(cfg) if s[0] not in NOT_LAYERS]
    reader, layers, shapes = Reader(path), [], []
    try:
        net = sections[0][1]
        shape = Shape(int(net.get("height", 0)), int(net.get("width", 0)), int(net.get("channels", 0)))
        for number, (kind, options) in enumerate(sections[1:]):
            after = next_shape(kind, options, shape, shapes)
            norm = options.get("batch_normalize", "0") != "0"
            if kind in ("convolutional", "conv"):
                per_filter = shape.channels // int(options.get("groups", 1)) * int(options.get("size", 1)) ** 2
                reader.take(after.channels * (4 if norm else 1), number)
                layers.append(Layer(number, "convolutional", reader.take(after.channels * per_filter, number)))
            elif kind in ("connected", "conn"):
                inputs = shape.height * shape.width * shape.channels
                reader.take(after.channels, number)
                layers.append(Layer(number, "connected", reader.take(after.channels * inputs, number)))
                reader.take(after.channels * (3 if norm else 0), number)
            shapes.append(after)
            shape = after
    except KeyError as error:
        raise Failure(f"{cfg}: histograms do not know the layer [{error.args[0]}]") from None
    except (ValueError, ZeroDivisionError, IndexError):
        raise Failure(f"{cfg}: layer {len(shapes)}: a number cannot be read or is out of range") from None
    if reader.at != reader.floats.size:
        raise Failure(f"{path}: {4 * (reader.floats.size - reader.at)} bytes left over: it belongs to another cfg than {cfg}")
    for layer in layers:
        if layer.weights.size == 0 or not np.isfinite(layer.weights).all():
            raise Failure(f"{path}: layer {layer.number} holds weights that are no finite numbers")
    return layers
