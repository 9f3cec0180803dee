"""One training on several workers, each with its share of every batch.

A process whose parameters say how many workers it wants begins with `started_workers`, and trains
within `joined`. `lib.pytorch` does the rest: it is torch's own DistributedDataParallel. On one
computer the workers are started here; on a cluster its scheduler does it (`srun torchrun …`).

With one worker nothing here does anything.
"""

import copy
import logging
import os
import re
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

from lib.errors import UserError

ALONE = 86  # the exit code of a worker that lost another one: not the cause of anything
LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|socket", re.IGNORECASE)


def world_size() -> int:
    """How many workers there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this worker, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the worker that writes."""
    return rank() == 0


# ---- workers


def started_workers(count: int, parameter: str) -> bool:
    """Whether this process has started workers, which have done its work; False in a worker.

    Args:
        count: how many there are to be.
        parameter: where that is said; the message of the error names it.

    Raises:
        UserError: a worker failed or was killed; or others than `count` were started by a
            scheduler, whose results would be called those of `count`.
    """
    if "WORLD_SIZE" in os.environ:
        if os.environ["WORLD_SIZE"] != str(count):
            raise UserError(
                f"{parameter} is {count}, and {os.environ['WORLD_SIZE']} workers were started: "
                "results depend on the number, so both must be the same."
            )
        return False
    if count == 1:
        return False
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # we tell what happened
    with tempfile.TemporaryDirectory() as folder:
        # The first one is seen as if it were alone; what the others say is shown if they fail.
        aside = dict.fromkeys(range(1, count), Std.ALL)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=aside),
        )
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback())
        try:
            elastic_launch(config, sys.executable)("-u", *sys.argv)
        except ChildFailedError as error:
            codes = {number: each.exitcode for number, each in error.failures.items()}
            raise_for(codes, Path(folder), count)
    return True


def loopback() -> str:
    """The name of the network interface of this computer alone; the name of the host tells none."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


def raise_for(codes: dict[int, int], logs: Path, count: int) -> None:
    """End with the cause: a worker that was killed, else the first that failed by itself."""
    for number, code in codes.items():
        if code < 0 and code != -signal.SIGTERM:  # which is how the others are ended
            why = " Most often the machine was out of memory." if code == -signal.SIGKILL else ""
            raise UserError(
                f"worker {number + 1} of {count} was killed ({signal.Signals(-code).name}).{why} "
                "Start it again: it goes on from its last checkpoint."
            )
    causes = [n for n, code in codes.items() if code not in (ALONE, -signal.SIGTERM)]
    if causes and min(causes) > 0:
        said = "".join(file.read_text("utf-8", "replace") for file in own_log(logs, min(causes)))
        print(said.rstrip("\n"), file=sys.stderr)
    sys.exit(1)


def own_log(logs: Path, number: int) -> Iterator[Path]:
    """What a worker wrote to stderr."""
    return logs.glob(f"**/{number}/stderr.log")


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Within this, the workers that were started know of each other."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    except BaseException as error:
        # The others wait for this one: they must see that it is gone.
        if distributed.group.WORLD:
            distributed.group.WORLD.abort()
        if isinstance(error, RuntimeError) and LOST.search(str(error)):
            sys.exit(ALONE)
        raise
    distributed.destroy_process_group()


# ---- what they share


def shared(network: nn.Module, device: torch.device) -> nn.Module:
    """The network as all workers train it together; alone, the network itself.

    Means and variances of batch norm are those of the whole batch, as with one worker.
    """
    if world_size() == 1:
        return network
    if device.type == "cuda":
        twin: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
        return DistributedDataParallel(twin, device_ids=[device.index])
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if type(module) is nn.BatchNorm1d:
            module.__class__ = _SharedBatchNorm
    return DistributedDataParallel(twin)


def own(network: nn.Module) -> nn.Module:
    """What `shared` has made, without what lets workers share it."""
    return network.module if isinstance(network, DistributedDataParallel) else network


class _Sum(torch.autograd.Function):
    """The sum over all workers, through which gradients flow back to all of them."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        return summed(tensor)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return summed(gradient)


class _SharedBatchNorm(nn.BatchNorm1d):
    """Batch norm over the rows of all workers, on the CPU; torch's own is for graphics cards."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) of this worker's rows to the same, as `nn.BatchNorm1d` of all rows."""
        if not self.training:
            return super().forward(x)
        n = summed(torch.tensor(float(len(x))))
        mean = _Sum.apply(x.sum(0)) / n
        variance = _Sum.apply((x - mean).square().sum(0)) / n
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        return (x - mean) / (variance + self.eps).sqrt() * self.weight + self.bias


def share_of_mean(y: Tensor) -> Tensor | float:
    """By what a mean over this worker's rows counts, so that DDP's mean is that of all rows."""
    if world_size() == 1:
        return 1.0
    return len(y) * world_size() / summed(torch.tensor(float(len(y)), device=y.device))


def summed(tensor: Tensor) -> Tensor:
    """The sum over all workers."""
    if world_size() > 1:
        tensor = tensor.clone()
        distributed.all_reduce(tensor)
    return tensor


def gathered(tensor: Tensor) -> Tensor:
    """The rows of all workers, the first worker's first."""
    if world_size() == 1:
        return tensor
    parts: list[Any] = [None] * world_size()
    distributed.all_gather_object(parts, tensor.cpu())
    return torch.cat(parts).to(tensor.device)


def seed_epoch(seed: int, epoch: int) -> None:
    """Have each worker draw numbers of its own (dropout), the same ones in a resumed training."""
    if world_size() > 1:
        torch.manual_seed((seed * 1_000_003 + epoch) * world_size() + rank())
