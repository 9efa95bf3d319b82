#!/usr/bin/env python3
"""Turns the files of darknet kure into one self-contained page and a table on the terminal.

  report.py FILE... -o report.html     the page: plots, with their numbers under each
  report.py FILE... --figure FILE      one figure, accuracy over bits, as .svg or .png

FILE is any mix of
  eval tables       CSV or JSON of `darknet kure eval`, or CSV files with a `model` column
  training logs     the CSV named by `log=` in [kurtosis]
  stats tables      CSV or JSON of `darknet kure stats`
  theory tables     CSV or JSON of `darknet kure theory`, of distributions or of layers
  CFG,WEIGHTS       a network, for the histograms of its weights
each recognised by its contents. NAME= in front gives the model's name (default: the file's
name up to the first dot). Tables of the same model, say of several seeds, are averaged.

Test: tests/test_report.py
"""
import argparse
import html
import pathlib
import sys

from report_files import (Inputs, compared, float_accuracy, headline, mean, read_argument, select, settings, show, values_of)
from report_weights import Failure

STYLE = (pathlib.Path(__file__).with_name("report.css"))
SAMPLES = 10  # rows of a training log that the page's table shows
MANY_LAYERS = 12  # more layers than this share a panel
DEMO = {"baseline": "trained in float", "control": "baseline, fine-tuned without KURE", "kure": "baseline, fine-tuned with KURE"}

Table = tuple[list[str], list[list[str]]]


# ---- tables ---------------------------------------------------------------


def bits_table(inputs: Inputs, models: list[str], setting: tuple) -> Table:
    bits = values_of(inputs, "weight_bits")[::-1]
    rows = [[model, show(float_accuracy(inputs, model), 2),
             *[show(mean(select(inputs, model, setting, weight_bits=b)), 2) for b in bits]] for model in models]
    return ["model", "float", *[f"{b:g} bits" for b in bits]], [r for r in rows if any(r[2:])]


def ratio_table(inputs: Inputs, models: list[str], setting: tuple, bits: float) -> Table:
    ratios = values_of(inputs, "weight_step_ratio")
    rows = [[model, *[show(mean(select(inputs, model, setting, weight_bits=bits, weight_step_ratio=r)), 2) for r in ratios]]
            for model in models]
    return ["model", *[f"ratio {r:g}" for r in ratios]], [r for r in rows if any(r[1:])]


def log_table(inputs: Inputs, shown: list[str], columns: list[str]) -> Table:
    """Some of the updates: first, last, and evenly between; a column per model and column of its log."""
    header, by_update = ["update"], []
    for model in shown:
        for column in columns:
            log = inputs.logs[model]
            header.append(column if len(shown) == 1 else model if len(columns) == 1 else f"{model} {column}")
            by_update.append(dict(zip(log["update"], log.get(column, []))))
    updates = inputs.logs[shown[0]]["update"]
    picked = sorted({round((len(updates) - 1) * k / (SAMPLES - 1)) for k in range(SAMPLES)})
    rows = []
    for update in (updates[i] for i in picked):
        rows.append([f"{update:g}", *[f"{values[update]:#.4g}" if update in values and values[update] == values[update] else "" for values in by_update]])
    return header, rows


def kurtosis_table(inputs: Inputs, models: list[str]) -> Table:
    numbers = sorted({layer.number for layers in inputs.weights.values() for layer in layers})
    rows = []
    for model in models:
        by_number = {layer.number: layer for layer in inputs.weights.get(model, [])}
        if by_number:
            rows.append([model, *[show(by_number[n].kurtosis(), 2) if n in by_number else "" for n in numbers]])
    return ["kurtosis of", *[f"layer {n}" for n in numbers]], rows


def weights_table(inputs: Inputs, models: list[str], number: int) -> Table:
    rows = []
    for model in models:
        for layer in inputs.weights.get(model, []):
            if layer.number == number:
                w = layer.weights
                rows.append([model, str(w.size), f"{w.mean():.4g}", f"{w.std():.4g}", f"{layer.kurtosis():.3f}", f"{w.min():.4g}", f"{w.max():.4g}"])
    return ["model", "weights", "mean", "std", "kurtosis", "min", "max"], rows


def noise_table(inputs: Inputs, models: list[str], column: str) -> Table:
    numbers = sorted({int(row["layer"]) for rows in inputs.stats.values() for row in rows})
    rows = []
    for model in models:
        by_number = {int(row["layer"]): row for row in inputs.stats.get(model, [])}
        if by_number:
            rows.append([model, *[show(by_number[n].get(column), 2) if n in by_number else "" for n in numbers]])
    return ["model", *[f"layer {n}" for n in numbers]], rows


def print_table(table: Table) -> None:
    header, rows = table
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    for line in [header, *rows]:
        print("  " + "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))))


# ---- the page -------------------------------------------------------------


def html_table(table: Table) -> str:
    header, rows = table
    head = "".join(f"<th scope=col>{html.escape(c)}</th>" for c in header)
    body = "".join("<tr>" + "".join(f"<{'th scope=row' if i == 0 else 'td'}>{html.escape(c)}</{'th' if i == 0 else 'td'}>"
                                    for i, c in enumerate(row)) + "</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def panel(figure, title: str, table: Table) -> str:
    import report_figures
    svg = report_figures.to_svg(figure, html.escape(title, quote=True))
    return f"<figure>{svg}<details><summary>Numbers: {html.escape(title)}</summary>{html_table(table)}</details></figure>"


def section(title: str, text: str, panels: list[str]) -> str:
    if not panels:
        return ""
    return f"<section><h2>{html.escape(title)}</h2><p>{html.escape(text)}</p><div class=panels>{''.join(panels)}</div></section>"


def accuracy_sections(inputs: Inputs, models: list[str]) -> str:
    import report_figures as figures
    found, bits = settings(inputs), values_of(inputs, "weight_bits")
    ratios = values_of(inputs, "weight_step_ratio")
    over_bits = [panel(figures.accuracy_over_bits(inputs, models, s, title), title, bits_table(inputs, models, s)) for s, title in found.items()]
    over_ratio = []
    for setting, title in found.items():
        for b in [b for b in bits if b <= 4] if len(ratios) > 1 else []:
            name = f"{b:g} bits, {title}"
            over_ratio.append(panel(figures.accuracy_over_ratio(inputs, models, setting, b, name), name, ratio_table(inputs, models, setting, b)))
    span = "Lines: mean over the step sizes; shaded: from the worst to the best of them. " if len(ratios) > 1 else ""
    return (section("Accuracy over weight bits", span + "Only weights are quantized.", over_bits)
            + section("Accuracy over step size", "What is left when the quantizer's step size is not the one that suits the weights best.", over_ratio))


def kurtosis_panels(inputs: Inputs, models: list[str], shown: list[str]) -> list[str]:
    """Models trained alike: a panel a layer, to compare them; a model by itself: one panel."""
    import report_figures as figures
    columns = [c for c in inputs.logs[shown[0]] if c.startswith("kurtosis_") and c != "kurtosis_loss"]
    if not columns:
        return []
    if len(shown) > 1 and len(columns) <= MANY_LAYERS:
        groups = [(f"Layer {c.removeprefix('kurtosis_')}: {' and '.join(shown)}", [c], shown) for c in columns]
    else:
        groups = [(f"All layers: {model}", [c for c in inputs.logs[model] if c in columns], [model]) for model in shown]
    panels = []
    for title, chosen, of in groups:
        lines = [(m, c, m if len(of) > 1 else c.removeprefix("kurtosis_") if len(chosen) <= MANY_LAYERS else "")
                 for m in of for c in chosen if c in inputs.logs[m]]
        panels.append(panel(figures.kurtosis_over_training(inputs, models, lines, title), title, log_table(inputs, of, chosen)))
    return panels


def training_sections(inputs: Inputs, models: list[str]) -> str:
    """Models whose training is equally long share their panels."""
    import report_figures as figures
    by_length: dict[float, list[str]] = {}
    for model in models:
        if model in inputs.logs:
            by_length.setdefault(inputs.logs[model]["update"][-1], []).append(model)
    kurtosis, loss = [], []
    for shown in sorted(by_length.values(), key=len, reverse=True):
        kurtosis += kurtosis_panels(inputs, models, shown)
        title = f"Loss: {' and '.join(shown)}"
        loss.append(panel(figures.loss_over_training(inputs, models, shown, title, 25), title, log_table(inputs, shown, ["loss", "rate"])))
    return (section("Kurtosis over training", "Kurtosis of the weights of each layer: uniform is 1.8, normal 3.", kurtosis)
            + section("Loss over training", "The loss of the task, without the kurtosis term.", loss))


def weight_sections(inputs: Inputs, models: list[str]) -> str:
    import report_figures as figures
    numbers = sorted({layer.number for layers in inputs.weights.values() for layer in layers})
    histograms = [panel(figures.weight_histogram(inputs, models, n, f"Layer {n}"), f"Layer {n}", weights_table(inputs, models, n)) for n in numbers]
    columns = [c for rows in inputs.stats.values() for c in rows[0] if c.startswith("sqnr_")]
    noise = []
    for column in sorted(set(columns), key=lambda c: int(c.removeprefix("sqnr_"))):
        title = f"{column.removeprefix('sqnr_')} bits"
        noise.append(panel(figures.noise_per_layer(inputs, models, column, title), title, noise_table(inputs, models, column)))
    return (section("Weights", "How the weights of each layer are spread, and their kurtosis K.", histograms)
            + section("Quantization noise per layer", "Signal to quantization noise of the weights: more is better.", noise))


def theory_sections(inputs: Inputs, models: list[str]) -> str:
    if not inputs.theory:
        return ""
    import report_theory
    of_bits, of_ratio = ([panel(*p) for p in panels] for panels in report_theory.panels(inputs, models))
    dotted = " Thin dotted lines: the paper's approximation." if any(row.get("paper_mse") is not None for row in inputs.theory) else ""
    return (section("Least quantization error over bits", "Mean squared error of X at its best step size, in variances of X." + dotted, of_bits)
            + section("Sensitivity to the step size", "Mean squared error of X, and how far it lies above the least one (Γ), where the step size "
                      "is not the best one. Left of 1, values get clipped." + dotted, of_ratio))


def write_page(inputs: Inputs, path: pathlib.Path) -> None:
    models = inputs.models()
    found = settings(inputs)
    first = html_table(bits_table(inputs, models, next(iter(found)))) if found else ""
    known = "; ".join(f"{m}: {DEMO[m]}" for m in models if m in DEMO) if set(DEMO) <= set(models) else ""
    ratios = values_of(inputs, "weight_step_ratio")
    over = f", mean over step ratios {', '.join(f'{r:g}' for r in ratios)}" if len(ratios) > 1 else ""
    caption = f"<p>Top-1 accuracy (%), {html.escape(next(iter(found.values())) + over)}. {known}</p>" if found else ""
    page = f"""<!DOCTYPE html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>darknet-kure report</title><style>{STYLE.read_text(encoding="utf-8")}</style></head>
<body><main><header><h1>{html.escape(headline(inputs)).replace(" %", chr(0xA0) + "%")}</h1>{caption}{first}</header>
{accuracy_sections(inputs, models)}{training_sections(inputs, models)}{weight_sections(inputs, models)}{theory_sections(inputs, models)}</main>
<script>addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => d.open = true))</script>
</body></html>
"""
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def print_summary(inputs: Inputs) -> None:
    models = inputs.models()
    if inputs.points:
        print(headline(inputs))
    for setting, title in settings(inputs).items():
        ratios = values_of(inputs, "weight_step_ratio")
        print(f"\nTop-1 (%), {title}" + (f", mean over {len(ratios)} step ratios" if len(ratios) > 1 else ""))
        print_table(bits_table(inputs, models, setting))
    if inputs.weights:
        print()
        print_table(kurtosis_table(inputs, models))


def write_figure(inputs: Inputs, path: str) -> None:
    import report_figures as figures
    if not path.endswith((".svg", ".png")):
        raise Failure(f"{path}: the figure must be a .svg or .png file")
    found = settings(inputs)
    if not found:
        raise Failure("--figure needs a table of kure eval with quantized weights")
    setting, title = next(iter(found.items()))
    models = list(compared(inputs) or inputs.models())
    figures.save(figures.accuracy_over_bits(inputs, models, setting, f"Top-1 with quantized weights, {title}", (5.2, 3.2)), path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="[NAME=]FILE")
    parser.add_argument("-o", "--output", type=pathlib.Path, metavar="FILE", help="the page to write")
    parser.add_argument("--figure", metavar="FILE", help="a figure to write: .svg or .png")
    arguments = parser.parse_args()
    try:
        inputs = Inputs()
        for argument in arguments.files:
            read_argument(argument, inputs)
        if arguments.figure:
            write_figure(inputs, arguments.figure)
        if arguments.output:
            write_page(inputs, arguments.output)
        print_summary(inputs)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    for written in (arguments.figure, arguments.output):
        if written:
            print(f"\nWrote {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
