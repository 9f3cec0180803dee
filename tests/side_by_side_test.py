"""Independent stages run in parallel: `make run JOBS=2`, and JOBS in a run."""

import json
import os
import signal
import time

import pytest

from lib.params import read_yaml
from tests.conftest import Project, interrupted
from tools.job.job import run_live

EXPERIMENT = ("tools/within", ".", "python", "-m", "tools.job.experiment")
SIDE_BY_SIDE = ("tools/within", ".", "python", "-m", "tools.job.side_by_side")
# Each waits until the other has begun; one by one, the first would fail.
MEET = "touch begun-{0}; for i in $(seq 300); do [ ! -e begun-{1} ] || break; sleep 0.1; done; "
MEET += "[ -e begun-{1} ] && echo {0} > {0}.txt"
# Fails if two of them run at once.
ALONE = "mkdir busy && sleep 0.5 && rmdir busy && echo {0} > {0}.txt"


def stage(name, cmd, *deps, **more):
    return {name: {"cmd": cmd, "deps": list(deps), "outs": [f"{name}.txt"]} | more}


DIAMOND = (
    stage("top", "cat rows.csv > top.txt", "rows.csv")
    | stage("left", MEET.format("left", "right"), "top.txt")
    | stage("right", MEET.format("right", "left"), "top.txt")
    | stage("end", "cat left.txt right.txt > end.txt", "left.txt", "right.txt")
)


def test_background_processes_of_a_command_do_not_delay_it():
    started, seen = time.monotonic(), []
    script = "sleep 60 & echo $!; printf 'no end of a line'; exit 3"
    assert run_live(["sh", "-c", script], seen.append) == 3
    assert time.monotonic() - started < 30
    left, last = seen
    assert last == "no end of a line"
    os.kill(int(left), signal.SIGKILL)


def test_an_error_while_showing_lines_is_raised_and_ends_the_command():
    def show(_):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_live(["yes"], show)


@pytest.fixture(scope="module")
def empty_project(tmp_path_factory):
    """A project whose pipeline has no stages, with data added to it."""
    folder = tmp_path_factory.mktemp("side by side") / "a projëct"
    project = Project(folder)
    project.give_pipeline("stages: {}\n")
    (folder / "rows.csv").write_text("a\n1\n")
    project.dvc("add", "rows.csv")
    project.commit("rows")
    remote = "[core]\n    remote = here\n['remote \"here\"']\n    url = ../remote\n"
    (folder / ".dvc/config.local").write_text(remote)
    return project


@pytest.fixture
def project(empty_project, tmp_path):
    return empty_project.copied(tmp_path / "copy")


def give(project, stages):
    (project.folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))


def side_by_side(project, jobs="2", ok=True, **extra):
    return project.run(*SIDE_BY_SIDE, jobs, "dvc.yaml", ok=ok, **extra)


def test_independent_stages_run_at_once_and_leave_the_same_lock(project, tmp_path):
    give(project, DIAMOND)
    alone = project.copied(tmp_path / "alone")
    for name in ("left", "right"):
        (alone.folder / f"begun-{name}").touch()
    alone.dvc("repro")
    output = side_by_side(project)
    assert "left | Running stage 'left':" in output
    lock = (project.folder / "dvc.lock").read_bytes()
    assert lock == (alone.folder / "dvc.lock").read_bytes()
    again = side_by_side(project)
    assert "Running" not in again
    assert again.count("didn't change, skipping") == 4
    assert (project.folder / "dvc.lock").read_bytes() == lock


def test_a_lock_with_yaml_aliases_of_dvc_is_read(project):
    listed = ["train_dnn_pytorch", "train_dnn_pytorch.hidden"]  # a section, and a list in it
    give(project, stage("first", "echo 1 > first.txt", params=listed))
    side_by_side(project)
    assert "*" in (project.folder / "dvc.lock").read_text()
    assert "didn't change, skipping" in side_by_side(project)


def test_frozen_imported_and_always_changed_stages_run_as_one_by_one(project, tmp_path):
    outside = tmp_path / "outside.csv"
    outside.write_text("a\n1\n")
    project.dvc("import-url", str(outside), "imported.csv")
    stages = (
        stage("kept", "cat rows.csv > kept.txt", "rows.csv")
        | stage("asked", "echo a >> ../asked; cat rows.csv > asked.txt", always_changed=True)
        | stage("both", "cat kept.txt imported.csv > both.txt", "kept.txt", "imported.csv")
    )
    give(project, stages)
    project.dvc("repro")
    stages["kept"]["frozen"] = True
    give(project, stages)
    (project.folder / "rows.csv").write_text("a\n3\n")
    outside.write_text("a\n2\n")
    alone = project.copied(tmp_path / "alone")
    asked = tmp_path / "asked"
    asked.unlink()
    alone.dvc("repro")
    output = side_by_side(project)
    assert asked.read_text() == "a\na\n", "once in each project"
    for name in ("dvc.lock", "both.txt", "imported.csv.dvc"):
        assert (project.folder / name).read_bytes() == (alone.folder / name).read_bytes()
    assert "kept | Running" not in output
    del stages["kept"]["frozen"]
    for each in (project, alone):
        give(each, stages)
    alone.dvc("repro", "--all-pipelines")
    side_by_side(project)
    assert (project.folder / "both.txt").read_text() == "a\n3\na\n1\n", "imported data are frozen"
    assert (project.folder / "dvc.lock").read_bytes() == (alone.folder / "dvc.lock").read_bytes()


def test_stages_of_one_pool_never_overlap(project):
    pool = {"meta": {"pool": "gpu"}}
    give(project, {k: v for n in "abc" for k, v in stage(n, ALONE.format(n), **pool).items()})
    side_by_side(project, jobs="3")
    assert list(read_yaml(project.folder / "dvc.lock")["stages"]) == ["a", "b", "c"]


def test_a_stage_name_with_leading_dashes_is_not_an_option(project):
    give(project, {"--help": {"cmd": "echo 1 > 1.txt", "outs": ["1.txt"]}})
    assert "--help | Running stage '--help':" in side_by_side(project)


def test_other_stages_finish_and_a_failure_is_reported_once(project):
    stages = stage("early", "echo no such column | tee ../failed; false") | stage(
        "after", "echo after > after.txt", "early.txt"
    )
    late = "while [ ! -e ../failed ]; do sleep 0.1; done; sleep 1; echo late > late.txt"
    give(project, stages | stage("late", late))
    output = side_by_side(project, ok=False)
    assert (project.folder / "late.txt").read_text() == "late\n"
    assert not (project.folder / "after.txt").exists()
    assert output.splitlines()[-1] == (
        "ERROR: failed: early (the cause is above). Skipped, as they depend on it: after. "
        "All others are done: fix it and run again, they are not run twice."
    )
    assert output.count("failed to reproduce") == 1
    assert "Traceback" not in output
    give(project, stages | stage("early", "echo early > early.txt") | stage("late", late))
    output = side_by_side(project)
    assert "Stage 'late' didn't change, skipping" in output
    assert (project.folder / "after.txt").exists()


def test_an_unreachable_dep_fails_only_its_stage(project):
    far = stage("far", "echo far > far.txt", "s3://bucket/rows.csv")
    give(project, far | stage("near", "echo near > near.txt", "rows.csv"))
    no_credentials = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    output = side_by_side(project, ok=False, AWS_EC2_METADATA_DISABLED="true", **no_credentials)
    assert "failed: far (the cause is above)" in output
    assert "Traceback" not in output
    assert (project.folder / "near.txt").exists()


@pytest.mark.parametrize("command", [(*SIDE_BY_SIDE, "2", "dvc.yaml"), EXPERIMENT])
def test_an_interrupt_ends_stages_without_a_traceback(project, command):
    first = stage("first", "echo 1 > first.txt")
    give(project, first | stage("long", "touch begun; sleep 300", "first.txt"))
    process = project.start(*command, JOBS="2")
    assert "Traceback" not in interrupted(process, project.folder / "begun")
    assert process.returncode == 130
    if command == EXPERIMENT:
        note = json.loads((project.folder / ".dvc/tmp/run.json").read_text())
        assert note["stages"].pop("first").keys() == {"state", "seconds"}, "it has ended"
        assert note["stages"] == {"long": {"state": "did not end"}}


@pytest.mark.parametrize("jobs", ["0", "two", "-1", "", "1.5"])
def test_an_invalid_number_of_jobs_is_reported(project, jobs):
    output = side_by_side(project, jobs, ok=False)
    assert f"ERROR: JOBS is {jobs!r}: it must be how many stages may run at once" in output


def test_an_unreadable_pipeline_is_reported(project):
    (project.folder / "dvc.yaml").write_text("stages:\n  count: [\n")
    output = side_by_side(project, ok=False)
    assert "ERROR: DVC cannot read the pipeline: unable to read: 'dvc.yaml'" in output
    assert "(line 3: " in output
    assert "Traceback" not in output
    give(project, stage("far", "true", "gs://bucket/rows.csv"))
    output = side_by_side(project, ok=False)
    assert "ERROR: DVC cannot read the pipeline: gs is supported, but requires" in output


def test_a_run_by_tag_has_parallel_stages_too(project):
    give(project, DIAMOND)
    project.run(*EXPERIMENT, JOBS="2")
    note = json.loads((project.folder / ".dvc/tmp/run.json").read_text())
    states = {name: each["state"] for name, each in note["stages"].items() if "csv" not in name}
    assert states == dict.fromkeys(DIAMOND, "ran")
    assert all(note["stages"][name]["seconds"] > 0 for name in DIAMOND)
    broken = {"left": "echo no such column; exit 3", "right": "echo no such row; exit 4"}
    give(project, DIAMOND | {k: v for n, c in broken.items() for k, v in stage(n, c).items()})
    page = project.folder / "page.md"
    project.run(*EXPERIMENT, ok=False, JOBS="2", GITHUB_STEP_SUMMARY=str(page))
    text = page.read_text()
    assert "Stage left failed: no such column (exit code 3)" in text
    assert "Stage right failed: no such row (exit code 4)" in text
    note = json.loads((project.folder / ".dvc/tmp/run.json").read_text())
    assert note["stages"]["left"]["state"] == note["stages"]["right"]["state"] == "failed"
