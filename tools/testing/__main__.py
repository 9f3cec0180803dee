"""Tests of processes that have other versions, each in an environment with these: `make test`.

    python -m tools.testing [OPTION...]     of pytest

It is the process's own environment; what tests need beside (pytest, packages of other processes)
comes from the development environment, which this runs in. Where a process has [dev-packages] in
its Pipfile, they come first.
"""

import subprocess
import sys
import sysconfig

import pytest

from lib.repository import ROOT
from tools.command import as_command
from tools.environments.lock_file import read_lock
from tools.testing.plugin import left_out

# At the end: what the process's environment has goes before.
PYTEST = "import sys; sys.path.append(sys.argv.pop(1)); import pytest; sys.exit(pytest.main())"


def main() -> None:
    """The command that the module's docstring shows; ends with an error where a test fails."""
    failed = []
    for folder, differing in left_out().items():
        name = str(folder.relative_to(ROOT))  # so for pytest, which splits a path at a bracket
        print(f"\nTests of {name}, which has {differing}", flush=True)
        if run(name, sys.argv[1:]) not in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            failed.append(name)
    if failed:
        sys.exit(f"Tests failed in {', '.join(failed)}.")


def run(folder: str, options: list[str]) -> int:
    """The exit code of pytest for a process's tests."""
    dev = ["--dev"] if read_lock(ROOT / folder)["develop"] else []
    within = [f"{ROOT}/tools/within", *dev, folder]
    command = ["python", "-c", PYTEST, sysconfig.get_path("purelib"), folder, *options]
    return subprocess.run([*within, *command], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    as_command(main)
