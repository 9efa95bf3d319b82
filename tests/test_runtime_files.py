"""model.kure that is not as it should be: refused with the status, the place and the field that are wrong.

Cuts and changed bytes: tests/unit/test_runtime.c. What is refused here differs from a sound
file in one thing, and its checksum fits.
"""
import re
import struct
import subprocess

import numpy as np
import pytest

import programs
import runtime
from model_file import change, offset_of, seal
from random_models import Maker, leaky, two_heads

HEADER = (programs.ROOT / "darknet-kure/include/kure_runtime.h").read_text()
STATUS = {name: i for i, name in enumerate(re.findall(r"^    KURE_RUNTIME_(\w+),", HEADER, re.M))}
NAN, INFINITY, MINUS_ONE, SMALL, LARGE = 0x7fc00000, 0x7f800000, 0xbf800000, (127 - 81) << 23, ((127 + 80) << 23) + 1


@pytest.fixture(scope="module")
def library(build):
    return runtime.Library(build.program("libkure_runtime_test.so"))


def refused(library, data, status, field, place=None, index=None):
    model, error = library.open(data)
    said = f"{error.place} {error.index} {error.field} {error.value} ({error.least}..{error.most}), status {error.status}"
    assert model is None, "not refused"
    assert error.status == STATUS[status], said
    assert field in (error.field or b"").decode(), said
    assert place is None or (error.place.decode(), error.index) == (place, index), said


def network():
    """convolution, lookup, maxpool, convolution int4, add, average pool, connected, upsample, reorg, concatenate"""
    m = Maker(21, "float32", (4, 6, 6))
    m.convolution(4, weight_bits=8)                             # 0
    m.lookup(leaky)                                             # 1
    m.maxpool(2, 1)                                             # 2
    m.convolution(5, size=2, padding=0, weight_bits=4)          # 3: 5 rows of 16
    m.add(3, 2)                                                 # 4
    m.upsample(2)                                               # 5
    m.reorg("forward")                                          # 6
    m.concatenate([7, 7])                                       # 7
    m.average_pool()                                            # 8
    m.connected(3)                                              # 9
    return m.model(outputs=[10], pixel_table=np.zeros(256) + m.tensors[0].low)


LAYERS = 10

# record, field, index, value, status, field of the complaint
BREACHES = [
    ("header", "version", 0, 0, "RANGE", "version"), ("header", "version", 0, 2, "NEWER", "version"),
    ("header", "version", 0, 0xffffffff, "NEWER", "version"),
    ("header", "file_bytes", 0, 1, "CUT", "file_bytes"), ("header", "file_bytes", 0, 0xffffffff, "CUT", "file_bytes"),
    ("header", "layer_count", 0, 0, "RANGE", "layer_count"), ("header", "layer_count", 0, 4097, "RANGE", "layer_count"),
    ("header", "layer_count", 0, 4096, "OUTSIDE", "tensors"), ("header", "tensors", 0, 95, "OUTSIDE", "tensors"),
    ("header", "tensors", 0, 0xffffffff, "OUTSIDE", "tensors"), ("header", "layers", 0, 0xfffffff0, "OUTSIDE", "layers"),
    ("header", "outputs", 0, 0x7fffffff, "OUTSIDE", "outputs"), ("header", "output_count", 0, 0, "RANGE", "output_count"),
    ("header", "output_count", 0, LAYERS + 1, "RANGE", "output_count"), ("header", "arena_bytes", 0, 0, "RANGE", "arena_bytes"),
    ("header", "arena_bytes", 0, 0x80000000, "RANGE", "arena_bytes"), ("header", "arena_bytes", 0, 100, "OUTSIDE", "place"),
    ("header", "input_rounding", 0, 4, "RANGE", "input_rounding"), ("header", "input_factor", 0, 0, "RANGE", "input_factor"),
    ("header", "input_factor", 0, NAN, "RANGE", "input_factor"), ("header", "pixel_table", 0, 0xffffff00, "OUTSIDE", "pixel_table"),
    ("header", "pixel_table", 0, 8, "OUTSIDE", "pixel_table"),
    ("tensor", "channels", 1, 0, "RANGE", "channels"), ("tensor", "height", 1, 65536, "RANGE", "height"), ("tensor", "width", 1, 0, "RANGE", "width"),
    ("tensor", "channels", 1, 65535, "OUTSIDE", "place"), ("tensor", "height", 1, 5, "SHAPE", "height"),
    ("tensor", "place", 1, 0x7fffffff, "OUTSIDE", "place"), ("tensor", "place", 1, 0xffffffff, "OUTSIDE", "place"),
    ("tensor", "place", 1, 0, "ORDER", "overwrites"), ("tensor", "scale", 1, 0, "RANGE", "scale"), ("tensor", "scale", 1, MINUS_ONE, "RANGE", "scale"),
    ("tensor", "scale", 1, NAN, "RANGE", "scale"), ("tensor", "scale", 1, INFINITY, "RANGE", "scale"), ("tensor", "scale", 1, SMALL, "RANGE", "scale"),
    ("tensor", "scale", 1, LARGE, "RANGE", "scale"), ("tensor", "scale", 1, 1, "RANGE", "scale"), ("tensor", "zero_point", 1, 128, "RANGE", "zero_point"),
    ("tensor", "zero_point", 1, -129, "RANGE", "zero_point"), ("tensor", "low", 1, -129, "RANGE", "low"), ("tensor", "high", 1, 128, "RANGE", "high"),
    ("tensor", "low", 1, 128, "RANGE", "low"), ("tensor", "bits", 1, 1, "RANGE", "bits"), ("tensor", "bits", 1, 9, "RANGE", "bits"),
    ("tensor", "bits", 1, 7, "RANGE", "low"), ("tensor", "last_reader", 1, LAYERS + 1, "RANGE", "last_reader"),
    ("tensor", "last_reader", 2, 0, "RANGE", "last_reader"), ("tensor", "last_reader", 3, 2, "ORDER", "last_reader"),
    ("tensor", "scale", 3, 0x3f800000, "SHAPE", "scale"), ("tensor", "low", 3, -127, "RANGE", "low"), ("tensor", "high", 3, 126, "RANGE", "high"),
    ("tensor", "last_reader", LAYERS, LAYERS - 1, "RANGE", "last_reader"),
    ("layer", "kind", 0, 0, "RANGE", "kind"), ("layer", "kind", 0, 10, "RANGE", "kind"), ("layer", "kind", 0, 0xffffffff, "RANGE", "kind"),
    ("layer", "arithmetic", 0, 0, "RANGE", "arithmetic"), ("layer", "arithmetic", 0, 8, "RANGE", "arithmetic"),
    ("layer", "arithmetic", 1, 1, "RANGE", "word that this kind does not use"), ("layer", "input_count", 0, 0, "RANGE", "input_count"),
    ("layer", "input_count", 0, 2, "RANGE", "input_count"), ("layer", "input_count", 7, 4097, "RANGE", "input_count"),
    ("layer", "input_count", 7, 4096, "OUTSIDE", "inputs"), ("layer", "inputs", 0, 0, "OUTSIDE", "inputs"),
    ("layer", "size", 0, 0, "RANGE", "size"), ("layer", "size", 0, 9, "RANGE", "size"), ("layer", "size", 0, 0xffffffff, "RANGE", "size"),
    ("layer", "stride", 0, 0, "RANGE", "stride"), ("layer", "stride", 0, 2, "SHAPE", "height"), ("layer", "padding", 0, 65536, "RANGE", "padding"),
    ("layer", "padding", 0, 2, "SHAPE", "height"), ("layer", "groups", 0, 0, "RANGE", "groups"), ("layer", "groups", 0, 3, "SHAPE", "groups"),
    ("layer", "groups", 0, 5, "RANGE", "groups"), ("layer", "weight_bits", 0, 0, "RANGE", "weight_bits"), ("layer", "weight_bits", 0, 7, "RANGE", "weight_bits"),
    ("layer", "weights", 0, 0, "OUTSIDE", "weights"), ("layer", "weights", 0, 0x7fffffff, "OUTSIDE", "weights"),
    ("layer", "biases", 0, 0xfffffffc, "OUTSIDE", "biases"), ("layer", "multipliers", 0, 0, "OUTSIDE", "multipliers"),
    ("layer", "table", 0, 96, "RANGE", "word that this kind does not use"), ("layer", "table", 1, 0, "OUTSIDE", "table"),
    ("layer", "table", 4, 96, "RANGE", "table"), ("layer", 0, 0, 1, "RANGE", "parameter[0]"), ("layer", 9, 0, 1, "RANGE", "parameter[9]"),
    ("layer", "padding", 2, 4, "RANGE", "padding"), ("layer", "size", 2, 0, "RANGE", "size"), ("layer", "stride", 2, 0, "RANGE", "stride"),
    ("layer", "padding", 2, 0, "SHAPE", "height"), ("layer", 0, 4, 0, "RANGE", "parameter[0]"), ("layer", 0, 4, (127 + 21) << 23, "RANGE", "parameter[0]"),
    ("layer", 2, 4, NAN, "RANGE", "parameter[2]"), ("layer", 3, 4, 1, "RANGE", "parameter[3]"),
    ("layer", "stride", 5, 0, "RANGE", "stride"), ("layer", "stride", 5, 3, "SHAPE", "height"), ("layer", "stride", 6, 0, "RANGE", "stride"),
    ("layer", "stride", 6, 3, "SHAPE", "channels"), ("layer", 0, 6, 4, "RANGE", "parameter[0]"), ("layer", 0, 6, 1, "SHAPE", "channels"),
    ("layer", 0, 6, 2, "RANGE", "stride"), ("layer", 1, 6, 1, "RANGE", "word that this kind does not use"),
    ("layer", 0, 8, MINUS_ONE, "RANGE", "parameter[0]"), ("layer", 1, 8, 1, "RANGE", "parameter[1]"),
]


@pytest.mark.parametrize("record,field,index,value,status,complaint", BREACHES)
def test_field(library, record, field, index, value, status, complaint):
    data = network().write()
    assert library.open(data)[0], library.open(data)[1].field
    data = change(data, offset_of(record, field, index, LAYERS), value)
    refused(library, data, status, complaint)


def test_limits_are_sound(library):
    """What the breaches above are next to."""
    for record, field, index, value in [("tensor", "scale", 1, (127 - 80) << 23), ("tensor", "scale", 1, (127 + 80) << 23), ("tensor", "last_reader", 1, LAYERS)]:
        model = network()
        model.set_last_readers = None
        data = change(model.write(together=False), offset_of(record, field, index, LAYERS), value)
        assert library.open(data)[0], (field, library.open(data)[1].field)


def test_names_end(library):
    data = bytearray(network().write())
    for at, record, index in ((72 + 23, "header", 0), (96 + 64 * 2 + 63, "tensor", 2)):
        changed = bytearray(data)
        changed[at] = 65
        refused(library, seal(changed), "RANGE", "end of the", record, index)


def test_unused_words_of_the_header(library):
    for word in range(12, 16):
        refused(library, change(network().write(), 8 + 4 * word, 1), "RANGE", "unused word", "header", 0)


def test_order(library):
    data = network().write()
    inputs = struct.unpack_from("<I", data, offset_of("layer", "inputs", 2, LAYERS))[0]
    refused(library, change(data, inputs, 3), "ORDER", "input", "layer", 2)
    refused(library, change(data, inputs, 0xffffffff), "ORDER", "input", "layer", 2)
    outputs = struct.unpack_from("<I", data, offset_of("header", "outputs"))[0]
    for tensor in (0, LAYERS + 1, 0xffffffff):
        refused(library, change(data, outputs, tensor), "RANGE", "tensor", "output", 0)


def test_in_place_only_where_every_element_is_read_first(library):
    for build, sound in (("lookup", True), ("convolution", False), ("average_pool", False)):
        m = Maker(22, "float32", (3, 1, 1))
        {"lookup": m.lookup, "convolution": lambda: m.convolution(3, size=1, padding=0), "average_pool": m.average_pool}[build]()
        model = m.model()
        data = change(model.write(together=False), offset_of("tensor", "place", 1), 0)
        if sound:
            assert library.open(data)[0]
        else:
            refused(library, data, "ORDER", "overwrites", "layer", 0)


def test_overwritten_before_it_is_read(library):
    """Tensor 1 is an input of layer 2, and layer 1 writes over it."""
    m = Maker(23, "float32", (2, 3, 3))
    m.lookup()
    m.lookup(of=0)
    m.add(2, 1)
    data = change(m.model().write(together=False), offset_of("tensor", "place", 2), 18 + 17)
    refused(library, data, "ORDER", "overwrites", "layer", 1)


# ---- arrays -------------------------------------------------------------------------------

@pytest.mark.parametrize("record,field,index", [("header", "tensors", 0), ("header", "layers", 0), ("header", "pixel_table", 0), ("layer", "inputs", 0),
                                                ("layer", "weights", 0), ("layer", "biases", 0), ("layer", "multipliers", 0), ("layer", "table", 1),
                                                ("layer", "weights", 3), ("layer", "weights", 9)])
def test_arrays_that_end_outside(library, record, field, index):
    """They begin in the file; the last byte that they need is the first behind it."""
    data = network().write()
    bytes_of = {"tensors": 64 * (LAYERS + 1), "layers": 96 * LAYERS, "pixel_table": 256, "inputs": 4, "biases": 16, "multipliers": 32, "table": 256,
                "weights": {0: 4 * 36, 3: 5 * 16 // 2, 9: 3 * 16}[index] if field == "weights" else 0}[field]
    refused(library, change(data, offset_of(record, field, index, LAYERS), len(data) - bytes_of + 1), "OUTSIDE", field)


def test_checksum(library):
    data = bytearray(network().write())
    data[12] ^= 1
    refused(library, bytes(data), "CHECKSUM", "checksum", "header", 0)


def one_layer(arithmetic="float32", weight_bits=8, **change_arrays):
    m = Maker(24, arithmetic, (3, 1, 1))
    m.connected(3, weight_bits)
    layer = m.layers[0]
    for name, array in change_arrays.items():
        layer.arrays[name] = array
    return m, m.model()


@pytest.mark.parametrize("arithmetic,words,field", [
    ("float32", [MINUS_ONE, 0], "first"), ("float32", [SMALL, 0], "first"), ("float32", [0x3f800000, 1], "second"), ("float32", [NAN, 0], "first"),
    ("float32_multiplied", [0x3f800000, NAN], "second"), ("float32_divided", [0x3f800000, INFINITY], "second"),
    ("double_rounding", [0x80000000, 0], "first"), ("double_rounding", [2 ** 30, 31], "second"), ("double_rounding", [2 ** 30, -32 & 0xffffffff], "second"),
    ("single_rounding", [2 ** 30, 31], "second"), ("shift_half_up", [1, 0], "first"), ("shift_half_up", [0, 63], "second"),
    ("shift_half_away", [0, -31 & 0xffffffff], "second")])
def test_multipliers(library, arithmetic, words, field):
    m, model = one_layer(arithmetic)
    assert library.open(model.write())[0]
    model.layers[0].arrays["multipliers"][2] = words
    refused(library, model.write(), "RANGE", field + " word of a row's multiplier", "layer", 0)


@pytest.mark.parametrize("parameter,value", [(2, NAN), (2, MINUS_ONE), (2, (127 + 21) << 23), (2, (127 - 21) << 23), (3, 0), (3, SMALL), (0, 1), (4, 1)])
def test_float_parameters(library, parameter, value):
    m, model = one_layer("float32_divided")
    model.layers[0].parameter[parameter] = value
    refused(library, model.write(), "RANGE", f"parameter[{parameter}]", "layer", 0)


def test_float_arithmetic_has_no_integer_biases(library):
    m, model = one_layer("float32_multiplied", biases=np.zeros(3, dtype=np.int32))
    refused(library, model.write(), "RANGE", "biases", "layer", 0)


@pytest.mark.parametrize("weight_bits", [8, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_stay_in_32_bits(library, weight_bits, sign):
    """The most that |sum| can reach is allowed, one more is not."""
    most = 2 ** (weight_bits - 1) - 1
    weights = np.full((3, 3), -sign * most, dtype=np.int8)
    m, model = one_layer(weight_bits=weight_bits, weights=weights)
    reach = int(np.abs(weights[0]).sum()) * max(m.tensors[0].zero_point + 128, 127 - m.tensors[0].zero_point)
    for excess, sound in ((0, True), (1, False)):
        biases = np.array([0, 0, sign * (2 ** 31 - 1 - reach + excess)], dtype=np.int64)
        model.layers[0].arrays["biases"] = biases.astype(np.int32)
        data = model.write()
        if sound:
            assert library.open(data)[0], library.open(data)[1].field
        else:
            refused(library, data, "OVERFLOW", "row of weights", "layer", 0)


def test_half_byte_behind_packed_weights(library):
    m, model = one_layer(weight_bits=4)
    data = bytearray(model.write())
    at = struct.unpack_from("<I", data, offset_of("layer", "weights", 0, 1))[0]
    assert library.open(bytes(data))[0]
    data[at + 4] |= 0x10
    refused(library, seal(data), "RANGE", "unused half byte", "layer", 0)


def test_codes_of_tables(library):
    m = Maker(25, "float32", (2, 3, 3), bits=4)
    m.lookup()
    model = m.model(pixel_table=np.zeros(256))
    assert library.open(model.write())[0]
    for code in (-9, 8):
        model.layers[0].arrays["table"][77] = code
        refused(library, model.write(), "RANGE", "code of the table", "layer", 0)
    model.layers[0].arrays["table"][77] = 0
    model.pixel_table = np.full(256, 8)
    refused(library, model.write(), "RANGE", "code of pixel_table", "header", 0)


def test_a_window_with_nothing_in_it(library):
    m = Maker(26, "float32", (3, 13, 14))
    m.maxpool(3, 3, 5)
    refused(library, m.model().write(), "RANGE", "first row of the last window", "layer", 0)


def test_means_that_keep_their_scale(library):
    m = Maker(27, "double_rounding", (3, 4, 4))
    m.average_pool()
    m.tensors[1].zero_point = 5 if m.tensors[0].zero_point != 5 else 6
    refused(library, m.model().write(), "SHAPE", "zero point", "layer", 0)


def test_shortcuts_of_shapes_that_do_not_divide(library):
    m = Maker(28, "float32", (2, 8, 8))
    one = m.convolution(2, size=1, padding=0, of=0)
    m.convolution(2, size=1, stride=2, padding=0, of=0)
    m.tensors[-1].shape = (2, 4, 4)
    m.add(one, m.last)
    data = m.model().write()
    assert library.open(data)[0], library.open(data)[1].field
    refused(library, change(data, offset_of("layer", "table", 2, 3), 0), "OUTSIDE", "table", "layer", 2)
    m = Maker(28, "float32", (2, 8, 4))
    one = m.convolution(2, size=1, padding=0, of=0)
    m.convolution(2, size=3, stride=1, padding=0, of=0)
    m.add(one, m.last)
    refused(library, m.model().write(), "SHAPE", "height of the first input", "layer", 2)


def test_many_layers(library):
    """As many as there may be: the check of who lies where is not too slow."""
    m = Maker(29, "float32", (1, 1, 1))
    for _ in range(4096):
        m.lookup(leaky)
    assert library.open(m.model().write())[0]


def test_arena(library):
    m, model = two_heads(1, "float32")
    opened, _ = library.open(model.write())
    size = opened.arena_bytes
    room, codes = np.zeros(size + 8, dtype=np.uint8), np.zeros(768, dtype=np.int8)
    start = room.ctypes.data + -room.ctypes.data % 4
    begin = library.c.kure_runtime_start
    assert begin(opened.address, start, size, codes.ctypes.data) == 0
    assert begin(opened.address, start, size - 1, codes.ctypes.data) == STATUS["ARENA"]
    assert begin(opened.address, start + 1, size, codes.ctypes.data) == STATUS["ARENA"]


def test_every_status_has_a_sentence(library):
    texts = [library.c.kure_runtime_status_text(i).decode() for i in range(len(STATUS))]
    assert len(set(texts)) == len(STATUS) and library.c.kure_runtime_status_text(len(STATUS)) == b"?"


# ---- the library's own rules -----------------------------------------------------------------

SOURCES = sorted(p for p in (programs.ROOT / "darknet-kure/runtime").glob("*.c") if not p.name.startswith("kure_run"))
INCLUDES = ["-I", programs.ROOT / "darknet-kure/include", "-I", programs.ROOT / "darknet-kure/math"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.name)
def test_strict_c99_without_floating_point(source, tmp_path):
    """-mgeneral-regs-only: the compiler refuses whatever would need a floating-point register."""
    command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror", "-ffreestanding", "-mgeneral-regs-only", "-O2", *INCLUDES,
               "-c", source, "-o", tmp_path / "out.o"]
    programs.succeed(programs.run(command, tmp_path))


def test_that_check_can_fail(tmp_path):
    (tmp_path / "bad.c").write_text("float f(const float *x); float f(const float *x) { return *x * 2; }\n")
    assert programs.run(["gcc", "-std=c99", "-mgeneral-regs-only", "-O2", "-c", "bad.c"], tmp_path).returncode != 0


def test_headers_are_c_and_cpp(tmp_path):
    text = '#include "kure_runtime.h"\n#include "kure_intmath.h"\nint main(void) { return kure_mean_codes(7, 2) - 4; }\n'
    for compiler, name, standard in (("gcc", "a.c", "-std=c99"), ("g++", "a.cc", "-std=c++17")):
        (tmp_path / name).write_text(text)
        programs.succeed(programs.run([compiler, standard, "-Wall", "-Wextra", "-pedantic", "-Werror", *INCLUDES, name, "-o", "a"], tmp_path))
        assert subprocess.run([tmp_path / "a"]).returncode == 0
