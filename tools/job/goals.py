"""Judges a run's results by the project's goals; results are shared whatever the verdict.

goals            judges and records the verdicts for the results commit, which names them
goals --verdict  the job's last step: fails if a goal was missed
"""

import sys

from lib.errors import UserError
from lib.pipeline import SWEEPS
from lib.text import sentence
from tools.goals.judge import goal_files, judge
from tools.job.job import add_to_note, main, pipeline_file, read_note


def note_verdicts() -> None:
    """Judge the goals and record the verdicts; a project without goals records nothing."""
    if pipeline_file() == SWEEPS:
        print("A sweep trains no model that is kept: there is nothing to judge.")
        return
    if not goal_files():
        print("There are no goals in goals/: nothing to judge.")
        return
    # Stays if this is ended, by the workflow's time limit for example.
    unfinished = "goals could not be judged: they were stopped before their end"
    add_to_note(goals={"summary": unfinished, "all_met": False, "goals": []})
    found, printed = judge()
    print(printed, flush=True)
    add_to_note(goals=found)


def verdict() -> None:
    """Print the verdict; UserError, with values and thresholds, if a goal was missed."""
    goals = read_note().get("goals")
    if not goals and goal_files() and pipeline_file() != SWEEPS:
        raise UserError("No goals were judged: the log of the step `Judge goals` says why.")
    if not goals:
        print("No goals were judged.")
        return
    if goals["all_met"]:
        print(f"{sentence(goals['summary'])}.")
        return
    but = "not good enough: " if goals["goals"] else ""
    lines = [f"The results are kept, but {but}{goals['summary']}."]
    for goal in goals["goals"]:
        if goal["state"] in ("missed", "not judged"):
            reached = f"{goal['reached']}, wanted {goal['goal']}"
            why = reached if goal["reached"] else goal["message"]
            lines.append(f"{goal['title']}: {goal['state']}, {why}")
    raise UserError("\n".join(lines))


if __name__ == "__main__":
    main(verdict if "--verdict" in sys.argv else note_verdicts)
