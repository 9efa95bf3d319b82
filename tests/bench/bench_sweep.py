#!/usr/bin/env python3
"""bench_sweep.py: kure sweep, eval and calibrate against bare forward passes and against stock Darknet.

The demo's network on the 10000 test images of Fashion-MNIST, on all cores. A bare forward pass is network_predict over
batches that are in memory already (tests/host/harness.c predict); our commands are timed whole, from their start to their
end, reading and decoding included. The subjects take turns in one run, so that a noisy machine is noisy for all.
Status 1 where a mark is missed.
`bench_sweep.py sweep`, `... eval` or `... calibrate`: one of the three."""
import os
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np

from bench_training import DATA, ROOT, WORK, bench_cfg, build_stock

BITS, RATIOS = range(2, 11), [0.5 + i / 10 for i in range(11)]
POINTS = 1 + len(BITS) * len(RATIOS)  # the float one too
SHARDS = 10  # divides them
ROUNDS, IMAGES, STOCK_IMAGES = 3, 10000, 4000
SWEEP_MARK, EVAL_MARK, CALIBRATE_MARK = 1.15, 3.0, 1.5

KURE = ROOT / "build/darknet"
WEIGHTS = WORK / "sweep.weights"
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # what build/darknet sets for itself


def processor_seconds() -> float:
    """Of all processes that have been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(*command: object) -> tuple[float, str]:
    """(seconds, what it printed)"""
    start = time.monotonic()
    result = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {result.stderr[-500:]}")
    return time.monotonic() - start, result.stdout


def data_of(count: int) -> pathlib.Path:
    """A data file whose lists, of validation and of training, are the first so many test images."""
    paths = (ROOT / "build/fashion-mnist/test.list").read_text().splitlines()[:count]
    images = WORK / f"first-{count}.list"
    images.write_text("\n".join(paths) + "\n")
    lines = [line for line in DATA.read_text().splitlines() if line.split("=")[0].strip() not in ("train", "valid")]
    data = WORK / f"first-{count}.data"
    data.write_text("\n".join([*lines, f"train={images}", f"valid={images}"]) + "\n")
    return data


def passes(cfg: pathlib.Path, count: int) -> np.ndarray:
    """Seconds and processor seconds of so many bare forward passes."""
    lines = run(ROOT / "build/harness", "predict", cfg, WORK / f"first-{IMAGES}.list", "-weights", WEIGHTS, "-passes", count)[1].splitlines()
    return np.array([[float(x) for x in line.split()] for line in lines[-count:]]).sum(0)


def say(what: str, mark: str, met: bool) -> bool:
    print(f"{what}; {mark}: {'met' if met else 'MISSED'}", flush=True)
    return met


def sweep(cfg: pathlib.Path, data: pathlib.Path) -> bool:
    """In shards, each of which reads the images anew: passes and points take turns."""
    bare, took = np.zeros(2), np.zeros(2)
    for i in range(1, SHARDS + 1):
        table = WORK / "sweep.csv"
        table.unlink(missing_ok=True)
        bare += passes(cfg, POINTS // SHARDS)
        before = processor_seconds()
        seconds, _ = run(KURE, "kure", "sweep", cfg, WEIGHTS, data, "--csv", table, "--shard", f"{i}/{SHARDS}", "--weight-bits", ",".join(map(str, BITS)),
                    "--weight-step-ratio", ",".join(f"{x:g}" for x in RATIOS))
        took += seconds, processor_seconds() - before
    ratio = took[0] / bare[0]
    print(f"{POINTS} bare forward passes of {IMAGES} images {bare[0]:8.1f} s, {bare[1]:8.1f} s of processors")
    print(f"a sweep of {POINTS} points                     {took[0]:8.1f} s, {took[1]:8.1f} s of processors, {took[1] / bare[1]:.2f} times as many")
    return say(f"a sweep: {ratio:.2f} times as long as its bare forward passes", f"at most {SWEEP_MARK:g}", ratio <= SWEEP_MARK)


def evaluate(cfg: pathlib.Path) -> bool:
    data = data_of(STOCK_IMAGES)
    subjects = {f"stock OPENMP={openmp}, classifier valid": (build_stock(openmp), "classifier", "valid", data, cfg, WEIGHTS) for openmp in (0, 1)}
    subjects["darknet-kure, kure eval"] = (KURE, "kure", "eval", cfg, WEIGHTS, data)
    times = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, command in subjects.items():
            times[name].append(run(*command)[0])
    best = {name: min(values) for name, values in times.items()}
    for name, value in best.items():
        print(f"{name:32s} {1e6 * value / STOCK_IMAGES:8.0f} us an image")
    *stock, ours = best.values()
    ratio = min(stock) / ours
    return say(f"evaluation: {ratio:.2f} times as fast as the better stock build", f"at least {EVAL_MARK:g}", ratio >= EVAL_MARK)


def calibrate(cfg: pathlib.Path, data: pathlib.Path) -> bool:
    subjects = {"kure eval": (KURE, "kure", "eval", cfg, WEIGHTS, data),
                "kure calibrate": (KURE, "kure", "calibrate", cfg, WEIGHTS, data, "--images", IMAGES, "--report")}
    times = {name: [] for name in (*subjects, "bare")}
    for _ in range(ROUNDS):
        for name, command in subjects.items():
            times[name].append(run(*command)[0])
        times["bare"].append(passes(cfg, 1)[0])
    best = {name: min(values) for name, values in times.items()}
    ratio = best["kure calibrate"] / best["kure eval"]
    print(f"a bare forward pass of {IMAGES} images {best['bare']:.2f} s; reading them and a forward pass, kure eval {best['kure eval']:.2f} s")
    return say(f"calibration of the same images {best['kure calibrate']:.2f} s, {ratio:.2f} times kure eval", f"at most {CALIBRATE_MARK:g}",
               ratio <= CALIBRATE_MARK)


def main() -> int:
    WORK.mkdir(parents=True, exist_ok=True)
    subprocess.run(["make", "--no-print-directory", "build/harness"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    cfg, data, only = bench_cfg(), data_of(IMAGES), sys.argv[1:]
    run(ROOT / "build/harness", "train", cfg, WEIGHTS, "-updates", 2)
    met = True
    if not only or "eval" in only:
        met &= evaluate(cfg)
    if not only or "calibrate" in only:
        met &= calibrate(cfg, data)
    if not only or "sweep" in only:
        met &= sweep(cfg, data)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
