"""Where make takes its arguments from, and what it lists."""

import re
import socket
import subprocess

import pytest

from lib.errors import UserError
from tests.conftest import ROOT, Project
from tools.ray_node import check_port

pytestmark = pytest.mark.integration

TARGETS = {
    "start": ["TEMPLATE"],
    "environments": ["FOLDERS"],
    "settings": ["SET"],
    "process": ["NAME", "AFTER"],
    "run": ["PIPELINE"],
    "compare": ["A", "B"],
    "milestone": ["NAME"],
    "test": ["WORKERS"],
    "lock": ["FOLDERS"],
    "ui": ["PORT"],
    "runtime-check": ["FILE"],
    "runtime": ["NAME", "VERSION"],
    "rehearse": ["FILE", "NAME"],
    "serve": ["FILE", "NAME", "PORT"],
    "clean": ["DAYS"],
}
ARGUMENTS = sorted({"ANYWAY", *(name for names in TARGETS.values() for name in names)})


@pytest.mark.parametrize("target", TARGETS)
def test_arguments_come_from_the_command_line_not_the_environment(target):
    project = Project.at(ROOT)
    environment = {name: f"environments-{name}" for name in ARGUMENTS}
    plain = project.run("make", "--dry-run", target)
    assert project.run("make", "--dry-run", target, **environment) == plain
    given = [f"{name}=given-{name}" for name in TARGETS[target]]
    commands = project.run("make", "--dry-run", target, *given, **environment)
    assert all(f"given-{name}" in commands for name in TARGETS[target]), commands


@pytest.mark.parametrize("misspelled", ["STAGE", "a", "NAME", "WORKERS"])
def test_an_argument_that_a_target_does_not_take_is_refused(misspelled):
    output = Project.at(ROOT).run(
        "make", "--dry-run", "tune", f"{misspelled}=x", ok=False, MAKELEVEL="0"
    )
    assert f"{misspelled}= is not an argument of `make tune`, which takes STAGES;" in output
    assert "tools/within" not in output


def test_each_argument_that_a_target_reads_is_in_its_description():
    files = [ROOT / "Makefile", *ROOT.glob("tools/*/targets.mk")]
    text = "\n".join(file.read_text() for file in files).replace("\\\n", "")
    targets = re.findall(r"(?m)^([a-z-]+):.*## (.*)\n((?:\t.*\n)*)", text)
    assert len(targets) > 30
    for target, described, recipe in targets:
        read = {name for name in ARGUMENTS if re.search(rf"[(,]{name}[),]", recipe)}
        assert {name for name in read if not re.search(rf"\b{name}=", described)} == set(), target


def test_no_function_of_make_has_a_number_sign():
    """Before 4.3, and a Mac has 3.81, make takes it for the beginning of a comment."""
    for file in (ROOT / "Makefile", *ROOT.glob("tools/*/targets.mk")):
        for line in file.read_text().splitlines():
            assert line[:1] == "\t" or "#" not in line.partition("$(")[2], line


def test_arguments_of_several_targets_are_taken_together():
    output = Project.at(ROOT).run("make", "--dry-run", "run", "test", "JOBS=2", "WORKERS=4")
    assert "side_by_side '2'" in output
    assert "pytest -n 4" in output


def test_windows_line_endings_are_reported_in_one_line(tmp_path):
    for name in ("Makefile", "tools/environments/bootstrap"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes().replace(b"\n", b"\r\n"))
    output = Project.at(tmp_path).run("make", "doctor", ok=False)
    assert "the files have Windows line endings (CRLF)" in output
    assert len(output.splitlines()) == 1


def test_without_a_git_repository_make_says_what_creates_it(tmp_path):
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    hint = "this folder is no git repository yet, which most commands need: `make start` makes it"
    assert hint in Project.at(tmp_path).run("make", "--dry-run", "run")
    assert hint not in Project.at(tmp_path).run("make", "--dry-run", "start")
    (tmp_path / ".git").touch()  # a file, as in git's linked work trees
    assert hint not in Project.at(tmp_path).run("make", "--dry-run", "run")


@pytest.mark.parametrize("text", ['a "b" c', "it's", "`touch made`", "$(touch made) $HOME", "a\\b"])
def test_arguments_reach_their_command_as_typed(tmp_path, text):
    output = Project.at(ROOT).run("make", "--dry-run", "compare", f"A={text}")
    command = next(line for line in output.splitlines() if "tools.report.compare" in line)
    shell = ["sh", "-c", command.replace("tools/within", 'printf "%s\\n"', 1)]
    printed = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert f"--from={text}" in printed.splitlines()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("port", "why"),
    [
        *((port, "it must be a whole number") for port in ("", "0", "x", "-1", "6 379", "06379")),
        *((port, "it must be a whole number") for port in ("65536", "9" * 30, "²")),
        *((port, "which Ray uses itself") for port in ("8265", "10002", "19999")),
    ],
)
def test_invalid_ray_ports_are_refused_in_one_line(port, why):
    with pytest.raises(UserError, match=f"^RAY_PORT is .*{why}"):
        check_port(port)


def test_a_port_in_use_is_reported_without_a_traceback():
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        output = Project.at(ROOT).run("make", "ray-head", f"RAY_PORT={port}", ok=False)
    assert f"RAY_PORT is {port}: " in output
    assert "Traceback" not in output


@pytest.mark.parametrize("address", ["", "10.0.0.5", "a b", "6379", "http://h:1", "127.0.0.1:1"])
def test_addresses_without_a_cluster_are_named(address):
    output = Project.at(ROOT).run("make", "ray-worker", f"ADDRESS={address}", ok=False)
    assert re.search(f"^ADDRESS is '?{re.escape(address)}", output, re.MULTILINE)
    assert "Traceback" not in output


@pytest.mark.parametrize("port", ["", "x", "-1", "65536", "²"])
def test_invalid_mlflow_ports_are_refused(project, port):
    (project.folder / "mlflow.db").touch()
    output = project.run("make", "ui", f"PORT={port}", ok=False)
    assert f"PORT is {port!r}: it must be a whole number up to 65535." in output
    assert "Traceback" not in output


@pytest.mark.parametrize("port", ["x", "-1", "65536"])
def test_invalid_runtime_ports_are_refused_in_one_line(port):
    output = Project.at(ROOT).run("make", "serve", "FILE=build/x.krt", f"PORT={port}", ok=False)
    assert f"serve: PORT is {port!r}: it must be a whole number from 0 (any that is free)" in output


@pytest.mark.parametrize("days", ["a week", "7d"])
def test_days_must_be_a_number(days):
    output = Project.at(ROOT).run("make", "clean", f"DAYS={days}", ok=False)
    assert "it must be a number of days, such as 0 or 7." in output


def test_make_lists_every_target_once_run_and_test_first():
    listed = Project.at(ROOT).run("make")
    groups = [group.splitlines() for group in listed.strip().split("\n\n")]
    assert len(groups) > 3
    assert all(not title.startswith(" ") for title, *_ in groups)
    lines = [re.fullmatch(r"  make (\S+) +(\S.*)", line) for _, *rest in groups for line in rest]
    targets = [line[1] for line in lines if line]
    assert len(targets) == len(lines), "each target has a one-line description"
    assert targets[:2] == ["run", "test"]
    files = [ROOT / "Makefile", *ROOT.glob("t*/**/*.mk")]
    documented = re.findall(r"(?m)^([a-z-]+):.*## ", "".join(file.read_text() for file in files))
    assert sorted(targets) == sorted(set(documented) - {"help"})


@pytest.mark.parametrize("file", ["lib/viz.py", ".dvcignore", ".github/workflows/tests.yml"])
def test_conflict_marks_that_an_update_left_are_named(project, file):
    with (project.folder / file).open("a") as shared:
        shared.write("<<<<<<< before updating\n")
    output = project.run("make", "todo", ok=False)
    assert f"a merge left conflict marks in {file}: resolve them first" in output
