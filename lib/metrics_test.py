"""Metrics agree with their definitions."""

import numpy as np
import pytest

from lib.metrics import classification_metrics

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


def test_a_model_that_never_says_positive_has_precision_zero_and_no_warning():
    found = classification_metrics([0, 1, 1], [0.1, 0.2, 0.3])
    assert (found["precision"], found["recall"]) == (0, 0)


def test_certainty_gives_finite_numbers():
    found = classification_metrics([0, 1], [1.0, 0.0])
    assert all(np.isfinite(value) for value in found.values())
