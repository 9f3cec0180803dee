"""Fetches the raw data, checks them, and writes the splits that every training process reads.

It stands for a query to an external database, so DVC runs it each time (`always_changed`); if the
data have not changed, it writes the same bytes and DVC skips the rest.
"""

import logging
from pathlib import Path

import joblib

from lab.processes.prepare_data.cancer_data import (
    column_types,
    describe_splits,
    load_cancer_data,
    prepare_cancer_data,
    valid_frames,
)
from lab.processes.prepare_data.params import Params
from lib.chunks import also_written, read_chunks
from lib.files import replaced_directory, replaced_file, write_json
from lib.preparation import Shares
from lib.process import start

RAW = Path("data/raw/breast_cancer.csv")
PROCESSED = Path("data/processed")
METRICS = Path("metrics/prepare_data.json")

logger = logging.getLogger(__name__)


def prepare(params: Params) -> None:
    """Write the raw rows, the splits with their scaler, and the splits' sizes."""
    section = params.prepare_data
    shares = Shares(
        section.test_size,
        section.validation_size,
        params.random_seed,
        hashed=section.split == "hashed",
    )
    with replaced_file(RAW) as raw, replaced_directory(PROCESSED) as folder:
        frames = valid_frames(
            read_chunks(load_cancer_data(), column_types(section.id_column)),
            folder,
            max_duplicated=section.max_duplicated,
            id_column=section.id_column,
        )
        kept = also_written(frames, raw, "csv")
        prepared = prepare_cancer_data(kept, folder, shares, section.id_column)
        joblib.dump(prepared.scaler, folder / "scaler.joblib")
    sizes = describe_splits(prepared)
    write_json(METRICS, sizes)
    for split, rows in sizes["rows"].items():
        share = sizes["malignant_share"][split]
        logger.info("%s: %d rows, %.1f%% malignant", split, rows, 100 * share)


if __name__ == "__main__":
    start(prepare, Params)
