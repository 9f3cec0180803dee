"""DataLoaders for PyTorch that read whole batches at once, from arrays of any size.

A DataLoader usually reads row by row and collates, which takes as long as the training itself; here
a sampler yields one tensor of row numbers per batch.
"""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from lib import distributed
from lib.errors import UserError

Loader = DataLoader[tuple[Tensor, ...]]
Targets = npt.NDArray[np.number[Any]]

WINDOW_ROWS = 2**18  # shuffled, or measured, at a time
RUN_ROWS = 2**8  # neighbours on disk, read together


class BatchIndices(Sampler[Tensor]):
    """The row numbers of each batch, as an int64 tensor; every row once per epoch.

    Shuffles again in each epoch with `generator`, in the order of torch's RandomSampler; without
    it, rows keep their order. Batches have `batch_size` rows or somewhat less, with sizes that
    differ by at most one: a last batch of two rows would weigh as much as any other, and batch norm
    reduces it to little more than the sign of the difference. Batch norm cannot train on one row,
    so 3 rows in batches of 2 are one batch. Each worker gets its share of every batch.

    More than WINDOW_ROWS rows are shuffled in windows, so that neither their data nor all row
    numbers need to fit into memory. A window consists of runs of RUN_ROWS neighbouring rows, which
    are quick to read, drawn from all rows; then its rows are shuffled.
    """

    def __init__(self, n_rows: int, batch_size: int, generator: torch.Generator | None) -> None:
        self.generator = generator
        self.n_rows = n_rows
        least = min(batch_size, max(2, distributed.world_size()))
        n_batches = max(1, min(math.ceil(n_rows / batch_size), n_rows // least))
        self.sizes = [n_rows // n_batches + (n < n_rows % n_batches) for n in range(n_batches)]

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.batches():
            yield batch.tensor_split(distributed.world_size())[distributed.rank()]

    def batches(self) -> Iterator[Tensor]:
        """The row numbers of each whole batch, for all workers together."""
        waiting = torch.empty(0, dtype=torch.int64)
        windows = self.windows()
        for size in self.sizes:
            while len(waiting) < size:
                waiting = torch.cat([waiting, next(windows)])
            batch, waiting = waiting[:size], waiting[size:]
            yield batch
        if self.generator is not None and self.n_rows <= WINDOW_ROWS:
            # As RandomSampler, which draws once more for an empty remainder.
            torch.randperm(self.n_rows, generator=self.generator)

    def windows(self) -> Iterator[Tensor]:
        """All row numbers once, at most WINDOW_ROWS at a time."""
        if self.generator is None:
            for start in range(0, self.n_rows, WINDOW_ROWS):
                yield torch.arange(start, min(start + WINDOW_ROWS, self.n_rows))
        elif self.n_rows <= WINDOW_ROWS:
            yield torch.randperm(self.n_rows, generator=self.generator)
        else:
            runs = torch.randperm(math.ceil(self.n_rows / RUN_ROWS), generator=self.generator)
            for starts in (runs * RUN_ROWS).split(WINDOW_ROWS // RUN_ROWS):
                rows = (starts[:, None] + torch.arange(RUN_ROWS)).flatten()
                rows = rows[rows < self.n_rows]
                yield rows[torch.randperm(len(rows), generator=self.generator)]


def create_dataloader(
    X: npt.NDArray[np.float32], y: Targets, batch_size: int, shuffle: bool, seed: int
) -> Loader:
    """A DataLoader over (X, y) of whole batches, in an order that depends only on `seed`.

    Memory-mapped arrays stay on disk; a batch is read, as a copy, when it is needed. The memory of
    an epoch does not grow with the rows: see `BatchIndices` for more than WINDOW_ROWS.

    Args:
        X: (n, d) float32.
        y: (n,) classes from 0, or (n,) or (n, m) numbers; batches keep their type.
        batch_size: rows per batch, at least 1; somewhat less if it does not divide n.
        shuffle: whether each epoch has a new order.
        seed: of the shuffling.

    Raises:
        ValueError: X and y differ in length or are empty, or batch_size is below 1.
        UserError: there are more workers than rows, or than rows in a batch.
    """
    if len(X) != len(y) or len(X) == 0:
        raise ValueError(
            f"X has {len(X)} rows and y {len(y)}: expected the same number, at least 1"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: expected at least 1")
    workers = distributed.world_size()
    if min(batch_size, len(X)) < workers > 1:
        raise UserError(
            f"workers is {workers}, and each must get a row of every batch: there are {len(X)} "
            f"rows, in batches of {batch_size}. Take fewer workers, or larger batches."
        )
    generator = torch.Generator().manual_seed(seed)
    dataset = TensorDataset(_share_memory(X), _share_memory(y))
    sampler = BatchIndices(len(X), batch_size, generator if shuffle else None)
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        generator=generator,
        pin_memory=torch.cuda.is_available(),
    )


def _share_memory(array: npt.NDArray[Any]) -> Tensor:
    with warnings.catch_warnings():
        # torch warns of writing to the tensor of a read-only array. Batches are copies, so nobody
        # writes to it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
