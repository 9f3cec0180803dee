"""How commands end: after a user's mistake, a full disk, Ctrl-C, or when nobody reads output."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.unittest


def ended(body, redirection=""):
    """The exit code, stdout and stderr of a command, given the lines of its `main`."""
    lines = ["import errno, sys", "from lib.errors import UserError"]
    lines += ["from tools.command import as_command", "def main():"]
    lines += [f"    {line}" for line in body.splitlines()]
    program = "\n".join([*lines, "as_command(main)"])
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, program],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("print('done')", 0, ""),
        ("return 3", 3, ""),
        ("sys.exit('Which file?')", 1, "Which file?\n"),
        ("raise UserError('lr is 2: smaller than 1')", 1, "lr is 2: smaller than 1\n"),
        ("raise KeyboardInterrupt", 130, ""),
        (
            "raise OSError(errno.ENOSPC, 'No space left on device', 'a/file')",
            1,
            "No space left on device (a/file): the disk is full, or what the output goes to. "
            "Make room, then run it again.\n",
        ),
        (
            "import sqlite3\nraise sqlite3.OperationalError('disk I/O error')",
            1,
            "A database of DVC or MLflow cannot be used (disk I/O error): is the disk full, or "
            "read-only? Make room, then run it again.\n",
        ),
        (
            "raise OSError(errno.EROFS, 'Read-only file system', 'a/file')",
            1,
            "Read-only file system (a/file): it is read-only, not executable, or another user's.\n",
        ),
    ],
    ids=[
        "success",
        "exit code",
        "sys.exit",
        "user error",
        "Ctrl-C",
        "full disk",
        "database",
        "read-only",
    ],
)
def test_a_command_ends_with_at_most_one_line(body, code, message):
    assert ended(body) == (code, "done\n" if "print" in body else "", message)


def test_a_bug_keeps_its_traceback():
    code, _, error = ended("{}['lr']")
    assert code == 1
    assert error.startswith("Traceback")
    assert error.endswith("KeyError: 'lr'\n")
    assert "Traceback" in ended("open('no such file')")[2]
    query = "import sqlite3\nsqlite3.connect(':memory:').execute('SELECT 1 FROM disks')"
    assert "Traceback" in ended(query)[2]


@pytest.mark.parametrize("body", ["print('x')", "print('x'); sys.exit('2 to fill in')"])
def test_output_that_nobody_reads_causes_no_traceback(body):
    assert ended(f"import time\ntime.sleep(0.5)\n{body}", "| true")[2] in ("", "2 to fill in\n")
    assert not Path("/dev/full").exists() or ended(body, ">/dev/full")[::2] == (
        1,
        "No space left on device: the disk is full, or what the output goes to. Make room, then "
        "run it again.\n",
    )
    assert "Traceback" not in ended(body, ">&-")[2]
