"""A resumed training equals an uninterrupted one; checkpoints of other trainings are not used."""

import copy
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import (
    ConstantLR,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from lib.checkpoints import fingerprint, settings_of
from lib.pytorch import accuracy
from lib.pytorch_test import assert_same_state, make_data, one_thread, run, run_interrupted

pytestmark = pytest.mark.unittest

__all__ = ["one_thread"]  # a fixture of every test here

uninterrupted = cache(run)


class Smoothed(nn.Module):
    """A loss with a setting that its repr does not show."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, outputs, y):
        return nn.functional.binary_cross_entropy_with_logits(outputs, y * (1 - self.by))


@pytest.mark.parametrize("epoch", [1, 3, 7, 12])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, epoch):
    checkpoint = tmp_path / "new" / "checkpoint.pt"
    expected_network, expected_history = uninterrupted()
    run_interrupted(checkpoint, epoch)
    seen = []
    network, history = run(checkpoint=checkpoint, on_epoch=seen.append)
    assert history == expected_history
    assert_same_state(network, expected_network)
    assert seen == history.records[(epoch - 1) // 3 * 3 :], (
        "epochs in the checkpoint were trained again"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": partial(AdamW, weight_decay=0.1), "max_grad_norm": 0.5},
        {
            "optimizer": partial(SGD, momentum=0.9),
            "scheduler": partial(MultiStepLR, milestones=[5]),
        },
        {"scheduler": partial(ReduceLROnPlateau, mode="max", patience=0)},
        {"scheduler": partial(OneCycleLR, max_lr=0.1, total_steps=13)},
    ],
    ids=["AdamW", "SGD", "ReduceLROnPlateau", "OneCycleLR"],
)
def test_optimizer_and_scheduler_are_resumed_and_belong_to_the_training(tmp_path, caplog, settings):
    checkpoint = tmp_path / "checkpoint.pt"
    expected_network, expected_history = run(**settings)
    run_interrupted(checkpoint, **settings)
    network, history = run(checkpoint=checkpoint, **settings)
    assert history == expected_history
    assert_same_state(network, expected_network)
    assert caplog.text == ""
    _, history = run(checkpoint=checkpoint)
    assert f"Checkpoint {checkpoint} is not used" in caplog.text
    assert history == uninterrupted()[1] != expected_history


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"not a checkpoint", id="something else"),
        pytest.param(
            lambda data: data[: len(data) // 2] + b"\xff\x00\xff\x00" + data[len(data) // 2 + 4 :],
            id="bytes changed",
        ),
    ],
)
def test_a_damaged_checkpoint_is_reported_and_training_restarts(tmp_path, caplog, damage):
    checkpoint = tmp_path / "checkpoint.pt"
    run_interrupted(checkpoint)
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    network, history = run(checkpoint=checkpoint)
    expected_network, expected_history = uninterrupted()
    assert f"Checkpoint {checkpoint} is not used" in caplog.text
    assert history == expected_history
    assert_same_state(network, expected_network)


@pytest.mark.parametrize(
    "change", ["lr", "batch_size", "patience", "data", "epochs", "best_by", "weights", "smoothing"]
)
def test_a_checkpoint_of_another_training_is_reported_and_not_used(tmp_path, caplog, change):
    checkpoint = tmp_path / "checkpoint.pt"
    run_interrupted(checkpoint)
    X, _ = make_data()
    X[50, 2] += 0.01
    changed: dict[str, dict[str, Any]] = {
        "lr": {"lr": 0.02},
        "batch_size": {"batch_size": 17},  # as many batches as with 16
        "patience": {"patience": 11},
        "data": {"X": X},
        "epochs": {"epochs": 5},
        "best_by": {"best_by": ["validation_loss"]},
        "weights": {"loss": nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0))},
        "smoothing": {"loss": Smoothed(0.1)},
    }
    network, history = run(checkpoint=checkpoint, **changed[change])
    expected_network, expected_history = run(**changed[change])
    assert f"Checkpoint {checkpoint} is not used" in caplog.text
    assert history == expected_history
    assert_same_state(network, expected_network)


class Rows(nn.Module):
    """A network around another, with a setting that its repr does not show."""

    def __init__(self, dropped):
        super().__init__()
        self.dropped = dropped
        self.inner = nn.Linear(5, 1)

    def forward(self, X):
        return self.inner(nn.functional.dropout(X, self.dropped[0], self.training))


def decaying(by):
    return partial(LambdaLR, lr_lambda=lambda epoch: by**epoch)


def in_two(by):
    return lambda optimizer: SequentialLR(
        optimizer, [ConstantLR(optimizer), decaying(by)(optimizer)], milestones=[2]
    )


def scaled(outputs, y, by):
    return by * accuracy(outputs, y)


def wrapped(by):
    return nn.Sequential(Smoothed(by))


def edited(source, name="measure"):
    """A function or class as it is after an edit of its file."""
    found: dict[str, Any] = {"Rows": Rows}
    exec(source, found)
    return found[name]


DEEP = "def measure(outputs, y):\n    return max(max(max(z + 1 for z in x) for x in o) for o in y)"
MEASURE = "def measure(outputs, y):\n    return max(abs(y) for y in outputs)"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(Rows([0.1]), Rows([0.5]), id="in a list"),
        pytest.param(Rows((0.1,)), Rows((0.5,)), id="in a tuple"),
        pytest.param(Rows({0: 0.1}), Rows({0: 0.5}), id="in a mapping"),
        pytest.param(Rows(torch.tensor([0.1])), Rows(torch.tensor([0.5])), id="in a tensor"),
        pytest.param(Rows(np.array([0.1])), Rows(np.array([0.5])), id="in an array"),
        pytest.param(Rows(torch.eye(2).to_sparse()), Rows(torch.eye(3).to_sparse()), id="sparse"),
        pytest.param(wrapped(0.1), wrapped(0.2), id="of a module inside"),
        pytest.param(decaying(0.9), decaying(0.5), id="in a closure"),
        pytest.param(in_two(0.9), in_two(0.5), id="in a closure inside"),
        pytest.param(partial(scaled, by=1), partial(scaled, by=-1), id="in a partial"),
        pytest.param(edited(MEASURE), edited(MEASURE.replace("max", "min")), id="in code"),
        pytest.param(
            partial(edited(DEEP)), partial(edited(DEEP.replace("+ 1", "+ 2"))), id="deep in code"
        ),
        pytest.param(
            edited(MEASURE), edited(MEASURE.replace("abs(y)", "abs(-y)")), id="in code inside"
        ),
    ],
)
def test_settings_belong_to_the_training(one, other):
    def described(value):
        return fingerprint((value,), (), ()) if isinstance(value, nn.Module) else settings_of(value)

    if isinstance(one, Rows):
        other.load_state_dict(one.state_dict())
    assert described(one) == described(copy.deepcopy(one))
    assert described(one) != described(other)


NETWORK = """
class Network(Rows):
    scale = 1

    @staticmethod
    def factor(*, by=2):
        return by

    def forward(self, X):
        return self.factor() * super().forward(X) + 1
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [("X) + 1", "X) + 3"), ("by=2", "by=3"), ("scale = 1", "scale = 2"), ("by\n", "-by\n")],
)
def test_the_code_of_a_network_belongs_to_the_training(old, new):
    one, same = (edited(NETWORK, "Network")([0.1]) for _ in range(2))
    other = edited(NETWORK.replace(old, new), "Network")([0.1])
    for each in (same, other):
        each.load_state_dict(one.state_dict())
    assert fingerprint((one,), (), ()) == fingerprint((same,), (), ())
    assert fingerprint((one,), (), ()) != fingerprint((other,), (), ())


def test_any_type_of_weights_belongs_to_the_training():
    network = nn.Linear(2, 1).to(torch.bfloat16)
    before = fingerprint((network,), (), ())
    assert fingerprint((network,), (), ()) == before
    nn.init.ones_(network.weight)
    assert fingerprint((network,), (), ()) != before


def test_a_comment_in_code_does_not_belong_to_the_training():
    commented = edited("# how far off\n\n" + MEASURE + "  # the worst")
    assert settings_of(commented) == settings_of(edited(MEASURE))


def test_a_function_may_use_a_variable_that_has_no_value_yet():
    def early():
        return late

    found = settings_of(early)
    late = 1
    assert settings_of(early) != found
    assert early() == late


@pytest.mark.parametrize("by", [0.9, 0.5])
def test_a_schedule_by_another_function_trains_anew(tmp_path, caplog, by):
    checkpoint = tmp_path / "checkpoint.pt"
    run_interrupted(checkpoint, scheduler=decaying(0.9))
    _, history = run(checkpoint=checkpoint, scheduler=decaying(by))
    assert history == run(scheduler=decaying(by))[1]
    assert ("is not used" in caplog.text) == (by != 0.9)


def test_a_checkpoint_from_another_number_of_threads_is_not_used(tmp_path, caplog, monkeypatch):
    checkpoint = tmp_path / "checkpoint.pt"
    run_interrupted(checkpoint)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    _, history = run(checkpoint=checkpoint)
    assert f"Checkpoint {checkpoint} is not used" in caplog.text
    assert history == uninterrupted()[1]


def test_a_checkpoint_of_fewer_epochs_continues_to_more(tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    run(checkpoint=checkpoint, epochs=6)
    network, history = run(checkpoint=checkpoint)
    expected_network, expected_history = uninterrupted()
    assert history == expected_history
    assert_same_state(network, expected_network)


def test_writing_a_checkpoint_leaves_no_other_file(tmp_path):
    (tmp_path / "checkpoint.pt.unfinished").write_bytes(b"of a training killed while it wrote")
    run(checkpoint=tmp_path / "checkpoint.pt", epochs=2)
    assert list(tmp_path.iterdir()) == []
    run(checkpoint=tmp_path / "checkpoint.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_state_dict_saved_in_two_folders_has_the_same_bytes(tmp_path):
    paths = [tmp_path / name / "network.pt" for name in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        torch.save(run()[0].state_dict(), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
