"""The commit hooks, installed in a copy of this working tree and used as a user does.

Each test makes a commit or a push with git itself and checks what git did. The copy's tools/within
uses the environment that these tests run in, because its Pipfile.lock is the same.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.project.hooks import CHECKOUT, keep

ROOT = Path(__file__).resolve().parents[1]

Command = Callable[..., subprocess.CompletedProcess[str]]

# git without hooks, for what a test only prepares.
UNHOOKED = ("git", "-c", f"core.hooksPath={os.devnull}")

pytestmark = pytest.mark.integration


def environment(home: Path) -> dict[str, str]:
    """Variables for git and pre-commit, without those of the user or of a surrounding hook."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GIT_", "PRE_COMMIT")) and name != "SKIP"
    }
    return inherited | {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
        "PRE_COMMIT_HOME": str(home / "pre-commit"),
        "PRE_COMMIT_COLOR": "never",
        # Only for the tests about them: each takes seconds.
        "SKIP": "mypy,dvc-status",
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with this working tree as the only commit on main, and the hooks installed."""
    base = tmp_path_factory.mktemp("hooks")
    target = base / "project"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if os.path.lexists(ROOT / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)

    for command in (
        ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(base / "origin.git")],
        ["git", "init", "--quiet", "--initial-branch=main"],
        ["git", "remote", "add", "origin", str(base / "origin.git")],
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "--message=the template"],
        ["tools/within", "--dev", ".", "python", "-m", "tools.project.hooks"],
    ):
        subprocess.run(command, cwd=target, env=environment(base), check=True, capture_output=True)
    return target


@pytest.fixture
def run(project: Path) -> Iterator[Command]:
    """A function that runs a command in the project, on a branch that is deleted afterwards."""

    def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=project,
            env=environment(project.parent) | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    assert run(*UNHOOKED, "switch", "--create", "work", "main").returncode == 0
    yield run
    for undo in (
        "reset --quiet --hard main",
        "clean -dffqx",
        "switch --quiet main",
        "branch -D work",
    ):
        answer = run(*UNHOOKED, *undo.split())
        assert answer.returncode == 0, f"git {undo}: {answer.stdout}"


def commit(run: Command, path: Path, content: str | bytes) -> subprocess.CompletedProcess[str]:
    """The result of `git commit` after this file is written and staged."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert run("git", "add", "--all").returncode == 0
    return run("git", "commit", "--message=a change")


def track(run: Command, path: Path, content: str) -> None:
    """Write a file, add it to DVC, and commit its .dvc file."""
    path.write_text(content)
    added = run("tools/within", ".", "dvc", "add", "--quiet", path.name)
    assert added.returncode == 0, added.stdout
    assert run("git", "add", "--all").returncode == 0
    committed = run("git", "commit", "--quiet", "--message=the data")
    assert committed.returncode == 0, committed.stdout


def commits_since_main(run: Command) -> int:
    """How many commits the branch is ahead of main."""
    return int(run("git", "rev-list", "--count", "main..HEAD").stdout)


def planted_key() -> str:
    """An AWS key that nobody owns, in pieces, so that this file itself is not refused."""
    return "aws_access_key_id = " + "AKIA" + "Z5XQ3MGR" + "VW2T7KPN" + "\n"


def notebook(outputs: list[dict[str, object]]) -> str:
    """A notebook with one cell."""
    cell: dict[str, object] = {
        "cell_type": "code",
        "execution_count": 1 if outputs else None,
        "id": "0",
        "metadata": {},
        "outputs": outputs,
        "source": ["1 + 1"],
    }
    book = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(book, indent=1) + "\n"


def test_a_clean_commit_on_a_branch_passes(run: Command, project: Path) -> None:
    answer = commit(run, project / "notes.md", "# Notes\n")

    assert answer.returncode == 0, answer.stdout
    assert commits_since_main(run) == 1, "git succeeded, but there is no commit"


def test_a_commit_to_main_is_refused(run: Command, project: Path) -> None:
    before = run("git", "rev-parse", "main").stdout
    run(*UNHOOKED, "switch", "main")
    answer = commit(run, project / "notes.md", "# Notes\n")
    after = run("git", "rev-parse", "main").stdout
    run(*UNHOOKED, "switch", "work")

    assert answer.returncode != 0, answer.stdout
    assert after == before, "git failed, but main has moved"


def test_a_planted_key_is_refused_at_a_commit(run: Command, project: Path) -> None:
    answer = commit(run, project / "settings.ini", planted_key())

    assert commits_since_main(run) == 0, answer.stdout
    assert "aws-access-token" in answer.stdout, "it was not refused by gitleaks"


def test_a_refused_key_is_not_printed(run: Command, project: Path) -> None:
    answer = commit(run, project / "settings.ini", planted_key())

    assert planted_key().split()[-1] not in answer.stdout


def test_a_planted_key_in_a_tracked_file_is_found_by_a_check_of_all_files(
    run: Command, project: Path
) -> None:
    with (project / "README.md").open("a") as readme:
        readme.write(planted_key())
    answer = run(sys.executable, "-m", "pre_commit", "run", "--all-files", "gitleaks")

    assert answer.returncode != 0, answer.stdout
    assert "README.md" in answer.stdout, "the finding does not name its file"


def test_the_template_itself_contains_no_secret(run: Command) -> None:
    answer = run(sys.executable, "-m", "pre_commit", "run", "--all-files", "gitleaks")

    assert answer.returncode == 0, answer.stdout


def test_a_file_of_10_mb_is_refused(run: Command, project: Path) -> None:
    answer = commit(run, project / "table.csv", "1,2,3,4\n" * 1_250_000)

    assert commits_since_main(run) == 0, answer.stdout
    assert "table.csv (9766 KB) exceeds" in answer.stdout


def test_a_tracked_file_that_grows_to_10_mb_is_refused(run: Command, project: Path) -> None:
    answer = commit(run, project / "README.md", "1,2,3,4\n" * 1_250_000)

    assert commits_since_main(run) == 0, answer.stdout
    assert "README.md (9766 KB) exceeds" in answer.stdout


def test_a_stale_lock_is_refused(run: Command, project: Path) -> None:
    pipfile = project / "lab/processes/prepare_data/Pipfile"
    changed = pipfile.read_text().replace("[packages]", '[packages]\ncowsay = "*"')
    answer = commit(run, pipfile, changed)

    assert commits_since_main(run) == 0, answer.stdout
    assert "make lock" in answer.stdout, "the refusal does not say what to do"
    assert "lab/processes/prepare_data" in answer.stdout, "the refusal does not name the lock"


def test_a_notebook_is_committed_without_its_outputs(run: Command, project: Path) -> None:
    shown: dict[str, object] = {"name": "stdout", "output_type": "stream", "text": ["2\n"]}
    path = project / "sum.ipynb"
    first = commit(run, path, notebook([shown]))
    second = commit(run, path, path.read_bytes())

    assert first.returncode != 0, "a notebook with outputs was committed"
    assert second.returncode == 0, second.stdout
    assert json.loads(path.read_text()) == json.loads(notebook([]))


def test_a_workflow_that_gives_any_branch_a_secret_is_refused(run: Command, project: Path) -> None:
    file = project / ".github/workflows/experiments.yml"
    answer = commit(run, file, file.read_text().replace('    environment: "experiments"\n', ""))

    assert commits_since_main(run) == 0, answer.stdout
    assert "secrets-outside-env" in answer.stdout


def test_a_merge_mark_is_refused(run: Command, project: Path) -> None:
    answer = commit(run, project / "notes.md", "<" * 7 + " HEAD\nhere\n")

    assert commits_since_main(run) == 0, answer.stdout


def test_a_broken_symlink_is_refused(run: Command, project: Path) -> None:
    (project / "latest").symlink_to("nowhere")
    answer = commit(run, project / "notes.md", "# Notes\n")

    assert commits_since_main(run) == 0, answer.stdout


def test_a_push_passes_with_a_message_if_the_remote_is_not_filled_in(run: Command) -> None:
    answer = run("git", "push", "origin", "work")

    assert answer.returncode == 0, answer.stdout
    assert "the remote in .dvc/config is not filled in yet" in answer.stdout
    assert run("git", "ls-remote", "origin", "work").stdout, "nothing arrived at the origin"


def test_a_push_also_pushes_the_data(run: Command, project: Path, tmp_path: Path) -> None:
    track(run, project / "table.csv", "1,2\n")
    for setting, value in (("remote.here.url", str(tmp_path)), ("core.remote", "here")):
        assert run("tools/within", ".", "dvc", "config", "--local", setting, value).returncode == 0
    answer = run("git", "push", "origin", "work")

    assert answer.returncode == 0, answer.stdout
    kept = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    assert "1,2\n" in kept, answer.stdout


def test_a_checkout_also_checks_out_the_data(run: Command, project: Path) -> None:
    track(run, project / "table.csv", "1,2\n")
    track(run, project / "table.csv", "3,4\n")
    answer = run("git", "checkout", "--quiet", "HEAD~1")
    restored = (project / "table.csv").read_text()
    run(*UNHOOKED, "switch", "work")

    assert answer.returncode == 0, answer.stdout
    assert restored == "1,2\n"


# Files of a branch that a checkout could execute, also in place of the right ones.
PLANTED = {
    ".env": "X=$(touch executed)\n",
    "tools/within": "#!/bin/sh\ntouch executed\n",
    "tools/environments/bootstrap": "#!/bin/sh\ntouch executed\n",
    "dvc.py": "open('executed', 'w')\n",
    "sitecustomize.py": "open('executed', 'w')\n",
    ".venv/bin/python": "#!/bin/sh\ntouch executed\n",
    ".pre-commit-config.yaml": """repos:
  - repo: local
    hooks:
      - {id: x, name: x, entry: touch executed, language: system, stages: [post-checkout],
         always_run: true, pass_filenames: false}
""",
}


def test_checking_out_a_branch_executes_nothing_of_it(run: Command, project: Path) -> None:
    for name, text in PLANTED.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
        (project / name).chmod(0o755)
    run("git", "add", "--all", "--force")
    assert run("git", "commit", "--quiet", "--no-verify", "--message=planted").returncode == 0
    run(*UNHOOKED, "checkout", "--quiet", "--detach", "main")
    answer = run("git", "checkout", "work", PYTHONPATH=".")
    executed = (project / "executed").exists()
    run(*UNHOOKED, "checkout", "--quiet", "--force", "work")

    assert answer.returncode == 0, answer.stdout
    assert not executed, answer.stdout


@pytest.mark.parametrize("way", ["..", ".git"])
def test_checking_out_a_branch_writes_no_data_outside_the_project(
    run: Command, project: Path, way: str
) -> None:
    content = b"what the branch brings"
    md5 = hashlib.md5(content).hexdigest()
    (project / "planted" / "files/md5" / md5[:2]).mkdir(parents=True)
    (project / "planted" / "files/md5" / md5[:2] / md5[2:]).write_bytes(content)
    (project / ".dvc/config").write_text("[cache]\n    dir = ../planted\n")
    (project / "way").symlink_to(way)
    out = {"md5": md5, "size": len(content), "hash": "md5", "path": "way/outside.txt"}
    (project / "evil.dvc").write_text(json.dumps({"outs": [out]}))
    run("git", "add", "--all", "--force")
    assert run("git", "commit", "--quiet", "--no-verify", "--message=planted").returncode == 0
    run(*UNHOOKED, "checkout", "--quiet", "--detach", "main")
    answer = run("git", "checkout", "work")

    found = [
        place for place in (project.parent, project / ".git") if (place / "outside.txt").exists()
    ]
    assert found == [], answer.stdout
    assert "these lead out of the project" in answer.stdout


def test_a_commit_is_followed_by_the_status_of_the_data(run: Command, project: Path) -> None:
    track(run, project / "table.csv", "1,2\n")
    (project / "table.csv").write_text("3,4\n")
    answer = run("git", "commit", "--allow-empty", "--message=a change", SKIP="")

    assert answer.returncode == 0, answer.stdout
    assert "table.csv.dvc" in answer.stdout, "the changed table is not named"


def test_an_experiment_shows_no_status_because_it_would_fail(run: Command) -> None:
    stage = ("stage", "add", "--quiet", "--run", "--name=greet", "--metrics-no-cache=m.json")
    dvc = ("tools/within", "--dev", ".", "dvc")
    run(*dvc, *stage, "echo '{\"a\": 1}' > m.json")
    answer = run(*dvc, "exp", "run", "--name=another", "greet")

    assert answer.returncode == 0, answer.stdout
    assert "Ran experiment(s): another" in answer.stdout
    assert "hook" not in answer.stdout
    assert "error" not in answer.stdout.lower()


def test_a_check_of_all_files_runs_only_the_commit_hooks(run: Command) -> None:
    skipped = "check-added-large-files,locks,mypy,ruff-check,ruff-format"
    answer = run(sys.executable, "-m", "pre_commit", "run", "--all-files", SKIP=skipped)

    assert "dvc" not in answer.stdout


DOCTOR = (
    '"$(tools/environments/bootstrap)" -c "from tools.project import doctor; '
    "doctor.CHECKS = {'hooks': doctor.hooks}; doctor.main()\""  # only this check
)


def test_a_hook_of_the_users_own_is_kept_under_another_name(tmp_path: Path) -> None:
    own = tmp_path / "post-checkout"
    keep(own)
    own.write_text("#!/bin/sh\ngit lfs post-checkout\n")
    keep(own)
    assert not own.exists()
    assert "git lfs" in (tmp_path / "post-checkout.legacy").read_text()
    own.write_text("another\n")
    with pytest.raises(SystemExit, match=r"so is post-checkout\.legacy beside it"):
        keep(own)
    assert "git lfs" in (tmp_path / "post-checkout.legacy").read_text()
    own.write_text(CHECKOUT)
    keep(own)
    assert own.read_text() == CHECKOUT


def test_hooks_in_another_folder_are_reported_with_a_remedy(
    run: Command, project: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "gitconfig"
    settings.write_text(f"[core]\n\thooksPath = {tmp_path}\n")
    variables = {"GIT_CONFIG_GLOBAL": str(settings)}
    hooks = ("tools/within", "--dev", ".", "python", "-m", "tools.project.hooks")
    refused = run(*hooks, **variables)
    asked = run("sh", "-c", DOCTOR, **variables)
    command = shlex.split(refused.stdout.split("`")[1])
    helped = run(*command, **variables)
    installed = run(*hooks, **variables)
    asked_again = run("sh", "-c", DOCTOR, **variables)
    committed = run("git", "commit", "--allow-empty", "--message=a change", **variables)
    run("git", "config", "--unset", "core.hooksPath")

    message = f"git runs the hooks of {tmp_path} (core.hooksPath in {settings}), not this clone's: "
    assert refused.returncode == 1
    assert refused.stdout.startswith(message)
    assert refused.stdout.count("\n") == 1
    assert asked.stdout.startswith(f"--       hooks          {message}")
    assert command[:3] == ["git", "config", "core.hooksPath"]
    assert helped.returncode == installed.returncode == 0, installed.stdout
    assert asked_again.stdout == "ok       hooks          installed\n"
    assert "don't commit to branch" in committed.stdout
