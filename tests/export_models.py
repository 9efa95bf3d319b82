"""Small networks as export makes them: random codes, and scales that the words of each profile's arithmetic follow from.

The words come from the targets' own expressions, in NumPy's float32 and Python's float64; what the networks
compute, model_file.run says."""
import numpy as np

import integer_reference as reference
import model_file
import random_models
from model_file import Layer

ARITHMETIC = {"onnx": "float32", "tensorrt": "float32_divided", "ncnn": "float32_multiplied", "tflite": "double_rounding",
              "tflite-single": "single_rounding", "cmsis": "double_rounding", "pow2": "shift_half_up"}
ONE = np.float32(1)


def fixed_point(real):
    """quantization_util.cc, QuantizeMultiplier"""
    fraction, shift = np.frexp(float(real))
    multiplier = int(np.floor(fraction * 2 ** 31 + .5))
    if multiplier == 2 ** 31:
        multiplier, shift = multiplier // 2, shift + 1
    return (0, 0) if shift < -31 else (multiplier, int(shift))


class Network(random_models.Maker):
    """Each layer is calibrated, as a network is, on the codes that two images have in front of it."""

    def __init__(self, seed, profile, shape, symmetric=None):
        self.profile, self.samples = profile, []
        super().__init__(seed, ARITHMETIC[profile], shape, symmetric=profile in ("tensorrt", "ncnn", "pow2") if symmetric is None else symmetric)
        self.keeps_scale = profile in ("tflite", "tflite-single", "cmsis")
        t = self.tensors[0]
        t.name, t.zero_point, t.low, t.high = "input", 0 if self.symmetric else -128, -127 if profile == "ncnn" else -128, 127
        t.scale = np.float32(2.0 ** -7) if profile == "pow2" else ONE / np.float32(127 if self.symmetric else 255)
        pixels = self.rng.integers(0, 256, (2, *shape)) / np.float32(255)
        self.samples.append([np.clip(np.rint(x / t.scale) + t.zero_point, t.low, t.high).astype(np.int8) for x in pixels])

    def new_tensor(self, shape, like=None, relu=False):
        super().new_tensor(shape, like, relu)
        t = self.tensors[-1]
        t.name = f"layer_{len(self.tensors) - 2}"
        if like is None:
            t.zero_point, t.low, t.high = 0, -127 if self.profile == "ncnn" else -128, 127

    def calibrate(self, values, relu=False):
        """Scale, zero point and limits of the last tensor, for these float64 values"""
        t = self.tensors[-1]
        low, high = (0 if relu else min(float(np.min(values)), -1e-3)), max(float(np.max(values)), 1e-3)
        if self.symmetric:
            t.scale = np.float32(max(-low, high) / 127)
        else:
            t.scale = np.float32((high - low) / 255)
            t.zero_point = int(np.rint(-128 - low / float(t.scale)))
        if self.profile == "pow2":
            t.scale = np.exp2(np.round(np.log2(t.scale))).astype(np.float32)
        if self.profile == "ncnn":
            t.scale = ONE / (ONE / t.scale)
        if relu:
            t.low = t.zero_point

    def real(self, tensor):
        """The values of the images at a tensor, [2][...]"""
        t = self.tensors[tensor]
        return np.stack([float(t.scale) * (c.astype(float) - t.zero_point) for c in self.samples[tensor]])

    def put(self, kind, inputs, **words):
        names = ("activation", "slope", "lookup", "weight_scales", "one_scale", "biases", "weight_bits")
        extra = {name: words.pop(name) for name in names if name in words and kind not in ("convolution", "connected")}
        layer = words.pop("layer", None) or Layer(kind, inputs, source=len(self.layers), **words)
        layer.extra = extra or getattr(layer, "extra", {})
        self.layers.append(layer)
        out = self.tensors[len(self.layers)]
        self.samples.append([model_file.run_layer(self, layer, out, [self.samples[i][k] for i in inputs]) for k in range(2)])
        return len(self.layers)

    def weighted(self, kind, out_shape, row, weight_bits, of, relu, **words):
        rows, rng, given = out_shape[0], self.rng, self.tensors[of].scale
        weights = self.weights(rows, row, weight_bits)
        if self.profile not in ("onnx", "tensorrt"):
            weights = np.maximum(weights, 1 - 2 ** (weight_bits - 1)).astype(np.int8)
        self.new_tensor(out_shape)
        out = self.tensors[-1]
        layer = Layer(kind, [of], arithmetic=self.arithmetic, source=len(self.layers), weights=weights, weight_bits=4 if weight_bits <= 4 else 8, **words)
        sums = np.stack([model_file.accumulators(self.tensors[of], layer, out_shape, x) for x in self.samples[of]], axis=1).reshape(rows, -1)
        one_scale = self.profile != "ncnn" and rng.random() < .3
        spread = np.maximum(sums.std(axis=1), 1)
        scales = ((np.full(rows, 1 / np.median(spread)) if one_scale else rng.uniform(.5, 1.5, rows) / spread) / float(given)).astype(np.float32)
        if self.profile == "pow2":
            scales = np.exp2(np.round(np.log2(scales))).astype(np.float32)
        products = given * scales
        codes = np.rint(rng.normal(0, .5, rows) / products - sums.mean(axis=1)).astype(np.int32)
        biases = (codes * products.astype(float)).astype(np.float32)
        self.calibrate((sums + codes[:, None]) * products[:, None].astype(float), relu)
        multipliers = np.zeros((rows, 2), dtype=np.uint32)
        if self.profile == "onnx":
            multipliers[:, 0] = reference.word_of(products / out.scale)
        elif self.arithmetic.endswith("rounding"):
            both = [fixed_point(float(given) * float(s) / float(out.scale)) for s in scales]
            multipliers[:] = np.array(both).astype(np.int64).astype(np.uint32)
        elif self.profile == "pow2":
            multipliers[:, 1] = np.round(-np.log2(products / out.scale)).astype(np.int32).view(np.uint32)
        else:
            multipliers[:, 0], multipliers[:, 1] = reference.word_of(products), reference.word_of(biases)
            layer.parameter[2:4] = reference.word_of([1, ONE / out.scale if self.profile == "ncnn" else out.scale])
        layer.arrays["multipliers"] = multipliers
        if self.profile not in ("ncnn", "tensorrt"):
            layer.arrays["biases"] = codes
        layer.extra = dict(weight_bits=weight_bits, weight_scales=scales, one_scale=int(one_scale), biases=biases, activation="relu" if relu else "linear")
        return self.put(kind, [of], layer=layer)

    def average_pool(self):
        t = self.tensors[self.last]
        n = np.float32(t.shape[1] * t.shape[2])
        parameter = np.zeros(4, dtype=np.uint32)
        self.new_tensor((t.shape[0], 1, 1), like=self.last if self.keeps_scale else None)
        out = self.tensors[-1]
        if not self.keeps_scale:
            self.calibrate(self.real(self.last).mean(axis=(2, 3)))
        if self.profile == "onnx":
            parameter[0] = reference.word_of(t.scale / (out.scale * n))
        elif self.arithmetic.startswith("float32"):
            parameter[[0, 2, 3]] = reference.word_of([t.scale / n, 1, ONE / out.scale if self.profile == "ncnn" else out.scale])
        elif self.profile == "pow2":
            parameter[1] = np.round(-np.log2(t.scale / out.scale)).astype(np.int32).view(np.uint32)
        return self.put("average_pool", [self.last], arithmetic=self.arithmetic, parameter=parameter)

    def leaky(self, slope=.1):
        return self.table(lambda x: np.where(x >= 0, x, np.float32(slope) * x), activation="leaky", slope=slope, lookup="activation")

    def table(self, function, **extra):
        """LOOKUP of a function of float32 values; round as the profile does"""
        of = self.last
        self.new_tensor(self.tensors[of].shape)
        self.calibrate(function(self.real(of)))
        t, out = self.tensors[of], self.tensors[-1]
        table = self.table_of(function, t, out)
        if self.keeps_scale and extra.get("activation") == "leaky":  # activations.cc, LeakyReluPrepare: float32 ratios
            table = self.fixed_table(t, out, t.scale / out.scale, t.scale * np.float32(extra["slope"]) / out.scale)
        return self.put("lookup", [of], table=table, **extra)

    def fixed_table(self, t, out, above, below):
        """Codes times one of two ratios, in the profile's fixed point arithmetic"""
        multiply = reference.single_rounding_one if self.profile == "tflite-single" else reference.double_rounding_one
        x = [c - t.zero_point for c in range(-128, 128)]
        codes = [multiply(v, *fixed_point(above if v >= 0 else below)) + out.zero_point for v in x]
        return np.clip(codes, out.low, out.high).astype(np.int8)

    def table_of(self, function, t, out):
        values = function((t.scale * (np.arange(-128, 128) - t.zero_point).astype(np.float32)).astype(np.float32)).astype(np.float32) / out.scale
        rounded = np.rint(values) if self.profile in ("onnx", "tensorrt") else np.copysign(np.floor(np.abs(values) + .5), values)
        return np.clip(rounded + out.zero_point, out.low, out.high).astype(np.int8)

    def concatenate(self, inputs):
        like, same = inputs[0], []
        for i in inputs:
            t, first = self.tensors[i], self.tensors[like]
            if (t.scale, t.zero_point) != (first.scale, first.zero_point):
                super().new_tensor(t.shape, like=like)
                out = self.tensors[-1]
                out.name, out.low, out.high = f"layer_{len(self.layers) + 1}_from_{i - 1}", -127 if self.profile == "ncnn" else -128, 127
                ratio = float(t.scale) / float(out.scale)  # quantize.cc
                table = self.fixed_table(t, out, ratio, ratio) if self.keeps_scale else self.table_of(lambda x: x, t, out)
                i = self.put("lookup", [i], table=table, lookup="requantize")
            same.append(i)
        shapes = [self.tensors[i].shape for i in same]
        self.new_tensor((sum(s[0] for s in shapes), *shapes[0][1:]), like=like)
        self.tensors[-1].low, self.tensors[-1].high = min(self.tensors[i].low for i in same), max(self.tensors[i].high for i in same)
        return self.put("concatenate", same)

    def add(self, a, b):
        one, two, parameter = self.tensors[a], self.tensors[b], np.zeros(7, dtype=np.uint32)
        self.new_tensor(one.shape)
        out = self.tensors[-1]
        x, y = self.real(a), self.real(b)
        self.calibrate(x + y if x.shape == y.shape else [x.min() + y.min(), x.max() + y.max()])
        if self.profile == "onnx":
            ratio_a, ratio_b = one.scale / out.scale, two.scale / out.scale
            fixed = np.float32(out.zero_point) - (ratio_a * np.float32(one.zero_point) + ratio_b * np.float32(two.zero_point))
            parameter[:3] = reference.word_of([ratio_a, ratio_b, fixed])
        elif self.arithmetic.startswith("float32"):
            parameter[:4] = reference.word_of([one.scale, two.scale, 1, ONE / out.scale if self.profile == "ncnn" else out.scale])
        elif self.arithmetic.endswith("rounding"):
            twice = 2 * float(max(one.scale, two.scale))
            for i, real in enumerate((float(one.scale) / twice, float(two.scale) / twice, twice / (2 ** 20 * float(out.scale)))):
                parameter[2 * i:2 * i + 2] = np.array(fixed_point(real)).astype(np.int64).astype(np.uint32)
            parameter[6] = 20
        else:
            exponents = [int(np.round(np.log2(t.scale))) for t in (one, two, out)]
            least = min(exponents[:2])
            parameter[:3] = np.array([exponents[0] - least, exponents[1] - least, exponents[2] - least]).astype(np.uint32)
        covered = all(p <= q for p, q in zip(one.shape, two.shape))
        table = None if covered else self.table_of(lambda v: v, one, out)
        return self.put("add", [a, b], arithmetic=self.arithmetic, parameter=parameter, table=table)


def detector(seed, profile, weight_bits=8, reorg=True, add=True, groups=True):
    """Every kind of layer: leaky tables, shortcut, groups, route of two scales, upsample, reorg, two heads"""
    m = Network(seed, profile, (3, 16, 16))
    m.convolution(8, weight_bits=8)
    m.leaky()
    m.maxpool()
    first = m.convolution(16, weight_bits=weight_bits, relu=True)
    m.convolution(8, size=1, padding=0, weight_bits=weight_bits)
    m.leaky(.25)
    shortcut = m.convolution(16, groups=2 if groups else 1, weight_bits=weight_bits)
    if add:
        shortcut = m.add(m.last, first)
    m.convolution(16, groups=16 if groups else 1, stride=2, weight_bits=weight_bits, relu=True)
    pool = m.maxpool(size=2, stride=1)
    head = m.convolution(6, size=1, padding=0, weight_bits=8)
    m.convolution(4, size=1, padding=0, weight_bits=weight_bits, of=pool)
    up = m.upsample()
    joined = m.concatenate([up, shortcut])
    if reorg:
        m.reorg()
    deep = m.convolution(5, size=1, padding=0, weight_bits=weight_bits)
    return m, [head, deep], joined


def classifier(seed, profile, weight_bits=8, connected=True):
    """Convolutions, pools, two layers that are connected, or the mean over the image"""
    m = Network(seed, profile, (3, 14, 14))
    m.convolution(8, weight_bits=8, relu=True)
    m.maxpool()
    m.convolution(12, weight_bits=weight_bits, relu=True)
    m.maxpool(size=3, stride=2)
    if connected:
        m.connected(20, weight_bits=weight_bits)
        m.leaky()
        m.connected(10, weight_bits=8)
    else:
        m.convolution(10, size=1, padding=0, weight_bits=8)
        m.average_pool()
    return m, [m.last], None
