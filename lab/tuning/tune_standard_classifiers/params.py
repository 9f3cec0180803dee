"""The parameters of tune_standard_classifiers: its section of params.yaml, and the one it tunes."""

from typing import Any

from pydantic import field_validator

from lab.processes.train_standard_classifiers.params import TrainStandardClassifiers
from lib.params import Section, Seed
from lib.space import Tuning, space_of


class TuneStandardClassifiers(Tuning):
    """The settings of the sweep over the classifiers."""

    space: space_of(TrainStandardClassifiers)  # type: ignore[valid-type]

    @field_validator("space")
    @classmethod
    def check_space(cls, space: Any) -> Any:
        """ValueError if it has a parameter that is not a classifier's."""
        if space.max_rows:
            raise ValueError("of classifiers; max_rows is none of them")
        return space


class Params(Section):
    """What this process reads."""

    random_seed: Seed
    train_standard_classifiers: TrainStandardClassifiers
    tune_standard_classifiers: TuneStandardClassifiers
