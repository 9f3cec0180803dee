"""A run by tag, with the real workflow, on the platform that `make sandbox` starts.

What breaks on the way is in `faults_test.py`.
"""

import json
import re
import threading
import time

import pytest

from tests.rehearsal import rehearsing, results_of

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """One sandbox for all tests: each works on commits and tags of its own."""
    with rehearsing(tmp_path_factory.mktemp("run") / "a projëct") as sandbox:
        yield sandbox


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
    assert (sandbox.project.folder / ".sandbox/dvc-cache/files").is_dir(), "where it outlives a job"
    assert sandbox.git("status", "--porcelain") == "", "a run leaves nothing in the clone"
    changed = sandbox.origin("diff", "--name-only", source, commit).split()
    assert sorted(changed) == ["dvc.lock", "metrics/quick.json"]
    assert "## Run" in said, "the pusher sees the summary"


CLASSES = """
{ echo '{"accuracy": 0.5, "curve": [1, 2], "classes": {'
for n in $(seq 1500); do
  printf '"class_%s": {"precision": 0.%s, "recall": 0.%s, "f1": 0.5},\\n' $n $n $n
done
echo '"none": null}}'; } > metrics/quick.json
seq 2500 | sed 's/$/,0.5/' > metrics/points.csv
"""


def test_thousands_of_metrics_are_cut_and_counted_in_the_results_commit(sandbox):
    sandbox.change()
    with (sandbox.project.folder / "lab/processes/quick/main").open("a") as main:
        main.write(CLASSES)
    plot = "    plots:\n      - metrics/points.csv:\n          cache: false\n    metrics:"
    sandbox.project.edit("dvc.yaml", "    metrics:", plot)
    sandbox.commit("Many classes and a long plot")
    tag, said = sandbox.tag()
    commit = results_of(sandbox, tag)
    message = sandbox.message(commit)
    assert "quick.accuracy: – -> 0.5\n" in message, "what is less nested is kept"
    assert "\n… and 4,481 more\n\n" in message
    assert message.count("\n") < 40
    assert "curve" not in message
    assert "points" not in message
    assert "… and 4,452 more" in said, "on the summary page"
    assert sandbox.show(commit, "metrics/points.csv").count("\n") == 2499
    assert "Nothing changed" in sandbox.tag()[1], "a re-run ends as well"


def test_the_results_are_pulled_with_git_and_dvc(sandbox):
    sandbox.change()
    sandbox.tag()
    sandbox.git("pull", "--quiet", "sandbox", sandbox.branch)
    sandbox.project.dvc("pull")
    assert sandbox.project.dvc("status").strip() == "Data and pipelines are up to date."
    model = sandbox.project.folder / "artifacts/quick/model.txt"
    assert model.read_text().startswith(f"random_seed: {1000 + sandbox.number}")


def test_the_summary_and_the_commit_lead_to_mlflow_and_tell_what_was_changed(sandbox):
    sandbox.change()
    sandbox.add_a_stage_that_logs()
    sandbox.project.edit("params.yaml", "var_smoothing: 1.0e-9", "var_smoothing: 2.0e-9")
    sandbox.commit("A smaller number than a table has places for")
    tag, said = sandbox.tag()
    run = re.search(
        r"^MLflow-Run-prepare-data: (\w+)$", sandbox.message(results_of(sandbox, tag)), re.MULTILINE
    )
    assert run, "a trailer for each stage that was logged"
    assert re.search(rf"prepare_data \| ran \| .* \| \[run\]\(http://\S+/runs/{run[1]}\)", said)
    assert "gaussian_naive_bayes.var_smoothing` | 1e-09 | 2e-09 |" in said


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
        sandbox.commit("A note")

    tag, _ = sandbox.tag_meanwhile(meanwhile)
    commit = results_of(sandbox, tag)
    assert sandbox.message(f"{commit}^").startswith("A note")


def test_other_results_made_meanwhile_are_kept_and_ours_go_aside(sandbox):
    sandbox.change()

    def meanwhile():
        (sandbox.project.folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
        sandbox.commit("Other results")

    tag, said = sandbox.tag_meanwhile(meanwhile)
    assert sandbox.message(sandbox.tip()).startswith("Other results")
    commit = results_of(sandbox, tag, f"results/{tag}")
    assert "quick" in sandbox.show(commit, "dvc.lock")
    assert f"results/{tag}" in said
    assert "Job succeeded" in said


def test_parameters_changed_meanwhile_do_not_stand_beside_results_of_others(sandbox):
    sandbox.change()

    def meanwhile():
        sandbox.project.edit("params.yaml", "random_seed: 1", "random_seed: 3")
        sandbox.commit("Another seed")

    tag, said = sandbox.tag_meanwhile(meanwhile)
    assert sandbox.message(sandbox.tip()).startswith("Another seed")
    commit = results_of(sandbox, tag, f"results/{tag}")
    assert f"random_seed: {1000 + sandbox.number}" in sandbox.show(commit, "params.yaml")
    assert f"{sandbox.branch} got other parameters, or another command or file" in said
    assert "Job succeeded" in said


def test_of_two_runs_that_end_together_neither_is_lost(sandbox):
    older = sandbox.change()
    sandbox.project.edit("params.yaml", "random_seed: 1", "random_seed: 2")
    sandbox.commit("Other results to come")
    runs = {f"run-example-both-{n}-{time.monotonic_ns()}": r for n, r in enumerate((older, "HEAD"))}
    threads = [threading.Thread(target=sandbox.tag, args=run) for run in runs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=240)
    messages = sandbox.origin("log", "--format=%B", "--all")
    assert [name for name in runs if f"Tag: {name}" not in messages] == []


def test_a_commit_on_no_branch_is_refused_before_anything_of_it_is_executed(sandbox, tmp_path):
    sandbox.change()
    sandbox.git("checkout", "--quiet", "--detach")
    sandbox.project.edit("tools/within", "set -eu\n", f"set -eu\ntouch '{tmp_path}/executed'\n")
    sandbox.project.commit("On no branch")
    commit = sandbox.git("rev-parse", "HEAD")
    sandbox.git("checkout", "--quiet", sandbox.branch)
    tag, said = sandbox.tag(revision=commit)
    assert "The commit is on no branch" in said
    assert "Job failed" in said
    assert f"Tag: {tag}" not in sandbox.origin("log", "--all", "--format=%B")
    assert not (tmp_path / "executed").exists()


def test_an_annotated_tag_and_a_commit_on_several_branches_are_resolved_by_rule(sandbox):
    sandbox.change()
    sandbox.git("push", "--quiet", "sandbox", "HEAD:refs/heads/another")
    sandbox.commit("The newest of one branch only")
    sandbox.git("push", "--quiet", "sandbox", "HEAD~1:refs/heads/a-third")
    name = f"run-example-annotated-{time.monotonic_ns()}"
    tag, _ = sandbox.tag(name, "HEAD", "--annotate", "--message", "annotated")
    results_of(sandbox, tag)


@pytest.mark.parametrize("kind", ["branch", "tag"])
def test_the_button_runs_a_branch_or_a_tag_and_its_branch_gets_the_results(sandbox, kind):
    source = sandbox.change()
    name = sandbox.branch
    if kind == "tag":
        name = f"any-name-{time.monotonic_ns()}"
        sandbox.git("tag", name)
        sandbox.git("push", "--quiet", "sandbox", f"refs/tags/{name}")
    said = sandbox.dispatch(name)
    commit = results_of(sandbox, name)
    assert sandbox.origin("rev-parse", f"{commit}^") == source
    assert "Job succeeded" in said


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
