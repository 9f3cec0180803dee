"""What the models of this project are measured by, in one place and by one name each."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)


def classification_metrics(y: ArrayLike, probability: ArrayLike) -> dict[str, float]:
    """Measures of a binary classifier; the positive class is 1 (malignant), decided from 0.5 up.

    Args:
        y: (n,) true labels, 0 or 1; both must occur.
        probability: (n,) probability of class 1.

    Returns:
        accuracy, roc_auc, precision (0 where nothing is predicted positive), recall, log_loss and
        brier_score, the last two the lower the better.
    """
    y, probability = np.asarray(y), np.asarray(probability, dtype=np.float64)
    predicted = (probability >= 0.5).astype(y.dtype)
    measures = {
        "accuracy": accuracy_score(y, predicted),
        "roc_auc": roc_auc_score(y, probability),
        "precision": precision_score(y, predicted, zero_division=0),
        "recall": recall_score(y, predicted),
        "log_loss": log_loss(y, probability),
        "brier_score": brier_score_loss(y, probability),
    }
    return {name: float(value) for name, value in measures.items()}
