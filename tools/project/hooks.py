"""Installs the git hooks: pre-commit's, and the one that follows a checkout.

    make hooks

The hook that follows a checkout brings the data of that commit. What it runs is fixed here, when it
is installed: pre-commit would run what the branch that was just checked out has configured, and
whoever looks at a branch has not agreed to run its code.
"""

import os
import subprocess
import sys
from pathlib import Path
from shlex import quote

from lib.files import replaced_file
from lib.repository import ROOT, git, git_or_nothing
from tools.command import as_command

# Only where a branch or commit was checked out (type 1), not a file, and never amid a rebase. -I:
# what the work tree or the environment call a module is none here.
CHECKOUT = """\
#!/bin/sh
# Written by `make hooks`: executes nothing of the branch that was checked out.
[ "${{3-}}" = 1 ] || exit 0
export PYTHONSAFEPATH=1
program=$(dirname "$0")/{program}
python={python}
unset $(git rev-parse --local-env-vars)
[ ! -d "$(git rev-parse --git-path rebase-merge)" ] || exit 0
if [ ! -x "$python" ]; then
    echo "dvc checkout was not run, its environment is gone: type make hooks again." >&2
    exit 0
fi
exec "$python" -I "$program"
"""
# Each of DVC's experiments is a commit, by a git of its own that starts the hook within .git, where
# pre-commit fails.
NOT_OF_EXPERIMENTS = """
[ "$(git rev-parse --is-inside-git-dir)" != true ] || exit 0
"""
PROGRAM = Path(__file__).with_name("checkout.py")


def install() -> None:
    """Install them, in place of what is there."""
    if problem := runs_others():
        sys.exit(problem)
    # By the link that `make setup` keeps up to date, where there is one.
    link = ROOT / ".venv/bin/python"
    python = link if link.exists() else Path(sys.executable)
    # pre-commit refuses where core.hooksPath is set, to whatever folder: here it does not see it.
    number = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    unset = {
        "GIT_CONFIG_COUNT": str(number + 1),
        f"GIT_CONFIG_KEY_{number}": "core.hooksPath",
        f"GIT_CONFIG_VALUE_{number}": "",
    }
    command = [str(python), "-m", "pre_commit", "install"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | unset, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    folder = ROOT / git("rev-parse", "--git-common-dir") / "hooks"
    status = folder / "post-commit"
    write(status, status.read_text(encoding="utf-8").replace("\n", NOT_OF_EXPERIMENTS, 1))
    program = f"post-checkout-{PROGRAM.name}"
    write(folder / program, PROGRAM.read_text(encoding="utf-8"))
    write(folder / "post-checkout", CHECKOUT.format(python=quote(sys.executable), program=program))
    print("dvc checkout installed, to follow each checkout")


def runs_others() -> str:
    """What to say where git runs the hooks of another folder, not this clone's; else empty."""
    folder = git_or_nothing("rev-parse", "--git-common-dir")
    asked = ("--show-origin", "-z", "--type=path", "--get-all", "core.hooksPath")
    found = git_or_nothing("config", *asked).split("\0")
    # Our own commands set it, too: git says that it comes from the command line.
    users = [pair for pair in zip(found[::2], found[1::2], strict=False) if pair[0][:4] == "file"]
    own = ROOT / folder / "hooks"
    if not folder or not users or (ROOT / users[-1][1]).resolve() == own.resolve():
        return ""
    origin, other = users[-1]
    return (
        f"git runs the hooks of {other} (core.hooksPath in {origin.removeprefix('file:')}), not "
        f"this clone's: `git config core.hooksPath {quote(str(own))}`, then make hooks; or leave "
        "it, and type `pre-commit run` before each commit"
    )


def write(file: Path, text: str) -> None:
    """Put an executable file in place of what is there."""
    with replaced_file(file) as new:
        new.write_text(text, encoding="utf-8")
        new.chmod(0o755)


if __name__ == "__main__":
    as_command(install)
