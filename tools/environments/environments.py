"""The virtual environments: made once, addressed by content, listed and removed.

An environment is used only if it has the file `ready-<first 12 hex digits of the Pipfile's
sha256>`, which says that it is complete.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

from lib.errors import UserError
from lib.repository import ROOT
from tools.command import DISK_FULL
from tools.environments import seal
from tools.environments.installer import about_cache, cache_folder, install, this_machine
from tools.environments.lock_file import environments_folder, read_lock, relative
from tools.environments.locks import check_lock, folders, for_machine

# Set in jobs that have secrets: environments are then verified against their seal.
KEY = os.environ.get("ENVIRONMENTS_KEY", "")


@dataclass(frozen=True)
class Environment:
    """The environment of one folder that holds a Pipfile and a Pipfile.lock."""

    folder: Path
    dev: bool = False

    @property
    def label(self) -> str:
        """The name without the hash."""
        name = "root" if self.folder == ROOT else self.folder.name
        return f"{name}-dev" if self.dev else name

    @property
    def name(self) -> str:
        """NAME-<first 12 hex digits of the lock's sha256>, as `tools/within` computes it too."""
        return f"{self.label}-{short_sha256(self.folder / 'Pipfile.lock')}"

    @property
    def path(self) -> Path:
        """The folder of the environment."""
        return environments_folder() / self.name

    @property
    def ready(self) -> Path:
        """The file that marks it complete for this very Pipfile."""
        return self.path / f"ready-{short_sha256(self.folder / 'Pipfile')}"

    @property
    def complete(self) -> bool:
        """Whether it may be used."""
        return self.ready.exists() and self.whole

    @property
    def whole(self) -> bool:
        """Whether all packages of its lock are in it; UserError if it belongs to another user."""
        # As in tools/within: not if its Python was removed, or this user may not execute it.
        python = self.path / "bin" / "python"
        if not ((self.path / "complete").exists() and os.access(python, os.X_OK)):
            return False
        for place in (self.path, self.path / "complete"):
            if place.stat().st_uid != os.geteuid():
                raise UserError(
                    f"{place} belongs to another user, who may have put anything there: remove "
                    "it, or set WORKON_HOME to a folder of your own."
                )
        return not KEY or seal.sealed(self.path, KEY)


def short_sha256(file: Path) -> str:
    """First 12 hex digits of the file's sha256, as `sha256sum FILE | cut -c-12` prints them."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    except FileNotFoundError:
        what = "write it" if file.name == "Pipfile" else "run `make lock`"
        raise UserError(f"{relative(file)} does not exist: {what}.") from None


# ---- make


def make(environments: Sequence[Environment]) -> None:
    """Make the environments that are not complete, as many at a time as there are cores."""
    for environment in environments:
        check_lock(environment.folder)
    missing = [environment for environment in environments if not environment.complete]
    # The largest first, which keeps all cores busy to the end.
    missing.sort(key=lambda environment: -(environment.folder / "Pipfile.lock").stat().st_size)
    if missing:
        make_folder(environments_folder())
    if missing and not KEY and (message := about_cache(environments_folder())):
        print(message, file=sys.stderr, flush=True)
    errors = make_at_once(missing)
    for error in errors:
        if not isinstance(error, UserError | OSError):  # a bug here
            raise error
    if errors:
        raise UserError("\n".join(map(str, errors)))


def make_at_once(missing: Sequence[Environment]) -> list[BaseException]:
    """Make environments in parallel, with progress bars or log lines; the errors."""
    terminal = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Progress(*columns, console=terminal, disable=not terminal.is_terminal)

    tasks: dict[TaskID, Environment] = {}

    def make_with_bar(environment: Environment) -> None:
        label, count = environment.label, len(wanted(environment))
        task = bars.add_task(label, total=count)
        tasks[task] = environment
        started = time.monotonic()
        if not terminal.is_terminal:
            terminal.print(f"environment {label}: {count} packages …")
        make_one(environment)
        bars.remove_task(task)
        terminal.print(f"environment {label}: ready ({time.monotonic() - started:.0f} s)")

    with bars, ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = {pool.submit(make_with_bar, environment) for environment in missing}
        finished = set()
        while waiting:
            done, waiting = wait(waiting, timeout=0.5)
            finished |= done
            for task, environment in list(tasks.items()):
                with suppress(KeyError):  # its bar was removed meanwhile
                    bars.update(task, completed=installed(environment))
    return [error for future in finished if (error := future.exception())]


def make_folder(folder: Path) -> None:
    """Make the folder of all environments; UserError if it cannot be written to."""
    then = "set HOME, or WORKON_HOME, to a folder that you may write to."
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise UserError(f"{folder} cannot be made ({error.strerror}): {then}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written to: {then}")


def wanted(environment: Environment) -> dict[str, Any]:
    """The packages of its lock, in the versions for this machine."""
    named = read_lock(environment.folder)
    packages = named["develop"] | named["default"] if environment.dev else named["default"]
    return for_machine(packages, named, this_machine())


def installed(environment: Environment) -> int:
    """How many packages are installed so far."""
    return sum(1 for _ in environment.path.glob("lib/python*/site-packages/*.dist-info"))


def make_one(environment: Environment) -> None:
    """Make one environment under a lock: concurrent callers wait, and find it complete."""
    path = environment.path
    with locked(path) as handle:
        if not environment.whole:
            if KEY and path.exists() and (who := users(path)):
                raise UserError(
                    f"{path.name} must be replaced, but is in use by {who}: end that first."
                )
            if path.is_symlink() or path.is_file():
                path.unlink()
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o700)
            install(path, environment.folder, wanted(environment), KEY, handle)
            shutil.rmtree(path / "tmp", ignore_errors=True)
            if KEY:
                # Bytecode written after sealing would be removed, and written again, in each job.
                python = f"{path}/bin/python", "-I", "-m", "compileall", "-q", "-j0"
                subprocess.run([*python, f"{path}/lib"], capture_output=True, check=False)
                seal.write(path, KEY)
            (path / "complete").write_text("uv\n", encoding="utf-8")
        environment.ready.touch()


@contextmanager
def locked(path: Path, *, waiting: bool = True) -> Iterator[int]:
    """Lock an environment against other makers and removers; the lock file's descriptor.

    Raises:
        BlockingIOError: it is locked, and `waiting` is False.
    """
    while True:
        with Path(f"{path}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if waiting else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                raise UserError(
                    f"{path.parent} is on a file system without file locks (NFS, Lustre): let "
                    "WORKON_HOME name a folder on a local disk."
                ) from None
            try:
                same = os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat())
            except FileNotFoundError:
                same = False
            if same:  # else `make clean` has removed the lock file meanwhile
                yield file.fileno()
                return


def users(path: Path) -> str:
    """The processes that use an environment, as text; empty if there are none.

    They have its path in their variables or command line, or a library of it in memory.
    """
    name = re.compile(re.escape(os.fsencode(path)) + rb"(?![\w.-])")
    if Path("/proc/self/environ").exists():
        running = {place.name: about_process(place) for place in Path("/proc").glob("[0-9]*")}
    else:  # macOS
        listed = subprocess.run(
            ["ps", "-axEww", "-o", "pid=,command="], capture_output=True, check=False
        )
        running = {line.split()[0].decode(): line for line in listed.stdout.splitlines() if line}
    found = [number for number, text in running.items() if name.search(text)]
    others = sorted(map(int, set(found) - {str(os.getpid())}))
    return f"process {', '.join(map(str, others))}" if others else ""


def about_process(place: Path) -> bytes:
    """A process's variables, command line and memory map, as far as they can be read."""
    text = b""
    for name in ("environ", "cmdline", "maps"):
        with suppress(OSError):
            text += (place / name).read_bytes() + b"\n"
    return text


# ---- list and clean


def made() -> dict[Path, float]:
    """The environments on this machine, with the time of their last use; incomplete ones too."""
    places = environments_folder().glob("*.lock")
    found = {Path(str(place).removesuffix(".lock")): place for place in sorted(places)}
    return {
        path: max(mark.stat().st_mtime for mark in (lock, *path.glob("ready-*")))
        for path, lock in found.items()
        if re.fullmatch(r".+-[0-9a-f]{12}", path.name)
    }


def named_here() -> set[Path]:
    """The environments that the locks of this clone name."""
    return {
        Environment(folder, dev).path
        for folder in folders()
        if (folder / "Pipfile.lock").exists()
        for dev in (False, True)
    }


def size(path: Path) -> tuple[int, int]:
    """The bytes that removing the folder would free, and those of files shared with others."""
    own, shared = 0, 0
    inside = (Path(at, name) for at, *below in os.walk(path) for names in below for name in names)
    for place in inside:
        try:
            file = place.lstat()
        except FileNotFoundError:  # something installs
            continue
        if S_ISDIR(file.st_mode) or file.st_nlink == 1:
            own += file.st_blocks * 512
        else:
            shared += file.st_blocks * 512
    return own, shared


def list_made() -> None:
    """Print the environments with their size on disk and last use."""
    here, disk = named_here(), 0
    for path, used in made().items():
        age = (time.time() - used) / 86400
        mark = "in use here" if path in here else ""
        if not (path / "complete").exists():
            mark = "half made"
        own, shared = size(path)
        disk += own
        print(
            f"{path.name:48} {own / 1e6:7.0f} MB of its own {shared / 1e6:7.0f} MB shared   "
            f"last used {age:5.1f} days ago   {mark}"
        )
    cached = sum(size(cache_folder(os.environ)))
    print(
        f"{disk / 1e6:.0f} MB of their own on disk, and {cached / 1e6:.0f} MB in uv's cache, which "
        "holds what they share (`uv cache prune` or removing the folder loses nothing else)."
    )


def clean(days: float) -> None:
    """Remove environments that no lock here names, and that were not used for this many days."""
    here, freed = named_here(), 0
    for path, used in made().items():
        if path in here:
            continue
        age = (time.time() - used) / 86400
        if age < days:
            print(
                f"kept {path.name}: used {age * 24:.1f} hours ago, by another clone or branch "
                "perhaps (`make clean DAYS=0` removes it)."
            )
            continue
        try:
            with locked(path, waiting=False):
                marks = list(path.glob("ready-*"))
                for mark in marks:  # first: a process that starts now waits, and makes it again
                    mark.unlink()
                if who := users(path):
                    for mark in marks:
                        mark.touch()
                    print(f"kept {path.name}: in use by {who}.")
                    continue
                freed += size(path)[0]
                shutil.rmtree(path, ignore_errors=True)
                for beside in (f"{path}.log", f"{path}.lock"):
                    Path(beside).unlink(missing_ok=True)
        except BlockingIOError:
            print(f"kept {path.name}: it is being made.")
            continue
        except PermissionError:
            print(f"kept {path.name}: it is another user's.")
            continue
        print(f"removed {path.name}")
    print(f"{freed / 1e6:.0f} MB freed.")
