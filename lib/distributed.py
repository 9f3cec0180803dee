"""Training on several workers, each with its share of every batch.

A process trains within `joined`, and only its first worker writes files. `lib.pytorch` does the
rest, with torch's DistributedDataParallel. `lab/processes/run` starts as many workers as the
process's section of params.yaml says; on a cluster, the scheduler does (`srun torchrun …`).

With one worker, nothing here has any effect.
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

ALONE = 86  # exit code of a worker that lost another one, and so is not the cause of the failure


def world_size() -> int:
    """The number of workers."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this worker, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the first worker, the one that writes files."""
    return rank() == 0


@contextmanager
def joined(workers: int, device: torch.device) -> Iterator[None]:
    """Connect the workers for the length of the block.

    Args:
        workers: their number.
        device: where this one computes.

    Raises:
        UserError: another number of workers was started, which would give other results.
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
        # The others wait for this worker and must notice that it is gone.
        if distributed.group.WORLD:
            distributed.group.WORLD.abort()
        if _has_lost_another(error):
            if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # torch's launcher reads it
                Path(file).write_text(json.dumps({"message": str(error)}), encoding="utf-8")
            sys.exit(ALONE)
        raise
    distributed.destroy_process_group()


def _has_lost_another(error: BaseException) -> bool:
    """Whether the error is torch's for a lost worker; gloo's has no class, but a path of gloo."""
    told = isinstance(error, RuntimeError) and "/gloo/" in str(error)
    return told or isinstance(error, distributed.DistError)


def _end_with(launcher: int) -> None:
    """End this worker once its launcher is gone: it would go on beside its successor."""
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


# ---- what workers share


def wrap(network: nn.Module, device: torch.device) -> nn.Module:
    """The network wrapped for training by all workers; with one worker, the network itself.

    Batch norm uses means and variances of the whole batch, as with one worker.

    Raises:
        UserError: on the CPU, it has a batch norm other than BatchNorm1d with affine, momentum and
            running statistics.
    """
    if world_size() == 1:
        return network
    if device.type == "cuda":
        twin: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
        return DistributedDataParallel(twin, device_ids=[device.index])
    twin = copy.deepcopy(network)
    for name, module in [*twin.named_modules()]:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            twin.set_submodule(name, _shared_norm(name, module))
    return DistributedDataParallel(twin)


def _shared_norm(name: str, norm: nn.modules.batchnorm._BatchNorm) -> "_SharedBatchNorm":
    """A batch norm over the rows of all workers in place of this one; UserError if none can be."""
    settings = (norm.affine, norm.momentum is not None, norm.track_running_stats)
    if type(norm) is not nn.BatchNorm1d or not all(settings):
        raise UserError(
            f"workers: on the CPU, {name} ({norm}) cannot be shared; of batch norm, only "
            "nn.BatchNorm1d with affine, a momentum and track_running_stats can. Take 1 worker."
        )
    shared = _SharedBatchNorm(norm.num_features, norm.eps, norm.momentum)
    shared.load_state_dict(norm.state_dict())
    for parameter, original in zip(shared.parameters(), norm.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)  # it may be frozen
    return shared


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside what `wrap` returned."""
    return network.module if isinstance(network, DistributedDataParallel) else network


class _Sum(torch.autograd.Function):
    """The sum over all workers; gradients are summed over them as well."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        return all_reduce(tensor)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return all_reduce(gradient)


class _SharedBatchNorm(nn.BatchNorm1d):
    """Batch norm over the rows of all workers on the CPU; torch's SyncBatchNorm is for GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) or (b, d, l), this worker's rows, normalised as `nn.BatchNorm1d` does all rows."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        given, x = x.dtype, x.to(self.running_mean.dtype)  # float32 under autocast, too
        axes, of_each = [0, *range(2, x.ndim)], (-1, *[1] * (x.ndim - 2))
        n = all_reduce(torch.tensor(x.numel() / self.num_features))
        mean = _Sum.apply(x.sum(axes)) / n
        variance = _Sum.apply((x - mean.view(of_each)).square().sum(axes)) / n
        with torch.no_grad():
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scaled = (x - mean.view(of_each)) / (variance + self.eps).sqrt().view(of_each)
        return (scaled * self.weight.view(of_each) + self.bias.view(of_each)).to(given)


def share_of_mean(y: Tensor) -> Tensor | float:
    """The weight of a mean over this worker's rows that makes DDP's mean that of all rows."""
    if world_size() == 1:
        return 1.0
    return len(y) * world_size() / all_reduce(torch.tensor(float(len(y)), device=y.device))


def all_reduce(tensor: Tensor) -> Tensor:
    """The sum over all workers."""
    if world_size() > 1:
        tensor = tensor.clone()
        distributed.all_reduce(tensor)
    return tensor


def all_gather(tensor: Tensor) -> Tensor:
    """The rows of all workers, the first worker's first."""
    if world_size() == 1:
        return tensor
    parts: list[Any] = [None] * world_size()
    distributed.all_gather_object(parts, tensor.cpu())
    return torch.cat(parts).to(tensor.device)


def broadcast(value: Value) -> Value:
    """The first worker's value, on every worker."""
    values = [value]
    if world_size() > 1:
        distributed.broadcast_object_list(values)
    return values[0]


def check_agreed(origin: str) -> None:
    """UserError on every worker unless all have the same fingerprint of their training."""
    if world_size() == 1:
        return
    origins: list[Any] = [None] * world_size()
    distributed.all_gather_object(origins, origin)
    others = [str(n) for n, each in enumerate(origins, start=1) if each != origins[0]]
    if others:
        raise UserError(
            f"workers: of {world_size()}, {', '.join(others)} would train something else than 1: "
            "data, parameters, code, the network's first weights, Python, torch or thread count "
            "differ. Give all of them the same, with one seed."
        )


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed each worker differently (for dropout), and the same again in a resumed training."""
    if world_size() > 1:
        torch.manual_seed((seed * 1_000_003 + epoch) * world_size() + rank())
