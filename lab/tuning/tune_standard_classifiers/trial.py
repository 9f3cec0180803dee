"""One trial: trains one of the classifiers with the given values."""

from collections.abc import Mapping
from typing import Any

from lab.processes.train_standard_classifiers.classifiers import train_classifiers
from lib.metrics import classification_metrics
from lib.nested import with_values
from lib.splits import Splits


def train_once(
    splits: Splits,
    values: Mapping[str, Any],
    _: int | None = None,
    *,
    fixed: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """The metrics of the validation split; the test split must not influence the choice.

    Args:
        splits: standardised rows.
        values: the classifier, and the suggested values of its parameters.
        fixed: parameters that are not searched: each classifier's, and `max_rows`.
        seed: of every trial.

    Raises:
        UserError: the classifier cannot be trained with these values.
    """
    name = values["classifier"]
    tried = {key: value for key, value in values.items() if key != "classifier"}
    params = {name: with_values(fixed, tried)[name]}
    (trained,) = train_classifiers(splits, params, seed, fixed.get("max_rows"))
    return {"validation": classification_metrics(splits.y_val, trained.validation)}
