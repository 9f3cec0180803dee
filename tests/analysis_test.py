"""Results viewed later: revisions compared, milestones reported, notebooks executed."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from lib.params import read_yaml
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

HOSTILE = "<script>alert(1)</script> & 'co'"


@pytest.fixture(scope="module")
def two_runs(finished, tmp_path_factory):
    """A project with two commits of results, the older called `before`, the newer HEAD."""
    project = finished.copied(tmp_path_factory.mktemp("analysis") / "a projëct")
    # The commit is empty if the results equal the template's.
    amend = ("--amend", "--allow-empty", "--no-verify", "--message", HOSTILE)
    project.git("commit", "--quiet", *amend)
    project.git("tag", "before")
    project.edit("params.yaml", "lr: 0.001", "lr: 0.01")
    project.edit("params.yaml", "test_size: 0.15", "test_size: 0.2")
    project.edit(
        "lab/processes/prepare_data/cancer_data.py",
        "    return bunch.data.assign(",
        "    bunch.data.loc[7, 'mean area'] = 500.0\n    return bunch.data.assign(",
    )
    project.run("make", "run")
    project.commit("Another rate")
    return project


@pytest.fixture
def project(two_runs, tmp_path):
    """A copy of `two_runs` for one test."""
    return two_runs.copied(tmp_path / "copy")


def page(project):
    return (project.folder / "build/compare.html").read_text()


class Page(HTMLParser):
    """The tags, addresses and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "action")]

    def handle_data(self, data):
        self.texts.append(data)


# ---- two revisions


@pytest.fixture(scope="module")
def compared(two_runs):
    """The output of comparing the two runs; the page is in their project."""
    return two_runs.run("make", "compare", "A=before", "B=HEAD")


def test_two_revisions_are_compared_as_text_and_as_a_page(two_runs, compared):
    assert re.search(r"train_dnn_pytorch\.lr +\| 0.001 +\| 0.01 ", compared)
    assert re.search(r"train_dnn_pytorch\.test\.log_loss +\|.*(better|worse)", compared)
    assert re.search(r"breast_cancer\.csv .*\| 1 rows came, 1 went", compared)
    assert "goals.accuracy" not in compared, "unchanged values are left out"
    text = " ".join(Page(page(two_runs)).texts)
    for shown in ("train_dnn_pytorch.lr", "1 rows came, 1 went", "data/processed", "Another rate"):
        assert shown in text
    assert "Missing" not in compared


def test_the_page_contains_every_plot_and_loads_nothing(two_runs, compared):
    parsed = Page(page(two_runs))
    assert parsed.tags.count("img") == 6
    (unchanged,) = [text for text in parsed.texts if text.startswith("Unchanged: ")]
    assert unchanged.count("best so far by trial") == unchanged.count("importance") == 2
    for address in parsed.addresses:
        kind, _, content = address.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content).startswith(b"\x89PNG")
    assert "://" not in page(two_runs)
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)


def test_a_commits_message_is_shown_and_not_executed(two_runs, compared):
    assert "<script" not in page(two_runs)
    assert HOSTILE in "".join(Page(page(two_runs)).texts)


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_a_browser_without_network_shows_the_page(two_runs, compared, tmp_path):
    picture = tmp_path / "page.png"
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1180,2400"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path}/profile"]
    address = (two_runs.folder / "build/compare.html").as_uri()
    command = [*browser, *offline, f"--screenshot={picture}", address]
    subprocess.run(command, capture_output=True, check=True, timeout=120)
    assert picture.stat().st_size > 100_000, "an empty page has a tenth of that size"


def test_without_names_the_last_commit_is_compared_with_its_parent(project):
    assert "HEAD~1" in project.run("make", "compare").splitlines()[0]
    project.edit("params.yaml", "lr: 0.01", "lr: 0.02")
    output = project.run("make", "compare")
    assert output.startswith("HEAD (")
    assert re.search(r"train_dnn_pytorch\.lr +\| 0.01 +\| 0.02 ", output)


@pytest.mark.parametrize("name", ["no-such-branch", "--all", "$(touch pwned)"])
def test_an_unknown_revision_fails_with_one_line(two_runs, name):
    output = two_runs.run("make", "compare", f"A={name}", ok=False)
    assert f"'{name}' is no commit, branch or tag of this clone" in output
    assert "Traceback" not in output
    assert not (two_runs.folder / "pwned").exists()


def test_missing_data_are_named_and_the_rest_is_shown(project):
    shutil.rmtree(project.folder / ".dvc/cache")
    output = project.run("make", "compare", "A=before", "B=HEAD")
    assert re.search(r"Missing: .*breast_cancer.csv of before \(.*is not here", output)
    assert "train_dnn_pytorch.lr" in output
    parsed = Page(page(project))
    assert parsed.tags.count("img") == 1, "the plot that git keeps and that differs"
    assert "is not here" in " ".join(parsed.texts)


# ---- notebooks


def executed(project, name):
    """Execute a notebook in its own folder, without PYTHONPATH: its text, how many pictures."""
    bare = ("tools/within", "--dev", ".", "env", "-u", "PYTHONPATH", "python", "-m", "pytest", "-q")
    file = f"lab/analysis/{name}.ipynb"
    project.run(*bare, "-p", "nbmake", "--nbmake", "--overwrite", "--nbmake-timeout=300", file)
    cells = json.loads((project.folder / file).read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    texts = [
        "".join(output.get("text", []) or output.get("data", {}).get("text/html", []))
        for output in outputs
    ]
    return "\n".join(texts), sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize(
    ("name", "expected", "pictures"),
    [
        ("explore_data", "worst concave points", 4),
        ("compare_models", "gaussian_naive_bayes", 4),
        ("compare_revisions", "train_dnn_pytorch.lr", 12),
    ],
)
def test_a_notebook_runs_and_shows_its_text_and_pictures(project, name, expected, pictures):
    text, shown = executed(project, name)
    assert expected in text
    assert shown == pictures


def test_a_notebook_shows_each_revision_with_its_runs_in_mlflow(project):
    text, _ = executed(project, "compare_revisions")
    rows = re.findall(r"<td>(HEAD~1 \(\w+\)|work tree)</td>\s*<td>(\w+)</td>", text)
    for stage in ("prepare_data", "train_dnn_pytorch"):
        assert {label[:4] for label, name in rows if name == stage} == {"HEAD", "work"}


def test_a_notebook_shows_the_rest_if_results_are_missing(project):
    shutil.rmtree(project.folder / ".dvc/cache")
    (project.folder / "mlflow.db").unlink()
    text, shown = executed(project, "compare_revisions")
    assert "is not here" in text
    assert shown > 3


NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "id": "one",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": "import sys, lib.viz\nassert 'root-dev' in sys.prefix",
        }
    ],
    "metadata": {"kernelspec": {"display_name": "My env", "name": "conda-env-my-py"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def test_a_notebook_with_another_kernel_runs_in_the_projects_environment(project):
    folder = project.folder / "lab/analysis"
    for file in folder.glob("*.ipynb"):
        file.unlink()
    (folder / "deep er").mkdir()
    (folder / "deep er/mine.ipynb").write_text(json.dumps(NOTEBOOK))
    assert "1 passed" in project.run("make", "notebooks")


def test_a_notebook_whose_cells_have_no_id_or_the_same_id_runs(project):
    """Some programs write notebooks without ids, or with the same id twice."""
    folder = project.folder / "lab/analysis"
    for file in folder.glob("*.ipynb"):
        file.unlink()
    (cell,) = NOTEBOOK["cells"]
    bare = {key: value for key, value in cell.items() if key != "id"}
    for name, cells in {"none": [bare], "twice": [cell, cell]}.items():
        (folder / f"{name}.ipynb").write_text(json.dumps({**NOTEBOOK, "cells": cells}))
    assert "2 passed" in project.run("make", "notebooks")


def test_notebooks_are_committed_without_outputs():
    files = sorted((ROOT / "lab/analysis").glob("*.ipynb"))
    assert len(files) == 3
    for file in files:
        cells = json.loads(file.read_text())["cells"]
        assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


# ---- milestones


def report(project):
    (file,) = (project.folder / "lab/docs").glob("????-??-??-*.md")
    return file


def test_a_milestone_reports_the_commits_results_and_their_origin(project):
    output = project.run("make", "milestone", "NAME=first-model")
    file = report(project)
    assert f"lab/docs/{file.name}: write your words between the marks" in output
    assert file.name == project.git("show", "-s", "--format=%cs").strip() + "-first-model.md"
    text = file.read_text()
    metrics = json.loads((project.folder / "metrics/train_dnn_pytorch.json").read_text())
    row = f"| test .*train_dnn_pytorch.*{metrics['test']['accuracy']:.4f}"
    assert re.search(row, text)
    assert re.search(r"\*\*\d of \d goals met\.\*\*", text)
    assert project.git("rev-parse", "HEAD").strip() in text
    assert "This is the first." in text
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(pictures) == 4
    for picture in pictures:
        assert (file.parent / picture).read_bytes().startswith(b"\x89PNG")


def test_a_milestone_written_again_keeps_the_authors_text(project):
    project.run("make", "milestone", "NAME=first-model")
    first = report(project).read_text()
    words = "We ask less of the network.\n\n| a | b |\n| - | - |\n| \\1 | $x |\n"
    asked = "What follows from this? Who decides what, until when?\n"
    report(project).write_text(first.replace(asked, words))
    project.run("make", "milestone", "NAME=first-model")
    assert report(project).read_text() == first.replace(asked, words)
    # As an editor of Windows saves it, and with a mark lost.
    report(project).write_bytes(first.replace(asked, words).replace("\n", "\r\n").encode())
    project.run("make", "milestone", "NAME=first-model")
    assert report(project).read_text() == first.replace(asked, words)
    broken = first.replace(asked, words).replace("<!-- /author -->", "", 1)
    report(project).write_text(broken)
    output = project.run("make", "milestone", "NAME=first-model", ok=False)
    assert "do not pair. Each begins with a name of its own, <!-- author: NAME -->" in output
    assert report(project).read_text() == broken


def test_a_milestone_is_compared_with_the_previous_one(project):
    project.git("checkout", "--quiet", "before")
    project.dvc("checkout")
    project.run("make", "milestone", "NAME=slow-learning")
    project.git("checkout", "--quiet", "work")
    project.dvc("checkout")
    output = project.run("make", "milestone", "NAME=fast-learning").splitlines()[-1]
    text = (project.folder / output.partition(":")[0]).read_text()
    assert re.search(r"Against \[[-\d]+-slow-learning\]\([-\d]+-slow-learning.md\):", text)
    assert re.search(r"train_dnn_pytorch\.lr +\| 0.001 +\| 0.01 ", text)


def test_a_report_may_use_a_template_of_the_team(project):
    template = project.folder / "lab/docs/template.md"
    template.write_text("# $title for $100, $unknown\n\n<!-- author: more -->\n<!-- /author -->\n")
    project.commit("Another form")
    project.run("make", "milestone", "NAME=first-model")
    assert report(project).read_text().startswith("# First model for $100, $unknown\n")


def test_a_milestone_refuses_pictures_of_another_commit(project):
    project.git("checkout", "--quiet", "before")
    output = project.run("make", "milestone", "NAME=first-model", ok=False)
    assert "not of this commit. `dvc checkout` brings its own" in output


@pytest.mark.parametrize("name", ["", "First Model", "../escape", "a--b", "$(touch pwned)"])
def test_a_milestone_needs_a_plain_name(two_runs, name):
    command = ("tools/within", "--dev", ".", "python", "-m", "tools.report.milestone", name)
    output = two_runs.run(*command, ok=False)
    assert f"NAME is '{name}'" in output
    assert "for example NAME=first-model" in output
    assert not list((two_runs.folder / "lab/docs").glob("????-*"))


def test_a_milestone_requires_committed_results(project):
    project.edit("params.yaml", "lr: 0.01", "lr: 0.02")
    output = project.run("make", "milestone", "NAME=first-model", ok=False)
    assert "params.yaml: not committed" in output
    assert "Traceback" not in output
    project.git("checkout", "--quiet", "params.yaml")
    with (project.folder / "goals/results_test.py").open("a") as goals:
        goals.write("# to be less strict\n")
    output = project.run("make", "milestone", "NAME=first-model", ok=False)
    assert "goals/results_test.py: not committed" in output, "a report says which goals were met"


# ---- the chapter on data


def test_the_snippets_in_the_chapter_on_data_run(two_runs):
    text = (ROOT / "lab/processes/DATA.md").read_text()
    section = text.partition("\n## Comparing versions\n")[2].partition("\n## ")[0]
    snippets = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(snippets) == 2
    frames, values = (run_snippets(two_runs, snippet) for snippet in snippets)
    assert "mean area" in frames
    assert "'lr': 0.001" in values
    assert "'accuracy': 0." in values


def test_the_snippets_on_the_examples_page_run(two_runs):
    text = (ROOT / "lab/processes/EXAMPLE.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 4
    output = run_snippets(two_runs, *snippets)
    assert "['benign', 'malignant']" in output
    assert re.search(r"decided otherwise: \d+ of 569", output)


def test_the_snippet_in_the_chapter_on_tracking_runs(two_runs):
    text = (ROOT / "tools/tracking/README.md").read_text()
    snippet = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    output = run_snippets(two_runs, snippet)
    assert "train_dnn_pytorch" in output
    assert "prepare_data" in output


def run_snippets(project, *snippets):
    """The output of snippets, with the example's names for the placeholders."""
    code = "\n".join(snippets)
    for place, name in (
        ("<tag, branch or commit>", "before"),
        ("<file>", "breast_cancer"),
        ("<process>", "train_dnn_pytorch"),
        ("<experiment in params.yaml>", read_yaml(ROOT / "params.yaml")["experiment"]),
    ):
        code = code.replace(place, name)
    return project.run("tools/within", "--dev", ".", "python", "-c", code)
