"""Keeps a run's results where everyone finds them, in the order that can lose nothing.

1. Data go to S3. Only when all are there does git learn of them.
2. A commit with dvc.lock and metrics goes on top of the branch, as it is by now. Nothing is forced.
3. Where the branch has got other results meanwhile, or refuses the push, the commit goes to
   `results/<tag>`; where that is refused too, it is printed as a patch.
"""

import base64
import json
import os
import tempfile
import time
from pathlib import Path

from job import (
    NOTE,
    ROOT,
    JobError,
    add_to_note,
    changes,
    git,
    last_line,
    main,
    metrics_at,
    read_note,
    result_files,
    run,
    shown,
    summarise,
)

PUSHES = 5  # of git, when the branch moves on between fetch and push
UPLOADS = (0, 5, 15)  # seconds before each try


def share() -> None:
    """Push data, then a commit with the results; say where they went."""
    note = read_note()
    source = git("rev-parse", "HEAD")
    files = result_files()
    push_data()
    if not changed(source, files):
        add_to_note(shared="nothing changed")
        print("Nothing changed: there is nothing to commit.")
        return
    message = commit_message(note, source)
    branch = str(note["branch"])
    for _ in range(PUSHES):
        tip = fetch(branch)
        if tip and not changed(tip, files):
            add_to_note(shared=f"{branch} has these very results already")
            print(f"Nothing changed: {branch} has these very results already.")
            return
        if not tip or differ(source, tip, files):
            why = "got other results meanwhile" if tip else "is gone"
            keep_aside(note, source, files, message, f"{branch} {why}")
            return
        commit = commit_on(tip, files, message)
        pushed = push(commit, branch)
        if not pushed:
            add_to_note(shared=branch, results_commit=commit)
            print(f"Results are commit {commit[:10]} on {branch}.")
            return
        if fetch(branch) == tip:  # nobody was faster: the server does not want it
            keep_aside(note, source, files, message, f"{branch} refuses it: {pushed}")
            return
    keep_aside(note, source, files, message, f"{branch} moves on faster than results can follow")


# ---- data


def push_data() -> None:
    """`dvc push`, retried; JobError where S3 has not got everything in the end."""
    for wait in UPLOADS:
        time.sleep(wait)
        done = run("dvc", "push", ok=False, AWS_MAX_ATTEMPTS="2")  # retried here, and told
        print((done.stdout + done.stderr).strip(), flush=True)
        if done.returncode == 0:
            return
    raise JobError(
        f"Data could not be pushed to S3: {last_line(done.stderr)} Nothing was committed. Re-run "
        "this job when S3 is back: finished stages come from the runner's cache."
    )


# ---- the commit


def changed(source: str, files: list[str]) -> bool:
    """Whether results in the work tree differ from the commit that was run."""
    with index_at(source) as index:
        git("add", "--force", "--", *existing(files), GIT_INDEX_FILE=index)
        return git("write-tree", GIT_INDEX_FILE=index) != git("rev-parse", f"{source}^{{tree}}")


def existing(files: list[str]) -> list[str]:
    """Those that are in the work tree."""
    return [file for file in files if (ROOT / file).exists()]


def differ(old: str, new: str, files: list[str]) -> bool:
    """Whether any result file differs between two commits."""
    return run("git", "diff", "--quiet", old, new, "--", *files, ok=False).returncode != 0


class index_at:  # noqa: N801 # reads as a phrase
    """An index file of its own at a commit: commits are made beside work tree and HEAD."""

    def __init__(self, commit: str) -> None:
        self.commit = commit

    def __enter__(self) -> str:
        self.folder = tempfile.TemporaryDirectory()
        index = str(Path(self.folder.name) / "index")
        git("read-tree", self.commit, GIT_INDEX_FILE=index)
        return index

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()


def commit_on(parent: str, files: list[str], message: str) -> str:
    """A commit with the parent's files and this run's results."""
    with index_at(parent) as index:
        git("add", "--force", "--", *existing(files), GIT_INDEX_FILE=index)
        tree = git("write-tree", GIT_INDEX_FILE=index)
    actor = os.environ.get("GITHUB_ACTOR") or "experiments"
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", actor), ("EMAIL", f"{actor}@users.noreply.github.com"))
    }
    return git("commit-tree", tree, "-p", parent, "-m", message, **identity)


def commit_message(note: dict[str, object], source: str) -> str:
    """Subject of the source commit with -results, metrics before and after, where it came from."""
    subject = git("show", "-s", "--format=%s", source)
    rows = changes(metrics_at(source), metrics_at(""))
    body = "\n".join(f"{key}: {shown(before)} -> {shown(after)}" for key, before, after in rows)
    trailers = {
        **goal_trailers(note),
        "Tag": note.get("name"),
        "Source-Commit": source,
        "Run-URL": note.get("run_url"),
        **{f"MLflow-Run-{stage}": run_id for stage, run_id in mlflow_runs().items()},
    }
    lines = "\n".join(f"{key}: {value}" for key, value in trailers.items() if value)
    return "\n\n".join(filter(None, (f"{subject}-results", body, lines)))


def goal_trailers(note: dict[str, object]) -> dict[str, str]:
    """How the goals were met, and the titles of those that were not."""
    goals = dict(note.get("goals") or {})  # type: ignore[call-overload]
    missed = [g["title"] for g in goals.get("goals", []) if g["state"] in ("missed", "not judged")]
    summary = str(goals.get("summary", "")).replace(" goals met", " met")
    return {"Goals": summary, "Goals-Missed": "; ".join(missed)}


def mlflow_runs() -> dict[str, str]:
    """The run's id in MLflow for each stage that was logged here."""
    notes = sorted((ROOT / ".mlflow").glob("*.json"))
    found = {note.stem: json.loads(note.read_text()).get("run_id", "") for note in notes}
    return {stage.replace("_", "-"): run_id for stage, run_id in found.items() if run_id}


# ---- git, with a token that is on no disk


def with_token() -> dict[str, str]:
    """Settings that let one git command use the token."""
    token, server = os.environ.get("GIT_TOKEN"), os.environ.get("GITHUB_SERVER_URL")
    if not token or not server:
        return {}
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{server}/.extraheader",
        "GIT_CONFIG_VALUE_0": f"AUTHORIZATION: basic {basic}",
        "GIT_TERMINAL_PROMPT": "0",
    }


def fetch(branch: str) -> str:
    """The branch's newest commit on the server, or nothing where the branch is gone."""
    ref = f"refs/remotes/origin/{branch}"
    done = run("git", "fetch", "origin", f"+refs/heads/{branch}:{ref}", ok=False, **with_token())
    if done.returncode and "couldn't find remote ref" not in done.stderr:
        raise JobError(
            f"git fetch failed: {last_line(done.stderr)} Data are in S3: re-run this job."
        )
    return "" if done.returncode else git("rev-parse", ref)


def push(commit: str, branch: str) -> str:
    """Push without force; what the server said where it refused."""
    where = f"{commit}:refs/heads/{branch}"
    done = run("git", "push", "origin", where, ok=False, **with_token())
    print(done.stderr.strip(), flush=True)
    return last_line(done.stderr) if done.returncode else ""


def keep_aside(
    note: dict[str, object], source: str, files: list[str], message: str, why: str
) -> None:
    """The results on `results/<tag>`, on the commit that they belong to; else as a patch."""
    commit = commit_on(source, files, message)
    for suffix in ("", *(f"-{n}" for n in range(2, 10))):
        branch = f"results/{note['name']}{suffix}"
        theirs = fetch(branch)
        if theirs and git("rev-parse", f"{theirs}^{{tree}}") == git(
            "rev-parse", f"{commit}^{{tree}}"
        ):
            break
        if theirs:
            continue  # an earlier run's, with other results
        if refused := push(commit, branch):
            as_patch(commit, f"{why}; {branch} is refused too: {refused}")
        break
    add_to_note(shared=branch, results_commit=commit, aside=why)
    print(f"Results are commit {commit[:10]} on {branch}: {why}.")
    summarise(f"> [!NOTE]\n> Results are on `{branch}`, because {why}.\n")


def as_patch(commit: str, why: str) -> None:
    """Print the commit, so that a person can finish; always raises JobError."""
    patch = git("format-patch", "-1", "--stdout", commit)
    (NOTE.parent / "results.patch").write_text(patch + "\n")
    print(patch, flush=True)
    summarise(
        f"<details><summary>The results commit</summary>\n\n```diff\n{patch}\n```\n</details>\n"
    )
    raise JobError(
        f"The results could not be pushed: {why}. Data are in S3, the commit is above as a patch: "
        "save it as results.patch, `git am results.patch`, and push it where you may."
    )


if __name__ == "__main__":
    main(share)
