"""The virtual environments: made once, addressed by content, listed and removed.

    lib/environments.py make [--dev] FOLDER...   make those that are not there yet
    lib/environments.py lock [FOLDER...]         resolve Pipfiles into Pipfile.locks
    lib/environments.py verify                   every lock fits its Pipfile, and all agree
    lib/environments.py list                     what there is on this machine
    lib/environments.py clean [DAYS]             remove those that no lock here names any more

Runs on the interpreter that `lib/bootstrap` prints, which has pipenv and rich; `lib/within` calls
it when the environment it wants is not there. A half-made environment is never used: what says
that one is complete, for one Pipfile, is a file `ready-<first 12 hex digits of its sha256>` in it.
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipenv.vendor import plette
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

ROOT = Path(__file__).resolve().parent.parent


class EnvironmentsError(Exception):
    """A mistake that its reader can mend: one line that says how."""


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
        """NAME-<first 12 hex digits of the lock's sha256>, as `lib/within` computes it too."""
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
        return self.ready.exists() and (self.path / "bin" / "python").exists()


def environments_folder() -> Path:
    """Where pipenv keeps environments."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(os.environ.get("WORKON_HOME") or Path(data) / "virtualenvs")


def short_sha256(file: Path) -> str:
    """First 12 hex digits of the file's sha256, as `sha256sum FILE | cut -c-12` prints them."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    except FileNotFoundError:
        what = "write it" if file.name == "Pipfile" else "run `make lock`"
        raise EnvironmentsError(f"{relative(file)} is not there: {what}.") from None


def relative(path: Path) -> Path:
    """The path as a person in the repository's root would type it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def folders() -> list[Path]:
    """Every folder of this project that has a Pipfile, the root first."""
    skeleton = ROOT / "lib/project/skeleton"  # of a process that is still to be added
    rooms = ("lab/processes/*", "*", "runtimes/*")
    places = [ROOT, *(place for room in rooms for place in sorted(ROOT.glob(room))), skeleton]
    return [folder for folder in places if (folder / "Pipfile").is_file()]


def shared_folders() -> list[Path]:
    """Those whose packages have one version: what runtimes hold, the engine's images settle."""
    return [folder for folder in folders() if folder.parent != ROOT / "runtimes"]


# ---- verify


def pipfile_hash(folder: Path) -> str:
    """The hash of a Pipfile that its lock must bear, wherever it is computed.

    `pipenv verify` is not asked: where a Pipfile names no index it hashes the one in the site's
    pip configuration with it, so that a lock would be stale as soon as it left its author's site.
    """
    try:
        with (folder / "Pipfile").open() as file:
            return str(plette.Pipfile.load(file).get_hash().value)
    except Exception as error:  # the vendored TOML parser's and plette's own, of many classes
        message = " ".join(str(error).split())
        raise EnvironmentsError(f"{relative(folder / 'Pipfile')}: {message}.") from None


def read_lock(folder: Path) -> dict[str, Any]:
    """What the folder's Pipfile.lock says, or EnvironmentsError."""
    file = folder / "Pipfile.lock"
    try:
        lock: dict[str, Any] = json.loads(file.read_text())
        lock["_meta"]["hash"]["sha256"]
    except FileNotFoundError:
        raise EnvironmentsError(f"{relative(file)} is not there: run `make lock`.") from None
    except (ValueError, KeyError, TypeError):
        raise EnvironmentsError(
            f"{relative(file)} is not a lock file (merged by hand?): run `make lock`."
        ) from None
    return lock


def check_lock(folder: Path) -> None:
    """Raise EnvironmentsError where the lock does not fit its Pipfile."""
    if read_lock(folder)["_meta"]["hash"]["sha256"] != pipfile_hash(folder):
        raise EnvironmentsError(
            f"{relative(folder / 'Pipfile.lock')} no longer fits its Pipfile: run `make lock`."
        )


def disagreements() -> list[str]:
    """One line for each package that two locks of this project have in different versions."""
    versions: dict[str, dict[str, list[Path]]] = {}
    for folder in shared_folders():
        lock = read_lock(folder)
        for package, entry in (lock["default"] | lock["develop"]).items():
            by_version = versions.setdefault(package, {})
            by_version.setdefault(entry.get("version", "?"), []).append(relative(folder))
    return [
        f"{package}: "
        + ", ".join(
            f"{version} in {', '.join(map(str, where))}" for version, where in found.items()
        )
        + ": pin one version in the Pipfiles and run `make lock`."
        for package, found in sorted(versions.items())
        if len(found) > 1
    ]


def verify() -> None:
    """Raise EnvironmentsError with a line for each lock that is stale or disagrees."""
    problems = []
    for folder in folders():
        try:
            check_lock(folder)
            if read_lock(folder)["_meta"]["sources"]:
                problems.append(f"{relative(folder)}/Pipfile.lock names an index: run `make lock`.")
        except EnvironmentsError as error:
            problems.append(str(error))
    problems = problems or disagreements()
    if problems:
        raise EnvironmentsError("\n".join(problems))


# ---- make


def make(environments: Sequence[Environment]) -> None:
    """Make the environments that are not complete, as many at a time as there are cores."""
    for environment in environments:
        check_lock(environment.folder)
    missing = [environment for environment in environments if not environment.complete]
    # The largest first: then the cores are busy to the end.
    missing.sort(key=lambda environment: -(environment.folder / "Pipfile.lock").stat().st_size)
    terminal = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Progress(*columns, console=terminal, disable=not terminal.is_terminal)

    def make_with_bar(environment: Environment) -> None:
        task = bars.add_task(environment.label, total=packages(environment))
        tasks[task] = environment
        started = time.monotonic()
        if not terminal.is_terminal:
            terminal.print(f"environment {environment.label}: {packages(environment)} packages …")
        make_one(environment)
        bars.remove_task(task)
        terminal.print(
            f"environment {environment.label}: ready ({time.monotonic() - started:.0f} s)"
        )

    tasks: dict[TaskID, Environment] = {}
    with bars, ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = {pool.submit(make_with_bar, environment) for environment in missing}
        finished = set()
        while waiting:
            done, waiting = wait(waiting, timeout=0.5)
            finished |= done
            for task, environment in list(tasks.items()):
                if task in bars.task_ids:
                    bars.update(task, completed=installed(environment))
    problems = [str(future.exception()) for future in finished if future.exception()]
    if problems:
        raise EnvironmentsError("\n".join(problems))


def packages(environment: Environment) -> int:
    """How many packages the lock names."""
    lock = read_lock(environment.folder)
    return len(lock["default"] | lock["develop"] if environment.dev else lock["default"])


def installed(environment: Environment) -> int:
    """How many packages are in place so far."""
    return sum(1 for _ in environment.path.glob("lib/python*/site-packages/*.dist-info"))


def make_one(environment: Environment) -> None:
    """Make one environment, alone: whoever comes meanwhile waits and finds it complete."""
    path = environment.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ((path / "complete").exists() and (path / "bin" / "python").exists()):
            shutil.rmtree(path, ignore_errors=True)
            install(environment, lock.fileno())
            (path / "complete").touch()
        environment.ready.touch()


def install(environment: Environment, lock: int) -> None:
    """Let pipenv install what the lock names, then byte-compile it on all cores."""
    log = Path(f"{environment.path}.log")
    with log.open("w") as output:
        # The lock is handed down: should this process be killed, pipenv goes on holding it, and
        # nobody touches the folder that it still writes to.
        done = pipenv(
            ["sync", "--dev"] if environment.dev else ["sync"],
            environment.folder,
            {"PIPENV_CUSTOM_VENV_NAME": environment.name, "PIP_NO_COMPILE": "1"},
            stdout=output,
            pass_fds=[lock],
        )
    if done.returncode:
        raise EnvironmentsError(
            f"The environment {environment.name} could not be made: {first_error(log)} "
            f"(the whole log: {log}). Check the index that pip is set up with "
            "(`pip config list`) and PIP_FIND_LINKS in .env."
        )
    # Its exit code is not asked for: some packages ship files that do not compile.
    compileall = f"{environment.path}/bin/python", "-m", "compileall", "-q", "-j0"
    subprocess.run([*compileall, f"{environment.path}/lib"], capture_output=True, check=False)


def first_error(log: Path) -> str:
    """What pip said went wrong, in a line."""
    errors = re.findall(r"^.*\bERROR\b.*$", log.read_text(), re.MULTILINE)
    return " ".join(errors[0].split()) if errors else "pipenv failed"


def pipenv(
    arguments: list[str], folder: Path, settings: dict[str, str], **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run pipenv on a folder's Pipfile, whatever environment this is called from."""
    always = {
        "PIPENV_DEFAULT_PYTHON_VERSION": os.path.realpath(sys.executable),
        "PIPENV_DOTENV_LOCATION": str(ROOT / ".env"),
        "PIPENV_IGNORE_VIRTUALENVS": "1",
        "PIPENV_NOSPIN": "1",
        "PIPENV_PIPFILE": str(folder / "Pipfile"),
        "PIPENV_VENV_IN_PROJECT": "0",
        "PIPENV_YES": "1",
        "NO_COLOR": "1",
        "COLUMNS": "1000",  # whole lines in the log
    }
    return subprocess.run(
        [sys.executable, "-m", "pipenv", *arguments],
        cwd=folder,
        env=os.environ | always | settings,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )


# ---- lock


def lock(places: Sequence[Path]) -> None:
    """Resolve Pipfiles into locks that name no index, as many at a time as there are cores.

    Where some are resolved and others stay, what came out meanwhile is not let in: packages that
    the others have too keep their versions, unless a Pipfile here wants another.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for folder in pool.map(lock_one, places):
            say(f"{relative(folder / 'Pipfile.lock')}: written")
    agreed = versions_in([folder for folder in shared_folders() if folder not in places])
    for folder in [folder for folder in shared_folders() if folder in places]:
        keep_versions(folder, agreed)
    verify()


def keep_versions(folder: Path, agreed: Mapping[str, str]) -> None:
    """Resolve once more where a lock has other versions than these; verify says what stays so.

    What the Pipfile names comes first: an older version of it may need fewer packages.
    """
    lines = (folder / "Pipfile").read_text().splitlines()
    named = {normal(line.partition("=")[0].strip(' "')) for line in lines if "=" in line}
    pins: dict[str, str] = {}
    for only_named in (True, False, False):
        newer = {
            package: agreed[package]
            for package, version in versions_in([folder]).items()
            if agreed.get(package, version) != version and (package in named or not only_named)
        }
        if newer and newer.items() <= pins.items():
            return
        if newer:
            pins |= newer
            say(f"{relative(folder / 'Pipfile.lock')}: {', '.join(newer)} as in the others")
            try:
                lock_one(folder, pins)
            except EnvironmentsError:
                return


def normal(name: str) -> str:
    """A package's name as locks have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def versions_in(places: Sequence[Path]) -> dict[str, str]:
    """The version of each package that is the same in all these locks that have it."""
    found: dict[str, set[str]] = {}
    for folder in places:
        content = read_lock(folder)
        for package, entry in (content["default"] | content["develop"]).items():
            found.setdefault(package, set()).add(entry.get("version", "?"))
    return {package: min(versions) for package, versions in found.items() if len(versions) == 1}


def lock_one(folder: Path, pins: Mapping[str, str] | None = None) -> Path:
    """Resolve one Pipfile and write its lock; the folder comes back.

    With pins, these packages of its lock get these versions, where its Pipfile leaves them open.
    """
    file = folder / "Pipfile.lock"
    fitting = pipfile_hash(folder)  # complains of a Pipfile that cannot be read
    with tempfile.TemporaryDirectory() as workon, tempfile.TemporaryDirectory() as scratch:
        place = folder
        if pins:
            place = Path(scratch)
            text = pinned((folder / "Pipfile").read_text(), read_lock(folder), pins)
            (place / "Pipfile").write_text(text)
        settings = {"WORKON_HOME": workon, "PIPENV_CUSTOM_VENV_NAME": "lock"}
        done = pipenv(["lock"], place, settings, stdout=subprocess.PIPE)
        if done.returncode:
            reasons = [line.strip() for line in done.stdout.splitlines() if "ERROR" in line]
            raise EnvironmentsError(
                f"{relative(folder / 'Pipfile')} could not be resolved: "
                f"{' '.join(reasons[-3:]) or done.stdout.strip()[-500:]}"
            )
        content = read_lock(place)
    content["_meta"]["sources"] = []
    content["_meta"]["hash"]["sha256"] = fitting
    for section in ("default", "develop"):
        for entry in content[section].values():
            entry.pop("index", None)
    file.write_text(json.dumps(content, indent=4, sort_keys=True) + "\n")
    return folder


def pinned(pipfile: str, lock: Mapping[str, Any], pins: Mapping[str, str]) -> str:
    """A Pipfile in which packages of its lock are pinned, but for those that it pins itself."""
    for section, title in (("default", "[packages]"), ("develop", "[dev-packages]")):
        lines = []
        for package in set(pins) & set(lock[section]):
            name = re.escape(package).replace(r"\-", "[-_.]")
            line = re.compile(rf'(?im)^"?{name}"?\s*=\s*(.*)$')
            asked = line.search(pipfile)
            if asked and asked[1].partition("#")[0].strip() != '"*"':
                continue
            pipfile = line.sub("", pipfile)
            lines.append(f'"{package}" = "{pins[package]}"')
        pipfile = pipfile.replace(title, "\n".join([title, *sorted(lines)]), 1)
    return pipfile


# ---- list and clean


def made() -> dict[Path, float]:
    """The environments that this module made on this machine, with the time of their last use."""
    return {
        mark.parent: max(ready.stat().st_mtime for ready in mark.parent.glob("[rc]*"))
        for mark in sorted(environments_folder().glob("*/complete"))
    }


def named_here() -> set[Path]:
    """The environments that the locks of this clone name."""
    return {
        Environment(folder, dev).path
        for folder in folders()
        if (folder / "Pipfile.lock").exists()
        for dev in (False, True)
    }


def size(path: Path) -> int:
    """Bytes that removing the folder frees."""
    return sum(file.lstat().st_blocks * 512 for file in path.rglob("*"))


def list_made() -> None:
    """Print the environments with their size and last use."""
    here = named_here()
    for path, used in made().items():
        age = (time.time() - used) / 86400
        mark = "in use here" if path in here else ""
        print(f"{path.name:48} {size(path) / 1e6:8.0f} MB   last used {age:5.1f} days ago   {mark}")


def clean(days: float) -> None:
    """Remove what no lock of this clone names and nobody has used for so many days."""
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
        freed += size(path)
        (path / "complete").unlink()  # first: what is half removed is not used
        shutil.rmtree(path)
        for beside in (Path(f"{path}.lock"), Path(f"{path}.log")):
            beside.unlink(missing_ok=True)
        print(f"removed {path.name}")
    print(f"{freed / 1e6:.0f} MB freed.")


# ---- the command


def say(line: str) -> None:
    """Print to the log, at once."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """The command that the module's docstring shows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("--dev", action="store_true")
    making.add_argument("folders", nargs="+", type=Path)
    locking = commands.add_parser("lock")
    locking.add_argument("folders", nargs="*", type=Path)
    commands.add_parser("verify")
    commands.add_parser("list")
    commands.add_parser("clean").add_argument("days", nargs="?", type=float, default=1.0)
    given = parser.parse_args()

    if given.command == "make":
        make([Environment(folder.resolve(), given.dev) for folder in given.folders])
    elif given.command == "lock":
        lock([folder.resolve() for folder in given.folders] or folders())
    elif given.command == "verify":
        verify()
    elif given.command == "list":
        list_made()
    else:
        clean(given.days)


if __name__ == "__main__":
    try:
        main()
    except EnvironmentsError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
