"""report_accuracy.py: accuracy along every axis of a comparison, as panels for report.py.

Widths and step ratios are lines, all else rows of dots. What an axis is drawn over is the mean
of all other values, with the span from the lowest to the highest of them.
"""
import collections.abc
import textwrap

from report_comparisons import BITS, CHOICE, RATIO, Axis, Comparison, Value, along
from report_files import accuracy, mean, show

Table = tuple[list[str], list[list[str]]]  # header, rows
Panel = tuple[object, str, Table, str]  # figure, title, its numbers, what is averaged
LOW = 4  # bits: at so few, and fewer, the other axes are drawn
MOST_PANELS = 8  # of the dots of a comparison; with more axes than fit they are drawn over all widths
TITLE = 44  # letters in a line of a panel's title
ABOUT = {BITS: "", RATIO: "What is left where the step size is so many times the one that the truncation policy found; above 1 values are rounded more "
         "coarsely, below 1 more of them are clipped.", CHOICE: ""}


def width_axis(comparison: Comparison) -> Axis | None:
    """The bits at which the other axes are drawn: those of weights, or else of activations."""
    found = [axis for axis in comparison.axes if axis.kind == BITS and axis.columns[0].startswith(("weight", "activation"))]
    return found[0] if found else None


def accuracy_table(comparison: Comparison, models: list[str]) -> Table:
    """In float, and at each width; without widths the mean"""
    axis = width_axis(comparison)
    header = ["model", "float", *(bits_name(axis, v) for v in axis.values)] if axis else ["model", "float", "quantized"]
    rows = []
    for model in (m for m in models if comparison.rows.get(m)):
        found = along(comparison.rows[model], axis) if axis else {}
        means = [mean(found.get(v, [])) for v in axis.values] if axis else [mean([accuracy(r) for r in comparison.rows[model]])]
        rows.append([model, show(comparison.plain[model], 2), *[show(m, 2) for m in means]])
    return header, rows


def bits_name(axis: Axis, value: Value) -> str:
    return f"{show(value)} bits" if value else f"{axis.columns[0].removesuffix('_bits')}s float"


def panel_table(comparison: Comparison, found: dict[str, dict[Value, list[float]]], axis: Axis) -> Table:
    """Means, and where they are of several points the lowest and highest"""
    rows = []
    for model, by_value in found.items():
        kinds = [("", mean)] + [(", lowest", min), (", highest", max)] * any(len(set(v)) > 1 for v in by_value.values())
        for name, of in kinds:
            cells = [show(of(by_value[v]), 2) if v in by_value else "" for v in axis.values]
            rows.append([model + name, "" if name else show(comparison.plain[model], 2), *cells])
    return ["model", "float", *[axis.label(v) for v in axis.values]], rows


def averaged(comparison: Comparison, *shown: Axis | None) -> str:
    """The axes that a number is the mean of, but for those shown"""
    others = []
    for axis in comparison.axes:
        if axis.columns in [a.columns for a in shown if a]:
            continue
        labels = [axis.label(v) for v in axis.values]
        many = f"{len(labels)} values" if axis.kind == CHOICE else f"{labels[0]} to {labels[-1]}: {len(labels)} values"
        others.append(f"{axis.name} ({', '.join(labels) if len(labels) <= 4 else many})")
    return f"Mean over {', '.join(others[:-1])}{' and ' if others[:-1] else ''}{others[-1]}." if others else ""


def low_widths(axis: Axis | None) -> list[Value]:
    if not axis:
        return []
    widths = [v for v in axis.values if v]
    return [v for v in widths if v <= LOW] or widths[-1:]


def scale_of(comparison: Comparison) -> str:
    return f"{comparison.measure}{' accuracy' if comparison.measure == 'top-1' else ''} (%)"


def draw(models: list[str], comparison: Comparison, axis: Axis, found: dict[str, dict[Value, list[float]]], title: str, size=None):
    import report_figures as figures
    shown = textwrap.fill(title, int(TITLE * (size or figures.PANEL)[0] / figures.PANEL[0]))
    options = {"size": size} if size else {}
    place = {v: float(v) if axis.kind == RATIO else i for i, v in enumerate(axis.values)}
    spreads = {m: [(place[v], mean(t), min(t), max(t)) for v, t in by_value.items()] for m, by_value in found.items()}
    if axis.kind == CHOICE:
        ends = (figures.lower_end([low for spread in spreads.values() for _, _, low, _ in spread]),
                figures.upper_end([high for spread in spreads.values() for *_, high in spread]))
        return figures.dots(models, [axis.label(v) for v in axis.values], spreads, shown, scale_of(comparison), ends)
    ticks = None if axis.kind == RATIO else [axis.label(v) for v in axis.values]
    return figures.accuracy_lines(models, spreads, shown, axis.name, scale_of(comparison), ticks, **options)


def panel(models: list[str], comparison: Comparison, axis: Axis, at: Axis | None = None, value: Value | None = None, size=None) -> Panel | None:
    """Accuracy along an axis, at one value of another"""
    found = {}
    for model in (m for m in models if comparison.rows.get(m)):
        rows = [row for row in comparison.rows[model] if not at or row.get(at.columns[0]) == value]
        by_value = along(rows, axis)
        if by_value:
            found[model] = by_value
    if not any(len(by_value) > 1 for by_value in found.values()):
        return None
    over = averaged(comparison, axis, at)
    caption = over and f"{over} Thin lines: from the lowest to the highest."
    title = ", ".join(filter(None, [at and f"{show(value)} {at.name}", comparison.short or comparison.title]))
    return draw(models, comparison, axis, found, title, size), title, panel_table(comparison, found, axis), caption


def panels_of(models: list[str], comparison: Comparison, axis: Axis) -> collections.abc.Iterator[Panel]:
    """Lines at every low width; dots as well, unless they would be too many"""
    axes, at = comparison.axes, width_axis(comparison)
    widths = low_widths(at)
    others = [a for a in axes if a.kind != RATIO and (not at or a.columns != at.columns)]
    if at and axis.columns == at.columns or axis.kind != RATIO and len(others) * len(widths) > MOST_PANELS or not widths:
        found = [panel(models, comparison, axis)]
    else:
        found = (panel(models, comparison, axis, at, value) for value in widths)
    yield from filter(None, found)


def is_part(comparison: Comparison, axis: Axis, found: list[Comparison]) -> bool:
    """Does another grid of the same setting and models have all of these values, and more?"""
    for other in found:
        twin = next((a for a in other.axes if a.columns == axis.columns), None)
        if twin and other.short and other.short == comparison.short and set(comparison.rows) <= set(other.rows) and set(axis.values) < set(twin.values) \
                and (axis.kind != RATIO or set(low_widths(width_axis(comparison))) <= set(low_widths(width_axis(other)))):
            return True
    return False


def sections(models: list[str], found: list[Comparison]) -> collections.abc.Iterator[tuple[str, str, collections.abc.Iterator[Panel]]]:
    """(heading, text, panels) of every axis: widths, step ratios, then the rest"""
    axes = {axis.columns: axis for comparison in found for axis in comparison.axes}
    order = {BITS: 0, RATIO: 1, CHOICE: 2}
    for columns, first in sorted(axes.items(), key=lambda item: order[item[1].kind]):
        of = [(c, axis) for c in found for axis in c.axes if axis.columns == columns and not is_part(c, axis, found)]
        yield f"Accuracy over {first.name}", ABOUT[first.kind], (p for comparison, axis in of for p in panels_of(models, comparison, axis))


# ---- robustness -------------------------------------------------------------------


def losses(comparison: Comparison, model: str, axis: Axis) -> tuple[float, Value] | None:
    """How far the mean falls from the best to the worst value of an axis (points), and that value"""
    means = {value: mean(found) for value, found in along(comparison.rows[model], axis).items()}
    if len(means) < 2:
        return None
    worst = min(means, key=means.get)
    return max(means.values()) - means[worst], worst


def fragility(models: list[str], comparison: Comparison) -> tuple[object, str, Table] | None:
    """What costs most: a row an axis"""
    import report_figures as figures
    axes, shown = comparison.axes, [m for m in models if comparison.rows.get(m)]
    if len(axes) < 2:
        return None
    found = {axis: {m: losses(comparison, m, axis) for m in shown} for axis in axes}
    order = sorted(axes, key=lambda axis: -max((loss[0] for loss in found[axis].values() if loss), default=0))
    spreads = {m: [(i, found[a][m][0], 0.0, found[a][m][0]) for i, a in enumerate(order) if found[a][m]] for m in shown}
    table = (["axis", *shown], [[a.name, *[f"{found[a][m][0]:.2f} (at {a.label(found[a][m][1])})" if found[a][m] else "" for m in shown]] for a in order])
    most = max(loss[0] for by_model in found.values() for loss in by_model.values() if loss)
    names = [textwrap.fill(axis.name, 18) for axis in order]
    figure = figures.dots(models, names, spreads, textwrap.fill(comparison.title, TITLE), f"points of {comparison.measure} lost", (0, max(1.0, 1.08 * most)))
    return figure, comparison.title, table


def score_cell(comparison: Comparison, model: str) -> str:
    """Top-1 or AP (%) and what share of float that is"""
    if model not in comparison.scores:
        return "incomplete" if model in comparison.rows else ""
    score, plain = comparison.scores[model], comparison.plain[model]
    return f"{score:.2f}" + (f" ({score / plain:.3f})" if plain else "")


def robustness_table(models: list[str], found: list[Comparison]) -> Table:
    """A row a grid; in percent, and as a share of float"""
    swept = [c for c in found if c.grid]
    shown = [m for m in models if any(m in c.rows for c in swept)]
    return ["quantizers", *shown, "points", "grid"], [[c.title, *[score_cell(c, m) for m in shown], str(c.quantizers), c.grid[:8]] for c in swept]
