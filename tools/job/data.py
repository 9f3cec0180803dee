"""Can the run have what its stages need and do not make: tracked data, imports, files in git?"""

import json
import os
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph, plan_repro

from lib.errors import UserError
from lib.repository import ROOT, git, git_names
from lib.text import some_of
from tools.command import first_error, run
from tools.job.job import pipeline_file

POINTER = b"version https://git-lfs.github.com/spec/"  # of a git LFS pointer file
LARGEST_POINTER = 1024  # bytes; git LFS has the same limit


def data_are_there() -> str:
    """Check that everything stages need and do not make, such as `dvc add` data, can be had."""
    with Repo(str(ROOT)) as repo:
        data = [stage for stage in repo.index.stages if stage.is_data_source]
        problems = [p for p in what_is_missing(repo, data) if p]
    if problems:
        raise UserError(" ".join(problems))
    return f"what stages need is in git, or in the bucket: {len(data)} tracked data files"


def what_is_missing(repo: Any, data: list[Any]) -> Iterator[str]:
    """A line for each kind of data that the run could not get; some lines are empty."""
    pipeline = planned(repo)
    lacking = lacking_in_git()
    yield from (not_whole(s, lacking) or not_tracked(s, repo.index.outs) for s in pipeline)
    yield kept_by_lfs([out for stage in pipeline for out in stage.outs if not out.use_cache])
    frozen = [stage.addressing for stage in pipeline if stage.frozen]
    missing = missing_in_bucket([*(stage.addressing for stage in data), *frozen])
    imports = [stage for stage in data if stage.is_repo_import or stage.is_partial_import]
    unpushed = [s for s in data if not all(out.use_cache and out.can_push for out in s.outs)]
    missing += [
        stage.addressing.removesuffix(".dvc")
        for stage in unpushed
        if stage not in imports and not has_data(stage)
    ]
    if missing:
        then = "`dvc push` where the data are, then re-run this job."
        yield f"Not in the bucket: {some_of(missing)}: {then}"
    if unfetched := [stage for stage in imports if not has_data(stage)]:
        yield not_fetched(unfetched)


def planned(repo: Any) -> list[Any]:
    """The stages that the run reproduces, and those that they need; without tracked data."""
    file = pipeline_file()
    own = repo.stage.load_all(file) if (ROOT / file).exists() else []
    plan = plan_repro(get_active_graph(repo.index.graph), own) if own else []
    return [stage for stage in plan if not stage.is_data_source]


def missing_in_bucket(targets: list[str]) -> list[str]:
    """The targets that are neither in DVC's remote nor in the runner's cache."""
    if not targets:
        return []
    done = run("dvc", "status", "--cloud", "--json", *targets, ok=False)
    if done.returncode:
        raise UserError(
            f"The bucket cannot be checked for tracked data: {first_error(done.stderr)}."
        )
    # "deleted": only in the bucket; "new": only in the runner's cache, and the run pushes it.
    states = json.loads(done.stdout or "{}")
    missing = [name for name, state in states.items() if state == "missing"]
    # If a whole tracked folder is missing, DVC only warns, and names only its checksum.
    lost = re.findall(r"md5: ([0-9a-f]{32}\.dir)", done.stderr)
    return missing + [
        target.removesuffix(".dvc")
        for target in targets
        if (ROOT / target).is_file()
        and any(checksum in (ROOT / target).read_text(encoding="utf-8") for checksum in lost)
    ]


def not_fetched(imports: list[Any]) -> str:
    """A line on imports that cannot be fetched from their source; DVC's remote has no copy."""
    done = run("dvc", "fetch", *(stage.addressing for stage in imports), ok=False)
    left = [s for s in imports if (done.returncode if s.is_partial_import else not has_data(s))]
    named = ", ".join(stage.addressing.removesuffix(".dvc") for stage in left)
    why = first_error(done.stderr)
    return f"{named} cannot be fetched from where it was imported: {why}" if left else ""


def has_data(stage: Any) -> bool:
    """Whether all outs of a stage are in the work tree or in the runner's cache."""
    return all(out.exists or (out.hash_info and not out.changed_cache()) for out in stage.outs)


def lacking_in_git() -> dict[Path, str]:
    """Submodules and LFS pointers, by path: why a run cannot use them."""
    lacking = {}
    for entry in git_names("ls-files", "-z", "--stage"):
        about, _, name = entry.partition("\t")
        path = Path(os.path.realpath(ROOT), name)
        if about.startswith("160000 "):  # a commit of another repository
            if not (path / ".git").exists():
                lacking[path] = (
                    f"{name} is a submodule, which a job does not check out: `dvc import` what is "
                    "needed of it, or add that to this repository."
                )
        elif about.startswith("100") and is_pointer(path):
            lacking[path] = (
                f"{name} is a pointer of git LFS, not the file, which a job does not fetch: where "
                f"the file is, `git rm --cached` and `dvc add` it, `dvc push`, and commit its .dvc "
                "file."
            )
    return lacking


def is_pointer(path: Path) -> bool:
    """Whether a file is a git LFS pointer instead of the content."""
    if not path.is_file() or path.stat().st_size > LARGEST_POINTER:
        return False
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER


def kept_by_lfs(results: list[Any]) -> str:
    """A line on results in git that are tracked by git LFS, to which jobs do not push; or empty."""
    files = [os.path.relpath(out.fs_path, ROOT) for out in results if out.is_in_repo]
    lock = str(Path(pipeline_file()).with_suffix(".lock"))
    answer = git("check-attr", "-z", "--stdin", "filter", stdin="\0".join([lock, *files]))
    found = answer.split("\0")
    taken = [name for name, value in zip(found[::3], found[2::3], strict=False) if value == "lfs"]
    if not taken:
        return ""
    return (
        f"git LFS would keep {some_of(taken)}, because of .gitattributes, and jobs do not push to "
        f"LFS: add the line `{taken[0]} !filter !diff !merge` at its end, likewise for others."
    )


def not_whole(stage: Any, lacking: dict[Path, str]) -> str:
    """A line on a dep that contains such a submodule or pointer; empty if none does."""
    here = [dep for dep in stage.deps if dep.protocol == "local"]
    for dep, (left_out, why) in product(here, lacking.items()):
        path = Path(dep.fs_path)
        if path.is_relative_to(left_out) or left_out.is_relative_to(path):
            return f"{stage.addressing} needs {dep}: {why}"
    return ""


def not_tracked(stage: Any, outs: Any) -> str:
    """A line on a dep that is missing and that no stage makes; empty if there is none."""
    made = [Path(out.fs_path) for out in outs if out.fs.protocol == "local"]
    for dep in stage.deps:
        if not dep.fs:  # a dataset (`ds://…`), whose version is in dvc.lock
            continue
        try:
            there = dep.exists
        except Exception as error:  # of whatever file system a dep is on
            return f"{stage.addressing} needs {dep}, which cannot be checked: {error}"
        path = Path(dep.fs_path)
        near = (m == path or m in path.parents or path in m.parents for m in made)
        if not there and not (dep.fs.protocol == "local" and any(near)):
            what = "neither git nor DVC has: `dvc add` it, `dvc push`, and commit its .dvc file"
            return f"{stage.addressing} needs {dep}, which {what}."
    return ""
