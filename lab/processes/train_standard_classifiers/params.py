"""The parameters of train_standard_classifiers: its sections of params.yaml."""

from typing import Annotated

from pydantic import Field

from lib.params import Count, Positive, Real, Section, Seed

# Far beyond either limit, the solver of a linear SVC never ends.
Inverse = Annotated[Real, Field(ge=1e-9, le=1e9)]


class LogisticRegression(Section):
    """C: the inverse of the strength of regularisation."""

    C: Inverse


class GaussianNaiveBayes(Section):
    """var_smoothing: the share of the largest variance that is added to all variances."""

    var_smoothing: Positive


class KNearestNeighbours(Section):
    """n_neighbors: the number of rows that vote."""

    n_neighbors: Count


class RandomForest(Section):
    """n_estimators trees of at most max_depth; null grows them until leaves are pure."""

    n_estimators: Count
    max_depth: Count | None


class LinearSVC(Section):
    """C: the inverse of the strength of regularisation."""

    C: Inverse


class Boosting(Section):
    """n_estimators rounds, each weighted by learning_rate."""

    n_estimators: Count
    learning_rate: Positive


class TrainStandardClassifiers(Section):
    """The largest number of rows held in memory; for each classifier, scikit-learn's parameters."""

    max_rows: Annotated[int, Field(ge=100)]
    logistic_regression: LogisticRegression
    gaussian_naive_bayes: GaussianNaiveBayes
    k_nearest_neighbours: KNearestNeighbours
    random_forest: RandomForest
    linear_svc: LinearSVC
    gradient_boosting: Boosting
    ada_boost: Boosting


class Params(Section):
    """What this process reads."""

    random_seed: Seed
    train_standard_classifiers: TrainStandardClassifiers
