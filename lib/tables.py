"""Reads tables of training data, assigns rows to splits, and separates X and y.

A table is a CSV file with a column `split`, which is train, validation or test in each row.
"""

import logging
import lzma
import textwrap
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from lib.errors import UserError

SPLIT = "split"
SPLITS = ("train", "validation", "test")

# Missing values even among text; None, NA, N/A and null are text there.
NANS = ("nan", "NaN", "-nan", "-NaN", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN")
MISSING = ("", *NANS, "<NA>", "#N/A", "#N/A N/A", "#NA")

# Raised by decompression, beside OSError.
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)

# Numbers as people write them, and what makes them text in CSV.
NUMBER = r"[+-]?[$€£]?\s?\d+(?:[.,'\u00a0\u202f]\d+)*\s?[%€$£]?"
SIGNS = r"[,'\u00a0\u202f%€$£]"

MAX_CLASSES = 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """The rows of one split: the columns to learn from, and the one to predict."""

    X: pd.DataFrame
    y: pd.Series


def read_table(path: Path | str) -> pd.DataFrame:
    """The table in a CSV file.

    Empty cells and `nan` are missing values. `None`, `NA`, `N/A` and `null` are missing in a column
    whose other values are numbers, or true and false; among text they are text: a class, say.
    Whole numbers keep their digits: beside missing values, those beyond 2**53 have the type Int64;
    those beyond 64 bits are Python's. `rows_by_split` converts both to floats.

    Raises:
        UserError: the file is missing, or is not a table with rows and commas between columns.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            names = names_in(path)
            refuse_other_separator(path, names)
            frame = read_as_written(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: `make run`, or `dvc pull {path}`.") from None
    except (OSError, *DAMAGED) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    except (UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise UserError(f"{path} is not a table in CSV: {why_no_table(path, error)}") from None
    except pd.errors.ParserWarning:
        raise UserError(
            f"{path}: rows have more values than there are names of columns "
            f"({quoted_names(names)}). Commas separate columns; a value with one is in quotes."
        ) from None
    if frame.empty:
        raise UserError(f"{path} has no rows: expected a line of names, then a line for each row.")
    refuse_nul(path, names, frame)
    for name in names[names.duplicated() & (names != "")].unique():
        logger.warning(
            "%s has several columns %r: the second is called %r here. Give each a name of its own, "
            "or drop all but one: it may say what is to be predicted",
            *(path, name, f"{name}.1"),
        )
    nameless = frame.columns[(names == "").to_numpy()]  # a comma at the end of rows makes one
    if nameless := [name for name in nameless if frame[name].notna().any()]:
        logger.warning(
            "%s has columns without a name: %s here. If such a column numbers the rows, as pandas "
            "writes them, leave it out: no row repeats another, and a model learns their order",
            *(path, quoted_names(nameless, 5)),
        )
    if written := [name for name, values in frame.items() if is_text_of_numbers(values)]:
        logger.warning(
            "%s has numbers that are read as text, as in %r in the column %s: write them with a "
            "point and no other signs, or a model sees a category in each",
            *(path, frame[written[0]].dropna().iloc[0], quoted_names(written, 5)),
        )
    return frame


def names_in(path: Path | str) -> pd.Series:
    """The columns' names as written in a CSV file."""
    return read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]


def refuse_other_separator(path: Path | str, names: pd.Series) -> None:
    """UserError if a file's only column name has other separators in it."""
    if len(names) == 1 and any(sign in names[0] for sign in ";\t|"):
        raise UserError(
            f"{path} has one column, {names[0]!r}: commas are expected between the columns, and "
            "points in numbers. Save it with them."
        )


def refuse_nul(path: Path | str, names: pd.Series, frame: pd.DataFrame) -> None:
    """UserError if a table has NUL bytes, which turn numbers into text."""
    for name, values in (("", names), *frame.items()):
        if pd.api.types.infer_dtype(values, skipna=True) != "string":
            continue
        wrong = values.str.contains("\0", regex=False, na=False)
        if wrong.any():
            row = f"column {name!r}, row {wrong.argmax()} (the first is 0)"
            raise UserError(
                f"{path} is not a table in CSV: it has a byte of 0 in "
                f"{row if name else 'the line of names'}. Convert it to UTF-8, or fetch it again: "
                "a disk or a transfer that failed leaves such bytes."
            )


def why_no_table(path: Path | str, error: Exception) -> str:
    """The reason in a line: that the file is not UTF-8, if so, else the reader's error."""
    if not isinstance(error, UnicodeDecodeError) and Path(path).suffix.lower() == ".csv":
        try:
            with Path(path).open(encoding="utf-8") as file:
                while file.read(2**20):
                    pass
        except UnicodeDecodeError as found:
            error = found
    if isinstance(error, UnicodeDecodeError):
        return (
            f"it is no text in UTF-8 ({error}). Convert it to CSV in UTF-8, a spreadsheet as well, "
            "or unpack it."
        )
    return " ".join(str(error).split())


def read_as_written(path: Path | str) -> pd.DataFrame:
    """The file as pandas reads it; columns that lose information so are read again."""
    frame = read_csv(path)

    def again(
        those: Callable[[pd.Series], bool], **options: Any
    ) -> Iterable[tuple[int, pd.Series]]:
        columns = [n for n in range(frame.shape[1]) if those(frame.iloc[:, n])]
        read = read_csv(path, usecols=columns, **options) if columns else pd.DataFrame()
        return zip(columns, (values for _, values in read.items()), strict=True)

    for n, values in again(is_text_with_gaps, keep_default_na=False, na_values=MISSING):
        frame.isetitem(n, values)
    for n, values in again(may_be_rounded, dtype_backend="numpy_nullable"):
        if values.dtype == "Int64":  # not if written as 1e20
            frame.isetitem(n, values)
    for n, values in again(may_be_digits, dtype=str):
        if values.dropna().str.fullmatch(r"[+-]?\d+").all():
            frame.isetitem(n, values.astype(object).map(int, na_action="ignore"))
    return frame


def read_csv(path: Path | str, **options: Any) -> pd.DataFrame:
    """The file as pandas reads it, each column with one type and none as the index."""
    # By default, values beyond the last name would make the first column the index; and low_memory
    # would read a column with text far below as numbers above it.
    return pd.read_csv(path, index_col=False, low_memory=False, **options)


def is_text_with_gaps(values: pd.Series) -> bool:
    """Whether a column holds only text and missing values, and has both."""
    return bool(values.hasnans) and pd.api.types.infer_dtype(values, skipna=True) == "string"


def is_text_of_numbers(values: pd.Series) -> bool:
    """Whether a column holds only numbers with other signs: `3,5`, `1,000.00`, `12 %`, `€5`."""
    if pd.api.types.infer_dtype(values, skipna=True) != "string":
        return False
    texts = values.dropna().str.strip()
    if not texts.str.fullmatch(NUMBER).all():
        return False
    return bool(texts.str.contains(SIGNS).any())  # not in 1.2.3, a version


def may_be_digits(values: pd.Series) -> bool:
    """Whether pandas may have kept large whole numbers as text, beside missing or negative ones."""
    if pd.api.types.infer_dtype(values, skipna=True) != "string":
        return False
    return bool(values.dropna().str.fullmatch(r"\d{19,20}").any())


def may_be_rounded(values: pd.Series) -> bool:
    """Whether whole numbers beside missing values may have been rounded as floats."""
    if values.dtype != float or not values.hasnans or values.abs().max() < 2**53:
        return False
    return is_whole(values.dropna())


def is_whole(values: pd.Series) -> bool:
    """Whether all numbers in a column are whole."""
    return bool((values % 1 == 0).all())


def is_beyond_64_bits(values: pd.Series) -> bool:
    """Whether a column holds whole numbers as Python objects, as some exceed 64 bits."""
    return values.dtype == object and pd.api.types.infer_dtype(values, skipna=True) == "integer"


def with_floats(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with floats in place of numbers that have no type of NumPy."""
    frame = frame.copy(deep=False)
    for n in range(frame.shape[1]):
        values = frame.iloc[:, n]
        if is_beyond_64_bits(values):
            # By way of text, so that 10**400 becomes infinite.
            frame.isetitem(n, values.map(str, na_action="ignore").astype(float))
        elif is_nullable_number(values):
            frame.isetitem(n, values.astype(float))
    return frame


def is_nullable_number(values: pd.Series) -> bool:
    """Whether a column has a numeric type of pandas, such as Int64."""
    if not isinstance(values.dtype, pd.api.extensions.ExtensionDtype):
        return False
    kinds = pd.api.types
    return kinds.is_numeric_dtype(values) and not kinds.is_bool_dtype(values)


def as_predicted(y: pd.Series) -> pd.Series:
    """A column to predict without missing values, as whole numbers or true and false if possible.

    Whole numbers beyond 64 bits become floats, or text if floats would merge what may be classes.
    """
    # Missing values had made whole numbers floats, and true and false objects.
    gaps, y = y.hasnans, y.dropna().infer_objects()
    if is_nullable_number(y):
        y = y.astype(y.dtype.numpy_dtype)
    elif gaps and y.dtype == float and is_whole(y) and y.abs().max() < 2**53:
        y = y.astype("int64")
    floats = with_floats(y.to_frame()).iloc[:, 0]
    return y.map(str) if floats.nunique() < y.nunique() <= MAX_CLASSES else floats


def with_splits(
    frame: pd.DataFrame,
    *,
    random_seed: int,
    test_size: float = 0.15,
    validation_size: float = 0.2,
    stratify: str | None = None,
) -> pd.DataFrame:
    """The table with a column `split`, or as it is if it has one.

    Args:
        frame: a table whose rows can be split independently.
        random_seed: of the drawing.
        test_size: share of all rows.
        validation_size: share of the remaining rows.
        stratify: the column of classes that get the same share in all splits; rows in which it is
            missing are a class of their own.

    Raises:
        ValueError: a size is not between 0 and 1.
        UserError: there are too few rows, or too few of a class, for three splits.
    """
    if SPLIT in frame:
        return frame
    for what, share in (("test_size", test_size), ("validation_size", validation_size)):
        if not 0 < share < 1:
            raise ValueError(f"{what} is {share}: expected a share between 0 and 1")
    classes = None if stratify is None else column(frame, stratify)
    if classes is not None and classes.hasnans:
        classes = classes.astype(object).where(classes.notna(), "missing").map(str)
    names = np.full(len(frame), SPLITS[0], dtype=object)
    rows = np.arange(len(frame))
    try:
        for name, share in (("test", test_size), ("validation", validation_size)):
            of = None if classes is None else classes.iloc[rows]
            rows, chosen = train_test_split(
                rows, test_size=share, stratify=of, random_state=random_seed
            )
            names[chosen] = name
    except ValueError as error:
        remedy = "Add rows."
        if stratify is not None:
            remedy = f"Add rows of each class of {stratify!r}, or name no column to `stratify` by."
        # It may list all classes.
        why = textwrap.shorten(str(error).rstrip("."), 240, placeholder=" …]")
        raise UserError(f"{len(frame)} rows are too few to split: {why}. {remedy}") from None
    # Not by assign(), which warns if there are a hundred columns or more.
    return pd.concat([frame, pd.Series(names, frame.index, name=SPLIT)], axis=1)


def rows_by_split(
    frame: pd.DataFrame, target: str | None, random_seed: int
) -> tuple[Rows, Rows, Rows]:
    """The rows for training, validation and test, without those whose target is missing.

    Args:
        frame: a table; without a column `split`, it is split here.
        target: the column to predict; None means the last one.
        random_seed: of that splitting.

    Raises:
        UserError: there is no such column, or it has no value or a number beyond float32; a split
            has no row, or a row no split; there is no value to learn from in training.
    """
    columns = [name for name in frame if name != SPLIT]
    if target == SPLIT or not columns:
        raise UserError(
            f"The column {SPLIT!r} says which rows are for what, and cannot be predicted: a table "
            "has other columns, and the target is one of them."
        )
    target = target or columns[-1]
    known = column(frame, target).notna()
    if not known.any():
        raise UserError(f"Column {target!r} has no value: name another target.")
    if not known.all():
        logger.info("%d rows without %s are left out", (~known).sum(), target)
    y, frame = as_predicted(frame[target]), with_floats(frame[known])
    frame[target] = y  # not by assign(), which does not accept a column called `self`
    check_finite(frame[[target]])
    frame = with_splits(frame, random_seed=random_seed)
    if unknown := [value for value in frame[SPLIT].unique() if value not in SPLITS]:
        found = "empty" if pd.isna(unknown[0]) else shown(unknown[0])
        raise UserError(f"The column {SPLIT!r} is {found} somewhere: it says {', '.join(SPLITS)}.")
    parts = [frame[frame[SPLIT] == name].drop(columns=SPLIT) for name in SPLITS]
    for name, part in zip(SPLITS, parts, strict=True):
        if part.empty:
            raise UserError(f"No row is for {name}: the column {SPLIT!r} must say {name} of some.")
    for name in names_of_rows(parts[0].drop(columns=target)):
        logger.warning(
            "%s has another text in nearly every row: if it names the row, leave it out, for "
            "nothing can be learned from it",
            name,
        )
    empty = parts[0].columns[parts[0].isna().all()]
    if len(empty) == parts[0].shape[1] - 1:
        raise UserError(
            f"No column beside {target!r} has a value in training: a model learns from others."
        )
    for name in empty:
        logger.warning("%s has no value in training: nothing can be learned from it", name)
    train, validation, test = (Rows(part.drop(columns=target), part[target]) for part in parts)
    return train, validation, test


def names_of_rows(frame: pd.DataFrame) -> list[str]:
    """The columns of text with other values in nearly all rows, as names of rows have."""
    texts = frame.select_dtypes(exclude=["number", "bool", "datetime"])
    many = [name for name, values in texts.items() if values.nunique() > 0.9 * len(frame)]
    return [str(name) for name in many] if len(frame) >= 50 else []


def numbers_with_values(frame: pd.DataFrame) -> list[Any]:
    """The numeric columns that have at least one value.

    A `ColumnTransformer` that is given this function in place of names calls it once, with the rows
    that it is fitted on.
    """
    return list(frame.select_dtypes("number").dropna(axis="columns", how="all"))


def without_columns(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The table without these columns; UserError if one does not exist."""
    return frame.drop(columns=[column(frame, name).name for name in names])


def column(frame: pd.DataFrame, name: str) -> pd.Series:
    """The column of this name; UserError if there is none."""
    if name not in frame:
        raise UserError(f"The table has no column {name!r}: it has {quoted_names(frame)}.")
    return frame[name]


def quoted_names(names: Iterable[Any], most: int = 30) -> str:
    """The first names, in quotes to show spaces around them, and how many more there are."""
    quoted = [repr(name) for name in names]
    more = f" and {len(quoted) - most:,} more" if quoted[most:] else ""
    return ", ".join(quoted[:most]) + more


def shown(value: Any) -> str:
    """The repr of a value as Python's: 1 instead of np.int64(1)."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def check_numbers(y: pd.Series) -> None:
    """UserError unless a column to predict holds at least two different numbers."""
    if y.dtype.kind not in "iuf":
        raise UserError(
            f"Column {y.name!r} holds {y.dtype} ({shown(y.iloc[0])}): a regression predicts "
            "numbers. Name another target, or train a classifier."
        )
    check_finite(y.to_frame())
    if (n := y.nunique()) < 2:
        raise UserError(
            f"Column {y.name!r} has {n} different values in training: two numbers or more are "
            "expected. Name another target, or add rows that differ."
        )


def check_finite(frame: pd.DataFrame) -> None:
    """UserError, with column and row, if a table holds a number beyond float32."""
    for name, values in frame.select_dtypes("floating").items():
        wrong = values[values.abs() > np.finfo(np.float32).max]
        if len(wrong):
            raise UserError(
                f"Column {name!r} holds {wrong.iloc[0]:g} in row {wrong.index[0]} (the first is "
                "0): numbers up to 3.4e38 are expected, which is what float32 holds. Leave the row "
                "out, or the cell empty."
            )


def check_classes(y: pd.Series, most: int = MAX_CLASSES, least: int = 1) -> None:
    """UserError unless a column to predict has 2 to `most` classes with at least `least` rows."""
    rows = y.value_counts()
    if not 2 <= len(rows) <= most:
        wanted = "two" if most == 2 else f"2 to {most}"
        raise UserError(
            f"Column {y.name!r} has {len(rows):,} different values in training: {wanted} classes "
            "are expected. Name another target, or choose another task."
        )
    if y.dtype.kind == "f" and (fractions := y[y % 1 != 0]).any():
        raise UserError(
            f"Column {y.name!r} holds {fractions.iloc[0]}: classes are text or whole numbers. Name "
            "another target, or choose TASK=regression."
        )
    if rows.iloc[-1] < least:
        raise UserError(
            f"Column {y.name!r} has {shown(rows.index[-1])} in {rows.iloc[-1]} of the training "
            f"rows: {least} are expected of each class. Leave the class out, or join it to another."
        )


def check_same_classes(train: Rows, **others: Rows) -> None:
    """UserError if a split has a class that training does not have; the reverse is a warning.

    Metrics of a class without rows are 0 or missing, and count in a mean over classes.
    """
    for split, rows in others.items():
        if (unknown := ~rows.y.isin(train.y.unique())).any():
            raise UserError(
                f"Column {rows.y.name!r} has {shown(rows.y[unknown].iloc[0])} in {split}, and in "
                "no row of training: let the table's splits `stratify` by this column, or leave "
                "the class out."
            )
        absent = set(train.y.tolist()) - set(rows.y.tolist())
        if absent:
            logger.warning(
                "%s has no row of %s %s: its measures there say nothing, and means over classes "
                "are lower; `stratify` the splits by it, or add rows",
                split,
                rows.y.name,
                quoted_names(sorted(absent), 5),
            )
