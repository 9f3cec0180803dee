"""What MLflow gets of this sweep beside its stage's run: a nested run for each trial.

Called by the tracker, in the tracker's environment, once the sweep has ended well. No stage depends
on this file.
"""

from typing import Any

from lib.trials import log_trials


def log(mlflow: Any, _: dict[str, Any]) -> None:
    """Log each trial below the stage's run, which is active in the module `mlflow`."""
    log_trials(mlflow, "artifacts/tune/standard_classifiers/trials.csv")
