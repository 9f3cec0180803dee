"""What is noted of each stage's run in MLflow, in `.mlflow/`, which git ignores.

Read by the next start, by the results commit and the page of a run, and by what ends `make run`.
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
    """What is noted of a stage; empty where that cannot be read."""
    return read_file(file_of(stage))


def write(stage: str, **facts: Any) -> None:
    """Add to what is noted."""
    FOLDER.mkdir(exist_ok=True)
    write_json(file_of(stage), read(stage) | {"stage": stage} | facts)


def remember_error(stage: str, message: str) -> None:
    """Note that a stage was not logged because of a mistake, which `make run` then ends with."""
    write(stage, fingerprint="", run_id="", outcome="", error=message)


def everything() -> dict[str, dict[str, Any]]:
    """All notes, by the stage's address."""
    found = map(read_file, sorted(FOLDER.glob("*.json")))
    return {note["stage"]: note for note in found if note.get("stage")}


def file_of(stage: str) -> Path:
    """Where it is noted; a stage's address may have slashes in it."""
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
