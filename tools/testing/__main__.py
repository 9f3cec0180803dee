"""Tests processes whose versions differ from the root's, each in its own environment: `make test`.

    python -m tools.testing [OPTION...]     options of pytest

What the tests need besides (pytest, packages of other processes) comes from the development
environment, which this runs in; [dev-packages] in a process's Pipfile take precedence.
"""

import subprocess
import sys
import sysconfig

import pytest

from lib.repository import ROOT
from tools.command import as_command
from tools.environments.lock_file import read_lock
from tools.testing.plugin import left_out

# Appended to sys.path: packages of the process's environment take precedence.
PYTEST = "import sys; sys.path.append(sys.argv.pop(1)); import pytest; sys.exit(pytest.main())"


def main() -> None:
    """Run the tests of each such process; exit with an error if any fails."""
    failed = []
    for folder, differing in left_out().items():
        name = str(folder.relative_to(ROOT))  # pytest splits an absolute one at a bracket
        print(f"\nTests of {name}, which has {differing}", flush=True)
        if run(name, sys.argv[1:]) not in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            failed.append(name)
    if failed:
        sys.exit(f"Tests failed in {', '.join(failed)}.")


def run(folder: str, options: list[str]) -> int:
    """Run pytest on a process's folder; the exit code."""
    dev = ["--dev"] if read_lock(ROOT / folder)["develop"] else []
    within = [f"{ROOT}/tools/within", *dev, folder]
    command = ["python", "-c", PYTEST, sysconfig.get_path("purelib"), folder, *options]
    return subprocess.run([*within, *command], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    as_command(main)
