"""paper_seed.py: the trainings and evaluations of one seed, for the scripts that make README's tables.

A step that is done carries the hash of what it was made from, and is not done again.
"""
import csv
import hashlib
import pathlib
import re
import subprocess
import sys

DARKNET = pathlib.Path("build/darknet")
PICTURES = pathlib.Path("build/fashion-mnist/fashion.data")


class Seed:
    """One seed's folder: cfgs, weights, evaluations."""

    def __init__(self, folder: pathlib.Path, seed: int, images: int):
        self.folder, self.seed, self.images = folder, seed, images
        folder.mkdir(parents=True, exist_ok=True)
        self.data = folder / "fashion.data"
        if PICTURES.exists():
            self.data.write_text(re.sub(r"^backup=.*$", f"backup={folder}", PICTURES.read_text(), flags=re.M))

    def step(self, out: pathlib.Path, command: list[str], inputs: list[pathlib.Path]) -> None:
        text = "\n".join([*command, *(hashlib.sha256(path.read_bytes()).hexdigest() for path in [DARKNET, *inputs])])
        stamp, made_from = out.with_name(out.name + ".stamp"), hashlib.sha256(text.encode()).hexdigest()
        if out.exists() and stamp.exists() and stamp.read_text() == made_from:
            return
        stamp.unlink(missing_ok=True)
        with open(self.folder / "messages.log", "a", encoding="utf-8") as log:
            status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        if status or not out.exists():
            sys.exit(f"'{' '.join(command)}' failed (status {status}); its messages are in {log.name}")
        stamp.write_text(made_from)

    def train(self, name: str, cfg: pathlib.Path, start: pathlib.Path | None = None) -> pathlib.Path:
        """From nothing, or a new schedule from the weights `start`."""
        out, more = self.folder / f"{name}.weights", [str(start), "-clear"] if start else []
        self.step(out, [str(DARKNET), "classifier", "train", str(self.data), str(cfg), *more], [cfg, *([start] if start else [])])
        return out

    def evaluate(self, out: pathlib.Path, cfg: pathlib.Path, weights: pathlib.Path, options: list[str]) -> list[dict]:
        count = ["--images", str(self.images)] if self.images else []
        self.step(out, [str(DARKNET), "kure", "eval", str(cfg), str(weights), str(self.data), *count, *options, "--csv", str(out)], [cfg, weights])
        with open(out, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def top1(rows: list[dict]) -> list[float]:
    return [float(row["top1"]) for row in rows]
