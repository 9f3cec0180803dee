"""The runner: runs a job for each push, and shows it live to whoever pushed.

    python -m tools.sandbox.runner     the origin's post-receive hook, with refs on stdin

act runs the workflow file of the tag's commit, without Docker unless the variable RUN_CONTAINER
asks for a container. `.sandbox/jobs/<tag>-<number>/` keeps the log and summary of a job, and its
workspace if it failed outside a container.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.params import YamlTextError, parse_yaml, read_yaml
from lib.repository import ROOT, ask_git, git, git_names, git_or_nothing
from lib.text import one_line
from tools.command import as_command
from tools.sandbox.origin import (
    FIND_LINKS,
    LABEL,
    OF_A_JOB,
    SECRETS,
    VARIABLES,
    read_settings,
    repository,
    shown,
    write_settings,
)
from tools.sandbox.processes import Mark, ours
from tools.sandbox.servers import environment, executable, servers
from tools.sandbox.state import FOLDER, JOBS, ORIGIN, State, write_private

WORKFLOWS = ".github/workflows"
UNFILLED = "TODO" + "(run_tag)"  # split, or this line would be a mark itself
NO_COMMIT = "0" * 40
CONTAINER = "RUN_CONTAINER"
CHECKOUT, SHELL = Path(__file__).parent / "checkout", Path(__file__).parent / "shell"

SIMPLE = re.compile(r"[A-Za-z0-9/._-]+")
LINKS = Path("/tmp")
LINK_PREFIX = f"sandbox-{hashlib.sha256(os.fsencode(FOLDER)).hexdigest()[:12]}-"

# act's own messages, which a log on GitHub would not have.
NOISE = re.compile(
    r"LocalRepositoryCache|valid docker connection|Using docker host|🐳  docker"
    r"|Cleaning up container|^Error: Job '.*' failed$"
)
SUMMARY = "  ⚙  Summary - "


@dataclass(frozen=True)
class Event:
    """What starts a job."""

    name: str  # as in `on:`
    ref: str
    commit: str
    payload: dict[str, Any]

    @property
    def label(self) -> str:
        """The short name of the ref."""
        asked = self.payload.get("inputs", {}).get("ref")
        return one_line(str(asked or re.sub("^refs/[a-z]+/", "", self.ref)))


@dataclass(frozen=True)
class Workflow:
    """A workflow file of one commit."""

    path: str
    content: dict[str, Any]

    def wants_tag(self, tag: str) -> bool:
        """Whether `on.push.tags` matches this tag."""
        wanted = False
        for pattern in tag_patterns(self.content):
            if re.fullmatch(filter_pattern(pattern.removeprefix("!")), tag, re.DOTALL):
                wanted = not pattern.startswith("!")
        return wanted

    def wants_branch(self, branch: str, changed: Sequence[str]) -> bool:
        """Whether `on.push` names this branch, and matches a changed path.

        Workflows for every branch are ignored: nobody wants all tests at each push to a sandbox.
        """
        push = on_push(self.content)
        paths = listed(push.get("paths")) or ["**"]
        return branch in listed(push.get("branches")) and any(
            re.fullmatch(filter_pattern(path), name) for path in paths for name in changed
        )

    @property
    def jobs(self) -> dict[str, Any]:
        """Its jobs, by their names."""
        return dict(self.content.get("jobs", {}))

    def container(self) -> str:
        """The variable RUN_CONTAINER, if a job uses it; else empty."""
        asked = any(CONTAINER in str(job.get("container")) for job in self.jobs.values())
        return read_settings(VARIABLES).get(CONTAINER, "") if asked else ""

    def in_container(self) -> dict[str, Any]:
        """The workflow with that container inserted, as act accepts no expression for a mapping.

        The sandbox's folder is mounted at the same path, for the origin and DVC's cache.
        """
        try:
            container = dict(json.loads(self.container()))
        except (ValueError, TypeError) as error:
            raise UserError(f"The variable {CONTAINER} is no mapping in JSON: {error}") from None
        container["volumes"] = [*container.get("volumes", []), f"{FOLDER}:{FOLDER}"]
        jobs = {
            name: job | {"container": container} if CONTAINER in str(job.get("container")) else job
            for name, job in self.jobs.items()
        }
        return self.content | {"jobs": jobs}

    def labels(self) -> set[str]:
        """The runner labels that its jobs ask for, and the sandbox's own."""
        asked = [label for job in self.jobs.values() for label in listed(job.get("runs-on"))]
        return {label for label in [LABEL, *asked] if "${{" not in label}

    def checkouts(self) -> set[str]:
        """The versions of actions/checkout that it names."""
        steps = [step for job in self.jobs.values() for step in job.get("steps", [])]
        uses = {str(step.get("uses", "")) for step in steps}
        return {action for action in uses if action.startswith("actions/checkout@")}


def on_push(content: dict[str, Any]) -> dict[str, Any]:
    """`on.push` of a workflow."""
    events = content.get("on")
    push = events.get("push") if isinstance(events, dict) else None
    return push if isinstance(push, dict) else {}


def listed(value: Any) -> list[str]:
    """A value of a workflow as a list, whether it is one string or several."""
    return [value] if isinstance(value, str) else [str(one) for one in value or []]


def tag_patterns(content: dict[str, Any]) -> list[str]:
    """`on.push.tags` of a workflow; empty if it has none."""
    patterns = listed(on_push(content).get("tags"))
    return [pattern.replace(UNFILLED, default_run_tag()) for pattern in patterns]


def default_run_tag() -> str:
    """The default prefix of the tags that start a run."""
    marks = read_yaml(ROOT / "tools/project/marks.yml")
    return str(marks["marks"]["default"]["run_tag"]["default"])


def run_tag_prefix() -> str:
    """The prefix of the tags that start a run, from this clone's workflow."""
    try:
        workflow = read_yaml(ROOT / WORKFLOWS / "experiments.yml", aliases=True)
        patterns = tag_patterns(workflow or {})
    except UserError:
        patterns = []
    plain = [p.removesuffix("*") for p in patterns if re.fullmatch(r"[^*?+!\[\\]+\*", p)]
    return plain[0] if plain else default_run_tag()


def filter_pattern(pattern: str) -> str:
    """GitHub's filter pattern as a regular expression."""
    parts = {"**": ".*", "*": "[^/]*", "?": "?", "+": "+", "[": "[", "]": "]", "-": "-"}
    return "".join(
        parts[part] if part in parts else re.escape(part.removeprefix("\\") or part)
        for part in re.findall(r"\\.|\*\*|.", pattern, re.DOTALL)
    )


def workflows(commit: str) -> list[Workflow]:
    """The workflow files of a commit."""
    found = []
    for path in git_names("ls-tree", "-z", "--name-only", commit, f"{WORKFLOWS}/", folder=ORIGIN):
        if not path.endswith((".yml", ".yaml")):
            continue
        try:
            content = parse_yaml(git("show", f"{commit}:{path}", folder=ORIGIN), aliases=True)
        except YamlTextError as error:
            raise UserError(f"{path} {error}") from None
        if isinstance(content, dict):
            found.append(Workflow(path, content))
    return found


# ---- one job


def log_lines(fields: Mapping[str, Any]) -> list[str]:
    """The lines that a log on GitHub would show for an entry in act's log, with secrets masked."""
    text = fields.get("msg", "")
    step = fields.get("step", "").strip().partition("\n")[0]  # its script, if unnamed
    if NOISE.search(text) or fields.get("stage") in ("Pre", "Post") or "stepid" in fields:
        return []
    if fields.get("raw_output"):
        return [f"  | {line}" for line in text.removesuffix("\n").split("\n")]
    outer = len(fields.get("stepID", [])) < 2  # not a step of a composite action
    if result := fields.get("stepResult"):
        mark = {"success": "✅", "skipped": "➖"}.get(result, "❌")
        seconds = fields.get("executionTime", 0) / 1e9
        return [f"{mark} {step} ({seconds:.1f} s)"] if outer else []
    if text.startswith("⭐"):
        return [f"⭐ {step}"] if outer else []
    return text.rstrip("\n").split("\n")


def parsed(entry: str) -> dict[str, Any]:
    """An entry in act's log as fields; any other line as a message."""
    try:
        fields = json.loads(entry)
    except ValueError:
        fields = None
    return fields if isinstance(fields, dict) else {"msg": entry.rstrip("\n")}


class Output:
    """Prints to a log and to stdout; the job goes on if stdout is closed."""

    def __init__(self, log: Path) -> None:
        self.file = log.open("w")
        self.listened_to = True

    def say(self, line: str) -> None:
        """Print one line."""
        self.file.write(line + "\n")
        self.file.flush()
        if self.listened_to:
            self.listened_to = say(line)


def say(line: str) -> bool:
    """Print one line, unbuffered; whether stdout is still open."""
    try:
        os.write(1, (line + "\n").encode(errors="replace"))
    except OSError:  # the push was interrupted
        return False
    return True


def new_folder(name: str) -> tuple[int, Path]:
    """The number and the folder of a new job."""
    lock = os.open(JOBS, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        number = 1 + max((job_number(folder) for folder in JOBS.iterdir()), default=0)
        folder = JOBS / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:80]}-{number}"
        folder.mkdir()
        return number, folder
    finally:
        os.close(lock)


def job_number(folder: Path) -> int:
    """The number at the end of a job folder's name."""
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def run_job(event: Event, workflow: Workflow) -> bool:
    """Run a workflow for an event; whether it succeeded."""
    content = workflow.in_container() if workflow.container() else None
    number, folder = new_folder(event.label)
    output, started = Output(folder / "log"), time.monotonic()
    output.say(f"sandbox: run {number}, {event.label}, {workflow.path}")
    source = check_out(event.commit, folder)
    if content:
        (source / workflow.path).write_text(json.dumps(content))  # JSON is YAML
    with (
        simple_path(folder) as simple,
        subprocess.Popen(
            act(event, workflow, number, folder, simple),
            cwd=folder,
            env=act_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        for entry in process.stdout or ():
            fields = parsed(entry)
            if fields.get("command") == "summary":  # secrets are masked here, too
                with (folder / "summary.md").open("a") as file:
                    file.write(fields["msg"].removeprefix(SUMMARY))
                continue
            for line in log_lines(fields):
                output.say(line)
    succeeded = process.returncode == 0
    outcome = "succeeded" if succeeded else "FAILED"
    write_private(folder / "result", outcome + "\n")
    output.say(
        f"sandbox: run {number}, {event.label}: {outcome} in {time.monotonic() - started:.0f} s; "
        f"log and summary: {shown(folder)}"
    )
    tidy(folder, keep=not succeeded)
    return succeeded


def check_out(commit: str, folder: Path) -> Path:
    """Clone the origin for act, which takes commit and workflow from a repository; its path."""
    source = folder / "source"
    quiet = ("--quiet", "--no-checkout", "--shared", "--template=")
    git("clone", *quiet, str(ORIGIN), str(source), folder=folder)
    git("checkout", "--quiet", "--detach", commit, folder=source)
    return source


def job_environment() -> dict[str, str]:
    """The environment that act passes on to the steps, besides its own variables."""
    kept = environment()
    # Not the value that tools/within has set from the clone's .env: the commit has its own.
    if FIND_LINKS in os.environ:
        kept["PIP_FIND_LINKS"] = os.environ[FIND_LINKS]
    if not kept.get("PIP_FIND_LINKS"):
        kept.pop("PIP_FIND_LINKS", None)
    git_core = ask_git("--exec-path").stdout.strip()
    path = [place for place in kept["PATH"].split(os.pathsep) if place != git_core]
    kept["PATH"] = os.pathsep.join([str(SHELL), *path])
    return kept | Mark("job").variables()


def act_environment(folder: Path) -> dict[str, str]:
    """The environment of act, with a home of its own, apart from the user's settings and caches."""
    kept = {name: value for name, value in job_environment().items() if not is_home(name)}
    return kept | {"HOME": str(folder / "home")}


def is_home(name: str) -> bool:
    """Whether a variable names a home folder; jobs get these from act's env file."""
    return name == "HOME" or name.startswith("XDG_")


@contextmanager
def simple_path(folder: Path) -> Iterator[Path]:
    """The folder by a path without spaces and the like, which act cannot handle."""
    if SIMPLE.fullmatch(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix=LINK_PREFIX, dir=LINKS) as private:
        link = Path(private) / "job"
        link.symlink_to(folder)
        yield link


def remove_links() -> None:
    """Remove the links of `simple_path` that killed jobs left."""
    for private in LINKS.glob(f"{LINK_PREFIX}*"):
        if (private / "job").is_symlink() and private.stat().st_uid == os.getuid():
            (private / "job").unlink()
            private.rmdir()


def act(event: Event, workflow: Workflow, number: int, folder: Path, simple: Path) -> list[str]:
    """Write act's input files into the job's folder; the command that runs the job.

    They are JSON in files called .yml, in which act needs no escaping.
    """
    container = workflow.container()  # a container has its own home
    homes = {name: value for name, value in job_environment().items() if is_home(name)}
    files = {
        "event": event.payload,
        "env": {
            "GITHUB_REPOSITORY": repository(),
            "GITHUB_RUN_ID": str(number),
            "GITHUB_RUN_NUMBER": str(number),
            "DVC_CACHE_DIR": str(FOLDER / "dvc-cache"),  # outlives a job, not the sandbox
            "GIT_CONFIG_GLOBAL": str(FOLDER / "gitconfig"),
            OF_A_JOB: str(ORIGIN),
        }
        | ({} if container else homes),
        "vars": read_settings(VARIABLES),
        "secrets": read_settings(SECRETS),
        "none": {},
    }
    for name, content in files.items():
        write_private(folder / f"{name}.yml", json.dumps(content))
    # As on a runner: a git without a user, and without this user's settings.
    write_private(FOLDER / "gitconfig", "[safe]\n\tdirectory = *\n[gc]\n\tauto = 0\n")
    return [
        *(executable("act"), event.name, "--directory", str(folder / "source")),
        *("--workflows", workflow.path, "--no-skip-checkout", "--no-cache-server", "--json"),
        *(f"--local-repository={action}={CHECKOUT}" for action in sorted(workflow.checkouts())),
        *(f"--platform={label}=-self-hosted" for label in sorted(workflow.labels())),
        *("--github-instance", "sandbox.invalid", "--actor", "sandbox"),
        *("--eventpath", str(folder / "event.yml"), "--env-file", str(folder / "env.yml")),
        *("--var-file", str(folder / "vars.yml"), "--secret-file", str(folder / "secrets.yml")),
        *("--input-file", str(folder / "none.yml"), "--action-cache-path", str(simple / "act")),
        *(("--pull=false", "--rm") if container else ()),  # use a local image
    ]


def tidy(folder: Path, *, keep: bool) -> None:
    """Remove everything but the log, the summary, and with `keep` the workspace."""
    for workspace in folder.glob("act/*/hostexecutor") if keep else ():
        workspace.rename(folder / "workspace")
        break
    for file in folder.glob("*.yml"):
        file.unlink()
    for rest in ("act", "home", "source"):
        shutil.rmtree(folder / rest, ignore_errors=True)


# ---- what starts jobs


def received(lines: Sequence[str]) -> None:
    """Run the workflows for each pushed ref, one after the other."""
    tags, branches = [], []
    for line in lines:
        old, new, ref = line.rstrip("\n").split(" ", 2)
        if ref.startswith("refs/tags/") and new != NO_COMMIT:
            tags.append((old, new, ref))
        # On GitHub, a new branch is compared with others; here it starts nothing.
        elif ref.startswith("refs/heads/") and NO_COMMIT not in (old, new):
            branches.append((old, new, ref))
    if len(tags) > 3:
        say("sandbox: of more than three tags at once, GitHub runs none; here, each runs.")
    for old, new, ref in (*tags, *branches):
        try:
            (run_tag if ref.startswith("refs/tags/") else run_branch)(old, new, ref)
        except UserError as error:
            say(f"sandbox: {one_line(ref)}: no run: {error}")


def run_tag(old: str, new: str, ref: str) -> None:
    """Run the workflows that want this tag."""
    tag = ref.removeprefix("refs/tags/")
    commit = git_or_nothing("rev-parse", "--verify", "--quiet", f"{new}^{{commit}}", folder=ORIGIN)
    if not commit:
        raise UserError("the tag names no commit.")
    try:
        ref.encode()
    except UnicodeEncodeError:
        raise UserError("the name is not UTF-8.") from None
    known = workflows(commit)
    wanting = [workflow for workflow in known if workflow.wants_tag(tag)]
    if not wanting:
        patterns = sorted({p for workflow in known for p in tag_patterns(workflow.content)})
        raise UserError(f"no workflow wants it; tags wanted: {', '.join(patterns) or 'none'}.")
    run_all(wanting, pushed(old, commit, ref, "tag", forced=old != NO_COMMIT))


def run_branch(old: str, new: str, ref: str) -> None:
    """Run the workflows that want this branch, given the paths that changed."""
    changed = git_names("diff-tree", "-r", "--name-only", "-z", old, new, folder=ORIGIN)
    branch = ref.removeprefix("refs/heads/")
    if wanting := [w for w in workflows(new) if w.wants_branch(branch, changed)]:
        run_all(wanting, pushed(old, new, ref, "branch", forced=False))


def pushed(old: str, commit: str, ref: str, kind: str, *, forced: bool) -> Event:
    """The event of a push."""
    message = git("log", "-1", "--format=%B", commit, folder=ORIGIN).strip()
    payload = {
        "ref": ref,
        "ref_name": re.sub("^refs/[a-z]+/", "", ref),
        "ref_type": kind,
        "before": old,
        "after": commit,  # becomes GITHUB_SHA
        "created": old == NO_COMMIT,
        "deleted": False,
        "forced": forced,
        "head_commit": {"id": commit, "message": message},
    }
    return Event("push", ref, commit, payload | about_repository())


def dispatch(ref: str) -> bool:
    """Run the default branch's dispatchable workflows with the input `ref`."""
    branch = about_repository()["repository"]["default_branch"]
    head = f"refs/heads/{branch}"
    commit = git_or_nothing("rev-parse", "--verify", "--quiet", head, folder=ORIGIN)
    if not commit:
        raise UserError(f"The sandbox has no branch {branch} yet: `git push sandbox {branch}`.")
    wanting = [w for w in workflows(commit) if "workflow_dispatch" in (w.content.get("on") or ())]
    if not wanting:
        raise UserError(f"No workflow on {branch} has workflow_dispatch among its events.")
    payload = {"ref": head, "inputs": {"ref": ref}} | about_repository()
    return run_all(wanting, Event("workflow_dispatch", head, commit, payload))


def run_all(wanting: Sequence[Workflow], event: Event) -> bool:
    """Run workflows for one event; whether all succeeded."""
    state = State.read()
    if state is None:
        raise UserError(f"{FOLDER} holds no sandbox: type `make sandbox`.")
    write_settings(state, keep=True)
    away = [server.title for server in servers(state) if not ours(server.part)]
    if away:
        say(f"sandbox: {' and '.join(away)} not running; `make sandbox` starts what is missing.")
    outcomes = [run_job(event, workflow) for workflow in wanting]  # also after a failure
    return all(outcomes)


def about_repository() -> dict[str, Any]:
    """The part of an event's payload on the repository."""
    head = git("symbolic-ref", "HEAD", folder=ORIGIN)
    branch, (owner, name) = head.removeprefix("refs/heads/"), repository().split("/")
    about = {"full_name": repository(), "name": name, "owner": {"login": owner}, "private": True}
    return {"repository": about | {"default_branch": branch}, "sender": {"login": "sandbox"}}


def main() -> None:
    """Run the jobs for the refs on stdin."""
    # A job survives an interrupted push, as on GitHub.
    os.setsid()
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    received(sys.stdin.readlines())


if __name__ == "__main__":
    as_command(main, "sandbox: ")
