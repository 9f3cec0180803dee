"""Properties of densenet.py: the network's shape, its seeding, and that it learns."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

from lab.processes.train_dnn_pytorch.densenet import (
    create_densenet,
    create_predictor,
    train_densenet,
)
from lib.errors import ShortageError
from lib.splits import Splits

CPU = torch.device("cpu")


@pytest.mark.unittest
def test_the_network_gives_one_logit_per_row():
    network = create_densenet(30)
    assert network(torch.zeros(7, 30)).shape == (7, 1)
    widths = [(m.in_features, m.out_features) for m in network if isinstance(m, nn.Linear)]
    assert widths == list(pairwise((30, 200, 100, 100, 1)))


@pytest.mark.unittest
@pytest.mark.parametrize("hidden", [(), (4,), (8, 4)])
def test_hidden_layers_are_as_asked_for(hidden):
    network = create_densenet(3, hidden)
    assert [m.num_features for m in network if isinstance(m, nn.BatchNorm1d)] == list(hidden)
    assert network(torch.zeros(2, 3)).shape == (2, 1)


@pytest.mark.unittest
def test_the_network_has_only_layers_of_torch_so_it_loads_anywhere():
    assert {type(module).__module__.split(".")[0] for module in create_densenet(3).modules()} == {
        "torch"
    }


def make_splits(arrays):
    """Splits whose test rows are the validation rows: training does not use test rows."""
    X_train, X_val, y_train, y_val = arrays
    names = tuple(f"feature {i}" for i in range(X_train.shape[1]))
    return Splits(X_train, X_val, X_val, y_train, y_val, y_val, names, ("benign", "malignant"))


def train_quickly(seed, hidden=(8,)):
    X = np.random.default_rng(0).standard_normal((65, 4), dtype=np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    splits = make_splits((X, X, y, y))
    return train_densenet(
        splits,
        seed=seed,
        hidden=hidden,
        lr=0.001,
        batch_size=32,
        epochs=2,
        patience=None,
        device=CPU,
    )


@pytest.mark.unittest
@pytest.mark.parametrize("hidden", [[10**7, 10**7], [2**62, 4]])
def test_a_network_that_is_too_large_is_reported_by_its_parameters(hidden):
    with pytest.raises(ShortageError) as caught:
        train_quickly(1, hidden)
    assert str(caught.value).startswith(f"train_dnn_pytorch.hidden is {hidden}, batch_size is 32: ")


@pytest.mark.unittest
def test_only_the_seed_decides_the_weights():
    one = train_quickly(1)
    torch.rand(5)
    again, other = train_quickly(1), train_quickly(2)
    assert one.history == again.history
    assert one.history != other.history
    states = [trained.network.state_dict() for trained in (one, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.integration
def test_it_learns_to_tell_malignant_from_benign_and_predicts_from_raw_features():
    raw, benign = load_breast_cancer(return_X_y=True)
    raw_train, raw_val, y_train, y_val = train_test_split(
        raw, 1 - benign, test_size=0.2, stratify=benign, random_state=0
    )
    scaler = StandardScaler().fit(raw_train)
    X_train, X_val = (scaler.transform(X).astype(np.float32) for X in (raw_train, raw_val))
    splits = make_splits((X_train, X_val, y_train, y_val))
    trained = train_densenet(
        splits, seed=0, lr=0.001, batch_size=32, epochs=8, patience=None, device=CPU
    )
    accuracy = create_predictor(scaler, trained.network).score(raw_val, y_val)
    assert accuracy >= 0.95
    assert accuracy == pytest.approx(trained.history.best.measures["validation_accuracy"])
