"""Has the results on disk judged: the job, milestones and runtimes ask here, and find the same."""

from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.files import read_json
from lib.repository import ROOT
from lib.text import last_line
from tools.command import run

NOTE = ROOT / ".goals.json"  # what was found, as tools/goals/plugin.py writes it


def goal_files() -> set[Path]:
    """The files that pytest looks for goals in."""
    return {f for name in ("*_test.py", "test_*.py") for f in (ROOT / "goals").rglob(name)}


def judge() -> tuple[dict[str, Any], str]:
    """The verdicts (summary, all_met, and each goal's), and what was printed about them.

    Where they could not be judged, the summary says why, and they are not met.
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
