"""Trains the densely connected network, and saves its best epoch, its history and pictures."""

import logging
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

from lab.processes.train_dnn_pytorch.densenet import (
    TrainedDensenet,
    create_predictor,
    train_densenet,
)
from lab.processes.train_dnn_pytorch.params import Params
from lib.curves import append_to_curve
from lib.distributed import is_first, joined
from lib.files import replaced_directory, write_csv, write_json
from lib.metrics import classification_metrics
from lib.process import start
from lib.progress import progress
from lib.pytorch import EpochRecord, choose_device, predict_probability
from lib.splits import Splits, load_data_splits
from lib.viz import confusion_rows, plot_confusion_matrix, plot_training_history, save_figure

PROCESSED = Path("data/processed")
ARTIFACTS = Path("artifacts/dnn_pytorch")
METRICS = Path("metrics/train_dnn_pytorch.json")
CHECKPOINT = Path(".checkpoints/train_dnn_pytorch.pt")  # not an out: it outlives a killed run

logger = logging.getLogger(__name__)


def train(params: Params) -> None:
    """Write the network's weights, predictor, history, pictures and metrics."""
    settings = params.train_dnn_pytorch
    splits = load_data_splits(PROCESSED)
    device = choose_device()
    torch.set_num_threads(settings.num_threads)
    logger.info("device: %s", device)
    with joined(settings.workers, device), progress("epochs", settings.epochs, every=20) as advance:

        def on_epoch(record: EpochRecord) -> None:
            append_to_curve(record.row)
            loss, found = (record.measures[key] for key in ("train_loss", "validation_accuracy"))
            advance(f"loss {loss:.4f}, accuracy {found:.4f}", record.epoch)

        trained = train_densenet(
            splits,
            seed=params.random_seed,
            device=device,
            checkpoint=CHECKPOINT,
            on_epoch=on_epoch,
            **settings.model_dump(exclude={"num_threads", "workers"}),
        )
        if not is_first():
            return
    logger.info("best epoch: %d of %d", trained.history.best_epoch, len(trained.history.records))

    with replaced_directory(ARTIFACTS) as folder:
        scaler = joblib.load(PROCESSED / "scaler.joblib")
        torch.save(trained.network.state_dict(), folder / "densenet.pt")
        joblib.dump(create_predictor(scaler, trained.network), folder / "densenet.joblib")
        metrics = draw(folder, splits, trained)
    write_json(METRICS, metrics)
    CHECKPOINT.unlink(missing_ok=True)


def draw(folder: Path, splits: Splits, trained: TrainedDensenet) -> dict[str, Any]:
    """Write the history and the confusion matrix of the validation split; return the metrics."""
    records = [record.row for record in trained.history.records]
    write_csv(folder / "training_history.csv", records)
    columns = {name: [record[name] for record in records] for name in records[0]}
    history = plot_training_history(columns, trained.history.best_epoch)
    save_figure(history, folder / "training_history.png")

    names = splits.class_names
    validation = predict_probability(trained.network, splits.X_val)
    metrics = {"validation": classification_metrics(splits.y_val, validation)}
    predicted = (validation >= 0.5).astype(np.int8)
    del validation  # large if there are many rows
    metrics["test"] = classification_metrics(
        splits.y_test, predict_probability(trained.network, splits.X_test)
    )
    write_csv(folder / "confusion_matrix.csv", confusion_rows(splits.y_val, predicted, names))
    confusion = plot_confusion_matrix(splits.y_val, predicted, names, "densenet, validation")
    save_figure(confusion, folder / "confusion_matrix.png")
    return {"best_epoch": trained.history.best_epoch, **metrics}


if __name__ == "__main__":
    start(train, Params)
