"""Checks files against dvc.lock, before a pickle is loaded, which runs its code."""

import hashlib
import json
import re
from pathlib import Path

from lib.errors import UserError
from lib.params import read_yaml

LOCK = "dvc.lock"
IGNORED = re.compile(r"^\..*\.(new|old)$|^\.DS_Store$")  # files in folders, as in .dvcignore


def locked(path: Path | str, root: Path | str = "") -> Path:
    """The path of a file, checked to have the content that a stage wrote according to dvc.lock.

    Without a dvc.lock, DVC is not in use, and nothing is checked.

    Raises:
        UserError: dvc.lock has another checksum for it, or none.
    """
    file, lock = Path(root, path), Path(root, LOCK)
    if not lock.exists():
        return file
    for stage in (read_yaml(lock, aliases=True).get("stages") or {}).values():
        for out in stage.get("outs", []):
            inside = Path(path).is_relative_to(out["path"])
            if inside and md5(Path(root, out["path"])) == out["md5"]:
                return file
    raise UserError(
        f"{path} is not what {LOCK} names, and to load it would run its code: `make run` writes "
        f"it, `dvc checkout` brings the one that {LOCK} names."
    )


def md5(out: Path) -> str:
    """The MD5 as DVC computes it: of a file, or a folder's list of files; empty if absent."""
    if not out.is_dir():
        return digest(out.read_bytes()) if out.is_file() else ""
    files = sorted(
        (file.relative_to(out).as_posix(), file)
        for file in out.rglob("*")
        if file.is_file() and not IGNORED.search(file.name)
    )
    listing = [{"md5": digest(file.read_bytes()), "relpath": name} for name, file in files]
    return digest(json.dumps(listing, sort_keys=True).encode()) + ".dir"


def digest(content: bytes) -> str:
    """The MD5 of bytes, in hexadecimal."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
