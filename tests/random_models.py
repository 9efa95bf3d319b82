"""Layers and small networks with random weights, for the tests of the integer runtime."""
import numpy as np

import integer_reference as reference
from model_file import Layer, Model, Tensor


class Maker:
    """Adds layers one by one; each output has a scale of its own, or that of its input where codes only move."""

    def __init__(self, seed, arithmetic, shape, bits=8, symmetric=None):
        self.rng, self.arithmetic, self.bits = np.random.default_rng(seed), arithmetic, bits
        self.symmetric = arithmetic.startswith("shift") if symmetric is None else symmetric
        self.layers, self.tensors = [], []
        self.new_tensor(shape)

    def new_tensor(self, shape, like=None, relu=False):
        half = 2 ** (self.bits - 1)
        if like is not None:
            t = self.tensors[like]
            self.tensors.append(Tensor(shape, t.scale, t.zero_point, t.low, t.high, t.bits, f"{len(self.tensors)}"))
            return
        zero = 0 if self.symmetric else int(self.rng.integers(-half, half))
        scale = np.exp2(self.rng.integers(-9, -3)) if self.arithmetic.startswith("shift") else np.exp2(self.rng.uniform(-9, -3))
        self.tensors.append(Tensor(shape, scale, zero, zero if relu else -half, half - 1, self.bits, f"{len(self.tensors)}"))

    def put(self, kind, inputs, **words):
        self.layers.append(Layer(kind, inputs, source=len(self.layers), **words))
        return len(self.layers)

    @property
    def last(self):
        return len(self.layers)

    def slope(self):
        return self.rng.choice([1, 1, .1, 0])

    # ---- words of the arithmetic, so that outputs spread over the codes ------------------

    def multipliers(self, rows, spread):
        """spread: standard deviation of the sums, of each row"""
        rng, words, parameter = self.rng, np.zeros((rows, 2), dtype=np.uint32), np.zeros(4, dtype=np.uint32)
        want = 2.0 ** (self.bits - 3) * rng.uniform(.5, 1.5, rows) / np.maximum(spread, 1)
        if self.arithmetic == "float32":
            words[:, 0] = reference.word_of(want)
        elif self.arithmetic.startswith("float32"):
            last = np.exp2(rng.uniform(-6, 0))
            words[:, 0] = reference.word_of(want * last)
            words[:, 1] = reference.word_of(rng.normal(0, 2.0 ** (self.bits - 4), rows) * last)
            parameter[2:] = reference.word_of([self.slope(), 1 / last if self.arithmetic == "float32_multiplied" else last])
        elif self.arithmetic.endswith("rounding"):
            fraction, shift = np.frexp(want)
            words[:, 0], words[:, 1] = (fraction * 2 ** 31).astype(np.int64), shift.astype(np.int32).view(np.uint32)
        else:
            words[:, 1] = np.clip(np.round(-np.log2(want)), -30, 62).astype(np.int32).view(np.uint32)
        return words, parameter

    def weights(self, rows, row, bits):
        low = 1 - 2 ** (bits - 1) - int(self.rng.random() < .3)
        weights = self.rng.integers(low, 2 ** (bits - 1), (rows, row)).astype(np.int8)
        weights[self.rng.random(rows) < .05] = 0
        return weights

    def weighted(self, kind, out_shape, row, weight_bits, of, relu, **words):
        rows = out_shape[0]
        weights = self.weights(rows, row, weight_bits)
        spread = np.sqrt((weights.astype(float) ** 2).sum(axis=1)) * 2.0 ** (self.bits - 1) * .6
        multipliers, parameter = self.multipliers(rows, spread)
        biases = (self.rng.normal(0, .5, rows) * np.maximum(spread, 1)).astype(np.int32)
        if self.arithmetic in ("float32_multiplied", "float32_divided") or self.rng.random() < .1:
            biases = None
        self.new_tensor(out_shape, relu=relu)
        return self.put(kind, [of], arithmetic=self.arithmetic, parameter=parameter, weights=weights, biases=biases, multipliers=multipliers,
                        weight_bits=4 if weight_bits <= 4 else 8, **words)

    # ---- layers -----------------------------------------------------------------------

    def convolution(self, rows, size=3, stride=1, padding=1, groups=1, weight_bits=8, of=None, relu=False):
        of = self.last if of is None else of
        c, h, w = self.tensors[of].shape
        shape = (rows, (h + 2 * padding - size) // stride + 1, (w + 2 * padding - size) // stride + 1)
        return self.weighted("convolution", shape, c // groups * size * size, weight_bits, of, relu, size=size, stride=stride, padding=padding,
                             groups=groups)

    def connected(self, rows, weight_bits=8):
        return self.weighted("connected", (rows, 1, 1), self.tensors[self.last].elements, weight_bits, self.last, False)

    def maxpool(self, size=2, stride=2, padding=None):
        padding = size - 1 if padding is None else padding
        c, h, w = self.tensors[self.last].shape
        self.new_tensor((c, (h + padding - size) // stride + 1, (w + padding - size) // stride + 1), like=self.last)
        return self.put("maxpool", [self.last], size=size, stride=stride, padding=padding)

    def average_pool(self):
        c, h, w = self.tensors[self.last].shape
        parameter = np.zeros(4, dtype=np.uint32)
        if self.arithmetic.endswith("rounding"):
            self.new_tensor((c, 1, 1), like=self.last)
        else:
            self.new_tensor((c, 1, 1))
            words, parameter = self.multipliers(1, 2.0 ** (self.bits - 1) * h * w)
            parameter[0] = words[0, 0]
            if self.arithmetic.startswith("shift"):
                parameter[1] = np.int32(self.rng.integers(-2, 2)).view(np.uint32)
        return self.put("average_pool", [self.last], arithmetic=self.arithmetic, parameter=parameter)

    def upsample(self, stride=2):
        c, h, w = self.tensors[self.last].shape
        self.new_tensor((c, h * stride, w * stride), like=self.last)
        return self.put("upsample", [self.last], stride=stride)

    def reorg(self, mode="forward", stride=2):
        c, h, w = self.tensors[self.last].shape
        shape = {"forward": (c * stride ** 2, h // stride, w // stride), "reverse": (c // stride ** 2, h * stride, w * stride),
                 "flatten": (c * h, w, 1), "unflatten": (c, w, h)}[mode]
        self.new_tensor(shape, like=self.last)
        index = ("forward", "reverse", "flatten", "unflatten").index(mode)
        return self.put("reorg", [self.last], parameter=[index], stride=1 if index > 1 else stride)

    def lookup(self, function=None, of=None, like=None):
        """A random table, or function(code)"""
        of = self.last if of is None else of
        self.new_tensor(self.tensors[of].shape, like=like)
        t = self.tensors[-1]
        table = self.rng.integers(t.low, t.high + 1, 256) if function is None else [function(c, self.tensors[of], t) for c in range(-128, 128)]
        return self.put("lookup", [of], table=np.clip(table, t.low, t.high).astype(np.int8))

    def concatenate(self, inputs):
        """Inputs of other scales than the first are brought to its own by tables, as an exporter does."""
        like = inputs[0]
        same = [i if self.tensors[i].scale == self.tensors[like].scale and self.tensors[i].zero_point == self.tensors[like].zero_point
                else self.lookup(rescale, of=i, like=like) for i in inputs]
        shapes = [self.tensors[i].shape for i in same]
        self.new_tensor((sum(s[0] for s in shapes), *shapes[0][1:]), like=like)
        self.tensors[-1].low = min(self.tensors[i].low for i in same)
        return self.put("concatenate", same)

    def add(self, a, b):
        one, two = self.tensors[a], self.tensors[b]
        self.new_tensor(one.shape)
        out, parameter = self.tensors[-1], np.zeros(7, dtype=np.uint32)
        scale_a, scale_b, scale = one.scale, two.scale, max(one.scale, two.scale) * np.float32(1.25)
        if self.arithmetic == "float32":
            ratio_a, ratio_b = scale_a / scale, scale_b / scale
            fixed = np.float32(out.zero_point) - (ratio_a * np.float32(one.zero_point) + ratio_b * np.float32(two.zero_point))
            parameter[:3] = reference.word_of([ratio_a, ratio_b, fixed])
        elif self.arithmetic.startswith("float32"):
            parameter[:4] = reference.word_of([scale_a, scale_b, self.slope(), 1 / scale if self.arithmetic == "float32_multiplied" else scale])
        elif self.arithmetic.endswith("rounding"):
            twice = 2 * float(max(scale_a, scale_b))
            for i, real in enumerate((scale_a / twice, scale_b / twice, twice / (2 ** 20 * float(scale)))):
                fraction, shift = np.frexp(float(real))
                parameter[2 * i:2 * i + 2] = np.array([int(fraction * 2 ** 31), shift]).astype(np.int64).astype(np.uint32)
            parameter[6] = 20
        else:
            exponents = [int(np.round(np.log2(s))) for s in (scale_a, scale_b)]
            parameter[:3] = [exponents[0] - min(exponents), exponents[1] - min(exponents), abs(exponents[0] - exponents[1]) + 1]
        covered = all(p <= q for p, q in zip(one.shape, two.shape))
        table = None if covered else self.rng.integers(out.low, out.high + 1, 256).astype(np.int8)
        return self.put("add", [a, b], arithmetic=self.arithmetic, parameter=parameter, table=table)

    def model(self, outputs=None, **options):
        return Model(self.tensors, self.layers, outputs or [self.last], **options)

    def codes(self):
        return self.rng.integers(-128, 128, self.tensors[0].shape).astype(np.int8)


def rescale(code, of, to):
    """The nearest code of the other scale"""
    return int(np.rint((code - of.zero_point) * float(of.scale) / float(to.scale))) + to.zero_point


def leaky(code, of, to):
    x = (code - of.zero_point) * float(of.scale)
    return int(np.rint((x if x > 0 else .1 * x) / float(to.scale))) + to.zero_point


def two_heads(seed, arithmetic, weight_bits=8, bits=8):
    """A small detector: leaky tables, shortcut, groups, route of two, upsample, reorg, two heads"""
    m = Maker(seed, arithmetic, (3, 16, 16), bits=bits)
    m.convolution(8, weight_bits=8)
    m.lookup(leaky)
    m.maxpool()
    first = m.convolution(16, weight_bits=weight_bits, relu=True)
    m.convolution(8, size=1, padding=0, weight_bits=weight_bits)
    m.lookup(leaky)
    m.convolution(16, groups=2, weight_bits=weight_bits)
    shortcut = m.add(m.last, first)
    m.convolution(16, groups=16, stride=2, weight_bits=weight_bits)
    m.maxpool(size=2, stride=1)
    head = m.convolution(6, size=1, padding=0, of=m.last)
    m.convolution(4, size=1, padding=0, weight_bits=weight_bits, of=m.last - 1)
    m.upsample()
    up = m.last
    joined = m.concatenate([up, shortcut])
    m.reorg()
    deep = m.convolution(5, size=1, padding=0, weight_bits=weight_bits)
    boxes = m.convolution(4, of=joined)
    return m, m.model([head, deep, boxes])
