"""The parameters of tune_standard_classifiers: its sections of params.yaml, and those it tunes."""

from lab.processes.train_standard_classifiers.params import TrainStandardClassifiers
from lib.params import Section, Seed
from lib.space import Tuning, space_of


class TuneStandardClassifiers(Tuning):
    """Which classifiers are tuned, and how."""

    space: space_of(TrainStandardClassifiers)  # type: ignore[valid-type]


class Params(Section):
    """What this process reads."""

    random_seed: Seed
    train_standard_classifiers: TrainStandardClassifiers
    tune_standard_classifiers: TuneStandardClassifiers
