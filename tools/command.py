"""Commands: how one of ours ends, as it should or with a line that says why not; how others run."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lib.errors import UserError
from lib.repository import ROOT
from lib.text import last_line

FULL = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC)  # what a disk says that takes no more


def as_command(main: Callable[[], object], name: str = "") -> NoReturn:
    """Run a command to its end; the exit code is the number that `main` returns, else 0.

    A user's mistake ends it with its message, and so does a full disk; Ctrl-C, and a reader of its
    output that has gone away, as `head` does, end it without a word. What else `main` raises is a
    bug of ours, and keeps its traceback.

    Args:
        main: what it does.
        name: what its message begins with, as "relog: ".
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
        forget_output()
        sys.exit(141)
    except OSError as error:
        if error.errno not in FULL:
            raise
        forget_output()
        sys.exit(f"{name}{told_full(error)}")
    sys.exit(code if isinstance(code, int) else 0)


def told_full(error: OSError) -> str:
    """What a disk that is full (FULL) means, and what to do."""
    where = f" ({error.filename})" if error.filename else ""
    full = f"{error.strerror}{where}: the disk is full, or what the output goes to"
    return f"{full}. Make room, then run it again."


def finished(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Another command, with what it printed, for those who look at its exit code.

    Args:
        command: with its arguments.
        options: further ones of `subprocess.run`.
    """
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False, **options
    )


def run(*command: str, ok: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
    """A command of this project's, finished; UserError where it failed and `ok` was asked for."""
    done = finished(command, cwd=ROOT, env=os.environ | extra)
    if ok and done.returncode:
        raise UserError(
            f"`{' '.join(command[:3])}` failed: {last_line(done.stderr or done.stdout)}"
        )
    return done


def first_error(stderr: str) -> str:
    """The first of git's or DVC's errors: behind it are counts, guesses and advice."""
    marks = ("fatal: ", "error: ", "ERROR: ")
    errors = [line for line in stderr.splitlines() if line.startswith(marks)]
    return last_line(errors[0] if errors else stderr).rstrip(".")


def forget_output() -> None:
    """Leave nothing that Python would try to print when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
