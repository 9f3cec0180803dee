"""Puts S3 credentials into .dvc/config.local, which git ignores and only its owner may read.

make credentials    asks; without a terminal, takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
"""

import getpass
import os
import sys

from dvc.config import Config

from lib.repository import ROOT, ask_git

LOCAL = ROOT / ".dvc" / "config.local"


def ask() -> tuple[str, str]:
    """Both keys, from the person at the terminal or from the environment."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    if sys.stdin.isatty():
        return input("Access key: ").strip(), getpass.getpass("Secret key (not shown): ").strip()
    access, secret = (os.environ.get(name, "").strip() for name in names)
    return access, secret


def write(access: str, secret: str) -> str:
    """Write them for DVC's default remote: that remote's name."""
    LOCAL.touch(0o600)
    LOCAL.chmod(0o600)
    config = Config(str(LOCAL.parent))
    remote = str(config["core"]["remote"])
    with config.edit("local") as local:
        keys = {"access_key_id": access, "secret_access_key": secret}
        local.setdefault("remote", {}).setdefault(remote, {}).update(keys)
    LOCAL.chmod(0o600)
    return remote


def main() -> None:
    """Ask, write, print where."""
    as_it_is = {"GIT_LITERAL_PATHSPECS": "0"}  # the command knows no other way
    asked = ask_git("check-ignore", "--quiet", str(LOCAL), folder=ROOT, stdin="", **as_it_is)
    if asked.returncode == 1:
        sys.exit(
            ".dvc/config.local is not ignored by git: put `/config.local` into .dvc/.gitignore."
        )
    access, secret = ask()
    if not access or not secret:
        sys.exit(
            "No credentials: type them in a terminal, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY. Nothing was written."
        )
    print(f"The remote {write(access, secret)} has them, in .dvc/config.local.")
    print("`make doctor` tells whether they work.")


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, EOFError):
        sys.exit("\nNothing was written.")
