"""The Pipfiles of this project and their locks: reads them, and checks that they fit and agree.

Locks may have different versions of a package only if a Pipfile asks for one, or if the resolver
refused the version of the others (`make lock` records that in the lock). In a project, the
template's own locks need not agree with the others: an update replaces them. Runs on the
bootstrap's interpreter, without an environment.
"""

import difflib
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import plette
from packaging.markers import InvalidMarker, Marker
from packaging.utils import canonicalize_name

from lib.errors import UserError
from lib.repository import ROOT
from tools.environments.lock_file import TEMPLATE_ONLY, Lock, entries, read_lock, relative, versions

NAME = re.compile("[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
EXACT = re.compile(r"==[A-Za-z0-9_.+!-]+")
HASH = re.compile("sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
GROUPS = ("packages", "dev-packages")  # pipenv supports others, which would not be installed
KNOWN = (*GROUPS, "pipenv", "requires", "scripts", "source")

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # of every environment

# Sources that a Pipfile may give for a package. Such code has no hash, and clones with the same
# lock share an environment: one clone would import the code of the other.
PLACES = ("path", "file", "git", "hg", "svn", "bzr", "editable", "index")
# What a package may have beside its version: extras, and markers in pipenv's two forms.
IN_PIPFILES = {"version", "extras", "markers", "os_name", "sys_platform", "platform_machine"}
IN_PIPFILES |= {"platform_system", "platform_release", "platform_version", "python_version"}
IN_PIPFILES |= {"python_full_version", "platform_python_implementation", "implementation_name"}
IN_PIPFILES |= {"implementation_version"}
ELSEWHERE = "only a release on your pip's index has hashes; put code of your own into lib/"

# The page that `.env` names for torch has builds (2.13.0+cpu) for this system and processor.
BUILDS_ARE_FOR = ("Linux", "x86_64")

Locks = Mapping[Path, Lock]  # by the folder


def folders() -> list[Path]:
    """Every folder of this project that has a Pipfile, the root first."""
    # The skeletons are for processes that are added later.
    rooms = ("lab/processes/*", "lab/*", "*", "runtimes/*", "tools/*", "tools/project/skeleton/*")
    places = [ROOT, *(place for room in rooms for place in sorted(ROOT.glob(room)))]
    return [folder for folder in places if (folder / "Pipfile").is_file()]


def shares(folder: Path) -> bool:
    """Whether its versions must agree with others; runtimes depend on the engine's images."""
    of_runtimes = folder.parent == ROOT / "runtimes" or folder == ROOT / "tools/krt"
    return folder in folders() and not of_runtimes


def of_template(folder: Path) -> bool:
    """Whether this is a project, and the folder's lock is the template's, not the team's."""
    return folder.is_relative_to(ROOT / "tools") and not (ROOT / TEMPLATE_ONLY).exists()


def must_agree(folder: Path) -> bool:
    """Whether its lock must have the versions of the project's other locks."""
    return shares(folder) and not of_template(folder)


# ---- a Pipfile


def read_pipfile(folder: Path) -> dict[str, Any]:
    """The content of a folder's Pipfile; UserError if it cannot be read or locked."""
    file = folder / "Pipfile"
    try:
        pipfile = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        kind = "runtimes" if folder.parent == ROOT / "runtimes" else "lab/processes"
        raise UserError(
            f"{relative(file)} is missing: write it ({kind}/README.md says what is in it), then "
            "run `make lock`."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        marks = " A merge left marks in it." if b"<<<<<<< " in file.read_bytes() else ""
        raise UserError(f"{relative(file)} is not valid TOML: {error}.{marks}") from None
    if "source" in pipfile:
        raise UserError(
            f"{relative(file)} has a [[source]], and locks name no index: remove it, and set the "
            "index in pip's own settings (`pip config set global.index-url …`)."
        )
    if (requires := pipfile.get("requires", {})) not in ({}, {"python_version": PYTHON}):
        raise UserError(
            f"{relative(file)}: [requires] says {requires}, and every environment has Python "
            f'{PYTHON}: write python_version = "{PYTHON}", or leave it out.'
        )
    for name, section in pipfile.items():
        if name not in KNOWN:
            close = difflib.get_close_matches(name, KNOWN, n=1) or GROUPS
            meant = " or ".join(f"[{known}]" for known in close)
            raise UserError(
                f"{relative(file)}: [{name}] is no section that is read: did you mean {meant}?"
            )
        if not isinstance(section, dict):
            raise UserError(f"{relative(file)}: {name} must be a section: write [{name}].")
    for packages in groups(pipfile).values():
        for name, entry in packages.items():
            if not isinstance(entry, str | dict):
                raise UserError(f'{relative(file)}: {name} = {entry!r} must be text, such as "*".')
            if place := next((key for key in PLACES if key in entry and entry != key), ""):
                raise UserError(f"{relative(file)}: {name} has {place!r}: {ELSEWHERE}.")
            if isinstance(entry, dict) and (odd := sorted(entry.keys() - IN_PIPFILES)):
                raise UserError(
                    f"{relative(file)}: {name} has {odd[0]!r}, which cannot be locked here: leave "
                    "it out. A package may have a version, extras and markers."
                )
    return pipfile


def pipfile_hash(folder: Path) -> str:
    """The hash of a Pipfile that its lock must have, the same on every machine.

    Not by `pipenv verify`: without a [[source]], it includes the index of the local pip
    configuration, so that a lock would be stale on any other site.
    """
    read_pipfile(folder)
    try:
        with (folder / "Pipfile").open(encoding="utf-8") as file:
            return str(plette.Pipfile.load(file).get_hash().value)
    except Exception as error:  # of the vendored TOML parser and plette: many classes
        message = " ".join(str(error).split())
        raise UserError(f"{relative(folder / 'Pipfile')}: {message}.") from None


def groups(pipfile: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The tables of packages by name; [packages] first, as the others must fit it."""
    return {name: pipfile.get(name, {}) for name in GROUPS}


def asked(pipfile: Mapping[str, Any]) -> dict[str, str]:
    """The packages for which a Pipfile names a version, with the version."""
    wanted: dict[str, str] = {}
    for table in groups(pipfile).values():
        for name, entry in table.items():
            version = entry if isinstance(entry, str) else entry.get("version", "*")
            if version != "*":
                wanted[canonicalize_name(name)] = version
    return wanted


# ---- a lock


def builds(lock: Lock) -> dict[str, str]:
    """For packages locked for all platforms, the build for BUILDS_ARE_FOR, as `==2.13.0+cpu`.

    uv accepts the hashes of a version only for exactly that version.
    """
    return dict(lock["_meta"].get("builds", {}))


def for_machine(
    packages: Mapping[str, dict[str, Any]], lock: Lock, machine: tuple[str, str]
) -> dict[str, dict[str, Any]]:
    """Packages of a lock, with the versions for a system and processor."""
    chosen = builds(lock) if machine == BUILDS_ARE_FOR else {}
    return {
        name: entry | ({"version": chosen[name]} if name in chosen else {})
        for name, entry in packages.items()
    }


def check_lock(folder: Path) -> None:
    """UserError if the lock does not fit its Pipfile."""
    fitting = pipfile_hash(folder)  # first: `make lock` cannot fix a broken Pipfile
    lock, file = read_lock(folder), relative(folder / "Pipfile.lock")
    if lock["_meta"]["hash"]["sha256"] != fitting:
        raise UserError(f"{file} no longer fits its Pipfile: run `make lock`.")
    if lock["_meta"]["sources"]:
        raise UserError(f"{file} names an index: run `make lock`.")
    for name, entry in for_machine(entries(lock), lock, BUILDS_ARE_FOR).items():
        for problem in unsafe(name, entry):
            raise UserError(f"{file}: {name!r} {problem}: run `make lock`.")


def unsafe(name: str, entry: Any) -> Iterator[str]:
    """Why an entry must not be passed to an installer.

    An installer would accept one without hashes or from anywhere, and parses it as a requirement.
    """
    if not NAME.fullmatch(name) or not isinstance(entry, dict):
        yield "is no package"
        return
    if unknown := entry.keys() - {"hashes", "version", "markers", "extras"}:
        yield f"has {', '.join(map(repr, sorted(unknown)))}, and only a release has hashes"
    if not EXACT.fullmatch(str(entry.get("version"))):
        yield f"has no exact version but {entry.get('version')!r}"
    hashes, extras = entry.get("hashes") or [], entry.get("extras", [])
    if not hashes:
        yield "has no hashes"
    if odd := [value for value in hashes if not HASH.fullmatch(str(value))]:
        yield f"has {odd[0]!r} for a hash"
    if not isinstance(extras, list) or not all(NAME.fullmatch(str(extra)) for extra in extras):
        yield f"has the extras {extras!r}"
    try:
        Marker(entry.get("markers", "python_version > '3'"))
    except (InvalidMarker, TypeError):
        yield f"has the markers {entry['markers']!r}"


# ---- all locks


def open_versions(folder: Path, lock: Lock) -> dict[str, str]:
    """The versions that must be the same as in the other locks.

    Those are all but the packages that the Pipfile names versions for, and the packages that these
    force to another version. A lock does not say which package needs which, so `make lock` records
    the latter in the lock, under `forced`.
    """
    settled = {*asked(read_pipfile(folder)), *lock["_meta"].get("forced", [])}
    return {p: version for p, version in versions(lock).items() if p not in settled}


def common_versions(locks: Locks) -> dict[str, str]:
    """For each package that must agree, the version that most of these locks have."""
    return most_frequent(open_versions(folder, lock) for folder, lock in locks.items())


def most_frequent(found: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """For each package the most frequent version; the first one on a tie."""
    counts: dict[str, Counter[str]] = {}
    for by_package in found:
        for package, version in by_package.items():
            counts.setdefault(package, Counter())[version] += 1
    return {package: count.most_common(1)[0][0] for package, count in counts.items()}


def deviating(locks: Locks) -> list[Path]:
    """The folders that must agree, and have another version than the common one."""
    agreeing = {folder: lock for folder, lock in locks.items() if must_agree(folder)}
    common = common_versions(agreeing)
    return [
        folder
        for folder, lock in agreeing.items()
        if any(v != common[package] for package, v in open_versions(folder, lock).items())
    ]


def disagreements(places: Iterable[Path]) -> list[str]:
    """One line for each package that must have one version and has several."""
    found: dict[str, dict[str, list[str]]] = {}
    for folder in filter(must_agree, places):
        for package, version in open_versions(folder, read_lock(folder)).items():
            found.setdefault(package, {}).setdefault(version, []).append(str(relative(folder)))
    return [
        f"{package}: "
        + ", ".join(f"{version} in {', '.join(where)}" for version, where in by_version.items())
        + ": pin one version in the Pipfiles, or run `make lock` for the one that most have."
        for package, by_version in sorted(found.items())
        if len(by_version) > 1
    ]


def verify() -> None:
    """UserError with a line for each lock that does not fit or agree."""
    problems = []
    for folder in folders():
        try:
            check_lock(folder)
        except UserError as error:
            problems.append(str(error))
    problems = problems or disagreements(folders())
    if problems:
        raise UserError("\n".join(problems))
