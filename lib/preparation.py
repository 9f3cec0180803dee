"""Splits and standardises raw rows, and writes them as the six arrays of `lib/splits.py`.

Called by processes that prepare data of any size. Rows pass through temporary files beside the
arrays; memory holds some chunks of them, and about 15 bytes per row to draw splits. Two ways:

- drawn: the sizes are exact, and each split has the same share of each class. The rows are those
  of scikit-learn's `train_test_split`, in its order. With one row more, all are drawn again.
- hashed: only a row's id and the seed decide. A row stays in its split when rows are added, removed
  or reordered, and rows with the same id are in the same split. The sizes are met on average.
"""

import itertools
import logging
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn.preprocessing import StandardScaler

# Divides classes in scikit-learn's stratified splits; there is no public function for it.
from sklearn.utils.extmath import _approximate_mode

from lib.chunks import CHUNK_ROWS, Buckets, ahead
from lib.errors import UserError
from lib.splits import save_names

logger = logging.getLogger(__name__)

NAMES = ("train", "val", "test")  # as in the names of the arrays
MAX_BLOCKS = 256

Numbers = NDArray[np.float64]
RowNumbers = NDArray[np.unsignedinteger]


class SplitError(UserError):
    """The rows cannot be split: a split would lack rows, or X, y and ids do not fit together."""


@dataclass(frozen=True)
class Chunk:
    """Some rows: X (n, d) features, y (n,) classes from 0 or numbers, ids (n,) if there are any."""

    X: Numbers
    y: NDArray[np.int64] | Numbers
    ids: pd.Series | None = None


@dataclass(frozen=True)
class Shares:
    """How rows are split: test_size is a share of all rows, validation_size of the remaining."""

    test_size: float
    validation_size: float
    random_seed: int
    hashed: bool = False


@dataclass(frozen=True)
class Prepared:
    """The scaler, fitted on the training split only, and the number of rows by split and class."""

    scaler: StandardScaler
    counts: NDArray[np.int64]  # (3, k): training, validation, test; k is 1 if y is numbers


@dataclass(frozen=True)
class _Ordered:
    """Rows on disk: their number by split and class, and a function to read a split in order."""

    counts: NDArray[np.int64]
    read: Callable[[int], Iterator[Numbers]]  # (CHUNK_ROWS, d + 1), X and y; the last is shorter


def write_splits(
    chunks: Iterable[Chunk],
    folder: Path,
    shares: Shares,
    feature_names: Sequence[str],
    class_names: Sequence[str] = (),
) -> Prepared:
    """Write the six arrays, X as standardised float32, and `names.json` to a folder.

    The bytes depend on the rows, their order and `shares`, not on the division into chunks: the
    scaler is fitted on the training split in its final order, CHUNK_ROWS at a time.

    Args:
        chunks: the rows; with `ids` if they are split by hash.
        folder: where to write, and to keep up to 8 bytes per value meanwhile.
        shares: how to split.
        feature_names: of the d columns of X.
        class_names: of the classes in y; empty if y is numbers, which are not stratified.

    Raises:
        SplitError: a split would have no row, or none of a class; X does not have a column for each
            name, or y or ids a value for each row; y has a class without a name.
        UserError: a value of X is not a number or beyond float32, raw or standardised, or one of y
            is not a number, infinite or missing.
    """
    with tempfile.TemporaryDirectory(prefix=".rows-", dir=folder) as scratch:
        order = _hashed if shares.hashed else _drawn
        width, n_classes = len(feature_names) + 1, len(class_names)
        records = _with_records(chunks, feature_names, n_classes)
        ordered = order(records, Path(scratch), shares, width, n_classes)
        _refuse_missing(ordered.counts, class_names)
        scaler = _fitted_scaler(ordered.read(0), width - 1)
        for name, mean in zip(feature_names, scaler.mean_, strict=True):
            if np.isnan(mean):
                logger.warning("%s has no value in training: nothing can be learned from it", name)
        for split, name in enumerate(NAMES):
            n = int(ordered.counts[split].sum())
            with (
                _npy(folder / f"X_{name}.npy", np.float32, (n, width - 1)) as X,
                _npy(folder / f"y_{name}.npy", np.int64 if n_classes else np.float64, (n,)) as y,
            ):
                for rows in ahead(ordered.read(split)):
                    features = scaler.transform(rows[:, :-1], copy=False)  # rows may be changed
                    X.write(_as_float32(features, feature_names, name).data)
                    y.write(rows[:, -1].astype(np.int64 if n_classes else np.float64).data)
    save_names(folder, feature_names, class_names)
    return Prepared(scaler, ordered.counts)


def _fitted_scaler(chunks: Iterator[Numbers], n_features: int) -> StandardScaler:
    """A scaler fitted on X of the chunks; the mean of a column without a value is NaN."""
    scaler = StandardScaler()
    mean, var, scale = np.zeros(n_features), np.zeros(n_features), np.ones(n_features)
    for rows in ahead(chunks):
        with np.errstate(invalid="ignore"):  # 0 / 0 for a column without a value in this chunk
            scaler.partial_fit(rows[:, :-1])
        # Of such a column, scikit-learn would keep NaN, whatever later chunks have.
        absent = np.isnan(rows[:, :-1]).all(axis=0)
        for learned, before in ((scaler.mean_, mean), (scaler.var_, var), (scaler.scale_, scale)):
            learned[absent] = before[absent]
        mean, var, scale = scaler.mean_, scaler.var_, scaler.scale_
    scaler.mean_[np.broadcast_to(scaler.n_samples_seen_, n_features) == 0] = np.nan
    return scaler


@contextmanager
def _npy(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """An open file with the header of np.save, to write the array's rows to."""
    # Not a memory map: its dirty pages count as memory of the process.
    with path.open("wb") as file:
        descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield file


def _as_float32(features: Numbers, names: Sequence[str], split: str) -> NDArray[np.float32]:
    """Standardised features as float32; UserError if one is beyond its range."""
    try:
        with np.errstate(over="raise"):
            return features.astype(np.float32)
    except FloatingPointError:
        row, column = np.argwhere(np.abs(features) > np.finfo(np.float32).max)[0]
    raise UserError(
        f"Column {names[column]!r} holds {features[row, column]:g} in X_{split}, standardised by "
        "the training split: float32 holds numbers up to 3.4e38. Leave the row out, or give it a "
        "value that is nearer to the others."
    )


def _refuse_missing(counts: NDArray[np.int64], class_names: Sequence[str]) -> None:
    """SplitError if a split has no rows, or none of a class."""
    for split, of_split in zip(("training", "validation", "test"), counts, strict=True):
        for number, n in enumerate(of_split):
            if n == 0:
                what = f"{class_names[number]} row" if len(class_names) else "row"
                raise SplitError(f"the {split} split would have no {what}.")


def _with_records(
    chunks: Iterable[Chunk], feature_names: Sequence[str], n_classes: int
) -> Iterator[tuple[Chunk, Numbers]]:
    """Each chunk with its rows as they are kept on disk: (n, d + 1), X and y."""
    start = 0
    for chunk in chunks:
        _refuse_other_shapes(chunk, len(feature_names))
        # Not np.column_stack: it keeps a frame's order by columns, which is slow to write.
        records = np.empty((len(chunk.X), len(feature_names) + 1))
        try:
            records[:, :-1], records[:, -1] = _with_nan(chunk.X), _with_nan(chunk.y)
        except (TypeError, ValueError):  # float() raises them for text, dates and the like
            _refuse_no_numbers(chunk, feature_names, start)
            raise
        _refuse_unusable(records, (*feature_names, "y"), start)
        if n_classes:
            _refuse_unknown_classes(records[:, -1], n_classes, start)
        yield chunk, records
        start += len(records)


def _with_nan(values: ArrayLike) -> NDArray[Any]:
    """The values, with NaN for `pd.NA`, which pandas's nullable types leave in mixed frames."""
    array = np.asarray(values)
    if array.dtype.kind in "mM":  # numpy would convert dates, even missing ones, to numbers
        array = array.astype(f"{array.dtype.kind}8[us]").astype(object)
    return np.where(pd.isna(array), np.nan, array) if array.dtype == object else array


def _refuse_no_numbers(chunk: Chunk, names: Sequence[str], start: int) -> None:
    """UserError for the first value that cannot be converted to a number."""
    columns = zip((*names, "y"), (*np.asarray(chunk.X).T, np.asarray(chunk.y)), strict=True)
    for name, values in columns:
        for row, value in enumerate(_with_nan(values), start):
            try:
                float(value)
            except (TypeError, ValueError):
                raise UserError(
                    f"Column {name!r} holds {value!s:.60} in row {row} (the first is 0): numbers "
                    "are expected. Leave the column out, or make numbers of it."
                ) from None


def _refuse_unusable(records: Numbers, names: Sequence[str], start: int) -> None:
    """UserError for a feature beyond float32 or y not finite; `start` is the first row's number."""
    with np.errstate(over="ignore", invalid="ignore"):
        # Much faster than to check each value: too large ones make the sum infinite.
        sums = records[:, :-1].sum(dtype=np.float32), records[:, -1].sum()
    if np.isfinite(sums).all():
        return
    wrong = np.abs(records) > np.finfo(np.float32).max
    wrong[:, -1] = ~np.isfinite(records[:, -1])
    if not wrong.any():
        return
    row, column = np.argwhere(wrong)[0]
    raise UserError(
        f"Column {names[column]!r} holds {records[row, column]:g} in row {start + row} (the first "
        "is 0): numbers are expected, features up to 3.4e38, which is what float32 holds. Leave "
        "the row out, or give it a value."
    )


def _refuse_unknown_classes(y: Numbers, n_classes: int, start: int) -> None:
    unknown = (y < 0) | (y >= n_classes) | (y % 1 != 0)
    if unknown.any():
        row = int(unknown.argmax())
        raise SplitError(
            f"y holds {y[row]:g} in row {start + row} (the first is 0): classes are whole numbers "
            f"from 0 to {n_classes - 1}."
        )


def _refuse_other_shapes(chunk: Chunk, n_names: int) -> None:
    n, n_columns = chunk.X.shape
    if n_columns != n_names:
        raise SplitError(
            f"X has {n_columns} columns and feature_names {n_names}: give each a name."
        )
    for what, values in (("y", chunk.y), ("ids", chunk.ids)):
        if values is not None and values.shape != (n,):
            raise SplitError(f"X has {n} rows and {what} the shape {values.shape}: give each one.")


# ---- by hash


def _hashed(
    chunks: Iterable[tuple[Chunk, Numbers]],
    scratch: Path,
    shares: Shares,
    width: int,
    n_classes: int,
) -> _Ordered:
    """Rows split by hash: each is written to its split's file at once."""
    buckets = Buckets(scratch / "by split", np.float64, width)
    kinds = max(n_classes, 1)
    counts = np.zeros((len(NAMES), kinds), dtype=np.int64)
    for chunk, records in chunks:
        if chunk.ids is None:
            raise SplitError("rows are shared out by a hash of their ids, and there are none.")
        splits = hashed_splits(chunk.ids, shares)
        cells = splits * kinds + (chunk.y.astype(np.intp) if n_classes else 0)
        counts += np.bincount(cells, minlength=counts.size).reshape(counts.shape)
        buckets.append(splits, records)
    return _Ordered(counts, lambda split: buckets.read(split, CHUNK_ROWS))


def hashed_splits(ids: pd.Series, shares: Shares) -> NDArray[np.intp]:
    """(n,) 0 for training, 1 for validation, 2 for test, by SipHash-2-4 of each id and the seed.

    Numbers are hashed as text: 7 in Parquet and "7" in CSV are the same id.

    Raises:
        SplitError: an id is missing, or neither text nor a whole number.
    """
    if (missing := ids.isna().to_numpy()).any():
        row = ids.index[missing.argmax()]
        raise SplitError(f"column {ids.name!r} has no id in row {row} (the first is 0).")
    categorical = isinstance(ids.dtype, pd.CategoricalDtype)
    kind = pd.api.types.infer_dtype(ids.cat.categories if categorical else ids)
    if kind not in ("string", "integer", "empty"):
        raise SplitError(
            f"column {ids.name!r} holds {kind} values ({ids.dtype}): an id to share rows out by is "
            "text or a whole number."
        )
    texts = ids.astype(str).to_numpy(dtype=object)
    key = f"{shares.random_seed:016d}"
    place = pd.util.hash_array(texts, hash_key=key, categorize=False) / 2.0**64
    splits = np.zeros(len(place), dtype=np.intp)
    splits[place < shares.test_size + (1 - shares.test_size) * shares.validation_size] = 1
    splits[place < shares.test_size] = 2
    return splits


# ---- by draw


def _drawn(
    chunks: Iterable[tuple[Chunk, Numbers]],
    scratch: Path,
    shares: Shares,
    width: int,
    n_classes: int,
) -> _Ordered:
    """Rows split by drawing: kept as they come, drawn by class, then sorted into ordered blocks."""
    as_read = Buckets(scratch / "as read", np.float64, width)
    kind = np.min_scalar_type(max(n_classes - 1, 0))
    parts = []
    start = 0
    for chunk, records in chunks:
        parts.append(chunk.y.astype(kind) if n_classes else np.zeros(len(chunk.y), dtype=kind))
        as_read.append(np.full(len(chunk.y), start // CHUNK_ROWS), records)
        start += len(chunk.y)
    codes = np.concatenate(parts) if parts else np.zeros(0, dtype=kind)
    orders = drawn_rows(codes, shares, stratified=n_classes > 0)
    counts = [np.bincount(codes[order], minlength=max(n_classes, 1)) for order in orders]

    # A block is sorted in memory: one chunk, or several for more than 16 million rows.
    block_rows = CHUNK_ROWS * math.ceil(len(codes) / CHUNK_ROWS / MAX_BLOCKS)
    blocks = [
        [order[start : start + block_rows] for start in range(0, len(order), block_rows)]
        for order in orders
    ]
    first = np.cumsum([0, *map(len, blocks)])  # the number of each split's first block
    block_of = np.empty(len(codes), dtype=np.uint16)
    for number, rows in enumerate(itertools.chain(*blocks)):
        block_of[rows] = number
    by_block = Buckets(scratch / "by block", np.float64, width)
    start = 0
    for rows in ahead(as_read.take(CHUNK_ROWS)):
        by_block.append(block_of[start : start + len(rows)], rows)
        start += len(rows)

    def read(split: int) -> Iterator[Numbers]:
        for number, numbers in enumerate(blocks[split], first[split]):
            # A block's rows are in the order of their numbers, so each one's rank is its place.
            places = np.empty(len(numbers), dtype=np.intp)
            places[np.argsort(numbers)] = np.arange(len(numbers))
            for rows in by_block.read(number):
                for begin in range(0, len(places), CHUNK_ROWS):
                    yield rows.take(places[begin : begin + CHUNK_ROWS], axis=0)

    return _Ordered(np.array(counts), read)


def drawn_rows(
    codes: NDArray[np.unsignedinteger], shares: Shares, *, stratified: bool
) -> tuple[RowNumbers, RowNumbers, RowNumbers]:
    """The row numbers of the training, validation and test split, in order.

    They are those of two calls of `train_test_split` with the seed, which takes 80 bytes per row;
    this takes about 15, as it keeps row numbers in the smallest type.

    Args:
        codes: (n,) the class of each row, from 0.
        shares: the sizes and the seed.
        stratified: whether each split has the same share of each class.

    Raises:
        SplitError: there would be no row for training.
    """
    rest, test = _draw(codes, shares.test_size, shares.random_seed, stratified)
    train, validation = _draw(codes[rest], shares.validation_size, shares.random_seed, stratified)
    return rest[train], rest[validation], test


def _draw(
    codes: NDArray[np.unsignedinteger], size: float, seed: int, stratified: bool
) -> tuple[RowNumbers, RowNumbers]:
    n_chosen = math.ceil(size * len(codes))
    n_left = len(codes) - n_chosen
    if n_left < 1:
        raise SplitError("the training split would have no row.")
    random = np.random.RandomState(seed)  # as scikit-learn
    kind = np.min_scalar_type(len(codes))
    if not stratified:
        rows = np.arange(len(codes), dtype=kind)
        random.shuffle(rows)
        return rows[n_chosen:], rows[:n_chosen]
    counts = np.bincount(codes)
    left = _approximate_mode(counts, n_left, random)
    chosen = _approximate_mode(counts - left, n_chosen, random)
    all_left, all_chosen = np.empty(n_left, dtype=kind), np.empty(n_chosen, dtype=kind)
    for code, (n, m) in enumerate(zip(left, chosen, strict=True)):
        rows = np.flatnonzero(codes == code).astype(kind)
        random.shuffle(rows)
        before, already = left[:code].sum(), chosen[:code].sum()
        all_left[before : before + n] = rows[:n]
        all_chosen[already : already + m] = rows[n : n + m]
    random.shuffle(all_left)
    random.shuffle(all_chosen)
    return all_left, all_chosen
