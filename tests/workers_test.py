"""A process on several workers: their start, reports of failures, and `make train`."""

import json
import os
import re
import signal
import time

import pytest

from lib.params import read_yaml
from tests.conftest import Project

LAUNCH = "import sys; from tools.workers import launch; sys.exit(launch(2, sys.argv[1:]))"
# All in one interpreter: torch's launcher takes seconds to import.
LAUNCH_EACH = """
import json, sys
from tools.workers import launch
for number, what in json.loads(sys.argv[2]):
    print("exit code", launch(2, [sys.argv[1], number, what]), flush=True)
"""
# What happens to the worker with that number; the other one waits for it, as in a training.
PROGRAM = """
import os, signal, sys, time
number, what = sys.argv[1:]
print("worker", os.environ["RANK"], flush=True)
shown = "shown-" + os.environ["TORCHELASTIC_RUN_ID"]
if os.environ["RANK"] == "0":
    open(shown, "w").close()
while not os.path.exists(shown):  # what ends another worker may end this one before it is seen
    time.sleep(0.01)
if os.environ["RANK"] == number:
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(0 if what == "nothing" else "train_model: rows are missing.")
if what == "interrupted":
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))  # as lib.process ends
if what == "lost":
    time.sleep(1)
    sys.exit(86)
if what == "all lost":
    with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w") as file:  # as lib.distributed does
        file.write('{"message": "[gloo/pair.cc:547] Connection closed"}')
    sys.exit(86)
time.sleep(0 if what == "nothing" else 60)
"""
LAUNCHED = (
    ("1", "nothing"),
    ("0", "killed"),
    ("1", "killed"),
    ("0", "mistaken"),
    ("1", "mistaken"),
    ("1", "lost"),
    ("no", "all lost"),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("workers"))


@pytest.fixture(scope="module")
def launched(project):
    """The printed lines of each of LAUNCHED, and its exit code."""
    command = ("tools/within", "--dev", ".", "python", "-P", "-c", LAUNCH_EACH, "program.py")
    (project.folder / "program.py").write_text(PROGRAM)
    output = project.run(*command, json.dumps(LAUNCHED), PYTHONPATH=str(project.folder))
    *runs, rest = re.split(r"(?m)^exit code (\d+)\n", output)
    assert rest == "", output
    ends = [(text.splitlines(), int(code)) for text, code in zip(*[iter(runs)] * 2, strict=True)]
    return dict(zip(LAUNCHED, ends, strict=True))


def test_only_the_first_worker_prints(launched):
    assert launched["1", "nothing"] == (["worker 0"], 0)


@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_worker_is_reported_in_one_line(launched, number):
    expected = [
        "worker 0",
        f"worker {number + 1} of 2 was killed (SIGKILL). Most often the machine was out of memory. "
        "Start it again: it goes on from its last checkpoint.",
    ]
    assert launched[str(number), "killed"] == (expected, 1)


@pytest.mark.parametrize(("number", "what"), [(0, "mistaken"), (1, "mistaken"), (1, "lost")])
def test_a_mistake_of_any_worker_is_reported_once(launched, number, what):
    expected = ["worker 0", "train_model: rows are missing."]
    assert launched[str(number), what] == (expected, 1)


def test_if_all_workers_lost_another_torchs_message_is_shown(launched):
    output, code = launched["no", "all lost"]
    assert (output[0], code) == ("worker 0", 1)
    assert output[1].endswith(
        " of 2 ended: [gloo/pair.cc:547] Connection closed. Start it again: it goes "
        "on from its last checkpoint."
    )
    assert len(output) == 2


def test_ctrl_c_ends_all_silently(project):
    (project.folder / "program.py").write_text(PROGRAM)
    command = ("tools/within", "--dev", ".", "python", "-P", "-c", LAUNCH, "program.py")
    python_path = str(project.folder)
    with project.start(*command, "no", "interrupted", PYTHONPATH=python_path) as process:
        assert process.stdout
        assert process.stdout.readline() == "worker 0\n"
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")


WITH_WORKERS = """
from lib import distributed
import os
print("worker", os.environ.get("RANK"), distributed.__name__)
"""


def test_two_workers_start_however_a_process_imports_its_modules(project, tmp_path):
    project = project.copied(tmp_path / "copy")
    folder = project.folder / "lab/processes/train_dnn_pytorch"
    (folder / "main.py").write_text(WITH_WORKERS)
    params = (folder / "params.py").read_text()
    (folder / "params.py").write_text(params.replace("    workers: AtOnce\n", ""))
    project.edit("params.yaml", "  workers: 1  # processes", "  workers: 2  # processes")
    output = project.run("lab/processes/run", "train_dnn_pytorch")
    assert "worker 0 lib.distributed" in output


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "params.yaml: the file is empty: it must be"),
        ("a: [", "params.yaml is not YAML (line 2: "),
    ],
)
def test_unreadable_parameters_are_reported_in_one_line(project, tmp_path, text, why):
    project = project.copied(tmp_path / "copy")
    (project.folder / "params.yaml").write_text("# workers\n" + text)
    output = project.run("lab/processes/run", "train_dnn_pytorch", ok=False)
    assert f"train_dnn_pytorch: {why}" in output
    assert "Traceback" not in output


def test_make_train_saves_the_number_and_two_workers_match_one(finished, tmp_path):
    project = finished.copied(tmp_path / "copy")
    metrics = project.folder / "metrics/train_dnn_pytorch.json"
    one = read_yaml(metrics)
    original = (project.folder / "params.yaml").read_text()
    output = project.run("make", "train", "WORKERS=2")
    edited = (project.folder / "params.yaml").read_text()
    assert edited == original.replace("  workers: 1  # processes", "  workers: 2  # processes")
    assert read_yaml(project.folder / "params.yaml")["train_dnn_pytorch"]["workers"] == 2
    assert output.count("best epoch: ") == 1
    assert project.dvc("status", "train_dnn_pytorch").strip().endswith("up to date.")
    two = read_yaml(metrics)
    assert two["best_epoch"] == one["best_epoch"]
    for split in ("validation", "test"):
        assert two[split] == pytest.approx(one[split], abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "WORKERS is '': it must be a number such as 2."),
        (["WORKERS=none"], "WORKERS is 'none': it must be a number such as 2."),
        (
            ["WORKERS=2", "NAME=prepare_data"],
            "NAME is 'prepare_data': the stages that have workers",
        ),
        (
            ["WORKERS=2"],
            "data/processed is not here, which train_dnn_pytorch reads: `make run`, or",
        ),
    ],
)
def test_bad_arguments_of_make_train_fail(project, arguments, why):
    assert why in project.run("make", "train", *arguments, ok=False)


def test_a_mistake_in_the_parameters_loses_no_result_of_make_train(project, tmp_path):
    project = project.copied(tmp_path / "copy")
    project.edit("params.yaml", "  lr: 0.001", "  lr: -7")
    output = project.run("make", "train", "WORKERS=2", ok=False)
    assert output.count("train_dnn_pytorch.lr is -7") == 1
    assert (project.folder / "metrics/train_dnn_pytorch.json").exists()
