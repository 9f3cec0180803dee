"""One node of a rehearsed runtime: its main.py with the SDK's calls, in a process of its own.

    python -I node.py SETTINGS     started by serve.py, in the environment of the runtime

As in the engine, it imports nothing of this repository and has no access to its folders. Messages
are exchanged through a socket, in frames: a JSON header, then a serialized `google.protobuf.Any`.
"""

import asyncio
import contextlib
import copy
import gzip
import importlib.util
import inspect
import json
import logging
import os
import resource
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from google.protobuf.any_pb2 import Any as Packed

FRAME = struct.Struct(">II")  # bytes of the header, bytes of the payload
MESSAGE_BYTES = 2**20  # larger messages are compressed; if that is not enough, refused
LARGEST_FILE = 2**30  # bytes that a node may write to one file
OK, ERROR, EARLY_REPLY, EARLY_EXIT = "ok", "error", "early_reply", "early_exit"

Header = dict[str, Any]
Handler = Callable[["Context", Packed], Awaitable[None]]


def frame(header: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """A header and a payload as a frame."""
    head = json.dumps(header).encode()
    return FRAME.pack(len(head), len(payload)) + head + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[Header, bytes]:
    """The next header and payload; EOFError if the connection is closed."""
    head, payload = FRAME.unpack(await reader.readexactly(FRAME.size))
    return json.loads(await reader.readexactly(head)), await reader.readexactly(payload)


class NotStoredError(Exception):
    """The key does not exist, or its value cannot be stored."""


class Store:
    """A key-value store in files, which outlive a node and are shared by nodes of one scope."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, key: str, value: bytes) -> None:
        """Keep a value."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / f".{os.getpid()}.new"
        new.write_bytes(value)
        new.replace(self.file(key))

    def get(self, key: str) -> bytes | None:
        """The value, or None."""
        file = self.file(key)
        return file.read_bytes() if file.is_file() else None

    def delete(self, key: str) -> None:
        """Forget a value."""
        self.file(key).unlink(missing_ok=True)

    def file(self, key: str) -> Path:
        """Where a value is kept."""
        return self.folder / f"k{quote(key, safe='')}"


class Configuration:
    """`ctx.configuration`: strings, of the node, its workflow or the whole project."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.stores = {scope: Store(folder) for scope, folder in folders.items()}

    async def set(self, key: str, value: str, scope: str = "node") -> None:
        """Keep a string; the engine takes nothing else."""
        self.stores[scope].put(key, bytes(value, "utf-8"))

    async def get(self, key: str, scope: str = "undefined") -> str:
        """The string in a scope, or in the narrowest scope that has it."""
        for store in self.stores.values() if scope == "undefined" else [self.stores[scope]]:
            value = store.get(key)
            if value is not None:
                return value.decode("utf-8")
        raise NotStoredError(f"configuration: no value for {key!r} in scope {scope}")

    async def delete(self, key: str, scope: str = "node") -> None:
        """Forget a string."""
        self.stores[scope].delete(key)


class ObjectStore:
    """`ctx.object_store`, where krt.yml gives the node one."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)

    async def save(self, key: str, payload: bytes) -> None:
        """Keep bytes; NotStoredError if they are empty, as in the engine."""
        if not payload:
            raise NotStoredError("object store: the payload cannot be empty")
        self.store.put(key, payload)

    async def get(self, key: str) -> bytes:
        """The bytes; NotStoredError if there is no such key."""
        payload = self.store.get(key)
        if payload is None:
            raise NotStoredError(f"object store: nothing is called {key!r}")
        return payload

    async def delete(self, key: str) -> None:
        """Forget bytes."""
        await self.get(key)
        self.store.delete(key)


class Context:
    """What the SDK gives a handler."""

    def __init__(self, settings: Mapping[str, Any], send: Callable[[Header, bytes], None]) -> None:
        self._base = Path(settings["base"])
        self._send = send
        self._message: Header = {}
        self.logger = logging.getLogger(settings["node"])
        scopes = settings["configuration"]
        self.configuration = Configuration({scope: Path(f) for scope, f in scopes.items()})
        if settings["object_store"]:
            self.object_store = ObjectStore(Path(settings["object_store"]))

    def of(self, message: Header) -> "Context":
        """The context of one message."""
        own = copy.copy(self)
        own._message = message
        return own

    def path(self, relative_path: str) -> str:
        """Where a file of the archive is."""
        return str(self._base / relative_path)

    def get_request_id(self) -> str:
        """The request that this message belongs to."""
        return str(self._message["request"])

    async def send_output(self, message: Any, channel: str = "") -> None:
        """Send a message to the subscribers of this node, or of one of its channels."""
        self._publish(packed(message), OK, channel)

    async def send_any(self, message: Packed, channel: str = "") -> None:
        """Send a message that is already packed."""
        self._publish(message, OK, channel)

    async def send_early_reply(self, message: Any, channel: str = "") -> None:
        """Send a message marked as an early reply."""
        self._publish(packed(message), EARLY_REPLY, channel)

    async def send_early_exit(self, message: Any, channel: str = "") -> None:
        """Send a message marked as an early exit."""
        self._publish(packed(message), EARLY_EXIT, channel)

    def is_message_ok(self) -> bool:
        """Whether the message has no special mark."""
        return self._message["type"] == OK

    def is_message_error(self) -> bool:
        """Whether the message is marked as an error."""
        return self._message["type"] == ERROR

    def is_message_early_reply(self) -> bool:
        """Whether it was sent by `send_early_reply`."""
        return self._message["type"] == EARLY_REPLY

    def is_message_early_exit(self) -> bool:
        """Whether it was sent by `send_early_exit`."""
        return self._message["type"] == EARLY_EXIT

    def _publish(self, message: Packed, kind: str, channel: str) -> None:
        payload = message.SerializeToString()
        if len(payload) > MESSAGE_BYTES and len(gzip.compress(payload)) > MESSAGE_BYTES:
            raise ValueError("compressed message exceeds maximum size allowed of 1 MB")
        about = {"request": self._message["request"], "type": kind, "channel": channel}
        self._send({"kind": "sent", **about}, payload)


def packed(message: Any) -> Packed:
    """A message of the runtime packed in an `Any`."""
    found = Packed()
    found.Pack(message)
    return found


class Node:
    """The handlers of a main.py, and the socket that their messages go through."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.default: Handler
        self.custom: dict[str, Handler] = {}
        self.writer: asyncio.StreamWriter

    def send(self, header: Header, payload: bytes = b"") -> None:
        """Send a frame."""
        self.writer.write(frame(header, payload))

    async def load(self, context: Context) -> None:
        """Import main.py as the engine does: its folder comes last on sys.path."""
        source = Path(self.settings["base"]) / self.settings["src"]
        sys.path.append(str(source.parent))
        spec = importlib.util.spec_from_file_location("worker", source)
        if spec is None or spec.loader is None:
            raise ImportError(f"{source.name} is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, "default_handler"):
            raise ImportError(f"{self.settings['src']} has no default_handler(ctx, data)")
        self.default = module.default_handler
        self.custom = getattr(module, "custom_handlers", {})
        if hasattr(module, "init"):
            started = module.init(context)
            if inspect.isawaitable(started):
                await started

    async def run(self) -> None:
        """Start, then answer one message after the other until the socket closes."""
        connection = socket.socket(fileno=self.settings["fd"])
        reader, self.writer = await asyncio.open_connection(sock=connection)
        context = Context(self.settings, self.send)
        try:
            await self.load(context)
        except Exception as error:
            context.logger.exception("it could not start")
            self.send({"kind": "broken", "error": described(error)})
            await self.writer.drain()
            return
        self.send({"kind": "ready"})
        while True:
            try:
                header, payload = await read_frame(reader)
            except (EOFError, ConnectionError):
                return
            await self.answer(context.of(header), header, payload)
            await self.writer.drain()

    async def answer(self, context: Context, header: Header, payload: bytes) -> None:
        """Pass a message to its handler, and report its end or failure."""
        data = Packed()
        data.ParseFromString(payload)
        about = {"request": header["request"]}
        try:
            await self.custom.get(header["from"], self.default)(context, data)
        except Exception as error:
            context.logger.exception("request %s", header["request"])
            self.send({"kind": "failed", "error": str(error) or type(error).__name__, **about})
        else:
            self.send({"kind": "done", **about})


def described(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def main() -> None:
    """Run the node that the settings name."""
    settings = json.loads(sys.argv[1])
    # Its output goes to a file: without a limit, a loop that prints would fill the disk.
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.suppress(ValueError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, hard))
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s {settings['node']}: %(message)s",
        stream=sys.stderr,
    )
    asyncio.run(Node(settings).run())


if __name__ == "__main__":
    main()
