"""Faults during a run by tag: nothing may be lost, and one line says why it failed.

The real workflow runs in the sandbox; servers are really killed, stopped, full or locked.
"""

import base64
import os
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import answer, server_that, wait_for, write_executable
from tests.rehearsal import rehearsing, results_of

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """One sandbox for all tests: each uses its own commits and tags."""
    with rehearsing(tmp_path_factory.mktemp("faults") / "a projëct") as sandbox:
        yield sandbox


def require_login(request):
    """Answer like an MLflow server with a login."""
    known = base64.b64encode(b"a-user:a-pass-word").decode()
    answer(200 if request.headers["Authorization"] == f"Basic {known}" else 401, "{}")(request)


def test_secrets_arrive_where_needed_and_are_masked_if_a_process_prints_them(sandbox):
    sandbox.change()
    login = {"MLFLOW_TRACKING_USERNAME": "a-user", "MLFLOW_TRACKING_PASSWORD": "a-pass-word"}
    with (
        server_that(require_login) as address,
        sandbox.settings("variables", MLFLOW_URL=address),
        sandbox.settings("secrets", **login),
    ):
        _, output = sandbox.tag()
    assert f"ok       MLflow answers: {address}" in output
    secret = sandbox.facts()["secret_key"]
    assert "the secret is ***" in output
    assert secret not in output
    assert login["MLFLOW_TRACKING_PASSWORD"] not in output
    assert secret not in sandbox.origin("log", "--all", "--patch")


def test_a_typo_in_params_is_found_before_any_stage_runs(sandbox):
    sandbox.change()
    sandbox.project.edit("params.yaml", "test_size", "test_sise")
    sandbox.commit("A typo")
    _, output = sandbox.tag()
    assert "did you mean test_size?" in output
    assert "Running stage" not in output


def test_a_failed_stage_is_named_with_its_cause_and_how_to_run_it(sandbox):
    main = "lab/processes/quick/main"
    sandbox.change()
    sandbox.project.edit(main, "#!/bin/sh\n", "#!/bin/sh\necho no such model >&2; exit 3\n")
    sandbox.commit("A mistake")
    before = sandbox.tip()
    _, output = sandbox.tag()
    assert "Stage quick failed: no such model" in output
    assert "dvc repro quick" in output
    assert "Job failed" in output
    assert sandbox.tip() == before
    sandbox.project.edit(main, "echo no such model >&2; exit 3", "kill -9 $$")
    sandbox.commit("Killed")
    _, output = sandbox.tag()
    assert "Stage quick failed: it was killed" in output


def test_a_run_without_storage_stops_in_preflight(sandbox):
    sandbox.change()
    sandbox.kill("s3")
    started = time.monotonic()
    _, output = sandbox.tag()
    assert "does not answer: is it up" in output
    assert "Running stage" not in output
    assert time.monotonic() - started < 60
    sandbox.up()


def test_after_storage_died_a_second_run_trains_nothing(sandbox):
    source = sandbox.change()
    tag, output = sandbox.tag_meanwhile(lambda: sandbox.kill("s3"))
    assert "Data could not be pushed to S3" in output
    assert "Job failed" in output
    assert sandbox.tip() == source, "no commit before its data are safe"
    sandbox.up()
    tag, output = sandbox.tag()
    assert "Stage 'quick' is cached - skipping run" in output
    assert "MLflow-Run-quick: " in sandbox.message(results_of(sandbox, tag))
    assert "| quick | from the cache |  | [run](http" in sandbox.summary(tag)


def test_a_wrong_secret_is_found_before_any_stage_runs(sandbox):
    sandbox.change()
    with sandbox.settings("secrets", MINIO_SECRET_ACCESS_KEY="not-the-secret-key"):
        _, output = sandbox.tag()
    assert "refuses the credentials: check the secrets MINIO_ACCESS_KEY_ID and" in output
    assert "Running stage" not in output
    with sandbox.settings("secrets", MINIO_ACCESS_KEY_ID="nobody", MINIO_SECRET_ACCESS_KEY=""):
        _, output = sandbox.tag()
    assert "refuses the credentials" in output


def test_a_read_only_bucket_is_found_before_any_stage_runs(sandbox):
    sandbox.change()
    keys = {"MINIO_ACCESS_KEY_ID": "reader0123456789", "MINIO_SECRET_ACCESS_KEY": "reads-only"}
    access, secret = keys.values()
    sandbox.weed(
        f"s3.configure -user=reader -actions=Read,List -buckets=lab -access_key={access}"
        f" -secret_key={secret} -apply"
    )
    deadline = time.monotonic() + 30
    with sandbox.settings("secrets", **keys):
        output = ""
        while "does not let these credentials write" not in output:
            assert time.monotonic() < deadline, output  # SeaweedFS needs time for a new user
            _, output = sandbox.tag()
    assert "give them write access to the bucket" in output
    assert "Running stage" not in output


def test_keys_that_can_write_but_not_read_are_found_too(sandbox, tmp_path):
    access, secret = "writer0123456789", "writes-only"
    sandbox.weed(
        f"s3.configure -user=writer -actions=Write -buckets=lab -access_key={access}"
        f" -secret_key={secret} -apply"
    )
    config = (sandbox.project.folder / ".dvc/config.local").read_text()
    clone = sandbox.project.copied(tmp_path / "clone", ".sandbox")
    facts = sandbox.facts()
    for old, new in ((facts["access_key"], access), (facts["secret_key"], secret)):
        config = config.replace(old, new)
    (clone.folder / ".dvc/config.local").write_text(config)
    check = ("tools/within", ".", "python", "-m", "tools.job.preflight", "--connections")
    deadline = time.monotonic() + 30
    while "does not let these credentials read" not in (output := clone.run(*check, ok=False)):
        assert time.monotonic() < deadline, output  # SeaweedFS needs time for a new user


FILL = """
import os, sys, boto3, botocore
from botocore.config import Config
s3 = boto3.client("s3", endpoint_url=sys.argv[1], config=Config(retries={"max_attempts": 0}))
try:
    s3.put_object(Bucket="lab", Key="full", Body=os.urandom(2_000_000))
    print("written")
except botocore.exceptions.ClientError as error:
    print("refused", error)
"""


def fill(sandbox):
    """Write to the bucket until it is over its quota and refuses more."""
    facts = sandbox.facts()
    keys = {"AWS_ACCESS_KEY_ID": facts["access_key"], "AWS_SECRET_ACCESS_KEY": facts["secret_key"]}
    write = ("tools/within", "tools/sandbox", "python", "-c", FILL, facts["s3"])
    deadline = time.monotonic() + 60
    while "refused" not in sandbox.project.run(*write, AWS_DEFAULT_REGION="us-east-1", **keys):
        assert time.monotonic() < deadline, "the quota is not enforced"
        quota = "s3.bucket.quota -name=lab -op=set -sizeMB=1"
        sandbox.weed(quota, "lock", "s3.bucket.quota.enforce -apply", "unlock")


def test_after_a_bucket_became_full_a_second_run_trains_nothing(sandbox):
    source = sandbox.change()
    try:
        _, output = sandbox.tag_meanwhile(lambda: fill(sandbox))
        assert "Data could not be pushed to S3" in output
        assert "Job failed" in output
        assert sandbox.tip() == source, "no commit before its data are safe"
        _, output = sandbox.tag()
        assert "cannot write: is its disk full, or the bucket over its quota" in output
        assert "Running stage" not in output
    finally:
        sandbox.weed("s3.bucket.quota -name=lab -op=remove")
    tag, output = sandbox.tag()
    assert "Stage 'quick' is cached - skipping run" in output
    results_of(sandbox, tag)


def test_results_are_kept_elsewhere_if_the_branch_is_refused(sandbox):
    source = sandbox.change()
    hook = Path(sandbox.git("remote", "get-url", "sandbox")) / "hooks/pre-receive"
    refuse = '#!/bin/sh\nwhile read -r _ _ ref; do [ "$ref" != refs/heads/{} ] || exit 1; done\n'
    write_executable(hook, refuse.format(sandbox.branch))
    try:
        tag, output = sandbox.tag()
        results_of(sandbox, tag, f"results/{tag}")
        assert "refuses it" in output
        hook.write_text(
            '#!/bin/sh\nwhile read -r _ _ ref; do case "$ref" in refs/heads/*) exit 1; esac; done\n'
        )
        tag, output = sandbox.tag()
        assert "git am results.patch" in output
        assert "Job failed" in output
    finally:
        hook.unlink()
    assert sandbox.tip() == source


def test_a_killed_job_succeeds_when_run_again(sandbox):
    source = sandbox.change()
    sandbox.hold.touch()
    name = f"run-example-killed-{time.monotonic_ns()}"
    sandbox.git("tag", name)
    with sandbox.project.start("git", "push", "sandbox", f"refs/tags/{name}"):
        seen = Path(f"{sandbox.hold}.seen")
        seen.unlink(missing_ok=True)
        wait_for(seen.exists)
    sandbox.kill("job")
    sandbox.hold.unlink()
    assert sandbox.tip() == source
    tag, _ = sandbox.tag()
    results_of(sandbox, tag)


def away(sandbox):
    """MLflow is down when the run starts."""
    sandbox.kill("mlflow")
    return sandbox.tag()


def dying(sandbox):
    """MLflow answers preflight, and is killed before the stage logs."""
    return sandbox.tag_meanwhile(lambda: sandbox.kill("mlflow"))


def hanging(sandbox):
    """MLflow accepts connections and does not answer."""
    pids = sandbox.kill("mlflow", signal.SIGSTOP)
    try:
        return sandbox.tag()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def broken(sandbox):
    """Another server, with an error, answers in place of MLflow."""
    with (
        server_that(answer(503, "Service Unavailable")) as address,
        sandbox.settings("variables", MLFLOW_URL=address),
    ):
        return sandbox.tag()


@pytest.mark.parametrize("fault", [away, dying, hanging, broken])
def test_if_mlflow_fails_a_run_warns_and_results_are_logged_later(sandbox, fault):
    sandbox.change()
    sandbox.add_a_stage_that_logs()
    sandbox.push()
    tag, output = fault(sandbox)
    noticed = "The run goes on; `make relog` logs its results" in output
    assert noticed == (fault is not dying), "only `dying` comes after preflight"
    assert "The results are complete on disk" in output
    assert output.count("WARNING: MLflow at") >= 2, "in the log and in the summary"
    assert "Job succeeded" in output
    commit = results_of(sandbox, tag)
    assert "MLflow-Run" not in sandbox.message(commit)
    sandbox.up()
    sandbox.git("pull", "--quiet", "sandbox", sandbox.branch)
    sandbox.project.dvc("pull")
    relog = ("make", "relog", "STAGES=prepare_data")
    mlflow = sandbox.facts()["mlflow"]
    assert "MLflow: logged" in sandbox.project.run(*relog, MLFLOW_URL=mlflow)
    assert "MLflow: already logged" in sandbox.project.run(*relog, MLFLOW_URL=mlflow)
