"""params.yaml is caught in every way that it can be wrong."""

import copy
import json
from pathlib import Path

import pytest

from lib.params import ParamsError, Section, check_params, load_params, read_yaml

pytestmark = pytest.mark.unittest

FILE = Path(__file__).resolve().parent.parent / "params.yaml"
CONTENT = read_yaml(FILE)


def keys(section, above=()):
    """Every key of nested mappings, as a tuple of its parents and itself."""
    for key, value in section.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from keys(value, (*above, key))


def changed(path, value=None, *, rename=None, drop=False):
    content = copy.deepcopy(CONTENT)
    section = content
    for key in path[:-1]:
        section = section[key]
    old = section.pop(path[-1])
    if not drop:
        section[rename or path[-1]] = old if rename else value
    return content


def test_the_committed_file_is_valid_and_nothing_of_it_is_lost():
    assert json.loads(load_params(FILE).model_dump_json()) == json.loads(json.dumps(CONTENT))


@pytest.mark.parametrize("path", [*keys(CONTENT)], ids=".".join)
def test_a_typo_in_any_key_is_named_in_full_with_the_right_one(path):
    typo = path[-1] + "x"
    with pytest.raises(ParamsError) as caught:
        check_params(changed(path, rename=typo))
    message = str(caught.value)
    assert ".".join((*path[:-1], typo)) + " is not known" in message
    assert f"did you mean {path[-1]}?" in message
    assert ".".join(path) + " is missing" in message


@pytest.mark.parametrize("path", [*keys(CONTENT)], ids=".".join)
@pytest.mark.parametrize("wrong", ["", [], True, -1.5, {"a": 1}, float("nan")], ids=repr)
def test_a_wrong_value_is_named_in_full(path, wrong):
    with pytest.raises(ParamsError, match="[.]".join(path)):
        check_params(changed(path, wrong))


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        (("random_seed",), -1, "greater than or equal to 0"),
        (("random_seed",), "42", "valid integer"),
        (("paths", "dir_raw"), "/etc", "inside the repository"),
        (("paths", "dir_raw"), "../elsewhere", "inside the repository"),
        (("paths", "dir_raw"), "data/../../elsewhere", "inside the repository"),
        (("paths", "dir_raw"), CONTENT["paths"]["dir_metrics"], "the same folder"),
    ],
)
def test_an_impossible_value_is_answered_with_what_is_allowed(path, value, allowed):
    with pytest.raises(ParamsError, match=allowed):
        check_params(changed(path, value))


@pytest.mark.parametrize("text", ["a: [", "random_seed: 1\nrandom_seed: 2", "", "- 1", "\x00"])
def test_what_is_not_a_mapping_is_refused_without_a_traceback(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")


def test_a_missing_file_says_where_to_run_from(tmp_path):
    with pytest.raises(ParamsError, match="repository's root"):
        load_params(tmp_path / "params.yaml")


def test_parameters_cannot_be_changed_later():
    params = load_params(FILE)
    with pytest.raises(ValueError, match="frozen"):
        params.random_seed = 1
    assert issubclass(type(params.paths), Section)
