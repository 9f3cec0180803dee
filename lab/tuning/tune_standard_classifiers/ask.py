"""Suggests the values of a trial: one of the classifiers, and its parameters."""

from typing import Any

import optuna

from lib.params import Section
from lib.tuning import suggest


def ask(trial: optuna.Trial, space: Section) -> dict[str, Any]:
    """One of the classifiers that have a search space, and values for its parameters."""
    names = [name for name in type(space).model_fields if getattr(space, name)]
    name = trial.suggest_categorical("classifier", names)
    return {"classifier": name, **suggest(trial, getattr(space, name), f"{name}.")}
