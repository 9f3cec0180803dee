"""How a process starts: what each `main.py` ends with.

    start(compute, log)             compute(params) writes files, log(mlflow, params) logs them
    start(compute, log, register)   register(mlflow, params, run_id) makes of them what stays
    lab/processes/run NAME --relog  only logs, from the files that an earlier run left

`compute` itself imports what it computes with (scikit-learn takes 1.9 s, torch 2 s): so a mistake
in params.yaml is told at once, mlflow (1.6 s) is imported at the same time in the process that
logs, and a relog imports neither.
"""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.params import Params, load_params
from lib.tracking import ROOT, Logger, Pipeline


def start(
    compute: Callable[[Params], None],
    log: Callable[[Any, Params], None],
    register: Callable[[Any, Params, str], None] | None = None,
) -> None:
    """Run a process whose `main.py` is the script being run.

    A user's mistake ends in its message and exit code 1; an MLflow that is away costs nothing but
    a warning (with `--relog`, exit code 1).
    """
    stage = Path(sys.argv[0]).resolve().parent.name
    parser = argparse.ArgumentParser(prog=f"lab/processes/run {stage}")
    parser.add_argument("--relog", action="store_true", help="log what an earlier run computed")
    relog = parser.parse_args().relog
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        params = load_params()
        if relog and (missing := missing_outs(stage)):
            raise UserError(f"not there: {', '.join(missing)}. `dvc pull` or `make run` brings it.")
        logger = Logger(stage, log, register, once=relog)
        if not relog:
            # Imports make many objects that stay: looking through them for garbage takes 0.4 s.
            gc.set_threshold(100_000)
            compute(params)
        logged = logger.finish()
    except UserError as error:
        sys.exit(f"{stage}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    # All is written. To take apart what scikit-learn and torch have imported takes up to a second.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0 if logged or not relog else 1)


def missing_outs(stage: str) -> list[str]:
    """What the stage wrote once and is not there to be logged."""
    return [path for path in Pipeline.read(stage).paths("outs") if not (ROOT / path).exists()]
