"""A sweep's trials as MLflow gets them: a nested run for each, while the sweep goes on.

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

VALUES, METRICS = "values.", "metrics."  # what columns of trials.csv begin with
SO_FAR = "trials.jsonl"
MOST_OF_A_NAME = 250  # characters, on servers of the 2.x line too


def append_trial(row: Mapping[str, Any]) -> None:
    """Append a row of trials.csv to what the tracker follows; nothing happens where none can."""
    if name := os.environ.get("LIVE_CURVE"):
        file = Path(name).with_name(SO_FAR)
        with suppress(OSError), file.open("a", encoding="utf-8") as so_far:
            so_far.write(json.dumps(row) + "\n")


def trials_so_far(folder: Path) -> list[dict[str, Any]]:
    """The rows that have been appended, from the folder that the tracker follows."""
    text = (folder / SO_FAR).read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def log_trials(mlflow: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    """Log each trial that is not there yet with its state, values and metrics.

    Args:
        mlflow: the module, with the stage's run active, below which they are.
        rows: those of trials.csv, as `lib.sweeps.write_sweep` writes it, or the first of them.
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
                tried = {allowed(key): value for key, value in values.items()}
                mlflow.log_params({"state": row["state"], **tried})
                mlflow.log_metrics({allowed(key): float(value) for key, value in metrics.items()})


def below(cells: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The cells of columns that begin so, by what follows."""
    return {
        name.removeprefix(prefix): cell for name, cell in cells.items() if name.startswith(prefix)
    }


def allowed(name: str) -> str:
    """A name that every MLflow server takes: `precision@10` as `precision_10`."""
    plain = re.sub(r"[^\w./ -]", "_", name)
    # As a path, which it becomes on some stores, it must lead nowhere else.
    parts = [part if part.strip(".") else "_" * len(part) for part in plain.split("/") if part]
    return "/".join(parts)[:MOST_OF_A_NAME] or "_"
