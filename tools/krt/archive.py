"""Writes a .krt reproducibly, reads it as a stream, and unpacks it as the engine does.

`entries` is the only reader, for checking and for unpacking. It reads a tar's headers one by one,
and of extended headers only a long name and a size: Python's own reader keeps every header in
memory, and a few hundred bytes can make that hundreds of megabytes.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

ENTRIES = 10_000
BYTES = 4 * 2**30  # unpacked
HEADER_BYTES = 2**14  # of an extended header
BOMB_BYTES, BOMB_RATIO = 64 * 2**20, 200  # the ratio is a limit for larger archives
BLOCK = tarfile.BLOCKSIZE
AT_ONCE = 2**20

FILE, FOLDER = "file", "folder"
KINDS = {tarfile.REGTYPE: FILE, tarfile.AREGTYPE: FILE, tarfile.DIRTYPE: FOLDER}
LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
# Types whose entries have no content whatever size the header gives, as in Go's reader.
WITHOUT_BYTES = (*LINKS, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)


class RefusedError(Exception):
    """The archive must not be read further; the message says why."""


# ---- writing


def pack(files: Mapping[str, bytes]) -> bytes:
    """A .krt with these files, by name: the same bytes for the same files.

    Each folder has an entry before its content; times, owners and modes are fixed.
    """
    folders = {str(p) for name in files for p in PurePosixPath(name).parents if str(p) != "."}
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted({*folders, *files}):
            entry = tarfile.TarInfo(name)
            if name in folders:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                entry.size, entry.mode = len(files[name]), 0o644
                archive.addfile(entry, io.BytesIO(files[name]))
    return gzip.compress(plain.getvalue(), compresslevel=9, mtime=0)


# ---- reading


class Unpacked:
    """A gzip stream that counts its bytes, to stop at a decompression bomb."""

    def __init__(self, packed: BinaryIO) -> None:
        self.packed, self.read_bytes = packed, 0
        self.stream = gzip.GzipFile(fileobj=packed, mode="rb")

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; RefusedError if a limit is exceeded, or gzip fails."""
        try:
            block = self.stream.read(size)
        except (EOFError, OSError, zlib.error) as error:
            raise RefusedError(f"the archive cannot be unpacked to its end: {error}.") from None
        self.read_bytes += len(block)
        ratio = self.read_bytes / max(self.packed.tell(), 1)
        if self.read_bytes > BYTES:
            raise RefusedError(f"it unpacks to more than {BYTES:,} bytes: make it smaller.")
        if self.read_bytes > BOMB_BYTES and ratio > BOMB_RATIO:
            raise RefusedError(f"it unpacks to over {BOMB_RATIO} times its size: a bomb.")
        return block

    def whole(self, size: int) -> Iterator[bytes]:
        """Exactly `size` bytes, in blocks; RefusedError if there are fewer."""
        while size:
            if not (block := self.read(min(size, AT_ONCE))):
                raise RefusedError("the archive cannot be unpacked to its end: it is cut off.")
            size -= len(block)
            yield block


@dataclass(frozen=True)
class Entry:
    """One entry; `kind` is FILE, FOLDER or a description of anything else."""

    name: str
    kind: str
    size: int
    content: Iterator[bytes]  # may be read only before the next entry


def entries(packed: BinaryIO) -> Iterator[Entry]:
    """The entries of a gzip-compressed tar.

    Raises:
        RefusedError: it is not a valid tar, or exceeds the limits above.
    """
    stream = Unpacked(packed)
    extended: dict[str, str] = {}
    for number in range(ENTRIES + 1):
        block = stream.read(BLOCK)
        if not block.strip(b"\0"):  # the end, which is two empty blocks, or nothing at all
            if stream.read(BLOCK).strip(b"\0"):
                raise RefusedError(
                    "its content is not a valid tar: it goes on after an empty block."
                )
            for _ in iter(lambda: stream.read(AT_ONCE), b""):  # gzip's checksum is the last
                pass
            return
        if number == ENTRIES:
            raise RefusedError(f"it has more than {ENTRIES:,} entries.")
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError) as error:
            raise RefusedError(f"its content is not a valid tar: {error}.") from None
        if header.size < 0:
            raise RefusedError("its content is not a valid tar: a size is negative.")
        if header.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            pairs = extended_header(header, stream)
            if pairs.keys() & extended.keys():
                raise RefusedError("its content is not a valid tar: two headers for one entry.")
            extended |= pairs
            continue
        name, kind, size = described(header, extended)
        extended = {}
        content = stream.whole(size)
        yield Entry(name, kind, size, content)
        for _ in content:  # skip what was not read
            pass
        for _ in stream.whole(padded(size) - size):
            pass


def extended_header(header: tarfile.TarInfo, stream: Unpacked) -> dict[str, str]:
    """The values in an extended header, which apply to the next entry."""
    if header.size > HEADER_BYTES:
        raise RefusedError(f"it has an extended header of more than {HEADER_BYTES:,} bytes.")
    text = b"".join(stream.whole(padded(header.size)))[: header.size]
    return records(text) if header.type == tarfile.XHDTYPE else {"path": string(text)}


def padded(size: int) -> int:
    """A size rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def described(header: tarfile.TarInfo, extended: Mapping[str, str]) -> tuple[str, str, int]:
    """Name and kind of an entry, and the size of its content."""
    name, size = extended.get("path", header.name), header.size
    if "size" in extended:
        if not extended["size"].isascii() or not extended["size"].isdigit():
            raise RefusedError("its content is not a valid tar: a size is not a number.")
        size = int(extended["size"])
    if size > BYTES:
        raise RefusedError(f"its files have more than {BYTES:,} bytes: make it smaller.")
    kind = KINDS.get(header.type, "neither file nor folder")
    if header.type in LINKS:
        kind = "a link"
    elif any("sparse" in key for key in extended):
        kind = "a sparse file"
    name = name.rstrip("/") if kind == FOLDER else name
    return name, kind, 0 if header.type in WITHOUT_BYTES else size


def records(text: bytes) -> dict[str, str]:
    """The `key=value` pairs of an extended header, each preceded by its length."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        length, space, _ = text[at : at + 20].partition(b" ")
        end = at + int(length) if space and length.isdigit() else 0
        key, equals, value = text[at + len(length) + 1 : end].partition(b"=")
        if end > len(text) or not key or not equals or value[-1:] != b"\n":
            raise RefusedError("its content is not a valid tar: an extended header is broken.")
        found[string(key)] = string(value[:-1])
        at = end
    return found


def string(text: bytes) -> str:
    """Text up to the first NUL, as the engine's reader has it."""
    return text.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def unpack(packed: BinaryIO, folder: Path) -> None:
    """Unpack a checked .krt into a folder, with one mkdir for each folder entry."""
    packed.seek(0)
    for entry in entries(packed):
        place = folder / entry.name
        if entry.kind == FOLDER:
            place.mkdir()
        else:
            with place.open("xb") as new:
                for block in entry.content:
                    new.write(block)
