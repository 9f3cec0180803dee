"""Serves the MLflow store in the repository's root, and says where.

lib/within --dev . python -m lib.ui [PORT]
"""

import os
import socket
import sys

from lib.tracking import MLFLOW_SETTINGS, ROOT, tracking_uri, without_password


def free_port(wanted: int) -> int:
    """The wanted port, or another where somebody has it."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port is free on 127.0.0.1")


def main() -> None:
    """Become the server, or say in a line why not."""
    if os.environ.get("MLFLOW_URL"):
        sys.exit(f"MLFLOW_URL is set: runs go to {without_password(tracking_uri())}, look there.")
    if not (ROOT / "mlflow.db").exists():
        sys.exit("mlflow.db is not there yet: `make run` makes it.")
    port = free_port(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
    print(f"MLflow: http://127.0.0.1:{port} (up in some seconds; Ctrl-C ends it)", flush=True)
    serve = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    serve += ["--backend-store-uri", tracking_uri()]
    os.execvpe("mlflow", serve, os.environ | MLFLOW_SETTINGS)


if __name__ == "__main__":
    main()
