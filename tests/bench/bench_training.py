#!/usr/bin/env python3
"""bench_training.py: training of the demo net, build/darknet against stock Darknet.

Stock is Debian's Darknet without our patches, built with OPENMP=0 and OPENMP=1; the
faster one counts. The three take turns in one run, so that a noisy machine is noisy
for all. Seconds are Darknet's own (waiting for images + training), from its output.
"""
import pathlib
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "build/bench"
CFG = ROOT / "cfg/fashion.cfg"
DATA = ROOT / "build/fashion-mnist/fashion.data"
UPDATES, WARM_UP, ROUNDS, MARK = 25, 5, 3, 2.0


def build_stock(openmp: int) -> pathlib.Path:
    tree = WORK / f"stock-openmp{openmp}"
    if not (tree / "darknet").exists():
        print(f"building stock Darknet with OPENMP={openmp} ...", flush=True)
        subprocess.run([ROOT / "scripts/get_darknet.sh", tree], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        (tree / "obj").mkdir(exist_ok=True)
        subprocess.run(["make", "-C", tree, "-j2", f"OPENMP={openmp}", "darknet"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return tree / "darknet"


def bench_cfg() -> pathlib.Path:
    """The demo's baseline cfg without our keys, ended after a few updates."""
    clean = WORK / "fashion-clean.cfg"
    subprocess.run([ROOT / "build/darknet", "kure", "plan", CFG, "--clean", clean], check=True, stdout=subprocess.DEVNULL)
    clean.write_text(re.sub(r"^max_batches\s*=.*$", f"max_batches={UPDATES}", clean.read_text(), flags=re.M))
    return clean


def bench_data() -> pathlib.Path:
    """The demo's data with a backup folder of its own."""
    (WORK / "backup").mkdir(exist_ok=True)
    data = WORK / "fashion.data"
    data.write_text(re.sub(r"^backup\s*=.*$", f"backup={WORK / 'backup'}", DATA.read_text(), flags=re.M))
    return data


def seconds_per_update(darknet: pathlib.Path, data: pathlib.Path, cfg: pathlib.Path, command: str = "classifier", updates: int = UPDATES,
                       warm_up: int = WARM_UP) -> float:
    out = subprocess.run([darknet, command, "train", data, cfg], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    loaded = [float(x) for x in re.findall(r"Loaded: ([\d.]+) seconds", out)]
    trained = [float(x) for x in re.findall(r"rate, ([\d.]+) seconds", out)]
    if len(trained) != updates or len(loaded) != updates:
        sys.exit(f"{darknet}: expected {updates} updates in its output, found {len(trained)}")
    return statistics.median(a + b for a, b in list(zip(loaded, trained))[warm_up:])


def main() -> int:
    WORK.mkdir(parents=True, exist_ok=True)
    subjects = {"stock OPENMP=0": build_stock(0), "stock OPENMP=1": build_stock(1), "darknet-kure": ROOT / "build/darknet"}
    cfg, data = bench_cfg(), bench_data()
    times = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, darknet in subjects.items():
            times[name].append(seconds_per_update(darknet, data, cfg))
    best = {name: min(values) for name, values in times.items()}
    for name, value in best.items():
        print(f"training the demo net, {name:15s} {1000 * value:8.1f} ms an update (batch 128)")
    ratio = min(best["stock OPENMP=0"], best["stock OPENMP=1"]) / best["darknet-kure"]
    met = ratio >= MARK
    print(f"training: {ratio:.2f} times as fast as the better stock build; mark {MARK:g}: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
