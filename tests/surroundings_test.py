"""What a user's machine has set changes nothing of what is done: git's settings, bytes, locale."""


import pytest

from tests.conftest import Project

pytestmark = pytest.mark.integration

PIPELINE = """
stages:
  count:
    cmd: lab/processes/run count
    deps: [lab/processes/count/main]
    metrics:
      - metrics/count.json:
          cache: false
"""
COUNT = '#!/bin/sh\nmkdir -p metrics\necho \'{"rows": 3}\' > metrics/count.json\n'
RESULTS = ("tools/within", ".", "python", "-m", "tools.report.results")
PAGE = ("tools/within", ".", "python", "-m", "tools.report.run_page")
EXPERIMENT = ("tools/within", ".", "python", "-m", "tools.job.experiment")


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A pipeline of one stage in shell, with its results committed."""
    folder = tmp_path_factory.mktemp("surroundings") / "a projëct"
    folder.mkdir()
    project = Project(folder)
    for file in (*folder.glob("metrics/*"), folder / "dvc.lock"):
        file.unlink()
    (folder / "lab/processes/count").mkdir()
    main = folder / "lab/processes/count/main"
    main.write_text(COUNT)
    main.chmod(0o755)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "metrics/count.json").write_text('{"rows": 2}\n')
    project.dvc("commit", "--force", "--quiet")
    project.commit("Größe")
    return project


@pytest.fixture
def project(counted, tmp_path):
    """A copy for one test."""
    return counted.copied(tmp_path / "copy")


def change(project):
    (project.folder / "metrics/count.json").write_text('{"rows": 3}\n')


# ---- git

HOSTILE = {
    "color.ui": "always",
    "column.ui": "always",
    "core.hooksPath": "/nonexistent/../tmp/no-such-hooks",
    "core.pager": "false",
    "core.quotePath": "true",
    "diff.external": "false",
    "diff.noprefix": "true",
    "format.pretty": "fuller",
    "i18n.logOutputEncoding": "ISO-8859-1",
    "init.defaultBranch": "trunk",
    "log.date": "relative",
    "log.follow": "true",
    "log.showSignature": "true",
    "status.branch": "true",
    "status.short": "true",
    "status.showUntrackedFiles": "no",
    "status.relativePaths": "true",
    "trailer.separators": "=",
    "alias.status": "!false",
}


def settings(tmp_path, **variables):
    """A user's git settings, as unlike git's own as they can be."""
    file = tmp_path / "gitconfig"
    text = [f"[{k.split('.')[0]}]\n\t{k.split('.')[1]} = {v}\n" for k, v in HOSTILE.items()]
    file.write_text("".join(text))
    return {"GIT_CONFIG_GLOBAL": str(file), "LANGUAGE": "de", **variables}


def test_the_page_of_a_run_is_the_same_with_any_git_settings(project, tmp_path):
    change(project)
    plain = project.run(*PAGE)
    assert "| `count.rows` | 2 | 3 | +1 |" in plain
    assert project.run(*PAGE, **settings(tmp_path)) == plain


REVISIONS = """
from lib.revisions import Revision, default_pair
print(default_pair(), Revision("HEAD").label, Revision("HEAD").subject, Revision("").source)
"""


def test_revisions_are_read_with_any_git_settings(project, tmp_path):
    (project.folder / "metrics/count.json").unlink()
    project.commit("Größe ohne Metrik")
    change(project)
    said = project.run("tools/within", ".", "python", "-c", REVISIONS, **settings(tmp_path))
    assert said.startswith("('HEAD', '') HEAD ("), "an untracked result is a change too"
    assert "Größe ohne Metrik" in said
    assert said.strip().endswith(project.git("rev-parse", "HEAD").strip())


@pytest.mark.parametrize("where", ["GIT_DIR", "GIT_COMMON_DIR"])
def test_in_a_hook_of_another_repository_this_one_is_read(project, tmp_path, where):
    other = tmp_path / "other"
    other.mkdir()
    project.run("git", "init", "--quiet", str(other))
    change(project)
    hook = {where: str(other / ".git"), "GIT_INDEX_FILE": str(other / ".git/index")}
    said = project.run(*PAGE, **hook, GIT_WORK_TREE=str(other))
    assert "| `count.rows` | 2 | 3 | +1 |" in said


def test_a_project_starts_with_any_git_settings(project, tmp_path):
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("prepare-commit-msg", "post-commit", "pre-commit"):
        (hooks / name).write_text("#!/bin/sh\nexit 1\n")
        (hooks / name).chmod(0o755)
    variables = settings(tmp_path)
    project.run("git", "config", "--global", "core.hooksPath", str(hooks), **variables)
    script = "from tools.project.start import run; run('commit', '--quiet', '--allow-empty', '-mA')"
    project.run("tools/within", ".", "python", "-c", script, **variables)
    assert project.git("log", "-1", "--format=%s").strip() == "A"


SHARE = """
import sys
from tools.job import share
print(share.fetch("nowhere") or "gone")
print(bool(share.push(share.git("rev-parse", "HEAD"), "new")))
message = share.commit_message({"name": "t"}, share.git("rev-parse", "HEAD"))
commit = share.commit_on(share.git("rev-parse", "HEAD"), ["metrics/count.json"], message)
print(share.git("show", "-s", "--format=%B", commit))
"""


def test_a_job_shares_with_any_git_settings_and_in_any_language(project, tmp_path):
    project.run("git", "init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    project.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    change(project)
    variables = settings(tmp_path, LC_ALL="C.UTF-8")
    said = project.run("tools/within", ".", "python", "-c", SHARE, **variables)
    assert said.splitlines()[0] == "gone", "not an error: git's message is understood"
    assert "False" in said
    assert "Größe-results\n\ncount.rows: 2 -> 3\n\nTag: t\nSource-Commit: " in said
