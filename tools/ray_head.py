"""Starts the head of a cluster of Ray: `make ray-head`.

tools/within lab/tuning python -m tools.ray_head PORT

A port that Ray cannot have would end it in a traceback of its own, so it is looked at before.
"""

import os
import socket
import sys

from lib.errors import UserError
from tools.command import as_command

OPTIONS = ("--include-dashboard", "false", "--disable-usage-stats")
RESERVED = {8265, 52365, *range(10002, 20000)}  # by Ray: its dashboard, an agent, the workers


def check_port(port: str) -> None:
    """UserError where it is no port, one that Ray has for itself, or taken."""
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535) or port[0] == "0":
        raise UserError(f"RAY_PORT is {port!r}: it must be a whole number from 1 to 65535.")
    if int(port) in RESERVED:
        raise UserError(
            f"RAY_PORT is {port}, which Ray has for itself (10002 to 19999, 8265, 52365): name "
            "another."
        )
    try:
        socket.create_server(("", int(port))).close()
    except OSError as error:
        raise UserError(f"RAY_PORT is {port}: {error.strerror}. Name another.") from None


def main() -> None:
    """Check the port; then Ray takes this process's place."""
    port = sys.argv[1]
    check_port(port)
    os.execvp("ray", ["ray", "start", "--head", "--block", "--port", port, *OPTIONS])


if __name__ == "__main__":
    as_command(main)
