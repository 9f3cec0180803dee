"""Runs the goals for jobs, milestones and runtimes, so that all get the same verdicts."""

from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.files import read_json
from lib.repository import ROOT
from lib.text import last_line
from tools.command import run

NOTE = ROOT / ".goals.json"  # written by tools/goals/plugin.py


def goal_files() -> set[Path]:
    """The files in which pytest looks for goals."""
    return {f for name in ("*_test.py", "test_*.py") for f in (ROOT / "goals").rglob(name)}


def judge() -> tuple[dict[str, Any], str]:
    """The verdicts (summary, all_met, goals), and the printed output.

    If they could not be judged, they count as not met, and the summary says why.
    """
    NOTE.unlink(missing_ok=True)
    where = ("goals",) if (ROOT / "goals/Pipfile").exists() else ("--dev", ".")
    done = run("tools/within", *where, "python", "-m", "tools.goals", ok=False)
    try:
        found = read_json(NOTE)
    except (FileNotFoundError, UserError):
        why = last_line(done.stderr or done.stdout)
        found = {"summary": f"goals could not be judged: {why}", "all_met": False, "goals": []}
    return found, (done.stdout + done.stderr).strip()
