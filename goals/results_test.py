"""The goals that this project's results must reach before the work is done.

Each goal has a title, a reason, and a threshold in the section `goals` of params.yaml. `make goals`
judges the results on disk; the workflow judges each run. Both models must reach each goal.
"""

import time

import numpy as np


def test_accuracy(metrics, goals, reached):
    """Accuracy on the test split.

    Below this, a model does not help: its errors cost more time than it saves.
    """
    found = {model: measures["test"]["accuracy"] for model, measures in metrics.items()}
    reached(found, at_least=goals.accuracy)


def test_recall_on_malignant(metrics, goals, reached):
    """Recall on malignant, test split.

    A tumour that is overlooked is the worst error, far worse than one examined for nothing.
    """
    found = {model: measures["test"]["recall"] for model, measures in metrics.items()}
    reached(found, at_least=goals.recall_malignant)


def test_calibration(metrics, goals, reached):
    """Calibration (Brier score) on the test split.

    Physicians read the probability, not the class: 0.8 must mean eight in ten.
    """
    found = {model: measures["test"]["brier_score"] for model, measures in metrics.items()}
    reached(found, at_most=goals.brier_score)


def test_certainty(metrics, goals, reached):
    """Errors made with certainty (log loss), test split.

    One wrong answer given as certain misleads most, and neither accuracy nor Brier score shows it.
    """
    found = {model: measures["test"]["log_loss"] for model, measures in metrics.items()}
    reached(found, at_most=goals.log_loss)


def test_no_worse_than_main(metrics, goals, best_on_main, reached):
    """Log loss above the best that the same model had on main.

    An earlier result must not get worse unnoticed. Results on other splits do not count.
    """
    above = {
        model: metrics[model]["test"]["log_loss"] - best for model, best in best_on_main.items()
    }
    reached(above, at_most=goals.above_best_on_main)


def test_no_leakage(splits, goals, reached):
    """Rows that are in two splits.

    A model that is tested on what it was trained on looks better than it is.
    """
    train, validation, test = (
        {row.tobytes() for row in np.asarray(X)}
        for X in (splits.X_train, splits.X_val, splits.X_test)
    )
    shared = (train & validation) | (train & test) | (validation & test)
    reached({"": len(shared)}, at_most=goals.shared_rows)


def test_stability(models, features, goals, params, reached):
    """Share of biopsies whose class changes by small noise.

    Two measurements of one biopsy are never exactly equal, but must get the same answer.
    """
    spread = goals.noise * features.std(axis=0)
    noise = np.random.default_rng(params.random_seed).normal(0, spread, features.shape)
    changed = {
        model: float(np.mean(predict(features).argmax(1) != predict(features + noise).argmax(1)))
        for model, predict in models.items()
    }
    reached(changed, at_most=goals.changed_by_noise)


def test_time_per_row(models, features, goals, reached):
    """Time for one biopsy.

    The answer must come while the image is still on the screen. The median of all rows counts, so
    that a busy machine does not decide.
    """

    def milliseconds(predict):
        times = []
        for row in features:
            started = time.perf_counter()
            predict(row[None])
            times.append(time.perf_counter() - started)
        return float(np.median(times)) * 1000

    found = {model: milliseconds(predict) for model, predict in models.items()}
    reached(found, at_most=goals.milliseconds_per_row, unit="ms")


def test_size(model_files, goals, reached):
    """Size of a model's file.

    It is part of every release, and is loaded on small machines.
    """
    found = {model: file.stat().st_size / 1e6 for model, file in model_files.items()}
    reached(found, at_most=goals.megabytes, unit="MB")
