#!/usr/bin/python3
"""A KURE step on all layers of a network on the GPU against PyTorch eager on tensors of the same sizes, in one run.

PyTorch computes loss and gradient of mean (K_i - 1.8)^2 as the paper's code does. The step of bench_cuda also adds the
term to the updates; the few operations on the CPU between its launches are not in it. Status 1 where the mark is missed;
without PyTorch for CUDA the comparison is NOT RUN."""
import pathlib
import subprocess
import sys

MARK = 10
NETWORKS = ("yolov3-tiny", "resnet50", "yolov3")


def torch_seconds(torch, sizes):
    weights = [(0.03 * torch.randn(n, device="cuda")).requires_grad_() for n in sizes]
    times = []
    for _ in range(15):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        loss = sum((((((w - w.mean()) / torch.std(w)) ** 4).mean() - 1.8) ** 2) for w in weights) / len(weights)
        torch.autograd.grad(loss, weights)
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return sorted(times)[len(times) // 2]


def main():
    binary = pathlib.Path(sys.argv[1])
    try:
        import torch
    except ImportError:
        torch = None
    if torch is None or not torch.cuda.is_available():
        print("PyTorch on the GPU: NOT RUN, there is no PyTorch for CUDA here")
        return False
    missed = False
    for name in NETWORKS:
        sizes = [int(word) for word in subprocess.run([binary, "--sizes", name], check=True, capture_output=True, text=True).stdout.split()]
        ours = float(subprocess.run([binary, "--step", name], check=True, capture_output=True, text=True).stdout)
        theirs = torch_seconds(torch, sizes)
        missed |= theirs < MARK * ours
        print(f"{name}: PyTorch {torch.__version__} eager {theirs * 1e3:.2f} ms, KURE step {ours * 1e3:.3f} ms: {theirs / ours:.1f} times as fast, "
              f"at least {MARK}: {'MISSED' if theirs < MARK * ours else 'OK'}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main())
