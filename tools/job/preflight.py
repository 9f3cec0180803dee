"""Before anything is trained: can this run start, and can its results be kept?

Each check prints a line in the log; problems are also on the run's page. A check that fails stops
the run, except for MLflow: if its server is down, `make relog` logs the results later.

    preflight                 in a run
    preflight --release       before a runtime is released
    preflight --connections   only S3 and MLflow (make doctor)
"""

import errno
import json
import os
import re
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from dvc.config import Config
from dvc.dirs import site_cache_dir
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc_data.hashfile.tree import Tree

from lib.errors import UserError
from lib.params import check_all, line_of
from lib.pipeline import SWEEPS
from lib.repository import ROOT, ask_git, git, git_names
from lib.text import shown_address, some_of, without_password
from tools.command import DISK_FULL, first_error, run
from tools.dvc_config import set_values
from tools.job.guarded_dvc import install
from tools.job.job import MARK, add_to_note, ask_mlflow, main, pipeline_file, summarise
from tools.network import network_problem
from tools.tracking import job_url

PLAIN_NAME = r"[A-Za-z0-9][A-Za-z0-9._/+-]*"
SWEEP = "tune-"  # prefix of the tags that run the sweeps
FREE_GIGABYTES = 2.0
PROBE = b"can results be kept?"
SECONDS = 20  # within which S3 must answer each request of the probe
POINTER = b"version https://git-lfs.github.com/spec/"  # of a git LFS pointer file
LARGEST_POINTER = 1024  # bytes; git LFS has the same limit
ELSEWHERE = (
    "has this bucket in another region, or at another endpoint: fix region and endpointurl in "
    ".dvc/config, or the variable MLFLOW_S3_ENDPOINT_URL"
)
# The errors of a disk that is full, broken, read-only or another user's.
UNUSABLE = (*DISK_FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EIO)
AWAY = ("502", "503", "504")  # from a proxy in front of S3; S3's own errors have a code
REFUSALS = {  # by S3's own code
    "ExpiredToken": (
        "refuses the credentials, which have expired: renew them with `make credentials`, or a "
        "runner's secrets"
    ),
    "RequestTimeTooSkewed": "refuses the time of the requests: set this machine's clock",
    "SlowDown": "answers, and asks for fewer requests: try again later",
    "PermanentRedirect": ELSEWHERE,
    "AuthorizationHeaderMalformed": ELSEWHERE,
    "RecursionError": ELSEWHERE,  # what the client makes of a PermanentRedirect without a region
}


def name_is_plain() -> str:
    """Refuse a ref whose name has shell characters, quotes or control characters."""
    ref = os.environ.get("RUN_REF") or os.environ.get("GITHUB_REF", "HEAD")
    name = re.sub(r"^refs/(tags|heads)/", "", ref)
    sweep = name.startswith(SWEEP) and is_tag(ref)
    add_to_note(name=name, commit=git("rev-parse", "HEAD"), run_url=job_url(), sweep=sweep)
    if not re.fullmatch(PLAIN_NAME, name):
        raise UserError(
            f"The name {name!r} has characters that are not letters, digits or one of . _ / + -: "
            "push the commit again under a plain name."
        )
    if sweep and not (ROOT / SWEEPS).exists():
        raise UserError(
            f"A tag that begins with {SWEEP} runs the sweeps of {SWEEPS}, and this commit has "
            "none: `make sweep NAME=…` makes one; for a run of the pipeline, push another tag."
        )
    return f"{name} is commit {git('rev-parse', '--short', 'HEAD')}"


def is_tag(ref: str) -> bool:
    """Whether a ref is a tag; a plain name that is also a branch means the branch."""
    if ref.startswith("refs/"):
        return ref.startswith("refs/tags/")
    refs = (f"refs/tags/{ref}", f"refs/remotes/origin/{ref}")
    tag, branch = (ask_git("rev-parse", "--verify", "--quiet", r).returncode == 0 for r in refs)
    return tag and not branch


def results_have_a_branch() -> str:
    """Choose the branch that gets the results, among those that contain the commit.

    It is the branch whose tip is a results commit of this commit; else the branch whose tip this
    commit is; else the only branch; else the default branch. `results/…` are never chosen.
    """
    form = "--format=%(objectname) %(refname:lstrip=3)"
    listed = git("for-each-ref", "--contains=HEAD", form, "refs/remotes/origin")
    lines = filter(None, listed.split("\n"))  # a name may have U+2028 in it
    tip_of = {name: tip for tip, name in (line.split(" ", 1) for line in lines)}
    aside = [name for name in tip_of if name.startswith("results/")]
    names = [name for name in tip_of if name != "HEAD" and name not in aside]
    head = git("rev-parse", "HEAD")
    tips = [name for name in names if tip_of[name] == head]
    done = [name for name in names if source_of(tip_of[name]) == head]
    default = os.environ.get("DEFAULT_BRANCH") or "main"
    dispatched = os.environ.get("RUN_REF", "").removeprefix("refs/heads/")
    for candidates in ([dispatched], done, tips, names, [default]):
        if len(candidates) == 1 and candidates[0] in names:
            add_to_note(branch=candidates[0])
            return f"results go to branch {candidates[0]}"
    if aside and not names:
        raise UserError(
            f"The commit is on {', '.join(aside)} alone, where no results go: push it to a branch "
            f"of its own (`git push origin {head[:10]}:refs/heads/NAME`), then re-run this job."
        )
    if not names:
        raise UserError(
            "The commit is on no branch, so its results would be on none: push its branch first, "
            "then re-run this job."
        )
    raise UserError(
        f"The commit is on several branches ({', '.join(names)}), and it is the newest of none or "
        "of more than one: push a commit on the branch that is to have the results, and tag that."
    )


def source_of(commit: str) -> str:
    """The source commit of a results commit; empty for other commits."""
    return git("show", "-s", "--format=%(trailers:key=Source-Commit,valueonly)", commit).strip()


def parameters_are_valid() -> str:
    """Check params.yaml as every process does."""
    check_all(ROOT)
    return "params.yaml is valid"


def locks_fit() -> str:
    """Check that each lock fits its Pipfile."""
    bootstrap = run(str(ROOT / "tools/environments/bootstrap")).stdout.strip()
    done = run(bootstrap, "-m", "tools.environments", "verify", ok=False)
    if done.returncode:
        raise UserError(done.stderr.strip())
    return "locks fit their Pipfiles"


def disks_have_room() -> str:
    """Check each disk that holds code and results, DVC's cache, or environments."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    folders = {
        "code and results are": ROOT,
        "DVC's cache is": cache_folder(),
        "environments are": Path(os.environ.get("WORKON_HOME") or home / "virtualenvs"),
    }
    wanted = float(os.environ.get("FREE_GIGABYTES") or FREE_GIGABYTES)
    free: dict[int, float] = {}  # by the number of the device
    full: dict[int, str] = {}
    for what, folder in folders.items():
        there = next(place for place in (folder, *folder.parents) if place.exists())
        gigabytes = free.setdefault(there.stat().st_dev, shutil.disk_usage(there).free / 1e9)
        if gigabytes < wanted:
            shown = f"{gigabytes:.1f} GB are free where {what} ({folder})"
            full.setdefault(there.stat().st_dev, shown)
    if full:
        raise UserError(
            f"On the runner, {' and '.join(full.values())}, {wanted:g} are wanted: there, "
            "`make clean DAYS=0` removes old environments."
        )
    return f"{min(free.values()):.0f} GB of disk are free"


def cache_takes_results() -> str:
    """Check each folder of DVC's cache: jobs of another user, as in a container, may own some."""
    parts = ("files", "files/md5", "files/md5/*", "runs", "runs/*")
    cache = cache_folder()
    if cache.is_relative_to(ROOT):
        raise UserError(
            f"DVC's cache on the runner would be in the workspace ({cache}), which the next job "
            "empties: name a folder elsewhere in DVC_CACHE_DIR, beginning with / or ~."
        )
    there = next(place for place in (cache, *cache.parents) if place.exists())
    for folder in (there, *(found for part in parts for found in cache.glob(part))):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(
                f"DVC's cache on the runner cannot be written to ({folder}): is it another user's, "
                "or its disk read-only? Give it to the user that jobs run as, or name another "
                "folder in DVC_CACHE_DIR there."
            )
    return "DVC's cache takes what stages compute"


def cache_folder() -> Path:
    """DVC's cache, outside the workspace."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    named = Path(os.environ.get("DVC_CACHE_DIR") or home / "dvc-cache")
    try:
        return named.expanduser().resolve()  # no shell expands `~` in a runner's .env
    except RuntimeError:
        raise UserError(f"DVC_CACHE_DIR is {named}: there is no such user here.") from None


def storage_answers() -> str:
    """Write, read, list and delete in the bucket, with DVC's settings and these credentials."""
    with Repo(str(ROOT)) as repo:
        name = repo.config["core"].get("remote")
        settings = repo.config["remote"].get(name or "", {})
        url = settings.get("url", "")
        if not url or MARK in url or MARK in settings.get("endpointurl", ""):
            raise UserError(
                f"DVC's remote is not filled in (it is {url or 'not there'!r}): fill in the marks "
                "in .dvc/config, or set the variables DVC_REMOTE_URL and MLFLOW_S3_ENDPOINT_URL."
            )
        if kind := next((k for k in ("version_aware", "worktree") if settings.get(k)), ""):
            raise UserError(
                f"DVC's remote has `{kind}`, with which DVC neither lists nor checks what the "
                "bucket has: remove it from .dvc/config."
            )
        endpoint = shown_address(settings.get("endpointurl", "its default address"))
        where = f"{shown_address(url)} at {endpoint}"
        # Retries included: s3fs and botocore would try for half an hour if a server hangs.
        limit = {"timeout": SECONDS} if url.startswith("s3:") else {}
        asked = "write"
        try:
            remote = repo.cloud.get_remote()
            if limit:  # botocore already tries five times; s3fs would multiply that
                remote.fs.fs.retries = 1
            probe = f"{remote.path}/preflight-{socket.gethostname()}-{os.getpid()}"
            remote.fs.makedirs(remote.path)
            remote.fs.pipe_file(probe, PROBE, **limit)
            asked = "read"
            if remote.fs.cat_file(probe, **limit) != PROBE:
                raise UserError(f"S3 ({where}) gives back other bytes than were written.")
            asked = "list"
            remote.fs.ls(remote.path, detail=False, **limit)
            asked = "delete"
            remote.fs.fs.rm_file(probe, **limit)
        except UserError:
            raise
        except Exception as error:  # of s3fs, botocore, aiohttp or the operating system
            raise UserError(f"S3 ({where}) {why_storage_failed(error, asked)}") from None
    return f"S3 takes writes and gives them back: {where}"


def point_dvc_at_this_platform() -> str:
    """Write the remote and the cache folder to .dvc/config.local, which is not tracked.

    The cache is outside the workspace, which is new for each run: a re-run finds there what an
    earlier run computed.
    """
    folder = ROOT / ".dvc"
    try:
        config = Config(str(folder))
        remote = config["core"].get("remote", "minio")
        settings = {"verify": "true"}
        if url := os.environ.get("DVC_REMOTE_URL"):
            # DVC takes a relative path for one below its own folder.
            settings["url"] = url if "://" in url or url[0] == "~" else str(Path(url).absolute())
        if (endpoint := os.environ.get("MLFLOW_S3_ENDPOINT_URL", "")) and MARK not in endpoint:
            settings["endpointurl"] = endpoint
        address = settings.get("url") or config["remote"].get(remote, {}).get("url", "")
        if address.startswith("s3:"):
            settings |= {"connect_timeout": "5", "read_timeout": "60"}
        cache = {"dir": str(cache_folder())}
        # Validate before writing: the clone on the runner would keep invalid settings.
        Config(str(folder), config={"cache": cache, "remote": {remote: settings}})
    except DvcException as error:
        raise UserError(as_problem(error)) from None
    set_values(folder / "config.local", {"cache": cache, f'remote "{remote}"': settings})
    return f"DVC's cache is {cache_folder()}"


def why_storage_failed(error: Exception, asked: str = "write") -> str:
    """Why a request to the storage failed and what to do; `asked` is what it asked for."""
    # s3fs raises PermissionError for every refusal; the cause has the code.
    kinds = " ".join(type(e).__name__ for e in (error, error.__cause__) if e)
    response = getattr(error.__cause__, "response", {})
    code = response.get("Error", {}).get("Code", "")
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    said = code or (f"code {status}" if status else "")  # a proxy sends no S3 error code
    text = " ".join(f"{kinds} {said} {error}".split())
    trusted = os.environ.get("AWS_CA_BUNDLE", "")
    if refusal := REFUSALS.get(code) or REFUSALS.get(kinds):
        what = refusal
    elif problem := network_problem(text):
        what = problem
    elif "HTTPClientError" in kinds and trusted and not Path(trusted).exists():
        what = f"was not contacted, AWS_CA_BUNDLE names {trusted}, which does not exist: fix it"
    elif "ProfileNotFound" in kinds:
        what = (
            "was not contacted, the profile is in no file of credentials: fix AWS_PROFILE and "
            "AWS_SHARED_CREDENTIALS_FILE, or profile and credentialpath in .dvc/config"
        )
    elif "NoCredentials" in text:
        what = (
            "was not contacted, there are no credentials: `make credentials`, or a runner's secrets"
        )
    elif re.search(
        # "control character": the client's error for a key with a line end in it.
        r"InvalidAccessKeyId|control character|InvalidToken|SignatureDoesNotMatch|[cC]redential",
        text,
    ):
        what = "refuses the credentials: check the secrets MINIO_ACCESS_KEY_ID and MINIO_SECRET_ACCESS_KEY"  # noqa: E501
    elif re.search(r"AccessDenied|Forbidden|PermissionError|read.?only", text, re.IGNORECASE):
        what = f"does not let these credentials {asked}: give them {asked} access to the bucket"
    elif re.search(r"NoSuchBucket|FileNotFound|bucket does not exist", text):
        what = "has no such bucket: create it, or fix the url in .dvc/config"
    elif re.search(r"Full|Quota|InsufficientStorage|No space|InternalError|ServiceUnavail", text):
        what = "cannot write: is its disk full, or the bucket over its quota or locked?"
    elif code in AWAY or re.search(r"connect|Connection|Timeout|timed out|resolve", text):
        what = "does not answer: is it up, and the address right?"
    else:
        what = "fails:"
    return f"{what} ({without_password(text)[:200]})"


def data_are_there() -> str:
    """Check that everything stages need and do not make, such as `dvc add` data, can be had."""
    with Repo(str(ROOT)) as repo:
        data = [stage for stage in repo.index.stages if stage.is_data_source]
        problems = [p for p in what_is_missing(repo, data) if p]
    if problems:
        raise UserError(" ".join(problems))
    return f"what stages need is in git, or in the bucket: {len(data)} tracked data files"


def what_is_missing(repo: Any, data: list[Any]) -> Iterator[str]:
    """A line for each kind of data that the run could not get; some lines are empty."""
    file = pipeline_file()
    own = repo.stage.load_all(file) if (ROOT / file).exists() else []
    plan = plan_repro(get_active_graph(repo.index.graph), own) if own else []
    pipeline = [stage for stage in plan if not stage.is_data_source]
    lacking = lacking_in_git()
    yield from (not_whole(s, lacking) or not_tracked(s, repo.index.outs) for s in pipeline)
    yield kept_by_lfs([out for stage in pipeline for out in stage.outs if not out.use_cache])
    frozen = [stage.addressing for stage in pipeline if stage.frozen]
    missing = missing_in_bucket([*(stage.addressing for stage in data), *frozen])
    imports = []
    for stage in data:
        if stage.is_repo_import or stage.is_partial_import:
            imports += [] if has_data(stage) else [stage]
        elif not all(out.use_cache and out.can_push for out in stage.outs) and not has_data(stage):
            missing.append(stage.addressing.removesuffix(".dvc"))
    if missing:
        then = "`dvc push` where the data are, then re-run this job."
        yield f"Not in the bucket: {some_of(missing)}: {then}"
    if imports:
        yield not_fetched(imports)


def missing_in_bucket(targets: list[str]) -> list[str]:
    """The targets that are neither in DVC's remote nor in the runner's cache."""
    if not targets:
        return []
    done = run("dvc", "status", "--cloud", "--json", *targets, ok=False)
    if done.returncode:
        raise UserError(
            f"The bucket cannot be checked for tracked data: {first_error(done.stderr)}."
        )
    # "deleted": only in the bucket; "new": only in the runner's cache, and the run pushes it.
    states = json.loads(done.stdout or "{}")
    missing = [name for name, state in states.items() if state == "missing"]
    # If a whole tracked folder is missing, DVC only warns, and names only its checksum.
    lost = re.findall(r"md5: ([0-9a-f]{32}\.dir)", done.stderr)
    return missing + [
        target.removesuffix(".dvc")
        for target in targets
        if (ROOT / target).is_file()
        and any(checksum in (ROOT / target).read_text(encoding="utf-8") for checksum in lost)
    ]


def not_fetched(imports: list[Any]) -> str:
    """A line on imports that cannot be fetched from their source; DVC's remote has no copy."""
    done = run("dvc", "fetch", *(stage.addressing for stage in imports), ok=False)
    left = [s for s in imports if (done.returncode if s.is_partial_import else not has_data(s))]
    named = ", ".join(stage.addressing.removesuffix(".dvc") for stage in left)
    why = first_error(done.stderr)
    return f"{named} cannot be fetched from where it was imported: {why}" if left else ""


def has_data(stage: Any) -> bool:
    """Whether all outs of a stage are in the work tree or in the runner's cache."""
    return all(out.exists or (out.hash_info and not out.changed_cache()) for out in stage.outs)


def lacking_in_git() -> dict[Path, str]:
    """Submodules and LFS pointers, by path: why a run cannot use them."""
    lacking = {}
    for entry in git_names("ls-files", "-z", "--stage"):
        about, _, name = entry.partition("\t")
        path = Path(os.path.realpath(ROOT), name)
        if about.startswith("160000 "):  # a commit of another repository
            if not (path / ".git").exists():
                lacking[path] = (
                    f"{name} is a submodule, which a job does not check out: `dvc import` what is "
                    "needed of it, or add that to this repository."
                )
        elif about.startswith("100") and is_pointer(path):
            lacking[path] = (
                f"{name} is a pointer of git LFS, not the file, which a job does not fetch: where "
                f"the file is, `git rm --cached` and `dvc add` it, `dvc push`, and commit its .dvc "
                "file."
            )
    return lacking


def kept_by_lfs(results: list[Any]) -> str:
    """A line on results in git that are tracked by git LFS, to which jobs do not push; or empty."""
    files = [os.path.relpath(out.fs_path, ROOT) for out in results if out.is_in_repo]
    lock = str(Path(pipeline_file()).with_suffix(".lock"))
    answer = git("check-attr", "-z", "--stdin", "filter", stdin="\0".join([lock, *files]))
    found = answer.split("\0")
    taken = [name for name, value in zip(found[::3], found[2::3], strict=False) if value == "lfs"]
    if not taken:
        return ""
    return (
        f"git LFS would keep {some_of(taken)}, because of .gitattributes, and jobs do not push to "
        f"LFS: add the line `{taken[0]} !filter !diff !merge` at its end, likewise for others."
    )


def is_pointer(path: Path) -> bool:
    """Whether a file is a git LFS pointer instead of the content."""
    if not path.is_file() or path.stat().st_size > LARGEST_POINTER:
        return False
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER


def not_whole(stage: Any, lacking: dict[Path, str]) -> str:
    """A line on a dep that contains such a submodule or pointer; empty if none does."""
    here = [dep for dep in stage.deps if dep.protocol == "local"]
    for dep, (left_out, why) in product(here, lacking.items()):
        path = Path(dep.fs_path)
        if path.is_relative_to(left_out) or left_out.is_relative_to(path):
            return f"{stage.addressing} needs {dep}: {why}"
    return ""


def not_tracked(stage: Any, outs: Any) -> str:
    """A line on a dep that is missing and that no stage makes; empty if there is none."""
    made = [Path(out.fs_path) for out in outs if out.fs.protocol == "local"]
    for dep in stage.deps:
        if not dep.fs:  # a dataset (`ds://…`), whose version is in dvc.lock
            continue
        try:
            there = dep.exists
        except Exception as error:  # of whatever file system a dep is on
            return f"{stage.addressing} needs {dep}, which cannot be checked: {error}"
        path = Path(dep.fs_path)
        near = (m == path or m in path.parents or path in m.parents for m in made)
        if not there and not (dep.fs.protocol == "local" and any(near)):
            what = "neither git nor DVC has: `dvc add` it, `dvc push`, and commit its .dvc file"
            return f"{stage.addressing} needs {dep}, which {what}."
    return ""


def listings_are_whole() -> str:
    """Check that each folder's listing, here and in the bucket, has the checksum in dvc.lock."""
    install()
    with Repo(str(ROOT)) as repo:
        remote = repo.cloud.get_remote_odb()
        folders = [out for out in repo.index.outs if out.hash_info and out.hash_info.isdir]
        for out in folders:
            for place in (out.cache, remote):
                try:
                    with suppress(FileNotFoundError):  # it need not be in both
                        Tree.load(place, out.hash_info)
                except Exception as error:  # DVC's own, s3fs's, botocore's
                    raise UserError(f"{out.def_path}: {without_password(str(error))}") from None
    return f"the listings of {len(folders)} folders are what dvc.lock names"


def mlflow_answers() -> str:
    """Check that MLflow answers within five seconds, with these credentials."""
    ask_mlflow("experiments/search", max_results="1")
    return f"MLflow answers: {shown_address(os.environ['MLFLOW_URL'])}"


MUST: tuple[Callable[[], str], ...] = (
    name_is_plain,
    point_dvc_at_this_platform,
    results_have_a_branch,
    parameters_are_valid,
    locks_fit,
    disks_have_room,
    cache_takes_results,
    storage_answers,
    data_are_there,
    listings_are_whole,
)
OF_A_RUN = (results_have_a_branch, parameters_are_valid)  # not needed for a release


def connections() -> None:
    """Check S3 and MLflow from a person's own clone, without changing anything in it."""
    problems = []
    for check in (storage_answers, mlflow_answers):
        try:
            print(check(), flush=True)
        except (UserError, DvcException) as error:
            problems.append(as_problem(error))
    if problems:
        raise UserError("\n".join(problems))


def release() -> None:
    """Run the checks that a release needs; MLflow is not among them."""
    if problems := failed([check for check in MUST if check not in OF_A_RUN]):
        raise UserError("\n".join(problems))


def failed(checks: Sequence[Callable[[], str]]) -> list[str]:
    """Run the checks and list every problem, not only the first."""
    problems = []
    for check in checks:
        try:
            print(f"ok       {check()}", flush=True)
        except (UserError, DvcException, ImportError, OSError, sqlite3.Error) as error:
            if isinstance(error, ImportError) and error.name:
                raise  # a bug here; DVC's own, for a missing optional package, names no module
            if isinstance(error, OSError) and error.errno not in UNUSABLE:
                raise
            if (problem := as_problem(error)) not in problems:  # DVC repeats what it cannot read
                print(f"PROBLEM  {problem}", flush=True)
                problems.append(problem)
            if check in (point_dvc_at_this_platform, storage_answers):
                break  # what follows asks the storage too
    return problems


def as_problem(error: Exception) -> str:
    """An error as one line; for a file that DVC cannot read, with the line number."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError | sqlite3.Error):
        why = " ".join(str(error).split())
        return (
            f"A disk of this machine cannot be used: {why}. Is it full, or read-only? What "
            f"DVC keeps in {site_cache_dir()} can be removed: it is made anew."
        )
    return f"DVC cannot read what the run needs: {' '.join(str(error).split())}{line_of(error)}"


def preflight() -> None:
    """Run all checks; UserError with every problem."""
    problems = failed(MUST)
    try:
        print(f"ok       {mlflow_answers()}", flush=True)
    except UserError as error:
        line = (
            f"{error} The run goes on; `make relog` logs its results afterwards: in a clone with "
            "MLFLOW_URL set, after `git pull && dvc pull`."
        )
        print(f"WARNING  {line}", flush=True)
        summarise(f"> [!WARNING]\n> {line}\n")
    if problems:
        raise UserError("\n".join(problems))
    if outputs := os.environ.get("GITHUB_OUTPUT"):
        folder = Path(SWEEPS).parent if pipeline_file() == SWEEPS else ""
        with Path(outputs).open("a", encoding="utf-8") as file:
            file.write(f"sweeps={folder}\n")


if __name__ == "__main__":
    asked = {"--connections": connections, "--release": release}
    main(asked.get(sys.argv[-1], preflight))
