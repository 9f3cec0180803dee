"""Finds known vulnerabilities of locked packages.

uv queries OSV, the database of open-source vulnerabilities. It reads only its own lock format, so
all locks are merged into one uv.lock first.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.errors import UserError
from tools.command import captured
from tools.environments.installer import BUILD_TOOLS, UV, for_uv, pip_settings
from tools.environments.lock_file import read_lock, relative, versions
from tools.environments.locks import folders
from tools.environments.surroundings import for_installers

PROJECT = '[project]\nname = "every-lock"\nversion = "0"\nrequires-python = ">=3.11"\n'
NOWHERE = 'source = { registry = "nothing" }'  # a folder: uv asks an address for each package

Package = tuple[str, str]  # name and version


def audit(service: str = "") -> None:
    """Print each known vulnerability with its locks; exit with 2 if the service does not answer.

    Args:
        service: the address of a service with OSV's API; empty for OSV itself.

    Raises:
        UserError: there are vulnerabilities.
    """
    packages = locked()
    variables = for_installers(os.environ)
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "pyproject.toml").write_text(PROJECT, encoding="utf-8")
        Path(scratch, "uv.lock").write_text(as_uv_lock(packages), encoding="utf-8")
        command = [
            *(UV, "--no-config", "--no-python-downloads", "audit", "--frozen"),
            *("--preview-features", "audit-command,json-output", "--output-format", "json"),
            *(("--service-url", service) if service else ()),
        ]
        settings = for_uv(pip_settings(variables), variables)
        done = captured(command, cwd=scratch, env=variables | settings)
    if done.returncode not in (0, 1) or not done.stdout:
        reason = done.stderr.rpartition(": ")[2].strip()
        print(f"Vulnerabilities: not asked, OSV does not answer ({reason}).", file=sys.stderr)
        sys.exit(2)
    found = [line(entry, packages) for entry in json.loads(done.stdout)["vulnerabilities"]]
    if found:
        print("\n".join(sorted(found)), flush=True)
        raise UserError(
            f"{len(found)} found. Where a version has a fix, ask for it in the Pipfiles, then "
            "`make lock`; or take newer versions of everything: `make lock UPGRADE=yes`."
        )
    print(f"{len(packages)} packages of {len(folders())} locks: no known vulnerability.")


def locked() -> dict[Package, list[str]]:
    """All packages, with the files that name them; a build such as 2.13.0+cpu counts as 2.13.0."""
    found: dict[Package, list[str]] = {}
    for folder in folders():
        for name, version in versions(read_lock(folder)).items():
            release = version.removeprefix("==").partition("+")[0]
            found.setdefault((name, release), []).append(str(relative(folder / "Pipfile.lock")))
    text = BUILD_TOOLS.read_text(encoding="utf-8")
    for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, flags=re.MULTILINE):
        found.setdefault((name, version), []).append(str(relative(BUILD_TOOLS)))
    return found


def as_uv_lock(packages: Mapping[Package, Sequence[str]]) -> str:
    """A uv.lock of a project that depends on all of these packages."""
    entries = [f'name = "{name}"\nversion = "{version}"\n{NOWHERE}' for name, version in packages]
    needs = "".join(f"  {{ {entry.replace(chr(10), ', ')} }},\n" for entry in entries)
    project = (
        'name = "every-lock"\nversion = "0"\nsource = { virtual = "." }\n'
        f"dependencies = [\n{needs}]"
    )
    tables = "".join(f"\n[[package]]\n{entry}\n" for entry in [project, *entries])
    return f'version = 1\nrequires-python = ">=3.11"\n{tables}'


def line(entry: Mapping[str, Any], packages: Mapping[Package, Sequence[str]]) -> str:
    """A vulnerability in one line."""
    of, fixes = entry["dependency"], entry["fix_versions"]
    where = ", ".join(packages.get((of["name"], of["version"]), []))
    fixed = f"fixed in {', '.join(fixes)}" if fixes else "no fix"
    return f"{of['name']} {of['version']}: {entry['id']}: {entry['summary']}; {fixed} ({where})"
