"""Collects the verdicts on goals: a pytest plugin, loaded by pytest.ini and by `make goals`.

A goal is a test in goals/ whose docstring's first line is its title and the rest its reason, and
which ends in `reached(value, at_least=threshold)`. What was found stands in `.goals.json`
afterwards, which `make goals` and the workflow read. Tests elsewhere are not touched.
"""

import os
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lib.errors import UserError
from lib.files import write_json
from lib.numbers import shown_alike, shown_number
from lib.repository import ROOT
from tools.goals.judge import NOTE

GOALS = ROOT / "goals"
REACHED = pytest.StashKey[dict[str, str]]()
VERDICTS = pytest.StashKey[dict[str, dict[str, str]]]()
UNREADABLE: dict[str, dict[str, str]] = {}  # a report of collection knows no configuration


@pytest.fixture
def reached(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Notes what was reached; fails unless each value is at least, or at most, the threshold."""

    def compare(
        found: Mapping[str, float],
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        unit: str = "",
    ) -> None:
        if (at_least is None) == (at_most is None):
            raise UserError("a goal has one threshold: at_least=… or at_most=…")
        if not found:
            raise UserError("there is no value to compare")
        sign, threshold = ("≥", at_least) if at_least is not None else ("≤", at_most)
        assert threshold is not None
        unit = unit.strip()
        unit = unit if unit.startswith(("%", "°")) else f" {unit}".rstrip()
        values = zip(found, shown_alike([*found.values()]), strict=True)
        shown = ", ".join(f"{name} {value}{unit}".strip() for name, value in values)
        goal = f"{sign} {shown_number(threshold)}{unit}"
        request.node.stash[REACHED] = {"goal": goal, "reached": shown}
        met = (v >= threshold if sign == "≥" else v <= threshold for v in found.values())
        if not all(met):
            pytest.fail(f"reached {shown}; the goal is {goal}", pytrace=False)

    return compare


def pytest_configure(config: pytest.Config) -> None:
    """Begin without verdicts."""
    config.stash[VERDICTS] = {}
    UNREADABLE.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Note the verdict on a goal."""
    report = yield
    is_goal = item.path.is_relative_to(GOALS)
    if is_goal and (call.when == "call" or report.skipped or report.failed):
        error = call.excinfo.value if call.excinfo else None
        item.config.stash[VERDICTS][item.nodeid] = verdict(item, report, error)
    return report


def verdict(
    item: pytest.Item, report: pytest.TestReport, error: BaseException | None
) -> dict[str, str]:
    """What is to be known of one goal."""
    title, _, reason = (getattr(item, "obj", None).__doc__ or item.name).strip().partition("\n")
    found = item.stash.get(REACHED, {"goal": "", "reached": ""})
    message = ""
    if report.skipped:
        state, message = "not applicable", getattr(error, "msg", "")
    elif report.passed and found["goal"]:
        state = "met"
    elif report.passed:
        state, message = "not judged", "it ends without `reached(…)`, which compares"
    elif found["goal"]:
        state = "missed"
    else:
        state, message = "not judged", explain(error)
    return {
        "title": title.rstrip("."),
        "reason": " ".join(reason.split()),
        "state": state,
        **found,
        "message": message,
    }


def explain(error: BaseException | None) -> str:
    """Why a goal could not be judged, in a line."""
    if isinstance(error, FileNotFoundError):
        file = Path(str(error.filename))
        name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
        return f"{name} is missing: `make run`, or `dvc pull`."
    if isinstance(error, UserError):
        return str(error).replace("\n", " ")
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{place_of(error)}"


def place_of(error: BaseException | None) -> str:
    """The last line of goals/ that an error came through, in brackets."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    own = [f for f in frames if Path(f.filename).is_relative_to(GOALS)]
    return f" ({Path(own[-1].filename).relative_to(ROOT)}, line {own[-1].lineno})" if own else ""


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note a file of goals that cannot even be read."""
    if report.failed and (ROOT / report.nodeid).is_relative_to(GOALS):
        text = str(report.longrepr).strip()
        last = text.splitlines()[-1].removeprefix("E").strip()
        # As pytest and Python write them: `goals/a_test.py:3: in …`, `File "…", line 3`.
        places = re.findall(r'(?m)^(?:E +File ")?([^\s"][^"\n]*?)(?:", line |:)(\d+)', text)
        own = [(file, line) for file, line in places if (ROOT / file).is_relative_to(GOALS)]
        where = f" ({os.path.relpath(own[-1][0], ROOT)}, line {own[-1][1]})" if own else ""
        UNREADABLE[report.nodeid] = {
            "title": Path(report.nodeid).name,
            "reason": "",
            "state": "not judged",
            "goal": "",
            "reached": "",
            "message": f"{last}{where}",
        }


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write `.goals.json`, where there were goals."""
    found = [*UNREADABLE.values(), *session.config.stash[VERDICTS].values()]
    if not found:
        return
    judged = [goal for goal in found if goal["state"] != "not applicable"]
    met = [goal for goal in judged if goal["state"] == "met"]
    summary = f"{len(met)} of {len(judged)} goals met" if judged else "no goal applies"
    write_json(NOTE, {"summary": summary, "all_met": len(met) == len(judged), "goals": found})
