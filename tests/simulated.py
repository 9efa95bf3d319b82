"""A network with simulated quantization in NumPy, for the host tests: forward in float64, and the straight-through
gradient as the exact derivative (complex step) of the network in which every quantizer is replaced, around the
values at hand, by what straight-through says of it: Q(x0) + mask(x0) * (x - x0)."""
import numpy as np


class Quantizer:
    """bits, symmetric; range by the extremes; rounding half to even; low..high: what the range must cover"""

    def __init__(self, bits, symmetric, narrow=False, ratio=1.0):
        self.bits, self.symmetric, self.narrow, self.ratio = bits, symmetric, narrow, ratio
        half = 1 << (bits - 1)
        self.low, self.high = (1 - half if narrow else -half), half - 1

    def scale(self, x):
        lowest, highest = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        if self.symmetric:
            return np.float32(max(highest / self.high, lowest / self.low) * self.ratio), 0
        step = (highest - lowest) / (self.high - self.low)
        zero = int(np.clip(self.low - np.rint(lowest / step), self.low, self.high))
        return np.float32(step * self.ratio), zero

    def apply(self, x, scale):
        """(quantized, mask) of real x"""
        step, zero = scale
        code = np.rint(x.astype(np.float32) / np.float32(step)).astype(np.float64) + zero
        inside = (code >= self.low) & (code <= self.high)
        return (np.clip(code, self.low, self.high) - zero) * float(step), inside


class Tape:
    """One pass on the real values records quantized values and masks; passes on perturbed values use them."""

    def __init__(self):
        self.records, self.at, self.recording = [], 0, True

    def replay(self):
        self.at, self.recording = 0, False

    def keep(self, make):
        if self.recording:
            self.records.append(make())
        self.at += 1
        return self.records[self.at - 1]

    def quantize(self, x, quantizer, scale=None, step_change=0):
        """step_change: how far a learned step is moved from the scale's; LSQ says what that does"""
        def make():
            step, zero = scale or quantizer.scale(x)
            quantized, inside = quantizer.apply(x, (step, zero))
            t = x.astype(np.float32) / np.float32(step)
            slope = np.where(inside, np.rint(t) - t, np.where(t > 0, quantizer.high, quantizer.low) - zero)
            return x.copy(), quantized, inside, slope
        x0, quantized, inside, slope = self.keep(make)
        return quantized + np.where(inside, x - x0, 0) + slope * step_change

    def clipped(self, x, clip, bits, change=0):
        """PACT: codes 0..2^bits-1 of 0..clip; change: how far the clip is moved"""
        def make():
            step = np.float32(clip) / np.float32(2 ** bits - 1)
            code = np.clip(np.rint(x.astype(np.float32) / step), 0, 2 ** bits - 1).astype(np.float64)
            return x.copy(), code * float(step), (x >= 0) & (x < clip), (x >= clip) * 1.0
        x0, quantized, inside, slope = self.keep(make)
        return quantized + np.where(inside, x - x0, 0) + slope * change

    def dorefa(self, w, bits):
        """DoReFa's weights; the derivative goes through tanh and through its largest value"""
        largest = self.keep(lambda: np.unravel_index(abs(w).argmax(), w.shape))
        t = np.tanh(w)
        sign = 1 if w[largest].real > 0 else -1
        t = t / (2 * sign * t[largest]) + 0.5
        levels = 2 ** bits - 1
        t0, quantized = self.keep(lambda: (t.copy(), np.rint(levels * t) / levels))
        return 2 * (quantized + t - t0) - 1

    def leaky(self, x, slope=0.1):
        positive = self.keep(lambda: x > 0)
        return np.where(positive, x, slope * x)


def per_channel(tape, w, bits, step_changes=None):
    """w[rows, k] with one symmetric narrow step a row"""
    q = Quantizer(bits, symmetric=True, narrow=True)
    changes = np.zeros(len(w)) if step_changes is None else step_changes
    return np.stack([tape.quantize(row, q, step_change=change) for row, change in zip(w, changes)])


def convolve(x, w, bias, size, stride=1, pad=None, groups=1):
    """x[batch, c, h, w], w[filters, c/groups * size * size]"""
    pad = size // 2 if pad is None else pad
    batch, channels, height, width = x.shape
    out_h, out_w = (height + 2 * pad - size) // stride + 1, (width + 2 * pad - size) // stride + 1
    padded = np.zeros((batch, channels, height + 2 * pad, width + 2 * pad), x.dtype)
    padded[:, :, pad:pad + height, pad:pad + width] = x
    columns = np.stack([padded[:, :, i:i + stride * out_h:stride, j:j + stride * out_w:stride]
                        for i in range(size) for j in range(size)], 2)  # [batch, c, size*size, out_h, out_w]
    columns = columns.reshape(batch, groups, -1, out_h * out_w)
    kernels = w.reshape(groups, w.shape[0] // groups, -1)
    out = np.einsum("gfk,bgkp->bgfp", kernels, columns).reshape(batch, w.shape[0], out_h, out_w)
    return out + bias[:, None, None]


def maxpool2(tape, x):
    """2x2 stride 2"""
    b, c, h, w = x.shape
    windows = x.reshape(b, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(b, c, h // 2, w // 2, 4)
    which = tape.keep(lambda: windows.argmax(-1))
    return np.take_along_axis(windows, which[..., None], -1)[..., 0]


def cross_entropy(x, truth):
    """Mean over the batch of -sum truth * log softmax(x), x[batch, classes]"""
    x = x - x.real.max(-1, keepdims=True)
    return -(truth * (x - np.log(np.exp(x).sum(-1, keepdims=True)))).sum() / len(x)


def derivatives(loss, weights, elements, step=1e-30):
    """d loss / d weights[name].flat[element], by complex step; loss(weights) replays its tape"""
    out = []
    for name, element in elements:
        moved = {key: w.astype(np.complex128) for key, w in weights.items()}
        moved[name].flat[element] += 1j * step
        out.append(loss(moved).imag / step)
    return np.array(out)
