"""The platform on one machine, with a workflow of a few lines in place of the real one.

The real workflow is tested in it by `run_test.py` and `faults_test.py`.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from botocore.session import get_session

from tests.conftest import Project, wait_for
from tests.rehearsal import SANDBOX

pytestmark = pytest.mark.integration

WORKFLOW = """
name: "experiments"
on:
  push:
    tags: ["run-*", "!run-never*"]
  workflow_dispatch:
    inputs:
      ref: {required: true}
env:
  MLFLOW_URL: "${{ vars.MLFLOW_URL }}"
  ENDPOINT: "${{ vars.MLFLOW_S3_ENDPOINT_URL }}"
  REMOTE: "${{ vars.DVC_REMOTE_URL }}"
  MINE: "${{ vars.MINE }}"
jobs:
  run:
    runs-on: ["self-hosted", "igz", "cpu"]
    env:
      RUN_REF: "${{ inputs.ref || github.ref }}"
      AWS_ACCESS_KEY_ID: "${{ secrets.MINIO_ACCESS_KEY_ID }}"
      AWS_SECRET_ACCESS_KEY: "${{ secrets.MINIO_SECRET_ACCESS_KEY }}"
      TOKEN: "${{ secrets.ACCESS_TOKEN || github.token }}"
    steps:
      - uses: "actions/checkout@0000000000000000000000000000000000000000"
        with:
          ref: "${{ inputs.ref || github.sha }}"
          fetch-depth: 0
      - name: "Show"
        run: "sh show.sh"
"""
SHOW = """
set -eu
say() { printf '%s=<%s>\\n' "$1" "$2"; }
say head "$(git rev-parse HEAD)"
say branch "$(git branch --show-current)"
say ref "$RUN_REF"
say sha "$GITHUB_SHA"
say branches "$(git for-each-ref --format='%(refname:short)' refs/remotes | tr '\\n' ' ')"
say mlflow "$MLFLOW_URL"
say endpoint "$ENDPOINT"
say remote "$REMOTE"
say mine "$MINE"
say home "$HOME"
say data "${XDG_DATA_HOME-none}"
say leaked "${LEAKED-}${PYTHONPATH-}${VIRTUAL_ENV-}${GIT_DIR-}"
say terminal "$(test -t 1 && echo yes || echo no)"
say key "$AWS_SECRET_ACCESS_KEY"
say lengths "${#AWS_ACCESS_KEY_ID} ${#AWS_SECRET_ACCESS_KEY} ${#TOKEN}"
echo "the summary has $AWS_SECRET_ACCESS_KEY" >> "$GITHUB_STEP_SUMMARY"
case "$GITHUB_REF" in
    *commit*) git -c user.name=job -c user.email=job@example.org commit -q --allow-empty -m results
        git push -q origin HEAD:refs/heads/work ;;
    *fail*) exit 3 ;;
    *moves*) git push -q --force origin HEAD~1:refs/tags/run-waits ;;
    *hold*) touch "$HOLD"; sleep 300 ;;
esac
"""


class Sandbox:
    """A project whose workflow is the one above."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.folder = project.folder / ".sandbox"

    def __call__(self, *arguments: str, ok: bool = True, **extra: str) -> str:
        return self.project.run(
            "tools/within",
            "tools/sandbox",
            "python",
            "-m",
            "tools.sandbox",
            *arguments,
            ok=ok,
            **extra,
        )

    def facts(self, *, ok: bool = True) -> dict:
        return json.loads(self("status", "--json", ok=ok))

    def processes(self, part: str) -> list[int]:
        pids = self.facts_or_nothing().get("pids", {})
        return [int(pid) for pid, name in pids.items() if part in ("all", name)]

    def facts_or_nothing(self) -> dict:
        done = self.project.start(*SANDBOX, "status", "--json")
        output, _ = done.communicate(timeout=60)
        return json.loads(output)

    def push(self, *refs: str, **extra: str) -> str:
        return self.project.run("git", "push", "sandbox", *refs, **extra)

    def tag(self, name: str, *options: str, **extra: str) -> str:
        self.project.git("tag", *options, name)
        return self.push(f"refs/tags/{name}", **extra)

    def s3(self):
        facts = self.facts()
        return get_session().create_client(
            "s3",
            endpoint_url=facts["s3"],
            aws_access_key_id=facts["access_key"],
            aws_secret_access_key=facts["secret_key"],
            region_name="us-east-1",
        )

    def origin(self, *arguments: str) -> str:
        return self.project.git(f"--git-dir={self.folder}/origin.git", *arguments).strip()


def add_workflow(project: Project) -> None:
    for file in (project.folder / ".github/workflows").glob("*"):
        file.unlink()
    (project.folder / ".github/workflows").mkdir(parents=True, exist_ok=True)
    (project.folder / ".github/workflows/experiments.yml").write_text(WORKFLOW)
    (project.folder / "show.sh").write_text(SHOW)
    project.commit("A small workflow")


OWN_CONFIG = "[core]\n    remote = minio\n['remote \"minio\"']\n    access_key_id = mine\n"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """One sandbox for all tests, started over the remains of a killed `up`.

    What a test stops, `up` starts again.
    """
    folder = tmp_path_factory.mktemp("sandbox") / "it's a $projëct"
    sandbox = Sandbox(Project(folder))
    add_workflow(sandbox.project)
    (folder / ".dvc/config.local").write_text(OWN_CONFIG)
    sandbox.folder.mkdir()
    (sandbox.folder / "state.json").write_text('{"artifacts": "proxi')
    (sandbox.folder / "origin.git" / "hooks").mkdir(parents=True)
    try:
        sandbox("up")
        yield sandbox
    finally:
        sandbox("down")


def job_values(output: str) -> dict[str, str]:
    """The values in the name=<value> lines of show.sh, as the pusher saw them."""
    lines = [line.partition(" | ")[2].strip() for line in output.splitlines() if " | " in line]
    return dict(line.removesuffix(">").split("=<", 1) for line in lines if "=<" in line)


# ---- servers


def test_the_bucket_writes_reads_and_deletes(sandbox):
    s3 = sandbox.s3()
    s3.put_object(Bucket="lab", Key="a folder/ü", Body=b"content")
    assert s3.get_object(Bucket="lab", Key="a folder/ü")["Body"].read() == b"content"
    s3.delete_object(Bucket="lab", Key="a folder/ü")
    assert "Contents" not in s3.list_objects_v2(Bucket="lab", Prefix="a folder/")


LOG_A_RUN = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment(sys.argv[2])
with mlflow.start_run() as run:
    mlflow.log_metric("accuracy", 0.5)
    mlflow.log_text("hello", "note.txt")
print(mlflow.artifacts.load_text(run.info.artifact_uri + "/note.txt"), run.info.artifact_uri)
"""


def log_a_run(sandbox: Sandbox, experiment: str) -> str:
    """Log a run in a process with S3 credentials, and return what it reads back."""
    facts = sandbox.facts()
    return sandbox.project.run(
        *("tools/within", "tools/sandbox", "python", "-c", LOG_A_RUN, facts["mlflow"], experiment),
        MLFLOW_S3_ENDPOINT_URL=facts["s3"],
        AWS_ACCESS_KEY_ID=facts["access_key"],
        AWS_SECRET_ACCESS_KEY=facts["secret_key"],
    )


def artifacts(sandbox: Sandbox) -> list[str]:
    found = sandbox.s3().list_objects_v2(Bucket="lab", Prefix="mlflow-artifacts/")
    return [entry["Key"] for entry in found.get("Contents", [])]


def test_mlflow_artifacts_reach_the_bucket_through_the_server_or_directly(sandbox):
    assert "hello mlflow-artifacts:/" in log_a_run(sandbox, "proxied")
    assert len(artifacts(sandbox)) == 1
    sandbox("up", ARTIFACTS="direct")
    assert "hello s3://lab/mlflow-artifacts/" in log_a_run(sandbox, "direct")
    assert len(artifacts(sandbox)) == 2
    assert sandbox.facts()["artifacts"] == "direct", "the mode stays until another is requested"
    assert "proxied or direct" in sandbox("up", ok=False, ARTIFACTS="sideways")


# Reads, writes and deletions that parts of SeaweedFS offer besides S3.
ASKED = [
    ("GET", "/buckets/lab/kept/closed"),
    ("POST", "/buckets/lab/kept/closed"),
    ("DELETE", "/buckets/lab?recursive=true&ignoreRecursiveError=true"),
    ("GET", "/buckets/lab/"),
    ("GET", "/dir/assign?collection=lab"),
    ("GET", "/col/delete?collection=lab"),
    ("GET", "/lab/kept/closed"),
    ("PUT", "/lab/kept/closed"),
]
# A gRPC client begins with this; a server that accepts it without TLS answers with an HTTP/2 frame.
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def test_without_keys_no_port_of_the_storage_reads_or_writes(sandbox):
    sandbox.s3().put_object(Bucket="lab", Key="kept/closed", Body=b"kept")
    ports = {name: p for name, p in sandbox.facts()["ports"].items() if name != "mlflow"}
    taken = []
    for name, port in ports.items():
        for method, path in ASKED:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}{path}",
                data=b"another" if method in ("POST", "PUT") else None,
                headers={"Origin": "https://page.example.org", "Content-Type": "text/plain"},
                method=method,
            )
            with contextlib.suppress(OSError, http.client.HTTPException):
                urllib.request.urlopen(request, timeout=5)
                taken.append(f"{method} {path} at {name}")
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(GREETING)
            answer = connection.recv(9)
        if answer[3:4] == b"\4":
            taken.append(f"gRPC at {name}")
    assert taken == []
    kept = sandbox.s3().get_object(Bucket="lab", Key="kept/closed")
    assert kept["Body"].read() == b"kept"


def test_a_web_page_changes_nothing_in_mlflow(sandbox):
    create = f"{sandbox.facts()['mlflow']}/api/2.0/mlflow/experiments/create"
    headers = {"Origin": "https://page.example.org", "Content-Type": "text/plain"}
    request = urllib.request.Request(create, b'{"name": "planted"}', headers)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=20)


def test_up_again_changes_nothing(sandbox):
    before = sandbox.facts()
    started = time.monotonic()
    assert "git push sandbox" in sandbox("up")
    assert time.monotonic() - started < 5
    assert sandbox.facts() == before


def test_the_printed_commands_bring_data_to_bucket_and_second_clone(sandbox, tmp_path):
    output = sandbox("up")
    assert "  dvc push " in output
    (clone,) = (line.partition("#")[0] for line in output.splitlines() if "git clone" in line)
    (sandbox.project.folder / "boats.csv").write_text("length\n3\n")
    sandbox.project.dvc("add", "boats.csv")
    sandbox.project.dvc("push", "boats.csv")
    second = tmp_path / "second"
    sandbox.project.run("sh", "-ec", clone.replace("FOLDER", str(second)))
    assert (second / ".dvc/config.local").stat().st_mode & 0o777 == 0o600
    (second / "boats.csv.dvc").write_text((sandbox.project.folder / "boats.csv.dvc").read_text())
    Project.at(second).dvc("pull", "boats.csv")
    assert (second / "boats.csv").read_text() == "length\n3\n"
    for name in ("boats.csv", "boats.csv.dvc"):
        (sandbox.project.folder / name).unlink()
    sandbox.project.git("checkout", "--quiet", ".")


@pytest.mark.parametrize("part", ["s3", "all"])
def test_killed_servers_come_back_with_their_data(sandbox, part):
    before = sandbox.facts()
    sandbox.s3().put_object(Bucket="lab", Key=f"kept/{part}", Body=b"kept")
    for pid in sandbox.processes(part):
        os.kill(pid, signal.SIGKILL)
    assert "DOES NOT RUN" in sandbox("status", ok=False)
    sandbox("up")
    after = sandbox.facts()
    assert {**after, "pids": None} == {**before, "pids": None}, "addresses and keys are the same"
    kept = sandbox.s3().get_object(Bucket="lab", Key=f"kept/{part}")
    assert kept["Body"].read() == b"kept"
    experiments = f"{after['mlflow']}/api/2.0/mlflow/experiments/get-by-name?experiment_name="
    with urllib.request.urlopen(f"{experiments}proxied") as answer:
        assert answer.status == 200, "MLflow's runs are kept, too"


def test_ports_taken_by_other_programs_are_replaced_and_data_stay(sandbox):
    before = sandbox.facts()
    sandbox.s3().put_object(Bucket="lab", Key="kept/ports", Body=b"kept")
    # Of MLflow only the parent: the child keeps running and holds the port.
    for pid in (*sandbox.processes("s3"), min(sandbox.processes("mlflow"))):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not sandbox.processes("s3"))
    first = before["ports"]["s3"]
    with (
        socket.create_server(("127.0.0.1", first)),
        sandbox.project.start(*SANDBOX, "up") as starts,
    ):
        wait_for(lambda: chosen(sandbox, "s3") != first)
        second = chosen(sandbox, "s3")
        with socket.create_server(("127.0.0.1", second)):  # chosen, and not bound yet
            output, _ = starts.communicate(timeout=120)
    assert starts.returncode == 0, output
    assert "A port of it was taken meanwhile" in output
    after = sandbox.facts()
    assert after["ports"]["s3"] not in (first, second)
    assert after["mlflow"] == before["mlflow"]
    assert sandbox.s3().get_object(Bucket="lab", Key="kept/ports")["Body"].read() == b"kept"
    assert f"endpoint=<{after['s3']}>" in sandbox.tag("run-elsewhere")


def chosen(sandbox, server):
    """The port in the state file for a server, whether it runs or not."""
    return json.loads((sandbox.folder / "state.json").read_text())["ports"][server]


# ---- runs


def test_a_pushed_tag_runs_the_workflow_and_the_pusher_sees_it(sandbox):
    facts = sandbox.facts()
    variables = sandbox.folder / "variables.yml"
    mine = 'it\'s $HOME "and" #more'
    variables.write_text(json.dumps(json.loads(variables.read_text()) | {"MINE": mine}))
    output = sandbox.tag(
        "run-ü", LEAKED="1", PYTHONPATH="/nowhere", VIRTUAL_ENV="/nowhere", XDG_DATA_HOME=data()
    )
    job = job_values(output)
    head = sandbox.project.git("rev-parse", "HEAD").strip()
    assert job["head"] == job["sha"] == head
    assert job["branch"] == "", "a tag is checked out detached"
    assert job["ref"] == "refs/tags/run-ü"
    assert "origin/work" in job["branches"]
    assert (job["mlflow"], job["endpoint"], job["remote"]) == (
        facts["mlflow"],
        facts["s3"],
        "s3://lab/dvc",
    )
    assert job["mine"] == mine
    assert job["home"] == os.environ["HOME"]
    assert job["data"] == data()
    assert job["leaked"] == ""
    assert job["terminal"] == "no"
    assert job["key"] == "***"
    assert "0" not in job["lengths"].split()
    assert facts["secret_key"] not in output
    assert "succeeded in" in output
    folder = max(sandbox.folder.glob("jobs/run-_-*"))
    assert "key=<***>" in (folder / "log").read_text()
    assert (folder / "summary.md").read_text() == "the summary has ***\n"
    assert sorted(file.name for file in folder.iterdir()) == ["log", "result", "summary.md"]


def data() -> str:
    return os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")


def test_a_job_pushes_to_its_origin_and_the_results_are_pulled(sandbox):
    sandbox.tag("run-commit")
    sandbox.project.git("pull", "--quiet", "sandbox", "work")
    assert sandbox.project.git("log", "-1", "--format=%an %s").strip() == "job results"


def test_plain_dvc_push_and_pull_use_the_sandbox(sandbox):
    file = sandbox.project.folder / "numbers.txt"
    file.write_text("1 2 3\n")
    sandbox.project.dvc("add", "--quiet", "numbers.txt")
    sandbox.project.dvc("push", "numbers.txt.dvc")
    file.unlink()
    sandbox.project.run("rm", "-r", ".dvc/cache")
    sandbox.project.dvc("pull", "numbers.txt.dvc")
    assert file.read_text() == "1 2 3\n"
    status = sandbox.project.git("status", "--porcelain", "--", ".dvc")
    assert status == "", "no tracked file mentions the sandbox"


def test_a_failed_job_fails_no_push_and_keeps_its_workspace(sandbox):
    output = sandbox.tag("run-fail", "--annotate", "--message", "annotated")
    assert "FAILED in" in output
    assert job_values(output)["head"] == sandbox.project.git("rev-parse", "HEAD").strip()
    workspace = max(sandbox.folder.glob("jobs/run-fail-*")) / "workspace"
    assert (workspace / "show.sh").exists()
    assert "run-fail-" in sandbox("status")


def test_tags_run_one_by_one_and_only_if_the_workflow_wants_them(sandbox):
    for name in ("run-1", "run-2", "run-never-1", "other", "run-a/b"):
        sandbox.project.git("tag", name)
    output = sandbox.push("run-1", "run-2", "run-never-1", "other", "run-a/b")
    first, second = output.index("run-1: succeeded"), output.index("ref=<refs/tags/run-2>")
    assert first < second
    for name in ("run-never-1", "other", "run-a/b"):
        assert f"refs/tags/{name}: no run: no workflow wants it" in output
    assert "of more than three tags at once, GitHub runs none; here, each runs" in output
    assert "run" not in sandbox.push("--delete", "run-1").replace("run-1", "")


def test_a_tag_moved_while_its_job_waits_runs_the_pushed_commit(sandbox):
    for name in ("run-moves", "run-waits"):
        sandbox.project.git("tag", name)
    pushed = sandbox.project.git("rev-parse", "HEAD").strip()
    output = sandbox.push("run-moves", "run-waits")
    assert sandbox.origin("rev-parse", "run-waits") != pushed
    assert output.count(f"head=<{pushed}>") == 2
    assert "ref=<refs/tags/run-waits>" in output


@pytest.mark.parametrize(
    "name",
    [
        'run-";touch${IFS}pwned;#',
        "run-$(touch${IFS}pwned)",
        "run-'`touch${IFS}pwned`'",
        "run-\u2028\u0085%0a",
    ],
)
def test_no_part_of_a_tag_name_is_executed(sandbox, name):
    output = sandbox.tag(name)
    assert f"ref=<refs/tags/{name}>" in output
    assert "succeeded in" in output
    assert list(sandbox.project.folder.rglob("pwned*")) == []


def test_the_button_runs_a_tag_a_branch_or_a_commit(sandbox):
    head = sandbox.origin("rev-parse", "work")
    sandbox.project.git("tag", "--force", "v1", head)
    sandbox.push("v1")
    branches = {"v1": "", "work": "work", head: ""}
    for ref, branch in branches.items():
        job = job_values(sandbox("dispatch", ref))
        assert (job["head"], job["branch"], job["ref"]) == (head, branch, ref)
    assert "no branch, tag or commit called nothing" in sandbox("dispatch", "nothing", ok=False)


def in_clone(project: Project, line: str) -> None:
    """Run code of the sandbox that edits the clone's settings, without any server."""
    script = (
        "from tools.sandbox.clone import add_dvc_remote, remove_dvc_remote\n"
        "from tools.sandbox.state import FOLDER, State\n"
        "FOLDER.mkdir(exist_ok=True)\n"
    )
    project.run("tools/within", "tools/sandbox", "python", "-c", script + line)


def test_credentials_given_while_it_runs_are_the_teams_and_stay(project):
    config = project.folder / ".dvc/config.local"
    config.write_text("['remote \"größer\"']\n    secret_access_key = another\n")
    in_clone(project, "add_dvc_remote(State())")
    keys = {"AWS_ACCESS_KEY_ID": "real", "AWS_SECRET_ACCESS_KEY": "realsecret"}
    assert "The remote minio has them" in project.run("make", "credentials", **keys)
    in_clone(project, "add_dvc_remote(State.read())")
    assert project.dvc("remote", "default").strip() == "sandbox"
    in_clone(project, "remove_dvc_remote(None)")
    assert set(project.dvc("config", "--list", "--local").split()) == {
        "remote.größer.secret_access_key=another",
        "remote.minio.access_key_id=real",
        "remote.minio.secret_access_key=realsecret",
    }
    assert config.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("file", [".dvc/config", ".dvc/config.local"])
def test_a_dvc_remote_of_the_same_name_is_left_alone(project, file):
    config = project.folder / file
    with config.open("a") as own:
        own.write("['remote \"sandbox\"']\n    url = s3://own/dvc\n")
    before = config.read_bytes()
    assert "leads to s3://own/dvc, not to this sandbox" in Sandbox(project)("up", ok=False)
    in_clone(project, "remove_dvc_remote(None)")
    assert config.read_bytes() == before


# ---- the end: these tests are the last ones


def test_a_git_remote_of_that_name_is_kept(project):
    project.git("remote", "add", "sandbox", "https://example.org/sandbox.git")
    assert "give it another name" in Sandbox(project)("up", ok=False)
    assert not (project.folder / ".sandbox").exists()


def test_down_ends_everything_and_restores_the_settings(sandbox, tmp_path):
    hold = tmp_path / "hold"
    text = (sandbox.project.folder / "show.sh").read_text().replace('"$HOLD"', f"'{hold}'")
    (sandbox.project.folder / "show.sh").write_text(text)
    sandbox.project.commit("Hold")
    sandbox.project.git("tag", "run-hold")
    push = sandbox.project.start("git", "push", "sandbox", "run-hold")
    wait_for(hold.exists)
    os.killpg(push.pid, signal.SIGTERM)  # SIGINT is ignored below a background job
    push.communicate(timeout=10)
    assert sandbox.processes("job"), "a job outlives a push that is interrupted, as on GitHub"
    pids = sandbox.processes("all")

    sandbox.project.dvc("remote", "modify", "--local", "minio", "secret_access_key", "meanwhile")
    assert sandbox.project.dvc("remote", "default").strip() == "sandbox"
    sandbox("down")
    assert sandbox.project.dvc("remote", "default").strip() == "minio"
    config = (sandbox.project.folder / ".dvc/config.local").read_text()
    for line in (*OWN_CONFIG.splitlines(), "secret_access_key = meanwhile"):
        assert line.strip() in config
    assert "sandbox" not in config
    assert "sandbox" not in (sandbox.project.folder / ".git/config").read_text()
    assert not sandbox.folder.exists()
    assert [pid for pid in pids if alive(pid)] == []
    assert "The sandbox is gone" in sandbox("down"), "a second time is harmless"


def alive(pid: int) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
