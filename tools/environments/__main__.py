"""Makes, locks, checks, lists and removes environments.

    make [--dev] FOLDER...         make the environments that are missing
    lock [--upgrade] [FOLDER...]   resolve the locks that do not fit their Pipfiles
    verify                         check that locks fit their Pipfiles and agree
    platforms [--quiet] [LOCK...]  show what each lock installs on each platform
    audit [--service ADDRESS]      list known vulnerabilities of locked packages
    list                           list the environments on this machine
    clean [DAYS]                   remove those that no lock here names and nobody uses
    variables FILE                 write .env as shell code to FILE, for tools/within

These are the commands of `python -m tools.environments`, which runs on the interpreter that
`bootstrap` prints: it has pipenv and rich. `tools/within` calls it if an environment is missing.
"""

import argparse
import re
import sys
from pathlib import Path

from lib.errors import UserError
from tools.command import as_command
from tools.environments.audit import audit
from tools.environments.environments import Environment, clean, list_made, make
from tools.environments.locks import folders, of_template, verify
from tools.environments.platforms import platforms
from tools.environments.resolution import lock
from tools.environments.variables import script


def main() -> None:
    """Run the command in the module's docstring."""
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
        all_of_them = [f for f in folders() if not (given.upgrade and of_template(f))]
        lock([folder_of(path) for path in given.folders] or all_of_them, given.upgrade)
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
    """A number of days; UserError if it is not one."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise UserError(f"DAYS is {text!r}: it must be a number of days, such as 0 or 7.")
    return float(text)


def folder_of(path: Path) -> Path:
    """The folder, which may be given by a file in it, such as its Pipfile."""
    return (path.parent if path.is_file() else path).resolve()


if __name__ == "__main__":
    as_command(main)
