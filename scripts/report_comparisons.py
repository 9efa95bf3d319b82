"""report_comparisons.py: which points of `darknet kure eval` and `sweep` may be held against each other, for report.py.

Points of a sweep: those of one grid, which its hash names: the same quantizers, and the same
images. Points of eval: those whose quantizers are alike but for widths and step ratios.
"""
import dataclasses
import functools
import itertools
import math

from report_files import AXES, MEASURES, NO_SETTING, Failure, Inputs, Row, accuracy, is_quantized, mean, measure_of, setting_of, show, titles_of

BITS, RATIO, CHOICE = "bits", "ratio", "choice"  # kinds of axes, each drawn in its own way

Value = str | float


@dataclasses.dataclass(frozen=True)
class Axis:
    """What varies within a comparison."""
    columns: tuple[str, ...]  # two where weights and activations have the same value in every point
    values: tuple[Value, ...]  # from left to right

    @property
    def name(self) -> str:
        key = self.columns[0].replace("_", " ")
        return f"{key.removeprefix('weight ')} of weights and activations" if len(self.columns) > 1 else key

    @property
    def kind(self) -> str:
        return BITS if self.columns[0].endswith("bits") else RATIO if self.columns[0].endswith("ratio") else CHOICE

    def label(self, value: Value) -> str:
        if self.kind == BITS and value == 0:
            return "float"
        if self.columns[0].endswith("symmetric"):
            return "zero point 0" if value else "free zero point"
        return show(value)


@dataclasses.dataclass
class Comparison:
    """Quantized points that may be held against each other."""
    title: str
    rows: dict[str, list[Row]]      # model -> its points
    plain: dict[str, float]         # model -> top-1 or AP of the float network (%)
    grid: str = ""                  # of a sweep: its hash
    quantizers: int = 0             # of a sweep: points of the whole grid, without float ones
    scores: dict[str, float] = dataclasses.field(default_factory=dict)  # model -> robustness (%), where no point is missing
    measure: str = "top-1"          # what all of them are measured by
    short: str = ""                 # the title without what tells grids of one setting apart

    @functools.cached_property
    def axes(self) -> list[Axis]:
        rows = [row for rows in self.rows.values() for row in rows]
        found = []
        for column in dict.fromkeys(c for row in rows for c in row):
            if column in NO_SETTING and column not in AXES or column.endswith("truncation_value"):
                continue
            values = dict.fromkeys(v for v in (value_of(row, column) for row in rows) if v is not None)
            twin = column.replace("weight_", "activation_")
            if len(values) < 2 or any(column in axis.columns for axis in found):
                continue
            tied = twin != column and all(value_of(row, column) == value_of(row, twin) for row in rows)
            found.append(Axis((column, twin) if tied else (column,), in_order(column, values)))
        return found


def value_of(row: Row, column: str) -> Value | None:
    """A policy's name goes with its value: "percentile 99.9"."""
    value = row.get(column)
    parameter = row.get(f"{column}_value") if column.endswith("truncation") else None
    return value if parameter is None else f"{value} {show(parameter)}"


def in_order(column: str, values: dict[Value, None]) -> tuple[Value, ...]:
    """Float and then fewer bits; other numbers ascending; words as they came"""
    if column.endswith("bits"):
        return tuple(sorted(values, key=lambda bits: bits or math.inf, reverse=True))
    return tuple(sorted(values)) if all(isinstance(v, float) for v in values) else tuple(values)


def along(rows: list[Row], axis: Axis) -> dict[Value, list[float]]:
    """Top-1 or AP of the points at each value, in the axis' order"""
    found: dict[Value, list[float]] = {value: [] for value in axis.values}
    for row in rows:
        value = value_of(row, axis.columns[0])
        if value is not None:
            found[value].append(accuracy(row))
    return {value: accuracies for value, accuracies in found.items() if accuracies}


# ---- the score --------------------------------------------------------------------


def trapezoid(ratios: list[float]) -> dict[float, float]:
    """Of each step ratio: its share of the width, by the trapezoidal rule"""
    width = ratios[-1] - ratios[0]
    if not width:
        return {ratios[0]: 1.0}
    ends = [ratios[0], *ratios, ratios[-1]]
    return {x: (after - before) / 2 / width for before, x, after in zip(ends, ratios, ends[2:])}


def robustness(rows: list[Row]) -> float:
    """Mean top-1 or AP (%); along step ratios the area under accuracy divided by its width, all other values alike."""
    curves: dict[tuple, list[tuple[float | None, float | None, float]]] = {}
    for row in rows:
        ratios = (row.get("weight_step_ratio"), row.get("activation_step_ratio"))
        curves.setdefault((row["weight_bits"], *setting_of(row)), []).append((*ratios, accuracy(row)))
    areas = []
    for curve in curves.values():
        tied = all(w == a for w, a, _ in curve)
        share = [trapezoid(sorted({point[i] for point in curve})) if all(point[i] is not None for point in curve) else None for i in range(2)]
        weights = [(share[0][w] if share[0] else 1.0) * (share[1][a] if share[1] and not tied else 1.0) for w, a, _ in curve]
        areas.append(sum(weight * point[2] for weight, point in zip(weights, curve)) / sum(weights))
    return mean(areas)


# ---- sweeps -----------------------------------------------------------------------

Sweeps = dict[str, dict[str, dict[str, dict[int, Row]]]]  # grid -> model -> hash of its weights -> point -> row


def read_sweeps(rows: list[Row]) -> Sweeps:
    sweeps: Sweeps = {}
    for row in rows:
        of_grid = sweeps.setdefault(str(row["grid_hash"]), {})
        points = of_grid.setdefault(str(row["model"]), {}).setdefault(str(row["model_hash"]), {})
        known = points.setdefault(int(row["point"]), row)
        for column in known if known is not row else ():
            if column not in ("seconds", "file") and known[column] != row.get(column):
                raise Failure(f"{row['file']}: point {row['point']:g} of {row['model']} has {column} {show(row.get(column))}, "
                              f"but {show(known[column])} in {known['file']}")
    return sweeps


def check_models(rows: list[Row], average: bool) -> None:
    """One name, one file of weights."""
    first: dict[str, Row] = {}
    for row in rows:
        known = first.setdefault(str(row["model"]), row)
        if known["model_hash"] != row["model_hash"] and not average:
            raise Failure(f"{row['file']}: other weights (model_hash {row['model_hash'][:8]}) than {known['file']} ({known['model_hash'][:8]}) under "
                          f"the same name, {row['model']}: name each with NAME=FILE, or average seeds with --average")


def check_grid(grid: str, of_grid: dict[str, dict[str, dict[int, Row]]]) -> None:
    """A hash stands for one grid: the same number of points, each the same quantizer in every file."""
    first: dict[int, Row] = {}
    for row in (row for of_model in of_grid.values() for points in of_model.values() for row in points.values()):
        known = first.setdefault(int(row["point"]), row)
        total = next(iter(first.values()))
        if row["points"] != total["points"]:
            raise Failure(f"{row['file']}: grid {grid[:8]} has {row['points']:g} points, but {total['points']:g} in {total['file']}")
        for column in known:
            if (column not in NO_SETTING or column in AXES) and known[column] != row.get(column):
                raise Failure(f"{row['file']}: point {row['point']:g} of grid {grid[:8]} has {column} {show(row.get(column)) or 'empty'}, "
                              f"but {show(known[column]) or 'empty'} in {known['file']}")


def values_in(of_grid: dict[str, dict[str, dict[int, Row]]]) -> dict[str, object]:
    """What a grid is: {column: its value, or all of its values}"""
    found: dict[str, dict[Value, None]] = {}
    for row in (row for of_model in of_grid.values() for points in of_model.values() for row in points.values() if is_quantized(row)):
        for column, value in row.items():
            if (column not in NO_SETTING or column in AXES) and value is not None:
                found.setdefault(column, {})[value] = None
    return {c: next(iter(v)) if len(v) == 1 else " ".join(map(show, in_order(c, v))) for c, v in found.items()}


def differing(a: dict[str, object], b: dict[str, object]) -> list[str]:
    return [column for column in dict.fromkeys([*a, *b]) if a.get(column) != b.get(column)]


def check_twice(sweeps: Sweeps, values: dict[str, dict[str, object]]) -> None:
    """Grids of one model are told apart by their columns."""
    for a, b in itertools.combinations(sweeps, 2):
        both = [model for model in sweeps[a] if model in sweeps[b]]
        if both and not differing(values[a], values[b]):
            raise Failure(f"{both[0]}: two sweeps of the same quantizers (grids {a[:8]} and {b[:8]}) but with other images, another seed or another "
                          "cfg: name each with NAME=FILE")


def grid_notes(sweeps: Sweeps, values: dict[str, dict[str, object]]) -> list[str]:
    """Models that were swept, but over no grid in common."""
    models = list(dict.fromkeys(model for of_grid in sweeps.values() for model in of_grid))
    notes = []
    for x, y in itertools.combinations(models, 2):
        a, b = ([grid for grid in sweeps if model in sweeps[grid]] for model in (x, y))
        for grid in [g for g in a if g not in b][:1]:
            other = min((g for g in b if g not in a), key=lambda g: len(differing(values[grid], values[g])), default=None)
            if other:
                columns = differing(values[grid], values[other])
                what = f"in {', '.join(columns)}" if columns else "in no column: other images, another seed or another cfg"
                notes.append(f"{x} and {y} are not compared: their grids {grid[:8]} and {other[:8]} differ {what}.")
    return notes


def compare_sweep(title: str, grid: str, of_grid: dict[str, dict[str, dict[int, Row]]], notes: list[str]) -> list[Comparison]:
    """Where points are missing, the others are compared over those that every model has, or each by itself."""
    sets = [set(points) for of_model in of_grid.values() for points in of_model.values()]
    total = int(next(iter(next(iter(next(iter(of_grid.values())).values())).values()))["points"])
    short = {model: sum(total - len(points) for points in of_model.values()) for model, of_model in of_grid.items()}
    for model, missing in short.items():
        if missing:
            notes.append(f"{model}: {missing} of {total} points of grid {grid[:8]} are missing: no robustness score; the same kure sweep goes on "
                         "with them.")
    common = set.intersection(*sets)
    if any(short.values()) and len(of_grid) > 1:
        if not any(is_quantized(row) for points in next(iter(of_grid.values())).values() for row in points.values() if int(row["point"]) in common):
            return [c for model in of_grid for c in compare_sweep(f"{title}, {model}", grid, {model: of_grid[model]}, [])]
        notes.append(f"Of grid {grid[:8]} only the {len(common)} points that all of {', '.join(of_grid)} have are compared.")
    complete = [points for of_model in of_grid.values() for points in of_model.values() if len(points) == total]
    result = Comparison(title, {}, {}, grid, sum(map(is_quantized, complete[0].values())) if complete else total - 1)
    result.measure = MEASURES[measure_of(next(iter(next(iter(next(iter(of_grid.values())).values())).values())))]
    for model, of_model in of_grid.items():
        rows = [row for points in of_model.values() for point, row in sorted(points.items()) if point in common]
        result.rows[model] = [row for row in rows if is_quantized(row)]
        result.plain[model] = mean([accuracy(row) for row in rows if not is_quantized(row)])
        if not short[model] and result.rows[model]:
            result.scores[model] = mean([robustness([r for r in points.values() if is_quantized(r)]) for points in of_model.values()])
    return [result]


def comparisons(inputs: Inputs, average: bool = False) -> tuple[list[Comparison], list[str]]:
    """(what may be compared, notes on what may not); Failure where a name or a hash stands for two things"""
    swept = [row for row in inputs.points if row.get("grid_hash")]
    check_models(swept, average)
    sweeps, notes = read_sweeps(swept), []
    for grid, of_grid in sweeps.items():
        check_grid(grid, of_grid)
    values = {grid: values_in(of_grid) for grid, of_grid in sweeps.items()}
    check_twice(sweeps, values)
    notes += grid_notes(sweeps, values)
    found = []
    for (grid, of_grid), title, short in zip(sweeps.items(), grid_titles(values), short_titles(values)):
        new = compare_sweep(title, grid, of_grid, notes)
        for comparison in new:
            comparison.short = short if short and len(new) == 1 else comparison.title
        found += new
    return found + compare_points([row for row in inputs.points if not row.get("grid_hash")]), notes


def grid_titles(values: dict[str, dict[str, object]]) -> list[str]:
    """As settings have them; of grids that look alike with the lists that differ, or with the hash."""
    short = short_titles(values)
    full = [", ".join(filter(None, [title, *(lists_of(setting, [v for t, v in zip(short, values.values()) if t == title]) if short.count(title) > 1 else [])]))
            for title, setting in zip(short, values.values())]
    return [title if full.count(title) == 1 and title else ", ".join(filter(None, [title, f"grid {grid[:8]}"])) for grid, title in zip(values, full)]


def short_titles(values: dict[str, dict[str, object]]) -> list[str]:
    return titles_of([{c: v for c, v in setting.items() if not isinstance(v, str) or " " not in v} for setting in values.values()])


def lists_of(setting: dict[str, object], alike: list[dict[str, object]]) -> list[str]:
    """What the lists of a grid are that others with the same title have otherwise: "step ratio 0.5 to 2" """
    found = []
    for column, value in setting.items():
        if isinstance(value, str) and " " in value and any(other.get(column) != value for other in alike):
            values = value.split(" ")
            shown = ", ".join(values) if len(values) <= 4 else f"{values[0]} to {values[-1]}"
            found.append(f"{column.removeprefix('weight_').replace('_', ' ')} {shown}")
    return found


def compare_points(rows: list[Row]) -> list[Comparison]:
    """Tables of eval: a comparison each setting"""
    found: dict[tuple, dict[str, list[Row]]] = {}
    plain: dict[str, list[float]] = {}
    for row in rows:
        if is_quantized(row):
            found.setdefault(setting_of(row), {}).setdefault(str(row["model"]), []).append(row)
        else:
            plain.setdefault(str(row["model"]), []).append(accuracy(row))
    measure = MEASURES[measure_of(rows[0])] if rows else ""
    floats = {model: mean(values) for model, values in plain.items()}
    titles = titles_of([dict(setting) for setting in found])
    return [Comparison(title, by_model, {m: floats.get(m, mean([])) for m in by_model}, measure=measure) for title, by_model in zip(titles, found.values())]
