"""Files that dvc.lock names, by their content: asked before a pickle is loaded, which runs code."""

import hashlib
import json
import re
from pathlib import Path

from lib.errors import UserError
from lib.params import read_yaml

LOCK = "dvc.lock"
IGNORED = re.compile(r"^\..*\.(new|old)$|^\.DS_Store$")  # in folders, as .dvcignore says


def locked(path: Path | str, root: Path | str = "") -> Path:
    """The path, where what lies there is what a stage wrote by dvc.lock.

    Where there is no dvc.lock, DVC is not at work, and nothing is asked.

    Raises:
        UserError: dvc.lock names another content, or none.
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
    """As DVC notes it: of a file its own, of a folder that of its listing."""
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
    """The md5 of bytes."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
