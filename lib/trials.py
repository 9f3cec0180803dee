"""The table of a sweep's trials, as MLflow gets it: a nested run for each of them.

Called by a sweep's `log.py`, in the tracker's environment, which has neither Optuna nor matplotlib.
"""

from pathlib import Path
from typing import Any

from lib.files import read_csv

VALUES, METRICS = "values.", "metrics."  # what columns of trials.csv begin with


def log_trials(mlflow: Any, file: Path | str) -> None:
    """Log each trial with its state, values and metrics, below the stage's run.

    Args:
        mlflow: the module, with the stage's run active.
        file: trials.csv, as `lib.sweeps.write_sweep` writes it.
    """
    for row in read_csv(file):
        cells = {column: cell for column, cell in row.items() if cell}
        with mlflow.start_run(run_name=f"trial {row['trial']}", nested=True):
            mlflow.log_params({"state": row["state"], **below(cells, VALUES)})
            found = below(cells, METRICS)
            mlflow.log_metrics({name: float(value) for name, value in found.items()})


def below(cells: dict[str, str], prefix: str) -> dict[str, str]:
    """The cells of columns that begin so, by what follows."""
    return {
        name.removeprefix(prefix): cell for name, cell in cells.items() if name.startswith(prefix)
    }
