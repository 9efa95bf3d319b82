#!/usr/bin/python3
"""Time of one KURE step in C against PyTorch autograd of the same loss, one thread each, in one run.

Runs bench_kure (which has its own mark), then times loss and gradient of (K - 1.8)^2 for 11 M
weights in PyTorch as the paper's code computes them, turn by turn with the C. The C step also
limits the step's length and adds it to the updates. Processor time, so that other programs on the
machine do not count. Status 1 where a mark is missed.
"""
import os
import pathlib
import statistics
import subprocess
import sys
import time

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("BUILD", ROOT / "build")) / "bench_kure"
WEIGHTS = 11_000_000
MARK = 30
TURNS = 3


def build():
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    subprocess.run(["make", "-s", "-C", ROOT, f"BUILD={BINARY.parent}", BINARY], check=True, env=environment)


def torch_seconds(w):
    start = time.process_time()
    w.grad = None
    kurtosis = (((w - w.mean()) / torch.std(w)) ** 4).mean()
    ((kurtosis - 1.8) ** 2).backward()
    return time.process_time() - start


def kure_seconds():
    out = subprocess.run([BINARY, "--step", str(WEIGHTS)], check=True, capture_output=True, text=True)
    return float(out.stdout)


def main():
    build()
    missed = subprocess.run([BINARY]).returncode != 0
    torch.set_num_threads(1)
    torch.manual_seed(1)
    w = (0.03 * torch.randn(WEIGHTS)).requires_grad_()
    torch_seconds(w)  # warm up
    theirs, ours = [], []
    for _ in range(TURNS):
        theirs += [torch_seconds(w) for _ in range(3)]
        ours.append(kure_seconds())
    theirs, ours = statistics.median(theirs), statistics.median(ours)
    ok = theirs / ours >= MARK
    print(f"{WEIGHTS} weights: PyTorch {torch.__version__} {theirs * 1e3:.1f} ms, KURE step {ours * 1e3:.2f} ms, "
          f"one thread: {theirs / ours:.0f} times faster, at least {MARK}: {'OK' if ok else 'MISSED'}", flush=True)
    return missed or not ok


if __name__ == "__main__":
    sys.exit(main())
