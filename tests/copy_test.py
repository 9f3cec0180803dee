"""A copy of the template, by copier and by hand: filled in, started, looked at, updated, run."""

import os
import re
import shutil
import stat
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, Project
from tests.rehearsal import Sandbox

pytestmark = pytest.mark.integration

ANSWERS = {
    "name": "wine-cellar",
    "contact": "@org/wine",
    "bucket": "wine.data",
    "s3_endpoint": "https://s3.example.org:9000",
    "mlflow_url": "https://mlflow.example.org/a-b",
    "runner_labels": "self-hosted, linux.x64, gpu_1",
    "run_tag": "run/wine",
}
OWN = ("tests", ".ci", "copier.yml", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE")


class Copy(Project):
    """A folder that is a project already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, *arguments, ok=True, **extra):
        return self.run("make", *arguments, ok=ok, **extra)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The template with its version as a tag, as `copier copy` finds it."""
    folder = tmp_path_factory.mktemp("template") / "the template"
    folder.mkdir()
    template = Project(folder)
    template.git("tag", "v0.1.0")
    return template


def copier(template, *arguments, ok=True):
    """`copier` unattended, as in a shell."""
    return template.run("lib/within", "--dev", ".", "copier", *arguments, ok=ok)


def copied(template, folder, *, ok=True, **answers):
    """What `copier copy` makes of the template, with these answers beside the usual."""
    file = folder.parent / "answers.yml"
    file.write_text(yaml.safe_dump(ANSWERS | answers))
    arguments = ("copy", "--quiet", "--defaults", "--data-file", str(file))
    said = copier(template, *arguments, str(template.folder), str(folder), ok=ok)
    return Copy(folder) if ok else said


def fill_in(project, **values):
    """By hand: each mark's text replaced where `make todo` says that it stands."""
    listed = re.findall(r"^(.+):(\d+)  TODO\((\w+)\)", project.make("todo", ok=False), re.MULTILINE)
    assert sorted(name for _, _, name in listed) == sorted(ANSWERS), "each in one place only"
    for file, _, name in listed:
        project.edit(file, f"TODO({name})", (ANSWERS | values)[name])


def by_hand(template, folder, **values):
    """A clone, filled in, without the template's history."""
    template.run("git", "clone", "--quiet", str(template.folder), str(folder))
    project = Copy(folder)
    fill_in(project, **values)
    shutil.rmtree(folder / ".git")
    return project


def tree(project):
    """Every file's bytes and whether it is executable, by its path."""
    names = project.git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return {
        name: ((project.folder / name).read_bytes(), (project.folder / name).stat().st_mode & 0o111)
        for name in names
        if name
    }


def test_copier_and_filling_in_by_hand_give_the_same_tree(template, tmp_path):
    one, other = copied(template, tmp_path / "copier"), by_hand(template, tmp_path / "hand")
    one.make("start")
    other.make("start", f"TEMPLATE={template.folder}")
    ours, theirs = tree(one), tree(other)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert ".copier-answers.yml" in ours
    for project in (one, other):
        assert "filled in" in project.make("todo")
        assert project.git("log", "--format=%s").splitlines() == ["Start from the template"]
        assert project.git("status", "--porcelain") == ""
        head = project.git("rev-parse", "HEAD")
        assert "Nothing was left to do" in project.make("start")
        assert project.git("rev-parse", "HEAD") == head


def test_a_copy_has_nothing_of_the_templates_own_and_its_links_lead_somewhere(template, tmp_path):
    project = copied(template, tmp_path / "copy")
    project.make("start")
    files = set(tree(project))
    assert [name for name in files if name.startswith(OWN) or "TODO" in name] == []
    assert "lab/processes/stages_test.py" in files
    broken = [
        f"{name}: {link}"
        for name in files
        if name.endswith(".md")
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text_of(project, name))
        if not ((project.folder / name).parent / link).exists()
    ]
    assert broken == []
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text_of(project, "README.md").splitlines()
        if line.startswith("#")
    }
    anchors = re.findall(r"\]\(#([^)]+)\)", text_of(project, "README.md"))
    assert [anchor for anchor in anchors if anchor not in headings] == []
    assert "bench" not in project.make("help")


def text_of(project, name):
    return (project.folder / name).read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "it's"),
        ("name", 'a"b'),
        ("name", "größe"),
        ("name", "Two Words"),
        ("bucket", "My_Bucket"),
        ("bucket", "192.168.0.1"),
        ("bucket", "a..b"),
        ("s3_endpoint", "s3.example.org"),
        ("mlflow_url", "https://user:secret@mlflow.example.org"),
        ("mlflow_url", "https://mlflow.example.org' }}"),
        ("runner_labels", "self-hosted; rm"),
        ("run_tag", "run example"),
        ("run_tag", "run*"),
        ("run_tag", "run..x"),
        ("run_tag", "runtime-x"),
        ("contact", "nobody"),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_nothing_is_written(template, tmp_path, name, value):
    said = copied(template, tmp_path / "copy", ok=False, **{name: value})
    assert f"'{name}': '{value}' is not " in said
    assert not (tmp_path / "copy").exists()


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_is(template, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/README.md").write_text("mine")
    said = copied(template, tmp_path / "copy", ok=False)
    assert "is not empty: name a folder that is not there yet" in said
    assert [file.read_text() for file in (tmp_path / "copy").iterdir()] == ["mine"]


def test_a_value_that_cannot_be_is_found_where_it_was_filled_in_by_hand(template, tmp_path):
    project = by_hand(template, tmp_path / "hand", bucket="My_Bucket")
    said = project.make("todo", ok=False)
    assert ".dvc/config:5  bucket is 'My_Bucket': it must be a bucket's name" in said
    assert "1 to fill in" in said
    assert "bucket is 'My_Bucket'" in project.make("start", ok=False)
    assert (project.folder / "copier.yml").exists(), "nothing is done while something is wrong"
    assert not (project.folder / ".git").exists()


def test_checks_hold_whatever_was_filled_in(template, tmp_path):
    project = copied(template, tmp_path / "copy")
    project.make("start")
    hooks = ("actionlint", "zizmor", "yamllint", "check-yaml", "end-of-file-fixer")
    for hook in (*hooks, "trailing-whitespace"):
        project.run(
            *("lib/within", "--dev", ".", "pre-commit", "run", "--all-files", hook), ok=True
        )


# ---- first steps


def test_credentials_go_where_git_and_others_cannot_see_them(template, tmp_path):
    project = copied(template, tmp_path / "copy")
    project.make("start")
    assert "Nothing was written" in project.make("credentials", ok=False)
    keys = {"AWS_ACCESS_KEY_ID": "the-access-key", "AWS_SECRET_ACCESS_KEY": "the-secret-key"}
    said = project.make("credentials", **keys)
    local = project.folder / ".dvc/config.local"
    assert "the-secret-key" in local.read_text()
    assert "the-secret-key" not in said
    assert stat.S_IMODE(local.stat().st_mode) == 0o600
    assert project.git("status", "--porcelain") == ""
    assert "in .dvc/config.local" in project.make("doctor", ok=False)


GH = """#!/bin/sh
case "$1" in auth) exit 0 ;; --version) echo "gh version 9"; exit ;; esac
echo "$@" >> '{log}'
cat >> '{log}'
echo >> '{log}'
"""


def test_settings_are_listed_and_set_through_gh_without_a_secret_on_a_command_line(
    template, tmp_path
):
    project = copied(template, tmp_path / "copy")
    listed = project.make("settings")
    workflow = text_of(project, ".github/workflows/experiments.yml")
    for name in set(re.findall(r"(?:secrets|vars)\.(\w+)", workflow)):
        assert name in listed
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gh").write_text(GH.format(log=tmp_path / "log"))
    (tmp_path / "bin/gh").chmod(0o755)
    path = f"{tmp_path}/bin{os.pathsep}{project.environment()['PATH']}"
    said = project.make("settings", "SET=yes", PATH=path, AWS_SECRET_ACCESS_KEY="hidden-secret")
    assert "secret   MINIO_SECRET_ACCESS_KEY: set" in said
    assert "AWS_ACCESS_KEY_ID is not set here" in said
    assert (tmp_path / "log").read_text().splitlines() == [
        "secret set MINIO_SECRET_ACCESS_KEY",
        "hidden-secret",
    ]


def test_the_doctor_says_what_is_missing_and_how_to_get_it(template, tmp_path):
    project = copied(template, tmp_path / "copy")
    said = project.make("doctor", ok=False)
    assert re.search(r"^ok +Python +3\.11", said, re.MULTILINE)
    assert re.search(r"^ok +marks", said, re.MULTILINE)
    assert re.search(r"^MISSING +git +this folder is no repository.*make start", said, re.MULTILINE)
    project.make("start")
    project.git("remote", "add", "origin", "https://example.org/wine.git")
    project.edit("Pipfile", "[packages]", '[packages]\nattrs = "*"')
    said = project.make("doctor", ok=False)
    assert re.search(r"^ok +git ", said, re.MULTILINE)
    assert re.search(r"^ok +git remote +origin https://example.org/wine.git", said, re.MULTILINE)
    assert re.search(r"^MISSING +locks .*make lock", said, re.MULTILINE)
    assert re.search(r"^MISSING +credentials .*make credentials", said, re.MULTILINE)


# ---- updates


def test_an_update_brings_what_is_new_and_leaves_what_the_project_changed(tmp_path):
    folder = tmp_path / "template"
    folder.mkdir()
    template = Project(folder)
    template.edit("Makefile", "results: ## Show the results", "results: ## Display the results")
    template.edit("README.md", "## Two commands", "## A command or two")
    template.edit("lib/ui.py", "import", "# Older.\nimport")
    (folder / "lib/metrics_test.py").unlink()
    template.commit("An older version")
    template.git("tag", "v0.1.0")
    project = copied(template, tmp_path / "project")
    project.make("start")

    project.edit("README.md", "# A project template for machine learning", "# The wine cellar")
    project.edit("params.yaml", "lr: 0.001", "lr: 0.005")
    module = "lab/processes/train_dnn_pytorch/densenet.py"
    (project.folder / module).write_text(text_of(project, module) + "# Ours.\n")
    project.edit(".github/workflows/experiments.yml", "timeout-minutes: 720", "timeout-minutes: 60")
    project.edit("Makefile", "results: ## Display the results", "results: ## Show our results")
    project.commit("Our own")

    for name in ("Makefile", "README.md", "lib/ui.py", "lib/metrics_test.py"):
        shutil.copy(ROOT / name, folder / name)
    template.commit("The present version")
    template.git("tag", "v0.2.0")
    template.run(
        *(str(folder / "lib/within"), "--dev", ".", "copier", "update", "--defaults", "--quiet"),
        str(project.folder),
    )
    assert (project.folder / "lib/metrics_test.py").exists()
    assert "# Older." not in text_of(project, "lib/ui.py")
    readme = text_of(project, "README.md")
    assert readme.startswith("# The wine cellar")
    assert "## Two commands" in readme
    assert "lr: 0.005" in text_of(project, "params.yaml")
    assert "experiment: wine-cellar" in text_of(project, "params.yaml")
    assert text_of(project, module).endswith("# Ours.\n")
    assert "timeout-minutes: 60" in text_of(project, ".github/workflows/experiments.yml")
    conflicts = project.git("grep", "--name-only", "^<<<<<<<").split()
    assert conflicts == ["Makefile"], "only where both changed the same line"
    assert "_commit: v0.2.0" in text_of(project, ".copier-answers.yml")


# ---- to the first results


def test_from_copier_copy_to_the_first_results_commit(template, tmp_path):
    (tmp_path / "a größer place").mkdir()
    started = time.monotonic()
    project = copied(template, tmp_path / "a größer place/my wine")
    project.make("start")
    assert "Results" in project.make("run")
    sandbox = Sandbox(project)
    try:
        said = sandbox.up()
        assert "git tag run/wine-v0.0.1" in said
        project.edit("params.yaml", "epochs: 120", "epochs: 110")
        project.commit("Fewer epochs")
        sandbox.branch = "main"
        sandbox.push()
        tag, said = sandbox.tag("run/wine-v0.0.1")
        assert "Job succeeded" in said, said
        sandbox.git("pull", "--quiet", "sandbox", "main")
        message = sandbox.git("log", "-1", "--format=%B")
        assert message.startswith("Fewer epochs-results\n")
        assert f"Tag: {tag}" in message
        project.dvc("pull")
        assert "up to date" in project.dvc("status", "train_dnn_pytorch")
    finally:
        sandbox.down()
    print(f"from `copier copy` to the first results commit: {time.monotonic() - started:.0f} s")
