"""The example's work as one plain script in one process: what `tests/bench.py` measures against.

Written as somebody would who has no pipeline: the same functions one after the other, MLflow
imported on top, results logged to an sqlite store in the working directory. `tests/bench.py` runs
it, with PYTHONPATH set to a copy of the repository and in its root.
"""

import logging
import sys

import mlflow

from lab.processes.export_models import main as export_models
from lab.processes.prepare_data import main as prepare_data
from lab.processes.train_dnn_pytorch import main as train_dnn_pytorch
from lab.processes.train_standard_classifiers import main as train_standard_classifiers
from lib.params import load_params


def main() -> None:
    """Prepare the data, train and export the classifiers and the network; log each to MLflow."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    params = load_params()
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment(params.experiment)
    prepare_data.prepare(params)
    prepare_data.log(mlflow, params)
    train_standard_classifiers.train(params)
    train_standard_classifiers.log(mlflow, params)
    train_dnn_pytorch.train(params)
    train_dnn_pytorch.log(mlflow, params)
    export_models.export(params)
    export_models.log(mlflow, params)


if __name__ == "__main__":
    main()
