"""Stages are logged in MLflow however they are written and started; results never depend on it.

The processes here are a few lines of shell: the tracker only sees a stage's files.
"""

import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from lib.params import read_yaml
from tests.conftest import (
    Project,
    free_port,
    logged_runs,
    mlflow_client,
    mlflow_server,
    wait_for,
    write_executable,
)
from tools.job.experiment import Watch

pytestmark = pytest.mark.integration

DVC_YAML = """
vars:
  - models: [forest, svc]
stages:
  plain:
    cmd: lab/processes/run plain
    params: [random_seed, plain]
    deps: [lab/processes/plain/main]
    outs: [artifacts/plain]
    metrics:
      - metrics/plain.yaml:
          cache: false
  sweep:
    matrix:
      model: ${models}
    cmd: lab/processes/run sweep ${item.model}
    params: [random_seed]
    outs: ["artifacts/sweep/${item.model}.txt"]
    metrics:
      - "metrics/sweep/${item.model}.json":
          cache: false
  each:
    foreach: [one, two]
    do:
      cmd: lab/processes/run sweep ${item}
      outs: ["artifacts/sweep/${item}.txt"]
      metrics:
        - "metrics/sweep/${item}.json":
            cache: false
"""
PLAIN = """#!/bin/sh
mkdir -p artifacts/plain metrics
printf 'epoch,loss\\n1,0.5\\n2,0.25\\n' > artifacts/plain/history.csv
echo text > artifacts/plain/model.txt
cat > metrics/plain.yaml <<'END'
validation:
  rmse: 38125.5
  precision@10: 0.5
  nothing: null
  not_a_number: .nan
  per_class: [0.1, 0.2]
kind: ridge
END
"""
SWEEP = """#!/bin/sh
mkdir -p artifacts/sweep metrics/sweep
echo "$1" > "artifacts/sweep/$1.txt"
echo "{\\"accuracy\\": 0.${#1}}" > "metrics/sweep/$1.json"
"""
PART = """#!/bin/sh
# here
mkdir -p "artifacts/$1"
[ "$1" = one ] && steps="1 2" || steps="3 4"
echo epoch,loss > "artifacts/$1/curve.csv"
for step in $steps; do echo "$step,0.$step"; done >> "artifacts/$1/curve.csv"
cp "artifacts/$1/curve.csv" "$LIVE_CURVE"
until grep -q '"open": "[^"]' .mlflow/parts.json; do sleep 0.1; done  # the tracker shows the run
"""
PARAMS = """
plain:
  depth: 3
  trees: {n: 10}
"""


def add_process(project, name, main):
    write_executable(project.folder / "lab/processes" / name / "main", main)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A repository with a pipeline of shell scripts, committed."""
    project = Project(tmp_path_factory.mktemp("tracker"))
    add_process(project, "plain", PLAIN)
    add_process(project, "sweep", SWEEP)
    (project.folder / "dvc.yaml").write_text(DVC_YAML)
    (project.folder / "dvc.lock").unlink(missing_ok=True)
    with (project.folder / "params.yaml").open("a") as params:
        params.write(PARAMS)
    with (project.folder / ".gitignore").open("a") as ignored:
        ignored.write("/artifacts/plain\n/artifacts/sweep\n")
    project.commit("A pipeline of shell scripts")
    # An empty store, which takes over a second to make.
    make = "from tools.tracking.store import make_embedded; make_embedded()"
    project.run("tools/within", "tools/tracking", "python", "-c", make)
    return project


@pytest.fixture
def project(base, tmp_path):
    """A copy for one test, with nothing logged."""
    return base.copied(tmp_path / "a copy")


@pytest.fixture(scope="module")
def base_ran(base, tmp_path_factory):
    """The same after its stage `plain` has run and was logged."""
    project = base.copied(tmp_path_factory.mktemp("tracker") / "logged")
    project.dvc("repro", "plain")
    return project


@pytest.fixture
def ran(base_ran, tmp_path):
    """A copy of that for one test, with one run logged."""
    return base_ran.copied(tmp_path / "a copy")


def store(project):
    """The address of the embedded store."""
    return f"sqlite:///{project.folder}/mlflow.db"


def logged(project):
    return logged_runs(store(project))


def by_stage(project):
    return {run["tags"]["stage"]: run for run in logged(project) if "stage" in run["tags"]}


# ---- however a stage is written


def test_plain_matrix_and_foreach_stages_are_logged_with_their_own_fingerprints(project):
    project.dvc("repro")
    runs = by_stage(project)
    assert sorted(runs) == ["each@one", "each@two", "plain", "sweep@forest", "sweep@svc"]
    assert {run["status"] for run in runs.values()} == {"FINISHED"}
    assert len({run["tags"]["fingerprint"] for run in runs.values()}) == 5
    assert runs["sweep@forest"]["metrics"] == {"accuracy": 0.6}
    assert runs["sweep@svc"]["files"] == ["svc.txt"]


ELSEWHERE = """
vars: [name: forest]
stages:
  aside:
    wdir: ../..
    cmd: lab/processes/run sweep ${name}
    outs: ["artifacts/sweep/${name}.txt"]
    metrics:
      - "metrics/sweep/${name}.json":
          cache: false
"""


def test_a_stage_of_another_dvc_yaml_and_working_directory_is_logged(project):
    same = {"cmd": "lab/processes/run sweep forest", "outs": ["artifacts/another.txt"]}
    (project.folder / "dvc.yaml").write_text(json.dumps({"stages": {"aside": same}}))
    (project.folder / "lab/deep").mkdir()
    (project.folder / "lab/deep/dvc.yaml").write_text(ELSEWHERE)
    project.dvc("repro", "lab/deep/dvc.yaml:aside")
    run = by_stage(project)["lab/deep/dvc.yaml:aside"]
    assert (run["metrics"], run["files"]) == ({"accuracy": 0.6}, ["forest.txt"])


def test_a_stage_is_logged_if_another_one_reads_from_s3(project):
    far = "remote://minio/rows.csv"
    reads = f"  reads: {{cmd: 'true', deps: ['{far}'], outs: [rows.csv]}}\n"
    project.edit("dvc.yaml", "  plain:\n", f"{reads}  plain:\n")
    project.dvc("repro", "plain")
    assert by_stage(project)["plain"]["status"] == "FINISHED"
    (project.folder / "rows.csv").write_text("a,b\n")
    noted = f"  reads: {{cmd: 'true', deps: [{{path: '{far}', etag: {'a' * 32}, size: 4}}]}}\n"
    project.edit("dvc.lock", "stages:\n", f"stages:\n{noted}")
    output = project.run("make", "relog", "STAGES=reads", ok=False)
    assert f"WARNING: reads: {far} cannot be checked: Invalid endpoint" in output
    assert "Traceback" not in output


def test_a_stage_that_reads_a_dataset_is_logged_with_its_version(project):
    rows = {"name": "rows", "type": "dvc", "url": "https://sandbox.invalid/rows", "path": "rows"}
    stage = {
        "cmd": "lab/processes/run sweep rows",
        "deps": ["ds://rows"],
        "metrics": [{"metrics/sweep/rows.json": {"cache": False}}],
    }
    pipeline = {"datasets": [rows], "stages": {"reads": stage}}
    lock = {"schema": "2.0", "datasets": [rows | {"rev_lock": "a" * 40}]}
    (project.folder / "dvc.yaml").write_text(json.dumps(pipeline))
    (project.folder / "dvc.lock").write_text(json.dumps(lock))
    project.run("tools/within", ".", "python", "-m", "tools.job.side_by_side", "2", "dvc.yaml")
    assert "a" * 40 in by_stage(project)["reads"]["tags"]["dvc.dep.ds_/rows"]


def test_a_stage_is_logged_from_its_files_in_any_language(project):
    output = project.dvc("repro", "plain")
    run = by_stage(project)["plain"]
    assert run["params"] == {"random_seed": "42", "depth": "3", "trees.n": "10", "kind": "ridge"}
    assert run["metrics"]["validation_rmse"] == 38125.5
    assert run["metrics"]["validation_precision_10"] == 0.5
    assert run["steps"]["loss"] == [1, 2]
    assert sorted(run["files"]) == ["history.csv", "model.txt"]
    assert "metrics/plain.yaml: validation_nothing is null, not a number" in output
    assert "metrics/plain.yaml: validation_per_class is a list, not a number" in output
    assert "validation_precision@10: logged as validation_precision_10" in output
    assert "Traceback" not in output


def test_unreadable_metrics_are_named_and_the_rest_is_logged(project):
    main = project.folder / "lab/processes/plain/main"
    main.write_text(PLAIN + "printf 'a: [\\377' > metrics/plain.yaml; mkdir metrics/each\n")
    plain = "      - metrics/plain.yaml:\n"
    project.edit("dvc.yaml", plain, f"      - metrics/each: {{cache: false}}\n{plain}")
    output = project.dvc("repro", "plain")
    assert "MLflow: metrics/plain.yaml " in output
    assert "MLflow: metrics/each is a folder: name each file of it" in output
    assert by_stage(project)["plain"]["steps"]["loss"] == [1, 2]
    assert "Traceback" not in output


MANY_NAMES = """#!/bin/sh
mkdir -p metrics
printf '{"recall": {"a\\\\nb": 1' > metrics/plain.yaml
for n in $(seq 30); do printf ', "class %s?": 1' "$n"; done >> metrics/plain.yaml
printf '}}' >> metrics/plain.yaml
mkdir -p artifacts/plain
"""


def test_of_many_renamed_metrics_only_some_are_listed(project):
    add_process(project, "plain", MANY_NAMES)
    output = project.dvc("repro", "plain")
    assert r"recall_a b: logged as recall_a_b, which MLflow takes" in output
    assert output.count("which MLflow takes") == 10
    assert "MLflow: … and 21 more like these" in output
    assert len(by_stage(project)["plain"]["metrics"]) == 31


def test_an_unreadable_file_is_not_reported_as_an_mlflow_outage(project):
    main = project.folder / "lab/processes/plain/main"
    main.write_text(PLAIN + "ln -s nowhere artifacts/plain/link\n")
    output = project.dvc("repro", "plain", ok=False)
    assert re.search("MLflow at .*artifacts/plain/link.* with `make relog` afterwards", output)


def test_a_run_whose_files_are_refused_is_marked_as_failed(project):
    (project.folder / "mlruns").touch()  # where its folder would be
    assert "make relog" in project.run("lab/processes/run", "plain")
    client = mlflow_client(store(project))
    assert [run.info.status for run in client.search_runs(["1"])] == ["FAILED"]


@pytest.mark.parametrize(
    "cmd",
    [
        "lab/processes/run plain",
        '["echo begin", "lab/processes/run sweep one", "lab/processes/run plain"]',
    ],
    ids=["one command", "the last of several"],
)
def test_a_stage_with_missing_outputs_is_not_a_finished_run(project, cmd):
    project.edit("dvc.yaml", "cmd: lab/processes/run plain", f"cmd: {cmd}")
    add_process(project, "plain", PLAIN + "rm -r artifacts/plain\n")
    output = project.dvc("repro", "plain", ok=False)
    assert "MLflow: not logged: plain has not written artifacts/plain." in output
    assert "FINISHED" not in {run["status"] for run in logged(project)}


def test_outputs_of_a_later_command_are_not_expected_earlier(project):
    later = '["lab/processes/run plain", "echo late > late.txt"]'
    project.edit("dvc.yaml", "cmd: lab/processes/run plain", f"cmd: {later}")
    project.edit("dvc.yaml", "outs: [artifacts/plain]", "outs: [artifacts/plain, late.txt]")
    project.dvc("repro", "plain")
    assert by_stage(project)["plain"]["status"] == "FINISHED"


ONE_NAME = """#!/bin/sh
mkdir -p metrics
printf 'acc: 0.9\\nx?: 0.2\\nx*: 0.8\\na: {b: 1}\\na_b: 2\\nrandom_seed: few\\n' > metrics/one.yaml
printf 'acc = 0.5\\n' > metrics/one.toml
"""


def test_metrics_of_equal_names_are_logged(project):
    add_process(project, "plain", ONE_NAME)
    (project.folder / "dvc.yaml").write_text(
        "stages:\n  plain:\n    cmd: lab/processes/run plain\n    metrics:\n"
        "      - metrics/one.yaml: {cache: false}\n      - metrics/one.toml: {cache: false}\n"
    )
    output = project.dvc("repro", "plain")
    [run] = logged(project)
    [second] = re.findall(r"x\*: logged as (metrics/one\.yaml_x__[0-9a-f]{6}), which", output)
    [other] = re.findall(r"a_b: logged as (metrics/one\.yaml_a_b_[0-9a-f]{6}), which", output)
    assert run["metrics"] == {
        "metrics/one.yaml_acc": 0.9,
        "metrics/one.yaml_x_": 0.2,
        second: 0.8,
        "metrics/one.yaml_a_b": 1,
        other: 2,
        "metrics/one.toml_acc": 0.5,
    }


def test_a_main_that_cannot_be_started_is_told_with_what_to_do(project):
    main = project.folder / "lab/processes/plain/main"
    main.chmod(0o644)
    output = project.run("lab/processes/run", "plain", ok=False)
    assert "lab/processes/plain/main is not executable: chmod +x it" in output
    main.chmod(0o755)
    main.write_bytes(b"#!/bin/sh\r\ntrue\r\n")
    output = project.run("lab/processes/run", "plain", ok=False)
    assert "and do its lines end in LF, not CR LF?" in output


CURVES = """#!/bin/sh
mkdir -p artifacts/cv data/simulated
for n in 1 2; do printf "epoch,loss,rate_$n\\n1,0.$n,1\\n" > artifacts/cv/fold_$n.csv; done
printf 'step,x\\n1,2\\n' > data/simulated/table.csv
printf 'epoch,told_live\\n1,5\\n' > "$LIVE_CURVE"
printf '\\357\\273\\277epoch,part,few\\n0.5,1,\\n1,2,1\\n1.5,3,\\n2,4,2\\n' > artifacts/cv/parts.csv
printf 'step,twice,sparse\\n5,1,\\n9,2,\\n5,3,1\\n9,,2\\n' > artifacts/cv/twice.csv
printf 'step,before\\n-1,1\\n0,2\\n' > artifacts/cv/before.csv
head -c 140000 /dev/zero | tr '\\0' a > artifacts/cv/long.csv
printf 'epoch,error\\n1,"' | cat - artifacts/cv/long.csv > artifacts/cv/torn.csv
"""


def test_curves_of_several_files_stay_apart_and_data_tables_are_ignored(project):
    add_process(project, "plain", CURVES)
    stage = "cmd: lab/processes/run plain\n    outs: [artifacts/cv, data/simulated]\n"
    (project.folder / "dvc.yaml").write_text(f"stages:\n  plain:\n    {stage}")
    output = project.dvc("repro", "plain")
    run = by_stage(project)["plain"]
    assert run["steps"]["part"] == [0, 1, 2, 3]
    assert run["steps"]["few"] == [1, 3], "beside those of the same epoch"
    assert run["steps"]["twice"] == [5, 9, 10], "a second fold, in the same file"
    assert run["steps"]["sparse"] == [5, 9]
    assert run["steps"]["before"] == [-1, 0]
    assert run["metrics"] == {
        "part": 4,
        "few": 2,
        "before": 2,
        "twice": 3,
        "sparse": 2,
        "cv/fold_1/loss": 0.1,
        "cv/fold_2/loss": 0.2,
        "told_live": 5,
        "rate_1": 1,
        "rate_2": 1,
    }
    assert "MLflow: artifacts/cv/torn.csv cannot be read as CSV: field larger than" in output
    assert "mistake in" not in output


@pytest.mark.parametrize(
    "cmd",
    [
        '["lab/processes/run part one", "lab/processes/run part two"]',
        "lab/processes/run part one && lab/processes/run part two",
        "|\n      lab/processes/run part one\n      LC_ALL=C lab/processes/run part two",
    ],
    ids=["list", "and", "lines"],
)
def test_a_stage_of_several_processes_is_one_run_with_all_results(project, cmd):
    add_process(project, "part", PART)
    stage = f"  parts:\n    cmd: {cmd}\n    outs: [artifacts/one, artifacts/two]\n"
    (project.folder / "dvc.yaml").write_text(f"stages:\n{stage}")
    output = project.dvc("repro", "parts")
    (run,) = logged(project)
    assert run["status"] == "FINISHED"
    assert run["files"] == ["one", "two"]
    assert sorted(run["steps"]["loss"]) == [1, 2, 3, 4]
    assert output.count("MLflow: logged: run parts") == 1
    add_process(project, "part", PART.replace("# here", '[ "$1" = one ] || exit 3'))
    project.dvc("repro", "--force", "parts", ok=False)
    assert [run["status"] for run in logged(project)] == ["FAILED", "FINISHED"]


def test_curves_of_short_processes_are_in_their_stages_run(project):
    tell = '#!/bin/sh\nprintf "epoch,$1\\n1,5\\n" > "$LIVE_CURVE"\n'
    add_process(project, "part", tell)
    cmd = "lab/processes/run part one && lab/processes/run part two"
    (project.folder / "dvc.yaml").write_text(f"stages:\n  parts:\n    cmd: {cmd}\n")
    project.dvc("repro", "parts")
    (run,) = logged(project)
    assert run["metrics"] == {"one": 5, "two": 5}


@pytest.mark.parametrize(
    "cmd",
    [
        "if true; then lab/processes/run part one; else lab/processes/run part two; fi",
        "lab/processes/run part one; false && lab/processes/run part two || echo none",
    ],
)
def test_a_process_in_only_one_branch_of_a_command_is_logged(project, cmd):
    add_process(project, "part", PART)
    (project.folder / "dvc.yaml").write_text(
        f"stages:\n  parts:\n    cmd: {cmd}\n    outs: [artifacts/one]\n"
    )
    project.dvc("repro", "parts")
    (run,) = logged(project)
    assert (run["status"], run["files"]) == ("FINISHED", ["curve.csv"])


def test_a_process_that_no_stage_starts_says_so(project):
    add_process(project, "alone", "#!/bin/sh\n")
    output = project.run("lab/processes/run", "alone")
    assert "MLflow: no stage of the pipeline starts alone: nothing is logged." in output


# ---- however it is started


def test_dvc_experiments_in_temporary_clones_log_to_the_same_store(project):
    project.dvc("exp", "run", "--temp", "--name", "warm", "--set-param", "random_seed=7", "plain")
    project.dvc("exp", "run", "--queue", "--name", "cold", "--set-param", "random_seed=8", "plain")
    project.dvc("exp", "run", "--run-all")
    runs = {run["tags"].get("dvc.experiment"): run for run in logged(project)}
    assert {name: runs[name]["params"]["random_seed"] for name in ("warm", "cold")} == {
        "warm": "7",
        "cold": "8",
    }
    assert "plain" in {run["tags"]["stage"] for run in logged(project)}
    assert runs["warm"]["files"], "its artifacts outlive the temporary clone"


def test_dvc_experiments_can_be_shown_compared_applied_and_branched(project):
    plain = read_yaml(project.folder / "dvc.yaml")["stages"]["plain"]
    (project.folder / "dvc.yaml").write_text(json.dumps({"stages": {"plain": plain}}))
    project.commit("One stage")
    for name, seed in (("warm", "7"), ("cold", "8")):
        project.dvc("exp", "run", "--name", name, "--set-param", f"random_seed={seed}", "plain")
    shown = [*csv.DictReader(project.dvc("exp", "show", "--csv").splitlines())]
    seeds = {row["Experiment"]: row["random_seed"] for row in shown if row["Experiment"]}
    assert seeds["warm"] == "7"
    assert seeds["cold"] == "8"
    found = json.loads(project.dvc("exp", "diff", "warm", "cold", "--json").splitlines()[-1])
    assert found["params"]["params.yaml"]["random_seed"] == {"old": 7, "new": 8, "diff": 1}
    project.dvc("exp", "apply", "warm")
    assert read_yaml(project.folder / "params.yaml")["random_seed"] == 7
    assert project.dvc("status", "plain").strip() == "Data and pipelines are up to date."
    project.dvc("exp", "branch", "cold", "colder")
    assert "random_seed: 8" in project.git("show", "colder:params.yaml")
    names = {run["tags"].get("dvc.experiment") for run in logged(project)}
    assert {"warm", "cold"} <= names


# ---- nothing is logged twice


def test_an_unchanged_stage_is_logged_once(ran):
    assert "MLflow: already logged" in ran.dvc("repro", "--force", "plain")
    assert len(logged(ran)) == 1


@pytest.mark.parametrize("how", ["delete", "rename"])
def test_deleted_runs_and_runs_of_renamed_experiments_are_logged_again(ran, how):
    client = mlflow_client(store(ran))
    name = read_yaml(ran.folder / "params.yaml")["experiment"]
    experiment = client.get_experiment_by_name(name).experiment_id
    if how == "delete":
        (run,) = client.search_runs([experiment])
        client.delete_run(run.info.run_id)
    else:
        client.rename_experiment(experiment, "another name")
    assert "MLflow: logged" in ran.dvc("repro", "--force", "plain")
    assert "MLflow: already logged" in ran.run("make", "relog", "STAGES=plain")


MODEL = """
artifacts:
  text:
    path: artifacts/plain/model.txt
    type: model
"""


def test_a_model_whose_run_was_deleted_gets_a_version_with_a_new_run(project, tmp_path):
    with (project.folder / "dvc.yaml").open("a") as file:
        file.write(MODEL)
    relog = ("make", "relog", "STAGES=plain")
    with mlflow_server(tmp_path, free_port()) as address:
        project.dvc("repro", "plain")
        project.commit("Results")
        assert "text is version 1, candidate" in project.run(*relog, MLFLOW_URL=address)
        client = mlflow_client(address)
        (version,) = client.search_model_versions()
        client.delete_run(version.run_id)
        assert "text is version 2, candidate" in project.run(*relog, MLFLOW_URL=address)
        assert "text is version 2, candidate" in project.run(*relog, MLFLOW_URL=address)


def test_a_rerun_of_an_older_commit_does_not_move_candidate(project, tmp_path):
    with (project.folder / "dvc.yaml").open("a") as file:
        file.write(MODEL)
    relog = ("make", "relog", "STAGES=plain")
    with mlflow_server(tmp_path, free_port()) as address:
        project.dvc("repro", "plain")
        project.commit("Results")
        assert "text is version 1, candidate" in project.run(*relog, MLFLOW_URL=address)
        project.commit("Nothing that changes the model")
        project.edit("lab/processes/plain/main", "echo text", "echo other")
        project.dvc("repro", "plain")
        project.commit("Other results")
        assert "text is version 2, candidate" in project.run(*relog, MLFLOW_URL=address)
        project.git("checkout", "--quiet", "HEAD~1")
        project.dvc("checkout", "--quiet", "plain")
        output = project.run(*relog, MLFLOW_URL=address)
        assert "text is version 1 (candidate is version 2)" in output
        project.git("commit", "--quiet", "--allow-empty", "--message", "Back to the first model")
        assert "text is version 1, candidate" in project.run(*relog, MLFLOW_URL=address)


MODELS = """
artifacts:
  folder: {path: artifacts/plain, type: model}
  inside: {path: artifacts/plain/part, type: model}
  text: {path: artifacts/plain/model.txt, type: model}
"""


def test_a_model_may_be_a_whole_out_and_those_of_other_pipelines_are_not_registered(
    project, tmp_path
):
    add_process(
        project, "plain", PLAIN + "mkdir artifacts/plain/part; touch artifacts/plain/part/a\n"
    )
    with (project.folder / "dvc.yaml").open("a") as file:
        file.write(MODELS)
    other = "artifacts: {text: {path: ../../artifacts/plain/history.csv, type: model}}\n"
    (project.folder / "lab/other").mkdir()
    (project.folder / "lab/other/dvc.yaml").write_text(other)
    with mlflow_server(tmp_path, free_port()) as address:
        project.dvc("repro", "plain")
        project.commit("Results")
        output = project.run("make", "relog", "STAGES=plain", MLFLOW_URL=address)
        assert "MLflow: folder is version 1, candidate" in output
        assert "MLflow: inside is not registered: it is a folder inside an out" in output
        assert output.count("MLflow: text is version 1, candidate") == 1
        client = mlflow_client(address)
        found = {each.name.rpartition("-")[2]: each for each in client.search_model_versions()}
        run = client.get_run(found["folder"].run_id)
        assert found["folder"].source == run.info.artifact_uri
        assert found["text"].source == f"{run.info.artifact_uri}/model.txt"
        champion = ("tools/within", ".", "python", "-m", "tools.job.registry")
        cache = f"{project.folder}/.dvc/cache"
        output = project.run(*champion, MLFLOW_URL=address, DVC_CACHE_DIR=cache)
        assert "inside is not in the registry: it is a folder inside an out" in output
        assert output.count("champion is") == 2


# ---- mistakes lose no results


def test_a_mistake_in_log_py_is_shown_as_such_and_loses_no_results(project):
    log = project.folder / "lab/processes/plain/log.py"
    log.write_text('def log(mlflow, params):\n    mlflow.log_metric("x", params["nosuch"])\n')
    output = project.dvc("repro", "plain")
    assert "ERROR: logging plain failed: a mistake in lab/processes/plain/log.py" in output
    assert "line 2, in log" in output
    assert "KeyError: 'nosuch'" in output
    assert "when it is back" not in output
    assert (project.folder / "artifacts/plain/model.txt").exists()
    assert "plain:" in (project.folder / "dvc.lock").read_text(), "the stage has not failed"
    check = ("tools/within", ".", "python", "-m", "tools.tracking.check")
    assert "a mistake in lab/processes/plain/log.py" in project.run(*check, ok=False)
    # Another branch may lack the stage.
    pipeline = project.folder / "dvc.yaml"
    text = pipeline.read_text()
    pipeline.write_text("stages: {}\n")
    project.run(*check)
    pipeline.write_text(text)
    log.write_text(
        'def log(mlflow, params):\n    mlflow.log_metric("x", params["plain"]["depth"])\n'
    )
    assert "MLflow: logged" in project.run("make", "relog", "STAGES=plain")
    project.run(*check)
    assert {run["status"]: run["metrics"].get("x") for run in logged(project)} == {
        "FAILED": None,
        "FINISHED": 3.0,
    }


@pytest.mark.parametrize("code", [0, 3])
def test_a_log_py_that_exits_is_reported_as_its_mistake(project, code):
    log = project.folder / "lab/processes/plain/log.py"
    log.write_text(f"import sys\ndef log(mlflow, params):\n    sys.exit({code})\n")
    output = project.dvc("repro", "plain")
    assert "ERROR: logging plain failed: a mistake in lab/processes/plain/log.py" in output
    assert "SystemExit" in output


TWICE = """#!/bin/sh
mkdir -p artifacts/p/model artifacts/q/model metrics
echo first > artifacts/p/model.txt
echo second > artifacts/q/model.txt
echo 3 > artifacts/p/model/a
echo '{"huge": 1'$(printf '0%.0s' $(seq 400))', "m": 1}' > metrics/twice.json
"""


def test_outs_and_parameters_of_equal_names_are_logged(project):
    add_process(project, "plain", TWICE)
    (project.folder / "other.yaml").write_text("random_seed: 9\nplain: other\n")
    (project.folder / "dvc.yaml").write_text(
        "stages:\n  plain:\n    cmd: lab/processes/run plain\n"
        "    params: [random_seed, plain, other.yaml: [random_seed]]\n"
        "    outs: [artifacts/p/model.txt, artifacts/q/model.txt, artifacts/p/model]\n"
        "    metrics:\n      - metrics/twice.json:\n          cache: false\n"
    )
    with (project.folder / "params.yaml").open("a") as params:
        params.write("  random_seed: 7\n")
    output = project.dvc("repro", "plain")
    assert "MLflow: metrics/twice.json: huge is too large for a float" in output
    [run] = logged(project)
    assert run["metrics"] == {"m": 1.0}
    assert run["files"] == ["a", "p", "q"]
    found = {run["params"][name] for name in run["params"] if name.endswith("random_seed")}
    assert found == {"42", "7", "9"}


def test_changed_files_are_not_logged_as_earlier_results(ran):
    ran.edit("params.yaml", "depth: 3", "depth: 4")
    output = ran.run("make", "relog", "STAGES=plain", ok=False)
    assert "plain: changed since it ran: params.yaml. Bring that back, or `make run`." in output
    assert [run["params"]["depth"] for run in logged(ran)] == ["3"]


def test_a_changed_command_is_logged_as_dirty(project):
    project.edit("dvc.yaml", "run plain", "run plain again")
    assert "MLflow: logged" in project.dvc("repro", "plain")
    [run] = logged(project)
    assert run["tags"]["git.dirty"] == "true"


def test_results_logged_later_get_the_tags_of_their_results_commit(project):
    # With a section and a mapping in it, DVC writes an alias into dvc.lock.
    project.edit("dvc.yaml", "params: [random_seed, plain]", "params: [plain, plain.trees]")
    project.commit("An alias")
    source = project.git("rev-parse", "HEAD").strip()
    project.git("tag", "run-plain")
    away = {"MLFLOW_URL": f"http://127.0.0.1:{free_port()}"}
    for number, stage in ((1, "plain"), (2, "each@one")):
        project.dvc("repro", stage, **away)
        url = f"https://ci.example.org/{number}"
        trailers = f"Tag: run-plain\nSource-Commit: {source}\nRun-URL: {url}"
        project.commit(f"Results\n\n{trailers}")
        project.run("make", "relog", f"STAGES={stage}")
        tags = by_stage(project)[stage]["tags"]
        assert tags["git.commit"] == tags["mlflow.source.git.commit"] == source
        assert (tags["git.tag"], tags["workflow.run_url"]) == ("run-plain", url)
    (project.folder / "mlflow.db").unlink()
    project.run("make", "relog", "STAGES=plain")
    tags = by_stage(project)["plain"]["tags"]
    assert "workflow.run_url" not in tags, "the job of the newest commit did not run it"


def test_a_mistake_in_log_py_ends_make_run_with_an_error(project):
    log = project.folder / "lab/processes/plain/log.py"
    log.write_text("import no_such_package\n")
    output = project.run("make", "run", ok=False)
    assert "no_such_package" in output
    assert "The results are complete. Fix it, then `make relog`." in output


def test_a_file_left_open_by_a_process_is_complete(project):
    folder = project.folder / "lab/processes/opens"
    folder.mkdir()
    for name in ("Pipfile", "Pipfile.lock"):
        source = project.folder / "lab/processes/prepare_data" / name
        (folder / name).write_bytes(source.read_bytes())
    (folder / "main.py").write_text(
        "from lib.process import start\nfrom lib.params import Section\n\n\n"
        "class Params(Section):\n    random_seed: int\n\n\n"
        'FILES = []\n\n\ndef compute(params):\n    FILES.append(open("left-open.txt", "w"))\n'
        '    FILES[0].write("all of it\\n")\n\n\nstart(compute, Params)\n'
    )
    project.run("lab/processes/run", "opens")
    assert (project.folder / "left-open.txt").read_text() == "all of it\n"


@pytest.mark.parametrize("code", [1, 3, 137])
def test_a_process_keeps_its_exit_code(project, code):
    add_process(project, "plain", f"#!/bin/sh\nexit {code}\n")
    process = project.start("lab/processes/run", "plain")
    process.communicate(timeout=60)
    assert process.returncode == code
    assert logged_or_none(project) == []


def test_without_an_experiment_name_one_line_says_why_nothing_is_logged(project):
    project.edit("params.yaml", "experiment: ", "experiments: ")
    output = project.run("lab/processes/run", "plain")
    assert "WARNING: MLflow at mlflow.db: params.yaml: experiment is missing: write it." in output
    assert "Traceback" not in output


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("lost", ["before", "during"])
def test_a_process_ends_normally_without_a_folder_for_its_tracker(project, code, lost):
    ending = '[ -z "${LIVE_CURVE-}" ] || rm -r "${LIVE_CURVE%/*}"\n' + f"exit {code}\n"
    add_process(project, "plain", PLAIN + ending)
    environment = {"TMPDIR": str(project.folder / "none")} if lost == "before" else {}
    process = project.start("lab/processes/run", "plain", **environment)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert output.count("log its results with `make relog`") == (code == 0)
    why = "MLflow: no tracker of plain was started: no temporary folder could be made: log"
    assert output.count(f"WARNING: {why}") == (code == 0 and lost == "before")
    assert output.count("ended early") == (code == 0 and lost == "during")
    assert "Traceback" not in output


def logged_or_none(project):
    return logged(project) if (project.folder / "mlflow.db").exists() else []


# ---- while it runs


LONG = """#!/bin/sh
mkdir -p artifacts/plain metrics
# The curve: where the tracker looks, or an out of the stage's own.
LIVE_CURVE="${OWN_CURVE:-$LIVE_CURVE}"
echo "epoch,loss" > "$LIVE_CURVE"
n=0
while [ ! -e stop ] && [ $n -lt 600 ]; do
    n=$((n+1))
    echo "$n,0.$n" >> "$LIVE_CURVE"
    sleep 0.2
done
[ -n "${OWN_CURVE-}" ] || cp "$LIVE_CURVE" artifacts/plain/history.csv
echo "rmse: 1.5" > metrics/plain.yaml
"""


@pytest.mark.parametrize("own", ["", "artifacts/plain/history.csv"])
def test_a_curve_is_in_mlflow_during_the_training_and_complete_afterwards(project, own):
    add_process(project, "plain", LONG)
    with project.start("tools/within", ".", "dvc", "repro", "plain", OWN_CURVE=own) as process:
        running = wait_for(
            lambda: [r for r in logged_or_none(project) if len(r["steps"].get("loss", ())) > 3]
        )
        assert process.poll() is None
        assert running[0]["status"] == "RUNNING"
        (project.folder / "stop").touch()
        output, _ = process.communicate(timeout=60)
    assert "MLflow: logged" in output
    (run,) = logged(project)
    lines = (project.folder / "artifacts/plain/history.csv").read_text().splitlines()
    assert run["status"] == "FINISHED"
    assert run["steps"]["loss"] == list(range(1, len(lines))), "each point once"
    assert run["metrics"]["rmse"] == 1.5


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_deletions_in_mlflow_during_a_training_are_reported_and_logged_later(project, what):
    add_process(project, "plain", LONG)
    with project.start("tools/within", ".", "dvc", "repro", "plain") as process:
        wait_for((project.folder / "mlflow.db").exists)
        running = wait_for(lambda: [r for r in logged(project) if r["steps"].get("loss")])
        assert running[0]["status"] == "RUNNING"
        client = mlflow_client(store(project))
        experiment, _ = client.search_experiments()
        (run,) = client.search_runs([experiment.experiment_id])
        if what == "run":
            client.delete_run(run.info.run_id)
        else:
            client.delete_experiment(experiment.experiment_id)
        (project.folder / "stop").touch()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "the run, or its experiment, was deleted there while the process ran" in output
    assert "log them with `make relog` afterwards" in output
    assert "Traceback" not in output
    if what == "experiment":
        client.restore_experiment(experiment.experiment_id)
        client.delete_run(run.info.run_id)
    assert "MLflow: logged" in project.run("make", "relog", "STAGES=plain")
    assert [run["status"] for run in logged(project)] == ["FINISHED"]


TRIALS = """#!/bin/sh
mkdir -p artifacts/plain metrics
beside="${LIVE_CURVE%/*}/trials.jsonl"
n=0
while [ ! -e stop ] && [ $n -lt 600 ]; do
    n=$((n+1))
    printf '{"trial": %s, "state": "complete", ' $n >> "$beside"
    printf '"values.lr": 0.%s, "metrics.loss": %s, ' $n $n >> "$beside"
    printf '"values.C & D": 1, "metrics.recall.<=50K": 0.5}\\n' >> "$beside"
    echo "step,best" > "$LIVE_CURVE"
    echo "$n,0.5" >> "$LIVE_CURVE"
    sleep 0.5
done
cp "$beside" artifacts/plain/trials.jsonl
echo "rmse: 1.5" > metrics/plain.yaml
"""
FOLLOW = """
from pathlib import Path
from lib.trials import log_trials, trials_so_far

def follow(mlflow, folder):
    log_trials(mlflow, trials_so_far(folder))

def log(mlflow, params):
    log_trials(mlflow, trials_so_far(Path("artifacts/plain")))
"""


def test_the_trials_of_a_sweep_are_in_mlflow_while_it_runs_each_once(project):
    add_process(project, "plain", TRIALS)
    log = project.folder / "lab/processes/plain/log.py"
    log.write_text(FOLLOW)

    def trials():
        runs = logged_or_none(project)
        return {r["name"]: r for r in runs if "mlflow.parentRunId" in r["tags"]}

    with project.start("tools/within", ".", "dvc", "repro", "plain") as process:
        seen = wait_for(lambda: len(found := trials()) > 2 and found)
        assert process.poll() is None
        assert seen["trial 2"]["status"] == "FINISHED"
        assert seen["trial 2"]["metrics"] == {"loss": 2.0, "recall.__50K": 0.5}
        assert seen["trial 2"]["params"] == {"state": "complete", "lr": "0.2", "C _ D": "1"}
        assert {r["status"] for r in logged(project) if "stage" in r["tags"]} == {"RUNNING"}
        (project.folder / "stop").touch()
        process.communicate(timeout=60)
    wanted = len((project.folder / "artifacts/plain/trials.jsonl").read_text().splitlines())
    runs = logged(project)
    assert len(runs) == wanted + 1
    assert {run["tags"]["stage"] for run in runs} == {"plain"}
    assert len(trials()) == wanted


def test_a_mistake_in_follow_is_reported_later_and_costs_nothing(project):
    add_process(project, "plain", TRIALS)
    log = project.folder / "lab/processes/plain/log.py"
    log.write_text(FOLLOW.replace("trials_so_far(folder)", "{}['no such key']"))
    with project.start("tools/within", ".", "dvc", "repro", "plain") as process:
        wait_for(lambda: logged_or_none(project))
        (project.folder / "stop").touch()
        output, _ = process.communicate(timeout=60)
    assert "MLflow: logged" in output
    assert "ERROR: logging plain failed: a mistake in lab/processes/plain/log.py" in output
    assert "KeyError: 'no such key'" in output
    assert by_stage(project)["plain"]["status"] == "FINISHED"


def tracker_of(process):
    """The pid of the tracker of a running process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode().split("\0")
            group = os.getpgid(int(folder.name))
        except OSError:  # it has just ended
            continue
        if "tools.tracking" in command and "follow" in command and group == process.pid:
            return int(folder.name)
    return 0


def test_a_training_survives_its_tracker(project):
    add_process(project, "plain", LONG)
    with project.start("lab/processes/run", "plain") as process:
        os.kill(wait_for(lambda: tracker_of(process)), signal.SIGKILL)
        (project.folder / "stop").touch()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    line = "WARNING: MLflow: the tracker of plain ended early: log its results with `make relog`."
    assert line in output.splitlines()
    watch = Watch()  # of a job, whose page shows it
    for each in output.splitlines():
        watch.read(each)
    assert watch.warnings == [line]
    assert (project.folder / "metrics/plain.yaml").exists()
    assert "MLflow: logged" in project.run("make", "relog", "STAGES=plain")


def test_a_killed_training_is_marked_as_killed_in_mlflow(project):
    add_process(project, "plain", LONG)
    with project.start("lab/processes/run", "plain") as process:
        wait_for(lambda: logged_or_none(project))
        os.kill(process.pid, signal.SIGKILL)  # the tracker notices that its parent is gone
        wait_for(lambda: logged(project)[0]["status"] == "KILLED")


def test_a_signal_to_all_leaves_no_folder_behind_and_is_seen_in_mlflow(project, tmp_path):
    add_process(project, "plain", LONG)
    (place := tmp_path / "tmp").mkdir()
    with project.start("lab/processes/run", "plain", TMPDIR=str(place)) as process:
        wait_for(lambda: logged_or_none(project))
        os.killpg(process.pid, signal.SIGTERM)
        wait_for(lambda: not [*place.glob("*/curve.csv")])
        assert logged(project)[0]["status"] == "KILLED"


# ---- the embedded store


def test_a_start_that_is_killed_leaves_no_incomplete_store(project):
    (project.folder / "mlflow.db").unlink()
    for seconds in (0.2, 0.6, 1.2):
        with project.start("lab/processes/run", "plain"):
            wait_for(lambda: list(project.folder.glob("mlflow.db*")))
            time.sleep(seconds)
        assert not (project.folder / "mlflow.db").exists() or is_complete(
            project.folder / "mlflow.db"
        )
    assert "MLflow: logged" in project.dvc("repro", "plain")


def test_a_corrupt_store_gives_one_line_and_is_recreated_once_removed(project):
    (project.folder / "mlflow.db").write_text("<<<<<<< HEAD\n")
    output = project.dvc("repro", "plain")
    assert "mlflow.db is of a newer MLflow or damaged" in output
    assert "Traceback" not in output
    (project.folder / "mlflow.db").unlink()
    assert "MLflow: logged" in project.run("make", "relog", "STAGES=plain")


KILLED = """
import os, sqlite3
connection = sqlite3.connect("mlflow.db")
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.execute("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (77, 'late', 'active')")
connection.commit()
os._exit(0)
"""  # noqa: E501


MIGRATE = """
from mlflow.exceptions import MlflowException
from mlflow.store.db import utils
from tools.tracking.store import make_embedded

def old(engine):
    raise MlflowException("Detected out-of-date database schema")

utils._verify_schema = old
make_embedded()
"""


def names_in(file):
    with sqlite3.connect(file) as database:
        return {name for (name,) in database.execute("SELECT name FROM experiments")}


def test_a_store_is_one_file_and_leftovers_of_a_kill_do_not_spread(ran, tmp_path):
    folder, count = ran.folder, "SELECT count(*) FROM runs"
    shutil.copy(folder / "mlflow.db", tmp_path / "alone.db")
    with sqlite3.connect(tmp_path / "alone.db") as database:
        assert database.execute(count).fetchone() == (1,)
    ran.run("tools/within", ".", "python", "-c", KILLED)
    assert (folder / "mlflow.db-wal").stat().st_size, "the kill leaves something"
    ran.run("tools/within", "tools/tracking", "python", "-c", MIGRATE)
    assert "late" in names_in(folder / "mlflow.db"), "a migration must not lose it"
    ran.run("tools/within", ".", "python", "-c", KILLED.replace("77, 'late'", "78, 'later'"))
    (folder / "mlflow.db-old").write_text("a person's copy")
    (folder / "mlflow.db").unlink()
    assert "MLflow: logged" in ran.run("make", "relog", "STAGES=plain")
    assert (folder / "mlflow.db-old").exists()
    assert not {"late", "later"} & names_in(folder / "mlflow.db")
    assert len(logged(ran)) == 1


def test_a_store_damaged_inside_gives_one_line(ran):
    with (ran.folder / "mlflow.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (ran.folder / "mlflow.db").stat().st_size)
    output = ran.dvc("repro", "--force", "plain")
    assert "MLflow at mlflow.db: mlflow.db is" in output
    assert "move it away, a new one is made" in output
    assert "Traceback" not in output


def is_complete(file):
    with sqlite3.connect(file) as database:
        return database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


def test_simultaneous_starts_share_one_store(project):
    (project.folder / "mlflow.db").unlink()
    starts = [project.start("lab/processes/run", "sweep", name) for name in ("one", "two", "svc")]
    for start in starts:
        output, _ = start.communicate(timeout=120)
        assert "MLflow: logged" in output, output
    assert len(logged(project)) == 3


def test_a_store_of_an_older_mlflow_is_migrated_a_newer_one_reported(ran):
    file = ran.folder / "mlflow.db"
    with sqlite3.connect(file) as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    output = ran.dvc("repro", "--force", "plain")
    assert "mlflow.db is of a newer MLflow" in output
    assert "Traceback" not in output
    served = ran.run("make", "ui", "PORT=0", ok=False)
    assert "mlflow.db is of a newer MLflow" in served
    assert "Traceback" not in served
