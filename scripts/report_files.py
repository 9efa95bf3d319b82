"""report_files.py: reads the tables of `darknet kure` and the training log for report.py.

Each file is recognised by its header (CSV) or schema (JSON).
"""
import csv
import dataclasses
import io
import json
import math
import pathlib
import statistics

from report_weights import Failure, Layer, read_weights

POINTS, LOG, THEORY, STATS = "points", "log", "theory", "stats"
# columns by which a table is recognised; the first kind that fits
HEADERS = {POINTS: {"weight_bits", "top1"}, LOG: {"update", "loss", "rate"},
           THEORY: {"bits", "ratio", "mse", "gamma"}, STATS: {"layer", "kurtosis", "n"}}
SETTING = ("weight_granularity", "batchnorm", "weight_grid", "weight_symmetric", "weight_truncation", "weight_truncation_value",
           "weight_rounding", "weight_step", "activation_bits", "first_bits", "last_bits")
SHORT = {"baseline": 0, "control": 1, "kure": 2}  # order of the demo's models
WORDS = {"train": "raw weights", "fold": "folded weights", "tensor": "per tensor", "channel": "per channel"}

Row = dict[str, str | float | None]


@dataclasses.dataclass
class Inputs:
    points: list[Row] = dataclasses.field(default_factory=list)                    # with a "model" in each
    logs: dict[str, dict[str, list[float]]] = dataclasses.field(default_factory=dict)  # model -> column -> values
    stats: dict[str, list[Row]] = dataclasses.field(default_factory=dict)
    theory: list[Row] = dataclasses.field(default_factory=list)                    # with a "model" in each
    weights: dict[str, list[Layer]] = dataclasses.field(default_factory=dict)

    def models(self) -> list[str]:
        """All models: the demo's in its order, others as they came."""
        theory = [str(row["model"]) for row in self.theory if row.get("layer") is not None]
        seen = list(dict.fromkeys([str(p["model"]) for p in self.points] + [*self.logs, *self.stats, *self.weights, *theory]))
        return sorted(seen, key=lambda m: SHORT.get(m, len(SHORT)))


# ---- reading --------------------------------------------------------------


def parse_cell(text: str | float | None) -> str | float | None:
    if text is None or text == "":
        return None
    try:
        return float(text)
    except (TypeError, ValueError):
        return str(text)


def rows_of_json(path: pathlib.Path, text: str) -> list[Row]:
    try:
        table = json.loads(text)
        rows = [{key: parse_cell(value) for key, value in row.items()} for row in table["rows"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Failure(f"{path}: is no table of darknet kure: {error}") from None
    return rows


def rows_of_csv(path: pathlib.Path, text: str) -> list[Row]:
    lines = csv.reader(io.StringIO(text))
    header, rows = next(lines, []), []
    try:
        for line in lines:
            if len(line) != len(header):
                raise Failure(f"{path}:{lines.line_num}: {len(line)} values in a row, the header names {len(header)}")
            rows.append({key: parse_cell(value) for key, value in zip(header, line)})
    except csv.Error as error:
        raise Failure(f"{path}:{lines.line_num}: {error}") from None
    return rows or [dict.fromkeys(header)]


def check_numbers(path: pathlib.Path, rows: list[Row], columns: set[str]) -> None:
    for number, row in enumerate(rows, 1):
        for column in sorted(columns):
            value = row.get(column)
            if not isinstance(value, float) or not math.isfinite(value):
                raise Failure(f"{path}: row {number}: {column} is {value!r}, a number was expected")


def check_subjects(path: pathlib.Path, rows: list[Row]) -> None:
    """Every row of a theory table says what was quantized, and by which grid."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("layer"), float) and not isinstance(row.get("values"), str) or not isinstance(row.get("grid"), str):
            raise Failure(f"{path}: row {number}: grid, and values or layer, were expected")


def read_table(path: pathlib.Path) -> tuple[str, list[Row]]:
    """(what it is, rows)"""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Failure(f"{path}: cannot be read: {reason}") from None
    rows = rows_of_json(path, text) if text.lstrip().startswith("{") else rows_of_csv(path, text)
    columns = set(rows[0]) if rows else set()
    kind = next((kind for kind, header in HEADERS.items() if header <= columns), None)
    if not kind:
        raise Failure(f"{path}: is none of: a table of kure eval, stats or theory (CSV, JSON), a training log (CSV)")
    if all(value is None for row in rows for value in row.values()):
        raise Failure(f"{path}: holds no row")
    check_numbers(path, rows, HEADERS[kind])
    return kind, rows


def model_of(path: pathlib.Path) -> str:
    """kure.log.csv -> kure"""
    return path.name.split(".")[0]


def read_argument(argument: str, inputs: Inputs) -> None:
    """[NAME=]FILE or NAME=CFG,WEIGHTS"""
    name, equals, rest = argument.partition("=")
    if pathlib.Path(argument).exists() or not equals:
        name, rest = "", argument
    if "," in rest and not pathlib.Path(rest).exists():
        cfg, weights = rest.split(",", 1)
        inputs.weights[name or model_of(pathlib.Path(weights))] = read_weights(pathlib.Path(cfg), pathlib.Path(weights))
        return
    path = pathlib.Path(rest)
    kind, rows = read_table(path)
    model = name or model_of(path)
    if kind == POINTS:
        inputs.points += [{"model": model, **row} for row in rows]
    elif kind == THEORY:
        check_subjects(path, rows)
        inputs.theory += [{"model": model, **row} for row in rows]
    elif kind == STATS:
        inputs.stats[model] = rows
    else:
        inputs.logs[model] = {c: [math.nan if row[c] is None else float(row[c]) for row in rows] for c in rows[0]}


# ---- numbers --------------------------------------------------------------


def mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def setting_of(point: Row) -> tuple:
    return tuple(point.get(key) for key in SETTING)


def settings(inputs: Inputs) -> dict[tuple, str]:
    """Every quantizer setting there is, with a title that says no more than needed."""
    found = list(dict.fromkeys(setting_of(p) for p in inputs.points if p["weight_bits"]))
    titles = {}
    for setting in found:
        words = []
        for i, (key, value) in enumerate(zip(SETTING, setting)):
            if i < 2 or len({other[i] for other in found}) > 1:
                words.append(WORDS.get(value) or f"{key.removeprefix('weight_').replace('_', ' ')} {show(value)}")
        titles[setting] = ", ".join(words)
    return titles


def select(inputs: Inputs, model: str, setting: tuple | None = None, **wanted) -> list[float]:
    """Top-1 of the points of a model that match."""
    return [float(p["top1"]) for p in inputs.points if p["model"] == model and (setting is None or setting_of(p) == setting)
            and all(p.get(key) == value for key, value in wanted.items())]


def float_accuracy(inputs: Inputs, model: str) -> float:
    return mean(select(inputs, model, weight_bits=0.0))


def values_of(inputs: Inputs, column: str) -> list[float]:
    """The values a column takes in the quantized points, in order."""
    return sorted({p[column] for p in inputs.points if p["weight_bits"] and isinstance(p.get(column), float)})


def show(value, digits: int | None = None) -> str:
    """A cell for people."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.{digits}f}" if digits is not None else f"{value:g}"
    return str(value)


def compared(inputs: Inputs) -> tuple[str, str] | None:
    """(reference, robust one): control and kure, or the first and the last model of the points."""
    models = [m for m in inputs.models() if any(p["model"] == m for p in inputs.points)]
    if len(models) < 2:
        return None
    return ("control" if "control" in models else models[0]), ("kure" if "kure" in models else models[-1])


def headline(inputs: Inputs) -> str:
    """The result in one sentence."""
    pair, bits = compared(inputs), values_of(inputs, "weight_bits")
    if not bits:
        return "Training with KURE" if inputs.logs or not inputs.theory else "What another step size than the best one costs"
    setting, title = next(iter(settings(inputs).items()))
    low = bits[0]
    ratios = values_of(inputs, "weight_step_ratio")
    over = f", mean over {len(ratios)} step sizes" if len(ratios) > 1 else ""
    if not pair:
        model = inputs.models()[0]
        return (f"At {low:g} weight bits ({title}{over}) {model} reaches {mean(select(inputs, model, setting, weight_bits=low)):.1f} % top-1"
                f"; in float {float_accuracy(inputs, model):.1f} %.")
    a, b = (mean(select(inputs, m, setting, weight_bits=low)) for m in pair)
    fa, fb = (float_accuracy(inputs, m) for m in pair)
    floats = "" if math.isnan(fa) or math.isnan(fb) else f" In float: {fb:.1f} % against {fa:.1f} %."
    return (f"At {low:g} weight bits {pair[1]} keeps {b:.1f} % top-1 where {pair[0]} keeps {a:.1f} % ({title}{over}).{floats}")
