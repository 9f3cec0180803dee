"""How environments get Python 3.11, on machines that have it, another version, or none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.mirror import make_mirror

pytestmark = pytest.mark.integration

SCRIPT = ROOT / "tools/environments/python"
PROGRAMS = ("sh", "dirname", "env", "mkdir", "mktemp", "rm", "sed", "tail", "uname")
UV = Path(
    subprocess.run(
        [ROOT / "tools/environments/bootstrap"], capture_output=True, text=True, check=True
    ).stdout.strip()
).with_name("uv")


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return make_mirror(tmp_path_factory.mktemp("mirror"))


class Machine:
    """A machine that has only these programs."""

    def __init__(self, folder):
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        for name in PROGRAMS:
            (self.bin / name).symlink_to(shutil.which(name))

    def has(self, name, script):
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def python(self, **extra):
        """The finished script, with its output and errors."""
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        own = {"PATH": str(self.bin), "HOME": str(self.folder)}
        return subprocess.run(
            [SCRIPT], env=kept | own | extra, capture_output=True, text=True, check=False
        )


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def version(python):
    code = "import sys, ssl, ensurepip; print(*sys.version_info[:2])"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout


def test_an_installed_python_3_11_is_used(machine):
    machine.has("python3", f'exec "{sys.executable}" "$@"')
    done = machine.python()
    assert (done.stdout, done.stderr) == ("python3\n", "")


def test_without_any_python_uv_gets_one_and_the_next_start_finds_it(machine, mirror):
    (machine.bin / "uv").symlink_to(UV)
    done = machine.python(**mirror)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(machine.folder / ".local/share/uv/python/cpython-3.11"))
    assert version(done.stdout.strip()) == "3 11\n"
    assert not (machine.folder / ".local/bin").exists(), "no command of the user's is replaced"
    (machine.bin / "uv").unlink()
    again = machine.python()
    assert (again.stdout, again.stderr) == (done.stdout, "")


def test_the_python_of_pipx_works(machine):
    machine.has("pipx", f'[ "$1 $2" = "environment --value" ] && echo "{sys.executable}"')
    assert machine.python().stdout == f"{sys.executable}\n"


def old_python():
    """A Python of this machine from 3.8 on that is not 3.11."""
    code = "import sys; sys.exit(not (3, 8) <= sys.version_info[:2] != (3, 11))"
    names = [f"python3.{minor}" for minor in (8, 9, 10, 12, 13, 14)]
    places = [shutil.which(name) for name in names]
    # Version managers keep all of theirs in one folder, wherever HOME is.
    places += sorted(map(str, Path(sys.base_prefix).parent.glob("*3.*/bin/python3")))
    for place in filter(None, places):
        if not subprocess.run([place, "-c", code], capture_output=True, check=False).returncode:
            return place
    return None


@pytest.mark.skipif(not old_python(), reason="this machine has no Python but 3.11")
@pytest.mark.parametrize("broken", ["", "venv"])
def test_another_python_installs_uv_with_its_venv_module_or_its_pip(machine, mirror, broken):
    refuse = f'[ "$2 $3" != "-m {broken}" ] || exit 1\n' if broken else ""
    machine.has("python3", f'{refuse}exec "{old_python()}" "$@"')
    done = machine.python(**mirror)
    assert done.returncode == 0, done.stderr
    assert version(done.stdout.strip()) == "3 11\n"
    assert list((machine.folder / ".cache").glob("python.*")) == []


@pytest.mark.parametrize(
    ("system", "todo"),
    [
        ("ID=debian\nVERSION_ID=12", "apt install python3.11-venv"),
        ("ID=debian\nVERSION_ID=13", "apt install python3-venv"),
        ("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=22.04", "apt install python3.11-venv"),
        (
            "ID=linuxmint\nID_LIKE='ubuntu debian'\nVERSION_ID=22",
            "add-apt-repository ppa:deadsnakes",
        ),
        ("ID=fedora\nVERSION_ID=43", "dnf install python3.11"),
        ("ID=rocky\nID_LIKE='rhel centos fedora'", "dnf install python3.11"),
        ("ID=arch", "pyenv install 3.11"),
        ("Darwin", "brew install python@3.11"),
    ],
)
def test_without_a_python_one_line_says_what_this_system_needs(machine, system, todo):
    if system == "Darwin":
        machine.has("uname", "echo Darwin")
        system = ""
    release = machine.folder / "os-release"
    release.write_text(system)
    done = machine.python(OS_RELEASE=str(release))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("Python 3.11 with its venv module is missing (python3 is not there)")
    assert f"run '{todo}" in line


def test_a_python_without_pip_and_venv_says_what_to_install(machine):
    refuse = (
        '[ "$2" = -c ] && case $3 in *ensurepip*|*pip*) exit 1 ;; esac\n[ "$2" != -m ] || exit 1\n'
    )
    machine.has("python3", f'{refuse}exec "{sys.executable}" "$@"')
    (machine.folder / "os-release").write_text("ID=debian\nVERSION_ID=13")
    done = machine.python(OS_RELEASE=str(machine.folder / "os-release"))
    [line] = done.stderr.splitlines()
    assert "python3 has neither pip nor a venv module" in line
    assert "apt install python3-venv" in line


def test_a_mirror_without_the_file_gives_one_line(machine, tmp_path):
    (machine.bin / "uv").symlink_to(UV)
    (tmp_path / "os-release").write_text("ID=debian\nVERSION_ID=13")
    empty = {"UV_PYTHON_INSTALL_MIRROR": tmp_path.as_uri()}
    done = machine.python(OS_RELEASE=str(tmp_path / "os-release"), **empty)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "uv could not get it (" in line
    assert "No such file" in line
    assert "UV_PYTHON_INSTALL_MIRROR" in line
