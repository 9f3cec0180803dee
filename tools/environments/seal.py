"""Whether a folder still holds what was installed there, as a job that holds secrets must know.

    ENVIRONMENTS_KEY=... python -I tools/environments/seal.py check FOLDER
    ENVIRONMENTS_KEY=... python -I tools/environments/seal.py write FOLDER

A seal lists every file with its mode and its sha256, and is signed with a key that only such jobs
have. Whoever lacks the key can change the folder, but not the seal. What came since (bytecode of
what was imported, a planted file) is removed; what was changed or is missing breaks the seal. Files
are read again only where inodes, sizes or times are no longer those of the last time: the change
time is the system's to set. `bootstrap` calls this before there is any environment: the standard
library is all it has.
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
VARIABLES = "variables-"  # what tools/within keeps of .env, and runs: it is made anew each time
MARKS = (NAME, "complete", "ready-", VARIABLES)  # what comes beside the packages

Entries = dict[str, list[object]]  # by the path: type and mode, then digest or target


def sealed(folder: Path, key: str) -> bool:
    """Whether a folder holds what it held when it was sealed with this key; extras are removed."""
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
    write(folder, key, found)  # with the times of now
    return True


def write(folder: Path, key: str, found: Entries | None = None) -> None:
    """Seal what the folder holds."""
    text = json.dumps(entries(folder) if found is None else found)
    glance, digest = at_a_glance(folder), hashlib.sha256(text.encode()).hexdigest()
    new = folder / f"{NAME}.new"
    new.write_text(
        f"{signed(folder, key, glance, digest)} {glance} {digest}\n{text}", encoding="utf-8"
    )
    new.replace(folder / NAME)


def signed(folder: Path, key: str, glance: str, digest: str) -> str:
    """The signature of a list; that of another folder is none here."""
    message = f"{glance} {digest} ".encode() + os.fsencode(folder.resolve())
    return hmac.new(key.encode(), message, "sha256").hexdigest()


def walk(folder: str, skipped: tuple[str, ...] = ()) -> Iterator[os.DirEntry[str]]:
    """All that is in a folder, in an order that hangs on names alone."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(skipped or "/"):
            continue
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from walk(entry.path)


def at_a_glance(folder: Path) -> str:
    """A digest of what the system says of the files, without their content."""
    digest = hashlib.sha256()
    for entry in walk(str(folder), MARKS):
        about = entry.stat(follow_symlinks=False)
        times = (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        of_file = () if stat.S_ISDIR(about.st_mode) else times
        digest.update(f"{os.fsencode(entry.path)!r} {about.st_mode} {of_file}\n".encode())
    return digest.hexdigest()


def entries(folder: Path) -> Entries:
    """All that is in the folder, with its content."""
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
    """A file or a folder, which may be gone with its own folder."""
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
