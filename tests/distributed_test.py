"""One training on two workers, started by torchrun: this file is also the program that they run."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lib import loaders
from lib.distributed import ALONE, _SharedBatchNorm, is_first, joined, rank, wrap
from lib.errors import UserError
from lib.pytorch import accuracy, create_dataloader, seed_everything, train
from lib.repository import ROOT

EPOCHS = 40
KINDS = ("plain", "many rows", "convolution", "bfloat16", "frozen norm")


def compute(folder: Path, workers: int, kinds: Sequence[str]) -> None:
    """Train a small network of each kind, in a folder of that name."""
    with joined(workers, torch.device("cpu")):
        for kind in kinds:
            with pytest.MonkeyPatch.context() as patch:
                if kind == "many rows":  # more than a window
                    patch.setattr(loaders, "WINDOW_ROWS", 32)
                    patch.setattr(loaders, "RUN_ROWS", 4)
                train_one(folder / kind, kind)


def train_one(folder: Path, kind: str) -> None:
    """Train a small network and write its history.

    APART gives each worker its own folder for checkpoints, SEEDS its own seed.
    """
    rng = np.random.default_rng(1)
    X = rng.normal(size=(203, 6)).astype("float32")
    y = (X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=203) / 2 > 0).astype("int64")
    number = int(os.environ.get("RANK", "0"))
    checkpoints = folder / str(number) if "APART" in os.environ else folder
    seed_everything(int(os.environ.get("SEEDS", "3 3").split()[number]))
    torch.set_num_threads(1)
    # No bias before batch norm: its gradient is only rounding error, of which Adam makes steps.
    first = nn.Linear(6, 16, bias=False)
    network = nn.Sequential(first, nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    if kind == "convolution":
        first = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3, bias=False))
        last = (nn.Flatten(), nn.Linear(16, 1))
        network = nn.Sequential(first, nn.BatchNorm1d(4), nn.ReLU(), *last)
    if kind == "frozen norm":
        network[1].requires_grad_(False)
    epoch = 0

    def measured(outputs: torch.Tensor, found: torch.Tensor) -> float:
        nonlocal epoch
        if len(found) == 150:  # the training split, once per epoch
            epoch += 1
            stop(epoch)
        return accuracy(outputs, found)

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
        checkpoint=checkpoints / "checkpoint.pt",
        checkpoint_every=2,
        precision="bfloat16" if kind == "bfloat16" else "float32",
    )
    if is_first():
        rows = [record.row for record in history.records]
        folder.mkdir(exist_ok=True)
        (folder / "history.json").write_text(json.dumps(rows))
        torch.save(network.state_dict(), folder / "weights.pt")


def stop(epoch: int) -> None:
    """Kill or hold this worker, if a variable says so.

    KILLED is a worker's number, and the epoch since the start in which it is killed. HELD is a
    folder in which each worker leaves its process id before it waits.
    """
    if folder := os.environ.get("HELD"):
        (Path(folder) / f"{os.getpid()}.pid").touch()
        time.sleep(600)
    number, when = os.environ.get("KILLED", "- 0").split()
    if epoch == int(when) and number == str(rank()):
        os.kill(os.getpid(), signal.SIGKILL)


def start(folder: Path, *kinds: str, **variables: str) -> subprocess.Popen[str]:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    own = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "TMPDIR": str(folder.parent)}
    return subprocess.Popen(
        [sys.executable, *torchrun, "--local-addr", "localhost", __file__, str(folder), *kinds],
        env=os.environ | own | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, *kinds: str, ok: bool = True, **variables: str) -> str:
    process = start(folder, *kinds or KINDS[:1], **variables)
    output, _ = process.communicate(timeout=600)
    assert (process.returncode == 0) == ok, output
    return output


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The results of two undisturbed workers: a folder for each kind of training."""
    folder = tmp_path_factory.mktemp("two")
    run(folder, *KINDS)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_give_the_same_metrics_as_one(two, tmp_path, kind):
    compute(tmp_path, 1, [kind])
    one, both = (json.loads((f / kind / "history.json").read_text()) for f in (tmp_path, two))
    assert len(one) == len(both) == EPOCHS
    # Two digits are all that bfloat16 has.
    for row, other in zip(one, both, strict=True):
        assert other == pytest.approx(row, abs=0.1 if kind == "bfloat16" else 1e-3)
    norm = torch.load(two / kind / "weights.pt")["1.weight"]
    assert (norm == 1).all() == (kind == "frozen norm")


def test_training_after_a_killed_worker_ends_with_the_same_bits(two, tmp_path):
    run(tmp_path, ok=False, KILLED="0 6")
    assert "Training continues after epoch 4" in run(tmp_path, ok=False, KILLED="1 6")
    assert not (tmp_path / "plain/history.json").exists()
    assert "Training continues after epoch 8" in run(tmp_path)
    for name in ("history.json", "weights.pt"):
        assert (tmp_path / "plain" / name).read_bytes() == (two / "plain" / name).read_bytes()


def test_workers_without_a_shared_disk_use_the_first_ones_checkpoint(two, tmp_path):
    run(tmp_path, ok=False, KILLED="0 6", APART="yes")
    output = run(tmp_path, APART="yes")
    assert output.count("Training continues after epoch 4") == 2
    assert not (tmp_path / "plain/1").exists()
    for name in ("history.json", "weights.pt"):
        assert (tmp_path / "plain" / name).read_bytes() == (two / "plain" / name).read_bytes()


def test_workers_that_would_train_different_things_are_refused(tmp_path):
    output = run(tmp_path, ok=False, SEEDS="3 4")
    assert output.count("UserError: workers: of 2, 2 would train something else than 1: data,") == 2
    assert not (tmp_path / "plain/history.json").exists()


def test_workers_end_when_their_launcher_ends(tmp_path):
    launcher = start(tmp_path, "plain", HELD=str(tmp_path))
    deadline = time.monotonic() + 120
    while len([*tmp_path.glob("*.pid")]) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [int(file.stem) for file in tmp_path.glob("*.pid")]
    launcher.kill()
    try:
        assert len(workers) == 2
        launcher.communicate(timeout=60)  # returns when the last worker closes its output
    finally:
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 5)])
def test_a_shared_batch_norm_equals_torchs_own_for_rows_of_any_shape(shape):
    torch.manual_seed(3)
    norm, own, x = _SharedBatchNorm(3), nn.BatchNorm1d(3), torch.randn(shape) * 2 + 1
    found, expected = (each(x.requires_grad_()) for each in (norm, own))
    gradients = [torch.autograd.grad(y.pow(3).sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(norm.state_dict(), own.state_dict())


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(3),
        nn.BatchNorm1d(3, affine=False),
        nn.BatchNorm1d(3, track_running_stats=False),
    ],
)
def test_a_batch_norm_that_cannot_be_shared_is_refused(norm, monkeypatch):
    monkeypatch.setattr("lib.distributed.world_size", lambda: 2)
    with pytest.raises(UserError, match=r"workers: on the CPU, 0 \(BatchNorm.* cannot be shared"):
        wrap(nn.Sequential(norm), torch.device("cpu"))


@pytest.fixture
def among_two(monkeypatch):
    """Make this process one of two workers, without the other."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("lib.distributed._end_with", lambda _: None)
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *_: None)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed"
        ),
        torch.distributed.DistBackendError("NCCL communicator was aborted"),
    ],
)
def test_a_worker_that_lost_another_records_why_and_has_its_own_exit_code(
    error, among_two, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit) as ended, joined(2, torch.device("cpu")):
        raise error
    assert ended.value.code == ALONE
    assert str(error) in (tmp_path / "error.json").read_text()


def test_a_users_error_that_mentions_a_socket_stays_the_users_error(among_two):
    with pytest.raises(RuntimeError, match="database"), joined(2, torch.device("cpu")):
        raise RuntimeError("the database closed the socket")


def test_a_number_of_workers_other_than_in_params_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"workers is 2 in params\.yaml, and 1 started"):
        compute(tmp_path, 2, KINDS)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    compute(Path(sys.argv[1]), 2, sys.argv[2:])
