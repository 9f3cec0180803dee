"""Checks that a .krt is valid for the engine and safe to unpack: `make runtime-check FILE=…`.

The archive is read as a stream and not unpacked: a malicious one is stopped by the limits below.
All problems are reported at once, one per line.
"""

import os
import posixpath
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from lib.params import YamlTextError, parse_yaml
from lib.text import one_line
from tools.command import as_command
from tools.krt.archive import FILE, FOLDER, Entry, RefusedError, entries
from tools.krt.format import Manifest, ManifestV1, ManifestV2, read
from tools.krt.names import MANIFEST

MANIFEST_BYTES, PROTO_BYTES = 2**18, 2**22  # limits for the manifest, and for all protos together
PATH_BYTES = 1024

TEXT = re.compile(
    r"""
    //[^\n]*+ | /\*.*?(?:\*/|\Z)  # a comment in a proto, to the end of the file where it has none
    | (["'])(?:\\[^\n]|(?!\1)[^\\\n])*+\1?  # a string, to the end of the line where it has none
    """,
    re.DOTALL | re.VERBOSE,
)


@dataclass
class Contents:
    """What was found in an archive."""

    files: dict[str, int] = field(default_factory=dict)  # sizes by name
    folders: set[str] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)  # manifest and protos
    proto_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def contents(file: BinaryIO) -> Contents:
    """Read an archive: its entries, and the problems with them."""
    found = Contents()
    file.seek(0)
    if file.read(2) != b"\x1f\x8b":
        found.problems.append("it is no gzip file: a .krt is a tar packed with gzip.")
        return found
    file.seek(0)
    try:
        for entry in entries(file):
            add(found, entry)
    except RefusedError as error:
        found.problems.append(str(error))
    return found


def add(found: Contents, entry: Entry) -> None:
    """Record an entry, or the problem with it."""
    name, shown = entry.name, repr(entry.name[:200])
    if why := bad_name(name):
        found.problems.append(f"entry {shown} {why}")
        return
    if entry.kind not in (FILE, FOLDER):
        found.problems.append(
            f"entry {shown} is {entry.kind}: there may be folders and whole files only."
        )
        return
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
    if entry.kind == FOLDER:
        found.folders.add(name)
        return
    found.files[name] = entry.size
    if name == MANIFEST or name.endswith(".proto"):
        found.texts[name] = text_of(found, entry)


def bad_name(name: str) -> str:
    """What is wrong with an entry's name; empty if it is valid."""
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


def text_of(found: Contents, entry: Entry) -> str:
    """The text of a manifest or proto; empty, and a problem, if it cannot be read."""
    most = MANIFEST_BYTES if entry.name == MANIFEST else PROTO_BYTES - found.proto_bytes
    if entry.size > most:
        what = "" if entry.name == MANIFEST else ", all protos together"
        found.problems.append(f"{entry.name} has {entry.size:,} bytes: at most {most:,}{what}.")
        return ""
    if entry.name != MANIFEST:
        found.proto_bytes += entry.size
    try:
        return b"".join(entry.content).decode("utf-8")
    except UnicodeDecodeError:
        found.problems.append(f"{entry.name} is not UTF-8.")
        return ""


# ---- the manifest


def load(text: str) -> tuple[Any, list[str]]:
    """The content of a YAML text, and why it cannot be parsed."""
    try:
        return parse_yaml(text), []
    except YamlTextError as error:
        return None, [f"it {one_line(str(error))[:300]}"]


def manifest_in(text: str, *, archive: bool) -> tuple[Manifest | None, list[str]]:
    """The manifest in a YAML text, and its problems, one per line."""
    content, problems = load(text)
    return (None, problems) if problems else read(content, archive=archive)


def methods(proto: str) -> set[str]:
    """The rpcs of a proto's services, the only places where `rpc NAME (` can occur."""
    return set(re.findall(r"\brpc\s++(\w++)\s*+\(", TEXT.sub(" ", proto)))


def check_archive(file: Path) -> list[str]:
    """All problems of a .krt."""
    with file.open("rb") as archive:
        found = contents(archive)
    if MANIFEST not in found.texts:
        if not (found.problems and not found.files):
            elsewhere = [name for name in found.files if posixpath.basename(name) == MANIFEST]
            where = f"it is at {elsewhere[0]!r}" if elsewhere else "there is none"
            found.problems.append(f"{MANIFEST} must be at the archive's root: {where}.")
        return found.problems
    manifest, problems = manifest_in(found.texts[MANIFEST], archive=True)
    if isinstance(manifest, ManifestV1 | ManifestV2):
        for key, name in manifest.sources().items():
            if name not in found.files:
                what = "a folder" if name in found.folders else "not in the archive"
                problems.append(
                    f"{key} is {name!r}: it must be a file of the archive, it is {what}."
                )
        proto = manifest.entrypoint.proto
        known = methods(found.texts.get(proto, ""))
        for n, workflow in enumerate(manifest.workflows):
            if proto in found.files and (rpc := workflow.entrypoint) not in known:
                problems.append(
                    f"workflows[{n}].entrypoint is {rpc!r}: it must be an rpc in {proto}: "
                    f"{', '.join(sorted(known)) or 'it has none'}."
                )
    return found.problems + [f"{MANIFEST}: {problem}" for problem in problems]


def check(file: Path) -> list[str]:
    """All problems of a .krt, or of a KAI version's YAML file, one per line."""
    return [one_line(problem) for problem in problems_of(file)]


def problems_of(file: Path) -> list[str]:
    """All problems, with text from the file that is not escaped yet."""
    if file.suffix not in (".yml", ".yaml"):
        return check_archive(file)
    with file.open("rb") as opened:
        text = opened.read(MANIFEST_BYTES + 1)
    if len(text) > MANIFEST_BYTES:
        return [f"{file.name} is too long: it may have {MANIFEST_BYTES:,} bytes."]
    try:
        _, problems = manifest_in(text.decode("utf-8"), archive=False)
    except UnicodeDecodeError:
        return [f"{file.name} is not UTF-8."]
    return [f"{file.name}: {problem}" for problem in problems]


def main() -> None:
    """Print a line for each problem; exit with an error if there are any."""
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit("Which file? make runtime-check FILE=build/name-version.krt")
    file = Path(sys.argv[1])
    if not file.is_file():
        sys.exit(f"{file} does not exist, or is not a file.")
    if problems := check(file):
        print(*problems, sep="\n")
        sys.exit(f"{file.name}: {len(problems)} to fix.")
    print(f"{file.name} is as the engine takes it.")


if __name__ == "__main__":
    as_command(main)
