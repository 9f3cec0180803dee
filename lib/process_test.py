"""A failing process ends with the message of a UserError, or with a traceback of its own code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unittest

ROOT = Path(__file__).resolve().parent.parent
MAIN = """
from lib.files import read_json
from lib.params import Section
from lib.process import start


class Params(Section):
    random_seed: int


def compute(params):
    {line}


start(compute, Params)
"""


def ended(folder, line):
    """The exit code and the errors of a process with this line in it."""
    (folder / "count_rows").mkdir()
    (folder / "params.yaml").write_text("random_seed: 1\n")
    main = folder / "count_rows/main.py"
    main.write_text(MAIN.format(line=line))
    done = subprocess.run(
        [sys.executable, main],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ('read_json("missing.json")', "FileNotFoundError: "),
        ("raise ValueError from KeyError('first')", "KeyError: 'first'"),
    ],
)
def test_a_traceback_begins_at_the_authors_own_line(tmp_path, line, error):
    code, output = ended(tmp_path, line)
    assert code == 1
    first, *rest = output.splitlines()
    assert first == "count_rows: main.py failed."
    assert error in output
    shown = [text for text in rest if text.startswith("  File ")]
    assert "count_rows/main.py" in shown[0]
    assert f"    {line}" in rest
    assert "lib/process.py" not in output


def test_an_unreadable_file_is_a_one_line_error(tmp_path):
    (tmp_path / "data.json").write_text("{\n<<<<<<< HEAD\n")
    code, output = ended(tmp_path, 'read_json("data.json")')
    assert code == 1
    assert output.startswith("count_rows: data.json, line 2: not JSON (")
    assert len(output.splitlines()) == 1
