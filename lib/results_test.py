"""What is said of results that are not those committed."""

import pytest

from lib.results import difference, results_table

pytestmark = pytest.mark.unittest

LOCK = """
stages:
  first:
    cmd: a
    deps: [{{path: code.py, md5: {code}}}]
    params: {{params.yaml: {{seed: {seed}}}}}
    outs: [{{path: data, md5: {data}}}]
  second:
    cmd: b
    deps: [{{path: data, md5: {data}}}]
    outs: [{{path: model, md5: {model}}}]
"""


def lock(code="c", seed=1, data="d", model="m"):
    return LOCK.format(code=code, seed=seed, data=data, model=model)


def test_nothing_is_said_of_the_same_results():
    assert difference(lock(), lock()) == []
    assert difference(lock(), lock(code="other")) == [], "the results are the same all the same"


def test_other_results_of_the_same_inputs_are_laid_to_the_processor_or_the_data():
    said = difference(lock(), lock(model="other"))
    assert said[0] == "These results differ from those committed: second."
    assert "another processor gives other last bits" in said[1]


@pytest.mark.parametrize("changed", [{"code": "x"}, {"seed": 2}])
def test_other_results_of_other_inputs_are_no_surprise(changed):
    said = difference(lock(), lock(model="other", **changed))
    assert said[0] == "These results differ from those committed: second."
    assert "processor" not in " ".join(said)


def test_a_stage_that_was_never_committed_is_named():
    assert "first, second" in difference("stages: {}", lock())[0]


def test_the_table_has_a_row_for_each_model_that_was_measured(tmp_path):
    (tmp_path / "sizes.json").write_text('{"rows": 3}')
    (tmp_path / "a.json").write_text('{"classifier": "forest", "test": {"accuracy": 0.5}}')
    (tmp_path / "b.json").write_text('{"test": {"accuracy": 0.6, "recall": 1}}')
    table = results_table(tmp_path)
    assert table.row_count == 2
    assert [column.header for column in table.columns] == ["split", "model", "accuracy", "recall"]
    assert list(table.columns[1].cells) == ["forest", "b"]
    assert results_table(tmp_path / "none") is None
