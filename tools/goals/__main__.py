"""Judges the results on disk and shows the verdicts as a table: `make goals`.

tools/within goals python -m tools.goals
"""

import os
import subprocess
import sys

import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lib.files import read_json
from lib.repository import ROOT
from tools.command import as_command
from tools.goals.judge import NOTE
from tools.goals.plugin import GOALS

COLOURS = {"met": "green", "missed": "red", "not judged": "red", "not applicable": "dim"}


def main() -> int:
    """Run the goals and print the table; the exit code, 0 if every goal that applies is met."""
    NOTE.unlink(missing_ok=True)
    # The table replaces pytest's output.
    quiet = ["-p", "no:terminal", "-p", "no:cacheprovider"]
    options = ["-o", "addopts=--import-mode=importlib", "--continue-on-collection-errors"]
    # A relative path: in an absolute one, pytest would read a bracket as the id of a test case.
    command = [sys.executable, "-m", "pytest", GOALS.name, *quiet, *options]
    # In a process of its own: a goal, or a library that it imports, may crash Python.
    command += ["-p", "tools.goals.plugin"]
    own = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    ended = subprocess.run(command, cwd=ROOT, env=own, check=False).returncode
    if ended == pytest.ExitCode.NO_TESTS_COLLECTED:
        print("There are no goals in goals/ yet.")
        return 0
    if not NOTE.exists():
        print(
            f"No verdict on the goals: pytest ended with exit code {ended} before all were "
            "judged: `pytest -v goals` shows where."
        )
        return 2
    found = read_json(NOTE)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 150
    table = Table("goal", "wanted", "reached", "", show_lines=True)
    for goal in found["goals"]:
        title = f"[bold]{escape(goal['title'])}[/bold]\n{escape(goal['reason'])}".strip()
        state = f"[{COLOURS[goal['state']]}]{goal['state']}[/]"
        what = escape(goal["reached"] or goal["message"])
        table.add_row(title, escape(goal["goal"]), what, state)
    console.print(table)
    console.print(f"[bold]{found['summary']}[/bold]")
    return 0 if found["all_met"] else 1


if __name__ == "__main__":
    as_command(main)
