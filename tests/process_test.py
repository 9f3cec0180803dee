"""Processes of every kind are add_process, run, renamed and removed without a trace."""

import json
import re
import shutil

import pandas as pd
import pytest

from lib.errors import UserError
from lib.params import read_yaml
from lib.pipeline import read_pipeline
from tests.conftest import ROOT, Project
from tools.project.process import Wanted, check_name, column_to_predict, quoted
from tools.project.remove import refuse_shared, stages_of
from tools.project.rename import moved_paths

pytestmark = pytest.mark.integration

# NAME, AFTER, KIND, TASK, TARGET
WANTED = (
    ("prepare_houses", "", "table", "", ""),
    ("train_price", "prepare_houses", "sklearn", "regression", ""),
    ("train_grade", "prepare_houses", "sklearn", "classes", "grade"),
    ("train_sold", "prepare_houses", "sklearn", "binary", "sold"),
    ("net_price", "prepare_houses", "torch", "regression", "price"),
    ("net_grade", "prepare_houses", "torch", "classes", "grade"),
    ("net_sold", "prepare_houses", "torch", "binary", "sold"),
    ("count_files", "train_price", "empty", "", ""),
)
NAMES = [name for name, *_ in WANTED]
ADD = (
    "import json, sys\n"
    "from tools.project.process import Wanted, add, check\n"
    "for name, after, kind, task, target in json.loads(sys.argv[1]):\n"
    "    check(Wanted(name, after, kind, task, target))\n"
    "    add(Wanted(name, after, kind, task, target))\n"
)
# In the development environment, which has all their packages: no environment is made for each.
RUN = (
    "import runpy, sys\n"
    "for name in sys.argv[1:]:\n"
    "    runpy.run_path(f'lab/processes/{name}/main.py', run_name='__main__')\n"
)


MACHINERY = (":!tools", ":!Makefile", ":!*.md")  # files in which the names are only examples
REMOVE = (
    "import subprocess, sys\n"
    "from tools.project.remove import remove\n"
    "for name in sys.argv[1:]:\n"
    "    remove(name)\n"
    "    subprocess.run(['git', 'commit', '-qam', 'Without', '--no-verify'], check=True)\n"
)


FITS = """  fits:
    foreach: [ridge, forest]
    do:
      cmd: lab/processes/run ${item}
"""
OTHER_STAGES = """  train-r:
    cmd: lab/processes/run train-r ${train.target}
    params:
      - train.target
      - shares.train
      - train.yaml:
          - x
"""


def read_text(project, file):
    return (project.folder / file).read_text()


def write(project, file, text):
    (project.folder / file).parent.mkdir(parents=True, exist_ok=True)
    (project.folder / file).write_text(text)


def python(project, code, *arguments, ok=True):
    """The output of a few lines of Python in the project's development environment."""
    command = ("tools/within", "--dev", ".", "python", "-c", code, *arguments)
    return project.run(*command, ok=ok, PYTHONPATH=".", OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """A project with processes of all kinds and tasks, run and committed."""
    project = Project(tmp_path_factory.mktemp("process") / "a projëct")
    project.run("git", "rm", "-rq", "tests")  # as in a project
    project.commit("A project")
    project.run("make", "blank")
    project.commit("Blank")
    python(project, ADD, json.dumps(WANTED))
    python(project, RUN, *NAMES)
    project.dvc("commit", "--force", "--quiet")
    project.commit("Processes")
    return project


@pytest.fixture
def project(houses, tmp_path):
    """A copy for one test."""
    return houses.copied(tmp_path / "a copy")


def metrics(project, name):
    return json.loads((project.folder / f"metrics/{name}.json").read_text())


def add_process(project, *arguments, ok=True):
    return project.run("make", "process", *arguments, ok=ok)


# ---- added


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("train_price", "r2"),
        ("net_price", "r2"),
        ("train_grade", "f1_macro"),
        ("net_grade", "f1_macro"),
        ("train_sold", "roc_auc"),
        ("net_sold", "roc_auc"),
    ],
)
def test_each_training_learns_its_target(houses, name, measure):
    found = metrics(houses, name)
    assert found["validation"][measure] > 0.8
    assert found["test"][measure] > 0.8


def test_an_empty_process_reads_the_outputs_of_the_one_before(houses):
    assert metrics(houses, "count_files")["rows"] == 2, "the model and the picture of train_price"


def test_all_their_tests_and_checks_pass(houses):
    check = ("tools/within", "--dev", ".", "python", "-m", "pytest", "-q", "lab")
    assert " passed" in houses.run(*check, OMP_NUM_THREADS="1")
    houses.run("tools/within", "--dev", ".", "ruff", "check", ".")
    houses.run("tools/within", "--dev", ".", "ruff", "format", "--check", ".")
    cache = str(ROOT / ".mypy_cache")  # it holds the types of the same packages
    houses.run("tools/within", "--dev", ".", "mypy", MYPY_CACHE_DIR=cache)


def test_hooks_pass_with_long_names_added_in_any_order(project):
    names = [(name + "_" + "x" * 35)[:35] for name in NAMES]
    longer = dict(zip(NAMES, names, strict=True))
    wanted = [(longer[name], longer.get(after, after), *more) for name, after, *more in WANTED]
    python(project, ADD, json.dumps(wanted[:1]))
    python(project, RUN, names[0])
    python(project, ADD, json.dumps([wanted[n] for n in (1, 3, 2, 6, 4, 5, 7)]))
    project.run("tools/within", "--dev", ".", "ruff", "check", "lab")
    project.run("tools/within", "--dev", ".", "ruff", "format", "--check", "lab")
    project.run("tools/within", "--dev", ".", "yamllint", "--strict", "dvc.yaml", "params.yaml")
    files = project.git("ls-files", "--cached", "--others", "--exclude-standard", "lab").split()
    texts = ("dvc.yaml", "params.yaml", *(file for file in files if not file.endswith(".lock")))
    project.run("tools/within", "--dev", ".", "end-of-file-fixer", *texts)
    project.run("tools/within", "--dev", ".", "trailing-whitespace-fixer", *texts)


def test_results_are_shown_with_plots(houses):
    output = houses.run("tools/within", ".", "python", "-m", "tools.report.results")
    assert re.search(r"┃ measure +┃ validation train_price ┃", output)
    assert re.search(r"│ rmse +│ \d\d?,\d{3}\.\d\d +│", output)
    command = ("tools/within", "--dev", ".", "python", "-m", "tools.report.compare")
    assert "Missing" not in houses.run(*command, "--from", "HEAD~1", "--to", "")
    page = (houses.folder / "build/compare.html").read_text()
    assert page.count("<img") == 10


def test_a_process_can_read_a_dataset_before_a_bucket_exists(project):
    (project.folder / "data/raw").mkdir()
    rows = "".join(f"{n},{'ab'[n % 2]},{n * 2}\n" for n in range(50))
    (project.folder / "data/raw/boats.csv").write_text("length,kind,weight in t\n" + rows)
    project.dvc("add", "data/raw/boats.csv")
    add_process(project, "NAME=prepare_boats", "KIND=table", "AFTER=data/raw/boats.csv")
    python(project, RUN, "prepare_boats")
    assert metrics(project, "prepare_boats")["rows"]["train"] == 33
    add_process(
        project, "NAME=train_boats", "KIND=sklearn", "TASK=regression", "AFTER=prepare_boats"
    )
    text = (project.folder / "params.yaml").read_text()
    assert "target: 'weight in t'  # the column to predict" in text
    python(project, RUN, "train_boats")


def test_tables_keep_each_row_and_count_values_missing_in_training(project):
    lengths = ["None"] * 10 + ["  "] + list(range(49))
    ids = ["", *(1780000000000000123 + n for n in range(59))]
    rows = "".join(f"{i},{n},a\n" for i, n in zip(ids, lengths, strict=True))
    (project.folder / "data/raw").mkdir()
    (project.folder / "data/raw/boats.csv").write_text("id,length,kind\n" + rows)
    python(project, ADD, json.dumps([("prepare_boats", "data/raw/boats.csv", "table", "", "")]))
    python(project, RUN, "prepare_boats")
    found = metrics(project, "prepare_boats")
    assert sum(found["rows"].values()) == 60, "no two ids are the same"
    assert found["missing_share"] == pytest.approx({"id": 1 / 60, "length": 11 / 60})
    assert "\n1780000000000000181,48,a," in read_text(project, "data/prepare_boats.csv")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["KIND=forest"], "KIND is 'forest': it must be empty or table or sklearn or torch"),
        (["KIND=sklearn", "AFTER=prepare_houses"], "TASK is '': a training predicts numbers"),
        (["KIND=torch", "TASK=binary"], "KIND=torch learns from a table: say AFTER="),
        (["KIND=table", "TASK=binary"], "TASK is for KIND=sklearn and KIND=torch"),
        (["KIND=table", "AFTER=train_price"], "train_price has written no table"),
        (["AFTER=data/none.csv"], "it must be a stage of dvc.yaml"),
        (["AFTER=../elsewhere.csv"], "it must be a stage of dvc.yaml"),
        (["KIND=table", "AFTER=README.md"], "KIND=table reads a table, a .csv file"),
        (
            ["KIND=sklearn", "TASK=binary", "AFTER=prepare_houses", "TARGET=age"],
            "TARGET is 'age': data/prepare_houses.csv has the columns 'size', 'district', 'grade'",
        ),
    ],
)
def test_invalid_arguments_are_refused_in_one_line_without_changes(houses, arguments, why):
    output = add_process(houses, "NAME=another", *arguments, ok=False)
    assert why in output
    assert "Nothing was written" in output
    assert "Traceback" not in output
    assert houses.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    "name",
    [
        "xgboost",
        "sklearn",
        "pydantic",
        "threadpoolctl",
        "seed",
        "true",
        "none",
        "null",
        "data",
        "validate",
        "share",
    ],
)
def test_names_that_hide_a_package_or_a_type_are_refused(name):
    with pytest.raises(UserError, match=f"NAME is '{name}', a"):
        check_name(name)


@pytest.mark.parametrize(
    ("out", "writer"),
    [
        ("artifacts/train_price", "train_price"),
        ("artifacts", "train_price"),
        ("data/prepare_houses.csv", "prepare_houses"),
    ],
)
def test_an_output_that_another_stage_writes_is_refused(houses, out, writer):
    code = "import sys; from tools.project.process import refuse_overlap as r; r(sys.argv[1])"
    assert re.search(f"UserError: {writer} writes", python(houses, code, out, ok=False))
    python(houses, code, "artifacts/train_price_too")


@pytest.mark.parametrize(
    "name", ["price", "on", "it's", "Price\n(EUR)", "a\tb: #c", " é👩\u200d🔬\n", "\\"]
)
def test_the_last_column_is_predicted_whatever_its_name(tmp_path, name):
    table = tmp_path / "table.csv"
    table.write_text("\n\n" + pd.DataFrame({"a": [1], name: [2]}).to_csv(index=False), "utf-8")
    wanted = Wanted("train", kind="sklearn", target=name)
    assert column_to_predict(wanted, str(table)) == name
    params = tmp_path / "params.yaml"
    params.write_text(f"target: {quoted(name)}  # the column to predict\n", "utf-8")
    assert read_yaml(params) == {"target": name}


def test_of_two_columns_with_one_name_none_is_predicted(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("value,size,value\n1,2,a\n")
    for target in ("", "value"):
        with pytest.raises(UserError, match="has 2 columns 'value': give each a name of its own"):
            column_to_predict(Wanted("train", kind="sklearn", target=target), str(file))
    assert column_to_predict(Wanted("train", kind="sklearn", target="size"), str(file)) == "size"


def test_a_pipeline_in_another_style_is_left_as_it_is(project):
    flow = "stages: {a: {cmd: echo hi}}\n"
    (project.folder / "dvc.yaml").write_text(flow)
    output = add_process(project, "NAME=another", ok=False)
    assert "dvc.yaml is not written stage below stage: add this one by hand." in output
    assert read_text(project, "dvc.yaml") == flow


def test_columns_that_another_training_predicts_are_no_features(project):
    text = read_text(project, "params.yaml")
    write(project, "params.yaml", text.replace("drop: []  # columns", "drop: [grade]  # columns"))
    python(project, RUN, "train_price")
    code = (
        "import joblib; print(*joblib.load('artifacts/train_price/model.joblib').feature_names_in_)"
    )
    assert set(python(project, code).split()) == {"size", "district", "sold"}
    write(project, "params.yaml", text.replace("drop: []  # columns", "drop: [grad]  # columns"))
    output = python(project, RUN, "train_price", ok=False)
    assert "The table has no column 'grad': it has 'size', 'district'" in output


def test_a_target_that_does_not_fit_the_task_gives_one_line(project):
    project.edit("params.yaml", "  target: grade", "  target: price")
    output = python(project, RUN, "train_grade", ok=False)
    assert "Column 'price' has 272 different values in training: 2 to 100 classes" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("name", "column", "value", "why"),
    [
        ("net_price", "size", "1e39", "Column 'size' holds 1e+39 in row "),
        ("train_grade", "grade", "rare", "Column 'grade' has 'rare' in 1 of the training rows: 2 "),
        ("net_sold", "split", "test", "Column 'sold' has 'no' in test, and in no row of training"),
    ],
)
def test_untrainable_rows_are_reported_before_training(project, name, column, value, why):
    table = project.folder / "data/prepare_houses.csv"
    rows = pd.read_csv(table)
    train = rows["split"] == "train"
    changed = rows["sold"].eq("no") if column == "split" else rows.index == train.idxmax()
    rows[column] = rows[column].astype(object).mask(changed, value)
    if column == "split":
        rows["sold"] = rows["sold"].mask(train & (rows.index % 2 == 0), "perhaps")
    table.unlink()
    rows.to_csv(table, index=False)
    output = python(project, RUN, name, ok=False)
    assert why in output
    assert "Traceback" not in output


# Files cannot grow beyond 100 bytes, as on a full disk.
FULL = """
import resource
from lib.errors import UserError
from lib.repository import ROOT
from tools.project import adopt, process
def fill(*_):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, -1))
    raise UserError("It is no good.")
"""
WRITING = """
with process.all_or_nothing([ROOT / "params.yaml"], ROOT / "lab/processes/new"):
    process.append(ROOT / "params.yaml", "new: 1\\n")
    fill()
"""
BEST = """
best = {"tunes": "net_sold", "values": {"epochs": 7}, "objective": "loss", "best": 1.0}
adopt.sweeps = lambda *_: {"tune": best | {"best_trial": 1, "trials": 1}}
"""
ADOPTING = f"{BEST}adopt.check_all = fill\nadopt.adopt([])"


@pytest.mark.parametrize("code", [WRITING, ADOPTING], ids=["process", "adopt"])
def test_params_yaml_survives_a_full_disk(project, code):
    before = read_yaml(project.folder / "params.yaml")
    output = python(project, FULL + code, ok=False)
    assert "It is no good." in output
    assert read_yaml(project.folder / "params.yaml").keys() - {"new"} == before.keys()


WIDE = ";".join(f"a_long_name_of_a_column_{n}" for n in range(10_000))


def test_a_wide_table_with_other_separators_is_refused(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(f"{WIDE}\n")
    with pytest.raises(UserError, match=r"columns cannot be read .*: are they separated by commas"):
        column_to_predict(Wanted("train", kind="sklearn", target="x"), str(table))


def test_best_values_without_a_key_to_write_them_to_are_named(project):
    project.edit("params.yaml", "  epochs: ", "  # epochs: ")
    before = read_text(project, "params.yaml")
    best = BEST.replace('{"epochs": 7}', '{"epochs": 7, "lr": 0.5, "kind": "x"}')
    for name in ("net_price", "net_grade", "net_sold"):
        project.edit(f"lab/processes/{name}/params.py", "epochs: Count", "epochs: Count = 3")
    output = python(project, FULL + best + "print(*adopt.adopt([]), sep='\\n')")
    assert "params.yaml has no net_sold.epochs, so that is not adopted" in output
    assert "net_sold.kind" not in output
    assert read_text(project, "params.yaml") != before


def test_of_two_sweeps_over_one_process_one_is_asked_for(project):
    two = BEST.replace(
        '{"tune": best | {"best_trial": 1, "trials": 1}}', '{"coarse": best, "fine": best}'
    )
    output = python(project, FULL + two + "adopt.adopt([])", ok=False)
    assert "coarse and fine both tune net_sold, and no trial had the best values of both" in output


def test_invalid_values_are_not_adopted(project):
    before = read_text(project, "params.yaml")
    output = python(project, FULL + BEST.replace("7", "0") + "adopt.adopt([])", ok=False)
    assert "UserError: params.yaml: net_sold.epochs is 0: it must be" in output
    assert read_text(project, "params.yaml") == before


# ---- tuned


def test_sweeps_of_both_kinds_run_and_their_best_values_are_adopted(project):
    for name in ("train_price", "net_grade", "train_sold"):
        output = project.run("make", "sweep", f"NAME={name}")
        assert "But first" not in output, "the lock of sweeps has the packages of these kinds"
    file = project.folder / "params.yaml"
    text = file.read_text().replace("  trials: 20\n  batch: 10", "  trials: 3\n  batch: 3")
    file.write_text(text.replace("workers: null", "workers: 1"))
    check = ("tools/within", "--dev", ".", "python", "-m", "pytest", "-q", "lab/tuning")
    assert " passed" in project.run(*check, OMP_NUM_THREADS="1")
    project.run("tools/within", "--dev", ".", "ruff", "check", "lab")
    project.run("tools/within", "--dev", ".", "ruff", "format", "--check", "lab")
    files = ("lab/tuning/dvc.yaml", "params.yaml")
    project.run("tools/within", "--dev", ".", "yamllint", "--strict", *files)
    project.run("tools/within", "--dev", ".", "end-of-file-fixer", *files)
    sweeps = ("tune_price", "tune_net_grade", "tune_sold")
    python(project, RUN.replace("processes", "tuning"), *sweeps)
    for sweep in sweeps:
        assert metrics(project, sweep)["trials"] == 3
        assert metrics(project, sweep)["failed"] == 0
    assert metrics(project, "tune_net_grade")["objective"] == "validation.f1_macro"
    best = metrics(project, "tune_price")["values"]["learning_rate"]
    project.run("make", "adopt", "STAGES=tune_price")
    assert f"learning_rate: {best}" in file.read_text()


def test_a_sweep_that_fails_leaves_the_results_of_the_one_before(project):
    project.run("make", "sweep", "NAME=train_price")
    project.edit("params.yaml", "  trials: 20\n  batch: 10", "  trials: 2\n  batch: 2")
    project.edit("params.yaml", "workers: null", "workers: 1")
    project.run("make", "tune")
    trials = project.folder / "artifacts/tune/price/trials.csv"
    before = trials.read_bytes()
    project.edit("params.yaml", "objective: validation.", "objective: validation.not_")
    assert "not_" in project.run("make", "tune", ok=False)
    assert trials.read_bytes() == before
    assert metrics(project, "tune_price")["trials"] == 2


def test_parameters_unused_by_trials_are_refused(project):
    """Otherwise all trials would be equal, and `make adopt` would change the target."""
    for name in ("train_sold", "net_sold"):
        project.run("make", "sweep", f"NAME={name}")
    file = project.folder / "params.yaml"
    tried = "    target: {choice: [sold, grade]}\n    num_threads: {integer: [1, 4]}\n"
    file.write_text(file.read_text().replace("  space:\n", f"  space:\n{tried}"))
    output = python(project, RUN.replace("processes", "tuning"), "tune_net_sold", ok=False)
    for key in ("target", "num_threads"):
        assert (
            f"tune_net_sold.space.{key} is a mapping: it must be left out: it cannot be" in output
        )
    output = python(project, RUN.replace("processes", "tuning"), "tune_sold", ok=False)
    assert "tune_sold.space.target is a mapping: it must be left out: it cannot be" in output
    assert "Traceback" not in output
    assert not (project.folder / ".checkpoints").exists(), "nothing was trained"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "it must be a process (count_files, net_grade"),
        ("../lab", "it must be a process"),
        ("count_files", "not written as `make process` writes a training"),
        ("prepare_houses", "not written as `make process` writes a training"),
    ],
)
def test_sweeps_of_processes_that_train_nothing_fail(houses, name, why):
    output = houses.run("make", "sweep", f"NAME={name}", ok=False)
    assert why in output
    assert "Nothing was written" in output
    assert houses.git("status", "--porcelain") == ""


def test_a_stage_without_outputs_cannot_be_read(project):
    write(project, "dvc.yaml", read_text(project, "dvc.yaml") + "\n  greet:\n    cmd: echo hello\n")
    output = project.run("make", "process", "NAME=more", "AFTER=greet", ok=False)
    assert "AFTER is 'greet', a stage that writes nothing" in output
    assert not (project.folder / "lab/processes/more").exists()


# ---- renamed


def test_renaming_a_process_reruns_no_stage(project):
    project.run("make", "rename-process", "FROM=train_price", "TO=estimate_price")
    assert project.dvc("status").strip() == "Data and pipelines are up to date."
    assert project.git("grep", "-l", "estimate_price").count("\n") == 5
    assert project.run("git", "grep", "-lw", "train_price", "--", ".", *MACHINERY, ok=False) == ""
    left = [p for p in project.folder.rglob("*train_price*") if ".git" not in p.parts]
    assert [p for p in left if ".dvc" not in p.parts and "__pycache__" not in p.parts] == []
    project.run("tools/within", "--dev", ".", "ruff", "check", "lab")  # import order
    project.run("tools/within", "--dev", ".", "ruff", "format", "--check", "lab")
    project.commit("Renamed")
    check = ("tools/within", "--dev", ".", "python", "-m", "pytest", "-q")
    tests = ("lab/processes/estimate_price", "lab/processes/stages_test.py")
    assert " passed" in project.run(*check, *tests)


def test_a_renamed_process_is_renamed_in_all_that_reads_it(project):
    goal = project.folder / "goals/more_test.py"
    goal.write_text('"""Goals."""\n\nSTAGES = ("prepare_houses",)\n')
    report = project.folder / "lab/docs/2026-01-01-first.md"
    report.write_text("`data/prepare_houses.csv`\n")
    write(project, "lab/processes/prepare_houses/test_prepare_houses.py", '"""More tests."""\n')
    reads = "[data/prepare_houses.csv, lab/processes/prepare_houses/main.py]"
    count = f"stages:\n  count: {{wdir: ../../.., cmd: 'true', deps: {reads}}}\n"
    write(project, "lab/pipelines/count/dvc.yaml", count)
    project.dvc("commit", "--force", "--quiet", "lab/pipelines/count/dvc.yaml")
    project.commit("A goal, a report, tests, and a second pipeline")
    project.run("make", "rename-process", "FROM=prepare_houses", "TO=clean_houses")
    assert (project.folder / "lab/processes/clean_houses/test_clean_houses.py").exists()
    assert "prepare_houses" in report.read_text(), "a report describes the past"
    assert '("clean_houses",)' in goal.read_text(), "otherwise the goal would no longer apply"
    assert project.dvc("status").strip() == "Data and pipelines are up to date."
    assert (project.folder / "data/clean_houses.csv").exists()
    python(project, RUN, "train_price")


def test_tests_and_other_files_with_the_name_of_a_process_move_along(project):
    folder = project.folder / "lab/processes/prepare_houses"
    (folder / "test_prepare_houses.py").write_text(
        '"""More tests."""\n\nimport lab.processes.prepare_houses.prepare_houses  # noqa: F401\n'
    )
    (folder / "prepare_houses.sql").write_text("SELECT 1\n")
    (folder / "prepare_houses_test.py").unlink()
    project.commit("Other tests, and a query")
    project.run("make", "rename-process", "FROM=prepare_houses", "TO=clean_houses")
    moved = project.folder / "lab/processes/clean_houses"
    assert "clean_houses.clean_houses" in (moved / "test_clean_houses.py").read_text()
    assert (moved / "clean_houses.sql").exists()


def test_a_column_with_the_name_of_a_process_keeps_it(project):
    write(project, "lab/docs/houses.csv", "size,prepare_houses\n1,2\n")
    shared = "    params: &shared\n      - random_seed\n      - prepare_houses\n"
    project.edit("dvc.yaml", "    params:\n      - random_seed\n      - prepare_houses\n", shared)
    write(
        project,
        "dvc.yaml",
        read_text(project, "dvc.yaml") + "  also: {cmd: 'true', params: *shared}\n",
    )
    project.commit("A table in git")
    project.run("make", "rename-process", "FROM=prepare_houses", "TO=prepare_houses_too")
    assert read_text(project, "lab/docs/houses.csv") == "size,prepare_houses\n1,2\n"
    params = read_yaml(project.folder / "params.yaml")
    assert {"prepare_houses", "prepare_houses_too"} & params.keys() == {"prepare_houses_too"}
    stages = read_yaml(project.folder / "dvc.yaml", aliases=True)["stages"]
    assert stages["also"]["params"] == ["random_seed", "prepare_houses_too"]
    assert "prepare_houses_too" in stages


def test_outputs_in_the_folder_of_a_process_move_along(project):
    metrics = "      - metrics/prepare_houses.json:\n"
    own = "      - lab/processes/prepare_houses/size.json:\n          cache: false\n"
    project.edit("dvc.yaml", metrics, own + metrics)
    write(project, "lab/processes/prepare_houses/size.json", "{}\n")
    project.commit("A metrics file beside the code")
    project.run("make", "rename-process", "FROM=prepare_houses", "TO=clean_houses")
    assert (project.folder / "lab/processes/clean_houses/size.json").exists()
    assert not (project.folder / "lab/processes/prepare_houses").exists()


def test_a_name_that_is_a_word_is_renamed_only_as_the_process(project):
    add_process(
        project,
        *("NAME=train", "AFTER=prepare_houses", "KIND=sklearn", "TASK=binary", "TARGET=sold"),
    )
    write(project, "lab/processes/train/training.py", '"""Not the module of that name."""\n')
    write(project, "lab/processes/train-r/main", "#!/bin/sh\n")
    unrelated = (
        'SPLITS = ("train", "validation")\n\n\ndef train(train: str = "train") -> None: ...\n'
    )
    write(project, "goals/more_test.py", unrelated)
    write(project, "lab/docs/picture.png", "\0 train \0")
    write(project, "dvc.yaml", read_text(project, "dvc.yaml") + OTHER_STAGES)
    write(project, "params.yaml", read_text(project, "params.yaml") + "shares:\n  train: 0.8\n")
    python(project, RUN, "train")
    project.dvc("commit", "--force", "--quiet", "train")
    project.commit("A process called train, and others that have the word")
    output = project.run("make", "rename-process", "FROM=train", "TO=fit")
    remaining = output.partition("The word is still in (is it the process there?): ")[2]
    assert "dvc.yaml, goals/more_test.py, " in remaining
    assert "picture.png" not in remaining
    assert project.dvc("status", "fit").strip() == "Data and pipelines are up to date."
    assert read_text(project, "goals/more_test.py") == unrelated
    assert [*project.folder.glob("lab/processes/*/training.py")] == [
        project.folder / "lab/processes/fit/training.py"
    ]
    assert read_text(project, "lab/processes/fit/params.py").count("fit: Fit\n") == 1
    params = read_yaml(project.folder / "params.yaml")
    assert "train" not in params
    assert params["shares"] == {"train": 0.8}
    stages = read_yaml(project.folder / "dvc.yaml")["stages"]
    assert "fit" in stages["fit"]["params"]
    assert stages["train-r"]["cmd"] == "lab/processes/run train-r ${fit.target}"
    assert stages["train-r"]["params"] == ["fit.target", "shares.train", {"train.yaml": ["x"]}]


def test_how_to_pages_keep_the_names_of_their_examples(project):
    chapter = project.folder / "lab/processes/README.md"
    passage = "<!-- example -->\nHere: `train_price`.\n<!-- /example -->\n"
    chapter.write_text(f"make process NAME=train_price\n\n{passage}")
    write(project, "lab/docs.md", "We have `train_price`.\n")
    project.commit("Pages")
    project.run("make", "rename-process", "FROM=train_price", "TO=fit_price")
    renamed = passage.replace("train_price", "fit_price")
    assert chapter.read_text() == f"make process NAME=train_price\n\n{renamed}"
    assert read_text(project, "lab/docs.md") == "We have `fit_price`.\n"


def test_a_process_called_like_a_folder_of_outputs_is_renamed_in_it():
    assert moved_paths("data", "tables", ["data/data.csv", "artifacts/data"]) == {
        "data/data.csv": "data/tables.csv",
        "artifacts/data": "artifacts/tables",
    }


def test_a_process_whose_name_is_computed_is_not_renamed(project):
    write(project, "dvc.yaml", read_text(project, "dvc.yaml") + FITS)
    write(project, "lab/processes/ridge/main.py", "")
    project.commit("Stages of several processes")
    output = project.run("make", "rename-process", "FROM=ridge", "TO=linear", ok=False)
    assert "fits@ridge in dvc.yaml starts ridge without naming it" in output
    output = project.run("make", "remove-process", "NAME=ridge", ok=False)
    assert "starts forest, too: take ridge out of it first, by hand" in output
    assert project.git("status", "--porcelain") == ""


SHARED = """
stages:
  fits:
    foreach: {a: lab/processes/run one, b: lab/processes/run one && lab/processes/run two}
    do: {cmd: "${item}"}
"""


def test_the_stage_that_starts_another_process_too_is_named(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text(SHARED)
    pipeline = read_pipeline(root=tmp_path)
    with pytest.raises(UserError, match=r"^fits@b in dvc\.yaml starts two, too: take one out"):
        refuse_shared("one", stages_of("one", pipeline), pipeline)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("nothing", "new", "FROM is 'nothing': it must be a process"),
        ("../lab", "new", "it must be a process"),
        ("net_sold", "net_price", "lab/processes/net_price exists already"),
        ("net_sold", "Net", "TO is 'Net': it must be lower-case words"),
    ],
)
def test_impossible_renames_are_refused(houses, old, new, why):
    output = houses.run("make", "rename-process", f"FROM={old}", f"TO={new}", ok=False)
    assert why in output
    assert "Nothing was renamed" in output
    assert houses.git("status", "--porcelain") == ""


# ---- removed


def test_a_removed_process_leaves_nothing_behind(project):
    output = project.run("make", "remove-process", "NAME=count_files")
    assert "Removed: count_files, with its stage, section, outs and metrics." in output
    project.commit("Without count_files")
    python(project, REMOVE, *reversed(NAMES[:-1]))
    for name in NAMES:
        found = project.run("git", "grep", "-lw", name, "--", ".", *MACHINERY, ok=False)
        assert found == ""
    blank = project.git("rev-parse", ":/Blank").strip()
    for file in ("params.yaml", ".gitignore", "dvc.yaml"):
        assert project.git("show", f"HEAD:{file}") == project.git("show", f"{blank}:{file}")
    assert [*project.folder.glob("metrics/*"), *project.folder.glob("artifacts/*")] == []
    left = [*project.folder.glob("data/*"), *project.folder.glob("lab/processes/*/")]
    assert [path for path in left if path.name != "__pycache__"] == []


def test_a_removed_process_leaves_no_empty_folders(project):
    project.edit("dvc.yaml", "- artifacts/count_files", "- artifacts/count_files/a/b.txt")
    shutil.rmtree(project.folder / "artifacts/count_files", ignore_errors=True)
    write(project, "artifacts/count_files/a/b.txt", "1\n")
    project.commit("An out in a folder")
    output = project.run("make", "remove-process", "NAME=count_files")
    assert "stays" not in output
    assert not (project.folder / "artifacts/count_files").exists()


def test_a_removed_process_takes_no_files_of_others_along(project):
    stage = (
        "  others: {cmd: mkdir -p artifacts/count_files, outs: [artifacts/count_files/kept.txt]}\n"
    )
    write(project, "dvc.yaml", read_text(project, "dvc.yaml") + stage)
    write(project, "artifacts/count_files/kept.txt", "1\n")
    project.edit("dvc.yaml", "- artifacts/count_files", "- artifacts/counts")
    project.commit("Another stage writes there")
    output = project.run("make", "remove-process", "NAME=count_files")
    assert "artifacts/count_files stays: it has files that count_files did not write." in output
    assert (project.folder / "artifacts/count_files/kept.txt").exists()
    assert "/artifacts/count_files\n" in read_text(project, ".gitignore")


def test_processes_in_use_or_uncommitted_are_not_removed(project):
    output = project.run("make", "remove-process", "NAME=prepare_houses", ok=False)
    assert "train_price reads data/prepare_houses.csv, which prepare_houses writes" in output
    assert "Nothing was removed" in output
    goal = project.folder / "goals/more_test.py"
    goal.write_text("from lab.processes.net_sold.params import Params\n")
    project.commit("A goal")
    output = project.run("make", "remove-process", "NAME=net_sold", ok=False)
    assert "goals/more_test.py imports net_sold: change it first" in output
    goal.unlink()
    similar = "lab/processes/net_sold_too/main.py"  # its name begins the same
    write(project, similar, "from lab.processes.net_sold.params import Params\n")
    project.commit("Another process, without the goal")
    output = project.run("make", "remove-process", "NAME=net_sold", ok=False)
    assert f"{similar} imports net_sold: change it first" in output
    (project.folder / similar).unlink()
    project.commit("Without it")
    project.edit("params.yaml", "hidden: [64, 32]", "hidden: [64, 64]")
    output = project.run("make", "remove-process", "NAME=net_sold", ok=False)
    assert "Not committed: params.yaml" in output
    assert "NAME is 'nothing': it must be a process (" in project.run(
        "make", "remove-process", "NAME=nothing", ok=False
    )


def test_a_section_that_another_stage_reads_is_kept(project):
    stages = "stages:\n  hello:\n    # ${net_sold.lr}\n    cmd: echo ${ net_sold.target }\n"
    write(project, "lab/hello/dvc.yaml", f"vars: [../../params.yaml]\n{stages}")
    project.commit("A second pipeline")
    output = project.run("make", "remove-process", "NAME=net_sold", ok=False)
    assert "lab/hello/dvc.yaml reads ${ net_sold.target }: change it first." in output
    assert project.git("status", "--porcelain") == ""
    project.edit("lab/hello/dvc.yaml", "echo ${ net_sold.target }", "lab/processes/run net_sold")
    project.commit("It starts it")
    output = project.run("make", "remove-process", "NAME=net_sold", ok=False)
    assert "hello in lab/hello/dvc.yaml starts net_sold: take it out there first." in output
    project.edit("lab/hello/dvc.yaml", "lab/processes/run net_sold", "echo hello")
    project.edit("lab/hello/dvc.yaml", "params.yaml]", "params.yaml:net_sold]")
    project.commit("It chooses it")
    output = project.run("make", "remove-process", "NAME=net_sold", ok=False)
    assert "lab/hello/dvc.yaml names net_sold in its `vars`: change it first." in output
    # A pipeline with its own params.yaml may use any section names.
    write(project, "lab/hello/params.yaml", "net_sold: {target: 1}\n")
    project.edit("lab/hello/dvc.yaml", "vars: [../../params.yaml:net_sold]\n", "")
    project.edit("lab/hello/dvc.yaml", "echo hello", "echo ${net_sold.target}")
    main = read_text(project, "dvc.yaml")
    write(project, "dvc.yaml", f"{main}  show:\n    cmd: echo\n    params: [net_sold.target]\n")
    project.commit("A stage that lists it")
    output = project.run("make", "remove-process", "NAME=net_sold")
    assert "Removed: net_sold, with its stage, outs and metrics." in output
    assert "Its section stays: show reads net_sold.target." in output
    assert "net_sold" in read_yaml(project.folder / "params.yaml")
    project.dvc("status", "show")  # DVC can read all of it


def test_unindented_comments_stay_or_go_with_their_section(project):
    before = {file: read_text(project, file) for file in ("params.yaml", "dvc.yaml")}
    section = re.search(r"(?ms)^count_files:\n.*?(?=^\S|\Z)", before["params.yaml"])[0]
    key, _, rest = section.partition("\n")
    commented = before["params.yaml"].replace(section, f"{key}\n# factor: 3\n\n{rest}")
    write(
        project, "params.yaml", commented.replace("\nnet_price:", "\n# Of a network.\nnet_price:")
    )
    lock = "      - lab/processes/count_files/Pipfile.lock\n"
    project.edit("dvc.yaml", lock, f"#      - data/old\n{lock}")
    project.commit("Comments")
    project.run("make", "remove-process", "NAME=count_files")
    for file, text in before.items():
        assert "count_files" not in read_text(project, file)
        left = read_yaml(project.folder / file)
        write(project, file, text)
        expected = read_yaml(project.folder / file)
        expected.pop("count_files", None)
        expected.get("stages", {}).pop("count_files", None)
        assert left.get("stages", left) == expected.get("stages", expected)


def test_a_sweep_is_updated_when_its_process_is_renamed(project):
    rents = ("train_rents", "prepare_flats", "sklearn", "regression", "rent")
    python(project, ADD, json.dumps([("prepare_flats", "", "table", "", ""), rents]))
    project.run("make", "sweep", "NAME=train_rents")
    (project.folder / "metrics/tune_rents.json").write_text('{"tunes": "train_rents"}\n')
    project.commit("A sweep")
    project.run("make", "rename-process", "FROM=train_rents", "TO=train_leases")
    project.run("tools/within", ".", "python", "-m", "lib.params")
    stage = read_yaml(project.folder / "lab/tuning/dvc.yaml")["stages"]["tune_rents"]
    assert "train_leases.target" in stage["params"]
    assert not [name for name in stage["params"] + stage["deps"] if "train_rents" in name]
    assert '"tunes": "train_leases"' in (project.folder / "metrics/tune_rents.json").read_text()


def test_a_sweeps_outputs_follow_the_name_of_its_process(project):
    rents = ("rent_model", "prepare_flats", "sklearn", "regression", "rent")
    python(project, ADD, json.dumps([("prepare_flats", "", "table", "", ""), rents]))
    project.run("make", "sweep", "NAME=rent_model")
    trials = project.folder / "artifacts/tune/rent_model/trials.csv"
    trials.parent.mkdir(parents=True)
    trials.write_text("trial,reason\n0,rent_model.target is no column\n")
    project.commit("A sweep")
    project.run("make", "rename-process", "FROM=rent_model", "TO=rent_trees")
    stage = read_yaml(project.folder / "lab/tuning/dvc.yaml")["stages"]["tune_rent_model"]
    assert "artifacts/tune/rent_trees" in str(stage["outs"])
    assert (project.folder / "artifacts/tune/rent_trees/trials.csv").exists()
    assert not trials.exists()
