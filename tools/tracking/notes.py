"""Notes on each stage's run in MLflow, in `.mlflow/`, which git ignores.

Read by the next start of the stage, the results commit, the page of a run, and `tracking.check`.
"""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lib.errors import UserError
from lib.files import read_json, write_json
from lib.repository import ROOT

FOLDER = ROOT / ".mlflow"


def read(stage: str) -> dict[str, Any]:
    """The note on a stage; empty if it cannot be read."""
    return read_file(file_of(stage))


def write(stage: str, **facts: Any) -> None:
    """Add facts to the note on a stage."""
    FOLDER.mkdir(exist_ok=True)
    write_json(file_of(stage), read(stage) | {"stage": stage} | facts)


def remember_error(stage: str, message: str) -> None:
    """Note that a bug kept a stage from being logged; `make run` then fails with the message."""
    write(stage, fingerprint="", run_id="", outcome="", error=message)


def everything() -> dict[str, dict[str, Any]]:
    """All notes, by the stage's address."""
    found = map(read_file, sorted(FOLDER.glob("*.json")))
    return {note["stage"]: note for note in found if note.get("stage")}


def file_of(stage: str) -> Path:
    """The file of a stage's note; slashes in its address are escaped."""
    name = quote(stage, safe="@")
    if len(name) > 200:  # more than a file system takes
        name = hashlib.sha256(name.encode()).hexdigest()
    return FOLDER / f"{name}.json"


def read_file(file: Path) -> dict[str, Any]:
    """One note; empty where it is missing or damaged."""
    try:
        return dict(read_json(file))
    except (OSError, ValueError, UserError):
        return {}
