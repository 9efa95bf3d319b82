"""What integer inference computes, once more: NumPy's float32, exact integers and fractions, from the targets' specifications.

Nothing here is shared with the C code. Functions take int64 arrays and the words of a model
file, and give codes less the zero point, cut at +-2^30 as math/kure_intmath.h says.
"""
from fractions import Fraction

import numpy as np

MOST = 2 ** 30
INT32_MAX = 2 ** 31 - 1
ARITHMETICS = ("none", "float32", "float32_multiplied", "float32_divided", "double_rounding", "single_rounding", "shift_half_up",
               "shift_half_away")


def float_of(word):
    return np.asarray(word, dtype=np.uint32).view(np.float32)


def word_of(value):
    return np.asarray(value, dtype=np.float32).view(np.uint32)


def signed(word):
    return np.asarray(word, dtype=np.uint32).view(np.int32).astype(np.int64)


def cut(x):
    return np.clip(x, -MOST, MOST).astype(np.int64)


# ---- rounding ------------------------------------------------------------------------

def half_even(x):
    """of float32"""
    return cut(np.rint(x.astype(np.float64)))


def half_away(x):
    """C's round(), of float32: in float64 the sum with 1/2 is exact"""
    x = np.clip(x.astype(np.float64), -MOST, MOST)
    return cut(np.copysign(np.floor(np.abs(x) + 0.5), x))


def half_up_of(numerator, denominator):
    """floor(n/d + 1/2), exact"""
    return (2 * numerator + denominator) // (2 * denominator)


def half_away_of(numerator, denominator):
    return half_up_of(numerator, denominator) if numerator >= 0 else -half_up_of(-numerator, denominator)


def each(function, *arrays):
    """function of Python integers, element by element"""
    arrays = np.broadcast_arrays(*arrays)
    flat = [a.ravel().tolist() for a in arrays]
    return np.array([min(max(function(*row), -MOST), MOST) for row in zip(*flat)], dtype=np.int64).reshape(arrays[0].shape)


# ---- gemmlowp and TensorFlow Lite, as their sources have it ---------------------------

def truncated(n, d):
    """C's division"""
    return abs(n) // d * (1 if n >= 0 else -1)


def doubling_high_multiply(a, b):
    if a == b == -2 ** 31:
        return INT32_MAX
    nudge = 2 ** 30 if a * b >= 0 else 1 - 2 ** 30
    return truncated(a * b + nudge, 2 ** 31)


def divide_by_power(x, exponent):
    mask = 2 ** exponent - 1
    remainder, threshold = x & mask, (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if remainder > threshold else 0)


def double_rounding_one(x, multiplier, shift):
    left, right = max(shift, 0), max(-shift, 0)
    x = min(max(x * 2 ** left, -2 ** 31), INT32_MAX)
    return divide_by_power(doubling_high_multiply(x, multiplier), right)


def single_rounding_one(x, multiplier, shift):
    total = 31 - shift
    return min(max((x * multiplier + 2 ** (total - 1)) >> total, -2 ** 31), INT32_MAX)


# ---- float32 -------------------------------------------------------------------------

def fused(a, b, c):
    """float32(a * b + c) with one rounding. a: up to 9 bits, b and c float32: the product is exact in
    float64; the sum is rounded to odd there, so that rounding it again does no harm."""
    product, c = a.astype(np.float64) * b.astype(np.float64), np.broadcast_to(c, a.shape).astype(np.float64)
    total = product + c
    other = total - product
    rest = (product - (total - other)) + (c - other)
    bits = total.view(np.int64)
    towards = np.where((rest > 0) == (total > 0), 1, -1)
    odd = np.where((rest != 0) & (bits & 1 == 0), bits + towards, bits)
    return odd.view(np.float64).astype(np.float32)


def float_value(x, w):
    """v = float32(x) * scale + bias; leaky"""
    scale, bias, slope = float_of(w[..., 0]), float_of(w[..., 1]), float_of(w[..., 2])
    v = (x.astype(np.float32) * scale).astype(np.float32) + bias
    return np.where(v > 0, v, v * slope).astype(np.float32)


# ---- requantization, by name -----------------------------------------------------------

def requantize_float32(x, w):
    return half_even(x.astype(np.float32) * float_of(w[..., 0]))


def requantize_float32_multiplied(x, w):
    return half_away(float_value(x, w) * float_of(w[..., 3]))


def requantize_float32_divided(x, w):
    return half_even(float_value(x, w) / float_of(w[..., 3]))


def requantize_double_rounding(x, w):
    return each(double_rounding_one, x, signed(w[..., 0]), signed(w[..., 1]))


def requantize_single_rounding(x, w):
    return each(single_rounding_one, x, signed(w[..., 0]), signed(w[..., 1]))


def by_power(rounding, x, n, shift):
    """x / n * 2^-shift"""
    value = Fraction(x, n) / Fraction(2) ** shift
    return rounding(value.numerator, value.denominator)


def requantize_shift_half_up(x, w):
    return each(lambda x, s: by_power(half_up_of, x, 1, s), x, signed(w[..., 1]))


def requantize_shift_half_away(x, w):
    return each(lambda x, s: by_power(half_away_of, x, 1, s), x, signed(w[..., 1]))


# ---- addition: a and b less their zero points, but for float32 ---------------------------

def add_float32(a, b, w):
    ratio_a, ratio_b, fixed = float_of(w[:3])
    return half_even(fused(a, ratio_a, fused(b, ratio_b, fixed))) - signed(w[3])


def float_sum(a, b, w):
    step_a, step_b, slope = float_of(w[:3])
    v = a.astype(np.float32) * step_a + b.astype(np.float32) * step_b
    return np.where(v > 0, v, v * slope).astype(np.float32)


def add_float32_multiplied(a, b, w):
    return half_away(float_sum(a, b, w) * float_of(w[3]))


def add_float32_divided(a, b, w):
    return half_even(float_sum(a, b, w) / float_of(w[3]))


def add_fixed(multiply, a, b, w):
    multiplier_a, shift_a, multiplier_b, shift_b, multiplier, shift, left = (int(x) for x in signed(w[:7]))
    one_a = {x: multiply(x * 2 ** left, multiplier_a, shift_a) for x in set(a.ravel().tolist())}
    one_b = {x: multiply(x * 2 ** left, multiplier_b, shift_b) for x in set(b.ravel().tolist())}
    return each(lambda x, y: multiply(one_a[x] + one_b[y], multiplier, shift), a, b)


def add_double_rounding(a, b, w):
    return add_fixed(double_rounding_one, a, b, w)


def add_single_rounding(a, b, w):
    return add_fixed(single_rounding_one, a, b, w)


def add_shift(rounding, a, b, w):
    left_a, left_b, shift = (int(x) for x in signed(w[:3]))
    return each(lambda x: by_power(rounding, x, 1, shift), a * 2 ** left_a + b * 2 ** left_b)


def add_shift_half_up(a, b, w):
    return add_shift(half_up_of, a, b, w)


def add_shift_half_away(a, b, w):
    return add_shift(half_away_of, a, b, w)


# ---- means: x = sum of codes less zero points, codes = sum of codes ------------------------

def mean_codes(codes, n):
    """AVERAGE_POOL_2D"""
    return each(lambda s: truncated(s + n // 2, n) if s > 0 else truncated(s - n // 2, n), codes)


def mean(arithmetic, x, codes, n, zero_point, w):
    w = np.asarray(w, dtype=np.uint32)
    if arithmetic in ("double_rounding", "single_rounding"):
        return mean_codes(codes, n) - zero_point
    if arithmetic.startswith("shift"):
        rounding = half_up_of if arithmetic == "shift_half_up" else half_away_of
        return each(lambda s: by_power(rounding, s, n, int(signed(w[1]))), x)
    return requantize(arithmetic, x, w)


def requantize(arithmetic, x, w):
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return globals()["requantize_" + arithmetic](x, np.asarray(w, dtype=np.uint32))


def add(arithmetic, a, b, w):
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return globals()["add_" + arithmetic](a, b, np.asarray(w, dtype=np.uint32))
