"""Follows one process from its start to its end, and logs its stage.

Called by `lab/processes/run`, beside the process, with a folder through which they communicate: the
process appends rows of a curve to `curve.csv`; when it has ended, `lab/processes/run` writes the
exit code to `code`. Any other file there is for `follow` in the process's log.py.
"""

import csv
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from mlflow.entities import Experiment

from lib.errors import UserError
from tools.tracking import runs, store
from tools.tracking.messages import report_failure, say, warn
from tools.tracking.results import Point, curve_files, points, with_distinct_names
from tools.tracking.stages import (
    Started,
    Tracked,
    is_end,
    is_last,
    is_later,
    missing,
    provenance,
    started_stage,
)

LOOK_EVERY = 0.05  # seconds between checks whether the process has ended
SHOW_EVERY = 1.0  # seconds between uploads of new rows; more for a curve that is slow to read:
SHARE = 0.1  # the most of a core's time that reading may take
OPEN_AFTER = 10.0  # seconds after which a process without a curve is shown as running
TRY_AGAIN_AFTER = 30.0  # seconds, if the server failed while the process runs
KILLED = -1  # in place of an exit code
OURS = ("curve.csv", "code", "new")  # files of tools/run and the tracker


def follow(folder: Path, parent: int, started: Started) -> None:
    """Follow a process to its end and log its stage; errors are printed, never raised."""
    try:
        tracked = started_stage(started)
    except UserError as error:
        wait(folder, parent)
        warn(f"MLflow: {started.process} is not logged: {error}")
        return
    if tracked is None:
        if wait(folder, parent) == 0:
            say(f"no stage of the pipeline starts {started.process}: nothing is logged.")
        return
    tracker = Tracker(tracked, started, folder)
    code = wait(folder, parent, tracker.look)
    if tracker.failed and tracker.retry_at - time.monotonic() > TRY_AGAIN_AFTER - 2:
        if code == 0:
            report_failure(tracker.stage, tracker.failed)
        return  # it failed a moment ago: a retry would only cost time
    try:
        if outcome := tracker.finish(code):
            say(outcome)
        if tracker.mistake and code == 0:
            report_failure(tracker.stage, tracker.mistake)
    except Exception as error:  # from the store, from log.py, or a bug here
        if code == 0:
            report_failure(tracker.stage, error)


def exit_code(folder: Path, parent: int) -> int | None:
    """The process's exit code; KILLED if its parent was killed; None while it runs."""
    if (folder / "code").exists():
        return int((folder / "code").read_text() or KILLED)
    return None if os.getppid() == parent else KILLED


def wait(folder: Path, parent: int, look: Callable[[], None] = lambda: None) -> int:
    """Wait for the process to end, calling `look` repeatedly; its exit code."""
    while (code := exit_code(folder, parent)) is None:
        look()
        time.sleep(LOOK_EVERY)
    return code


def rows_so_far(file: Path) -> list[list[str]]:
    """The complete rows of a CSV file that is being written, header first."""
    try:
        text = file.read_text(encoding="utf-8-sig", errors="replace")
        return list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    except (OSError, csv.Error):
        return []


class Tracker:
    """Follows one process; errors are kept until it has ended."""

    def __init__(self, tracked: Tracked, started: Started, folder: Path) -> None:
        self.tracked, self.stage = tracked, tracked.stage
        self.started, self.folder = started, folder
        self.tags = provenance(tracked)
        self.began = self.show_at = time.monotonic()
        self.began_at = time.time()
        self.experiment: Experiment | None = None
        self.run: runs.Run | None = None
        self.failed: Exception | None = None
        self.retry_at = 0.0
        self.followed: dict[str, int] = {}
        self.mistake: runs.LogError | None = None  # in log.py's `follow`

    def connect(self) -> None:
        """Connect to the store once, and end a run that a killed tracker left open."""
        if self.experiment is None:
            self.experiment = store.connect()
            if is_later(self.stage, self.started):
                self.run = runs.continued_run(self.stage)
            else:
                runs.end_open_run(self.stage, "KILLED")

    def look(self) -> None:
        """Called repeatedly while the process runs: connect, and upload new points."""
        now = time.monotonic()
        if now < self.retry_at or (self.experiment and now < self.show_at):
            return
        try:
            self.connect()
            busy = time.process_time()
            found = self.curves()
            if found or now - self.began > OPEN_AFTER:
                self.show(found)
            self.show_at = now + max(SHOW_EVERY, (time.process_time() - busy) / SHARE)
            self.failed = None
        except Exception as error:  # reported when the process has ended
            self.failed, self.retry_at = error, time.monotonic() + TRY_AGAIN_AFTER

    def curves(self) -> list[Point]:
        """The points so far: in `curve.csv`, and in outs that the process is writing."""
        found = self.live()
        with suppress(OSError):  # an out that is being replaced
            curves = {file: list(points(rows_so_far(file))) for file in curve_files(self.stage)}
            for file, own in with_distinct_names(curves).items():
                found += own if file.stat().st_mtime >= self.began_at else []
        return found

    def live(self) -> list[Point]:
        """The points in `curve.csv`, which need not be in any out."""
        return list(points(rows_so_far(self.folder / "curve.csv")))

    def show(self, found: Sequence[Point]) -> None:
        """Log these points to the run, which is opened if need be."""
        assert self.experiment
        if self.run is None:
            self.run = runs.open_run(self.experiment, self.stage, self.tags)
        with store.exclusive():
            runs.add_points(self.run, found)
            if self.mistake is None and (files := self.beside()) != self.followed:
                try:
                    runs.call_follow(self.stage, self.started.process, self.run, self.folder)
                except runs.LogError as error:
                    self.mistake = error
                self.followed = files

    def beside(self) -> dict[str, int]:
        """The files for log.py's `follow`, and when each was changed."""
        files = (file for file in self.folder.iterdir() if file.name not in OURS)
        return {file.name: file.stat().st_mtime_ns for file in files}

    def finish(self, code: int) -> str:
        """Log the stage, or end its run, after the process has ended: the outcome in a line."""
        # DVC fails a stage whose outs are missing.
        lacking = missing(self.stage) if code == 0 and is_end(self.stage, self.started) else []
        if code == 0 and not lacking and is_last(self.stage, self.started):
            self.connect()
            assert self.experiment
            return runs.log_stage(
                self.experiment, self.tracked, self.tags, run=self.run, live=self.live()
            )
        points_left = code == 0 and not lacking and self.live()  # they are lost with the folder
        if points_left or is_later(self.stage, self.started):  # an earlier process may have a run
            self.connect()
        if points_left or self.run:
            self.show(self.curves())
            if code != 0 or lacking:
                runs.end_open_run(self.stage, "KILLED" if code == KILLED else "FAILED")
        if lacking:
            return f"not logged: {self.stage.name} has not written {', '.join(lacking)}."
        return ""
