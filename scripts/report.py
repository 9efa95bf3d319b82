#!/usr/bin/env python3
"""Turns the files of darknet kure into one self-contained page and a table on the terminal.

  report.py FILE... -o report.html     the page: plots, with their numbers under each
  report.py FILE... --figure FILE      one figure, accuracy over bits, as .svg or .png
  report.py float.json int8.json --data FILE -o report.html
                                       boxes of a detector side by side on its images

FILE is any mix of
  sweep tables      CSV or JSON of `darknet kure sweep`, or several below each other in a CSV file with a `model` column
  eval tables       the same of `darknet kure eval`
  training logs     the CSV named by `log=` in [kurtosis]
  stats tables      CSV or JSON of `darknet kure stats`
  theory tables     CSV or JSON of `darknet kure theory`, of distributions or of layers
  sensitivity       CSV or JSON of `darknet kure sensitivity`; JSON knows what --suggest has chosen
  detections        JSON of `darknet kure eval --detections`, with the .data file of that run as --data: the
                    first file is what the others are held against
  CFG,WEIGHTS       a network, for the histograms of its weights
each recognised by its contents. NAME= in front gives the model's name (default: the file's
name up to the first dot). Sweeps are compared where their grid_hash is the same; one name may
stand for several weights, say of several seeds, with --average only. Tables of eval do not say
of which weights they are: those of the same name are averaged.

Test: tests/test_report.py
"""
import argparse
import dataclasses
import html
import math
import pathlib
import sys

import report_accuracy
import report_pictures
from report_boxes import Data
from report_comparisons import Comparison, along, comparisons
from report_files import Inputs, accuracy, mean, read_argument, show
from report_page import Table, html_table, panel, section
from report_weights import Failure

STYLE = (pathlib.Path(__file__).with_name("report.css"))
SAMPLES = 10  # rows of a training log that the page's table shows
MANY_LAYERS = 12  # more layers than this share a panel
SCORE = ("Robustness: the mean {0} over all quantized points of the grid; along step ratios the area under accuracy divided by its width. "
         "In percent, and as a share of the float network's {0}. Comparable within a row only.")
FRAGILE = "What a quantizer may not get wrong: the {0} lost from the best to the worst value of each axis, mean over the others."
DEMO = {"baseline": "trained in float", "control": "baseline, fine-tuned without KURE", "kure": "baseline, fine-tuned with KURE"}


# ---- tables ---------------------------------------------------------------


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


def robustness_section(models: list[str], found: list[Comparison], measure: str) -> str:
    table = report_accuracy.robustness_table(models, found)
    if not table[1]:
        return ""
    panels = [panel(*p) for p in (report_accuracy.fragility(models, c) for c in found if c.grid) if p]
    return (f"<section><h2>Robustness</h2><p>{html.escape(SCORE.format(measure))}</p>{html_table(table)}</section>"
            + section("Fragility", FRAGILE.format(measure), panels))


def accuracy_sections(models: list[str], found: list[Comparison]) -> str:
    """What is said of every panel of a section is said once."""
    page = ""
    for title, text, panels in report_accuracy.sections(models, found):
        drawn = [(panel(figure, name, table), caption) for figure, name, table, caption in panels]
        captions = {caption for _, caption in drawn}
        if len(captions) == 1:
            page += section(title, f"{text} {captions.pop()}".strip(), [figure for figure, _ in drawn])
        else:
            page += section(title, text, [figure.replace("<details>", f"<figcaption>{html.escape(c)}</figcaption><details>", 1) for figure, c in drawn])
    return page


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


def sensitivity_section(inputs: Inputs) -> str:
    if not inputs.sensitivity:
        return ""
    import report_sensitivity
    return section("Sensitivity per layer", report_sensitivity.text(inputs), [panel(*p) for p in report_sensitivity.panels(inputs)])


# ---- what is said ---------------------------------------------------------


def initial(text: str) -> str:
    return text[0].upper() + text[1:]


def compared(models: list[str], comparison: Comparison) -> tuple[str, str] | None:
    """(reference, robust one): control and kure, or the first and the last of the others."""
    shown = [m for m in models if comparison.rows.get(m)]
    if len(shown) < 2:
        return None
    robust = "kure" if "kure" in shown else shown[-1]
    return "control" if "control" in shown else next(m for m in shown if m != robust), robust


def headline(inputs: Inputs, found: list[Comparison], threshold: float) -> str:
    """The result in one sentence: of the first comparison, at its fewest bits."""
    if not found and inputs.boxes:
        return report_pictures.headline(inputs.boxes, threshold)
    if not found and inputs.sensitivity:
        return "Which layers need their bits"
    if not found:
        return "Training with KURE" if inputs.logs or not inputs.theory else "What another step size than the best one costs"
    c, models = found[0], inputs.models()
    pair = compared(models, c) or (next(m for m in models if c.rows.get(m)),)
    axis = report_accuracy.width_axis(c)
    low = min(v for v in axis.values if v) if axis else None
    facts = []  # (what is said of it, top-1 or AP of each model)
    robust = all(m in c.scores for m in pair)
    if robust:
        facts.append((f"over {c.quantizers} quantizers", [c.scores[m] for m in pair]))
    if axis and all(along(c.rows[m], axis).get(low) for m in pair):
        facts.append((f"at {low:g} {axis.name}", [mean(along(c.rows[m], axis)[low]) for m in pair]))
    elif not facts:
        facts.append(("quantized", [mean([accuracy(r) for r in c.rows[m]]) for m in pair]))
    if not any(math.isnan(c.plain[m]) for m in pair):
        facts.append(("in float", [c.plain[m] for m in pair]))
    what, values = facts[0]
    start = f"{initial(what)} ({c.title}) {pair[-1]} keeps {values[-1]:.1f} % {inputs.measure()}{' (its robustness)' if robust else ''}"
    start += f" where {pair[0]} keeps {values[0]:.1f} %" if len(pair) > 1 else ""
    rest = ", ".join(f"{what} " + " against ".join(f"{v:.1f} %" for v in values[::-1]) for what, values in facts[1:])
    return f"{start}; {rest}." if rest else f"{start}."


def write_page(inputs: Inputs, found: list[Comparison], notes: list[str], path: pathlib.Path, pictures: str, threshold: float) -> None:
    """pictures: HTML"""
    models = inputs.models()
    first = caption = ""
    if found:
        known = "; ".join(f"{m}: {DEMO[m]}" for m in models if m in DEMO) if set(DEMO) <= set(models) else ""
        over = report_accuracy.averaged(found[0], report_accuracy.width_axis(found[0]))
        caption = f"<p>{html.escape(' '.join(filter(None, [f'{initial(report_accuracy.scale_of(found[0]))}, {found[0].title}.', over, known and f'{known}.'])))}</p>"
        first = html_table(report_accuracy.accuracy_table(found[0], models))
    title = html.escape(headline(inputs, found, threshold)).replace(" %", chr(0xA0) + "%").replace("top-1", "<span>top-1</span>")
    warned = "".join(f"<p class=note>Note: {html.escape(note)}</p>" for note in notes)
    page = f"""<!DOCTYPE html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>darknet-kure report</title><style>{STYLE.read_text(encoding="utf-8")}</style></head>
<body><main><header><h1>{title}</h1>{warned}{caption}{first}</header>
{robustness_section(models, found, inputs.measure())}{accuracy_sections(models, found)}{pictures}{sensitivity_section(inputs)}
{training_sections(inputs, models)}{weight_sections(inputs, models)}{theory_sections(inputs, models)}</main>
<script>addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => d.open = true))</script>
</body></html>
"""
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def print_summary(inputs: Inputs, found: list[Comparison], notes: list[str], threshold: float) -> None:
    models = inputs.models()
    if found or inputs.boxes:
        print(headline(inputs, found, threshold))
    if inputs.boxes:
        print(f"\nBoxes with a score above {show(threshold)}")
        print_table(report_pictures.total_table(inputs.boxes, threshold))
    if inputs.sensitivity:
        import report_sensitivity
        print(report_sensitivity.text(inputs))
    scores = report_accuracy.robustness_table(models, found)
    if scores[1]:
        print(f"\nRobustness: {inputs.measure()} (%), and as a share of float, over a grid of quantizers")
        print_table(scores)
    for comparison in found:
        print(f"\n{initial(comparison.measure)} (%), {comparison.title}. {report_accuracy.averaged(comparison, report_accuracy.width_axis(comparison))}".rstrip())
        print_table(report_accuracy.accuracy_table(comparison, models))
    if inputs.weights:
        print()
        print_table(kurtosis_table(inputs, models))
    sys.stdout.flush()
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)


def write_figure(inputs: Inputs, found: list[Comparison], path: str) -> None:
    import report_figures as figures
    if not path.endswith((".svg", ".png")):
        raise Failure(f"{path}: the figure must be a .svg or .png file")
    if not found or not report_accuracy.width_axis(found[0]):
        raise Failure("--figure needs a table of kure eval or sweep with quantized weights at several widths")
    models, first = inputs.models(), found[0]
    shown = list(compared(models, first) or models)
    titled = dataclasses.replace(first, title=f"{initial(first.measure)} with quantized weights, {first.title}", rows={m: first.rows[m] for m in shown if m in first.rows})
    drawn = report_accuracy.panel(shown, titled, report_accuracy.width_axis(first), size=(5.2, 3.2))
    figures.save(drawn[0], path)


def pictures_section(inputs: Inputs, arguments, threshold: float) -> str:
    """HTML of the detections; checks the options that go with them"""
    if not inputs.boxes:
        wrong = next((option for option in ("data", "pictures", "threshold") if getattr(arguments, option) is not None), None)
        if wrong:
            raise Failure(f"--{wrong} {getattr(arguments, wrong)}: there are no detections to draw: give files of kure eval --detections")
        return ""
    if not arguments.data:
        raise Failure(f"boxes of {next(iter(inputs.boxes))}: their images are needed: add --data with the .data file that they were found with")
    if not 0 <= threshold < 1:
        raise Failure(f"--threshold {threshold:g}: must be from 0 to below 1")
    return report_pictures.section(Data(arguments.data), arguments.pictures, inputs.boxes, threshold)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="[NAME=]FILE")
    parser.add_argument("-o", "--output", type=pathlib.Path, metavar="FILE", help="the page to write")
    parser.add_argument("--figure", metavar="FILE", help="a figure to write: .svg or .png")
    parser.add_argument("--average", action="store_true", help="average sweeps of several weights under one name, say of several seeds")
    parser.add_argument("--data", metavar="FILE", help="of detections: the .data file that they were found with")
    parser.add_argument("--pictures", metavar="LIST", help="images to draw: lines of the list, or names of files (default: the %d that differ most)"
                        % report_pictures.PICTURES)
    parser.add_argument("--threshold", type=float, metavar="T", help="boxes count whose score is above T (default %g)" % report_pictures.THRESHOLD)
    arguments = parser.parse_args()
    try:
        inputs = Inputs()
        for argument in arguments.files:
            read_argument(argument, inputs)
        found, notes = comparisons(inputs, arguments.average)
        threshold = report_pictures.THRESHOLD if arguments.threshold is None else arguments.threshold
        pictures = pictures_section(inputs, arguments, threshold)
        notes += report_pictures.notes(inputs.boxes)
        if arguments.figure:
            write_figure(inputs, found, arguments.figure)
        if arguments.output:
            write_page(inputs, found, notes, arguments.output, pictures, threshold)
        print_summary(inputs, found, notes, threshold)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or 'standard output'}: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    for written in (arguments.figure, arguments.output):
        if written:
            print(f"\nWrote {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
