"""Resolves Pipfiles into locks: `make lock`.

Locked versions are kept: each package keeps the version of the other locks or its own, unless its
Pipfile asks for another or the resolver refuses. Only UPGRADE=yes asks for newer versions.

pipenv resolves, in a scratch folder. It ignores pip's constraint files, but the [packages] of a
Pipfile constrain its other groups. So the scratch Pipfile has the versions to keep in [packages],
and the wanted packages in a group of their own.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomlkit
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from lib.errors import UserError
from lib.files import replaced_file
from lib.text import last_line
from tools.environments.installer import on, pip_settings, this_machine, variables_for
from tools.environments.lock_file import Lock, entries, read_lock, relative, versions
from tools.environments.locks import (
    EXACT,
    Locks,
    asked,
    builds,
    check_lock,
    common_versions,
    deviating,
    folders,
    groups,
    most_frequent,
    must_agree,
    of_template,
    pipfile_hash,
    read_pipfile,
    shares,
    verify,
)
from tools.environments.platforms import NO_ANSWER, files_elsewhere, here, uv
from tools.environments.surroundings import for_installers
from tools.environments.variables import values

SECTIONS = {"packages": "default", "dev-packages": "develop"}  # the names of these groups in a lock

MISSING = re.compile(r"No matching distribution found for ([^\s;]+)")


class RefusedError(Exception):
    """The resolver finds no solution; the message is its reason."""

    @property
    def packages(self) -> list[str]:
        """The packages named in the reason: those that cannot be had, then those that need them."""
        wanted = re.findall(r"(?:depends on|requested|found for) ([\w.-]+)", str(self))
        wanting = re.findall(r"([\w.-]+) \S+ depends on", str(self))
        return [canonicalize_name(name) for name in wanted + wanting]


# ---- the command


def lock(places: Sequence[Path], upgrade: bool = False) -> None:
    """Resolve the locks that do not fit, or with `upgrade` all of them, and write them.

    Nothing is written before all are resolved.

    Raises:
        UserError: one cannot be resolved, or the lock of another folder does not fit.
    """
    old = readable_locks({*folders(), *places})
    chosen = list(places) if upgrade else unfit(places, old)
    if not chosen:
        say("Every lock fits: nothing to do. `make lock UPGRADE=yes` asks for newer versions.")
    stay = [f for f in old if f not in chosen and not (upgrade and of_template(f))]
    settled = {folder: old[folder] for folder in stay}
    waiting = {} if upgrade else {f: lock for f, lock in old.items() if f in chosen}
    reports = []
    for folder in chosen:
        say(f"{relative(folder / 'Pipfile.lock')}: resolving …")
        new = resolve(folder, settled, waiting, [old.get(folder, {}), *old.values()])
        reports.append(report(folder, old.get(folder), new, settled))
        settled[folder] = new
    for folder, line in zip(chosen, reports, strict=True):
        text = json.dumps(settled[folder], indent=4, sort_keys=True) + "\n"
        with replaced_file(folder / "Pipfile.lock") as file:
            file.write_text(text, encoding="utf-8")
        say(line)
    verify()


def readable_locks(places: Iterable[Path]) -> dict[Path, Lock]:
    """The locks of these folders, except missing or broken ones."""
    found: dict[Path, Lock] = {}
    for folder in sorted(places):  # the root first
        try:
            found[folder] = read_lock(folder)
        except UserError:
            continue
    return found


def unfit(places: Sequence[Path], locks: Locks) -> list[Path]:
    """Of these folders, those whose lock does not fit its Pipfile or the other locks."""
    stale = []
    for folder in places:
        read_pipfile(folder)  # UserError if it is invalid
        try:
            check_lock(folder)
        except UserError:
            stale.append(folder)
    odd = deviating({folder: lock for folder, lock in locks.items() if folder not in stale})
    return [folder for folder in places if folder in stale or folder in odd]


def report(folder: Path, old: Lock | None, new: Lock, others: Locks) -> str:
    """What changed in a folder's lock, in one line."""
    before, after = versions(old or {}), versions(new)
    elsewhere = {item for lock in others.values() for item in versions(lock).items()}
    added = {p: v for p, v in after.items() if p not in before}
    changed = {p: v for p, v in after.items() if before.get(p, v) != v}
    parts = {
        "{} as in the others": [f"{p} {bare(v)}" for p, v in added.items() if (p, v) in elsewhere],
        "new: {}": [f"{p} {bare(v)}" for p, v in added.items() if (p, v) not in elsewhere],
        "changed: {}": [f"{p} {bare(before[p])} to {bare(v)}" for p, v in changed.items()],
        "removed: {}": [p for p in before if p not in after],
        "cannot be as in the others: {}": new["_meta"].get("forced", []),
        "kept: {}": [str(len(after) - len(added) - len(changed))],
    }
    texts = [form.format(", ".join(packages)) for form, packages in parts.items() if packages]
    return f"{relative(folder / 'Pipfile.lock')}: {'; '.join(texts)}"


def say(line: str) -> None:
    """Print to stderr, unbuffered."""
    print(line, file=sys.stderr, flush=True)


# ---- one lock


def resolve(folder: Path, settled: Locks, waiting: Locks, known: Sequence[Lock]) -> dict[str, Any]:
    """Resolve a folder's Pipfile, keeping as many locked versions as possible; the new lock.

    Args:
        folder: the folder.
        settled: the locks that stay, or are already resolved.
        waiting: the locks still to be resolved, whose versions count as well.
        known: the locks from which the hashes of packages are taken.
    """
    pipfile = read_pipfile(folder)
    others = {f: lock for f, lock in settled.items() if shares(f) and shares(folder)}
    common = common_versions({f: lock for f, lock in others.items() if must_agree(f)})
    preferred = preferences(pipfile, common, others, waiting.get(folder, {}), waiting)
    try:
        new = resolve_with(preferred, common, pipfile)
    except RefusedError as reason:
        raise UserError(f"{relative(folder / 'Pipfile')} could not be resolved: {reason}") from None
    for name, entry in entries(new).items():
        if entry.get("version", "*") == "*":
            raise UserError(
                f"{relative(folder / 'Pipfile')}: {name} is not for this platform, so no version "
                'of it was looked for here: name one, such as "==1.2".'
            )
    found, own = versions(new), asked(pipfile)
    keep_files(new, known)
    add_platforms(new, own)
    meta = new["_meta"] = {
        "hash": {"sha256": pipfile_hash(folder)},
        "pipfile-spec": 6,
        "requires": pipfile.get("requires", {}),
        "sources": [],
    }
    forced = [p for p, v in versions(new).items() if p not in own and common.get(p, v) != v]
    if forced:
        meta["forced"] = sorted(forced)
    if of_builds := builds_of(new, found, known):
        meta["builds"] = of_builds
    return new


def preferences(
    pipfile: Mapping[str, Any],
    common: Mapping[str, str],
    others: Locks,
    own: Lock,
    waiting: Locks,
) -> dict[str, list[str]]:
    """For each package, the versions to try in order, of those that the Pipfile allows.

    First those that must agree, then those of the old lock, then those of any other lock.
    """
    wanted = asked(pipfile)
    found: dict[str, list[str]] = {}
    elsewhere = most_frequent(map(versions, [*others.values(), *waiting.values()]))
    for source in (common, versions(own), common_versions(waiting), elsewhere):
        for package, version in source.items():
            tried = found.setdefault(package, [])
            limit = wanted.get(package, "*")
            if version not in tried and not EXACT.fullmatch(limit) and allows(limit, version):
                tried.append(version)
    return found


def allows(specifier: str, version: str) -> bool:
    """Whether a Pipfile's specifier, `1.2` without an operator too, allows a lock's `==1.2`."""
    for text in (specifier.removeprefix("*"), f"=={specifier}"):
        with suppress(InvalidSpecifier):
            return SpecifierSet(text).contains(bare(version), prereleases=True)
    return False


def bare(version: str) -> str:
    """A lock's version without its operator."""
    return version.removeprefix("==")


def resolve_with(
    preferred: dict[str, list[str]], common: Mapping[str, str], pipfile: Mapping[str, Any]
) -> dict[str, Any]:
    """The resolved groups, with as many of the preferred versions as the resolver allows.

    After each refusal, one of the packages that it names gets its next version, and finally any;
    packages that must agree with the other locks are changed last.

    Raises:
        RefusedError: there is no solution even without preferred versions.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        while True:
            kept = {package: tried[0] for package, tried in preferred.items() if tried}
            try:
                return resolve_groups(Path(scratch), pipfile, kept)
            except RefusedError as refusal:
                check_that_index_answers(str(refusal), scratch)
                if not kept:
                    raise
                named = [package for package in refusal.packages if package in kept]
                if named:
                    preferred[min(named, key=lambda p: common.get(p) == kept[p])].pop(0)
                else:
                    preferred = {}


def check_that_index_answers(refusal: str, scratch: str) -> None:
    """UserError if the index does not answer, which pipenv reports as a missing version."""
    if not (missing := MISSING.search(refusal)):
        return
    where = ("install", "--dry-run", "--target", scratch, "--requirement", "-")
    done = uv(here(), [missing[1]], *where)
    if done.returncode == 0 or NO_ANSWER.search(done.stderr):
        raise UserError(
            "The package index does not answer, or did not a moment ago, or refuses its login: no "
            "lock was written. `pip config list` shows which it is; try again when it is there."
        )


def resolve_groups(
    scratch: Path, pipfile: Mapping[str, Any], kept: Mapping[str, str]
) -> dict[str, Any]:
    """Resolve each group of a Pipfile with these versions; the later groups fit [packages].

    The versions that any group asks for constrain all: the first might otherwise take a version
    that a later group excludes.
    """
    sections: dict[str, Any] = {}
    wanted = asked(pipfile)
    for name, table in groups(pipfile).items():
        default = sections.get("default", {})
        constraints = {**wanted, **kept, **versions({"default": default})}
        found = resolve_group(scratch, pipfile, table, constraints) if table else {}
        sections[SECTIONS[name]] = found | {p: default[p] for p in found if p in default}
    return sections


def resolve_group(
    scratch: Path, pipfile: Mapping[str, Any], table: Mapping[str, Any], kept: Mapping[str, str]
) -> dict[str, Any]:
    """Resolve one group of packages with pipenv; RefusedError if there is no solution."""
    parts = {"packages": kept, "wanted": table}
    settings = {name: pipfile[name] for name in ("pipenv", "requires") if name in pipfile}
    if on(pip_settings(variables_for(this_machine())), "no-index"):
        # pipenv ignores this setting: give it an empty index.
        (scratch / "no-index").mkdir(exist_ok=True)
        none = (scratch / "no-index").as_uri()
        settings["source"] = [{"name": "none", "url": none, "verify_ssl": True}]
    (scratch / "Pipfile").write_text(tomlkit.dumps(parts | settings), encoding="utf-8")
    (scratch / "Pipfile.lock").unlink(missing_ok=True)
    output = run_pipenv(scratch, "lock", "--categories", "wanted")
    if not (scratch / "Pipfile.lock").exists():
        raise RefusedError(reason(output))
    found: dict[str, Any] = json.loads((scratch / "Pipfile.lock").read_text(encoding="utf-8"))[
        "wanted"
    ]
    for entry in found.values():
        entry.pop("index", None)
    return found


def reason(output: str) -> str:
    """Why pipenv found no solution, in one line."""
    text = re.split(r"\b\w*(?:ERROR|Error): ", output, maxsplit=1)[-1]
    text = re.split("Traceback|The above exception|During handling", text, maxsplit=1)[0]
    lines = [line.strip() for line in text[-500:].splitlines()]
    noise = ("ResolutionImpossible", "The conflict is caused by")
    found = "; ".join(line for line in lines if line and not line.startswith(noise))
    # Nothing else is in its way: there is none.
    found = re.sub(r"^The user requested (\S+)$", r"No matching distribution found for \1", found)
    return found or last_line(output)


def keep_files(new: Lock, locks: Sequence[Lock]) -> None:
    """Reuse version and hashes for packages whose version is already in one of these locks.

    A lock may have 2.13.0 for all builds where the resolver finds 2.13.0+cpu.
    """
    for package, entry in entries(new).items():
        for lock in locks:
            known = entries(lock).get(package, {})
            if "version" in known and allows(known["version"], entry["version"]):
                entry |= {key: known[key] for key in ("version", "hashes") if key in known}
                break


def add_platforms(new: Lock, wanted: Mapping[str, str]) -> None:
    """Add the hashes of other platforms to packages resolved to a build, such as 2.13.0+cpu.

    Their version becomes that of the release, 2.13.0, which all builds satisfy.
    """
    for package, entry in entries(new).items():
        version, _, build = entry["version"].partition("+")
        settled = not build or "+" in wanted.get(package, "")
        if not settled and (hashes := files_elsewhere(package, version)):
            entry |= {"version": version, "hashes": sorted({*entry["hashes"], *hashes})}


def builds_of(new: Lock, found: Mapping[str, str], locks: Sequence[Lock]) -> dict[str, str]:
    """The builds, resolved now or locked before, of packages locked for all platforms."""
    known = {p: v for lock in reversed(locks) if lock for p, v in builds(lock).items()}
    known |= {p: v for p, v in found.items() if "+" in v}
    return {p: v for p, v in known.items() if v.partition("+")[0] == versions(new).get(p)}


# ---- pipenv


def run_pipenv(scratch: Path, *arguments: str) -> str:
    """Run pipenv on the Pipfile in a scratch folder, which also gets all its files; its output.

    In a session of its own, so that it can be killed with its children before the folder is
    removed.
    """
    (scratch / "tmp").mkdir(exist_ok=True)
    own = {
        "WORKON_HOME": f"{scratch}/venvs",
        "PIPENV_CUSTOM_VENV_NAME": "lock",
        "TMPDIR": f"{scratch}/tmp",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "pipenv", *arguments],
        cwd=scratch,
        env=pipenv_settings(scratch) | own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            return process.communicate()[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def pipenv_settings(folder: Path) -> dict[str, str]:
    """The variables for pipenv on a folder's Pipfile.

    Includes those in `.env`, which pipenv could not interpolate with the few that are left here.
    """
    return for_installers(os.environ | values()) | {
        "PIPENV_DEFAULT_PYTHON_VERSION": os.path.realpath(sys.executable),
        "PIPENV_DONT_LOAD_ENV": "1",
        "PIPENV_IGNORE_VIRTUALENVS": "1",
        "PIPENV_NOSPIN": "1",
        "PIPENV_PIPFILE": str(folder / "Pipfile"),
        "PIPENV_VENV_IN_PROJECT": "0",
        "PIPENV_YES": "1",
        "NO_COLOR": "1",
        "COLUMNS": "1000",  # no wrapped lines in its output
    }
