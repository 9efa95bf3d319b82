"""The integer runtime's layers and small networks against NumPy (model_file.run): the same codes, every tensor."""
import numpy as np
import pytest

import integer_reference as reference
import model_file
import runtime
from random_models import Maker, leaky, two_heads

ARITHMETICS = reference.ARITHMETICS[1:]


@pytest.fixture(scope="module")
def library(build):
    return runtime.Library(build.program("libkure_runtime_test.so"))


def check(library, maker, model, images=2):
    """Runs the model both ways; returns the spread of the last output's codes."""
    data = model.write()
    for together in (True, False):
        opened, error = library.open(model.write(together))
        assert opened, f"{error.place} {error.index}: {error.field} {error.value} ({error.least}..{error.most}), status {error.status}"
    opened = library.open(data)[0]
    model.place_together()
    last = []
    for _ in range(images):
        codes = maker.codes()
        want = model_file.run(model, codes)
        got = opened.run(codes, [t.shape for t in model.tensors])
        for i, (g, w) in enumerate(zip(got, want)):
            wrong = np.argwhere(g != w)
            if len(wrong):
                kind = model.layers[i - 1].kind if i else "input"
                pytest.fail(f"tensor {i} ({kind}): {len(wrong)} of {g.size} codes differ; at {wrong[0]}: {g[tuple(wrong[0])]}, want {w[tuple(wrong[0])]}")
        last.append(want[-1])
    return np.std(np.concatenate([x.ravel() for x in last]))


SHAPES = [  # channels, height, width, rows, size, stride, padding, groups
    (3, 7, 5, 4, 3, 1, 1, 1), (1, 1, 1, 1, 1, 1, 0, 1), (5, 9, 9, 7, 1, 1, 0, 1), (4, 8, 8, 6, 3, 2, 1, 2), (6, 5, 5, 6, 3, 1, 1, 6),
    (2, 6, 7, 3, 5, 3, 2, 1), (3, 4, 4, 2, 4, 4, 0, 1), (2, 3, 3, 2, 3, 1, 4, 1), (4, 13, 11, 4, 2, 2, 0, 4), (33, 3, 3, 9, 3, 1, 1, 3),
    (8, 9, 8, 5, 7, 1, 3, 1), (64, 2, 2, 3, 3, 2, 1, 1),
]


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("weight_bits", [8, 4, 3])
def test_convolution(library, arithmetic, weight_bits):
    for seed, (c, h, w, rows, size, stride, padding, groups) in enumerate(SHAPES):
        m = Maker(seed, arithmetic, (c, h, w))
        m.convolution(rows, size, stride, padding, groups, weight_bits, relu=seed % 3 == 0)
        check(library, m, m.model())


@pytest.mark.parametrize("seed", range(40))
def test_convolution_of_random_shapes(library, seed):
    rng = np.random.default_rng(1000 + seed)
    groups, size = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    padding = int(rng.integers(0, size + 1))
    c, rows = groups * int(rng.integers(1, 9)), groups * int(rng.integers(1, 9))
    h, w = (int(rng.integers(max(1, size - 2 * padding), 24)) for _ in range(2))
    m = Maker(seed, ARITHMETICS[seed % len(ARITHMETICS)], (c, h, w), bits=int(rng.choice([8, 8, 4, 2])))
    m.convolution(rows, size, int(rng.integers(1, 4)), padding, groups, int(rng.integers(2, 9)))
    check(library, m, m.model())


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_codes_are_spread(library, arithmetic):
    """Else the tests of this file would compare clamped codes only."""
    m = Maker(3, arithmetic, (8, 12, 12))
    m.convolution(16)
    assert check(library, m, m.model()) > 20


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("shape,rows,weight_bits", [((10, 1, 1), 7, 8), ((3, 5, 3), 11, 4), ((1, 1, 1), 1, 4), ((4, 16, 16), 33, 8)])
def test_connected(library, arithmetic, shape, rows, weight_bits):
    m = Maker(5, arithmetic, shape)
    m.connected(rows, weight_bits)
    check(library, m, m.model())


@pytest.mark.parametrize("size,stride,padding", [(2, 2, None), (2, 1, None), (3, 2, 2), (3, 1, 0), (5, 1, 4), (1, 1, 0), (3, 3, 4), (13, 1, 12), (2, 2, 0)])
def test_maxpool(library, size, stride, padding):
    m = Maker(6, "float32", (3, 13, 14))
    m.maxpool(size, stride, padding)
    check(library, m, m.model())


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("shape", [(5, 4, 4), (3, 7, 7), (1, 1, 1), (4, 13, 10)])
def test_average_pool(library, arithmetic, shape):
    for seed in range(10):
        m = Maker(seed, arithmetic, shape)
        m.average_pool()
        check(library, m, m.model(), images=4)


@pytest.mark.parametrize("mode,stride,shape", [("forward", 2, (4, 6, 8)), ("forward", 2, (64, 2, 2)), ("forward", 3, (9, 3, 6)), ("reverse", 2, (8, 3, 5)),
                                               ("reverse", 1, (2, 3, 3)), ("flatten", 1, (3, 4, 5)), ("unflatten", 1, (3, 4, 5))])
def test_reorg(library, mode, stride, shape):
    m = Maker(7, "float32", shape)
    m.reorg(mode, stride)
    check(library, m, m.model())


def test_reorg_there_and_back(library):
    m = Maker(8, "float32", (8, 4, 6))
    m.reorg("forward")
    m.reorg("reverse")
    opened = library.open(m.model().write(False))[0]
    codes = m.codes()
    got = opened.run(codes, [t.shape for t in m.tensors])
    assert got[1].tobytes() != codes.tobytes()
    m = Maker(8, "float32", (8, 4, 6))
    m.reorg("flatten")
    m.tensors[-1].shape = (1, 24, 8)
    m.reorg("flatten")
    m.tensors[-1].shape = (24, 8, 1)
    opened = library.open(m.model().write(False))[0]
    assert opened, "flatten"


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_upsample_and_concatenate(library, stride):
    m = Maker(9, "float32", (3, 4, 5))
    m.upsample(stride)
    one = m.last
    m.lookup(of=one)
    m.concatenate([m.last, one, one])
    check(library, m, m.model())


def test_lookup_of_every_code(library):
    m = Maker(10, "float32", (1, 16, 16))
    m.lookup(leaky)
    codes = np.arange(-128, 128).astype(np.int8).reshape(1, 16, 16)
    opened = library.open(m.model().write())[0]
    assert (opened.run(codes, [t.shape for t in m.tensors])[1].ravel() == m.layers[0].arrays["table"]).all()


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("a,b", [((3, 5, 6), (3, 5, 6)), ((3, 4, 6), (5, 4, 6)), ((5, 4, 6), (3, 4, 6)), ((4, 4, 6), (2, 8, 12)), ((4, 8, 12), (6, 4, 6)),
                                 ((2, 5, 5), (2, 7, 7))])
def test_add(library, arithmetic, a, b):
    m = Maker(11, arithmetic, (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2])))
    ones = [reach(m, s) for s in (a, b)]
    assert [m.tensors[i].shape for i in ones] == [a, b]
    m.add(*ones)
    check(library, m, m.model())


def reach(m, shape):
    """A convolution of the input with an output of this shape"""
    c, h, w = m.tensors[0].shape
    exact = h % shape[1] == 0
    return m.convolution(shape[0], size=1 if exact else h - shape[1] + 1, stride=h // shape[1], padding=0, of=0)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("weight_bits,bits", [(8, 8), (4, 8), (2, 8), (5, 4)])
def test_network_with_two_heads(library, arithmetic, weight_bits, bits):
    for seed in range(3):
        m, model = two_heads(seed, arithmetic, weight_bits, bits)
        check(library, m, model)


def test_in_place(library):
    """Tables and shortcuts may write over their input."""
    m = Maker(12, "float32", (4, 6, 6))
    one = m.convolution(4)
    m.lookup(of=0)
    m.lookup()
    m.add(m.last, one)
    model = m.model()
    arena = model.place_apart()
    for tensor in model.tensors[3:]:
        tensor.place = model.tensors[2].place
    model.place_together = lambda: arena
    check(library, m, model)


# ---- values to codes and back -------------------------------------------------------------

def floats_for(rng, scale, n):
    """Values, ties, what does not fit, what is not a number"""
    ties = (rng.integers(-300, 300, n // 4) + .5) * scale
    special = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-40, 1.2e-38, 3e38, -3e38]
    return np.concatenate([rng.normal(0, 60, n - n // 4 - len(special)) * scale, ties, special]).astype(np.float32)


@pytest.mark.parametrize("rounding", range(4))
@pytest.mark.parametrize("scale", [1 / 255, 1 / 127, 1 / 128, .0371])
def test_quantize(library, rounding, scale):
    rng, scale = np.random.default_rng(rounding), np.float32(scale)
    m = Maker(13, "float32", (5, 20, 20))
    m.lookup()
    m.tensors[0] = t = model_file.Tensor((5, 20, 20), scale, -7, -100, 127)
    factor = np.float32(1) / scale if rounding == 3 else scale
    opened, _ = library.open(m.model(input_rounding=rounding, input_factor=factor).write())
    x = floats_for(rng, scale, 2000)
    with np.errstate(over="ignore", invalid="ignore"):
        y = (x * factor if rounding == 3 else x / factor).astype(np.float32)
        y = np.where(np.isnan(y) | (np.abs(x) < np.float32(1.1754944e-38)), np.float32(0), y)
    y = np.clip(y, -1e6, 1e6)
    code = {0: reference.half_even, 1: reference.half_away, 3: reference.half_away, 2: lambda v: np.floor(v.astype(np.float64) + .5)}[rounding](y)
    want = np.clip(code + t.zero_point, t.low, t.high)
    got = opened.quantize(x, 2000)
    assert (got == want).all(), [(x[i], got[i], want[i]) for i in np.flatnonzero(got != want)[:5]]


def test_pixels_and_dequantize(library):
    m = Maker(14, "float32", (1, 16, 16))
    m.lookup()
    t = m.tensors[0]
    t.low, t.high = -128, 127
    table = (np.arange(256) - 128).astype(np.int8)
    opened, _ = library.open(m.model(pixel_table=table).write())
    status, codes = opened.pixels(np.arange(256))
    assert status == 0 and (codes == table).all()
    codes = np.arange(-128, 128).astype(np.int8)
    want = np.float32(t.scale) * (codes.astype(np.float32) - np.float32(t.zero_point))
    assert opened.dequantize(0, codes).tobytes() == (want + np.float32(0)).tobytes()
    opened, _ = library.open(m.model().write())
    status, _ = opened.pixels(np.arange(256))
    assert library.c.kure_runtime_status_text(status) == b"the model has no table of pixels"
