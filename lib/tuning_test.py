"""A sweep depends only on its seed and batch, computes nothing twice, and survives bad trials."""

import importlib.util
import math
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import engines
from lib.engines import on_this_machine, refuse_absent_cluster
from lib.errors import ShortageError, UserError
from lib.params import Real, Section
from lib.space import Tuning, space_of
from lib.sweeps import importances, trial_rows, write_sweep
from lib.tuning import batch_sizes, fingerprint, suggest, tune

pytestmark = pytest.mark.unittest


class Model(Section):
    x: Real
    y: Real
    size: int
    kind: str


SPACE = space_of(Model).model_validate(
    {
        "x": {"uniform": [-1.0, 1.0]},
        "y": {"log": [0.01, 1.0]},
        "size": {"integer": [1, 9]},
        "kind": {"choice": ["a", "b"]},
    }
)
SETTINGS = {"objective": "validation.loss", "better": "smaller", "trials": 12, "batch": 4}


def loss(_, values, budget):
    """A quick loss, for which later trials of a batch finish first."""
    time.sleep(0.02 * (values["size"] % 3))
    value = (values["x"] - 0.3) ** 2 + values["y"] + values["size"] / (budget or 1)
    return {"validation": {"loss": value}}


def profit(_, values, budget):
    """The opposite of `loss`."""
    return {"validation": {"profit": -loss(None, values, budget)["validation"]["loss"]}}


def counted(folder, values, budget):
    """As `loss`, with a file for each call."""
    count = len(list(Path(folder).iterdir()))
    (Path(folder) / f"{values['x']}-{budget}-{count}").touch()
    return loss(None, values, budget)


def bad(_, values, budget):
    """As `loss`, but fails for x below 0, in several ways, and is NaN for x above 0.5."""
    if values["x"] < -0.5:
        if values["kind"] == "b":
            sys.exit("no such option")  # as some libraries do
        raise ZeroDivisionError("no such x")
    if values["x"] < 0:
        raise UserError(f"x is {values['x']}: it must be at least 0.")
    found = loss(None, values, budget)
    return {"validation": {"loss": math.nan}} if values["x"] > 0.5 else found


def swept(tmp_path, run=loss, data=None, **changed):
    settings = Tuning.model_validate(SETTINGS | {"workers": 1} | changed)
    return tune(
        partial(suggest, space=SPACE),
        run,
        data,
        settings,
        seed=0,
        origin=fingerprint("data", 0),
        folder=tmp_path / "trials",
    )


def test_another_batch_size_gives_other_trials(tmp_path):
    small = swept(tmp_path / "one", trials=16, batch=4)
    assert trial_rows(small) != trial_rows(swept(tmp_path / "two", trials=16, batch=8))


def test_a_longer_sweep_begins_with_the_trials_of_a_shorter_one(tmp_path):
    longer = trial_rows(swept(tmp_path / "one", trials=12))
    assert longer[:6] == trial_rows(swept(tmp_path / "two", trials=6))


def test_no_trial_is_repeated_for_more_trials_or_another_objective(tmp_path):
    (tmp_path / "count").mkdir()
    swept(tmp_path, counted, tmp_path / "count", trials=6)
    again = swept(tmp_path, counted, tmp_path / "count", trials=12)
    assert len(list((tmp_path / "count").iterdir())) == 12
    assert trial_rows(again) == trial_rows(swept(tmp_path / "other"))


def test_a_damaged_file_counts_as_a_trial_to_repeat(tmp_path):
    first = trial_rows(swept(tmp_path))
    for file in (tmp_path / "trials").glob("*/*.json"):
        file.write_text(file.read_text()[:20])
    assert trial_rows(swept(tmp_path)) == first


def test_the_better_half_of_a_batch_goes_on_to_the_next_rung(tmp_path):
    sweep = swept(tmp_path, rungs=[1, 3, 9])
    assert (
        batch_sizes(Tuning.model_validate(SETTINGS | {"workers": 1, "rungs": [1, 3, 9]}))
        == [[4, 2, 1]] * 3
    )
    for start in range(0, 12, 4):
        batch = sweep.trials[start : start + 4]
        assert sorted(trial.budget for trial in batch) == [1, 1, 3, 9]
        first = [loss(None, trial.values, 1)["validation"]["loss"] for trial in batch]
        continued = [trial.budget > 1 for trial in batch]
        assert sorted(zip(first, continued, strict=True), key=lambda pair: pair[0])[1][1]
        assert [trial.state == "complete" for trial in batch].count(True) == 1
    assert sweep.best.budget == 9


def test_a_failed_trial_says_why_and_the_others_continue(tmp_path):
    sweep = swept(tmp_path, bad, trials=16)
    by_state = {trial.state: trial for trial in sweep.trials}
    assert set(by_state) == {"complete", "failed"}
    reasons = {trial.reason for trial in sweep.trials if trial.state == "failed"}
    assert "validation.loss is no finite number." in reasons
    assert any("it must be at least 0" in reason for reason in reasons)
    assert {"ZeroDivisionError: no such x", "SystemExit: no such option"} <= reasons
    assert 0 <= sweep.best.values["x"] <= 0.5


def late(_, values, budget):
    """As `loss`, but fails for the last budget."""
    return {"validation": {"loss": math.nan}} if budget == 9 else loss(None, values, budget)


def test_failures_after_the_first_rung_are_told_with_their_reason(tmp_path):
    expected = (
        r"No trial is complete: 3 of 12 failed, and rungs ended the others. .* no finite number"
    )
    with pytest.raises(UserError, match=expected):
        swept(tmp_path, late, rungs=[1, 3, 9])


def edited(file, values, budget):
    """As `loss`, after an edit of this module's code, as a worker that starts later sees it."""
    engines.SOURCES["lib.tuning_test"] = sys.modules["lib.tuning_test"].__spec__, "edited"
    return loss(None, values, budget)


def test_code_that_was_edited_during_the_sweep_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "SOURCES", {})
    message = r"lib.tuning_test is not as it was when the sweep began: start the sweep again"
    with pytest.raises(UserError, match=message):
        swept(tmp_path, edited, workers=2, batch=8)


def test_a_module_that_is_reloaded_counts_with_its_new_code(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "SOURCES", {})
    file = tmp_path / "reloaded.py"
    file.write_text("number = 1\n")
    spec = importlib.util.spec_from_file_location("lab.reloaded", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lab.reloaded", module)
    before = engines.sources()
    file.write_text("number = 12\n")
    assert engines.sources() == before, "the module in memory is the old one"
    module.__spec__ = importlib.util.spec_from_file_location("lab.reloaded", file)  # as reload does
    assert engines.sources()["lab.reloaded"] != before["lab.reloaded"]


def test_a_sweep_may_run_in_another_thread_than_the_main_one(tmp_path):
    with ThreadPoolExecutor(1) as thread:
        assert len(thread.submit(swept, tmp_path, workers=2).result().trials)


def short(enough, values, budget):
    """As `loss`, but large sizes run out of memory until the file `enough` exists."""
    if values["size"] > 3 and not enough.exists():
        raise ShortageError(f"size is {values['size']}: that is more than fits into the memory.")
    return loss(None, values, budget)


def test_a_trial_that_ran_out_of_memory_is_repeated_next_time(tmp_path):
    enough = tmp_path / "enough"
    reasons = {trial.reason for trial in swept(tmp_path, short, enough).trials}
    assert any(reason.endswith("that is more than fits into the memory.") for reason in reasons)
    enough.touch()
    again = swept(tmp_path, short, enough)
    assert {trial.state for trial in again.trials} == {"complete"}


def test_the_best_is_the_largest_where_larger_is_better(tmp_path):
    sweep = swept(tmp_path, profit, objective="validation.profit", better="larger")
    assert sweep.best.objective == max(trial.objective for trial in sweep.trials)


@pytest.mark.parametrize("better", ["larger", "smaller"])
def test_a_sweep_for_the_worst_is_warned_of(tmp_path, caplog, better):
    swept(tmp_path, better=better, trials=4)
    told = "better is larger, but by its name validation.loss is better when it is smaller"
    assert (told in caplog.text) == (better == "larger")


@pytest.mark.parametrize(
    ("name", "hint"), [("validation.los", "did you mean validation.loss"), ("x", "name another")]
)
def test_an_unknown_objective_is_reported_with_those_allowed(tmp_path, name, hint):
    with pytest.raises(UserError, match=f"{name} is not known: {hint}. Allowed here: "):
        swept(tmp_path, objective=name)


def test_an_error_after_the_first_trial_adds_no_warning(recwarn):
    jobs = {Path(str(n)): ({}, None) for n in range(20)}
    results = on_this_machine(lambda *_: {"loss": 0.5}, None, 2, jobs)
    next(results)
    results.close()
    assert [str(each.message) for each in recwarn] == []


def test_a_missing_cluster_is_reported_at_once(tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nothing listens there, and nothing else can
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UserError) as caught:
            swept(tmp_path)
    assert f"RAY_ADDRESS is {address}, and no cluster is there: " in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:99999", f"{'a' * 64}.b:6379"])
def test_impossible_addresses_are_reported_the_same_way(address):
    with pytest.raises(UserError, match=f"RAY_ADDRESS is {address}, and no cluster is there: "):
        refuse_absent_cluster("RAY_ADDRESS", address)


def test_a_head_that_takes_a_connection_is_not_refused():
    with socket.create_server(("127.0.0.1", 0)) as head:
        refuse_absent_cluster("RAY_ADDRESS", f"127.0.0.1:{head.getsockname()[1]}")


def test_an_ipv6_address_is_used_without_its_brackets(monkeypatch):
    asked = []
    monkeypatch.setattr(
        socket, "create_connection", lambda to, **_: asked.append(to) or socket.socket()
    )
    refuse_absent_cluster("RAY_ADDRESS", "[fd00::5]:6379")
    assert asked == [("fd00::5", 6379)]


@pytest.mark.parametrize("address", ["auto", "ray://127.0.0.1:1", "127.0.0.1"])
def test_addresses_without_host_and_port_are_left_to_ray(address):
    refuse_absent_cluster("RAY_ADDRESS", address)


def arrays(_, values, budget):
    """As `loss`, with numpy's numbers and other values in place of Python's numbers."""
    found = loss(None, values, budget)["validation"]["loss"]
    return {
        "loss": np.float32(found),
        "size": np.int64(values["size"]),
        "array": np.array(found),
        "each": [found],
    }


def test_numpy_numbers_and_zero_dimensional_arrays_are_metrics(tmp_path):
    metrics = swept(tmp_path, arrays, objective="loss").best.metrics
    assert list(metrics) == ["loss", "size", "array"]
    assert metrics["loss"] == pytest.approx(metrics["array"])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (arrays, r"no number that is called each, but loss \(float\), .*, each \(list\): return"),
        (lambda *_: {"each": "good"}, r"no number that is called each, but each \(str\): "),
        (lambda *_: {}, "no number that is called each, but nothing: "),
        (lambda *_: 0.5, "no number that is called each, but float: "),
    ],
)
def test_a_non_numeric_objective_is_reported_with_what_was_returned(tmp_path, run, message):
    for _ in ("computed", "kept"):
        with pytest.raises(UserError, match=message):
            swept(tmp_path, run, objective="each")


def test_outputs_of_a_sweep_are_the_same_to_the_byte(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name
        sweep = swept(folder)
        write_sweep(sweep, folder / "out", folder / "metrics.json", seed=0, tunes="model")
    files = sorted(path.name for path in (tmp_path / "one/out").iterdir())
    assert files == [
        *("history.csv", "history.png", "importances.csv", "importances.png", "slices.png"),
        "trials.csv",
    ]
    for file in [*(f"out/{name}" for name in files), "metrics.json"]:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_sweep_of_equal_trials_has_an_empty_table_of_importances(tmp_path):
    sweep = swept(tmp_path, lambda *_: {"validation": {"loss": 0.5}})
    write_sweep(sweep, tmp_path / "out", tmp_path / "metrics.json", seed=0, tunes="model")
    assert (tmp_path / "out/importances.csv").read_text() == "parameter,importance\n"


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("scale", [1e200, 1e308])
def test_losses_with_overflowing_squares_have_no_importances(tmp_path, scale):
    sweep = swept(tmp_path, lambda _, values, __: {"validation": {"loss": scale * values["y"]}})
    assert importances(sweep, seed=0) == {}


def test_a_fingerprint_changes_with_each_part():
    assert fingerprint("a", 1) == fingerprint("a", 1)
    assert len({fingerprint("a", 1), fingerprint("a", 2), fingerprint("b", 1)}) == 3


def test_a_fingerprint_of_tables_changes_with_each_value_and_name():
    table = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None]})
    assert fingerprint(table) == fingerprint(table.copy())
    others = [table.replace(2.0, 3.0), table.rename(columns={"a": "c"}), table["a"], table["b"]]
    assert len({fingerprint(each) for each in (table, *others)}) == 5


def test_a_fingerprint_of_arrays_is_of_their_content():
    def arrays(last):
        texts = np.array(["small", "".join(["larg", last]), None], dtype=object)
        return texts, np.array(["2026-01-01", f"2026-01-{len(last):02}"], dtype="M8[D]")

    for one, same, other in zip(arrays("e"), arrays("e"), arrays("est"), strict=True):
        assert fingerprint(one) == fingerprint(same)
        assert fingerprint(one) != fingerprint(other)
    columns = np.arange(6.0).reshape(2, 3)
    assert fingerprint(columns.T) == fingerprint(columns.T.copy()) != fingerprint(columns)
