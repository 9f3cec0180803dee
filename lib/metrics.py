"""The metrics of this project's models: one definition and one name each."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    mean_absolute_error,
    precision_recall_fscore_support,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from lib.errors import UserError

PART_ROWS = 2**18  # measured at a time


def classification_metrics(y: ArrayLike, probability: ArrayLike) -> dict[str, float | None]:
    """Metrics of a binary classifier; class 1 is positive, predicted from 0.5 on.

    Args:
        y: (n,) true labels, 0 or 1.
        probability: (n,) probability of class 1.

    Returns:
        accuracy, roc_auc (None if only one class occurs), precision (0 if nothing is predicted
        positive), recall, log_loss and brier_score; of the last two, lower is better.
    """
    y, probability = np.asarray(y), np.asarray(probability, dtype=np.float64)
    (right_0, wrong_0), (wrong_1, right_1) = confusion_counts(y, probability >= 0.5, 2).tolist()
    return {
        "accuracy": (right_0 + right_1) / len(y),
        "roc_auc": roc_auc(y, probability) if both_occur(y) else None,
        "precision": right_1 / max(wrong_0 + right_1, 1),
        "recall": right_1 / max(wrong_1 + right_1, 1),
        "log_loss": mean_over_parts(partial(log_loss, labels=[0, 1]), y, probability),
        "brier_score": mean_over_parts(partial(brier_score_loss, labels=[0, 1]), y, probability),
    }


def both_occur(y: ArrayLike) -> bool:
    """Whether both classes occur in (n,) labels, 0 or 1: otherwise there is no ROC curve."""
    return bool(0 < np.count_nonzero(y) < np.size(y))


def confusion_counts(y: ArrayLike, predicted: ArrayLike, n_labels: int) -> NDArray[np.int64]:
    """(k, k) confusion matrix: counts by true class (row) and predicted class (column)."""
    counts = np.zeros((n_labels, n_labels), dtype=np.int64)
    for part_y, part in parts(np.asarray(y), np.asarray(predicted)):
        counts += confusion_matrix(part_y, part.astype(np.int64), labels=range(n_labels))
    return counts


def parts(y: NDArray[Any], found: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Both arrays, PART_ROWS rows at a time, as metrics copy what they are given."""
    for start in range(0, len(y), PART_ROWS):
        yield y[start : start + PART_ROWS], found[start : start + PART_ROWS]


def mean_over_parts(measure: Callable[..., float], y: NDArray[Any], found: NDArray[Any]) -> float:
    """A metric that is a mean over rows, computed part by part."""
    measured = [(len(part), float(measure(part, of))) for part, of in parts(y, found)]
    if len(measured) == 1:
        return measured[0][1]  # the same to the bit
    return sum(n * value for n, value in measured) / len(y)


def roc_auc(y: ArrayLike, probability: ArrayLike) -> float:
    """The exact area under the ROC curve: how often a positive row scores above a negative one.

    Args:
        y: (n,) true labels, 0 or 1; both must occur.
        probability: (n,) probability of class 1, or any score that grows with it.
    """
    y, probability = np.asarray(y), np.asarray(probability)
    if len(y) <= PART_ROWS:
        return float(roc_auc_score(y, probability))
    n_positive = int(np.count_nonzero(y))
    negatives = np.empty(len(y) - n_positive, dtype=probability.dtype)
    filled = 0
    for part_y, part in parts(y, probability):
        found = part[part_y == 0]
        negatives[filled : filled + len(found)] = found
        filled += len(found)
    negatives.sort()
    below = 0
    for part_y, part in parts(y, probability):
        for side in ("left", "right"):  # equal scores count half
            below += int(np.searchsorted(negatives, part[part_y == 1], side).sum())
    return below / (2 * len(negatives) * n_positive)


def multiclass_metrics(
    y: ArrayLike, probability: ArrayLike, class_names: Sequence[str]
) -> dict[str, Any]:
    """Metrics of a classifier of several classes, averaged over classes, and for each class.

    Args:
        y: (n,) true classes, from 0 to k - 1.
        probability: (n, k) probability of each class.
        class_names: the k names.

    Returns:
        accuracy, f1_macro, precision_macro, recall_macro, roc_auc_macro (one versus rest, over the
        classes that occur; None if only one does), log_loss, and `by_class`: for each name its
        precision, recall, f1 and support (0 if it does not occur).
    """
    y, probability = np.asarray(y), np.asarray(probability, dtype=np.float64)
    codes, predicted = range(len(class_names)), probability.argmax(axis=1)
    by_class = precision_recall_fscore_support(y, predicted, labels=codes, zero_division=0)
    precision, recall, f1, _ = (values.mean() for values in by_class)
    occurring = [code for code in codes if both_occur(y == code)]
    areas = [roc_auc(y == code, probability[:, code]) for code in occurring]
    return {
        "accuracy": float(accuracy_score(y, predicted)),
        "f1_macro": float(f1),
        "precision_macro": float(precision),
        "recall_macro": float(recall),
        "roc_auc_macro": float(np.mean(areas)) if areas else None,
        "log_loss": float(log_loss(y, probability, labels=codes)),
        "by_class": {
            str(name): {
                "precision": float(p),
                "recall": float(r),
                "f1": float(f),
                "support": int(n),
            }
            for name, p, r, f, n in zip(class_names, *by_class, strict=True)
        },
    }


def regression_metrics(y: ArrayLike, predicted: ArrayLike) -> dict[str, float | None]:
    """Metrics of predicted numbers, (n,) or (n, m): rmse and mae in the unit of y, and r2.

    r2 is None for a single row.
    """
    return {
        "rmse": float(root_mean_squared_error(y, predicted)),
        "mae": float(mean_absolute_error(y, predicted)),
        "r2": float(r2_score(y, predicted)) if len(np.asarray(y)) > 1 else None,
    }


def class_codes(labels: ArrayLike, classes: ArrayLike) -> NDArray[np.int64]:
    """(n,) the index of each label, text or number, in `classes`.

    Raises:
        UserError: a label is not in `classes`.
    """
    codes = {label: code for code, label in enumerate(np.asarray(classes).tolist())}
    found = np.asarray(labels).tolist()
    if unknown := [label for label in found if label not in codes]:
        known = ", ".join(map(str, codes))
        raise UserError(f"The class {unknown[0]!r} is not known: there are {known}.")
    return np.array([codes[label] for label in found], dtype=np.int64)
