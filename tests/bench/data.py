"""One turn of the bench on data larger than memory; __main__.py starts it.

    python -m tests.bench.data make FOLDER MILLIONS
    python -m tests.bench.data drawn|hashed|in-memory SOURCE FOLDER
    python -m tests.bench.data train FOLDER

Each prints, as JSON, the seconds of the work and the peak memory of the process (MB). For training,
this is without the pages of the arrays' files, which the system can free.
"""

import json
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

MILLION = 1_000_000
SEED = 1


def make(folder: Path, millions: int) -> None:
    """Write rows like the example's data, with an id, as Parquet: one file for each million."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lab.processes.prepare_data.cancer_data import FEATURES, TARGET

    folder.mkdir(parents=True)
    for part in range(millions):
        random = np.random.default_rng(part)
        score = random.standard_normal(MILLION) * 1.5
        columns = {"id": np.arange(part * MILLION, (part + 1) * MILLION)}
        for n, (name, (_, high)) in enumerate(FEATURES.items()):
            z = random.standard_normal(MILLION)
            score += z if n < 5 else 0
            columns[name] = np.clip(high * 0.2 * (1 + 0.15 * z), 0, high)
        columns[TARGET] = (score > 0.7).astype(np.int64)
        pq.write_table(pa.table(columns), folder / f"part-{part:03}.parquet", compression="zstd")


def prepare(source: Path, folder: Path, hashed: bool) -> None:
    """Prepare the data as prepare_data does with files."""
    from lab.processes.prepare_data.cancer_data import (
        column_types,
        prepare_cancer_data,
        valid_frames,
    )
    from lib.chunks import read_chunks
    from lib.preparation import Shares

    frames = read_chunks(source, column_types("id"))
    valid = valid_frames(frames, folder, max_duplicated=0.01, id_column="id")
    prepare_cancer_data(valid, folder, Shares(0.15, 0.2, SEED, hashed), "id")


def prepare_in_memory(source: Path, folder: Path) -> None:
    """The same, in the usual way for data that fit into memory several times."""
    import pandas as pd
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    from lab.processes.prepare_data.cancer_data import FEATURES, SCHEMA, TARGET

    frame = pd.read_parquet(source).drop(columns="id")
    SCHEMA.validate(frame, lazy=True)
    assert frame.duplicated().mean() <= 0.01
    X, y = frame[list(FEATURES)].to_numpy(), frame[TARGET].to_numpy()
    rest, X_test, y_rest, y_test = train_test_split(
        X, y, test_size=0.15, stratify=y, random_state=SEED
    )
    X_train, X_val, y_train, y_val = train_test_split(
        rest, y_rest, test_size=0.2, stratify=y_rest, random_state=SEED
    )
    scaler = StandardScaler().fit(X_train)
    for name, rows, labels in (
        ("train", X_train, y_train),
        ("val", X_val, y_val),
        ("test", X_test, y_test),
    ):
        np.save(folder / f"X_{name}.npy", scaler.transform(rows).astype(np.float32))
        np.save(folder / f"y_{name}.npy", labels)


def train(folder: Path) -> None:
    """An epoch of the network, its metrics, tables and pictures."""
    import tempfile

    import torch

    from lab.processes.train_dnn_pytorch.densenet import train_densenet
    from lab.processes.train_dnn_pytorch.main import draw
    from lib.splits import load_data_splits

    torch.set_num_threads(1)
    splits = load_data_splits(folder)
    trained = train_densenet(
        splits,
        seed=SEED,
        hidden=[32],
        epochs=1,
        batch_size=1024,
        lr=0.001,
        patience=None,
        device=torch.device("cpu"),
    )
    with tempfile.TemporaryDirectory() as pictures:
        draw(Path(pictures), splits, trained)


@contextmanager
def own_memory() -> Iterator[list[float]]:
    """The peak of this process's own memory, in MB, measured every 10 ms."""
    most, done = [0.0], threading.Event()

    def measure() -> None:
        while not done.wait(0.01):
            status = Path("/proc/self/status").read_text()
            kilobytes = int(status.partition("RssAnon:")[2].split()[0])
            most[0] = max(most[0], kilobytes / 1000)

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def main() -> None:
    """Do what the arguments ask for."""
    what, *arguments = sys.argv[1:]
    started = time.perf_counter()
    if what == "make":
        make(Path(arguments[0]), int(arguments[1]))
        megabytes = 0.0
    elif what == "train":
        with own_memory() as most:
            train(Path(arguments[0]))
        megabytes = most[0]
    else:
        source, folder = map(Path, arguments)
        folder.mkdir()
        if what == "in-memory":
            prepare_in_memory(source, folder)
        else:
            prepare(source, folder, hashed=what == "hashed")
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"seconds": time.perf_counter() - started, "megabytes": megabytes}))


if __name__ == "__main__":
    main()
