"""`make blank` removes the example; then a pipeline of one's own, as the pages describe it."""

import json
import re

import pytest

from lib.params import read_yaml
from tests.conftest import ROOT, Project
from tests.copy_test import broken_links
from tests.rehearsal import Sandbox

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def blanked(tmp_path_factory):
    """A project without the example, committed; each test continues where the last one ended."""
    project = Project(tmp_path_factory.mktemp("blank") / "a projëct")
    project.run("git", "rm", "-rq", "tests")  # as in a project
    project.commit("A project")
    assert "Removed: " in project.run("make", "blank")
    project.commit("Without the example")
    return project


def pytest_in(project, *where):
    """The output of the project's own tests, which must all pass."""
    return project.run("tools/within", "--dev", ".", "python", "-m", "pytest", "-q", *where)


def test_what_a_team_added_stays(project):
    make = ("make", "process", "KIND=sklearn", "TASK=regression", "AFTER=prepare_houses")
    project.run("make", "process", "NAME=prepare_houses", "KIND=table")
    project.run(*make, "NAME=train_prices", "TARGET=price")
    added = {
        "goals/own_test.py": "def test_own(reached):\n    reached({'m': 1.0}, at_least=0.5)\n",
        "lab/analysis/own.ipynb": "{}",
        "lab/processes/NOTES.md": "Notes.\n",
    }
    for name, text in added.items():
        (project.folder / name).write_text(text)
    project.commit("A pipeline beside the example")
    before = read_yaml(project.folder / "dvc.yaml")["stages"]
    sections = read_yaml(project.folder / "params.yaml")
    project.run("make", "blank")
    own = ("prepare_houses", "train_prices")
    kept = read_yaml(project.folder / "dvc.yaml")["stages"]
    assert kept == {name: before[name] for name in own}
    kept = read_yaml(project.folder / "params.yaml")
    assert kept == {n: sections[n] for n in ("random_seed", "experiment", "goals", *own)}
    assert all((project.folder / name).exists() for name in (*added, "goals/conftest.py"))
    ignored = (project.folder / ".gitignore").read_text()
    assert "/artifacts/train_prices\n" in ignored
    assert "/artifacts/onnx" not in ignored
    assert not (project.folder / "lab/processes/prepare_data").exists()
    assert not (project.folder / "goals/results_test.py").exists()
    project.dvc("status")  # dvc.yaml is still valid


def test_what_another_process_needs_is_not_removed(project):
    project.run("make", "process", "NAME=weigh", "AFTER=export_models")
    project.commit("It reads the example's models")
    output = project.run("make", "blank", ok=False)
    assert "weigh reads artifacts/onnx, which export_models writes: change it first." in output
    assert project.git("status", "--porcelain") == ""


def test_a_section_that_another_pipeline_reads_is_not_removed(project):
    (project.folder / "lab/hello").mkdir()
    (project.folder / "lab/hello/dvc.yaml").write_text(
        "vars: [../../params.yaml]\nstages:\n  hello:\n    cmd: echo ${train_dnn_pytorch.lr}\n"
    )
    project.commit("A second pipeline")
    output = project.run("make", "blank", ok=False)
    assert "lab/hello/dvc.yaml reads ${train_dnn_pytorch.lr}: change it first." in output
    assert project.git("status", "--porcelain") == ""


def test_uncommitted_changes_are_refused(project):
    project.edit("params.yaml", "lr: 0.001", "lr: 0.002")
    output = project.run("make", "blank", ok=False)
    assert "Not committed: params.yaml" in output
    assert project.git("status", "--porcelain").split() == ["M", "params.yaml"]


def test_a_blank_project_runs_and_its_tests_pass(blanked):
    (blanked.folder / "rows.csv.dvc").write_text("outs:\n- path: rows.csv\n")  # data first
    assert blanked.run("make", "run").endswith("There is no stage yet: make process NAME=…\n")
    (blanked.folder / "rows.csv.dvc").unlink()
    assert "No stage has workers" in blanked.run("make", "train", "WORKERS=2", ok=False)
    blanked.run("make", "relog")
    assert "Metrics: no difference." in blanked.run("make", "compare", "A=HEAD")
    assert " passed" in pytest_in(blanked, "lab", "lib")
    blanked.run("tools/within", "--dev", ".", "ruff", "check", ".")
    blanked.run("tools/within", "--dev", ".", "ruff", "format", "--check", ".")


EXAMPLE = (
    "prepare_data|train_dnn|standard_classif|export_models|densenet|breast|cancer|malignant|benign"
    "|biops|tumour|classifiers\\.csv"
)


def test_no_word_of_the_example_is_left(blanked):
    templates_own = (":!README.md", ":!CHANGELOG.md", ":!CONTRIBUTING.md")  # not in a project
    # git grep ends with 1 if it finds nothing.
    words = ("git", "grep", "-niE", EXAMPLE, "--", ".", *templates_own, ":!*.lock", ":!*.ci/*")
    assert blanked.run(*words, ok=False) == ""


def test_no_page_links_to_removed_files(blanked):
    files = blanked.git("ls-files", "--", "*.md").splitlines()
    files = [name for name in files if name not in ("README.md", "CONTRIBUTING.md")]  # not copied
    assert broken_links(blanked.folder, files) == []


def test_the_rest_of_params_and_gitignore_is_unchanged(blanked):
    params = (blanked.folder / "params.yaml").read_text()
    assert params.startswith((ROOT / "params.yaml").read_text().partition("\nprepare_data:")[0])
    assert "every split and every model" in params
    assert "prepare_data" not in params
    ignored = (blanked.folder / ".gitignore").read_text().splitlines()
    before = (ROOT / ".gitignore").read_text().splitlines()
    assert [line for line in before if not line.startswith(("/data/", "/artifacts/"))] == ignored


def test_blank_again_finds_nothing_left(blanked):
    assert "nothing left of the example" in blanked.run("make", "blank")
    assert blanked.git("status", "--porcelain") == ""


# The messages of `make process` about many refused names, from one interpreter.
REFUSE = """
import json, sys
from tools.project.process import main
messages = []
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as error:
        messages.append(str(error))
print(json.dumps(messages))
"""
# By NAME and AFTER.
REFUSED = {
    ("", ""): "Say NAME=…, KIND=empty|table|sklearn|torch, AFTER=",
    ("Train", ""): "lower-case words",
    ("train-model", ""): "lower-case words",
    ("größe", ""): "lower-case words",
    ("../evil", ""): "lower-case words",
    ("class", ""): "a word of Python's, YAML's or the project's",
    ("json", ""): "a word of Python's, YAML's or the project's",
    ("experiment", ""): "a name in params.yaml already",
    ("params", ""): "a word of Python's, YAML's or the project's",
    ("train", "nothing"): "it must be a stage of dvc.yaml",
    ("x" * 36, ""): "35 characters at most",
}


@pytest.fixture(scope="module")
def refused(blanked):
    """The message for each key of REFUSED."""
    command = ("tools/within", "--dev", ".", "python", "-c", REFUSE, json.dumps([*REFUSED]))
    messages = json.loads(blanked.run(*command, PYTHONPATH="."))
    return dict(zip(REFUSED, messages, strict=True))


@pytest.mark.parametrize("arguments", REFUSED)
def test_an_invalid_name_is_refused_and_nothing_is_written(blanked, refused, arguments):
    assert REFUSED[arguments] in refused[arguments]
    assert "Nothing was written" in refused[arguments]
    assert blanked.git("status", "--porcelain") == ""


def test_a_process_is_a_folder_a_section_a_stage_and_a_line_to_ignore(project):
    before = {
        name: (project.folder / name).read_text()
        for name in ("params.yaml", "dvc.yaml", ".gitignore")
    }
    project.run("make", "process", "NAME=count_cells")
    changed = project.git("status", "--porcelain", "--untracked-files=normal").split("\n")
    assert changed == [
        " M .gitignore",
        " M dvc.yaml",
        " M params.yaml",
        "?? lab/processes/count_cells/",
        "",
    ]
    for name, old in before.items():
        removed = [line for line in diff(project, name) if line.startswith("-")]
        assert removed == [], f"{name} loses nothing"
        assert len((project.folder / name).read_text()) > len(old)
    listed = project.dvc("stage", "list", "--name-only").split()
    assert listed[-1] == "count_cells"
    assert " passed" in pytest_in(project, "lab/processes/stages_test.py", "-k", "count_cells")


def test_a_new_process_changes_no_other_stage(project):
    everything = project.dvc("status", "--json")
    project.run("make", "process", "NAME=count_cells")
    project.run("make", "process", "NAME=sum_cells", "AFTER=count_cells")
    found = json.loads(project.dvc("status", "--json").splitlines()[-1])
    assert found.pop("count_cells")
    assert found.pop("sum_cells")
    assert found == json.loads(everything.splitlines()[-1])


def diff(project, name):
    """The changed lines of a file since the last commit."""
    text = project.git("diff", "--unified=0", "--", name)
    return [line for line in text.splitlines() if not line.startswith(("---", "+++"))]


def test_a_new_process_runs_and_its_test_passes_at_once(blanked):
    blanked.run("make", "process", "NAME=prepare_wine")
    blanked.run("make", "process", "NAME=train_wine", "AFTER=prepare_wine")
    ignored = (blanked.folder / ".gitignore").read_text()
    lines = "its line here.\n/artifacts/prepare_wine\n/artifacts/train_wine\n"
    assert lines in ignored, "at the place that .gitignore names"
    output = blanked.run("make", "run")
    assert re.search(r"train_wine\.mean +│ 54", output), "twice the 27 bytes that it read"
    assert " passed" in pytest_in(blanked, "lab", "lib/params_test.py")
    blanked.run("tools/within", "--dev", ".", "ruff", "check", ".")
    blanked.run("tools/within", "--dev", ".", "ruff", "format", "--check", ".")
    blanked.mypy()
    blanked.commit("Two processes")


def test_an_existing_process_is_never_overwritten(blanked):
    output = blanked.run("make", "process", "NAME=train_wine", ok=False)
    assert "lab/processes/train_wine exists already" in output
    assert blanked.git("status", "--porcelain") == ""


def code_on_wines():
    """The commands and the code on the page about wines, in order."""
    page = (ROOT / "lab/processes/WINE.md").read_text()
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = [text for kind, text in found if kind == "bash"]
    python = [text for kind, text in found if kind == "python"]
    return commands, python


def test_the_pipeline_on_the_pages_gets_results_by_tag(blanked):
    commands, code = code_on_wines()
    blanked.run("sh", "-ec", commands[1])
    processes = blanked.folder / "lab/processes"
    files = (
        *("prepare_wine/prepare_wine.py", "prepare_wine/main.py", "prepare_wine/params.py"),
        *("train_wine/train_wine.py", "train_wine/main.py"),
        *("prepare_wine/prepare_wine_test.py", "train_wine/train_wine_test.py"),
    )
    for file, text in zip(files, code, strict=True):
        (processes / file).write_text(text)
    blanked.edit("params.yaml", "prepare_wine:\n  factor: 2.0", "prepare_wine:\n  every: 5")
    blanked.run("tools/within", "--dev", ".", "ruff", "check", "lab")
    blanked.run("tools/within", "--dev", ".", "ruff", "format", "--check", "lab")
    assert "train_wine" in blanked.run("make", "run")
    assert " passed" in pytest_in(blanked, "lab", "lib/params_test.py")
    blanked.mypy()
    blanked.commit("Wines")
    sandbox = Sandbox(blanked)
    try:
        sandbox.up()
        blanked.edit("params.yaml", "every: 5", "every: 2")
        blanked.commit("More for the test")
        sandbox.branch = "work"
        sandbox.push()
        tag, output = sandbox.tag()
        assert "Job succeeded" in output, output
        message = sandbox.message(sandbox.tip())
        assert f"Tag: {tag}" in message
        assert "train_wine.test.accuracy: 0.9722 -> 0.9888" in message
    finally:
        sandbox.down()


def test_the_goal_in_the_chapter_on_goals_is_judged(blanked):
    chapter = (ROOT / "goals/README.md").read_text()
    found = re.findall(r"^```(?:python|yaml)\n(.*?)^```$", chapter, re.MULTILINE | re.DOTALL)
    names = ("goals/results_test.py", "goals/conftest.py", "params.yaml", "goals/params.py")
    for name, text in zip(names, found, strict=True):
        with (blanked.folder / name).open("a") as file:
            file.write(text)
    output = blanked.run("make", "goals")
    assert "Accuracy on the test split" in output
    assert "1 of 1 goals met" in output
    blanked.run("tools/within", "--dev", ".", "ruff", "check", "goals")
    blanked.run("tools/within", "--dev", ".", "ruff", "format", "--check", "goals")
    blanked.run("tools/within", ".", "python", "-m", "lib.params")
