"""The bytes of a .krt: written the same each time, unpacked as the engine does it.

Reading what may be hostile is check.py's; nothing here is called before it has found no problem.
"""

import gzip
import io
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath


def pack(files: Mapping[str, bytes]) -> bytes:
    """A .krt with these files by their names: the same bytes for the same files.

    Each folder has an entry of its own before what is in it; there are no times, owners or modes
    of this machine.
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


def unpack(file: Path, folder: Path) -> None:
    """Unpack a .krt that has been checked into a folder: a plain mkdir for each of its folders."""
    with tarfile.open(file, mode="r:gz") as archive:
        for member in archive:
            place = folder / member.name
            if member.isdir():
                place.mkdir()
            elif (content := archive.extractfile(member)) is not None:
                with place.open("xb") as new:
                    shutil.copyfileobj(content, new)
