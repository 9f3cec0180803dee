"""Values are changed in YAML that a person wrote, and every other line stays."""

import pytest

from lib.params import parse_yaml
from tools.rewriting import put

PARAMS = """\
other: {lr: 1}
network:   # as it is
  lr:   1e-3   # the same already
  hidden: # widths
    - 64   # of the first
    - 32
  # between
  names:
  - a
  - b
  'a solver': "adam"  # quoted
  flow: {a: 1, b: [1, 2]}
  text: |
    some
    lines
  nothing:
last: 3
"""
CHANGES = {
    "    - 32\n": "    - 16\n",
    "  names:\n  - a\n  - b\n": "  names: [c]\n",
    '"adam"': "sgd",
    "a: 1, b: [1, 2]": "a: 2.5, b: []",
    "text: |\n    some\n    lines\n": "text: null\n",
    "nothing:\n": "nothing: 1e-05\n",
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_changed_values_are_rewritten_in_any_style(end):
    values = {"lr": 0.001, "hidden": [64, 16], "names": ["c"], "a solver": "sgd", "flow.a": 2.5}
    values |= {"flow.b": [], "text": None, "nothing": 1e-5, "unknown": 1, "lr.deeper": 1}
    text, taken = put(PARAMS.replace("\n", end), "network", values)
    assert {"text null", "hidden [64, 16]"} < set(taken), "values are shown as in YAML"
    expected = PARAMS
    for old, new in CHANGES.items():
        assert expected.count(old) == 1
        expected = expected.replace(old, new)
    assert text == expected.replace("\n", end)
    assert len(taken) == len(values) - 2
    assert put(text, "network", values)[0] == text
    assert parse_yaml(put(text, "network", {"hidden": [1]})[0])["network"]["hidden"] == [1]
    assert put(text, "nowhere", values) == (text, [])


@pytest.mark.parametrize("value", ["b, c", "b]", "{b", "b: c", "b #c", "- b", "", "1", "b\nc"])
def test_a_text_is_read_back_unchanged_in_flow_style_too(value):
    text = "network:\n  flow: {name: a, lr: 1}\n  each: [a, 1]\n  name: a\n"
    values = {"flow.name": value, "each": [value, 1], "name": value}
    network = parse_yaml(put(text, "network", values)[0])["network"]
    assert network == {"flow": {"name": value, "lr": 1}, "each": [value, 1], "name": value}


def test_an_equal_value_of_another_type_is_written():
    text = "network:\n  a: 1  # number\n  b: True\n  c: [1, 0]\n  d: {e: 1}\n  f: 1\n"
    values = {"a": True, "b": 1, "c": [1, False], "d": {"e": 1.0}, "f": 1}
    assert put(text, "network", values)[0] == (
        "network:\n  a: true  # number\n  b: 1\n  c: [1, false]\n  d: {e: 1.0}\n  f: 1\n"
    )
    values = {"a": None, "b": [{"e": "x, y"}], "c": [], "d": {"e": [None]}}
    assert parse_yaml(put(text, "network", values)[0])["network"] == values | {"f": 1}
