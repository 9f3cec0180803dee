"""dvc.lock names what results were made from, whatever is edited while a stage runs."""

import json
import subprocess
import threading
import time
from pathlib import Path

import dvc.stage.run
import pytest
from dvc.exceptions import DvcException, ReproductionError
from dvc.repo import Repo

from lib.params import read_yaml
from lib.revisions import Revision
from tools.job import inputs

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:pygtrie"),  # as DVC calls it
    pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning"),
]


class AtBegin(threading.Thread):
    """Replaces a timer: calls `look` when the process, which then waits, says that it began."""

    def __init__(self, _seconds, look):
        super().__init__(daemon=True)
        self.look, self.ended = look, False

    def run(self):
        while not (self.ended or Path("begun").exists()):
            time.sleep(0.01)
        if not self.ended:
            self.look()
            Path("seen").touch()

    def cancel(self):
        self.ended = True


LATER = "touch begun; while [ ! -e seen ]; do sleep 0.05; done"


@pytest.fixture
def work_tree(tmp_path, monkeypatch):
    """A repository with files that a stage may read."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (tmp_path / "src").mkdir()
    for name, text in (("params.yaml", "a: 1\nb: 1\n"), ("src/k.py", "1\n"), ("n.ipynb", "1\n")):
        (tmp_path / name).write_text(text)
    (tmp_path / "rows.csv").write_text("1\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "params.yaml", "src", "n.ipynb"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)  # where DVC looks for stages
    monkeypatch.setattr(inputs, "Timer", AtBegin)
    guarded = inputs.recording_inputs(dvc.stage.run.cmd_run)
    monkeypatch.setattr(dvc.stage.run, "cmd_run", guarded)
    return tmp_path


def reproduce(folder, *scripts):
    """Run a stage with these scripts as its commands: the stages that ran."""
    for number, script in enumerate(scripts):
        (folder / f"{number}.sh").write_text(script)
    stage = {
        "cmd": [f"sh {number}.sh" for number in range(len(scripts))],
        "deps": ["src", "n.ipynb", "rows.csv"],
        "params": ["a"],
        "outs": ["made"],
    }
    (folder / "dvc.yaml").write_text(json.dumps({"stages": {"slow": stage}}))
    with Repo(str(folder)) as repo:
        return [stage.name for stage in repo.reproduce("slow")]


@pytest.mark.parametrize(
    ("script", "changed"),
    [
        (f"cp params.yaml made; {LATER}; echo a: 2 > params.yaml", "a"),
        (f"cp src/k.py made; {LATER}; echo 2 > src/k.py", "src"),
        (f"cp src/k.py made; {LATER}; rm src/k.py", "src"),
    ],
    ids=["parameter", "code", "code removed"],
)
def test_a_later_edit_counts_for_the_next_run(work_tree, script, changed):
    assert reproduce(work_tree, script) == ["slow"]
    assert read_yaml(work_tree / "dvc.lock")["stages"]["slow"]["params"]["params.yaml"] == {"a": 1}
    (line,) = Revision("", work_tree).outdated
    assert f"has not run since {changed} changed" in line


@pytest.mark.parametrize(
    "scripts",
    [
        ["echo a: 2 > params.yaml; cp params.yaml made"],
        [f"echo a: 2 > params.yaml; cp params.yaml made; {LATER}; echo a: 3 > params.yaml"],
        [f"echo 2 > src/k.py; cp src/k.py made; {LATER}"],
        [f"{LATER}; echo a: 2 > params.yaml", "cp params.yaml made"],
    ],
    ids=["parameter", "parameter, also later", "code", "between two commands"],
)
def test_a_stage_fails_if_its_inputs_are_edited_as_it_starts(work_tree, scripts):
    with pytest.raises(ReproductionError) as raised:
        reproduce(work_tree, *scripts)
    assert isinstance(raised.value.__cause__, DvcException)
    assert "was edited while slow ran, by somebody or by the stage itself" in str(
        raised.value.__cause__
    )
    assert (work_tree / "made").exists(), "nothing is lost"
    assert not (work_tree / "dvc.lock").exists()


@pytest.mark.parametrize(
    "script",
    [
        "cp params.yaml made; printf 'a: 1\\nb: 2\\n' > params.yaml",
        "echo 2 > n.ipynb; cp n.ipynb made",
        "echo 2 > src/made.log; cp src/k.py made",
    ],
    ids=["another parameter", "a notebook executed in place", "a file that is not in git"],
)
def test_what_a_stage_does_not_read_at_its_start_is_recorded_at_its_end(work_tree, script):
    assert reproduce(work_tree, script) == ["slow"]
    assert Revision("", work_tree).outdated == []
    assert reproduce(work_tree, script) == [], "it is up to date"


def test_data_that_change_while_a_stage_runs_cause_a_warning(work_tree, capfd):
    assert reproduce(work_tree, "cp rows.csv made") == ["slow"]
    assert "WARNING" not in capfd.readouterr().err
    (work_tree / "rows.csv").write_text("2\n")
    assert reproduce(work_tree, "echo 3 >> rows.csv; cp rows.csv made") == ["slow"]
    assert "WARNING: rows.csv changed while slow ran. Its results may" in capfd.readouterr().err
