"""Builds a .krt from the tracked model: `make runtime NAME=prices [VERSION=v1]`.

    tools/within tools/krt python -m tools.krt.build [NAME] [--version VERSION] [--anyway]

A build is reproducible: it needs a commit, with the models that its dvc.lock names, and the goals
must be met (`ANYWAY=yes` builds regardless, and says so in the archive). The same commit and
version give the same bytes.
"""

import argparse
import hashlib
import json
import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from lib.errors import UserError
from lib.files import read_text, replaced_file
from lib.repository import ROOT, git
from lib.text import cell
from tools.command import as_command, run
from tools.environments.lock_file import read_lock, versions
from tools.goals.judge import goal_files, judge
from tools.krt.archive import pack
from tools.krt.check import bad_name, check, load, manifest_in
from tools.krt.format import NAME, ManifestV2
from tools.krt.names import MANIFEST, TAG, is_version, named, names
from tools.krt.proto import generated

BUILD = Path("build")
ASSETS = "assets.yml"
README = "docs/README.md"  # gets a section on the provenance
LINK = "120000"  # git's mode of a symbolic link
# `name==1.2` or `name[extra]==1.2` for pip, but not 1.* or ${VERSION}.
PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==(\d[\w.+!]*)(?![\w.+!*])")
NOT_PACKED = re.compile(
    r"(^|/)(Pipfile(\.lock)?|assets\.yml|rehearsal\.py|[^/]*_test\.py)$|^image/"
)


def chosen(name: str) -> str:
    """The runtime's name, which may be empty if there is only one; UserError if it is unknown."""
    known = names()
    if not known:
        raise UserError(
            "There is no runtime yet: copy a folder of the template's runtimes/, and edit it."
        )
    if not name and len(known) == 1:
        return known[0]
    if name not in known:
        problem = f"no runtime is called '{name}'" if name else "say which runtime, with NAME="
        raise UserError(f"{problem}. In runtimes/ there are: {', '.join(known) or 'none'}.")
    return name


def default_version(name: str) -> str:
    """The version in the runtime-* tag of this commit; else one from the commit's hash."""
    found = []
    for tag in git("tag", "--points-at", "HEAD").split():
        rest = tag.removeprefix(TAG)
        if rest != tag and (named(rest) == name or (not named(rest) and is_version(rest))):
            found.append(rest.removeprefix(f"{name}-"))
    if len(found) > 1:
        raise UserError(f"this commit has {len(found)} tags for {name}: say which, with VERSION=.")
    return found[0] if found else f"g{git('rev-parse', 'HEAD')[:7]}"


def build(name: str, version: str, *, anyway: bool) -> Path:
    """Build the archive of a runtime; its path.

    Raises:
        UserError: something is uncommitted, a model is not the one that dvc.lock names, the nodes'
            image has other packages than the rehearsal, a goal is missed, or the engine would not
            accept the archive.
    """
    version = f"{name}-{version}"
    if not re.fullmatch(NAME, version) or len(version) > 19:
        raise UserError(
            f"version is {version!r}: the engine wants at most 19 lower-case letters, digits and "
            f"hyphens, a letter or digit at both ends, {name}- among them: say VERSION=v1, or push "
            f"the tag {TAG}v1."
        )
    if dirty := git("status", "--porcelain"):
        changed = ", ".join(line[3:] for line in dirty.splitlines()[:5])
        raise UserError(
            f"not committed: {changed}. A runtime is built from a commit: commit first."
        )
    refuse_links(name)
    refuse_other_versions(name)
    assets = assets_of(name)
    refuse_untracked(name, assets)
    files = sources(name, version)
    refuse_collisions(name, assets, files)
    files |= {path: (ROOT / source).read_bytes() for path, source in assets.items()}
    reached, verdict = judged_goals(anyway=anyway)
    page = ROOT / assets.get(README, f"runtimes/{name}/{README}")
    readme = read_text(page) if README in files else f"# {name}\n"
    outdated = asked("python", "-m", "tools.krt.outdated", *assets.values()).splitlines()
    files[README] = (readme + provenance(version, assets, files, verdict, outdated)).encode()
    file = BUILD / f"{version}.krt"
    write_archive(file, files)
    print(f"{file}: {file.stat().st_size / 1000:,.0f} kB, {len(files)} files, {reached}")
    print(f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}")
    for line in outdated:
        print(
            f"WARNING: {line}: its models are from before. `make run` and a commit make new ones."
        )
    return file


def write_archive(file: Path, files: Mapping[str, bytes]) -> None:
    """Write a .krt with these files; UserError if the engine would not accept it."""
    try:
        packed = pack(files)
    except ValueError as error:
        raise UserError(f"a path is too long for an archive: {error}.") from None
    with replaced_file(file) as new:
        new.write_bytes(packed)
        if problems := check(new):
            lines = [f"{file.name} would not be as the engine takes it:", *problems]
            raise UserError("\n".join(lines))


# ---- the content


def tracked(folder: str) -> dict[str, str]:
    """The git mode of each tracked file in a folder, by path."""
    entries = git("ls-files", "--stage", "-z", "--", folder).split("\0")
    pairs = (entry.split("\t", 1) for entry in entries if entry)
    return {path: about.split()[0] for about, path in pairs}


def refuse_links(name: str) -> None:
    """UserError if one of a runtime's files is a link, as its target may not be committed."""
    folder = f"runtimes/{name}"
    for path, mode in tracked(folder).items():
        inside = path.removeprefix(f"{folder}/")
        if mode == LINK and (inside == ASSETS or not NOT_PACKED.search(inside)):
            raise UserError(
                f"{path} is a link, and links are not packed: put a file in its place, or name the "
                f"one that it leads to in {folder}/{ASSETS}."
            )


def refuse_other_versions(name: str) -> None:
    """UserError if the nodes' image installs another version than the rehearsal uses."""
    folder = f"runtimes/{name}"
    image, lock = f"{folder}/image/Dockerfile", f"{folder}/Pipfile.lock"
    if not ((ROOT / image).is_file() and (ROOT / lock).is_file()):
        return
    locked = versions(read_lock(ROOT / folder))
    without_comments = re.sub(r"(?m)^\s*#.*$", "", read_text(ROOT / image))
    for package, version in PINNED.findall(without_comments):
        rehearsed = locked.get(re.sub(r"[-_.]+", "-", package).lower())
        # For a build such as 2.13.0+cpu, the lock has the version of the release.
        if rehearsed and rehearsed != f"=={version.partition('+')[0]}":
            raise UserError(
                f"{image} installs {package}=={version}, and {lock}, which the rehearsal uses, has "
                f"{rehearsed}: write one version there and into {folder}/Pipfile, then run "
                "`make lock`."
            )


def assets_of(name: str) -> dict[str, str]:
    """The assets in assets.yml: path in the archive to path in the repository."""
    shown = f"runtimes/{name}/{ASSETS}"
    file = ROOT / shown
    content, problems = load(read_text(file)) if file.exists() else ({}, [])
    if problems:
        raise UserError(f"{shown}: {problems[0]}")
    if not isinstance(content, dict | None) or not all(
        isinstance(part, str) for pair in (content or {}).items() for part in pair
    ):
        raise UserError(
            f"{shown} must hold lines of two paths: the one in the archive: the "
            "one here, for example assets/model.onnx: artifacts/<stage>/model.onnx."
        )
    assets = {path: posixpath.normpath(source) for path, source in (content or {}).items()}
    for path, source in assets.items():
        if why := bad_name(path):
            raise UserError(f"{shown}: {path!r} {why} Write a path such as assets/model.onnx.")
        if source.startswith(("/", "../")) or source == "..":
            raise UserError(f"{shown}: {source} leads out of the repository: name a file in it.")
        if (ROOT / source).is_dir():
            raise UserError(f"{shown}: {source} is a folder: name each of its files.")
    return assets


def refuse_untracked(name: str, assets: Mapping[str, str]) -> None:
    """UserError if an asset is missing, or is neither in git nor the version in dvc.lock."""
    status = json.loads(asked("dvc", "data", "status", "--granular", "--unchanged", "--json"))
    unchanged = set(status.get("unchanged", []))
    deleted = status.get("uncommitted", {}).get("deleted", [])
    # DVC does not know the files of a folder whose listing it has not fetched.
    folders = tuple(path for path in status.get("not_in_cache", []) if path.endswith("/"))
    in_git = tracked(".")
    for source in assets.values():
        if in_git.get(source) == LINK:
            raise UserError(
                f"{source} is a link, and links are not packed: name the file that it leads to in "
                f"runtimes/{name}/{ASSETS}."
            )
        if not (ROOT / source).is_file():
            if source in deleted or source.startswith(folders):
                raise UserError(f"{source} does not exist: `dvc pull` or `make run` brings it.")
            raise UserError(
                f"{source} does not exist, and DVC knows no such file: fix its line in "
                f"runtimes/{name}/{ASSETS}, or have a stage write it (`make run`)."
            )
        if source not in unchanged | in_git.keys():
            raise UserError(
                f"{source} is not the file that dvc.lock of this commit names: `dvc checkout` "
                "brings that one; `make run` and a commit make this one known."
            )


def asked(*command: str) -> str:
    """The output of a command in the root's environment, which has DVC."""
    done = run("tools/within", ".", *command, ok=False)
    if done.returncode:
        raise UserError(f"DVC cannot say what it tracks: {done.stderr.strip()[-300:]}")
    return done.stdout


def refuse_collisions(name: str, assets: Collection[str], own: Collection[str]) -> None:
    """UserError if an asset's path is taken by a file of the runtime, or is a file and a folder."""
    shown = f"runtimes/{name}/{ASSETS}"
    if taken := sorted({*assets} & {*own}):
        raise UserError(
            f"{shown}: {taken[0]} is a file of the runtime itself: give the asset another path, "
            f"such as assets/{PurePosixPath(taken[0]).name}, or remove its line."
        )
    paths = {*assets, *own, README}
    folders = {str(above) for path in paths for above in PurePosixPath(path).parents}
    if both := sorted(paths & folders):
        raise UserError(
            f"{shown}: {both[0]} would be a file and a folder with other files in it: give the "
            "asset another path, such as assets/model.onnx."
        )


def judged_goals(*, anyway: bool) -> tuple[str, str]:
    """A summary of the verdicts, and the text on them for the archive.

    The archive gives no numbers: how many goals apply depends on the current main, and the same
    commit must give the same bytes.

    Raises:
        UserError: some goals are missed, and `anyway` is False.
    """
    if not goal_files():
        return "no goals to meet", "none were set"
    found, printed = judge()
    summary = str(found["summary"])
    if found["all_met"]:
        states = {goal["state"] for goal in found["goals"]}
        return summary, "met" if "met" in states else "none applies"
    if anyway:
        return f"{summary}, built all the same", "some are missed; built all the same"
    print(printed, flush=True)
    raise UserError(
        f"goals: {summary}. What misses its goals is not released: `make goals` says more, and "
        "`make runtime ANYWAY=yes` builds it all the same."
    )


def sources(name: str, version: str) -> dict[str, bytes]:
    """The runtime's tracked files, the manifest with its version, and the protos' code."""
    folder = ROOT / "runtimes" / name
    paths = [path.split("/", 2)[2] for path in tracked(f"runtimes/{name}")]
    paths = [path for path in paths if not NOT_PACKED.search(path)]
    if others := [path for path in paths if not (folder / path).is_file()]:
        raise UserError(f"runtimes/{name}/{others[0]} is no file: submodules are not packed.")
    files = {path: (folder / path).read_bytes() for path in paths}
    manifest_text = read_text(folder / MANIFEST)
    text, found = re.subn(r"(?m)^version:.*$", f"version: {version}", manifest_text, count=1)
    if not found:
        raise UserError(f"runtimes/{name}/{MANIFEST} has no line `version:`: write one.")
    files[MANIFEST] = text.encode()
    manifest, problems = manifest_in(text, archive=True)
    if problems:
        raise UserError("\n".join(f"runtimes/{name}/{MANIFEST}: {problem}" for problem in problems))
    if not isinstance(manifest, ManifestV2):
        raise UserError(f"runtimes/{name}/{MANIFEST} is of KRT v1: v2 is built (krtVersion: v2).")
    code = generated(folder, sorted(path for path in files if path.endswith(".proto")))
    nodes = {PurePosixPath(n.src).parent for w in manifest.workflows for n in w.nodes}
    return files | {str(node / file): text for node in nodes for file, text in code.items()}


def provenance(
    version: str,
    assets: Mapping[str, str],
    files: Mapping[str, bytes],
    verdict: str,
    outdated: Sequence[str],
) -> str:
    """The provenance of the archive, in Markdown."""
    lines = [
        "\n## Where this comes from\n",
        "| what | which |",
        "| --- | --- |",
        f"| version | {version} |",
        f"| commit | `{git('rev-parse', 'HEAD')}`, {git('show', '-s', '--format=%cs', 'HEAD')} |",
        f"| goals | {verdict} |",
        *(f"| models | {cell(line)} |" for line in outdated),
        *(f"| `{path}` | `{it}`, md5 `{md5(files[path])}` |" for path, it in assets.items()),
    ]
    return "\n".join(lines) + "\n"


def md5(content: bytes) -> str:
    """The md5 of bytes, as in dvc.lock."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def main() -> None:
    """Build a runtime and print its path."""
    parser = argparse.ArgumentParser(prog="make runtime")
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--version", default="")
    parser.add_argument("--anyway", action="store_true")
    given = parser.parse_args()
    name = chosen(given.name)
    version = given.version or default_version(name)
    file = build(name, version.removeprefix(f"{name}-"), anyway=given.anyway)
    print(f"Rehearse it: make rehearse FILE={file}")


if __name__ == "__main__":
    as_command(main, "runtime: ")
