"""Before anything is trained: can this run start, and can its results be kept?

Each check prints a line in the log; problems are also on the run's page. A check that fails stops
the run, except for MLflow: if its server is down, `make relog` logs the results later.

    preflight                 in a run
    preflight --release       before a runtime is released
    preflight --connections   only S3 and MLflow (make doctor)
"""

import errno
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dvc.exceptions import DvcException

from lib.errors import UserError
from lib.params import check_all
from lib.pipeline import SWEEPS, open_repo
from lib.repository import ROOT, ask_git, git
from lib.text import shown_address
from tools.command import DISK_FULL, FORBIDDEN, run
from tools.environments.lock_file import environments_folder
from tools.job.data import data_are_there
from tools.job.job import add_to_note, ask_mlflow, main, pipeline_file, summarise
from tools.job.storage import (
    as_problem,
    cache_folder,
    listings_are_whole,
    point_dvc_at_this_platform,
    storage_answers,
)
from tools.tracking import job_url

PLAIN_NAME = r"[A-Za-z0-9][A-Za-z0-9._/+-]*"
SWEEP = "tune-"  # prefix of the tags that run the sweeps
FREE_GIGABYTES = 2.0
# The errors of a disk that is full, broken, read-only or another user's.
UNUSABLE = (*DISK_FULL, *FORBIDDEN, errno.ENOTDIR, errno.EIO)


def record_ref() -> str:
    """Record ref and commit for the later steps.

    Refuses a name with characters other than PLAIN_NAME's, and a sweep's tag without sweeps.
    """
    ref = os.environ.get("RUN_REF") or os.environ.get("GITHUB_REF", "HEAD")
    name = re.sub(r"^refs/(tags|heads)/", "", ref)
    sweep = name.startswith(SWEEP) and is_tag(ref)
    add_to_note(name=name, commit=git("rev-parse", "HEAD"), run_url=job_url(), sweep=sweep)
    if not re.fullmatch(PLAIN_NAME, name):
        raise UserError(
            f"The name {name!r} has characters that are not letters, digits or one of . _ / + -: "
            "push the commit again under a plain name."
        )
    if sweep and not (ROOT / SWEEPS).exists():
        raise UserError(
            f"A tag that begins with {SWEEP} runs the sweeps of {SWEEPS}, and this commit has "
            "none: `make sweep NAME=…` makes one; for a run of the pipeline, push another tag."
        )
    return f"{name} is commit {git('rev-parse', '--short', 'HEAD')}"


def is_tag(ref: str) -> bool:
    """Whether a ref is a tag; a plain name that is also a branch means the branch."""
    if ref.startswith("refs/"):
        return ref.startswith("refs/tags/")
    refs = (f"refs/tags/{ref}", f"refs/remotes/origin/{ref}")
    tag, branch = (ask_git("rev-parse", "--verify", "--quiet", r).returncode == 0 for r in refs)
    return tag and not branch


def results_have_a_branch() -> str:
    """Choose the branch that gets the results, among those that contain the commit.

    The branch that was named when the run was started by hand; else the one whose tip is a results
    commit of this commit; else the one whose tip this commit is; else the only one; else the
    default branch. `results/…` are never chosen.
    """
    form = "--format=%(objectname) %(refname:lstrip=3)"
    listed = git("for-each-ref", "--contains=HEAD", form, "refs/remotes/origin")
    lines = filter(None, listed.split("\n"))  # a name may have U+2028 in it
    tip_of = {name: tip for tip, name in (line.split(" ", 1) for line in lines)}
    if ask_git("rev-parse", "--verify", "--quiet", "refs/remotes/origin/results").returncode == 0:
        raise UserError(
            "There is a branch `results`, beside which git can have no results/<tag>, where "
            "results go if their branch does not take them: rename it."
        )
    aside = [name for name in tip_of if name.startswith("results/")]
    names = [name for name in tip_of if name != "HEAD" and name not in aside]
    head = git("rev-parse", "HEAD")
    tips = [name for name in names if tip_of[name] == head]
    done = [name for name in names if source_of(tip_of[name]) == head]
    default = os.environ.get("DEFAULT_BRANCH") or "main"
    dispatched = os.environ.get("RUN_REF", "").removeprefix("refs/heads/")
    for candidates in ([dispatched], done, tips, names, [default]):
        if len(candidates) == 1 and candidates[0] in names:
            add_to_note(branch=candidates[0])
            return f"results go to branch {candidates[0]}"
    if aside and not names:
        raise UserError(
            f"The commit is on {', '.join(aside)} alone, where no results go: push it to a branch "
            f"of its own (`git push origin {head[:10]}:refs/heads/NAME`), then re-run this job."
        )
    if not names:
        raise UserError(
            "The commit is on no branch, so its results would be on none: push its branch first, "
            "then re-run this job."
        )
    raise UserError(
        f"The commit is on several branches ({', '.join(names)}), and it is the newest of none or "
        "of more than one: push a commit on the branch that is to have the results, and tag that."
    )


def source_of(commit: str) -> str:
    """The source commit of a results commit; empty for other commits."""
    return git("show", "-s", "--format=%(trailers:key=Source-Commit,valueonly)", commit).strip()


def commits_can_be_read() -> str:
    """Check that DVC can read commits, as sharing results and reports need."""
    with open_repo("HEAD"):
        return "DVC can read commits"


def parameters_are_valid() -> str:
    """Check params.yaml as every process does."""
    check_all(ROOT)
    return "params.yaml is valid"


def locks_fit() -> str:
    """Check that each lock fits its Pipfile."""
    bootstrap = run(str(ROOT / "tools/environments/bootstrap")).stdout.strip()
    done = run(bootstrap, "-m", "tools.environments", "verify", ok=False)
    if done.returncode:
        raise UserError(done.stderr.strip())
    return "locks fit their Pipfiles"


def disks_have_room() -> str:
    """Check each disk that holds code and results, DVC's cache, or environments."""
    folders = {
        "code and results are": ROOT,
        "DVC's cache is": cache_folder(),
        "environments are": environments_folder(),
    }
    wanted = float(os.environ.get("FREE_GIGABYTES") or FREE_GIGABYTES)
    free: dict[int, float] = {}  # by the number of the device
    full: dict[int, str] = {}
    for what, folder in folders.items():
        there = next(place for place in (folder, *folder.parents) if place.exists())
        gigabytes = free.setdefault(there.stat().st_dev, shutil.disk_usage(there).free / 1e9)
        if gigabytes < wanted:
            shown = f"{gigabytes:.1f} GB are free where {what} ({folder})"
            full.setdefault(there.stat().st_dev, shown)
    if full:
        raise UserError(
            f"On the runner, {' and '.join(full.values())}, {wanted:g} are wanted: there, "
            "`make clean DAYS=0` removes old environments."
        )
    return f"{min(free.values()):.0f} GB of disk are free"


def cache_takes_results() -> str:
    """Check each folder of DVC's cache: jobs of another user, as in a container, may own some."""
    parts = ("files", "files/md5", "files/md5/*", "runs", "runs/*")
    cache = cache_folder()
    if cache.is_relative_to(ROOT):
        raise UserError(
            f"DVC's cache on the runner would be in the workspace ({cache}), which the next job "
            "empties: name a folder elsewhere in DVC_CACHE_DIR, beginning with / or ~."
        )
    there = next(place for place in (cache, *cache.parents) if place.exists())
    for folder in (there, *(found for part in parts for found in cache.glob(part))):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(
                f"DVC's cache on the runner cannot be written to ({folder}): is it another user's, "
                "or its disk read-only? Give it to the user that jobs run as, or name another "
                "folder in DVC_CACHE_DIR there."
            )
    return "DVC's cache takes what stages compute"


def mlflow_answers() -> str:
    """Check that MLflow answers within five seconds, with these credentials."""
    ask_mlflow("experiments/search", max_results="1")
    return f"MLflow answers: {shown_address(os.environ['MLFLOW_URL'])}"


MUST: tuple[Callable[[], str], ...] = (
    record_ref,
    point_dvc_at_this_platform,
    results_have_a_branch,
    commits_can_be_read,
    parameters_are_valid,
    locks_fit,
    disks_have_room,
    cache_takes_results,
    storage_answers,
    data_are_there,
    listings_are_whole,
)
OF_A_RUN = (results_have_a_branch, parameters_are_valid)  # not needed for a release


def connections() -> None:
    """Check S3 and MLflow from a person's own clone, without changing anything in it."""
    problems = []
    for check in (storage_answers, mlflow_answers):
        try:
            print(check(), flush=True)
        except (UserError, DvcException) as error:
            problems.append(as_problem(error))
    if problems:
        raise UserError("\n".join(problems))


def release() -> None:
    """Run the checks that a release needs; MLflow is not among them."""
    if problems := failed([check for check in MUST if check not in OF_A_RUN]):
        raise UserError("\n".join(problems))


def failed(checks: Sequence[Callable[[], str]]) -> list[str]:
    """Run the checks and list every problem, not only the first."""
    problems = []
    for check in checks:
        try:
            print(f"ok       {check()}", flush=True)
        except (UserError, DvcException, ImportError, OSError, sqlite3.Error) as error:
            if isinstance(error, ImportError) and error.name:
                raise  # a bug here; DVC's own, for a missing optional package, names no module
            if isinstance(error, OSError) and error.errno not in UNUSABLE:
                raise
            if (problem := as_problem(error)) not in problems:  # DVC repeats what it cannot read
                print(f"PROBLEM  {problem}", flush=True)
                problems.append(problem)
            if check in (point_dvc_at_this_platform, storage_answers):
                break  # what follows asks the storage too
    return problems


def preflight() -> None:
    """Run all checks; UserError with every problem."""
    problems = failed(MUST)
    try:
        print(f"ok       {mlflow_answers()}", flush=True)
    except UserError as error:
        line = (
            f"{error} The run goes on; `make relog` logs its results afterwards: in a clone with "
            "MLFLOW_URL set, after `git pull && dvc pull`."
        )
        print(f"WARNING  {line}", flush=True)
        summarise(f"> [!WARNING]\n> {line}\n")
    if problems:
        raise UserError("\n".join(problems))
    if outputs := os.environ.get("GITHUB_OUTPUT"):
        folder = Path(SWEEPS).parent if pipeline_file() == SWEEPS else ""
        with Path(outputs).open("a", encoding="utf-8") as file:
            file.write(f"sweeps={folder}\n")


if __name__ == "__main__":
    asked = {"--connections": connections, "--release": release}
    main(asked.get(sys.argv[-1], preflight))
