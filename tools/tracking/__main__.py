"""The tracker's commands.

    python -m tools.tracking follow FOLDER PARENT NAME [ARGUMENT...]    by lab/processes/run
    python -m tools.tracking relog [STAGE...]                           make relog

PARENT is the pid of the script that will write the exit code into FOLDER: if it ends without doing
so, it was killed.
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
    """Run the command in the module's docstring."""
    os.chdir(ROOT)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    # Leave the cores to the process: garbage collection of what mlflow and DVC import takes half a
    # second, as does tearing it down at the exit.
    gc.disable()
    # Imported here, as mlflow reads its settings on import.
    from tools.tracking.follow import follow
    from tools.tracking.relog import relog
    from tools.tracking.stages import Started
    from tools.tracking.store import checkpoint

    gc.freeze()
    gc.enable()
    command, *arguments = sys.argv[1:] or [""]
    if command == "follow":
        folder, parent, process, *rest = arguments
        follow(Path(folder), int(parent), Started(process, rest))
        if os.getppid() != int(parent):  # it was killed, and cannot remove the folder itself
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(sqlite3.Error):
            checkpoint()
        sys.stderr.flush()
        os._exit(0)
    elif command == "relog":
        sys.exit(0 if relog(arguments) else 1)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    as_command(main, "relog: ")
