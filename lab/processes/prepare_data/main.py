"""Fetches the raw data, checks them, and writes the splits that every training process reads.

It stands for a query to an external database, so DVC runs it each time (`always_changed`); where
the data are as before, what it writes is the same to the byte and DVC skips the rest.
"""

import logging
from pathlib import Path
from typing import Any

from lib.files import read_json, replaced_directory, replaced_file, write_json
from lib.params import Params
from lib.process import start
from lib.tracking import flat, run_tags

STAGE = "prepare_data"
logger = logging.getLogger(__name__)


def prepare(params: Params) -> None:
    """Write the raw frame, the splits with their scaler, and the splits' sizes."""
    import joblib

    from lab.processes.prepare_data.cancer_data import (
        describe_splits,
        load_cancer_data,
        prepare_cancer_data,
        validate_cancer_data,
    )
    from lib.splits import save_data_splits

    section, paths = params.prepare_data, params.paths
    frame = validate_cancer_data(load_cancer_data(), section.max_duplicated)
    splits, scaler = prepare_cancer_data(
        frame,
        test_size=section.test_size,
        validation_size=section.validation_size,
        random_seed=params.random_seed,
    )
    sizes = describe_splits(splits)
    with replaced_file(Path(paths.dir_raw) / "breast_cancer.csv") as file:
        frame.to_csv(file, index=False)
    with replaced_directory(paths.dir_processed) as folder:
        save_data_splits(splits, folder)
        joblib.dump(scaler, folder / "scaler.joblib")
    write_json(Path(paths.dir_metrics) / f"{STAGE}.json", sizes)
    for split, rows in sizes["rows"].items():
        share = sizes["malignant_share"][split]
        logger.info("%s: %d rows, %.1f%% malignant", split, rows, 100 * share)


def log(mlflow: Any, params: Params) -> None:
    """Log the splits' sizes; the data themselves are DVC's."""
    with mlflow.start_run(run_name=STAGE, tags=run_tags(STAGE)):
        mlflow.log_params({"random_seed": params.random_seed, **params.prepare_data.model_dump()})
        sizes = read_json(Path(params.paths.dir_metrics) / f"{STAGE}.json")
        mlflow.log_metrics(flat(sizes))


if __name__ == "__main__":
    start(prepare, log)
