"""Files that are there whole or not at all, and the same to the byte each time.

What cannot be read is told by its name, and the line in it.
"""

import csv
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.errors import UserError


@contextmanager
def replaced_directory(path: Path | str) -> Iterator[Path]:
    """An empty directory to fill, which takes the place of `path` when the block ends well.

    When the block raises, or the process is killed, what stood at `path` stays.
    """
    path = Path(path)
    new, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():  # killed between the two renames below
        old.rename(path)
    for left_over in (new, old):
        shutil.rmtree(left_over, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if path.exists():
            path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def replaced_file(path: Path | str) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def write_json(path: Path | str, content: Any) -> None:
    """Write JSON that a diff shows well: a line each, keys in the order given.

    Raises:
        UserError: a number is NaN or infinite, which JSON has not; the message has its key.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False, default=_plain)
    except ValueError:
        for key, value in _not_finite(content):
            raise UserError(
                f"{path}: {key} is {value}, and JSON has no such number: write None in its place, "
                "or leave it out."
            ) from None
        raise
    with replaced_file(path) as new:  # half a pair of UTF-16, which UTF-8 has not, is escaped
        new.write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")


def _plain(value: Any) -> Any:
    """A number or an array of NumPy's or torch's, as Python has it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON: write texts, numbers, lists or mappings")


def _not_finite(content: Any, above: str = "") -> Iterator[tuple[str, float]]:
    """Each number in nested values that is NaN or infinite, with its dotted key."""
    content = content.tolist() if hasattr(content, "tolist") else content
    if isinstance(content, Mapping | list | tuple):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from _not_finite(value, f"{above}.{key}" if above else str(key))
    elif isinstance(content, float) and not math.isfinite(content):
        yield above or "the value", content


def read_text(path: Path | str) -> str:
    """A text file, which is UTF-8.

    Raises:
        UserError: it is not.
    """
    content = Path(path).read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8. Save it as UTF-8.") from None


def read_json(path: Path | str) -> Any:
    """What a JSON file says.

    Raises:
        UserError: it is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}{line}: not JSON ({error}). A merge left marks in it?") from None


def write_csv(
    path: Path | str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()
) -> None:
    """Write rows with the same keys; floats lose no digit.

    Args:
        path: the file.
        rows: its rows.
        columns: its header; by default the keys of the first row, of which there is one then.
    """
    with replaced_file(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """The rows of a CSV file, every value as it is written there."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV in UTF-8: {error}.") from None


def read_columns(path: Path | str, names: Sequence[str]) -> list[list[float]]:
    """Columns of numbers of a CSV file, in the order of their names: a list for each row.

    Raises:
        UserError: a column is missing, or a value is no number.
    """
    rows = read_csv(path)
    if rows and (missing := [name for name in names if name not in rows[0]]):
        raise UserError(f"{path}: column {missing[0]!r} is missing.")
    return [[number(path, n, name, row[name]) for name in names] for n, row in enumerate(rows, 2)]


def number(path: Path | str, line: int, name: str, value: str) -> float:
    """A value of a CSV file as a number."""
    try:
        return float(value)
    except (ValueError, TypeError):
        raise UserError(f"{path}, line {line}, {name!r}: {value!r} is no number.") from None
