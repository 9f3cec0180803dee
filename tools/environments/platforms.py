"""Checks whether every lock can be installed on every platform, and shows what it installs.

uv simulates each installation, from wheels only, with the hashes. A package without a wheel on any
platform is built from source on all of them.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from lib.errors import UserError
from tools.command import captured
from tools.environments.installer import (
    UV,
    for_uv,
    on,
    pip_settings,
    reason,
    requirement,
    this_machine,
    variables_for,
)
from tools.environments.lock_file import entries, read_lock, relative
from tools.environments.locks import BUILDS_ARE_FOR, for_machine
from tools.environments.variables import values

# By name: system and processor, and uv's name for the platform.
PLATFORMS = {
    "Linux x86-64": (("Linux", "x86_64"), "x86_64-manylinux_2_28"),
    "Linux arm64": (("Linux", "aarch64"), "aarch64-manylinux_2_28"),
    "macOS arm64": (("Darwin", "arm64"), "aarch64-apple-darwin"),
}
MACOS = "14.0"  # the oldest that torch has wheels for
NO_WHEEL = re.compile(r"Wheels are required for `([^`]+)`")
NO_ANSWER = re.compile(r"Failed to fetch|error sending request|[Cc]onnect|timed? ?out|An index ")


class Plan(NamedTuple):
    """What would be installed: versions by package, packages without a wheel, and the error."""

    versions: dict[str, str]
    built: set[str]
    problem: str


def here() -> str:
    """The name of this machine's platform; UserError if it is not supported."""
    machine = this_machine()
    for name, (known, _) in PLATFORMS.items():
        if machine == known:
            return name
    raise UserError(
        f"the locks are for {', '.join(PLATFORMS)}, and this is {' '.join(machine)}: some packages "
        "will be missing (torch has none for Intel Macs); on Windows use WSL 2, elsewhere the "
        "devcontainer"
    )


def wanted() -> list[str]:
    """The platforms to support: all, or those that PLATFORMS in .env names."""
    chosen = values().get("PLATFORMS", "")
    names = [name.strip() for name in chosen.split(",") if name.strip()] or list(PLATFORMS)
    if unknown := [name for name in names if name not in PLATFORMS]:
        raise UserError(
            f"PLATFORMS in .env names {', '.join(unknown)}: known are {', '.join(PLATFORMS)}."
        )
    return names


def platforms(folders: Sequence[Path], quiet: bool) -> None:
    """Print what each lock installs on each platform.

    Args:
        folders: the folders of the locks.
        quiet: print only problems, and skip locks that passed before.

    Raises:
        UserError: a lock cannot be installed on a platform.
    """
    names = wanted()
    if quiet:
        folders = [folder for folder in folders if not proven(folder, names).exists()]
    if not folders:
        return
    if on(pip_settings(variables_for(BUILDS_ARE_FOR)), "no-index"):
        print("Platforms: not asked, pip is set up without an index.")
        return
    asked = list(product(folders, names))
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        plans = dict(zip(asked, pool.map(lambda pair: plan(*pair), asked), strict=True))
    if any(NO_ANSWER.search(found.problem) for found in plans.values()):
        print("Platforms: not asked, the package index does not answer, or refuses its login.")
        return
    if not quiet:
        show(folders, names, plans)
    problems: list[str] = []
    for folder in folders:
        if found := problems_of(folder, {name: plans[folder, name] for name in names}):
            problems += found
            continue
        with suppress(OSError):
            proven(folder, names).parent.mkdir(exist_ok=True)
            proven(folder, names).touch()
    if problems:
        raise UserError("\n".join(problems))


def problems_of(folder: Path, plans: Mapping[str, Plan]) -> list[str]:
    """A line for each reason why a lock cannot be installed on one of the platforms."""
    everywhere = set.intersection(*(plan.built for plan in plans.values()))
    found = []
    for name, plan in plans.items():
        lacking = sorted(plan.built - everywhere)
        reasons = [*(f"no wheel of {package}" for package in lacking), plan.problem]
        found += [
            f"{relative(folder / 'Pipfile.lock')}, {name}: {reason}: another version may have one "
            "(its Pipfile), or PLATFORMS in .env leaves the platform out."
            for reason in filter(None, reasons)
        ]
    return found


def proven(folder: Path, names: Sequence[str]) -> Path:
    """The marker file that exists if this lock was found installable on these platforms."""
    text = (folder / "Pipfile.lock").read_bytes() + ",".join(names).encode()
    return Path(sys.prefix, "proven", hashlib.sha256(text).hexdigest())


def plan(folder: Path, name: str) -> Plan:
    """What uv would install of a lock on a platform."""
    named = read_lock(folder)
    lock = for_machine(entries(named), named, PLATFORMS[name][0])
    built: set[str] = set()
    with tempfile.TemporaryDirectory() as scratch:
        while True:
            lines = [requirement(p, entry) for p, entry in lock.items() if p not in built]
            install = ("install", "--dry-run", "--require-hashes", "--target", scratch)
            done = uv(name, lines, *install, "--requirement", "-")
            without = {*NO_WHEEL.findall(done.stderr)} - built
            if not without:
                break
            built |= without
    found = dict(re.findall(r"^ \+ ([^\s=]+)==(\S+)", done.stderr, flags=re.MULTILINE))
    return Plan(found, built, reason(done.stderr) if done.returncode else "")


def uv(
    name: str, lines: Iterable[str], *command: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run uv pip on requirements for a platform, without their dependencies."""
    machine, platform_of_uv = PLATFORMS[name]
    variables = variables_for(machine)
    pips = pip_settings(variables) | settings
    sources = ("--no-index",) if on(pips, "no-index") else ()
    asked = [
        *(str(UV), "--no-config", "pip", *command, *sources, "--no-deps"),
        *("--only-binary", ":all:"),
        *("--python-platform", platform_of_uv, "--python", sys.executable),
    ]
    env = variables | for_uv(pips, variables) | {"MACOSX_DEPLOYMENT_TARGET": MACOS}
    return captured(asked, env=env, input="\n".join(lines))


def show(
    folders: Sequence[Path], names: Sequence[str], plans: dict[tuple[Path, str], Plan]
) -> None:
    """Print the number of packages of each lock, and packages that differ between platforms."""
    counts = Table("lock", *names, "built from source")
    differing = Table("lock", "package", *names)
    for folder in folders:
        of_folder = [plans[folder, name] for name in names]
        label = str(relative(folder / "Pipfile.lock"))
        numbers = [f"{len(found.versions)} packages" for found in of_folder]
        counts.add_row(label, *numbers, ", ".join(sorted(set.union(*(f.built for f in of_folder)))))
        for package in sorted(set().union(*(found.versions for found in of_folder))):
            versions = [found.versions.get(package, "none") for found in of_folder]
            if len(set(versions)) > 1:
                differing.add_row(label, package, *versions)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(counts)
    if differing.row_count:
        console.print("Not the same on all:", differing)


# ---- one lock for builds of several platforms


def files_elsewhere(package: str, version: str) -> list[str]:
    """The hashes of a release's wheels for all platforms but Linux x86-64.

    Empty if the index lacks a wheel for one of them.
    """
    found = []
    for name in wanted():
        if PLATFORMS[name][0] != BUILDS_ARE_FOR:
            command = ("compile", "--quiet", "--format", "pylock.toml", "--no-header", "-")
            done = uv(name, [package + version], *command, **{"find-links": ""})
            hashes = re.findall(r'\.whl".*?sha256 = "([0-9a-f]{64})"', done.stdout)
            if not hashes:
                return []
            found += [f"sha256:{value}" for value in hashes]
    return found
