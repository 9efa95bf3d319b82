#!/usr/bin/env python3
"""Networks trained for one quantizer and evaluated under others: README's table of quantization-aware training.

The demo's network with ReLU, which dorefa needs; every row of MODELS is fine-tuned from one float network a seed,
alike but for RATES, in build/paper/quantization/seed-N. May be interrupted and run again: what is done is not done
again. Writes table.md there
and prints every promise ("mark") with its number and PASS or MISSED. Exit status 1: a mark is missed.
Test: tests/test_paper_quantization.py
"""
import argparse
import pathlib
import re
import statistics
import sys

import paper
import paper_seed
from paper_seed import top1

BITS, BATCHNORM_IMAGES = 4, 1280
RATES = {"dorefa": 0.1}  # it scales its weights to -1..1, so that a step of 0.02 hardly moves them; the others keep the cfg's

KURE = "[kurtosis]\ntarget=1.8\nlambda=1.0\n"
FAMILY = "weight_bits:2-8 weight_step_ratio:0.7-1.3"


def quantization(**keys: object) -> str:
    return "[quantization]\n" + "".join(f"{key}={value}\n" for key, value in {"bits": BITS, **keys}.items())


MODELS = {  # name: (title, what its cfg has)
    "control": ("float", ""),
    "kure": ("KURE", KURE),
    "ste": ("QAT, ste", quantization()),
    "lsq": ("QAT, lsq", quantization(method="lsq", weight_truncation="mse")),
    "dorefa": ("QAT, dorefa", quantization(method="dorefa", batchnorm="train")),
    "kure-ste": ("KURE + QAT, ste", KURE + quantization()),
    "kure-lsq": ("KURE + QAT, lsq", KURE + quantization(method="lsq", weight_truncation="mse")),
    "kure-sample": ("KURE + sample", KURE + quantization(sample=FAMILY)),
}
ROUNDINGS = "half_away,half_up,half_down,half_to_zero,floor,ceil,to_zero,stochastic"
GROUPS = {  # what differs from the quantizer of training, at 4 bits where nothing else is said: options of `kure eval`
    "bits": [["--weight-bits", "8,6,5,4,3,2"]],
    "step ratio": [["--weight-bits", "4", "--weight-step-ratio", "0.7,0.8,0.9,1.1,1.2,1.3"]],
    "rounding": [["--weight-bits", "4", "--weight-rounding", ROUNDINGS], ["--weight-bits", "4", "--activation-rounding", ROUNDINGS]],
    "truncation": [["--weight-bits", "4", "--weight-truncation", "mse,kl,gauss,laplace"],
                   ["--weight-bits", "4", "--weight-truncation", "percentile", "--weight-truncation-value", "99.5"],
                   ["--weight-bits", "4", "--weight-truncation", "lp,sigma", "--weight-truncation-value", "3"],
                   ["--weight-bits", "4", "--activation-truncation", "minmax,mse,kl,gauss,laplace"]],
}
FLOAT_LOSS, LEAST = 1.0, (3, 2)  # points that QAT at 4 bits may cost; widths below the trained one


class Network(paper_seed.Seed):
    """The demo's network with ReLU."""

    def cfg(self, name: str, source: str, section: str) -> pathlib.Path:
        text = pathlib.Path(source).read_text()
        text = re.sub(r"^\[(?:quantization|kurtosis)\]\n(?:[^\[]*\n)?(?=\[)", "", text, flags=re.M)
        text = re.sub(r"^seed=.*$", f"seed={self.seed}", text, flags=re.M).replace("activation=leaky", "activation=relu")
        rate = RATES.get(name.split(".")[0])
        text = re.sub(r"^learning_rate=.*$", f"learning_rate={rate}", text, flags=re.M) if rate else text
        path = self.folder / f"{name}.cfg"
        path.write_text(text.replace("[convolutional]", section + "[convolutional]", 1))
        return path

    def train_model(self, name: str, source: str, section: str, start: pathlib.Path | None = None) -> pathlib.Path:
        return self.train(name, self.cfg(name, source, section), start)

    def evaluate_model(self, name: str, point: str, options: list[str], cfg: pathlib.Path | None = None) -> list[dict]:
        cfg, weights = cfg or self.folder / f"{name}.cfg", self.folder / f"{name}.weights"
        return self.evaluate(self.folder / f"{name}.{point}.csv", cfg, weights, options)

    def dorefa_group(self, group: str) -> dict[str, float]:
        """Its weights are those of the forward pass, so that only the quantizer of training can run, with another width."""
        changes = {"bits": [f"weight_bits={b}" for b in (8, 6, 5, 4, 3, 2)]}
        found = {}
        for change in changes.get(group, []):
            cfg = self.cfg(f"dorefa.{change}", "cfg/fashion-qat.cfg", quantization(method="dorefa", batchnorm="train") + change + "\n")
            found[change.split("=")[1]] = float(self.evaluate_model("dorefa", f"simulate.{change}", ["--simulate"], cfg)[0]["top1"])
        return found

    def run(self) -> dict[str, dict]:
        """Model -> {"float": top-1, "trained": top-1 as trained, group: {point: top-1}}"""
        print(f"\n== seed {self.seed} ==\ntraining the float network", flush=True)
        start, found = self.train_model("baseline", "cfg/fashion.cfg", ""), {}
        for name, (title, section) in MODELS.items():
            print(title, flush=True)
            self.train_model(name, "cfg/fashion-qat.cfg", section, start)
            row = found[name] = {"float": None if name == "dorefa" else top1(self.evaluate_model(name, "float", []))[0]}
            row["trained"] = top1(self.evaluate_model(name, "simulate", ["--simulate"]))[0] if "[quantization]" in section else None
            for group, calls in GROUPS.items():
                if name == "dorefa":
                    row[group] = self.dorefa_group(group)
                    continue
                row[group] = {}
                for i, options in enumerate(calls):
                    rows = self.evaluate_model(name, f"{group}.{i}", ["--activation-bits", str(BITS), "--bn-images", str(BATCHNORM_IMAGES), *options])
                    labels = [f"{value} {i}" if len(calls) > 1 else value for value in options[options.index(key_of(options)) + 1].split(",")]
                    row[group].update(zip(labels, top1(rows)))
        return found


def key_of(options: list[str]) -> str:
    """The option that has the list."""
    return next((word for word, value in zip(options, options[1:]) if word.startswith("--") and "," in value),
                next(word for word in reversed(options) if word.startswith("--") and not word.endswith("-value")))


def spread(values: list[float | None]) -> str:
    return "" if any(value is None for value in values) else paper.spread(values)


def mean(values) -> float | None:
    values = list(values)
    return statistics.mean(values) if values else None


def whole_grid(row: dict) -> float | None:
    return mean(value for group in GROUPS for value in row[group].values()) if all(row[group] for group in GROUPS) else None


def markdown(seeds: list[dict], names: list[int], images: int) -> str:
    widths = GROUPS["bits"][0][1].split(",")
    others = [group for group in GROUPS if group != "bits"]
    head = ["", "float", "as trained", *[f"{b} bits" for b in widths], *others, "all"]
    lines = [f"Top-1 (%) on {images or 'all'} test images of Fashion-MNIST, {BITS}-bit activations, mean ± standard deviation over seeds {', '.join(map(str, names))}.", "",
             "| " + " | ".join(head) + " |", "|---|" + "---|" * (len(head) - 1)]
    for model, (title, _) in MODELS.items():
        rows = [seed[model] for seed in seeds]
        cells = [spread([row[column] for row in rows]) for column in ("float", "trained")]
        cells += [spread([row["bits"].get(b) for row in rows]) for b in widths]
        cells += [spread([mean(row[group].values()) for row in rows]) for group in others]
        lines.append(f"| {title} | " + " | ".join([*cells, spread([whole_grid(row) for row in rows])]) + " |")
    return "\n".join(lines) + "\n"


def marks(seeds: list[dict]) -> list[tuple[str, float, bool]]:
    """(what was promised, what was measured, whether it holds)"""
    def average(model, value):
        return mean(value(seed[model]) for seed in seeds)

    found = []
    for method in ("ste", "lsq", "dorefa"):
        loss = average("control", lambda row: row["float"]) - average(method, lambda row: row["trained"])
        found.append((f"{method}, {BITS}-bit weights and activations, within {FLOAT_LOSS:g} point of float: points lost", loss, loss <= FLOAT_LOSS))
    gain = average("kure-ste", whole_grid) - average("ste", whole_grid)
    found.append(("KURE + QAT ahead of QAT on the mean over all points", gain, gain > 0))
    for bits in LEAST:
        gain = average("kure-ste", lambda row: row["bits"][str(bits)]) - average("ste", lambda row: row["bits"][str(bits)])
        found.append((f"KURE + QAT ahead of QAT at {bits} bits, trained at {BITS}", gain, gain > 0))

    def neither(row):
        return mean([*row["rounding"].values(), *row["truncation"].values()])

    gain = average("kure-sample", neither) - average("kure-ste", neither)
    found.append(("sample ahead of KURE + QAT on roundings and truncations that neither was trained with", gain, gain > 0))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3", help="default: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/paper/quantization"), help="default: %(default)s")
    parser.add_argument("--images", type=int, default=5000, help="evaluate on the first N test images; 0: all (default: %(default)s)")
    arguments = parser.parse_args()
    names = paper.seed_numbers(parser, arguments.seeds)
    if not paper_seed.PICTURES.exists() or not paper_seed.DARKNET.exists():
        print("build/darknet or the images are missing: run 'make paper'", file=sys.stderr)
        return 1
    return paper.tabulate(lambda seed: Network(arguments.out / f"seed-{seed}", seed, arguments.images).run(), names,
                          lambda seeds: markdown(seeds, names, arguments.images), marks, arguments.out / "table.md")


if __name__ == "__main__":
    sys.exit(main())
