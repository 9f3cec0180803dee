"""Logs the trials of a running sweep to MLflow, each as a nested run.

A sweep appends each trial to a file beside the curve that the tracker follows (`lib/curves.py`).
Its `log.py` reads them in the tracker's environment, which has neither Optuna nor matplotlib.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

VALUES, METRICS = "values.", "metrics."  # prefixes of columns in trials.csv
SO_FAR = "trials.jsonl"
MAX_NAME = 250  # characters, also on servers of MLflow 2


def append_trial(row: Mapping[str, Any]) -> None:
    """Append a row of trials.csv to the tracker's file, if LIVE_CURVE is set and it is writable."""
    if name := os.environ.get("LIVE_CURVE"):
        file = Path(name).with_name(SO_FAR)
        with suppress(OSError), file.open("a", encoding="utf-8") as so_far:
            so_far.write(json.dumps(row) + "\n")


def trials_so_far(folder: Path) -> list[dict[str, Any]]:
    """The rows appended so far, from the folder that the tracker follows."""
    text = (folder / SO_FAR).read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def log_trials(mlflow: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    """Log the state, values and metrics of each trial that is not logged yet.

    Args:
        mlflow: the module, with the stage's run active, which becomes their parent.
        rows: all or the first rows of trials.csv, from `lib.sweeps.write_sweep`.
    """
    parent = mlflow.active_run().info
    nested = f"tags.`mlflow.parentRunId` = '{parent.run_id}'"
    runs = mlflow.search_runs([parent.experiment_id], filter_string=nested, output_format="list")
    there = {run.info.run_name for run in runs}
    for row in rows:
        name = f"trial {row['trial']}"
        if name not in there:
            cells = {column: cell for column, cell in row.items() if cell not in ("", None)}
            with mlflow.start_run(run_name=name, nested=True):
                values, metrics = below(cells, VALUES), below(cells, METRICS)
                tried = {mlflow_name(key): value for key, value in values.items()}
                mlflow.log_params({"state": row["state"], **tried})
                mlflow.log_metrics(
                    {mlflow_name(key): float(value) for key, value in metrics.items()}
                )


def below(cells: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The cells of columns with this prefix, by the rest of the column's name."""
    return {
        name.removeprefix(prefix): cell for name, cell in cells.items() if name.startswith(prefix)
    }


def mlflow_name(name: str) -> str:
    """The name as every MLflow server accepts it: `precision@10` as `precision_10`."""
    plain = re.sub(r"[^\w./ -]", "_", name)
    # Some stores use it as a path, which must not lead elsewhere.
    parts = [part if part.strip(".") else "_" * len(part) for part in plain.split("/") if part]
    return "/".join(parts)[:MAX_NAME] or "_"
