"""Reads a Pipfile.lock; uses only the standard library, so that it works in any environment."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.repository import ROOT

Lock = Mapping[str, Any]
TEMPLATE_ONLY = "copier.yml"  # exists only in the template, and in a copy made by hand


def relative(path: Path) -> Path:
    """The path relative to the repository's root, if it is in it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def environments_folder() -> Path:
    """Where pipenv keeps environments."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(os.environ.get("WORKON_HOME") or Path(data) / "virtualenvs")


def read_lock(folder: Path) -> dict[str, Any]:
    """The content of a folder's Pipfile.lock; UserError if it is missing or invalid."""
    file = folder / "Pipfile.lock"
    try:
        lock: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        lock["_meta"]["hash"]["sha256"], lock["_meta"]["sources"]
        lock["default"] | lock["develop"]
    except FileNotFoundError:
        raise UserError(f"{relative(file)} is missing: run `make lock`.") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{relative(file)} is not a lock file (merged by hand?): run `make lock`."
        ) from None
    return lock


def entries(lock: Lock) -> dict[str, dict[str, Any]]:
    """The packages of all groups of a lock."""
    tables = [table for name, table in lock.items() if name != "_meta"]
    return {package: entry for table in tables for package, entry in table.items()}


def versions(lock: Lock) -> dict[str, str]:
    """The version of each package of a lock, as `==1.2`; those from a path or git have none."""
    return {p: entry["version"] for p, entry in entries(lock).items() if "version" in entry}
