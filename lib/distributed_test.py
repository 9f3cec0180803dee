"""One training on two workers of this machine: this file is also the program that they run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lib.distributed import is_first, joined, rank, started_workers
from lib.errors import UserError
from lib.pytorch import accuracy, create_dataloader, seed_everything, train
from lib.repository import ROOT

EPOCHS = 12


def compute(folder: Path, workers: int) -> None:
    """Train a small network and write its history; what EVENT says happens in one worker."""
    if started_workers(workers, "train.workers"):
        return
    rng = np.random.default_rng(1)
    X = rng.normal(size=(203, 6)).astype("float32")
    y = (X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=203) / 2 > 0).astype("int64")
    seed_everything(3)
    torch.set_num_threads(1)
    # No bias before batch norm: its gradient is nothing but rounding, which Adam makes steps of.
    first = nn.Linear(6, 16, bias=False)
    network = nn.Sequential(first, nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    epoch = 0

    def measured(outputs: torch.Tensor, found: torch.Tensor) -> float:
        nonlocal epoch
        if len(found) == 150:  # before the validation split is measured, the training split is
            epoch += 1
            happens(epoch)
        return accuracy(outputs, found)

    with joined(torch.device("cpu")):
        history = train(
            network,
            create_dataloader(X[:150], y[:150], 16, shuffle=True, seed=3),
            create_dataloader(X[150:], y[150:], 16, shuffle=False, seed=3),
            loss=nn.BCEWithLogitsLoss(),
            metrics={"accuracy": measured},
            lr=0.01,
            epochs=EPOCHS,
            patience=None,
            device=torch.device("cpu"),
            checkpoint=folder / "checkpoint.pt",
            checkpoint_every=2,
        )
        if is_first():
            rows = [record.row for record in history.records]
            (folder / "history.json").write_text(json.dumps(rows))
            torch.save(network.state_dict(), folder / "weights.pt")


def happens(epoch: int) -> None:
    """EVENT is a worker's number, an epoch since the start, and what happens to it in that."""
    number, when, what = os.environ.get("EVENT", "- 0 nothing").split()
    if epoch != int(when) or number not in (str(rank()), "all"):
        return
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise UserError("train: rows are missing.")


def run(folder: Path, ok: bool = True, workers: int = 2, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, __file__, str(folder), str(workers)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode == 0) == ok, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two workers give that nothing happens to."""
    folder = tmp_path_factory.mktemp("two")
    run(folder)
    return folder


def test_two_workers_give_the_metrics_of_one(two, tmp_path):
    compute(tmp_path, 1)
    one, both = (json.loads((f / "history.json").read_text()) for f in (tmp_path, two))
    assert len(one) == len(both) == EPOCHS
    for row, other in zip(one, both, strict=True):
        assert other == pytest.approx(row, abs=1e-3)


def test_a_worker_that_is_killed_is_told_and_the_rest_is_trained_next_time(two, tmp_path):
    for number, epoch, begins in ((0, 6, ""), (1, 6, "Training continues after epoch 4")):
        said = run(tmp_path, ok=False, EVENT=f"{number} {epoch} killed")
        assert begins in said
        assert said.splitlines()[-1] == (
            f"worker {number + 1} of 2 was killed (SIGKILL). Most often the machine was out of "
            "memory. Start it again: it goes on from its last checkpoint."
        )
        assert "Traceback" not in said
        assert not (tmp_path / "history.json").exists()
    assert "Training continues after epoch 8" in run(tmp_path)
    for name in ("history.json", "weights.pt"):
        assert (tmp_path / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize("number", ["1", "all"])
def test_a_mistake_is_told_once(tmp_path, number):
    said = run(tmp_path, ok=False, EVENT=f"{number} 1 mistaken")
    assert said == "train: rows are missing.\n"


def test_another_number_of_workers_than_the_parameters_say_is_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match=r"train\.workers is 2, and 4 workers were started"):
        started_workers(2, "train.workers")


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        compute(Path(sys.argv[1]), int(sys.argv[2]))
    except UserError as error:
        sys.exit(str(error))
