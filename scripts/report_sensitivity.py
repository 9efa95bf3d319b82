"""report_sensitivity.py: the tables of `darknet kure sensitivity` for report.py: what each layer loses when it alone is quantized, what is
won when it alone is left float, and which layers should keep their bits.

Test: tests/test_report_boxes.py
"""
from report_files import MEASURES, Inputs, Row, show
from report_page import Table

LOST, WON = "lost alone", "won as float"
MOST_LAYERS = 24  # rows of a panel
SHARE = 0.8  # of what all layers lose alone: those that make it up should keep their bits
NOISE = 0.1  # points: less is nothing that a list of images could tell apart

Panel = tuple[object, str, Table]


def layer_name(row: Row) -> str:
    return f"{row['layer']:g} {row['type']}"


def fragile(rows: list[Row]) -> list[Row]:
    """The fewest layers that make up SHARE of all that layers lose alone, the worst first"""
    losses = sorted((row for row in rows if row["alone_loss"] >= NOISE), key=lambda row: -row["alone_loss"])
    total, found = sum(row["alone_loss"] for row in losses), []
    while losses and sum(row["alone_loss"] for row in found) < SHARE * total:
        found.append(losses.pop(0))
    return found


def by_width(rows: list[Row]) -> dict[tuple[float, float], list[Row]]:
    """(bits of weights, bits of activations) -> rows"""
    found: dict[tuple[float, float], list[Row]] = {}
    for row in rows:
        found.setdefault((row["weight_bits"], row.get("activation_bits") or 0.0), []).append(row)
    return found


def width_name(width: tuple[float, float]) -> str:
    return f"{width[0]:g} weight bits" + (f", {width[1]:g} activation bits" if width[1] else "")


def numbered(layers: list[str]) -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(layers)}"


def advice(model: str, rows: list[Row]) -> str:
    """Which layers to keep at 8 bits, in a sentence for each width"""
    said = []
    for width, at in by_width(rows).items():
        worst, loss = fragile(at), at[0]["float"] - at[0]["all"]
        layers = numbered([f"{row['layer']:g} ({row['alone_loss']:.2f})" for row in worst])
        keep = f": keep {layers} at 8 bits first" if worst and loss >= NOISE and width[0] < 8 else ""
        said.append(f"With {width_name(width)} {model} loses {loss:.2f} points of {MEASURES.get(at[0].get('measure'), 'top-1')}{keep}.")
    return " ".join(said)


def suggestion(rows: list[Row]) -> str:
    """weight_bits of every layer, from a JSON file of --suggest"""
    bits = {row["layer"]: (row["suggested_bits"], row["weights"]) for row in rows if row.get("suggested_bits")}
    weights = sum(n for _, n in bits.values())
    if not weights:
        return ""
    groups = {b: [f"{layer:g}" for layer, (own, _) in bits.items() if own == b] for b in sorted({b for b, _ in bits.values()}, reverse=True)}
    text = "; ".join(f"{b:g} bits: {numbered(layers)}" for b, layers in groups.items())
    return f"--suggest has chosen {sum(b * n for b, n in bits.values()) / weights:.2f} bits on average over the weights: {text}."


def table_of(rows: list[Row]) -> Table:
    suggested = any(row.get("suggested_bits") for row in rows)
    header = ["layer", "weights", "weight SQNR (dB)", "alone", "lost", "others", "won", *["suggested bits"] * suggested]
    return header, [[layer_name(row), show(row["weights"], 0), show(row.get("weight_sqnr"), 1), show(row["alone"], 2), show(row["alone_loss"], 2),
                     show(row["others"], 2), show(row["others_gain"], 2), *[show(row.get("suggested_bits"))] * suggested] for row in rows]


def draw(rows: list[Row], title: str):
    """A row a layer from the input on; of many layers those that lose or win most"""
    import report_figures as figures
    kept = sorted(rows, key=lambda row: -max(row["alone_loss"], row["others_gain"]))[:MOST_LAYERS]
    drawn = [row for row in rows if row in kept]
    spreads = {LOST: [(i, row["alone_loss"], min(0.0, row["alone_loss"]), max(0.0, row["alone_loss"])) for i, row in enumerate(drawn)],
               WON: [(i, row["others_gain"], min(0.0, row["others_gain"]), max(0.0, row["others_gain"])) for i, row in enumerate(drawn)]}
    ends = [value for spread in spreads.values() for _, value, *_ in spread]
    low, high = min(0.0, *ends), max(1.0, *ends)
    room = 0.06 * (high - low)
    figure = figures.dots([LOST, WON], [layer_name(row) for row in drawn], spreads, title, f"points of {MEASURES.get(rows[0].get('measure'), 'top-1')}",
                          (low - room * (low < 0), high + room))
    return figure


def panels(inputs: Inputs) -> list[Panel]:
    found = []
    for model, rows in inputs.sensitivity.items():
        for width, at in by_width(rows).items():
            title = f"{model}: {width_name(width)}"
            drawn = f"{title} ({MOST_LAYERS} of {len(at)} layers)" if len(at) > MOST_LAYERS else title
            found.append((draw(at, drawn), title, table_of(at)))
    return found


def text(inputs: Inputs) -> str:
    said = [advice(model, rows) for model, rows in inputs.sensitivity.items()] + [suggestion(rows) for rows in inputs.sensitivity.values()]
    return (f"{LOST.capitalize()}: what goes when this layer alone is quantized; {WON}: what comes back when all but this layer are. Layers named here "
            f"make up {100 * SHARE:g} % of what all layers lose alone (points in brackets). " + " ".join(filter(None, said)))
