"""Data larger than a process's memory limit can be prepared and trained on.

The limit is Linux's RLIMIT_DATA: on what a process has allocated, used or not. Memory-mapped files
do not count: the system frees their pages when it needs memory.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.chunks import Duplicates, read_chunks
from lib.preparation import Chunk, Shares, write_splits
from lib.repository import ROOT
from lib.splits import load_data_splits

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce the limit"),
]


NAMES = [f"feature {n}" for n in range(30)]
FEW, MANY = 100_000, 800_000  # rows: of one file, and of eight


def make(folder: Path, rows: int) -> None:
    """Parquet files of random rows; the first feature decides the class."""
    folder.mkdir(parents=True)
    for part in range(rows // FEW):
        columns = np.random.default_rng(part).random((len(NAMES), FEW))
        table = dict(zip(NAMES, columns, strict=True)) | {"y": (columns[0] > 0.5).astype(np.int64)}
        pq.write_table(pa.table(table), folder / f"{part}.parquet", use_dictionary=False)


def prepare(folder: Path) -> None:
    """Look for repeated rows, split, standardise, write."""
    duplicates = Duplicates(folder)

    def chunks():
        for frame in read_chunks(folder / "raw"):
            duplicates.add(frame)
            yield Chunk(frame[NAMES].to_numpy(), frame["y"].to_numpy())

    write_splits(chunks(), folder, Shares(0.15, 0.2, random_seed=0), NAMES, ["no", "yes"])
    assert duplicates.count() == (0, None)


def train(folder: Path) -> None:
    """Train a small network for an epoch, and check it on the validation split."""
    import torch

    from lib.metrics import classification_metrics
    from lib.pytorch import accuracy, create_dataloader, predict_probability
    from lib.pytorch import train as train_network

    splits = load_data_splits(folder)
    network = torch.nn.Sequential(torch.nn.Linear(len(NAMES), 1))
    train_network(
        network,
        create_dataloader(splits.X_train, splits.y_train, 4096, shuffle=True, seed=0),
        create_dataloader(splits.X_val, splits.y_val, 4096, shuffle=False, seed=0),
        loss=torch.nn.BCEWithLogitsLoss(),
        metrics={"accuracy": accuracy},
        lr=0.1,
        epochs=1,
        patience=None,
        device=torch.device("cpu"),
    )
    probability = predict_probability(network, splits.X_val)
    assert classification_metrics(splits.y_val, probability)["accuracy"] > 0.9


AT_ONCE = {
    "prepare": lambda folder: pd.read_parquet(folder / "raw"),
    "train": lambda folder: np.load(folder / "X_train.npy"),
}


def limited(name: str, folder: str, megabytes: str) -> None:
    """Do the work on many rows with `megabytes` more than is allocated after the work on few.

    By then, packages are imported and threads have their stacks.
    """
    few, many = Path(folder) / "few", Path(folder) / "many"
    globals()[name](few)
    _, _, size = Path("/proc/self/status").read_text().partition("VmData:")
    limit = int(size.split()[0]) * 1024 + int(float(megabytes) * 1e6)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    globals()[name](many)
    with pytest.raises(MemoryError):
        AT_ONCE[name](many)


def run_limited(name: str, folder: Path, megabytes: float) -> None:
    """Run `limited` in a process of its own."""
    call = "import sys; from tests.memory_test import limited; limited(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", call, name, str(folder), str(megabytes)],
        cwd=ROOT,
        # Arrow's default allocator reserves a gigabyte in advance.
        env=os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_tables_and_arrays_larger_than_memory_are_processed(tmp_path):
    for folder, rows in (("few", FEW), ("many", MANY)):
        make(tmp_path / folder / "raw", rows)
    run_limited("prepare", tmp_path, 0.75 * MANY * (len(NAMES) + 1) * 8 / 1e6)
    X = load_data_splits(tmp_path / "many").X_train
    assert X.shape == (MANY * 0.85 * 0.8, len(NAMES))
    run_limited("train", tmp_path, 0.75 * X.nbytes / 1e6)
