"""Metrics agree with their definitions."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    precision_score,
    recall_score,
    roc_auc_score,
)

from lib import metrics
from lib.errors import UserError
from lib.metrics import (
    class_codes,
    classification_metrics,
    confusion_counts,
    multiclass_metrics,
    regression_metrics,
)

pytestmark = pytest.mark.unittest


def test_they_agree_with_their_definitions():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 200), rng.uniform(0.01, 0.99, 200)
    found = classification_metrics(y, p)
    positive = p >= 0.5
    pairs = p[y == 1][:, None] - p[y == 0][None, :]
    expected = {
        "accuracy": np.mean(positive == y),
        "roc_auc": np.mean(pairs > 0),
        "precision": np.sum(positive & (y == 1)) / np.sum(positive),
        "recall": np.sum(positive & (y == 1)) / np.sum(y),
        "log_loss": -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)),
        "brier_score": np.mean((p - y) ** 2),
    }
    assert found == pytest.approx(expected)


def test_the_order_of_rows_changes_nothing():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 50), rng.uniform(size=50)
    order = rng.permutation(50)
    assert classification_metrics(y, p) == pytest.approx(classification_metrics(y[order], p[order]))


def test_a_model_without_positives_has_precision_zero_and_no_warning():
    found = classification_metrics([0, 1, 1], [0.1, 0.2, 0.3])
    assert (found["precision"], found["recall"]) == (0, 0)


def test_certainty_gives_finite_numbers():
    found = classification_metrics([0, 1], [1.0, 0.0])
    assert all(np.isfinite(value) for value in found.values())


NAMES = ("cat", "dog", "hen")


def test_multiclass_metrics_agree_with_their_definitions():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 3, 120), rng.dirichlet(np.ones(3), 120)
    found = multiclass_metrics(y, p, NAMES)
    predicted = p.argmax(axis=1)
    recalls = [np.mean(predicted[y == c] == c) for c in range(3)]
    precisions = [np.mean(y[predicted == c] == c) for c in range(3)]
    f1 = [2 * a * b / (a + b) for a, b in zip(precisions, recalls, strict=True)]
    areas = [np.mean(p[y == c, c][:, None] > p[y != c, c][None, :]) for c in range(3)]
    assert found["accuracy"] == pytest.approx(np.mean(predicted == y))
    assert found["f1_macro"] == pytest.approx(np.mean(f1))
    assert found["precision_macro"] == pytest.approx(np.mean(precisions))
    assert found["recall_macro"] == pytest.approx(np.mean(recalls))
    assert found["roc_auc_macro"] == pytest.approx(np.mean(areas))
    assert found["log_loss"] == pytest.approx(-np.mean(np.log(p[np.arange(len(y)), y])))
    assert found["by_class"]["hen"] == pytest.approx(
        {"precision": precisions[2], "recall": recalls[2], "f1": f1[2], "support": np.sum(y == 2)}
    )


def test_with_one_class_there_is_no_area_under_the_curve():
    assert classification_metrics([1, 1], [0.9, 0.4])["roc_auc"] is None
    assert classification_metrics([0, 1], [0.1, 0.4])["roc_auc"] == 1
    assert regression_metrics([1.0], [2.0]) == {"rmse": 1.0, "mae": 1.0, "r2": None}


def test_an_absent_class_does_not_affect_others():
    probability = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.7, 0.2, 0.1]]
    found = multiclass_metrics([0, 1, 0], probability, NAMES)
    assert (found["accuracy"], found["roc_auc_macro"]) == (1, 1)
    assert found["by_class"]["hen"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert multiclass_metrics([0], probability[:1], NAMES)["roc_auc_macro"] is None


def test_metrics_of_numbers_agree_with_their_definitions():
    y, found = np.array([1.0, 2.0, 6.0]), np.array([1.0, 4.0, 5.0])
    assert regression_metrics(y, found) == pytest.approx(
        {"rmse": np.sqrt(5 / 3), "mae": 1.0, "r2": 1 - 5 / 14}
    )


@pytest.mark.parametrize("classes", [("a", "b", "c"), (3, 5, 7), (False, True)])
def test_labels_of_any_kind_become_codes(classes):
    labels = np.array([classes[1], classes[0], classes[1]])
    assert class_codes(labels, classes).tolist() == [1, 0, 1]


def test_an_unknown_label_is_named():
    with pytest.raises(UserError, match="The class 'd' is not known: there are a, b"):
        class_codes(["a", "d"], ["a", "b"])


def test_metrics_in_parts_equal_those_of_all_rows(monkeypatch):
    rng = np.random.default_rng(0)
    y = (rng.random(1000) < 0.3).astype(int)
    probability = np.clip(0.3 * y + rng.random(1000) * 0.7, 0, 1).round(2)  # many are equal
    at_once = classification_metrics(y, probability)
    monkeypatch.setattr(metrics, "PART_ROWS", 64)
    assert classification_metrics(y, probability) == pytest.approx(at_once, rel=1e-12)
    assert at_once["accuracy"] == accuracy_score(y, probability >= 0.5)
    assert at_once["precision"] == precision_score(y, probability >= 0.5)
    assert at_once["recall"] == recall_score(y, probability >= 0.5)
    assert at_once["roc_auc"] == roc_auc_score(y, probability)


def test_confusion_counts_in_parts_equal_those_of_all(monkeypatch):
    monkeypatch.setattr(metrics, "PART_ROWS", 7)
    y, predicted = np.random.default_rng(0).integers(0, 3, (2, 100))
    assert np.array_equal(confusion_counts(y, predicted, 3), confusion_matrix(y, predicted))
