"""The pipeline as its users run it: once, twice, changed, killed, and with mistakes in it."""

import json
import os
import select
import shutil
import time
from pathlib import Path

import pytest

from lib.params import read_yaml
from tests.conftest import Project, write_executable

pytestmark = pytest.mark.integration

STAGES = ("prepare_data", "train_standard_classifiers", "train_dnn_pytorch", "export_models")
TRAINING = STAGES[1:3]


def locked(project):
    """The md5 of each out in dvc.lock."""
    stages = read_yaml(project.folder / "dvc.lock")["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def stages_run(said):
    return [stage for stage in STAGES if f"Running stage '{stage}'" in said]


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project, with its cache, for one test."""
    return finished.copied(tmp_path / "copy")


def test_the_first_run_ends_in_a_table_and_pictures(finished):
    said = finished.first_run
    assert stages_run(said) == list(STAGES)
    for expected in ("Results", "validation", "train_dnn_pytorch", "brier_score", "make ui"):
        assert expected in said, said
    pictures = [line.split(": ")[1] for line in said.splitlines() if line.startswith("Picture: ")]
    assert len(pictures) == 4
    for picture in pictures:
        assert (finished.folder / picture).read_bytes().startswith(b"\x89PNG")


def test_both_best_models_reach_an_accuracy_of_095(finished):
    for stage in TRAINING:
        metrics = json.loads((finished.folder / f"metrics/{stage}.json").read_text())
        assert metrics["validation"]["accuracy"] >= 0.95, stage


def test_afterwards_git_is_clean_and_only_the_query_wants_to_run(finished):
    assert finished.git("status", "--porcelain") == ""
    assert finished.dvc("status").split() == ["prepare_data:", "always", "changed"]
    assert finished.dvc("status", *STAGES[1:]).strip() == "Data and pipelines are up to date."


def test_a_second_run_only_asks_for_the_data_and_says_nothing_differs(project):
    before = locked(project)
    said = project.run("make", "run")
    assert stages_run(said) == ["prepare_data"]
    assert locked(project) == before
    assert project.git("status", "--porcelain") == ""
    assert "differ" not in said


def test_another_clone_gets_the_same_bytes(finished, tmp_path):
    (tmp_path / "another, deeper" / "folder").mkdir(parents=True)
    clone = Project(tmp_path / "another, deeper" / "folder")
    (clone.folder / "dvc.lock").unlink()
    clone.dvc("repro", PYTHONHASHSEED="7")
    assert locked(clone) == locked(finished)


def test_the_learning_rate_runs_the_network_only_and_comes_back_from_the_cache(project):
    before = locked(project)
    project.edit("params.yaml", "lr: 0.001", "lr: 0.01")
    changed = project.run("make", "run")
    assert stages_run(changed) == ["prepare_data", "train_dnn_pytorch", "export_models"]
    assert "These results differ from those committed: train_dnn_pytorch, export_models." in changed
    news = changed.partition("Since the last commit")[2]
    assert " train_dnn_pytorch.validation.log_loss " in news
    assert "lr" in project.dvc("params", "diff")
    assert "train_dnn_pytorch.json" in project.dvc("metrics", "diff")
    assert locked(project) != before
    project.edit("params.yaml", "lr: 0.01", "lr: 0.001")
    assert stages_run(project.run("make", "run")) == ["prepare_data"]
    assert locked(project) == before
    assert project.git("status", "--porcelain") == ""


def test_the_seed_runs_all_and_comes_back_from_the_cache(project):
    before = locked(project)
    project.edit("params.yaml", "random_seed: 42", "random_seed: 43")
    project.edit("params.yaml", "epochs: 120", "epochs: 2")
    assert stages_run(project.dvc("repro")) == list(STAGES)
    assert not set(before.values()) & {
        md5 for path, md5 in locked(project).items() if "raw" not in path and "json" not in path
    }
    project.edit("params.yaml", "random_seed: 43", "random_seed: 42")
    project.edit("params.yaml", "epochs: 2", "epochs: 120")
    assert stages_run(project.dvc("repro")) == ["prepare_data"]
    assert locked(project) == before


def test_what_cannot_change_a_result_runs_no_stage_again(project):
    folder = project.folder
    project.run("make", "process", "NAME=count_rows")
    (folder / "goals/more_test.py").write_text('def test_more():\n    """More."""\n')
    project.edit("params.yaml", "accuracy: 0.95", "accuracy: 0.94")
    for file in (folder / "tools").rglob("*.py"):
        file.write_text(file.read_text() + "# Edited.\n")
    for lock in (folder / "tools").rglob("Pipfile.lock"):
        lock.write_text(lock.read_text() + "\n")
    project.edit("lab/processes/train_standard_classifiers/log.py", "MLflow", "The tracker")
    said = project.dvc("status", *STAGES[1:])
    assert said.strip() == "Data and pipelines are up to date."
    assert project.dvc("status", STAGES[0]).split() == ["prepare_data:", "always", "changed"]


@pytest.mark.parametrize(
    ("stage", "sign"),
    [
        ("prepare_data", "Running stage 'prepare_data'"),
        ("train_standard_classifiers", "Running stage 'train_standard_classifiers'"),
        ("train_dnn_pytorch", ".checkpoints/train_dnn_pytorch.pt"),
    ],
)
def test_a_run_killed_in_a_stage_ends_well_the_next_time(finished, project, stage, sign):
    forget(project, stage)
    kill_amid(project, stage, sign)
    said = project.run("make", "run")
    assert stage in stages_run(said)
    assert locked(project) == locked(finished), "as if it had not been killed"


def forget(project, stage):
    """Leave nothing of a stage, as before its first run; what comes before it is done."""
    lock = project.folder / "dvc.lock"
    content = read_yaml(lock)
    for out in content["stages"].pop(stage)["outs"]:
        path = project.folder / out["path"]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    lock.write_text(json.dumps(content))  # JSON is YAML
    shutil.rmtree(project.folder / ".dvc/cache/runs")


PIPELINE = ("tools/within", ".", "dvc", "repro")


def kill_amid(project, stage, sign, command=PIPELINE):
    """Start the pipeline, or a stage, and end all of it by SIGKILL in the middle of a stage."""
    with project.start(*command) as process:
        said, deadline = "", time.monotonic() + 120
        while sign not in said and not (project.folder / sign).exists():
            assert process.poll() is None, f"{stage} was over before it could be killed: {said}"
            assert time.monotonic() < deadline, said
            if select.select([process.stdout], [], [], 0.01)[0]:
                said += os.read(process.stdout.fileno(), 65536).decode()
        if sign in said:
            time.sleep(2)  # amid its imports or its training


def test_a_killed_training_goes_on_where_it_was(project):
    project.edit("params.yaml", "patience: 40", "patience: null")
    training = ("lab/processes/run", "train_dnn_pytorch")
    kill_amid(project, "train_dnn_pytorch", ".checkpoints/train_dnn_pytorch.pt", training)
    said = project.run(*training)
    assert "Training continues after epoch" in said
    assert not (project.folder / ".checkpoints/train_dnn_pytorch.pt").exists()


def test_a_model_that_dvc_lock_does_not_name_is_not_unpickled(project):
    model = project.folder / "artifacts/standard_classifiers/model.joblib"
    model.chmod(0o644)
    model.write_bytes(b"cos\nsystem\n(S'touch escaped'\ntR.")
    said = project.run("lab/processes/run", "export_models", ok=False)
    assert "model.joblib is not what dvc.lock names" in said
    assert not (project.folder / "escaped").exists()


def test_an_image_that_a_stage_does_not_list_is_named(project):
    check = ("tools/within", "--dev", ".", "python", "-m", "pytest", "lab/processes/stages_test.py")
    (project.folder / "lab/processes/prepare_data/image").write_text("my/image:1 --gpus all\n")
    said = project.run(*check, "-k", "image or deps", ok=False)
    assert "lab/processes/prepare_data/image is no dep" in said
    lock = "      - lab/processes/prepare_data/Pipfile.lock\n"
    project.edit("dvc.yaml", lock, f"{lock}      - lab/processes/prepare_data/image\n")
    assert " passed" in project.run(*check, "-k", "image or deps")


def test_an_out_that_git_does_not_ignore_is_named(project):
    """DVC ignores it when its stage ends, and takes that back when a later one fails."""
    check = ("tools/within", "--dev", ".", "python", "-m", "pytest", "lab/processes/stages_test.py")
    one = "  one:\n    cmd: mkdir -p data/one && touch data/one/a\n    outs: [data/one]\n"
    two = "  two:\n    cmd: exit 1\n    deps: [data/one]\n    outs: [data/two]\n"
    project.edit("dvc.yaml", "stages:\n", f"stages:\n{one}{two}")
    assert "failed to reproduce 'two'" in project.dvc("repro", "two", ok=False)
    said = project.run(*check, "-k", "ignores", ok=False)
    assert "{'data/one', 'data/two'}" in said or "{'data/two', 'data/one'}" in said
    project.edit(".gitignore", "/data/processed\n", "/data/processed\n/data/one/\n/data/two\n")
    assert " passed" in project.run(*check, "-k", "ignores")


@pytest.mark.parametrize("command", [("make", "run"), ("lab/processes/run", "prepare_data")])
def test_a_typo_in_params_stops_before_any_data_are_touched(project, command):
    project.edit("params.yaml", "test_size: 0.15", "test_sise: 0.15")
    before = locked(project)
    said = project.run(*command, ok=False)
    assert "prepare_data.test_sise is not known: did you mean test_size?" in said
    assert "prepare_data.test_size is missing" in said
    assert "Traceback" not in said
    assert "Running stage" not in said
    assert locked(project) == before


def test_bad_data_stop_the_pipeline_and_leave_the_earlier_outputs(project):
    module = "lab/processes/prepare_data/cancer_data.py"
    project.edit(
        module,
        "    return bunch.data.assign(",
        "    bunch.data.loc[7, 'mean area'] = -1.0\n    return bunch.data.assign(",
    )
    before = {p: p.read_bytes() for p in (project.folder / "data").rglob("*") if p.is_file()}
    said = project.dvc("repro", ok=False)
    assert "column 'mean area', row 7: -1.0 is not a number from 0 to 10000" in said
    assert "Traceback" not in said
    assert {
        p: p.read_bytes() for p in (project.folder / "data").rglob("*") if p.is_file()
    } == before
    assert project.git("status", "--porcelain").split() == ["M", module]


def test_a_stage_that_fails_says_how_to_run_it_alone(project):
    project.edit(
        "lab/processes/train_dnn_pytorch/main.py", "device = choose_device()", "device = 1 / 0"
    )
    said = project.dvc("repro", "--single-item", "train_dnn_pytorch", ok=False)
    assert "ZeroDivisionError" in said
    assert "lab/processes/run train_dnn_pytorch" in said


def test_a_second_pipeline_in_its_own_folder_runs_by_its_name(project):
    folder = project.folder / "lab/pipelines/hello"
    folder.mkdir(parents=True)
    write_executable(
        project.folder / "lab/processes/hello/main",
        "#!/bin/sh\nwc -l < data/raw/breast_cancer.csv > lab/pipelines/hello/lines.txt\n",
    )
    (folder / "dvc.yaml").write_text(
        "stages:\n  hello:\n    wdir: ../../..\n    cmd: lab/processes/run hello\n"
        "    deps: [data/raw/breast_cancer.csv, lab/processes/hello/main]\n"
        "    outs: [lab/pipelines/hello/lines.txt]\n"
    )
    said = project.run("make", "run", "PIPELINE=lab/pipelines/hello/dvc.yaml:hello")
    assert "Running stage 'lab/pipelines/hello/dvc.yaml:hello'" in said
    assert (folder / "lines.txt").read_text().strip() == "570"
    assert (folder / "dvc.lock").exists()
    for wrong in ("lab/pipelines/hello", "no-such/dvc.yaml"):
        said = project.run("make", "run", f"PIPELINE={wrong}", ok=False)
        assert f"There is no file '{wrong}' to run: PIPELINE= names a pipeline's, such as" in said
        assert "grep" not in said


def test_dvc_draws_the_plots(project):
    project.dvc("plots", "show", "--out", "plots")
    page = (project.folder / "plots/index.html").read_text()
    for title in ("Classifiers, validation accuracy", "Network, loss", "confusion", "ROC curves"):
        assert title in page, title


def test_metrics_show_the_two_models_side_by_side(project):
    said = project.dvc("metrics", "show", "--md")
    rows = {line.split("|")[1].strip(): line for line in said.splitlines() if ".json" in line}
    header = said.splitlines()[0]
    column = [cell.strip() for cell in header.split("|")].index("validation.accuracy")
    for stage in TRAINING:
        assert float(rows[f"metrics/{stage}.json"].split("|")[column]) >= 0.95


def test_a_process_started_twice_at_once_is_refused_by_dvc_not_broken(project):
    with project.start("tools/within", ".", "dvc", "repro", "--force"):
        time.sleep(2)
        said = project.dvc("repro", ok=False)
    assert "Unable to acquire lock" in said or "busy" in said or "is locked" in said


def test_the_working_directory_does_not_matter(project):
    said = project.run("sh", "-c", f"cd / && '{project.folder}/lab/processes/run' prepare_data")
    assert "train: 386 rows" in said
    assert Path(project.folder / "metrics/prepare_data.json").exists()
