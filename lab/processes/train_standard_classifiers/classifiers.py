"""Traditional classifiers: one of each kind, trained on the same rows and measured alike."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier, GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from lib.errors import UserError
from lib.metrics import classification_metrics
from lib.splits import Splits


def calibrated_linear_svc(**params: Any) -> CalibratedClassifierCV:
    """A linear SVC with probabilities: its margins calibrated by Platt's sigmoid, in 5 folds."""
    return CalibratedClassifierCV(LinearSVC(**params), ensemble=False)


CLASSIFIERS: dict[str, Callable[..., ClassifierMixin]] = {
    "logistic_regression": LogisticRegression,
    "gaussian_naive_bayes": GaussianNB,
    "k_nearest_neighbours": KNeighborsClassifier,
    "random_forest": RandomForestClassifier,
    "linear_svc": calibrated_linear_svc,
    "gradient_boosting": GradientBoostingClassifier,
    "ada_boost": AdaBoostClassifier,
}
WITHOUT_SEED = {"gaussian_naive_bayes", "k_nearest_neighbours"}
LEARNS_IN_PARTS = {"gaussian_naive_bayes"}  # by partial_fit, to the same but for rounding
PART_ROWS = 2**16  # that are learnt, or predicted, at a time


@dataclass(frozen=True)
class Trained:
    """A fitted classifier and what it says of the rows that it has not seen."""

    name: str
    model: ClassifierMixin
    rows: int  # that it learnt from
    validation: NDArray[np.float64]  # (n_val,) probability of class 1
    test: NDArray[np.float64]  # (n_test,)


def create_classifier(name: str, params: Mapping[str, Any], random_seed: int) -> ClassifierMixin:
    """An untrained classifier of this name, seeded where its training is random."""
    seed = {} if name in WITHOUT_SEED else {"random_state": random_seed}
    return CLASSIFIERS[name](**params, **seed)


def train_classifiers(
    splits: Splits,
    params: Mapping[str, Mapping[str, Any]],
    random_seed: int,
    max_rows: int | None = None,
) -> Iterator[Trained]:
    """Each classifier of `params` as soon as it is trained, in their order.

    Threads share the rows and need no start-up; which of them is done first changes no number,
    since each classifier has the seed to itself. Linear algebra has one thread in each, so that
    its sums, and the last bits of the results, do not depend on the number of cores.

    Of more training rows than `max_rows`, so many are drawn, the same for each classifier; naive
    Bayes alone learns from all of them, in parts.

    Args:
        splits: standardised rows, which may be memory-mapped.
        params: for each classifier's name, scikit-learn's parameters.
        random_seed: of every classifier, and of the rows that are drawn.
        max_rows: to be held in memory, at least 1; None is all.

    Raises:
        UserError: a classifier cannot work with its parameters on these rows.
    """
    X, y = splits.X_train, splits.y_train
    max_rows = max_rows or len(y)
    if few := len(y) > max_rows:
        drawn = draw_rows(len(y), max_rows, random_seed)
        X, y = X[drawn], y[drawn]

    def train(name: str) -> Trained:
        model = create_classifier(name, params[name], random_seed)
        in_parts = few and name in LEARNS_IN_PARTS
        try:
            if in_parts:
                learn_in_parts(model, splits)
            else:
                model.fit(X, y)
            unseen = [positive(model, X) for X in (splits.X_val, splits.X_test)]
        except (ValueError, ArithmeticError, MemoryError) as error:
            refuse(name, params[name], error)
        if not all(np.isfinite(probability).all() for probability in unseen):
            refuse(name, params[name], "its probabilities are not all numbers.")
        return Trained(name, model, len(splits.y_train) if in_parts else len(y), *unseen)

    parallel = Parallel(n_jobs=-1, prefer="threads", return_as="generator")
    with threadpool_limits(1):
        yield from parallel(delayed(train)(name) for name in params)


def draw_rows(n: int, n_drawn: int, random_seed: int) -> NDArray[np.int64]:
    """(n_drawn,) numbers of n rows, in order: one from each of so many equal stretches."""
    edges = np.arange(n_drawn + 1) * n // n_drawn
    places = np.random.default_rng(random_seed).random(n_drawn) * np.diff(edges)
    return edges[:-1] + places.astype(np.int64)


def learn_in_parts(model: Any, splits: Splits) -> None:
    """Fit a classifier on all training rows, some at a time."""
    classes = np.arange(len(splits.class_names))
    for start in range(0, len(splits.y_train), PART_ROWS):
        rows = slice(start, start + PART_ROWS)
        model.partial_fit(splits.X_train[rows], splits.y_train[rows], classes=classes)


def refuse(name: str, params: Mapping[str, Any], why: object) -> NoReturn:
    """UserError with the keys of a classifier's parameters, and why they do not do."""
    keys = ", ".join(f"{key} {value}" for key, value in params.items())
    reason = " ".join(str(why).split()) or type(why).__name__
    raise UserError(
        f"train_standard_classifiers.{name} ({keys}) cannot work with these data: {reason}"
    )


def positive(model: ClassifierMixin, X: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability of class 1 for each row: (n, d) to (n,)."""
    starts = range(0, len(X), PART_ROWS)
    parts = [model.predict_proba(X[start : start + PART_ROWS])[:, 1] for start in starts]
    return np.concatenate(parts).astype(np.float64)


def measure(trained: Trained, splits: Splits) -> dict[str, dict[str, Any]]:
    """The metrics of one classifier on both splits that it has not seen."""
    return {
        "validation": classification_metrics(splits.y_val, trained.validation),
        "test": classification_metrics(splits.y_test, trained.test),
    }


def rows_learnt(trained: Iterable[Trained], n_rows: int) -> dict[str, dict[str, int]]:
    """By name, from how many rows each learnt; empty where all learnt from all of them."""
    rows = {one.name: one.rows for one in trained}
    few = min(rows.values()) < n_rows
    return {name: {"trained_on_rows": n} for name, n in rows.items()} if few else {}


def best_classifier(metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The name with the highest validation accuracy; of equal ones, with the lowest log loss."""

    def rank(name: str) -> tuple[float, float]:
        validation = metrics[name]["validation"]
        return validation["accuracy"], -validation["log_loss"]

    return max(metrics, key=rank)
