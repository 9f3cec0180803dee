"""Traditional classifiers, all trained on the same rows and measured by the same metrics."""

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
    """A linear SVC with probabilities: its margins calibrated by Platt's sigmoid in 5 folds."""
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
LEARNS_IN_PARTS = {"gaussian_naive_bayes"}  # by partial_fit, with the same result up to rounding
PART_ROWS = 2**16  # learnt, or predicted, at a time


@dataclass(frozen=True)
class Trained:
    """A fitted classifier and its predictions for the validation and test split."""

    name: str
    model: ClassifierMixin
    rows: int  # number of training rows
    validation: NDArray[np.float64]  # (n_val,) probability of class 1
    test: NDArray[np.float64]  # (n_test,)


def create_classifier(name: str, params: Mapping[str, Any], random_seed: int) -> ClassifierMixin:
    """An untrained classifier of this name, seeded if its training is random."""
    seed = {} if name in WITHOUT_SEED else {"random_state": random_seed}
    return CLASSIFIERS[name](**params, **seed)


def train_classifiers(
    splits: Splits,
    params: Mapping[str, Mapping[str, Any]],
    random_seed: int,
    max_rows: int | None = None,
) -> Iterator[Trained]:
    """Yields each classifier in `params` as soon as it is trained, in order.

    Threads share the rows and need no start-up. Their order does not affect results, as each
    classifier is seeded by itself. Linear algebra uses one thread in each, so that sums, and so the
    last bits of results, do not depend on the number of cores.

    Above `max_rows` training rows, that many are drawn, the same for all classifiers; only naive
    Bayes learns from all rows, in parts.

    Args:
        splits: standardised rows, which may be memory-mapped.
        params: for each classifier's name, scikit-learn's parameters.
        random_seed: of every classifier, and of the drawn rows.
        max_rows: the largest number to hold in memory, at least 1; None means all.

    Raises:
        UserError: a classifier fails with its parameters on these rows.
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
    """(n_drawn,) row numbers below n, sorted: one from each of n_drawn equal ranges."""
    edges = np.arange(n_drawn + 1) * n // n_drawn
    places = np.random.default_rng(random_seed).random(n_drawn) * np.diff(edges)
    return edges[:-1] + places.astype(np.int64)


def learn_in_parts(model: Any, splits: Splits) -> None:
    """Fit a classifier on all training rows, PART_ROWS at a time."""
    classes = np.arange(len(splits.class_names))
    for start in range(0, len(splits.y_train), PART_ROWS):
        rows = slice(start, start + PART_ROWS)
        model.partial_fit(splits.X_train[rows], splits.y_train[rows], classes=classes)


def refuse(name: str, params: Mapping[str, Any], why: object) -> NoReturn:
    """Raise a UserError with a classifier's parameters and the reason why it failed."""
    keys = ", ".join(f"{key} {value}" for key, value in params.items())
    reason = " ".join(str(why).split()) or type(why).__name__
    raise UserError(
        f"train_standard_classifiers.{name} ({keys}) cannot work with these data: {reason}"
    )


def positive(model: ClassifierMixin, X: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) probability of class 1 for (n, d) rows."""
    starts = range(0, len(X), PART_ROWS)
    parts = [model.predict_proba(X[start : start + PART_ROWS])[:, 1] for start in starts]
    return np.concatenate(parts).astype(np.float64)


def measure(trained: Trained, splits: Splits) -> dict[str, dict[str, Any]]:
    """The metrics of a classifier on the validation and test split."""
    return {
        "validation": classification_metrics(splits.y_val, trained.validation),
        "test": classification_metrics(splits.y_test, trained.test),
    }


def rows_learnt(trained: Iterable[Trained], n_rows: int) -> dict[str, dict[str, int]]:
    """By name, the number of training rows of each; empty if all learnt from all rows."""
    rows = {one.name: one.rows for one in trained}
    few = min(rows.values()) < n_rows
    return {name: {"trained_on_rows": n} for name, n in rows.items()} if few else {}


def best_classifier(metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The name with the highest validation accuracy; of equals, with the lowest log loss."""

    def rank(name: str) -> tuple[float, float]:
        validation = metrics[name]["validation"]
        return validation["accuracy"], -validation["log_loss"]

    return max(metrics, key=rank)
