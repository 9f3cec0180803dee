"""How environments are made, locked, listed and removed.

    make [--dev] FOLDER...         make those that are missing
    lock [--upgrade] [FOLDER...]   resolve what does not fit its Pipfile
    verify                         every lock fits its Pipfile, and all agree
    platforms [--quiet] [LOCK...]  what each lock installs on each platform
    audit [--service ADDRESS]      known vulnerabilities of what locks name
    list                           what there is on this machine
    clean [DAYS]                   remove those that no lock here names and nobody uses
    variables FILE                 what .env says, for tools/within, which keeps it in the file

These are the commands of `python -m tools.environments`. It runs on the interpreter that
`bootstrap` prints, which has pipenv and rich; `tools/within` calls it for what is missing.
"""

import argparse
import re
import sys
from pathlib import Path

from lib.errors import UserError
from tools.command import as_command
from tools.environments.audit import audit
from tools.environments.environments import Environment, clean, list_made, make
from tools.environments.locks import folders, verify
from tools.environments.platforms import platforms
from tools.environments.resolution import lock
from tools.environments.variables import script


def main() -> None:
    """The command that the module's docstring shows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("--dev", action="store_true")
    making.add_argument("folders", nargs="+", type=Path)
    locking = commands.add_parser("lock")
    locking.add_argument("--upgrade", action="store_true")
    locking.add_argument("folders", nargs="*", type=Path)
    commands.add_parser("verify")
    playing = commands.add_parser("platforms")
    playing.add_argument("--quiet", action="store_true")
    playing.add_argument("locks", nargs="*", type=Path)
    commands.add_parser("audit").add_argument("--service", default="")
    commands.add_parser("list")
    commands.add_parser("clean").add_argument("days", nargs="?", type=days, default=1.0)
    commands.add_parser("variables").add_argument("file", type=Path)
    given = parser.parse_args()

    if given.command == "make":
        make([Environment(folder_of(path), given.dev) for path in given.folders])
    elif given.command == "lock":
        lock([folder_of(path) for path in given.folders] or folders(), given.upgrade)
    elif given.command == "verify":
        verify()
    elif given.command == "platforms":
        of = {lock.resolve().parent for lock in given.locks if lock.name == "Pipfile.lock"}
        platforms([f for f in folders() if f in of or not given.locks], given.quiet)
    elif given.command == "audit":
        audit(given.service)
    elif given.command == "list":
        list_made()
    elif given.command == "variables":
        sys.stdout.buffer.write(script(given.file).encode())
    else:
        clean(given.days)


def days(text: str) -> float:
    """A number of days; UserError where it is none."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise UserError(f"DAYS is {text!r}: it must be a number of days, such as 0 or 7.")
    return float(text)


def folder_of(path: Path) -> Path:
    """The folder that is meant: a file in it, such as its Pipfile, stands for it."""
    return (path.parent if path.is_file() else path).resolve()


if __name__ == "__main__":
    as_command(main)
