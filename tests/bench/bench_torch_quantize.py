#!/usr/bin/python3
"""Simulated quantization in C against PyTorch's fake quantize of the same tensors, one thread each, in one run.

First the passes against memcpy (bench_quantize, which has its own mark). Then the weights of yolov3-tiny's largest
layer with a step for each of 1024 rows, forward; and the output of its first layer for 4 images with one step,
forward and backward. The two take turns, and write the same values but where PyTorch's x * (1/step) rounds to the
other side of a tie. Processor time, so that other programs on the machine do not count; the best of each.
Status 1 where a mark is missed."""
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("BUILD", ROOT / "build")) / "bench_quantize"
ROWS, LENGTH = 1024, 512 * 9
VALUES = 4 * 16 * 416 * 416
TURNS, CALLS = 3, 7
BITS = 4
DIFFERENT = 1e-4  # share of values that may lie on the other side of a tie


def build():
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    subprocess.run(["make", "-s", "-C", ROOT, f"BUILD={BINARY.parent}", BINARY], check=True, env=environment)


def run(*words):
    out = subprocess.run([BINARY, *map(str, words)], check=True, capture_output=True, text=True)
    return [float(x) for x in out.stdout.split()]


def seconds(function, *arguments):
    start = time.process_time()
    result = function(*arguments)
    return time.process_time() - start, result


def same(ours, theirs, what):
    share = float(np.mean(ours != theirs.detach().numpy().reshape(-1)))
    if share > DIFFERENT:
        sys.exit(f"{what}: {100 * share:.3f} % of the values differ from PyTorch's")


def report(what, ours, theirs):
    ok = theirs > ours
    print(f"{what}: PyTorch {torch.__version__} {theirs * 1e3:.2f} ms, ours {ours * 1e3:.2f} ms, one thread: "
          f"{theirs / ours:.2f} times as fast, more than 1: {'OK' if ok else 'MISSED'}", flush=True)
    return not ok


def weights(folder):
    x = 0.03 * torch.randn(ROWS, LENGTH)
    high = 2 ** (BITS - 1) - 1
    steps = x.abs().amax(1) / high * 0.6  # so that some are clipped
    zeros = torch.zeros(ROWS, dtype=torch.int32)
    (folder / "in").write_bytes(x.numpy().tobytes() + steps.numpy().tobytes())
    ours, theirs = [], []
    for _ in range(TURNS):
        ours += run("rows", folder / "in", folder / "out", ROWS, LENGTH)
        for _ in range(CALLS):
            with torch.no_grad():
                taken, y = seconds(torch.fake_quantize_per_channel_affine, x, steps, zeros, 0, -high, high)
            theirs.append(taken)
    same(np.fromfile(folder / "out", np.float32), y, "weights")
    return report(f"weights {ROWS} x {LENGTH}, a step a row, forward", min(ours), min(theirs))


def activations(folder):
    x = torch.randn(VALUES).requires_grad_()
    dy = torch.randn(VALUES)
    step, zero = np.float32(0.25), -2
    (folder / "in").write_bytes(x.detach().numpy().tobytes() + dy.numpy().tobytes() + np.array([step, zero], np.float32).tobytes())
    ours, theirs = [], []
    for _ in range(TURNS):
        ours.append(run("tensor", folder / "in", folder / "out", VALUES))
        for _ in range(CALLS):
            x.grad = None
            forward, y = seconds(torch.fake_quantize_per_tensor_affine, x, float(step), zero, -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1)
            backward, _ = seconds(y.backward, dy)
            theirs.append((forward, backward))
    out = np.fromfile(folder / "out", np.float32)
    same(out[:VALUES], y, "activations")
    same(out[VALUES:], x.grad, "gradients")
    ours, theirs = np.min(ours, 0), np.min(theirs, 0)
    missed = report(f"activations {VALUES}, one step, forward", ours[0], theirs[0])
    missed |= report(f"activations {VALUES}, one step, backward", ours[1], theirs[1])
    return missed | report(f"activations {VALUES}, one step, both", ours.sum(), theirs.sum())


def main():
    build()
    missed = subprocess.run([BINARY]).returncode != 0
    torch.set_num_threads(1)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        missed |= weights(pathlib.Path(folder))
        missed |= activations(pathlib.Path(folder))
    return missed


if __name__ == "__main__":
    sys.exit(main())
