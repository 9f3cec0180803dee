"""Checks that an environment still holds what was installed, for jobs that have secrets.

    ENVIRONMENTS_KEY=... python -I tools/environments/seal.py check FOLDER
    ENVIRONMENTS_KEY=... python -I tools/environments/seal.py write FOLDER

A seal lists every file with its mode and sha256, and is signed with a key that only such jobs have:
without the key, one can change the folder but not the seal. Files that were added (bytecode, a
planted file) are removed; a changed or missing file breaks the seal. Files are read again only if
inodes, sizes or times have changed; the change time cannot be forged without root. `bootstrap`
calls this before there is any environment: it uses only the standard library.
"""

import hashlib
import hmac
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

NAME = "seal"
VARIABLES = "variables-"  # shell code that tools/within runs: always made again
MARKS = (NAME, "complete", "ready-", VARIABLES)  # files beside the packages

Entries = dict[str, list[object]]  # by path: type and mode, then digest or link target


def sealed(folder: Path, key: str) -> bool:
    """Whether a folder is as it was when sealed with this key; added files are removed."""
    for kept in folder.glob(f"{VARIABLES}*"):
        remove(kept)
    try:
        with (folder / NAME).open(encoding="utf-8") as file:
            signature, glance, digest = file.readline().split()
            if not hmac.compare_digest(signature, signed(folder, key, glance, digest)):
                return False
            if glance == at_a_glance(folder):
                return True
            text = file.read()
        if digest != hashlib.sha256(text.encode()).hexdigest():
            return False
        known: Entries = json.loads(text)
    except (OSError, ValueError):
        return False
    found = entries(folder)
    for path in found.keys() - known.keys():
        remove(folder / path)
        del found[path]
    if found != known:
        return False
    write(folder, key, found)  # with the current times
    return True


def write(folder: Path, key: str, found: Entries | None = None) -> None:
    """Seal a folder's content."""
    text = json.dumps(entries(folder) if found is None else found)
    glance, digest = at_a_glance(folder), hashlib.sha256(text.encode()).hexdigest()
    new = folder / f"{NAME}.new"
    new.write_text(
        f"{signed(folder, key, glance, digest)} {glance} {digest}\n{text}", encoding="utf-8"
    )
    new.replace(folder / NAME)


def signed(folder: Path, key: str, glance: str, digest: str) -> str:
    """The signature of a listing, valid only for this folder."""
    message = f"{glance} {digest} ".encode() + os.fsencode(folder.resolve())
    return hmac.new(key.encode(), message, "sha256").hexdigest()


def walk(folder: str, skipped: tuple[str, ...] = ()) -> Iterator[os.DirEntry[str]]:
    """All entries of a folder, in an order that depends only on names."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(skipped or "/"):
            continue
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from walk(entry.path)


def at_a_glance(folder: Path) -> str:
    """A digest of the files' metadata, without their content."""
    digest = hashlib.sha256()
    for entry in walk(str(folder), MARKS):
        about = entry.stat(follow_symlinks=False)
        times = (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        of_file = () if stat.S_ISDIR(about.st_mode) else times
        digest.update(f"{os.fsencode(entry.path)!r} {about.st_mode} {of_file}\n".encode())
    return digest.hexdigest()


def entries(folder: Path) -> Entries:
    """All entries of the folder, with mode and digest."""
    found: Entries = {}
    for entry in walk(str(folder), MARKS):
        mode, content = entry.stat(follow_symlinks=False).st_mode, ""
        if entry.is_symlink():
            content = str(Path(entry.path).readlink())
        elif stat.S_ISREG(mode):
            with Path(entry.path).open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        found[os.path.relpath(entry.path, folder)] = [mode, content]
    return found


def remove(path: Path) -> None:
    """Remove a file or folder, if it still exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    command, place = sys.argv[1], Path(sys.argv[2])
    if command == "write":
        write(place, os.environ["ENVIRONMENTS_KEY"])
    elif not sealed(place, os.environ["ENVIRONMENTS_KEY"]):
        sys.exit(1)
