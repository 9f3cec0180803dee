"""One turn of the bench on sweeps, in the environment of lab/tuning; __main__.py starts it.

    tools/within lab/tuning python -m tests.bench.sweep EPOCHS TRIALS WORKERS [warm]

Trains the example's network TRIALS times, for EPOCHS epochs, with different learning rates, and
prints the seconds. WORKERS 0 is a plain loop over as many learning rates. Both import what the
first training needs (torch's compiler, 2 s); `warm` leaves out the time that workers take to start.
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from lab.processes.train_dnn_pytorch.params import Params
from lab.tuning.tune_dnn_pytorch.params import NOT_OF_A_TRIAL
from lab.tuning.tune_dnn_pytorch.trial import train_once
from lib.params import load_params
from lib.space import Tuning, space_of
from lib.splits import load_data_splits
from lib.tuning import fingerprint, suggest, tune

SEED = 1


def main() -> None:
    """Measure as the command line says."""
    epochs, trials, workers = map(int, sys.argv[1:4])
    network = load_params(Params).train_dnn_pytorch
    others = network.model_dump(exclude=set(NOT_OF_A_TRIAL)) | {"epochs": epochs, "patience": None}
    once = partial(train_once, fixed=others, seed=SEED)
    space = space_of(type(network)).model_validate({"lr": {"log": [1e-4, 1e-2]}})
    splits = load_data_splits(Path("data/processed"))

    def loop(n: int) -> None:
        for rate in np.geomspace(1e-4, 1e-2, n):
            once(splits, {"lr": float(rate)}, None)

    def sweep(n: int) -> None:
        settings = {"objective": "validation.log_loss", "better": "smaller", "trials": n}
        with tempfile.TemporaryDirectory() as folder:
            tune(
                partial(suggest, space=space),
                once,
                splits,
                Tuning.model_validate(settings | {"batch": 10, "workers": workers or 1}),
                seed=SEED,
                origin=fingerprint(SEED),
                folder=Path(folder),
            )

    run = sweep if workers else loop
    if sys.argv[4:]:
        run(workers or 1)
    started = time.perf_counter()
    run(trials)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    # Imported by name, so that workers can import it.
    from tests.bench import sweep

    sweep.main()
