"""Tunes the choice of a classifier of scikit-learn, and its parameters."""

from functools import partial
from pathlib import Path

from lab.tuning.tune_standard_classifiers.ask import ask
from lab.tuning.tune_standard_classifiers.params import Params
from lab.tuning.tune_standard_classifiers.trial import train_once
from lib.process import start
from lib.space import fixed
from lib.splits import load_data_splits
from lib.sweeps import show_live, write_sweep
from lib.tuning import fingerprint, tune

PROCESSED = Path("data/processed")
ARTIFACTS = Path("artifacts/tune/standard_classifiers")
METRICS = Path("metrics/tune_standard_classifiers.json")
TRIALS = Path(".checkpoints/tune_standard_classifiers")  # not an out: it outlives a killed sweep


def sweep(params: Params) -> None:
    """Write the trials, their pictures and the best values."""
    settings, seed = params.tune_standard_classifiers, params.random_seed
    splits = load_data_splits(PROCESSED)
    others = fixed(params.train_standard_classifiers, settings.space)
    found = tune(
        partial(ask, space=settings.space),
        partial(train_once, fixed=others, seed=seed),
        splits,
        settings,
        seed=seed,
        origin=fingerprint(*splits, others, seed),
        folder=TRIALS,
        on_trial=show_live(settings),
    )
    write_sweep(found, ARTIFACTS, METRICS, seed=seed, tunes="train_standard_classifiers")


if __name__ == "__main__":
    start(sweep, Params)
