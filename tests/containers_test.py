"""The image that the project builds, and a process that runs in one.

`make test-containers` installs what these need, and runs them: debootstrap, buildah, podman and
runc, from Debian's packages. The base is made here, so that no registry is asked.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lib.params import read_yaml
from tests.conftest import ROOT

NEEDED = ("buildah", "debootstrap", "podman", "runc")


def why_not() -> str:
    """Why this machine cannot do it."""
    if os.environ.get("TEST_CONTAINERS") != "yes":
        return "make test-containers"
    if absent := [program for program in NEEDED if not shutil.which(program)]:
        return f"no {', '.join(absent)}"
    if os.geteuid():
        return "root alone can make the base"
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        return "not even root may make a namespace here"
    return "" if debian_mirror() else "apt-get knows no mirror of Debian"


def debian_mirror() -> str:
    """Where this machine's own packages come from."""
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE)"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")
    return next((line.split()[1] for line in listed if line.startswith("Debian ")), "")


pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(why_not()), reason=why_not())]

IMAGE = "localhost/machine-of-the-tests"
# What podman needs where it may neither set limits nor make control groups or networks.
SETTINGS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4000:4000"]
cgroupns = "host"
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""


def run(*command: str, **options) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def containers(tmp_path_factory):
    """The environment in which podman and buildah work here."""
    file = tmp_path_factory.mktemp("containers") / "containers.conf"
    file.write_text(SETTINGS)
    return {"CONTAINERS_CONF": str(file), "CONTAINER_ENGINE": "podman"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """This machine's settings of pip, and the folders that they name, as a container's options."""
    file = tmp_path_factory.mktemp("site") / "pip.conf"
    listed = run("python3", "-m", "pip", "config", "list")
    lines = [line.partition("=")[::2] for line in listed.splitlines() if line.startswith("global.")]
    text = "".join(
        f"{name.removeprefix('global.')} = {value.strip(chr(39))}\n"
        for name, value in lines
        if name != "global.constraint"
    )
    file.write_text(f"[global]\n{text}")
    places = [
        file_or_folder
        for file_or_folder in ("/etc/ssl/certs", "/opt")
        if Path(file_or_folder).is_dir()
    ]
    return file, [f"--volume={place}:{place}:ro" for place in places]


@pytest.fixture(scope="module")
def image(containers, site, tmp_path_factory):
    """The image `machine`, on a base made of Debian's own packages."""
    base = tmp_path_factory.mktemp("base") / "debian"
    run(
        "debootstrap",
        "--variant=minbase",
        "--include=ca-certificates",
        "bookworm",
        str(base),
        debian_mirror(),
    )
    run(
        "sh",
        "-c",
        f"tar -C '{base}' -c . | podman import - localhost/debian:tests",
        env=os.environ | containers,
    )
    shutil.rmtree(base)
    settings, volumes = site
    wheels = os.environ.get("PIP_FIND_LINKS", "")
    run(
        *("buildah", "bud", "--isolation", "chroot", "--network", "host", *volumes),
        *("--secret", f"id=pip.conf,src={settings}", "--build-arg", f"PIP_FIND_LINKS={wheels}"),
        *("--build-arg", "BASE=localhost/debian:tests", "--target", "machine", "--tag", IMAGE),
        *("--file", "tools/image/Dockerfile", "."),
        cwd=ROOT,
        env=os.environ | containers,
    )
    yield IMAGE
    run("podman", "rmi", "--force", IMAGE, "localhost/debian:tests", env=os.environ | containers)


def test_the_machine_has_what_a_run_needs_and_its_user_is_not_root(image, containers):
    script = (
        "id -u; git --version; make --version; python3 -c 'import sys; print(sys.version_info[:2])'"
    )
    said = run("podman", "run", "--rm", image, "sh", "-ec", script, env=os.environ | containers)
    assert said.startswith("1000\n")
    assert "git version" in said
    assert "GNU Make" in said
    assert "(3, 11)" in said


def test_a_process_in_an_image_of_its_own_gives_the_same_bytes(
    image, containers, site, finished, tmp_path
):
    settings, volumes = site
    project = finished.copied(tmp_path / "copy")
    before = read_yaml(project.folder / "dvc.lock")["stages"]["prepare_data"]["outs"]
    (project.folder / "lab/processes/prepare_data/image").write_text(
        f"{image} {' '.join(volumes)} --volume={settings}:/etc/pip.conf:ro\n"
    )
    for out in before:
        path = project.folder / out["path"]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = project.dvc(
        "repro", "prepare_data", XDG_CACHE_HOME=str(tmp_path / "cache"), **containers
    )
    assert "environment prepare_data: ready" in said, "it was made in the container"
    assert "MLflow: logged" in said
    assert read_yaml(project.folder / "dvc.lock")["stages"]["prepare_data"]["outs"] == before
