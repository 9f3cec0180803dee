"""What a revision of this repository holds: its parameters, metrics, data and plots.

The single reader of results, for `make compare`, the page of a run, milestone reports and
notebooks. A revision is a commit, branch, tag or DVC experiment; the empty string is the work tree.
lib/pipeline.py determines its files with DVC. Their content comes from the work tree or git, from
DVC's cache, or from the bucket, and is read once. What cannot be read is listed in `missing`; the
rest is still available.
"""

import csv
import io
import json
import logging
import tomllib
from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import Any

from dvc.api import DVCFileSystem

from lib.errors import UserError
from lib.nested import flat
from lib.params import YamlTextError, parse_yaml
from lib.pipeline import SWEEPS, Out, Pipeline, outdated_stages, read_pipeline
from lib.repository import ROOT, GitError, files_at, git_or_nothing, uncommitted
from lib.text import some_of

WORK_TREE = ""
DRAWN = 50_000_000  # bytes; larger tables are not plotted
ONE_COLUMN = ("bar", "confusion", "scatter")  # prefixes of templates with a single y
LISTS = (".json", ".yaml", ".yml")  # of rows
TABLES = (".csv", ".tsv", *LISTS)


@dataclass(frozen=True)
class Plot:
    """A plot in dvc.yaml: columns of a table."""

    title: str
    path: str
    x: str
    y: Sequence[str]
    template: str


@dataclass(frozen=True)
class Revision:
    """A revision by its name; `missing` collects what could not be read, a line each."""

    name: str
    root: Path = ROOT
    missing: list[str] = field(default_factory=list, compare=False)
    contents: dict[str, bytes | None] = field(default_factory=dict, compare=False, repr=False)

    # ---- identity

    @cached_property
    def commit(self) -> str:
        """The full hash; empty for the work tree.

        Raises:
            UserError: there is no such revision in this clone.
        """
        if not self.name:
            return ""
        wanted = f"{self.name}^{{commit}}"
        found = self.ask_git("rev-parse", "--verify", "--quiet", "--end-of-options", wanted)
        found = found or self.experiment()
        if not found:
            shallow = self.ask_git("rev-parse", "--is-shallow-repository") == "true"
            deeper = " --unshallow" if shallow else ""
            raise UserError(
                f"'{self.name}' is no commit, branch or tag of this clone: `git log --oneline "
                f"--all` shows what is, `git fetch --tags{deeper}` gets what others have. Nor is "
                "it an experiment that `dvc exp list --all-commits` shows."
            )
        return found

    def experiment(self) -> str:
        """The commit of the latest DVC experiment of this name; empty if there is none."""
        listed = self.ask_git(
            "for-each-ref", "--sort=-creatordate", "--format=%(objectname) %(refname)", "refs/exps/"
        )
        # refs/exps/ab/cdef…/NAME, where abcdef… is the baseline commit
        refs = (line.split("/", 4) for line in listed.splitlines())
        return next((ref[0].split()[0] for ref in refs if ref[4:] == [self.name]), "")

    @property
    def label(self) -> str:
        """Its name for display."""
        if not self.name:
            return "work tree"
        short = self.commit[:10]
        return short if self.commit.startswith(self.name) else f"{self.name} ({short})"

    @cached_property
    def subject(self) -> str:
        """Date and first line of the commit."""
        if not self.name:
            return "not committed"
        return self.ask_git("show", "-s", "--format=%cs %s", self.commit)

    @cached_property
    def source(self) -> str:
        """The commit that the results were computed from; empty if git cannot tell.

        Results are committed on top of it: a results commit of a run names it in a trailer; for a
        commit by hand, it is the parent.
        """
        files, locks = self.pipeline.result_files, self.pipeline.locks or ["dvc.lock"]
        if not self.name and self.uncommitted(files or locks):
            return self.ask_git("rev-parse", "--verify", "--quiet", "HEAD")
        results = self.ask_git("log", "-1", "--format=%H", self.commit or "HEAD", "--", *locks)
        if not results:
            return ""
        trailer = "--format=%(trailers:key=Source-Commit,valueonly)"
        named = self.ask_git("show", "-s", trailer, results).strip()
        return named or self.ask_git("rev-parse", "--verify", "--quiet", f"{results}^")

    def uncommitted(self, paths: Sequence[str]) -> list[str]:
        """The paths that differ from the last commit; none without git."""
        try:
            return uncommitted(paths, folder=self.root)
        except GitError:
            return []

    def ask_git(self, *arguments: str) -> str:
        """The output of git in this repository; empty if it fails."""
        return git_or_nothing(*arguments, folder=self.root)

    # ---- parameters, metrics, data and plots

    @cached_property
    def pipeline(self) -> Pipeline:
        """Its pipeline, as DVC resolves it; empty if DVC cannot read it."""
        commit = self.commit  # a revision that does not exist is an error, not an empty pipeline
        try:
            return read_pipeline(commit, self.root)
        except UserError as error:
            why = str(error).rstrip(".")
            self.missing.append(f"{self.label}: {why}; its metrics, data and plots are not shown.")
            return Pipeline([], [], [])

    @cached_property
    def params(self) -> dict[str, Any]:
        """params.yaml with dotted keys, and values from other params files as file:key."""
        try:
            content = parse_yaml(self.text("params.yaml"))
        except YamlTextError as error:
            raise UserError(f"params.yaml of {self.label} {error}") from None
        if not isinstance(content or {}, Mapping):
            raise UserError(f"params.yaml of {self.label} is not a mapping of names to values.")
        found = flat(content or {})
        for stage in self.pipeline.stages:
            found |= flat(stage.elsewhere)
        return found

    @cached_property
    def metrics_files(self) -> dict[str, Any]:
        """The content of each metrics file, by path."""
        self.get(self.pipeline.metrics)
        found = {}
        for path in self.pipeline.metrics:
            if (content := self.content(path)) is None:
                continue
            try:
                found[path] = values = parse(path, content)
            except UserError as error:
                self.missing.append(f"{path} of {self.label} {error}")
                continue
            if isinstance(values, list | str):
                kind = "a list" if isinstance(values, list) else "text"
                self.missing.append(
                    f"{path} of {self.label} is {kind}: a mapping of names to values is expected."
                )
        return found

    @property
    def metrics(self) -> dict[str, Any]:
        """Every value in the metrics files, by file.key."""
        return flat_metrics(self.metrics_files, names_of(self.metrics_files))

    @cached_property
    def outs(self) -> dict[str, Out]:
        """The outs in dvc.lock and .dvc files, by path, without those that are in git."""
        return {
            path: out
            for stage in self.pipeline.stages
            for path, out in stage.noted.items()
            if path not in stage.uncached
        }

    @cached_property
    def outdated(self) -> list[str]:
        """A line for each stage whose results do not match its parameters, code and data.

        Without sweeps: `make adopt` warns about those.
        """
        if not self.pipeline.stages:
            return []
        try:
            found = outdated_stages(self.commit, self.root)
        except UserError as error:
            return [f"Whether all stages of {self.label} have run cannot be determined: {error}"]
        lines = []
        for each in found:
            stage, of = each.stage, f"of {self.label}"
            if stage.file == SWEEPS:
                continue
            renewed = f"`{stage.command}`{' there, and a commit,' if self.name else ''}"
            if each.changed:
                lines.append(
                    f"{stage.address} {of} has not run since {some_of(each.changed)} changed: its "
                    f"results are from before. {renewed} computes them again."
                )
            if each.rewritten:
                lines.append(
                    f"{some_of(each.rewritten)} {of} is not what {stage.address} wrote: somebody "
                    f"changed it since, or a merge took dvc.lock from another side. {renewed} "
                    "writes it again."
                )
        return lines

    @cached_property
    def plots(self) -> list[Plot]:
        """The plots that lib/plots.py can draw, those of stages first."""
        found = []
        for stage in self.pipeline.stages:
            for path, definition in stage.plots.items():
                x, y = definition.get("x"), definition.get("y")
                if isinstance(x, str) and isinstance(y, str):
                    title, template = definition.get("title", path), definition.get("template", "")
                    found.append(Plot(title, path, x, [y], template))
                elif path.endswith(TABLES):
                    self.missing.append(
                        f"The plot '{path}' of {self.label} is drawn by `dvc plots show` alone: it "
                        "names no x, or no y."
                    )
        for title, definition in self.pipeline.plots:
            x, y = definition.get("x"), definition.get("y")
            template = definition.get("template", "")
            files = {title: y} if isinstance(y, str | list) and title.endswith(TABLES) else y
            if not definition and not title.endswith(TABLES):
                continue  # a picture, or a folder of them
            if not isinstance(files, Mapping) or not isinstance(x, str):
                self.missing.append(
                    f"The plot '{title}' of {self.label} is drawn by `dvc plots show` alone: it "
                    "names no x, or no y with files."
                )
                continue
            for path, columns in files.items():
                several = columns if isinstance(columns, list) else [columns]
                name = title if len(files) == 1 else f"{title}, {path}"
                if len(several) > 1 and template.startswith(ONE_COLUMN):
                    found += [Plot(f"{name}, {y}", path, x, [y], template) for y in several]
                else:
                    found.append(Plot(name, path, x, several, template))
        return found

    # ---- file contents

    def text(self, path: str) -> str:
        """A tracked file as text; empty if it does not exist."""
        return (self.tracked([path]).get(path) or b"").decode("utf-8", "replace")

    def table(self, path: str) -> list[dict[str, str]] | None:
        """The rows of a table; None if it cannot be read, with the reason in `missing`."""
        content = self.content(path)
        if content is None:
            return None
        if len(content) > DRAWN:
            self.missing.append(
                f"{path} of {self.label} is larger than a plot on the page may be ({DRAWN:,} "
                "bytes): `dvc plots show` draws it."
            )
            return None
        try:
            return rows_of(path, content)
        except csv.Error as error:
            self.missing.append(f"{path} of {self.label} is not CSV ({error}).")
        except UserError as error:
            self.missing.append(f"{path} of {self.label} {error}")
        return None

    def content(self, path: str) -> bytes | None:
        """A file's bytes, from the work tree, git, the cache or the bucket.

        None if it cannot be read, with the reason in `missing`.
        """
        self.get([path])
        return self.contents[path]

    def get(self, paths: Sequence[str]) -> None:
        """Read files into `contents`, with one git command for all tracked ones."""
        new = [path for path in paths if path not in self.contents]
        self.contents.update(self.tracked(new))
        for path in new:
            if path not in self.contents:
                self.contents[path] = self.cached(path)

    def tracked(self, paths: Sequence[str]) -> dict[str, bytes]:
        """The content of the files that are in the work tree, or in the commit."""
        if self.name:
            return files_at(self.commit, paths, self.root) if paths else {}
        found = {}
        for path in paths:
            with suppress(OSError):
                found[path] = (self.root / path).read_bytes()
        return found

    def cached(self, path: str) -> bytes | None:
        """A file of DVC, from its cache or the bucket; None if it is in neither."""
        stage, out = self.pipeline.writer(path)
        if stage and path in stage.noted and stage.noted[path].md5.endswith(".dir"):
            self.missing.append(
                f"{path} of {self.label} is a folder: name each file of it as a metric or plot."
            )
            return None
        never_run = self.name and stage and stage.commands and out not in stage.noted
        if stage and (never_run or out in stage.uncached):
            hint = "that commit does not have it" if self.name else f"`{stage.command}` writes it"
            if stage.file != SWEEPS or out in stage.noted:  # a sweep need not have run
                self.missing.append(f"{path} of {self.label} is not here: {hint}.")
            return None
        try:
            with self.opened(path) as file:
                return bytes(file.read())
        except Exception as error:  # of DVC, the bucket or the disk: many classes
            self.missing.append(self.not_here(path, error))
            return None

    def opened(self, path: str) -> Any:
        """A file of the work tree or of DVC, opened for reading piece by piece."""
        return self.dvc_files.open(path, "rb") if self.name else (self.root / path).open("rb")

    def not_here(self, path: str, error: Exception) -> str:
        """The message that a file cannot be read, and which command gets it."""
        stage, _ = self.pipeline.writer(path)
        command = stage.command if stage and stage.commands else "make run"
        if not self.name and isinstance(error, FileNotFoundError):
            added = stage is not None and not stage.commands  # by `dvc add`: no stage makes it
            get = "`dvc pull`" if added else f"`{command}` or `dvc pull`"
            return f"{path} of {self.label} is not here: {get} gets it."
        why = " ".join(str(error).split())[:160] or type(error).__name__
        hint = f"`dvc fetch --all-commits` or `git checkout {self.name} && dvc pull`"
        get = f"{hint} gets it" if self.name else f"`{command}` writes it"
        return f"{path} of {self.label} is not here ({why}): {get}."

    @cached_property
    def dvc_files(self) -> Any:
        """The commit's files in DVC, as a file system."""
        logging.getLogger("dvc").setLevel(logging.CRITICAL)  # reported in `missing`
        return DVCFileSystem(str(self.root), rev=self.commit)


def default_pair(root: Path = ROOT) -> tuple[str, str]:
    """The revisions to compare by default: the last commit and the work tree.

    If nothing is uncommitted, the commit before the last one and the work tree.
    """
    files = Revision(WORK_TREE, root).pipeline.result_files or ["dvc.lock"]
    changed = uncommitted(["params.yaml", *files], folder=root)
    parent = git_or_nothing("rev-parse", "--verify", "--quiet", "HEAD~1", folder=root)
    return ("HEAD" if changed or not parent else "HEAD~1"), WORK_TREE


# ---- plots and metrics files


def rows_of(path: str, content: bytes) -> list[dict[str, str]]:
    """The rows of a table: CSV, TSV, or all lists of rows in JSON or YAML beside each other.

    Raises:
        UserError: as `parse`; csv.Error: it is no CSV.
    """
    if path.endswith(LISTS):
        lists = [rows for rows in flat(parse(path, content)).values() if isinstance(rows, list)]
        several = [rows for rows in lists if all(isinstance(row, Mapping) for row in rows)]
        found = [dict(ChainMap(*parts)) for parts in zip_longest(*several, fillvalue={})]
        names = dict.fromkeys(name for row in found for name in row)
        return [
            {name: "" if row.get(name) is None else str(row[name]) for name in names}
            for row in found
        ]
    text = io.StringIO(content.decode("utf-8-sig", "replace"))
    return list(csv.DictReader(text, delimiter="\t" if path.endswith(".tsv") else ","))


def parse(path: str, content: bytes) -> Any:
    """Parse a metrics file; like DVC, as YAML unless its name ends in .json or .toml.

    Raises:
        UserError: it is invalid; the message is to follow the file's name.
    """
    kind = {".json": "JSON", ".toml": "TOML"}.get(PurePath(path).suffix, "YAML")
    try:
        text = content.decode("utf-8-sig")
        if kind == "JSON":
            return json.loads(text)
        return tomllib.loads(text) if kind == "TOML" else parse_yaml(text)
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 (byte {error.start}): write it as UTF-8.") from None
    except YamlTextError as error:
        raise UserError(" ".join(str(error).split())[:200]) from None
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:160]
        marks = ": a merge left marks in it" if b"\n<<<<<<< " in b"\n" + content else ""
        raise UserError(f"is not {kind} ({why}){marks}.") from None


def names_of(paths: Iterable[str]) -> dict[str, str]:
    """The name of each metrics file in keys: its stem, or its path if two files share a stem.

    The path is without its suffix, unless two files differ only in that.
    """
    names = {path: path for path in paths}
    pure = {path: PurePath(path) for path in names}
    plain = {path: str(file.with_suffix("")) for path, file in pure.items()}
    stems = {path: file.stem for path, file in pure.items()}
    for shorter in (plain, stems):
        often = Counter(shorter.values())
        names |= {path: name for path, name in shorter.items() if often[name] == 1}
    return names


def flat_metrics(files: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Every value in metrics files, by name.key."""
    found: dict[str, Any] = {}
    for path, content in files.items():
        found |= flat({} if content is None else content, above=names[path])
    return found


# ---- differences


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Key, old value and new value for each that differs; NaN equals NaN."""
    pairs = ((key, before.get(key), after.get(key)) for key in dict.fromkeys((*before, *after)))
    return [(key, old, new) for key, old, new in pairs if old != new and repr(old) != repr(new)]


def changed_rows(before: Iterable[bytes], after: Iterable[bytes]) -> tuple[int, int]:
    """How many lines were added and how many removed, regardless of their order.

    Both texts are read in parallel; only lines without a counterpart so far are kept in memory.
    """
    more: dict[bytes, int] = {}  # surplus of each line in the new text so far
    for old, new in zip_longest(before, after, fillvalue=b""):
        if old == new:
            continue
        for line, by in ((new.rstrip(b"\r\n"), 1), (old.rstrip(b"\r\n"), -1)):
            count = more.pop(line, 0) + by
            if count and line:
                more[line] = count
    counts = more.values()
    return sum(n for n in counts if n > 0), -sum(n for n in counts if n < 0)
