"""Runs by tag, with the real workflow, on the platform that `make sandbox` starts.

Faults on the way are tested in `faults_test.py`.
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
    tag, output = sandbox.tag()
    commit = results_of(sandbox, tag)
    message = sandbox.message(commit)
    assert sandbox.origin("rev-parse", f"{commit}^") == source
    assert message.startswith(f"Change {sandbox.number}-results\n")
    assert f"Source-Commit: {source}" in message
    assert "quick.validation.accuracy" in message
    assert json.loads(sandbox.show(commit, "metrics/quick.json"))["validation"]
    assert (sandbox.project.folder / ".sandbox/dvc-cache/files").is_dir(), (
        "the cache outlives a job"
    )
    assert sandbox.git("status", "--porcelain") == "", "a run leaves nothing in the clone"
    changed = sandbox.origin("diff", "--name-only", source, commit).split()
    assert sorted(changed) == ["dvc.lock", "metrics/quick.json"]
    assert "## Run" in output, "the pusher sees the summary"


CLASSES = """
{ echo '{"accuracy": 0.5, "curve": [1, 2], "classes": {'
for n in $(seq 1500); do
  printf '"class_%s": {"precision": 0.%s, "recall": 0.%s, "f1": 0.5},\\n' $n $n $n
done
echo '"none": null}}'; } > metrics/quick.json
seq 2500 | sed 's/$/,0.5/' > metrics/points.csv
"""


def test_thousands_of_metrics_are_cut_and_counted_in_the_commit(sandbox):
    sandbox.change()
    with (sandbox.project.folder / "lab/processes/quick/main").open("a") as main:
        main.write(CLASSES)
    plot = "    plots:\n      - metrics/points.csv:\n          cache: false\n    metrics:"
    sandbox.project.edit("dvc.yaml", "    metrics:", plot)
    sandbox.commit("Many classes and a long plot")
    tag, output = sandbox.tag()
    commit = results_of(sandbox, tag)
    message = sandbox.message(commit)
    assert "quick.accuracy: – -> 0.5\n" in message, "less nested metrics are kept"
    assert "\n… and 4,481 more\n\n" in message
    assert message.count("\n") < 40
    assert "curve" not in message
    assert "points" not in message
    assert "… and 4,452 more" in output, "on the summary page"
    assert sandbox.show(commit, "metrics/points.csv").count("\n") == 2499
    assert "Nothing changed" in sandbox.tag()[1], "a rerun succeeds, too"


def test_the_results_are_pulled_with_git_and_dvc(sandbox):
    sandbox.change()
    sandbox.tag()
    sandbox.git("pull", "--quiet", "sandbox", sandbox.branch)
    sandbox.project.dvc("pull")
    assert sandbox.project.dvc("status").strip() == "Data and pipelines are up to date."
    model = sandbox.project.folder / "artifacts/quick/model.txt"
    assert model.read_text().startswith(f"random_seed: {1000 + sandbox.number}")


def test_summary_and_commit_link_to_mlflow_and_show_what_changed(sandbox):
    sandbox.change()
    sandbox.add_a_stage_that_logs()
    sandbox.project.edit("params.yaml", "var_smoothing: 1.0e-9", "var_smoothing: 2.0e-9")
    sandbox.commit("A smaller number than a table has places for")
    tag, output = sandbox.tag()
    run = re.search(
        r"^MLflow-Run-prepare-data: (\w+)$", sandbox.message(results_of(sandbox, tag)), re.MULTILINE
    )
    assert run, "each logged stage has a trailer"
    assert re.search(rf"prepare_data \| ran \| .* \| \[run\]\(http://\S+/runs/{run[1]}\)", output)
    assert "gaussian_naive_bayes.var_smoothing` | 1e-09 | 2e-09 |" in output


def test_an_unchanged_run_succeeds_without_a_commit(sandbox):
    sandbox.change()
    sandbox.tag()
    before = sandbox.tip()
    sandbox.git("pull", "--quiet", "sandbox", sandbox.branch)
    _, output = sandbox.tag()
    assert sandbox.tip() == before
    assert "Nothing changed" in output
    assert "Job succeeded" in output


def test_a_commit_made_during_a_run_is_kept_before_results(sandbox):
    sandbox.change()

    def during_run():
        (sandbox.project.folder / "notes.md").write_text(f"{sandbox.number}\n")
        sandbox.commit("A note")

    tag, _ = sandbox.tag_meanwhile(during_run)
    commit = results_of(sandbox, tag)
    assert sandbox.message(f"{commit}^").startswith("A note")


def test_other_results_made_during_a_run_stay_and_ours_go_aside(sandbox):
    sandbox.change()

    def during_run():
        (sandbox.project.folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
        sandbox.commit("Other results")

    tag, output = sandbox.tag_meanwhile(during_run)
    assert sandbox.message(sandbox.tip()).startswith("Other results")
    commit = results_of(sandbox, tag, f"results/{tag}")
    assert "quick" in sandbox.show(commit, "dvc.lock")
    assert f"results/{tag}" in output
    assert "Job succeeded" in output


def test_parameters_changed_during_a_run_send_its_results_aside(sandbox):
    sandbox.change()

    def during_run():
        sandbox.project.edit("params.yaml", "random_seed: 1", "random_seed: 3")
        sandbox.commit("Another seed")

    tag, output = sandbox.tag_meanwhile(during_run)
    assert sandbox.message(sandbox.tip()).startswith("Another seed")
    commit = results_of(sandbox, tag, f"results/{tag}")
    assert f"random_seed: {1000 + sandbox.number}" in sandbox.show(commit, "params.yaml")
    assert f"{sandbox.branch} got other parameters, or another command or file" in output
    assert "Job succeeded" in output


def test_two_runs_that_end_together_lose_no_results(sandbox):
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


def test_a_commit_on_no_branch_is_refused_before_any_of_it_runs(sandbox, tmp_path):
    sandbox.change()
    sandbox.git("checkout", "--quiet", "--detach")
    sandbox.project.edit("tools/within", "set -eu\n", f"set -eu\ntouch '{tmp_path}/executed'\n")
    sandbox.project.commit("On no branch")
    commit = sandbox.git("rev-parse", "HEAD")
    sandbox.git("checkout", "--quiet", sandbox.branch)
    tag, output = sandbox.tag(revision=commit)
    assert "The commit is on no branch" in output
    assert "Job failed" in output
    assert f"Tag: {tag}" not in sandbox.origin("log", "--all", "--format=%B")
    assert not (tmp_path / "executed").exists()


def test_annotated_tags_and_commits_on_several_branches_are_resolved(sandbox):
    sandbox.change()
    sandbox.git("push", "--quiet", "sandbox", "HEAD:refs/heads/another")
    sandbox.commit("The newest of one branch only")
    sandbox.git("push", "--quiet", "sandbox", "HEAD~1:refs/heads/a-third")
    name = f"run-example-annotated-{time.monotonic_ns()}"
    tag, _ = sandbox.tag(name, "HEAD", "--annotate", "--message", "annotated")
    results_of(sandbox, tag)


@pytest.mark.parametrize("kind", ["branch", "tag"])
def test_the_button_runs_a_branch_or_a_tag_and_its_branch_gets_results(sandbox, kind):
    source = sandbox.change()
    name = sandbox.branch
    if kind == "tag":
        name = f"any-name-{time.monotonic_ns()}"
        sandbox.git("tag", name)
        sandbox.git("push", "--quiet", "sandbox", f"refs/tags/{name}")
    output = sandbox.dispatch(name)
    commit = results_of(sandbox, name)
    assert sandbox.origin("rev-parse", f"{commit}^") == source
    assert "Job succeeded" in output


HOSTILE = [
    'run-example";touch${IFS}pwned;#',
    "run-example$(touch${IFS}pwned)",
    "run-example`touch${IFS}pwned`",
    "run-example'|touch${IFS}pwned|'",
    "run-example-ünï¢ode",
    "run-example&&touch${IFS}pwned",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tag_name_is_refused_and_not_executed(sandbox, name):
    sandbox.change()
    before = sandbox.tip()
    _, output = sandbox.tag(name)
    assert "has characters that are not" in output
    assert sandbox.tip() == before
    assert list(sandbox.project.folder.rglob("pwned*")) == []
