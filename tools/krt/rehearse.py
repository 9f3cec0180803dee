"""Serves a .krt and runs the tests in the runtime's `rehearsal.py`: `make rehearse FILE=…`.

    tools/within tools/krt python -m tools.krt.rehearse FILE [--name NAME]

It is also a pytest plugin: tests use the fixture `runtime`, which is served in a process of its own
and called over gRPC, as by a client.
"""

import argparse
import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from lib.errors import UserError
from lib.repository import ROOT
from tools.command import as_command
from tools.krt.format import ManifestV2
from tools.krt.proto import Service
from tools.krt.serve import end_as_interrupted, environment_of, unpacked

SERVED = re.compile(r"is served at ([\d.]+:\d+)")
# The runtime is on this machine: ignore proxies in the environment.
DIRECT = (("grpc.enable_http_proxy", 0),)


class Called:
    """A runtime that is being served."""

    def __init__(self, address: str, folder: Path, manifest: ManifestV2, service: Service) -> None:
        self.address, self.folder = address, folder
        self.manifest, self.service = manifest, service
        self.channel = grpc.insecure_channel(address, options=DIRECT)

    def call(self, rpc: str, timeout: float = 30, **fields: Any) -> Any:
        """Call an rpc with a request with these fields: the response, or grpc.RpcError."""
        known = self.service.rpcs[rpc]
        return known.response.FromString(
            self.call_bytes(rpc, known.request(**fields).SerializeToString(), timeout)
        )

    def call_bytes(self, rpc: str, asked: bytes, timeout: float = 30) -> bytes:
        """Call an rpc with raw bytes, which may not be a valid message: the response's bytes."""
        plain = self.channel.unary_unary(f"/{self.service.name}/{rpc}")
        return bytes(plain(asked, timeout=timeout))

    def call_many(self, rpc: str, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Send requests concurrently: the responses in order, a grpc.RpcError for each failure."""
        known = self.service.rpcs[rpc]

        async def all_of_them() -> list[Any]:
            async with grpc.aio.insecure_channel(self.address, options=DIRECT) as channel:
                call = channel.unary_unary(
                    f"/{self.service.name}/{rpc}",
                    request_serializer=known.request.SerializeToString,
                    response_deserializer=known.response.FromString,
                )
                calls = (call(known.request(**fields), timeout=60) for fields in requests)
                return await asyncio.gather(*calls, return_exceptions=True)

        # Not in the main thread, where an interrupt would leave gRPC's loop running forever.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, all_of_them()).result()

    def asset(self, path: str) -> bytes:
        """A file of the archive."""
        return (self.folder / "archive" / path).read_bytes()


@contextlib.contextmanager
def served(file: Path, name: str = "", *options: str) -> Iterator[Called]:
    """Serve a .krt in a process of its own; UserError with its output if that fails."""
    command = [sys.executable, "-m", "tools.krt.serve", str(file.resolve())]
    with (
        unpacked(file) as (folder, manifest, service),
        subprocess.Popen(
            [*command, "--name", name, *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        try:
            lines = []
            for line in process.stdout or ():
                lines.append(line)
                if match := SERVED.search(line):
                    called = Called(match[1], folder, manifest, service)
                    with called.channel:
                        yield called
                    return
            raise UserError("".join(lines).strip().removeprefix("serve: "))
        finally:
            process.terminate()
            process.wait(timeout=30)


# ---- the plugin


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for the .krt, and for the runtime whose environment its nodes use."""
    parser.addoption("--krt", type=Path, required=True)
    parser.addoption("--krt-name", default="")


@pytest.fixture(scope="session")
def runtime(request: pytest.FixtureRequest) -> Iterator[Called]:
    """The .krt, served and ready to be called."""
    file, name = request.config.getoption("--krt"), request.config.getoption("--krt-name")
    try:
        with served(file, name) as called:
            yield called
    except UserError as error:
        pytest.exit(f"{file.name} cannot be served: {error}", returncode=1)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail if no test was run: an archive is released only if it answered."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus == pytest.ExitCode.OK and not reporter.stats.get("passed"):
        reporter.write_line("\nNo test was run: all were skipped.")
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.hookimpl(tryfirst=True)
def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Keep only pytest's own frame: it fails at one without a line number, where a signal may hit.

    Python gives such instructions no line since 3.11 (`tb_lineno` is None); pytest 9.2 subtracts 1.
    """
    excinfo.traceback = excinfo.traceback[:1]


def main() -> int:
    """Run the rehearsal of a runtime against a .krt."""
    parser = argparse.ArgumentParser(prog="make rehearse")
    parser.add_argument("file", type=Path)
    parser.add_argument("--name", default="")
    given = parser.parse_args()
    end_as_interrupted()
    with unpacked(given.file) as (_, manifest, _service):
        folder = environment_of(manifest.version, given.name)
    rehearsal = folder / "rehearsal.py"
    if not rehearsal.is_file():
        raise UserError(f"{rehearsal.relative_to(ROOT)} does not exist: write its tests.")
    options = ["-p", "tools.krt.rehearse", "-p", "no:cacheprovider", "--tb=short", "-v"]
    krt = [f"--krt={given.file.resolve()}", f"--krt-name={folder.name}"]
    # A relative path: pytest splits an absolute one at a bracket.
    return pytest.main([*options, *krt, os.path.relpath(rehearsal)])


if __name__ == "__main__":
    as_command(main, "rehearse: ")
