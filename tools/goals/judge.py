"""Has the results on disk judged: the job, milestones and runtimes ask here, and find the same."""

import json
import subprocess
from pathlib import Path
from typing import Any

from lib.repository import ROOT
from lib.text import last_line

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
    done = subprocess.run(
        ["tools/within", *where, "python", "-m", "tools.goals"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    try:
        found = json.loads(NOTE.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        why = last_line(done.stderr or done.stdout)
        found = {"summary": f"goals could not be judged: {why}", "all_met": False, "goals": []}
    return found, (done.stdout + done.stderr).strip()
