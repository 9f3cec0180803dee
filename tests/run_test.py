"""A run by tag, with the real workflow, on the platform that `make sandbox` starts.

The pipeline here is one stage of a few lines of shell, so that what is tested is the way from the
tag to the results, and what goes wrong on it. The example itself runs in the first test.
"""

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lib.params import read_yaml
from tests.conftest import ROOT, Project, with_children_killed

pytestmark = pytest.mark.integration

DVC_YAML = """
stages:
  quick:
    cmd: lab/processes/run quick
    params: [random_seed]
    deps: [lab/processes/quick/main]
    outs: [artifacts/quick]
    metrics:
      - metrics/quick.json:
          cache: false
"""
# Waits while the file `hold` is there, so that things can happen in the middle of a run.
MAIN = """#!/bin/sh
echo "the secret is $AWS_SECRET_ACCESS_KEY"
while [ -e '{hold}' ]; do touch '{hold}.seen'; sleep 0.05; done
mkdir -p artifacts/quick metrics
grep random_seed params.yaml > artifacts/quick/model.txt
seed=$(sed -n 's/random_seed: \\([0-9]*\\).*/\\1/p' params.yaml)
echo "{{\\"validation\\": {{\\"accuracy\\": 0.$seed}}}}" > metrics/quick.json
"""


class Sandbox:
    """A project with its sandbox up."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.number, self.branch, self.base = 0, "", ""
        self.hold = project.folder / "hold"

    def up(self) -> str:
        return self.project.run("make", "sandbox")

    def down(self) -> str:
        return self.project.run("make", "sandbox-down")

    def git(self, *arguments: str) -> str:
        return self.project.git(*arguments).strip()

    def origin(self, *arguments: str) -> str:
        """What git says in the bare origin."""
        return self.git(f"--git-dir={self.git('remote', 'get-url', 'sandbox')}", *arguments)

    def change(self) -> str:
        """A branch of its own for a test, with a commit with another seed, pushed: its hash."""
        self.number += 1
        self.branch = f"branch-{self.number}"
        self.git("checkout", "--quiet", "--force", "-B", self.branch, self.base)
        text = (self.project.folder / "params.yaml").read_text().splitlines(keepends=True)
        changed = [
            f"random_seed: {1000 + self.number}\n" if line.startswith("random_seed") else line
            for line in text
        ]
        (self.project.folder / "params.yaml").write_text("".join(changed))
        self.project.commit(f"Change {self.number}")
        self.push()
        return self.git("rev-parse", "HEAD")

    def push(self) -> None:
        self.git("push", "--quiet", "sandbox", self.branch)

    def tag(self, name: str = "", revision: str = "HEAD", *options: str) -> tuple[str, str]:
        """Push a tag, which runs it to its end: the tag and what the pusher saw."""
        name = name or f"run-example-{self.number}-{time.monotonic_ns()}"
        self.git("tag", *options, name, revision)
        return name, self.project.run("git", "push", "sandbox", f"refs/tags/{name}")

    def tag_meanwhile(self, meanwhile) -> tuple[str, str]:
        """Push a tag, and do something while its stage is running."""
        self.hold.touch()
        seen = Path(f"{self.hold}.seen")
        seen.unlink(missing_ok=True)
        result: list[tuple[str, str]] = []
        thread = threading.Thread(target=lambda: result.append(self.tag()))
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while not seen.exists():
                assert thread.is_alive(), f"the stage did not start: {result}"
                assert time.monotonic() < deadline, "the stage did not start"
                time.sleep(0.05)
            meanwhile()
        finally:
            self.hold.unlink()
            thread.join(timeout=180)
        return result[0]

    def tip(self, branch: str = "") -> str:
        return self.origin("rev-parse", f"refs/heads/{branch or self.branch}")

    def message(self, commit: str) -> str:
        return self.origin("show", "-s", "--format=%B", commit)

    def show(self, commit: str, path: str) -> str:
        return self.origin("show", f"{commit}:{path}")

    def facts(self) -> dict[str, Any]:
        """What `sandbox status --json` says: addresses, keys, processes."""
        command = ("lib/within", "sandbox", "python", "-m", "sandbox", "status", "--json")
        process = self.project.start(*command)
        said, _ = process.communicate(timeout=60)
        return dict(json.loads(said))

    def kill(self, part: str) -> None:
        for pid, its_part in self.facts()["pids"].items():
            if its_part == part:
                with contextlib.suppress(ProcessLookupError):  # a child went with its parent
                    os.kill(int(pid), signal.SIGKILL)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """One sandbox for all tests: each works on commits and tags of its own."""
    folder = tmp_path_factory.mktemp("run") / "a projëct"
    folder.mkdir()
    sandbox = Sandbox(Project(folder))
    process = folder / "lab/processes/quick"
    process.mkdir()
    (process / "main").write_text(MAIN.format(hold=sandbox.hold))
    (process / "main").chmod(0o755)
    (folder / "dvc.yaml").write_text(DVC_YAML)
    ignored = (folder / ".gitignore").read_text()
    (folder / ".gitignore").write_text(f"{ignored}/artifacts/quick\n/hold*\n")
    sandbox.git("rm", "-rq", "--cached", "dvc.lock", "metrics")
    for file in (folder / "dvc.lock", *(folder / "metrics").iterdir()):
        file.unlink()
    sandbox.project.commit("A quick pipeline")
    sandbox.base = sandbox.git("rev-parse", "HEAD")
    try:
        sandbox.up()
        yield sandbox
    finally:
        sandbox.down()


def results_of(sandbox, tag, branch=""):
    """The newest commit of a branch, which must be the results of a tag."""
    tip = sandbox.tip(branch)
    assert f"Tag: {tag}" in sandbox.message(tip)
    return tip


def test_a_tag_becomes_a_results_commit_on_its_branch(sandbox):
    source = sandbox.change()
    tag, said = sandbox.tag()
    commit = results_of(sandbox, tag)
    message = sandbox.message(commit)
    assert sandbox.origin("rev-parse", f"{commit}^") == source
    assert message.startswith(f"Change {sandbox.number}-results\n")
    assert f"Source-Commit: {source}" in message
    assert "quick.validation.accuracy" in message
    assert json.loads(sandbox.show(commit, "metrics/quick.json"))["validation"]
    changed = sandbox.origin("diff", "--name-only", source, commit).split()
    assert sorted(changed) == ["dvc.lock", "metrics/quick.json"]
    assert "## Run" in said, "the pusher sees the summary"


def test_the_results_are_pulled_with_git_and_dvc(sandbox):
    sandbox.change()
    sandbox.tag()
    sandbox.git("pull", "--quiet", "sandbox", sandbox.branch)
    sandbox.project.dvc("pull")
    assert sandbox.project.dvc("status").strip() == "Data and pipelines are up to date."
    model = sandbox.project.folder / "artifacts/quick/model.txt"
    assert model.read_text().startswith(f"random_seed: {1000 + sandbox.number}")


def test_nothing_changed_is_a_success_without_a_commit(sandbox):
    sandbox.change()
    sandbox.tag()
    before = sandbox.tip()
    sandbox.git("pull", "--quiet", "sandbox", sandbox.branch)
    _, said = sandbox.tag()
    assert sandbox.tip() == before
    assert "Nothing changed" in said
    assert "Job succeeded" in said


def test_a_commit_made_meanwhile_is_kept_below_the_results(sandbox):
    sandbox.change()

    def meanwhile():
        (sandbox.project.folder / "notes.md").write_text(f"{sandbox.number}\n")
        sandbox.project.commit("A note")
        sandbox.push()

    tag, _ = sandbox.tag_meanwhile(meanwhile)
    commit = results_of(sandbox, tag)
    assert sandbox.message(f"{commit}^").startswith("A note")


def test_other_results_made_meanwhile_are_kept_and_ours_go_aside(sandbox):
    sandbox.change()

    def meanwhile():
        (sandbox.project.folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
        sandbox.project.commit("Other results")
        sandbox.push()

    tag, said = sandbox.tag_meanwhile(meanwhile)
    assert sandbox.message(sandbox.tip()).startswith("Other results")
    commit = results_of(sandbox, tag, f"results/{tag}")
    assert "quick" in sandbox.show(commit, "dvc.lock")
    assert f"results/{tag}" in said
    assert "Job succeeded" in said


def test_of_two_runs_that_end_together_neither_is_lost(sandbox):
    older = sandbox.change()
    sandbox.project.edit("params.yaml", "random_seed: 1", "random_seed: 2")
    sandbox.project.commit("Other results to come")
    sandbox.push()
    runs = {f"run-example-both-{n}-{time.monotonic_ns()}": r for n, r in enumerate((older, "HEAD"))}
    threads = [threading.Thread(target=sandbox.tag, args=run) for run in runs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=240)
    messages = sandbox.origin("log", "--format=%B", "--all")
    assert [name for name in runs if f"Tag: {name}" not in messages] == []


def test_a_tag_on_no_branch_is_refused_with_what_to_do(sandbox):
    sandbox.change()
    sandbox.git("checkout", "--quiet", "--detach")
    sandbox.project.commit("On no branch")
    tag, said = sandbox.tag()
    assert "The commit is on no branch" in said
    assert "Job failed" in said
    assert f"Tag: {tag}" not in sandbox.origin("log", "--all", "--format=%B")


def test_an_annotated_tag_and_a_commit_on_several_branches_are_resolved_by_rule(sandbox):
    sandbox.change()
    sandbox.git("push", "--quiet", "sandbox", "HEAD:refs/heads/another")
    sandbox.project.commit("The newest of one branch only")
    sandbox.push()
    sandbox.git("push", "--quiet", "sandbox", "HEAD~1:refs/heads/a-third")
    name = f"run-example-annotated-{time.monotonic_ns()}"
    tag, _ = sandbox.tag(name, "HEAD", "--annotate", "--message", "annotated")
    results_of(sandbox, tag)


HOSTILE = [
    'run-example";touch${IFS}pwned;#',
    "run-example$(touch${IFS}pwned)",
    "run-example`touch${IFS}pwned`",
    "run-example'|touch${IFS}pwned|'",
    "run-example-ünï¢ode",
    "run-example&&touch${IFS}pwned",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tag_is_refused_and_nothing_of_it_is_executed(sandbox, name):
    sandbox.change()
    before = sandbox.tip()
    _, said = sandbox.tag(name)
    assert "has characters that are not" in said
    assert sandbox.tip() == before
    assert list(sandbox.project.folder.rglob("pwned*")) == []


def test_a_secret_that_a_process_prints_is_masked_and_gets_nowhere(sandbox):
    sandbox.change()
    _, said = sandbox.tag()
    secret = sandbox.facts()["secret_key"]
    assert "the secret is ***" in said
    assert secret not in said
    assert secret not in sandbox.origin("log", "--all", "--patch")


def test_a_typo_in_params_is_found_before_anything_runs(sandbox):
    sandbox.change()
    sandbox.project.edit("params.yaml", "test_size", "test_sise")
    sandbox.project.commit("A typo")
    sandbox.push()
    _, said = sandbox.tag()
    assert "did you mean test_size?" in said
    assert "Running stage" not in said


def test_a_stage_that_fails_is_named_with_its_cause_and_how_to_run_it(sandbox):
    main = "lab/processes/quick/main"
    sandbox.change()
    sandbox.project.edit(main, "#!/bin/sh\n", "#!/bin/sh\necho no such model >&2; exit 3\n")
    sandbox.project.commit("A mistake")
    sandbox.push()
    before = sandbox.tip()
    _, said = sandbox.tag()
    assert "Stage quick failed: no such model" in said
    assert "dvc repro quick" in said
    assert "Job failed" in said
    assert sandbox.tip() == before
    sandbox.project.edit(main, "echo no such model >&2; exit 3", "kill -9 $$")
    sandbox.project.commit("Killed")
    sandbox.push()
    _, said = sandbox.tag()
    assert "Stage quick failed: it was killed" in said


def test_storage_that_is_away_stops_the_run_in_preflight(sandbox):
    sandbox.change()
    sandbox.kill("s3")
    started = time.monotonic()
    _, said = sandbox.tag()
    assert "does not answer: is it up" in said
    assert "Running stage" not in said
    assert time.monotonic() - started < 60
    sandbox.up()


def test_storage_that_dies_costs_a_re_run_that_trains_nothing(sandbox):
    source = sandbox.change()
    tag, said = sandbox.tag_meanwhile(lambda: sandbox.kill("s3"))
    assert "Data could not be pushed to S3" in said
    assert "Job failed" in said
    assert sandbox.tip() == source, "nothing is committed before its data are safe"
    sandbox.up()
    tag, said = sandbox.tag()
    assert "Stage 'quick' is cached - skipping run" in said
    results_of(sandbox, tag)


def test_a_server_that_refuses_the_branch_gets_the_results_aside(sandbox):
    source = sandbox.change()
    hook = Path(sandbox.git("remote", "get-url", "sandbox")) / "hooks/pre-receive"
    refuse = '#!/bin/sh\nwhile read -r _ _ ref; do [ "$ref" != refs/heads/{} ] || exit 1; done\n'
    hook.write_text(refuse.format(sandbox.branch))
    hook.chmod(0o755)
    try:
        tag, said = sandbox.tag()
        results_of(sandbox, tag, f"results/{tag}")
        assert "refuses it" in said
        hook.write_text(
            '#!/bin/sh\nwhile read -r _ _ ref; do case "$ref" in refs/heads/*) exit 1; esac; done\n'
        )
        tag, said = sandbox.tag()
        assert "git am results.patch" in said
        assert "Job failed" in said
    finally:
        hook.unlink()
    assert sandbox.tip() == source


def test_a_killed_job_is_run_again_and_ends_well(sandbox):
    source = sandbox.change()
    sandbox.hold.touch()
    name = f"run-example-killed-{time.monotonic_ns()}"
    sandbox.git("tag", name)
    push = sandbox.project.start("git", "push", "sandbox", f"refs/tags/{name}")
    seen = Path(f"{sandbox.hold}.seen")
    seen.unlink(missing_ok=True)
    deadline = time.monotonic() + 60
    while not seen.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with_children_killed(push)
    sandbox.kill("job")
    sandbox.hold.unlink()
    assert sandbox.tip() == source
    tag, _ = sandbox.tag()
    results_of(sandbox, tag)


def test_mlflow_that_is_away_costs_a_warning_and_gets_the_results_later(sandbox):
    sandbox.change()
    stage = read_yaml(ROOT / "dvc.yaml")["stages"]["prepare_data"]
    (sandbox.project.folder / "dvc.yaml").write_text(
        json.dumps({"stages": {"prepare_data": stage}})  # JSON is YAML
    )
    sandbox.project.commit("A stage that logs")
    sandbox.push()
    sandbox.kill("mlflow")
    tag, said = sandbox.tag()
    assert "The run goes on; `make relog` logs its results" in said
    assert "The results are complete on disk" in said
    assert "Job succeeded" in said
    commit = results_of(sandbox, tag)
    assert "MLflow-Run" not in sandbox.message(commit)
    sandbox.up()
    sandbox.git("pull", "--quiet", "sandbox", sandbox.branch)
    sandbox.project.dvc("pull")
    relog = ("lab/processes/run", "prepare_data", "--relog")
    assert "MLflow: logged" in sandbox.project.run(*relog, MLFLOW_URL=sandbox.facts()["mlflow"])
    tag, said = sandbox.tag()
    assert "Nothing changed" in said
