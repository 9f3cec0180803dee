"""Fetches the raw data, checks them, and writes the splits that every training process reads.

It stands for a query to an external database, so DVC runs it each time (`always_changed`); where
the data are as before, what it writes is the same to the byte and DVC skips the rest.
"""

import logging
from pathlib import Path

import joblib

from lab.processes.prepare_data.cancer_data import (
    describe_splits,
    load_cancer_data,
    prepare_cancer_data,
    validate_cancer_data,
)
from lab.processes.prepare_data.params import Params
from lib.files import replaced_directory, replaced_file, write_json
from lib.process import start
from lib.splits import save_data_splits

RAW = Path("data/raw/breast_cancer.csv")
PROCESSED = Path("data/processed")
METRICS = Path("metrics/prepare_data.json")

logger = logging.getLogger(__name__)


def prepare(params: Params) -> None:
    """Write the raw frame, the splits with their scaler, and the splits' sizes."""
    section = params.prepare_data
    frame = validate_cancer_data(load_cancer_data(), section.max_duplicated)
    splits, scaler = prepare_cancer_data(
        frame,
        test_size=section.test_size,
        validation_size=section.validation_size,
        random_seed=params.random_seed,
    )
    sizes = describe_splits(splits)
    with replaced_file(RAW) as file:
        frame.to_csv(file, index=False)
    with replaced_directory(PROCESSED) as folder:
        save_data_splits(splits, folder)
        joblib.dump(scaler, folder / "scaler.joblib")
    write_json(METRICS, sizes)
    for split, rows in sizes["rows"].items():
        share = sizes["malignant_share"][split]
        logger.info("%s: %d rows, %.1f%% malignant", split, rows, 100 * share)


if __name__ == "__main__":
    start(prepare, Params)
