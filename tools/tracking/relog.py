"""Logs what MLflow is missing, from the files on disk: `make relog`."""

from collections.abc import Sequence

from mlflow.entities import Experiment

from lib.errors import UserError
from lib.pipeline import MAIN
from lib.repository import ROOT
from tools.tracking import runs, store
from tools.tracking.messages import report_failure, say, warn
from tools.tracking.stages import (
    Tracked,
    changed_since,
    missing,
    of_results_commit,
    provenance,
    tracked_stages,
)


def relog(names: Sequence[str]) -> bool:
    """Log the named stages, or all, from the files on disk; whether every one is logged now."""
    stages = tracked_stages()
    if names:
        known = {each.stage.address: each for each in stages}
        if unknown := [name for name in names if name not in known]:
            raise UserError(
                f"no stage is called {', '.join(unknown)}. There are: {', '.join(known) or 'none'}."
            )
        stages = [known[name] for name in names]
    if not stages:
        print("There is no stage yet, so there is nothing to log.")
        return True
    try:
        experiment = store.connect()
    except Exception as error:  # of the store: many classes
        report_failure(stages[0].stage, error)
        return False
    wanted = [each for each in stages if names or is_due(each)]
    logged = [relog_one(experiment, each) for each in wanted]
    return all(logged)


def is_due(tracked: Tracked) -> bool:
    """Whether a stage should have results; one outside dvc.yaml need not have run."""
    stage = tracked.stage
    return stage.file == MAIN or any((ROOT / path).exists() for path in stage.written)


def relog_one(experiment: Experiment, tracked: Tracked) -> bool:
    """Log one stage, unless MLflow has it already; whether it is logged now."""
    stage = tracked.stage
    if lacking := missing(stage):
        get = f"`dvc pull` or `{stage.command}` brings it."
        warn(f"{stage.address}: missing: {', '.join(lacking)}. {get}")
        return False
    try:
        changed = changed_since(tracked)
    except UserError as error:
        warn(f"{stage.address}: {error}")
        return False
    if changed:
        what = f"{', '.join(changed[:5])}. Bring that back, or `{stage.command}`."
        warn(f"{stage.address}: changed since it ran: {what}")
        return False
    try:
        runs.end_open_run(stage, "KILLED")
        tags = provenance(tracked) | of_results_commit(tracked)
        tags = {key: value for key, value in tags.items() if value}
        say(runs.log_stage(experiment, tracked, tags, ask_store=True))
    except Exception as error:  # as in follow
        report_failure(stage, error)
        return False
    return True
