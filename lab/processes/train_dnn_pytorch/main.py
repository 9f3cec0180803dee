"""Trains the densely connected network, keeps its best epoch, and shows how it came to it."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.files import read_csv, read_json, replaced_directory, write_csv, write_json
from lib.params import Params
from lib.process import start
from lib.progress import progress
from lib.tracking import flat, log_history, run_tags

if TYPE_CHECKING:
    from lab.processes.train_dnn_pytorch.densenet import TrainedDensenet
    from lib.pytorch import EpochRecord
    from lib.splits import Splits

STAGE = "train_dnn_pytorch"
CHECKPOINT = Path(".checkpoints") / f"{STAGE}.pt"  # not an out: it outlives a killed run
logger = logging.getLogger(__name__)


def train(params: Params) -> None:
    """Write the network's weights, its predictor, its history, pictures and metrics."""
    import joblib
    import torch

    from lab.processes.train_dnn_pytorch.densenet import create_predictor, train_densenet
    from lib.pytorch import choose_device
    from lib.splits import load_data_splits

    paths, settings = params.paths, params.train_dnn_pytorch
    splits = load_data_splits(paths.dir_processed)
    device = choose_device()
    torch.set_num_threads(settings.num_threads)
    logger.info("device: %s", device)
    with progress("epochs", settings.epochs, every=20) as advance:

        def on_epoch(record: "EpochRecord") -> None:
            said = f"loss {record.train_loss:.4f}, accuracy {record.validation_accuracy:.4f}"
            advance(said, record.epoch)

        trained = train_densenet(
            splits,
            seed=params.random_seed,
            device=device,
            checkpoint=CHECKPOINT,
            on_epoch=on_epoch,
            **settings.model_dump(exclude={"num_threads"}),
        )
    logger.info("best epoch: %d of %d", trained.history.best_epoch, len(trained.history.records))

    with replaced_directory(paths.dir_dnn_pytorch) as folder:
        scaler = joblib.load(Path(paths.dir_processed) / "scaler.joblib")
        torch.save(trained.network.state_dict(), folder / "densenet.pt")
        joblib.dump(create_predictor(scaler, trained.network), folder / "densenet.joblib")
        metrics = draw(folder, splits, trained)
    write_json(Path(paths.dir_metrics) / f"{STAGE}.json", metrics)
    CHECKPOINT.unlink(missing_ok=True)


def draw(folder: Path, splits: "Splits", trained: "TrainedDensenet") -> dict[str, Any]:
    """Write the history and the confusion matrix of the validation split; return the metrics."""
    from lib.metrics import classification_metrics
    from lib.pytorch import predict_probability
    from lib.viz import confusion_rows, plot_confusion_matrix, plot_training_history, save_figure

    records = [asdict(record) for record in trained.history.records]
    write_csv(folder / "training_history.csv", records)
    columns = {name: [record[name] for record in records] for name in records[0]}
    history = plot_training_history(columns, trained.history.best_epoch)
    save_figure(history, folder / "training_history.png")

    validation = predict_probability(trained.network, splits.X_val)
    predicted = (validation >= 0.5).astype(int)
    write_csv(
        folder / "confusion_matrix.csv",
        confusion_rows(splits.y_val, predicted, splits.class_names),
    )
    confusion = plot_confusion_matrix(
        splits.y_val, predicted, splits.class_names, "densenet, validation"
    )
    save_figure(confusion, folder / "confusion_matrix.png")
    return {
        "best_epoch": trained.history.best_epoch,
        "validation": classification_metrics(splits.y_val, validation),
        "test": classification_metrics(
            splits.y_test, predict_probability(trained.network, splits.X_test)
        ),
    }


def log(mlflow: Any, params: Params) -> None:
    """Log a run with the network's curves, metrics, pictures and model."""
    folder, settings = Path(params.paths.dir_dnn_pytorch), params.train_dnn_pytorch.model_dump()
    metrics = read_json(Path(params.paths.dir_metrics) / f"{STAGE}.json")
    history = read_csv(folder / "training_history.csv")
    with mlflow.start_run(run_name=STAGE, tags=run_tags(STAGE)):
        mlflow.log_params({"random_seed": params.random_seed, "classifier": "densenet", **settings})
        # The curves first: of two values of one name, MLflow shows the later as the run's result.
        log_history(mlflow, {name: [float(row[name]) for row in history] for name in history[0]})
        mlflow.log_metrics(flat(metrics), step=int(metrics["best_epoch"]))
        mlflow.log_artifacts(str(folder))


if __name__ == "__main__":
    start(train, log)
