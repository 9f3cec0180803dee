"""DVC, with the listings of folders checked before anything is made of them.

    tools/within . python -m tools.job.guarded_dvc repro [--pull] …

A folder that DVC keeps is a listing of its files. DVC 3.67 takes every path in one, and writes
`../../escaped` where that leads; and `verify` compares all files with their checksums, but not the
listings. `make run` and the workflows' steps that write files call DVC by this name; by its own
name it is as it comes. All that DVC does with a listing, wherever it comes from (dvc.lock, the
cache, the bucket, its run cache), begins in the two functions that are replaced here.

In it, a stage's deps are noted as they were when it began, too (inputs.py), and a stage whose outs
do not all get into the cache, of a disk that is full, has failed: DVC tells it and goes on.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from typing import Any

import dvc.output
import dvc.stage.run
from dvc.exceptions import DvcException
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

from lib.text import one_line
from tools.job.inputs import noting_first

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


def whole(transfer: Callable[..., Any]) -> Callable[..., Any]:
    """As DVC's `transfer` of files to its cache; DvcException where some do not get there."""

    def transfer_all(*arguments: Any, **options: Any) -> Any:
        result = transfer(*arguments, **options)
        if result.failed:
            raise DvcException(
                f"{len(result.failed):,} of its files did not get into DVC's cache: is its disk "
                "full? The lines above say why"
            )
        return result

    return transfer_all


def install() -> None:
    """Have DVC check, in this process."""
    from_list = Tree.from_list

    def checked(_: type[Tree], listing: Any, hash_name: str | None = None) -> Tree:
        refuse(listing)
        return from_list(listing, hash_name)

    Tree.from_list = classmethod(checked)  # type: ignore[method-assign, assignment]
    Tree.load = classmethod(load)  # type: ignore[method-assign, assignment]
    dvc.output.otransfer = whole(dvc.output.otransfer)
    dvc.stage.run.cmd_run = noting_first(dvc.stage.run.cmd_run)


if __name__ == "__main__":
    from dvc.cli import main

    install()
    sys.exit(main(sys.argv[1:]))
