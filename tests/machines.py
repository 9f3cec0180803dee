"""What tests in containers and on other systems share; `make test-containers` runs them."""

import os
import shutil
import subprocess
from typing import Any

import pytest


def asked_for(*programs: str, as_root: bool = True) -> pytest.MarkDecorator:
    """A mark that skips tests if they were not asked for, or one of these programs is missing."""
    why = why_not(programs, as_root)
    return pytest.mark.skipif(bool(why), reason=why)


def why_not(programs: tuple[str, ...], as_root: bool) -> str:
    """Why this machine cannot run such tests; empty if it can."""
    if os.environ.get("TEST_CONTAINERS") != "yes":
        return "make test-containers"
    if absent := [program for program in programs if not shutil.which(program)]:
        return f"no {', '.join(absent)}"
    if not as_root:
        return ""
    if os.geteuid():
        return "only root can make the base system"
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        return "even root cannot create a namespace here"
    return "" if debian_mirror() else "apt-get knows no mirror of Debian"


def debian_mirror() -> str:
    """The address that this machine's own packages come from; empty if it is not Debian."""
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE)"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")
    return next((line.split()[1] for line in listed if line.startswith("Debian ")), "")


def pip_settings() -> dict[str, str]:
    """This machine's settings of pip that are also valid in another system, by name."""
    listed = run("python3", "-m", "pip", "config", "list").splitlines()
    pairs = [line.partition("=")[::2] for line in listed]
    found = {name.rpartition(".")[2]: value.strip("'") for name, value in pairs}
    return {k: v for k, v in found.items() if k not in ("constraint", "user", "target")}


def run(*command: str, **options: Any) -> str:
    """The output of a command, which must succeed."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
