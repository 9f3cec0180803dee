"""Invalid parameters of prepare_data are refused."""

from pathlib import Path

import pytest

from lab.processes.prepare_data.params import Params
from lib.params import ParamsError, check_params, read_yaml

pytestmark = pytest.mark.unittest

ROOT = Path(__file__).resolve().parent.parent.parent.parent


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("test_size", 1, "less than 1"),
        ("max_duplicated", 2, "less than or equal to 1"),
        ("split", "random", "'stratified' or 'hashed'"),
    ],
)
def test_an_invalid_value_is_reported_with_what_is_allowed(key, value, allowed):
    content = read_yaml(ROOT / "params.yaml")
    content["prepare_data"][key] = value
    with pytest.raises(ParamsError, match=allowed):
        check_params(content, Params)


def test_a_hashed_split_needs_an_id_column():
    content = read_yaml(ROOT / "params.yaml")
    content["prepare_data"]["split"] = "hashed"
    with pytest.raises(ParamsError, match=r"prepare_data\.id_column is null: it must be the name"):
        check_params(content, Params)
    content["prepare_data"]["id_column"] = "patient"
    assert check_params(content, Params).prepare_data.id_column == "patient"
