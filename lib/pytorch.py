"""PyTorch for any task: a resumable training loop, metrics, and predictors to save.

Called by the processes that train networks. Notable:

- Training is reproducible to the bit. After a kill it resumes from its checkpoint, with the same
  result as without the interruption.
- Loss and metrics are arguments; the best epoch by any of them is kept.
- With several workers (lib/distributed.py), each has its share of every batch.
- `TorchClassifier` and `TorchRegressor` are trained networks with scikit-learn's interface. Their
  pickles have the same bytes each time and need only this module, torch and scikit-learn to load,
  no process's code and no GPU.
"""

import copy
import logging
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import f1_score, r2_score
from sklearn.utils import check_array
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lib import distributed, loaders
from lib.better import better_when
from lib.checkpoints import (
    fingerprint,
    random_states,
    read_checkpoint,
    set_random_states,
    settings_of,
    write_checkpoint,
)
from lib.errors import UserError
from lib.loaders import Loader, Targets
from lib.loaders import create_dataloader as create_dataloader  # noqa: PLC0414 - for processes

logger = logging.getLogger(__name__)

Metric = Callable[[Tensor, Tensor], float]
CreateOptimizer = Callable[..., torch.optim.Optimizer]  # (parameters, lr=…)
CreateScheduler = Callable[[torch.optim.Optimizer], LRScheduler]
ADAM = partial(torch.optim.Adam, fused=True)
Precision = Literal["float32", "bfloat16"]


class NonFiniteLossError(UserError, ValueError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch, counted from 1, and its measures: `train_loss`, `validation_loss` and so on.

    Training measures are taken while the weights change, validation measures after the epoch.
    """

    epoch: int
    measures: Mapping[str, float]

    @property
    def row(self) -> dict[str, float]:
        """The epoch and its measures as a row of a table."""
        return {"epoch": self.epoch, **self.measures}


@dataclass(frozen=True)
class History:
    """All epochs trained, in order, and the number of the one whose weights were kept."""

    records: list[EpochRecord]
    best_epoch: int

    @property
    def best(self) -> EpochRecord:
        """The record of the epoch that was kept."""
        return self.records[self.best_epoch - 1]


# ---- metrics, weights, device and seeds


def accuracy(outputs: Tensor, y: Tensor) -> float:
    """The share of correct classes, from (n,) logits of class 1 or (n, k) logits of k classes."""
    found = outputs > 0 if outputs.ndim == 1 else outputs.argmax(dim=1)
    return (found == y).sum().item() / len(y)


def macro_f1(outputs: Tensor, y: Tensor) -> float:
    """The mean of all classes' F1 scores, from (n, k) logits."""
    classes = range(outputs.shape[1])
    found = outputs.argmax(dim=1).cpu()
    return float(f1_score(y.cpu(), found, labels=classes, average="macro", zero_division=0))


def rmse(outputs: Tensor, y: Tensor) -> float:
    """Root of the mean squared error."""
    return (outputs - y).square().mean().sqrt().item()


def r2(outputs: Tensor, y: Tensor) -> float:
    """The share of the variance explained; 0 for a model that always predicts the mean."""
    return float(r2_score(y.cpu(), outputs.cpu()))


def balanced_weights(y: Targets) -> Tensor:
    """(k,) float32 weights for a loss in which all classes count the same, however rare.

    Use `nn.CrossEntropyLoss(weight=balanced_weights(y), reduction="none")`: its own mean divides by
    the weights in a batch, or in a worker's share of it. For two classes, the weight of the second
    divided by that of the first is the `pos_weight` of `nn.BCEWithLogitsLoss`.
    """
    return torch.tensor(
        compute_class_weight("balanced", classes=np.unique(y), y=np.asarray(y)), dtype=torch.float32
    )


def choose_device() -> torch.device:
    """The fastest device of this machine: cuda, else mps (only with one worker), else cpu.

    Of several graphics cards in CUDA_VISIBLE_DEVICES, the one with the most free memory; workers
    that torchrun started have one each. It becomes torch's current card, which "cuda" means.

    Raises:
        UserError: there are more workers than graphics cards.
    """
    if torch.cuda.is_available():
        cards = range(torch.cuda.device_count())
        own = os.environ.get("LOCAL_RANK")
        card = int(own) if own else max(cards, key=free_memory)
        if card not in cards:
            raise UserError(
                f"workers: {len(cards)} graphics cards are visible, none is left for worker "
                f"{card + 1} of this computer. Lower workers in params.yaml, show more cards "
                "(CUDA_VISIBLE_DEVICES), or none, to train on the CPU."
            )
        torch.cuda.set_device(card)  # for calls that do not name a card
        return torch.device("cuda", card)
    alone = os.environ.get("WORLD_SIZE", "1") == "1"  # gloo, which workers use, has no mps
    return torch.device("mps" if alone and torch.backends.mps.is_available() else "cpu")


def free_memory(card: int) -> int:
    """The free memory of a graphics card in bytes."""
    return torch.cuda.mem_get_info(card)[0]


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch, and let torch use only deterministic algorithms.

    On CUDA, torch then raises unless CUBLAS_WORKSPACE_CONFIG=:4096:8 was in the environment before
    CUDA started.
    Source: https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that take no generator draw from this one
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


# ---- training


def train(
    network: nn.Module,
    loader_train: Loader,
    loader_validation: Loader,
    *,
    loss: nn.Module,
    metrics: Mapping[str, Metric],
    best_by: Sequence[str] = ("validation_loss",),
    lr: float,
    epochs: int,
    patience: int | None,
    device: torch.device,
    optimizer: CreateOptimizer = ADAM,
    scheduler: CreateScheduler | None = None,
    max_grad_norm: float | None = None,
    precision: Precision = "float32",
    accumulate: int = 1,
    checkpoint: Path | None = None,
    checkpoint_every: int = 10,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> History:
    """Train `network` in place, leave the best epoch's weights in it, and return the history.

    The best epoch is the best by the first measure in `best_by`; of equals, by the next; then the
    earliest. A measure's name says whether larger is better (lib/better.py).

    With a checkpoint of the same network, data and parameters, training resumes from it and ends
    with the same bits as without interruption; for a damaged file or one of another training, a
    warning is logged and it is not used. The caller removes the file after saving the result.

    Args:
        network: (b, d) to (b, 1), (b,) or (b, k); is moved to `device`. Predictors give it float32:
            for an embedding, it calls `X.long()` itself.
        loader_train, loader_validation: batches of (X, y).
        loss: of outputs and y, the mean over rows, or a value per row (`reduction="none"`). A
            single column of outputs is passed as (b,), and y as float32, or as int64 if there are
            several columns and y is (b,) whole numbers: classes.
        metrics: of all outputs and y of an epoch (above WINDOW_ROWS rows, averaged over windows of
            that size); `accuracy` here is `train_accuracy` and `validation_accuracy` in the
            records, which also have `train_loss` and `validation_loss`.
        best_by: names in the records.
        lr: the optimizer's learning rate.
        epochs: the largest number of epochs, at least 1.
        patience: stops after this many epochs without a better one; None never stops early.
        device: where to train.
        optimizer: called with the parameters and `lr=lr`, as `partial(AdamW, weight_decay=0.01)`.
        scheduler: called with the optimizer, as `partial(CosineAnnealingLR, T_max=epochs)`; it
            steps after each epoch, ReduceLROnPlateau by the first measure in best_by.
        max_grad_norm: clips the norm of all gradients together before each step; above 0.
        precision: bfloat16 uses torch's autocast; weights stay float32.
        accumulate: the number of batches per optimizer step; the last step may have fewer.
        checkpoint: the file to write every `checkpoint_every` epochs, and to resume from.
        on_epoch: called with each epoch trained, but not with those in the checkpoint. Only the
            first worker calls it, and reads and writes the checkpoint.

    Raises:
        UserError: with a checkpoint, the workers would not train the same.
        ValueError: epochs, checkpoint_every, accumulate or patience is below 1, max_grad_norm is
            not above 0, or a name in best_by is not in the records, or does not tell whether larger
            is better, or ReduceLROnPlateau has the mode for the opposite.
        NonFiniteLossError: a loss became NaN or infinite.
    """
    _check_at_least_one(
        epochs=epochs, checkpoint_every=checkpoint_every, accumulate=accumulate, patience=patience
    )
    if max_grad_norm is not None and max_grad_norm <= 0:
        raise ValueError(f"max_grad_norm is {max_grad_norm}: expected more than 0, or None")
    _check_best_by(best_by, metrics)
    loss.to(device)
    wrapped = distributed.wrap(network.to(device), device)
    built = optimizer(wrapped.parameters(), lr=lr)
    scheduled = scheduler(built) if scheduler else None
    _check_mode(scheduled, best_by[0])
    steps = _Steps(built, scheduled, max_grad_norm, accumulate)
    training = _Training(distributed.unwrap(wrapped), steps, loader_train.generator, best_by)
    run_epoch = partial(_run_epoch, wrapped, loss=loss, metrics=metrics, precision=precision)
    origin = ""
    if checkpoint:
        workers = distributed.world_size()
        # Of the scheduler, its own description lacks the values in functions.
        given = settings_of((metrics, best_by, scheduler))
        values = (steps.description(), patience, device.type, precision, workers, given)
        origin = fingerprint((network, loss), (loader_train, loader_validation), values)
        training.resume(checkpoint, origin, epochs)
    while len(training.records) < epochs and not training.is_stalled(patience):
        if generator := loader_train.generator:
            distributed.seed_epoch(generator.initial_seed(), len(training.records))
        train_measures = run_epoch(loader_train, device, steps=steps)
        validation_measures = run_epoch(loader_validation, device)
        measures = {f"train_{name}": value for name, value in train_measures.items()}
        measures |= {f"validation_{name}": value for name, value in validation_measures.items()}
        record = EpochRecord(len(training.records) + 1, measures)
        _check_finite(record, lr)
        training.add(record)
        steps.end_epoch(record.measures[best_by[0]])
        if on_epoch and distributed.is_first():
            on_epoch(record)
        if checkpoint and distributed.is_first() and record.epoch % checkpoint_every == 0:
            training.save(checkpoint, origin)
    network.load_state_dict(training.best_state)
    return History(training.records, training.best_epoch)


def _run_epoch(
    network: nn.Module,
    loader: Loader,
    device: torch.device,
    *,
    loss: nn.Module,
    metrics: Mapping[str, Metric],
    precision: Precision,
    steps: "_Steps | None" = None,
) -> dict[str, float]:
    """The mean loss and the metrics over the loader's rows; with steps, trains on them."""
    network.train(steps is not None)
    loss_sum = torch.zeros((), device=device)
    measured = _Measured(metrics)
    rounded = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with torch.set_grad_enabled(steps is not None):
        for n, (X, targets) in enumerate(loader):
            with rounded:
                outputs = _without_single_column(network(X.to(device, non_blocking=True))).float()
            classes = targets.ndim == 1 and not targets.is_floating_point()
            kind = torch.int64 if classes and outputs.ndim == 2 else torch.float32
            y = _without_single_column(targets.to(device, kind, non_blocking=True))
            mean = loss(outputs, y).mean()
            if steps:
                steps.learn(mean * distributed.share_of_mean(y), n, len(loader))
            loss_sum += mean.detach() * len(y)
            measured.add(outputs.detach(), y)
    measures = measured.values()
    return {"loss": distributed.all_reduce(loss_sum).item() / measured.n_rows, **measures}


class _Steps:
    """What changes the weights: optimizer, scheduler, and how gradients are summed and clipped."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler | None,
        max_grad_norm: float | None,
        accumulate: int,
    ) -> None:
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.max_grad_norm = max_grad_norm
        self.accumulate = accumulate

    def learn(self, loss: Tensor, n: int, n_batches: int) -> None:
        """Add the gradients of the n-th batch of an epoch, and step with the last of several."""
        first = n // self.accumulate * self.accumulate
        of_step = min(self.accumulate, n_batches - first)
        if n == first:
            self.optimizer.zero_grad()
        (loss / of_step).backward()
        if n - first == of_step - 1:
            if self.max_grad_norm is not None:
                weights = [w for group in self.optimizer.param_groups for w in group["params"]]
                nn.utils.clip_grad_norm_(weights, self.max_grad_norm)
            self.optimizer.step()

    def end_epoch(self, measure: float) -> None:
        """Let the scheduler choose the learning rate of the next epoch."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(measure)
        elif self.scheduler:
            self.scheduler.step()

    def description(self) -> tuple[Any, ...]:
        """All settings, before the first step."""
        kinds = [type(each).__name__ for each in (self.optimizer, self.scheduler)]
        return kinds, self.state_dict(), self.max_grad_norm, self.accumulate

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        scheduled = self.scheduler.state_dict() if self.scheduler else {}
        return {"optimizer": self.optimizer.state_dict(), "scheduler": scheduled}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])


class _Measured:
    """The metrics of an epoch: of all rows, or above WINDOW_ROWS, averaged over windows.

    Windows have the same number of batches on each worker, as they are measured together.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.metrics = metrics
        self.outputs: list[Tensor] = []
        self.y: list[Tensor] = []
        self.batches_at_a_time = 0
        self.windows: list[tuple[int, dict[str, float]]] = []

    def add(self, outputs: Tensor, y: Tensor) -> None:
        """Add a batch. All stays on the device: reading a value makes the CPU wait for it."""
        if not self.batches_at_a_time:
            rows = distributed.all_reduce(torch.tensor(len(y), device=y.device)).item()
            self.batches_at_a_time = math.ceil(loaders.WINDOW_ROWS / rows)
        if len(self.y) == self.batches_at_a_time:
            self._measure()
        self.outputs.append(outputs)
        self.y.append(y)

    def values(self) -> dict[str, float]:
        """Each metric, with windows weighted by their rows."""
        self._measure()
        if len(self.windows) == 1:
            return self.windows[0][1]
        return {
            name: sum(n * values[name] for n, values in self.windows) / self.n_rows
            for name in self.metrics
        }

    @property
    def n_rows(self) -> int:
        """The number of rows measured, of all workers together."""
        return sum(n for n, _ in self.windows)

    def _measure(self) -> None:
        parts = (torch.cat(self.outputs), torch.cat(self.y))
        outputs, y = (distributed.all_gather(part) for part in parts)
        finite = bool(torch.isfinite(outputs).all())  # else metrics may raise; the loss tells it
        values = {
            name: float(metric(outputs, y)) if finite else math.nan
            for name, metric in self.metrics.items()
        }
        self.windows.append((len(y), values))
        self.outputs, self.y = [], []


def _without_single_column(outputs: Tensor) -> Tensor:
    """(b, 1) as (b,); other shapes unchanged."""
    return outputs.flatten() if outputs.shape[1:] == (1,) else outputs


def _check_mode(scheduler: LRScheduler | None, name: str) -> None:
    """ValueError for a ReduceLROnPlateau that would take each better epoch for a worse one."""
    mode = "max" if better_when(name) > 0 else "min"
    if isinstance(scheduler, ReduceLROnPlateau) and scheduler.mode != mode:
        raise ValueError(
            f"ReduceLROnPlateau has mode={scheduler.mode!r}, but {name}, the first measure in "
            f"best_by, is better {'larger' if mode == 'max' else 'smaller'}: give mode={mode!r}"
        )


def _check_best_by(best_by: Sequence[str], metrics: Mapping[str, Metric]) -> None:
    known = [f"{split}_{name}" for split in ("train", "validation") for name in ("loss", *metrics)]
    if not best_by:
        raise ValueError(f"best_by is empty: expected names of {', '.join(known)}")
    for name in best_by:
        if name not in known:
            raise ValueError(f"best_by is {name!r}: expected one of {', '.join(known)}")
        if not better_when(name):
            raise ValueError(
                f"best_by is {name!r}, which does not tell whether larger is better: give the "
                "metric a name that ends in _score or _error"
            )


def _check_at_least_one(**values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: expected at least 1")


def _check_finite(record: EpochRecord, lr: float) -> None:
    for name in ("train_loss", "validation_loss"):
        value = record.measures[name]
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"epoch {record.epoch}: {name} is {value} with lr {lr:g}, expected a finite number;"
                f" lower lr (try {lr / 10:g}) or look for NaN and huge values in the input"
            )


class _Training:
    """The state of a training between two epochs, as it is kept in a checkpoint."""

    def __init__(
        self,
        network: nn.Module,
        steps: _Steps,
        generator: torch.Generator | None,
        best_by: Sequence[str],
    ) -> None:
        self.best_by = best_by
        self.network = network
        self.steps = steps
        self.generator = generator
        self.records: list[EpochRecord] = []
        self.best_epoch = 0
        self.best_state: dict[str, Tensor] = {}

    def add(self, record: EpochRecord) -> None:
        """Add an epoch to the history; if it is the best so far, keep its weights."""
        self.records.append(record)
        if not self.best_state or self.rank(record) > self.rank(self.records[self.best_epoch - 1]):
            self.best_epoch = record.epoch
            self.best_state = {k: v.detach().clone() for k, v in self.network.state_dict().items()}

    def rank(self, record: EpochRecord) -> list[float]:
        """A sort key that is larger for a better epoch; NaN ranks lowest."""
        values = [record.measures[name] * better_when(name) for name in self.best_by]
        return [-math.inf if math.isnan(value) else value for value in values]

    def is_stalled(self, patience: int | None) -> bool:
        """Whether there were `patience` epochs since the best one."""
        return patience is not None and len(self.records) - self.best_epoch >= patience

    def save(self, path: Path, origin: str) -> None:
        """Write the checkpoint; at any moment the file is complete, old or new."""
        state = {
            "network": self.network.state_dict(),
            "steps": self.steps.state_dict(),
            "records": [dict(record.measures) for record in self.records],
            "best_epoch": self.best_epoch,
            "best_state": self.best_state,
            "random": random_states(self.network, self.generator),
        }
        write_checkpoint(path, state, origin)

    def resume(self, path: Path, origin: str, epochs: int) -> None:
        """Continue from the checkpoint, if there is one and it fits.

        The first worker reads it for all: the others, with disks of their own, may not have it.
        """
        distributed.check_agreed(origin)
        found = read_checkpoint(path, origin, epochs) if distributed.is_first() else None
        saved = distributed.broadcast(found)
        if saved is None:
            return
        self.network.load_state_dict(saved["network"])
        self.steps.load_state_dict(saved["steps"])
        self.records = [EpochRecord(n, row) for n, row in enumerate(saved["records"], start=1)]
        self.best_epoch = saved["best_epoch"]
        self.best_state = saved["best_state"]
        set_random_states(self.network, self.generator, saved["random"])
        logger.info("Training continues after epoch %s, from %s", len(self.records), path)


# ---- prediction


def predict_outputs(
    network: nn.Module, X: npt.NDArray[np.float32], batch_size: int, device: torch.device
) -> npt.NDArray[np.float32]:
    """(n,) float32 if there is one output, else (n, k), for X (n, d), which may be memory-mapped.

    The network is moved to `device` and left in evaluation mode.
    """
    network.to(device).eval()
    outputs = np.empty(0, dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(X), batch_size):
            batch = torch.from_numpy(np.array(X[start : start + batch_size], dtype=np.float32))
            found = _without_single_column(network(batch.to(device))).cpu().numpy()
            if start == 0:
                outputs = np.empty((len(X), *found.shape[1:]), dtype=np.float32)
            outputs[start : start + len(found)] = found
    return outputs


def predict_probability(
    network: nn.Module,
    X: npt.NDArray[np.float32],
    batch_size: int = 4096,
    device: torch.device | None = None,
) -> npt.NDArray[np.float64]:
    """float64 probabilities from float32 logits: (n,) of class 1, or (n, k) of k classes.

    Computed on the CPU by default.
    """
    logits = predict_outputs(network, X, batch_size, device or torch.device("cpu"))
    logits = logits.astype(np.float64)
    return np.asarray(expit(logits, out=logits) if logits.ndim == 1 else softmax(logits, axis=1))


class _Trained(BaseEstimator):
    """The base of both predictors: a trained network, its input and its pickle.

    `network` takes rows; for images, let it begin with `nn.Unflatten`. It is fitted already: `fit`
    raises, and `clone` copies the weights. Predictions are made on the CPU by default, wherever the
    network was trained. Pickles hold the weights as numpy arrays beside the network without them:
    the same network gives the same bytes in every interpreter, while torch's pickles contain memory
    addresses. The layers must be importable when it is loaded, so prefer torch's own.
    """

    network: nn.Module
    device: str
    batch_size: int

    @property
    def n_features_in_(self) -> int:
        """The number of columns that X must have, if the first layer with weights tells it.

        Of layers without weights before it, such as nn.Dropout, only nn.Unflatten changes it.
        """
        layers = [m for m in self.network.modules() if not [*m.children()]]
        first = next((m for m in layers if isinstance(m, nn.Unflatten) or [*m.parameters()]), None)
        # nn.Linear, nn.BatchNorm1d, nn.LayerNorm
        for name in ("in_features", "num_features", "normalized_shape"):
            if hasattr(first, name):
                return int(np.prod(getattr(first, name)))
        raise AttributeError(f"{first} does not tell how many columns X must have")

    def fit(self, X: Any, y: Any) -> "_Trained":
        """Always raises NotImplementedError: the network is already trained."""
        raise NotImplementedError(
            f"{type(self).__name__} holds a network that is trained already; train with "
            "lib.pytorch.train"
        )

    def _outputs(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The network's outputs; ValueError unless X is (n, n_features_in_) and finite."""
        rows = check_array(X, dtype=np.float32)
        expected = getattr(self, "n_features_in_", rows.shape[1])
        if rows.shape[1] != expected:
            raise ValueError(
                f"X has {rows.shape[1]} columns, expected the {expected} features that the network "
                "was trained on"
            )
        return predict_outputs(self.network, rows, self.batch_size, torch.device(self.device))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state["network"] = copy.deepcopy(self.network).to("meta").eval()
        state["weights"] = {name: t.cpu().numpy() for name, t in _tensors(self.network)}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights = state.pop("weights")
        super().__setstate__(state)
        self.network.to_empty(device="cpu")
        for name, tensor in _tensors(self.network):
            tensor.copy_(torch.from_numpy(np.array(weights[name])))


class TorchClassifier(ClassifierMixin, _Trained):
    """A trained network for two or more classes with scikit-learn's interface.

    The network returns (b, 1) logits of the second class, or (b, k) logits of all. `classes` are
    the labels in the network's order, text or numbers; None means 0 and 1.
    """

    def __init__(
        self,
        network: nn.Module,
        device: str = "cpu",
        batch_size: int = 4096,
        classes: Sequence[Any] | None = None,
    ) -> None:
        self.network = network
        self.device = device
        self.batch_size = batch_size
        self.classes = classes

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """The labels, in the order of `predict_proba`'s columns."""
        return np.array([0, 1] if self.classes is None else self.classes)

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """float32 logits: (n,) of the second class, or (n, k); ValueError for another width."""
        return self._outputs(X)

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(n, k) float64 probabilities of each class, computed in float64 from float32 logits."""
        logits = self.decision_function(X).astype(np.float64)
        if logits.ndim == 1:
            return np.column_stack([expit(-logits), expit(logits)])
        return np.asarray(softmax(logits, axis=1))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """(n,) the most probable class."""
        logits = self.decision_function(X)
        found = (logits > 0).astype(np.int64) if logits.ndim == 1 else logits.argmax(axis=1)
        return self.classes_[found]

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if state["classes"] is None:  # as in older pickles, all of classes 0 and 1
            del state["classes"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"classes": None} | state)


class TorchRegressor(RegressorMixin, _Trained):
    """A trained network that predicts numbers, with scikit-learn's interface.

    The network returns (b, 1) or (b, m) standardised numbers; `mean` and `scale` of the
    standardisation convert them back to the unit of the data.
    """

    def __init__(
        self,
        network: nn.Module,
        device: str = "cpu",
        batch_size: int = 4096,
        mean: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        self.network = network
        self.device = device
        self.batch_size = batch_size
        self.mean = mean
        self.scale = scale

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(n,) or (n, m) float64, in the unit of the data."""
        return self._outputs(X).astype(np.float64) * self.scale + self.mean


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters and buffers by name, including those not in the state dict."""
    for name, parameter in network.named_parameters(remove_duplicate=False):
        yield name, parameter.detach()
    yield from network.named_buffers(remove_duplicate=False)
