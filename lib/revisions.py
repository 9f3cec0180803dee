"""What two revisions of this repository hold: parameters, metrics, data and plots of each.

Read by the page that `make compare` makes, by milestone reports and by notebooks. A revision is a
commit, a branch or a tag; the empty string is the work tree. Content comes from git, from DVC's
cache, or else from the bucket.
"""

import csv
import io
import json
import logging
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lib.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
WORK_TREE = ""


@dataclass(frozen=True)
class Out:
    """What dvc.lock or a .dvc file says of a path; rows and bytes as of a whole folder."""

    md5: str
    size: int
    files: int


@dataclass(frozen=True)
class Plot:
    """A plot that dvc.yaml defines: columns of a CSV file."""

    title: str
    path: str
    x: str
    y: Sequence[str]
    template: str


@dataclass(frozen=True)
class Revision:
    """A revision by its name; `missing` collects what could not be read, a line each."""

    name: str
    missing: list[str] = field(default_factory=list, compare=False)

    @cached_property
    def commit(self) -> str:
        """The full hash; nothing for the work tree.

        Raises:
            UserError: there is no such revision in this clone.
        """
        if not self.name:
            return ""
        found = git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{self.name}^{{commit}}"
        )
        if not found:
            raise UserError(
                f"'{self.name}' is no commit, branch or tag of this clone: `git log --oneline "
                "--all` shows what is, `git fetch --tags` gets what others have."
            )
        return found

    @property
    def label(self) -> str:
        """How a person calls it."""
        if not self.name:
            return "work tree"
        short = self.commit[:10]
        return short if self.commit.startswith(self.name) else f"{self.name} ({short})"

    @cached_property
    def subject(self) -> str:
        """Date and first line of the commit."""
        if not self.name:
            return "not committed"
        return git("show", "-s", "--format=%cs %s", self.commit)

    @cached_property
    def source(self) -> str:
        """The commit that the results were computed at; nothing where git does not tell.

        Results are committed on top of it: a run by tag names it in the commit, and a person
        commits what was computed at the commit before.
        """
        if not self.name and git("status", "--porcelain", "--", "dvc.lock", "metrics"):
            return git("rev-parse", "--verify", "--quiet", "HEAD")
        results = git("log", "-1", "--format=%H", self.commit or "HEAD", "--", "dvc.lock")
        if not results:
            return ""
        named = git("show", "-s", "--format=%(trailers:key=Source-Commit,valueonly)", results)
        return named.strip() or git("rev-parse", "--verify", "--quiet", f"{results}^")

    def text(self, path: str) -> str:
        """A file that git tracks; nothing where it is not there."""
        if not self.name:
            file = ROOT / path
            return file.read_text(encoding="utf-8") if file.is_file() else ""
        return git("show", f"{self.commit}:{path}")

    def files(self, suffix: str) -> list[str]:
        """The paths that git tracks with this end."""
        listed = (
            git("ls-tree", "-r", "--name-only", "-z", self.commit)
            if self.name
            else git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
        )
        return [path for path in listed.split("\0") if path.endswith(suffix)]

    def yaml(self, path: str) -> Any:
        """What a YAML file says; an empty mapping where it is not there."""
        try:
            return YAML(typ="safe", pure=True).load(self.text(path) or "{}") or {}
        except YAMLError:
            raise UserError(
                f"{path} of {self.label} is no YAML: a merge left marks in it?"
            ) from None

    @cached_property
    def params(self) -> dict[str, Any]:
        """params.yaml with dotted keys."""
        return dotted(self.yaml("params.yaml"))

    @cached_property
    def pipeline(self) -> Mapping[str, Any]:
        """dvc.yaml, `${…}` filled in."""
        params = self.params

        def filled(value: Any) -> Any:
            if isinstance(value, str):
                return re.sub(r"\$\{([\w.]+)\}", lambda m: str(params.get(m[1], m[0])), value)
            if isinstance(value, Mapping):
                return {filled(k): filled(v) for k, v in value.items()}
            return [filled(v) for v in value] if isinstance(value, list) else value

        return dict(filled(self.yaml("dvc.yaml")))

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Every value in the metrics files of the pipeline, as file.key."""
        found: dict[str, Any] = {}
        for stage in (self.pipeline.get("stages") or {}).values():
            for path in map(first, stage.get("metrics") or []):
                if path.endswith(".json") and (text := self.text(path)):
                    stem = PurePosixPath(path).stem
                    try:
                        content = json.loads(text)
                    except ValueError:
                        self.missing.append(f"{path} of {self.label} is no JSON: a merge?")
                        continue
                    found |= {f"{stem}.{key}": v for key, v in dotted(content).items()}
        return found

    @cached_property
    def outs(self) -> dict[str, Out]:
        """What DVC keeps, by path: from dvc.lock and from .dvc files; without what git keeps."""
        uncached = set()
        for stage in (self.pipeline.get("stages") or {}).values():
            for kind in ("outs", "metrics", "plots"):
                for entry in stage.get(kind) or []:
                    if isinstance(entry, Mapping) and first(entry.values()).get("cache") is False:
                        uncached.add(first(entry))
        entries = [
            (out["path"], out)
            for stage in (self.yaml("dvc.lock").get("stages") or {}).values()
            for out in stage.get("outs") or []
            if out["path"] not in uncached
        ]
        for file in self.files(".dvc"):
            folder = PurePosixPath(file).parent
            entries += [(str(folder / out["path"]), out) for out in self.yaml(file).get("outs", [])]
        return {
            path: Out(out.get("md5", ""), out.get("size", 0), out.get("nfiles", 1))
            for path, out in entries
        }

    @cached_property
    def plots(self) -> list[Plot]:
        """The plots that dvc.yaml defines, those of stages first."""
        pipeline = self.pipeline
        found = []
        for stage in (pipeline.get("stages") or {}).values():
            for entry in stage.get("plots") or []:
                said = (first(entry.values()) if isinstance(entry, Mapping) else {}) or {}
                if isinstance(said.get("x"), str) and isinstance(said.get("y"), str):
                    title = said.get("title", first(entry))
                    found.append(
                        Plot(title, first(entry), said["x"], [said["y"]], said.get("template", ""))
                    )
        for entry in pipeline.get("plots") or []:
            title, said = next(iter(entry.items())) if isinstance(entry, Mapping) else (entry, {})
            said = said or {}
            files = said.get("y")
            if isinstance(files, str | list) and title.endswith(".csv"):
                files = {title: files}
            if not isinstance(files, Mapping) or not isinstance(said.get("x"), str):
                self.missing.append(f"The plot '{title}' of {self.label} is drawn by DVC alone: "
                                    "it names no x, or no y with files.")  # fmt: skip
                continue
            for path, columns in files.items():
                several = columns if isinstance(columns, list) else [columns]
                found.append(Plot(title, path, said["x"], several, said.get("template", "")))
        return found

    def content(self, path: str) -> bytes | None:
        """A tracked file's bytes, from the work tree, git, the cache or the bucket.

        None where it cannot be had; why stands in `missing`.
        """
        try:
            if not self.name:
                return (ROOT / path).read_bytes()
            if text := self.text(path):
                return text.encode()
            import dvc.api

            quiet = logging.getLogger("dvc")
            quiet.setLevel(logging.CRITICAL)
            return bytes(dvc.api.read(path, repo=str(ROOT), rev=self.commit, mode="rb"))
        except Exception as error:  # DVC's, the bucket's and the disk's own, of many classes
            why = " ".join(str(error).split())[:160] or type(error).__name__
            get = f"`dvc fetch --all-commits` or `git checkout {self.name} && dvc pull`"
            hint = get if self.name else "`make run` or `dvc pull`"
            self.missing.append(f"{path} of {self.label} is not here ({why}): {hint} gets it.")
            return None

    def table(self, path: str) -> list[dict[str, str]] | None:
        """The rows of a CSV file; None as for `content`."""
        content = self.content(path)
        if content is None:
            return None
        return list(csv.DictReader(io.StringIO(content.decode("utf-8", "replace"))))


def git(*arguments: str) -> str:
    """What git answers, or nothing where it cannot."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    return done.stdout.decode("utf-8", "replace").rstrip("\n") if done.returncode == 0 else ""


def first(several: Any) -> Any:
    """The one thing in a mapping of DVC's files, or a plain string itself."""
    return several if isinstance(several, str) else next(iter(several))


def dotted(nested: Any, above: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    return dict(walk(nested, above))


def walk(nested: Any, above: str) -> Iterator[tuple[str, Any]]:
    """Each value of nested mappings, its keys joined by dots."""
    if not isinstance(nested, Mapping):
        yield above, nested
        return
    for key, value in nested.items():
        yield from walk(value, f"{above}.{key}" if above else str(key))


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Key, value before and value after, for each that differs."""
    keys = dict.fromkeys((*before, *after))
    return [(k, before.get(k), after.get(k)) for k in keys if before.get(k) != after.get(k)]


def changed_rows(before: bytes, after: bytes) -> tuple[int, int]:
    """How many lines of a text came and how many went, wherever they stand."""
    old, new = Counter(before.splitlines()), Counter(after.splitlines())
    return (new - old).total(), (old - new).total()


def default_pair() -> tuple[str, str]:
    """What a person means who names none: the work tree, against the last commit that differs."""
    uncommitted = git("status", "--porcelain", "--", "dvc.lock", "params.yaml", "metrics")
    parent = git("rev-parse", "--verify", "--quiet", "HEAD~1")
    return ("HEAD" if uncommitted or not parent else "HEAD~1"), WORK_TREE
