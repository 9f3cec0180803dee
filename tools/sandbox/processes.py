"""Starts, finds and ends the sandbox's processes, by marks in their environment.

Child processes inherit environment variables, and none survive a reboot: unlike with pid files,
nothing goes stale, and the children of a killed process are found as well.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.sandbox.state import FOLDER

FOLDER_MARK, PART_MARK = "LAB_SANDBOX", "LAB_SANDBOX_PART"
SETTINGS_MARK = "LAB_SANDBOX_SETTINGS"


@dataclass(frozen=True)
class Mark:
    """The mark of a process: its part (s3, mlflow or job), and a hash of how it was started."""

    part: str
    settings: str = ""

    def variables(self) -> dict[str, str]:
        """The mark as environment variables."""
        return {FOLDER_MARK: str(FOLDER), PART_MARK: self.part, SETTINGS_MARK: self.settings}


def ours(part: str = "") -> dict[int, Mark]:
    """The sandbox's running processes, or those of one part, by pid."""
    found, spared = {}, {os.getpid(), *ancestors()}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            content = os.fsdecode((folder / "environ").read_bytes())
            directory = (folder / "cwd").readlink()
        except OSError:  # ended meanwhile, or another user's
            continue
        variables = dict(entry.split("=", 1) for entry in content.split("\0") if "=" in entry)
        if FOLDER_MARK not in variables or int(folder.name) in spared:
            continue
        # If the project was moved while its sandbox ran, /proc has the new path.
        here = variables[FOLDER_MARK] == str(FOLDER) or directory.is_relative_to(FOLDER)
        mark = Mark(variables.get(PART_MARK, ""), variables.get(SETTINGS_MARK, ""))
        if here and part in ("", mark.part):
            found[int(folder.name)] = mark
    return found


def ancestors() -> list[int]:
    """The pids of this process's ancestors: `down` in a job's shell must not kill itself."""
    above, pid = [], os.getppid()
    while pid > 1:
        above.append(pid)
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat.rpartition(")")[2].split()[1])
    return above


def start(
    mark: Mark, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start a server that outlives this process and the terminal."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, **mark.variables()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def end(wanted: Iterable[int], *, grace: float = 5.0) -> None:
    """End processes of the sandbox, with SIGKILL after `grace` seconds."""
    wanted = set(wanted)
    deadline = time.monotonic() + grace
    signal_all(wanted & ours().keys(), signal.SIGTERM if grace else signal.SIGKILL)
    while living := wanted & ours().keys():
        if time.monotonic() > deadline:
            signal_all(living, signal.SIGKILL)
        time.sleep(0.05)


def end_all() -> None:
    """Kill every process of the sandbox, and those that they start meanwhile."""
    while living := ours():
        end(living, grace=0)


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to the processes that still exist."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
