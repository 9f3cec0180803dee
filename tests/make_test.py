"""What make takes its arguments from."""

import pytest

from tests.conftest import ROOT, Project

pytestmark = pytest.mark.integration

TARGETS = {
    "start": ["TEMPLATE"],
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
