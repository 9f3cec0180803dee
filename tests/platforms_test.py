"""Locks are for every platform: played through by uv, and what has no wheel somewhere is told.

Known vulnerabilities of what they hold are named.
"""

import json
import re
import socket

import pytest

from tests.conftest import ROOT, answer, server_that, write_executable

pytestmark = pytest.mark.integration

MODULE = '"$(tools/environments/bootstrap)" -m tools.environments'
SMALL = "tools/project/skeleton/empty/Pipfile.lock"


def command(project, line, ok=True, **extra):
    return project.run("sh", "-c", f"{MODULE} {line}", ok=ok, **extra)


def test_torch_is_locked_with_a_build_for_each_platform():
    for folder in (".", "lab/processes/train_dnn_pytorch", "tools/project/skeleton/torch"):
        lock = json.loads((ROOT / folder / "Pipfile.lock").read_text())
        torch = (lock["develop"] | lock["default"])["torch"]
        assert "+" not in torch["version"]
        assert len(torch["hashes"]) == 3


def test_a_build_is_locked_with_the_files_of_the_other_platforms(project):
    name = "Pipfile.lock"
    locks = [file for file in project.folder.rglob(name) if '"torch"' in file.read_text()]
    for file in locks:
        lock = json.loads(file.read_text())
        del lock["_meta"]["builds"]
        for table in (lock["default"], lock["develop"]):
            if "torch" in table:
                table["torch"]["version"] = "==2.12.0"  # so that none knows the files
        file.write_text(json.dumps(lock))
    folder = project.folder / "lab/processes/later"
    folder.mkdir()
    asks = '[packages]\ntorch = "==2.13.0"\n\n[requires]\npython_version = "3.11"\n'
    (folder / "Pipfile").write_text(asks)
    command(project, "lock lab/processes/later")
    found = json.loads((folder / name).read_text())
    of_others = json.loads((ROOT / "lab/processes/train_dnn_pytorch" / name).read_text())
    assert found["default"]["torch"] == of_others["default"]["torch"] | {
        key: value for key, value in found["default"]["torch"].items() if key == "markers"
    }
    assert found["_meta"]["builds"] == {"torch": "==2.13.0+cpu"}


def test_a_table_shows_what_a_lock_installs_on_each_platform(project):
    said = command(project, "platforms lab/processes/train_dnn_pytorch/Pipfile.lock")
    assert re.search(r"Linux x86-64 .* Linux arm64 .* macOS arm64", said)
    [counts] = re.findall(r"train_dnn_pytorch/Pipfile.lock .*packages.*", said)
    assert len(set(re.findall(r"(\d+) packages", counts))) == 1
    assert re.search(r"torch +│ 2\.13\.0\+cpu +│ 2\.13\.0 +│ 2\.13\.0 ", said)


def test_a_lock_that_a_platform_cannot_install_is_told(project):
    lock = json.loads((project.folder / SMALL).read_text())
    # Of the wheels, that for Linux on x86-64 alone, as a platform's own builds are locked.
    version, of_linux = (
        "==2.13.0",
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    )
    lock["default"]["torch"] = {"version": f"{version}+cpu", "hashes": [f"sha256:{of_linux}"]}
    (project.folder / SMALL).write_text(json.dumps(lock))
    said = command(project, f"platforms --quiet {SMALL}", ok=False).splitlines()
    assert [line.partition(":")[0] for line in said] == [
        f"{SMALL}, Linux arm64",
        f"{SMALL}, macOS arm64",
    ]
    assert "torch==2.13.0+cpu has no wheels with a matching platform tag" in said[0]
    with (project.folder / ".env").open("a") as file:
        file.write("PLATFORMS=Linux x86-64\n")
    assert command(project, f"platforms --quiet {SMALL}") == ""


@pytest.mark.parametrize("password", ["pa#sEcr", "pa/sEcr", "pa@#sEcr"])
def test_a_password_that_makes_no_address_is_not_shown(project, password):
    index = f"http://bob:{password}@127.0.0.1:9/simple"
    said = project.run("make", "platforms", ok=False, PIP_INDEX_URL=index)
    assert "pip's index-url is not a valid URL (127.0.0.1:9/simple): in a password" in said
    assert "sEcr" not in said


def test_a_setting_of_pips_that_cannot_be_is_told_in_a_line(project):
    said = project.run("make", "platforms", ok=False, PIP_DEFAULT_TIMEOUT="15s")
    assert "pip's timeout is '15s': it must be seconds, as 15.\n" in said
    assert "Traceback" not in said


def test_without_an_index_one_line_says_that_platforms_were_not_asked(project, tmp_path):
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "UV_CACHE_DIR": str(tmp_path / "cache")}
    nowhere |= {"PIP_RETRIES": "0", "PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": "/dev/null"}
    [line] = command(project, f"platforms {SMALL}", **nowhere).splitlines()
    assert line == "Platforms: not asked, the package index does not answer, or refuses its login."
    with server_that(answer(401, "Who are you?")) as address:
        refused = nowhere | {"PIP_INDEX_URL": f"{address}/simple"}
        [said] = command(project, f"platforms {SMALL}", **refused).splitlines()
    assert said == line
    [line] = command(project, f"platforms {SMALL}", PIP_NO_INDEX="1").splitlines()
    assert line == "Platforms: not asked, pip is set up without an index."


@pytest.mark.parametrize("machine", ["Darwin x86_64", "FreeBSD amd64"])
def test_another_platform_is_told_in_a_line_by_the_bootstrap(project, tmp_path, machine):
    tools = tmp_path / "bin"
    write_executable(tools / "uname", f"#!/bin/sh\necho {machine}\n")
    nowhere = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PIP_NO_INDEX": "1"}
    path = f"{tools}:{project.environment()['PATH']}"
    said = project.run("tools/environments/bootstrap", ok=False, PATH=path, **nowhere)
    assert f"this is {machine}: some packages will be missing" in said.splitlines()[0]


def osv(vulnerable):
    """What answers as the database does: one vulnerability, of one package."""

    def handle(request):
        sent = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        if request.path.endswith("/querybatch"):
            queries = json.loads(sent)["queries"]
            some = {"vulns": [{"id": "PYSEC-1", "modified": "2026-01-01T00:00:00Z"}]}
            answers = [some if q["package"]["name"] == vulnerable else {} for q in queries]
            body = {"results": answers}
        else:
            body = {"id": "PYSEC-1", "modified": "2026-01-01T00:00:00Z", "summary": "It is weak"}
        text = json.dumps(body).encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    return handle


def test_known_vulnerabilities_are_named_with_their_locks(project):
    with server_that(osv("torch")) as address:
        said = command(project, f"audit --service {address}", ok=False)
    [line, advice] = said.splitlines()
    assert line.startswith("torch 2.13.0: PYSEC-1: It is weak; no fix (Pipfile.lock, ")
    assert "lab/processes/train_dnn_pytorch/Pipfile.lock" in line
    assert "make lock UPGRADE=yes" in advice
    with server_that(osv("none of ours")) as address:
        assert "no known vulnerability" in command(project, f"audit --service {address}")


def test_a_database_that_does_not_answer_is_told_in_a_line(project):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        line = f"{MODULE} audit --service {address}; [ $? = 2 ]"
        [said] = project.run("sh", "-c", line).splitlines()
    assert said.startswith("Vulnerabilities: not asked, OSV does not answer (")
