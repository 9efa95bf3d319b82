#!/usr/bin/env python3
"""bench_quantization.py: training with [quantization] against the same training in float.

The demo net, and yolov3-tiny at its own size on generated images; 4-bit weights (a step a channel) and activations
(moving averages), on one and two threads. The subjects take turns in one run, so that a noisy machine is noisy for
all. Status 1 where the mark is missed. `bench_quantization.py demo` or `... yolov3-tiny`: one of the two."""
import os
import pathlib
import re
import sys

import numpy as np
from PIL import Image

from bench_training import ROOT, UPDATES, WARM_UP, WORK, bench_data, seconds_per_update

ROUNDS, MARK = 3, 1.3
YOLO_UPDATES, YOLO_WARM_UP, YOLO_BATCH = 7, 2, 2
SECTIONS = {"float": "", "4 bits": "[quantization]\nbits=4\n\n", "4 bits, lsq": "[quantization]\nbits=4\nmethod=lsq\n\n"}


def write_cfgs(cfg: str, **changes: object) -> dict[str, pathlib.Path]:
    """A cfg with each of SECTIONS in place of its own [quantization], other keys changed in all of its sections."""
    text = (ROOT / "cfg" / cfg).read_text()
    for key, value in changes.items():
        text, count = re.subn(rf"^{key}\s*=.*$", f"{key}={value}", text, flags=re.M)
        assert count, key
    own = re.compile(r"^\[quantization\]\n(?:(?!\[).*\n)*", re.M)
    assert own.search(text)
    out = {}
    for name, section in SECTIONS.items():
        out[name] = WORK / f"quantization-{name.replace(', ', '-').replace(' ', '')}-{cfg}"
        out[name].write_text(own.sub(section, text))
    return out


def generated_boxes() -> pathlib.Path:
    """8 images of 416x416 with boxes of two of COCO's 80 classes; returns the data file."""
    folder, rng = WORK / "boxes", np.random.default_rng(1)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    paths = []
    for i in range(8):
        path = folder / "images" / f"{i}.png"
        image = rng.integers(0, 256, (26, 26, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        Image.fromarray(image).save(path)
        boxes = (f"{rng.integers(2)} {rng.uniform(.3, .7):.3f} {rng.uniform(.3, .7):.3f} .3 .2" for _ in range(3))
        (folder / "labels" / f"{i}.txt").write_text("\n".join(boxes) + "\n")
        paths.append(str(path))
    (folder / "train.list").write_text("\n".join(paths) + "\n")
    (WORK / "backup").mkdir(exist_ok=True)
    data = folder / "boxes.data"
    data.write_text(f"classes = 80\ntrain = {folder / 'train.list'}\nbackup = {WORK / 'backup'}\n")
    return data


def compare(what: str, data: pathlib.Path, cfgs: dict[str, pathlib.Path], **options: object) -> bool:
    """Prints a line for each cfg and number of threads; whether the mark was missed"""
    missed = False
    for threads in ("1", "2"):
        os.environ["OMP_NUM_THREADS"] = threads
        times = {name: [] for name in cfgs}
        for _ in range(ROUNDS):
            for name, cfg in cfgs.items():
                times[name].append(seconds_per_update(ROOT / "build/darknet", data, cfg, **options))
        best = {name: min(values) for name, values in times.items()}
        for name, value in best.items():
            ratio = value / best["float"]
            verdict = ""
            if name == "4 bits":
                missed |= ratio > MARK
                verdict = f"; at most {MARK:g}: {'met' if ratio <= MARK else 'MISSED'}"
            print(f"training {what}, {threads} thread(s), {name:12s} {1000 * value:7.1f} ms an update, {ratio:.2f} times float{verdict}", flush=True)
    return missed


def main() -> int:
    WORK.mkdir(parents=True, exist_ok=True)
    missed, only = False, sys.argv[1:]
    if not only or "demo" in only:
        missed |= compare("the demo net", bench_data(), write_cfgs("fashion-qat.cfg", max_batches=UPDATES), updates=UPDATES, warm_up=WARM_UP)
    if not only or "yolov3-tiny" in only:
        # one size throughout: random=1 draws sizes
        cfgs = write_cfgs("yolov3-tiny-qat.cfg", max_batches=YOLO_UPDATES, batch=YOLO_BATCH, subdivisions=1, random=0, burn_in=0)
        missed |= compare("yolov3-tiny", generated_boxes(), cfgs, command="detector", updates=YOLO_UPDATES, warm_up=YOLO_WARM_UP)
    return missed


if __name__ == "__main__":
    sys.exit(main())
