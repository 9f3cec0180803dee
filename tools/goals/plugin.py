"""Collects the verdicts on goals: a pytest plugin, loaded by pytest.ini and by `make goals`.

A goal is a test in goals/ that ends in `reached({name: value}, at_least=threshold)`; its
docstring's first line is the title and the rest the reason. The verdicts are written to
`.goals.json`, which `make goals` and the workflow read. Tests elsewhere are not affected.
"""

import os
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lib.errors import UserError
from lib.files import write_json
from lib.numbers import shown_beside
from lib.repository import ROOT
from lib.text import one_line, some_of
from tools.goals.judge import NOTE

GOALS = ROOT / "goals"
MAX_SHOWN = 10  # values of one goal
COMPARED = pytest.StashKey[list["Compared"]]()
ERROR = pytest.StashKey[BaseException]()  # the first error in the goal's own code
VERDICTS = pytest.StashKey[dict[str, dict[str, str]]]()
UNREADABLE: dict[str, dict[str, str]] = {}  # a collection report has no config


@dataclass(frozen=True)
class Compared:
    """The result of one call of `reached`."""

    goal: str
    reached: str
    met: bool


class Missed(pytest.fail.Exception):  # type: ignore[name-defined]  # pytest names no type
    """Raised by `reached` if a goal is missed."""


@pytest.fixture
def reached(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Record values; fail unless each is at least, or at most, the threshold."""

    def compare(
        found: Mapping[str, float],
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        unit: str = "",
    ) -> None:
        if (at_least is None) == (at_most is None):
            raise UserError("a goal has one threshold: at_least=… or at_most=…")
        if not isinstance(found, Mapping):
            text = one_line(repr(found))[:60]
            raise UserError(f"reached takes {{name: value}}, and got {text}")
        if not found:
            raise UserError("there is no value to compare")
        sign, wanted = ("≥", at_least) if at_least is not None else ("≤", at_most)
        threshold = number("the threshold", wanted)

        def meets(value: float) -> bool:
            return value >= threshold if sign == "≥" else value <= threshold

        each = [(one_line(str(name)), number(name, value)) for name, value in found.items()]
        if len(each) > MAX_SHOWN:  # such as one for each class: show those that miss first
            each.sort(key=lambda one: meets(one[1]))
        values = [value for _, value in each]
        unit = unit.strip()
        unit = unit if unit.startswith(("%", "°")) else f" {unit}".rstrip()
        texts = zip(each, shown_beside(values, threshold), strict=True)
        shown = some_of([f"{name} {text}{unit}".strip() for (name, _), text in texts], MAX_SHOWN)
        # The threshold gets as many digits as distinguish it from every value.
        goal = f"{sign} {max((shown_beside([threshold], v)[0] for v in values), key=len)}{unit}"
        met = all(map(meets, values))
        request.node.stash.setdefault(COMPARED, []).append(Compared(goal, shown, met))
        if not met:
            raise Missed(f"reached {shown}; the goal is {goal}", pytrace=False)

    return compare


def number(name: str, value: Any) -> float:
    """A value as a number, also one of NumPy's or torch's; UserError if it is not one."""
    if value is None:
        raise UserError(f"{name} has no value: it is null in its metrics file")
    if isinstance(value, int):
        return value
    try:
        if not isinstance(value, str):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"{name} is {one_line(repr(value))[:60]}, not a number")


def pytest_configure(config: pytest.Config) -> None:
    """Begin without verdicts."""
    config.stash[VERDICTS] = {}
    UNREADABLE.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Note the verdict on a goal."""
    report = yield
    if item.path.is_relative_to(GOALS) and (call.when == "call" or call.excinfo):
        error = call.excinfo.value if call.excinfo else None
        if error and not isinstance(error, (Missed, pytest.skip.Exception)):
            item.stash.setdefault(ERROR, error)
        item.config.stash[VERDICTS][item.nodeid] = verdict(item, error)
    return report


def verdict(item: pytest.Item, error: BaseException | None) -> dict[str, str]:
    """The verdict on one goal, from what it compared, whatever pytest's own outcome is."""
    title, _, reason = (getattr(item, "obj", None).__doc__ or item.name).strip().partition("\n")
    compared = item.stash.get(COMPARED, [])
    state = message = ""
    if ERROR in item.stash:
        state, message = "not judged", explain(item.stash[ERROR])
    elif not all(each.met for each in compared):
        state = "missed"
    elif isinstance(error, pytest.skip.Exception):
        state, message = "not applicable", error.msg or ""
    elif compared:
        state = "met"
    else:
        state, message = "not judged", "it ends without `reached(…)`, which compares"
    return {
        "title": title.rstrip("."),
        "reason": " ".join(reason.split()),
        "state": state,
        **shown_together(compared if state in ("met", "missed") else []),
        "message": message,
    }


def shown_together(compared: Sequence[Compared]) -> dict[str, str]:
    """The thresholds, once if they are the same, and the values reached."""
    wanted = [each.goal for each in compared]
    return {
        "goal": "; ".join(wanted if len({*wanted}) > 1 else wanted[:1]),
        "reached": "; ".join(each.reached for each in compared),
    }


def explain(error: BaseException) -> str:
    """Why a goal could not be judged, in one line."""
    if isinstance(error, FileNotFoundError) and error.filename:
        file = Path(str(error.filename))
        name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
        return f"{name} is missing: `make run`, or `dvc pull`."
    if isinstance(error, pytest.FixtureLookupError):
        return f"there is no fixture {error.argname}: goals/conftest.py has those of goals."
    if isinstance(error, UserError):
        return str(error).replace("\n", " ").replace(f"{ROOT}/", "")
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{place_of(error)}"


def place_of(error: BaseException) -> str:
    """The last line of goals/ in an error's traceback, in brackets."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).is_relative_to(GOALS)]
    return f" ({Path(own[-1].filename).relative_to(ROOT)}, line {own[-1].lineno})" if own else ""


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Record a file of goals that cannot be imported."""
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
    """Write `.goals.json`, if there are goals and all of them were run."""
    verdicts = session.config.stash[VERDICTS]
    found = [*UNREADABLE.values(), *verdicts.values()]
    all_goals = {item.nodeid for item in session.items if item.path.is_relative_to(GOALS)}
    if not found or not all_goals <= verdicts.keys():
        return
    judged = [goal for goal in found if goal["state"] != "not applicable"]
    met = [goal for goal in judged if goal["state"] == "met"]
    summary = f"{len(met)} of {len(judged)} goals met" if judged else "no goal applies"
    write_json(NOTE, {"summary": summary, "all_met": len(met) == len(judged), "goals": found})
