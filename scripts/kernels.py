#!/usr/bin/env python3
"""What the compiler says of our kernels, from `nvcc -Xptxas -v` on stdin: make kernels

    kernels.py < report     a table

Bytes an element: what tests/bench/bench_cuda.cu counts, read and written. Blocks: of 256 threads, that registers and
threads let run at once on a multiprocessor, which has 65536 registers (CUDA C++ Programming Guide, compute capabilities)."""
import pathlib
import re
import sys

THREADS, REGISTERS = 256, 65536
MOST_THREADS = {"sm_75": 1024, "sm_86": 1536, "sm_87": 1536, "sm_89": 1536}  # others: 2048
BENCH = pathlib.Path(__file__).parents[1] / "tests" / "bench" / "bench_cuda.cu"


def bytes_an_element():
    return {name: int(count) for name, count in re.findall(r'\{KURE_CUDA_\w+, "(\w+)", (\d+),', BENCH.read_text())}


def kernels(report):
    """[(kind of GPU, kernel, registers, shared bytes, spilled bytes)]"""
    found, entry = [], None
    for line in report:
        if match := re.search(r"Compiling entry function '\w*?\d+(\w+?)_kernel\w*' for '(\w+)'", line):
            entry, spilled = match.groups(), 0
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spilled = int(match[1]) + int(match[2])
        elif entry and (match := re.search(r"Used (\d+) registers", line)):
            shared = re.search(r"(\d+) bytes smem", line)
            found.append((entry[1], entry[0], int(match[1]), int(shared[1]) if shared else 0, spilled))
            entry = None
    return found


def main():
    rows, elements = kernels(sys.stdin), bytes_an_element()
    if not rows:
        sys.exit("kernels.py: no kernel in the report: nvcc wants -Xptxas -v")
    print(f"{'GPU':6} {'kernel':24} {'registers':>9} {'shared':>7} {'spilled':>7} {'blocks':>6} {'bytes an element':>16}")
    for kind, name, registers, shared, spilled in sorted(rows):
        blocks = min(MOST_THREADS.get(kind, 2048) // THREADS, REGISTERS // (-(-registers // 8) * 8 * THREADS))
        print(f"{kind:6} {name:24} {registers:9} {shared:7} {spilled:7} {blocks:6} {elements.get(name, '-'):>16}")


if __name__ == "__main__":
    main()
