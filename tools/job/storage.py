"""DVC's storage in a run: the bucket, and the cache on the runner; why a request to it failed."""

import os
import re
import socket
import sqlite3
from contextlib import suppress
from pathlib import Path

from dvc.config import Config
from dvc.dirs import site_cache_dir
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.tree import Tree

from lib.errors import UserError
from lib.params import line_of
from lib.repository import ROOT
from lib.text import shown_address, without_password
from tools.dvc_config import set_values
from tools.job.guarded_dvc import install
from tools.job.job import MARK
from tools.network import network_problem

PROBE = b"can results be kept?"
SECONDS = 20  # within which S3 must answer each request of the probe
ELSEWHERE = (
    "has this bucket in another region, or at another endpoint: fix region and endpointurl in "
    ".dvc/config, or the variable MLFLOW_S3_ENDPOINT_URL"
)
TOO_LARGE = (
    "takes no file as large as one of the results, or a proxy before it does not: raise the limit "
    "there"
)
REFUSALS = {  # by S3's own code, or a proxy's status
    "ExpiredToken": (
        "refuses the credentials, which have expired: renew them with `make credentials`, or a "
        "runner's secrets"
    ),
    "RequestTimeTooSkewed": "refuses the time of the requests: set this machine's clock",
    "SlowDown": "answers, and asks for fewer requests: try again later",
    "EntityTooLarge": TOO_LARGE,
    "413": TOO_LARGE,
    "301": ELSEWHERE,
    "PermanentRedirect": ELSEWHERE,
    "AuthorizationHeaderMalformed": ELSEWHERE,
    "RecursionError": ELSEWHERE,  # what the client makes of a PermanentRedirect without a region
}
AWAY = "does not answer: is it up, and the address right?"
REFUSALS |= dict.fromkeys(("502", "503", "504"), AWAY)  # of a proxy in front of S3
CAUSES = (  # by the text of any other error; the first that fits
    (
        "ProfileNotFound",
        "was not contacted, the profile is in no file of credentials: fix AWS_PROFILE and "
        "AWS_SHARED_CREDENTIALS_FILE, or profile and credentialpath in .dvc/config",
    ),
    (
        "NoCredentials|Unable to locate credentials",
        "was not contacted, there are no credentials: `make credentials`, or a runner's secrets",
    ),
    (
        # "control character": the client's error for a key with a line end in it.
        "InvalidAccessKeyId|control character|InvalidToken|SignatureDoesNotMatch|[cC]redential",
        "refuses the credentials: check the secrets MINIO_ACCESS_KEY_ID and "
        "MINIO_SECRET_ACCESS_KEY",
    ),
    (
        "(?i:AccessDenied|Forbidden|PermissionError|read.?only|code 403|\\(403\\))",
        "does not let these credentials {asked}: give them {asked} access to the bucket",
    ),
    (
        "NoSuchBucket|FileNotFound|bucket does not exist",
        "has no such bucket: create it, or fix the url in .dvc/config",
    ),
    (
        "Full|Quota|InsufficientStorage|No space|InternalError|ServiceUnavail",
        "cannot write: is its disk full, or the bucket over its quota or locked?",
    ),
    ("Internal Server Error", "fails on its side: its log says why"),
    (
        "Invalid endpoint|WRONG_VERSION_NUMBER",
        "was not contacted, its address begins with the wrong one of http:// and https://, or with "
        "none: fix endpointurl in .dvc/config, or the variable MLFLOW_S3_ENDPOINT_URL",
    ),
    (
        "connect|Connection|Timeout|timed out|resolve",
        AWAY,
    ),
)


def cache_folder() -> Path:
    """DVC's cache, outside the workspace."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    named = Path(os.environ.get("DVC_CACHE_DIR") or home / "dvc-cache")
    try:
        return named.expanduser().resolve()  # no shell expands `~` in a runner's .env
    except RuntimeError:
        raise UserError(
            f"DVC's cache would be {named}: there is no such user here. Fix DVC_CACHE_DIR or "
            "XDG_CACHE_HOME."
        ) from None


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
    what = REFUSALS.get(kinds, "")
    if "HTTPClientError" in kinds and trusted and not Path(trusted).exists():
        what = f"was not contacted, AWS_CA_BUNDLE names {trusted}, which does not exist: fix it"
    what = what or cause_of(text, code, asked) or "fails:"
    return f"{what} ({without_password(text)[:200]})"


def cause_of(text: str, code: str, asked: str) -> str:
    """What an error's text and S3's code in it say, to follow S3's name; empty if it is unknown."""
    found = (what.format(asked=asked) for pattern, what in CAUSES if re.search(pattern, text))
    return REFUSALS.get(code, "") or network_problem(text) or next(found, "")


def why_push_failed(message: str) -> str:
    """Why `dvc push` failed, from the message that it printed."""
    said = without_password(re.sub("^ERROR: (failed to transfer '[^']*' - )?", "", message))
    code = re.search(r"An error occurred \((\w+)\)", message)
    of_this_machine = re.search(r"\[Errno \d+\] [^(]*: '/|readonly database|disk I/O", message)
    what = "" if of_this_machine else cause_of(message, code[1] if code else "", "write")
    return f"S3 {what} ({said[:200]})" if what else said


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


def as_problem(error: Exception) -> str:
    """An error as one line; for a file that DVC cannot read, with the line number."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError | sqlite3.Error):
        why = " ".join(str(error).split())
        told = f"A disk of this machine cannot be used: {why}. Is it full, or read-only?"
        # DVC's databases, whose errors name no file, are there.
        name = str(getattr(error, "filename", None) or site_cache_dir())
        if Path(name).is_relative_to(site_cache_dir()):
            told += f" What DVC keeps in {site_cache_dir()} can be removed: it is made anew."
        return told
    return f"DVC cannot read what the run needs: {' '.join(str(error).split())}{line_of(error)}"
