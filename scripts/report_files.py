"""report_files.py: reads the tables of `darknet kure` and the training log for report.py.

Each file is recognised by its header (CSV) or schema (JSON).
"""
import csv
import dataclasses
import io
import json
import math
import pathlib
import re
import statistics

from report_boxes import Detections, read_detections
from report_weights import Failure, Layer, read_weights

SWEEP, POINTS, LOG, THEORY, STATS, SENSITIVITY = "sweep", "points", "log", "theory", "stats", "sensitivity"
# columns by which a table is recognised; the first kind that fits
HEADERS = {SWEEP: {"grid_hash"}, POINTS: {"weight_bits", "top1"}, LOG: {"update", "loss", "rate"},
           THEORY: {"bits", "ratio", "mse", "gamma"}, STATS: {"layer", "kurtosis", "n"},
           SENSITIVITY: {"layer", "weight_bits", "weights", "alone", "alone_loss", "others", "others_gain", "float", "all"}}
SCHEMAS = {"kure.sweep/1": SWEEP, "kure.eval/1": POINTS, "kure.theory/1": THEORY, "kure.stats/1": STATS, "kure.sensitivity/1": SENSITIVITY}
HASHES, PLACE = ("model_hash", "plan_hash", "grid_hash"), ("points", "point")
TEXTS = ("model", "file", *HASHES)  # never a number, though all of their letters may be digits
MEASURES = {"top1": "top-1", "ap": "AP"}  # columns of what a network is measured by, a classifier or a detector, and their names
RESULTS = ("top1", "top5", "cross_entropy", "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "precision", "recall", "f1", "weight_sqnr", "seconds")
# axes within a setting of the quantizers; every other column tells one setting from another
AXES = ("weight_bits", "weight_step_ratio", "activation_step_ratio")
NO_SETTING = {*TEXTS, *PLACE, *RESULTS, *AXES, "seed"}
QUANTIZER = ("bits", "step_ratio", "rounding", "truncation", "truncation_value", "granularity", "grid", "symmetric", "step")
SWEEP_COLUMNS = (*HASHES, *PLACE, *(f"{of}_{key}" for of in ("weight", "activation") for key in QUANTIZER), "batchnorm", "first_bits", "last_bits",
                 "calibration_images", "bn_images", "bias_images", "equalized", "top1")  # and ap, of tables with detectors
NUMBERS = ("bits", "ratio", "value", "symmetric", "images", "equalized", "points", "point", *RESULTS)  # ends of their columns' names
SHORT = {"baseline": 0, "control": 1, "kure": 2}  # order of the demo's models
FIRST = ("weight_granularity", "batchnorm")  # columns that every title names
WORDS = {"train": "raw weights", "fold": "folded weights", "tensor": "per tensor", "channel": "per channel"}

Row = dict[str, str | float | None]


@dataclasses.dataclass
class Inputs:
    points: list[Row] = dataclasses.field(default_factory=list)                    # with "model" and "file" in each
    logs: dict[str, dict[str, list[float]]] = dataclasses.field(default_factory=dict)  # model -> column -> values
    stats: dict[str, list[Row]] = dataclasses.field(default_factory=dict)
    theory: list[Row] = dataclasses.field(default_factory=list)                    # with a "model" in each
    sensitivity: dict[str, list[Row]] = dataclasses.field(default_factory=dict)    # with "suggested_bits" where the file has them
    boxes: dict[str, Detections] = dataclasses.field(default_factory=dict)         # in the order of the command line
    weights: dict[str, list[Layer]] = dataclasses.field(default_factory=dict)

    def measure(self) -> str:
        """What networks are measured by: "top-1", "AP" """
        return MEASURES[measure_of(self.points[0])] if self.points else "top-1"

    def models(self) -> list[str]:
        """All models: the demo's in its order, others as they came."""
        theory = [str(row["model"]) for row in self.theory if row.get("layer") is not None]
        seen = list(dict.fromkeys([str(p["model"]) for p in self.points] + [*self.logs, *self.stats, *self.weights, *self.sensitivity, *theory]))
        return sorted(seen, key=lambda m: SHORT.get(m, len(SHORT)))


# ---- reading --------------------------------------------------------------


def parse_cell(column: str, text: str | float | None) -> str | float | None:
    if text is None or text == "":
        return None
    if column in TEXTS:
        return str(text)
    try:
        return float(text)
    except (TypeError, ValueError):
        return str(text)


def rows_of_json(path: pathlib.Path, text: str) -> list[Row]:
    try:
        table = json.loads(text)
        rows = [{key: parse_cell(key, value) for key, value in row.items()} for row in table["rows"]]
        schema = table.get("schema")
        suggested = {entry["layer"]: float(entry["weight_bits"]) for entry in table.get("suggestion", [])}
        rows = [{**row, "suggested_bits": suggested[row["layer"]]} if row.get("layer") in suggested else row for row in rows]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Failure(f"{path}: is no table of darknet kure: {error}") from None
    if schema is not None and schema not in SCHEMAS:
        raise Failure(f"{path}: is of schema {schema}; known are {', '.join(SCHEMAS)}")
    return rows


def rows_of_csv(path: pathlib.Path, text: str) -> list[Row]:
    lines = csv.reader(io.StringIO(text))
    header, rows = next(lines, []), []
    if text and not text.endswith(("\n", "\r")):
        raise Failure(f"{path}:{len(text.splitlines())}: the line has no end: the file is cut")
    try:
        for line in lines:
            if line == header:  # again where files stand one behind the other
                continue
            if len(line) != len(header):
                raise Failure(f"{path}:{lines.line_num}: {len(line)} values in a row, the header names {len(header)}")
            rows.append({key: parse_cell(key, value) for key, value in zip(header, line)})
    except csv.Error as error:
        raise Failure(f"{path}:{lines.line_num}: {error}") from None
    return rows or [dict.fromkeys(header)]


def check_numbers(path: pathlib.Path, rows: list[Row], columns: set[str], first: int = 1) -> None:
    """first: number of the first row, in a sentence"""
    for number, row in enumerate(rows, first):
        for column in sorted(columns):
            value = row.get(column)
            if not isinstance(value, float) or not math.isfinite(value):
                raise Failure(f"{path}: row {number}: {column} is {value!r}, a number was expected")


def check_measures(path: pathlib.Path, rows: list[Row]) -> None:
    """Each row is measured by one of MEASURES."""
    for number, row in enumerate(rows, 1):
        check_numbers(path, [row], {measure_of(row)}, number)


def fail_cell(path: pathlib.Path, number: int, column: str, value, wanted: str):
    raise Failure(f"{path}: row {number}: {column} is {show(value) or 'empty'}, expected: {wanted}")


def check_points(path: pathlib.Path, rows: list[Row]) -> None:
    """Every number of a point is one, and within its limits."""
    for number, row in enumerate(rows, 1):
        for column, value in row.items():
            if value is None or not column.endswith(NUMBERS):
                continue
            if not (isinstance(value, float) and math.isfinite(value)):
                fail_cell(path, number, column, value, "a number")
            if column.endswith("step_ratio") and value <= 0:
                fail_cell(path, number, column, value, "more than 0")
        if measure_of(row) != measure_of(rows[0]):
            raise Failure(f"{path}: row {number}: has {measure_of(row)}, where row 1 has {measure_of(rows[0])}")
        if not 0 <= accuracy(row) <= 100:
            fail_cell(path, number, measure_of(row), accuracy(row), "0 to 100 (percent)")
        if "model" in row and row["model"] is None:
            fail_cell(path, number, "model", None, "a name")


def check_sweep(path: pathlib.Path, rows: list[Row]) -> None:
    """Every row says which point it is, of which grid and weights."""
    missing = [column for column in SWEEP_COLUMNS if column not in rows[0]]
    if missing:
        raise Failure(f"{path}: a table of kure sweep, but without {', '.join(missing)}")
    check_numbers(path, rows, {*PLACE, "weight_bits", "activation_bits"})
    check_measures(path, rows)
    check_points(path, rows)
    for number, row in enumerate(rows, 1):
        for column in HASHES:
            if not re.fullmatch("[0-9a-f]{32}", row[column] or ""):
                fail_cell(path, number, column, row[column], "32 hexadecimal digits")
        if not (row["point"].is_integer() and row["points"].is_integer() and 0 <= row["point"] < row["points"]):
            fail_cell(path, number, "point", row["point"], f"a whole number from 0 to {row['points'] - 1:g}")
        if row["point"] == 0 and is_quantized(row):
            fail_cell(path, number, "weight_bits", row["weight_bits"], "0, as point 0 is the float network")


def check_subjects(path: pathlib.Path, rows: list[Row]) -> None:
    """Every row of a theory table says what was quantized, and by which grid."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("layer"), float) and not isinstance(row.get("values"), str) or not isinstance(row.get("grid"), str):
            raise Failure(f"{path}: row {number}: grid, and values or layer, were expected")


def read_text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Failure(f"{path}: cannot be read: {reason}") from None


def read_table(path: pathlib.Path, text: str) -> tuple[str, list[Row]]:
    """(what it is, rows)"""
    rows = rows_of_json(path, text) if text.lstrip().startswith("{") else rows_of_csv(path, text)
    columns = set(rows[0]) if rows else set()
    kind = next((kind for kind, header in HEADERS.items() if header <= columns), None)
    if not kind:
        raise Failure(f"{path}: is none of: a table of kure eval, sweep, stats, sensitivity or theory (CSV, JSON), a training log (CSV), "
                      "boxes of kure eval --detections (JSON)")
    if all(value is None for row in rows for value in row.values()):
        raise Failure(f"{path}: holds no row")
    if kind == SWEEP:
        check_sweep(path, rows)
    elif kind == POINTS:
        check_numbers(path, rows, {"weight_bits"})
        check_measures(path, rows)
        check_points(path, rows)
    else:
        check_numbers(path, rows, HEADERS[kind])
    return kind, rows


def model_of(path: pathlib.Path) -> str:
    """kure.log.csv -> kure"""
    return path.name.split(".")[0]


def read_boxes(path: pathlib.Path, text: str, model: str, inputs: Inputs) -> None:
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise Failure(f"{path}: is no list of detections: {error}") from None
    if model in inputs.boxes:
        raise Failure(f"{path}: there are boxes of {model} already: name each file with NAME=FILE")
    inputs.boxes[model] = read_detections(path, entries)


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
    text, model = read_text(path), name or model_of(path)
    if text.lstrip().startswith("["):
        read_boxes(path, text, model, inputs)
        return
    kind, rows = read_table(path, text)
    if kind in (SWEEP, POINTS):
        if name and "model" in rows[0]:
            raise Failure(f"{path}: names its models itself, in the column model: leave {name}= out")
        for point in inputs.points[:1]:
            if measure_of(rows[0]) != measure_of(point):
                raise Failure(f"{path}: has {measure_of(rows[0])}, but {point['file']} has {measure_of(point)}: a report is of classifiers or of detectors")
        inputs.points += [{"model": model, "file": str(path), **row} for row in rows]
    elif kind == THEORY:
        check_subjects(path, rows)
        inputs.theory += [{"model": model, **row} for row in rows]
    elif kind == STATS:
        inputs.stats[model] = rows
    elif kind == SENSITIVITY:
        inputs.sensitivity[model] = rows
    else:
        inputs.logs[model] = {c: [math.nan if row[c] is None else float(row[c]) for row in rows] for c in rows[0]}


# ---- numbers --------------------------------------------------------------


def mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def measure_of(row: Row) -> str:
    """Its column"""
    return next((column for column in MEASURES if row.get(column) is not None), "top1")


def accuracy(row: Row) -> float:
    """Percent, by what the network is measured by"""
    return float(row[measure_of(row)])


def is_quantized(point: Row) -> bool:
    return bool(point["weight_bits"] or point.get("activation_bits"))


def setting_of(point: Row) -> tuple:
    """(column, value) of what is set, but for the axes"""
    return tuple(sorted((column, value) for column, value in point.items() if column not in NO_SETTING and value is not None))


def words_of(column: str, value) -> str:
    """weight_granularity, tensor: "per tensor"; activation_bits, 8: "activation bits 8" """
    if column.endswith("_bits") and not value:
        return column.replace("_bits", "s float" if column.startswith(("w", "a")) else " layer float")
    return WORDS[value] if column in FIRST and value in WORDS else f"{column.removeprefix('weight_').replace('_', ' ')} {show(value)}"


def titles_of(found: list[dict]) -> list[str]:
    """Of settings {column: value}: granularity and batch norm, and whatever else is another value in some of them."""
    columns = [*FIRST, *(c for c in dict.fromkeys(c for setting in found for c in setting) if c not in FIRST)]
    telling = [c for c in columns if c in FIRST or len({setting.get(c) for setting in found} - {None}) > 1]
    return [", ".join(words_of(c, setting[c]) for c in telling if setting.get(c) is not None) for setting in found]


def settings(inputs: Inputs) -> dict[tuple, str]:
    """Every quantizer setting there is, with a title that says no more than needed."""
    found = list(dict.fromkeys(setting_of(p) for p in inputs.points if is_quantized(p)))
    return dict(zip(found, titles_of([dict(setting) for setting in found])))


def select(inputs: Inputs, model: str, setting: tuple | None = None, **wanted) -> list[float]:
    """Top-1 or AP of the points of a model that match."""
    return [accuracy(p) for p in inputs.points if p["model"] == model and (setting is None or setting_of(p) == setting)
            and all(p.get(key) == value for key, value in wanted.items())]


def float_accuracy(inputs: Inputs, model: str) -> float:
    return mean([accuracy(p) for p in inputs.points if p["model"] == model and not is_quantized(p)])


def values_of(inputs: Inputs, column: str) -> list[float]:
    """The values a column takes in the quantized points, in order."""
    return sorted({p[column] for p in inputs.points if is_quantized(p) and isinstance(p.get(column), float)})


def show(value, digits: int | None = None) -> str:
    """A cell for people."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.{digits}f}" if digits is not None else f"{value:g}"
    return str(value)
