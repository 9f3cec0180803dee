"""Results as tables: those of one revision, and the differences between two.

Used by `make compare`, `make results`, the page of a run, milestone reports and the results commit,
so that all show the same tables and values, and the same metrics as better or worse. A table is a
header and rows of text; `markdown` formats one.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.better import better_when
from lib.numbers import is_number, numeric, shown_alike, shown_change, shown_number
from lib.pipeline import Out
from lib.revisions import Revision, changed_rows, changes, flat_metrics, names_of
from lib.text import cell, one_line

Table = tuple[Sequence[str], Sequence[tuple[str, ...]]]

LONGEST = 50  # rows of a table
LONGEST_VALUE = 400  # characters of a value that differs
WIDEST = 12  # columns of measures or models
COUNTED = 2_000_000_000  # bytes; rows of larger tables are not compared
MODEL_KEYS = ("model", "classifier", "regressor", "estimator")


# ---- values


def shown(value: Any) -> str:
    """A value for display: numbers as in lib/numbers.py, long text cut off."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return shown_number(value)
    if isinstance(value, list | tuple):
        return shown_list(value)
    text = one_line(str(value))
    return text if len(text) <= 80 else f"{text[:79]}…"


def shown_list(values: Sequence[Any]) -> str:
    """The first values, and how many there are."""
    few = values if len(values) <= 6 else values[:3]
    texts = [f"[{len(v):,} in all]" if isinstance(v, list | tuple) else shown(v) for v in few]
    return f"[{', '.join(texts)}{f', … {len(values):,} in all' if len(few) < len(values) else ''}]"


# ---- whether a metric is better


def judged(key: str, by: float) -> str:
    """A suffix, " better" or " worse", for a metric that grew by this much; empty if unknown.

    The first part of the key is the file's name, if there are several files.
    """
    gain = better_when(key.partition(".")[2] or key) * by
    return " better" if gain > 0 else " worse" if gain < 0 else ""


# ---- the results of a revision


@dataclass(frozen=True)
class Measured:
    """The measures of a model on a split; the split is empty if the file names none."""

    split: str
    model: str
    values: Mapping[str, Any]


def measured(revision: Revision) -> list[Measured]:
    """The measures of each model in a revision's metrics files, sorted by split."""
    files = revision.metrics_files
    models = model_names(files, names_of(files))
    found = [
        Measured(split, models[path], values)
        for path, content in files.items()
        if isinstance(content, Mapping)
        for split, values in measures_of(content)
    ]
    place = {split: n for n, split in enumerate(dict.fromkeys(row.split for row in found))}
    return sorted(found, key=lambda row: place[row.split])


def measures_of(content: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each split in a metrics file with its measures, and last the measures without a split.

    A mapping without strings counts as a split if at least one of its numbers is known to be better
    when larger or smaller.
    """
    for split, values in content.items():
        if isinstance(values, Mapping) and not any(isinstance(v, str) for v in values.values()):
            measures = {str(k): v for k, v in values.items() if v is None or numeric(v)}
            if any(better_when(name) and better_when(f"{split}.{name}") for name in measures):
                yield str(split), measures
    own = {str(k): v for k, v in content.items() if numeric(v) and better_when(str(k))}
    if own:
        yield "", own


def model_names(files: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """The model's name for each file: the one in the file if it is unique, else the file's name."""
    own = {
        path: next((v for key in MODEL_KEYS if isinstance(v := content.get(key), str)), "")
        for path, content in files.items()
        if isinstance(content, Mapping)
    }
    often = Counter(own.values())
    return {path: name if name and often[name] == 1 else names[path] for path, name in own.items()}


def results_table(revision: Revision) -> Table:
    """A row for each split and model, and a column for each measure.

    With more than WIDEST measures, these are the rows. Without splits, a row for each metric.
    """
    found = measured(revision)
    measures = list(dict.fromkeys(name for row in found for name in row.values))
    if not any(row.split for row in found) or min(len(measures), len(found)) > WIDEST:
        return ("metric", "value"), [(key, shown(v)) for key, v in revision.metrics.items()]
    columns = [texts_of([row.values.get(name, "") for row in found]) for name in measures]
    if len(measures) > WIDEST:
        header = ("measure", *(f"{row.split or '–'} {row.model}" for row in found))
        return header, [(name, *texts) for name, texts in zip(measures, columns, strict=True)]
    cells = zip(*columns, strict=True)
    rows = [(row.split or "–", row.model, *texts) for row, texts in zip(found, cells, strict=True)]
    return ("split", "model", *measures), rows


def texts_of(values: Sequence[Any]) -> list[str]:
    """The values of one measure for display, numbers with the same number of decimals."""
    numbers = iter(shown_alike([value for value in values if numeric(value)]))
    return [next(numbers) if numeric(value) else shown(value) for value in values]


@dataclass(frozen=True)
class Best:
    """The best model, or several equal ones, and how they were compared."""

    models: Sequence[str]
    measures: Sequence[str]  # that decided; several best models are equal in all of them
    split: str
    left_out: Sequence[str]  # models that were not compared


def best_model(found: Sequence[Measured]) -> Best | None:
    """The best of the models that have a measure in common; None if there is no such measure.

    Compared on the validation split if there is one, by the measure that most models have, of those
    that are known to be better when larger or smaller. Ties are broken by the other measures.
    """
    split = chosen_split([row.split for row in found])
    rows = [row for row in found if row.split == split]
    models = dict.fromkeys(row.model for row in found)
    often = Counter(name for row in rows for name in row.values if better_when(name))
    shared = [name for name, n in often.most_common() if n > 1 or len(models) == 1]
    shared = [name for name in shared if with_number(rows, name)]
    if not shared:
        return None
    best = compared = with_number(rows, shared[0])
    decided: list[str] = []
    for name in shared:
        if (decided and len(best) == 1) or len(with_number(best, name)) < len(best):
            continue
        merits = [row.values[name] * better_when(name) for row in best]
        best = [row for row, merit in zip(best, merits, strict=True) if merit == max(merits)]
        decided.append(name)
    left_out = [model for model in models if model not in {row.model for row in compared}]
    return Best([row.model for row in best], decided, split, left_out)


def with_number(rows: Sequence[Measured], name: str) -> list[Measured]:
    """The rows that have a number for a measure."""
    return [row for row in rows if is_number(row.values.get(name))]


def chosen_split(splits: Sequence[str]) -> str:
    """The split that models are chosen on: validation, else test, else the first."""
    for wanted in ("val", "dev", "test"):
        for split in splits:
            if split.lower().startswith(wanted):
                return split
    return splits[0] if splits else ""


# ---- differences


def metrics_table(old: Revision, new: Revision, *, scalars_only: bool = False) -> Table:
    """Every metric that differs, by how much, and whether that is better; lists if not excluded."""
    names = names_of({*old.metrics_files, *new.metrics_files})
    both = (flat_metrics(revision.metrics_files, names) for revision in (old, new))
    rows = [
        (key, *told_apart(before, after), change(key, before, after))
        for key, before, after in changes(*both)
        if not (scalars_only and (isinstance(before, list) or isinstance(after, list)))
    ]
    return ("metric", "before", "after", "change"), rows


def told_apart(before: Any, after: Any) -> Sequence[str]:
    """Two values for display; lists in full if they would look the same."""
    texts = texts_of([before, after])
    alike = isinstance(before, list) and texts[0] == texts[1]
    return (written(before), written(after)) if alike else texts


def change(key: str, before: Any, after: Any) -> str:
    """By how much a number differs, and whether that is better; empty for other values."""
    if not (is_number(before) and is_number(after)):
        return ""
    text = shown_change(before, after)
    return text if shown(before) == shown(after) else text + judged(key, after - before)


def params_table(old: Revision, new: Revision) -> Table:
    """Every parameter that differs, unrounded, as a number may be a seed or a year."""
    rows = [
        (key, *(written(each.params[key]) if key in each.params else "–" for each in (old, new)))
        for key, *_ in changes(old.params, new.params)
    ]
    return ("parameter", "before", "after"), rows


def written(value: Any) -> str:
    """A value as it is written, lists in full, as two may differ anywhere."""
    if not isinstance(value, str):
        as_json = json.dumps(value, ensure_ascii=False, default=str)
        value = repr(value) if numeric(value) else as_json
    text = one_line(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def data_table(old: Revision, new: Revision) -> Table:
    """Every out in DVC that differs: checksum, size, files, and rows of tables."""
    rows = [
        (path, described(before), described(after), rows_changed(path, old, new))
        for path, before, after in changes(old.outs, new.outs)
    ]
    return ("path", "before", "after", "rows"), rows


def rows_changed(path: str, old: Revision, new: Revision) -> str:
    """How many rows of a CSV file were added and removed; empty for other or large files."""
    outs = [revision.outs.get(path) for revision in (old, new)]
    if not path.endswith(".csv") or not all(out and out.size <= COUNTED for out in outs):
        return ""
    read = old
    try:
        with old.opened(path) as before:
            read = new
            with new.opened(path) as after:
                names = [file.readline().rstrip(b"\r\n") for file in (before, after)]
                came, went = changed_rows(before, after)
    except Exception as error:  # of DVC, the bucket or the disk: many classes
        read.missing.append(read.not_here(path, error))
        return ""
    other = ", other columns" if names[0] != names[1] else ""
    return f"{came:,} rows came, {went:,} went{other}"


def described(out: Out | None, digits: int = 8) -> str:
    """The first digits of an out's checksum, its size, and the number of files."""
    if out is None:
        return "–"
    files = f", {out.files:,} files" if out.files > 1 else ""
    return f"{out.md5[:digits]} ({size(out.size)}{files})"


def size(count: float) -> str:
    """A number of bytes with a unit."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    power = 0
    while power < len(units) - 1 and float(f"{count:.3g}") >= 1000:
        count, power = count / 1000, power + 1
    return f"{count:.3g} {units[power]}"


# ---- tables as text


def cut(rows: Sequence[tuple[str, ...]], most: int = LONGEST) -> tuple[list[tuple[str, ...]], str]:
    """At most `most` rows, the less nested keys first, and a line that counts the others."""
    if len(rows) <= most:
        return list(rows), ""
    first = sorted(rows, key=lambda row: row[0].count("."))[:most]
    return first, f"… and {len(rows) - most:,} more"


def code(text: str) -> str:
    """A key as code in a cell of a Markdown table."""
    inner = one_line(text).replace("|", "\\|")
    return f"`` {inner} ``" if "`" in inner else f"`{inner}`"


def as_markdown(table: Table, *, key: Callable[[str], str] = cell, aligned: bool = True) -> str:
    """A table in Markdown, cut to LONGEST rows; `key` formats the first column."""
    header, rows = table
    kept, more = cut(rows)
    lines = [(key(row[0]), *map(cell, row[1:])) for row in kept]
    return "\n\n".join(filter(None, (markdown([*map(cell, header)], lines, aligned=aligned), more)))


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], *, aligned: bool = True) -> str:
    """A Markdown table of cells made by `cell` or `code`, with columns padded or not."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(map(len, texts)) if aligned else 3 for texts in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    padding = widths if aligned else [0] * len(widths)
    padded = (map(str.ljust, line, padding) for line in lines)
    return "\n".join(f"| {' | '.join(texts)} |" for texts in padded)
