"""Sections of sweeps in params.yaml are checked, and mistakes are explained."""

from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from lib.nested import with_values
from lib.params import Count, ParamsError, Positive, Section, check_params
from lib.space import Tuning, fixed, is_better, ranges, space_of

pytestmark = pytest.mark.unittest


class Tree(Section):
    depth: Count | None


class Model(Section):
    lr: Positive
    size: Annotated[int, Field(ge=2)]
    tree: Tree


class TuneModel(Tuning):
    budget = "size"
    space: space_of(Model)


class Params(Section):
    tune_model: TuneModel


def section(**changed):
    plain = {"objective": "loss", "better": "smaller", "trials": 4, "batch": 2, "workers": 1}
    return {"tune_model": plain | {"space": {"lr": {"log": [0.001, 1]}}} | changed}


def test_a_space_has_its_ranges_by_dotted_name():
    space = {"lr": {"log": [0.001, 1]}, "tree": {"depth": {"choice": [1, None]}}}
    found = dict(ranges(check_params(section(space=space), Params).tune_model.space))
    assert {name: (each.kind, each.values) for name, each in found.items()} == {
        "lr": ("log", [0.001, 1.0]),
        "tree.depth": ("choice", [1, None]),
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"space": {"lrr": {"log": [1, 2]}}},
            "tune_model.space.lrr is not known: did you mean lr?",
        ),
        (
            {"space": {"lr": {"log": [0, 1]}}},
            "tune_model.space.lr is a mapping: it must be above 0",
        ),
        ({"space": {"lr": {"uniform": [-1e308, 1e308]}}}, "range of finite width"),
        ({"space": {"size": {"integer": [2, 10**400]}}}, "less than or equal to 9007199254740992"),
        ({"space": {"lr": {"uniform": [2, 1]}}}, "tune_model.space.lr .* range from low to high"),
        (
            {"space": {"lr": {"uniform": [-1, 1]}}},
            "tune_model.space.lr .* -1.0 must be greater than",
        ),
        (
            {"space": {"size": {"integer": [1, 9]}}},
            "tune_model.space.size .* 1 must be greater than",
        ),
        (
            {"space": {"size": {"choice": [2, "x"]}}},
            "tune_model.space.size .*'x' must be a valid int",
        ),
        ({"space": {"lr": {}}}, "tune_model.space.lr .* one of uniform, .* .found: none"),
        ({"space": {"tree": {"deep": {"choice": [1, 2]}}}}, "tree.deep is not known: .* depth"),
        (
            {"rungs": [1, 3], "space": {"size": {"integer": [2, 9]}}},
            "tune_model is .*: it must be a section without rungs, or without a range of size",
        ),
        ({"space": {}}, "tune_model is .*: it must be a section whose space has a range"),
        ({"rungs": [9, 3]}, "tune_model.rungs is .*: it must be budgets that rise"),
        ({"better": "up"}, "tune_model.better is 'up': it must be 'larger' or 'smaller'"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(changed, message):
    with pytest.raises(ParamsError, match=message) as raised:
        check_params(section(**changed), Params)
    assert len(str(raised.value).splitlines()) == 1


def test_searched_values_are_not_fixed_and_are_put_back_in_place():
    model = Model(lr=0.1, size=3, tree=Tree(depth=4))
    space = space_of(Model).model_validate({"tree": {"depth": {"choice": [1, 2]}}})
    assert fixed(model, space) == {"lr": 0.1, "size": 3, "tree": {}}
    assert with_values(fixed(model, space), {"tree.depth": 2}) == {
        "lr": 0.1,
        "size": 3,
        "tree": {"depth": 2},
    }


class WithoutSize(Tuning):
    space: space_of(Model, ("size",))


@pytest.mark.parametrize("space", [{"size": {"choice": [2, 3]}}, {"size": {}, "lr": None}])
def test_parameters_unused_by_trials_are_refused(space):
    with pytest.raises(ValidationError, match="left out: it cannot be searched, for no trial"):
        WithoutSize.model_validate(section(space=space)["tune_model"])


def test_parameters_unused_by_trials_are_not_fixed():
    plain = section(space={"size": None, "lr": {"log": [0.001, 1]}})["tune_model"]
    space = WithoutSize.model_validate(plain).space
    assert [name for name, _ in ranges(space)] == ["lr"]
    model = Model(lr=0.1, size=3, tree=Tree(depth=4))
    assert fixed(model, space, ("size",)) == {"tree": {"depth": 4}}


class Forest(Section):
    first: Tree | None
    trees: list[Tree]
    by_name: dict[str, Tree]


@pytest.mark.parametrize("first", [Tree(depth=1), None])
def test_nested_sections_are_plain_values_or_searched_as_a_whole(first):
    model = Forest(first=first, trees=[Tree(depth=2)], by_name={"a": Tree(depth=3)})
    plain = {"trees": [{"depth": 2}], "by_name": {"a": {"depth": 3}}}
    assert fixed(model, space_of(Forest)()) == {"first": first and {"depth": 1}} | plain
    space = space_of(Forest).model_validate({"first": {"choice": [{"depth": 9}, None]}})
    assert fixed(model, space) == plain
    assert with_values(fixed(model, space), {"first": {"depth": 9}}) == plain | {
        "first": {"depth": 9}
    }


def test_a_number_is_better_than_nan_and_nan_is_never_better():
    nan = float("nan")
    assert is_better(1, nan, "smaller")
    assert not is_better(nan, 1, "smaller")
    assert is_better(2, 1, "larger")
    assert not is_better(1, 1, "larger")
