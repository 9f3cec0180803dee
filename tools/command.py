"""How a command ends: as it should, or with a line that says why not."""

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from lib.errors import UserError

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
        where = f" ({error.filename})" if error.filename else ""
        full = f"{error.strerror}{where}: the disk is full, or what the output goes to"
        sys.exit(f"{name}{full}. Make room, then run it again.")
    sys.exit(code if isinstance(code, int) else 0)


def forget_output() -> None:
    """Leave nothing that Python would try to print when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
