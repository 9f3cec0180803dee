"""A mirror on disk from which uv downloads Python: the Python that runs the tests.

uv downloads releases of python-build-standalone. The mirror has one release, packed here, and its
own list, because uv's list has the hashes of the real files.
"""

import io
import json
import platform
import sys
import tarfile
from pathlib import Path

RELEASES = "https://github.com/astral-sh/python-build-standalone/releases/download/"
LEFT_OUT = ("/site-packages/", "/test/", "/__pycache__", "/idlelib", "/tkinter", "/config-3.11-")
NAME = "python3.11"


def make_mirror(folder: Path) -> dict[str, str]:
    """Create the mirror in this folder: the variables that make uv download from it."""
    version, machine = platform.python_version(), platform.machine()
    file = f"1/cpython-{version}+1-{machine}-unknown-linux-gnu-install_only.tar.gz"
    (folder / file).parent.mkdir(parents=True)
    pack(folder / file)
    major, minor, patch = map(int, version.split("."))
    entry = {
        "name": "cpython",
        "major": major,
        "minor": minor,
        "patch": patch,
        "prerelease": "",
        "os": "linux",
        "libc": "gnu",
        "arch": {"family": machine, "variant": None},
        "variant": None,
        "build": None,
        "sha256": None,
        "url": RELEASES + file,
    }
    listed = folder / "list.json"
    listed.write_text(json.dumps({f"cpython-{version}-linux-{machine}-gnu": entry}))
    return {
        "UV_PYTHON_INSTALL_MIRROR": folder.as_uri(),
        "UV_PYTHON_DOWNLOADS_JSON_URL": str(listed),
    }


def pack(file: Path) -> None:
    """Pack this Python in the layout of the releases, so that it runs from any folder."""
    base = Path(sys.base_prefix)
    with tarfile.open(file, "w:gz", compresslevel=1) as archive:
        program = (base / "bin" / NAME).read_bytes()
        where = f"{base}/lib".encode() + b"\0"  # where it looks for libpython, if it has one
        program = program.replace(where, b"$ORIGIN/../lib".ljust(len(where), b"\0"))
        entry = tarfile.TarInfo(f"python/bin/{NAME}")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
        for place in (base / "lib" / NAME, *(base / "lib").glob("libpython3.11.so.*")):
            archive.add(place, f"python/lib/{place.name}", filter=wanted)


def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The entry, if Python needs it to run."""
    return None if any(part in entry.name for part in LEFT_OUT) else entry
