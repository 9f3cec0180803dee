"""Notes what a stage reads as it was when the stage began; guarded_dvc.py has DVC do so.

DVC looks at it when the stage has ended: who edits params.yaml or code meanwhile, for the next run,
would find the new beside results of the old, and all up to date. What a process reads as it starts
is noted as it was before; if it was edited just then, nobody can tell, and the stage fails.
"""

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.stage import Stage

from lib.repository import run_git

STARTING = 60  # seconds within which a process has read its parameters and its code


def noting_first(run: Callable[..., None]) -> Callable[..., None]:
    """As DVC's `cmd_run`; parameters, and files that git has, are noted as they were before it."""

    def run_noted(stage: Stage, dry: bool = False, run_env: Any = None) -> None:
        if dry:
            run(stage, dry=True, run_env=run_env)
            return
        stage.save_deps()
        before = Inputs(stage)
        data = {dep: dep.hash_info for dep in before.data()}
        begun: list[list[Any]] = []
        timer = Timer(STARTING, lambda: begun.append(before.now()))
        timer.daemon = True
        timer.start()
        try:
            run(stage, run_env=run_env)
        finally:
            timer.cancel()
        end = before.now()
        # Several commands start one after the other.
        read = begun[0] if begun and one_command(stage) else end
        if edited := before.other_than(read):
            raise DvcException(
                f"{edited[0]} was edited while {stage.addressing} ran, by somebody or by the stage "
                "itself, so nobody can tell what its results are of. They are on disk, and not "
                "noted. Run it again; or, with that file as it was for them, `dvc commit --force "
                f"{stage.addressing}` notes them."
            )
        as_begun, save_deps = before.other_than(end), stage.save_deps

        def save_others(**options: bool) -> None:
            deps, stage.deps = stage.deps, [dep for dep in stage.deps if dep not in as_begun]
            try:
                save_deps(**options)
            finally:
                stage.deps = deps
            for dep in (dep for dep, noted in data.items() if dep.hash_info != noted):
                print(
                    f"WARNING: {dep} changed while {stage.addressing} ran. Its results may be of "
                    "what it was; dvc.lock has what it is now, which `dvc push` does not push. "
                    "A stage that writes there is to write an out of its own.",
                    file=sys.stderr,
                )

        stage.save_deps = save_others

    return run_noted


class Inputs:
    """What a stage reads as it starts: parameters, and files that git has, in folders too.

    Of notebooks, which may be executed in place, and of data DVC notes the end.
    """

    def __init__(self, stage: Stage) -> None:
        self.deps = [dep for dep in stage.deps if dep.is_in_repo]
        self.files = {dep: [*tracked(dep)] for dep in self.deps}
        self.contents = self.now()

    def data(self) -> list[Any]:
        """The deps that git has nothing of, but for notebooks."""
        return [
            dep
            for dep in self.deps
            if not self.files[dep]
            and not isinstance(dep, ParamsDependency)
            and not dep.fs_path.endswith(".ipynb")
        ]

    def now(self) -> list[Any]:
        """What each has in it; None where that cannot be read."""
        return [self.content(dep) for dep in self.deps]

    def content(self, dep: Any) -> Any:
        """The values of parameters, or the checksums of files."""
        try:
            if isinstance(dep, ParamsDependency):
                return repr(dep.read_params())  # NaN is like NaN
            return [hashlib.md5(file.read_bytes()).digest() for file in self.files[dep]]
        except (DvcException, OSError):
            return None

    def other_than(self, contents: list[Any]) -> list[Any]:
        """Those that had other content than this at first."""
        pairs = zip(self.deps, self.contents, contents, strict=True)
        return [dep for dep, before, after in pairs if before != after]


def tracked(dep: Any) -> list[Path]:
    """The files that git has of a dep, but for notebooks."""
    if isinstance(dep, ParamsDependency):
        return []
    root = Path(dep.repo.root_dir)
    found = run_git("ls-files", "-z", "--", dep.fs_path, folder=root)
    names = os.fsdecode(found.stdout).split("\0")  # none where git does not answer
    return [root / name for name in names if name and not name.endswith(".ipynb")]


def one_command(stage: Stage) -> bool:
    """Whether a stage starts one process, which reads what it needs as it starts."""
    commands = [stage.cmd] if isinstance(stage.cmd, str) else stage.cmd
    return len(commands) == 1 and not set("&;|\n") & set(commands[0].strip())
