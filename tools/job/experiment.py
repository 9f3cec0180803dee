"""Reproduces the pipeline, with what the bucket has already, and notes how each stage went.

Of a tag that begins with `tune-` it is the pipeline of sweeps, in `lab/tuning`.
"""

import os
import re
import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from shlex import quote
from threading import Lock

from lib.errors import UserError
from lib.repository import git
from tools.job.job import add_to_note, main, pipeline_file, s3_endpoint
from tools.job.side_by_side import number_of, reproduce, run_dvc

STARTED = re.compile(r"Running stage '(.+)':")
SKIPPED = re.compile(r"Stage '(.+)' didn't change, skipping")
CACHED = re.compile(r"Stage '(.+)' is cached - skipping run")
PULLED = re.compile(r"Pulling data for stage: '(.+)'")
ENDED = re.compile(r"^Use `dvc push` to send")  # of several jobs, each has a DVC of its own
FAILED = re.compile(r"failed to reproduce (['\"])(.+?)\1: (.*)")
LEFT = re.compile(r"ERROR: failed to transfer '[^']*' - (.*)")
EXITED = re.compile(r"failed to run: (.*), exited with (-?\d+)$")
STYLE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # a terminal's colours, and the like
KEPT = 200  # lines of output that are looked into for a cause
STOPPED = "did not end"  # of a job that is cancelled, nobody comes to say more
LINES_WITHOUT_ERROR = 6  # that DVC prints, at most, where it says that a file is invalid
MOST_OF_A_REASON = 500  # characters


@dataclass
class Watch:
    """What the lines that a DVC prints tell of its stages."""

    stages: dict[str, dict[str, object]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))
    current: str = ""
    started: float = 0.0

    def read(self, line: str) -> None:
        """Take the next line."""
        if any(pattern.search(line) for pattern in (STARTED, SKIPPED, PULLED, CACHED, ENDED)):
            self.end()
        if match := STARTED.search(line):
            self.current, self.started = match[1], time.monotonic()
            self.stages[self.current] = {"state": STOPPED}
        elif match := SKIPPED.search(line) or PULLED.search(line):
            self.stages[match[1]] = {"state": "unchanged"}
        elif match := CACHED.search(line):
            self.stages[match[1]] = {"state": "from the cache"}
        elif line.startswith("WARNING: MLflow"):
            self.warnings.append(line.strip())
        if plain := STYLE.sub("", line).strip():
            self.lines.append(plain)

    def end(self) -> None:
        """Take the time of the stage that has run."""
        if self.current:
            entry = self.stages[self.current]
            entry["seconds"] = time.monotonic() - self.started
            if entry["state"] == STOPPED:
                entry["state"] = "ran"
            self.current = ""


def experiment() -> None:
    """Run `dvc repro --pull`; UserError with stage, cause and what to type where one fails.

    Where JOBS is set, that many stages that do not depend on each other run at once.
    """
    os.environ["MLFLOW_S3_ENDPOINT_URL"] = s3_endpoint()
    jobs = number_of(os.environ.get("JOBS") or "1")
    watches: dict[str, Watch] = {}
    failed: dict[str, int] = {}
    one_at_a_time = Lock()

    def note() -> None:
        found = {n: entry for watch in watches.values() for n, entry in watch.stages.items()}
        add_to_note(stages=found)

    def show(stage: str, line: str) -> None:
        with one_at_a_time:
            print(f"{stage} | {line}" if stage and line else line, flush=True)
            watches.setdefault(stage, Watch()).read(line)
            if STARTED.search(line) or ENDED.search(line):
                with suppress(OSError):  # on a full disk; the stages find out for themselves
                    note()

    if jobs > 1:
        failed, _ = reproduce(jobs, [pipeline_file()], ["--pull"], show)
    elif code := run_dvc(["repro", "--pull", pipeline_file()], partial(show, "")):
        failed[""] = code
    told_of = []
    for name, code in failed.items():
        watch = watches.setdefault(name, Watch())
        where, why = failure(list(watch.lines), watch.current or name, code)
        if where:
            watch.stages.setdefault(where, {})["state"] = "failed"
        told_of.append(told(where, why))
    for watch in watches.values():
        watch.end()
    note()
    add_to_note(warnings=[line for watch in watches.values() for line in watch.warnings])
    if failed:
        raise UserError("\n".join(told_of))


def told(stage: str, why: str) -> str:
    """What a person needs to know of a run that failed: where, why, and how to see it again."""
    commit = git("rev-parse", "--short", "HEAD")
    return (
        f"{f'Stage {stage}' if stage else 'The pipeline'} failed: {why}\nNothing was committed; "
        "what other stages computed is in the runner's cache. Run it locally: "
        f"git checkout {commit} && tools/within . dvc repro {quote(stage or pipeline_file())}"
    )


def failure(lines: Sequence[str], stage: str, code: int) -> tuple[str, str]:
    """The stage that failed, if it was one, and why."""
    if code < 0:
        return stage, f"dvc itself was ended by {signal.Signals(-code).name}"
    reason, before = dvc_reason(lines)
    if match := FAILED.fullmatch(reason):
        stage, reason = match[2], match[3]
    causes = [found[1] for line in before if (found := LEFT.match(line))]
    if causes and "files failed to" in reason:  # of each, DVC has told why
        reason = f"{reason}: {causes[0]}"
    return stage, why_command_failed(reason, before)


def dvc_reason(lines: Sequence[str]) -> tuple[str, Sequence[str]]:
    """DVC's last error, of however many lines, and the lines above it."""
    own = [n for n, line in enumerate(lines) if line.startswith("ERROR: ")]
    start = own[-1] if own else max(len(lines) - LINES_WITHOUT_ERROR, 0)
    message = [line for line in lines[start:] if not line.startswith("Having any troubles?")]
    return " ".join(message).removeprefix("ERROR: ").strip(), lines[:start]


def why_command_failed(reason: str, before: Sequence[str]) -> str:
    """Of a command that failed the last that it printed, or what killed it; else DVC's reason."""
    match = EXITED.search(reason)
    if not match:
        return reason[:MOST_OF_A_REASON] or "it ended without a message"
    code = int(match[2])
    number = -code if code < 0 else code - 128
    if number == signal.SIGKILL:
        return "it was killed (SIGKILL): most often the machine was out of memory"
    if number in {each.value for each in signal.Signals}:
        return f"it was ended by {signal.Signals(number).name}"
    began = max((n for n, line in enumerate(before) if STARTED.search(line)), default=-1)
    printed = [line for line in before[began + 1 :] if not line.startswith("> ")]
    last = printed[-1] if printed else f"`{match[1]}` printed nothing"
    return f"{last[:MOST_OF_A_REASON]} (exit code {code})"


if __name__ == "__main__":
    main(experiment)
