"""Reproduces the pipeline, pulling what the bucket already has, and records how each stage went.

A tag that begins with `tune-` runs the pipeline of sweeps, in `lab/tuning`.
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
from lib.text import last_line
from tools.command import run
from tools.job.job import add_to_note, main, pipeline_file, s3_endpoint
from tools.job.side_by_side import number_of, reproduce, run_dvc
from tools.tracking.stages import process_of, tracked_stages

STARTED = re.compile(r"Running stage '(.+)':")
SKIPPED = re.compile(r"Stage '(.+)' didn't change, skipping")
CACHED = re.compile(r"Stage '(.+)' is cached - skipping run")
PULLED = re.compile(r"Pulling data for stage: '(.+)'")
ENDED = re.compile(r"^Use `dvc push` to send")  # a DVC's last line; with JOBS there are several
FAILED = re.compile(r"failed to reproduce (['\"])(.+?)\1: (.*)")
NOT_TRANSFERRED = re.compile(r"ERROR: failed to transfer '[^']*' - (.*)")
EXITED = re.compile(r"failed to run: (.*), exited with (-?\d+)$")
STYLE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # terminal colours and other escape sequences
KEPT_LINES = 200  # lines of output that are searched for the cause
UNFINISHED = "did not end"  # stays if the job is cancelled
FROM_CACHE = "from the cache"
LINES_WITHOUT_ERROR = 6  # DVC's report on an invalid file has no "ERROR:", and at most so many
MAX_REASON_LENGTH = 500  # characters


@dataclass
class Watch:
    """The state of the stages of one DVC process, parsed from the lines that it prints."""

    stages: dict[str, dict[str, object]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    current: str = ""
    started: float = 0.0

    def read(self, line: str) -> None:
        """Parse the next line."""
        if any(pattern.search(line) for pattern in (STARTED, SKIPPED, PULLED, CACHED, ENDED)):
            self.end()
        if match := STARTED.search(line):
            self.current, self.started = match[1], time.monotonic()
            self.stages[self.current] = {"state": UNFINISHED}
        elif match := SKIPPED.search(line) or PULLED.search(line):
            self.stages[match[1]] = {"state": "unchanged"}
        elif match := CACHED.search(line):
            self.stages[match[1]] = {"state": FROM_CACHE}
        elif line.startswith("WARNING: MLflow"):
            self.warnings.append(line.strip())
        if plain := STYLE.sub("", line).strip():
            self.lines.append(plain)

    def named(self, state: str) -> list[str]:
        """The stages in a state."""
        return [name for name, entry in self.stages.items() if entry["state"] == state]

    def end(self) -> None:
        """Record the duration of the current stage, which has ended."""
        if self.current:
            entry = self.stages[self.current]
            entry["seconds"] = time.monotonic() - self.started
            if entry["state"] == UNFINISHED:
                entry["state"] = "ran"
            self.current = ""


def experiment() -> None:
    """Run `dvc repro --pull`, or up to JOBS independent stages at once.

    Raises:
        UserError: a stage failed; with the stage, the cause, and the command that reproduces it.
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
                with suppress(OSError):  # a full disk; the stages report it themselves
                    note()

    if jobs > 1:
        failed, _ = reproduce(jobs, [pipeline_file()], ["--pull"], show)
    elif code := run_dvc(["repro", "--pull", pipeline_file()], partial(show, "")):
        failed[""] = code
    messages = []
    for name, code in failed.items():
        watch = watches.setdefault(name, Watch())
        where, why = failure(list(watch.lines), watch.current or name, code)
        if where:
            watch.stages.setdefault(where, {})["state"] = "failed"
        messages.append(failure_message(where, why))
    for watch in watches.values():
        watch.end()
    note()
    warnings = [line for watch in watches.values() for line in watch.warnings]
    add_to_note(warnings=warnings)
    if failed:  # the re-run logs what comes from the cache
        raise UserError("\n".join(messages))
    cached = [name for each in watches.values() for name in each.named(FROM_CACHE)]
    add_to_note(warnings=warnings + log_cached(cached))


def log_cached(names: Sequence[str]) -> list[str]:
    """Log the stages that came from the cache, whose processes did not run; the warnings.

    What MLflow has already is found there, so that the results commit names its run.
    """
    if not names:
        return []
    known = {each.stage.address for each in tracked_stages() if process_of(each.stage)}
    if not (wanted := [name for name in names if name in known]):
        return []
    relog = ("python", "-m", "tools.tracking", "relog", *wanted)
    done = run("tools/within", "tools/tracking", *relog, ok=False)
    printed = f"{done.stdout}{done.stderr}".strip()
    print(printed, flush=True)
    told = [line for line in printed.splitlines() if line.startswith(("WARNING: ", "ERROR: "))]
    return told or ([last_line(printed)] if done.returncode else [])


def failure_message(stage: str, why: str) -> str:
    """Where a run failed, why, and how to reproduce it."""
    commit = git("rev-parse", "--short", "HEAD")
    return (
        f"{f'Stage {stage}' if stage else 'The pipeline'} failed: {why}\nNothing was committed; "
        "what other stages computed is in the runner's cache. Run it locally: "
        f"git checkout {commit} && tools/within . dvc repro {quote(stage or pipeline_file())}"
    )


def failure(lines: Sequence[str], stage: str, code: int) -> tuple[str, str]:
    """The stage that failed (empty if DVC itself did), and why."""
    if code < 0:
        return stage, f"dvc itself was ended by {signal.Signals(-code).name}"
    reason, before = last_dvc_error(lines)
    if match := FAILED.fullmatch(reason):
        stage, reason = match[2], match[3]
    causes = [found[1] for line in before if (found := NOT_TRANSFERRED.match(line))]
    if causes and "files failed to" in reason:  # the cause of each is in the lines above
        reason = f"{reason}: {causes[0]}"
    return stage, why_command_failed(reason, before)


def last_dvc_error(lines: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The last error of a DVC run, joined from all its lines, and the lines above it.

    The last: a stage's own output, which stands above it, may have lines with "ERROR:" too.
    """
    own = [n for n, line in enumerate(lines) if line.startswith("ERROR: ")]
    start = own[-1] if own else max(len(lines) - LINES_WITHOUT_ERROR, 0)
    message = [line for line in lines[start:] if not line.startswith("Having any troubles?")]
    return " ".join(message).removeprefix("ERROR: ").strip(), lines[:start]


def why_command_failed(reason: str, before: Sequence[str]) -> str:
    """A failed command's last line of output, or the signal that killed it; else DVC's reason."""
    match = EXITED.search(reason)
    if not match:
        return reason[:MAX_REASON_LENGTH] or "it ended without a message"
    code = int(match[2])
    number = -code if code < 0 else code - 128
    if number == signal.SIGKILL:
        return "it was killed (SIGKILL): most often the machine was out of memory"
    if number in {each.value for each in signal.Signals}:
        return f"it was ended by {signal.Signals(number).name}"
    began = max((n for n, line in enumerate(before) if STARTED.search(line)), default=-1)
    printed = [line for line in before[began + 1 :] if not line.startswith("> ")]
    last = printed[-1] if printed else f"`{match[1]}` printed nothing"
    return f"{last[:MAX_REASON_LENGTH]} (exit code {code})"


if __name__ == "__main__":
    main(experiment)
