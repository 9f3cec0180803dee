"""DVC, with its directory listings verified before they are used.

    tools/within . python -m tools.job.guarded_dvc repro [--pull] …

DVC stores a folder as a listing of its files. DVC 3.67 accepts any path in a listing, so that
`../../escaped` writes outside the folder, and its `verify` setting checks the checksums of files
but not of listings. `make run` and the workflow steps that write files run DVC through this module;
plain `dvc` is unchanged. Every listing, from dvc.lock, the cache, the bucket or the run cache,
passes through the two functions that are replaced here.

It also records a stage's deps as they were at its start (inputs.py), and fails a stage whose outs
could not all be cached, on a full disk for example, where DVC would only print an error. A file in
the cache that does not have the checksum in its name, as a crash may leave it, is removed, and
pulled or computed again: DVC takes every read-only file there as whole.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from typing import Any

import dvc.output
import dvc.stage.run
from dvc.exceptions import DvcException
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.db.local import LocalHashFileDB
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError

from lib.text import one_line
from tools.job.inputs import recording_inputs

WHO = "Somebody has changed the bucket, the cache or dvc.lock: find out who. Nothing of it is used."


def load_verified(cls: Any, odb: Any, hash_info: HashInfo, hash_name: str | None = None) -> Tree:
    """As `Tree.load`; DvcException if the listing does not have the checksum in its name."""
    stored = odb.get(hash_info.value)
    with stored.fs.open(stored.path, "rb") as file:
        content = file.read()
    if f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.dir" != hash_info.value:
        if isinstance(odb, LocalHashFileDB) and not content.endswith(b"]"):
            odb.check(str(hash_info.value))  # cut short by a crash: removed, and FileNotFoundError
        raise DvcException(f"refused: the listing of a folder is not {hash_info.value}. {WHO}")
    if hash_name is None and odb.hash_name == "md5-dos2unix":
        hash_name = odb.hash_name
    tree: Tree = cls.from_list(json.loads(content), hash_name=hash_name)
    tree.path, tree.fs = stored.path, stored.fs
    tree.hash_info, tree.oid = hash_info, hash_info.value
    return tree


def check_content(
    odb: HashFileDB, oid: str, check_hash: bool = True, _info: dict[str, Any] | None = None
) -> Meta:
    """As DVC's `check`, also for a read-only file: if it is corrupt, it is removed and missing.

    DVC's state remembers the checksum of each unchanged file, so that it is computed once.
    """
    try:
        return HashFileDB.check(odb, oid, check_hash, _info)
    except ObjectFormatError as error:
        raise FileNotFoundError(str(error)) from None


def check_paths(listing: list[dict[str, Any]]) -> None:
    """DvcException if a path in a listing is invalid or leads out of its folder."""
    for entry in listing:
        path = entry.get(Tree.PARAM_RELPATH)
        parts = path.split("/") if isinstance(path, str) else [""]
        if {"", ".", ".."} & set(parts) or "\0" in str(path):
            raise DvcException(
                f"refused: the listing of a folder names the file {one_line(repr(path))}, which is "
                f"not in the folder. {WHO}"
            )


def failing_if_incomplete(transfer: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap DVC's `transfer` of files to its cache: DvcException if any file did not get there."""

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
    """Patch the DVC of this process."""
    from_list = Tree.from_list

    def checked(_: type[Tree], listing: Any, hash_name: str | None = None) -> Tree:
        check_paths(listing)
        return from_list(listing, hash_name)

    Tree.from_list = classmethod(checked)  # type: ignore[method-assign, assignment]
    Tree.load = classmethod(load_verified)  # type: ignore[method-assign, assignment]
    LocalHashFileDB.check = check_content  # type: ignore[method-assign, assignment]
    dvc.output.otransfer = failing_if_incomplete(dvc.output.otransfer)
    dvc.stage.run.cmd_run = recording_inputs(dvc.stage.run.cmd_run)


if __name__ == "__main__":
    from dvc.cli import main

    install()
    sys.exit(main(sys.argv[1:]))
