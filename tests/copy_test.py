"""A copy of the template, by copier and by hand: filled in, started, checked, updated, run."""

import json
import os
import re
import shutil
import stat
import time
from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML

from tests.conftest import ROOT, Project, write_executable
from tests.rehearsal import Sandbox
from tools.project import manifest
from tools.project.todo import marks

pytestmark = pytest.mark.integration

ANSWERS = {
    "name": "wine-cellar",
    "purpose": 'Finds out: which wine is "größer", and {why}; in one line that is rather long',
    "contact": "@org/wine",
    "bucket": "wine.data",
    "s3_endpoint": "https://s3.example.org:9000",
    "mlflow_url": "https://mlflow.example.org/a-b",
    "runner_labels": '"self-hosted", "linux.x64", "gpu_1"',
    "run_tag": "run/wine",
}
OWN = ("tests", ".ci", "copier.yml", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE")


class Copy(Project):
    """A project in an existing folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, *arguments, ok=True, **extra):
        return self.run("make", *arguments, ok=ok, **extra)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The template with its version as a tag, which `copier copy` needs."""
    template = Project(tmp_path_factory.mktemp("template") / "the template")
    template.git("tag", "v0.1.0")
    return template


def copier(template, *arguments, ok=True):
    """The output of `copier`, without its questions."""
    # Packed, as on a hosting site: copier renders the name of each file in .git.
    template.git("repack", "-a", "-d", "--quiet")
    return template.run("tools/within", "--dev", ".", "copier", *arguments, ok=ok)


def copied(template, folder, **answers):
    """A project made by `copier copy` with these answers; made once for the same answers."""
    made = template.folder.parent / f"copy-{hash(frozenset(answers.items()))}"
    if not made.exists():
        copied_now(template, made, **answers)
    shutil.copytree(made, folder, symlinks=True)
    return Copy(folder)


def copied_now(template, folder, *, ok=True, **answers):
    """The output of `copier copy` with these answers added to ANSWERS."""
    file = folder.parent / "answers.yml"
    file.write_text(yaml.safe_dump(ANSWERS | answers))
    arguments = ("copy", "--quiet", "--defaults", "--data-file", str(file))
    return copier(template, *arguments, str(template.folder), str(folder), ok=ok)


def fill_in(project, **values):
    """Fill in by hand: replace each mark's text in the files that `make todo` names."""
    listed = re.findall(r"^(.+):(\d+)  TODO\((\w+)\)", project.make("todo", ok=False), re.MULTILINE)
    assert {name for _, _, name in listed} == set(ANSWERS)
    for file, name in {(file, name) for file, _, name in listed}:
        project.edit(file, f"TODO({name})", (ANSWERS | values)[name])


def by_hand(template, folder, **values):
    """A clone, filled in by hand, without the template's history."""
    template.run("git", "clone", "--quiet", str(template.folder), str(folder))
    project = Copy(folder)
    fill_in(project, **values)
    shutil.rmtree(folder / ".git")
    return project


def tree(project):
    """By path, each file's bytes and whether it is executable."""
    names = project.git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return {
        name: ((project.folder / name).read_bytes(), (project.folder / name).stat().st_mode & 0o111)
        for name in names
        if name and (project.folder / name).exists()
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


def test_a_project_without_the_example_is_the_same_by_copier_and_by_hand(template, tmp_path):
    one = copied(template, tmp_path / "copier", example=False)
    other = by_hand(template, tmp_path / "hand")
    assert "EXAMPLE is 'nope'" in other.make("start", "EXAMPLE=nope", ok=False)
    assert "the example: removed" in one.make("start")
    other.make("start", f"TEMPLATE={template.folder}", "EXAMPLE=no")
    assert tree(one) == tree(other)
    for project in (one, other):
        log = project.git("log", "--format=%s").splitlines()
        assert log == ["Without the example", "Start from the template"]
        assert project.git("status", "--porcelain") == ""
        assert "stages: {}" in text_of(project, "dvc.yaml")
        assert [*project.folder.glob("runtimes/*/"), *project.folder.glob("goals/*.py")] == []
        assert "The example" not in text_of(project, "README.md")
    assert "There is no stage yet" in one.make("run")
    # A second `make start` does not touch the team's files.
    one.make("process", "NAME=prepare_wine")
    one.commit("A process")
    assert "Nothing was left to do" in one.make("start")
    assert (one.folder / "lab/processes/prepare_wine").exists()


PARTS = {"runtimes": r"\bkrt\b|\bruntimes?[-/.]|rehears|`releases`", "sandbox": "sandbox"}


def test_a_project_without_parts_is_the_same_by_copier_and_by_hand(template, tmp_path):
    one = copied(template, tmp_path / "copier", runtimes=False, sandbox=False)
    other = by_hand(template, tmp_path / "hand")
    other.make("start", f"TEMPLATE={template.folder}", "RUNTIMES=no", "SANDBOX=no")
    one.make("start")
    assert tree(one) == tree(other)
    assert "Nothing was left to do" in one.make("start", "RUNTIMES=no")


def test_in_a_repository_with_commits_start_says_what_is_left_to_do(template, tmp_path):
    project = by_hand(template, tmp_path / "hand")
    project.git("init", "--quiet")
    project.commit("As the hosting site's button makes it")
    output = project.make("start", "EXAMPLE=no", "SANDBOX=no")
    assert "Commit this: git add --all && git commit" in output
    assert "The example is still here: when all is committed, `make blank`." in output
    project.commit("Started")
    output = project.make("start", "RUNTIMES=no", ok=False)
    assert "was started with runtimes: commit, then remove runtimes, tools/krt, " in output


def test_a_start_without_an_identity_removes_nothing_yet(template, tmp_path):
    project = by_hand(template, tmp_path / "hand")
    unknown = {"GIT_AUTHOR_NAME": "", "GIT_COMMITTER_NAME": ""}
    output = project.make("start", "EXAMPLE=no", "RUNTIMES=no", ok=False, **unknown)
    assert "git does not know you" in output
    assert (project.folder / "runtimes").exists()
    project.make("start", "EXAMPLE=no", "RUNTIMES=no")
    assert not (project.folder / "runtimes").exists()
    assert not (project.folder / "lab/example.yml").exists()


@pytest.mark.parametrize("without", [("runtimes",), ("sandbox",), ("runtimes", "sandbox")])
def test_without_a_part_no_page_and_no_command_mentions_it(template, tmp_path, without):
    project = copied(template, tmp_path / "copy", **dict.fromkeys(without, False))
    project.make("start")
    assert "none of its files is edited or missing" in project.make("doctor", ok=False)
    files = tree(project)
    assert broken_links(project.folder, files) == []
    pages = {name: content.decode() for name, (content, _) in files.items() if name.endswith(".md")}
    pages |= {target: project.make(target) for target in ("help", "settings")}
    for part, words in PARTS.items():
        found = [name for name, page in pages.items() if re.search(words, page)]
        assert (found == []) == (part in without), (part, found)
    assert not [name for name, page in pages.items() if "<!--" + "%" in page]
    for part in without:
        assert "No rule to make target" in project.make(part.removesuffix("s"), ok=False)
    for hook in ("end-of-file-fixer", "check-yaml"):
        command = ("pre-commit", "run", "--all-files", hook)
        project.run("tools/within", "--dev", ".", *command)


def test_a_copy_has_its_own_readme_and_not_the_templates(template, tmp_path):
    project = copied(template, tmp_path / "copy")
    lines = text_of(project, "README.md").splitlines()
    assert lines[:5] == [
        "# wine-cellar",
        "",
        f"**Purpose:** {ANSWERS['purpose']}",
        "",
        "**Questions:** @org/wine",
    ]
    assert "make run" in "\n".join(lines[:30])
    assert "template" not in "\n".join(lines[:30])


def test_a_copy_has_none_of_the_templates_own_files_and_no_broken_links(template, tmp_path):
    project = copied(template, tmp_path / "copy")
    project.make("start")
    files = set(tree(project))
    assert [name for name in files if name.startswith(OWN) or "TODO" in name] == []
    assert ".gitattributes" not in files
    assert "lab/processes/stages_test.py" in files
    assert broken_links(project.folder, files) == []
    assert "bench" not in project.make("help")


def test_the_templates_own_pages_have_no_broken_links():
    listed = Project.at(ROOT).git("ls-files", "--cached", "--others", "--exclude-standard")
    assert broken_links(ROOT, listed.splitlines()) == []


def broken_links(root, files):
    """The links in Markdown files to a missing file or heading."""
    pages = {name: (root / name).read_text() for name in files if name.endswith(".md")}
    links = [
        (name, *link.partition("#")[::2])
        for name, text in pages.items()
        for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text)
    ]
    return [
        f"{name}: {path}#{anchor}"
        for name, path, anchor in links
        if not (target := (root / name).parent / path if path else root / name).exists()
        or (anchor and anchor not in anchors(target.read_text()))
    ]


def anchors(text):
    """The anchors of a page's headings, as hosting sites form them."""
    code = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", code.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


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
        ("runner_labels", "self-hosted, gpu"),
        ("runner_labels", '"self-hosted; rm"'),
        ("runner_labels", '"self-hosted"'),
        ("runner_labels", '"gpu", "tests"'),
        ("run_tag", "run example"),
        ("run_tag", "run*"),
        ("run_tag", "run..x"),
        ("run_tag", "runtime-x"),
        ("run_tag", "run"),
        ("run_tag", "tune-lr"),
        ("contact", "nobody"),
    ],
)
def test_an_invalid_value_is_refused_and_nothing_is_written(template, tmp_path, name, value):
    error = copied_now(template, tmp_path / "copy", ok=False, **{name: value})
    assert f"'{name}': '{value}' is not " in error
    assert not (tmp_path / "copy").exists()


READ_AS_ANOTHER_TYPE = ("2024", "true", "null", "1e3", "0x1f", "on", "2024-01-01", "0o17")


@pytest.mark.parametrize("value", READ_AS_ANOTHER_TYPE)
def test_a_value_that_yaml_could_misread_is_read_correctly_or_refused(value):
    for mark in (mark for mark in marks() if mark.file.endswith((".yaml", ".yml"))):
        if not mark.allows(value):
            continue
        text = (ROOT / mark.file).read_text().replace(mark.text, value)
        places = {
            "name": lambda file: file["experiment"],
            "run_tag": lambda file: file["on"]["push"]["tags"][0].removesuffix("*"),
        }
        assert places[mark.name](YAML(typ="safe", pure=True).load(text)) == value, mark.name


def test_a_name_that_looks_like_a_number_works_by_copier_and_by_hand(template, tmp_path):
    odd = {"name": "1e3", "bucket": "2024", "contact": "https://example.org/ä?b=1#c:d"}
    project = copied(template, tmp_path / "copier", **odd)
    assert "filled in" in project.make("todo")
    project.run("tools/within", ".", "python", "-m", "lib.params")
    (tmp_path / "answers.yml").write_text((project.folder / ".copier-answers.yml").read_text())
    answers = yaml.safe_load((tmp_path / "answers.yml").read_text())
    assert {name: answers[name] for name in odd} == odd
    other = by_hand(template, tmp_path / "hand", **odd)
    assert "filled in" in other.make("todo")
    assert text_of(other, "params.yaml") == text_of(project, "params.yaml")


def test_a_folder_that_is_not_empty_is_refused_and_unchanged(template, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/README.md").write_text("mine")
    output = copied_now(template, tmp_path / "copy", ok=False)
    assert "is not empty: name a folder that is not there yet" in output
    assert [file.read_text() for file in (tmp_path / "copy").iterdir()] == ["mine"]


def test_an_invalid_value_filled_in_by_hand_is_found(template, tmp_path):
    project = by_hand(template, tmp_path / "cache/hand", bucket="My_Bucket")
    project.edit("params.yaml", ANSWERS["name"], "TODO(name)")
    (project.folder / "lib/__pycache__").mkdir(exist_ok=True)
    (project.folder / "lib/__pycache__/text.pyc").write_text("TODO(name)")
    output = project.make("todo", ok=False)
    assert re.search(r"^params.yaml:\d+  TODO\(name\)", output, re.MULTILINE)
    assert ".dvc/config:6  bucket is 'My_Bucket': it must be a bucket's name" in output
    assert "2 to fill in or to correct" in output
    assert "bucket is 'My_Bucket'" in project.make("start", ok=False)
    assert (project.folder / "copier.yml").exists(), "nothing is done before all values are valid"
    assert not (project.folder / ".git").exists()


def test_checks_pass_with_unusual_values(template, tmp_path):
    project = copied(template, tmp_path / "copy")
    project.make("start")
    hooks = ("actionlint", "zizmor", "yamllint", "check-yaml", "end-of-file-fixer")
    for hook in (*hooks, "trailing-whitespace"):
        project.run(
            *("tools/within", "--dev", ".", "pre-commit", "run", "--all-files", hook),
            ok=True,
        )


# ---- first steps


def test_credentials_are_hidden_from_git_and_other_users(template, tmp_path):
    project = copied(template, tmp_path / "copy")
    project.make("start")
    assert "Nothing was written" in project.make("credentials", ok=False)
    keys = {"AWS_ACCESS_KEY_ID": "the-access-key", "AWS_SECRET_ACCESS_KEY": "the-secret-key"}
    output = project.make("credentials", **keys)
    local = project.folder / ".dvc/config.local"
    assert "the-secret-key" in local.read_text()
    assert "the-secret-key" not in output
    assert stat.S_IMODE(local.stat().st_mode) == 0o600
    assert project.git("status", "--porcelain") == ""
    output = project.make("doctor", ok=False)
    assert "in .dvc/config.local" in output
    servers = re.findall(r"^MISSING +S3, MLflow +(S3|MLflow) ", output, re.MULTILINE)
    assert servers == ["S3", "MLflow"], "one line each"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone for tests that each write its config.local."""
    return Project(tmp_path_factory.mktemp("clone") / "a clöne")


def put(project, secret, ok=True) -> str:
    """The output of `make credentials` with this secret."""
    keys = {"AWS_ACCESS_KEY_ID": "new", "AWS_SECRET_ACCESS_KEY": secret}
    return project.run("make", "--silent", "credentials", ok=ok, **keys)


OTHERS = """# ours
['remote "minio"']
    access_key_id = old
    secret_access_key = working
['remote "größer"']
    url = /mnt/größe/dvc
"""


@pytest.mark.parametrize("secret", ["plain", "geheim-ü", "a, 'b' # \"c\"", "%(half"])
def test_credentials_keep_the_rest_of_config_local(clone, secret):
    local = clone.folder / ".dvc/config.local"
    local.write_text(OTHERS)
    put(clone, secret)
    listed = clone.dvc("config", "--list", "--local").splitlines()
    assert f"remote.minio.secret_access_key={secret}" in listed
    assert "remote.minio.access_key_id=new" in listed
    assert "remote.größer.url=/mnt/größe/dvc" in listed
    assert stat.S_IMODE(local.stat().st_mode) == 0o600


@pytest.mark.parametrize("secret", ["hidden%(x)s", "hidden\rb", "hidden\u2028b", "hidden'''\"\"\""])
def test_a_secret_that_dvc_would_misread_is_refused_in_one_line(clone, secret):
    local = clone.folder / ".dvc/config.local"
    local.write_text(OTHERS)
    line, *ending = put(clone, secret, ok=False).splitlines()
    assert "cannot hold what was given as secret_access_key" in line
    assert all("***" in text and text.startswith("make") for text in ending), "no other output"
    assert "hidden" not in line
    assert local.read_text() == OTHERS


@pytest.mark.parametrize("broken", [b"[core\nhidden\n", b"[core]\nremote = hidden-\xfc\n"])
def test_an_unreadable_config_local_is_reported_without_its_content(clone, broken):
    local = clone.folder / ".dvc/config.local"
    local.write_bytes(broken)
    output = put(clone, "new", ok=False)
    assert re.search(r"config\.local, line \d: ", output)
    assert "Traceback" not in output
    assert "hidden" not in output
    assert local.read_bytes() == broken


def test_a_key_outside_sections_of_config_local_is_reported(clone):
    (clone.folder / ".dvc/config.local").write_text("core = x\n")
    assert "'core' stands below no [section]" in put(clone, "new", ok=False)


def test_a_remote_that_is_not_on_s3_takes_no_credentials(project):
    project.dvc("remote", "add", "--default", "--force", "folder", "/srv/data")
    assert "DVC's remote is /srv/data, which takes no keys of S3." in put(project, "new", ok=False)
    assert not (project.folder / ".dvc/config.local").exists()
    text = "['remote \"folder\"']\n    access_key_id = a\n"
    (project.folder / ".dvc/config.local").write_text(text)
    output = project.run("make", "--silent", "doctor", ok=False)
    assert "takes no keys of S3: remove access_key_id from .dvc/config.local" in output


def test_without_a_default_remote_credentials_say_how_to_set_one(project):
    project.edit(".dvc/config", "    remote = minio\n", "")
    assert "`dvc remote default NAME`" in put(project, "new", ok=False)
    assert not (project.folder / ".dvc/config.local").exists()


# Replaces gh and the hosting site: sets secrets and variables, and keeps what `gh api` sends.
GH = """#!/usr/bin/env python3
import json, pathlib, sys
home = pathlib.Path(__file__).parent
state = json.loads((home / "state.json").read_text())
args, log = sys.argv[1:], (home / "log").open("a")
if args[0] == "auth":
    sys.exit(0)
if args[0] in ("secret", "variable"):
    print(*args, "<", sys.stdin.read(), file=log)
    of = args[args.index("--env") + 1] if "--env" in args else ""
    where = f"environments/{of}/secrets" if of else f"actions/{args[0]}s"
    state.setdefault(where, {"secrets": []})["secrets"].append({"name": args[2]})
else:
    method = args[args.index("--method") + 1] if "--method" in args else "GET"
    path = next(a for a in args if a.startswith(("repos/", "orgs/")))
    path = path.removeprefix("repos/{owner}/{repo}")
    path = path.strip("/").partition("?")[0]
    if method == "GET":
        if path not in state:
            sys.exit("gh: Not Found (HTTP 404)")
        print(json.dumps(state[path]))
    else:
        content = json.loads(sys.stdin.read())
        print(method, path, file=log)
        if path.endswith("/deployment-branch-policies"):
            state.setdefault(path, {"branch_policies": []})["branch_policies"].append(content)
        elif method == "POST":
            state.setdefault(path, []).append(content)
        else:
            state[path] = content
(home / "state.json").write_text(json.dumps(state))
"""
OLD = {"name": "MINIO_ACCESS_KEY_ID"}
FORKS = "actions/permissions/fork-pr-workflows-private-repos"


@pytest.fixture
def hosted(template, tmp_path):
    """A project on a hosting site with default settings, and a secret as in older projects."""
    project = copied(template, tmp_path / "copy")
    write_executable(tmp_path / "bin/gh", GH)
    state = {
        "": {},
        "actions/secrets": {"secrets": [OLD]},
        FORKS: {"run_workflows_from_fork_pull_requests": True},
    }
    (tmp_path / "bin/state.json").write_text(json.dumps(state))
    return project


def with_gh(project):
    return {"PATH": f"{project.folder.parent}/bin{os.pathsep}{project.environment()['PATH']}"}


KEYS = {"AWS_ACCESS_KEY_ID": "an-access-key", "AWS_SECRET_ACCESS_KEY": "hidden-secret"}


def test_settings_are_listed_and_set_by_gh_with_no_secret_on_its_command_line(hosted):
    listed = hosted.make("settings")
    for workflow in ("experiments", "runtimes"):
        text = text_of(hosted, f".github/workflows/{workflow}.yml")
        for name in set(re.findall(r"(?:secrets|vars)\.(\w+)", text)):
            assert name in listed
    output = hosted.make("settings", "SET=yes", **KEYS, **with_gh(hosted))
    assert "secret   MINIO_SECRET_ACCESS_KEY in experiments: set" in output
    assert "MLFLOW_URL is not set here" in output
    log = (hosted.folder.parent / "bin/log").read_text()
    assert "secret set MINIO_SECRET_ACCESS_KEY --env releases < hidden-secret\n" in log
    assert log.count("hidden-secret") == log.count("< hidden-secret") == 2


def test_secrets_are_limited_to_tags_and_branches_and_the_doctor_finds_gaps(
    hosted,
):
    def found():
        output = hosted.make("doctor", ok=False, **with_gh(hosted))
        return re.findall(r"^(?:MISSING|--|ok) +hosting site +(.+)$", output, re.MULTILINE)

    old = "MINIO_ACCESS_KEY_ID is a secret of the repository, for every branch: gh secret delete"
    missing = found()
    assert f"{old} MINIO_ACCESS_KEY_ID" in missing
    assert "environment experiments: it does not exist" in missing
    assert "tags runtime-*: everybody who may push may push them" in missing
    assert "pull requests of forks: they run without being asked" in missing
    hosted.make("settings", "SET=yes", **KEYS, **with_gh(hosted))
    file = hosted.folder.parent / "bin/state.json"
    state = json.loads(file.read_text())
    allowed = {
        name: {
            (policy["type"], policy["name"])
            for policy in state[f"environments/{name}/deployment-branch-policies"][
                "branch_policies"
            ]
        }
        for name in ("experiments", "releases")
    }
    assert allowed == {
        "experiments": {("tag", "run/wine*"), ("tag", "tune-*"), ("branch", "main")},
        "releases": {("tag", "runtime-*")},
    }
    state["actions/secrets"]["secrets"] = []
    file.write_text(json.dumps(state))
    assert found() == ["its settings are as make settings lists them"]
    log = hosted.folder.parent / "bin/log"
    log.unlink()
    hosted.make("settings", "SET=yes", **with_gh(hosted))
    assert log.read_text() == "", "existing settings are not set again"


def test_the_doctor_says_whether_a_runner_has_the_labels(hosted):
    file = hosted.folder.parent / "bin/state.json"

    def found(**state):
        file.write_text(json.dumps(json.loads(file.read_text()) | state))
        output = hosted.make("doctor", ok=False, **with_gh(hosted))
        return re.search(r"^(\S+) +runner labels +(.+)$", output, re.MULTILINE).groups()

    assert found() == (
        "--",
        "no runner that is online and that gh may see has all of: self-hosted, linux.x64, gpu_1",
    )
    labels = [{"name": name} for name in ("Self-Hosted", "linux.x64", "gpu_1", "more")]
    runner = {"name": "box", "status": "offline", "labels": labels}
    assert found(**{"actions/runners": {"runners": [runner]}})[0] == "--"
    runner["status"] = "online"
    mark, output = found(**{"actions/runners": {"runners": [runner]}})
    assert (mark, output.partition(":")[0]) == ("ok", "box has")
    variable = {"name": "RUNNER_LABELS", "value": '["ubuntu-latest"]'}
    output = found(**{"actions/variables/RUNNER_LABELS": variable})
    assert output == ("ok", "one of GitHub's: ubuntu-latest")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("RUNNER_LABELS", "ubuntu-latest", 'a list in JSON, as in ["self-hosted", "gpu"]'),
        ("RUNNER_LABELS", '["gpu", "tests"]', "labels in quotes, not self-hosted alone nor tests"),
        ("RUN_CONTAINER", "my/image:1", "what GitHub takes for `container`, in JSON"),
    ],
)
def test_a_variable_with_which_no_job_could_start_is_not_set(hosted, name, value, why):
    output = hosted.make("settings", "SET=yes", ok=False, **with_gh(hosted), **{name: value})
    assert f"variable {name}: NOT set: it must be {why}" in output
    assert "1 could not be set" in output


# A user for git, whoever runs the tests.
KNOWN = {
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "user.name",
    "GIT_CONFIG_VALUE_0": "Test",
    "GIT_CONFIG_KEY_1": "user.email",
    "GIT_CONFIG_VALUE_1": "test@example.org",
}


def test_the_doctor_says_what_is_missing_and_how_to_get_it(template, tmp_path):
    project = copied(template, tmp_path / "copy")
    text = project.make("doctor", ok=False, **KNOWN)
    assert re.search(r"^ok +Python +3\.11", text, re.MULTILINE)
    assert re.search(r"^ok +marks", text, re.MULTILINE)
    assert re.search(r"^MISSING +git +this folder is no repository.*make start", text, re.MULTILINE)
    project.make("start")
    project.git("remote", "add", "origin", "https://example.org/wine.git")
    project.edit("Pipfile", "[packages]", '[packages]\nattrs = "*"')
    text = project.make("doctor", ok=False, **KNOWN)
    assert re.search(r"^ok +git ", text, re.MULTILINE)
    assert re.search(r"^ok +git remote +origin https://example.org/wine.git", text, re.MULTILINE)
    assert re.search(r"^MISSING +locks .*make lock", text, re.MULTILINE)
    assert re.search(r"^MISSING +credentials .*make credentials", text, re.MULTILINE)
    (project.folder / "Pipfile.lock").unlink()
    project.git("config", "core.sparseCheckout", "yes")
    text = project.make("doctor", ok=False, **KNOWN)
    assert re.search(r"^MISSING +git +.*: git sparse-checkout disable$", text, re.MULTILINE)
    assert re.search(
        r"^MISSING +environments +Pipfile.lock does not exist: run `make lock`",
        text,
        re.MULTILINE,
    )
    assert not re.search(r"^MISSING +disk +Pipfile", text, re.MULTILINE)
    assert "Traceback" not in text


DISK = (
    '"$(tools/environments/bootstrap)" -c "from tools.project import doctor; '
    "doctor.FREE_GIGABYTES, doctor.WORK_GIGABYTES = {sizes}; {more}"
    "doctor.CHECKS = {{'disk': doctor.disk}}; doctor.main()\""
)


def test_the_doctor_checks_the_disks_of_environments_and_of_the_clone(template):
    home = Path("/dev/not-there-yet")  # its own file system, on every machine

    def disk(sizes, more="", ok=False):
        line = DISK.format(sizes=sizes, more=more)
        return template.run("sh", "-c", line, ok=ok, WORKON_HOME=str(home))

    of_environments = f" GB are free where environments are ({home}), 1e+06 are needed: make clean"
    of_clone = f" GB are free where this clone is ({template.folder}), 1e+06 are needed: remove"
    output = disk("1e6, 0")
    assert of_environments in output
    assert of_clone not in output
    made = "doctor.missing_environments = list; "
    assert " GB free" in disk("1e6, 0", made, ok=True), "less is needed if all environments exist"
    output = disk("1e6, 1e6", made)
    assert of_environments in output
    assert of_clone in output


def test_the_doctor_names_edited_files_of_the_template(template, tmp_path):
    project = copied(template, tmp_path / "copy")
    project.make("start")
    assert "none of its files is edited or missing" in project.make("doctor", ok=False)
    # Other values for marks, other line endings and permissions are no edits.
    project.edit(".github/workflows/experiments.yml", '"gpu_1"]', '"gpu_2"]')
    crlf = project.folder / "ruff.toml"
    crlf.write_bytes(crlf.read_bytes().replace(b"\n", b"\r\n"))
    (project.folder / "Makefile").chmod(0o755)
    assert "none of its files is edited or missing" in project.make("doctor", ok=False)
    project.edit("tools/project/todo.py", "import re\n", "import re  # ours\n")
    project.edit(".github/workflows/experiments.yml", "timeout-minutes: 720", "timeout-minutes: 60")
    (project.folder / ".yamllint").unlink()
    found = re.findall(r"^-- +template +(.+)$", project.make("doctor", ok=False), re.MULTILINE)
    assert [line.partition(":")[0] for line in found] == [
        ".github/workflows/experiments.yml is edited",
        ".yamllint is missing",
        "tools/project/todo.py is edited",
    ]
    assert "the next update replaces it" in found[2]


# ---- updates


def test_the_manifest_is_up_to_date():
    assert manifest.FILE.read_text() == manifest.written(), "`make check` updates it"


def test_an_update_replaces_all_files_of_the_manifest_except_workflows(template):
    """The template's files are listed twice: for the doctor, and for copier."""
    listed = [line.split("  ", 1)[1] for line in manifest.FILE.read_text().splitlines()]
    replaced = template.folder / "TODO('.gitattributes')"
    attributes = template.run(
        *("git", "-c", f"core.attributesFile={replaced}", "check-attr", "-z", "diff", "--", *listed)
    ).split("\0")[:-1]
    merged = [
        name
        for name, state in zip(attributes[::3], attributes[2::3], strict=True)
        if state != "unset"
    ]
    assert [name for name in merged if not name.startswith(".github/")] == []


def test_an_update_adds_what_is_new_and_keeps_the_projects_changes(tmp_path):
    folder = tmp_path / "template"
    template = Project(folder)
    template.edit("Makefile", "results: ## Show the results", "results: ## Display the results")
    template.edit("PROJECT.md", "## Two commands", "## A command or two")
    template.edit("lib/progress.py", "import logging", "# Older.\nimport logging")
    (folder / "lib/metrics_test.py").unlink()
    template.commit("An older version")
    template.git("tag", "v0.1.0")
    project = copied(template, tmp_path / "project", sandbox=False)
    project.make("start")

    project.edit("README.md", "# wine-cellar", "# The wine cellar")
    project.edit("params.yaml", "lr: 0.001", "lr: 0.005")
    module = "lab/processes/train_dnn_pytorch/densenet.py"
    (project.folder / module).write_text(text_of(project, module) + "# Ours.\n")
    project.edit(".github/workflows/experiments.yml", "timeout-minutes: 720", "timeout-minutes: 60")
    project.edit("Makefile", "results: ## Display the results", "results: ## Show our results")
    project.commit("Our own")

    for name in ("Makefile", "PROJECT.md", "lib/progress.py", "lib/metrics_test.py"):
        shutil.copy(ROOT / name, folder / name)
    template.commit("The present version")
    template.git("tag", "v0.2.0")
    update(template, project, "--data", "sandbox=true")
    sandbox = {"tools/sandbox/README.md", "tools/sandbox/Pipfile", "tools/sandbox/Pipfile.lock"}
    assert sandbox <= tree(project).keys(), "a part can be added later"
    output = project.make("doctor", ok=False, **KNOWN)
    assert " is missing" not in output
    assert re.search(r"^ok +locks", output, re.MULTILINE)
    assert "make sandbox" in text_of(project, "tools/README.md")
    assert (project.folder / "lib/metrics_test.py").exists()
    assert "# Older." not in text_of(project, "lib/progress.py")
    readme = text_of(project, "README.md")
    assert readme.startswith("# The wine cellar")
    assert "## A command or two" in readme, "the README is the team's"
    assert "lr: 0.005" in text_of(project, "params.yaml")
    assert 'experiment: "wine-cellar"' in text_of(project, "params.yaml")
    assert text_of(project, module).endswith("# Ours.\n")
    assert "timeout-minutes: 60" in text_of(project, ".github/workflows/experiments.yml")
    assert text_of(project, "Makefile") == (ROOT / "Makefile").read_text(), "the template's"
    assert conflicts(project) == []
    assert "_commit: v0.2.0" in text_of(project, ".copier-answers.yml")


def test_an_update_removes_an_unwanted_part_except_the_teams_files(template, tmp_path):
    project = copied(template, tmp_path / "project")
    project.make("start")
    before = tree(project)
    update(template, project, "--data", "runtimes=false")
    parts = yaml.safe_load(text_of(project, "tools/project/marks.yml"))["parts"]["default"]
    left = {name for name in tree(project) if name.startswith(tuple(parts["runtimes"]))}
    assert left == {name for name in before if name.startswith("runtimes/")}
    output = project.make("doctor", ok=False, **KNOWN)
    assert " is missing" not in output
    (project.folder / ".copier-answers.yml").write_text("<<<<<<< ours\n")
    output = project.make("doctor", ok=False, **KNOWN)
    assert re.search(
        r"^MISSING +template +\.copier-answers\.yml is not what copier wrote", output, re.MULTILINE
    )


def update(template, project, *options):
    """Run `copier update` to the newest version, without its questions."""
    copier(template, "update", "--defaults", "--quiet", *options, str(project.folder))


def conflicts(project):
    """The files that have conflict marks."""
    command = ("git", "grep", "--name-only", "^<<<<<<<")
    return project.run("sh", "-c", f"{' '.join(map(repr, command))} || true").split()


@pytest.fixture(scope="module")
def updated(tmp_path_factory):
    """The template, a project without the example after an update, and its files before.

    The update changes the README, the example, lib/, tools/ and the workflow. The project has
    changed the same, except for the example.
    """
    folder = tmp_path_factory.mktemp("update") / "template"
    template = Project(folder)
    template.git("tag", "v0.1.0")
    project = copied(template, folder.parent / "project")
    project.make("start")
    project.make("blank")
    project.commit("Without the example")
    project.make("process", "NAME=train_wine")
    project.edit("README.md", "# wine-cellar", "# The wine cellar")
    project.edit("params.yaml", "factor: 2.0", "factor: 3.0")
    project.edit("dvc.yaml", "desc: What train_wine computes, in a line.", "desc: Our own.")
    workflow = ".github/workflows/experiments.yml"
    project.edit(workflow, '"self-hosted", "linux.x64", "gpu_1"', '"self-hosted", "gpu_2"')
    project.edit("lib/viz.py", '"""Plots', '"""Our plots')
    project.edit("lib/splits.py", "\nimport numpy", "\n# Ours.\nimport numpy")
    project.edit("tools/project/credentials.py", '"""Writes', '"""Our own: writes')
    project.edit("ruff.toml", "line-length = 100", "line-length = 90")
    (project.folder / ".gitattributes").write_text("*.bin binary\n")
    (project.folder / "lib/metrics_test.py").unlink()
    project.dvc("repro")
    project.commit("Our own")
    before = tree(project)

    template.edit("PROJECT.md", "## Two commands", "## A better text")
    template.edit("params.yaml", "lr: 0.001", "lr: 0.002")
    template.edit("lab/processes/train_dnn_pytorch/densenet.py", "import", "# New.\nimport")
    for name in (
        "lab/processes/new_one/main.py",
        "goals/new_test.py",
        "lib/new.py",
        "tools/new.py",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text('"""New."""\n')
    for name in ("lib/metrics_test.py", "Pipfile", ".env", ".gitignore", "dvc.yaml", ".dvc/config"):
        (folder / name).write_text((folder / name).read_text() + "# New.\n")
    template.edit("lib/viz.py", '"""Plots', '"""Better plots')
    template.edit("lib/splits.py", '"""The', '"""New: the')
    template.edit("tools/project/todo.py", "import re\n", "import re  # new\n")
    (folder / "tools/project/settings.py").unlink()
    (folder / "lab/processes/train_dnn_pytorch/densenet_test.py").unlink()
    template.edit(workflow, "timeout-minutes: 720", "timeout-minutes: 700")
    template.commit("A later version")
    template.git("tag", "v0.2.0")
    update(template, project)
    return template, project, before


TEAMS = re.compile(
    r"(lab|goals|runtimes|metrics|\.dvc)/|(?!tools/).*Pipfile(\.lock)?$"
    r"|(\.env|\.gitignore|\.gitattributes|README\.md|dvc\.(lock|yaml)|params\.yaml)$"
)


def test_an_update_changes_none_of_the_teams_files_and_adds_no_example(updated):
    _, project, before = updated
    ours = {name: content for name, content in before.items() if TEAMS.match(name)}
    assert len(ours) > 20
    assert {name: content for name, content in tree(project).items() if TEAMS.match(name)} == ours


def test_an_update_merges_lib_and_marks_conflicts(updated):
    _, project, _ = updated
    assert (project.folder / "lib/new.py").exists()
    assert not (project.folder / "lib/metrics_test.py").exists(), "the team removed it"
    splits = text_of(project, "lib/splits.py")
    assert "# Ours." in splits
    assert splits.startswith('"""New: the')
    workflow = ".github/workflows/experiments.yml"
    assert "gpu_2" in text_of(project, workflow)
    assert set(conflicts(project)) <= {"lib/viz.py", workflow}
    assert "lib/viz.py" in conflicts(project)


def test_an_update_replaces_the_templates_files(updated):
    template, project, _ = updated
    for name in ("tools/project/credentials.py", "tools/project/todo.py", "tools/new.py"):
        assert text_of(project, name) == text_of(template, name)
    assert text_of(project, "ruff.toml") == text_of(template, "ruff.toml")
    assert not (project.folder / "tools/project/settings.py").exists()
    assert not list(project.folder.rglob("*.rej"))


def test_an_update_reruns_no_stage(updated):
    _, project, _ = updated
    assert "up to date" in project.dvc("status")


# ---- to the first results


def test_from_copier_copy_to_the_first_results_commit(template, tmp_path):
    (tmp_path / "a größer place").mkdir()
    started = time.monotonic()
    project = copied(template, tmp_path / "a größer place/my wine")
    project.make("start")
    assert "Results" in project.make("run")
    sandbox = Sandbox(project)
    try:
        output = sandbox.up()
        assert "git tag run/wine-v0.0.1" in output
        project.edit("params.yaml", "epochs: 120", "epochs: 110")
        project.commit("Fewer epochs")
        sandbox.branch = "main"
        sandbox.push()
        tag, output = sandbox.tag("run/wine-v0.0.1")
        assert "Job succeeded" in output, output
        sandbox.git("pull", "--quiet", "sandbox", "main")
        message = sandbox.git("log", "-1", "--format=%B")
        assert message.startswith("Fewer epochs-results\n")
        assert f"Tag: {tag}" in message
        project.dvc("pull")
        assert "up to date" in project.dvc("status", "train_dnn_pytorch")
    finally:
        sandbox.down()
    print(f"from `copier copy` to the first results commit: {time.monotonic() - started:.0f} s")
