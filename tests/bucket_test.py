"""Files from the bucket are those that dvc.lock names, and arrive where it says.

The bucket is a folder here: a test can change it as somebody with write access can change S3.
"""

import hashlib
import json
import shutil

import pytest

from tests.conftest import Project

pytestmark = pytest.mark.integration

GUARDED = ("tools/within", ".", "python", "-m", "tools.job.guarded_dvc")


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A project whose folder of data is only in the bucket."""
    project = Project(tmp_path_factory.mktemp("bucket"))
    config = (project.folder / ".dvc/config").read_text().splitlines()
    kept = [line for line in config if "url = " not in line]
    bucket = project.folder / "the bucket"
    (project.folder / ".dvc/config").write_text("\n".join([*kept, f"    url = {bucket}", ""]))
    with (project.folder / ".gitignore").open("a") as ignored:
        ignored.write("/the bucket\n")
    (project.folder / "stuff").mkdir()
    for name in ("one", "two"):
        (project.folder / "stuff" / name).write_text(name)
    project.dvc("add", "--quiet", "stuff")
    project.dvc("push", "--quiet", "stuff.dvc")
    project.commit("Data")
    return project


@pytest.fixture
def project(pushed):
    """The same, with an empty cache."""
    yield pushed
    pushed.git("checkout", "--quiet", "--", ".")
    shutil.rmtree(pushed.folder / "stuff", ignore_errors=True)
    shutil.rmtree(pushed.folder / ".dvc/cache", ignore_errors=True)
    shutil.rmtree(pushed.folder / ".dvc/tmp", ignore_errors=True)
    shutil.rmtree(pushed.folder / "the bucket")
    shutil.copytree(pushed.folder / "kept", pushed.folder / "the bucket")


@pytest.fixture(scope="module", autouse=True)
def kept(pushed):
    """Keep a copy of the bucket, which is restored after each test."""
    shutil.copytree(pushed.folder / "the bucket", pushed.folder / "kept")
    shutil.rmtree(pushed.folder / "stuff")
    shutil.rmtree(pushed.folder / ".dvc/cache")


def object_of(project, md5):
    return project.folder / "the bucket/files/md5" / md5[:2] / md5[2:]


def listing_of(project):
    """The file in the bucket that lists the folder."""
    (found,) = (project.folder / "the bucket").rglob("*.dir")
    return found


def relist(project, path):
    """Change a file's path in the folder's listing, and all checksums to fit."""
    listing = json.loads(listing_of(project).read_text())
    listing[0]["relpath"] = path
    text = json.dumps(listing)
    new = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    old = listing_of(project)
    place = object_of(project, f"{new}.dir")
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)
    project.edit("stuff.dvc", f"{old.parent.name}{old.name}", f"{new}.dir")
    old.unlink()


def test_a_file_replaced_in_the_bucket_is_refused(project):
    md5 = hashlib.md5(b"one", usedforsecurity=False).hexdigest()
    object_of(project, md5).chmod(0o644)
    object_of(project, md5).write_text("0ne")
    project.dvc("pull", "stuff.dvc", ok=False)
    assert not (project.folder / "stuff/one").exists()


def test_a_listing_replaced_in_the_bucket_is_refused(project):
    listing = listing_of(project)
    listing.chmod(0o644)
    listing.write_text(listing.read_text().replace('"one"', '"0ne"'))
    output = project.run(*GUARDED, "pull", "stuff.dvc", ok=False)
    assert "refused: the listing of a folder is not " in output
    assert not (project.folder / "stuff/0ne").exists()


@pytest.mark.parametrize("path", ["../escaped", "a/../../escaped", "/tmp/escaped", "./a", "", 1])
def test_a_listing_with_a_path_outside_its_folder_is_refused(project, path):
    relist(project, path)
    output = project.run(*GUARDED, "pull", "stuff.dvc", ok=False)
    assert f"refused: the listing of a folder names the file {path!r}" in output
    assert not (project.folder / "escaped").exists()
    assert "Traceback" not in output


def test_preflight_refuses_such_a_listing_before_any_stage_runs(project):
    relist(project, "../escaped")
    check = "from tools.job.storage import listings_are_whole; listings_are_whole()"
    error = project.run("tools/within", ".", "python", "-c", check, ok=False)
    assert "UserError: stuff: refused: the listing of a folder names the file '../escaped'" in error


def test_an_unchanged_listing_is_accepted(project):
    project.run(*GUARDED, "pull", "stuff.dvc")
    assert (project.folder / "stuff/two").read_text() == "two"


FOLDER_OUT = """
stages:
  several:
    cmd: mkdir -p several && mv large several && touch several/small
    outs: [several]
"""


def test_a_stage_fails_if_not_all_its_outs_get_into_the_cache(tmp_path):
    project = Project(tmp_path)
    project.give_pipeline(FOLDER_OUT)
    project.dvc("remote", "add", "--quiet", "there", str(tmp_path / "there"))
    (project.folder / "large").write_bytes(bytes(3_000_000))
    full = ("sh", "-c", 'ulimit -f 2048; exec "$@"', "sh")  # in blocks: 1 or 2 MB per file
    output = project.run(*full, *GUARDED, "repro", ok=False)
    assert "of its files did not get into DVC's cache: is its disk full?" in output
    assert not (project.folder / "dvc.lock").exists()
    (project.folder / "several/large").rename(project.folder / "large")
    project.run(*GUARDED, "repro")
    project.dvc("push", "--quiet", "--remote", "there")


CHAIN = """
stages:
  first:
    cmd: mkdir -p first && echo a whole file > first/file
    outs: [first]
  second:
    cmd: cat first/file > second
    deps: [first]
    outs: [second]
"""


def cut_short(project, content):
    """Leave half of the files in DVC's cache whose content begins so, as a crash may."""
    for file in (project.folder / ".dvc/cache/files/md5").rglob("*"):
        if file.is_file() and file.read_bytes().startswith(content):
            file.chmod(0o644)
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
            file.chmod(0o444)


@pytest.mark.parametrize("pull", [(), ("--pull",)])
@pytest.mark.parametrize("content", [b"a whole file", b"[{"])
def test_a_file_that_a_crash_cut_short_in_the_cache_is_made_or_pulled_again(
    tmp_path, pull, content
):
    project = Project(tmp_path / "project")
    project.give_pipeline(CHAIN)
    remote = str(tmp_path / "there")
    project.dvc("remote", "add", "--quiet", "--default", "--force", "there", remote)
    project.run(*GUARDED, "repro")
    if pull:
        project.dvc("push", "--quiet")
    cut_short(project, content)
    shutil.rmtree(project.folder / "first")
    (project.folder / "second").unlink()
    if not pull:
        (project.folder / "dvc.lock").unlink()
    output = project.run(*GUARDED, "repro", *pull)
    assert ("Running stage 'first'" in output) is not bool(pull)
    assert (project.folder / "second").read_bytes() == b"a whole file\n"


def test_a_listing_that_a_crash_cut_short_in_the_cache_is_no_problem_of_the_bucket(project):
    project.dvc("pull", "--quiet", "stuff.dvc")
    cut_short(project, b"[{")
    check = "from tools.job.storage import listings_are_whole; print(listings_are_whole())"
    output = project.run("tools/within", ".", "python", "-c", check)
    assert "the listings of" in output
