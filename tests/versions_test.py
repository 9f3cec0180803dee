"""A process may have another version of a package than its neighbours, and is tested with it."""

import json

import pytest

from tests.conftest import Project

pytestmark = pytest.mark.integration

# The root, where tests run, has a later one.
PIPFILE = """[packages]
tqdm = "==4.66.5"

[requires]
python_version = "3.11"
"""
# joblib and a fixture of pytest's are none of its packages.
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
def odd(tmp_path_factory):
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


def test_only_the_lock_of_the_process_that_asks_has_its_version(odd):
    locked = {
        file.parent.name: (lock["default"] | lock["develop"])["tqdm"]["version"]
        for file in odd.folder.rglob("Pipfile.lock")
        for lock in [json.loads(file.read_text())]
        if "tqdm" in lock["default"] | lock["develop"]
    }
    assert locked.pop("older") == "==4.66.5"
    assert len(set(locked.values())) == 1
    assert len(locked) > 2
    assert "nothing to do" in odd.run("make", "lock")


def test_what_checks_locks_accepts_it(odd):
    odd.commit("Another version")
    hook = ("pre-commit", "run", "--all-files", "locks")
    odd.run("tools/within", "--dev", ".", *hook)
    script = "from tools.job.preflight import locks_fit; print(locks_fit())"
    assert "locks fit" in odd.run("tools/within", ".", "python", "-c", script)


def test_pytest_runs_the_other_tests_and_says_what_it_leaves_out(odd):
    said = odd.run(*PYTEST, "lab/processes")
    assert "1 passed" in said
    assert "left out: the tests of lab/processes/older, which has tqdm 4.66.5 (here " in said
    assert "left out" not in odd.run(*PYTEST, "lab/processes/neighbour")
    said = odd.run(*PYTEST, "lab/processes/older/older_test.py", ok=False)
    assert "ERROR: lab/processes/older has tqdm 4.66.5 (here " in said
    assert "Traceback" not in said


def test_its_tests_run_in_its_versions_and_one_that_fails_is_told(odd, tmp_path):
    assert "1 passed" in odd.run(*OWN)
    project = odd.copied(tmp_path / "failing")
    project.edit("lab/processes/older/older_test.py", '"4.66.5"', '"4.66.4"')
    said = project.run(*OWN, ok=False)
    assert "1 failed" in said
    assert said.splitlines()[-1] == "Tests failed in lab/processes/older."


def test_what_its_tests_need_in_yet_another_version_is_in_its_dev_packages(odd, tmp_path):
    project = odd.copied(tmp_path / "dev")
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


def test_make_test_runs_both(odd):
    planned = odd.run("make", "--dry-run", "test")
    assert planned.index("-m pytest -n") < planned.index("-m tools.testing")
