"""The repository's root, and git commands in it."""

import io
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from lib.errors import UserError
from lib.text import last_line

ROOT = Path(__file__).resolve().parent.parent

# Set inside git hooks for the hook's own repository, which may not be the one meant here.
OF_A_HOOK = """GIT_DIR GIT_WORK_TREE GIT_COMMON_DIR GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_PREFIX
    GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_QUARANTINE_PATH GIT_NAMESPACE GIT_CONFIG_PARAMETERS"""
# User settings that change git's output or how it reads paths.
OF_A_USER = "GIT_EXTERNAL_DIFF GIT_DIFF_OPTS GIT_GLOB_PATHSPECS GIT_ICASE_PATHSPECS"
# English messages, as they are parsed; paths taken literally; and no optional writes, so that
# queries work on a full disk and beside the user's own commands.
OURS = {"LC_ALL": "C.UTF-8", "LANGUAGE": ""}
OURS |= {"GIT_LITERAL_PATHSPECS": "1", "GIT_OPTIONAL_LOCKS": "0"}
# Default values for the settings with which users change git's output. Programs that a clone,
# commit or branch may have brought along, such as hooks, are not run.
SETTINGS = f"""core.hooksPath={os.devnull} core.fsmonitor=false
    color.ui=false column.ui=never core.quotePath=false i18n.commitEncoding=UTF-8
    i18n.logOutputEncoding=UTF-8 log.follow=false log.showSignature=false push.followTags=false
    push.gpgSign=false safe.bareRepository=all status.relativePaths=false status.renames=false
    status.showUntrackedFiles=normal submodule.recurse=false trailer.separators=:"""

AT_ONCE = 500  # paths per command line
BYTES = ("utf-8", "surrogateescape")  # how Python decodes file names of any bytes


class GitError(UserError):
    """git failed; the message is its last line."""


def git(*arguments: str, folder: Path = ROOT, stdin: str = "", **variables: str) -> str:
    """The output of git, without the newline at the end; invalid UTF-8 is replaced.

    Args:
        arguments: of git.
        folder: the working directory.
        stdin: its standard input, for lists that may be too long for a command line.
        variables: further environment variables.

    Raises:
        GitError: git is missing or fails.
    """
    done = ask_git(*arguments, folder=folder, stdin=stdin, **variables)
    refuse_error(done.returncode, done.stderr, arguments)
    return done.stdout.rstrip("\n")


def refuse_error(code: int, stderr: str, arguments: Sequence[str]) -> None:
    """GitError if git has failed."""
    if code:
        command = next(word for word in arguments if word[:1] != "-" and "=" not in word)
        raise GitError(f"git {command}: {last_line(stderr)}")


def git_or_nothing(*arguments: str, folder: Path = ROOT) -> str:
    """The output of git; empty if it fails (no repository, no such commit)."""
    try:
        return git(*arguments, folder=folder)
    except GitError:
        return ""


def ask_git(
    *arguments: str, folder: Path = ROOT, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run git; the finished process with text output, whose exit code the caller checks."""
    done = run_git(*arguments, folder=folder, stdin=stdin, **variables)
    texts = (output.decode("utf-8", "replace") for output in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, *texts)


def run_git(
    *arguments: str, folder: Path = ROOT, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run git, whatever the user's settings are; the finished process with output as bytes."""
    settings = [word for setting in SETTINGS.split() for word in ("-c", setting)]
    unset = {*OF_A_HOOK.split(), *OF_A_USER.split()}
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    try:
        return subprocess.run(
            ["git", *settings, *arguments],
            cwd=folder,
            env=inherited | OURS | variables,
            input=stdin.encode(*BYTES),
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise GitError("git is missing: install it.") from None


def git_names(*arguments: str, folder: Path = ROOT) -> list[str]:
    """The paths that git prints with -z; names of any bytes can be opened.

    Raises:
        GitError: as `git` does.
    """
    done = run_git(*arguments, folder=folder)
    refuse_error(done.returncode, done.stderr.decode("utf-8", "replace"), arguments)
    return [name for name in done.stdout.decode(*BYTES).split("\0") if name]


def uncommitted(paths: Iterable[str], *options: str, folder: Path = ROOT) -> list[str]:
    """The paths among or below these that differ from the last commit.

    Raises:
        GitError: as `git` does.
    """
    asked, found = list(paths), []
    for start in range(0, len(asked), AT_ONCE):
        some = asked[start : start + AT_ONCE]
        listed = git_names("status", "--porcelain", "-z", *options, "--", *some, folder=folder)
        found += [entry[3:] for entry in listed]
    return found


def files_at(commit: str, paths: Sequence[str], folder: Path = ROOT) -> dict[str, bytes]:
    """The content of each of these files in a commit; missing files are left out."""
    asked = [path for path in paths if "\n" not in path]
    stdin = "".join(f"{commit}:{path}\n" for path in asked)
    done = run_git("cat-file", "--batch", folder=folder, stdin=stdin)
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
