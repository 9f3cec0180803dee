"""Skips the tests of processes whose versions differ: a pytest plugin, loaded by pytest.ini.

Tests run in the development environment, with the versions of the root's lock. If a process's lock
has another version of a package, its tests would run with the wrong one; they run only in an
environment that has the process's versions.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from lib.errors import UserError
from lib.repository import ROOT
from tools.environments.lock_file import read_lock, versions

LEFT_OUT = pytest.StashKey[dict[Path, str]]()


def left_out() -> dict[Path, str]:
    """The processes whose tests are skipped here, with the versions that differ."""
    roots = locked(ROOT)
    found: dict[Path, str] = {}
    for lock in sorted(ROOT.glob("lab/processes/*/Pipfile.lock")):
        differing = [
            f"{package} {wanted.removeprefix('==')} (here {here})"
            for package, wanted in locked(lock.parent).items()
            if roots.get(package, wanted) != wanted
            and (here := installed(package))
            and not SpecifierSet(wanted).contains(here, prereleases=True)
        ]
        if differing:
            found[lock.parent] = ", ".join(differing)
    return found


def locked(folder: Path) -> dict[str, str]:
    """The version of each package of a lock, as `==1.2`; empty if the lock is invalid."""
    try:
        return versions(read_lock(folder))
    except UserError:
        return {}


def installed(package: str) -> str:
    """The version of a package in this environment; an empty string where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def pytest_configure(config: pytest.Config) -> None:
    """Find what is skipped; UsageError if its path was given explicitly."""
    here = config.invocation_params.dir
    asked = [(here / argument.partition("::")[0]).resolve() for argument in config.args]
    config.stash[LEFT_OUT] = {}
    for folder, differing in left_out().items():
        if any(path.is_relative_to(folder) for path in asked):
            raise pytest.UsageError(
                f"{folder.relative_to(ROOT)} has {differing}: its tests run in an environment of "
                "its own, by `python -m tools.testing`, which takes options of pytest."
            )
        if any(folder.is_relative_to(path) for path in asked):
            config.stash[LEFT_OUT][folder] = differing


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip the folder of such a process."""
    return collection_path.resolve() in config.stash[LEFT_OUT] or None


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print a line for each skipped folder."""
    for folder, differing in config.stash[LEFT_OUT].items():
        terminalreporter.write_line(
            f"left out: the tests of {folder.relative_to(ROOT)}, which has {differing}. "
            "`make test` runs them, or these alone: `python -m tools.testing`."
        )
