"""The repository: where it is, and what git answers."""

import io
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lib.errors import UserError

ROOT = Path(__file__).resolve().parent.parent

# Set in hooks: which repository git is at work on there. Another may be meant here.
OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_QUARANTINE_PATH", "GIT_PREFIX")


# Whatever a clone, a commit or a branch has brought along, no program of its is run by ours.
NO_HOOKS = ("-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false")


class GitError(UserError):
    """git refused; the message is its own last line."""


def git(*arguments: str, folder: Path = ROOT, stdin: str = "", **variables: str) -> str:
    """What git prints, without the newline at its end; bytes that are no text are replaced.

    Args:
        arguments: of git, as typed.
        folder: where it is called.
        stdin: its standard input, for what may be longer than a command line.
        variables: of its environment, beside those that are set.

    Raises:
        GitError: git is missing or ends with an error.
    """
    done = ask_git(*arguments, folder=folder, stdin=stdin, **variables)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it ended without a message"]
        command = next(word for word in arguments if word[:1] != "-")
        raise GitError(f"git {command}: {lines[-1]}")
    return done.stdout.rstrip("\n")


def git_or_nothing(*arguments: str, folder: Path = ROOT) -> str:
    """What git prints; an empty string where it cannot answer (no repository, no such commit)."""
    try:
        return git(*arguments, folder=folder)
    except GitError:
        return ""


def ask_git(
    *arguments: str, folder: Path = ROOT, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """The finished command, for those who look at its exit code."""
    inherited = {name: value for name, value in os.environ.items() if name not in OF_A_HOOK}
    try:
        return subprocess.run(
            ["git", *NO_HOOKS, *arguments],
            cwd=folder,
            env=inherited | variables,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise GitError("git is missing: install it.") from None


def files_at(commit: str, paths: Sequence[str], folder: Path = ROOT) -> dict[str, bytes]:
    """The content of each of these files in a commit; those that it does not have are left out."""
    asked = [path for path in paths if "\n" not in path]
    done = subprocess.run(
        ["git", *NO_HOOKS, "cat-file", "--batch"],
        cwd=folder,
        input="".join(f"{commit}:{path}\n" for path in asked).encode("utf-8", "surrogateescape"),
        capture_output=True,
        check=False,
    )
    found, answer = {}, io.BytesIO(done.stdout)
    for path in asked:
        header = answer.readline()
        if header.endswith(b" missing\n") or not header:
            continue
        _, kind, size = header.split()
        content = answer.read(int(size) + 1)[:-1]
        if kind == b"blob":
            found[path] = content
    return found
