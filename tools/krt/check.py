"""Whether a .krt is what the engine takes, and safe to unpack: `make runtime-check FILE=…`.

The archive is read as a stream and nothing of it is unpacked: a hostile one costs at most what the
limits below allow. Every problem is told in one go, a line each.
"""

import gzip
import os
import posixpath
import re
import sys
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from tools.krt.format import read

MANIFEST = "krt.yml"
ENTRIES = 10_000
BYTES = 4 * 2**30  # unpacked
TEXT_BYTES = 2**20  # of a manifest or a proto
NESTING = 50  # of a manifest
PATH_BYTES = 1024
BOMB_BYTES, BOMB_RATIO = 64 * 2**20, 200  # above so many bytes, not so many times the packed ones


TOKEN = re.compile(r"[{}]|\w+")
STRING_END = {quote: re.compile(rf"(?:\\.|[^\\\n{quote}])*+{quote}?") for quote in "\"'"}


class RefusedError(Exception):
    """What makes reading on pointless or harmful."""


@dataclass
class Contents:
    """What is known of an archive."""

    files: dict[str, int] = field(default_factory=dict)  # sizes by name
    folders: set[str] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)  # manifest and protos
    problems: list[str] = field(default_factory=list)


class Unpacked:
    """What gzip gives, counted, so that a bomb stops where it begins."""

    def __init__(self, packed: BinaryIO) -> None:
        self.packed, self.read_bytes = packed, 0
        self.stream = gzip.GzipFile(fileobj=packed, mode="rb")

    def read(self, size: int) -> bytes:
        """The next bytes; RefusedError where there are too many, or they cannot be read."""
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


def contents(file: Path) -> Contents:
    """What the archive holds, and what is wrong with its entries."""
    found = Contents()
    with file.open("rb") as packed:
        if packed.read(2) != b"\x1f\x8b":
            found.problems.append(f"{file.name} is no gzip file: a .krt is a tar packed with gzip.")
            return found
        packed.seek(0)
        unpacked = Unpacked(packed)
        try:
            with tarfile.open(fileobj=unpacked, mode="r|") as archive:  # type: ignore[call-overload]
                for number, member in enumerate(archive, start=1):
                    if number > ENTRIES:
                        raise RefusedError(f"it has more than {ENTRIES:,} entries.")
                    add(found, member, archive)
            while unpacked.read(2**20):  # the checksum stands at gzip's very end
                pass
        except RefusedError as error:
            found.problems.append(str(error))
        except (tarfile.TarError, ValueError, RecursionError) as error:
            found.problems.append(f"what is packed in it is no tar: {error}.")
    return found


def add(found: Contents, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    """Take note of an entry, or of what is wrong with it."""
    name, shown = member.name, repr(member.name[:200])
    if why := bad_name(name):
        found.problems.append(f"entry {shown} {why}")
        return
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        what = "a link" if member.islnk() or member.issym() else "neither file nor folder"
        found.problems.append(f"entry {shown} is {what}: there may be files and folders only.")
        return
    if member.sparse is not None or any("sparse" in key for key in member.pax_headers):
        found.problems.append(f"entry {shown} is a sparse file: its bytes must all be there.")
        return
    if sum(found.files.values()) + member.size > BYTES:
        raise RefusedError(f"its files have more than {BYTES:,} bytes: make it smaller.")
    if name in found.files or name in found.folders:
        found.problems.append(f"entry {shown} comes twice: each may come once.")
        return
    above = posixpath.dirname(name)
    if above in found.files:
        found.problems.append(f"entry {shown} is below {above!r}, which is a file.")
    elif above and above not in found.folders:
        found.problems.append(
            f"entry {shown} comes before its folder: {above!r} needs an entry of its own first, "
            "for the engine makes folders by their entries alone."
        )
    if member.isdir():
        found.folders.add(name)
        return
    found.files[name] = member.size
    if name == MANIFEST or name.endswith(".proto"):
        found.texts[name] = text_of(found, member, archive)


def bad_name(name: str) -> str:
    """Why an entry cannot be called so; nothing where it can."""
    parts = name.split("/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is absolute: names are relative to the archive's root."
    if ".." in parts:
        return "leads out of the archive: '..' may not be in a name."
    if "." in parts or "" in parts:
        return (
            "has an empty part or a '.' in its name: the engine would make that folder, and fail."
        )
    if "\\" in name or not name.isprintable():
        return "has a backslash or a character that cannot be printed in its name."
    if len(os.fsencode(name)) > PATH_BYTES or any(len(os.fsencode(p)) > 255 for p in parts):
        return f"is too long: a name has at most 255 bytes, a path {PATH_BYTES}."
    return ""


def text_of(found: Contents, member: tarfile.TarInfo, archive: tarfile.TarFile) -> str:
    """The text of a manifest or a proto; empty, with its problem noted, where it is none."""
    if member.size > TEXT_BYTES:
        found.problems.append(f"{member.name} has {member.size:,} bytes: at most {TEXT_BYTES:,}.")
        return ""
    stream = archive.extractfile(member)
    try:
        return (stream.read() if stream else b"").decode("utf-8")
    except UnicodeDecodeError:
        found.problems.append(f"{member.name} is not UTF-8.")
        return ""


# ---- the manifest


def load(text: str) -> tuple[Any, list[str]]:
    """What a YAML text says, and why it cannot be read."""
    try:
        depth = 0
        for event in YAML(typ="safe", pure=True).parse(text):
            if isinstance(event, AliasEvent):
                return None, ["it has a YAML alias ('*…'): write out what it stands for."]
            depth += isinstance(event, CollectionStartEvent)
            depth -= isinstance(event, CollectionEndEvent)
            if depth > NESTING:
                return None, [f"its YAML is nested more than {NESTING} deep."]
        return YAML(typ="safe", pure=True).load(text), []
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        # The last four are what its tags (!!int '', !!bool maybe) end in.
        return None, [f"it is not YAML: {' '.join(str(error).split())[:200]}."]


def methods(proto: str) -> set[str]:
    """The rpcs of a proto's services."""
    found, depth, service = set(), 0, 0
    words = TOKEN.findall(without_comments(proto))
    for before, word in zip(["", *words], words, strict=False):
        if word == "{":
            depth += 1
        elif word == "}":
            depth -= 1
            service = service if depth >= service else 0
        elif before == "service" and depth == 0:
            service = 1
        elif before == "rpc" and service and depth == service:
            found.add(word)
    return found


def without_comments(proto: str) -> str:
    """The text without comments and strings, in one pass."""
    kept, at = [], 0
    for start in re.finditer(r"//|/\*|[\"']", proto):
        if start.start() < at:  # within the one before
            continue
        kept.append(proto[at : start.start()])
        if start[0] in ("//", "/*"):
            end = proto.find("\n" if start[0] == "//" else "*/", start.end())
            at = len(proto) if end < 0 else end + (0 if start[0] == "//" else 2)
        else:
            closing = STRING_END[start[0]].match(proto, start.end())
            at = closing.end() if closing else len(proto)
        kept.append(" ")
    return "".join([*kept, proto[at:]])


def check_archive(file: Path) -> list[str]:
    """Every problem of a .krt."""
    found = contents(file)
    if MANIFEST not in found.texts:
        if not (found.problems and not found.files):
            elsewhere = [name for name in found.files if posixpath.basename(name) == MANIFEST]
            where = f"it is at {elsewhere[0]!r}" if elsewhere else "there is none"
            found.problems.append(f"{MANIFEST} must be at the archive's root: {where}.")
        return found.problems
    content, problems = load(found.texts[MANIFEST])
    if problems:
        return found.problems + [f"{MANIFEST}: {problem}" for problem in problems]
    manifest, problems = read(content, archive=True)
    if manifest is not None:
        for key, name in manifest.sources().items():  # type: ignore[union-attr]
            if name not in found.files:
                what = "a folder" if name in found.folders else "not in the archive"
                problems.append(
                    f"{key} is {name!r}: it must be a file of the archive, it is {what}."
                )
        proto = manifest.entrypoint.proto  # type: ignore[union-attr]
        known = methods(found.texts.get(proto, ""))
        for key, rpc in manifest.rpcs().items():  # type: ignore[union-attr]
            if proto in found.files and rpc not in known:
                listed = ", ".join(sorted(known)) or "it has none"
                problems.append(f"{key} is {rpc!r}: it must be an rpc in {proto}: {listed}.")
    return found.problems + [f"{MANIFEST}: {problem}" for problem in problems]


def check(file: Path) -> list[str]:
    """Every problem of a .krt, or of a KAI version's YAML file."""
    if file.suffix not in (".yml", ".yaml"):
        return check_archive(file)
    if file.stat().st_size > TEXT_BYTES:
        return [f"{file.name} has {file.stat().st_size:,} bytes: at most {TEXT_BYTES:,}."]
    try:
        content, problems = load(file.read_text("utf-8"))
    except UnicodeDecodeError:
        return [f"{file.name} is not UTF-8."]
    if not problems:
        _, problems = read(content, archive=False)
    return [f"{file.name}: {problem}" for problem in problems]


def main() -> None:
    """A line for each problem; end with 1 where there is any."""
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit("Which file? make runtime-check FILE=build/name-version.krt")
    file = Path(sys.argv[1])
    if not file.is_file():
        sys.exit(f"{file} is not there, or no file.")
    if problems := check(file):
        print(*problems, sep="\n")
        sys.exit(f"{file.name}: {len(problems)} to mend.")
    print(f"{file.name} is as the engine takes it.")


if __name__ == "__main__":
    main()
