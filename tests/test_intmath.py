"""math/kure_intmath.h, element by element, against NumPy's float32 and exact integers (integer_reference.py)."""
from fractions import Fraction

import numpy as np
import pytest

import integer_reference as reference
import runtime

ARITHMETICS = reference.ARITHMETICS[1:]


@pytest.fixture(scope="module")
def library(build):
    return runtime.Library(build.program("libkure_runtime_test.so"))


def accumulators(rng, n):
    """int32: edges, then magnitudes of every size"""
    powers = [2 ** k for k in range(31)]
    edges = {0, 2 ** 31 - 1, -2 ** 31} | {s * (p + d) for p in powers for s in (1, -1) for d in (-1, 0, 1)}
    edges |= {s * (2 ** 24 + k) for s in (1, -1) for k in range(-40, 41)} | {s * (3 * 2 ** 24 + k) for s in (1, -1) for k in range(-9, 10)}
    edges = np.array(sorted(edges), dtype=np.int64)
    random = (rng.choice([-1, 1], n) * np.exp2(rng.uniform(0, 31, n))).astype(np.int64)
    return np.concatenate([edges, random]).clip(-2 ** 31, 2 ** 31 - 1)


def floats(rng, n, least, most, zero=0.0, ties=0.3):
    """Words of positive float32 from 2^least to 2^most, some of them 0, some of few bits so that products are ties"""
    x = np.exp2(rng.uniform(least, most, n)).astype(np.float32)
    few = (rng.integers(1, 16, n) * np.exp2(rng.integers(int(least) + 1, int(most) - 3, n).astype(float))).astype(np.float32)
    x = np.where(rng.random(n) < ties, few, x)
    return np.where(rng.random(n) < zero, np.float32(0), x).astype(np.float32)


def near(rng, x, n):
    """Scales that bring x to about the size of codes"""
    size = np.exp2(rng.uniform(-2, 9, n)) / np.maximum(np.abs(x), 1)
    coarse = np.exp2(np.round(np.log2(size)))
    return np.where(rng.random(n) < .3, coarse, size).astype(np.float32)


def words(rng, arithmetic, x):
    """[n][4] words of requantization that a model file may hold"""
    n = len(x)
    w = np.zeros((n, 4), dtype=np.uint32)
    if arithmetic.startswith("float32"):
        scale = np.where(rng.random(n) < .8, near(rng, x, n), floats(rng, n, -80, 80, zero=.05))
        w[:, 0] = reference.word_of(scale)
    if arithmetic in ("float32_multiplied", "float32_divided"):
        value = np.abs(x) * scale.astype(np.float64)
        bias = np.where(rng.random(n) < .7, rng.normal(0, 1, n) * value, floats(rng, n, -80, 80, zero=.2)) * rng.choice([-1, 1], n)
        bias = np.where(np.abs(bias) < 2.0 ** -79, 0, bias)
        w[:, 1] = reference.word_of(np.clip(bias, -2.0 ** 79, 2.0 ** 79))
        w[:, 2] = reference.word_of(np.choose(rng.integers(0, 4, n), [np.ones(n), np.full(n, .1), np.zeros(n), floats(rng, n, -20, 20)]))
        v = value + np.abs(bias)
        last = np.clip(np.exp2(rng.uniform(-2, 9, n)) / np.maximum(v, 1e-30), 2.0 ** -79, 2.0 ** 79)
        last = np.where(rng.random(n) < .3, np.exp2(np.round(np.log2(last))), last)
        w[:, 3] = reference.word_of(last if arithmetic == "float32_multiplied" else 1 / last)
    if arithmetic.endswith("rounding"):
        full = rng.integers(2 ** 30, 2 ** 31, n)
        w[:, 0] = np.choose(rng.integers(0, 4, n), [full, full, 2 ** rng.integers(0, 31, n), rng.integers(0, 2 ** 31, n)])
        fits = np.clip(np.round(rng.uniform(-2, 9, n) - np.log2(np.maximum(np.abs(x), 1))), -31, 30).astype(np.int64)
        w[:, 1] = np.where(rng.random(n) < .8, fits, rng.integers(-31, 31, n)).astype(np.int32).view(np.uint32)
    if arithmetic.startswith("shift"):
        fits = np.clip(np.round(np.log2(np.maximum(np.abs(x), 1)) - rng.uniform(-2, 9, n)), -30, 62).astype(np.int64)
        w[:, 1] = np.where(rng.random(n) < .8, fits, rng.integers(-30, 63, n)).astype(np.int32).view(np.uint32)
    return w


def differing(name, got, want, *inputs):
    wrong = np.flatnonzero(got != want)
    if len(wrong):
        i = wrong[0]
        pytest.fail(f"{name}: {len(wrong)} of {len(got)} differ; the first: {[np.asarray(x)[i] for x in inputs]} gives {got[i]}, want {want[i]}")


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_requantization(library, arithmetic):
    rng = np.random.default_rng(1)
    x = np.tile(accumulators(rng, 20000), 5)
    w = words(rng, arithmetic, x)
    got = library.elements("requantize_" + arithmetic, x.astype(np.int32), w)
    want = reference.requantize(arithmetic, x, w)
    assert 1 < np.mean(np.abs(want[np.abs(want) < 1000])), "the cases are not about codes"
    differing(arithmetic, got, want, x, w)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_ties(library, arithmetic):
    """Every accumulator is an odd multiple of 1/2 once scaled."""
    x = np.arange(-4097, 4098, 2, dtype=np.int64)
    w = np.zeros((len(x), 4), dtype=np.uint32)
    if arithmetic.startswith("float32"):
        w[:, 0] = reference.word_of(0.5)
        w[:, 2:] = reference.word_of(1.0)
    elif arithmetic.endswith("rounding"):
        w[:, 0] = 2 ** 30
    else:
        w[:, 1] = 1
    got = library.elements("requantize_" + arithmetic, x.astype(np.int32), w)
    exact = [Fraction(int(i), 2) for i in x]
    up = np.array([int((f + Fraction(1, 2)) // 1) for f in exact])
    want = {"float32": np.array([round(f) for f in exact]), "float32_divided": np.array([round(f) for f in exact]),
            "float32_multiplied": np.where(x > 0, up, up - 1), "shift_half_away": np.where(x > 0, up, up - 1)}.get(arithmetic, up)
    differing(arithmetic, got, want, x)


def add_words(rng, arithmetic, ties):
    """words[7] of an addition, for codes of about 8 bits, as an exporter derives them from scales"""
    scales = np.exp2(rng.uniform(-8, 0, 3)).astype(np.float32)
    if ties:
        scales = np.exp2(rng.integers(-6, 0, 3)).astype(np.float32)
    zeros = rng.integers(-128, 128, 3)
    w = np.zeros(7, dtype=np.uint32)
    if arithmetic == "float32":
        ratio_a, ratio_b = scales[0] / scales[2], scales[1] / scales[2]
        fixed = np.float32(zeros[2]) - (ratio_a * np.float32(zeros[0]) + ratio_b * np.float32(zeros[1]))
        w[:3] = reference.word_of([ratio_a, -ratio_b if rng.random() < .2 else ratio_b, fixed])
        w[3] = np.int32(zeros[2]).view(np.uint32)
        zeros = [0, 0, 0]
    elif arithmetic.startswith("float32"):
        last = 1 / scales[2] if arithmetic == "float32_multiplied" else scales[2]
        w[:4] = reference.word_of([scales[0], scales[1], rng.choice([1, 1, .1, 0]), last])
    elif arithmetic.endswith("rounding"):
        twice = 2 * float(max(scales[:2]))
        for i, real in enumerate((scales[0] / twice, scales[1] / twice, twice / (2 ** 20 * float(scales[2])))):
            fraction, shift = np.frexp(float(real))
            w[2 * i:2 * i + 2] = np.array([int(np.floor(fraction * 2 ** 31 + .5)), shift]).astype(np.int64).astype(np.uint32)
        w[6] = 20
    else:
        w[:3] = np.array([rng.integers(0, 10), rng.integers(0, 10), rng.integers(-3, 20)]).astype(np.int32).view(np.uint32)
    return w, zeros


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_addition_of_all_pairs(library, arithmetic, ties):
    rng = np.random.default_rng(2)
    a, b = (x.ravel() for x in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128), indexing="ij"))
    for _ in range(4):
        w, zeros = add_words(rng, arithmetic, ties)
        x, y = a - zeros[0], b - zeros[1]
        got = library.elements("add_" + arithmetic, x.astype(np.int32), y.astype(np.int32), w)[:len(x)]
        differing(f"{arithmetic}, words {w}", got, reference.add(arithmetic, x, y, w), x, y)


def test_the_reference_fuses():
    """fused() against fractions, on what it is used for"""
    rng = np.random.default_rng(3)
    a = rng.integers(-255, 256, 3000)
    b = (np.exp2(rng.uniform(-8, 8, 3000)) * rng.choice([1, -1], 3000)).astype(np.float32)
    c = (np.exp2(rng.uniform(-30, 12, 3000)) * rng.choice([1, -1], 3000)).astype(np.float32)
    c[:500] = (-(a[:500] * b[:500].astype(np.float64))).astype(np.float32)  # cancellation
    got = reference.fused(a, b, c)
    for i in range(3000):
        exact = Fraction(int(a[i])) * Fraction(float(b[i])) + Fraction(float(c[i]))
        near_by = np.array([np.nextafter(got[i], np.float32(-np.inf)), got[i], np.nextafter(got[i], np.float32(np.inf))])
        errors = [abs(Fraction(float(x)) - exact) for x in near_by]
        assert errors[1] == min(errors), (a[i], b[i], c[i], got[i])


def nearest_24_bits(x):
    """The integer nearest to the fraction x that has 24 bits, ties to even"""
    bits = max(abs(x).__floor__().bit_length() - 24, 0)
    return round(x / 2 ** bits) * 2 ** bits


def test_sums_that_a_tiny_number_decides(library):
    """b * ratio is an integer beyond 24 bits, often in the middle between two floats: what is added, however little,
    takes it to one side."""
    rng = np.random.default_rng(7)
    decided = 0
    for trial in range(600):
        ratio = int(rng.integers(2 ** 23, 2 ** 24)) * (-1) ** trial
        tiny = (0 if trial % 10 == 0 else 1) * rng.choice([-1, 1]) * 2.0 ** -int(rng.integers(-30, 75))
        b = np.arange(-15, 16)
        w = np.zeros(7, dtype=np.uint32)
        w[:3] = reference.word_of([1, ratio, tiny])
        got = library.elements("add_float32", np.zeros(31, dtype=np.int32), b.astype(np.int32), w)
        want = [nearest_24_bits(Fraction(int(i) * ratio) + Fraction(float(tiny))) for i in b]
        plain = [nearest_24_bits(Fraction(int(i) * ratio)) for i in b]
        decided += sum(abs(tiny) < 1e-9 and p != q for p, q in zip(want, plain))
        differing(f"ratio {ratio}, {tiny}", got, np.clip(want, -reference.MOST, reference.MOST), b)
    assert decided > 100


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 16, 49, 169, 2 ** 23])
def test_means(library, n):
    rng = np.random.default_rng(4)
    most = 255 * n
    x = np.unique(np.concatenate([np.arange(-600, 601), rng.integers(-most, most + 1, 2000), [most, -most]])).clip(-most, most)
    codes = x.clip(-128 * n, 127 * n)
    words = np.zeros((len(x), 4), dtype=np.uint32)
    words[:, 0] = n
    differing("codes", library.elements("mean_codes", codes.astype(np.int32), words), reference.mean_codes(codes, n), codes)
    for shift in (-24, -7, -1, 0, 1, 3, 24):
        words[:, 1] = np.int32(shift).view(np.uint32)
        for name in ("shift_half_up", "shift_half_away"):
            want = reference.mean(name, x, None, n, 0, [0, int(words[0, 1]), 0, 0])
            differing(f"{name}, shift {shift}", library.elements("mean_" + name, x.astype(np.int32), words), want, x)


def normal(rng, n, least=-60, most=60):
    """Words of float32 of either sign: every kind of significand"""
    significand = rng.integers(0, 2 ** 23, n)
    significand = np.choose(rng.integers(0, 4, n), [significand, significand & ~0xfff, 2 ** 23 - 1 - (significand & 3), significand & 3])
    return ((rng.integers(0, 2, n) << 31) | (rng.integers(least + 127, most + 127, n) << 23) | significand).astype(np.uint32)


@pytest.mark.parametrize("name,operation", [("soft_add", np.add), ("soft_multiply", np.multiply), ("soft_divide", np.divide)])
def test_soft_float(library, name, operation):
    rng = np.random.default_rng(5)
    n = 1_000_000
    a, b = normal(rng, n), normal(rng, n)
    close = rng.random(n) < .6  # exponents within the reach of a carry
    b[close] = (b[close] & 0x807fffff) | np.clip((a[close] >> 23 & 255) + rng.integers(-30, 31, close.sum()), 67, 187).astype(np.uint32) << 23
    if name == "soft_divide":
        b &= 0x7fffffff
    want = operation(a.view(np.float32), b.view(np.float32)) + np.float32(0)  # -0 becomes 0
    got = library.elements(name, a, b, result=np.uint32)
    differing(name, got, want.view(np.uint32), a, b)


def test_soft_conversion(library):
    rng = np.random.default_rng(6)
    x = accumulators(rng, 200000).astype(np.int32)
    got = library.elements("soft_integer", x.view(np.uint32), x.view(np.uint32), result=np.uint32)
    differing("float32(int32)", got, x.astype(np.float32).view(np.uint32), x)
