"""Reproduces independent stages in parallel: `make run JOBS=2`.

    tools/within . python -m tools.job.side_by_side JOBS [TARGET …]

Each changed stage is a `dvc repro` of its own, which waits while another holds DVC's lock; dvc.lock
ends up as if they had run one after the other. Stages with the same `pool` in their `meta` (a GPU,
a licence) never run at the same time. If a stage fails, those that depend on it are skipped, and
all others run to their end.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc.utils.serialize import modify_yaml

from lib.errors import UserError
from lib.params import read_yaml
from lib.pipeline import UNREADABLE, unread
from lib.repository import ROOT
from tools.command import as_command
from tools.job import guarded_dvc
from tools.job.job import run_live

Needs = dict[Any, list[Any]]  # the stages that each stage depends on, in DVC's order
Show = Callable[[str, str], None]  # called with a stage's address and a line of its output


def reproduce(
    jobs: int, targets: Sequence[str], options: Sequence[str], show: Show
) -> tuple[dict[str, int], list[str]]:
    """Reproduce the targets and their dependencies, at most `jobs` stages at once.

    Args:
        jobs: how many stages may run at once.
        targets: stages or dvc.yaml files, as for `dvc repro`.
        options: for `dvc repro`.
        show: receives each line of output.

    Returns:
        The exit codes of the stages that failed, and the stages that were skipped because of them.

    Raises:
        UserError: DVC cannot read the pipeline; nothing has run.
    """
    failed: dict[str, int] = {}
    skipped: list[str] = []
    with (
        planned(targets) as (repo, needs),
        sorted_lock(repo, needs),
        ThreadPoolExecutor(jobs) as pool,
    ):
        sorter = TopologicalSorter(needs)
        sorter.prepare()
        ready: list[Any] = []
        running: dict[Future[int], Any] = {}
        while sorter.is_active():
            for stage in sorter.get_ready():
                if {each.addressing for each in needs[stage]} & {*failed, *skipped}:
                    skipped.append(stage.addressing)
                elif changed(repo, stage):
                    ready.append(stage)
                    continue
                elif not stage.is_data_source:
                    show(stage.addressing, f"Stage '{stage.addressing}' didn't change, skipping")
                sorter.done(stage)
            for stage in [*ready]:
                taken = {pool_of(other) for other in running.values()} - {""}
                if len(running) < jobs and pool_of(stage) not in taken:
                    ready.remove(stage)
                    running[pool.submit(run_stage, stage.addressing, options, show)] = stage
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                if code := future.result():
                    failed[stage.addressing] = code
                sorter.done(stage)
    return failed, skipped


@contextmanager
def planned(targets: Sequence[str]) -> Iterator[tuple[Repo, Needs]]:
    """The stages of the targets and their dependencies, with DVC's repository open."""
    with Repo(str(ROOT), _wait_for_lock=True) as repo:
        try:
            wanted = [stage for target in targets for stage in repo.stage.collect(target)]
            graph = get_active_graph(repo.index.graph)
            plan = plan_repro(graph, wanted)
        except UNREADABLE as error:
            raise UserError(unread(error)) from None
        yield repo, {stage: list(graph.successors(stage)) for stage in plan}


def changed(repo: Repo, stage: Any) -> bool:
    """Whether `dvc repro` would do anything for a stage whose dependencies are up to date.

    True also if that cannot be determined, for a dep on an unreachable S3 for example: `dvc repro`
    then reports the error.
    """
    with repo.lock:
        try:
            return bool(stage.changed())
        except Exception:  # from any file system that a dep may be on
            return True


def pool_of(stage: Any) -> str:
    """The stage's `pool`, of which only one stage runs at a time; empty if it names none."""
    meta = stage.meta if isinstance(stage.meta, dict) else {}
    return str(meta.get("pool", ""))


def run_stage(address: str, options: Sequence[str], show: Show) -> int:
    """Reproduce one stage; the exit code."""
    command = ("--wait-for-lock", "repro", *options, "--single-item", "--", address)
    return run_dvc(command, lambda line: show(address, line))


def run_dvc(arguments: Sequence[str], show: Callable[[str], None]) -> int:
    """Run DVC (guarded_dvc.py) and pass each line of its output to `show`; the exit code."""
    return run_live([sys.executable, "-m", guarded_dvc.__name__, *arguments], show)


@contextmanager
def sorted_lock(repo: Repo, needs: Needs) -> Iterator[None]:
    """Put new entries of dvc.lock into the order of the plan, as a plain `dvc repro` would."""
    planned_of: dict[Path, list[str]] = {}
    for stage in needs:
        if getattr(stage, "name", None):  # data added with `dvc add` have none, and no dvc.lock
            planned_of.setdefault(Path(stage.path).with_suffix(".lock"), []).append(stage.name)
    before = {lock: stages_in(lock) for lock in planned_of}
    try:
        yield
    finally:
        for lock, names in planned_of.items():
            with repo.lock:
                recorded = stages_in(lock)
                order = [
                    n for n in dict.fromkeys([*before[lock], *names, *recorded]) if n in recorded
                ]
                if order != recorded:
                    with modify_yaml(str(lock)) as data:
                        data["stages"] = {name: data["stages"][name] for name in order}


def stages_in(lock: Path) -> list[str]:
    """The names of the stages in a dvc.lock, in its order."""
    content = read_yaml(lock, aliases=True) if lock.exists() else None
    return list((content or {}).get("stages") or {})  # it may have only datasets


def number_of(jobs: str) -> int:
    """JOBS as a number; UserError if it is not one."""
    if not jobs.isdecimal() or int(jobs) < 1:
        raise UserError(f"JOBS is {jobs!r}: it must be how many stages may run at once, such as 2.")
    return int(jobs)


def make_run(jobs: str, *targets: str) -> None:
    """Reproduce, with each line prefixed by its stage's name; UserError if a stage failed."""

    def show(stage: str, line: str) -> None:
        if line:
            print(f"{stage} | {line}", flush=True)

    failed, skipped = reproduce(number_of(jobs), targets, (), show)
    if failed:
        others = f" Skipped, as they depend on it: {', '.join(skipped)}." if skipped else ""
        raise UserError(
            f"failed: {', '.join(failed)} (the cause is above).{others} All others are done: fix "
            "it and run again, they are not run twice."
        )


if __name__ == "__main__":
    as_command(lambda: make_run(*sys.argv[1:]), "ERROR: ")
