"""Properties of lib/pytorch.py: the training loop and the predictor."""

import random
import re
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from lib import loaders, pytorch
from lib.errors import UserError
from lib.pytorch import (
    NonFiniteLossError,
    TorchClassifier,
    TorchRegressor,
    accuracy,
    balanced_weights,
    choose_device,
    create_dataloader,
    macro_f1,
    predict_outputs,
    predict_probability,
    r2,
    rmse,
    seed_everything,
    train,
)

pytestmark = pytest.mark.unittest

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Use one thread: for networks this small, threads cost a hundred times what they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_data(n=97):
    X = np.random.default_rng(0).standard_normal((n, 5), dtype=np.float32)
    return X, (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(np.uint8)


def make_network():
    seed_everything(0)
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1)
    )


ACCURACY_THEN_LOSS = ("validation_accuracy", "validation_loss")
USUAL = {"best_by": ACCURACY_THEN_LOSS, "lr": 0.01, "epochs": 12, "patience": None}


def run(X=None, *, batch_size=16, **settings):
    """A training with all that resuming must restore: dropout, shuffling, batch norm, Adam."""
    X_default, y = make_data()
    X = X_default if X is None else X
    network = make_network()
    history = train(
        network,
        create_dataloader(X, y, batch_size, shuffle=True, seed=1),
        create_dataloader(X[:40], y[:40], batch_size, shuffle=False, seed=1),
        metrics={"accuracy": accuracy},
        device=CPU,
        checkpoint_every=3,
        **{"loss": nn.BCEWithLogitsLoss(), **USUAL, **settings},
    )
    return network, history


class InterruptionError(Exception):
    pass


def interrupt_at(epoch):
    def on_epoch(record):
        if record.epoch == epoch:
            raise InterruptionError

    return on_epoch


def run_interrupted(checkpoint, epoch=7, **settings):
    with pytest.raises(InterruptionError):
        run(checkpoint=checkpoint, on_epoch=interrupt_at(epoch), **settings)


def assert_same_state(one, other):
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name]), f"{name} differs"


# Training


class Scripted(nn.Module):
    """A network that counts epochs, with validation logits from a table."""

    def __init__(self, logits_by_epoch):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("epoch", torch.tensor(0))
        self.table = logits_by_epoch
        self.epoch: Tensor

    def forward(self, X):
        if self.training:
            self.epoch += 1
            return self.weight.expand(len(X))
        return torch.tensor(self.table[int(self.epoch) - 1])


def train_scripted(logits_by_epoch, patience=None, best_by=ACCURACY_THEN_LOSS, **metrics):
    """Train on four rows of class 1: a positive logit is right, a larger one has a lower loss."""
    network = Scripted(logits_by_epoch)
    loaders = [
        create_dataloader(np.zeros((4, 1), np.float32), np.ones(4, np.uint8), 4, False, 0)
        for _ in range(2)
    ]
    epochs = len(logits_by_epoch)
    history = train(
        network,
        *loaders,
        loss=nn.BCEWithLogitsLoss(),
        metrics={"accuracy": accuracy, **metrics},
        best_by=best_by,
        lr=0.1,
        epochs=epochs,
        patience=patience,
        device=CPU,
    )
    return network, history


RIGHT, SURE, WRONG = 1.0, 2.0, -1.0


@pytest.mark.parametrize(
    ("logits_by_epoch", "best"),
    [
        pytest.param([[RIGHT, WRONG] * 2, [RIGHT] * 4, [WRONG] * 4], 2, id="highest accuracy"),
        pytest.param([[RIGHT] * 4, [SURE] * 4, [RIGHT] * 4], 2, id="lowest loss of ties"),
        pytest.param([[WRONG] * 4, [SURE] * 4, [SURE] * 4], 2, id="earliest of ties"),
        pytest.param([[10.0] * 3 + [WRONG], [0.1] * 4], 2, id="accuracy before loss"),
    ],
)
def test_training_keeps_the_weights_of_the_best_epoch(logits_by_epoch, best):
    network, history = train_scripted(logits_by_epoch)
    assert history.best_epoch == best
    assert history.best.epoch == best
    assert int(network.epoch) == best, "the network holds another epoch's state"
    assert [record.epoch for record in history.records] == list(range(1, len(logits_by_epoch) + 1))


@pytest.mark.parametrize(("patience", "n_trained"), [(2, 4), (3, 5), (None, 9)])
def test_training_stops_after_patience_epochs_without_a_better_one(patience, n_trained):
    table = [[RIGHT, WRONG] * 2, [RIGHT] * 4, *[[WRONG] * 4] * 7]
    _, history = train_scripted(table, patience)
    assert len(history.records) == n_trained
    assert history.best_epoch == 2


def test_records_have_mean_loss_and_accuracy_over_rows():
    _, history = train_scripted([[RIGHT, RIGHT, RIGHT, WRONG]])
    expected = np.mean(np.log1p(np.exp([-1.0, -1.0, -1.0, 1.0])))
    assert history.best.measures["validation_accuracy"] == 0.75
    assert history.best.measures["validation_loss"] == pytest.approx(expected, rel=1e-6)


def test_measures_of_an_epoch_are_means_over_windows(monkeypatch):
    _, whole = run(epochs=1)
    monkeypatch.setattr(loaders, "WINDOW_ROWS", 97)  # all rows, in one
    _, same = run(epochs=1)
    assert same.records == whole.records
    assert pytorch_measures(97) == pytest.approx(pytorch_measures(20))


def pytorch_measures(window):
    """The accuracy of 97 outputs, added in batches of ten, with windows of this many rows."""
    outputs, y = torch.randn(97, generator=torch.Generator().manual_seed(0)), torch.ones(97)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaders, "WINDOW_ROWS", window)
        measured = pytorch._Measured({"accuracy": accuracy})
        for start in range(0, 97, 10):
            measured.add(outputs[start : start + 10], y[start : start + 10])
        return measured.values()


def test_training_twice_gives_the_same_bits():
    (network, history), (network_again, history_again) = run(), run()
    assert history == history_again
    assert_same_state(network, network_again)


def parameters(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_a_scheduler_sets_the_learning_rate_of_each_epoch():
    stop = partial(StepLR, step_size=1, gamma=0.0)
    after_one, _ = run(epochs=1)
    after_three, history = run(epochs=3, scheduler=stop)
    assert len(history.records) == 3
    assert torch.equal(parameters(after_three), parameters(after_one))


def test_a_plateau_of_the_first_measure_of_best_by_lowers_the_learning_rate():
    seen = []

    class Recorded(ReduceLROnPlateau):
        def step(self, metrics, epoch=None):
            seen.append(metrics)
            super().step(metrics, epoch)

    _, history = run(scheduler=partial(Recorded, mode="max"))
    assert seen == [record.measures["validation_accuracy"] for record in history.records]


@pytest.mark.parametrize(
    ("name", "mode", "wanted"), [("accuracy", "min", "max"), ("loss", "max", "min")]
)
def test_a_plateau_of_the_opposite_of_the_measure_is_refused(name, mode, wanted):
    settings = {"best_by": [f"validation_{name}"], "epochs": 2}
    with pytest.raises(ValueError, match=f"mode='{mode}', but validation_{name}.*mode='{wanted}'"):
        run(**settings, scheduler=partial(ReduceLROnPlateau, mode=mode))
    run(**settings, scheduler=partial(ReduceLROnPlateau, mode=wanted))


def test_clipped_gradients_move_the_weights_at_most_by_their_norm():
    settings = {"optimizer": SGD, "lr": 1.0, "epochs": 1, "batch_size": 97}
    start = parameters(make_network())
    moved = [
        float(torch.linalg.norm(parameters(run(**settings, **clipped)[0]) - start))
        for clipped in ({}, {"max_grad_norm": 0.01})
    ]
    assert moved[0] > 0.1
    assert moved[1] == pytest.approx(0.01, rel=1e-3)


def test_on_epoch_gets_every_record_of_the_history():
    seen = []
    _, history = run(on_epoch=seen.append)
    assert seen == history.records


def test_an_infinite_or_nan_loss_names_epoch_and_learning_rate():
    X, _ = make_data()
    X[3, 2] = np.nan
    with pytest.raises(
        NonFiniteLossError, match=re.escape("epoch 1: train_loss is nan with lr 0.01")
    ):
        run(X=X)


def test_a_learning_rate_that_diverges_is_named():
    with pytest.raises(NonFiniteLossError, match=re.escape("lower lr (try 1e+37)")):
        run(lr=1e38)


@pytest.mark.parametrize("arguments", [{"epochs": 0}, {"patience": 0}])
def test_training_refuses_values_below_one(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is 0: expected at least 1"):
        run(**arguments)


def test_gradients_are_clipped_to_a_norm_above_zero():
    with pytest.raises(ValueError, match=r"max_grad_norm is 0\.0: expected more than 0, or None"):
        run(max_grad_norm=0.0)


# Other tasks


def train_on(X, y, n_outputs, **arguments):
    seed_everything(0)
    network = nn.Sequential(nn.Linear(X.shape[1], 8), nn.ReLU(), nn.Linear(8, n_outputs))
    loaders = [create_dataloader(X, y, 16, shuffle=shuffle, seed=1) for shuffle in (True, False)]
    history = train(network, *loaders, lr=0.02, epochs=15, patience=None, device=CPU, **arguments)
    return network, history


def test_numbers_are_learned_and_predicted_in_their_own_unit():
    X, _ = make_data()
    y = 38_000 + 5_000 * X[:, 0].astype(np.float64)
    mean, scale = y.mean(), y.std()
    standardised = ((y - mean) / scale).astype(np.float32)
    network, history = train_on(
        X,
        standardised,
        1,
        loss=nn.MSELoss(),
        metrics={"rmse": rmse, "r2": r2},
        best_by=["validation_r2"],
    )
    values = [record.measures["validation_r2"] for record in history.records]
    assert history.best_epoch == 1 + int(np.argmax(values))
    predictor = TorchRegressor(network, mean=mean, scale=scale)
    assert predictor.score(X, y) == pytest.approx(max(values), rel=1e-4)
    assert max(values) > 0.95
    error = np.sqrt(np.mean((predictor.predict(X) - y) ** 2))
    assert error == pytest.approx(history.best.measures["validation_rmse"] * scale, rel=1e-4)


def test_several_numbers_are_learned_at_once():
    X, _ = make_data()
    network, history = train_on(X, X[:, :2], 2, loss=nn.MSELoss(), metrics={"rmse": rmse})
    assert TorchRegressor(network).predict(X).shape == (97, 2)
    assert history.best.measures["validation_rmse"] < history.records[0].measures["validation_rmse"]


def test_numbers_stay_numbers_for_a_loss_of_several_outputs():
    """Such as quantiles, or a mean with its deviation: not each number is a class."""
    X, _ = make_data()
    y = X[:, 0] / 10
    seen = []

    class Quantiles(nn.Module):
        def forward(self, outputs, y):
            seen.append(y)
            error = y[:, None] - outputs
            levels = torch.tensor([0.1, 0.9])
            return torch.maximum(levels * error, (levels - 1) * error).mean(dim=1)

    loaders = [create_dataloader(X, y, 16, shuffle=False, seed=0) for _ in range(2)]
    settings = {"loss": Quantiles(), "metrics": {}, "lr": 0.01, "epochs": 1, "patience": None}
    train(nn.Linear(5, 2), *loaders, device=CPU, **settings)
    assert torch.equal(torch.cat(seen), torch.from_numpy(np.concatenate([y, y])))


def test_several_classes_are_learned_and_predicted_by_name(tmp_path):
    X, _ = make_data()
    codes = np.digitize(X[:, 0], [-0.5, 0.5])
    network, history = train_on(
        X,
        codes,
        3,
        loss=nn.CrossEntropyLoss(weight=balanced_weights(codes), reduction="none"),
        metrics={"accuracy": accuracy, "macro_f1": macro_f1},
        best_by=["validation_macro_f1", "validation_loss"],
    )
    predictor = TorchClassifier(network, classes=("low", "middle", "high"))
    joblib.dump(predictor, tmp_path / "predictor.joblib")
    loaded = joblib.load(tmp_path / "predictor.joblib")
    names = np.array(["low", "middle", "high"])[codes]
    assert loaded.score(X, names) == pytest.approx(history.best.measures["validation_accuracy"])
    assert loaded.score(X, names) > 0.85
    probabilities = loaded.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.array_equal(predict_probability(network, X), probabilities)
    assert np.array_equal(loaded.predict(X), loaded.classes_[probabilities.argmax(axis=1)])


def test_a_weighted_loss_is_the_same_in_batches_of_any_size():
    X, _ = make_data()
    codes = np.digitize(X[:96, 0], [-1, 1])
    losses = []
    for size, accumulate in ((24, 1), (8, 3)):
        seed_everything(0)
        network = nn.Linear(5, 3)
        loader = create_dataloader(X[:96], codes, size, shuffle=False, seed=1)
        loss = nn.CrossEntropyLoss(weight=balanced_weights(codes), reduction="none")
        usual = {"metrics": {}, "lr": 0.1, "epochs": 3, "patience": None, "device": CPU}
        history = train(network, loader, loader, loss=loss, accumulate=accumulate, **usual)
        losses.append(history.records[-1].measures["validation_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_metrics_agree_with_their_definitions():
    logits = torch.tensor([[2.0, 1, 0], [0, 1, 2], [0, 3, 1], [1, 0, 0]])
    y = torch.tensor([0, 1, 1, 0])
    assert accuracy(logits, y) == 0.75
    assert macro_f1(logits, y) == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert accuracy(torch.tensor([1.0, -1.0]), torch.tensor([1.0, 1.0])) == 0.5
    found, wanted = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 5.0])
    assert rmse(found, wanted) == pytest.approx(np.sqrt(4 / 3))
    assert r2(found, wanted) == pytest.approx(1 - 4 / (26 / 3))


def test_balanced_weights_give_classes_equal_weight():
    y = np.array([0] * 6 + [1] * 3 + [2])
    weights = balanced_weights(y).numpy()
    assert (weights * np.bincount(y)).tolist() == pytest.approx([10 / 3] * 3)


@pytest.mark.parametrize(
    ("best_by", "best"),
    [
        pytest.param("validation_loss", 3, id="smaller is better"),
        pytest.param("validation_true_score", 1, id="larger is better"),
        pytest.param("validation_sure_error", 4, id="smaller is better, NaN is worst"),
    ],
)
def test_the_best_epoch_is_the_best_by_any_measure(best_by, best):
    def true_score(outputs, _):
        return -outputs.max().item()

    def sure_error(outputs, _):
        return outputs.mean().item() if outputs.min() < 0 else float("nan")

    table = [[RIGHT] * 4, [RIGHT, WRONG] * 2, [SURE] * 4, [WRONG, WRONG, WRONG, SURE]]
    _, history = train_scripted(
        table, None, [best_by], true_score=true_score, sure_error=sure_error
    )
    assert history.best_epoch == best


@pytest.mark.parametrize(
    ("best_by", "message"),
    [
        ("validation_f1", "expected one of train_loss, train_accuracy, train_xyz, validation_loss"),
        ("validation_xyz", "does not tell whether larger is better"),
    ],
)
def test_measures_that_cannot_decide_the_best_epoch_are_refused(best_by, message):
    with pytest.raises(ValueError, match=message):
        train_scripted([[RIGHT] * 4], None, [best_by], xyz=accuracy)


# Prediction


def make_predictor(network):
    scaler = StandardScaler().fit(make_data()[0])
    return Pipeline([("scaler", scaler), ("network", TorchClassifier(network))])


def test_logits_do_not_depend_on_batch_size_or_memory_mapping(tmp_path):
    X, _ = make_data()
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    network = run()[0]
    whole = predict_outputs(network, X, 97, CPU)
    assert whole.shape == (97,)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(
        predict_outputs(network, mapped, 10, CPU), whole, rtol=1e-5, atol=1e-6
    )


def test_predicting_uses_running_statistics_and_does_not_change_the_network():
    network = run()[0]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    X, _ = make_data()
    alone = predict_outputs(network, X[:1], 1, CPU)
    whole = predict_outputs(network, X, 97, CPU)
    np.testing.assert_allclose(alone, whole[:1], rtol=1e-5, atol=1e-6)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_probabilities_are_the_sigmoid_of_the_logits_and_agree_with_the_classes():
    X, _ = make_data()
    network = run()[0]
    classifier = TorchClassifier(network)
    probabilities = classifier.predict_proba(X)
    logits = classifier.decision_function(X).astype(np.float64)
    assert probabilities.shape == (97, 2)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-15)
    np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-12)
    assert np.array_equal(classifier.predict(X), probabilities.argmax(axis=1))
    assert np.array_equal(predict_probability(network, X), probabilities[:, 1])


@pytest.mark.filterwarnings("error")
def test_a_pipeline_uses_the_classifier_as_fitted():
    X, y = make_data()
    predictor = make_predictor(run()[0])
    assert predictor.predict_proba(X).shape == (97, 2)
    assert predictor.score(X, y) == (predictor.predict(X) == y).mean()
    assert predictor.classes_.tolist() == [0, 1]
    assert predictor.n_features_in_ == 5
    assert predictor["network"].n_features_in_ == 5


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((2, 4)), "X has 4 columns, expected the 5 features"),
        (np.zeros(5), "Expected 2D array"),
        (np.full((1, 5), np.nan), "contains NaN"),
    ],
)
def test_the_classifier_refuses_other_widths_and_infinite_values(X, message):
    with pytest.raises(ValueError, match=message):
        TorchClassifier(make_network()).predict(X)


@pytest.mark.parametrize("first", [nn.Dropout(), nn.Flatten(), nn.LayerNorm(5), nn.BatchNorm1d(5)])
def test_networks_without_a_first_linear_layer_have_a_width(first):
    classifier = TorchClassifier(nn.Sequential(first, nn.Linear(5, 1)))
    assert classifier.n_features_in_ == 5


def test_images_in_rows_are_classified_by_a_convolution():
    layers = nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)
    classifier = TorchClassifier(nn.Sequential(*layers), classes=("cat", "dog", "owl"))
    assert set(make_pipeline(classifier).predict(np.zeros((2, 16)))) <= {"cat", "dog", "owl"}
    assert not hasattr(classifier, "n_features_in_")


def test_a_clone_predicts_the_same_and_shares_no_weights():
    X, _ = make_data()
    classifier = TorchClassifier(run()[0], batch_size=50)
    before = classifier.predict_proba(X)
    copied = clone(classifier)
    assert copied.batch_size == 50
    assert np.array_equal(copied.predict_proba(X), before)
    torch.nn.init.zeros_(copied.network[0].weight)
    assert np.array_equal(classifier.predict_proba(X), before)


def test_fitting_again_is_refused():
    with pytest.raises(NotImplementedError, match="trained already"):
        TorchClassifier(make_network()).fit(*make_data())


def test_dumping_does_not_change_the_network_and_loading_restores_every_number(tmp_path):
    network = run()[0]
    network.register_buffer("unsaved", torch.arange(3.0), persistent=False)
    joblib.dump(TorchClassifier(network), tmp_path / "a.joblib")
    loaded = joblib.load(tmp_path / "a.joblib")
    assert_same_state(loaded.network, network)
    assert torch.equal(loaded.network.unsaved, torch.arange(3.0))
    assert next(network.parameters()).device == CPU


def test_a_dump_has_the_same_bytes_after_resuming_predicting_and_loading(tmp_path):
    def dump(predictor):
        joblib.dump(predictor, tmp_path / "network.joblib")
        return (tmp_path / "network.joblib").read_bytes()

    predictor = make_predictor(run()[0])
    expected = dump(predictor)
    predictor.predict(make_data()[0])
    assert dump(predictor) == expected
    run_interrupted(tmp_path / "checkpoint.pt")
    assert dump(make_predictor(run(checkpoint=tmp_path / "checkpoint.pt")[0])) == expected


# Device and seeds


@pytest.mark.parametrize(
    ("cuda", "mps", "own", "workers", "expected"),
    [
        (True, True, "", "1", "cuda:1"),
        (True, True, "2", "3", "cuda:2"),
        (False, True, "", "1", "mps"),
        (False, True, "0", "1", "mps"),
        (False, True, "0", "2", "cpu"),
        (False, False, "1", "2", "cpu"),
    ],
)
def test_the_fastest_available_device_is_used(monkeypatch, cuda, mps, own, workers, expected):
    chosen = give_devices(monkeypatch, cuda, mps)
    monkeypatch.setenv("LOCAL_RANK", own)
    monkeypatch.setenv("WORLD_SIZE", workers)
    assert choose_device() == torch.device(expected)
    assert [f"cuda:{card}" for card in chosen] == [expected] * cuda


def test_a_worker_without_a_graphics_card_fails(monkeypatch):
    give_devices(monkeypatch, cuda=True, mps=False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(UserError, match="3 graphics cards are visible, none is left for worker 4"):
        choose_device()


def give_devices(monkeypatch, cuda, mps):
    """Simulate three graphics cards, or none; the card that is set is appended to the list."""
    free, chosen = [2, 7, 5], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda card: (free[card], 8))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    return chosen


def test_a_seed_decides_all_random_numbers_and_algorithms_are_deterministic():
    def draw(seed):
        seed_everything(seed)
        legacy = np.random.rand()  # noqa: NPY002 - libraries share this generator
        return random.random(), legacy, torch.rand(()).item()

    assert draw(1) == draw(1)
    assert all(a != b for a, b in zip(draw(1), draw(2), strict=True))
    assert torch.are_deterministic_algorithms_enabled()
