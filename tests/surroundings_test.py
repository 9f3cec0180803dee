"""Settings of a machine change no results; failures are reported with their causes.

git settings, bytes that are not text, unusual names, locales, proxies; stages that fail.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Project, answer, server_that, write_executable
from tools.job.experiment import Watch, failure

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
COUNT = "#!/bin/sh\nmkdir -p metrics\necho '{\"rows\": 3}' > metrics/count.json\n"
RESULTS = ("tools/within", ".", "python", "-m", "tools.report.results")
PAGE = ("tools/within", ".", "python", "-m", "tools.report.run_page")
EXPERIMENT = ("tools/within", ".", "python", "-m", "tools.job.experiment")


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A pipeline of one stage in shell, with its results committed."""
    folder = tmp_path_factory.mktemp("surroundings") / "a projëct"
    project = Project(folder)
    project.give_pipeline(PIPELINE)
    write_executable(folder / "lab/processes/count/main", COUNT)
    (folder / "metrics").mkdir()
    (folder / "metrics/count.json").write_text('{"rows": 2}\n')
    remote = "[core]\n    remote = here\n['remote \"here\"']\n    url = ../remote\n"
    (folder / ".dvc/config.local").write_text(remote)
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
    """A user's git settings, as different from git's defaults as possible."""
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
    output = project.run("tools/within", ".", "python", "-c", REVISIONS, **settings(tmp_path))
    assert output.startswith("('HEAD', '') HEAD ("), "an untracked result is a change, too"
    assert "Größe ohne Metrik" in output
    assert output.strip().endswith(project.git("rev-parse", "HEAD").strip())


@pytest.mark.parametrize("where", ["GIT_DIR", "GIT_COMMON_DIR"])
def test_in_a_hook_of_another_repository_this_one_is_read(project, tmp_path, where):
    other = tmp_path / "other"
    other.mkdir()
    project.run("git", "init", "--quiet", str(other))
    change(project)
    hook = {where: str(other / ".git"), "GIT_INDEX_FILE": str(other / ".git/index")}
    output = project.run(*PAGE, **hook, GIT_WORK_TREE=str(other))
    assert "| `count.rows` | 2 | 3 | +1 |" in output


def test_a_project_starts_with_any_git_settings(project, tmp_path):
    hooks = tmp_path / "hooks"
    for name in ("prepare-commit-msg", "post-commit", "pre-commit"):
        write_executable(hooks / name, "#!/bin/sh\nexit 1\n")
    variables = settings(tmp_path)
    project.run("git", "config", "--global", "core.hooksPath", str(hooks), **variables)
    script = "from tools.project.start import run; run('commit', '--quiet', '--allow-empty', '-mA')"
    project.run("tools/within", ".", "python", "-c", script, **variables)
    assert project.git("log", "-1", "--format=%s").strip() == "A"


def test_results_and_locks_are_tracked_despite_a_users_ignore_rules(project, tmp_path):
    patterns = "*.json *.lock *.yaml *.toml *.csv *.bak metrics artifacts"
    (tmp_path / "ignored").write_text(patterns.replace(" ", "\n") + "\n")
    variables = settings(tmp_path)
    ignored = ("core.excludesFile", str(tmp_path / "ignored"))
    project.run("git", "config", "--global", *ignored, **variables)
    kept = ["artifacts/tune/a/b.csv", "lab/processes/count/Pipfile.lock", "metrics/c/later.json"]
    kept += ["metrics/later.csv", "metrics/later.toml"]
    for name in (*kept, "metrics/count.json.bak"):
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / name).write_text("{}\n")
    assert "up to date" in project.dvc("status", **variables)
    project.run("git", "add", "--all", **variables)
    added = project.git("diff", "--cached", "--name-only").split()
    assert added == kept


SHARE = """
import sys
from tools.job import share
print(share.fetch("nowhere") or "gone")
print(bool(share.push(share.git("rev-parse", "HEAD"), "new")))
message = share.commit_message({"name": "t"}, share.git("rev-parse", "HEAD"), [])
commit = share.commit_on(share.git("rev-parse", "HEAD"), ["metrics/count.json"], message)
print(share.git("show", "-s", "--format=%B", commit))
"""


def test_a_job_shares_with_any_git_settings_and_in_any_language(project, tmp_path):
    project.run("git", "init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    project.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    change(project)
    variables = settings(tmp_path, LC_ALL="C.UTF-8")
    output = project.run("tools/within", ".", "python", "-c", SHARE, **variables)
    assert output.splitlines()[0] == "gone", "not an error: git's message is understood"
    assert "False" in output
    assert "Größe-results\n\ncount.rows: 2 -> 3\n\nTag: t\nSource-Commit: " in output


# ---- the cause of a failed stage


def experiment(project, ok=False, **variables):
    """The output of a run's step, and the run's page."""
    page = project.folder / "page.md"
    output = project.run(*EXPERIMENT, ok=ok, GITHUB_STEP_SUMMARY=str(page), **variables)
    return output, page.read_text() if page.exists() else ""


def set_stage(project, cmd, **more):
    stage = {"cmd": cmd, "outs": ["out.txt"]} | more
    (project.folder / "dvc.yaml").write_text(json.dumps({"stages": {"count": stage}}))


FAILURES = {
    "an out not written": ("echo 3 rows", {}, "output 'out.txt' does not exist"),
    "a dep missing": ("true", {"deps": ["nope"]}, "'nope' does not exist"),
    "an unknown command": ("nosuchcommand", {}, "nosuchcommand: "),
    "bytes": (r"printf 'gr\366\337e\n'; exit 1", {}, "gr\ufffd\ufffde (exit code 1)"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failed_stage_is_reported_with_its_cause(project, case):
    cmd, more, cause = FAILURES[case]
    set_stage(project, cmd, **more)
    output, page = experiment(project)
    assert "Stage count failed: " in page
    assert cause in page.splitlines()[0]
    assert "&& tools/within . dvc repro count" in page
    assert "Traceback" not in output
    note = json.loads((project.folder / ".dvc/tmp/run.json").read_text())
    assert note["stages"]["count"]["state"] == "failed"


def test_an_unreadable_pipeline_is_reported_with_the_line(project):
    (project.folder / "dvc.yaml").write_text("stages:\n  count: [\n")
    _, page = experiment(project)
    assert "The pipeline failed: './dvc.yaml' is invalid." in page
    assert "line 3" in page or "line 2" in page


def test_a_locked_repository_is_reported_as_such(project):
    with project.start("tools/within", ".", "python", "-c", HOLD) as holder:
        assert holder.stdout.readline() == "held\n"
        _, page = experiment(project)
    assert "The pipeline failed: Unable to acquire lock." in page


HOLD = """
import time
from dvc.repo import Repo
with Repo(".") as repo, repo.lock:
    print("held", flush=True)
    time.sleep(60)
"""


def cause_of(reason):
    """The cause that is found in DVC's output when a machine fails."""
    return failure(["Running stage 'count':", "> cmd", "3 rows", f"ERROR: {reason}"], "count", 255)


def test_signals_and_system_errors_are_reported_in_plain_words():
    full = "unexpected error - [Errno 28] No space left on device: '/x'"
    assert cause_of(full) == ("count", full)
    gone = "failed to pull data from the cloud - Checkout failed for following targets:"
    stage, why = failure([f"ERROR: {gone}", "data.csv", "Is your cache up to date?"], "", 255)
    assert (stage, why) == ("", f"{gone} data.csv Is your cache up to date?")
    refused = "An error occurred (AccessDenied) when calling the GetObject operation"
    lines = [f"ERROR: failed to transfer '{'0' * 32}' - {refused}"]
    lines += ["ERROR: failed to reproduce 'a.csv.dvc': 1 files failed to download"]
    assert failure(lines, "", 255) == ("a.csv.dvc", f"1 files failed to download: {refused}")
    killed = "failed to reproduce 'count': failed to run: cmd, exited with"
    assert "out of memory" in cause_of(f"{killed} -9")[1]
    assert cause_of(f"{killed} 139") == ("count", "it was ended by SIGSEGV")
    assert cause_of(f"{killed} -15") == ("count", "it was ended by SIGTERM")
    own = ["Running stage 'count':", "> cmd", "ERROR: mine", f"ERROR: {killed} 3"]
    assert failure(own, "count", 255) == ("count", "ERROR: mine (exit code 3)")
    assert failure([own[0], own[1], own[3]], "count", 255)[1] == (
        "`cmd` printed nothing (exit code 3)"
    )
    assert failure([], "count", -9) == ("count", "dvc itself was ended by SIGKILL")


def test_colours_are_not_part_of_a_cause():
    watch = Watch()
    for line in ("\x1b[1;31mValueError: bad\x1b[0m", "\x1b[0m", "\x1b[2K"):
        watch.read(line)
    assert list(watch.lines) == ["ValueError: bad"]


# ---- bytes and names


def test_a_stage_may_print_any_bytes_and_its_metrics_are_shown(project):
    script = r"""printf 'gr\366\337e\n'; printf '{"gr\\udce4ser": 1}' > out.txt"""
    set_stage(project, script, outs=[], metrics=[{"out.txt": {"cache": False}}])
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    output, _ = experiment(project, ok=True, **ascii_only)
    assert "gr\ufffd\ufffde" in output
    for command in (PAGE, RESULTS):
        output = project.run(*command, **ascii_only)
        assert re.search(r"out.*gr\\+udce4ser", output), "a key that no encoding has"
        assert "Traceback" not in output


ODD = ("with space.json", "--help.json", "quo'te\".json", "größe.json", ":(top).json", "[a].json")


def test_result_files_can_have_any_name(project):
    files = [f"metrics/{name}" for name in ODD] + [ODD[1]]
    stage = {"cmd": "true", "metrics": [{file: {"cache": False}} for file in files]}
    (project.folder / "dvc.yaml").write_text(json.dumps({"stages": {"count": stage}}))
    for file in files:
        (project.folder / file).write_text('{"accuracy": 1}')
    project.dvc("commit", "--force", "--quiet")
    script = f"""
from lib.repository import git_names, uncommitted
from tools.job.share import changed, commit_on, differ, git
files = {files!r}
assert sorted(uncommitted(files)) == sorted(files)
assert changed("HEAD", files)
commit = commit_on("HEAD", files, "Results")
assert differ("HEAD", commit, files)
assert set(git_names("ls-tree", "-r", "-z", "--name-only", commit)) >= set(files)
"""
    project.run("tools/within", ".", "python", "-c", script)
    assert "größe" in project.run(*PAGE)


def test_a_file_name_that_is_not_utf8_is_like_any_other(project):
    name = os.fsencode(project.folder) + b"/lab/gr\xf6\xdfe.txt"
    Path(os.fsdecode(name)).write_bytes(b"TODO" + b"(contact) gr\xf6\xdfe\n")
    output = project.run("make", "todo", ok=False)
    assert re.search("lab/gr.+e.txt:1  TODO.contact", output)
    assert "Traceback" not in output


def test_thousands_of_results_fit_into_command_lines(project):
    script = """
from lib.repository import uncommitted
from lib.revisions import Revision
names = [f"{'d' * 200}/{'n' * 50}{n}.json" for n in range(20_000)]
print(uncommitted(names), Revision("").uncommitted(["dvc.yaml"] + names))
"""
    (project.folder / "dvc.yaml").write_text("stages: {}\n")
    assert "[] ['dvc.yaml']" in project.run("tools/within", ".", "python", "-c", script)


def test_a_page_fits_the_limit_of_the_hosting_site(project, tmp_path):
    page = tmp_path / "page.md"
    script = "from tools.job.job import summarise; summarise('ä' * 2**20)"
    project.run("tools/within", ".", "python", "-c", script, GITHUB_STEP_SUMMARY=str(page))
    assert len(page.read_bytes()) < 2**20
    assert page.read_text().endswith("… 2,097,153 bytes in all; the log has them.\n")


def test_packages_send_no_telemetry(project, tmp_path):
    """When imported, onnxruntime stores an id and data to send in the user's cache."""
    command = "import onnxruntime, os; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    (home := tmp_path / "home").mkdir()
    caches = (f"XDG_CACHE_HOME={home}", f"HOME={home}", "CI=")
    assert project.run("tools/within", "goals", "env", *caches, "python", "-c", command) == "true\n"
    assert [*home.iterdir()] == []


# ---- proxies, certificates, folders


MLFLOW = answer(200, "{}")  # enough of MLflow for these tests
ASK = """
import os, requests
from tools.job.job import ask_mlflow
print(ask_mlflow("experiments/search"), requests.get(os.environ["MLFLOW_URL"], timeout=5).json())
print("boto3 trusts", os.environ.get("AWS_CA_BUNDLE"))
"""


def ask(project, **variables):
    return project.run("tools/within", ".", "python", "-c", ASK, **variables)


@pytest.mark.parametrize("names", ["http_proxy https_proxy", "HTTP_PROXY", "ALL_PROXY all_proxy"])
def test_servers_on_this_machine_are_reached_directly_despite_proxies(project, names):
    proxies = dict.fromkeys(names.split(), "http://127.0.0.1:9")
    with server_that(MLFLOW) as url:
        assert ask(project, MLFLOW_URL=url, no_proxy="", NO_PROXY="a.b", **proxies).startswith(
            "{} {}"
        )


def test_proxies_are_used_for_other_machines(project):
    shown = 'echo "$http_proxy $no_proxy $NO_PROXY"'
    variables = {"http_proxy": "http://proxy:1", "no_proxy": "", "NO_PROXY": "example.org"}
    output = project.run("tools/within", ".", "sh", "-c", shown, **variables)
    direct = "example.org,127.0.0.1,localhost,::1"
    assert output.split() == ["http://proxy:1", direct, direct]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"ALL_PROXY": "all:1"}, "http=all:1 https=all:1"),
        ({"all_proxy": "http://all:1", "HTTPS_PROXY": "tls:2"}, "http=http://all:1 https=tls:2"),
        ({"ALL_PROXY": "socks5://all:1", "http_proxy": "one:3"}, "http=one:3 https="),
    ],
)
def test_all_proxy_is_set_for_clients_that_do_not_read_it(project, given, found):
    names = [f"{name}_proxy" for name in ("all", "http", "https")]
    unset = dict.fromkeys([*names, *map(str.upper, names)], "")
    shown = 'echo "http=$http_proxy https=$https_proxy"'
    assert project.run("tools/within", ".", "sh", "-c", shown, **(unset | given)) == f"{found}\n"


TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")


@pytest.mark.parametrize("name", TRUST[:3])
def test_every_client_trusts_the_users_certificates(project, certificate, name):
    trusted = dict.fromkeys(TRUST, "") | {name: str(certificate)}
    with server_that(MLFLOW, certificate) as url:
        output = ask(project, MLFLOW_URL=url, **trusted)
    assert output.startswith("{} {}")
    assert f"boto3 trusts {certificate}" in output


def test_odd_or_read_only_folders_do_no_harm(project, tmp_path):
    (tmp_path / "a b").mkdir()
    home = Path.home()
    places = {
        "HOME": "/proc/nowhere",
        "TMPDIR": str(tmp_path / "a b"),
        "WORKON_HOME": os.environ.get("WORKON_HOME", f"{home}/.local/share/virtualenvs"),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", f"{home}/.cache"),
    }
    project.run("lab/processes/run", "count", **places)
    assert json.loads((project.folder / "metrics/count.json").read_text()) == {"rows": 3}
    assert list((tmp_path / "a b").iterdir()) == []


NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # which getpass reads, in this order
NUMBER_ALONE = """#!/bin/sh
[ "$1" = -u ] || echo "id: cannot find name for user ID 4711" >&2
echo 4711
[ "$1" = -u ]
"""


def test_a_user_without_a_name_gets_one_for_dvc(project, tmp_path):
    write_executable(tmp_path / "id", NUMBER_ALONE)
    ask = ("tools/within", ".", "sh", "-c", 'echo "[$LOGNAME]"')
    nameless = dict.fromkeys(NAMES, "")
    path = f"{tmp_path}{os.pathsep}{project.environment()['PATH']}"
    assert project.run(*ask, PATH=path, **nameless) == "[4711]\n"
    name = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout
    assert project.run(*ask, **nameless) == f"[{name.strip()}]\n"
    assert project.run(*ask, PATH=path, **(nameless | {"USER": "me"})) == "[]\n"


def test_a_users_warnings_as_errors_have_no_effect_here(project):
    assert "up to date" in project.dvc("status", PYTHONWARNINGS="error")


FULL = """
import resource
from tools.job import job
job.add_to_note(name="before")
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
job.main(lambda: job.add_to_note(more="more"))
"""


def test_on_a_full_disk_the_note_of_a_run_stays_intact(project):
    output = project.run("tools/within", ".", "python", "-c", FULL, ok=False)
    assert "File too large: the disk is full, or what the output goes to. Make room" in output
    assert "Traceback" not in output
    note = json.loads((project.folder / ".dvc/tmp/run.json").read_text())
    assert note["name"] == "before"


# ---- mistakes in files that commands read


def test_merge_marks_are_shown_by_file_and_line(project):
    process = ("tools/within", "--dev", ".", "python", "-m", "tools.project.process", "add_it")
    (project.folder / "lib/mine.py").write_text("a = 1\n<<<<<<< HEAD\n")
    output = project.run(*process, ok=False)
    assert output.startswith("lib/mine.py, line 2: not Python (<<<<<<< HEAD). A merge left marks")
    assert not (project.folder / "lab/processes/add_it").exists()
    (project.folder / "dvc.yaml").write_text("stages: {}\n<<<<<<< HEAD\n")
    output = project.run(*process, ok=False)
    assert re.search(
        r"DVC cannot read the pipeline: .*dvc.yaml.* \(line [23]: .*\): a merge", output
    )
    assert "Traceback" not in output
