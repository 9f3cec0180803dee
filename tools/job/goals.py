"""Judges a run's results by the project's goals; whatever they say, results are shared.

goals            judges and notes what it found, before the results commit, which names it
goals --verdict  the job's last step: fails where a goal was missed
"""

import json
import sys

from lib.errors import UserError
from lib.repository import ROOT
from tools.job.experiment import is_sweep
from tools.job.job import add_to_note, last_line, main, read_note, run

FOUND = ROOT / ".goals.json"


def judge() -> None:
    """Note what `python -m tools.goals` found; a project that has no goals notes nothing."""
    if is_sweep():
        print("A sweep trains no model that is kept: there is nothing to judge.")
        return
    if not list((ROOT / "goals").glob("*_test.py")):
        print("There are no goals in goals/: nothing to judge.")
        return
    FOUND.unlink(missing_ok=True)
    where = ("goals",) if (ROOT / "goals" / "Pipfile").exists() else ("--dev", ".")
    done = run("tools/within", *where, "python", "-m", "tools.goals", ok=False)
    print((done.stdout + done.stderr).strip(), flush=True)
    try:
        found = json.loads(FOUND.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        why = last_line(done.stderr or done.stdout)
        found = {"summary": f"goals could not be judged: {why}", "all_met": False, "goals": []}
    add_to_note(goals=found)


def verdict() -> None:
    """Say how it went; UserError, with what was wanted and reached, where a goal was missed."""
    goals = read_note().get("goals")
    if not goals:
        print("No goals were judged.")
        return
    if goals["all_met"]:
        print(f"{goals['summary'].capitalize()}.")
        return
    lines = [
        f"{goal['title']}: {goal['state']}"
        + (
            f", {goal['reached']}, wanted {goal['goal']}"
            if goal["reached"]
            else f", {goal['message']}"
        )
        for goal in goals["goals"]
        if goal["state"] in ("missed", "not judged")
    ]
    raise UserError(
        "\n".join([f"The results are kept, but not good enough: {goals['summary']}.", *lines])
    )


if __name__ == "__main__":
    main(verdict if "--verdict" in sys.argv else judge)
