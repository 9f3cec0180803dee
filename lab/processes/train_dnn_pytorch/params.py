"""The parameters of train_dnn_pytorch: its sections of params.yaml."""

from typing import Annotated

from pydantic import Field

from lib.params import Count, Positive, Section, Seed


class TrainDnnPytorch(Section):
    """The network and its training."""

    hidden: Annotated[list[Count], Field(min_length=1)]
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]  # batch norm needs two rows
    lr: Positive
    patience: Count | None
    checkpoint_every: Count
    num_threads: Count


class Params(Section):
    """What this process reads."""

    random_seed: Seed
    train_dnn_pytorch: TrainDnnPytorch
