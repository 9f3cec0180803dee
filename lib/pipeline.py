"""The stages of the pipeline, as DVC resolves them.

DVC determines what each stage reads and writes, however it is defined in dvc.yaml (plain,
`foreach`, `matrix`, with `vars` or `wdir`, in a subfolder); nothing here parses dvc.yaml.
"""

import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.fs import GitFileSystem
from dvc.repo import Repo
from dvc.scm import SCM
from dvc.stage import Stage as DvcStage

from lib.errors import UserError
from lib.params import FILE, YamlTextError, line_of, parse_yaml
from lib.repository import ROOT, files_at

MAIN = "dvc.yaml"
SWEEPS = "lab/tuning/dvc.yaml"  # which values of parameters do best; no part of `make run`
# What DVC raises if it cannot read a pipeline: ImportError for a storage without its package (gs://…),
# the last three for a malformed section of dvc.yaml.
UNREADABLE = (DvcException, OSError, ValueError, ImportError, TypeError, KeyError, AttributeError)


class NoDvcError(UserError):
    """The repository, or a commit of it, does not use DVC."""


@dataclass(frozen=True)
class Out:
    """An out in dvc.lock or a .dvc file; for a folder, of all its files together."""

    md5: str
    size: int
    files: int


@dataclass(frozen=True)
class Stage:
    """One stage, every `${…}` in it filled in. Paths are relative to the repository's root."""

    name: str  # as in dvc.yaml; `sweep@forest` for an item of a matrix or a foreach
    file: str  # the dvc.yaml, or a .dvc file (of `dvc add`, or an import)
    commands: Sequence[str]
    deps: Sequence[str]
    outs: Sequence[str]  # without metrics and plots
    metrics: Sequence[str]
    plots: Mapping[str, Mapping[str, Any]]  # path to its definition
    params: Mapping[str, Any]  # current value by dotted key
    uncached: frozenset[str] = frozenset()  # outs that are in git, not in DVC's cache
    imports: bool = False  # whether a run gets the newest data, as of an unfrozen `dvc import-url`
    noted: Mapping[str, Out] = field(default_factory=dict)  # the outs in dvc.lock, by path
    elsewhere: Mapping[str, Any] = field(default_factory=dict)  # other files' values, by file:key

    @property
    def address(self) -> str:
        """The name of the stage for `dvc repro`."""
        return self.name if self.file == MAIN else f"{self.file}:{self.name}"

    @property
    def entry(self) -> str:
        """Its key in dvc.yaml, which all items of a matrix or a foreach share."""
        return self.name.partition("@")[0]

    @property
    def written(self) -> list[str]:
        """The paths of all outs, metrics and plots."""
        return [*self.outs, *self.metrics, *self.plots]

    @property
    def command(self) -> str:
        """The command that runs the stage."""
        if self.file == SWEEPS:
            return f"make tune STAGES={self.entry}"
        return "make run" if self.file == MAIN else f"make run PIPELINE={self.file}"


@dataclass(frozen=True)
class Outdated:
    """A stage whose results do not match its inputs, or dvc.lock."""

    stage: Stage
    changed: Sequence[str]  # parameters and deps that changed since it ran
    rewritten: Sequence[str]  # outs in git that changed since it ran


@dataclass(frozen=True)
class Model:
    """An entry of `artifacts:` in dvc.yaml."""

    name: str
    path: str
    kind: str


@dataclass(frozen=True)
class Pipeline:
    """All stages, models, plots and metrics of a revision."""

    stages: Sequence[Stage]
    artifacts: Sequence[Model]  # of dvc.yaml at the root
    plots: Sequence[tuple[str, Mapping[str, Any]]]  # top-level plots: title and definition
    top_metrics: Sequence[str] = ()  # top-level metrics

    @property
    def metrics(self) -> list[str]:
        """The metrics files of stages and at the top level, without repetitions."""
        listed = [path for stage in self.stages for path in stage.metrics]
        return list(dict.fromkeys((*listed, *self.top_metrics)))

    @property
    def locks(self) -> list[str]:
        """The dvc.lock of each dvc.yaml with stages."""
        files = {stage.file for stage in self.stages if PurePath(stage.file).name == MAIN}
        return sorted(str(PurePath(file).with_suffix(".lock")) for file in files)

    @property
    def result_files(self) -> list[str]:
        """What a run changes in git: each dvc.lock, outs that DVC does not cache, and imports."""
        uncached = {path for stage in self.stages for path in stage.uncached if in_root(path)}
        imports = {stage.file for stage in self.stages if stage.imports}
        return sorted({*uncached, *self.locks, *imports})

    @property
    def data_files(self) -> list[str]:
        """The `.dvc` files of data, in which DVC records a change of the data."""
        return sorted({stage.file for stage in self.stages if stage.file.endswith(".dvc")})

    def find(self, name: str) -> Stage | None:
        """The stage with this name or address."""
        return next((s for s in self.stages if name in (s.name, s.address)), None)

    def writer(self, path: str) -> tuple[Stage | None, str]:
        """The stage that writes a file (or None), and the out that is or contains the file."""
        for stage in self.stages:
            for out in stage.written:
                if PurePath(path).is_relative_to(out):
                    return stage, out
        return None, path

    def upstream(self, paths: Iterable[str]) -> set[str]:
        """The addresses of all stages that files depend on, directly or indirectly."""
        found: set[str] = set()
        waiting = [*paths]
        while waiting:
            path = PurePath(waiting.pop())
            for stage in self.stages:
                # A dep may be inside an out, or be a folder with the outs of several stages.
                needed = any(
                    path.is_relative_to(out) or PurePath(out).is_relative_to(path)
                    for out in stage.written
                )
                if needed and stage.address not in found:
                    found.add(stage.address)
                    waiting += stage.deps
        return found


def read_pipeline(revision: str = "", root: Path = ROOT) -> Pipeline:
    """The pipeline of the work tree, or of a commit; empty for a commit without DVC.

    Raises:
        UserError: DVC cannot read it; the message is DVC's own.
    """
    try:
        with open_repo(revision, root) as repo:
            return pipeline_of(repo)
    except NoDvcError:
        if revision:
            return Pipeline([], [], [])
        raise


@contextmanager
def open_repo(revision: str = "", root: Path = ROOT) -> Iterator[Repo]:
    """DVC's repository object; DVC's errors become UserError."""
    refuse_aliases(revision, root)
    try:
        if revision:
            refuse_unreadable_index(root)
        with Repo(str(root), rev=revision or None) as repo:
            yield repo
    except NotDvcRepoError:
        raise NoDvcError("This repository has no DVC in it: `dvc init`.") from None
    except UNREADABLE as error:
        raise UserError(unread(error)) from None


def refuse_unreadable_index(root: Path) -> None:
    """UserError if libgit2, by which DVC reads commits, cannot read the index: it would hang."""
    scm = SCM(str(root))
    try:
        _ = scm.pygit2.repo.index
    except Exception as error:  # pygit2's
        if "owned" in str(error):
            raise UserError(
                "DVC cannot read this repository, another user owns it: `git config --global "
                f"--add safe.directory '{root}'`."
            ) from None
        raise UserError(
            f"DVC cannot read git's index ({error}). If it is split: `git config core.splitIndex "
            "false; git update-index --no-split-index`; if it is sparse: `git sparse-checkout "
            "reapply --no-sparse-index`."
        ) from None
    finally:
        scm.close()


def unread(error: Exception) -> str:
    """The message for DVC's error: its text, the line, and a hint on conflict marks."""
    why = " ".join(str(error).split())
    against: Any = getattr(error, "exc", None)  # the violated rule of DVC's schema
    path = getattr(against, "path", None)
    if isinstance(path, list):
        why += f" ({'.'.join(map(str, path))}: {against.msg})"
    marks = ""
    if getattr(error, "hint", ""):  # DVC's, on them
        remedy = "take either side, then `make run`" if "dvc.lock" in why else "edit it"
        marks = f": a merge left marks in it: {remedy}"
    return f"DVC cannot read the pipeline: {why}{line_of(error)}{marks}"


def refuse_aliases(revision: str, root: Path) -> None:
    """UserError for aliases in params.yaml: DVC expands them, which can take all memory."""
    file = root / FILE
    if revision:
        text = files_at(revision, [FILE], root).get(FILE, b"")
    else:
        text = file.read_bytes() if file.is_file() else b""
    if b"*" not in text:
        return
    try:
        parse_yaml(text.decode("utf-8", "replace"))
    except YamlTextError as error:
        raise UserError(f"{FILE} {error}") from None


def pipeline_of(repo: Repo) -> Pipeline:
    """The pipeline of DVC's repository object."""
    top = repo.root_dir
    return Pipeline(
        [resolved(stage, top) for stage in repo.index.stages],
        [
            Model(name, beside(MAIN, found.path), found.type or "")
            for name, found in repo.artifacts.read().get(MAIN, {}).items()
        ],
        [
            plot_beside(top_relative(file, top), title, definition or {})
            for file, entries in repo.index._plots.items()
            for title, definition in each_plot(entries)
        ],
        [
            beside(top_relative(file, top), path)
            for file, paths in repo.index._metrics.items()
            for path in paths
        ],
    )


def resolved(stage: DvcStage, top: str) -> Stage:
    """DVC's stage as a `Stage`."""
    params, elsewhere = params_of(stage, top)
    text = stage.cmd or ""
    outs = {place(out, top): out for out in stage.outs}
    return Stage(
        name=getattr(stage, "name", None) or top_relative(stage.path, top),
        file=top_relative(stage.path, top),
        commands=text if isinstance(text, list) else text.replace("\\\n", " ").splitlines(),
        deps=[place(dep, top) for dep in stage.deps if not isinstance(dep, ParamsDependency)],
        outs=[path for path, out in outs.items() if not out.metric and not out.plot],
        metrics=[path for path, out in outs.items() if out.metric],
        plots={
            path: out.plot if isinstance(out.plot, Mapping) else {}
            for path, out in outs.items()
            if out.plot
        },
        params=params,
        uncached=frozenset(path for path, out in outs.items() if not out.use_cache),
        imports=stage.is_import and not stage.frozen,
        noted={
            path: Out(out.hash_info.value, out.meta.size or 0, out.meta.nfiles or 1)
            for path, out in outs.items()
            if out.hash_info
        },
        elsewhere=elsewhere,
    )


def params_of(stage: DvcStage, top: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values that a stage lists, by key, and those outside params.yaml, by file:key.

    If two files have the same key, the second is prefixed with its file.
    """
    params: dict[str, Any] = {}
    elsewhere: dict[str, Any] = {}
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency) and dep.exists:
            file = top_relative(dep.fs_path, top)
            for key, value in dep.read_params().items():
                params[f"{file}:{key}" if key in params else key] = value
                if file != FILE:
                    elsewhere[f"{file}:{key}"] = value
    return params, elsewhere


def outdated_stages(revision: str = "", root: Path = ROOT) -> list[Outdated]:
    """The stages whose inputs or results are not those in dvc.lock.

    Raises:
        UserError: as `read_pipeline`.
    """
    with open_repo(revision, root) as repo:
        stages = repo.index.stages
        found = [
            Outdated(resolved(stage, repo.root_dir), changed, rewritten(stage, repo.root_dir))
            for stage, changed in zip(stages, changed_since(stages), strict=True)
            if stage.cmd
        ]
    return [each for each in found if each.changed or each.rewritten]


def rewritten(stage: DvcStage, top: str) -> list[str]:
    """The outs of a stage in git that differ from dvc.lock."""
    kept = [out for out in stage.outs if not out.use_cache and out.hash_info and out.is_in_repo]
    files = [out for out in kept if not out.hash_info.isdir]  # git may ignore files in folders
    return [place(out, top) for out in files if "modified" in out.status().values()]


def changed_since(stages: Iterable[DvcStage]) -> list[list[str]]:
    """For each stage, the parameters and deps that differ from dvc.lock.

    For data that are not on disk (or in the commit), the checksum in dvc.lock of the stage that
    writes them counts.

    Args:
        stages: DVC's stages, including those that write the others' deps.
    """
    stages = list(stages)
    written = {out.fs_path: out.hash_info for stage in stages for out in stage.outs}
    return [[*changes_of(stage, written)] for stage in stages]


def changes_of(stage: DvcStage, written: Mapping[str, Any]) -> dict[str, None]:
    """The names of what has changed, as keys; `written` are the checksums of all outs by path."""
    found: dict[str, None] = {}
    if stage.frozen:
        return found
    for dep in stage.deps:
        if not (dep.hash_info and dep.is_in_repo):
            continue
        for name, state in dep.status().items():
            unknown = state == "deleted" or (state == "modified" and is_partly_in_git(dep))
            if not unknown or written.get(dep.fs_path, dep.hash_info) != dep.hash_info:
                found |= dict.fromkeys(state if isinstance(state, Mapping) else [name])
    if getattr(stage, "cmd_changed", False):
        found["its command"] = None
    return found


def is_partly_in_git(dep: Any) -> bool:
    """Whether a commit may lack part of a dep: a folder with ignored files, or a link."""
    if not isinstance(dep.fs, GitFileSystem):
        return False
    return bool(dep.hash_info.isdir) or stat.S_ISLNK(dep.fs.info(dep.fs_path)["mode"])


def place(item: Any, top: str) -> str:
    """The path of a dep or out from the root; its URL or path if it is elsewhere."""
    return top_relative(item.fs_path, top) if item.is_in_repo else str(item.def_path)


def in_root(path: str) -> bool:
    """Whether such a path is below the root: not a URL, and not a path elsewhere."""
    return "://" not in path and path[:1] != "/" and path[:2] != ".."


def top_relative(path: str, top: str) -> str:
    """A path of the work tree or of git's file system, relative to the root."""
    return PurePath(os.path.relpath(path, top)).as_posix()


def beside(file: str, path: str) -> str:
    """A path relative to a file, made relative to the root."""
    return posixpath.normpath((PurePath(file).parent / path).as_posix())


def files_of(modules: Iterable[str], root: Path = ROOT) -> set[str]:
    """The files of this repository that Python reads to import these modules.

    A package's file is its `__init__.py`, which also the modules inside it read.
    """
    found = set()
    for module in modules:
        path = PurePath(*module.split("."))
        packages = [folder / "__init__.py" for folder in (path, *path.parents)]
        found |= {str(file) for file in (path.with_suffix(".py"), *packages)}
    return {file for file in found if (root / file).is_file()}


def each_plot(entries: Any) -> list[tuple[str, Any]]:
    """Title and definition of each top-level plot, which may be in a list or a mapping."""
    several = [entries] if isinstance(entries, Mapping) else entries
    return [
        pair
        for entry in several
        for pair in (entry.items() if isinstance(entry, Mapping) else [(entry, {})])
    ]


def plot_beside(file: str, title: str, definition: Mapping[str, Any]) -> tuple[str, Any]:
    """A top-level plot with paths relative to the root.

    If `y` names no files, the title is the file.
    """
    y = definition.get("y")
    if isinstance(y, Mapping):
        files = {beside(file, path): columns for path, columns in y.items()}
        return title, {**definition, "y": files}
    return beside(file, title), definition
