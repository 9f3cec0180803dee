"""Shares a run's results, in an order that cannot lose anything.

1. Data are pushed to S3; git refers to them only once all of them are there.
2. A commit with dvc.lock and metrics is pushed on top of the branch's current tip, never forced.
3. If the branch has meanwhile got other results, other parameters or code that a stage reads, or
   another .dvc/config, or refuses the push, the commit goes to `results/<tag>`; if that is refused
   too, it is printed as a patch.
"""

import base64
import os
import re
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, NoReturn

from lib.comparison import cut, metrics_table
from lib.errors import UserError
from lib.pipeline import Stage, open_repo, outdated_stages, read_pipeline
from lib.repository import AT_ONCE, ROOT, ask_git, git, git_names, refuse_error, run_git
from lib.revisions import WORK_TREE, Revision
from lib.text import one_line, prose, some_of, without_password
from tools.command import first_error, run
from tools.job.job import (
    MAX_PAGE_BYTES,
    NOTE,
    add_to_note,
    main,
    pipeline_file,
    read_note,
    summarise,
)
from tools.job.storage import storage_answers, why_push_failed
from tools.tracking import notes

UNSET = {"unspecified", "unset"}  # values of git's attributes
PUSHES = 5  # attempts, as the branch may move between fetch and push
BRANCHES = 9  # results/<tag>, results/<tag>-2, …
TRIES = (0, 5, 15)  # seconds before each try to reach S3, or git's server
SILENCE = 60  # seconds without data after which git gives up
# A server's answer, which a retry would only repeat; anything else may be a network error.
ANSWER = re.compile(r"couldn't find remote ref|! \[(?:remote )?rejected\]")
REFUSAL = re.compile(r"! \[(?:remote )?rejected\].*\((.+)\)")
TOKEN = os.environ.pop("GIT_TOKEN", "")  # only fetch and push get it, no other child process
MAX_METRICS = 20  # in the commit message; the less nested come first
MAX_LISTED = 50  # goals, runs and outs in the commit message


def share() -> None:
    """Push data, then a commit with the results; print where they went."""
    note = read_note()
    source = git("rev-parse", "HEAD")
    refuse_rewritten()
    files = read_pipeline().result_files
    branch = str(note["branch"])
    push_data()
    refuse_lost(note)
    if kept := not_pushed():
        line = (
            f"`push: false` keeps {some_of(kept)} out of S3: `dvc pull --allow-missing` gets all "
            "others."
        )
        print(f"NOTE: {line}")
        summarise(f"> [!NOTE]\n> {prose(line)}\n")
    if not changed(source, files):
        tip = fetch(branch)  # it may have other results by now than an old commit with a tag
        add_to_note(shared="nothing changed", outdated=not tip or changed(tip, files))
        print("Nothing changed: there is nothing to commit.")
        return
    message = commit_message(note, source, kept)
    for _ in range(PUSHES):
        tip = fetch(branch)
        if tip and not changed(tip, files):
            add_to_note(shared=f"{branch} has these very results already")
            print(f"Nothing changed: {branch} has these very results already.")
            return
        if why := unfit(source, tip, files):
            push_aside(note, source, files, message, f"{branch} {why}")
            return
        commit = commit_on(tip, files, message)
        pushed = push(commit, branch)
        if not pushed:
            add_to_note(shared=branch, results_commit=commit)
            print(f"Results are commit {commit[:10]} on {branch}.")
            return
        if fetch(branch) == tip:  # nobody else has pushed
            push_aside(note, source, files, message, f"{branch} {pushed}")
            return
    push_aside(note, source, files, message, f"{branch} moves on faster than results can follow")


def refuse_rewritten() -> None:
    """UserError if a result file in the work tree is not the one that this run wrote."""
    file = pipeline_file()
    for found in outdated_stages():
        if found.rewritten and found.stage.file == file:
            raise UserError(
                f"{', '.join(found.rewritten)} is not what {found.stage.address} wrote: another "
                "process, of an earlier run perhaps, has written it since. Nothing is shared: end "
                "that process on the runner, then re-run this job."
            )


def unfit(source: str, tip: str, files: list[str]) -> str:
    """Why results of a commit must not go on top of a branch's tip; empty if they may."""
    if not tip:
        return "is gone"
    if ask_git("merge-base", "--is-ancestor", source, tip).returncode:
        return "no longer has the commit that was run"
    if differ(source, tip, files):
        return "got other results meanwhile"
    if differ(source, tip, [".dvc/config"]):
        return "got another .dvc/config meanwhile, which may name another bucket"
    return "" if source == tip else differs_in_inputs(source, tip)


def differs_in_inputs(source: str, tip: str) -> str:
    """Why the tip would give other results, in its pipeline or in what stages read; or empty."""
    try:
        before, after = stages_run(source), stages_run(tip)
    except UserError as error:
        return f"has another pipeline meanwhile: {error}"
    deps = {dep for stage in before.values() for dep in stage.deps}
    folders = {str(parent) for dep in deps for parent in PurePath(dep).parents}
    # Data added with `dvc add` are represented in git by their .dvc file.
    read = [".env", *deps, *(f"{path}.dvc" for path in deps | folders)]
    if any(after.get(address) != stage for address, stage in before.items()) or differ(
        source, tip, read
    ):
        return "got other parameters, or another command or file that a stage reads, meanwhile"
    return ""


def stages_run(commit: str) -> dict[str, Stage]:
    """The stages of this run's pipeline, and those that they need, as a commit defines them.

    Without what dvc.lock records of their outs.
    """
    pipeline, file = read_pipeline(commit), pipeline_file()
    stages = {stage.address: stage for stage in pipeline.stages if stage.commands}
    own = [name for name, stage in stages.items() if stage.file == file]
    needed = pipeline.upstream(dep for name in own for dep in stages[name].deps)
    return {
        name: replace(stage, noted={}) for name, stage in stages.items() if name in {*own, *needed}
    }


# ---- data


def push_data() -> None:
    """Run `dvc push`, with retries; UserError if something is still not in S3."""
    why = ""
    for number, wait in enumerate(TRIES):
        time.sleep(wait)
        if number:  # if S3 hangs, this notices in seconds, and a push in minutes
            try:
                storage_answers()
            except UserError as error:
                why = str(error).rstrip(".")
                continue
        print("Pushing data to S3 …", flush=True)
        done = run("dvc", "push", ok=False, AWS_MAX_ATTEMPTS="2")  # retried here
        print((done.stdout + done.stderr).strip(), flush=True)
        if done.returncode == 0:
            return
        why = why_push_failed(first_error(done.stderr))
    raise UserError(
        f"Data could not be pushed to S3: {why}. Nothing was committed. Re-run this job when that "
        "is fixed: finished stages come from the runner's cache."
    )


def refuse_lost(note: dict[str, Any]) -> None:
    """UserError if the cache lacks data of this run, where `dvc push` would only warn."""
    stages = note.get("stages", {}).items()
    made = {name for name, entry in stages if entry["state"] != "unchanged"}
    with open_repo() as repo:
        outs = [out for out in repo.index.outs if out.use_cache and out.stage.addressing in made]
        lost = [str(out.def_path) for out in outs if out.changed_cache()]
    if lost:
        raise UserError(
            f"DVC's cache on the runner lacks {some_of(lost)}: was it cleaned meanwhile? S3 cannot "
            "get that, so nothing was committed: re-run this job, which makes it again."
        )


def not_pushed() -> list[str]:
    """The outs that dvc.lock names and that `push: false` keeps out of S3."""
    with open_repo() as repo:
        return [
            one_line(str(out.def_path))
            for out in repo.index.outs
            if out.hash_info and out.use_cache and not out.can_push
        ]


# ---- the commit


def changed(source: str, files: list[str]) -> bool:
    """Whether results in the work tree differ from the commit that was run."""
    return tree_with_results(source, files) != git("rev-parse", f"{source}^{{tree}}")


def differ(old: str, new: str, files: list[str]) -> bool:
    """Whether any result file differs between two commits."""
    paths = git_names("diff-tree", "-r", "--name-only", "-z", "--no-renames", old, new)
    results = set(files)
    return any(is_among(path, results) for path in paths)


def tree_with_results(commit: str, files: list[str]) -> str:
    """The commit's tree with this run's results; work tree, index and HEAD are unchanged."""
    there = [file for file in files if (ROOT / file).exists()]
    named = ("--pathspec-from-file=-", "--pathspec-file-nul")
    with tempfile.TemporaryDirectory() as folder:
        index = str(Path(folder) / "index")
        git("read-tree", commit, GIT_INDEX_FILE=index)
        if there:
            quiet = ("-c", "core.safecrlf=false")
            git(*quiet, "add", "--force", *named, stdin="\0".join(there), GIT_INDEX_FILE=index)
            keep_bytes(index, there)
        return git("write-tree", GIT_INDEX_FILE=index)


def keep_bytes(index: str, files: list[str]) -> None:
    """Put files, and those in folders, into an index with the line ends that they have on disk.

    dvc.lock has the checksums of these bytes, but git's settings and `text=auto` may make it change
    line ends. Files for which .gitattributes asks for a change by name are left to git.
    """
    results = set(files)
    listed = git("ls-files", "-z", "--stage", GIT_INDEX_FILE=index).split("\0")
    named = [entry.partition("\t") for entry in listed if entry.startswith("100")]  # no links
    modes = {name: about[:6] for about, _, name in named if is_among(name, results)}
    asked = git("check-attr", "-z", "--stdin", "text", "eol", "filter", stdin="\0".join(modes))
    values = asked.split("\0")[2::3]  # of the three attributes of each file
    attributes = zip(modes, values[::3], values[1::3], values[2::3], strict=True)
    names = [
        name
        for name, text, eol, program in attributes
        if program in UNSET and (text in ("auto", "unset") or {text, eol} <= UNSET)
    ]
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        blobs = git("hash-object", "-w", "--no-filters", "--", *some).split()
        lines = [f"{modes[name]} {blob}\t{name}\0" for name, blob in zip(some, blobs, strict=True)]
        git("update-index", "-z", "--index-info", stdin="".join(lines), GIT_INDEX_FILE=index)


def is_among(path: str, files: set[str]) -> bool:
    """Whether a path is one of these files, or in one of these folders."""
    return not files.isdisjoint((path, *map(str, PurePath(path).parents)))


def commit_on(parent: str, files: list[str], message: str) -> str:
    """A commit with the parent's files and this run's results."""
    tree = tree_with_results(parent, files)
    actor = os.environ.get("GITHUB_ACTOR") or "experiments"
    email = f"{actor}@users.noreply.github.com"
    return git(
        *("commit-tree", tree, "-p", parent, "-F", "-"),
        stdin=message,
        GIT_AUTHOR_NAME=actor,
        GIT_AUTHOR_EMAIL=email,
        GIT_COMMITTER_NAME=actor,
        GIT_COMMITTER_EMAIL=email,
    )


def commit_message(note: dict[str, Any], source: str, not_in_s3: list[str]) -> str:
    """The source commit's subject with -results, changed metrics, and trailers for provenance."""
    subject = git("show", "-s", "--format=%s", source)
    _, rows = metrics_table(Revision(source), Revision(WORK_TREE), scalars_only=True)
    kept, more = cut([row for row in rows if row[1] != row[2]], MAX_METRICS)
    metrics = [f"{one_line(key)[:200]}: {before} -> {after}" for key, before, after, _ in kept]
    body = "\n".join(filter(None, [*metrics, more]))
    trailers = [
        *goal_trailers(note).items(),
        ("Tag", note.get("name")),
        ("Source-Commit", source),
        ("Run-URL", note.get("run_url")),
        ("Not-In-S3", some_of(not_in_s3, MAX_LISTED)),
        *mlflow_trailers(),
    ]
    lines = "\n".join(f"{key}: {value}" for key, value in trailers if value)
    return "\n\n".join(filter(None, (f"{subject}-results", body, lines)))


def goal_trailers(note: dict[str, Any]) -> dict[str, str]:
    """Trailers with the number of goals met, and the titles of those that were missed."""
    goals = note.get("goals") or {}
    missed = [g["title"] for g in goals.get("goals", []) if g["state"] in ("missed", "not judged")]
    summary = str(goals.get("summary", "")).replace(" goals met", " met")
    more = [f"and {len(missed) - MAX_LISTED:,} more"] if missed[MAX_LISTED:] else []
    titles = "; ".join([*missed[:MAX_LISTED], *more])
    return {"Goals": one_line(summary), "Goals-Missed": one_line(titles)}


def mlflow_trailers() -> list[tuple[str, str]]:
    """A trailer with the MLflow run id of each stage that was logged, at most MAX_LISTED.

    git allows only letters, digits and hyphens in a key, so that several stages may share one.
    """
    runs = [(stage, note.get("run_id")) for stage, note in notes.everything().items()]
    keys = [(re.sub("[^A-Za-z0-9]+", "-", stage), run_id) for stage, run_id in runs if run_id]
    return [(f"MLflow-Run-{key}", run_id) for key, run_id in keys[:MAX_LISTED]]


# ---- git, with a token that is never written to disk


def token_settings() -> dict[str, str]:
    """Environment variables for one git command: the token, and a limit for a server that hangs."""
    settings = {}
    server = os.environ.get("GITHUB_SERVER_URL")
    if TOKEN and server:
        basic = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
        settings[f"http.{server}/.extraheader"] = f"AUTHORIZATION: basic {basic}"
    settings |= {"http.lowSpeedLimit": "1", "http.lowSpeedTime": str(SILENCE)}
    others = int(os.environ.get("GIT_CONFIG_COUNT") or 0)  # such as a container's safe.directory
    variables = {"GIT_CONFIG_COUNT": str(others + len(settings)), "GIT_TERMINAL_PROMPT": "0"}
    for number, (key, value) in enumerate(settings.items(), others):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return variables


def ask_server(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a git command, again after a network error; the finished process."""
    for wait in TRIES:
        time.sleep(wait)
        done = ask_git(*arguments, folder=ROOT, **token_settings())
        if not done.returncode or ANSWER.search(done.stderr):
            break
    return done


def fetch(branch: str) -> str:
    """Fetch a branch: its tip on the server, or empty if the branch is gone."""
    ref = f"refs/remotes/origin/{branch}"
    done = ask_server("fetch", "origin", f"+refs/heads/{branch}:{ref}")
    if done.returncode and "couldn't find remote ref" not in done.stderr:
        raise UserError(
            f"git fetch failed: {first_error(done.stderr)}. Data are in S3: re-run this job."
        )
    return "" if done.returncode else git("rev-parse", ref)


def push(commit: str, branch: str) -> str:
    """Push without force; why it was refused or failed, or empty."""
    done = ask_server("push", "origin", f"{commit}:refs/heads/{branch}")
    print(without_password(done.stderr.strip()), flush=True)
    if not done.returncode:
        return ""
    if refusal := REFUSAL.search(done.stderr):
        return f"refuses it: {without_password(refusal[1])}"
    return f"cannot be pushed to: {first_error(done.stderr)}"


def push_aside(note: dict[str, Any], source: str, files: list[str], message: str, why: str) -> None:
    """Push the results to `results/<tag>`, on top of their source commit; else print a patch."""
    commit = commit_on(source, files, message)
    tree = git("rev-parse", f"{commit}^{{tree}}")
    for suffix in ("", *(f"-{n}" for n in range(2, BRANCHES + 1))):
        branch = f"results/{note['name']}{suffix}"
        theirs = fetch(branch)
        if not theirs:
            if pushed := push(commit, branch):
                print_patch(commit, f"{why}; {branch} {pushed}")
            break
        if git("rev-parse", f"{theirs}^{{tree}}") == tree:
            commit = theirs
            break
    else:  # all are taken by earlier runs with other results
        print_patch(commit, f"{why}; {BRANCHES} branches results/{note['name']} exist: delete some")
    add_to_note(shared=branch, results_commit=commit, aside=why)
    print(f"Results are commit {commit[:10]} on {branch}: {why}.")
    summarise(f"> [!NOTE]\n> Results are on `{branch}`, because {why}.\n")


def print_patch(commit: str, why: str) -> NoReturn:
    """Print the commit as a patch that a person can push; always raises UserError."""
    # A form that `git am` accepts, whatever the user's settings are.
    form = ("--no-attach", "--no-base", "--no-cover-letter", "--unified=3")
    prefixes = ("--src-prefix=a/", "--dst-prefix=b/")
    command = ("format-patch", "-1", "--stdout", "--binary", *form, *prefixes, commit)
    done = run_git(*command)
    refuse_error(done.returncode, done.stderr.decode("utf-8", "replace"), command)
    content = done.stdout
    (NOTE.parent / "results.patch").write_bytes(content)
    patch = content.decode("utf-8", "replace").rstrip("\n")
    print(patch, flush=True)
    title = "<details><summary>The results commit</summary>"
    if len(content) < MAX_PAGE_BYTES // 2:
        summarise(f"{title}\n\n```diff\n{patch}\n```\n</details>\n")
    raise UserError(
        f"The results could not be pushed: {why}. Data are in S3, the commit is above as a patch: "
        "save it as results.patch, `git am results.patch`, and push it where you may."
    )


if __name__ == "__main__":
    main(share)
