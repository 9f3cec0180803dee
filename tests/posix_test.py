"""Scripts, make and hooks with busybox's tools in place of GNU's: nothing needs more than POSIX.

The exception is the sandbox, which says so. `make test-containers` installs busybox.
"""

import shutil
import subprocess

import pytest

from tests.machines import asked_for

pytestmark = [pytest.mark.integration, asked_for("busybox", as_root=False)]

# Programs that neither POSIX nor the project has: taken from this machine.
PROGRAMS = ("bash", "git", "make", "python3.11")  # the hooks of pre-commit start with bash


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A PATH with only busybox's tools and the programs that a project needs."""
    folder = tmp_path_factory.mktemp("bin")
    busybox = shutil.which("busybox")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        (folder / name).symlink_to(busybox)
    for name in PROGRAMS:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(f'#!/bin/sh\nexec "{shutil.which(name)}" "$@"\n')
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def test_the_bootstrap_makes_its_interpreter(project, tools, tmp_path):
    output = project.run(
        "tools/environments/bootstrap", **tools, XDG_CACHE_HOME=str(tmp_path / "c")
    )
    assert output.splitlines()[-1].startswith(str(tmp_path / "c/bootstrap-"))


def test_a_process_runs_and_make_shows_its_results(finished, tools, tmp_path):
    project = finished.copied(tmp_path / "copy")
    shutil.rmtree(project.folder / "data/processed")
    output = project.run("make", "run", **tools)
    assert "Running stage 'prepare_data'" in output
    assert "MLflow: already logged" in output
    assert "accuracy" in project.run("make", "results", **tools)
    assert "Every day" in project.run("make", **tools)
    assert "in use here" in project.run("make", "list", **tools)
    assert "Interpreter: " in project.run("make", "setup", **tools)
    assert (project.folder / ".venv/bin/python").exists()
    assert "no process is called 'none'" in project.run(
        "lab/processes/run", "none", ok=False, **tools
    )


def test_the_hooks_check_a_commit(project, tools):
    project.run("make", "hooks", **tools)
    (project.folder / "notes.md").write_text("A line \n")
    project.git("add", "--all")
    output = project.run("git", "commit", "--message", "Notes", ok=False, **tools)
    assert "trim trailing whitespace" in output
    assert "Failed" in output
    project.git("add", "--all")
    project.run("git", "commit", "--message", "Notes", **tools)
    assert project.run("git", "status", "--short", **tools) == ""


@asked_for("unshare")
@pytest.mark.parametrize("target", ["sandbox", "sandbox-down"])
def test_without_proc_as_on_a_mac_the_sandbox_says_what_it_needs(project, target):
    hidden = f"mount -t tmpfs none /proc && exec make {target}"
    output = project.run("unshare", "--mount", "sh", "-c", hidden, ok=False)
    assert "sandbox: it needs Linux" in output
    assert not (project.folder / ".sandbox").exists()
