"""Who may import what: every file is checked against the table of rooms in CONTRIBUTING.md."""

import ast
import json
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.unittest

ROOMS = ("lab", "goals", "runtimes", "lib", "tools", "tests")
# Imported only by those who have these packages.
OPTIONAL = {("lib/splits.py", "torch"), ("lib/engines.py", "ray"), ("lib/tuning.py", "pandas.util")}


def sources(*folders):
    """Each Python file and notebook of these folders except tests, as path and syntax tree."""
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*")):
            path = file.relative_to(ROOT)
            if file.suffix == ".py" and not file.name.endswith(("_test.py", "conftest.py")):
                yield path, ast.parse(file.read_text(encoding="utf-8"))
            elif file.suffix == ".ipynb" and ".ipynb_checkpoints" not in path.parts:
                cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
                code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
                text = re.sub(r"(?m)^%.*", "", "\n".join(code))
                yield path, ast.parse(text)


def imports(tree):
    """The names of the modules that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def foreign_imports(allowed, *folders, exclude="no such folder"):
    """Imports from this repository's rooms that are not allowed, as path and module."""
    return [
        (str(path), module)
        for path, tree in sources(*folders)
        for module in imports(tree)
        if module.partition(".")[0] in ROOMS
        and not module.startswith(allowed)
        and exclude not in path.parts
    ]


def test_lib_imports_only_lib():
    assert foreign_imports(("lib",), "lib") == []


def test_goals_notebooks_and_runtimes_import_lib_and_their_own_folder():
    assert foreign_imports(("lib", "goals"), "goals") == []
    assert foreign_imports(("lib",), "lab/analysis") == []
    for folder in (ROOT / "runtimes").glob("*/"):
        # A rehearsal gets the server of its archive as a fixture from a plugin.
        assert foreign_imports(("lib", "runtimes"), f"runtimes/{folder.name}") == []


def test_tools_import_lib_and_tools_and_no_process_by_name():
    assert foreign_imports(("lib", "tools"), "tools", exclude="skeleton") == []


@pytest.mark.parametrize("main", sorted(ROOT.glob("lab/processes/*/main.py")), ids=str)
def test_a_process_imports_itself_and_lib(main):
    own = f"lab.processes.{main.parent.name}"
    assert foreign_imports(("lib", own), f"lab/processes/{main.parent.name}") == []


@pytest.mark.parametrize("main", sorted(ROOT.glob("lab/tuning/*/main.py")), ids=str)
def test_a_sweep_imports_itself_lib_and_the_one_process_that_it_tunes(main):
    own = f"lab.tuning.{main.parent.name}"
    folder = f"lab/tuning/{main.parent.name}"
    assert len({name for _, name in foreign_imports(("lib", own), folder) if "params" in name}) == 1
    tuned = foreign_imports(("lib", own), folder)
    assert len({name.rpartition(".")[0] for _, name in tuned}) == 1, tuned
    assert all(name.startswith("lab.processes.") for _, name in tuned)


def test_the_teams_code_imports_at_the_top():
    inside = [
        (str(path), module)
        for path, tree in sources("lab/processes", "lab/tuning", "lib")
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for module in imports(function)
    ]
    assert set(inside) - OPTIONAL == set()


@pytest.mark.parametrize(
    "trick", ["os._exit", "TYPE_CHECKING", "gc.disable", "gc.set_threshold", "multiprocessing"]
)
def test_the_teams_code_has_no_tricks(trick):
    files = [*Path(ROOT / "lab").rglob("*.py"), *Path(ROOT / "lib").rglob("*.py")]
    assert [file for file in files if trick in file.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("folder", ["lib", "tests", "tools", "tools/krt", "tools/sandbox"])
def test_a_readme_that_lists_files_names_each(folder):
    readme = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    names = {file.name for file in (ROOT / folder).glob("*.py")}
    own = {name for name in names if folder != "lib" or not name.endswith("_test.py")}
    assert {name for name in own - {"__init__.py"} if name not in readme} == set()
