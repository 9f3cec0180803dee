"""Writes S3 credentials to .dvc/config.local, which git ignores and only its owner can read.

make credentials    asks; without a terminal, takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
"""

import getpass
import os
import sys

from lib.errors import UserError
from lib.repository import ROOT, ask_git
from lib.text import shown_address
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


def default_remote() -> str:
    """The name of the team's default remote; UserError if there is none, or not on S3."""
    # From the tracked file: while the sandbox is up, its remote is the default in config.local.
    config = read_config(LOCAL.with_name("config"))
    name = config.get("core", {}).get("remote")
    if not name:
        raise UserError(
            ".dvc/config names no default remote, and keys are for one: `dvc remote default NAME`, "
            "then `make credentials` again. Nothing was written."
        )
    address = str(config.get(f'remote "{name}"', {}).get("url", ""))
    if address and not address.startswith("s3:"):
        raise UserError(
            f"DVC's remote is {shown_address(address)}, which takes no keys of S3. Nothing was "
            "written."
        )
    return str(name)


def main() -> None:
    """Ask for the keys, write them, and print where."""
    as_it_is = {"GIT_LITERAL_PATHSPECS": "0"}  # check-ignore fails with literal pathspecs
    asked = ask_git("check-ignore", "--quiet", str(LOCAL), folder=ROOT, stdin="", **as_it_is)
    if asked.returncode == 1:
        sys.exit(
            ".dvc/config.local is not ignored by git: put `/config.local` into .dvc/.gitignore."
        )
    remote = default_remote()
    try:
        access, secret = ask()
    except (KeyboardInterrupt, EOFError):
        sys.exit("\nNothing was written.")
    if not access or not secret:
        sys.exit(
            "No credentials: type them in a terminal, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY. Nothing was written."
        )
    keys = {"access_key_id": access, "secret_access_key": secret}
    set_values(LOCAL, {f'remote "{remote}"': keys})
    print(f"The remote {remote} has them, in .dvc/config.local.")
    print("`make doctor` checks whether they work.")


if __name__ == "__main__":
    as_command(main)
