"""Reproduces the pipeline, with what the bucket has already, and notes how each stage went."""

import os
import re
import subprocess
import sys
import time

from lib.errors import UserError
from lib.repository import ROOT, git
from tools.job.job import add_to_note, main, s3_endpoint

STARTED = re.compile(r"Running stage '(.+)':")
SKIPPED = re.compile(r"Stage '(.+)' didn't change, skipping")
CACHED = re.compile(r"Stage '(.+)' is cached - skipping run")
PULLED = re.compile(r"Pulling data for stage: '(.+)'")
FAILED = re.compile(r"ERROR: failed to reproduce '(.+?)':.*?(?:exited with (-?\d+))?$")


def experiment() -> None:
    """Run `dvc repro --pull`; UserError with stage, cause and what to type where one fails."""
    stages: dict[str, dict[str, object]] = {}
    current, started, lines, warnings = "", 0.0, [""], []
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.job.guarded_dvc", "repro", "--pull"],
        cwd=ROOT,
        env=os.environ | {"MLFLOW_S3_ENDPOINT_URL": s3_endpoint()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        now = time.monotonic()
        begins = any(p.search(line) for p in (STARTED, SKIPPED, PULLED, CACHED))
        if begins and current:
            stages[current]["seconds"] = now - started
            current = ""
        if match := STARTED.search(line):
            current, started = match[1], now
            stages[current] = {"state": "ran"}
        elif match := SKIPPED.search(line) or PULLED.search(line):
            stages[match[1]] = {"state": "unchanged"}
        elif match := CACHED.search(line):
            stages[match[1]] = {"state": "from the cache"}
        elif line.startswith("WARNING: MLflow"):
            warnings.append(line.strip())
        if line.strip():
            lines.append(line.strip())
    if current:
        stages[current]["seconds"] = time.monotonic() - started
    failed = process.wait() != 0
    if failed and current:
        stages[current]["state"] = "failed"
    add_to_note(stages=stages, warnings=warnings, failed=failed)
    if failed:
        raise UserError(failure(lines, current))


def failure(lines: list[str], current: str) -> str:
    """What a person needs to know of a stage that failed: which, why, and how to see it again."""
    commit = git("rev-parse", "--short", "HEAD")
    match = next((found for line in reversed(lines) if (found := FAILED.search(line))), None)
    stage = match[1] if match else current
    code = match[2] if match else None
    if code in ("-9", "137"):
        cause = "it was killed (SIGKILL): most often the machine was out of memory"
    else:
        dvc_says = ("ERROR: failed to", "Having any")
        cause = [line for line in lines if not line.startswith(dvc_says)][-1]
    return (
        f"Stage {stage} failed: {cause}\nNothing was committed; what other stages computed is in "
        "the runner's cache. Run it locally: "
        f"git checkout {commit} && tools/within . dvc repro {stage}"
    )


if __name__ == "__main__":
    main(experiment)
