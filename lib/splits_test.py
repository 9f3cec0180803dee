"""Splits are loaded as they were saved, without being read into memory."""

import numpy as np
import pytest

from lib.errors import UserError
from lib.splits import ARRAYS, Splits, load_data_splits, save_data_splits

pytestmark = pytest.mark.unittest


@pytest.fixture
def splits():
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(n, 3)).astype(np.float32) for n in (7, 3, 2)]
    y = [rng.integers(0, 2, n) for n in (7, 3, 2)]
    return Splits(*X, *y, ("a", "b", "c"), ("no", "yes"))


def test_loaded_splits_equal_saved_ones(splits, tmp_path):
    save_data_splits(splits, tmp_path)
    loaded = load_data_splits(tmp_path)
    for name, before, after in zip(ARRAYS, splits, loaded, strict=True):
        assert np.array_equal(before, after), name
        assert before.dtype == after.dtype, name
    assert (loaded.feature_names, loaded.class_names) == (("a", "b", "c"), ("no", "yes"))


def test_numbers_to_predict_need_no_class_names(splits, tmp_path):
    prices = [y * 1000.5 for y in (splits.y_train, splits.y_val, splits.y_test)]
    save_data_splits(Splits(*list(splits)[:3], *prices, splits.feature_names), tmp_path)
    loaded = load_data_splits(tmp_path)
    assert np.array_equal(loaded.y_train, prices[0])
    assert loaded.class_names == ()


@pytest.mark.parametrize("kind", [str, object])
def test_classes_with_names_must_be_saved_as_codes(splits, tmp_path, kind):
    texts = [np.array(["cat", "dog"], dtype=kind)] * 3
    with pytest.raises(UserError, match=r"y_train holds .*: of classes with names, save their"):
        save_data_splits(Splits(*list(splits)[:3], *texts, splits.feature_names), tmp_path)


def test_arrays_are_memory_mapped_and_read_only(splits, tmp_path):
    save_data_splits(splits, tmp_path)
    for array in load_data_splits(tmp_path, as_type="array"):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable


def test_tensors_have_the_same_numbers(splits, tmp_path):
    save_data_splits(splits, tmp_path)
    for before, after in zip(splits, load_data_splits(tmp_path, as_type="tensor"), strict=True):
        assert np.array_equal(before, after.numpy())


def test_saving_twice_gives_the_same_bytes(splits, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_data_splits(splits, tmp_path / folder)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_a_missing_file_says_how_to_get_it(splits, tmp_path):
    with pytest.raises(UserError, match=r"names\.json is not there: `make run`, or"):
        load_data_splits(tmp_path)
    save_data_splits(splits, tmp_path)
    (tmp_path / "X_val.npy").unlink()
    with pytest.raises(UserError, match=r"X_val\.npy is not there"):
        load_data_splits(tmp_path)


def test_an_unknown_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'array' or 'tensor'"):
        load_data_splits(tmp_path, as_type="frame")
