"""What MLflow gets of this sweep beside its stage's run: a nested run for each trial.

Called by the tracker, in the tracker's environment, once the sweep has ended well. No stage depends
on this file.
"""

from typing import Any

from lib.files import read_csv


def log(mlflow: Any, _: dict[str, Any]) -> None:
    """Log each trial with its values and metrics, below the stage's run.

    Args:
        mlflow: the module, with the stage's run active.
    """
    for row in read_csv("artifacts/tune/standard_classifiers/trials.csv"):
        cells = {key: cell for key, cell in row.items() if cell}
        values = {k.removeprefix("values."): v for k, v in cells.items() if k.startswith("values.")}
        metrics = {k.partition(".")[2]: v for k, v in cells.items() if k.startswith("metrics.")}
        with mlflow.start_run(run_name=f"trial {row['trial']}", nested=True):
            mlflow.log_params({"state": row["state"], **values})
            mlflow.log_metrics({key: float(value) for key, value in metrics.items()})
