"""How commands of this project end (exit code, error line), and how they run other commands."""

import errno
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lib.errors import UserError
from lib.repository import ROOT
from lib.text import last_line

DISK_FULL = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC)  # a full disk, a quota, a file size limit
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


def as_command(main: Callable[[], object], name: str = "") -> NoReturn:
    """Run `main` and exit with the number that it returns, or 0.

    A UserError and a disk that cannot be used exit with a one-line message; Ctrl-C and a closed
    pipe (`| head`) exit silently. Any other exception is a bug here and keeps its traceback.

    Args:
        main: the command.
        name: prefix of the message, such as "relog: ".
    """
    try:
        try:
            code = main()
        finally:
            print(end="", flush=True)
    except UserError as error:
        sys.exit(f"{name}{error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        discard_output()
        sys.exit(141)
    except (OSError, sqlite3.Error) as error:
        if not (problem := disk_problem(error)):
            raise
        discard_output()
        sys.exit(f"{name}{problem}")
    sys.exit(code if isinstance(code, int) else 0)


def disk_problem(error: OSError | sqlite3.Error) -> str:
    """What is wrong with a disk and what to do, in a line; empty if the error has another cause."""
    if isinstance(error, sqlite3.Error):
        if not re.search("disk I/O|disk is full|readonly database|unable to open", str(error)):
            return ""
        return (
            f"A database of DVC or MLflow cannot be used ({error}): is the disk full, or "
            "read-only? Make room, then run it again."
        )
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in DISK_FULL:
        full = f"{error.strerror}{where}: the disk is full, or what the output goes to"
        return f"{full}. Make room, then run it again."
    if error.errno in FORBIDDEN and where:
        return f"{error.strerror}{where}: it is read-only, not executable, or another user's."
    return ""


def captured(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and capture its output; the caller checks the exit code.

    Args:
        command: the program and its arguments.
        options: passed on to `subprocess.run`.
    """
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False, **options
    )


def run(*command: str, ok: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository root; UserError if it fails, unless `ok` is False."""
    done = captured(command, cwd=ROOT, env=os.environ | extra)
    if ok and done.returncode:
        raise UserError(
            f"`{' '.join(command[:3])}` failed: {last_line(done.stderr or done.stdout)}"
        )
    return done


def first_error(stderr: str) -> str:
    """The first error line of git or DVC; the lines after it are counts, guesses and advice.

    Not for `dvc repro`, whose stages print errors of their own: see tools/job/experiment.py.
    """
    marks = ("fatal: ", "error: ", "ERROR: ")
    errors = [line for line in stderr.splitlines() if line.startswith(marks)]
    return last_line(errors[0] if errors else stderr).rstrip(".")


def discard_output() -> None:
    """Point stdout at /dev/null, so that Python's flush at exit cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
