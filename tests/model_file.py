"""Writes model.kure from Python, from the text of include/kure_runtime.h alone."""
import struct
import zlib

import numpy as np

import integer_reference as reference

KINDS = ("", "convolution", "connected", "maxpool", "average_pool", "upsample", "reorg", "concatenate", "lookup", "add")
REORGS = ("forward", "reverse", "flatten", "unflatten")
HEADER = ("version", "checksum", "file_bytes", "layer_count", "tensors", "layers", "outputs", "output_count", "arena_bytes", "input_rounding",
          "input_factor", "pixel_table")
TENSOR = ("channels", "height", "width", "place", "scale", "zero_point", "low", "high", "bits", "last_reader")
LAYER = ("kind", "source", "arithmetic", "input_count", "inputs", "size", "stride", "padding", "groups", "weight_bits", "weights", "biases",
         "multipliers", "table")
MAGIC = b"KURE\r\n\x1a\n"


def pack_nibbles(codes):
    """Codes -8..7, two in a byte, the first in the low half"""
    codes = np.append(codes.ravel(), 0 if codes.size % 2 else [])[:].astype(np.int64) & 15
    return (codes[0::2] | codes[1::2] << 4).astype(np.uint8).tobytes()


class Tensor:
    def __init__(self, shape, scale=1.0, zero_point=0, low=-128, high=127, bits=8, name=""):
        self.shape, self.scale, self.zero_point, self.name = tuple(shape), np.float32(scale), zero_point, name
        self.low, self.high, self.bits = low, high, bits
        self.place = self.last_reader = None

    @property
    def elements(self):
        return int(np.prod(self.shape))


class Layer:
    """words: size, stride, padding, groups, weight_bits; arrays: weights [rows][row], biases, multipliers [rows][2], table [256]"""

    def __init__(self, kind, inputs, arithmetic="none", parameter=(), source=0, **words):
        self.kind, self.inputs, self.arithmetic, self.source = kind, list(inputs), arithmetic, source
        self.parameter = np.zeros(10, dtype=np.uint32)
        self.parameter[:len(parameter)] = parameter
        self.arrays = {name: words.pop(name) for name in ("weights", "biases", "multipliers", "table") if words.get(name) is not None}
        self.words = {name: word for name, word in words.items() if word is not None}


class Model:
    def __init__(self, tensors, layers, outputs, pixel_table=None, input_rounding=0, input_factor=None, profile="test"):
        self.tensors, self.layers, self.outputs, self.profile = tensors, layers, list(outputs), profile
        self.pixel_table, self.input_rounding, self.input_factor = pixel_table, input_rounding, input_factor
        self.set_last_readers()

    def set_last_readers(self):
        for i, tensor in enumerate(self.tensors):
            readers = [n for n, layer in enumerate(self.layers) if i in layer.inputs]
            tensor.last_reader = len(self.layers) if i in self.outputs else max(readers, default=max(i - 1, 0))

    def place_apart(self):
        at = 0
        for tensor in self.tensors:
            tensor.place, at = at, at + tensor.elements
        return at

    def place_together(self):
        """First fit: a tensor takes the lowest bytes that nobody needs while it lives."""
        most = 0
        for i, tensor in enumerate(self.tensors):
            taken = sorted((other.place, other.place + other.elements) for other in self.tensors[:i] if other.last_reader >= i - 1)
            at = 0
            for first, end in taken:
                if at + tensor.elements <= first:
                    break
                at = max(at, end)
            tensor.place, most = at, max(most, at + tensor.elements)
        return most

    def write(self, together=True):
        arena = self.place_together() if together else self.place_apart()
        count = len(self.layers)
        tensors, layers, outputs = 96, 96 + 64 * (count + 1), 96 + 64 * (count + 1) + 96 * count
        data = bytearray(outputs) + struct.pack(f"<{len(self.outputs)}I", *self.outputs)

        def put(blob):
            data.extend(bytes(-len(data) % 4))
            data.extend(blob)
            return len(data) - len(blob)

        for i, tensor in enumerate(self.tensors):
            words = (*tensor.shape, tensor.place, int(reference.word_of(tensor.scale)), tensor.zero_point, tensor.low, tensor.high, tensor.bits,
                     tensor.last_reader)
            struct.pack_into("<10I24s", data, tensors + 64 * i, *[w & 0xffffffff for w in words], tensor.name.encode())
        for i, layer in enumerate(self.layers):
            words = dict(kind=KINDS.index(layer.kind), source=layer.source, arithmetic=reference.ARITHMETICS.index(layer.arithmetic),
                         input_count=len(layer.inputs), inputs=put(struct.pack(f"<{len(layer.inputs)}I", *layer.inputs)), **layer.words)
            for name, array in layer.arrays.items():
                packed = name == "weights" and layer.words["weight_bits"] == 4
                words[name] = put(pack_nibbles(array) if packed else np.ascontiguousarray(array).tobytes())
            struct.pack_into("<24I", data, layers + 96 * i, *[words.get(name, 0) for name in LAYER], *layer.parameter.tolist())
        pixels = put(np.asarray(self.pixel_table, dtype=np.int8).tobytes()) if self.pixel_table is not None else 0
        factor = self.tensors[0].scale if self.input_factor is None else self.input_factor
        struct.pack_into("<12I", data, 8, 1, 0, len(data), count, tensors, layers, outputs, len(self.outputs), arena, self.input_rounding,
                         int(reference.word_of(factor)), pixels)
        data[:8] = MAGIC
        struct.pack_into("24s", data, 72, self.profile.encode())
        return seal(data)


def seal(data):
    """The bytes with a checksum that fits"""
    data = bytearray(data)
    struct.pack_into("<I", data, 12, zlib.crc32(bytes(data[16:])))
    return bytes(data)


def offset_of(record, field, index=0, count=0):
    """Offset of a word of the header, a tensor or a layer (of `count` layers) in a file that write() made"""
    start, size, names = {"header": (8, 0, HEADER), "tensor": (96, 64, TENSOR), "layer": (96 + 64 * (count + 1), 96, LAYER)}[record]
    place = 14 + field if isinstance(field, int) else names.index(field)
    return start + size * index + 4 * place


def change(data, offset, value):
    """The file with another word, and a checksum that fits"""
    data = bytearray(data)
    struct.pack_into("<I", data, offset, value & 0xffffffff)
    return seal(data)


# ---- what a model computes, in NumPy ---------------------------------------------------

def clamp(tensor, code):
    return np.clip(code + tensor.zero_point, tensor.low, tensor.high).astype(np.int8)


def real_of(tensor, codes):
    return codes.astype(np.int64) - tensor.zero_point


def accumulators(tensor, layer, shape, x):
    """Of a convolution or connected layer whose output has this shape; x: codes of the tensor that it reads"""
    w, x = layer.words, real_of(tensor, x)
    if layer.kind == "connected":
        x, size, stride, padding, groups = x.reshape(-1, 1, 1), 1, 1, 0, 1
    else:
        size, stride, padding, groups = w["size"], w["stride"], w["padding"], w["groups"]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    weights = layer.arrays["weights"].astype(np.int64)
    rows, channels = len(weights), len(x) // groups
    weights = weights.reshape(rows, channels, size, size)
    sums = np.zeros(shape, dtype=np.int64)
    for r in range(rows):
        first = r // (rows // groups) * channels
        for i in range(size):
            for j in range(size):
                part = x[first:first + channels, i:i + (shape[1] - 1) * stride + 1:stride, j:j + (shape[2] - 1) * stride + 1:stride]
                sums[r] += np.tensordot(weights[r, :, i, j], part, axes=(0, 0))
    if "biases" in layer.arrays:
        sums += layer.arrays["biases"].astype(np.int64).reshape(-1, 1, 1)
    return sums


def convolution(model, layer, out, x):
    sums = accumulators(model.tensors[layer.inputs[0]], layer, out.shape, x)
    words = np.zeros((*out.shape, 4), dtype=np.uint32)
    words[..., :2] = layer.arrays["multipliers"].view(np.uint32).reshape(-1, 1, 1, 2)
    words[..., 2:] = layer.parameter[2:4]
    return clamp(out, reference.requantize(layer.arithmetic, sums, words))


def maxpool(layer, out, x):
    size, stride, half = layer.words["size"], layer.words["stride"], layer.words["padding"] // 2
    y = np.zeros(out.shape, dtype=np.int8)
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            top, left = i * stride - half, j * stride - half
            y[:, i, j] = x[:, max(top, 0):top + size, max(left, 0):left + size].max(axis=(1, 2))
    return y


def average_pool(model, layer, out, x):
    tensor = model.tensors[layer.inputs[0]]
    n, codes = tensor.shape[1] * tensor.shape[2], x.astype(np.int64).sum(axis=(1, 2))
    words = np.zeros((len(codes), 4), dtype=np.uint32)
    words[:] = layer.parameter[:4]
    one = words[0] if layer.arithmetic.startswith("shift") else words
    mean = reference.mean(layer.arithmetic, codes - n * tensor.zero_point, codes, n, out.zero_point, one)
    return clamp(out, mean).reshape(out.shape)


def reorg(layer, out, x):
    """blas.c, reorg_cpu, index by index"""
    s, mode = layer.words.get("stride", 1), REORGS[layer.parameter[0]]
    if mode in ("flatten", "unflatten"):
        plane = x.shape[1] * x.shape[2]
        shape = (x.shape[0], plane) if mode == "flatten" else (plane, x.shape[0])
        return x.ravel().reshape(shape).T.ravel().reshape(out.shape)
    c, h, w = x.shape
    flat, y = x.ravel(), np.zeros(x.size, dtype=np.int8)
    for k in range(c):
        for j in range(h):
            for i in range(w):
                one = i + w * (j + h * k)
                c2, offset = k % (c // s ** 2), k // (c // s ** 2)
                other = i * s + offset % s + w * s * (j * s + offset // s + h * s * c2)
                if mode == "reverse":
                    y[other] = flat[one]
                else:
                    y[one] = flat[other]
    return y.reshape(out.shape)


def add(model, layer, out, a, b):
    """blas.c, shortcut_cpu"""
    one, two = (model.tensors[i] for i in layer.inputs)
    y = layer.arrays["table"][a.astype(np.int64) + 128] if "table" in layer.arrays else np.zeros(out.shape, dtype=np.int8)
    stride, sample = max(b.shape[2] // a.shape[2], 1), max(a.shape[2] // b.shape[2], 1)
    c, h, w = (min(p, q) for p, q in zip(a.shape, b.shape))
    at = np.s_[:c, :(h - 1) * sample + 1:sample, :(w - 1) * sample + 1:sample]
    other = np.s_[:c, :(h - 1) * stride + 1:stride, :(w - 1) * stride + 1:stride]
    words = layer.parameter[:7].copy()
    x, z = real_of(one, a[at]), real_of(two, b[other])
    if layer.arithmetic == "float32":
        words[3] = np.int32(out.zero_point).view(np.uint32)
        x, z = a[at].astype(np.int64), b[other].astype(np.int64)
    y[at] = clamp(out, reference.add(layer.arithmetic, x, z, words))
    return y


def run_layer(model, layer, out, x):
    """Codes of tensor `out`; model: anything that has tensors; x: codes of the inputs"""
    if layer.kind in ("convolution", "connected"):
        return convolution(model, layer, out, x[0])
    if layer.kind == "maxpool":
        return maxpool(layer, out, x[0])
    if layer.kind == "average_pool":
        return average_pool(model, layer, out, x[0])
    if layer.kind == "upsample":
        return x[0].repeat(layer.words["stride"], 1).repeat(layer.words["stride"], 2)
    if layer.kind == "reorg":
        return reorg(layer, out, x[0])
    if layer.kind == "concatenate":
        return np.concatenate([v.ravel() for v in x]).reshape(out.shape)
    if layer.kind == "lookup":
        return layer.arrays["table"][x[0].astype(np.int64) + 128]
    return add(model, layer, out, x[0], x[1])


def run(model, codes):
    """Codes of all tensors"""
    values = [np.clip(codes, model.tensors[0].low, model.tensors[0].high).astype(np.int8).reshape(model.tensors[0].shape)]
    for layer, out in zip(model.layers, model.tensors[1:]):
        values.append(run_layer(model, layer, out, [values[i] for i in layer.inputs]))
    return values
