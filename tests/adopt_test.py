"""A sweep on the runner, from its tag to a model trained with the values that it found."""

import json

import pytest

from lib.files import read_json
from tests.conftest import Project
from tests.rehearsal import Sandbox, results_of

pytestmark = pytest.mark.integration

SWEEP = "artifacts/tune/dnn_pytorch"
METRICS = "metrics/train_dnn_pytorch.json"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """The example in a sandbox, with a learning rate that is too small and sweeps of few trials."""
    sandbox = Sandbox(Project(tmp_path_factory.mktemp("adopt") / "project"))
    project, sandbox.branch = sandbox.project, "sweeps"
    sandbox.git("checkout", "--quiet", "-b", sandbox.branch)
    for old, new in (
        ("  lr: 0.001", "  lr: 0.00001  # a guess"),
        ("epochs: 120", "epochs: 30"),
        ("trials: 40", "trials: 4"),
        ("trials: 16", "trials: 4"),
        ("batch: 8", "batch: 4"),
        ("rungs: [10, 30, 90]", "rungs: [10, 30]"),
    ):
        project.edit("params.yaml", old, new)
    project.commit("A guess")
    try:
        sandbox.up()
        sandbox.push()
        yield sandbox
    finally:
        sandbox.down()


@pytest.fixture(scope="module")
def before(sandbox):
    """The metrics of a run by tag with the guessed learning rate; its results are pulled."""
    commit = results_of(sandbox, sandbox.tag()[0])
    sandbox.git("pull", "--quiet", "sandbox", sandbox.branch)
    return json.loads(sandbox.show(commit, METRICS))


@pytest.fixture(scope="module")
def swept(sandbox, before):
    """The output of pushing a sweep's tag, and its results commit, which is pulled."""
    tag, output = sandbox.tag("tune-learning-rate")
    commit = results_of(sandbox, tag)
    sandbox.git("pull", "--quiet", "sandbox", sandbox.branch)
    return output, commit


def test_a_sweep_by_tag_commits_its_trials_and_pictures(sandbox, swept):
    output, commit = swept
    assert "A sweep trains no model that is kept: there is nothing to judge." in output
    assert "Job succeeded" in output
    changed = sandbox.origin("show", "--name-only", "--format=", commit).splitlines()
    pictures = {f"{SWEEP}/{name}.png" for name in ("history", "importances", "slices")}
    assert pictures | {f"{SWEEP}/trials.csv", "lab/tuning/dvc.lock"} <= set(changed)
    assert not {path for path in changed if path.startswith(("metrics/train", "dvc.lock"))}
    trials = sandbox.show(commit, f"{SWEEP}/trials.csv").splitlines()
    assert len(trials) == 1 + 4


def test_adopting_values_keeps_comments_and_reruns_no_sweep(sandbox, swept):
    project = sandbox.project
    before = (project.folder / "params.yaml").read_text().splitlines()
    found = read_json(project.folder / "metrics/tune_dnn_pytorch.json")["values"]
    output = project.run("make", "adopt", "STAGES=tune_dnn_pytorch")
    after = (project.folder / "params.yaml").read_text().splitlines()
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert f"  lr: {found['lr']}  # a guess" in changed
    assert all(f"+{line}" in output.splitlines() for line in changed)
    assert "params.yaml" not in project.dvc("status", "lab/tuning/dvc.yaml:tune_dnn_pytorch")
    assert "has these values already" in project.run("make", "adopt", "STAGES=tune_dnn_pytorch")
    assert "nothing is no sweep" in project.run("make", "adopt", "STAGES=nothing", ok=False)


def test_a_run_with_adopted_values_reaches_the_best_loss(sandbox, before, swept):
    project = sandbox.project
    project.run("make", "adopt")
    project.commit("What the sweep found")
    sandbox.push()
    commit = results_of(sandbox, sandbox.tag()[0])
    reached = json.loads(sandbox.show(commit, METRICS))["validation"]["log_loss"]
    promised = json.loads(sandbox.show(commit, "metrics/tune_dnn_pytorch.json"))["best"]
    assert reached == pytest.approx(promised)
    assert reached < before["validation"]["log_loss"]


PREPARE = """
stages:
  prepare:
    cmd: mkdir -p data metrics && cp raw.csv data/rows.csv && cp rows.yaml metrics
    deps: [raw.csv]
    params: [prepare_data.test_size]
    outs: [data/rows.csv]
    metrics: [metrics/rows.yaml: {cache: false}]
"""
TUNE = """
stages:
  tune_dnn_pytorch:
    wdir: ../..
    cmd: mkdir -p metrics && cp found.json metrics/tune.json
    deps: [data/rows.csv]
    params: [train_dnn_pytorch.epochs]
    metrics: [metrics/tune.json: {cache: false}]
"""
FOUND = {
    "tunes": "train_dnn_pytorch",
    "objective": "validation.log_loss",
    "best": 0.1,
    "best_trial": 1,
    "trials": 2,
    "values": {"lr": 0.002},
}


def test_adopting_names_values_that_params_yaml_leaves_to_their_defaults(project):
    project.give_pipeline(PREPARE)
    (project.folder / "raw.csv").write_text("1\n")
    (project.folder / "rows.yaml").write_text("rows: 1\n")
    (project.folder / "lab/tuning/dvc.yaml").write_text(TUNE)
    types = "lab/processes/train_dnn_pytorch/params.py"
    project.edit(types, "    lr: Positive\n", "    lr: Positive = 0.001\n")
    project.edit("params.yaml", "  lr: 0.001\n", "")
    why = "tune_dnn_pytorch: params.yaml has no train_dnn_pytorch.lr, so that is not adopted: add"
    for values, ok in (({"lr": 0.002}, False), ({"lr": 0.002, "epochs": 7}, True)):
        (project.folder / "found.json").write_text(json.dumps(FOUND | {"values": values}))
        project.dvc("repro", "--quiet", "--force", "dvc.yaml", "lab/tuning/dvc.yaml")
        assert why in project.run("make", "adopt", ok=ok)
    assert "  epochs: 7" in (project.folder / "params.yaml").read_text()


def test_adopting_warns_if_data_or_parameters_have_changed(project):
    project.give_pipeline(PREPARE)
    for name, content in (
        ("raw.csv", "1\n"),
        ("rows.yaml", "rows: 1\n"),
        ("found.json", json.dumps(FOUND)),
        ("lab/tuning/dvc.yaml", TUNE),
    ):
        (project.folder / name).write_text(content)
    project.dvc("repro", "--quiet", "dvc.yaml", "lab/tuning/dvc.yaml")
    warning = "WARNING: tune_dnn_pytorch: changed since it ran: "
    assert "+  lr: 0.002" in (output := project.run("make", "adopt"))
    assert warning not in output
    assert warning not in project.run("make", "adopt"), "its own edit does not count as a change"
    project.edit("params.yaml", "test_size: 0.15", "test_size: 0.25")
    assert f"{warning}prepare_data.test_size." in project.run("make", "adopt"), (
        "the data will change"
    )
    (project.folder / "raw.csv").write_text("2\n")
    project.dvc("repro", "--quiet", "prepare")
    assert f"{warning}data/rows.csv." in project.run("make", "adopt")
    (project.folder / "data/rows.csv").unlink()
    assert f"{warning}data/rows.csv." in project.run("make", "adopt"), "seen from dvc.lock"
    project.dvc("repro", "--quiet", "dvc.yaml", "lab/tuning/dvc.yaml")
    (project.folder / "data/rows.csv").unlink()
    assert warning not in project.run("make", "adopt"), "as after a sweep on the runner"
    listed = "train_dnn_pytorch.epochs"
    for key in ("train_dnn_pytorch.lr", "train_dnn_pytorch"):  # which adopting would change
        project.edit("lab/tuning/dvc.yaml", f"[{listed}]", f"[{key}]")
        warning = f"WARNING: tune_dnn_pytorch: lab/tuning/dvc.yaml lists {key} in its `params`"
        assert warning in project.run("make", "adopt")
        listed = key
