"""Records what a stage reads as it was when the stage began; guarded_dvc.py installs this in DVC.

Plain DVC records deps when a stage has ended: if somebody edits params.yaml or code meanwhile, for
the next run, dvc.lock pairs the new inputs with the old results and calls the stage up to date.
Here, what a process reads as it starts is recorded as it was before. If it was edited just then,
nobody can tell which version the process read, and the stage fails.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import Any

from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.stage import Stage

from lib.repository import run_git

STARTING = 60  # seconds within which a process has read its parameters and its code


def recording_inputs(run: Callable[..., None]) -> Callable[..., None]:
    """Wrap DVC's `cmd_run` so that parameters, and files that git has, are recorded before it."""

    def run_recorded(stage: Stage, dry: bool = False, run_env: Any = None) -> None:
        if dry:
            run(stage, dry=True, run_env=run_env)
            return
        stage.save_deps()
        before = Inputs(stage)
        data = {dep: dep.hash_info for dep in before.data()}
        started = before.while_running(lambda: run(stage, run_env=run_env))
        end = before.now()
        # Of several commands, the last may read its inputs only at the end.
        read = started[0] if started and one_command(stage) else end
        if edited := before.differing(read):
            raise DvcException(
                f"{edited[0]} was edited while {stage.addressing} ran, by somebody or by the stage "
                "itself, so nobody can tell what its results are of. They are on disk, but not "
                "recorded. Run it again; or, with that file as it was then, `dvc commit --force "
                f"{stage.addressing}` records them."
            )
        keep_recorded(stage, before.differing(end), data)

    return run_recorded


def keep_recorded(stage: Stage, deps: Sequence[Any], data: Mapping[Any, Any]) -> None:
    """Replace the stage's `save_deps`, which DVC calls when the stage has ended.

    Args:
        stage: that has run.
        deps: those that stay as they were recorded at the start.
        data: the checksums at the start of the deps that are saved again; a change is a warning.
    """
    save_deps = stage.save_deps

    def save_others(**options: bool) -> None:
        every, stage.deps = stage.deps, [dep for dep in stage.deps if dep not in deps]
        try:
            save_deps(**options)
        finally:
            stage.deps = every
        for dep in (dep for dep, recorded in data.items() if dep.hash_info != recorded):
            print(
                f"WARNING: {dep} changed while {stage.addressing} ran. Its results may be of "
                "what it was; dvc.lock has what it is now, which `dvc push` does not push. "
                "A stage that writes there is to write an out of its own.",
                file=sys.stderr,
            )

    stage.save_deps = save_others


class Inputs:
    """What a stage reads as it starts: parameters, and files that git has, in folders too.

    Data, and notebooks, which may be executed in place, are left to DVC, which records them last.
    """

    def __init__(self, stage: Stage) -> None:
        self.deps = [dep for dep in stage.deps if dep.is_in_repo]
        self.files = {dep: [*tracked(dep)] for dep in self.deps}
        self.contents = self.now()

    def data(self) -> list[Any]:
        """The deps of which git has no file, except for notebooks."""
        return [
            dep
            for dep in self.deps
            if not self.files[dep]
            and not isinstance(dep, ParamsDependency)
            and not dep.fs_path.endswith(".ipynb")
        ]

    def now(self) -> list[Any]:
        """The content of each dep; None if it cannot be read."""
        return [self.content(dep) for dep in self.deps]

    def while_running(self, run: Callable[[], None]) -> list[list[Any]]:
        """Run something; the contents STARTING seconds later, or nothing if it ended sooner."""
        found: list[list[Any]] = []
        timer = Timer(STARTING, lambda: found.append(self.now()))
        timer.daemon = True
        timer.start()
        try:
            run()
        finally:
            timer.cancel()
        return found

    def content(self, dep: Any) -> Any:
        """The values of parameters, or the checksums of files."""
        try:
            if isinstance(dep, ParamsDependency):
                return repr(dep.read_params())  # as text, NaN equals NaN
            return [hashlib.md5(file.read_bytes()).digest() for file in self.files[dep]]
        except (DvcException, OSError):
            return None

    def differing(self, contents: Sequence[Any]) -> list[Any]:
        """The deps whose content at the start was not this."""
        pairs = zip(self.deps, self.contents, contents, strict=True)
        return [dep for dep, before, after in pairs if before != after]


def tracked(dep: Any) -> list[Path]:
    """The files of a dep that git has, except for notebooks."""
    if isinstance(dep, ParamsDependency):
        return []
    root = Path(dep.repo.root_dir)
    found = run_git("ls-files", "-z", "--", dep.fs_path, folder=root)
    names = os.fsdecode(found.stdout).split("\0")  # none if git fails
    return [root / name for name in names if name and not name.endswith(".ipynb")]


def one_command(stage: Stage) -> bool:
    """Whether a stage starts one process, which reads what it needs as it starts."""
    commands = [stage.cmd] if isinstance(stage.cmd, str) else stage.cmd
    return len(commands) == 1 and not set("&;|\n") & set(commands[0].strip())
