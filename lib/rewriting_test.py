"""Values are put into YAML that a person wrote, and every other line stays."""

import pytest

from lib.params import parse_yaml
from lib.rewriting import put

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
ADOPTED = """\
other: {lr: 1}
network:   # as it is
  lr:   1e-3   # the same already
  hidden: # widths
    - 64   # of the first
    - 16
  # between
  names: [c]
  'a solver': sgd  # quoted
  flow: {a: 2.5, b: []}
  text: null
  nothing: 1e-05
last: 3
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_what_changes_is_written_anew_however_it_was_written(end):
    values = {"lr": 0.001, "hidden": [64, 16], "names": ["c"], "a solver": "sgd", "flow.a": 2.5}
    values |= {"flow.b": [], "text": None, "nothing": 1e-5, "unknown": 1, "lr.deeper": 1}
    text, taken = put(PARAMS.replace("\n", end), "network", values)
    assert text == ADOPTED.replace("\n", end)
    assert len(taken) == len(values) - 2
    assert put(text, "network", values)[0] == text
    assert parse_yaml(put(text, "network", {"hidden": [1]})[0])["network"]["hidden"] == [1]
    assert put(text, "nowhere", values) == (text, [])
