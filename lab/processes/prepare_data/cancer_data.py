"""The breast cancer data: what is asked of the raw frame, and how it becomes splits.

Breast Cancer Wisconsin (Diagnostic), 569 biopsies, 30 features: ten measures of the cell nuclei in
an image, each as mean, standard error and worst value. Source: Street, Wolberg, Mangasarian,
"Nuclear feature extraction for breast tumor diagnosis", 1993; a copy comes with scikit-learn.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from lib.errors import UserError
from lib.splits import Splits

logger = logging.getLogger(__name__)

TARGET = "malignant"
CLASSES = ("benign", "malignant")

# What a measure can be at all, whatever the patient: lengths in micrometres, areas in their
# square, the rest shares and ratios.
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
    """The raw frame is not what it must be."""


def load_cancer_data() -> pd.DataFrame:
    """The raw frame: (569, 31), the features as float64 and `malignant` as int64."""
    bunch = load_breast_cancer(as_frame=True)
    # scikit-learn has 0 for malignant; here the class that one looks for is 1.
    return bunch.data.assign(**{TARGET: (bunch.target == 0).astype("int64")})


def validate_cancer_data(frame: pd.DataFrame, max_duplicated: float) -> pd.DataFrame:
    """The frame with its columns in the schema's order, if it is fit to be learnt from.

    Args:
        frame: raw data, one row a biopsy.
        max_duplicated: share of rows that may repeat an earlier row.

    Raises:
        DataError: a column is missing, extra or of the wrong type; a value is missing, infinite or
            impossible; only one class occurs; too many rows are duplicated.
    """
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise DataError(f"Raw data: column {twice[0]!r} occurs more than once.")
    try:
        SCHEMA.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        raise DataError(describe(errors.failure_cases, frame)) from None
    classes = frame[TARGET].unique()
    if len(classes) < 2:
        raise DataError(
            f"Raw data: column {TARGET!r} is {', '.join(map(str, classes)) or 'empty'} in all "
            f"{len(frame)} rows: both 0 ({CLASSES[0]}) and 1 ({CLASSES[1]}) must occur."
        )
    duplicated = frame.index[frame.duplicated()]
    if len(duplicated) > max_duplicated * len(frame):
        raise DataError(
            f"Raw data: {len(duplicated)} of {len(frame)} rows repeat an earlier one, the first in "
            f"row {duplicated[0]}: at most {max_duplicated:.1%} may (prepare_data.max_duplicated)."
        )
    return frame[[*FEATURES, TARGET]]


def describe(failures: pd.DataFrame, frame: pd.DataFrame, most: int = 10) -> str:
    """One line for each of pandera's failures, up to `most`: column, row, value, what may be."""
    # Of a column of another type, its values fail as well, for that reason.
    typed = failures[failures.check.astype(str).str.startswith("dtype")].column
    told = failures.column.isin(typed) & ~failures.index.isin(typed.index)
    failures = failures[~told]
    lines = [describe_one(failure, frame) for failure in failures.head(most).itertuples()]
    if len(failures) > most:
        lines.append(f"and {len(failures) - most} more.")
    return "\n".join(lines)


def describe_one(failure: Any, frame: pd.DataFrame) -> str:
    """One of pandera's failure cases (a row of its table) in a line."""
    column, value, check = failure.column, failure.failure_case, str(failure.check)
    if check == "column_in_dataframe":
        return f"Raw data: column {value!r} is missing."
    if check == "column_in_schema":
        return f"Raw data: column {value!r} is not known: remove it, or add it to SCHEMA."
    if check.startswith("dtype"):
        found, wanted = frame[column].dtype, SCHEMA.columns[column].dtype
        return f"Raw data: column {column!r} has type {found}: it must be {wanted}."
    low, high = FEATURES.get(column, (0, 1))
    allowed = "0 or 1" if column == TARGET else f"a number from {low:g} to {high:g}"
    return f"Raw data: column {column!r}, row {failure.index}: {value} is not {allowed}."


def prepare_cancer_data(
    frame: pd.DataFrame, *, test_size: float, validation_size: float, random_seed: int
) -> tuple[Splits, StandardScaler]:
    """The standardised splits of a valid frame, and the scaler fitted on the training split only.

    Args:
        frame: what `validate_cancer_data` returned.
        test_size: share of all rows.
        validation_size: share of the rows that are left.
        random_seed: of both splits, which are stratified.

    Raises:
        DataError: a class has too few rows to be in every split.
    """
    X = frame[list(FEATURES)].to_numpy()
    y = frame[TARGET].to_numpy()
    shares = f"prepare_data.test_size is {test_size}, validation_size {validation_size}"
    try:
        X_rest, X_test, y_rest, y_test = train_test_split(
            X, y, test_size=test_size, stratify=y, random_state=random_seed
        )
        X_train, X_val, y_train, y_val = train_test_split(
            X_rest, y_rest, test_size=validation_size, stratify=y_rest, random_state=random_seed
        )
        refuse_missing_classes({"training": y_train, "validation": y_val, "test": y_test})
    except ValueError as error:
        counts = " and ".join(f"{np.sum(y == n)} {name}" for n, name in enumerate(CLASSES))
        raise DataError(f"Raw data: {counts} rows cannot be split ({shares}): {error}") from None
    scaler = StandardScaler().fit(X_train)
    X_train, X_val, X_test = (
        scaler.transform(rows).astype(np.float32) for rows in (X_train, X_val, X_test)
    )
    splits = Splits(X_train, X_val, X_test, y_train, y_val, y_test, tuple(FEATURES), CLASSES)
    return splits, scaler


def refuse_missing_classes(labels: Mapping[str, NDArray[np.int64]]) -> None:
    """ValueError where a split has no row of a class: nothing could be learnt or measured there."""
    for split, y in labels.items():
        for number, name in enumerate(CLASSES):
            if number not in y:
                raise ValueError(f"the {split} split would have no {name} row.")


def describe_splits(splits: Splits) -> dict[str, dict[str, float]]:
    """Rows and share of malignant ones in each split."""
    labels = {"train": splits.y_train, "validation": splits.y_val, "test": splits.y_test}
    return {
        "rows": {name: len(y) for name, y in labels.items()},
        "malignant_share": {name: float(np.mean(y)) for name, y in labels.items()},
    }
