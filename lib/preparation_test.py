"""Rows are split as specified, and the arrays do not depend on the division into chunks."""

import re
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from lib import preparation
from lib.errors import UserError
from lib.preparation import Chunk, Shares, SplitError, drawn_rows, hashed_splits, write_splits
from lib.splits import load_data_splits

pytestmark = pytest.mark.unittest

DRAWN = Shares(0.15, 0.2, random_seed=42)
HASHED = Shares(0.15, 0.2, random_seed=42, hashed=True)
RNG = np.random.default_rng(0)
N = 2000
X = RNG.normal(5, 3, (N, 4))
Y = RNG.integers(0, 3, N)
IDS = pd.Series(np.arange(N), name="patient")
FEATURES, CLASSES = ("a", "b", "c", "d"), ("no", "maybe", "yes")


def chunks(size, order=None, y=Y):
    order = np.arange(N) if order is None else order
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        yield Chunk(X[rows], y[rows], IDS[rows])


def written(folder, shares, size=N, classes=CLASSES, **which):
    folder.mkdir()
    prepared = write_splits(chunks(size, **which), folder, shares, FEATURES, classes)
    return prepared, load_data_splits(folder)


def by_scikit_learn(y, shares, stratified=True):
    """The row numbers that two calls of `train_test_split` draw."""
    seed, rows = shares.random_seed, np.arange(len(y))
    labels = (lambda rows: y[rows]) if stratified else lambda _: None
    rest, test = train_test_split(
        rows, test_size=shares.test_size, stratify=labels(rows), random_state=seed
    )
    train, validation = train_test_split(
        rest, test_size=shares.validation_size, stratify=labels(rest), random_state=seed
    )
    return train, validation, test


@pytest.mark.parametrize("shares", [DRAWN, HASHED])
def test_a_query_is_read_by_the_thread_that_opened_it(shares, tmp_path):
    frame = pd.DataFrame(X, columns=FEATURES).assign(y=Y, patient=IDS)
    with closing(sqlite3.connect(":memory:")) as connection:  # it refuses other threads
        frame.to_sql("rows", connection, index=False)
        rows = pd.read_sql("SELECT * FROM rows", connection, chunksize=300)
        parts = (Chunk(part[list(FEATURES)].to_numpy(), part.y, part.patient) for part in rows)
        prepared = write_splits(parts, tmp_path, shares, FEATURES, CLASSES)
    assert prepared.counts.sum() == N


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize(("n", "n_classes"), [(37, 2), (569, 2), (1000, 7), (70_000, 3)])
def test_the_rows_drawn_are_those_of_scikit_learn_in_its_order(n, n_classes, stratified, seed):
    rng = np.random.default_rng(seed)
    y = np.minimum(rng.geometric(0.4, n), n_classes).astype(np.uint8) - 1
    y[: n_classes * 6] = np.tile(np.arange(n_classes), 6)  # enough of each
    shares = Shares(0.1 + seed / 20, 0.25, random_seed=seed)
    drawn = drawn_rows(y, shares, stratified=stratified)
    expected = by_scikit_learn(y, shares, stratified)
    for ours, theirs in zip(drawn, expected, strict=True):
        assert np.array_equal(ours, theirs)


def test_the_arrays_equal_those_of_a_plain_script_to_the_byte(tmp_path):
    prepared, splits = written(tmp_path / "out", DRAWN, size=700)
    train, validation, test = by_scikit_learn(Y, DRAWN)
    scaler = StandardScaler().fit(X[train])
    assert np.array_equal(prepared.scaler.mean_, scaler.mean_)
    assert np.array_equal(prepared.scaler.var_, scaler.var_)
    for name, rows in (("train", train), ("val", validation), ("test", test)):
        np.save(tmp_path / "X.npy", scaler.transform(X[rows]).astype(np.float32))
        np.save(tmp_path / "y.npy", Y[rows])
        for kind in "Xy":
            plain = (tmp_path / f"{kind}.npy").read_bytes()
            assert (tmp_path / "out" / f"{kind}_{name}.npy").read_bytes() == plain
    assert splits.class_names == CLASSES
    assert np.array_equal(prepared.counts[0], np.bincount(Y[train]))


@pytest.mark.parametrize("shares", [DRAWN, HASHED], ids=["drawn", "hashed"])
@pytest.mark.parametrize("at_once", [64, 2**16], ids=["many blocks", "one block"])
def test_the_bytes_do_not_depend_on_the_chunks(tmp_path, monkeypatch, shares, at_once):
    monkeypatch.setattr(preparation, "CHUNK_ROWS", at_once)
    sizes = (N, 77, 333)
    for size in sizes:
        written(tmp_path / str(size), shares, size)
    names = sorted(file.name for file in (tmp_path / "77").iterdir())
    assert len(names) == 7, "temporary files are gone"
    for name in names:
        contents = {(tmp_path / str(size) / name).read_bytes() for size in sizes}
        assert len(contents) == 1, name


@pytest.mark.parametrize("shares", [DRAWN, HASHED], ids=["drawn", "hashed"])
def test_many_blocks_have_the_rows_of_one(tmp_path, monkeypatch, shares):
    monkeypatch.setattr(preparation, "MAX_BLOCKS", 8)
    one, splits = written(tmp_path / "one", shares)
    monkeypatch.setattr(preparation, "CHUNK_ROWS", 50)
    many, others = written(tmp_path / "many", shares)
    assert many.scaler.n_samples_seen_ == len(splits.X_train)
    np.testing.assert_allclose(many.scaler.var_, one.scaler.var_, rtol=1e-12)
    for ours, theirs in zip(splits, others, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_numbers_to_predict_are_drawn_without_classes(tmp_path):
    prices = Y * 1000.5
    prepared, splits = written(tmp_path / "out", DRAWN, classes=(), y=prices)
    train, *_ = by_scikit_learn(prices, DRAWN, stratified=False)
    assert np.array_equal(splits.y_train, prices[train])
    assert prepared.counts.tolist() == [[1360], [340], [300]]


# ---- by hash


def test_a_row_keeps_its_split_if_data_grow_or_are_reordered():
    before = hashed_splits(IDS, HASHED)
    more = pd.Series(np.random.default_rng(1).permutation(10 * N), name="patient")
    after = pd.Series(hashed_splits(more, HASHED), index=more)
    assert np.array_equal(after[IDS], before)


def test_reordered_data_keep_hashed_rows_in_their_splits(tmp_path):
    order = np.random.default_rng(1).permutation(N)
    _, splits = written(tmp_path / "a", HASHED)
    _, others = written(tmp_path / "b", HASHED, order=order)
    rows = hashed_splits(IDS, HASHED)
    assert np.array_equal(splits.y_val, Y[rows == 1])
    assert np.array_equal(others.y_val, Y[order][rows[order] == 1]), "in the order of the data"


def test_hashed_splits_have_the_right_size_on_average_and_use_the_seed():
    ids = pd.Series(np.arange(100_000))
    splits = hashed_splits(ids, HASHED)
    found = np.bincount(splits) / len(ids)
    assert found == pytest.approx([0.68, 0.17, 0.15], abs=0.005)
    other = hashed_splits(ids, Shares(0.15, 0.2, random_seed=43, hashed=True))
    assert np.mean(splits == other) == pytest.approx(0.68**2 + 0.17**2 + 0.15**2, abs=0.01)


def test_an_id_of_a_categorical_column_is_the_same_id():
    texts = IDS.map("patient {}".format)
    for ids in (texts, IDS):
        found = hashed_splits(ids.astype("category"), HASHED)
        assert np.array_equal(found, hashed_splits(ids, HASHED))


def test_text_and_numbers_with_the_same_digits_are_the_same_id():
    assert np.array_equal(hashed_splits(IDS, HASHED), hashed_splits(IDS.astype(str), HASHED))


def test_the_hash_is_the_same_in_every_version():
    """Otherwise rows would change their split with another version of pandas."""
    found = hashed_splits(pd.Series(["a", "b", "patient-17", "ü", *map(str, range(12))]), HASHED)
    assert "".join(map(str, found)) == "1000200000000001"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (None, "there are none"),
        (IDS.where(IDS.index > 0), r"'patient' has no id in row 0 \(the first is 0\)"),
        (
            IDS.astype(object).where(IDS.index > 0, 0.5),
            r"'patient' holds mixed.* values \(object\): an id",
        ),
        (IDS + 0.5, r"'patient' holds floating values \(float64\): an id .* is text or a whole"),
    ],
)
def test_invalid_ids_are_reported(tmp_path, ids, message):
    with pytest.raises(SplitError, match=message):
        write_splits([Chunk(X, Y, ids)], tmp_path, HASHED, FEATURES, CLASSES)


@pytest.mark.parametrize("shares", [DRAWN, HASHED], ids=["drawn", "hashed"])
def test_a_split_without_a_class_is_refused(tmp_path, shares):
    y = np.where(np.arange(N) == 7, 2, Y % 2)
    with pytest.raises(SplitError, match="split would have no yes row"):
        write_splits([Chunk(X, y, IDS)], tmp_path, shares, FEATURES, CLASSES)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_are_an_error(tmp_path, n):
    with pytest.raises(SplitError, match="would have no"):
        write_splits([Chunk(X[:n], Y[:n])], tmp_path, DRAWN, FEATURES, CLASSES)


@pytest.mark.parametrize("shares", [DRAWN, HASHED], ids=["drawn", "hashed"])
@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (Chunk(X[:, :3], Y, IDS), "X has 3 columns and feature_names 4"),
        (Chunk(X, Y[:1], IDS), r"X has 2000 rows and y the shape \(1,\)"),
        (Chunk(X, Y[:, None], IDS), r"X has 2000 rows and y the shape \(2000, 1\)"),
        (Chunk(X, Y, IDS[:7]), r"X has 2000 rows and ids the shape \(7,\)"),
    ],
    ids=["names", "y", "y with two axes", "ids"],
)
def test_rows_of_another_shape_are_refused(tmp_path, shares, chunk, message):
    with pytest.raises(SplitError, match=message):
        write_splits([Chunk(X, Y, IDS), chunk], tmp_path, shares, FEATURES, CLASSES)


@pytest.mark.parametrize("shares", [DRAWN, HASHED], ids=["drawn", "hashed"])
@pytest.mark.parametrize(
    ("column", "name", "value"),
    [(2, "c", np.inf), (2, "c", -np.inf), (2, "c", 1e39), (4, "y", np.inf), (4, "y", np.nan)],
)
def test_a_number_that_cannot_be_learned_is_named(tmp_path, shares, value, column, name):
    values = np.column_stack([X, Y])
    values[1234, column] = value
    values[1235:, column] = -values[1234, column]
    parts = [Chunk(part[:, :4], part[:, 4], IDS[: len(part)]) for part in np.split(values, 4)]
    with pytest.raises(UserError, match=re.escape(f"Column '{name}' holds {value} in row 1234 ")):
        write_splits(parts, tmp_path, shares, FEATURES)


@pytest.mark.parametrize("value", ["low", pd.Timestamp("2025-01-31"), pd.Timedelta("1h")])
@pytest.mark.parametrize("column", ["b", "y"])
def test_non_numbers_are_reported_with_column_and_row(tmp_path, value, column):
    frame = pd.DataFrame(X, columns=FEATURES).assign(y=Y)
    frame[column] = frame[column].astype(object).mask(frame.index == 1234, value)
    parts = [
        Chunk(part[list(FEATURES)], part["y"].to_numpy(), IDS[part.index])
        for part in (frame[:1000], frame[1000:])
    ]
    with pytest.raises(UserError, match=rf"Column '{column}' holds {value} in row 1234 "):
        write_splits(parts, tmp_path, DRAWN, FEATURES)


@pytest.mark.parametrize("unit", ["ns", "us"])
@pytest.mark.parametrize("column", ["a", "y"])
def test_dates_are_not_taken_for_numbers(tmp_path, unit, column):
    dates = pd.Series(pd.to_datetime(["NaT", "2025-01-31"] * 9)).dt.as_unit(unit)
    numbers = pd.Series(np.arange(18.0))
    X, y = (dates, numbers) if column == "a" else (numbers, dates)
    with pytest.raises(UserError, match=rf"Column '{column}' holds 2025-01-31.* in row 1 "):
        write_splits([Chunk(X.to_frame("a"), y.to_numpy())], tmp_path, DRAWN, ("a",))


@pytest.mark.parametrize("value", [3e38, -3e38])
def test_a_feature_that_overflows_once_standardised_is_reported(tmp_path, value):
    values = X * 1e-3
    row = np.flatnonzero(hashed_splits(IDS, HASHED) == 2)[7]
    values[row, 2] = value
    values[row + 1, 1] = np.nan
    with pytest.raises(UserError, match=r"Column 'c' holds -?\d\S+e\+40 in X_test, standardised"):
        write_splits([Chunk(values, Y, IDS)], tmp_path, HASHED, FEATURES, CLASSES)


@pytest.mark.parametrize("unknown", [-1, 3])
@pytest.mark.parametrize("kind", [np.array, pd.Series])
def test_an_unnamed_class_is_reported(tmp_path, unknown, kind):
    y = np.where(np.arange(N) == 1234, unknown, Y)
    parts = [Chunk(X[rows], kind(y[rows]), IDS[rows]) for rows in (slice(1000), slice(1000, N))]
    with pytest.raises(SplitError, match=rf"y holds {unknown} in row 1234 .* from 0 to 2\."):
        write_splits(parts, tmp_path, HASHED, FEATURES, CLASSES)


def test_a_feature_may_be_missing(tmp_path):
    values = X.copy()
    values[1234, 2] = np.nan
    write_splits([Chunk(values, Y, IDS)], tmp_path, DRAWN, FEATURES, CLASSES)
    splits = load_data_splits(tmp_path)
    assert sum(np.isnan(x).sum() for x in (splits.X_train, splits.X_val, splits.X_test)) == 1


def test_a_feature_without_any_value_is_named_without_warnings_of_numpy(tmp_path, caplog):
    values = X.copy()
    values[:, 2] = np.nan
    write_splits([Chunk(values, Y, IDS)], tmp_path, DRAWN, FEATURES, CLASSES)
    assert f"{FEATURES[2]} has no value in training" in caplog.text
    assert np.isnan(load_data_splits(tmp_path).X_train[:, 2]).all()


@pytest.mark.parametrize("shares", [DRAWN, HASHED])
@pytest.mark.parametrize("known", [slice(0, 40), slice(-40, None), slice(700, 740)])
def test_the_scaler_learns_a_feature_that_some_chunks_have_no_value_of(
    tmp_path, monkeypatch, shares, known
):
    monkeypatch.setattr(preparation, "CHUNK_ROWS", 50)
    values = X.copy()
    values[:, 2] = np.nan
    values[known, 2] = X[known, 2]
    prepared = write_splits([Chunk(values, Y, IDS)], tmp_path, shares, FEATURES, CLASSES)
    trained = load_data_splits(tmp_path).X_train
    mean, scale = prepared.scaler.mean_, prepared.scaler.scale_
    expected = StandardScaler().fit(trained.astype(np.float64) * scale + mean)
    np.testing.assert_allclose(mean, expected.mean_, rtol=1e-4)
    np.testing.assert_allclose(scale, expected.scale_, rtol=1e-4)
    assert np.isfinite(trained[:, 2]).any()


def test_integers_may_be_missing_next_to_other_types(tmp_path):
    frame = pd.DataFrame(X, columns=FEATURES).assign(a=pd.Series(Y, dtype="Int64"))
    frame.loc[1234, "a"] = pd.NA
    y = pd.Series(Y, dtype="Int64")
    ids = pd.Series(IDS, dtype="Int64", name="patient")
    write_splits([Chunk(frame.to_numpy(), y, ids)], tmp_path, HASHED, FEATURES, CLASSES)
    splits = load_data_splits(tmp_path)
    assert sum(np.isnan(x).sum() for x in (splits.X_train, splits.X_val, splits.X_test)) == 1
    y[1234] = pd.NA
    with pytest.raises(UserError, match=re.escape("Column 'y' holds nan in row 1234 ")):
        write_splits([Chunk(frame.to_numpy(), y, ids)], tmp_path, HASHED, FEATURES, CLASSES)
