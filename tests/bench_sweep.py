"""One turn of the bench on sweeps, in the environment of lab/tuning; tests/bench.py starts it.

    tools/within lab/tuning python -m tests.bench_sweep EPOCHS TRIALS WORKERS [warm]

Trains the example's network that often, for so many epochs, with learning rates that are tried, and
prints the seconds. WORKERS 0 is a plain loop over the same learning rates; `warm` leaves out how
long workers take to start.
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from lab.processes.train_dnn_pytorch.params import Params
from lab.tuning.tune_dnn_pytorch.trial import train_once
from lib.params import load_params
from lib.space import Tuning, space_of
from lib.splits import load_data_splits
from lib.tuning import fingerprint, suggest, tune

SEED = 1


def main() -> None:
    """The command that the module's docstring shows."""
    epochs, trials, workers = map(int, sys.argv[1:4])
    network = load_params(Params).train_dnn_pytorch
    others = network.model_dump() | {"epochs": epochs, "patience": None}
    once = partial(train_once, fixed=others, seed=SEED)
    space = space_of(type(network)).model_validate({"lr": {"log": [1e-4, 1e-2]}})
    splits = load_data_splits(Path("data/processed"))

    def sweep(n: int) -> list[float]:
        settings = {"objective": "validation.log_loss", "better": "smaller", "trials": n}
        with tempfile.TemporaryDirectory() as folder:
            found = tune(
                partial(suggest, space=space),
                once,
                splits,
                Tuning.model_validate(settings | {"batch": 10, "workers": workers or 1}),
                seed=SEED,
                origin=fingerprint(SEED),
                folder=Path(folder),
            )
        return [trial.values["lr"] for trial in found.trials]

    rates = sweep(trials) if not workers else []
    if sys.argv[4:]:
        sweep(workers)
    started = time.perf_counter()
    if workers:
        sweep(trials)
    for rate in rates:
        once(splits, {"lr": rate}, None)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    # By its name, so that workers import it.
    from tests import bench_sweep

    bench_sweep.main()
