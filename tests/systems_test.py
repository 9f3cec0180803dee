"""The project on other systems, from `git clone` to results, for a user who is not root.

Root file systems of Debian 13, which has only Python 3.13, and of Debian 12 without python3-venv
are made with debootstrap from the mirror of this machine's own packages.
`make test-containers` runs these, as root.
"""

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.machines import asked_for, debian_mirror, pip_settings, run
from tests.mirror import make_mirror

pytestmark = [pytest.mark.integration, asked_for("debootstrap")]

PACKAGES = "ca-certificates,git,make,python3,python3-pip"
SEEN = ("/proc", "/sys", "/dev", "/etc/ssl/certs", "/etc/resolv.conf", "/etc/hosts")
# Mounts exist only for this command.
ENTER = """
set -e
root=$1
while [ "$2" != -- ]; do
    mount --rbind "$2" "$root$2"
    shift
done
shift 2
exec chroot --userspec=1000:1000 "$root" "$@"
"""


class System:
    """A root file system with a user, in whose home folder the project is cloned."""

    def __init__(self, root: Path, release: str) -> None:
        self.root = root
        made = ("debootstrap", "--variant=minbase", f"--include={PACKAGES}", release, str(root))
        run("unshare", "--mount", *made, debian_mirror())
        run("chroot", str(root), "useradd", "--create-home", "--uid", "1000", "someone")
        self.settings = {
            f"PIP_{name.upper().replace('-', '_')}": value for name, value in pip_settings().items()
        }
        self.settings |= {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
        # Folders that the settings name must be visible from inside, too.
        named = " ".join(self.settings.values()).replace("file://", "").replace(",", " ").split()
        folders = {f"/{Path(place).parts[1]}" for place in named if Path(place).is_absolute()}
        self.seen = [*SEEN, *sorted(folders - {"/etc", "/usr"})]
        for place in self.seen:
            inside = Path(f"{root}{place}")
            if Path(place).is_dir():
                inside.mkdir(parents=True, exist_ok=True)
            else:
                inside.touch()

    def someone(self, script: str) -> str:
        """The output of a script that the user runs in the clone."""
        user = {
            "HOME": "/home/someone",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            **{f"GIT_{who}_NAME": "Someone" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "someone@example.org" for who in ("AUTHOR", "COMMITTER")},
        }
        variables = [f"{name}={value}" for name, value in (user | self.settings).items()]
        here = "mkdir -p ~/project && cd ~/project\n"
        enter = ("unshare", "--mount", "sh", "-c", ENTER, "sh", str(self.root), *self.seen, "--")
        return run(*enter, "env", "-i", *variables, "sh", "-ec", here + script)

    def clone(self, project: Project) -> None:
        """Give the user a clone of the project."""
        project.git("clone", "--quiet", "--bare", ".", f"{self.root}/origin.git")
        self.someone(
            "git config --global --add safe.directory /origin.git\ngit clone --quiet /origin.git ."
        )


@pytest.fixture(params=["trixie", "bookworm"])
def system(request, tmp_path):
    found = System(tmp_path / "root", request.param)
    yield found
    shutil.rmtree(found.root)


def test_a_clone_reaches_results_and_its_unit_tests_pass(system, project):
    system.clone(project)
    user, python = system.someone("id -un; python3 --version").splitlines()
    assert user == "someone"
    assert system.someone("python3 -m venv /tmp/it 2>&1 || echo fails").endswith("fails\n")
    has_3_11 = python.startswith("Python 3.11.")
    if not has_3_11:
        variables = make_mirror(system.root / "mirror")
        inside = {n: v.replace(str(system.root), "") for n, v in variables.items()}
        system.settings |= inside
    output = system.someone("make run 2>&1")
    assert ("Python 3.11: uv gets it" in output) != has_3_11
    assert "MLflow: logged: run export_models" in output
    assert " passed" in system.someone(
        "tools/within --dev . python -m pytest -q -m unittest lab lib runtimes 2>&1"
    )
