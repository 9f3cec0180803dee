"""Installs the git hooks of pre-commit and a post-checkout hook: `make hooks`.

The post-checkout hook brings the data of the commit. It runs code that is copied at installation:
pre-commit would run what the checked-out branch configures, and looking at a branch is no consent
to run its code.
"""

import os
import subprocess
import sys
from pathlib import Path
from shlex import quote

from lib.files import replaced_file
from lib.repository import ROOT, git, git_or_nothing
from tools.command import as_command

# Only after the checkout of a branch or commit (type 1), not of a file, and never during a rebase.
# -I: import no modules from the work tree or PYTHONPATH.
OURS = "# Written by `make hooks`"
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
# DVC makes a commit for each experiment; its git starts the hook inside .git, where pre-commit
# fails.
NOT_OF_EXPERIMENTS = """
[ "$(git rev-parse --is-inside-git-dir)" != true ] || exit 0
"""
PROGRAM = Path(__file__).with_name("checkout.py")


def install() -> None:
    """Install the hooks, replacing those that exist."""
    if problem := runs_others():
        sys.exit(problem)
    # Through the link that `make setup` keeps up to date, if it exists.
    link = ROOT / ".venv/bin/python"
    python = link if link.exists() else Path(sys.executable)
    # pre-commit refuses to install if core.hooksPath is set, even to this clone's folder: hide it.
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
    keep(folder / "post-checkout")
    write(folder / "post-checkout", CHECKOUT.format(python=quote(sys.executable), program=program))
    print("dvc checkout installed, to follow each checkout")


def runs_others() -> str:
    """A message if git runs the hooks of another folder than this clone's; else empty."""
    folder = git_or_nothing("rev-parse", "--git-common-dir")
    asked = ("--show-origin", "-z", "--type=path", "--get-all", "core.hooksPath")
    found = git_or_nothing("config", *asked).split("\0")
    # Our own git commands set it on the command line: only a value from a file counts.
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


def keep(file: Path) -> None:
    """Keep a hook of the user's own, such as git-lfs's, under another name, as pre-commit does."""
    if file.exists() and OURS not in file.read_text("utf-8", "replace"):
        legacy = file.with_name(f"{file.name}.legacy")
        if legacy.exists():
            sys.exit(
                f"{file} is yours, and so is {legacy.name} beside it, under which it would be "
                "kept: move one of them away, then make hooks."
            )
        file.rename(legacy)
        print(f"{file.name}: yours is {legacy.name} now, and no longer runs")


def write(file: Path, text: str) -> None:
    """Write an executable file, replacing one that exists."""
    with replaced_file(file) as new:
        new.write_text(text, encoding="utf-8")
        new.chmod(0o755)


if __name__ == "__main__":
    as_command(install)
