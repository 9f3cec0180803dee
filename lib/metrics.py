"""What the models of this project are measured by, in one place and by one name each."""

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
    """Measures of a binary classifier; the positive class is 1, decided from 0.5 up.

    Args:
        y: (n,) true labels, 0 or 1.
        probability: (n,) probability of class 1.

    Returns:
        accuracy, roc_auc (None where only one class occurs), precision (0 where nothing is
        predicted positive), recall, log_loss and brier_score, the last two the lower the better.
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
    """Whether there are rows of either class among (n,) labels, 0 or 1: else there is no ROC."""
    return bool(0 < np.count_nonzero(y) < np.size(y))


def confusion_counts(y: ArrayLike, predicted: ArrayLike, n_labels: int) -> NDArray[np.int64]:
    """(k, k) rows of each true class (row) for which each class (column) was predicted."""
    counts = np.zeros((n_labels, n_labels), dtype=np.int64)
    for part_y, part in parts(np.asarray(y), np.asarray(predicted)):
        counts += confusion_matrix(part_y, part.astype(np.int64), labels=range(n_labels))
    return counts


def parts(y: NDArray[Any], found: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Both arrays, PART_ROWS rows at a time: what measures them makes copies of them."""
    for start in range(0, len(y), PART_ROWS):
        yield y[start : start + PART_ROWS], found[start : start + PART_ROWS]


def mean_over_parts(measure: Callable[..., float], y: NDArray[Any], found: NDArray[Any]) -> float:
    """A measure that is a mean over rows, taken part by part."""
    measured = [(len(part), float(measure(part, of))) for part, of in parts(y, found)]
    if len(measured) == 1:
        return measured[0][1]  # to the bit
    return sum(n * value for n, value in measured) / len(y)


def roc_auc(y: ArrayLike, probability: ArrayLike) -> float:
    """The area under the ROC curve, exact: how often a positive row has more than a negative one.

    Args:
        y: (n,) true labels, 0 or 1; both must occur.
        probability: (n,) probability of class 1, or anything that grows with it.
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
        for side in ("left", "right"):  # of those that have the same, half count
            below += int(np.searchsorted(negatives, part[part_y == 1], side).sum())
    return below / (2 * len(negatives) * n_positive)


def multiclass_metrics(
    y: ArrayLike, probability: ArrayLike, class_names: Sequence[str]
) -> dict[str, Any]:
    """Measures of a classifier of several classes, all classes counting alike, and of each class.

    Args:
        y: (n,) true classes, from 0 to k - 1.
        probability: (n, k) probability of each class.
        class_names: the k names.

    Returns:
        accuracy, f1_macro, precision_macro, recall_macro, roc_auc_macro (one versus rest, over the
        classes that occur; None where only one does), log_loss, and `by_class`: for each name its
        precision, recall, f1 and support (0 where it does not occur).
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
    """Measures of predicted numbers, (n,) or (n, m): rmse and mae in the unit of y, and r2.

    r2 is None of a single row.
    """
    return {
        "rmse": float(root_mean_squared_error(y, predicted)),
        "mae": float(mean_absolute_error(y, predicted)),
        "r2": float(r2_score(y, predicted)) if len(np.asarray(y)) > 1 else None,
    }


def class_codes(labels: ArrayLike, classes: ArrayLike) -> NDArray[np.int64]:
    """(n,) the place of each label among `classes`: text or numbers as codes from 0.

    Raises:
        UserError: a label is none of these.
    """
    codes = {label: code for code, label in enumerate(np.asarray(classes).tolist())}
    found = np.asarray(labels).tolist()
    if unknown := [label for label in found if label not in codes]:
        known = ", ".join(map(str, codes))
        raise UserError(f"The class {unknown[0]!r} is not known: there are {known}.")
    return np.array([codes[label] for label in found], dtype=np.int64)
