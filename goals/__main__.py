"""Judges the results on disk, and shows the verdicts as a table: `make goals`.

lib/within goals python -m goals
"""

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
SIGNS = {"met": "green", "missed": "red", "not judged": "red", "not applicable": "dim"}


def main() -> int:
    """The exit code: 0 where every goal that applies is met."""
    note = ROOT / ".goals.json"
    note.unlink(missing_ok=True)
    # Its own table stands in place of pytest's output, which some of pytest.ini's options are for.
    quiet = ["-p", "no:terminal", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
    quiet.append("--continue-on-collection-errors")
    ended = pytest.main([str(ROOT / "goals"), *quiet])
    if ended == pytest.ExitCode.NO_TESTS_COLLECTED:
        print("There are no goals in goals/ yet.")
        return 0
    if not note.exists():
        print(f"The goals could not be judged: `pytest goals` says why ({ended!r}).")
        return 2
    found = json.loads(note.read_text(encoding="utf-8"))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 150
    table = Table("goal", "wanted", "reached", "", show_lines=True)
    for goal in found["goals"]:
        title = f"[bold]{goal['title']}[/bold]\n{goal['reason']}".strip()
        state = f"[{SIGNS[goal['state']]}]{goal['state']}[/]"
        table.add_row(title, goal["goal"], goal["reached"] or goal["said"], state)
    console.print(table)
    console.print(f"[bold]{found['summary']}[/bold]")
    return 0 if found["all_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
