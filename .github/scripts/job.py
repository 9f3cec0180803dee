"""What the steps of a run share: git, the note from step to step, the lines a person reads."""

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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
MARK = "TODO" + "("  # of what is to be filled in; in one piece it would be a mark itself
NOTE = ROOT / ".dvc" / "tmp" / "run.json"  # what one step tells the next; git ignores it


class JobError(Exception):
    """What stops a run: one line that says what was found and what to do."""


def run(*command: str, ok: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
    """A finished command with what it printed; JobError where it failed and `ok` was asked for."""
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | extra, capture_output=True, text=True, check=False
    )
    if ok and done.returncode:
        raise JobError(f"`{' '.join(command[:3])}` failed: {last_line(done.stderr or done.stdout)}")
    return done


def git(*arguments: str, **extra: str) -> str:
    """What git printed."""
    return run("git", *arguments, ok=True, **extra).stdout.strip()


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def read_note() -> dict[str, Any]:
    """What earlier steps noted of this run."""
    return dict(json.loads(NOTE.read_text())) if NOTE.exists() else {}


def add_to_note(**facts: Any) -> None:
    """Tell later steps."""
    NOTE.parent.mkdir(parents=True, exist_ok=True)
    NOTE.write_text(json.dumps(read_note() | facts, indent=2))


def summarise(text: str) -> None:
    """Add Markdown to the run's page."""
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def run_url() -> str:
    """The address of this run's page; nothing outside a runner."""
    server, repository, run_id = (
        os.environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")
    )
    return f"{server}/{repository}/actions/runs/{run_id}" if run_id else ""


def ask_mlflow(path: str, content: bytes | None = None, **query: str) -> Any:
    """What MLflow's REST interface answers within five seconds, JobError where it does not.

    With content it is a POST.
    """
    url = os.environ.get("MLFLOW_URL", "")
    if not url or MARK in url:
        raise JobError("MLFLOW_URL is not filled in: set the variable MLFLOW_URL.")
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
    raise JobError(f"MLflow at {shown} {why}.")


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


def result_files() -> list[str]:
    """The files that carry results in git: each dvc.lock, metrics, whatever DVC does not cache."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        uncached = [out.fs_path for out in repo.index.outs if not out.use_cache]
        pipelines = {stage.path for stage in repo.index.stages if stage.path.endswith("dvc.yaml")}
    locks = [path.removesuffix(".yaml") + ".lock" for path in pipelines]
    return sorted({str(Path(path).relative_to(ROOT)) for path in (*uncached, *locks)})


def at(revision: str, path: str) -> str:
    """A file's text at a revision (of the work tree where that is empty), or nothing."""
    if not revision:
        return (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).exists() else ""
    return run("git", "show", f"{revision}:{path}", ok=False).stdout


def flat(nested: Any, above: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    if not isinstance(nested, Mapping):
        return {above: nested}
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{above}.{key}" if above else str(key))
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Key, value before and value after, for each that differs."""
    keys = dict.fromkeys((*before, *after))
    return [(k, before.get(k), after.get(k)) for k in keys if before.get(k) != after.get(k)]


def metrics_at(revision: str) -> dict[str, Any]:
    """Every number in metrics files, as file.key."""
    found: dict[str, Any] = {}
    for path in result_files():
        if path.endswith(".json") and (text := at(revision, path)):
            found |= {f"{Path(path).stem}.{k}": v for k, v in flat(json.loads(text)).items()}
    return found


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if not isinstance(value, float):
        return "–" if value is None else str(value)
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.3g}"


def main(step: Any) -> None:
    """Run a step; a JobError becomes its line in the log and on the run's page."""
    try:
        step()
    except JobError as error:
        print(f"\n{error}", file=sys.stderr, flush=True)
        summarise("\n".join(f"**{line}**\n" for line in str(error).splitlines()))
        sys.exit(1)
