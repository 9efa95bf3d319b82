#!/usr/bin/env python3
"""Repeats the demo for three seeds: README's table, and whether the demo's promises hold.

Each seed is a run of demo.sh in build/paper/seed-N, which may be interrupted and run again.
Writes build/paper/table.md and build/paper/accuracy.svg; prints every promise ("mark") with
its number and PASS or MISSED. Exit status 1: a mark is missed. Test: tests/test_paper.py
"""
import argparse
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable

from report_files import Inputs, float_accuracy, mean, read_argument, select, settings, values_of
from report_weights import Failure

MODELS = ("baseline", "control", "kure")
SETTINGS = ("raw", "channel")         # of demo.sh
TARGET, WITHIN = 1.8, 0.1             # kurtosis of every regularized layer
FLOAT_LOSS = 0.5                      # points that KURE may cost in float
AHEAD = {2.0: 6.0, 3.0: 1.0}          # bits -> points that KURE must be ahead, per tensor on raw weights


def run_seed(seed: int, folder: pathlib.Path, images: int) -> None:
    print(f"\n== seed {seed} ==", flush=True)
    command = ["scripts/demo.sh", "--seed", str(seed), "--out", str(folder), "--images", str(images)]
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status if status > 0 else 128 - status)


def tables_of(folder: pathlib.Path) -> list[str]:
    """The sweeps over bits and the step sizes around the best one, as arguments of report.py."""
    return [f"{model}={folder}/points/{model}-{setting}-bits.csv" for setting in SETTINGS for model in MODELS]


def read_seed(folder: pathlib.Path) -> Inputs:
    inputs = Inputs()
    for table in tables_of(folder):
        read_argument(table, inputs)
    for model in MODELS:
        read_argument(str(folder / f"{model}.log.csv"), inputs)
        read_argument(str(folder / f"{model}.stats.csv"), inputs)
    return inputs


def regularized(seed: Inputs) -> dict[int, float]:
    """Layer -> kurtosis of the finished kure model, where its log has the layer."""
    layers = {int(c.removeprefix("kurtosis_")) for c in seed.logs["kure"] if c.startswith("kurtosis_") and c != "kurtosis_loss"}
    return {int(row["layer"]): float(row["kurtosis"]) for row in seed.stats["kure"] if int(row["layer"]) in layers}


def spread(values: list[float]) -> str:
    """Mean and standard deviation over the seeds."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{deviation}"


def setting_table(seeds: list[Inputs], setting: tuple, title: str) -> list[str]:
    bits = values_of(seeds[0], "weight_bits")[::-1]
    lines = [f"| {title} | float | " + " | ".join(f"{b:g} bits" for b in bits) + " |", "|---|" + "---|" * (len(bits) + 1)]
    for model in MODELS:
        cells = [spread([float_accuracy(s, model) for s in seeds])]
        cells += [spread([mean(select(s, model, setting, weight_bits=b)) for s in seeds]) for b in bits]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return lines


def kurtosis_table(seeds: list[Inputs]) -> list[str]:
    layers = [int(row["layer"]) for row in seeds[0].stats["kure"]]
    lines = ["| kurtosis | " + " | ".join(f"layer {n}" for n in layers) + " |", "|---|" + "---|" * len(layers)]
    for model in MODELS:
        by_layer = [mean([float(s.stats[model][i]["kurtosis"]) for s in seeds]) for i in range(len(layers))]
        lines.append(f"| {model} | " + " | ".join(f"{k:.2f}" for k in by_layer) + " |")
    return lines


def markdown(seeds: list[Inputs], names: list[int]) -> str:
    ratios = ", ".join(f"{r:g}" for r in values_of(seeds[0], "weight_step_ratio"))
    lines = [f"Top-1 accuracy (%) on the test images of Fashion-MNIST: mean over the step ratios {ratios}; "
             f"mean ± standard deviation over seeds {', '.join(map(str, names))}.", ""]
    for setting, title in settings(seeds[0]).items():
        lines += [*setting_table(seeds, setting, title), ""]
    return "\n".join(lines + kurtosis_table(seeds)) + "\n"


def marks(seeds: list[Inputs]) -> list[tuple[str, float, bool]]:
    """(what was promised, what was measured, whether it holds)"""
    raw = next(s for s, title in settings(seeds[0]).items() if title.startswith("per tensor, raw weights"))
    worst = max((abs(k - TARGET) for s in seeds for k in regularized(s).values()))
    cost = mean([float_accuracy(s, "control") - float_accuracy(s, "kure") for s in seeds])
    found = [(f"kurtosis of every regularized layer within {WITHIN:g} of {TARGET:g}: farthest of all seeds", worst, worst <= WITHIN),
             (f"float accuracy of kure within {FLOAT_LOSS:g} points of control: points lost", cost, abs(cost) <= FLOAT_LOSS)]
    for bits, wanted in AHEAD.items():
        gain = mean([mean(select(s, "kure", raw, weight_bits=bits)) - mean(select(s, "control", raw, weight_bits=bits)) for s in seeds])
        found.append((f"{bits:g} bits, per tensor on raw weights: kure ahead of control by at least {wanted:g} points", gain, gain >= wanted))
    return found


def write(path: pathlib.Path, text: str) -> None:
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def seed_numbers(parser: argparse.ArgumentParser, text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        parser.error(f"--seeds {text}: must be whole numbers between commas")


def print_marks(found: list[tuple[str, float, bool]]) -> int:
    """The exit status: 1 where one is missed."""
    for promise, value, holds in found:
        print(f"{'PASS  ' if holds else 'MISSED'}  {promise}: {value:.2f}")
    return 0 if all(holds for *_, holds in found) else 1


def tabulate(run: Callable[[int], dict], names: list[int], markdown: Callable[[list[dict]], str],
             marks: Callable[[list[dict]], list[tuple[str, float, bool]]], file: pathlib.Path) -> int:
    """What the other figures' scripts do once their arguments are read: run every seed, write and print the table and its marks."""
    try:
        seeds = [run(seed) for seed in names]
    except KeyboardInterrupt:
        print("Stopped. Run the same command again to go on from here.", file=sys.stderr)
        return 130
    text = markdown(seeds)
    write(file, text)
    print(f"\n{text}")
    status = print_marks(marks(seeds))
    print(f"\nWrote {file}")
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3", help="default: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/paper"), help="default: %(default)s")
    parser.add_argument("--images", type=int, default=0, help="evaluate on the first N test images only")
    parser.add_argument("--no-run", action="store_true", help="only read what is there")
    arguments = parser.parse_args()
    names = seed_numbers(parser, arguments.seeds)
    folders = [arguments.out / f"seed-{seed}" for seed in names]
    try:
        for seed, folder in zip(names, folders) if not arguments.no_run else ():
            run_seed(seed, folder, arguments.images)
        seeds = [read_seed(folder) for folder in folders]
        table = markdown(seeds, names)
        write(arguments.out / "table.md", table)
        found = marks(seeds)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    figure = arguments.out / "accuracy.svg"
    report = [sys.executable, "scripts/report.py", *[table for f in folders for table in tables_of(f)], "--average", "--figure", str(figure)]
    subprocess.run(report, check=True, stdout=subprocess.DEVNULL)
    print(f"\n{table}")
    status = print_marks(found)
    print(f"\nWrote {arguments.out}/table.md and {figure}")
    return status


if __name__ == "__main__":
    sys.exit(main())
