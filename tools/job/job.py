"""Shared by the steps of a run: commands, the note from step to step, the run's summary page."""

import base64
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import requests
from dvc.config import Config

from lib.errors import UserError
from lib.files import read_json, write_json
from lib.pipeline import MAIN, SWEEPS
from lib.repository import ROOT
from lib.text import one_line, prose, shown_address, without_password
from tools.command import disk_problem
from tools.network import network_problem
from tools.tracking.address import check_address

MARK = "TODO" + "("  # of a value to fill in; split, or this line would be a mark itself
MAX_PAGE_BYTES = 900_000  # the hosting site refuses a page of more than 1 MiB
CERTIFICATES = ("SERVER_CERT_PATH", "CLIENT_CERT_PATH", "INSECURE_TLS")  # MLFLOW_TRACKING_…
FORGETTING = (301, 302, 303)  # redirects that turn a POST into a GET without its body
NOTE = ROOT / ".dvc" / "tmp" / "run.json"  # what one step passes to the next; git ignores it


def run_live(command: Sequence[str], show: Callable[[str], None]) -> int:
    """Run a command and pass each line of its stdout and stderr to `show`; the exit code.

    A process that it leaves running in the background is not waited for.
    """
    read, write = os.pipe()
    last = f"{uuid4()}\n"  # written after everything that the command printed
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=write, stderr=subprocess.STDOUT) as process,
        os.fdopen(read, encoding="utf-8", errors="replace") as lines,
    ):

        def tell_the_end() -> None:
            process.wait()
            with suppress(BrokenPipeError), os.fdopen(write, "wb", buffering=0) as stream:
                stream.write(last.encode())

        Thread(target=tell_the_end, daemon=True).start()
        for line in lines:
            if text := line.removesuffix(last):
                show(text.rstrip("\n"))
            if line.endswith(last):
                break
    return process.returncode


def read_note() -> dict[str, Any]:
    """What earlier steps of this run recorded."""
    return dict(read_json(NOTE)) if NOTE.exists() else {}


def add_to_note(**facts: Any) -> None:
    """Record facts for later steps."""
    write_json(NOTE, read_note() | facts)


def pipeline_file() -> str:
    """The dvc.yaml that this run reproduces: the one of sweeps if its tag asks for a sweep."""
    return SWEEPS if read_note().get("sweep") else MAIN


def summarise(text: str) -> None:
    """Append Markdown to the run's summary page, cut to what a page may hold."""
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        content = f"{without_password(text)}\n".encode("utf-8", "replace")
        if len(content) > MAX_PAGE_BYTES:
            cut = content[:MAX_PAGE_BYTES].decode("utf-8", "ignore")
            content = f"{cut}\n\n… {len(content):,} bytes in all; the log has them.\n".encode()
        with Path(page).open("ab") as file:
            file.write(content)


def ask_mlflow(path: str, content: Mapping[str, str] | None = None, **query: str) -> Any:
    """The JSON answer of MLflow's REST API: of a GET, or with content of a POST.

    Raises:
        UserError: no valid answer within five seconds; the message says what to check.
    """
    url = os.environ.get("MLFLOW_URL", "")
    if not url or MARK in url:
        raise UserError("MLFLOW_URL is not filled in: set the variable MLFLOW_URL.")
    if url == "databricks":
        raise UserError(
            "MLFLOW_URL is `databricks`, which only MLflow's client understands: for jobs, write "
            "the workspace's address, and set MLFLOW_TRACKING_TOKEN."
        )
    user, password, token = (
        os.environ.get(f"MLFLOW_TRACKING_{n}", "") for n in ("USERNAME", "PASSWORD", "TOKEN")
    )
    try:
        check_address(url, token)
    except UserError as error:
        raise UserError(f"MLflow at {shown_address(url)} cannot be used: {error}") from None
    headers = {"Content-Type": "application/json"}
    if user and password:
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {basic}"
    elif token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        # By requests, as MLflow's client: the same reading of addresses, proxies and certificates,
        # and a redirect to another host does not take the login along.
        answer = requests.request(
            "GET" if content is None else "POST",
            f"{url.rstrip('/')}/api/2.0/mlflow/{path}",
            params=query,
            json=content,
            headers=headers,
            timeout=5,
            **certificates(),
        )
    except (OSError, ValueError) as error:
        said = without_password(str(error)) or type(error).__name__
        why = network_problem(said) or f"does not answer: {said}"
    else:
        found = found_in(answer)
        why = why_refused(answer, found)
        if not why:
            return found
    raise UserError(f"MLflow at {shown_address(url)} {why}.")


def certificates() -> dict[str, Any]:
    """The certificate settings of MLflow's client, as arguments for requests."""
    names = {name: os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in CERTIFICATES}
    unchecked = names["INSECURE_TLS"].lower() in ("true", "1")
    return {
        "verify": names["SERVER_CERT_PATH"] or not unchecked,
        "cert": names["CLIENT_CERT_PATH"] or None,
    }


def found_in(answer: requests.Response) -> Any:
    """The JSON object in an answer; None if it is something else."""
    with suppress(ValueError):
        found = json.loads(answer.content or b"{}")
        return found if isinstance(found, dict) else None
    return None


def why_refused(answer: requests.Response, found: Any) -> str:
    """What is wrong with an answer and the JSON found in it; empty if it is MLflow's."""
    status = answer.status_code
    if status in (401, 403):
        return (
            f"answers {status}, it refuses the credentials, or what is asked with them: check "
            "the secrets MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            f"MLFLOW_TRACKING_TOKEN{of_netrc(answer.url)}"
        )
    if status in (404, 405) and "error_code" not in (found or {}):
        return f"answers {status}: check the path in MLFLOW_URL, unless the server is too old"
    if not answer.ok:
        return network_problem(f"code {status}") or f"answers {status}"
    if found is None:
        return "answers, but not as MLflow does (a login page, or a proxy?)"
    if any(each.status_code in FORGETTING for each in answer.history):
        where = shown_address(answer.url).partition("/api/2.0/mlflow/")[0]
        return f"leads to {where}, where nothing can be logged by this one: write that address"
    return ""


def of_netrc(url: str) -> str:
    """A further cause of a refusal: a login in .netrc, which requests and MLflow prefer."""
    found = requests.utils.get_netrc_auth(url)
    return "; the login in .netrc for this server, or its `default`, is used first" if found else ""


def s3_endpoint() -> str:
    """The S3 endpoint: MLFLOW_S3_ENDPOINT_URL, or that of DVC's default remote."""
    config = Config(str(ROOT / ".dvc"))
    remote = config["remote"].get(config["core"].get("remote", ""), {})
    return os.environ.get("MLFLOW_S3_ENDPOINT_URL") or str(remote.get("endpointurl", ""))


def main(step: Callable[[], None]) -> None:
    """Run a step; a UserError or a disk's error ends it with a line in the log and on the page."""
    try:
        step()
    except KeyboardInterrupt:  # the job was cancelled
        sys.exit(130)
    except (UserError, OSError, sqlite3.Error) as error:
        message = str(error) if isinstance(error, UserError) else disk_problem(error)
        if not message:
            raise
        lines = [one_line(line) for line in without_password(message).splitlines()]
        print("", *lines, sep="\n", file=sys.stderr, flush=True)
        with suppress(OSError):  # the page is on the same disk
            summarise("\n".join(f"**{prose(line)}**\n" for line in lines))
        sys.exit(1)
