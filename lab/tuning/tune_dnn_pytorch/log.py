"""Logs a nested run to MLflow for each trial of this sweep.

Called by the tracker, in the tracker's environment. No stage depends on this file.
"""

from pathlib import Path
from typing import Any

from lib.files import read_csv
from lib.trials import log_trials, trials_so_far


def follow(mlflow: Any, folder: Path) -> None:
    """Log the finished trials below the stage's run, which is active in `mlflow`."""
    log_trials(mlflow, trials_so_far(folder))


def log(mlflow: Any, _: dict[str, Any]) -> None:
    """Log the remaining trials after the sweep has succeeded."""
    log_trials(mlflow, read_csv("artifacts/tune/dnn_pytorch/trials.csv"))
