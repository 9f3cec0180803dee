"""The training, validation and test splits, in memory and as `.npy` files.

The process that splits the data writes them; trainings and notebooks read them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lib.errors import UserError
from lib.files import read_json, write_json

ARRAYS = ("X_train", "X_val", "X_test", "y_train", "y_val", "y_test")


@dataclass(frozen=True)
class Splits:
    """Features and targets of three disjoint sets of rows.

    X_*: (n, d) float32, standardised. y_*: (n,) int64 classes, as indices of `class_names` (of two,
    1 is the positive one); or floats to predict, without class names. Iterating gives the six
    arrays in the order of `ARRAYS`.
    """

    X_train: NDArray[np.float32]
    X_val: NDArray[np.float32]
    X_test: NDArray[np.float32]
    y_train: NDArray[Any]
    y_val: NDArray[Any]
    y_test: NDArray[Any]
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, name) for name in ARRAYS)


def save_data_splits(splits: Splits, dir_processed: Path | str) -> None:
    """Write one `.npy` for each array, and `names.json`.

    Raises:
        UserError: an array holds text or other values that are not numbers.
    """
    for name, array in zip(ARRAYS, splits, strict=True):
        if np.asarray(array).dtype.kind not in "biuf":
            raise UserError(
                f"{name} holds {np.asarray(array).dtype}, not numbers: of classes with names, save "
                "their codes (lib.metrics.class_codes) and give the names as class_names."
            )
        np.save(Path(dir_processed) / f"{name}.npy", array)
    save_names(dir_processed, splits.feature_names, splits.class_names)


def save_names(
    dir_processed: Path | str, features: Sequence[str], classes: Sequence[str] = ()
) -> None:
    """Write `names.json`, with the names of X's columns and of the classes."""
    names = {"features": list(features), "classes": list(classes)}
    write_json(Path(dir_processed) / "names.json", names)


def load_data_splits(
    dir_processed: Path | str, as_type: Literal["array", "tensor"] = "array"
) -> Splits:
    """The splits in a directory, memory-mapped: they take no memory until they are read.

    Args:
        dir_processed: the directory that `save_data_splits` wrote to.
        as_type: "array" for numpy arrays, "tensor" for torch tensors (copies, in memory).

    Raises:
        UserError: a file is missing.
    """
    folder = Path(dir_processed)
    if as_type not in ("array", "tensor"):
        raise ValueError(f"as_type is {as_type!r}: it must be 'array' or 'tensor'.")
    try:
        names = read_json(folder / "names.json")
        arrays: list[Any] = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS]
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} is not there: `make run`, or `dvc pull {folder}`."
        ) from None
    if as_type == "tensor":
        import torch

        arrays = [torch.tensor(array) for array in arrays]
    named = dict(zip(ARRAYS, arrays, strict=True))
    return Splits(
        **named, feature_names=tuple(names["features"]), class_names=tuple(names["classes"])
    )
