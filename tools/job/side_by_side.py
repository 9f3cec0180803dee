"""Reproduces stages that do not depend on each other side by side: `make run JOBS=2`.

    tools/within . python -m tools.job.side_by_side JOBS [TARGET …]

Each stage that has changed is a `dvc repro` of its own, which waits while another has DVC's lock;
dvc.lock ends as if they had run one after the other. Stages with the same `pool` in their `meta` (a
graphics card, a licence) never meet. Where one fails, those that need it are left out, and all
others run to their end.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc.utils.serialize import modify_yaml

from lib.errors import UserError
from lib.params import read_yaml
from lib.pipeline import unread
from lib.repository import ROOT
from tools.command import as_command
from tools.job import guarded_dvc
from tools.job.job import run_live

Needs = dict[Any, list[Any]]  # by each stage those that it needs, in DVC's order
Show = Callable[[str, str], None]  # takes a stage's address and a line that it has printed


def reproduce(
    jobs: int, targets: Sequence[str], options: Sequence[str], show: Show
) -> tuple[dict[str, int], list[str]]:
    """Reproduce the targets and what they need, at most `jobs` stages at once.

    Args:
        targets: stages, or files of them, as `dvc repro` takes them.
        options: of `dvc repro`.

    Returns:
        The exit codes of stages that failed, and the stages that were left out for it.

    Raises:
        UserError: DVC cannot read the pipeline; nothing has run.
    """
    failed: dict[str, int] = {}
    left_out: list[str] = []
    with planned(targets) as (repo, needs), in_order(repo, needs), ThreadPoolExecutor(jobs) as pool:
        sorter = TopologicalSorter(needs)
        sorter.prepare()
        ready: list[Any] = []
        running: dict[Future[int], Any] = {}
        while sorter.is_active():
            for stage in sorter.get_ready():
                if {each.addressing for each in needs[stage]} & {*failed, *left_out}:
                    left_out.append(stage.addressing)
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
                    running[pool.submit(run, stage.addressing, options, show)] = stage
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                if code := future.result():
                    failed[stage.addressing] = code
                sorter.done(stage)
    return failed, left_out


@contextmanager
def planned(targets: Sequence[str]) -> Iterator[tuple[Repo, Needs]]:
    """The stages of the targets and all that these need."""
    with Repo(str(ROOT), _wait_for_lock=True) as repo:
        try:
            wanted = [stage for target in targets for stage in repo.stage.collect(target)]
            graph = get_active_graph(repo.index.graph)
            plan = plan_repro(graph, wanted)
        except (DvcException, ImportError) as error:  # of a storage that DVC has no package for
            raise UserError(unread(error)) from None
        yield repo, {stage: list(graph.successors(stage)) for stage in plan}


def changed(repo: Repo, stage: Any) -> bool:
    """Whether `dvc repro` would do anything for a stage; what it needs is as it is to be.

    So it would where that cannot be told, of a dep on an S3 that is away, say: it tells the error.
    """
    with repo.lock:
        try:
            return bool(stage.changed())
        except Exception:  # of whatever file system a dep is on
            return True


def pool_of(stage: Any) -> str:
    """What the stage says that only one at a time may have."""
    meta = stage.meta if isinstance(stage.meta, dict) else {}
    return str(meta.get("pool", ""))


def run(address: str, options: Sequence[str], show: Show) -> int:
    """Reproduce one stage; the exit code."""
    command = ("--wait-for-lock", "repro", *options, "--single-item", "--", address)
    return run_dvc(command, lambda line: show(address, line))


def run_dvc(arguments: Sequence[str], show: Callable[[str], None]) -> int:
    """Run DVC, its listings checked, and hand on each line that it prints; the exit code."""
    return run_live([sys.executable, "-m", guarded_dvc.__name__, *arguments], show)


@contextmanager
def in_order(repo: Repo, needs: Needs) -> Iterator[None]:
    """Have stages that are new in a dvc.lock stand in the order of the plan, as DVC's own do."""
    planned_of: dict[Path, list[str]] = {}
    for stage in needs:
        if getattr(stage, "name", None):  # data that were added have none, and are in no dvc.lock
            planned_of.setdefault(Path(stage.path).with_suffix(".lock"), []).append(stage.name)
    before = {lock: noted_in(lock) for lock in planned_of}
    try:
        yield
    finally:
        for lock, names in planned_of.items():
            with repo.lock:
                noted = noted_in(lock)
                order = [n for n in dict.fromkeys([*before[lock], *names, *noted]) if n in noted]
                if order != noted:
                    with modify_yaml(str(lock)) as data:
                        data["stages"] = {name: data["stages"][name] for name in order}


def noted_in(lock: Path) -> list[str]:
    """The names of the stages in a dvc.lock, in its order."""
    content = read_yaml(lock, aliases=True) if lock.exists() else None
    return list((content or {}).get("stages") or {})  # none where it has datasets alone


def number_of(jobs: str) -> int:
    """JOBS as a number; UserError where it is none."""
    if not jobs.isdecimal() or int(jobs) < 1:
        raise UserError(f"JOBS is {jobs!r}: it must be how many stages may run at once, such as 2.")
    return int(jobs)


def make_run(jobs: str, *targets: str) -> None:
    """Reproduce and show every line with its stage's name before it; UserError if one failed."""

    def show(stage: str, line: str) -> None:
        if line:
            print(f"{stage} | {line}", flush=True)

    failed, left_out = reproduce(number_of(jobs), targets, (), show)
    if failed:
        skipped = f" Left out, for they need it: {', '.join(left_out)}." if left_out else ""
        raise UserError(
            f"failed: {', '.join(failed)} (the cause is above).{skipped} All others are done: fix "
            "it and run again, they are not run twice."
        )


if __name__ == "__main__":
    as_command(lambda: make_run(*sys.argv[1:]), "ERROR: ")
