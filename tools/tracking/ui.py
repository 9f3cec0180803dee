"""Serves the MLflow store in the repository's root: `make ui`.

tools/within --dev . python -m tools.tracking.ui PORT
"""

import os
import re
import socket
import sys

from lib.repository import ROOT
from lib.text import shown_address
from tools.command import as_command
from tools.tracking import SETTINGS


def free_port(wanted: int) -> int:
    """The wanted port, or a free one if it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port is free on 127.0.0.1")


def main() -> None:
    """Replace this process by the server, or exit with the reason."""
    if os.environ.get("MLFLOW_URL"):
        where = shown_address(os.environ["MLFLOW_URL"])
        sys.exit(f"MLFLOW_URL is set: runs go to {where}, look there.")
    if not (ROOT / "mlflow.db").exists():
        sys.exit("mlflow.db is missing: `make run` makes it.")
    wanted = sys.argv[1]
    if not re.fullmatch("[0-9]{1,5}", wanted) or int(wanted) > 65535:
        sys.exit(f"PORT is {wanted!r}: it must be a whole number up to 65535.")
    os.chdir(ROOT)
    os.environ.update(SETTINGS)
    from tools.tracking.store import migrate  # it imports mlflow, which reads its settings

    migrate()
    port = free_port(int(wanted))
    print(f"MLflow: http://127.0.0.1:{port} (up in some seconds; Ctrl-C ends it)", flush=True)
    serve = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    serve += ["--backend-store-uri", "sqlite:///mlflow.db"]
    os.execvp("mlflow", serve)


if __name__ == "__main__":
    as_command(main)
