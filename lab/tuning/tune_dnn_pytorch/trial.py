"""One trial: trains the densely connected network with the given values."""

from collections.abc import Mapping
from typing import Any

import torch

from lab.processes.train_dnn_pytorch.densenet import train_densenet
from lib.metrics import classification_metrics
from lib.nested import with_values
from lib.pytorch import choose_device, predict_probability
from lib.splits import Splits


def train_once(
    splits: Splits,
    values: Mapping[str, Any],
    budget: int | None,
    *,
    fixed: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """The metrics of the validation split; the test split must not influence the choice.

    Args:
        splits: standardised rows.
        values: the suggested values.
        budget: epochs, in place of those in `fixed`.
        fixed: the parameters of `train_densenet` that are not searched.
        seed: of every trial.

    Raises:
        UserError: the network cannot be trained with these values.
    """
    torch.set_num_threads(1)
    params = with_values(fixed, values) | ({"epochs": budget} if budget else {})
    trained = train_densenet(splits, seed=seed, device=choose_device(), **params)
    probability = predict_probability(trained.network, splits.X_val)
    return {
        "best_epoch": trained.history.best_epoch,
        "validation": classification_metrics(splits.y_val, probability),
    }
