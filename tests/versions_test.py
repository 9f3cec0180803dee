"""A process may have its own version of a package, and is tested with it."""

import json

import pytest

from tests.conftest import Project

pytestmark = pytest.mark.integration

# The root, where tests run, has a later version.
PIPFILE = """[packages]
tqdm = "==4.66.5"

[requires]
python_version = "3.11"
"""
# Neither joblib nor pytest, which provides a fixture, is one of its packages.
TEST = """import joblib
import pytest
import tqdm

pytestmark = pytest.mark.unittest


def test_its_version_is_here_and_what_else_tests_need(tmp_path):
    assert tqdm.__version__ == "4.66.5"
    assert joblib.__version__
"""
NEIGHBOUR = """import pytest
import tqdm

pytestmark = pytest.mark.unittest


def test_the_roots_version_is_here():
    assert tqdm.__version__ != "4.66.5"
"""
PYTEST = ("tools/within", "--dev", ".", "python", "-m", "pytest", "-q", "-p", "no:cacheprovider")
OWN = ("tools/within", "--dev", ".", "python", "-m", "tools.testing", "-q")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A project in which one process has an older tqdm than the root and the other processes."""
    folder = tmp_path_factory.mktemp("odd") / "a projëct [1]"
    project = Project(folder)
    for file in folder.glob("lab/processes/**/*_test.py"):
        file.unlink()
    for name, test in (("older", TEST), ("neighbour", NEIGHBOUR)):
        (folder / "lab/processes" / name).mkdir()
        (folder / "lab/processes" / name / f"{name}_test.py").write_text(test)
    (folder / "lab/processes/older/Pipfile").write_text(PIPFILE)
    project.run("make", "lock")
    return project


def test_only_the_lock_of_the_process_that_asks_has_its_version(mixed):
    locked = {
        file.parent.name: (lock["default"] | lock["develop"])["tqdm"]["version"]
        for file in mixed.folder.rglob("Pipfile.lock")
        for lock in [json.loads(file.read_text())]
        if "tqdm" in lock["default"] | lock["develop"]
    }
    assert locked.pop("older") == "==4.66.5"
    assert len(set(locked.values())) == 1
    assert len(locked) > 2
    assert "nothing to do" in mixed.run("make", "lock")


def test_checks_of_locks_accept_it(mixed):
    mixed.commit("Another version")
    hook = ("pre-commit", "run", "--all-files", "locks")
    mixed.run("tools/within", "--dev", ".", *hook)
    script = "from tools.job.preflight import locks_fit; print(locks_fit())"
    assert "locks fit" in mixed.run("tools/within", ".", "python", "-c", script)


def test_pytest_runs_the_other_tests_and_lists_those_left_out(mixed):
    output = mixed.run(*PYTEST, "lab/processes")
    assert "1 passed" in output
    assert "left out: the tests of lab/processes/older, which has tqdm 4.66.5 (here " in output
    assert "left out" not in mixed.run(*PYTEST, "lab/processes/neighbour")
    output = mixed.run(*PYTEST, "lab/processes/older/older_test.py", ok=False)
    assert "ERROR: lab/processes/older has tqdm 4.66.5 (here " in output
    assert "Traceback" not in output


def test_its_tests_run_with_its_versions_and_failures_are_reported(mixed, tmp_path):
    assert "1 passed" in mixed.run(*OWN)
    project = mixed.copied(tmp_path / "failing")
    project.edit("lab/processes/older/older_test.py", '"4.66.5"', '"4.66.4"')
    output = project.run(*OWN, ok=False)
    assert "1 failed" in output
    assert output.splitlines()[-1] == "Tests failed in lab/processes/older."


def test_other_versions_for_its_tests_are_in_its_dev_packages(mixed, tmp_path):
    project = mixed.copied(tmp_path / "dev")
    with (project.folder / "lab/processes/older/Pipfile").open("a") as file:
        file.write('\n[dev-packages]\nthreadpoolctl = "==3.5.0"\n')
    project.edit("lab/processes/older/older_test.py", "import joblib", "import threadpoolctl")
    project.edit(
        "lab/processes/older/older_test.py",
        "assert joblib.__version__",
        'assert threadpoolctl.__version__ == "3.5.0"',
    )
    project.run("make", "lock")
    assert "1 passed" in project.run(*OWN)


def test_make_test_runs_both(mixed):
    planned = mixed.run("make", "--dry-run", "test")
    assert planned.index("-m pytest -n") < planned.index("-m tools.testing")
