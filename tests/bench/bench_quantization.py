#!/usr/bin/env python3
"""bench_quantization.py: training with [quantization] against the same training in float.

The demo net, 4-bit weights (a step a channel) and activations (moving averages), on one and two threads. The two
take turns in one run, so that a noisy machine is noisy for both. Status 1 where the mark is missed."""
import os
import pathlib
import re
import sys

from bench_training import ROOT, UPDATES, WORK, bench_data, seconds_per_update

ROUNDS, MARK = 3, 1.3


def write_cfgs() -> dict[str, pathlib.Path]:
    """cfg/fashion-qat.cfg for a few updates, with and without its [quantization]."""
    text = (ROOT / "cfg/fashion-qat.cfg").read_text()
    text = re.sub(r"^max_batches\s*=.*$", f"max_batches={UPDATES}", text, flags=re.M)
    section = re.compile(r"^\[quantization\]\n(?:[^\[]*\n)?(?=\[)", re.M)
    assert section.search(text)
    cfgs = {"float": section.sub("", text), "4 bits": text, "4 bits, lsq": text.replace("[quantization]\n", "[quantization]\nmethod=lsq\n")}
    out = {}
    for name, content in cfgs.items():
        out[name] = WORK / f"quantization-{name.replace(', ', '-').replace(' ', '')}.cfg"
        out[name].write_text(content)
    return out


def main() -> int:
    WORK.mkdir(parents=True, exist_ok=True)
    cfgs, data, missed = write_cfgs(), bench_data(), 0
    for threads in ("1", "2"):
        os.environ["OMP_NUM_THREADS"] = threads
        times = {name: [] for name in cfgs}
        for _ in range(ROUNDS):
            for name, cfg in cfgs.items():
                times[name].append(seconds_per_update(ROOT / "build/darknet", data, cfg))
        best = {name: min(values) for name, values in times.items()}
        for name, value in best.items():
            ratio = value / best["float"]
            verdict = ""
            if name == "4 bits":
                missed |= ratio > MARK
                verdict = f"; at most {MARK:g}: {'met' if ratio <= MARK else 'MISSED'}"
            print(f"training the demo net, {threads} thread(s), {name:12s} {1000 * value:7.1f} ms an update, {ratio:.2f} times float{verdict}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
