"""A stage's run in MLflow: opens, fills, ends and finds it."""

import runpy
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
from mlflow.entities import Experiment, Metric, Param, RunInfo, RunTag
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException

from lib.errors import traceback_from
from lib.pipeline import Stage
from lib.repository import ROOT
from lib.trials import MAX_NAME, mlflow_name
from tools.tracking import notes
from tools.tracking.registry import register_models
from tools.tracking.results import Point, Results, artifacts_of, results_of, shortened
from tools.tracking.stages import Tracked, checksums, processes_of
from tools.tracking.store import (
    exclusive,
    experiment_name,
    is_final,
    is_gone,
    is_outage,
    run_url,
    shown_uri,
)

METRICS_AT_ONCE, OTHERS_AT_ONCE = 1000, 100  # MLflow's limits for one request


class LogError(Exception):
    """A process's log.py raised; the message is its traceback. The results are complete."""


@dataclass
class Run:
    """A run that is open in MLflow, and the (name, step) of each point that it has."""

    info: RunInfo
    logged: set[tuple[str, int]] = field(default_factory=set)


# ---- writing


def open_run(experiment: Experiment, stage: Stage, tags: dict[str, str]) -> Run:
    """Start a run; MLflow shows it as running until it is ended."""
    keys = {mlflow_name(key): shortened(value) for key, value in tags.items()}
    with exclusive():
        client = mlflow.MlflowClient()
        run = client.create_run(
            experiment.experiment_id, tags=keys, run_name=stage.address[:MAX_NAME]
        )
    notes.write(stage.address, open=run.info.run_id)
    return Run(run.info)


def add_points(run: Run, found: Iterable[Point]) -> None:
    """Log the points of curves that the run does not have yet."""
    new = [point for point in found if (point.name, point.step) not in run.logged]
    now = int(time.time() * 1000)
    metrics = [Metric(point.name, point.value, now, point.step) for point in new]
    for start in range(0, len(new), METRICS_AT_ONCE):
        batch = slice(start, start + METRICS_AT_ONCE)
        mlflow.MlflowClient().log_batch(run.info.run_id, metrics=metrics[batch])
        run.logged |= {(point.name, point.step) for point in new[batch]}


def fill(
    run: Run, stage: Stage, results: Results, tags: dict[str, str], found_by: dict[str, str]
) -> None:
    """Log a stage's results and artifacts, then call its log.py, and end the run.

    Args:
        run: an open run.
        stage: the stage, which has run.
        results: what its files hold.
        tags: its provenance, also set on the runs that log.py nests below.
        found_by: further tags, for this run only.
    """
    client, run_id = mlflow.MlflowClient(), run.info.run_id
    add_points(run, results.curves)
    # Of several values of a metric, MLflow shows the one with the last step.
    last: dict[str, int] = {}
    for name, step in run.logged:
        last[name] = max(step, last.get(name, 0))
    now = int(time.time() * 1000)
    metrics = [Metric(k, v, now, last.get(k, 0)) for k, v in results.metrics.items()]
    params = [Param(key, value) for key, value in results.params.items()]
    labels = [
        RunTag(mlflow_name(key), shortened(value)) for key, value in (tags | found_by).items()
    ]
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_AT_ONCE])
    for start in range(0, max(len(params), len(labels)), OTHERS_AT_ONCE):
        batch = slice(start, start + OTHERS_AT_ONCE)
        client.log_batch(run_id, params=params[batch], tags=labels[batch])
    for path, place in artifacts_of(stage).items():
        log = client.log_artifacts if Path(path).is_dir() else client.log_artifact
        with patient(Path(path)):
            log(run_id, path, place or None)
    if call_log(stage, run_id):
        for child in nested(run.info):
            client.log_batch(child.run_id, tags=[RunTag(k, v) for k, v in tags.items()])
    client.set_terminated(run_id, "FINISHED")
    notes.write(stage.address, open="")


@contextmanager
def patient(path: Path) -> Iterator[None]:
    """Wait longer for answers, while this file or folder is sent.

    A server answers when it has stored a whole file, for which it gets a second per MB.
    """
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    largest = max((file.stat().st_size for file in files), default=0)
    usual = MLFLOW_HTTP_REQUEST_TIMEOUT.get()
    MLFLOW_HTTP_REQUEST_TIMEOUT.set(usual + largest // 10**6)
    try:
        yield
    finally:
        MLFLOW_HTTP_REQUEST_TIMEOUT.set(usual)


def nested(run: RunInfo) -> list[RunInfo]:
    """The runs nested below a run."""
    below = f"tags.`mlflow.parentRunId` = '{run.run_id}'"
    found = mlflow.search_runs([run.experiment_id], filter_string=below, output_format="list")
    return [child.info for child in found]


def log_files(stage: Stage) -> list[Path]:
    """The log.py files of a stage's processes."""
    rooms = [ROOT / room for room in ("lab/processes", "lab/tuning")]
    found = [room / name / "log.py" for name in processes_of(stage) for room in rooms]
    return [file for file in found if file.is_file()]


def call_log(stage: Stage, run_id: str) -> bool:
    """Call `log` of each process's log.py on the stage's run; whether there is any.

    Raises:
        LogError: log.py raised; an error of the store is raised as it is.
    """
    for file in (files := log_files(stage)):
        try:
            log = runpy.run_path(str(file))["log"]
            with mlflow.start_run(run_id=run_id):
                log(mlflow, dict(stage.params))
        except (Exception, SystemExit) as error:
            if is_outage(error):
                raise
            raise mistake_in(file, error) from error
    return bool(files)


def call_follow(stage: Stage, process: str, run: Run, folder: Path) -> None:
    """Call `follow` of a process's log.py, if it has one, on the run while the process runs.

    Args:
        stage: the stage that the process runs for.
        process: its name.
        run: the open run, which stays open.
        folder: the files that the process writes beside its curve.

    Raises:
        LogError: log.py raised; an error of the store is raised as it is.
    """
    file = next((file for file in log_files(stage) if file.parent.name == process), None)
    if file is None:
        return
    try:
        functions = runpy.run_path(str(file))
        if "follow" not in functions:
            return
        try:
            with mlflow.start_run(run_id=run.info.run_id):
                functions["follow"](mlflow, folder)
        finally:
            mlflow.MlflowClient().update_run(run.info.run_id, status="RUNNING")
    except (Exception, SystemExit) as error:
        if is_outage(error):
            raise
        raise mistake_in(file, error) from error


def mistake_in(file: Path, error: BaseException) -> LogError:
    """An error in log.py, with the traceback from log.py on."""
    return LogError(f"{file.relative_to(ROOT)}\n{traceback_from(error, file)}")


def continued_run(stage: Stage) -> Run | None:
    """The run that the tracker of this stage's previous process left open."""
    run = active_run(notes.read(stage.address).get("open", ""))
    if run is None:
        return None
    history, run_id = mlflow.MlflowClient().get_metric_history, run.info.run_id
    points = {(name, point.step) for name in run.data.metrics for point in history(run_id, name)}
    return Run(run.info, points)


def active_run(run_id: str) -> mlflow.entities.Run | None:
    """The run, if it exists and was not deleted."""
    try:
        run = mlflow.MlflowClient().get_run(run_id) if run_id else None
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run and run.info.lifecycle_stage == "active" else None


# ---- a stage that has run


def log_stage(
    experiment: Experiment,
    tracked: Tracked,
    tags: dict[str, str],
    *,
    run: Run | None = None,
    live: Iterable[Point] = (),
    ask_store: bool = False,
) -> str:
    """Log a stage that has run, unless MLflow already has a run with the same fingerprint.

    Args:
        experiment: from `connect`.
        tracked: the stage, whose outs are complete.
        tags: its `provenance`.
        run: the run that was opened while the process ran, if any.
        live: points of `curve.csv`, beside those in the stage's files.
        ask_store: look among all runs of the experiment, not only for the last one that was logged
            from this clone.

    Returns:
        The outcome in a line.
    """
    stage, sums = tracked.stage, checksums(tracked)
    fingerprint = sums.fingerprint(stage)
    with exclusive():
        known = find(experiment, fingerprint) if ask_store else last_run(stage, fingerprint)
        if known:
            if run:
                discard(run, stage)
            register_models(known, tracked, tags)
            remember(stage, fingerprint, known)
            return f"already logged: {run_url(known)}"
    found_by = {"fingerprint": fingerprint, **sums.tags()}
    run = run or open_run(experiment, stage, tags | found_by)
    try:
        results = results_of(stage)
        for line in results.notices:
            print(f"MLflow: {line}", file=sys.stderr)
        with exclusive():
            add_points(run, live)
            fill(run, stage, results, tags, found_by)
            register_models(run.info, tracked, tags)
    except Exception as error:
        if is_final(error) or not is_outage(error):  # a server that is down would be waited for
            end_open_run(stage, "FAILED")
        raise
    remember(stage, fingerprint, run.info)
    return f"logged: {run_url(run.info)}"


def discard(run: Run, stage: Stage) -> None:
    """Delete a run that was opened while a stage ran whose results turned out to be known."""
    for each in (*nested(run.info), run.info):
        mlflow.MlflowClient().delete_run(each.run_id)
    notes.write(stage.address, open="")


def find(experiment: Experiment, fingerprint: str) -> RunInfo | None:
    """The finished run with this fingerprint; unfinished ones are set to KILLED."""
    client = mlflow.MlflowClient()
    wanted = f"tags.fingerprint = '{fingerprint}'"  # it includes the stage's address
    for run in client.search_runs([experiment.experiment_id], filter_string=wanted):
        if run.info.status == "FINISHED":
            return run.info
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")
    return None


def end_open_run(stage: Stage, status: str) -> None:
    """End the run that a tracker of this clone left open, if there is one."""
    note = notes.read(stage.address)
    if run_id := note.get("open"):
        try:
            with exclusive():
                mlflow.MlflowClient().set_terminated(run_id, status)
        except MlflowException as error:
            if is_outage(error) and not is_gone(error):
                return  # the next tracker tries again
        notes.write(stage.address, open="")


# ---- what was logged from this clone


def remember(stage: Stage, fingerprint: str, run: RunInfo) -> None:
    """Note the run, for `last_run` and for the results commit."""
    notes.write(
        stage.address,
        fingerprint=fingerprint,
        uri=shown_uri(),
        run_id=run.run_id,
        outcome=run_url(run),
        error="",
    )


def last_run(stage: Stage, fingerprint: str) -> RunInfo | None:
    """The last run logged from this clone, if it has this fingerprint and MLflow still has it."""
    note = notes.read(stage.address)
    if (note.get("fingerprint"), note.get("uri")) != (fingerprint, shown_uri()):
        return None
    if (run := active_run(note["run_id"])) is None:
        return None
    experiment = mlflow.MlflowClient().get_experiment(run.info.experiment_id)
    there = (run.info.status, experiment.name)
    return run.info if there == ("FINISHED", experiment_name()) else None
