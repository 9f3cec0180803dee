"""What a trial tries: one of the classifiers, with values for its parameters."""

from typing import Any

import optuna

from lib.params import Section
from lib.tuning import suggest


def ask(trial: optuna.Trial, space: Section) -> dict[str, Any]:
    """A classifier of those that have a space, and values for its parameters."""
    names = [name for name in type(space).model_fields if getattr(space, name)]
    name = trial.suggest_categorical("classifier", names)
    return {"classifier": name, **suggest(trial, getattr(space, name), f"{name}.")}
