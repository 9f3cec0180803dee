"""The pipeline as users run it: once, twice, changed, killed and with mistakes in it."""

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


def stages_run(output):
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project, with its cache, for one test."""
    return finished.copied(tmp_path / "copy")


def test_the_first_run_ends_in_a_table_and_pictures(finished):
    output = finished.first_run
    assert stages_run(output) == list(STAGES)
    for expected in ("Results", "validation", "train_dnn_pytorch", "brier_score", "make ui"):
        assert expected in output, output
    pictures = [line.split(": ")[1] for line in output.splitlines() if line.startswith("Picture: ")]
    assert len(pictures) == 4
    for picture in pictures:
        assert (finished.folder / picture).read_bytes().startswith(b"\x89PNG")


def test_both_best_models_reach_an_accuracy_of_095(finished):
    for stage in TRAINING:
        metrics = json.loads((finished.folder / f"metrics/{stage}.json").read_text())
        assert metrics["validation"]["accuracy"] >= 0.95, stage


def test_after_a_run_git_is_clean_and_only_the_query_would_run(finished):
    assert finished.git("status", "--porcelain") == ""
    assert finished.dvc("status").split() == ["prepare_data:", "always", "changed"]
    assert finished.dvc("status", *STAGES[1:]).strip() == "Data and pipelines are up to date."


def test_a_second_run_only_checks_the_data_and_shows_no_difference(project):
    before = locked(project)
    output = project.run("make", "run")
    assert stages_run(output) == ["prepare_data"]
    assert locked(project) == before
    assert project.git("status", "--porcelain") == ""
    assert "differ" not in output


def test_another_clone_gets_the_same_bytes(finished, tmp_path):
    (tmp_path / "another, deeper" / "folder").mkdir(parents=True)
    clone = Project(tmp_path / "another, deeper" / "folder")
    (clone.folder / "dvc.lock").unlink()
    clone.dvc("repro", PYTHONHASHSEED="7")
    assert locked(clone) == locked(finished)


def test_a_learning_rate_reruns_only_the_network_and_is_cached(project):
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


def test_a_seed_reruns_everything_and_is_cached(project):
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


def test_changes_that_affect_no_result_rerun_no_stage(project):
    folder = project.folder
    project.run("make", "process", "NAME=count_rows")
    (folder / "goals/more_test.py").write_text('def test_more():\n    """More."""\n')
    project.edit("params.yaml", "accuracy: 0.95", "accuracy: 0.94")
    for file in (folder / "tools").rglob("*.py"):
        file.write_text(file.read_text() + "# Edited.\n")
    for lock in (folder / "tools").rglob("Pipfile.lock"):
        lock.write_text(lock.read_text() + "\n")
    project.edit("lab/processes/train_standard_classifiers/log.py", "MLflow", "The tracker")
    output = project.dvc("status", *STAGES[1:])
    assert output.strip() == "Data and pipelines are up to date."
    assert project.dvc("status", STAGES[0]).split() == ["prepare_data:", "always", "changed"]


@pytest.mark.parametrize(
    ("stage", "sign"),
    [
        ("prepare_data", "Running stage 'prepare_data'"),
        ("train_standard_classifiers", "Running stage 'train_standard_classifiers'"),
        ("train_dnn_pytorch", ".checkpoints/train_dnn_pytorch.pt"),
    ],
)
def test_a_killed_run_completes_the_next_time(finished, project, stage, sign):
    forget(project, stage)
    kill_during(project, stage, sign)
    output = project.run("make", "run")
    assert stage in stages_run(output)
    assert locked(project) == locked(finished), "the results are the same as without the kill"


def forget(project, stage):
    """Delete a stage's results, as before its first run; keep those of earlier stages."""
    lock = project.folder / "dvc.lock"
    content = read_yaml(lock)
    for out in content["stages"].pop(stage)["outs"]:
        path = project.folder / out["path"]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    lock.write_text(json.dumps(content))  # JSON is YAML
    shutil.rmtree(project.folder / ".dvc/cache/runs")


PIPELINE = ("tools/within", ".", "dvc", "repro")


def kill_during(project, stage, sign, command=PIPELINE):
    """Start the pipeline, or one stage, and end it by SIGKILL in the middle of a stage."""
    with project.start(*command) as process:
        output, deadline = "", time.monotonic() + 120
        while sign not in output and not (project.folder / sign).exists():
            assert process.poll() is None, f"{stage} ended before it could be killed: {output}"
            assert time.monotonic() < deadline, output
            if select.select([process.stdout], [], [], 0.01)[0]:
                output += os.read(process.stdout.fileno(), 65536).decode()
        if sign in output:
            time.sleep(2)  # into its imports or its training


def test_a_killed_training_resumes(project):
    project.edit("params.yaml", "patience: 40", "patience: null")
    training = ("lab/processes/run", "train_dnn_pytorch")
    kill_during(project, "train_dnn_pytorch", ".checkpoints/train_dnn_pytorch.pt", training)
    output = project.run(*training)
    assert "Training continues after epoch" in output
    assert not (project.folder / ".checkpoints/train_dnn_pytorch.pt").exists()


def test_a_model_not_in_dvc_lock_is_not_unpickled(project):
    model = project.folder / "artifacts/standard_classifiers/model.joblib"
    model.chmod(0o644)
    model.write_bytes(b"cos\nsystem\n(S'touch escaped'\ntR.")
    output = project.run("lab/processes/run", "export_models", ok=False)
    assert "model.joblib is not what dvc.lock names" in output
    assert not (project.folder / "escaped").exists()


def test_an_image_missing_from_a_stages_deps_is_named(project):
    check = ("tools/within", "--dev", ".", "python", "-m", "pytest", "lab/processes/stages_test.py")
    (project.folder / "lab/processes/prepare_data/image").write_text("my/image:1 --gpus all\n")
    output = project.run(*check, "-k", "image or deps", ok=False)
    assert "lab/processes/prepare_data/image is no dep" in output
    lock = "      - lab/processes/prepare_data/Pipfile.lock\n"
    project.edit("dvc.yaml", lock, f"{lock}      - lab/processes/prepare_data/image\n")
    assert " passed" in project.run(*check, "-k", "image or deps")


def test_a_packages_init_file_is_a_dep_of_the_stage_that_imports_it(project):
    check = ("tools/within", "--dev", ".", "python", "-m", "pytest", "lab/processes/stages_test.py")
    package = project.folder / "lab/processes/prepare_data/parts"
    package.mkdir()
    (package / "__init__.py").write_text('"""Parts."""\n')
    (package / "rows.py").write_text('"""Rows."""\n')
    main = "lab/processes/prepare_data/main.py"
    project.edit(main, "\nfrom lab.", "\nimport lab.processes.prepare_data.parts.rows\nfrom lab.")
    rows = f"      - {main}\n      - lab/processes/prepare_data/parts/rows.py\n"
    project.edit("dvc.yaml", f"      - {main}\n", rows)
    output = project.run(*check, "-k", "deps or imports", ok=False)
    assert "'lab/processes/prepare_data/parts/__init__.py'" in output
    both = f"{rows}      - lab/processes/prepare_data/parts/__init__.py\n"
    project.edit("dvc.yaml", rows, both)
    assert " passed" in project.run(*check, "-k", "deps or imports")


def test_a_stage_may_read_parameters_of_another_file(project):
    check = ("tools/within", "--dev", ".", "python", "-m", "pytest", "lab/processes/stages_test.py")
    (project.folder / "more.yaml").write_text("depth: 3\nrandom_seed: 4\n")
    project.edit(
        "dvc.yaml",
        "    params:\n      - random_seed\n      - prepare_data\n",
        "    params:\n      - random_seed\n      - prepare_data\n"
        "      - more.yaml:\n          - depth\n          - random_seed\n",
    )
    assert " passed" in project.run(*check, "-k", "sections")
    project.edit("dvc.yaml", "      - random_seed\n      - prepare_data\n", "      - random_seed\n")
    assert "'prepare_data'" in project.run(*check, "-k", "sections", ok=False)


def test_an_out_that_git_does_not_ignore_is_named(project):
    """DVC adds it to .gitignore when its stage ends, and reverts that when a later stage fails."""
    check = ("tools/within", "--dev", ".", "python", "-m", "pytest", "lab/processes/stages_test.py")
    one = "  one:\n    cmd: mkdir -p data/one && touch data/one/a\n    outs: [data/one]\n"
    two = "  two:\n    cmd: exit 1\n    deps: [data/one]\n    outs: [data/two]\n"
    project.edit("dvc.yaml", "stages:\n", f"stages:\n{one}{two}")
    assert "failed to reproduce 'two'" in project.dvc("repro", "two", ok=False)
    output = project.run(*check, "-k", "ignores", ok=False)
    assert "{'data/one', 'data/two'}" in output or "{'data/two', 'data/one'}" in output
    project.edit(".gitignore", "/data/processed\n", "/data/processed\n/data/one/\n/data/two\n")
    assert " passed" in project.run(*check, "-k", "ignores")


@pytest.mark.parametrize("command", [("make", "run"), ("lab/processes/run", "prepare_data")])
def test_a_typo_in_params_stops_before_any_data_are_touched(project, command):
    project.edit("params.yaml", "test_size: 0.15", "test_sise: 0.15")
    before = locked(project)
    output = project.run(*command, ok=False)
    assert "prepare_data.test_sise is not known: did you mean test_size?" in output
    assert "prepare_data.test_size is missing" in output
    assert "Traceback" not in output
    assert "Running stage" not in output
    assert locked(project) == before


def test_invalid_data_stop_the_pipeline_and_keep_earlier_outputs(project):
    module = "lab/processes/prepare_data/cancer_data.py"
    project.edit(
        module,
        "    return bunch.data.assign(",
        "    bunch.data.loc[7, 'mean area'] = -1.0\n    return bunch.data.assign(",
    )
    before = {p: p.read_bytes() for p in (project.folder / "data").rglob("*") if p.is_file()}
    output = project.dvc("repro", ok=False)
    assert "column 'mean area', row 7: -1.0 is not a number from 0 to 10000" in output
    assert "Traceback" not in output
    assert {
        p: p.read_bytes() for p in (project.folder / "data").rglob("*") if p.is_file()
    } == before
    assert project.git("status", "--porcelain").split() == ["M", module]


def test_a_failed_stage_shows_how_to_run_it_alone(project):
    project.edit(
        "lab/processes/train_dnn_pytorch/main.py", "device = choose_device()", "device = 1 / 0"
    )
    output = project.dvc("repro", "--single-item", "train_dnn_pytorch", ok=False)
    assert "ZeroDivisionError" in output
    assert "lab/processes/run train_dnn_pytorch" in output


def test_a_second_pipeline_in_its_own_folder_runs_by_name(project):
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
    output = project.run("make", "run", "PIPELINE=lab/pipelines/hello/dvc.yaml:hello")
    assert "Running stage 'lab/pipelines/hello/dvc.yaml:hello'" in output
    assert (folder / "lines.txt").read_text().strip() == "570"
    assert (folder / "dvc.lock").exists()
    for wrong in ("lab/pipelines/hello", "no-such/dvc.yaml"):
        output = project.run("make", "run", f"PIPELINE={wrong}", ok=False)
        assert f"There is no file '{wrong}' to run: PIPELINE= names a pipeline's, such as" in output
        assert "grep" not in output


def test_dvc_draws_the_plots(project):
    project.dvc("plots", "show", "--out", "plots")
    page = (project.folder / "plots/index.html").read_text()
    for title in ("Classifiers, validation accuracy", "Network, loss", "confusion", "ROC curves"):
        assert title in page, title


def test_metrics_show_both_models_side_by_side(project):
    output = project.dvc("metrics", "show", "--md")
    rows = {line.split("|")[1].strip(): line for line in output.splitlines() if ".json" in line}
    header = output.splitlines()[0]
    column = [cell.strip() for cell in header.split("|")].index("validation.accuracy")
    for stage in TRAINING:
        assert float(rows[f"metrics/{stage}.json"].split("|")[column]) >= 0.95


def test_two_runs_at_once_are_refused_by_dvc(project):
    with project.start("tools/within", ".", "dvc", "repro", "--force"):
        time.sleep(2)
        output = project.dvc("repro", ok=False)
    assert "Unable to acquire lock" in output or "busy" in output or "is locked" in output


def test_the_working_directory_does_not_matter(project):
    output = project.run("sh", "-c", f"cd / && '{project.folder}/lab/processes/run' prepare_data")
    assert "train: 386 rows" in output
    assert Path(project.folder / "metrics/prepare_data.json").exists()
