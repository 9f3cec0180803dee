"""Numbers of any size are shown as people write them."""

import pytest

from lib.numbers import shown_alike, shown_beside, shown_change, shown_number

pytestmark = pytest.mark.unittest


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (38124.9, "38,124.90"),
        (38125.0, "38,125"),
        (-1234.5, "-1,234.50"),
        (60000, "60,000"),
        (1234567.8, "1,234,568"),
        (1e300, "1e+300"),
        (10**400, "1.000e+400"),
        (0.97674418, "0.9767"),
        (12.3456, "12.35"),
        (0.00012346, "0.0001235"),
        (1.23456e-09, "1.235e-09"),
        (0.0, "0"),
        (1.0, "1"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_every_number_has_one_form(value, text):
    assert shown_number(value) == text


def test_numbers_in_a_column_have_as_many_decimals():
    assert shown_alike([38181.2, 38125.0]) == ["38,181.20", "38,125.00"]
    assert shown_alike([0.97674, 1.0, float("nan")]) == ["0.9767", "1.0000", "nan"]
    assert shown_alike([0.0151271, 0.0097667]) == ["0.015127", "0.009767"]
    assert shown_alike([1e-9, 0.5]) == ["1e-09", "0.5"]
    assert shown_alike([]) == []


@pytest.mark.parametrize(
    ("values", "other", "texts"),
    [
        ([0.94996, 0.8], 0.95, ["0.94996", "0.80"]),
        ([0.9499999999], 0.95, ["0.9499999999"]),
        ([0.95, 0.9412], 0.95, ["0.9500", "0.9412"]),
        ([1234567.8], 1234568.0, ["1,234,567.8"]),
        ([1.0 - 2**-53], 1.0, ["0.9999999999999999"]),
        ([float("nan")], 0.5, ["nan"]),
        ([65000.004], 65000.0, ["65,000.004"]),
        ([999.97], 1000.0, ["999.97"]),
    ],
)
def test_a_number_differs_visibly_from_its_limit(values, other, texts):
    assert shown_beside(values, other) == texts


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (38181.2, 38125.0, "-56.20"),
        (0.97674, 0.98115, "+0.0044"),
        (0.97670001, 0.97670002, "+1e-08"),
        (0.9260012, 0.9260299, "+0.000029"),
        (64405.84, 64405.841, "+0.0010"),
        (0.5, 0.6, "+0.1"),
        (5, 7, "+2"),
        (0, 20000, "+20,000"),
        (1e-9, 3e-9, "+2e-09"),
        (0.5, 0.5, "+0.0"),
    ],
)
def test_a_change_has_the_decimals_of_its_numbers(before, after, text):
    assert shown_change(before, after) == text
