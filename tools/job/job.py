"""What the steps of a run share: commands, the note from step to step, lines on the run's page."""

import base64
import json
import os
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
from tools.command import FULL, told_full
from tools.network import on_the_way
from tools.tracking.address import check_address

MARK = "TODO" + "("  # of what is to be filled in; in one piece it would be a mark itself
MOST_OF_A_PAGE = 900_000  # bytes: the hosting site refuses a page of more than 1 MiB
CERTIFICATES = ("SERVER_CERT_PATH", "CLIENT_CERT_PATH", "INSECURE_TLS")  # MLFLOW_TRACKING_…
FORGETTING = (301, 302, 303)  # redirects behind which a POST is a GET, without what was sent
NOTE = ROOT / ".dvc" / "tmp" / "run.json"  # what one step tells the next; git ignores it


def run_live(command: Sequence[str], show: Callable[[str], None]) -> int:
    """Run a command and hand on each line that it prints, on both streams; the exit code.

    What it leaves running may go on printing; nobody waits for that.
    """
    read, write = os.pipe()
    last = f"{uuid4()}\n"  # written behind all that the command printed
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
    """What earlier steps noted of this run."""
    return dict(read_json(NOTE)) if NOTE.exists() else {}


def add_to_note(**facts: Any) -> None:
    """Tell later steps."""
    write_json(NOTE, read_note() | facts)


def pipeline_file() -> str:
    """The dvc.yaml that this run is of: that of sweeps, where its tag is one of a sweep."""
    return SWEEPS if read_note().get("sweep") else MAIN


def summarise(text: str) -> None:
    """Add Markdown to the run's page, as much as it may hold."""
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        content = f"{without_password(text)}\n".encode("utf-8", "replace")
        if len(content) > MOST_OF_A_PAGE:
            cut = content[:MOST_OF_A_PAGE].decode("utf-8", "ignore")
            content = f"{cut}\n\n… {len(content):,} bytes in all; the log has them.\n".encode()
        with Path(page).open("ab") as file:
            file.write(content)


def ask_mlflow(path: str, content: Mapping[str, str] | None = None, **query: str) -> Any:
    """What MLflow's REST interface answers within five seconds, UserError where it does not.

    With content it is a POST.
    """
    url = os.environ.get("MLFLOW_URL", "")
    if not url or MARK in url:
        raise UserError("MLFLOW_URL is not filled in: set the variable MLFLOW_URL.")
    user, password, token = (
        os.environ.get(f"MLFLOW_TRACKING_{n}", "") for n in ("USERNAME", "PASSWORD", "TOKEN")
    )
    check_address(url, token)
    headers = {"Content-Type": "application/json"}
    if user and password:
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {basic}"
    elif token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        # As MLflow's client asks: what an address means, the machine's proxies and certificates
        # are requests' to read, and a login stays with its host where an answer leads to another.
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
        why = on_the_way(said) or f"does not answer: {said}"
    else:
        found = found_in(answer)
        why = why_refused(answer, found)
        if not why:
            return found
    raise UserError(f"MLflow at {shown_address(url)} {why}.")


def certificates() -> dict[str, Any]:
    """What of certificates is set for MLflow's client alone, as requests takes it."""
    names = {name: os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in CERTIFICATES}
    unchecked = names["INSECURE_TLS"].lower() in ("true", "1")
    return {
        "verify": names["SERVER_CERT_PATH"] or not unchecked,
        "cert": names["CLIENT_CERT_PATH"] or None,
    }


def found_in(answer: requests.Response) -> Any:
    """The mapping in JSON that MLflow answers; None where it is none."""
    with suppress(ValueError):
        found = json.loads(answer.content or b"{}")
        return found if isinstance(found, dict) else None
    return None


def why_refused(answer: requests.Response, found: Any) -> str:
    """Why an answer, in which this was found, is none that MLflow gives; empty where it is one."""
    status = answer.status_code
    if status in (401, 403):
        return (
            f"answers {status}, it refuses the credentials, or what is asked with them: check "
            "the secrets MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN"
        )
    if status in (404, 405) and "error_code" not in (found or {}):
        return f"answers {status}: check the path in MLFLOW_URL, unless the server is too old"
    if not answer.ok:
        return on_the_way(f"code {status}") or f"answers {status}"
    if found is None:
        return "answers, but not as MLflow does (a login page, or a proxy?)"
    if any(each.status_code in FORGETTING for each in answer.history):
        where = shown_address(answer.url).partition("/api/2.0/mlflow/")[0]
        return f"leads to {where}, where nothing can be logged by this one: write that address"
    return ""


def s3_endpoint() -> str:
    """Where S3 is: as the variable says, or DVC's default remote."""
    config = Config(str(ROOT / ".dvc"))
    remote = config["remote"].get(config["core"].get("remote", ""), {})
    return os.environ.get("MLFLOW_S3_ENDPOINT_URL") or str(remote.get("endpointurl", ""))


def main(step: Callable[[], None]) -> None:
    """Run a step; a UserError, or a full disk, becomes its line in the log and on the page."""
    try:
        step()
    except KeyboardInterrupt:  # the job was cancelled
        sys.exit(130)
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        told = told_full(error) if isinstance(error, OSError) else str(error)
        lines = [one_line(line) for line in without_password(told).splitlines()]
        print("", *lines, sep="\n", file=sys.stderr, flush=True)
        with suppress(OSError):  # the page is on the same disk
            summarise("\n".join(f"**{prose(line)}**\n" for line in lines))
        sys.exit(1)
