"""What make takes its arguments from, and what it lists."""

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
def test_an_argument_counts_on_the_command_line_and_not_in_the_environment(target):
    project = Project.at(ROOT)
    elsewhere = {name: f"environments-{name}" for name in ARGUMENTS}
    plain = project.run("make", "--dry-run", target)
    assert project.run("make", "--dry-run", target, **elsewhere) == plain
    given = [f"{name}=given-{name}" for name in TARGETS[target]]
    commands = project.run("make", "--dry-run", target, *given, **elsewhere)
    assert all(f"given-{name}" in commands for name in TARGETS[target]), commands


@pytest.mark.parametrize("misspelled", ["STAGE", "a"])
def test_a_misspelled_argument_is_refused_instead_of_ignored(misspelled):
    output = Project.at(ROOT).run(
        "make", "--dry-run", "tune", f"{misspelled}=x", ok=False, MAKELEVEL="0"
    )
    assert f"{misspelled}= is not an argument here. The arguments are A ADDRESS" in output
    assert "tools/within" not in output


def test_line_ends_with_which_no_script_runs_are_told_in_a_line(tmp_path):
    for name in ("Makefile", "tools/environments/bootstrap"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes().replace(b"\n", b"\r\n"))
    said = Project.at(tmp_path).run("make", "doctor", ok=False)
    assert "the files have Windows line endings (CRLF)" in said
    assert len(said.splitlines()) == 1


def test_a_folder_that_is_no_repository_is_told_with_what_makes_it_one(tmp_path):
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    told = "this folder is no git repository yet, which most commands need: `make start` makes it"
    assert told in Project.at(tmp_path).run("make", "--dry-run", "run")
    assert told not in Project.at(tmp_path).run("make", "--dry-run", "start")
    (tmp_path / ".git").touch()  # a file, in git's own work trees
    assert told not in Project.at(tmp_path).run("make", "--dry-run", "run")


@pytest.mark.parametrize("text", ['a "b" c', "it's", "`touch made`", "$(touch made) $HOME", "a\\b"])
def test_an_argument_reaches_its_command_as_it_was_typed(tmp_path, text):
    said = Project.at(ROOT).run("make", "--dry-run", "compare", f"A={text}")
    command = next(line for line in said.splitlines() if "tools.report.compare" in line)
    given = ["sh", "-c", command.replace("tools/within", 'printf "%s\\n"', 1)]
    shown = subprocess.run(given, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert f"--from={text}" in shown.splitlines()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("port", "why"),
    [
        *((port, "it must be a whole number") for port in ("", "0", "x", "-1", "6 379", "06379")),
        *((port, "it must be a whole number") for port in ("65536", "9" * 30, "²")),
        *((port, "which Ray uses itself") for port in ("8265", "10002", "19999")),
    ],
)
def test_a_port_that_cannot_be_rays_is_told_in_a_line(port, why):
    with pytest.raises(UserError, match=f"^RAY_PORT is .*{why}"):
        check_port(port)


def test_a_port_that_another_program_has_is_told_in_a_line():
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        said = Project.at(ROOT).run("make", "ray-head", f"RAY_PORT={port}", ok=False)
    assert f"RAY_PORT is {port}: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize("address", ["", "10.0.0.5", "a b", "6379", "http://h:1", "127.0.0.1:1"])
def test_an_address_where_no_cluster_is_is_told_in_a_line(address):
    said = Project.at(ROOT).run("make", "ray-worker", f"ADDRESS={address}", ok=False)
    assert re.search(f"^ADDRESS is '?{re.escape(address)}", said, re.MULTILINE)
    assert "Traceback" not in said


@pytest.mark.parametrize("port", ["", "x", "-1", "65536", "²"])
def test_a_port_that_cannot_be_mlflows_is_told_in_a_line(project, port):
    (project.folder / "mlflow.db").touch()
    said = project.run("make", "ui", f"PORT={port}", ok=False)
    assert f"PORT is {port!r}: it must be a whole number up to 65535." in said
    assert "Traceback" not in said


@pytest.mark.parametrize("port", ["x", "-1", "65536"])
def test_a_port_that_no_runtime_can_have_is_told_in_a_line(port):
    said = Project.at(ROOT).run("make", "serve", "FILE=build/x.krt", f"PORT={port}", ok=False)
    assert f"serve: PORT is {port!r}: it must be a whole number from 0 (any that is free)" in said


@pytest.mark.parametrize("days", ["a week", "7d"])
def test_days_that_are_no_number_are_told(days):
    said = Project.at(ROOT).run("make", "clean", f"DAYS={days}", ok=False)
    assert "it must be a number of days, such as 0 or 7." in said


def test_make_alone_lists_every_target_once_in_groups_run_and_test_first():
    listed = Project.at(ROOT).run("make")
    groups = [group.splitlines() for group in listed.strip().split("\n\n")]
    assert len(groups) > 3
    assert all(not title.startswith(" ") for title, *_ in groups)
    lines = [re.fullmatch(r"  make (\S+) +(\S.*)", line) for _, *rest in groups for line in rest]
    targets = [line[1] for line in lines if line]
    assert len(targets) == len(lines), "each with what it does, in a line"
    assert targets[:2] == ["run", "test"]
    files = [ROOT / "Makefile", *ROOT.glob("t*/**/*.mk")]
    documented = re.findall(r"(?m)^([a-z-]+):.*## ", "".join(file.read_text() for file in files))
    assert sorted(targets) == sorted(set(documented) - {"help"})
