"""Reads a stage's results from its files: the parameters, metrics and curves that MLflow gets.

What MLflow cannot store is left out with a notice, never an error: results are files first.
"""

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.nested import flat
from lib.pipeline import Stage
from lib.revisions import names_of, parse
from lib.text import one_line
from lib.trials import MAX_NAME, mlflow_name
from tools.tracking import ARTIFACTS
from tools.tracking.stages import process_of

INNER = "\0"  # between the keys of nested metrics, so that `a: {b: 1}` is not the same as `a_b: 1`
STEPS = ("epoch", "step")  # the first column of a CSV file that is a curve
DATA = "data/"  # outs that stay in DVC
MAX_NOTICES = 10
MAX_VALUE_LENGTH = 5000  # characters; 2.x servers accept no more


@dataclass(frozen=True)
class Point:
    """One value of a curve."""

    name: str
    step: int
    value: float


@dataclass
class Results:
    """What is logged of a stage; `left_out` has a line for each value that is not."""

    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curves: list[Point] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def notices(self) -> list[str]:
        """The first lines of `left_out`, and how many more there are."""
        lines, more = self.left_out[:MAX_NOTICES], len(self.left_out) - MAX_NOTICES
        return [*map(one_line, lines), *([f"… and {more:,} more like these"] if more > 0 else [])]


def results_of(stage: Stage) -> Results:
    """The results in the files of a stage that has run."""
    results = Results()
    own = process_of(stage)
    taken = {
        mlflow_name(name) for name in flat({k: v for k, v in stage.params.items() if k != own})
    }
    for key, section in stage.params.items():
        for name, value in flat({key: section}).items():
            # The process's own section is logged without its name: `lr`, not `train.lr`.
            short = mlflow_name(name.removeprefix(f"{own}.") if key == own else name)
            whole = key == own and short in taken
            results.params[mlflow_name(name) if whole else short] = shortened(value)
    several = len(stage.metrics) > 1
    for path, name in names_of(stage.metrics).items():
        add_metrics(results, path, f"{name}_" if several else "")
    curves: dict[Path, list[Point]] = {}
    for file in curve_files(stage):
        try:
            with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
                curves[file] = list(points(list(csv.reader(lines))))
        except csv.Error as error:
            results.left_out.append(f"{file} cannot be read as CSV: {error}")
    results.curves = [point for found in with_distinct_names(curves).values() for point in found]
    return results


def add_metrics(results: Results, path: str, prefix: str) -> None:
    """Add a metrics file to the results: numbers as metrics, strings as parameters."""
    try:
        content = parse(path, Path(path).read_bytes())
    except IsADirectoryError:
        results.left_out.append(f"{path} is a folder: name each file of it as a metric.")
        return
    except (UserError, OSError) as error:
        results.left_out.append(f"{path} {error}")
        return
    for place, value in flat(content, INNER).items():
        key = place.replace(INNER, "_")
        name = mlflow_name(f"{prefix}{key}")
        if isinstance(value, bool | int | float):
            if name in results.metrics:
                name = unique_name(name, f"{prefix} {place}")
            try:
                results.metrics[name] = float(value)
            except OverflowError:
                results.left_out.append(f"{path}: {key} is too large for a float")
                continue
            if name != f"{prefix}{key}":
                results.left_out.append(f"{path}: {key}: logged as {name}, which MLflow takes")
        elif isinstance(value, str):
            if results.params.setdefault(name, shortened(value)) != shortened(value):
                results.left_out.append(f"{path}: {key} is left out: a parameter has its name")
        else:
            kind = "null" if value is None else f"a {type(value).__name__}"
            results.left_out.append(f"{path}: {key or 'the file'} is {kind}, not a number")


def unique_name(name: str, key: str) -> str:
    """The name with a hash of the key, so that the metric has the same name in each run."""
    suffix = f"_{hashlib.sha256(key.encode()).hexdigest()[:6]}"
    return name[: MAX_NAME - len(suffix)] + suffix


def shortened(value: Any) -> str:
    """A parameter's value as text, cut to the length that servers accept."""
    text = str(value)
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 1] + "…"


# ---- curves


def curve_files(stage: Stage) -> list[Path]:
    """The CSV files of a stage whose first column is `epoch` or `step`, outside `data/`."""
    found: list[Path] = []
    outs = (out for out in stage.outs if not out.startswith(DATA))
    for path in map(Path, (*outs, *stage.plots)):
        found += sorted(path.glob("*.csv")) if path.is_dir() else [path]
    return [file for file in found if file.suffix == ".csv" and file.is_file() and is_curve(file)]


def is_curve(file: Path) -> bool:
    """Whether the first column of a CSV file is `epoch` or `step`."""
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        try:
            header = next(csv.reader([lines.readline()]), [])
        except csv.Error:  # a cell of more than 131,072 characters
            return False
    return bool(header) and header[0] in STEPS


def points(rows: list[list[str]]) -> Iterator[Point]:
    """The points in a CSV file's rows, header first; cells that are not numbers are skipped.

    MLflow's steps are whole: from the first one that is not, the distinct steps are counted. A step
    not above the last one of its column is one more than that, as of two points at one step, one
    would be lost.
    """
    last: dict[str, int] = {}  # step of each column
    counted: dict[float, int] = {}
    for row in rows[1:]:
        step = number(row[0]) if row else None
        if step is None or not math.isfinite(step):
            continue
        if counted or not step.is_integer():
            counted.setdefault(step, max(last.values(), default=-1) + 1)
        place = counted.get(step, int(step))
        for name, cell in zip(rows[0][1:], row[1:], strict=False):
            if (value := number(cell)) is not None:
                rises = name not in last or place > last[name]
                last[name] = place if rises else last[name] + 1
                yield Point(mlflow_name(name), last[name], value)


def with_distinct_names(curves: Mapping[Path, Sequence[Point]]) -> dict[Path, list[Point]]:
    """The points of each file; a name that two files use at the same step gets its file's path.

    `loss` of artifacts/cv/fold_1.csv is then `cv/fold_1/loss`.
    """
    places = ({(point.name, point.step) for point in found} for found in curves.values())
    times = Counter(place for each in places for place in each)
    shared = {name for (name, _), files in times.items() if files > 1}
    renamed: dict[Path, list[Point]] = {}
    for file, found in curves.items():
        above = file.with_suffix("").as_posix().removeprefix(ARTIFACTS)
        renamed[file] = [
            replace(point, name=mlflow_name(f"{above}/{point.name}"))
            if point.name in shared
            else point
            for point in found
        ]
    return renamed


def number(cell: str) -> float | None:
    """A cell as a number; None if it is not one."""
    try:
        return float(cell)
    except ValueError:
        return None


def artifacts_of(stage: Stage) -> Mapping[str, str]:
    """The outs that are logged as artifacts, and the artifact folder that each goes to.

    The files of a stage's only folder go to the root. An out that would overwrite another there
    keeps its path below `artifacts/`.
    """
    outs = [out for out in stage.outs if out.startswith(ARTIFACTS) and Path(out).exists()]
    folders = [out for out in outs if Path(out).is_dir()]
    places = {out: Path(out).name if out in folders and len(folders) > 1 else "" for out in outs}
    written = Counter(name for out, place in places.items() for name in names_at_root(out, place))
    for out, place in places.items():
        if any(written[name] > 1 for name in names_at_root(out, place)):
            inner = Path(out).relative_to(ARTIFACTS)
            inner = inner if out in folders else inner.parent
            places[out] = "" if inner == Path() else inner.as_posix()
    return places


def names_at_root(out: str, place: str) -> set[str]:
    """The names that an out would take up at the root of a run's artifacts."""
    if place:
        return {place}
    return {file.name for file in Path(out).iterdir()} if Path(out).is_dir() else {Path(out).name}
