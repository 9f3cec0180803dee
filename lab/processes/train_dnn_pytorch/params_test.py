"""Invalid parameters of train_dnn_pytorch are refused."""

from pathlib import Path

import pytest

from lab.processes.train_dnn_pytorch.params import Params
from lib.params import ParamsError, check_params, read_yaml

pytestmark = pytest.mark.unittest

ROOT = Path(__file__).resolve().parent.parent.parent.parent


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("lr", float("inf"), "finite"),
        ("batch_size", 1, "greater than or equal to 2"),
        ("hidden", [200, 0], "greater than or equal to 1"),
        ("hidden", [10**30], r"hidden.0 is 10+: it must be less than or equal to"),
        ("num_threads", 10**6, "num_threads is 1000000: it must be less than or equal to 1024"),
    ],
)
def test_an_invalid_value_is_reported_with_what_is_allowed(key, value, allowed):
    content = read_yaml(ROOT / "params.yaml")
    content["train_dnn_pytorch"][key] = value
    with pytest.raises(ParamsError, match=allowed):
        check_params(content, Params)
