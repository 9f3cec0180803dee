"""What tests in containers and on other systems share; `make test-containers` runs them."""

import os
import shutil
import subprocess
from typing import Any

import pytest


def asked_for(*programs: str, as_root: bool = True) -> pytest.MarkDecorator:
    """The mark of tests that need these programs: skips them where they are not asked for."""
    why = why_not(programs, as_root)
    return pytest.mark.skipif(bool(why), reason=why)


def why_not(programs: tuple[str, ...], as_root: bool) -> str:
    """Why this machine does not run them."""
    if os.environ.get("TEST_CONTAINERS") != "yes":
        return "make test-containers"
    if absent := [program for program in programs if not shutil.which(program)]:
        return f"no {', '.join(absent)}"
    if not as_root:
        return ""
    if os.geteuid():
        return "root alone can make the base"
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        return "not even root may make a namespace here"
    return "" if debian_mirror() else "apt-get knows no mirror of Debian"


def debian_mirror() -> str:
    """Where this machine's own packages come from."""
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE)"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")
    return next((line.split()[1] for line in listed if line.startswith("Debian ")), "")


def pip_settings() -> dict[str, str]:
    """Those of this machine's pip that hold in another system as well, by name."""
    listed = run("python3", "-m", "pip", "config", "list").splitlines()
    pairs = [line.partition("=")[::2] for line in listed]
    found = {name.rpartition(".")[2]: value.strip("'") for name, value in pairs}
    return {k: v for k, v in found.items() if k not in ("constraint", "user", "target")}


def run(*command: str, **options: Any) -> str:
    """What a command prints, which must end well."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
