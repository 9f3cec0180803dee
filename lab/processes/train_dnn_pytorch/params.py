"""The parameters of train_dnn_pytorch: its sections of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from lib.params import Count, Positive, Section, Seed

# More than any machine has; torch accepts any number, and then crashes or overflows.
Units = Annotated[int, Field(ge=1, le=10**9)]
AtOnce = Annotated[int, Field(ge=1, le=1024)]


class TrainDnnPytorch(Section):
    """The network and its training."""

    hidden: Annotated[list[Units], Field(min_length=1)]
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]  # batch norm needs two rows
    lr: Positive
    patience: Count | None
    checkpoint_every: Count
    num_threads: AtOnce
    workers: AtOnce
    precision: Literal["float32", "bfloat16"]
    accumulate: Count


class Params(Section):
    """What this process reads."""

    random_seed: Seed
    train_dnn_pytorch: TrainDnnPytorch
