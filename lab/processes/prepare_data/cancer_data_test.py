"""Invalid raw data are refused, and the splits have the required properties."""

from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from lab.processes.prepare_data import main
from lab.processes.prepare_data.cancer_data import (
    FEATURES,
    TARGET,
    DataError,
    column_types,
    describe_splits,
    load_cancer_data,
    prepare_cancer_data,
    valid_frames,
)
from lab.processes.prepare_data.params import Params
from lib.chunks import also_written, read_chunks
from lib.params import check_params, load_params, read_yaml
from lib.preparation import Shares
from lib.splits import load_data_splits

pytestmark = pytest.mark.unittest

ROOT = Path(__file__).resolve().parent.parent.parent.parent
RAW = load_cancer_data()


@pytest.fixture
def frame():
    return RAW.copy()


@pytest.fixture
def validate(tmp_path):
    """The valid frames of a source, read `rows` at a time, as one."""

    def validate(source, max_duplicated=0.01, rows=2**16, id_column=None):
        frames = read_chunks(source, column_types(id_column), rows)
        return pd.concat(
            valid_frames(frames, tmp_path, max_duplicated=max_duplicated, id_column=id_column)
        )

    return validate


@pytest.fixture
def prepare(tmp_path_factory):
    """The splits of a frame, and what `prepare_cancer_data` returned."""

    def prepare(frame=RAW, seed=0, sizes=(0.15, 0.2)):
        folder = tmp_path_factory.mktemp("prepared")
        found = prepare_cancer_data([frame], folder, Shares(*sizes, random_seed=seed))
        return load_data_splits(folder), found

    return prepare


def raw(splits, prepared):
    """The rows of each split before they were standardised."""
    scaler = prepared.scaler
    return [scaler.inverse_transform(X) for X in (splits.X_train, splits.X_val, splits.X_test)]


# ---- the raw frame


def test_the_original_data_are_valid(frame, validate):
    valid = validate(frame, max_duplicated=0)
    assert valid.shape == (569, 31)
    assert valid[TARGET].sum() == 212, "212 of the 569 tumours are malignant"


def test_columns_in_another_order_are_the_same_data(frame, validate):
    shuffled = frame[frame.columns[::-1]]
    pd.testing.assert_frame_equal(validate(shuffled), validate(frame))


BAD = {
    "missing column": (lambda f: f.drop(columns="worst area"), "column 'worst area' is missing"),
    "extra column": (lambda f: f.assign(age=1.0), "column 'age' is not known"),
    "wrong type": (
        lambda f: f.assign(**{"mean area": f["mean area"].astype(str)}),
        "column 'mean area' has type str: it must be float64",
    ),
    "NaN": (lambda f: put(f, 17, "mean area", np.nan), "column 'mean area', row 17: nan"),
    "infinity": (lambda f: put(f, 17, "mean area", np.inf), "column 'mean area', row 17: inf"),
    "too low": (
        lambda f: put(f, 3, "area error", -0.5),
        "column 'area error', row 3: -0.5 is not a number from 0 to 10000",
    ),
    "too high": (
        lambda f: put(f, 568, "worst symmetry", 1.5),
        "column 'worst symmetry', row 568: 1.5 is not a number from 0 to 1",
    ),
    "unknown class": (lambda f: put(f, 5, TARGET, 2), "column 'malignant', row 5: 2 is not 0 or 1"),
    "one class": (lambda f: f[f[TARGET] == 1], "'malignant' is 1 in all 212 rows"),
    "no row": (lambda f: f[:0], "'malignant' is empty in all 0 rows"),
    "duplicated": (
        lambda f: pd.concat([f, f[:40]], ignore_index=True),
        "40 of 609 rows repeat an earlier one, the first in row 569: at most 1.0% may",
    ),
}


def put(frame, row, column, value):
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize("rows", [2**16, 100])
@pytest.mark.parametrize("case", BAD)
def test_a_bad_frame_names_column_row_and_value(frame, validate, case, rows):
    spoil, message = BAD[case]
    with pytest.raises(DataError) as caught:
        validate(spoil(frame), rows=rows)
    assert message in str(caught.value)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_bad_value_in_a_file_is_named_as_in_a_frame(frame, validate, tmp_path, form):
    file = tmp_path / f"raw.{form}"
    list(also_written([put(frame, 321, "mean area", -1.5)], file, form))
    with pytest.raises(DataError, match=r"^Raw data: column 'mean area', row 321: -1\.5 is not a"):
        validate(file, rows=100)


def test_only_frames_before_the_first_invalid_one_are_returned(frame, tmp_path):
    put(frame, 250, "mean area", -1.0)
    frames = valid_frames(read_chunks(frame, rows=100), tmp_path, max_duplicated=0.01)
    assert [len(next(frames)), len(next(frames))] == [100, 100]
    with pytest.raises(DataError, match="row 250"):
        next(frames)


def test_an_id_identifies_rows_and_is_not_a_feature(frame, validate):
    ids = frame.assign(biopsy=[f"b{n}" for n in range(len(frame))])
    assert list(validate(ids, id_column="biopsy")) == [*FEATURES, TARGET, "biopsy"]
    with pytest.raises(DataError, match="column 'biopsy' is missing"):
        validate(frame, id_column="biopsy")
    with pytest.raises(DataError, match="column 'biopsy', row 3: the id is missing"):
        validate(put(ids, 3, "biopsy", None), id_column="biopsy")
    with pytest.raises(DataError, match="id_column is 'mean area', which is learnt from"):
        validate(frame, id_column="mean area")


@pytest.mark.parametrize("rows", [2**16, 100])
def test_many_bad_values_are_listed_up_to_ten_and_counted(frame, validate, rows):
    frame["mean area"] = -1.0
    with pytest.raises(DataError) as caught:
        validate(frame, rows=rows)
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "and 559 more."


@pytest.mark.parametrize(("positives", "negatives"), [(1, 357), (2, 40), (3, 300), (3, 3)])
def test_data_without_a_class_in_a_split_are_one_error(frame, prepare, positives, negatives):
    few = pd.concat([frame[frame[TARGET] == 0][:negatives], frame[frame[TARGET] == 1][:positives]])
    with pytest.raises(DataError) as caught:
        prepare(few)
    message = str(caught.value)
    start = f"Raw data: {negatives} benign and {positives} malignant rows cannot be split "
    assert message.startswith(f"{start}(prepare_data.test_size is 0.15, validation_size 0.2): ")
    assert "\n" not in message


@pytest.mark.parametrize("sizes", [(0.999, 0.2), (0.001, 0.2), (0.15, 0.999)])
def test_sizes_that_leave_a_split_without_a_class_say_so(frame, prepare, sizes):
    with pytest.raises(DataError, match=r"prepare_data\.test_size is"):
        prepare(frame, sizes=sizes)


@pytest.mark.parametrize("case", sorted(set(BAD) - {"duplicated"}))
def test_each_problem_is_shown_once(frame, validate, case):
    with pytest.raises(DataError) as caught:
        validate(BAD[case][0](frame))
    assert len(str(caught.value).splitlines()) == 1


# ---- the splits


def test_every_row_is_in_exactly_one_split(prepare):
    rows = np.concatenate(raw(*prepare()))
    found = np.array(sorted(map(tuple, rows)))
    expected = np.array(sorted(map(tuple, RAW[list(FEATURES)].to_numpy())))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_splits_have_the_set_sizes(prepare):
    rows = describe_splits(prepare()[1])["rows"]
    assert rows["test"] == round(0.15 * 569 + 0.5)
    assert rows["validation"] == pytest.approx(0.2 * (569 - rows["test"]), abs=1)


def test_the_splits_are_stratified(prepare):
    share = RAW[TARGET].mean()
    sizes = describe_splits(prepare()[1])
    for split, rows in sizes["rows"].items():
        assert abs(sizes["malignant_share"][split] - share) * rows <= 1, split


def test_the_scaler_saw_the_training_split_only(prepare):
    splits, found = prepare()
    scaler = found.scaler
    assert scaler.n_samples_seen_ == len(splits.X_train)
    np.testing.assert_allclose(splits.X_train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(splits.X_train.std(axis=0), 1, atol=1e-5)
    train, *_ = raw(splits, found)
    again = StandardScaler().fit(train)
    np.testing.assert_allclose(again.mean_, scaler.mean_, rtol=1e-5)


def test_rows_keep_their_label(prepare):
    splits, found = prepare()
    train, *_ = raw(splits, found)
    everything = RAW[list(FEATURES)].to_numpy()
    for row, label in zip(train[:50], splits.y_train[:50], strict=True):
        same = np.abs(everything - row).sum(axis=1).argmin()
        assert RAW[TARGET][same] == label


def test_the_seed_decides_the_split(prepare):
    first, again, other = (prepare(seed=seed)[0] for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.y_train, other.y_train)


# ---- main.py


def test_data_that_cannot_be_split_leave_no_output(tmp_path, monkeypatch):
    params = load_params(Params, ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    few = pd.concat([RAW[RAW[TARGET] == 0][:300], RAW[RAW[TARGET] == 1][:3]])
    monkeypatch.setattr(main, "load_cancer_data", lambda: few)
    with pytest.raises(DataError, match="300 benign and 3 malignant"):
        main.prepare(params)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_bad_frame_leaves_earlier_outputs_unchanged(tmp_path, monkeypatch):
    params = load_params(Params, ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    main.prepare(params)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    monkeypatch.setattr(main, "load_cancer_data", lambda: RAW.assign(**{"mean area": -1.0}))
    with pytest.raises(DataError):
        main.prepare(params)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert len(load_data_splits(main.PROCESSED).X_train) == 386


def test_hashed_rows_keep_their_split_when_some_are_added(tmp_path, monkeypatch):
    content = read_yaml(ROOT / "params.yaml")
    content["prepare_data"] |= {"split": "hashed", "id_column": "biopsy"}
    params = check_params(content, Params)
    monkeypatch.chdir(tmp_path)
    ids = RAW.assign(biopsy=[f"b{n}" for n in range(len(RAW))])
    found = []
    for frame in (ids[:500], ids[::-1]):
        monkeypatch.setattr(main, "load_cancer_data", lambda frame=frame: frame)
        main.prepare(params)
        scaler = joblib.load(main.PROCESSED / "scaler.joblib")
        tested = scaler.inverse_transform(load_data_splits(main.PROCESSED).X_test)
        found.append({tuple(np.round(row[:3], 3)) for row in tested})
    assert found[0] < found[1]
    assert 60 < len(found[1]) < 110, "about 15 % of 569"
