"""The persistent state of the sandbox: ports and keys.

Everything is under `.sandbox/`, which git and DVC ignore. `up` makes it, `down` removes it.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lib.repository import ROOT

FOLDER = ROOT / ".sandbox"
ORIGIN = FOLDER / "origin.git"
JOBS = FOLDER / "jobs"
BUCKET = "lab"
ARTIFACT_MODES = ("proxied", "direct")


@dataclass
class State:
    """What must survive a crash, so that addresses, keys and data stay consistent."""

    artifacts: str = "proxied"
    access_key: str = field(default_factory=lambda: f"sandbox{secrets.token_hex(6)}")
    secret_key: str = field(default_factory=lambda: secrets.token_hex(20))
    token: str = field(default_factory=lambda: f"token{secrets.token_hex(12)}")
    ports: dict[str, int] = field(default_factory=dict)
    dvc_default: str | None = None  # core.remote in the clone's config.local, before the sandbox

    @classmethod
    def read(cls) -> "State | None":
        """The state in `.sandbox/`; None if it is missing or invalid."""
        try:
            return cls(**json.loads((FOLDER / "state.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self) -> None:
        """Write the state, readable only by its owner."""
        write_private(FOLDER / "state.json", json.dumps(asdict(self), indent=2) + "\n")

    @property
    def s3(self) -> str:
        """The S3 endpoint."""
        return f"http://127.0.0.1:{self.ports.get('s3', 0)}"

    @property
    def mlflow(self) -> str:
        """The MLflow server and its UI."""
        return f"http://127.0.0.1:{self.ports.get('mlflow', 0)}"


def write_private(file: Path, text: str) -> None:
    """Write a file atomically, readable only by its owner."""
    new = file.with_name(f".{file.name}.{os.getpid()}.new")  # two jobs may write the same file
    new.unlink(missing_ok=True)
    new.touch(0o600)
    new.write_text(text, encoding="utf-8")
    new.replace(file)


@contextmanager
def alone() -> Iterator[None]:
    """Allow one `up` or `down` at a time; the lock of a killed one is released."""
    # This folder is locked, as `.sandbox/` may not exist.
    lock = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another `make sandbox` to end …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
