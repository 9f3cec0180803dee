"""Runtimes are built from a commit, rehearsed as the engine runs them, or refused with a reason."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from lib.errors import UserError
from lib.params import read_yaml
from tests.conftest import ROOT, free_port, interrupted
from tools.job import release

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """A project with committed results that are good enough."""
    project = finished.copied(tmp_path_factory.mktemp("runtime") / "a projëct [1]")
    project.git("config", "user.email", "test@example.org")
    return project


@pytest.fixture
def project(trained, tmp_path):
    """A copy for one test."""
    return trained.copied(tmp_path / "copy")


def add_echo(project):
    """Add a second runtime, by copying a folder."""
    shutil.copytree(ROOT / "tests/echo", project.folder / "runtimes/echo")
    for file in ("Pipfile", "Pipfile.lock"):
        shutil.copy(ROOT / "runtimes/cancer" / file, project.folder / "runtimes/echo")
    (project.folder / "runtimes/echo/assets.yml").write_text(
        "assets/card.md: artifacts/onnx/densenet.md\n"
    )
    project.commit("A second runtime")


def krt(project, name):
    return project.folder / f"build/{name}.krt"


# ---- building


@pytest.fixture(scope="module")
def built(trained):
    """The output of building build/cancer-v1.krt in `trained`."""
    return trained.run("make", "runtime", "VERSION=v1")


def test_a_runtime_has_the_tracked_model_and_its_source(trained, built):
    assert re.search(r"build/cancer-v1\.krt: \d+ kB, \d+ files, 8 of 8 goals met", built)
    with tarfile.open(krt(trained, "cancer-v1")) as archive:
        content = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}
        assert {(m.mtime, m.uid, m.gid) for m in archive.getmembers()} == {(0, 0, 0)}
    model = (trained.folder / "artifacts/onnx/densenet.onnx").read_bytes()
    assert content["assets/model.onnx"] == model
    assert b"version: cancer-v1\n" in content["krt.yml"]
    assert {f"src/{node}/{code}_pb2.py" for node in ("model", "output")
            for code in ("public_input", "internal_nodes")} <= set(content)  # fmt: skip
    readme = content["docs/README.md"].decode()
    assert trained.git("rev-parse", "HEAD").strip() in readme
    assert hashlib.md5(model, usedforsecurity=False).hexdigest() in readme
    assert "has not run since" not in built + readme
    assert not [name for name in content if "Pipfile" in name or "rehearsal" in name]


def test_the_same_commit_gives_the_same_bytes_in_another_clone(trained, built, project):
    (project.folder / "runtimes/cancer/krt.yml").touch()
    project.run("make", "runtime", "NAME=cancer", "VERSION=v1")
    assert krt(project, "cancer-v1").read_bytes() == krt(trained, "cancer-v1").read_bytes()


def test_the_version_is_from_the_tag_or_the_commit(project):
    short = project.git("rev-parse", "HEAD").strip()[:7]
    assert f"build/cancer-g{short}.krt" in project.run("make", "runtime")
    project.git("tag", "runtime-v2")
    assert "build/cancer-v2.krt" in project.run("make", "runtime")


def test_a_tag_of_one_runtime_does_not_apply_to_a_similar_name(project):
    shutil.copytree(project.folder / "runtimes/cancer", project.folder / "runtimes/cancer-lite")
    project.commit("A lighter one")
    project.git("tag", "runtime-cancer-lite-v1")
    assert "build/cancer-lite-v1.krt" in project.run("make", "runtime", "NAME=cancer-lite")
    assert "build/cancer-g" in project.run("make", "runtime", "NAME=cancer")


@pytest.mark.parametrize(
    ("assets", "expected"),
    [
        ("a: dvc.yaml\na: dvc.lock\n", "runtimes/cancer/assets.yml: it is not YAML"),
        ("assets/models: artifacts/onnx\n", "artifacts/onnx is a folder: name each of its files"),
        ("- artifacts/onnx/densenet.onnx\n", "must hold lines of two paths"),
        ("assets/x: no/such.file\n", "no/such.file does not exist"),
        (
            "assets/model.onnx: artifacts/onnx/old_name.onnx\n",
            "artifacts/onnx/old_name.onnx does not exist, and DVC knows no such file: fix its line",
        ),
        ("assets/x: artifacts/../../other/x\n", "../other/x leads out of the repository"),
        ("assets/x: /etc/hostname\n", "/etc/hostname leads out of the repository"),
        (f"{'x' * 120}: params.yaml\n", "a path is too long for an archive"),
        ("../../evil: params.yaml\n", "leads out of the archive"),
        (
            "src/model/public_input_pb2.py: dvc.yaml\n",
            "runtimes/cancer/assets.yml: src/model/public_input_pb2.py is a file of the runtime",
        ),
    ],
)
def test_mistakes_in_assets_are_named(project, assets, expected):
    (project.folder / "runtimes/cancer/assets.yml").write_text(assets)
    project.commit("A mistake")
    output = project.run("make", "runtime", "VERSION=v4", ok=False)
    assert expected in output
    assert "Traceback" not in output
    assert not krt(project, "cancer-v4").exists()


@pytest.mark.parametrize(
    ("link", "leads_to"),
    [
        ("runtimes/cancer/assets/model2.onnx", "../../../artifacts/onnx/densenet.onnx"),
        ("runtimes/cancer/docs/host.md", "/etc/hostname"),
        ("runtimes/cancer/more", "docs"),
        ("runtimes/cancer/assets.yml", "../../build/assets.yml"),
        ("model.onnx", "artifacts/onnx/densenet.onnx"),
    ],
)
def test_links_are_refused_as_their_content_is_uncommitted(project, link, leads_to):
    place = project.folder / link
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(leads_to)
    if "/" not in link:
        project.edit("runtimes/cancer/assets.yml", leads_to, link)
    project.commit("A link")
    output = project.run("make", "runtime", "VERSION=v4", ok=False)
    assert f"runtime: {link} is a link" in output
    assert "Traceback" not in output
    assert not krt(project, "cancer-v4").exists()


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v1.0", "version is 'cancer-v1.0': the engine wants"),
        ("V1", "version is 'cancer-V1': the engine wants"),
        ("a-version-with-many-letters", "version is 'cancer-a-version-with-many-letters': the"),
        ("$(touch pwned)", "version is 'cancer-$(touch pwned)': the engine wants"),
        ("\\1", "': the engine wants"),
        ("v1 #/../../../x", "': the engine wants"),
        ("v1\nimage: x", "': the engine wants"),
    ],
)
def test_versions_that_the_engine_would_refuse_are_refused(trained, version, expected):
    command = ("tools/within", "tools/krt", "python", "-m", "tools.krt.build", "cancer")
    output = trained.run(*command, "--version", version, ok=False)
    assert expected in output
    assert "Traceback" not in output
    assert not (trained.folder / "pwned").exists()


def test_a_path_in_assets_may_be_written_in_any_way(project):
    project.edit("runtimes/cancer/assets.yml", "artifacts/onnx/densenet.md", "./params.yaml")
    project.edit("runtimes/cancer/assets.yml", "artifacts/onnx", "./artifacts//data/../onnx")
    project.commit("Paths in other ways")
    assert "8 of 8 goals met" in project.run("make", "runtime", "VERSION=v4")


def test_an_interrupted_build_ends_without_a_traceback(project):
    (project.folder / "goals/slow_test.py").write_text(
        "from pathlib import Path\nfrom time import sleep\n\n\n"
        "def test_it_is_slow():\n    Path('begun').touch()\n    sleep(60)\n"
    )
    project.commit("A slow goal")
    process = project.start("make", "runtime", "VERSION=v4")
    assert "Traceback" not in interrupted(process, project.folder / "begun")
    assert not krt(project, "cancer-v4").exists()


def test_uncommitted_changes_are_not_built(project):
    project.edit("params.yaml", "lr: 0.001", "lr: 0.002")
    (project.folder / "notes.txt").write_text("x")
    output = project.run("make", "runtime", ok=False)
    assert (
        "runtime: not committed: params.yaml, notes.txt. A runtime is built from a commit" in output
    )


def test_a_model_that_dvc_lock_does_not_know_is_not_built(project):
    model = project.folder / "artifacts/onnx/densenet.onnx"
    content = model.read_bytes()
    model.unlink()
    assert "densenet.onnx does not exist: `dvc pull`" in project.run(
        "make", "runtime", "VERSION=v3", ok=False
    )
    model.write_bytes(content + b"\0")
    output = project.run("make", "runtime", "VERSION=v3", ok=False)
    assert "densenet.onnx is not the file that dvc.lock of this commit names" in output
    assert not krt(project, "cancer-v3").exists()


def test_a_model_that_misses_its_goals_is_built_only_on_demand(project):
    project.edit("params.yaml", "  accuracy: 0.9", "  accuracy: 0.999  # was 0.9")
    project.commit("A goal too high")
    output = project.run("make", "runtime", "VERSION=v3", ok=False)
    assert "runtime: goals: 7 of 8 goals met. What misses its goals is not released" in output
    assert not krt(project, "cancer-v3").exists()
    project.edit("params.yaml", "tolerance: 1.0e-5", "tolerance: 2.0e-5")
    project.commit("And a model of other parameters than stand here")
    output = project.run("make", "runtime", "VERSION=v3", "ANYWAY=yes")
    assert "7 of 8 goals met, built all the same" in output
    outdated = "export_models has not run since export_models changed"
    assert f"WARNING: {outdated}: its models are from before." in output
    with tarfile.open(krt(project, "cancer-v3")) as archive:
        readme = archive.extractfile("docs/README.md").read().decode()
    assert "some are missed; built all the same" in readme
    assert f"| models | {outdated} |" in readme
    project.edit("params.yaml", "  accuracy: 0.999  # was 0.9", "  accuracy: 0.9")
    project.commit("A goal that is met")
    script = "from tools.job.release import build; print(build('cancer', 'v4')[1])"
    page = project.run("tools/within", ".", "python", "-c", script).splitlines()[-1]
    assert re.search(f"8 of 8 goals met; WARNING: {outdated}", page)


def test_a_mistake_in_a_manifest_shows_key_and_value(project):
    project.edit("runtimes/cancer/krt.yml", "subscriptions: [model]", "subscriptions: [modle]")
    project.commit("A typo")
    output = project.run("make", "runtime", ok=False)
    assert "runtimes/cancer/krt.yml: workflows[0].nodes[1].subscriptions[0] is 'modle'" in output


def test_a_mistake_in_a_proto_is_shown_with_its_line(project):
    project.edit("runtimes/cancer/internal_nodes.proto", "string error = 2;", "string error = 1;")
    project.commit("A number twice")
    output = project.run("make", "runtime", ok=False)
    assert re.search(r"runtime: protoc: internal_nodes.proto.*probabilities", output)
    assert "Traceback" not in output


# ---- rehearsing


def test_the_example_answers_like_its_model_in_python(trained, built):
    output = trained.run("make", "rehearse", "FILE=build/cancer-v1.krt")
    assert re.search(r"=+ 11 passed in ", output), output


def test_the_snippet_in_the_runtimes_readme_gets_an_answer(trained, built):
    (snippet,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "runtimes/README.md").read_text(), re.DOTALL
    )
    output = trained.run("tools/within", "tools/krt", "python", "-c", snippet)
    assert "probabilities" in output


def test_a_second_runtime_is_a_copied_folder_and_has_all_engine_features(project):
    add_echo(project)
    assert "say which runtime, with NAME=" in project.run("make", "runtime", ok=False)
    with (project.folder / ".env").open("a") as file:
        file.write("IN_DOTENV=yes\n")
    project.commit("A variable for everyone")
    project.run("make", "runtime", "NAME=echo", "VERSION=v1")
    rehearse = ("make", "rehearse", "FILE=build/echo-v1.krt")
    assert "config.variables asks for GREETING" in project.run(*rehearse, ok=False)
    # This proxy does not answer; requests to this machine must not use it.
    proxies = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "grpc", "all")}
    surroundings = {**proxies, "no_proxy": "", "AWS_SECRET_ACCESS_KEY": "hidden"}
    output = project.run(*rehearse, GREETING="guten Tag", **surroundings)
    assert re.search(r"=+ 17 passed in ", output), output


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            "src/first/main.py",
            "import asyncio",
            "import asyncio\nimport torch",
            "node 'first' could not start: ModuleNotFoundError: No module named 'torch'",
        ),
        (
            "src/first/main.py",
            "import asyncio",
            "import asyncio\nwhile True:\n    print('a loop' * 100_000)",
            "node 'first' could not start: OSError: [Errno 27] File too large",
        ),
        (
            "src/second/main.py",
            "async def default_handler",
            "async def handler",
            "src/second/main.py has no default_handler(ctx, data)",
        ),
        (
            "src/first/main.py",
            'await ctx.configuration.set("greeting", "of the node")',
            'ctx.set("model", 1)',
            "node 'first' could not start: AttributeError: 'Context' object has no attribute 'set'",
        ),
        (
            "public_input.proto",
            "rpc Ask (Question)",
            "rpc Ask (stream Question)",
            "public_input.proto: rpc Ask is a stream: only unary ones run",
        ),
    ],
)
def test_a_runtime_that_cannot_start_says_why(project, file, old, new, expected):
    add_echo(project)
    project.edit(f"runtimes/echo/{file}", old, new)
    project.commit("A mistake")
    project.run("make", "runtime", "NAME=echo", "VERSION=v1")
    output = project.run("make", "rehearse", "FILE=build/echo-v1.krt", GREETING="x", ok=False)
    assert expected in output
    assert "Traceback" not in output


def test_files_that_are_not_runtimes_here_are_refused(trained, built, tmp_path):
    for file, expected in (
        ("build/nothing.krt", "build/nothing.krt does not exist, or is not a file"),
        ("params.yaml", "params.yaml is no archive: a KAI version's YAML file is only checked"),
        ("README.md", "README.md is not as the engine takes it"),
    ):
        output = trained.run("make", "rehearse", f"FILE={file}", ok=False)
        assert expected in output
        assert "Traceback" not in output
    assert "which file? FILE=build/name-version.krt" in trained.run("make", "rehearse", ok=False)
    output = trained.run("make", "rehearse", "FILE=build/cancer-v1.krt", "NAME=other", ok=False)
    assert "no runtime is called 'other'" in output


def test_a_rehearsal_whose_tests_are_all_skipped_does_not_pass(trained, built):
    rehearsal = trained.folder / "runtimes/cancer/rehearsal.py"
    tests = rehearsal.read_text()
    rehearsal.write_text("import pytest\n\n\ndef test_later():\n    pytest.skip('later')\n")
    try:
        output = trained.run("make", "rehearse", "FILE=build/cancer-v1.krt", ok=False)
    finally:
        rehearsal.write_text(tests)
    assert "No test was run: all were skipped." in output


@pytest.mark.parametrize(
    ("tag", "why"),
    [
        ("runtime-cancer", "names the runtime cancer and no version: push runtime-cancer-v1"),
        ("runtime-cacer-v1", "begins with no runtime's name (cancer), and 'cacer-v1' is not taken"),
        ("runtime-cancer2-v1", "begins with no runtime's name (cancer), and 'cancer2-v1' is not"),
    ],
)
def test_a_tag_with_a_misspelled_runtime_or_no_version_releases_nothing(monkeypatch, tag, why):
    monkeypatch.setattr(release, "names", lambda: ["cancer"])
    with pytest.raises(UserError, match=re.escape(why)):
        release.runtimes_of(tag)
    for version in ("v1", "v1-rc1", "2026-11-29", "latest"):
        assert release.runtimes_of(f"runtime-{version}") == [("cancer", version)]


def test_a_served_runtime_leaves_no_process_behind(trained, built):
    port = free_port()
    with trained.start("make", "serve", "FILE=build/cancer-v1.krt", f"PORT={port}") as process:
        line = next(line for line in process.stdout if "is served at" in line)
        assert line.startswith(f"cancer-v1 is served at 127.0.0.1:{port}, service Entrypoint")
        taken = trained.run("make", "serve", "FILE=build/cancer-v1.krt", f"PORT={port}", ok=False)
        assert f"port {port} is taken" in taken
        nodes = nodes_of(trained)
        assert len(nodes) == 2
        for pid in children(process.pid):
            os.kill(pid, signal.SIGTERM)
        process.wait(timeout=30)
        assert not nodes & nodes_of(trained)


@pytest.mark.parametrize(
    ("command", "signum"),
    [
        ("serve", signal.SIGHUP),
        ("rehearse", signal.SIGINT),
        ("rehearse", signal.SIGTERM),
        ("rehearse", signal.SIGHUP),
    ],
)
def test_runtimes_ended_by_a_signal_leave_no_folder_behind(
    trained, built, tmp_path, command, signum
):
    make = ("make", command, "FILE=build/cancer-v1.krt")
    with trained.start(*make, TMPDIR=str(tmp_path)) as process:
        # After the first test of the rehearsal, a thousand requests are under way.
        assert any("is served at" in line or "PASSED" in line for line in process.stdout)
        assert list(tmp_path.glob("krt-*"))
        # Repeat while it ends: each `make` passes its signal on, and people press Ctrl-C twice.
        for _ in range(20):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signum)
            time.sleep(0.02)
        output, _ = process.communicate(timeout=60)
        assert "Traceback" not in output
        assert not list(tmp_path.glob("krt-*"))


def test_an_interrupt_at_code_without_a_line_number_is_no_traceback(trained, built):
    rehearsal = trained.folder / "runtimes/cancer/rehearsal.py"
    tests = rehearsal.read_text()
    rehearsal.write_text(
        "def test_interrupted():\n    raise KeyboardInterrupt\n\n\n"
        "without_lines = test_interrupted.__code__.replace(co_linetable=b'')\n"
        "test_interrupted.__code__ = without_lines\n"
    )
    try:
        output = trained.run("make", "rehearse", "FILE=build/cancer-v1.krt", ok=False)
    finally:
        rehearsal.write_text(tests)
    assert "! KeyboardInterrupt !" in output
    assert "Traceback" not in output


def test_a_runtime_under_nohup_survives_a_closed_terminal(trained, built):
    with trained.start("nohup", "make", "serve", "FILE=build/cancer-v1.krt") as process:
        assert any("is served at" in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def children(pid):
    """All descendants of a process."""
    found = []
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        found += [child, *children(child)]
    return found


def nodes_of(project):
    """The processes of this project's nodes, by their command lines."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = file.read_bytes()
            if b"tools/krt/node.py" in command and bytes(project.folder) in command:
                found.add(int(file.parent.name))
    return found


def test_the_image_has_what_the_rehearsal_uses():
    image = (ROOT / "runtimes/cancer/image/Dockerfile").read_text()
    packages = (ROOT / "runtimes/cancer/Pipfile").read_text().partition("[packages]")[2]
    pinned = dict(re.findall(r"^(\w+) = \"==([\d.]+)\"", packages, re.MULTILINE))
    assert dict(re.findall(r"(\w+)==([\d.]+)", image)) == pinned
    nodes = read_yaml(ROOT / "runtimes/cancer/krt.yml")["workflows"][0]["nodes"]
    assert {node["image"] for node in nodes} == set(re.findall(r"/(kre-py-onnx:\S+)", image))
