"""Writes S3 credentials to .dvc/config.local, which git ignores and only its owner can read.

make credentials    asks; without a terminal, takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
"""

import getpass
import os
import sys

from lib.errors import UserError
from lib.repository import ROOT, ask_git
from tools.command import as_command
from tools.dvc_config import read_config, set_values

LOCAL = ROOT / ".dvc" / "config.local"


def ask() -> tuple[str, str]:
    """Both keys, from a prompt or, without a terminal, from the environment."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    if sys.stdin.isatty():
        return input("Access key: ").strip(), getpass.getpass("Secret key (not shown): ").strip()
    access, secret = (os.environ.get(name, "").strip() for name in names)
    return access, secret


def write(access: str, secret: str) -> str:
    """Write the keys for the team's default remote; its name."""
    # From the tracked file: while the sandbox is up, its remote is the default in config.local.
    remote = read_config(LOCAL.with_name("config")).get("core", {}).get("remote")
    if not remote:
        raise UserError(
            ".dvc/config names no default remote, and keys are for one: `dvc remote default NAME`, "
            "then `make credentials` again. Nothing was written."
        )
    keys = {"access_key_id": access, "secret_access_key": secret}
    set_values(LOCAL, {f'remote "{remote}"': keys})
    return str(remote)


def main() -> None:
    """Ask for the keys, write them, and print where."""
    as_it_is = {"GIT_LITERAL_PATHSPECS": "0"}  # check-ignore fails with literal pathspecs
    asked = ask_git("check-ignore", "--quiet", str(LOCAL), folder=ROOT, stdin="", **as_it_is)
    if asked.returncode == 1:
        sys.exit(
            ".dvc/config.local is not ignored by git: put `/config.local` into .dvc/.gitignore."
        )
    try:
        access, secret = ask()
    except (KeyboardInterrupt, EOFError):
        sys.exit("\nNothing was written.")
    if not access or not secret:
        sys.exit(
            "No credentials: type them in a terminal, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY. Nothing was written."
        )
    print(f"The remote {write(access, secret)} has them, in .dvc/config.local.")
    print("`make doctor` checks whether they work.")


if __name__ == "__main__":
    as_command(main)
