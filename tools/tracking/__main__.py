"""The tracker's commands.

    python -m tools.tracking follow FOLDER PARENT NAME [ARGUMENT...]    by lab/processes/run
    python -m tools.tracking relog [STAGE...]                           make relog

PARENT is the process that will write the exit code into FOLDER: should it end first, what is
followed was killed.
"""

import gc
import os
import shutil
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path

from lib.repository import ROOT
from tools.command import as_command
from tools.tracking import SETTINGS


def main() -> None:
    """The command that the module's docstring shows."""
    os.chdir(ROOT)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    # The process beside this one needs the cores. What mlflow and DVC import stays to the end: to
    # look through it for garbage takes half a second, and to take it apart at the exit as much.
    gc.disable()
    # mlflow reads its settings when it is imported.
    from tools.tracking.follow import follow
    from tools.tracking.relog import relog
    from tools.tracking.stages import Started
    from tools.tracking.store import settle

    gc.freeze()
    gc.enable()
    command, *arguments = sys.argv[1:] or [""]
    if command == "follow":
        folder, parent, process, *rest = arguments
        follow(Path(folder), int(parent), Started(process, rest))
        if os.getppid() != int(parent):  # which removes it, and was killed
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(sqlite3.Error):
            settle()
        sys.stderr.flush()
        os._exit(0)
    elif command == "relog":
        sys.exit(0 if relog(arguments) else 1)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    as_command(main, "relog: ")
