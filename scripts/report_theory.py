"""report_theory.py: the tables of `darknet kure theory` as plots for report.py: figures 1, 2 and 3c of the paper.

Distributions share a panel, and so do the models of a layer. Thin dotted lines: the paper's approximation.
"""
import math

from report_figures import STYLES, label_ends, new_panel, room_on_the_right, style_of
from report_files import Inputs, Row, show

Series = dict[str, list[Row]]  # name -> rows
Panel = tuple[object, str, tuple[list[str], list[list[str]]]]  # figure, title, (header, rows) of its numbers
DISTRIBUTIONS = {"uniform": 2, "normal": 1, "laplace": 3}  # rows of STYLES
LABELS = {"mse": "MSE / variance", "gamma": "sensitivity Γ / variance"}


def series_of(inputs: Inputs) -> dict[str, Series]:
    """{"": {"uniform": rows, ...}, "Layer 3": {model: rows, ...}}"""
    found: dict[str, Series] = {}
    for row in inputs.theory:
        layer = row.get("layer")
        group, name = ("", str(row["values"])) if layer is None else (f"Layer {layer:g}", str(row["model"]))
        found.setdefault(group, {}).setdefault(name, []).append(row)
    return found


def line_of(rows: list[Row], x: str, y: str, wanted: Row) -> dict[float, float]:
    """x -> y of the rows that match, where there is a y"""
    found = {row[x]: row[y] for row in rows if row.get(y) is not None and all(row[k] == v for k, v in wanted.items())}
    return dict(sorted(found.items()))


def number_table(series: Series, x: str, y: str, unit: str, wanted: Row) -> tuple[list[str], list[list[str]]]:
    lines = {}
    for name, rows in series.items():
        lines[name] = line_of(rows, x, y, wanted)
        lines[f"{name}, paper"] = line_of(rows, x, f"paper_{y}", wanted)
    columns = sorted({value for line in lines.values() for value in line}, reverse=x == "bits")
    return [LABELS[y], *[unit.format(f"{c:g}") for c in columns]], [
        [name, *[show(line.get(c)) for c in columns]] for name, line in lines.items() if line]


def draw(axes, models: list[str], series: Series, x: str, y: str, wanted: Row, place) -> None:
    """place: from a value of x to where it stands on the axis"""
    ends = []
    for name, rows in series.items():
        _, colour, marker, style = STYLES[DISTRIBUTIONS[name]] if name in DISTRIBUTIONS else style_of(models, name)
        for column, width, dashes in ((f"paper_{y}", 0.9, ":"), (y, 1.8, style)):
            line = sorted((place(at), value or math.nan) for at, value in line_of(rows, x, column, wanted).items())  # Γ = 0: a gap
            if line:
                marked = marker if column == y and len(line) <= 12 else ""
                axes.plot(*zip(*line), color=colour, linestyle=dashes, linewidth=width, marker=marked)
        ends += [(*end, name, colour) for end in line[-1:] if end[1] > 0]
    axes.set_yscale("log")
    axes.set_ylabel(LABELS[y])
    room_on_the_right(axes, 0.25)
    label_ends(axes, ends)


def over_ratio(models: list[str], series: Series, title: str, y: str, wanted: Row):
    figure, axes = new_panel(title)
    draw(axes, models, series, "ratio", y, wanted, float)
    axes.set_xlabel("step size / best step size")
    return figure


def over_bits(models: list[str], series: Series, title: str, wanted: Row):
    figure, axes = new_panel(title)
    bits = sorted({row["bits"] for rows in series.values() for row in rows}, reverse=True)
    draw(axes, models, series, "bits", "mse", wanted, bits.index)
    axes.set_xticks(range(len(bits)), [f"{b:g}" for b in bits])
    axes.set_xlabel("bits")
    return figure


def panels(inputs: Inputs, models: list[str]) -> tuple[list[Panel], list[Panel]]:
    """(least MSE over bits, MSE and sensitivity over the step size)"""
    of_bits, of_ratio = [], []
    for group, series in series_of(inputs).items():
        start = f"{group}: " if group else ""
        rows = [row for rows in series.values() for row in rows]
        for grid in dict.fromkeys(row["grid"] for row in rows):
            bits = sorted({row["bits"] for row in rows if row["grid"] == grid and row["ratio"] == 1})
            if len(bits) > 1:
                title, wanted = f"{start}least MSE, {grid}", {"grid": grid, "ratio": 1.0}
                of_bits.append((over_bits(models, series, title, wanted), title, number_table(series, "bits", "mse", "{} bits", wanted)))
        for grid, bits in dict.fromkeys((row["grid"], row["bits"]) for row in rows):
            wanted = {"grid": grid, "bits": bits}
            if len({row["ratio"] for row in rows if row["grid"] == grid and row["bits"] == bits}) > 1:
                for y, name in (("mse", "MSE"), ("gamma", "Γ")):
                    title = f"{start}{name}, {bits:g} bits, {grid}"
                    of_ratio.append((over_ratio(models, series, title, y, wanted), title, number_table(series, "ratio", y, "ratio {}", wanted)))
    return of_bits, of_ratio
