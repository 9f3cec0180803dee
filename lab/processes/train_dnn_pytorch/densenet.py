"""The densely connected binary classifier: its layers, its training and its predictor.

Called by this process's main.py, which passes arrays and parameters and writes the results. The
training loop is `lib.pytorch.train`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from sklearn.base import TransformerMixin
from sklearn.pipeline import Pipeline
from torch import nn

from lib.errors import ShortageError
from lib.pytorch import (
    EpochRecord,
    History,
    Precision,
    TorchClassifier,
    accuracy,
    create_dataloader,
    seed_everything,
    train,
)
from lib.splits import Splits


@dataclass(frozen=True)
class TrainedDensenet:
    """A network with its best epoch's weights, on the CPU, and its training history."""

    network: nn.Sequential
    history: History


def create_densenet(n_features: int, hidden: Sequence[int] = (200, 100, 100)) -> nn.Sequential:
    """An untrained network from (b, n_features) float32 to (b, 1) logits of class 1.

    Each hidden layer is linear, batch norm, ReLU. Weights are drawn from torch's global generator.
    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise((n_features, *hidden)):
        # A bias before batch norm would have no effect: the norm subtracts the mean.
        layers += [nn.Linear(n_in, n_out, bias=False), nn.BatchNorm1d(n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear((n_features, *hidden)[-1], 1))


def train_densenet(
    splits: Splits,
    *,
    seed: int,
    hidden: Sequence[int] = (200, 100, 100),
    epochs: int,
    batch_size: int,
    lr: float,
    patience: int | None,
    device: torch.device,
    precision: Precision = "float32",
    accumulate: int = 1,
    checkpoint: Path | None = None,
    checkpoint_every: int = 10,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainedDensenet:
    """A network trained on the training split; the validation split decides the best epoch.

    `seed` decides the initial weights and the order of rows. Sets the global seeds and torch's
    deterministic mode. For the other arguments, see `lib.pytorch.train`.

    Raises:
        NonFiniteLossError: lr is too high for these data.
        ShortageError: the network, or a batch, does not fit in memory.
    """
    seed_everything(seed)
    try:
        network = create_densenet(splits.X_train.shape[1], hidden)
        history = train(
            network,
            create_dataloader(splits.X_train, splits.y_train, batch_size, shuffle=True, seed=seed),
            create_dataloader(splits.X_val, splits.y_val, batch_size, shuffle=False, seed=seed),
            loss=nn.BCEWithLogitsLoss(),
            metrics={"accuracy": accuracy},
            best_by=("validation_accuracy", "validation_loss"),
            lr=lr,
            epochs=epochs,
            patience=patience,
            device=device,
            precision=precision,
            accumulate=accumulate,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            on_epoch=on_epoch,
        )
    except RuntimeError as error:
        if not re.search("memory|overflow", str(error), re.IGNORECASE):
            raise
        raise ShortageError(
            f"train_dnn_pytorch.hidden is {list(hidden)}, batch_size is {batch_size}: that is more "
            f"than fits into the memory of {device}."
        ) from None
    return TrainedDensenet(network.cpu(), history)


def create_predictor(scaler: TransformerMixin, network: nn.Module) -> Pipeline:
    """A Pipeline of fitted scaler and trained network, from raw features to probabilities."""
    return Pipeline([("scaler", scaler), ("network", TorchClassifier(network))])
