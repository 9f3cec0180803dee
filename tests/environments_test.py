"""Environments are made once, whole, and by nobody else: `lab/processes/run` and `tools/within`."""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent

PIPFILE = """
[packages]
six = "==1.17.0"

[requires]
python_version = "3.11"
"""
MAIN = """
import sys, six, lib.errors
print("six", six.__version__, sys.prefix, sys.argv[1:])
"""


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A Pipfile.lock for PIPFILE, resolved once."""
    project = copy_project(tmp_path_factory.mktemp("locked"))
    process = project / "lab/processes/small"
    process.mkdir()
    (process / "Pipfile").write_text(PIPFILE)
    done = command(project, project, 'make lock FOLDERS="lab/processes/small"')
    assert (process / "Pipfile.lock").exists(), done.stderr
    return (process / "Pipfile.lock").read_text()


@pytest.fixture
def project(tmp_path, locked):
    """The scripts of this repository around one small process, called small."""
    project = copy_project(tmp_path / "a project with spaces, ünï¢ode")
    process = project / "lab/processes/small"
    process.mkdir()
    (process / "Pipfile").write_text(PIPFILE)
    (process / "Pipfile.lock").write_text(locked)
    (process / "main.py").write_text(MAIN)
    return project


FILES = list((ROOT / "tools/environments").iterdir())


def copy_project(folder):
    environments = [f"tools/environments/{file.name}" for file in FILES if file.is_file()]
    scripts = ["lib/errors.py", "lib/repository.py", "tools/within", "tools/run"]
    for script in (*environments, *scripts, "lab/processes/run", ".env", "Makefile"):
        (folder / script).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / script, folder / script)
    return folder


def environment(data, **extra):
    return {**os.environ, "XDG_DATA_HOME": str(data / "data"), "WORKON_HOME": "", **extra}


def command(project, data, line, **extra):
    return subprocess.run(
        ["sh", "-c", line],
        cwd=project,
        env=environment(data, **extra),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run(project, data, arguments="small", **extra):
    return command(project, data, f"lab/processes/run {arguments}", **extra)


def made(data):
    return sorted(p.name for p in (data / "data/virtualenvs").iterdir() if p.is_dir())


NO_NETWORK = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0"}


def test_a_process_runs_in_the_environment_called_after_its_lock(project, tmp_path, locked):
    done = run(project, tmp_path, "small --flag 'two words'")
    name = "small-" + hashlib.sha256(locked.encode()).hexdigest()[:12]
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("six 1.17.0")
    assert name in done.stdout
    assert "['--flag', 'two words']" in done.stdout
    assert made(tmp_path) == [name]


def test_once_made_it_is_used_without_network_and_by_other_clones(project, tmp_path):
    run(project, tmp_path)
    again = run(project, tmp_path, **NO_NETWORK)
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    clone = shutil.copytree(project, tmp_path / "clone")
    elsewhere = run(clone, tmp_path, **NO_NETWORK)
    assert (elsewhere.returncode, elsewhere.stdout) == (0, again.stdout)


def test_an_unknown_name_lists_the_known_ones(project, tmp_path):
    (project / "lab/processes/shell").mkdir()
    write_executable(project / "lab/processes/shell/main", "#!/bin/sh\n")
    for wrong in ("smal", "", "../processes/small", "."):
        done = run(project, tmp_path, f"'{wrong}'")
        assert done.returncode == 2, f"{wrong!r} was accepted"
        assert "Known: shell small." in done.stderr


def test_a_process_in_another_language_runs_by_the_same_command(project, tmp_path):
    (project / "lab/processes/shell").mkdir()
    script = '#!/bin/sh\necho "$PWD" "$@"\n'
    write_executable(project / "lab/processes/shell/main", script)
    done = run(project, tmp_path, "shell one 'two three'")
    assert done.stdout == f"{project} one two three\n"


def write_executable(path, text):
    path.write_text(text)
    path.chmod(0o755)


def test_a_lock_that_no_longer_fits_its_pipfile_says_make_lock(project, tmp_path):
    run(project, tmp_path)
    pipfile = project / "lab/processes/small/Pipfile"
    pipfile.write_text(PIPFILE.replace("1.17.0", "1.16.0"))
    done = run(project, tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "lab/processes/small/Pipfile.lock no longer fits its Pipfile: run `make lock`."
    )
    pipfile.write_text(PIPFILE + "\n# a comment changes nothing\n")
    assert run(project, tmp_path, **NO_NETWORK).returncode == 0


@pytest.mark.parametrize("text", [None, "", "{}", "<<<<<<< HEAD\n{}\n"])
def test_a_missing_or_broken_lock_says_make_lock(project, tmp_path, text):
    lock = project / "lab/processes/small/Pipfile.lock"
    lock.unlink() if text is None else lock.write_text(text)
    done = run(project, tmp_path)
    assert done.returncode == 1
    assert "run `make lock`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lock_fits_whatever_index_the_site_has(project, tmp_path):
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://site.example/simple\n")
    line = '"$(tools/environments/bootstrap)" -m tools.environments verify'
    done = command(project, tmp_path, line, PIP_CONFIG_FILE=str(tmp_path / "pip.conf"))
    assert done.returncode == 0, done.stderr


def test_a_site_whose_index_is_away_is_told_so_in_a_line(project, tmp_path):
    done = run(project, tmp_path, **NO_NETWORK)
    assert done.returncode == 1
    assert "six==1.17.0" in done.stderr
    assert "pip config list" in done.stderr
    assert "Traceback" not in done.stderr
    assert run(project, tmp_path).returncode == 0, "the next try, with a network, must succeed"


def test_an_install_killed_half_way_is_redone_and_never_used(project, tmp_path):
    first = subprocess.Popen(
        ["lab/processes/run", "small"],
        cwd=project,
        env=environment(tmp_path),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: list(tmp_path.glob("data/virtualenvs/small-*/bin/python")))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    [half] = tmp_path.glob("data/virtualenvs/small-*/")
    assert not (half / "complete").exists()
    (half / "left-over").touch()
    done = run(project, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (half / "left-over").exists()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.01)


def test_two_starts_at_once_make_one_environment(project, tmp_path):
    starts = [
        subprocess.Popen(
            ["lab/processes/run", "small"],
            cwd=project,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    ends = [start.communicate(timeout=300) for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0], ends
    assert len({out for out, _ in ends}) == 1
    [name] = made(tmp_path)
    created = (tmp_path / f"data/virtualenvs/{name}.log").read_text().count("Creating a virtualenv")
    assert created == 1


def test_clean_removes_what_no_lock_names_and_says_how_much_it_freed(project, tmp_path, locked):
    run(project, tmp_path)
    [old] = made(tmp_path)
    lock = project / "lab/processes/small/Pipfile.lock"
    lock.write_text(locked + "\n")
    run(project, tmp_path)
    new = next(name for name in made(tmp_path) if name != old)

    kept = command(project, tmp_path, "make clean")
    assert f"kept {old}" in kept.stdout, "used a moment ago, perhaps by another clone"
    assert "make clean DAYS=0" in kept.stdout
    listed = command(project, tmp_path, "make list").stdout
    assert all(name in listed for name in (old, new))

    removed = command(project, tmp_path, "make clean DAYS=0")
    assert f"removed {old}" in removed.stdout
    assert int(removed.stdout.split()[-3]) > 0, removed.stdout
    assert made(tmp_path) == [new]


def test_without_python_3_11_or_git_one_line_says_what_is_missing(project, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname", "env"):
        (tools / tool).symlink_to(shutil.which(tool))
    nowhere = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": str(tools), "PYTHON": ""}
    no_git = command(project, tmp_path, "tools/environments/bootstrap", **nowhere)
    assert (no_git.returncode, no_git.stderr.count("\n")) == (1, 1)
    assert "git is missing" in no_git.stderr
    write_executable(tools / "git", "#!/bin/sh\n")
    no_python = command(project, tmp_path, "tools/environments/bootstrap", **nowhere)
    assert (no_python.returncode, no_python.stderr.count("\n")) == (1, 1)
    assert "Python 3.11 is missing" in no_python.stderr
    assert "apt install" in no_python.stderr


def test_the_pipenv_of_the_bootstrap_can_be_called_by_hand(project, tmp_path):
    home = str(tmp_path / "a cache, ünï¢ode")
    line = '"$(dirname "$(tools/environments/bootstrap)")/pipenv" --version'
    done = command(project, tmp_path, line, XDG_CACHE_HOME=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pipenv, version")
    assert len(list(Path(home).iterdir())) == 1, "what it was made in is still there"
