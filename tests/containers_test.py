"""The project's image, a process that runs in an image, and jobs in a container.

`make test-containers` installs debootstrap, buildah, podman and runc from Debian's packages, and
runs these tests. The base image is made here, so that no registry is needed.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from lib.params import parse_yaml, read_yaml
from tests.conftest import ROOT
from tests.machines import asked_for, debian_mirror, pip_settings, run
from tests.rehearsal import DVC_YAML, rehearsing, results_of

pytestmark = [pytest.mark.integration, asked_for("buildah", "debootstrap", "podman", "runc")]

IMAGE = "localhost/machine-of-the-tests"
# For podman on a machine where it cannot set limits or create control groups and networks.
SETTINGS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4000:4000"]
cgroupns = "host"
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""


@pytest.fixture(scope="module", autouse=True)
def settings(tmp_path_factory):
    """Settings with which podman and buildah work here, also for what the tests start."""
    file = tmp_path_factory.mktemp("containers") / "containers.conf"
    file.write_text(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", str(file))
        patch.setenv("CONTAINER_ENGINE", "podman")
        yield


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """This machine's settings of pip, and volumes with the folders that they may name."""
    file = tmp_path_factory.mktemp("site") / "pip.conf"
    text = "".join(f"{name} = {value}\n" for name, value in pip_settings().items())
    file.write_text(f"[global]\n{text}")
    # Not /opt itself: act creates its own folder there.
    places = [
        place for place in (Path("/etc/ssl/certs"), *Path("/opt").glob("*")) if place.is_dir()
    ]
    return file, [f"{place}:{place}:ro" for place in places]


@pytest.fixture(scope="module")
def image(settings, site, tmp_path_factory):
    """The image `machine`, on a base made from Debian's packages."""
    base = tmp_path_factory.mktemp("base") / "debian"
    packages = ("--variant=minbase", "--include=ca-certificates")
    run("debootstrap", *packages, "bookworm", str(base), debian_mirror())
    run("sh", "-c", f"tar -C '{base}' -c . | podman import - localhost/debian:tests")
    shutil.rmtree(base)
    pip, volumes = site
    wheels = os.environ.get("PIP_FIND_LINKS", "")
    run(
        *("buildah", "bud", "--isolation", "chroot", "--network", "host"),
        *(f"--volume={volume}" for volume in volumes),
        *("--secret", f"id=pip.conf,src={pip}", "--build-arg", f"PIP_FIND_LINKS={wheels}"),
        *("--build-arg", "BASE=localhost/debian:tests", "--target", "machine", "--tag", IMAGE),
        *("--file", "tools/image/Dockerfile", "."),
        cwd=ROOT,
    )
    yield IMAGE
    number = run("podman", "image", "inspect", "--format", "{{.Id}}", IMAGE).strip()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    shutil.rmtree(cache / "process-images" / number[:12], ignore_errors=True)
    run("podman", "rmi", "--force", IMAGE, "localhost/debian:tests")


@pytest.fixture(scope="module")
def sandbox(image, tmp_path_factory):
    """A sandbox whose pipeline is the example's first stage."""
    stage = read_yaml(ROOT / "dvc.yaml")["stages"]["prepare_data"]
    pipeline = json.dumps({"stages": {"prepare_data": stage}})  # JSON is YAML
    folder = tmp_path_factory.mktemp("run") / "a projëct"
    with rehearsing(folder, dvc_yaml=pipeline, ignored=()) as sandbox:
        yield sandbox


@pytest.fixture
def socket(tmp_path, monkeypatch):
    """Podman's socket, which act uses instead of Docker's."""
    place = tmp_path / "podman.sock"
    before = volumes_of_act()
    with subprocess.Popen(
        ["podman", "system", "service", "--time=0", f"unix://{place}"]
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not place.exists():
                assert process.poll() is None, "podman created no socket"
                assert time.monotonic() < deadline, "podman created no socket"
                time.sleep(0.1)
            monkeypatch.setenv("DOCKER_HOST", f"unix://{place}")
            yield
        finally:
            process.terminate()
    for volume in volumes_of_act() - before:
        run("podman", "volume", "rm", volume)


def volumes_of_act() -> set[str]:
    listed = run("podman", "volume", "ls", "--quiet").split()
    return {volume for volume in listed if volume.startswith("act-")}


def outs(dvc_lock: str):
    return parse_yaml(dvc_lock)["stages"]["prepare_data"]["outs"]


def test_the_image_has_what_a_run_needs_and_its_user_is_not_root(image):
    script = (
        "id -u; git --version; make --version; python3 -c 'import sys; print(sys.version_info[:2])'"
    )
    output = run("podman", "run", "--rm", image, "sh", "-ec", script)
    assert output.startswith("1000\n")
    assert "git version" in output
    assert "GNU Make" in output
    assert "(3, 11)" in output


def test_a_stage_in_its_own_image_gives_the_same_bytes_in_a_run_by_tag(sandbox, site):
    pip, volumes = site
    folder = sandbox.project.folder
    sandbox.project.dvc("repro")
    outside = outs((folder / "dvc.lock").read_text())
    (folder / "dvc.lock").unlink()
    sandbox.git("checkout", "--quiet", "--force", "-B", "image", sandbox.base)
    sandbox.branch = "image"
    file = "lab/processes/prepare_data/image"
    mounted = " ".join(f"--volume={volume}" for volume in (*volumes, f"{pip}:/etc/pip.conf:ro"))
    (folder / file).write_text(f"{IMAGE} {mounted}\n")
    sandbox.project.edit("dvc.yaml", '"deps": [', f'"deps": ["{file}", ')
    sandbox.commit("An image of its own")
    tag, output = sandbox.tag()
    assert "environment prepare_data: ready" in output, "the environment was made in the container"
    commit = results_of(sandbox, tag)
    assert file in sandbox.show(commit, "dvc.lock")
    assert outs(sandbox.show(commit, "dvc.lock")) == outside


def test_a_run_by_tag_uses_the_container_that_the_variable_names(sandbox, site, socket, tmp_path):
    pip, volumes = site
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "word").write_text("seen in the container\n")  # its path outside is different
    places = {"XDG_CACHE_HOME": "/kept/cache", "XDG_DATA_HOME": "/kept/data"}
    wheels = {k: v for k, v in os.environ.items() if k == "PIP_FIND_LINKS"}
    container = {
        "image": IMAGE,
        "options": "--user 0",
        "volumes": [*volumes, f"{pip}:/etc/pip.conf:ro", f"{kept}:/kept"],
        "env": places | wheels,
    }
    sandbox.git("checkout", "--quiet", "--force", "-B", "container", sandbox.base)
    sandbox.branch = "container"
    folder = sandbox.project.folder
    (folder / "dvc.yaml").write_text(DVC_YAML)
    with (folder / ".gitignore").open("a") as rules:
        rules.write("/artifacts/quick\n")
    sandbox.project.edit(
        "lab/processes/quick/main", "mkdir ", "id -un 1000; cat /kept/word\nmkdir "
    )
    sandbox.commit("In a container")
    with sandbox.settings("variables", RUN_CONTAINER=json.dumps(container)):
        tag, output = sandbox.tag()
    shutil.rmtree(kept)
    assert "| me " in output, "the image's user"
    assert "seen in the container" in output
    commit = results_of(sandbox, tag)
    assert "accuracy" in sandbox.show(commit, "metrics/quick.json")
    left = run("podman", "ps", "--all", "--quiet", "--filter", f"ancestor={IMAGE}")
    assert not left, "the container is removed"
