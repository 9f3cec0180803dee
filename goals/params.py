"""The thresholds of the goals: their section of params.yaml, which no stage reads."""

from typing import Annotated

from pydantic import Field

from lib.params import Positive, Real, Section, Seed, Share


class Goals(Section):
    """The thresholds that results must reach."""

    accuracy: Share
    recall_malignant: Share
    brier_score: Share
    log_loss: Positive
    above_best_on_main: Annotated[Real, Field(ge=0)]
    shared_rows: Annotated[int, Field(ge=0)]
    noise: Share
    changed_by_noise: Annotated[Real, Field(ge=0, lt=1)]
    milliseconds_per_row: Positive
    megabytes: Positive


class Params(Section):
    """What goals read."""

    random_seed: Seed
    goals: Goals
