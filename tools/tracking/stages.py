"""Finds the stage that a process was started for, its provenance, and its fingerprint."""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dvc.dependency.param import ParamsDependency
from dvc.output import Output
from dvc.stage import Stage as DvcStage

from lib.errors import UserError
from lib.params import FILE, YamlTextError, parse_yaml
from lib.pipeline import Pipeline, Stage, in_root, open_repo, pipeline_of, place
from lib.repository import ROOT, GitError, git_or_nothing, uncommitted
from lib.text import one_line
from tools.tracking import job_url

RUN = "lab/processes/run"
MAX_DEPS = 100  # whose checksums become tags
CONDITIONAL = re.compile(r"\s*(if|for|while|until|case|[{(])|.*\|\|")  # may skip commands


@dataclass(frozen=True)
class Started:
    """A process, as `lab/processes/run` started it."""

    process: str
    arguments: Sequence[str]

    @property
    def words(self) -> Sequence[str]:
        """The words after `lab/processes/run` in a stage's command."""
        return [self.process, *self.arguments]


@dataclass(frozen=True)
class Call:
    """One `lab/processes/run` in a stage's commands."""

    words: Sequence[str]  # the process, and its arguments
    sure: bool  # whether it always runs if the commands before it succeed


@dataclass(frozen=True)
class Tracked:
    """A stage with DVC's own object for it, read once."""

    stage: Stage
    dvc: DvcStage
    pipeline: Pipeline


def tracked_stages() -> list[Tracked]:
    """Every stage of the work tree that has a command.

    Raises:
        UserError: DVC cannot read the pipeline.
    """
    with open_repo() as repo:
        pipeline, known = pipeline_of(repo), list(repo.index.stages)
    pairs = zip(pipeline.stages, known, strict=True)
    return [Tracked(stage, dvc, pipeline) for stage, dvc in pairs if stage.commands]


def started_stage(started: Started) -> Tracked | None:
    """The stage whose command starts this process; if several do, the one that DVC runs.

    None if no stage does: its deps and outs are then unknown.
    """
    stages = tracked_stages()
    address = os.environ.get("DVC_STAGE", "")  # set by DVC for the command that it runs
    name = address.rpartition(":")[2]  # the file before it is relative to where DVC was started
    starting = [each for each in stages if starts(each.stage, started)]
    known = starting or stages
    addressed = [each for each in known if each.stage.address == address]
    named = [each for each in known if name and each.stage.name == name]
    return next(iter([*addressed, *named, *starting]), None)


def process_of(stage: Stage) -> str:
    """The process that a stage starts first; empty where it starts none."""
    return next(iter(processes_of(stage)), "")


def processes_of(stage: Stage) -> list[str]:
    """All processes that a stage starts, each once."""
    return list(dict.fromkeys(call.words[0] for call in calls(stage)))


def starts(stage: Stage, started: Started) -> bool:
    """Whether one of the stage's commands is this one."""
    return started.words in [call.words for call in calls(stage)]


def is_later(stage: Stage, started: Started) -> bool:
    """Whether the stage has started another process, or this one, before."""
    return started.words in [call.words for call in calls(stage)[1:]]


def is_last(stage: Stage, started: Started) -> bool:
    """Whether no process of the stage is sure to start after this one has succeeded."""
    made = calls(stage)
    own = (n for n, call in enumerate(made) if call.words == started.words)
    place = max(own, default=len(made))
    return not any(call.sure for call in made[place + 1 :])


def is_end(stage: Stage, started: Started) -> bool:
    """Whether this process is the stage's last command, so that all outs must exist after it."""
    made = [words for command in stage.commands for words in simple_commands(command)]
    once = [call.words for call in calls(stage)].count(started.words) == 1
    return once and made[-1][-len(started.words) :] == started.words


def calls(stage: Stage) -> list[Call]:
    """Each `lab/processes/run` in the commands of a stage, in their order."""
    found = []
    for command in stage.commands:
        choice = CONDITIONAL.match(command)
        for words in simple_commands(command):
            place = next((n for n, word in enumerate(words) if word.endswith(RUN)), None)
            if place is not None and words[place + 1 :]:
                alone = all("=" in word for word in words[:place])  # except for variables
                found.append(Call(words[place + 1 :], alone and not choice))
    return found


def simple_commands(command: str) -> list[list[str]]:
    """The words of each command that a shell would run, one after the other."""
    for parts in (re.split("&&|;", command), [command]):  # they may be inside quotes
        with suppress(ValueError):  # an open quote; the shell will report it
            return [shlex.split(part) for part in parts]
    return []


# ---- provenance


def provenance(tracked: Tracked) -> dict[str, str]:
    """The tags that trace a run to its commit, experiment and job, in the current work tree."""
    stage = tracked.stage
    made = {path for each in tracked.pipeline.stages for path in each.written}
    top, process = tracked.dvc.repo.root_dir, process_of(stage)
    params = [place(dep, top) for dep in tracked.dvc.deps if isinstance(dep, ParamsDependency)]
    started = [f"lab/processes/{name}" for name in processes_of(stage)]
    mains = [f"{folder}/{main}" for folder in started for main in ("main", "main.py")]
    read = {*stage.deps, *params, *mains, FILE, stage.file}
    written = sorted(path for path in read if path not in made and in_root(path))
    on_tag = os.environ.get("GITHUB_REF_TYPE") == "tag"
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or git_or_nothing("rev-parse", "HEAD")
    tag = git_or_nothing("tag", "--points-at").replace("\n", " ")
    tags = {
        "stage": stage.address,
        "git.commit": commit,
        "git.tag": os.environ.get("GITHUB_REF_NAME", "") if on_tag else tag,
        "git.branch": git_or_nothing("branch", "--show-current"),
        "git.dirty": dirty(written),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", ""),
        "workflow.run_url": job_url(),
    }
    tags["mlflow.source.git.commit"] = tags["git.commit"]  # MLflow's UI shows these three
    tags["mlflow.source.git.branch"] = tags["git.branch"]
    tags["mlflow.source.name"] = f"lab/processes/{process}/main.py" if process else ""
    return {key: value for key, value in tags.items() if value}


def of_results_commit(tracked: Tracked) -> dict[str, str]:
    """The tags that trace a stage to the job that ran it, from its results commit.

    Tags that the commit does not give are empty. No tags at all if the newest commit of dvc.lock is
    not a job's, or did not change this stage's entry.
    """
    lock = str(Path(tracked.stage.file).with_name("dvc.lock"))
    shown = git_or_nothing("log", "-1", "--format=%H%n%(trailers:only,unfold)", "--", lock)
    commit, *lines = shown.splitlines() or [""]
    trailers = dict(line.split(": ", 1) for line in lines if ": " in line)
    if "Source-Commit" not in trailers or uncommitted([lock]):
        return {}
    if not git_or_nothing("rev-parse", "--verify", "--quiet", f"{commit}~1"):
        return {}  # a shallow clone does not tell what the commit changed
    before, after = (entry_at(revision, lock, tracked) for revision in (f"{commit}~1", commit))
    if before == after:
        return {}
    source, name = trailers["Source-Commit"], trailers.get("Tag", "")
    tags = {
        "git.commit": source,
        "mlflow.source.git.commit": source,
        "git.tag": git_or_nothing("tag", "--list", name) if name else "",  # it may be a branch
        "workflow.run_url": trailers.get("Run-URL", ""),
    }
    of_this_clone = ("git.branch", "mlflow.source.git.branch", "git.dirty")
    return tags | dict.fromkeys(of_this_clone, "")


def entry_at(revision: str, lock: str, tracked: Tracked) -> object:
    """The entry of a stage in a revision's dvc.lock; None if there is none."""
    text = git_or_nothing("show", f"{revision}:{lock}")
    try:
        return (parse_yaml(text, aliases=True) or {}).get("stages", {}).get(tracked.dvc.name)
    except YamlTextError:  # such as conflict marks
        return None


def dirty(paths: Sequence[str]) -> str:
    """`true` if one of these paths differs from the commit; empty if git cannot tell."""
    try:
        return str(bool(uncommitted(paths))).lower()
    except GitError:
        return ""


# ---- fingerprints


@dataclass(frozen=True)
class Checksums:
    """DVC's md5 of each dep and out of a stage, by path; empty for missing files."""

    deps: Mapping[str, str]
    outs: Mapping[str, str]

    def fingerprint(self, stage: Stage) -> str:
        """A hash that is equal for runs with the same deps, parameters and outs."""
        content = [stage.address, dict(self.deps), dict(stage.params), dict(self.outs)]
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def tags(self) -> dict[str, str]:
        """A tag for each dep."""
        known = [(path, md5) for path, md5 in self.deps.items() if md5]
        return {f"dvc.dep.{path}": md5 for path, md5 in known[:MAX_DEPS]}


def checksums(tracked: Tracked) -> Checksums:
    """The checksums of the files on disk; DVC caches them, so that each is computed once."""
    top = tracked.dvc.repo.root_dir
    deps = [dep for dep in tracked.dvc.deps if not isinstance(dep, ParamsDependency)]
    return Checksums(
        {place(dep, top): md5_of(dep) for dep in deps},
        {place(out, top): md5_of(out) for out in tracked.dvc.outs},
    )


def changed_since(tracked: Tracked) -> list[str]:
    """The deps and parameters of a stage that differ from dvc.lock.

    Empty for a stage without an entry there, as after a run by hand.

    Raises:
        UserError: a dep elsewhere, on S3 for example, cannot be read.
    """
    changed: list[str] = []
    for dep in tracked.dvc.deps:
        try:
            changed += map(str, dep.status() if dep.hash_info else ())
        except Exception as error:  # from any file system that a dep may be on
            raise UserError(f"{dep} cannot be checked: {one_line(str(error))}") from None
    return sorted(changed)


def missing(stage: Stage) -> list[str]:
    """The outs of a stage that are not on disk; outs elsewhere, such as on S3, are not checked."""
    return [path for path in stage.written if in_root(path) and not (ROOT / path).exists()]


def md5_of(item: Output) -> str:
    """The md5 on disk, else the one in dvc.lock, as for a dataset (`ds://…`)."""
    found = item.get_hash() if not item.fs or item.exists else item.hash_info
    return str(found.value or "") if found else ""


def md5_of_file(file: Path) -> str:
    """The md5 of a file's bytes."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest()
