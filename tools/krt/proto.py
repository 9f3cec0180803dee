"""The messages and rpcs of a .proto file, parsed by the protoc version of the engine."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from lib.errors import UserError
from lib.text import one_line
from tools.command import captured

SECONDS = 60
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "ORT_DISABLE_TELEMETRY")


@dataclass(frozen=True)
class Rpc:
    """An rpc, with its request and response classes."""

    name: str
    request: Any
    response: Any


class Service:
    """The service of a proto that has these rpcs.

    Raises:
        UserError: the proto cannot be read, no service has them all, or one of them is a stream.
    """

    def __init__(self, folder: Path, proto: str, asked: Iterable[str]) -> None:
        pool = descriptor_pool.DescriptorPool()
        for file in described(folder, proto).file:
            pool.Add(file)
        wanted = set(asked)
        services = pool.FindFileByName(proto).services_by_name.values()
        fitting = [s for s in services if wanted <= set(s.methods_by_name)]
        if len(fitting) != 1:
            raise UserError(
                f"{proto}: {len(fitting)} services have the rpcs {', '.join(sorted(wanted))}: "
                "there must be one that has all of them."
            )
        self.name: str = fitting[0].full_name
        methods = [fitting[0].methods_by_name[name] for name in sorted(wanted)]
        if streams := [m.name for m in methods if m.client_streaming or m.server_streaming]:
            raise UserError(f"{proto}: rpc {', '.join(streams)} is a stream: only unary ones run.")
        of = message_factory.GetMessageClass
        self.rpcs = {m.name: Rpc(m.name, of(m.input_type), of(m.output_type)) for m in methods}


def described(folder: Path, proto: str) -> descriptor_pb2.FileDescriptorSet:
    """The descriptors of a proto and its imports."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "described"
        protoc(folder, [proto], f"--descriptor_set_out={file}", "--include_imports")
        return descriptor_pb2.FileDescriptorSet.FromString(file.read_bytes())


def generated(folder: Path, protos: Iterable[str]) -> dict[str, bytes]:
    """The Python code generated for these protos, by file name."""
    with tempfile.TemporaryDirectory() as temporary:
        protoc(folder, protos, f"--python_out={temporary}")
        found = sorted(Path(temporary).rglob("*.py"))
        return {str(file.relative_to(temporary)): file.read_bytes() for file in found}


def protoc(folder: Path, protos: Iterable[str], *options: str) -> None:
    """Run protoc in a folder whose files are not trusted; UserError with its errors.

    Python runs isolated, or it would import modules from that folder, and names are prefixed, as
    protoc treats those starting with `@` or `-` as options.
    """
    tool = [sys.executable, "-I", "-W", "ignore", "-m", "grpc_tools.protoc"]  # it warns of its age
    command = [*tool, "--proto_path=.", *options, *(f"./{proto}" for proto in protos)]
    try:
        done = captured(command, cwd=folder, env=clean_environment(), timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"protoc: not done with {', '.join(protos)} in {SECONDS} s.") from None
    if done.returncode:
        lines = [one_line(line) for line in done.stderr.strip().splitlines()[:5]]
        raise UserError(f"protoc: {' / '.join(lines)}")


def clean_environment() -> dict[str, str]:
    """The environment variables for processes of an archive, without any secrets."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}
