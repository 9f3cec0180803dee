"""Traditional classifiers: one of each kind, trained on the same rows and measured alike."""

from collections.abc import Callable, Iterator, Mapping
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


@dataclass(frozen=True)
class Trained:
    """A fitted classifier and what it says of the rows that it has not seen."""

    name: str
    model: ClassifierMixin
    validation: NDArray[np.float64]  # (n_val,) probability of class 1
    test: NDArray[np.float64]  # (n_test,)


def create_classifier(name: str, params: Mapping[str, Any], random_seed: int) -> ClassifierMixin:
    """An untrained classifier of this name, seeded where its training is random."""
    seed = {} if name in WITHOUT_SEED else {"random_state": random_seed}
    return CLASSIFIERS[name](**params, **seed)


def train_classifiers(
    splits: Splits, params: Mapping[str, Mapping[str, Any]], random_seed: int
) -> Iterator[Trained]:
    """Each classifier of `params` as soon as it is trained, in their order.

    Threads share the rows and need no start-up; which of them is done first changes no number,
    since each classifier has the seed to itself. Linear algebra has one thread in each, so that
    its sums, and the last bits of the results, do not depend on the number of cores.

    Args:
        splits: standardised rows.
        params: for each classifier's name, scikit-learn's parameters.
        random_seed: of every classifier.

    Raises:
        UserError: a classifier cannot work with its parameters on these rows.
    """

    def train(name: str) -> Trained:
        model = create_classifier(name, params[name], random_seed)
        try:
            model.fit(splits.X_train, splits.y_train)
            unseen = [positive(model, X) for X in (splits.X_val, splits.X_test)]
        except (ValueError, ArithmeticError, MemoryError) as error:
            refuse(name, params[name], error)
        if not all(np.isfinite(probability).all() for probability in unseen):
            refuse(name, params[name], "its probabilities are not all numbers.")
        return Trained(name, model, *unseen)

    parallel = Parallel(n_jobs=-1, prefer="threads", return_as="generator")
    with threadpool_limits(1):
        yield from parallel(delayed(train)(name) for name in params)


def refuse(name: str, params: Mapping[str, Any], why: object) -> NoReturn:
    """UserError with the keys of a classifier's parameters, and why they do not do."""
    keys = ", ".join(f"{key} {value}" for key, value in params.items())
    reason = " ".join(str(why).split()) or type(why).__name__
    raise UserError(
        f"train_standard_classifiers.{name} ({keys}) cannot work with these data: {reason}"
    )


def positive(model: ClassifierMixin, X: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability of class 1 for each row: (n, d) to (n,)."""
    return model.predict_proba(X)[:, 1].astype(np.float64)


def measure(trained: Trained, splits: Splits) -> dict[str, dict[str, float]]:
    """The metrics of one classifier on both splits that it has not seen."""
    return {
        "validation": classification_metrics(splits.y_val, trained.validation),
        "test": classification_metrics(splits.y_test, trained.test),
    }


def best_classifier(metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The name with the highest validation accuracy; of equal ones, with the lowest log loss."""

    def rank(name: str) -> tuple[float, float]:
        validation = metrics[name]["validation"]
        return validation["accuracy"], -validation["log_loss"]

    return max(metrics, key=rank)
