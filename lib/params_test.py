"""Invalid parameters of any kind are found, in one process and in the whole file."""

import sys
from datetime import date
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from lib.params import (
    Count,
    ParamsError,
    Positive,
    Real,
    Section,
    Seed,
    Share,
    check_all,
    check_params,
    load_params,
    read_yaml,
)

pytestmark = pytest.mark.unittest

ROOT = Path(__file__).resolve().parent.parent


class Layer(Section):
    units: Count
    dropout: Share | None = None


class Schedule(Section):
    start: Positive


class Warmup(Section):
    epochs: Count


class Train(Section):
    lr: Positive
    layers: list[Layer]
    by_name: dict[str, Layer]
    schedule: Schedule | None = None
    either: Schedule | Warmup | None = None
    pair: tuple[Layer, ...] = ()
    bounds: Annotated[list[Annotated[Real, Field(ge=0)]], Field(min_length=1)]
    target: Annotated[str, Field(min_length=1)] = "price"


class Params(Section):
    random_seed: Seed
    train: Train


VALID = {
    "random_seed": 42,
    "train": {
        "lr": 1,
        "layers": [{"units": 3}, {"units": 4, "dropout": 0.5}],
        "by_name": {"first": {"units": 3}},
        "schedule": {"start": 0.1},
        "either": {"epochs": 1},
        "pair": (),
        "bounds": [0, 1.5],
    },
    "another_process": {"anything": True},
}


def with_train(**changed):
    return {**VALID, "train": VALID["train"] | changed}


def test_a_process_gets_only_its_own_sections_checked():
    params = check_params(VALID, Params)
    assert params.train.lr == 1.0
    assert params.train.layers[1].dropout == 0.5


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (with_train(lrr=1), ["train.lrr is not known: did you mean lr?"]),
        (
            with_train(layers=[{"units": 3}, {"unit": 4}]),
            [
                "train.layers.1.unit is not known: did you mean units?",
                "train.layers.1.units is missing",
            ],
        ),
        (
            with_train(by_name={"first": {"units": 1, "dropot": 0.5}}),
            ["train.by_name.first.dropot is not known: did you mean dropout?"],
        ),
        (with_train(schedule={"strat": 1.0}), ["schedule.strat is not known: did you mean start?"]),
        (with_train(pair=({"unit": 1},)), ["train.pair.0.unit is not known: did you mean units?"]),
        (with_train(either={"epoch": 1}), ["epoch is not known", "did you mean epochs?"]),
        (with_train(layers={"units": 3}), ["train.layers is a mapping: it must be"]),
        (with_train(bounds=[-1.0]), ["bounds.0 is -1.0: it must be greater than or equal to 0"]),
        (with_train(schedule=[1]), ["train.schedule is [1]"]),
        (with_train(**{"": 1}), ["train. is not known"]),
        (with_train(bounds=[]), ["train.bounds is []: it must have at least 1 item."]),
        (with_train(target=""), ["train.target is '': it must have at least 1 character."]),
        (with_train(target=12), ["train.target is 12: it must be a text, so put it in quotes."]),
        (with_train(target=True), ["target is true: it must be a text, so put it in quotes."]),
        (
            with_train(target=date(2024, 1, 1)),
            ["train.target is 2024-01-01: it must be a text, so put it in quotes."],
        ),
        (with_train(target=[]), ["train.target is []: it must be a text."]),
        (with_train(by_name=[]), ["train.by_name is []: it must be a mapping (key: value)."]),
        (VALID | {"train": {**VALID["train"], 3: 4}}, ["train.3 is not known: remove it."]),
        (VALID | {"train": None}, ["train is null: it must be a mapping (key: value)."]),
        (VALID | {"train": [None, True]}, ["train is [null, true]: it must be a mapping (key"]),
        ({}, ["random_seed is missing: write it.", "train is missing: write it."]),
    ],
)
def test_a_mistake_is_shown_with_full_key_and_allowed_values(content, messages):
    with pytest.raises(ParamsError) as caught:
        check_params(content, Params)
    for message in messages:
        assert message in str(caught.value)


@pytest.mark.parametrize(
    "wrong", ["", [], True, -1.5, {"a": 1}, float("nan"), float("inf"), None], ids=repr
)
def test_an_invalid_value_has_its_full_key(wrong):
    with pytest.raises(ParamsError, match=r"train\.lr"):
        check_params(with_train(lr=wrong), Params)


@pytest.mark.parametrize("wrong", [-1, "42", 2**32, 1.5])
def test_a_seed_is_an_integer_that_numpy_accepts(wrong):
    with pytest.raises(ParamsError, match="random_seed"):
        check_params(VALID | {"random_seed": wrong}, Params)


@pytest.mark.parametrize("text", ["a: [", "random_seed: 1\nrandom_seed: 2", "", "- 1", "\x00"])
def test_files_without_a_mapping_are_refused_without_traceback(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        load_params(Params, tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: &x [1]\nb: [*x, *x]\n",
            "has a YAML alias ('*x', line 2): write out what it stands for",
        ),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "has a YAML alias ('*x', line 3)"),
        ("[" * 5000, "is nested more than 50 deep"),
        ("<<<<<<< HEAD\na: 1\n=======\n", "A merge left marks in it."),
        ('"\\e[2J": 1\n"\\e[2J": 2\n', r'found duplicate key "\x1b[2J"'),
        ('train: {"\\e[2J": 1}\n', r"train.\x1b[2J is not known"),
    ],
    ids=lambda text: text[:20],
)
def test_unsafe_yaml_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError) as error:
        load_params(Params, tmp_path / "params.yaml")
    assert message in str(error.value)
    assert "\x1b" not in str(error.value)


def test_a_missing_file_says_where_to_run_from(tmp_path):
    with pytest.raises(ParamsError, match="repository's root"):
        load_params(Params, tmp_path / "params.yaml")


def test_parameters_cannot_be_changed_later():
    params = check_params(VALID, Params)
    with pytest.raises(ValueError, match="frozen"):
        params.random_seed = 1


# ---- the whole file


def test_dates_without_quotes_are_refused_as_dvc_refuses_them(tmp_path):
    (tmp_path / "params.yaml").write_text(
        "project: {name: a, experiment: b}\nlist: [{from: 2024-09-15}]\nat: 2024-09-15 10:00:00\n"
    )
    with pytest.raises(ParamsError) as raised:
        check_all(tmp_path)
    told = "DVC takes no dates: put it in quotes."
    assert f"params.yaml: list.0.from is 2024-09-15, and {told}" in str(raised.value)
    assert f"params.yaml: at is 2024-09-15 10:00:00, and {told}" in str(raised.value)


def test_a_quoted_date_is_a_date_if_its_type_says_so():
    """DVC does not accept dates without quotes."""

    class Cutoff(Section):
        cutoff: Annotated[date, Field(strict=False)]

    assert check_params({"cutoff": "2024-05-01"}, Cutoff).cutoff == date(2024, 5, 1)
    with pytest.raises(ParamsError, match="cutoff is '2024-13-01': it must be a valid date"):
        check_params({"cutoff": "2024-13-01"}, Cutoff)


def test_the_committed_file_is_valid():
    check_all(ROOT)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two processes, importable next to this repository's, and one in another language."""
    monkeypatch.syspath_prepend(tmp_path)
    write = {
        "lab/processes/one_for_this_test/params.py": "one_for_this_test: dict[str, int]",
        "lab/processes/two_for_this_test/params.py": "shared: dict[str, int]",
        "goals/params.py": None,
    }
    for file, field in write.items():
        (tmp_path / file).parent.mkdir(parents=True)
        if field:
            (tmp_path / file).write_text(
                "from lib.params import Section, Seed\n\n\n"
                f"class Params(Section):\n    random_seed: Seed\n    {field}\n"
            )
    (tmp_path / "lab/processes/in_r").mkdir()
    (tmp_path / "lab/processes/in_r/main").touch()
    yield tmp_path
    for name in [name for name in sys.modules if name.endswith("_for_this_test.params")]:
        del sys.modules[name]


CONTENT = """
random_seed: 1
experiment: e
one_for_this_test: {a: 1}
shared: {b: 2}
in_r: {whatever: yes}
"""


def check(project, text):
    (project / "params.yaml").write_text(text)
    check_all(project)


def test_each_section_is_checked_by_the_params_py_that_reads_it(project):
    check(project, CONTENT)
    with pytest.raises(ParamsError) as caught:
        check(project, CONTENT.replace("a: 1", "a: x").replace("b: 2", "b: y"))
    assert "one_for_this_test.a is 'x'" in str(caught.value)
    assert "shared.b is 'y'" in str(caught.value)


def test_an_unknown_section_is_refused_by_name(project):
    with pytest.raises(ParamsError) as caught:
        check(project, CONTENT + "sharde: {}\n")
    assert "params.yaml: sharde is not known: did you mean shared?" in str(caught.value)


def test_a_section_that_only_a_pipeline_reads_is_known(project):
    (project / "dvc.yaml").write_text(
        "stages:\n"
        "  fit:\n    foreach: ${models}\n    do:\n      cmd: fit ${item} ${rates.low}\n"
        "  old:\n    cmd: Rscript lab/old.R\n    params: [old_script, old_seed.first]\n"
    )
    (project / "lab/tuning").mkdir()
    (project / "lab/tuning/dvc.yaml").write_text(
        "stages:\n  sweep:\n    cmd: sweep\n    params:\n      - ../../params.yaml: [grid]\n"
    )
    (project / "pipelines/of mine").mkdir(parents=True)
    (project / "pipelines/of mine/dvc.yaml").write_text("stages: {a: {cmd: 'a ${deep}'}}\n")
    read = "models: [ridge]\nrates: {low: 1}\nold_script: {a: 1}\nold_seed: {first: 1}\ngrid: [1]\n"
    read += "deep: 1\n"
    check(project, CONTENT + read)
    with pytest.raises(ParamsError, match=r"sharde is not known: did you mean shared\?"):
        check(project, CONTENT + read + "sharde: {}\n")
    with pytest.raises(ParamsError, match=r"one_for_this_test.a is 'x'"):
        check(project, CONTENT.replace("a: 1", "a: x") + read)


def test_an_empty_file_is_one_problem(project):
    with pytest.raises(ParamsError) as caught:
        check(project, "# Nothing yet.\n")
    assert str(caught.value) == "params.yaml: the file is empty: it must be a mapping (key: value)."


def test_a_problem_of_several_processes_is_reported_once(project):
    with pytest.raises(ParamsError) as caught:
        check(project, CONTENT.replace("random_seed: 1", "random_seed: x"))
    assert str(caught.value).count("random_seed") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package\n", r"cannot be imported\. It may import lib"),
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("x = 1\nclass Params(:\n", r"cannot be imported\.\n  File \".*/params.py\", line 2\n"),
        ("x = 1\n<<<<<<< HEAD\n", r"params.py\", line 2\n"),
        ("x = 1\ny = Cont\n", r"\n  File \".*/params.py\", line 2, in <module>\n    y = Cont\n"),
        ("x = 1\ny = [].first\n", r"line 2, in <module>\n    y = \[\].first\n"),
        ("raise SystemExit(0)\n", r"line 1, in <module>\n    raise SystemExit"),
        ("x = 1\n", "has no class Params derived from Section"),
        ("Params = 1\n", "has no class Params derived from Section"),
    ],
)
def test_an_unusable_params_py_is_named_with_the_reason(project, text, message):
    (project / "lab/processes/one_for_this_test/params.py").write_text(text)
    with pytest.raises(ParamsError, match=message) as caught:
        check(project, CONTENT)
    output = str(caught.value)
    assert output.startswith("lab/processes/one_for_this_test/params.py")
    assert "importlib" not in output, "only the file's own frames are shown"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\n<<<<<<< HEAD\nb: 2\n", r"params.yaml is not YAML \(line [23]: .*A merge left"),
        (b"a: 1\na: 2\n", r"params.yaml is not YAML \(line 2: .*duplicate key"),
        (b"a: 1\nb: gr\xf6\xdfe\n", r"params.yaml, line 2: not UTF-8"),
    ],
)
def test_a_mistake_in_the_file_is_shown_with_its_line(tmp_path, content, message):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ParamsError, match=message) as caught:
        read_yaml(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)
