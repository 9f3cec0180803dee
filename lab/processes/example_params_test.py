"""What the example's parameters may be."""

import copy
from pathlib import Path

import pytest

from lib.params import ParamsError, check_params, load_params, read_yaml

pytestmark = pytest.mark.unittest

FILE = Path(__file__).resolve().parent.parent.parent / "params.yaml"


@pytest.mark.parametrize(
    ("section", "key", "value", "allowed"),
    [
        ("prepare_data", "test_size", 1, "less than 1"),
        ("prepare_data", "max_duplicated", 2, "less than or equal to 1"),
        ("train_dnn_pytorch", "lr", float("inf"), "finite"),
        ("train_dnn_pytorch", "batch_size", 1, "greater than or equal to 2"),
        ("train_dnn_pytorch", "hidden", [200, 0], "greater than or equal to 1"),
    ],
)
def test_an_impossible_value_is_answered_with_what_is_allowed(section, key, value, allowed):
    content = copy.deepcopy(read_yaml(FILE))
    content[section][key] = value
    with pytest.raises(ParamsError, match=allowed):
        check_params(content)


def test_whole_numbers_and_exponents_are_numbers(tmp_path):
    text = FILE.read_text().replace("lr: 0.001", "lr: 1e-3").replace("C: 1.0", "C: 1")
    (tmp_path / "params.yaml").write_text(text)
    params = load_params(tmp_path / "params.yaml")
    assert params.train_dnn_pytorch.lr == 0.001
    assert params.train_standard_classifiers.logistic_regression.C == 1.0
