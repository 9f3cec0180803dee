"""Says what is missing on this machine and in this project, and how to get it: `make doctor`.

It can be run at any time: it changes nothing and needs no environment. If the environment of a run
exists already, S3 and MLflow are actually contacted, as in preflight.
"""

import configparser
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from lib.errors import UserError
from lib.repository import ROOT, ask_git, git_or_nothing
from lib.text import shown_address, some_of
from tools.command import as_command, run
from tools.environments.environments import Environment
from tools.environments.lock_file import TEMPLATE_ONLY, environments_folder
from tools.environments.locks import folders, verify
from tools.environments.platforms import here
from tools.project import settings
from tools.project.hooks import runs_others
from tools.project.manifest import differences
from tools.project.todo import problems, values

FREE_GIGABYTES = 6  # all environments, and space to work
WORK_GIGABYTES = 1  # space to work
KEYS = {"secret_access_key", "profile", "credentialpath"}  # settings that give DVC credentials
OF_AWS = (  # variables by which S3 clients find credentials, besides the keys themselves
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)


class Advice(Exception):  # noqa: N818 # not an error
    """Something could be better; the message says how."""


def git() -> str:
    """Check git's version, the user's identity, and that the repository has a commit."""
    if not (git_or_nothing("config", "user.name") and git_or_nothing("config", "user.email")):
        raise UserError(
            'git does not know you: git config --global user.name "…"; '
            "git config --global user.email …"
        )
    asked = ask_git("rev-parse", "--show-toplevel")
    if "dubious ownership" in asked.stderr:
        raise UserError(f"another user owns it: git config --global --add safe.directory '{ROOT}'")
    if Path(asked.stdout.strip() or "/") != ROOT:
        raise UserError("this folder is no repository of its own: make start")
    if not git_or_nothing("rev-parse", "--verify", "--quiet", "HEAD"):
        raise UserError("there is no commit yet: make start")
    if git_or_nothing("config", "--type=bool", "core.sparseCheckout") == "true":
        raise UserError(
            "this is a sparse checkout, which lacks what commands need: git sparse-checkout disable"
        )
    return git_or_nothing("--version")


def disk() -> str:
    """Check the space for environments, and for the clone if it is on another disk."""
    folder = environments_folder()
    home = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        wanted = FREE_GIGABYTES if missing_environments() else WORK_GIGABYTES
    except UserError:  # a missing lock is reported below
        wanted = FREE_GIGABYTES
    free, lacking = shutil.disk_usage(home).free / 1e9, []
    if free < wanted:
        lacking.append(
            f"{free:.1f} GB are free where environments are ({folder}), {wanted:g} are needed: "
            "make clean DAYS=0, or set WORKON_HOME to a folder on a larger disk"
        )
    if home.stat().st_dev != ROOT.stat().st_dev:
        of_clone = shutil.disk_usage(ROOT).free / 1e9
        free = min(free, of_clone)
        if of_clone < WORK_GIGABYTES:
            lacking.append(
                f"{of_clone:.1f} GB are free where this clone is ({ROOT}), {WORK_GIGABYTES:g} are "
                "needed: remove what nobody needs there, or clone onto a larger disk"
            )
    if lacking:
        raise UserError("\n".join(lacking))
    return f"{free:.0f} GB free"


def marks() -> str:
    """Check that all marks are filled in, as `make todo` does."""
    if left := problems():
        raise UserError(f"{len(left)} to fill in or to correct: make todo lists them")
    if (ROOT / TEMPLATE_ONLY).exists():
        raise UserError("the template's own files are still here: make start")
    return "all filled in"


def template() -> str:
    """Check that the template's files, which an update replaces, are unedited."""
    if (ROOT / TEMPLATE_ONLY).exists():
        return "this is the template itself"
    remedies = {
        "edited": "the next update replaces it (a workflow is merged): undo it, or propose the "
        "change to the template",
        "missing": "bring it back with `git checkout <commit> -- <file>`",
    }
    if found := [f"{name} is {state}: {remedies[state]}" for name, state in differences()]:
        raise Advice("\n".join(found))
    return "none of its files is edited or missing"


def locks() -> str:
    """Check that locks fit their Pipfiles and agree."""
    verify()
    return f"{len(folders())} fit their Pipfiles"


def environments() -> str:
    """Check that the environments of `make run` are made."""
    if missing := missing_environments():
        raise Advice(f"{len(missing)} not made yet: make setup (make run makes what it needs)")
    return f"{len(needed_environments())} made"


def needed_environments() -> list[Environment]:
    """The environments that `make run` uses."""
    others = (ROOT, ROOT / "goals", ROOT / "tools/tracking")
    return [Environment(f) for f in folders() if f in others or f.parent.name == "processes"]


def missing_environments() -> list[Environment]:
    """The environments of `make run` that are not made yet."""
    return [environment for environment in needed_environments() if not environment.complete]


def git_remote() -> str:
    """Check that there is a git remote other than the sandbox."""
    names = [name for name in git_or_nothing("remote").split() if name != "sandbox"]
    if not names:
        raise UserError("none: git remote add origin <address of your project>")
    return ", ".join(
        f"{name} {shown_address(git_or_nothing('remote', 'get-url', name))}" for name in names
    )


def credentials() -> str:
    """Check that DVC has credentials for its default remote."""
    if os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY"):
        return "in the environment"
    # Not with tools/dvc_config.py: ConfigObj is only in an environment.
    dvc, found = configparser.ConfigParser(interpolation=None), ""
    for name in ("config", "config.local"):
        try:
            dvc.read(ROOT / ".dvc" / name)
        except configparser.Error:
            raise UserError(
                f".dvc/{name} cannot be read: fix it, or remove it, then make credentials"
            ) from None
        if not found and any(KEYS & section.keys() for section in dvc.values()):
            found = f"in .dvc/{name}"
    remote = f"'remote \"{dvc.get('core', 'remote', fallback='')}\"'"
    address = dvc.get(remote, "url", fallback="")
    if address and not address.startswith("s3:"):
        if keys := {"access_key_id", *KEYS} & dvc[remote].keys():
            raise UserError(
                f"DVC's remote is {shown_address(address)}, which takes no keys of S3: remove "
                f"{some_of(sorted(keys))} from .dvc/config.local"
            )
        return f"none of S3: DVC's remote is {shown_address(address)}"
    if found:
        return found
    if named := [name for name in OF_AWS if os.environ.get(name)]:
        return f"where {named[0]} says"
    if (Path.home() / ".aws" / "credentials").exists():
        return "in ~/.aws/credentials"
    raise UserError("DVC has none: make credentials")


def connections() -> str:
    """Contact S3 and MLflow as preflight does, if its environment is made."""
    if not Environment(ROOT).complete:
        raise Advice("not asked: the environment that asks them is not made yet (make setup)")
    preflight = ("tools/within", ".", "python", "-m", "tools.job.preflight", "--connections")
    url = os.environ.get("MLFLOW_URL") or values().get("mlflow_url", "")
    done = run(*preflight, ok=False, MLFLOW_URL=url)
    if done.returncode:
        show("ok", "S3, MLflow", done.stdout)  # one of the two may be fine
        raise UserError(done.stderr.strip() or "preflight ended without a message")
    return done.stdout + done.stderr


def labels() -> str:
    """Check that a runner has the labels of the workflow, if gh may list runners."""
    if not (wanted := values().get("runner_labels")):
        raise UserError("not filled in: make todo")
    tests = "; tests want one of another user or machine: self-hosted, tests"
    if not shutil.which("gh"):
        return f"a runner must have: {wanted}{tests}"
    try:
        asked = settings.labels(wanted)
        shown = ", ".join(asked)
        if any(label.startswith(settings.OF_GITHUB) for label in asked):
            return f"one of GitHub's: {shown}"
        if not (online := settings.runners(asked)):
            raise Advice(f"no runner that is online and that gh may see has all of: {shown}")
    except UserError as error:
        raise Advice(f"a runner must have: {wanted}; not asked: {error}") from None
    return f"{online[0]} has: {shown}{tests}"


def hooks() -> str:
    """Check that the git hooks are installed."""
    if others := runs_others():
        raise Advice(others)
    folder = git_or_nothing("rev-parse", "--git-common-dir")
    hook = ROOT / folder / "hooks/pre-commit"
    if not folder or not hook.exists() or "pre-commit" not in hook.read_text(errors="replace"):
        raise Advice("not installed: make hooks (they check each commit)")
    after = hook.with_name("post-checkout")
    if after.exists() and "pre-commit" in after.read_text(errors="replace"):
        raise UserError("a checkout runs what its branch says: make hooks")
    return "installed"


def hosting_site() -> str:
    """Check the secrets on the hosting site and who may use them, if gh may ask."""
    if not shutil.which("gh"):
        raise Advice("not asked, gh is not installed: make settings lists what to set by hand")
    try:
        lacking = list(settings.missing())
    except UserError as error:
        raise Advice(f"not asked: {error}") from None
    if lacking:
        raise UserError("\n".join([*lacking, "make settings SET=yes sets what it can"]))
    return "its settings are as make settings lists them"


# Each returns a description of what was found, or raises UserError or Advice.
CHECKS: dict[str, Callable[[], str]] = {
    "Python": platform.python_version,  # of the interpreter that makes environments
    "platform": here,
    "git": git,
    "disk": disk,
    "marks": marks,
    "template": template,
    "locks": locks,
    "environments": environments,
    "git remote": git_remote,
    "credentials": credentials,
    "S3, MLflow": connections,
    "runner labels": labels,
    "hooks": hooks,
    "hosting site": hosting_site,
}


def show(mark: str, title: str, text: str) -> None:
    """Print each line of a finding."""
    for line in filter(None, map(str.strip, text.splitlines())):
        print(f"{mark:8} {title:14} {line}", flush=True)


def main() -> None:
    """Print a line for each finding; end with 1 where something that is needed is missing."""
    missing = 0
    for title, function in CHECKS.items():
        try:
            mark, lines = "ok", function()
        except Advice as advice:
            mark, lines = "--", str(advice)
        except UserError as problem:
            mark, lines = "MISSING", str(problem)
            missing += 1
        show(mark, title, lines)
    if missing:
        sys.exit(f"{missing} missing; each line says how to get it.")


if __name__ == "__main__":
    as_command(main)
