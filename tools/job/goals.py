"""Judges a run's results by the project's goals; whatever they say, results are shared.

goals            judges and notes what it found, before the results commit, which names it
goals --verdict  the job's last step: fails where a goal was missed
"""

import sys

from lib.errors import UserError
from lib.pipeline import SWEEPS
from lib.text import sentence
from tools.goals.judge import goal_files, judge
from tools.job.job import add_to_note, main, pipeline_file, read_note


def note_verdicts() -> None:
    """Note what was found; a project that has no goals notes nothing."""
    if pipeline_file() == SWEEPS:
        print("A sweep trains no model that is kept: there is nothing to judge.")
        return
    if not goal_files():
        print("There are no goals in goals/: nothing to judge.")
        return
    found, printed = judge()
    print(printed, flush=True)
    add_to_note(goals=found)


def verdict() -> None:
    """Say how it went; UserError, with what was wanted and reached, where a goal was missed."""
    goals = read_note().get("goals")
    if not goals:
        print("No goals were judged.")
        return
    if goals["all_met"]:
        print(f"{sentence(goals['summary'])}.")
        return
    lines = [f"The results are kept, but not good enough: {goals['summary']}."]
    for goal in goals["goals"]:
        if goal["state"] in ("missed", "not judged"):
            reached = f"{goal['reached']}, wanted {goal['goal']}"
            why = reached if goal["reached"] else goal["message"]
            lines.append(f"{goal['title']}: {goal['state']}, {why}")
    raise UserError("\n".join(lines))


if __name__ == "__main__":
    main(verdict if "--verdict" in sys.argv else note_verdicts)
