"""Tunes the densely connected network: its learning rate, its sizes and more."""

from functools import partial
from pathlib import Path

from lab.tuning.tune_dnn_pytorch.params import NOT_OF_A_TRIAL, Params
from lab.tuning.tune_dnn_pytorch.trial import train_once
from lib.process import start
from lib.space import fixed
from lib.splits import load_data_splits
from lib.sweeps import show_live, write_sweep
from lib.tuning import fingerprint, suggest, tune

PROCESSED = Path("data/processed")
ARTIFACTS = Path("artifacts/tune/dnn_pytorch")
METRICS = Path("metrics/tune_dnn_pytorch.json")
TRIALS = Path(".checkpoints/tune_dnn_pytorch")  # not an out: it outlives a killed sweep


def sweep(params: Params) -> None:
    """Write the trials, their pictures and the best values."""
    settings, seed = params.tune_dnn_pytorch, params.random_seed
    splits = load_data_splits(PROCESSED)
    others = fixed(params.train_dnn_pytorch, settings.space, NOT_OF_A_TRIAL)
    found = tune(
        partial(suggest, space=settings.space),
        partial(train_once, fixed=others, seed=seed),
        splits,
        settings,
        seed=seed,
        origin=fingerprint(*splits, others, seed),
        folder=TRIALS,
        on_trial=show_live(settings),
    )
    write_sweep(found, ARTIFACTS, METRICS, seed=seed, tunes="train_dnn_pytorch")


if __name__ == "__main__":
    start(sweep, Params)
