"""What preflight approves works: without the sandbox, with a folder as the remote."""

import contextlib
import json
import os
import re
import shutil
import socket
import threading
import time
import urllib.parse
from pathlib import Path

import pytest

from tests.conftest import Project, answer, server_that
from tools.job.preflight import failed

pytestmark = pytest.mark.integration

DVC_YAML = """
stages:
  quick:
    cmd: "true"
    deps: [data/raw/given.csv]
    metrics:
      - metrics/quick.json:
          cache: false
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Project:
    """A project whose stage reads a file from the bucket; its branch is on the origin."""
    folder = tmp_path_factory.mktemp("preflight") / "a projëct"
    project = Project(folder)
    project.give_pipeline(DVC_YAML)
    (folder / ".dvc/config").write_text(
        "[core]\n    remote = here\n['remote \"here\"']\n    url = ../../bucket\n"
    )
    (folder / "data/raw").mkdir(parents=True)
    (folder / "data/raw/given.csv").write_text("1,2\n")
    project.dvc("add", "--quiet", "data/raw/given.csv")
    project.dvc("push", "--quiet")
    project.commit("A pipeline of its own")
    project.publish()
    return project


@pytest.fixture
def project(original, tmp_path) -> Project:
    """A copy for one test."""
    for name in ("origin", "bucket"):
        shutil.copytree(original.folder.parent / name, tmp_path / name)
    return original.copied(tmp_path / "a projëct")


def preflight(project, *, ok, **extra) -> str:
    """Preflight's output in a new clone of the project, with a cache of its own."""
    project.commit("Another")
    project.git("push", "--quiet", "origin", "work")
    project.git("clone", "--quiet", "../origin", "../clone")
    clone = Project.at(project.folder.parent / "clone")
    cache = {"DVC_CACHE_DIR": f"{project.folder.parent}/cache"}
    command = ("tools/within", ".", "python", "-m", "tools.job.preflight")
    return clone.run(*command, ok=ok, **({"RUN_REF": "work"} | cache | extra))


def test_each_disk_that_a_run_uses_is_checked(project):
    other = Path("/dev/shm")
    if not other.exists() or other.stat().st_dev == project.folder.stat().st_dev:
        pytest.skip("there is one file system only")
    extra = {"FREE_GIGABYTES": "1e9", "DVC_CACHE_DIR": str(other / "not-there-yet")}
    output = preflight(project, ok=False, **extra)
    assert "GB are free where code and results are" in output
    assert f"GB are free where DVC's cache is ({other}" in output


@pytest.mark.parametrize("place", ["", "files/md5", "files/md5/0f", "runs/0f"])
def test_a_cache_that_is_not_writable_is_reported_before_training(project, place):
    cache = project.folder.parent / "cache"
    (cache / place).parent.mkdir(parents=True, exist_ok=True)
    (cache / place).touch(mode=0o600)  # fails for root, too, who may write to other users' folders
    output = preflight(project, ok=False)
    assert f"PROBLEM  DVC's cache on the runner cannot be written to ({cache / place}): " in output


def test_a_cache_in_the_home_of_nobody_is_a_problem(project):
    output = preflight(project, ok=False, DVC_CACHE_DIR="~no-such-user/cache")
    assert "DVC's cache would be ~no-such-user/cache: there is no such user here." in output
    assert "Traceback" not in output


def test_a_cache_beside_the_workspace_is_taken(project):
    output = preflight(project, ok=True, DVC_CACHE_DIR="../cache")
    assert f"DVC's cache is {project.folder.parent}/cache" in output


@pytest.mark.parametrize("named", ["cache", "./cache"])
def test_a_cache_in_the_workspace_is_refused(project, named):
    output = preflight(project, ok=False, DVC_CACHE_DIR=named)
    assert "PROBLEM  DVC's cache on the runner would be in the workspace (" in output


def test_a_cache_may_be_named_from_the_home_folder(project, tmp_path):
    data = os.environ.get("XDG_DATA_HOME") or f"{Path.home()}/.local/share"  # environments
    extra = {"HOME": str(tmp_path / "home"), "XDG_DATA_HOME": data, "DVC_CACHE_DIR": "~/my-cache"}
    caches = os.environ.get("XDG_CACHE_HOME") or f"{Path.home()}/.cache"
    output = preflight(project, ok=True, XDG_CACHE_HOME=caches, **extra)
    assert f"DVC's cache is {tmp_path}/home/my-cache" in output


def test_a_version_aware_remote_is_refused_in_words(project):
    with (project.folder / ".dvc/config").open("a") as config:
        config.write("    version_aware = true\n")
    output = preflight(project, ok=False)
    assert "DVC's remote has `version_aware`" in output


def test_an_out_elsewhere_that_dvc_does_not_keep_is_no_problem(project, tmp_path):
    stage = "  far:\n    cmd: 'true'\n    outs:\n      - {}:\n          cache: false\n"
    with (project.folder / "dvc.yaml").open("a") as file:
        file.write(stage.format(tmp_path / "far.txt"))
    output = preflight(project, ok=True)
    assert "PROBLEM" not in output


def test_a_disk_that_dvc_cannot_use_is_a_problem_beside_others(project):
    output = preflight(project, ok=False, DVC_SITE_CACHE_DIR="/dev/null/dvc", FREE_GIGABYTES="1e9")
    assert "GB are free where code and results are" in output
    assert "PROBLEM  A disk of this machine cannot be used: [Errno 20] Not a directory" in output
    assert "What DVC keeps in /dev/null/dvc can be removed" in output
    assert "Traceback" not in output


def test_a_database_of_dvc_that_a_crash_has_damaged_is_a_problem(project, tmp_path):
    site = tmp_path / "site"
    find = ("tools/within", ".", "python", "-c", "import dvc.repo; dvc.repo.Repo('.')")
    project.run(*find, DVC_SITE_CACHE_DIR=str(site))
    (database,) = site.rglob("hashes/local/cache.db")
    database.write_bytes(b"damaged" * 1000)
    ask = ("tools/within", ".", "python", "-c", "from tools.job import preflight as p; p.release()")
    output = project.run(*ask, ok=False, DVC_SITE_CACHE_DIR=str(site), DVC_CACHE_DIR=str(tmp_path))
    assert "PROBLEM  A disk of this machine cannot be used: file is not a database" in output


def test_data_in_the_bucket_are_ok(project):
    (project.folder / "data/raw/given.csv").unlink()
    output = preflight(project, ok=True)
    assert "PROBLEM" not in output
    assert "what stages need is in git, or in the bucket" in output


def test_a_dataset_is_looked_up_in_dvc_lock(project):
    rows = {"name": "rows", "type": "dvc", "url": "https://sandbox.invalid/rows", "path": "rows"}
    project.edit("dvc.yaml", "[data/raw/given.csv]", '["ds://rows"]')
    with (project.folder / "dvc.yaml").open("a") as file:
        file.write(f"datasets: {json.dumps([rows])}\n")
    lock = {"schema": "2.0", "datasets": [rows | {"rev_lock": "a" * 40}]}
    (project.folder / "dvc.lock").write_text(json.dumps(lock))
    assert "PROBLEM" not in preflight(project, ok=True)


def test_untracked_data_are_named(project):
    project.edit("dvc.yaml", "[data/raw/given.csv]", "[data/raw/mine.csv, first.csv]")
    (project.folder / "data/raw/.gitignore").write_text("/given.csv\n/mine.csv\n")
    (project.folder / "data/raw/mine.csv").write_text("3,4\n")
    first = {"cmd": "true", "wdir": "../..", "deps": ["data/theirs.csv"], "outs": ["first.csv"]}
    (project.folder / "lab/first").mkdir()
    (project.folder / "lab/first/dvc.yaml").write_text(json.dumps({"stages": {"first": first}}))
    output = preflight(project, ok=False)
    assert "quick needs data/raw/mine.csv, which neither git nor DVC has: `dvc add`" in output
    assert "lab/first/dvc.yaml:first needs data/theirs.csv, which neither" in output
    assert output.count("PROBLEM") == 1


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n"


@pytest.mark.parametrize("dep", ["data/lfs/n.csv", "data/lfs"])
def test_git_lfs_pointers_are_not_taken_for_data(project, dep):
    project.edit("dvc.yaml", "[data/raw/given.csv]", f"[data/raw/given.csv, {dep}]")
    (project.folder / "data/lfs").mkdir()
    (project.folder / "data/lfs/n.csv").write_text(POINTER)
    output = preflight(project, ok=False)
    assert f"quick needs {dep}: data/lfs/n.csv is a pointer of git LFS, not the file, " in output
    assert output.count("PROBLEM") == 1


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("*.json", "metrics/quick.json"),
        ("*.lock", "dvc.lock"),
        ("metrics/**", "metrics/quick.json"),
    ],
)
def test_results_that_git_lfs_would_take_are_reported(project, pattern, named):
    # Only the pointer would be pushed; the file itself would be lost.
    attributes = project.folder / ".gitattributes"
    attributes.write_text(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n")
    output = preflight(project, ok=False)
    line = re.search(f"PROBLEM  git LFS would keep {named}, .* `(.*)` .*", output)
    assert line, output
    with attributes.open("a") as file:
        file.write(f"{line[1]}\n")
    shutil.rmtree(project.folder.parent / "clone")
    assert "PROBLEM" not in preflight(project, ok=True)


@pytest.mark.parametrize("dep", ["data/other/n.csv", "data/other", "data"])
def test_data_in_a_submodule_are_reported(project, dep):
    project.edit("dvc.yaml", "data/raw/given.csv", dep)
    head = project.git("rev-parse", "HEAD").strip()
    project.git("update-index", "--add", "--cacheinfo", f"160000,{head},data/other")
    (project.folder / "data/other").mkdir()  # as git leaves a submodule that is not checked out
    output = preflight(project, ok=False)
    assert f"quick needs {dep}: data/other is a submodule, which a job does not check out" in output
    assert "neither git nor DVC" not in output


def test_imported_data_whose_repository_is_gone_are_named(project):
    imported = {
        "frozen": True,
        "deps": [{"path": "a.csv", "repo": {"url": "../nowhere", "rev_lock": "0" * 40}}],
        "outs": [{"md5": "0" * 32, "size": 3, "hash": "md5", "path": "imported.csv"}],
    }
    (project.folder / "imported.csv.dvc").write_text(json.dumps(imported))
    output = preflight(project, ok=False)
    assert "imported.csv cannot be fetched from where it was imported" in output
    assert output.count("PROBLEM") == 1


def test_data_that_are_never_pushed_are_named(project):
    file = project.folder / "data/raw/given.csv.dvc"
    file.write_text(file.read_text() + "  push: false\n")
    output = preflight(project, ok=False)
    assert "Not in the bucket: data/raw/given.csv: " in output


def test_missing_credentials_are_not_called_refused(project):
    script = (
        "from botocore.exceptions import HTTPClientError, NoCredentialsError\n"
        "from tools.job.storage import why_storage_failed\n"
        "print(why_storage_failed(NoCredentialsError()))\n"
        "of_headers = 'Forbidden control character detected in headers.'\n"
        "print(why_storage_failed(HTTPClientError(error=of_headers)))\n"
    )
    output = project.run("tools/within", ".", "python", "-c", script).splitlines()
    assert "there are no credentials: `make credentials`" in output[0]
    assert "refuses" not in output[0]
    assert "refuses the credentials: check" in output[1], "a key that contains a line break"


def test_cache_and_remote_may_have_any_characters(project):
    folder = project.folder.parent
    shutil.copytree(folder / "bucket", folder / "größe")
    given = {"DVC_CACHE_DIR": f"{folder}/cäche", "DVC_REMOTE_URL": "../größe"}
    output = preflight(project, ok=True, **given)
    assert "PROBLEM" not in output
    assert f"DVC's cache is {folder}/cäche" in output
    listed = Project.at(folder / "clone").dvc("config", "--list", "--local")
    assert f"remote.here.url={folder}/größe" in listed.replace("/clone/..", "")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"DVC_REMOTE_URL": "s4://lab/dvc"}, "Unsupported URL type s4://"),
        ({"DVC_CACHE_DIR": "/nowhere/%(x)s"}, "cannot hold what was given as dir"),
    ],
)
def test_settings_that_dvc_cannot_read_are_reported_not_written(project, given, expected):
    assert re.search(
        f"(?m)^PROBLEM  .*{re.escape(expected)}", preflight(project, ok=False, **given)
    )
    assert not (project.folder.parent / "clone/.dvc/config.local").exists()


MARKS = "<<<<<<< HEAD\n=======\n>>>>>>> other\n"


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("dvc.yaml", DVC_YAML + MARKS, "'dvc.yaml'"),
        ("dvc.yaml", DVC_YAML.replace("deps", "depz"), "dvc.yaml' validation failed"),
        ("dvc.yaml", DVC_YAML.replace("[data/", "[gs://data/"), "gs is supported, but requires"),
        ("dvc.lock", MARKS, "dvc.lock' validation failed"),
        (".dvc/config", "[core]\n    remote = here\n" + MARKS, "config"),
    ],
)
def test_a_file_that_dvc_cannot_read_is_a_one_line_problem(project, tmp_path, file, text, expected):
    (project.folder / file).write_text(text)
    output = preflight(project, ok=False, GITHUB_STEP_SUMMARY=str(tmp_path / "page.md"))
    assert "Traceback" not in output
    assert expected in output
    assert expected in (tmp_path / "page.md").read_text()
    head = project.git("rev-parse", "HEAD").strip()
    assert noted(project)["commit"] == head


def noted(project) -> dict:
    """The notes that preflight writes for later steps."""
    return json.loads((project.folder.parent / "clone/.dvc/tmp/run.json").read_text())


def test_packages_that_dvc_lacks_are_problems_and_our_own_typos_bugs():
    def missing() -> str:
        raise ImportError("gs is supported, but requires 'dvc-gs' to be installed")

    def typo() -> str:
        from lib.errors import UsrError  # type: ignore[attr-defined]

        return str(UsrError)

    assert "requires 'dvc-gs'" in failed([missing])[0]
    with pytest.raises(ImportError):
        failed([typo])


@pytest.mark.parametrize(
    ("ref", "sweeps"),
    [("refs/tags/tune-a", "lab/tuning"), ("tune-a", "lab/tuning"), ("tune-b", ""), ("work", "")],
)
def test_sweeps_run_for_a_tag_and_not_for_a_branch_of_that_name(project, ref, sweeps, tmp_path):
    (project.folder / "lab/tuning/dvc.yaml").write_text("stages: {}\n")
    project.commit("A sweep")
    project.git("tag", "tune-a")
    project.git("push", "--quiet", "origin", "tune-a", "HEAD:refs/heads/tune-b")
    preflight(project, ok=True, RUN_REF=ref, GITHUB_OUTPUT=str(tmp_path / "outputs"))
    assert (tmp_path / "outputs").read_text() == f"sweeps={sweeps}\n"
    assert noted(project)["sweep"] == bool(sweeps)


def test_a_sweep_tag_on_a_commit_without_sweeps_is_refused(project):
    output = preflight(project, ok=False, RUN_REF="refs/tags/tune-a")
    assert "A tag that begins with tune- runs the sweeps of lab/tuning/dvc.yaml, and this" in output
    assert output.count("PROBLEM") == 1


def results_of(project) -> str:
    """A results commit of the newest commit, as a run creates it."""
    head = project.git("rev-parse", "HEAD").strip()
    message = f"Another-results\n\nSource-Commit: {head}"
    return project.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", message).strip()


def test_a_branch_called_results_is_refused_before_the_run(project):
    project.git("push", "--quiet", "origin", "HEAD:refs/heads/results")
    output = branch_for(project, ok=False, RUN_REF="refs/tags/a-tag")
    assert "There is a branch `results`, beside which git can have no results/<tag>" in output


def branch_for(project, **extra) -> str:
    """Preflight's output on branches, in a clone that has the newest commit checked out."""
    head = project.git("rev-parse", "HEAD").strip()
    project.git("clone", "--quiet", "../origin", "../clone")
    clone = Project.at(project.folder.parent / "clone")
    clone.git("fetch", "--quiet", "origin")
    clone.git("checkout", "--quiet", "--detach", head)
    script = "from tools.job import preflight; preflight.main(lambda: print(preflight."
    script += "results_have_a_branch()))"
    return clone.run("tools/within", ".", "python", "-c", script, **extra)


def test_a_rerun_adds_results_to_the_branch_that_has_the_first_ones(project):
    results = results_of(project)
    project.git("push", "--quiet", "origin", f"{results}:refs/heads/work")
    later = project.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "Other work").strip()
    project.git("push", "--quiet", "origin", f"{later}:refs/heads/another")
    for name in (b"l\xe4tin", "two\u2028lines".encode()):
        odd = os.fsdecode(b"refs/heads/" + name)
        project.git("push", "--quiet", "origin", f"{later}:{odd}")
    assert "results go to branch work" in branch_for(project, RUN_REF="refs/tags/a-tag")


@pytest.mark.parametrize("default", ["trunk", "work"])
def test_of_several_branches_the_default_one_gets_the_results(project, default):
    for branch in ("work", "trunk"):
        later = project.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", branch).strip()
        project.git("push", "--quiet", "origin", f"{later}:refs/heads/{branch}")
    asked = {"RUN_REF": "refs/tags/a-tag", "DEFAULT_BRANCH": default}
    assert f"results go to branch {default}" in branch_for(project, **asked)


def test_a_commit_only_on_a_results_branch_gets_advice(project):
    results = results_of(project)
    project.git("push", "--quiet", "origin", f"{results}:refs/heads/results/a-tag")
    project.git("reset", "--quiet", "--hard", results)
    output = branch_for(project, ok=False, RUN_REF="refs/tags/another-tag")
    push = f"`git push origin {results[:10]}:refs/heads/NAME`"
    assert "The commit is on results/a-tag alone, where no results go: push it to a" in output
    assert push in output


@contextlib.contextmanager
def silent_server():
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def server_that_deletes_nothing():
    """A bucket that can be written, read and listed, but never answers a delete."""
    objects, ended = {}, threading.Event()

    def handle(request):
        name = urllib.parse.urlsplit(request.path).path.removeprefix("/bucket/")
        if request.command == "PUT":
            request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            objects[name] = request.rfile.read(int(request.headers["Content-Length"]))
            if request.headers.get("Content-Encoding") == "aws-chunked":
                objects[name] = objects[name].split(b"\r\n")[1]
            body = b""
        elif request.command == "DELETE":
            ended.wait(60)
            return
        elif "list-type=2" in request.path:
            listed = [f"<Contents><Key>{o}</Key><Size>1</Size></Contents>" for o in objects]
            body = f"<ListBucketResult>{''.join(listed)}</ListBucketResult>".encode()
        else:
            body = objects.get(name, b"")
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body if request.command != "HEAD" else b"")

    with server_that(handle) as address:
        yield address
        ended.set()


KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.mark.parametrize("server", [silent_server, server_that_deletes_nothing])
def test_hanging_storage_is_reported_in_seconds(project, server):
    with server() as address:
        (project.folder / ".dvc/config").write_text(
            "[core]\n    remote = far\n['remote \"far\"']\n    url = s3://bucket/dvc\n"
            f"    endpointurl = {address}\n"
        )
        script = "from tools.job import preflight as p; p.SECONDS = 2; p.main(p.connections)"
        started = time.monotonic()
        output = project.run("tools/within", ".", "python", "-c", script, ok=False, **KEYS)
    assert "does not answer: is it up, and the address right?" in output
    assert time.monotonic() - started < 30


REFUSALS = {
    "ExpiredToken": (403, "refuses the credentials, which have expired: renew them"),
    "RequestTimeTooSkewed": (403, "refuses the time of the requests: set this machine's clock"),
    "SlowDown": (503, "answers, and asks for fewer requests: try again later"),
    "PermanentRedirect": (301, "has this bucket in another region, or at another endpoint"),
    "AuthorizationHeaderMalformed": (400, "has this bucket in another region, or at another"),
    "InvalidAccessKeyId": (403, "refuses the credentials: check the secrets"),
    "AccessDenied": (403, "does not let these credentials write: give them write access"),
}
ASK_EACH = """
import sys
from lib.errors import UserError
from lib.repository import ROOT
from tools.dvc_config import set_values
from tools.job import preflight
for bucket in sys.argv[2:]:
    remote = {"url": f"s3://{bucket}/dvc", "endpointurl": sys.argv[1]}
    own = {"core": {"remote": "far"}, 'remote "far"': remote}
    set_values(ROOT / ".dvc/config.local", own)
    try:
        preflight.storage_answers()
    except UserError as error:
        print(error)
"""


def refuse(request):
    """Refuse as S3 does, with the error code that is the bucket's name."""
    code = request.path.split("/")[1].partition("?")[0]
    answer_s3(REFUSALS[code][0], f"<Error><Code>{code}</Code></Error>")(request)


def answer_s3(status, text):
    """For `server_that`: the same answer to each request of an S3 client."""

    def handle(request):
        if request.command == "PUT":
            request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        answer(status, text)(request)

    return handle


def test_each_refusal_by_s3_gives_its_cause(project):
    with server_that(refuse) as address:
        ask = ("tools/within", ".", "python", "-c", ASK_EACH, address, *REFUSALS)
        output = project.run(*ask, **KEYS)
    for code, (_, expected) in REFUSALS.items():
        assert f"S3 (s3://{code}/dvc at {address}) {expected}" in output, output


def test_missing_certificates_are_named_with_their_variable(project):
    ask = ("tools/within", ".", "python", "-c", ASK_EACH, "https://127.0.0.1:1", "bucket")
    output = project.run(*ask, AWS_CA_BUNDLE="/nowhere/ca.pem", **KEYS)
    assert "was not contacted, AWS_CA_BUNDLE names /nowhere/ca.pem, which does not exist" in output
    output = project.run(*ask, AWS_CA_BUNDLE=str(project.folder / "params.yaml"), **KEYS)
    assert "or AWS_CA_BUNDLE names has no certificate in it: fix it" in output


def test_a_missing_profile_is_reported_with_its_setting(project):
    ask = ("tools/within", ".", "python", "-c", ASK_EACH, "http://127.0.0.1:1", "bucket")
    output = project.run(*ask, AWS_PROFILE="nobody")
    assert "was not contacted, the profile is in no file of credentials: fix AWS_PROFILE" in output
    assert "(nobody)" in output


def test_certificate_and_proxy_errors_are_reported(project, certificate):
    ask = ("tools/within", ".", "python", "-c", ASK_EACH)
    with server_that(answer(200, ""), certificate) as address:
        output = project.run(*ask, address, "bucket", **KEYS)
    assert f"at {address}) has a certificate that this machine does not trust (self-" in output
    with server_that(answer_s3(407, "<html>Who?</html>")) as proxy:
        for host in ("http", "https"):
            given = {f"{host}_proxy": proxy.replace("//", "//user:the-password@")} | KEYS
            output = project.run(*ask, f"{host}://s3.invalid", "bucket", **given)
            assert f"at {host}://s3.invalid) was not reached: the proxy is down" in output
            assert "the-password" not in output
    with server_that(answer_s3(502, "<html>Bad Gateway</html>")) as address:
        output = project.run(*ask, address, "bucket", **KEYS)
    assert f"at {address}) does not answer: is it up" in output


LOOK = """
from lib.errors import UserError
from tools.project import doctor
try:
    print(doctor.credentials())
except UserError as problem:
    print(problem)
"""


def test_doctor_separates_working_storage_from_failing_mlflow(project):
    output = project.run("make", "doctor", ok=False, MLFLOW_URL="http://127.0.0.1:1")
    found = re.findall(r"^(\w+) +S3, MLflow +(S3 takes|MLflow at)", output, re.MULTILINE)
    assert found == [("ok", "S3 takes"), ("MISSING", "MLflow at")], output


@pytest.mark.parametrize(
    ("variable", "setting", "value", "expected"),
    [
        ("", "url", "s3://bucket/dvc", "DVC has none: make credentials"),
        ("", "url", "/mnt/storage", "none of S3: DVC's remote is /mnt/storage"),
        ("AWS_PROFILE", "url", "s3://bucket/dvc", "where AWS_PROFILE says"),
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            "url",
            "s3://b/dvc",
            "where AWS_SHARED_CREDENTIALS_FILE says",
        ),
        ("", "profile", "lab", "in .dvc/config"),
        ("", "credentialpath", "lab", "in .dvc/config"),
    ],
)
def test_credentials_are_not_missing_if_dvc_finds_them(
    project, tmp_path, variable, setting, value, expected
):
    project.dvc("remote", "modify", "here", "url", "s3://bucket/dvc")
    project.dvc("remote", "modify", "here", setting, value)
    unset = {name: "" for name in os.environ if name.startswith("AWS_")} | {variable: "lab"}
    unset.pop("", None)
    look = ("sh", "-c", 'PYTHONPATH=. "$(tools/environments/bootstrap)" -c "$1"', "sh", LOOK)
    caches = {"XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or f"{Path.home()}/.cache"}
    output = project.run(*look, HOME=str(tmp_path), **caches, **unset)
    assert output == f"{expected}\n"
