"""DVC, with listings of folders checked, and results that are noted of what they were made from.

    tools/within . python -m tools.job.guarded_dvc repro [--pull] …

A folder that DVC keeps is a listing of its files. DVC 3.67 takes every path in one, and writes
`../../escaped` where that leads; and `verify` compares all files with their checksums, but not the
listings. `make run` and the workflows' steps that write files call DVC by this name; by its own
name it is as it comes. All that DVC does with a listing, wherever it comes from (dvc.lock, the
cache, the bucket, its run cache), begins in the two functions that are replaced here.

And what a stage has read, DVC looks at when it has ended: who edits params.yaml or code meanwhile,
for the next run, would find the new beside results of the old, and all up to date. So what a
process reads as it starts is noted as it was before; if it was edited just then, the stage fails.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import dvc.stage.run
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.stage import Stage
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

from lib.repository import run_git
from lib.text import one_line

STARTING = 60  # seconds within which a process has read its parameters and its code
WHO = "Somebody has changed the bucket, the cache or dvc.lock: find out who. Nothing of it is used."


def load(cls: Any, odb: Any, hash_info: HashInfo, hash_name: str | None = None) -> Tree:
    """As `Tree.load`, of what has the checksum that it is called by."""
    stored = odb.get(hash_info.value)
    with stored.fs.open(stored.path, "rb") as file:
        content = file.read()
    if f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.dir" != hash_info.value:
        raise DvcException(f"refused: the listing of a folder is not {hash_info.value}. {WHO}")
    if hash_name is None and odb.hash_name == "md5-dos2unix":
        hash_name = odb.hash_name
    tree: Tree = cls.from_list(json.loads(content), hash_name=hash_name)
    tree.path, tree.fs = stored.path, stored.fs
    tree.hash_info, tree.oid = hash_info, hash_info.value
    return tree


def refuse(listing: list[dict[str, Any]]) -> None:
    """DvcException where a path in a listing leads out of its folder, or is none."""
    for entry in listing:
        path = entry.get(Tree.PARAM_RELPATH)
        parts = path.split("/") if isinstance(path, str) else [""]
        if {"", ".", ".."} & set(parts) or "\0" in str(path):
            raise DvcException(
                f"refused: the listing of a folder names the file {one_line(repr(path))}, which is "
                f"not in the folder. {WHO}"
            )


def noting_first(run: Callable[..., None]) -> Callable[..., None]:
    """As DVC's `cmd_run`; parameters, and files that git has, are noted as they were before it."""

    def run_noted(stage: Stage, dry: bool = False, run_env: Any = None) -> None:
        if dry:
            run(stage, dry=True, run_env=run_env)
            return
        stage.save_deps()
        before = Inputs(stage)
        begun: list[list[Any]] = []
        timer = Timer(STARTING, lambda: begun.append(before.now()))
        timer.daemon = True
        timer.start()
        try:
            run(stage, run_env=run_env)
        finally:
            timer.cancel()
        # Several commands start one after the other.
        read = begun[0] if begun and one_command(stage) else before.now()
        if edited := before.other_than(read):
            raise DvcException(
                f"{edited[0]} was edited while {stage.addressing} ran, by somebody or by the stage "
                "itself, so nobody can tell what its results are of. They are on disk, and not "
                "noted. Run it again; or, with that file as it was for them, `dvc commit --force "
                f"{stage.addressing}` notes them."
            )
        as_begun, save_deps = before.other_than(before.now()), stage.save_deps

        def save_others(**options: bool) -> None:
            deps, stage.deps = stage.deps, [dep for dep in stage.deps if dep not in as_begun]
            try:
                save_deps(**options)
            finally:
                stage.deps = deps

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


def install() -> None:
    """Have DVC check, in this process."""
    from_list = Tree.from_list

    def checked(_: type[Tree], listing: Any, hash_name: str | None = None) -> Tree:
        refuse(listing)
        return from_list(listing, hash_name)

    Tree.from_list = classmethod(checked)  # type: ignore[method-assign, assignment]
    Tree.load = classmethod(load)  # type: ignore[method-assign, assignment]
    dvc.stage.run.cmd_run = noting_first(dvc.stage.run.cmd_run)


if __name__ == "__main__":
    from dvc.cli import main

    install()
    sys.exit(main(sys.argv[1:]))
