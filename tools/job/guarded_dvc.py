"""DVC, with listings of folders checked, and results that are noted of what they were made from.

    tools/within . python -m tools.job.guarded_dvc repro [--pull] …

A folder that DVC keeps is a listing of its files. DVC 3.67 takes every path in one, and writes
`../../escaped` where that leads; and `verify` compares all files with their checksums, but not the
listings. `make run` and the workflows' steps that write files call DVC by this name; by its own
name it is as it comes. All that DVC does with a listing, wherever it comes from (dvc.lock, the
cache, the bucket, its run cache), begins in the two functions that are replaced here.

And what a stage has read, DVC looks at when it has ended: who edits params.yaml or code meanwhile,
for the next run, would find the new beside results of the old. What a process reads when it starts
is noted as it was then; where it was edited just then, nobody can tell, and the stage fails.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dvc.stage.run
from dvc.exceptions import DvcException
from dvc.stage import Stage
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

from lib.repository import git_names
from lib.text import one_line

STARTING = 60  # seconds in which a process has read its parameters, and its code
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
    """As DVC's `cmd_run`; parameters and files of git's are noted as they were before it."""

    def run_noted(stage: Stage, dry: bool = False, run_env: Any = None) -> None:
        if dry:
            run(stage, dry=True, run_env=run_env)
            return
        stage.save_deps()
        noted = [(dep, dep.hash_info, dep.meta) for dep in stage.deps]
        began = time.time()
        run(stage, run_env=run_env)
        edited = [each for each in noted if is_edited(each[0])]
        for dep, *_ in edited:
            if Path(dep.fs_path).stat().st_mtime < began + STARTING:
                raise DvcException(
                    f"{dep} was edited while {stage.addressing} started, and nobody can tell "
                    "whether its results are of before or after. They are on disk, and not noted: "
                    "run it again; or bring back what they are of, and `dvc commit --force "
                    f"{stage.addressing}` notes them."
                )
        save_deps = stage.save_deps

        def save_as_begun(**options: bool) -> None:
            save_deps(**options)
            for dep, hash_info, meta in edited:
                dep.hash_info, dep.meta = hash_info, meta

        stage.save_deps = save_as_begun

    return run_noted


def is_edited(dep: Any) -> bool:
    """Whether a file that git has is not as it is noted; of all else DVC notes the end."""
    path = dep.fs_path
    return bool(
        dep.is_in_repo
        and Path(path).is_file()
        and git_names("ls-files", "-z", path)
        and dep.status()
    )


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
