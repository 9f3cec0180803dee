"""The breast cancer data: loads and checks the raw rows, and makes splits of them.

Breast Cancer Wisconsin (Diagnostic), 569 biopsies, 30 features: ten measures of the cell nuclei in
an image, each as mean, standard error and worst value. Source: Street, Wolberg, Mangasarian,
"Nuclear feature extraction for breast tumor diagnosis", 1993; a copy comes with scikit-learn.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from sklearn.datasets import load_breast_cancer

from lib.chunks import Duplicates
from lib.errors import UserError
from lib.preparation import Chunk, Prepared, Shares, SplitError, write_splits

TARGET = "malignant"
CLASSES = ("benign", "malignant")

# The possible values of each measure: lengths in micrometres, areas in square micrometres, the rest
# shares and ratios.
RANGES = {
    "radius": (0.0, 100.0),
    "texture": (0.0, 100.0),
    "perimeter": (0.0, 1000.0),
    "area": (0.0, 10000.0),
    "smoothness": (0.0, 1.0),
    "compactness": (0.0, 5.0),
    "concavity": (0.0, 5.0),
    "concave points": (0.0, 1.0),
    "symmetry": (0.0, 1.0),
    "fractal dimension": (0.0, 1.0),
}
FEATURES = {
    **{f"mean {measure}": bounds for measure, bounds in RANGES.items()},
    **{f"{measure} error": bounds for measure, bounds in RANGES.items()},
    **{f"worst {measure}": bounds for measure, bounds in RANGES.items()},
}
SCHEMA = pa.DataFrameSchema(
    {
        **{
            feature: pa.Column("float64", pa.Check.in_range(low, high), nullable=False)
            for feature, (low, high) in FEATURES.items()
        },
        TARGET: pa.Column("int64", pa.Check.isin([0, 1]), nullable=False),
    },
    strict=True,
)


class DataError(UserError):
    """The raw data are invalid."""


def load_cancer_data() -> pd.DataFrame:
    """The raw frame: (569, 31), the features as float64 and `malignant` as int64."""
    bunch = load_breast_cancer(as_frame=True)
    # In scikit-learn, malignant is 0; here it is the positive class, 1.
    return bunch.data.assign(**{TARGET: (bunch.target == 0).astype("int64")})


def column_types(id_column: str | None) -> dict[str, str]:
    """The types of the columns, for CSV, which has none."""
    types = dict.fromkeys(FEATURES, "float64") | {TARGET: "int64"}
    return types if id_column is None else types | {id_column: "string"}


def valid_frames(
    frames: Iterable[pd.DataFrame],
    scratch: Path,
    *,
    max_duplicated: float,
    id_column: str | None = None,
) -> Iterator[pd.DataFrame]:
    """The same frames, with columns in the schema's order, up to the first invalid one.

    The error is raised when all of them have been checked.

    Args:
        frames: raw data, one row per biopsy, with an index that counts all rows.
        scratch: a folder for 16 bytes per row.
        max_duplicated: share of rows that may repeat an earlier row.
        id_column: identifies the biopsy of a row, and is not a feature.

    Raises:
        DataError: a column is missing, extra or of the wrong type; a value is missing, infinite or
            impossible; only one class occurs; too many rows are duplicated.
    """
    schema, columns = SCHEMA, [*FEATURES, TARGET]
    if id_column is not None:
        if id_column in columns:
            raise DataError(f"prepare_data.id_column is {id_column!r}, which is learnt from.")
        schema = SCHEMA.add_columns({id_column: pa.Column(nullable=False)})
    failures = Failures()
    counts = np.zeros(len(CLASSES), dtype=int)
    with TemporaryDirectory(prefix=".hashes-", dir=scratch) as folder:
        duplicates = Duplicates(Path(folder))
        for frame in frames:
            failures.check(frame, schema)
            if failures.n:
                continue
            # -0.0 and 0.0 are the same value, and become the same bytes.
            duplicates.add(frame[columns] + 0.0)
            counts += np.bincount(frame[TARGET], minlength=len(counts))
            yield frame[list(schema.columns)]
        failures.refuse()
        n_duplicated, first = duplicates.count()
    n = counts.sum()
    if (counts == 0).any():
        found = ", ".join(map(str, np.flatnonzero(counts))) or "empty"
        raise DataError(
            f"Raw data: column {TARGET!r} is {found} in all {n} rows: both 0 ({CLASSES[0]}) and 1 "
            f"({CLASSES[1]}) must occur."
        )
    if n_duplicated > max_duplicated * n:
        raise DataError(
            f"Raw data: {n_duplicated} of {n} rows repeat an earlier one, the first in row {first}:"
            f" at most {max_duplicated:.1%} may (prepare_data.max_duplicated)."
        )


class Failures:
    """The errors in the frames so far: their number, and lines for the first MAX_LINES."""

    MAX_LINES = 10

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.n = 0

    def check(self, frame: pd.DataFrame, schema: pa.DataFrameSchema) -> None:
        """Add the errors of a frame; DataError at once if any is not only of a value."""
        try:
            schema.validate(frame, lazy=True, inplace=True)  # nothing is coerced: no copy
        except pa.errors.SchemaErrors as errors:
            failures = errors.failure_cases
            # In a column of a wrong type, the values fail as well.
            typed = failures[failures.check.astype(str).str.startswith("dtype")].column
            told = failures.column.isin(typed) & ~failures.index.isin(typed.index)
            failures = failures[~told]
            shown = failures.head(self.MAX_LINES - len(self.lines))
            self.lines += [describe(failure, frame) for failure in shown.itertuples()]
            self.n += len(failures)
            if failures["index"].isna().any():
                self.refuse()

    def refuse(self) -> None:
        """DataError, if there are errors."""
        if self.n > len(self.lines):
            self.lines.append(f"and {self.n - len(self.lines)} more.")
        if self.lines:
            raise DataError("\n".join(self.lines))


def describe(failure: Any, frame: pd.DataFrame) -> str:
    """A line for one of pandera's failure cases, a row of its table."""
    column, value, check = failure.column, failure.failure_case, str(failure.check)
    if check == "column_in_dataframe":
        return f"Raw data: column {value!r} is missing."
    if check == "column_in_schema":
        return f"Raw data: column {value!r} is not known: remove it, or add it to SCHEMA."
    if check.startswith("dtype"):
        found, wanted = frame[column].dtype, SCHEMA.columns[column].dtype
        return f"Raw data: column {column!r} has type {found}: it must be {wanted}."
    if column not in SCHEMA.columns:
        return f"Raw data: column {column!r}, row {failure.index}: the id is missing."
    low, high = FEATURES.get(column, (0, 1))
    allowed = "0 or 1" if column == TARGET else f"a number from {low:g} to {high:g}"
    return f"Raw data: column {column!r}, row {failure.index}: {value} is not {allowed}."


def prepare_cancer_data(
    frames: Iterable[pd.DataFrame], folder: Path, shares: Shares, id_column: str | None = None
) -> Prepared:
    """Write the splits' arrays to a folder, and return the scaler and the splits' sizes.

    Args:
        frames: from `valid_frames`.
        folder: gets the six arrays and their names.
        shares: how the rows are split.
        id_column: the column to split by, if by hash.

    Raises:
        DataError: a class has too few rows to be in every split.
    """
    counts = np.zeros(len(CLASSES), dtype=int)

    def chunks() -> Iterator[Chunk]:
        for frame in frames:
            y = frame[TARGET].to_numpy()
            counts[:] += np.bincount(y, minlength=len(counts))
            ids = None if id_column is None else frame[id_column]
            yield Chunk(frame[list(FEATURES)].to_numpy(), y, ids)

    try:
        return write_splits(chunks(), folder, shares, tuple(FEATURES), CLASSES)
    except SplitError as error:
        rows = " and ".join(f"{n} {name}" for n, name in zip(counts, CLASSES, strict=True))
        raise DataError(
            f"Raw data: {rows} rows cannot be split (prepare_data.test_size is {shares.test_size}, "
            f"validation_size {shares.validation_size}): {error}"
        ) from None


def describe_splits(prepared: Prepared) -> dict[str, dict[str, float]]:
    """The number of rows in each split, and the share of malignant ones."""
    counts = dict(zip(("train", "validation", "test"), prepared.counts, strict=True))
    return {
        "rows": {name: int(of.sum()) for name, of in counts.items()},
        "malignant_share": {name: float(of[1] / of.sum()) for name, of in counts.items()},
    }
