"""Serves a .krt over gRPC on this machine, as the engine would: `make serve FILE=…`.

    tools/within tools/krt python -m tools.krt.serve FILE [--name NAME] [--port PORT]

The archive is checked and unpacked. Each node is a process of its own (node.py), in the environment
of `runtimes/NAME/Pipfile.lock`; messages are routed by the subscriptions, and the service in the
archive's proto answers. Supports KRT v2 with unary rpcs.

Serving an archive runs its code with the permissions of the current user. Only the archive's format
is checked, not what its code does.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import tempfile
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError, EncodeError, Message

from lib.errors import UserError
from lib.repository import ROOT
from lib.text import last_line
from tools.command import as_command
from tools.krt.archive import unpack
from tools.krt.check import check, manifest_in
from tools.krt.format import ENTRYPOINT, ManifestV2, NodeV2, WorkflowV2
from tools.krt.names import MANIFEST, named, names
from tools.krt.node import OK, frame, read_frame
from tools.krt.proto import Rpc, Service, clean_environment

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C; kill; the terminal was closed
START_SECONDS, ANSWER_SECONDS = 60.0, 60.0  # the latter if a client sets no deadline
# Variables with such names are passed to an archive only if they are explicitly allowed.
SECRET = re.compile(
    r"KEY|SECRET|TOKEN|PASS|PWD|CREDENTIAL|AUTH|COOKIE|SESSION|^(AWS|AZURE|GCP|GOOGLE|GITHUB"
    r"|GITLAB|GIT|GH|MLFLOW|MINIO|S3|PIP|SSH|ACTIONS|RUNNER)_|_(URL|URI|DSN)$"
)
ALLOWED = "RUNTIME_ALLOW"


class RpcError(Exception):
    """The error that a client gets instead of an answer."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        # gRPC sends it as a header: valid UTF-8 of a few kilobytes, or the client gets no answer.
        super().__init__(message[:2000].encode(errors="replace").decode())
        self.code = code


class Running:
    """A node's process and its connection."""

    def __init__(self, workflow: WorkflowV2, node: NodeV2, log: Path) -> None:
        self.workflow, self.node, self.log = workflow, node, log
        self.process: asyncio.subprocess.Process
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.alive = False

    def last_lines(self) -> str:
        """The last lines of its log, joined."""
        with self.log.open("rb") as log:
            log.seek(max(self.log.stat().st_size - 10_000, 0))  # it may be larger than the memory
            lines = log.read().decode(errors="replace").split("\n")
        printed = [line.strip() for line in lines if line.strip()]
        return " / ".join(printed[-3:])[-400:] or "it printed nothing"


class Request:
    """One call of a client, until it is answered."""

    def __init__(self, workflow: WorkflowV2) -> None:
        self.workflow = workflow
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.open: Counter[str] = Counter()  # number of messages still being handled, by node
        self.unheard = ""  # the source of a message without subscribers

    def fail(self, code: grpc.StatusCode, message: str) -> None:
        """Answer with an error, if there is no answer yet."""
        if not self.answer.done():
            self.answer.set_exception(RpcError(code, message))


class Runtime:
    """The nodes of an unpacked .krt, connected by their subscriptions."""

    def __init__(self, folder: Path, manifest: ManifestV2, environment: Path) -> None:
        self.folder, self.manifest, self.environment = folder, manifest, environment
        self.nodes: list[Running] = []
        self.requests: dict[str, Request] = {}
        self.tasks: list[asyncio.Task[None]] = []

    # ---- start and end

    async def start(self) -> None:
        """Start every node; UserError with the reason if one fails."""
        python = await self.interpreter()
        for workflow in self.manifest.workflows:
            for node in workflow.nodes:
                log = self.folder / "logs" / f"{workflow.name}.{node.name}.log"
                log.parent.mkdir(exist_ok=True)
                running = Running(workflow, node, log)
                await self.spawn(running, python)
                self.nodes.append(running)
        for running in self.nodes:
            await self.ready(running)
            self.tasks.append(asyncio.create_task(self.listen(running)))

    async def interpreter(self) -> str:
        """The Python of the nodes' environment, which is made if needed, in minutes."""
        asking = await asyncio.create_subprocess_exec(
            *(str(ROOT / "tools/within"), str(self.environment)),
            *("sh", "-c", 'printf %s "$VIRTUAL_ENV/bin/python"'),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        answered, errors = await asking.communicate()
        if asking.returncode:
            why = last_line(errors.decode(errors="replace"))
            raise UserError(f"the nodes' environment could not be made: {why}")
        return os.fsdecode(answered)

    async def spawn(self, running: Running, python: str) -> None:
        """Start a node's process with one end of a socket pair."""
        ours, theirs = socket.socketpair()
        # Not through tools/within: nodes get neither .env nor access to this repository.
        node = str(Path(__file__).with_name("node.py"))
        command = [python, "-I", node, json.dumps(self.settings(running, theirs))]
        with theirs, running.log.open("wb") as log:
            running.process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self.folder / "work",
                env=self.variables(),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.tasks.append(asyncio.create_task(self.end(running)))
        running.reader, running.writer = await asyncio.open_connection(sock=ours)

    async def end(self, running: Running) -> None:
        """Wait for a node to end, and end what it started: it may hold the node's socket open."""
        await running.process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(running.process.pid, signal.SIGKILL)

    def settings(self, running: Running, theirs: socket.socket) -> dict[str, Any]:
        """The settings for node.py."""
        kept, workflow, node = self.folder / "kept", running.workflow.name, running.node
        scopes = {
            "node": f"node.{workflow}.{node.name}",
            "workflow": f"workflow.{workflow}",
            "project": "project",
        }
        store = node.objectStore
        within = scopes[store.scope] if store else ""
        return {
            "fd": theirs.fileno(),
            "node": node.name,
            "base": str(self.folder / "archive"),
            "src": node.src,
            "configuration": {scope: str(kept / "strings" / f) for scope, f in scopes.items()},
            "object_store": str(kept / "objects" / within / store.name) if store else "",
        }

    def variables(self) -> dict[str, str]:
        """The environment variables of a node: a few basic ones, and those in the manifest."""
        asked = self.manifest.config.variables if self.manifest.config else []
        if unset := [name for name in asked if name not in os.environ]:
            raise UserError(
                f"config.variables asks for {', '.join(unset)}: set them in the environment, as "
                "the engine's page would."
            )
        allowed = os.environ.get(ALLOWED, "").split()
        if secret := [name for name in asked if SECRET.search(name) and name not in allowed]:
            raise UserError(
                f"config.variables asks for {', '.join(secret)}, which may be a secret, and the "
                f"archive's code would have it: allow it by name, with ALLOW='{' '.join(secret)}' "
                f"(or {ALLOWED} in the environment), if this archive may know it."
            )
        return clean_environment() | {name: os.environ[name] for name in asked}

    async def ready(self, running: Running) -> None:
        """Wait for a node to report that it is ready."""
        name = running.node.name
        try:
            header, _ = await asyncio.wait_for(read_frame(running.reader), START_SECONDS)
        except TimeoutError:
            raise UserError(
                f"node '{name}' is not ready after {START_SECONDS:.0f} s: what takes long belongs "
                f"into neither its imports nor init. {running.last_lines()}"
            ) from None
        except (EOFError, ConnectionError):
            raise UserError(f"node '{name}' ended at once: {running.last_lines()}") from None
        if header["kind"] != "ready":
            raise UserError(f"node '{name}' could not start: {header['error']}")
        running.alive = True

    async def stop(self) -> None:
        """End every node, and wait for it."""
        for task in self.tasks:
            task.cancel()
        for running in self.nodes:
            if running.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.process.pid, signal.SIGKILL)
            await running.process.wait()
            running.writer.close()

    # ---- messages

    async def call(self, workflow: WorkflowV2, payload: bytes, seconds: float) -> bytes:
        """Send a packed request to a workflow: the packed answer, or RpcError."""
        identity = str(uuid.uuid4())
        request = self.requests[identity] = Request(workflow)
        try:
            message = {"request": identity, "type": OK}
            self.deliver(workflow, ENTRYPOINT, "", message, payload)
            self.close(request)
            return await asyncio.wait_for(request.answer, seconds)
        except TimeoutError:
            busy = ", ".join(f"'{name}'" for name in +request.open)
            raise RpcError(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"no answer in {seconds:g} s: still at work is node {busy or '?'}",
            ) from None
        finally:
            del self.requests[identity]

    def deliver(
        self, workflow: WorkflowV2, source: str, channel: str, header: Any, payload: bytes
    ) -> None:
        """Pass a message to the subscribers of its source, or of one of its channels."""
        request = self.requests[header["request"]]
        topic = f"{source}.{channel}" if channel else source
        heard = False
        for running in self.nodes:
            if running.workflow is not workflow or topic not in running.node.subscriptions:
                continue
            heard = True
            if not running.alive:
                request.fail(grpc.StatusCode.UNAVAILABLE, gone(running))
                continue
            request.open[running.node.name] += 1
            running.writer.write(frame({**header, "from": source}, payload))
        if source == workflow.exitpoint and not channel:
            if not request.answer.done():  # the first one counts, as in the engine
                request.answer.set_result(payload)
        elif not heard:
            request.unheard = topic

    def close(self, request: Request) -> None:
        """Fail a request without an answer if no message of it is being handled any more."""
        if not +request.open:
            unheard = request.unheard
            at = f"nobody subscribes to '{unheard}'" if unheard else "no node sent one"
            request.fail(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"no answer will come from the exit point: {at}; the engine would wait in vain",
            )

    async def listen(self, running: Running) -> None:
        """Handle a node's messages until it ends."""
        name = running.node.name
        while True:
            try:
                header, payload = await read_frame(running.reader)
            except (EOFError, ConnectionError):
                break
            request = self.requests.get(header["request"])
            if request is None:  # answered already, or given up
                continue
            if header["kind"] == "sent":
                channel = header.pop("channel")
                about = {"request": header["request"], "type": header["type"]}
                self.deliver(running.workflow, name, channel, about, payload)
                continue
            request.open[name] -= 1
            if header["kind"] == "failed":
                request.fail(grpc.StatusCode.INTERNAL, f"Error in '{name}': {header['error']}")
            self.close(request)
        running.alive = False
        await running.process.wait()
        for request in self.requests.values():
            if request.workflow is running.workflow and request.open[name]:
                request.fail(grpc.StatusCode.UNAVAILABLE, gone(running))


def gone(running: Running) -> str:
    """The message about a node that has ended."""
    ended = running.process.returncode
    how = f"signal {-ended}" if ended is not None and ended < 0 else f"code {ended}"
    return f"node '{running.node.name}' has ended ({how}): {running.last_lines()}"


# ---- the service


def answering(runtime: Runtime, workflow: WorkflowV2, rpc: Rpc, seconds: float) -> Any:
    """The gRPC handler for an rpc."""

    async def answer(asked: bytes, context: Any) -> bytes:
        try:
            left = context.time_remaining()
            # A little less than the client's deadline, so that it hears which node is at work.
            limit = seconds or (ANSWER_SECONDS if left is None else 0.95 * left)
            return await reply(asked, limit)
        except RpcError as error:
            await context.abort(error.code, str(error))
            raise

    async def reply(asked: bytes, limit: float) -> bytes:
        request: Message = rpc.request()
        packed = Packed()
        try:
            request.ParseFromString(asked)
            packed.Pack(request)
        except (DecodeError, EncodeError):  # the latter: it lacks a required field
            raise RpcError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"the request is no {rpc.request.DESCRIPTOR.full_name}: send what "
                f"{runtime.manifest.entrypoint.proto} says",
            ) from None
        found = Packed()
        found.ParseFromString(await runtime.call(workflow, packed.SerializeToString(), limit))
        response = rpc.response()
        kind = found.type_url.rpartition("/")[2]
        try:
            if found.Unpack(response):
                return response.SerializeToString()
        except (DecodeError, EncodeError) as error:
            kind = f"{kind} that is invalid ({error})"
        raise RpcError(
            grpc.StatusCode.INTERNAL,
            f"node '{workflow.exitpoint}' answered with a {kind}: rpc {rpc.name} promises a "
            f"{rpc.response.DESCRIPTOR.full_name}",
        )

    return grpc.unary_unary_rpc_method_handler(answer)


async def serve(
    runtime: Runtime, service: Service, port: int, seconds: float, ready: Callable[[int], None]
) -> None:
    """Serve until a signal ends it; `ready` is called with the port."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    at_the_first_signal(lambda: loop.call_soon_threadsafe(ended.set))
    # Without SO_REUSEPORT, a port in use is refused.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    try:
        await until(ended, runtime.start())
        handlers = {
            workflow.entrypoint: answering(
                runtime, workflow, service.rpcs[workflow.entrypoint], seconds
            )
            for workflow in runtime.manifest.workflows
        }
        generic = grpc.method_handlers_generic_handler(service.name, handlers)
        server.add_generic_rpc_handlers((generic,))
        try:
            taken = server.add_insecure_port(f"127.0.0.1:{port}")
        except RuntimeError:
            taken = 0
        if not taken:
            raise UserError(f"port {port} is taken: choose another with PORT=, or PORT=0 for any.")
        await server.start()
        ready(taken)
        await ended.wait()
    finally:
        await server.stop(grace=None)
        await runtime.stop()
        end_as_interrupted()  # what comes after the loop has no event to set


def ending_signals() -> list[signal.Signals]:
    """The signals that end the server, except those already ignored, as by `nohup`."""
    return [signum for signum in ENDING if signal.getsignal(signum) is not signal.SIG_IGN]


def at_the_first_signal(do: Callable[[], object]) -> None:
    """Call a function at the first signal, and ignore further ones.

    Further signals are common and must not interrupt the shutdown: each parent `make` passes on a
    SIGTERM that the whole group was sent, and people press Ctrl-C twice.
    """

    def first(_signum: int, _frame: FrameType | None) -> None:
        for signum in ending_signals():
            signal.signal(signum, signal.SIG_IGN)
        do()

    for signum in ending_signals():
        signal.signal(signum, first)


def end_as_interrupted() -> None:
    """Raise KeyboardInterrupt at the first signal, so that temporary files are cleaned up."""

    def interrupt() -> NoReturn:
        raise KeyboardInterrupt from None

    at_the_first_signal(interrupt)


async def until(ended: asyncio.Event, starting: Awaitable[None]) -> None:
    """Wait for the start; UserError if a signal comes first."""
    start, end = asyncio.ensure_future(starting), asyncio.ensure_future(ended.wait())
    await asyncio.wait((start, end), return_when=asyncio.FIRST_COMPLETED)
    end.cancel()
    if not start.done():
        start.cancel()
        raise UserError("stopped before it was ready.")
    start.result()


@contextlib.contextmanager
def unpacked(file: Path) -> Iterator[tuple[Path, ManifestV2, Service]]:
    """Unpack an archive: its folder, manifest and service; UserError if it cannot be served."""
    if file == Path():
        raise UserError("which file? FILE=build/name-version.krt; `make runtime` builds one.")
    if not file.is_file():
        raise UserError(f"{file} does not exist, or is not a file: `make runtime` builds one.")
    if file.suffix in (".yml", ".yaml"):
        raise UserError(f"{file.name} is no archive: a KAI version's YAML file is only checked.")
    with tempfile.TemporaryDirectory(prefix="krt-") as temporary:
        folder = Path(temporary)
        # A private copy: the file that is unpacked is the one that was checked.
        own = folder / "own" / file.name
        own.parent.mkdir()
        shutil.copyfile(file, own)
        if problems := check(own):
            raise UserError("\n".join([f"{file.name} is not as the engine takes it:", *problems]))
        for name in ("archive", "work"):
            (folder / name).mkdir()
        with own.open("rb") as packed:
            unpack(packed, folder / "archive")
        own.unlink()
        text = (folder / "archive" / MANIFEST).read_text("utf-8")
        manifest, _ = manifest_in(text, archive=True)
        if not isinstance(manifest, ManifestV2):
            raise UserError(f"{file.name} is of KRT v1: only v2 can be rehearsed.")
        asked = {workflow.entrypoint for workflow in manifest.workflows}
        yield folder, manifest, Service(folder / "archive", manifest.entrypoint.proto, asked)


def environment_of(version: str, name: str) -> Path:
    """The folder of `runtimes/` whose environment the nodes use; UserError if there is none."""
    found, known = name or named(f"{version}-"), names()
    if found not in known:
        raise UserError(
            f"no runtime is called '{name or version}': say whose environment the nodes run in, "
            f"with NAME=. In runtimes/ there are: {', '.join(known) or 'none'}."
        )
    return ROOT / "runtimes" / found


def main() -> None:
    """Serve a .krt until a signal ends it."""
    parser = argparse.ArgumentParser(prog="make serve")
    parser.add_argument("file", type=Path)
    parser.add_argument("--name", default="")
    parser.add_argument("--port", default="0")
    parser.add_argument("--seconds", type=float, default=0.0)  # 0: as the client says
    given = parser.parse_args()
    port = int(given.port) if given.port.isascii() and given.port.isdecimal() else -1
    if not 0 <= port <= 65535:
        raise UserError(
            f"PORT is {given.port!r}: it must be a whole number from 0 (any that is free) to 65535."
        )

    def ready(port: int) -> None:
        rpcs = ", ".join(workflow.entrypoint for workflow in manifest.workflows)
        print(
            f"{manifest.version} is served at 127.0.0.1:{port}, service {service.name}, rpc {rpcs}",
            flush=True,
        )

    end_as_interrupted()
    with unpacked(given.file) as (folder, manifest, service):
        runtime = Runtime(folder, manifest, environment_of(manifest.version, given.name))
        asyncio.run(serve(runtime, service, port, given.seconds, ready))


if __name__ == "__main__":
    as_command(main, "serve: ")
