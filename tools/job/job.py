"""What the steps of a run share: commands, the note from step to step, lines on the run's page."""

import base64
import http.client
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.repository import ROOT

MARK = "TODO" + "("  # of what is to be filled in; in one piece it would be a mark itself
MOST_OF_A_PAGE = 900_000  # bytes: the hosting site refuses a page of more than 1 MiB
NOTE = ROOT / ".dvc" / "tmp" / "run.json"  # what one step tells the next; git ignores it


def run(*command: str, ok: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
    """A finished command with what it printed; UserError where it failed and `ok` was asked for."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | extra,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if ok and done.returncode:
        raise UserError(
            f"`{' '.join(command[:3])}` failed: {last_line(done.stderr or done.stdout)}"
        )
    return done


def last_line(text: str) -> str:
    """The last line that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a message"


def read_note() -> dict[str, Any]:
    """What earlier steps noted of this run."""
    return dict(json.loads(NOTE.read_text(encoding="utf-8"))) if NOTE.exists() else {}


def add_to_note(**facts: Any) -> None:
    """Tell later steps."""
    NOTE.parent.mkdir(parents=True, exist_ok=True)
    NOTE.write_text(json.dumps(read_note() | facts, indent=2), encoding="utf-8")


def summarise(text: str) -> None:
    """Add Markdown to the run's page, as much as it may hold."""
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        content = f"{text}\n".encode("utf-8", "replace")
        if len(content) > MOST_OF_A_PAGE:
            cut = content[:MOST_OF_A_PAGE].decode("utf-8", "ignore")
            content = f"{cut}\n\n… {len(content):,} bytes in all; the log has them.\n".encode()
        with Path(page).open("ab") as file:
            file.write(content)


def run_url() -> str:
    """The address of this run's page; nothing outside a runner."""
    server, repository, run_id = (
        os.environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")
    )
    return f"{server}/{repository}/actions/runs/{run_id}" if run_id else ""


def ask_mlflow(path: str, content: bytes | None = None, **query: str) -> Any:
    """What MLflow's REST interface answers within five seconds, UserError where it does not.

    With content it is a POST.
    """
    url = os.environ.get("MLFLOW_URL", "")
    if not url or MARK in url:
        raise UserError("MLFLOW_URL is not filled in: set the variable MLFLOW_URL.")
    shown = without_password(url)
    try:
        parts = urllib.parse.urlsplit(url)
        address = f"{shown.rstrip('/')}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(address, content, {"Content-Type": "application/json"})
        if authorization := mlflow_authorization(parts):
            request.add_header("Authorization", authorization)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        why = f"answers {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = f"does not answer: {str(error) or type(error).__name__}"
    raise UserError(f"MLflow at {shown} {why}.")


def mlflow_authorization(address: urllib.parse.SplitResult) -> str:
    """The header that says who asks: from the variables of MLflow's clients, or the address."""
    user, password, token = (
        os.environ.get(f"MLFLOW_TRACKING_{n}", "") for n in ("USERNAME", "PASSWORD", "TOKEN")
    )
    if not (user and password):
        user, password = (
            urllib.parse.unquote(p or "") for p in (address.username, address.password)
        )
    if user and password:
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    return f"Bearer {token}" if token else ""


def without_password(url: str) -> str:
    """The address as it may be shown: no user and password in it."""
    return re.sub(r"//[^/@]*@", "//", url)


def s3_endpoint() -> str:
    """Where S3 is: as the variable says, or DVC's default remote."""
    from dvc.config import Config

    config = Config(str(ROOT / ".dvc"))
    remote = config["remote"].get(config["core"].get("remote", ""), {})
    return os.environ.get("MLFLOW_S3_ENDPOINT_URL") or str(remote.get("endpointurl", ""))


def main(step: Callable[[], None]) -> None:
    """Run a step; a UserError becomes its line in the log and on the run's page."""
    try:
        step()
    except UserError as error:
        print(f"\n{error}", file=sys.stderr, flush=True)
        summarise("\n".join(f"**{line}**\n" for line in str(error).splitlines()))
        sys.exit(1)
