"""Starts a process on as many workers as its section of params.yaml asks for; called by tools/run.

    tools/within lab/processes/NAME python -m tools.workers NAME [ARGUMENT …]

It runs in the environment of the process, which has torch: torch's own launcher starts the workers,
and their failure is reported in one line.
"""

import logging
import os
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.params import FILE, read_yaml
from lib.repository import ROOT
from lib.text import one_line


def workers_of(name: str) -> int:
    """How many workers params.yaml asks for; 1 if that is invalid: the process reports it."""
    try:
        content = read_yaml(ROOT / FILE)
    except UserError:
        return 1
    section = content.get(name) if isinstance(content, dict) else None
    count = section.get("workers") if isinstance(section, dict) else None
    return count if type(count) is int and count > 1 else 1


def launch(count: int, program: Sequence[str]) -> int:
    """Run `count` copies of a Python program as torch workers; the exit code.

    Worker 0 prints as if it were alone; of the others, only the stderr of one that fails is shown.
    """
    # Imported here: it takes seconds, and a single worker does not need it.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable()  # torch's own report, which `cause` replaces
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback())
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(folder, redirects=dict.fromkeys(range(1, count), Std.ALL)),
        )
        try:
            elastic_launch(config, sys.executable)("-u", *program)
        except ChildFailedError as error:
            if message := cause(error.failures, Path(folder), count):
                print(message, file=sys.stderr)
            return 1
        except SignalException as error:  # it has passed the signal on to the workers
            return 128 + error.sigval
    return 0


def loopback() -> str:
    """The name of the loopback interface; the host's own name may not resolve."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


def cause(failures: Mapping[int, Any], logs: Path, count: int) -> str:
    """Why the workers ended: one was killed, or else the stderr of the first that failed.

    Empty if that is worker 0, whose stderr was shown live. If each only lost its connection to
    another, torch's message on that.
    """
    from lib.distributed import ALONE

    codes = {number: failure.exitcode for number, failure in failures.items()}
    ended = (ALONE, -signal.SIGTERM)  # because of another worker
    causes = {number: code for number, code in sorted(codes.items()) if code not in ended}
    for number, code in causes.items():
        if code < 0:
            why = " Most often the machine was out of memory." if code == -signal.SIGKILL else ""
            return (
                f"worker {number + 1} of {count} was killed ({signal.Signals(-code).name}).{why} "
                "Start it again: it goes on from its last checkpoint."
            )
    if not causes:
        number = min(codes, key=lambda number: (codes[number] != ALONE, number))
        why = one_line(failures[number].message.rstrip("."))
        return (
            f"worker {number + 1} of {count} ended: {why}. Start it again: it goes on from its "
            "last checkpoint."
        )
    number = min(causes)
    logged = logs.glob(f"**/{number}/stderr.log")
    return "".join(file.read_text("utf-8", "replace") for file in logged).rstrip("\n")


if __name__ == "__main__":
    _, name, *arguments = sys.argv
    program = [str(ROOT / "lab/processes" / name / "main.py"), *arguments]
    workers = workers_of(name)
    if workers == 1:
        os.execv(sys.executable, [sys.executable, *program])
    try:
        sys.exit(launch(workers, program))
    except KeyboardInterrupt:  # before the workers have started
        sys.exit(130)
