"""Logs a nested run to MLflow for each classifier.

Called by the tracker, in the tracker's environment, after the process has succeeded. No stage
depends on this file.
"""

from typing import Any

from lib.files import read_csv


def log(mlflow: Any, params: dict[str, Any]) -> None:
    """Log each classifier with its parameters and metrics below the stage's run.

    Args:
        mlflow: the module, with the stage's run active.
        params: the sections of params.yaml that the stage lists.
    """
    settings = params["train_standard_classifiers"]
    for row in read_csv("metrics/classifiers.csv"):
        name = row.pop("classifier")
        with mlflow.start_run(run_name=name, nested=True):
            mlflow.log_params({"classifier": name, **settings[name]})
            mlflow.log_metrics({key: float(value) for key, value in row.items()})
