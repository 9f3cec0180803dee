"""Goals judge the results of a run: only models that meet them go into production."""

import hashlib
import json
import re
import shutil
import tarfile

import numpy as np
import pytest

from goals.params import Goals
from tests.conftest import Project, wait_for
from tests.rehearsal import results_of, running

pytestmark = pytest.mark.integration

JUDGE = ("tools/within", ".", "python", "-m", "tools.job.goals")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """The example in a sandbox, with its goals."""
    with running(Project(tmp_path_factory.mktemp("goals") / "a projëct")) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def good(sandbox):
    """A run of the example with good results: its output and results commit, which is pulled."""
    sandbox.branch = "good"
    sandbox.git("checkout", "--quiet", "-B", "good", sandbox.base)
    sandbox.project.edit("params.yaml", "epochs: 120", "epochs: 60")
    sandbox.commit("A good model")
    tag, output = sandbox.tag("run-example-good")
    commit = results_of(sandbox, tag)
    sandbox.git("pull", "--quiet", "sandbox", "good")
    sandbox.project.dvc("pull")
    return output, commit


@pytest.fixture
def project(good, sandbox, tmp_path):
    """A copy of the project with good results, for one test."""
    return sandbox.project.copied(tmp_path / "copy", ".sandbox", "mlruns", "mlflow.db*")


@pytest.fixture
def bare(tmp_path):
    """A project without results and goals: each test writes its own goals."""
    project = Project(tmp_path / "bare")
    for file in ("conftest.py", "results_test.py"):
        (project.folder / "goals" / file).unlink()
    return project


def verdicts(project):
    """By title, each goal's state, and the value reached or the reason."""
    return {
        goal["title"]: (goal["state"], goal["reached"] or goal["message"])
        for goal in recorded_goals(project)
    }


def recorded_goals(project):
    return json.loads((project.folder / ".goals.json").read_text())["goals"]


def test_a_good_runs_commit_and_page_show_its_goals(sandbox, good):
    output, commit = good
    message = sandbox.message(commit)
    assert "\nGoals: 9 of 9 met\n" in message
    assert "Goals-Missed" not in message
    trailers = sandbox.origin("show", "-s", "--format=%(trailers:key=Goals,valueonly)", commit)
    assert trailers.strip() == "9 of 9 met"
    assert "9 of 9 goals met" in output
    assert "Recall on malignant" in output
    assert "Job succeeded" in output


def test_a_run_that_misses_goals_fails_and_keeps_its_results(sandbox, good):
    sandbox.branch = "worse"
    sandbox.git("checkout", "--quiet", "-B", "worse", sandbox.base)
    sandbox.project.edit("params.yaml", "epochs: 120", "epochs: 3")
    sandbox.project.edit("params.yaml", "lr: 0.001", "lr: 1.0e-6")
    sandbox.commit("A worse model")
    try:
        tag, output = sandbox.tag("run-example-worse")
    finally:
        sandbox.git("checkout", "--quiet", "--force", "good")
    commit = results_of(sandbox, tag)
    message = sandbox.message(commit)
    assert "\nGoals-Missed: " in message
    assert "Errors made with certainty" in message
    assert "train_dnn_pytorch" in sandbox.show(commit, "dvc.lock")
    assert "The results are kept, but not good enough: " in output
    assert "Job failed" in output
    sandbox.git("fetch", "--quiet", "sandbox")
    _, output = sandbox.tag("runtime-not-on-main", commit)
    assert "main does not contain this commit" in output
    assert "Preflight" not in output, "nothing is executed"
    sandbox.git("push", "--quiet", "sandbox", f"{commit}:refs/heads/main")
    tag, output = sandbox.tag("runtime-worse", commit)
    sandbox.origin("update-ref", "-d", "refs/heads/main")
    assert re.search(
        r"runtime: goals: \d of 9 goals met. What misses its goals is not", output, re.MULTILINE
    )
    assert "Not released. runtime: goals: " in output
    assert "Job failed" in output
    assert not sandbox.bucket("krt/cancer-worse.krt")


def test_the_table_of_goals_is_readable_without_the_code(project):
    output = project.run("make", "goals")
    assert output.strip().endswith("8 of 8 goals met")
    for text in ("Time for one biopsy", "A tumour that is overlooked", "not applicable"):
        assert text in output
    assert "Traceback" not in output


def test_a_new_threshold_reruns_no_stage_and_a_missed_goal_fails(project):
    project.edit("params.yaml", "accuracy: 0.95", "accuracy: 0.9999")
    output = project.run("make", "goals", ok=False)
    assert "7 of 8 goals met" in output
    changed = project.dvc(
        "status", "train_standard_classifiers", "train_dnn_pytorch", "export_models"
    )
    assert changed.strip() == "Data and pipelines are up to date."


def test_a_row_in_two_splits_is_found(project):
    folder = project.folder / "data/processed"
    rows, train = np.load(folder / "X_test.npy"), np.load(folder / "X_train.npy")
    rows[3] = train[5]
    (folder / "X_test.npy").unlink()  # it may be a link to the cache
    np.save(folder / "X_test.npy", rows)
    project.run("make", "goals", ok=False)
    assert verdicts(project)["Rows that are in two splits"] == ("missed", "1")


def test_missing_results_are_reported_with_what_to_do(project):
    shutil.rmtree(project.folder / "artifacts/onnx")
    output = project.run("make", "goals", ok=False)
    state, why = verdicts(project)["Size of a model's file"]
    assert (state, why) == (
        "not judged",
        "artifacts/onnx/standard_classifier.onnx is missing: `make run`, or `dvc pull`.",
    )
    assert "5 of 8 goals met" in output


def test_a_goal_that_cannot_be_read_is_not_met(project):
    goals = project.folder / "goals"
    (goals / "more_test.py").write_text("import os\nimport no_such_package\n")
    (goals / "torn_test.py").write_text("<<<<<<< HEAD\n")
    (goals / "wrong_test.py").write_text('def test_it():\n    """Wrong."""\n    {}["key"]\n')
    output = project.run("make", "goals", ok=False)
    found = verdicts(project)
    assert found["more_test.py"] == (
        "not judged",
        "ModuleNotFoundError: No module named 'no_such_package' (goals/more_test.py, line 2)",
    )
    assert found["torn_test.py"][1] == "SyntaxError: invalid syntax (goals/torn_test.py, line 1)"
    assert found["Wrong"][1] == "KeyError: 'key' (goals/wrong_test.py, line 3)"
    assert "8 of 11 goals met" in output


def test_a_goal_that_compares_nothing_is_not_met(project):
    (project.folder / "goals/more_test.py").write_text(
        "def test_nothing(reached):\n    reached({}, at_least=0.9)\n"
        "def test_both(reached):\n    reached({'m': 5.0}, at_least=1, at_most=2)\n"
        "def test_none():\n    assert True\n"
        'def test_brackets(reached):\n    """Share in [low, high]."""\n'
        "    reached({'[/x]': 1.0}, at_least=1)\n"
    )
    output = project.run("make", "goals", ok=False)
    assert "Share in [low, high]" in output
    found = verdicts(project)
    assert found["test_nothing"] == ("not judged", "there is no value to compare")
    assert found["test_both"][0] == found["test_none"][0] == "not judged"
    assert found["test_none"][1] == "it ends without `reached(…)`, which compares"
    assert found["Share in [low, high]"] == ("met", "[/x] 1")


FAILING = """
import pytest

def test_key(reached):
    reached({"test": 0.973}, at_least=0.5)
    reached({"validation": {}["validation"]}, at_least=0.5)

def test_after_a_miss(reached, subtests):
    with subtests.test():
        reached({"test": 0.3}, at_least=0.5)
    raise ValueError("no such split")

def test_in_a_subtest(reached, subtests):
    with subtests.test():
        {}["validation"]
    reached({"test": 0.973}, at_least=0.5)

@pytest.fixture
def model():
    yield
    raise OSError("torn")

def test_at_its_end(model, reached):
    reached({"test": 0.973}, at_least=0.5)

def test_own_failure(reached):
    reached({"test": 0.973}, at_least=0.5)
    pytest.fail("no good")

def test_fixture(metrcs, reached):
    reached(metrcs, at_least=0.5)

def test_threshold(reached):
    from goals.params import Params
    from lib.params import load_params
    from lib.repository import ROOT

    load_params(Params, ROOT / "params.yaml")
"""


def test_a_goal_whose_code_fails_is_not_judged_whatever_it_reached(bare):
    (bare.folder / "goals/own_test.py").write_text(FAILING)
    bare.edit("params.yaml", "  accuracy: ", "  acuracy: ")
    output = bare.run("make", "goals", ok=False)
    assert "0 of 7 goals met" in output
    assert "KeyError: 'validation' (goals/own_test.py, line 6)" in output
    assert verdicts(bare) == {
        "test_key": ("not judged", "KeyError: 'validation' (goals/own_test.py, line 6)"),
        "test_after_a_miss": (
            "not judged",
            "ValueError: no such split (goals/own_test.py, line 11)",
        ),
        "test_in_a_subtest": ("not judged", "KeyError: 'validation' (goals/own_test.py, line 15)"),
        "test_at_its_end": ("not judged", "OSError: torn (goals/own_test.py, line 21)"),
        "test_own_failure": ("not judged", "Failed: no good (goals/own_test.py, line 28)"),
        "test_fixture": (
            "not judged",
            "there is no fixture metrcs: goals/conftest.py has those of goals.",
        ),
        "test_threshold": (
            "not judged",
            "params.yaml: goals.accuracy is missing: write it. params.yaml: goals.acuracy is not "
            f"known: did you mean accuracy? Allowed here: {', '.join(Goals.model_fields)}.",
        ),
    }


# Goals with marks and a skip, which must not hide what was compared.
COMPARING = """
import contextlib
import pytest

def test_swallowed(reached):
    with contextlib.suppress(BaseException):
        reached({"test": 0.3}, at_least=0.5)
    reached({"time": 2.0}, at_most=3, unit="ms")

@pytest.mark.xfail
def test_expected(reached):
    reached({"test": 0.3}, at_least=0.5)

@pytest.mark.xfail
def test_better_than_expected(reached):
    reached({"test": 0.9}, at_least=0.5)

def test_several(reached):
    for name in ("test", "validation"):
        reached({name: 0.9}, at_least=0.5)

def test_skipped(reached):
    reached({"test": 0.9}, at_least=0.5)
    pytest.skip("there is no validation")
"""


def test_the_comparison_decides_whatever_the_outcome_in_pytest(bare):
    (bare.folder / "goals/own_test.py").write_text(COMPARING)
    assert "2 of 4 goals met" in bare.run("make", "goals", ok=False)
    assert verdicts(bare) == {
        "test_swallowed": ("missed", "test 0.3; time 2 ms"),
        "test_expected": ("missed", "test 0.3"),
        "test_better_than_expected": ("met", "test 0.9"),
        "test_several": ("met", "test 0.9; validation 0.9"),
        "test_skipped": ("not applicable", "there is no validation"),
    }
    thresholds = {g["title"]: g["goal"] for g in recorded_goals(bare)}
    assert thresholds["test_swallowed"] == "≥ 0.5; ≤ 3 ms"
    assert thresholds["test_several"] == "≥ 0.5"


VALUES = """
import numpy as np

def test_narrow(reached):
    reached({"test": 0.94996}, at_least=0.95)

def test_narrower(reached):
    reached({"test": 0.95001}, at_least=0.95004)

def test_null(reached):
    reached({"test": None}, at_least=0.5)

def test_text(reached):
    reached({"test": "0.9"}, at_least=0.5)

def test_array(reached):
    reached({"test": np.ones(3)}, at_least=0.5)

def test_no_mapping(reached):
    reached(0.4194, at_least=0.5)

def test_threshold(reached):
    reached({"test": 0.9}, at_least="high")

def test_number_of_numpy(reached):
    reached({"test": np.float32(0.75)}, at_least=np.float64(0.5))

def test_classes(reached):
    reached({"right": 1.0} | dict.fromkeys("abcdefghi", 1.0) | {"\\u202eleft": 0}, at_least=0.5)
"""


def test_close_values_are_shown_exactly_and_only_numbers_are_compared(bare):
    (bare.folder / "goals/own_test.py").write_text(VALUES)
    assert "1 of 9 goals met" in bare.run("make", "goals", ok=False)
    thresholds = {g["title"]: g["goal"] for g in recorded_goals(bare)}
    assert (thresholds["test_narrow"], thresholds["test_narrower"]) == ("≥ 0.95", "≥ 0.95004")
    assert verdicts(bare) == {
        "test_narrow": ("missed", "test 0.94996"),
        "test_narrower": ("missed", "test 0.95001"),
        "test_null": ("not judged", "test has no value: it is null in its metrics file"),
        "test_text": ("not judged", "test is '0.9', not a number"),
        "test_array": ("not judged", "test is array([1., 1., 1.]), not a number"),
        "test_no_mapping": ("not judged", "reached takes {name: value}, and got 0.4194"),
        "test_threshold": ("not judged", "the threshold is 'high', not a number"),
        "test_number_of_numpy": ("met", "test 0.75"),
        "test_classes": (
            "missed",
            f"\\u202eleft 0, right 1, {', '.join(f'{name} 1' for name in 'abcdefgh')} and 1 more",
        ),
    }


@pytest.mark.parametrize(
    ("ends", "code"),
    [("os._exit(0)", 0), ("os.abort()", -6), ("pytest.exit('enough', returncode=0)", 0)],
)
def test_a_goal_that_ends_python_is_reported_and_no_goal_is_met(bare, ends, code):
    (bare.folder / "goals/own_test.py").write_text(
        "import os\nimport pytest\n"
        "def test_one(reached):\n    reached({'m': 1.0}, at_least=0.5)\n"
        f"def test_two(reached):\n    {ends}\n"
        "def test_three(reached):\n    reached({'m': 0.1}, at_least=0.5)\n"
    )
    error = f"No verdict on the goals: pytest ended with exit code {code} before all"
    output = bare.run("make", "goals", ok=False)
    assert error in output
    assert "goals met" not in output


def test_results_must_not_be_worse_than_the_best_on_main(project):
    title = "Log loss above the best that the same model had on main"
    reason = "main has no result to compare with yet"
    project.run("make", "goals")
    assert verdicts(project)[title] == ("not applicable", reason)
    project.git("branch", "main")
    file = project.folder / "metrics/train_dnn_pytorch.json"
    better = json.loads(file.read_text())
    better["test"]["log_loss"] = 0.001
    now = file.read_text()
    file.write_text(json.dumps(better))
    project.git("checkout", "--quiet", "main")
    project.commit("Better once")
    file.write_text(now)
    project.commit("And worse again")
    for odd in ("<<<<<<< HEAD\n", '{"test": 0.1}', "[]"):
        file.write_text(odd)
        project.commit("A file that is no longer read")
    file.write_text(now)
    project.commit("As before")
    project.git("checkout", "--quiet", "--detach")
    project.run("make", "goals", ok=False)
    state, reached = verdicts(project)[title]
    assert state == "missed"
    assert "densenet 0.0" in reached


def test_a_shallow_clone_compares_with_the_commits_it_has(project, tmp_path):
    project.git("branch", "main")
    project.git("clone", "--quiet", "--depth", "1", f"file://{project.folder}", str(tmp_path / "s"))
    for name in ("data", "artifacts"):
        shutil.copytree(project.folder / name, tmp_path / "s" / name, dirs_exist_ok=True)
    assert "9 of 9 goals met" in Project.at(tmp_path / "s").run("make", "goals")


def test_a_project_with_another_pipeline_is_not_judged_by_these_goals(project):
    (project.folder / "dvc.yaml").write_text("stages: {}\n")
    assert "no goal applies" in project.run("make", "goals")


@pytest.mark.parametrize("name", ["models/speed_test.py", "test_speed.py"])
def test_a_goal_is_judged_wherever_pytest_finds_it(project, name):
    (project.folder / "goals/results_test.py").unlink()
    file = project.folder / "goals" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("def test_goal(reached):\n    reached({'rate': 1.0}, at_least=0.5)\n")
    output = project.run(*JUDGE)
    assert "1 of 1 goals met" in output


def test_goals_are_judged_in_a_folder_whose_name_has_brackets(bare, tmp_path):
    project = bare.copied(tmp_path / "beside" / "churn [old]")
    text = "def test_goal(reached):\n    reached({'rate': 1.0}, at_least=0.5)\n"
    (project.folder / "goals/own_test.py").write_text(text)
    assert "1 of 1 goals met" in project.run("make", "goals")


def test_a_project_without_goals_gets_a_message(project):
    (project.folder / "goals/results_test.py").unlink()
    assert "There are no goals in goals/ yet" in project.run("make", "goals")
    assert "nothing to judge" in project.run(*JUDGE)
    assert "No goals were judged." in project.run(*JUDGE, "--verdict")


def test_goals_that_crash_are_reported_and_results_are_still_shared(project):
    (project.folder / "goals/conftest.py").write_text("raise SystemError('broken')\n")
    project.run(*JUDGE)
    output = project.run(*JUDGE, "--verdict", ok=False)
    assert "goals could not be judged" in output
    assert "Traceback" not in output


HANGS = """import pathlib, time
def test_hangs(reached):
    pathlib.Path("hangs").touch()
    time.sleep(600)
"""


FAILS = """def test_fails(reached):
    raise FileNotFoundError("no such folder: x")
"""


def test_goals_that_do_not_end_are_not_met(bare):
    (bare.folder / "goals/results_test.py").write_text(HANGS)
    with bare.start(*JUDGE):
        wait_for((bare.folder / "hangs").exists)
    output = bare.run(*JUDGE, "--verdict", ok=False)
    assert "The results are kept, but goals could not be judged: they were stopped" in output
    (bare.folder / ".dvc/tmp/run.json").unlink()
    output = bare.run(*JUDGE, "--verdict", ok=False)
    assert "No goals were judged: the log of the step `Judge goals` says why." in output


def test_options_for_pytest_leave_out_no_goal(bare):
    (bare.folder / "goals/results_test.py").write_text(FAILS)
    output = bare.run("make", "goals", ok=False, PYTEST_ADDOPTS="-k nothing")
    assert "0 of 1 goals met" in output
    assert "no such folder" in output


# ---- into production; last, because it creates a branch main


def test_good_results_are_merged_released_and_rehearsed_after_download(sandbox, good, tmp_path):
    sandbox.branch = "main"
    sandbox.git("checkout", "--quiet", "-B", "main", sandbox.base)
    sandbox.push()
    sandbox.git("merge", "--quiet", "--no-ff", "--no-edit", "good")
    try:
        merged = sandbox.project.run("git", "push", "sandbox", "main")
        assert "champion is " in merged
        assert "Job succeeded" in merged
        registered = sandbox.versions("densenet")
        md5 = hashlib.md5((sandbox.project.folder / "artifacts/onnx/densenet.onnx").read_bytes())
        assert registered["champion"]["dvc.md5"] == md5.hexdigest()
        assert registered["champion"]["git.commit"] == sandbox.git("rev-parse", "good~1")
        assert registered["candidate"]["version"] != registered["champion"]["version"], (
            "the newest model is the worse one"
        )
        _, output = sandbox.tag("run-example-on-main")
        assert re.search(r"champion is .*-densenet version", output), (
            "the results are on main already"
        )
        tag, output = sandbox.tag("runtime-v1")
        assert "9 of 9 goals met" in output
        assert "| rehearsal | 11 passed" in sandbox.summary(tag)
        assert "Job succeeded" in output
        content = sandbox.bucket("krt/cancer-v1.krt")
        assert hashlib.sha256(content).hexdigest() in output
        (tmp_path / "downloaded.krt").write_bytes(content)
        rehearse = ("make", "rehearse", f"FILE={tmp_path}/downloaded.krt")
        assert "11 passed" in sandbox.project.run(*rehearse)
        with tarfile.open(tmp_path / "downloaded.krt") as archive:
            model = archive.extractfile("assets/model.onnx").read()
            readme = archive.extractfile("docs/README.md").read().decode()
        assert model == (sandbox.project.folder / "artifacts/onnx/densenet.onnx").read_bytes()
        assert sandbox.tip() in readme
        _, output = sandbox.tag("runtime-cancer-v1", f"{tag}^{{commit}}")
        assert "Job succeeded" in output, "the same version and commit give the same bytes"
        (sandbox.project.folder / "notes.md").write_text("another commit\n")
        sandbox.commit("More")
        sandbox.git("tag", "--delete", "runtime-cancer-v1")
        sandbox.origin("tag", "--delete", "runtime-cancer-v1")
        _, output = sandbox.tag("runtime-cancer-v1")
        assert "is there already with other content, and a release is never replaced" in output
        assert sandbox.bucket("krt/cancer-v1.krt") == content
    finally:
        sandbox.git("checkout", "--quiet", "--force", "good")


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("runtime-V1.0", "version is 'cancer-V1.0': the engine wants"),
        (
            "runtime-$(touch${IFS}pwned);'v1",
            "has characters that are not letters, digits or one of",
        ),
    ],
)
def test_a_tag_without_a_valid_version_is_refused_with_a_reason(sandbox, good, tag, reason):
    if not sandbox.origin("branch", "--list", "main"):
        sandbox.git("push", "--quiet", "sandbox", "good:refs/heads/main")
    _, output = sandbox.tag(tag)
    assert reason in output
    assert "Job failed" in output
