"""Starts a node of a cluster of Ray: `make ray-head`, `make ray-worker`.

tools/within lab/tuning python -m tools.ray_node head PORT
tools/within lab/tuning python -m tools.ray_node worker HOST:PORT

Ports and addresses are checked first: Ray itself would end in a traceback, or after half a minute.
"""

import os
import socket
import sys

from lib.engines import refuse_absent_cluster
from lib.errors import UserError
from tools.command import as_command

RESERVED = {8265, 52365, *range(10002, 20000)}  # used by Ray: dashboard, agent, workers


def check_port(port: str) -> None:
    """UserError if it is not a port number, reserved by Ray, or taken."""
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535) or port[0] == "0":
        raise UserError(f"RAY_PORT is {port!r}: it must be a whole number from 1 to 65535.")
    if int(port) in RESERVED:
        raise UserError(
            f"RAY_PORT is {port}, which Ray uses itself (10002 to 19999, 8265, 52365): name "
            "another."
        )
    try:
        socket.create_server(("", int(port))).close()
    except OSError as error:
        raise UserError(f"RAY_PORT is {port}: {error.strerror}. Name another.") from None


def check_address(address: str) -> None:
    """UserError if it is not HOST:PORT, or no cluster answers there."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or "//" in host:
        raise UserError(
            f"ADDRESS is {address!r}: it must be the host and the port of `make ray-head`, such as "
            "10.0.0.5:6379."
        )
    refuse_absent_cluster("ADDRESS", address)


def main() -> None:
    """Check the port or address, then replace this process by Ray."""
    kind, where = sys.argv[1:]
    if kind == "head":
        check_port(where)
        options = ["--head", "--port", where, "--include-dashboard", "false"]
        address = f"{socket.gethostname()}:{where}"
        print(
            f"On each other machine, in a clone at this commit: make ray-worker ADDRESS={address}\n"
            f"The sweep, here: RAY_ADDRESS={address} make tune",
            flush=True,
        )
    else:
        check_address(where)
        options = ["--address", where]
    os.execvp("ray", ["ray", "start", "--block", *options, "--disable-usage-stats"])


if __name__ == "__main__":
    as_command(main)
