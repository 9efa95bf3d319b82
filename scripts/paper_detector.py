#!/usr/bin/env python3
"""Repeats the detector's demo for three seeds: README's table in average precision, and whether its promises hold.

Each seed is a run of demo_detector.sh in build/paper/detector/seed-N, which may be interrupted and run again.
Writes table.md there and prints every promise ("mark") with its number and PASS or MISSED. Exit status 1: a mark is
missed. Test: tests/test_paper_detector.py
"""
import argparse
import csv
import pathlib
import subprocess
import sys

import paper
from report_files import mean

MODELS = paper.MODELS
SETTINGS = {"tensor": "per tensor", "channel": "per channel", "pow2": "powers of two"}  # of demo_detector.sh
FLOAT = (40, 80)                        # AP of the float baseline
LOSS = {"channel": 0.5, "pow2": 1.9}    # AP that the float baseline may lose with 8-bit weights and activations
FRAGILE, SHARE = 2.0, 0.5               # at the first width where the baseline loses that much per tensor: KURE's loss, as a share of control's


def run_seed(seed: int, folder: pathlib.Path, images: int) -> None:
    print(f"\n== seed {seed} ==", flush=True)
    status = subprocess.run(["scripts/demo_detector.sh", "--seed", str(seed), "--out", str(folder), "--images", str(images)], check=False).returncode
    if status:
        sys.exit(status if status > 0 else 128 - status)


def read_seed(folder: pathlib.Path) -> dict[tuple[str, str], dict[int, float]]:
    """(model, setting) -> {weight bits: AP}, 0 bits for float."""
    found = {}
    for model in MODELS:
        for setting in SETTINGS:
            with open(folder / "points" / f"{model}-{setting}.csv", newline="", encoding="utf-8") as file:
                found[model, setting] = {int(row["weight_bits"]): float(row["ap"]) for row in csv.DictReader(file)}
    return found


def markdown(seeds: list[dict], names: list[int]) -> str:
    widths = [bits for bits in seeds[0]["baseline", "tensor"] if bits]
    lines = [f"AP (0.50 to 0.95, %) with 8-bit activations; mean ± standard deviation over seeds {', '.join(map(str, names))}.", ""]
    for setting, title in SETTINGS.items():
        lines += [f"| {title} | float | " + " | ".join(f"{bits} bits" for bits in widths) + " |", "|---|" + "---|" * (len(widths) + 1)]
        for model in MODELS:
            lines.append(f"| {model} | " + " | ".join(paper.spread([seed[model, setting][bits] for seed in seeds]) for bits in (0, *widths)) + " |")
        lines.append("")
    return "\n".join(lines)


def marks(seeds: list[dict]) -> list[tuple[str, float, bool]]:
    """(what was promised, what was measured, whether it holds)"""
    def loss(model: str, setting: str, bits: int) -> float:
        return mean([seed[model, setting][0] - seed[model, setting][bits] for seed in seeds])

    base = mean([seed["baseline", "tensor"][0] for seed in seeds])
    found = [(f"float baseline between {FLOAT[0]} and {FLOAT[1]} AP", base, FLOAT[0] <= base <= FLOAT[1])]
    for setting, allowed in LOSS.items():
        lost = loss("baseline", setting, 8)
        found.append((f"8-bit weights and activations, {SETTINGS[setting]}, at most {allowed:g} AP lost", lost, lost <= allowed))
    widths = [bits for bits in seeds[0]["baseline", "tensor"] if bits and loss("baseline", "tensor", bits) >= FRAGILE]
    if widths:
        bits = max(widths)
        control, kure = (loss(model, "tensor", bits) for model in ("control", "kure"))
        found.append((f"{bits} bits per tensor, where the baseline loses {loss('baseline', 'tensor', bits):.2f} AP and control {control:.2f}: "
                      f"kure at most half of control's, AP lost", kure, kure <= SHARE * control))
    else:
        found.append((f"a width at which the baseline loses {FRAGILE:g} AP per tensor: none down to {min(b for b in seeds[0]['baseline', 'tensor'] if b)} bits, "
                      "AP lost there", max(loss("baseline", "tensor", b) for b in seeds[0]["baseline", "tensor"] if b), False))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3", help="default: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/paper/detector"), help="default: %(default)s")
    parser.add_argument("--images", type=int, default=0, help="evaluate on the first N images only")
    parser.add_argument("--no-run", action="store_true", help="only read what is there")
    arguments = parser.parse_args()
    names = paper.seed_numbers(parser, arguments.seeds)

    def run(seed: int) -> dict:
        folder = arguments.out / f"seed-{seed}"
        if not arguments.no_run:
            run_seed(seed, folder, arguments.images)
        return read_seed(folder)

    try:
        return paper.tabulate(run, names, lambda seeds: markdown(seeds, names), marks, arguments.out / "table.md")
    except FileNotFoundError as error:
        print(f"{error.filename}: is missing: run 'make paper'", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
