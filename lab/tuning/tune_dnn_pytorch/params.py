"""The parameters of tune_dnn_pytorch: its section of params.yaml, and the one that it tunes."""

from typing import ClassVar

from lab.processes.train_dnn_pytorch.params import TrainDnnPytorch
from lib.params import Section, Seed
from lib.space import Tuning, space_of

# A trial has one thread and one worker, and runs to its end.
NOT_OF_A_TRIAL = ("num_threads", "checkpoint_every", "workers")


class TuneDnnPytorch(Tuning):
    """The settings of the sweep over the network's parameters."""

    budget: ClassVar[str] = "epochs"
    space: space_of(TrainDnnPytorch, NOT_OF_A_TRIAL)  # type: ignore[valid-type]


class Params(Section):
    """What this process reads."""

    random_seed: Seed
    train_dnn_pytorch: TrainDnnPytorch
    tune_dnn_pytorch: TuneDnnPytorch
