"""Files that are there whole or not at all, and the same to the byte each time."""

import csv
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
    finally:
        for left_over in (new, old):
            shutil.rmtree(left_over, ignore_errors=True)


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
    """Write JSON that a diff shows well: a line each, keys in the order given."""
    with replaced_file(path) as new:
        new.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """What a JSON file says."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_csv(path: Path | str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same keys, which become the header; floats lose no digit."""
    with replaced_file(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """The rows of a CSV file, every value as it is written there."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_columns(path: Path | str, names: Sequence[str]) -> list[list[float]]:
    """Columns of numbers of a CSV file, in the order of their names: a list for each row."""
    return [[float(row[name]) for name in names] for row in read_csv(path)]
