"""What is missing, on this machine and in this project, and how to get it.

    make doctor

It can be asked at any time: it makes nothing, changes nothing, and needs no environment. Where the
one that a run needs is there already, S3 and MLflow are really asked, as preflight would ask them.
"""

import configparser
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lib.environments import Environment, EnvironmentsError, folders, verify
from lib.project.todo import ROOT, TEMPLATE_ONLY, problems, values

FREE_GIGABYTES = 6  # every environment, and room to work
CHECKS: dict[str, Callable[[], str]] = {}


class Missing(Exception):  # noqa: N818 # reads as a phrase
    """What is not there, and how to get it."""


class Optional(Exception):  # noqa: N818 # the same
    """What need not be there, and what it would give."""


def check(title: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Add a check under a title: it returns what is there, or raises Missing or Optional."""

    def add(function: Callable[[], str]) -> Callable[[], str]:
        CHECKS[title] = function
        return function

    return add


def said(*command: str) -> str:
    """What a command printed; nothing where it failed or is not there."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@check("Python")
def python() -> str:
    """The one that runs this is the one that makes environments."""
    return platform.python_version()


@check("git")
def git() -> str:
    """A version, an identity, a repository with a commit."""
    if not (said("git", "config", "user.name") and said("git", "config", "user.email")):
        raise Missing(
            'git does not know you: git config --global user.name "…"; '
            "git config --global user.email …"
        )
    if Path(said("git", "rev-parse", "--show-toplevel") or "/") != ROOT:
        raise Missing("this folder is no repository of its own: make start")
    if not said("git", "rev-parse", "--verify", "--quiet", "HEAD"):
        raise Missing("there is no commit yet: make start")
    return said("git", "--version")


@check("disk")
def disk() -> str:
    """Room for the environments."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < FREE_GIGABYTES:
        raise Missing(f"{free:.1f} GB are free, {FREE_GIGABYTES} are wanted: make clean DAYS=0")
    return f"{free:.0f} GB free"


@check("marks")
def marks() -> str:
    """What a project says about itself."""
    if left := problems():
        raise Missing(f"{len(left)} to fill in: make todo lists them")
    if (ROOT / TEMPLATE_ONLY).exists():
        raise Missing("the template's own files are still here: make start")
    return "all filled in"


@check("locks")
def locks() -> str:
    """They fit their Pipfiles and agree."""
    try:
        verify()
    except EnvironmentsError as error:
        raise Missing(str(error)) from None
    return f"{len(folders())} fit their Pipfiles"


@check("environments")
def environments() -> str:
    """Those that `make run` uses."""
    needed = [f for f in folders() if f == ROOT or f.parent.name == "processes"]
    lacking = [place.name for place in map(Environment, needed) if not place.complete]
    if lacking:
        raise Optional(f"{len(lacking)} not made yet: make setup (make run makes what it needs)")
    return f"{len(needed)} made"


@check("git remote")
def git_remote() -> str:
    """Where to push; a sandbox is none."""
    names = [name for name in said("git", "remote").split() if name != "sandbox"]
    if not names:
        raise Missing("none: git remote add origin <address of your project>")
    return ", ".join(f"{name} {said('git', 'remote', 'get-url', name)}" for name in names)


@check("credentials")
def credentials() -> str:
    """DVC's, for its default remote."""
    if os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY"):
        return "in the environment"
    local = configparser.ConfigParser()
    try:
        local.read(ROOT / ".dvc" / "config.local")
    except configparser.Error:
        raise Missing(
            ".dvc/config.local cannot be read: remove it, then make credentials"
        ) from None
    if any("secret_access_key" in section for section in local.values()):
        return "in .dvc/config.local"
    if (Path.home() / ".aws" / "credentials").exists():
        return "in ~/.aws/credentials"
    raise Missing("DVC has none: make credentials")


@check("S3, MLflow")
def connections() -> str:
    """Asked as preflight asks; not where there is nothing to ask them with."""
    if not Environment(ROOT).complete:
        raise Optional("not asked: the environment that asks them is not made yet (make setup)")
    script = [str(ROOT / "lib/within"), ".", "python", ".github/scripts/preflight.py"]
    url = os.environ.get("MLFLOW_URL") or values().get("mlflow_url", "")
    done = subprocess.run(
        [*script, "--connections"],
        cwd=ROOT,
        env=os.environ | {"MLFLOW_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode:
        raise Missing("; ".join(lines) or "preflight said nothing")
    return "; ".join(lines)


@check("runner labels")
def labels() -> str:
    """What the workflow asks for: only the hosting site knows whether a runner has them."""
    if not (wanted := values().get("runner_labels")):
        raise Missing("not filled in: make todo")
    return f"a runner must have: {wanted}"


@check("hooks")
def hooks() -> str:
    """pre-commit's."""
    folder = said("git", "rev-parse", "--git-path", "hooks")
    hook = ROOT / folder / "pre-commit"
    if not folder or not hook.exists() or "pre-commit" not in hook.read_text(errors="replace"):
        raise Optional("not installed: make hooks (they check each commit)")
    return "installed"


@check("gh")
def gh() -> str:
    """It can set the repository's secrets."""
    if not shutil.which("gh"):
        raise Optional("not there: make settings lists what to set by hand")
    return re.sub(r"\s+", " ", said("gh", "--version").partition("\n")[0])


def main() -> None:
    """A line for each check; end with 1 where something that is needed is missing."""
    missing = 0
    for title, function in CHECKS.items():
        try:
            mark, line = "ok", function()
        except Optional as what:
            mark, line = "--", str(what)
        except Missing as what:
            mark, line = "MISSING", str(what)
            missing += 1
        print(f"{mark:8} {title:14} {line}", flush=True)
    if missing:
        sys.exit(f"{missing} missing; each line says how to get it.")


if __name__ == "__main__":
    main()
