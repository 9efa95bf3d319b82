#!/usr/bin/python3
"""Writes tests/fuzz/corpus: small models, one or two kinds of layers each, that fuzzing starts from and the unit tests replay."""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from random_models import Maker, leaky  # noqa: E402


def models():
    m = Maker(1, "float32", (2, 4, 5))
    m.convolution(3)
    yield "convolution", m.model(pixel_table=range(-128, 128))
    m = Maker(2, "double_rounding", (4, 3, 3))
    m.convolution(2, size=2, padding=1, stride=2, groups=2, weight_bits=4)
    m.lookup(leaky)
    yield "packed", m.model()
    m = Maker(3, "float32_multiplied", (1, 3, 3))
    m.connected(3, weight_bits=4)
    m.connected(2)
    yield "connected", m.model(input_rounding=3)
    m = Maker(4, "float32_divided", (2, 5, 5))
    m.maxpool(2, 2)
    m.average_pool()
    yield "pools", m.model()
    m = Maker(5, "single_rounding", (4, 2, 4))
    m.reorg("forward")
    m.reorg("reverse")
    m.upsample(2)
    m.reorg("flatten")
    m.average_pool()
    yield "moves", m.model(outputs=[3, 5])
    m = Maker(6, "shift_half_up", (2, 3, 3), bits=4)
    first = m.convolution(2, size=1, padding=0)
    m.upsample(1)
    m.concatenate([first, 0, m.last])
    m.average_pool()
    yield "route", m.model()
    m = Maker(7, "single_rounding", (3, 4, 4))
    small = m.convolution(2, size=1, stride=2, padding=0)
    m.convolution(3, of=0)
    m.add(m.last, small)
    m.add(small, m.last)
    yield "shortcut", m.model(outputs=[3, 4])
    m = Maker(8, "shift_half_away", (2, 3, 3))
    m.convolution(2, groups=2, of=0)
    m.add(m.last, 0)
    yield "shift", m.model()
    m = Maker(9, "float32", (2, 2, 2))
    m.lookup(of=0)
    m.add(m.last, 0)
    yield "float32_add", m.model()


def main():
    (HERE / "corpus").mkdir(exist_ok=True)
    for name, model in models():
        path = HERE / "corpus" / f"{name}.kure"
        path.write_bytes(model.write())
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
