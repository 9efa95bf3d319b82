"""report_figures.py: the drawings of report.py, by matplotlib, as SVG for the page or files.

One panel is one small SVG, so that the page can put them side by side or below each
other. Colours are those of Okabe and Ito, told apart also by marker and line style.
"""
import io
import math
import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend must be chosen first)
import numpy as np  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

from report_files import Inputs  # noqa: E402

# name of the CSS variable, colour on white, marker, line
STYLES = (("series-0", "#6b6b6b", "o", ":"), ("series-1", "#0072b2", "s", "--"), ("series-2", "#d55e00", "^", "-"),
          ("series-3", "#009e73", "D", "-."), ("series-4", "#cc79a7", "v", "-"), ("series-5", "#8c6d00", "P", "--"))
INK, GRID = "#010203", "#010204"  # replaced by CSS: the text colour and a faint one
PANEL = (4.1, 3.0)  # inches
UNIFORM = 1.8  # kurtosis of a uniform distribution

plt.rcParams.update({
    "svg.hashsalt": "kure", "font.size": 10, "font.family": "sans-serif", "figure.titlesize": 10.5,
    "figure.titleweight": "bold", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID,
    "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.8, "lines.markersize": 5,
})


def style_of(models: list[str], model: str) -> tuple[str, str, str, str]:
    fixed = {"baseline": 0, "control": 1, "kure": 2}
    others = [m for m in models if m not in fixed]
    free = [i for i in range(len(STYLES)) if i not in [fixed[m] for m in models if m in fixed]]
    index = fixed[model] if model in fixed else free[others.index(model) % len(free)] if free else 0
    return STYLES[index]


def new_panel(title: str, size=PANEL):
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    return figure, axes


def to_svg(figure, label: str) -> str:
    """Inline SVG whose colours follow the page; no reference to any other file."""
    out = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    plt.close(figure)
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg"):], flags=re.S)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'<svg (.*?)width="[\d.]+pt"', r"<svg \1", text, count=1, flags=re.S)
    text = re.sub(r'<svg (.*?)height="[\d.]+pt"', rf'<svg role="img" aria-label="{label}" \1', text, count=1, flags=re.S)
    text = re.sub(r"font: ([^;']*?)'sans-serif'[^;]*|font-family: [^;\"]*sans-serif[^;\"]*", _font, text)
    text = text.replace(INK, "currentColor").replace(GRID, "var(--grid)")
    for variable, colour, _, _ in STYLES:
        text = text.replace(colour, f"var(--{variable})")
    return text


def _font(match: re.Match) -> str:
    return f"font: {match[1]}system-ui, sans-serif" if match[1] else "font-family: system-ui, sans-serif"


def label_ends(axes, ends: list[tuple[float, float, str, str]], gap: float = 0.075) -> None:
    """Writes names at the right ends (x, y, name, colour) of lines, moved apart where they would touch."""
    log = axes.get_yscale() == "log"
    low, high = np.log10(axes.get_ylim()) if log else axes.get_ylim()
    gap *= high - low
    placed = sorted(ends, key=lambda end: end[1])
    heights = [np.log10(end[1]) if log else end[1] for end in placed]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    over = max(0.0, heights[-1] - (high - gap / 2)) if heights else 0.0  # the highest one stays below the title
    for (x, _, name, colour), height in zip(placed, heights):
        y = 10 ** (height - over) if log else height - over
        axes.annotate(name, (x, y), xytext=(7, 0), textcoords="offset points", va="center", color=colour,
                      fontweight="bold", fontsize=9.5, annotation_clip=False)


def room_on_the_right(axes, share: float = 0.2) -> None:
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + share * (right - left))


# ---- accuracy -------------------------------------------------------------

Spread = tuple[float, float, float, float]  # where, mean, lowest, highest


def lower_end(lows: list[float]) -> float:
    """Of an axis of accuracies (%) up to 100"""
    return 0 if min(lows, default=0) < 60 else 10 * (min(lows) // 10)


def upper_end(highs: list[float]) -> float:
    """100, unless all lies in the lower half"""
    most = max(highs, default=100)
    return 100 if most > 50 else max(10, 10 * math.ceil(most / 10))


def some_ticks(values: list[float], wanted: float, apart: float) -> list[float]:
    """Of values on a log axis those whose labels do not touch: the wanted one, the ends, then what has room."""
    picked: list[float] = []
    for value in sorted(values, key=lambda v: (v != wanted, v not in (min(values), max(values)), abs(np.log(v / wanted)))):
        if all(abs(np.log(value / other)) > apart * np.log(max(values) / min(values)) for other in picked):
            picked.append(value)
    return sorted(picked)


def accuracy_lines(models: list[str], lines: dict[str, list[Spread]], title: str, xlabel: str, ylabel: str, ticks: list[str] | None, size=PANEL):
    """Means, with a line from the lowest to the highest of each; ticks: names of the places 0, 1, 2..., or None for a log axis of ratios."""
    figure, axes = new_panel(title, size)
    ends = []
    spanned = any(low < high for spreads in lines.values() for *_, low, high in spreads)
    ratios = sorted({spread[0] for spreads in lines.values() for spread in spreads})
    for i, (model, spreads) in enumerate(lines.items()):
        _, colour, marker, line = style_of(models, model)
        x, means, lows, highs = (np.array(part) for part in zip(*spreads))
        if spanned:  # side by side
            aside = 0.022 * (i - (len(lines) - 1) / 2)
            x = x + aside * max(2, len(ticks) - 1) if ticks else x * (ratios[-1] / ratios[0]) ** aside
            axes.vlines(x, lows, highs, color=colour, linewidth=1.2, alpha=0.5)
        axes.plot(x, means, color=colour, marker=marker, linestyle=line)
        ends.append((x[-1], means[-1], model, colour))
    if ticks is None:
        axes.set_xscale("log")
        shown = some_ticks(ratios, 1.0, 0.1)
        axes.set_xticks(shown, [f"{r:g}" for r in shown])
        axes.minorticks_off()
        axes.set_xlim(ratios[0] / 1.05, ratios[-1] * (ratios[-1] / ratios[0]) ** 0.25)
    else:
        axes.set_xticks(range(len(ticks)), ticks)
        room_on_the_right(axes)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_ylim(lower_end([spread[2] for spreads in lines.values() for spread in spreads]), upper_end([spread[3] for spreads in lines.values() for spread in spreads]))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    right = max(x for x, *_ in ends)
    label_ends(axes, [(right, *end) for _, *end in ends])
    return figure


def dots(models: list[str], names: list[str], spreads: dict[str, list[Spread]], title: str, xlabel: str, limits: tuple[float, float]):
    """A row a name from top to bottom, in it the models below each other: a mark at the mean, a line over the span."""
    apart = 0.62 / max(1, len(spreads))
    figure, axes = new_panel(title, (PANEL[0], max(2.2, 1.25 + len(names) * (0.12 + 0.15 * max(2, len(spreads))))))
    for i, (model, found) in enumerate(spreads.items()):
        _, colour, marker, _ = style_of(models, model)
        y = [place + apart * (i - (len(spreads) - 1) / 2) for place, *_ in found]
        axes.hlines(y, [low for *_, low, _ in found], [high for *_, high in found], color=colour, linewidth=1.6, alpha=0.55)
        axes.plot([middle for _, middle, *_ in found], y, color=colour, marker=marker, linestyle="none", label=model)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(*limits)
    axes.set_xlabel(xlabel)
    axes.grid(axis="y", visible=False)
    if len(spreads) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncol=len(spreads), frameon=False, fontsize=9, handletextpad=0.1,
                    columnspacing=1.0, borderaxespad=0, labelcolor="linecolor")
    return figure


# ---- training -------------------------------------------------------------


def smooth(values: list[float], window: int) -> np.ndarray:
    """Mean of the last `window` values."""
    sums = np.cumsum(np.insert(np.asarray(values, float), 0, 0.0))
    at = np.arange(1, len(values) + 1)
    first = np.maximum(at - window, 0)
    return (sums[at] - sums[first]) / (at - first)


def loss_over_training(inputs: Inputs, models: list[str], shown: list[str], title: str, window: int):
    figure, axes = new_panel(title)
    ends = []
    for model in shown:
        log, (_, colour, _, line) = inputs.logs[model], style_of(models, model)
        values = smooth(log["loss"], window)
        axes.plot(log["update"], log["loss"], color=colour, alpha=0.18, linewidth=0.6)
        axes.plot(log["update"], values, color=colour, linestyle=line)
        ends.append((log["update"][-1], float(values[-1]), model, colour))
    axes.set_ylim(0, 1.15 * max(np.nanpercentile(inputs.logs[m]["loss"], 97) for m in shown))
    axes.set_ylabel(f"loss (mean of {window} updates)")
    finish_training(axes, ends)
    return figure


def kurtosis_over_training(inputs: Inputs, models: list[str], lines: list[tuple[str, str, str]], title: str):
    """lines: (model, column of its log, what to write at its end)"""
    figure, axes = new_panel(title)
    ends = []
    for model, column, name in lines:
        log, (_, colour, _, line) = inputs.logs[model], style_of(models, model)
        axes.plot(log["update"], log[column], color=colour, linestyle=line)
        ends.append((log["update"][-1], log[column][-1], name, colour))
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, UNIFORM - 0.25), max(high, UNIFORM + 1.5))
    axes.plot([0, max(e[0] for e in ends)], [UNIFORM, UNIFORM], color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.annotate(f"uniform {UNIFORM:g}", (0, UNIFORM), xytext=(0, -10), textcoords="offset points", fontsize=9)
    axes.set_ylabel("kurtosis")
    finish_training(axes, ends)
    return figure


def finish_training(axes, ends: list) -> None:
    axes.set_xlabel("update")
    axes.set_xticks([t for t in MaxNLocator(5, integer=True).tick_values(0, max(e[0] for e in ends)) if 0 <= t <= max(e[0] for e in ends)])
    room_on_the_right(axes)
    label_ends(axes, [e for e in ends if np.isfinite(e[1])])


# ---- weights --------------------------------------------------------------

HISTOGRAM_SPAN = 3.5  # standard deviations either way


def histogram(weights: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Bin edges in standard deviations from the mean, density."""
    z = (weights - weights.mean()) / (weights.std() or 1.0)
    density, edges = np.histogram(z, bins=bins, range=(-HISTOGRAM_SPAN, HISTOGRAM_SPAN), density=True)
    return edges, density


def weight_histogram(inputs: Inputs, models: list[str], number: int, title: str):
    figure, axes = new_panel(title)
    names, top = [], 0.0
    for model in models:
        for layer in inputs.weights.get(model, []):
            if layer.number != number:
                continue
            _, colour, _, line = style_of(models, model)
            edges, density = histogram(layer.weights, 29 if layer.weights.size < 2000 else 57)
            axes.stairs(density, edges, color=colour, linestyle=line, linewidth=1.5)
            names.append((f"{model}  K = {layer.kurtosis():.2f}", colour))
            top = max(top, density.max())
    axes.set_ylim(0, top * (1.12 + 0.11 * len(names)))
    for i, (name, colour) in enumerate(names):
        axes.annotate(name, (0.02, 0.985 - 0.085 * i), xycoords="axes fraction", va="top", color=colour, fontweight="bold", fontsize=9.5)
    axes.set_yticks([])
    axes.grid(False)
    axes.set_xlabel("(weight - mean) / standard deviation")
    axes.set_ylabel("share of weights")
    return figure


def noise_per_layer(inputs: Inputs, models: list[str], column: str, title: str):
    figure, axes = new_panel(title)
    numbers = sorted({int(row["layer"]) for rows in inputs.stats.values() for row in rows})
    ends = []
    for model in models:
        rows = [r for r in inputs.stats.get(model, []) if isinstance(r.get(column), float)]
        if not rows:
            continue
        _, colour, marker, line = style_of(models, model)
        x, y = [numbers.index(int(r["layer"])) for r in rows], [float(r[column]) for r in rows]
        axes.plot(x, y, color=colour, marker=marker, linestyle=line, linewidth=1.0)
        ends.append((x[-1], y[-1], model, colour))
    axes.set_xticks(range(len(numbers)), [str(n) for n in numbers])
    axes.set_xlabel("layer")
    axes.set_ylabel("signal to noise (dB)")
    axes.margins(y=0.15)
    room_on_the_right(axes)
    label_ends(axes, ends)
    return figure


def save(figure, path: str) -> None:
    """A stand-alone file with letters as shapes, on white."""
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_color() == INK:
            text.set_color("#222222")
    for line in figure.findobj(matplotlib.lines.Line2D):
        if line.get_color() == GRID:
            line.set_color("#dddddd")
    with plt.rc_context({"svg.fonttype": "path"}):
        figure.savefig(path, facecolor="white", dpi=160, metadata={"Date": None} if path.endswith(".svg") else None)
    plt.close(figure)
