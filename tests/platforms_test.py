"""Locks work on every platform: uv resolves them for each, and missing wheels are reported.

Known vulnerabilities of locked packages are named.
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


def test_a_build_is_locked_with_files_for_the_other_platforms(project):
    name = "Pipfile.lock"
    locks = [file for file in project.folder.rglob(name) if '"torch"' in file.read_text()]
    for file in locks:
        lock = json.loads(file.read_text())
        del lock["_meta"]["builds"]
        for table in (lock["default"], lock["develop"]):
            if "torch" in table:
                table["torch"]["version"] = "==2.12.0"  # so that no other lock has the files
        file.write_text(json.dumps(lock))
    folder = project.folder / "lab/processes/later"
    folder.mkdir()
    wanted = '[packages]\ntorch = "==2.13.0"\n\n[requires]\npython_version = "3.11"\n'
    (folder / "Pipfile").write_text(wanted)
    command(project, "lock lab/processes/later")
    found = json.loads((folder / name).read_text())
    reference = json.loads((ROOT / "lab/processes/train_dnn_pytorch" / name).read_text())
    assert found["default"]["torch"] == reference["default"]["torch"] | {
        key: value for key, value in found["default"]["torch"].items() if key == "markers"
    }
    assert found["_meta"]["builds"] == {"torch": "==2.13.0+cpu"}


def test_a_table_shows_what_a_lock_installs_on_each_platform(project):
    output = command(project, "platforms lab/processes/train_dnn_pytorch/Pipfile.lock")
    assert re.search(r"Linux x86-64 .* Linux arm64 .* macOS arm64", output)
    [counts] = re.findall(r"train_dnn_pytorch/Pipfile.lock .*packages.*", output)
    assert len(set(re.findall(r"(\d+) packages", counts))) == 1
    assert re.search(r"torch +│ 2\.13\.0\+cpu +│ 2\.13\.0 +│ 2\.13\.0 ", output)


def test_a_lock_that_a_platform_cannot_install_is_named(project):
    lock = json.loads((project.folder / SMALL).read_text())
    # Only the wheel for Linux on x86-64, as a platform's own builds are locked.
    version, of_linux = (
        "==2.13.0",
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    )
    lock["default"]["torch"] = {"version": f"{version}+cpu", "hashes": [f"sha256:{of_linux}"]}
    (project.folder / SMALL).write_text(json.dumps(lock))
    output = command(project, f"platforms --quiet {SMALL}", ok=False).splitlines()
    assert [line.partition(":")[0] for line in output] == [
        f"{SMALL}, Linux arm64",
        f"{SMALL}, macOS arm64",
    ]
    assert "torch==2.13.0+cpu has no wheels with a matching platform tag" in output[0]
    with (project.folder / ".env").open("a") as file:
        file.write("PLATFORMS=Linux x86-64\n")
    assert command(project, f"platforms --quiet {SMALL}") == ""


@pytest.mark.parametrize("password", ["pa#sEcr", "pa/sEcr", "pa@#sEcr"])
def test_a_password_in_an_invalid_index_url_is_not_shown(project, password):
    index = f"http://bob:{password}@127.0.0.1:9/simple"
    output = project.run("make", "platforms", ok=False, PIP_INDEX_URL=index)
    assert "pip's index-url is not a valid URL (127.0.0.1:9/simple): in a password" in output
    assert "sEcr" not in output


def test_an_invalid_pip_setting_gives_one_line(project):
    output = project.run("make", "platforms", ok=False, PIP_DEFAULT_TIMEOUT="15s")
    assert "pip's timeout is '15s': it must be seconds, as 15.\n" in output
    assert "Traceback" not in output


def test_without_an_index_one_line_says_platforms_were_not_checked(project, tmp_path):
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "UV_CACHE_DIR": str(tmp_path / "cache")}
    unreachable |= {"PIP_RETRIES": "0", "PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": "/dev/null"}
    [line] = command(project, f"platforms {SMALL}", **unreachable).splitlines()
    assert line == "Platforms: not asked, the package index does not answer, or refuses its login."
    with server_that(answer(401, "Who are you?")) as address:
        refused = unreachable | {"PIP_INDEX_URL": f"{address}/simple"}
        [output] = command(project, f"platforms {SMALL}", **refused).splitlines()
    assert output == line
    [line] = command(project, f"platforms {SMALL}", PIP_NO_INDEX="1").splitlines()
    assert line == "Platforms: not asked, pip is set up without an index."


@pytest.mark.parametrize("machine", ["Darwin x86_64", "FreeBSD amd64"])
def test_the_bootstrap_warns_in_one_line_of_other_platforms(project, tmp_path, machine):
    tools = tmp_path / "bin"
    write_executable(tools / "uname", f"#!/bin/sh\necho {machine}\n")
    unreachable = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PIP_NO_INDEX": "1"}
    path = f"{tools}:{project.environment()['PATH']}"
    output = project.run("tools/environments/bootstrap", ok=False, PATH=path, **unreachable)
    assert f"this is {machine}: some packages will be missing" in output.splitlines()[0]


def osv(vulnerable):
    """A handler that answers like the OSV database: one package has one vulnerability."""

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
        output = command(project, f"audit --service {address}", ok=False)
    [line, advice] = output.splitlines()
    assert line.startswith("torch 2.13.0: PYSEC-1: It is weak; no fix (Pipfile.lock, ")
    assert "lab/processes/train_dnn_pytorch/Pipfile.lock" in line
    assert "make lock UPGRADE=yes" in advice
    with server_that(osv("none of ours")) as address:
        assert "no known vulnerability" in command(project, f"audit --service {address}")


def test_an_unreachable_database_is_reported_in_one_line(project):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        line = f"{MODULE} audit --service {address}; [ $? = 2 ]"
        [output] = project.run("sh", "-c", line).splitlines()
    assert output.startswith("Vulnerabilities: not asked, OSV does not answer (")
