"""One training on several workers, each with its share of every batch.

A process trains within `joined`, and lets only the first worker write. `lib.pytorch` does the rest,
with torch's own DistributedDataParallel. `lab/processes/run` starts the workers, as many as the
process's section of params.yaml says; on a cluster its scheduler does (`srun torchrun …`).

With one worker nothing here does anything.
"""

import copy
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lib.errors import UserError

Value = TypeVar("Value")

ALONE = 86  # the exit code of a worker that has lost another one: not the cause of anything


def world_size() -> int:
    """How many workers there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this worker, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the worker that writes."""
    return rank() == 0


@contextmanager
def joined(workers: int, device: torch.device) -> Iterator[None]:
    """Within this, the workers that were started know of each other.

    Args:
        workers: how many there are to be.
        device: where this one computes.

    Raises:
        UserError: another number was started, whose results would be called those of this one.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != workers:
        raise UserError(
            f"workers is {workers} in params.yaml, and {started} started. Results depend on the "
            "number, so both must be the same: `lab/processes/run` starts as many as it says."
        )
    if workers == 1:
        yield
        return
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    except BaseException as error:
        # The others wait for this one: they must see that it is gone.
        if distributed.group.WORLD:
            distributed.group.WORLD.abort()
        if _has_lost_another(error):
            if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # what torch's launcher reads
                Path(file).write_text(json.dumps({"message": str(error)}), encoding="utf-8")
            sys.exit(ALONE)
        raise
    distributed.destroy_process_group()


def _has_lost_another(error: BaseException) -> bool:
    """Whether torch says so: of gloo, in an error without a class, which names a file of gloo's."""
    told = isinstance(error, RuntimeError) and "/gloo/" in str(error)
    return told or isinstance(error, distributed.DistError)


def _end_with(launcher: int) -> None:
    """End this worker once what started it is gone: it would train on beside its successor."""
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


# ---- what they share


def shared(network: nn.Module, device: torch.device) -> nn.Module:
    """The network as all workers train it together; alone, the network itself.

    Means and variances of batch norm are those of the whole batch, as with one worker.

    Raises:
        UserError: on the CPU, it has another batch norm than BatchNorm1d.
    """
    if world_size() == 1:
        return network
    if device.type == "cuda":
        twin: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
        return DistributedDataParallel(twin, device_ids=[device.index])
    twin = copy.deepcopy(network)
    for name, module in [*twin.named_modules()]:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if type(module) is not nn.BatchNorm1d or not module.affine or module.momentum is None:
                raise UserError(
                    f"workers: on the CPU, {name} ({module}) cannot be shared; of batch norm, "
                    "only nn.BatchNorm1d with affine and a momentum can. Take 1 worker."
                )
            norm = _SharedBatchNorm(module.num_features, module.eps, module.momentum)
            norm.load_state_dict(module.state_dict())
            twin.set_submodule(name, norm)
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
        """(b, d) or (b, d, l) of this worker's rows to the same, as `nn.BatchNorm1d` of all."""
        if not self.training:
            return super().forward(x)
        axes, of_each = [0, *range(2, x.ndim)], (-1, *[1] * (x.ndim - 2))
        n = summed(torch.tensor(x.numel() / self.num_features))
        mean = _Sum.apply(x.sum(axes)) / n
        variance = _Sum.apply((x - mean.view(of_each)).square().sum(axes)) / n
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scaled = (x - mean.view(of_each)) / (variance + self.eps).sqrt().view(of_each)
        return scaled * self.weight.view(of_each) + self.bias.view(of_each)


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


def of_first(value: Value) -> Value:
    """The first worker's value, in all of them."""
    values = [value]
    if world_size() > 1:
        distributed.broadcast_object_list(values)
    return values[0]


def check_agreed(origin: str) -> None:
    """UserError in all workers unless all of them train the same, by its fingerprint."""
    if world_size() == 1:
        return
    origins: list[Any] = [None] * world_size()
    distributed.all_gather_object(origins, origin)
    others = [str(n) for n, each in enumerate(origins, start=1) if each != origins[0]]
    if others:
        raise UserError(
            f"workers: of {world_size()}, {', '.join(others)} would train something else than 1: "
            "data, parameters, the network's first weights, torch or thread count differ. Give "
            "all of them the same, with one seed."
        )


def seed_epoch(seed: int, epoch: int) -> None:
    """Have each worker draw numbers of its own (dropout), the same ones in a resumed training."""
    if world_size() > 1:
        torch.manual_seed((seed * 1_000_003 + epoch) * world_size() + rank())
