"""Results are committed, pushed and stored as they should be: without the sandbox."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import time

import fsspec
import pytest
from ruamel.yaml import YAML

from lib.errors import UserError
from tests.conftest import ROOT, Project, answer, free_port, server_that, write_executable
from tools.job import share
from tools.job.release import Bucket
from tools.job.storage import why_push_failed
from tools.tracking import notes

pytestmark = pytest.mark.integration

SHARE = ("tools/within", ".", "python", "-m", "tools.job.share")
REGISTRY = ("tools/within", ".", "python", "-m", "tools.job.registry")
DVC_YAML = """
stages:
  quick:
    cmd: "true"
    metrics:
      - metrics/quick.json:
          cache: false
"""
REMOTE = "[core]\n    remote = here\n['remote \"here\"']\n    url = ../../bucket\n"
TAG = "run-example-1"
TOKEN = "a-token-that-nobody-may-see"
# Logs for each command if it has the token, and in which variable.
GIT = """#!/bin/sh
env | grep -E '^(GIT_TOKEN|GIT_CONFIG_VALUE_0)=' | sed 's/=.*//' | while read -r name; do
    echo "$name $*" >> '{log}'
done
exec '{git}' "$@"
"""
PLANTED = "#!/bin/sh\necho planted >> '{log}'\n"


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Project:
    """A project after its run, with an origin that has the branch `work`."""
    folder = tmp_path_factory.mktemp("share") / "a projëct"
    project = Project(folder)
    project.give_pipeline(DVC_YAML)
    project.commit("A pipeline of its own")
    project.publish()
    (folder / ".dvc/config.local").write_text(REMOTE)
    (folder / ".dvc/tmp").mkdir(exist_ok=True)
    (folder / ".dvc/tmp/run.json").write_text(json.dumps({"name": TAG, "branch": "work"}))
    (folder / "metrics").mkdir()
    (folder / "metrics/quick.json").write_text('{"validation": {"accuracy": 0.5}}\n')
    return project


@pytest.fixture
def project(copies, tmp_path) -> Project:
    """A copy for one test, with an origin of its own."""
    shutil.copytree(copies.folder / "../origin", tmp_path / "origin")
    return copies.copied(tmp_path / "a projëct")


@pytest.fixture(scope="module")
def shared(copies, tmp_path_factory):
    """A log of the git commands that had the token while results were shared, and of hooks."""
    folder = tmp_path_factory.mktemp("token")
    shutil.copytree(copies.folder / "../origin", folder / "origin")
    project = copies.copied(folder / "a projëct")
    real = shutil.which("git", path=project.environment()["PATH"])
    write_executable(folder / "bin/git", GIT.format(log=folder / "commands", git=real))
    hooks = [project.folder / ".git/hooks" / name for name in ("pre-push", "reference-transaction")]
    for file in (*hooks, folder / "fsmonitor"):
        write_executable(file, PLANTED.format(log=folder / "planted"))
    with (project.folder / ".git/config").open("a") as config:
        config.write(f'[core]\n\tfsmonitor = "{folder}/fsmonitor"\n')
    path = f"{folder}/bin{os.pathsep}{project.environment()['PATH']}"
    settings = {"GIT_TOKEN": TOKEN, "GITHUB_SERVER_URL": "https://example.org"}
    output = project.run(*SHARE, PATH=path, **settings)
    assert "Results are commit" in output
    assert TOKEN not in output
    return folder


def test_planted_hooks_do_not_run_when_results_are_pushed(shared):
    assert not (shared / "planted").exists()


def test_only_fetch_and_push_get_the_push_token(shared):
    commands = (shared / "commands").read_text().splitlines()
    assert [line for line in commands if line.startswith("GIT_TOKEN")] == []
    given = {word for line in commands for word in line.split()} & {"fetch", "push", "rev-parse"}
    assert given == {"fetch", "push"}
    assert len(commands) == 2


def test_newer_data_that_a_run_imports_are_in_its_commit(project, tmp_path):
    outside = tmp_path / "outside.csv"
    outside.write_text("1\n")
    project.dvc("import-url", "--quiet", str(outside), "given.csv")
    project.dvc("unfreeze", "given.csv.dvc")
    stage = {"cmd": "cat given.csv > out.txt", "deps": ["given.csv"], "outs": ["out.txt"]}
    (project.folder / "dvc.yaml").write_text(json.dumps({"stages": {"quick": stage}}))
    project.dvc("repro", "--quiet")
    project.commit("Results")
    project.git("push", "--quiet", "origin", "work")
    outside.write_text("2\n")
    project.dvc("repro", "--quiet")
    assert "Results are commit" in project.run(*SHARE)
    project.git("fetch", "--quiet", "origin", "work")
    named = project.git("diff", "--name-only", "HEAD", "FETCH_HEAD").split()
    assert named == ["dvc.lock", "given.csv.dvc"]


@pytest.mark.parametrize(
    "setting",
    ["core.autocrlf true", "core.autocrlf input", "* text=auto", "* text=auto eol=lf", "* -text"],
)
def test_results_with_line_ends_of_windows_keep_their_bytes(project, setting):
    if setting.startswith("*"):
        project.git("config", "core.safecrlf", "true")
        (project.folder / ".git/info/attributes").write_text(f"{setting}\n")
    else:
        project.git("config", *setting.split())
    (project.folder / "metrics/quick.json").write_bytes(b'{"validation":\r\n{"accuracy": 1}}\r\n')
    project.dvc("commit", "--force", "--quiet")
    assert "Results are commit" in project.run(*SHARE)
    shown = ("git", "show", "origin/work:metrics/quick.json")
    done = subprocess.run(shown, cwd=project.folder, capture_output=True, check=True)
    assert done.stdout == (project.folder / "metrics/quick.json").read_bytes()


def test_a_patch_of_the_results_can_be_applied_whatever_the_settings_of_git(project):
    project.git("config", "format.useAutoBase", "true")
    project.git("config", "diff.context", "0")
    hook = project.folder / "../origin/hooks/pre-receive"
    write_executable(hook, "#!/bin/sh\nexit 1\n")
    output = project.run(*SHARE, ok=False)
    assert "the commit is above as a patch" in output
    project.git("checkout", "--quiet", "--force", "--detach", "origin/work")
    project.git("clean", "--quiet", "--force", "-d", "metrics")
    project.git("am", "--quiet", ".dvc/tmp/results.patch")
    assert "metrics/quick.json" in project.git("show", "--name-only", "HEAD")


def test_an_index_that_dvc_cannot_read_is_told_in_one_line(project):
    project.git("config", "core.splitIndex", "true")
    project.git("update-index", "--split-index")
    code = "from lib.pipeline import read_pipeline; read_pipeline('HEAD')"
    output = project.run("tools/within", ".", "python", "-c", code, ok=False)
    assert "UserError: DVC cannot read git's index (" in output
    remedy = output.partition("`")[2].partition("`")[0]
    project.run("sh", "-c", remedy)
    project.run("tools/within", ".", "python", "-c", code)


def other_results(project, *branches) -> None:
    """Push other results to these branches of the origin."""
    project.git("stash", "--quiet", "--include-untracked")
    for number, branch in enumerate(branches):
        (project.folder / "metrics").mkdir(exist_ok=True)
        (project.folder / "metrics/quick.json").write_text(f"{number}\n")
        project.commit(f"Other results {number}")
        project.git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
        project.git("reset", "--quiet", "--hard", "HEAD~1")
    project.git("stash", "pop", "--quiet")


def test_a_branch_without_the_commit_that_was_run_gets_no_results(project):
    tip = project.git("commit-tree", "HEAD^{tree}", "-m", "Another history").strip()
    project.git("push", "--quiet", "--force", "origin", f"{tip}:refs/heads/work")
    output = project.run(*SHARE)
    assert "work no longer has the commit that was run" in output
    assert project.git("ls-remote", "origin", "refs/heads/work").split()[0] == tip
    there = project.git("ls-remote", "origin", f"refs/heads/results/{TAG}").split()[0]
    assert f"Results are commit {there[:10]} on results/{TAG}: " in output


def push_edit(project, file, old, new) -> None:
    """Push a commit that edits a file to the origin's branch."""
    project.git("stash", "--quiet", "--include-untracked")
    project.edit(file, old, new)
    project.commit("Meanwhile")
    project.git("push", "--quiet", "origin", "HEAD:refs/heads/work")
    project.git("reset", "--quiet", "--hard", "HEAD~1")
    project.git("stash", "pop", "--quiet")


READING = """
stages:
  quick:
    cmd: "true"
    deps: [given.csv, raw/added.csv]
    params: [random_seed]
    metrics:
      - metrics/quick.json:
          cache: false
"""


@pytest.mark.parametrize(
    ("file", "old", "new", "goes_aside"),
    [
        ("dvc.yaml", '"true"', "echo", True),
        ("params.yaml", "random_seed: ", "random_seed: 1", True),
        ("params.yaml", "experiment: ", "experiment: another-", False),
        ("dvc.yaml", "deps: [", "deps: [README.md, ", True),
        ("dvc.yaml", "stages:", "stages: 3 #", True),
        ("given.csv", "1", "2", True),
        ("raw.dvc", '"size": 1', '"size": 2', True),
        (".env", "PYTHONPATH=.", "PYTHONPATH=./src", True),
        (".dvc/config", "(bucket)", "(another)", True),
        ("README.md", "# ", "# A new title: ", False),
        ("lab/other/dvc.yaml", "true", "echo", False),
    ],
    ids=[
        "command",
        "parameter",
        "another parameter",
        "dep",
        "invalid",
        "file",
        "data",
        ".env",
        "bucket",
        "page",
        "another pipeline",
    ],
)
def test_results_go_aside_if_the_branch_has_new_inputs(project, file, old, new, goes_aside):
    (project.folder / "dvc.yaml").write_text(READING)
    (project.folder / "given.csv").write_text("1\n")
    (project.folder / "lab/other").mkdir()
    (project.folder / "lab/other/dvc.yaml").write_text('stages: {own: {cmd: "true"}}\n')
    added = {"md5": f"{'0' * 32}.dir", "size": 1, "nfiles": 1, "hash": "md5", "path": "raw"}
    (project.folder / "raw.dvc").write_text(json.dumps({"outs": [added]}))
    project.git("add", "dvc.yaml", "lab/other/dvc.yaml", "given.csv", "raw.dvc")
    project.git("commit", "--quiet", "--no-verify", "--message", "What was run")
    push_edit(project, file, old, new)
    output = project.run(*SHARE)
    why = "work got other parameters, or another command or file that a stage reads, meanwhile"
    if new == "stages: 3 #":
        why = "work has another pipeline meanwhile: DVC cannot read the pipeline: "
    if file == ".dvc/config":
        why = "work got another .dvc/config meanwhile, which may name another bucket"
    assert (why in output) == goes_aside
    assert f" on {f'results/{TAG}' if goes_aside else 'work'}" in output


@pytest.mark.parametrize(("old", "goes_aside"), [("echo data", True), ("echo other", False)])
def test_a_sweep_goes_aside_if_the_branch_got_other_data(project, old, goes_aside):
    stages = {
        "prepare": {"cmd": "echo data > made/rows.csv", "outs": ["made/rows.csv"]},
        "other": {"cmd": "echo other > other.csv", "outs": ["other.csv"]},
    }
    (project.folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    trials = {"cache": False}
    tune = {"cmd": "true", "wdir": "../..", "deps": ["made"], "outs": [{"trials.csv": trials}]}
    (project.folder / "lab/tuning/dvc.yaml").write_text(json.dumps({"stages": {"tune": tune}}))
    project.commit("A sweep")
    (project.folder / "trials.csv").write_text("1\n")
    note = project.folder / ".dvc/tmp/run.json"
    note.write_text(json.dumps({"name": "tune-1", "branch": "work", "sweep": True}))
    push_edit(project, "dvc.yaml", old, f"{old} again")
    output = project.run(*SHARE)
    assert f"on {'results/tune-1' if goes_aside else 'work'}" in output


def test_results_overwritten_by_another_process_are_not_shared(project):
    project.dvc("commit", "--quiet", "--force")
    (project.folder / "metrics/quick.json").write_text('{"validation": {"accuracy": 0.99}}\n')
    output = project.run(*SHARE, ok=False)
    assert "metrics/quick.json is not what quick wrote: another process" in output
    assert "0.99" not in project.git("log", "--all", "-p", "--", "metrics/quick.json")


def test_the_commit_names_runs_of_stages_with_similar_names(monkeypatch):
    runs = {"fit-1": {"run_id": "a"}, "fit_1": {"run_id": "b"}, "fit_2": {"run_id": ""}}
    monkeypatch.setattr(notes, "everything", lambda: runs)
    assert share.mlflow_trailers() == [("MLflow-Run-fit-1", "a"), ("MLflow-Run-fit-1", "b")]


def test_data_lost_from_the_runners_cache_are_not_in_the_commit(project):
    folder = project.folder
    stage = (
        "\n  makes:\n    cmd: mkdir -p made && touch made/a kept && echo 1 > made/b\n"
        "    outs: [made, kept: {push: false}]\n"
    )
    (folder / "dvc.yaml").write_text(DVC_YAML + stage)
    project.commit("Another stage")
    project.git("push", "--quiet", "origin", "work")
    project.dvc("repro", "--quiet", "makes")
    note = json.loads((folder / ".dvc/tmp/run.json").read_text())
    stages = {"makes": {"state": "ran"}, "quick": {"state": "unchanged"}}
    (folder / ".dvc/tmp/run.json").write_text(json.dumps(note | {"stages": stages}))
    (lost,) = (folder / ".dvc/cache/files/md5/b0").iterdir()
    lost.rename(folder.parent / "lost")
    before = project.git("ls-remote", "origin")
    (folder.parent / "bucket").mkdir()
    (folder.parent / "bucket/files").touch()  # where DVC needs a folder
    output = project.run(*SHARE_SOON, ok=False)
    assert re.search(r"could not be pushed to S3: unexpected .*Not a directory.*Nothing", output)
    (folder.parent / "bucket/files").unlink()
    assert "DVC's cache on the runner lacks made: was it cleaned" in project.run(*SHARE, ok=False)
    assert project.git("ls-remote", "origin") == before
    (folder.parent / "lost").rename(lost)
    output = project.run(*SHARE)
    assert "Results are commit" in output
    assert "NOTE: `push: false` keeps kept out of S3: `dvc pull --allow-missing` gets all" in output
    assert "\nNot-In-S3: kept\n" in project.git("log", "-1", "--format=%B", "origin/work")


def test_with_nine_branches_of_other_results_a_patch_is_shown(project):
    taken = [f"results/{TAG}", *(f"results/{TAG}-{n}" for n in range(2, 10))]
    other_results(project, "work", *taken)
    output = project.run(*SHARE, ok=False)
    assert "Results are commit" not in output
    assert "The results could not be pushed: work got other results meanwhile; 9 branches" in output
    assert "+++ b/metrics/quick.json" in output


def test_results_on_a_side_branch_are_named_by_the_existing_commit(project):
    other_results(project, "work")
    project.git("checkout", "--quiet", "-b", "aside")
    project.commit("The same results, of an earlier try")
    project.git("push", "--quiet", "origin", f"HEAD:refs/heads/results/{TAG}")
    there = project.git("rev-parse", "HEAD").strip()
    project.git("reset", "--quiet", "--mixed", "HEAD~1")
    output = project.run(*SHARE)
    assert f"Results are commit {there[:10]} on results/{TAG}: " in output


def test_an_unchanged_run_of_an_old_commit_of_main_keeps_the_champion(project):
    project.commit("Results")
    project.git("push", "--quiet", "origin", "HEAD:refs/heads/main")
    note = project.folder / ".dvc/tmp/run.json"
    note.write_text(json.dumps({"name": TAG, "branch": "main"}))
    assert "Nothing changed" in project.run(*SHARE)
    of_run = (*REGISTRY, "--of-run")
    assert "not those of main" not in project.run(*of_run), "main has this commit, so they are"
    project.edit("metrics/quick.json", "0.5", "0.6")
    project.commit("Newer results")
    project.git("push", "--quiet", "origin", "HEAD:refs/heads/main")
    project.git("reset", "--quiet", "--hard", "HEAD~1")
    assert "Nothing changed" in project.run(*SHARE)
    assert "The results are not those of main: champion stays." in project.run(*of_run)


# As SHARE, without the waits.
SOON = """
from tools.job import share
share.TRIES, share.SILENCE = (0, 0), 1
share.main(share.share)
"""
SHARE_SOON = ("tools/within", ".", "python", "-c", SOON)
FAILS_ONCE = """#!/bin/sh
case " $* " in *" push origin "*)
    [ -e '{seen}' ] || { touch '{seen}'; echo 'fatal: the remote end hung up' >&2; exit 128; } ;;
esac
exec '{git}' "$@"
"""


def test_a_push_that_failed_once_is_tried_again(project, tmp_path):
    real = shutil.which("git", path=project.environment()["PATH"])
    text = FAILS_ONCE.replace("{seen}", str(tmp_path / "seen")).replace("{git}", real)
    write_executable(tmp_path / "bin/git", text)
    path = f"{tmp_path}/bin{os.pathsep}{project.environment()['PATH']}"
    output = project.run(*SHARE_SOON, PATH=path)
    assert (tmp_path / "seen").exists()
    there = project.git("ls-remote", "origin", "refs/heads/work").split()[0]
    assert f"Results are commit {there[:10]} on work." in output


def test_hanging_storage_delays_only_one_push(monkeypatch, capsys):
    pushes = []

    def push(*command, **_):
        pushes.append(command)
        return subprocess.CompletedProcess(command, 1, "", "Read timeout")

    def hang():
        raise UserError("S3 does not answer.")

    monkeypatch.setattr(share, "run", push)
    monkeypatch.setattr(share, "storage_answers", hang)
    monkeypatch.setattr(share, "TRIES", (0, 0, 0))
    with pytest.raises(UserError, match=r"could not be pushed to S3: S3 does not answer\."):
        share.push_data()
    assert pushes == [("dvc", "push")]
    assert "Pushing data to S3 …" in capsys.readouterr().out


def test_a_refused_push_shows_the_servers_message(project):
    hook = project.folder.parent / "origin/hooks/pre-receive"
    refuse = "#!/bin/sh\nwhile read -r _ _ ref; do [ $ref != refs/heads/work ] || exit 1; done\n"
    write_executable(hook, refuse)
    output = project.run(*SHARE)
    assert f"on results/{TAG}: work refuses it: pre-receive hook declined." in output


def test_a_missing_server_is_reported_by_gits_first_error(project):
    project.git("remote", "set-url", "origin", "../nowhere")
    output = project.run(*SHARE_SOON, ok=False)
    assert (
        "failed: fatal: '../nowhere' does not appear to be a git repository. Data are in" in output
    )


def test_a_git_server_that_hangs_is_given_up(project):
    with server_that(lambda _: time.sleep(60)) as address:
        project.git("remote", "set-url", "origin", f"{address}/project.git")
        output = project.run(*SHARE_SOON, ok=False)
    assert "Operation too slow" in output
    assert "Data are in S3: re-run this job." in output


MODEL_IN_A_FOLDER = """
stages:
  quick:
    cmd: mkdir -p artifacts/quick && echo 1 > artifacts/quick/model.txt
    outs: [artifacts/quick]
artifacts:
  quick: {path: artifacts/quick/model.txt, type: model}
"""


def test_a_champion_that_did_not_move_is_reported_with_what_to_do(project):
    (project.folder / "dvc.yaml").write_text(MODEL_IN_A_FOLDER)
    project.dvc("repro", "--quiet")
    away = {"MLFLOW_URL": f"http://127.0.0.1:{free_port()}"}
    cache = f"{project.folder}/.dvc/cache"
    output = project.run(*REGISTRY, ok=False, DVC_CACHE_DIR=cache, **away)
    assert "quick: MLflow at http://127.0.0.1:" in output
    assert "There, champion stays as it was: when MLflow is up and has the results" in output
    assert "re-run this job." in output


# Pulls a release's models from a bucket that was available a moment ago.
PULL = "from tools.job import job, release; job.main(release.pull_models)"


def test_storage_that_dies_before_a_release_is_not_a_missing_model(project):
    pull = ("tools/within", ".", "python", "-c", PULL)
    (project.folder / "dvc.yaml").write_text(MODEL_IN_A_FOLDER)
    project.dvc("repro", "--quiet")
    for folder in ("artifacts/quick", ".dvc/cache"):
        shutil.rmtree(project.folder / folder)
    missing = "Not all data and models could be pulled from the bucket"
    assert missing in project.run(*pull, ok=False)
    address = f"s3://bucket/dvc\n    endpointurl = http://127.0.0.1:{free_port()}\n"
    (project.folder / ".dvc/config.local").write_text(REMOTE.replace("../../bucket\n", address))
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "key")
    output = project.run(*pull, ok=False, AWS_MAX_ATTEMPTS="1", **keys)
    assert "does not answer: is it up, and the address right?" in output
    assert missing not in output


def test_a_release_that_another_job_uploaded_first_is_not_ours(tmp_path):
    bucket = object.__new__(Bucket)
    bucket.fs, bucket.folder = fsspec.filesystem("memory"), "share_test/krt"
    file = tmp_path / "a-v1.krt"
    file.write_bytes(b"ours")
    bucket.refuse_another(file)
    bucket.fs.pipe(f"{bucket.folder}/{file.name}", b"theirs")
    with pytest.raises(UserError, match="is there already with other content"):
        bucket.upload(file)


def test_a_release_does_not_replace_what_another_job_uploads_meanwhile(tmp_path, monkeypatch):
    bucket = object.__new__(Bucket)
    bucket.fs, bucket.folder = fsspec.filesystem("memory"), "share_test/meanwhile"
    file = tmp_path / "a-v1.krt"
    file.write_bytes(b"ours")
    path = f"{bucket.folder}/{file.name}"
    upload = bucket.fs.put_file

    def finish_second(*arguments, **options):
        bucket.fs.pipe(path, b"theirs")
        upload(*arguments, **options)

    monkeypatch.setattr(bucket.fs, "put_file", finish_second)
    with pytest.raises(UserError, match="is there already with other content"):
        bucket.upload(file)
    assert bucket.fs.cat_file(path) == b"theirs"


REFUSED = (
    "ERROR: failed to transfer '8e69' - [Errno 5] An error occurred (413) when calling: Too Large"
)


@pytest.mark.parametrize(
    ("printed", "why"),
    [
        (
            REFUSED,
            "S3 takes no file as large as one of the results, or a proxy before it does not: ",
        ),
        (REFUSED.replace("413", "403"), "S3 does not let these credentials write: give them write"),
        ("ERROR: failed to push: Invalid endpoint: 127.0.0.1:9", "S3 was not contacted, its addre"),
        ("ERROR: a lock is held", "a lock is held"),
        ("ERROR: [Errno 28] No space left on device: '/x/y'", "[Errno 28] No space left on device"),
        ("ERROR: attempt to write a readonly database", "attempt to write a readonly database"),
        ("ERROR: Unable to locate credentials", "S3 was not contacted, there are no credentials"),
    ],
)
def test_a_push_that_fails_is_told_with_its_cause(printed, why):
    assert why_push_failed(printed).startswith(why)
    assert "ERROR" not in why_push_failed(printed)


@pytest.mark.parametrize("out", ["artifacts/quick", "artifacts/quick/model.txt"])
def test_a_model_whose_stage_never_ran_has_no_champion_and_no_error(project, out):
    one = MODEL_IN_A_FOLDER.replace("outs: [artifacts/quick]", f"outs: [{out}]")
    (project.folder / "dvc.yaml").write_text(one)
    output = project.run(*REGISTRY, DVC_CACHE_DIR=f"{project.folder.parent}/cache")
    assert "quick is not computed yet: a run by tag makes it." in output


MODELS = """
stages:
  quick:
    cmd: mkdir -p models artifacts/quick/part && echo 1 | tee models/a.txt > artifacts/quick/part/a
    outs: [artifacts/quick, models/a.txt]
artifacts:
"""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("artifacts/quick/modle.txt", "artifacts/quick has no file artifacts/quick/modle.txt"),
        ("artifacts/quick/part", "it is a folder inside an out, which has no checksum of its own"),
        ("models/a.txt", "no stage writes it below artifacts/"),
        ("given.txt", "no stage writes it below artifacts/"),
        ("params.yaml", "params.yaml is in no out of a stage"),
    ],
)
def test_a_model_that_no_run_registers_is_no_fault_of_the_server(project, path, why):
    (project.folder / "dvc.yaml").write_text(MODELS + f"  quick: {{path: {path}, type: model}}\n")
    (project.folder / "given.txt").write_text("1\n")
    project.dvc("add", "--quiet", "given.txt")
    project.dvc("repro", "--quiet")
    output = project.run(*REGISTRY, DVC_CACHE_DIR=f"{project.folder}/.dvc/cache")
    assert f"quick is not in the registry: {why}" in output


def test_a_model_in_a_folder_that_git_keeps_is_asked_for_by_its_checksum(project):
    out = "outs: [{artifacts/quick: {cache: false}}, models/a.txt]"
    text = MODELS.replace("outs: [artifacts/quick, models/a.txt]", out)
    model = "  quick: {path: artifacts/quick/part/a, type: model}\n"
    (project.folder / "dvc.yaml").write_text(text + model)
    project.dvc("repro", "--quiet")
    cache = f"{project.folder}/.dvc/cache"
    with server_that(answer(200, "{}")) as address:
        output = project.run(*REGISTRY, ok=False, MLFLOW_URL=address, DVC_CACHE_DIR=cache)
    md5 = hashlib.md5(b"1\n", usedforsecurity=False).hexdigest()
    assert f"MLflow's registry has no version with md5 {md5}" in output


def test_a_model_in_a_folder_with_a_lost_listing_is_reported(project):
    (project.folder / "dvc.yaml").write_text(MODEL_IN_A_FOLDER)
    project.dvc("repro", "--quiet")
    shutil.rmtree(project.folder / "artifacts/quick")
    cache = f"{project.folder.parent}/cache"  # empty, like the bucket
    output = project.run(*REGISTRY, ok=False, DVC_CACHE_DIR=cache)
    assert "Traceback" not in output
    assert "cannot be determined: the listing of a model's folder cannot be read (" in output
    assert "`dvc push` where the results are, then re-run this job." in output


def test_runs_use_the_pushed_commit_and_the_champion_job_current_main():
    text = (ROOT / ".github/workflows/experiments.yml").read_text()
    jobs = YAML(typ="safe", pure=True).load(text)["jobs"]
    refs = {name: job["steps"][0]["with"]["ref"] for name, job in jobs.items()}
    assert refs == {"run": "${{ inputs.ref || github.sha }}", "champion": "main"}
