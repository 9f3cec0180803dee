"""Reads and writes files: always complete or absent, with the same bytes for the same content.

Errors in reading name the file and the line.
"""

import csv
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lib.errors import UserError


@contextmanager
def replaced_directory(path: Path | str) -> Iterator[Path]:
    """An empty directory to fill, which replaces `path` when the block ends without an error.

    If the block raises or the process is killed, `path` stays as it was.
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
    """A path to write to, which replaces `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def write_json(path: Path | str, content: Any) -> None:
    """Write JSON for readable diffs: one line per value, keys in the order given.

    Text that is mostly not Latin is escaped, as DVC takes metrics with it for a binary file.

    Raises:
        UserError: a number is NaN or infinite, which JSON does not have; the message has its key.
    """
    as_text = partial(json.dumps, content, indent=2, allow_nan=False, default=_plain)
    try:
        text = as_text(ensure_ascii=False)
    except ValueError:
        for key, value in _not_finite(content):
            raise UserError(
                f"{path}: {key} is {value}, and JSON has no such number: write None in its place, "
                "or leave it out."
            ) from None
        raise
    start = text.encode("utf-8", "backslashreplace")[:512]  # all that DVC looks at
    if sum(byte > 127 for byte in start) > 0.3 * len(start):
        text = as_text(ensure_ascii=True)
    with replaced_file(path) as new:  # lone surrogates, which UTF-8 does not have, are escaped
        new.write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")


def _plain(value: Any) -> Any:
    """A number or array of NumPy or torch as Python numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON: write texts, numbers, lists or mappings")


def _not_finite(content: Any, above: str = "") -> Iterator[tuple[str, float]]:
    """The dotted key and value of each NaN or infinite number in nested values."""
    content = content.tolist() if hasattr(content, "tolist") else content
    if isinstance(content, Mapping | list | tuple):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from _not_finite(value, f"{above}.{key}" if above else str(key))
    elif isinstance(content, float) and not math.isfinite(content):
        yield above or "the value", content


def read_text(path: Path | str) -> str:
    """The text of a UTF-8 file.

    Raises:
        UserError: it is not UTF-8.
    """
    content = Path(path).read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8. Save it as UTF-8.") from None


def read_json(path: Path | str) -> Any:
    """The content of a JSON file.

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
    """Write rows with the same keys; floats keep all digits.

    Args:
        path: the file.
        rows: its rows.
        columns: its header; by default the keys of the first row, which must exist then.
    """
    with replaced_file(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """The rows of a CSV file, all values as text."""
    with opened_csv(path) as reader:
        return list(reader)


def read_columns(path: Path | str, names: Sequence[str]) -> list[list[float]]:
    """The numbers of each row of a CSV file in these columns, in the order of `names`.

    Raises:
        UserError: a column is missing, or a value is not a number.
    """
    with opened_csv(path) as reader:
        if missing := [name for name in names if name not in (reader.fieldnames or ())]:
            raise UserError(f"{path}: column {missing[0]!r} is missing.")
        return [
            [number(path, reader.line_num, name, row[name]) for name in names] for row in reader
        ]


@contextmanager
def opened_csv(path: Path | str) -> Iterator["csv.DictReader[str]"]:
    """A reader of a CSV file's rows; UserError if they are no CSV in UTF-8."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            yield csv.DictReader(file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV in UTF-8: {error}.") from None


def number(path: Path | str, line: int, name: str, value: str) -> float:
    """A value of a CSV file as a number."""
    try:
        return float(value)
    except (ValueError, TypeError):
        raise UserError(f"{path}, line {line}, {name!r}: {value!r} is no number.") from None
