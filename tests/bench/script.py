"""The example's work as one plain script in one process: what `tests/bench` measures against.

Written as without a pipeline: the same functions one after the other, MLflow imported at the top,
results logged to an SQLite store in the working directory. `tests/bench` runs it in the root of
a copy of the repository, with PYTHONPATH set to that root.
"""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import mlflow

from lab.processes.export_models import main as export_models
from lab.processes.export_models.params import Params as ExportParams
from lab.processes.prepare_data import main as prepare_data
from lab.processes.prepare_data.params import Params as PrepareParams
from lab.processes.train_dnn_pytorch import main as train_dnn_pytorch
from lab.processes.train_dnn_pytorch.params import Params as NetworkParams
from lab.processes.train_standard_classifiers import log as classifiers
from lab.processes.train_standard_classifiers import main as train_standard_classifiers
from lab.processes.train_standard_classifiers.params import Params as ClassifiersParams
from lib.files import read_csv, read_json
from lib.nested import flat
from lib.params import Section, load_params, read_yaml


def log(params: Section, metrics: Path, artifacts: Path | None = None) -> None:
    """Log one process's parameters, metrics and files into the active run."""
    results = flat(read_json(metrics), "_")
    texts = {key: value for key, value in results.items() if isinstance(value, str)}
    mlflow.log_params(flat(params.model_dump()) | texts)
    mlflow.log_metrics({key: value for key, value in results.items() if key not in texts})
    if artifacts:
        mlflow.log_artifacts(str(artifacts))


def log_history(run_id: str, file: Path) -> None:
    """Log the learning curves of a training."""
    now = int(time.time() * 1000)
    points = [
        mlflow.entities.Metric(name, float(value), now, int(row["epoch"]))
        for row in read_csv(file)
        for name, value in row.items()
        if name != "epoch"
    ]
    mlflow.MlflowClient().log_batch(run_id, metrics=points)


def main() -> None:
    """Prepare the data, train and export the classifiers and the network; log each to MLflow."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    content: dict[str, Any] = read_yaml("params.yaml")
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment(content["experiment"])

    prepare = load_params(PrepareParams)
    prepare_data.prepare(prepare)
    with mlflow.start_run(run_name="prepare_data"):
        log(prepare, prepare_data.METRICS)

    standard = load_params(ClassifiersParams)
    train_standard_classifiers.train(standard)
    with mlflow.start_run(run_name="train_standard_classifiers"):
        log(standard, train_standard_classifiers.METRICS, train_standard_classifiers.ARTIFACTS)
        classifiers.log(mlflow, content)

    network = load_params(NetworkParams)
    train_dnn_pytorch.train(network)
    with mlflow.start_run(run_name="train_dnn_pytorch") as run:
        log_history(run.info.run_id, train_dnn_pytorch.ARTIFACTS / "training_history.csv")
        log(network, train_dnn_pytorch.METRICS, train_dnn_pytorch.ARTIFACTS)

    export = load_params(ExportParams)
    export_models.export(export)
    with mlflow.start_run(run_name="export_models"):
        log(export, export_models.METRICS, export_models.ARTIFACTS)


if __name__ == "__main__":
    main()
