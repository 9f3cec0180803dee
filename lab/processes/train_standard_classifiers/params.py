"""The parameters of train_standard_classifiers: its sections of params.yaml."""

from typing import Annotated

from pydantic import Field

from lib.params import Count, Positive, Real, Section, Seed

# Far beyond either end, the solver of a linear SVC never ends.
Inverse = Annotated[Real, Field(ge=1e-9, le=1e9)]


class LogisticRegression(Section):
    """C: the inverse of the strength of regularisation."""

    C: Inverse


class GaussianNaiveBayes(Section):
    """var_smoothing: the share of the largest variance that is added to each."""

    var_smoothing: Positive


class KNearestNeighbours(Section):
    """n_neighbors: how many rows vote."""

    n_neighbors: Count


class RandomForest(Section):
    """n_estimators trees, grown to max_depth, or until pure."""

    n_estimators: Count
    max_depth: Count | None


class LinearSVC(Section):
    """C: the inverse of the strength of regularisation."""

    C: Inverse


class Boosting(Section):
    """n_estimators rounds, each with this weight."""

    n_estimators: Count
    learning_rate: Positive


class TrainStandardClassifiers(Section):
    """The most rows that are held in memory; scikit-learn's own parameters, for each classifier."""

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
