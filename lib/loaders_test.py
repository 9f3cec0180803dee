"""Loaders return every row once, in whole batches, in an order that depends on the seed."""

import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lib import loaders
from lib.errors import UserError
from lib.loaders import BatchIndices, Loader, create_dataloader
from lib.pytorch_test import make_data, one_thread

pytestmark = pytest.mark.unittest

__all__ = ["one_thread"]  # a fixture of every test here


def read_loader(loader):
    return [(X.numpy(), y.numpy()) for X, y in loader]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("n", "batch_size"), [(97, 10), (97, 16), (97, 97), (97, 500), (1, 8), (90, 1)]
)
def test_each_epoch_has_each_row_exactly_once(n, batch_size, shuffle):
    X, y = np.arange(n, dtype=np.float32).reshape(-1, 1), np.arange(n, dtype=np.uint8)
    loader = create_dataloader(X, y, batch_size, shuffle, seed=0)
    for _ in range(2):
        batches = read_loader(loader)
        assert len(batches) == len(loader)
        assert sorted(np.concatenate([batch[1] for batch in batches])) == list(range(n))
        assert all(np.array_equal(batch[0][:, 0], batch[1]) for batch in batches), (
            "a row lost its label"
        )


@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_have_the_order_of_a_per_row_loader_with_the_same_seed(shuffle):
    X, y = make_data(100)
    fast = create_dataloader(X, y, 16, shuffle, seed=3)
    slow: Loader = DataLoader(
        TensorDataset(torch.from_numpy(X), torch.from_numpy(y)),
        batch_size=16,
        shuffle=shuffle,
        generator=torch.Generator().manual_seed(3),
    )
    for _ in range(2):
        rows, expected = (
            [torch.cat(parts) for parts in zip(*loader, strict=True)] for loader in (fast, slow)
        )
        assert torch.equal(rows[0], expected[0])
        assert torch.equal(rows[1], expected[1])


def test_epochs_differ_in_order_and_equal_seeds_give_equal_orders():
    X, y = make_data()
    one, same = (create_dataloader(X, y, 16, shuffle=True, seed=5) for _ in range(2))
    other = create_dataloader(X, y, 16, shuffle=True, seed=6)
    first, second = (np.concatenate([b[0] for b in read_loader(one)]) for _ in range(2))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, np.concatenate([b[0] for b in read_loader(same)]))
    assert not np.array_equal(first, np.concatenate([b[0] for b in read_loader(other)]))


@pytest.mark.parametrize("n", [65, 1000, 1001, 1024])
def test_more_rows_than_a_window_are_shuffled_by_window(monkeypatch, n):
    monkeypatch.setattr(loaders, "WINDOW_ROWS", 64)
    monkeypatch.setattr(loaders, "RUN_ROWS", 4)
    batches = BatchIndices(n, 10, torch.Generator().manual_seed(0))
    first, second = (torch.cat(list(batches)).tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(n)), "every row once"
    assert first != second
    again = BatchIndices(n, 10, torch.Generator().manual_seed(0))
    assert torch.cat(list(again)).tolist() == first
    runs = {row // 4 for row in first[:60]}
    assert len(runs) <= 16, "a window is read in runs"
    if n >= 1000:
        assert max(runs) - min(runs) > n / 8, "and comes from everywhere"
    assert torch.cat(list(BatchIndices(n, 10, None))).tolist() == list(range(n))


def test_iterating_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    read_loader(create_dataloader(*make_data(), 16, shuffle=True, seed=0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        (96, 16, [16] * 6),
        (98, 16, [14] * 7),
        (97, 16, [14] * 6 + [13]),
        (386, 32, [30] * 9 + [29] * 4),
        (10, 16, [10]),
        (5, 2, [3, 2]),
        (3, 2, [3]),
        (3, 1, [1] * 3),
        (1, 16, [1]),
    ],
)
def test_batch_sizes_differ_by_at_most_one_row(n, batch_size, sizes):
    loader = create_dataloader(*make_data(n), batch_size, shuffle=True, seed=0)
    assert [len(y) for _, y in loader] == sizes
    assert len(loader) == len(sizes)


def test_a_memory_mapped_array_loads_without_a_warning_and_batches_are_copies(tmp_path):
    X, y = make_data()
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = create_dataloader(mapped, y, 16, shuffle=False, seed=0)
    assert isinstance(loader.dataset, TensorDataset)
    assert loader.dataset.tensors[0].data_ptr() == mapped.ctypes.data, (
        "the data were copied into memory"
    )
    for batch, _ in loader:
        batch.zero_()
    assert np.array_equal(mapped, X)


@pytest.mark.parametrize(
    ("n_rows", "n_labels", "batch_size", "message"),
    [(3, 2, 1, "X has 3 rows and y 2"), (0, 0, 1, "X has 0 rows"), (3, 3, 0, "batch_size is 0")],
)
def test_a_loader_refuses_invalid_arguments(n_rows, n_labels, batch_size, message):
    X, y = np.zeros((n_rows, 2), np.float32), np.zeros(n_labels, np.uint8)
    with pytest.raises(ValueError, match=message):
        create_dataloader(X, y, batch_size, shuffle=True, seed=0)


@pytest.mark.parametrize(("n_rows", "batch_size"), [(2, 8), (8, 2)])
def test_more_workers_than_rows_in_a_batch_are_refused(n_rows, batch_size, monkeypatch):
    monkeypatch.setattr("lib.distributed.world_size", lambda: 3)
    with pytest.raises(UserError, match=f"workers is 3, .* {n_rows} rows, in batches of"):
        create_dataloader(*make_data(n_rows), batch_size, shuffle=True, seed=0)
