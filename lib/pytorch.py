"""PyTorch for binary classification: loaders, a resumable training loop, a saved predictor.

Called by the processes that train networks; it knows none of them. Three things are notable:

- Loaders hand whole batches. A DataLoader's usual way, row by row and then collated, takes as long
  as the training itself; here a sampler yields one tensor of row numbers per batch.
- Training is reproducible to the bit, and continues from its checkpoint after a kill as if it had
  never stopped.
- `TorchClassifier` is a trained network behind scikit-learn's interface. Its pickle has the same
  bytes each time and needs this module, torch and scikit-learn to load: no process's code, no GPU.
"""

import copy
import hashlib
import io
import logging
import math
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Sampler, TensorDataset

from lib.errors import UserError

logger = logging.getLogger(__name__)

Loader = DataLoader[tuple[Tensor, ...]]
Labels = npt.NDArray[np.integer[Any]]


class NonFiniteLossError(UserError, ValueError):
    """The loss became NaN or infinite: nothing that follows would mean anything."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch, counted from 1: mean binary cross-entropies in nats, accuracies in [0, 1].

    Training figures are taken while the weights move, validation figures after they have.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class History:
    """Every epoch that was trained, in order, and the number of the one whose weights were kept."""

    records: list[EpochRecord]
    best_epoch: int

    @property
    def best(self) -> EpochRecord:
        """The record of the epoch that was kept."""
        return self.records[self.best_epoch - 1]


def choose_device() -> torch.device:
    """The fastest device of this machine: cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def seed_everything(seed: int) -> None:
    """Seeds python, numpy and torch, and makes torch use deterministic algorithms only.

    On CUDA, torch then raises unless the environment has CUBLAS_WORKSPACE_CONFIG=:4096:8 from
    before CUDA starts.
    Source: https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that take no generator draw from this one
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


class BatchIndices(Sampler[Tensor]):
    """Row numbers by whole batches, one int64 tensor each; every row once per epoch.

    Shuffles anew each epoch with `generator`, in the order of torch's RandomSampler; without one,
    the rows come in their own order. A rest of one row joins the batch before it, because batch
    norm cannot train on a single row.
    """

    def __init__(self, n_rows: int, batch_size: int, generator: torch.Generator | None) -> None:
        self.generator = generator
        self.n_rows = n_rows
        self.sizes = [batch_size] * (n_rows // batch_size)
        rest = n_rows % batch_size
        if rest == 1 and self.sizes:
            self.sizes[-1] += 1
        elif rest:
            self.sizes.append(rest)

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Tensor]:
        if self.generator is None:
            yield from torch.arange(self.n_rows).split(self.sizes)
            return
        yield from torch.randperm(self.n_rows, generator=self.generator).split(self.sizes)
        # RandomSampler draws once more for an empty remainder: later epochs stay equal to its.
        torch.randperm(self.n_rows, generator=self.generator)


def create_dataloader(
    X: npt.NDArray[np.float32], y: Labels, batch_size: int, shuffle: bool, seed: int
) -> Loader:
    """A DataLoader over (X, y) that hands whole batches, in an order that depends on `seed` alone.

    Memory-mapped arrays stay on disk: a batch's rows are read when it is asked for, and are a copy.

    Args:
        X: (n, d) float32.
        y: (n,) labels 0 and 1; batches keep their type.
        batch_size: rows per batch, at least 1; a rest of one row joins the batch before it.
        shuffle: a new order each epoch.
        seed: of the shuffling.

    Raises:
        ValueError: X and y differ in length or are empty, or batch_size is below 1.
    """
    if len(X) != len(y) or len(X) == 0:
        raise ValueError(
            f"X has {len(X)} rows and y {len(y)}: expected the same number, at least 1"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: expected at least 1")
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
        # torch warns that writing to a read-only array's tensor is undefined. Batches are copies:
        # nobody writes to it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def train(
    network: nn.Module,
    loader_train: Loader,
    loader_validation: Loader,
    *,
    lr: float,
    epochs: int,
    patience: int | None,
    device: torch.device,
    checkpoint: Path | None = None,
    checkpoint_every: int = 10,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> History:
    """The history of training `network` in place; the best epoch's weights are left in it.

    The best epoch has the highest validation accuracy; of equals, the lowest validation loss, then
    the earliest. With a checkpoint file of the same network, data and parameters, training goes on
    from there and ends with the same bits as if it had not been interrupted; a file that is damaged
    or belongs to another training is reported and not used. The caller removes the file when it has
    saved the result.

    Args:
        network: (b, d) to (b, 1) or (b,) logits; is moved to `device`.
        loader_train, loader_validation: batches of (X, y), y in {0, 1}.
        lr: Adam's learning rate.
        epochs: how many at most, at least 1.
        patience: stops after so many epochs without a better one; None never does.
        device: where to train.
        checkpoint: the file to write every `checkpoint_every` epochs, and to continue from.
        on_epoch: is called with each epoch trained, not with those that the checkpoint holds.

    Raises:
        ValueError: epochs, checkpoint_every or patience is below 1.
        NonFiniteLossError: a loss became NaN or infinite.
    """
    _check_at_least_one(epochs=epochs, checkpoint_every=checkpoint_every, patience=patience)
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, fused=True)
    training = _Training(network, optimizer, loader_train.generator)
    origin = ""
    if checkpoint:
        origin = _fingerprint(
            network, (loader_train, loader_validation), (lr, patience, device.type)
        )
        training.resume(checkpoint, origin, epochs)
    while len(training.records) < epochs and not training.is_stalled(patience):
        record = EpochRecord(
            len(training.records) + 1,
            *_run_epoch(network, loader_train, device, optimizer),
            *_run_epoch(network, loader_validation, device),
        )
        _check_finite(record, lr)
        training.add(record)
        if on_epoch:
            on_epoch(record)
        if checkpoint and record.epoch % checkpoint_every == 0:
            training.save(checkpoint, origin)
    network.load_state_dict(training.best_state)
    return History(training.records, training.best_epoch)


def _run_epoch(
    network: nn.Module,
    loader: Loader,
    device: torch.device,
    optimizer: torch.optim.Optimizer | None = None,
) -> tuple[float, float]:
    """Mean loss and accuracy over the loader's rows; with an optimizer, trains on them."""
    network.train(optimizer is not None)
    n_rows = 0
    loss_sum = torch.zeros((), device=device)
    n_correct = torch.zeros((), device=device, dtype=torch.int64)
    with torch.set_grad_enabled(optimizer is not None):
        for X, labels in loader:
            y = labels.to(device, torch.float32, non_blocking=True)
            logits = network(X.to(device, non_blocking=True)).flatten()
            loss = binary_cross_entropy_with_logits(logits, y)
            if optimizer:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            n_rows += len(y)
            loss_sum += loss.detach() * len(y)
            n_correct += ((logits.detach() > 0) == (y > 0)).sum()
    # Sums stay on the device until here: reading one makes the CPU wait for the GPU.
    return loss_sum.item() / n_rows, n_correct.item() / n_rows


def _check_at_least_one(**values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: expected at least 1")


def _check_finite(record: EpochRecord, lr: float) -> None:
    for name in ("train_loss", "validation_loss"):
        value = getattr(record, name)
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"epoch {record.epoch}: {name} is {value} with lr {lr:g}, expected a finite number;"
                f" lower lr (try {lr / 10:g}) or look for NaN and huge values in the input"
            )


class _Training:
    """What a training is made of between two epochs: all that a checkpoint must hold."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator | None,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.generator = generator
        self.records: list[EpochRecord] = []
        self.best_epoch = 0
        self.best_state: dict[str, Tensor] = {}

    def add(self, record: EpochRecord) -> None:
        """Takes an epoch into the history and, if it is the best so far, its weights too."""
        self.records.append(record)
        if not self.best_state or _rank(record) > _rank(self.records[self.best_epoch - 1]):
            self.best_epoch = record.epoch
            self.best_state = {k: v.detach().clone() for k, v in self.network.state_dict().items()}

    def is_stalled(self, patience: int | None) -> bool:
        """Whether `patience` epochs have gone by since the best one."""
        return patience is not None and len(self.records) - self.best_epoch >= patience

    def save(self, path: Path, origin: str) -> None:
        """Writes the checkpoint: at any moment the file is a whole one, the former or the new."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "records": [asdict(record) for record in self.records],
            "best_epoch": self.best_epoch,
            "best_state": self.best_state,
            "random": _random_states(self.network, self.generator),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        torch.save(state, data)
        _unfinished(path).write_bytes(_seal(origin, data.getvalue()) + data.getvalue())
        _unfinished(path).replace(path)

    def resume(self, path: Path, origin: str, epochs: int) -> None:
        """Continues from the checkpoint, if there is one and it fits."""
        _unfinished(path).unlink(missing_ok=True)
        saved = _read_checkpoint(path, origin, epochs)
        if saved is None:
            return
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.records = [EpochRecord(**record) for record in saved["records"]]
        self.best_epoch = saved["best_epoch"]
        self.best_state = saved["best_state"]
        _set_random_states(self.network, self.generator, saved["random"])
        logger.info("Training continues after epoch %s, from %s", len(self.records), path)


def _rank(record: EpochRecord) -> tuple[float, float]:
    return record.validation_accuracy, -record.validation_loss


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".unfinished")


def _read_checkpoint(path: Path, origin: str, epochs: int) -> dict[str, Any] | None:
    """What `save` wrote for this very training, or None.

    The seal covers content and origin, so torch unpickles nothing but what this training wrote.
    """
    if not path.exists():
        return None
    content = path.read_bytes()
    seal, data = content[:32], content[32:]
    if seal != _seal(origin, data):
        reason = "it is damaged or of other data, parameters, network, torch or thread count"
    else:
        saved: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if len(saved["records"]) <= epochs:
            return saved
        reason = f"it holds {len(saved['records'])} epochs, expected at most {epochs}"
    logger.warning("Checkpoint %s is not used, training starts afresh: %s", path, reason)
    return None


def _seal(origin: str, data: bytes) -> bytes:
    return hashlib.sha256(origin.encode() + data).digest()


def _fingerprint(network: nn.Module, loaders: tuple[Loader, ...], values: tuple[Any, ...]) -> str:
    """Hash of what decides a training's result; data outside a TensorDataset count by length only.

    Reading all data once costs a few hundredths of an epoch; a checkpoint of other data costs more.
    """
    batches = [
        (len(loader), getattr(loader.sampler, "sizes", loader.batch_size)) for loader in loaders
    ]
    shuffled = [getattr(loader.sampler, "generator", None) is not None for loader in loaders]
    # Sums are split over the threads: another number of them gives other last bits.
    arithmetic = (torch.__version__, torch.get_num_threads())
    digest = hashlib.sha256(repr((arithmetic, network, values, batches, shuffled)).encode())
    tensors = list(network.state_dict().values())
    for loader in loaders:
        tensors += getattr(loader.dataset, "tensors", ())
        if loader.generator:
            tensors.append(loader.generator.get_state())
    for tensor in tensors:
        digest.update(repr((tensor.shape, tensor.dtype)).encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    return digest.hexdigest()


def _random_states(network: nn.Module, generator: torch.Generator | None) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    device = next(network.parameters()).device.type
    if device != "cpu":
        states[device] = getattr(torch, device).get_rng_state()
    if generator:
        states["loader"] = generator.get_state()
    return states


def _set_random_states(
    network: nn.Module, generator: torch.Generator | None, states: dict[str, Tensor]
) -> None:
    torch.set_rng_state(states["cpu"])
    device = next(network.parameters()).device.type
    if device != "cpu":
        getattr(torch, device).set_rng_state(states[device])
    if generator:
        generator.set_state(states["loader"])


def predict_logits(
    network: nn.Module, X: npt.NDArray[np.float32], batch_size: int, device: torch.device
) -> npt.NDArray[np.float32]:
    """(n,) float32 logits of class 1 for X (n, d), which may be memory-mapped.

    The network is moved to `device` and left in evaluation mode.
    """
    network.to(device).eval()
    logits = np.empty(len(X), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(X), batch_size):
            rows = slice(start, start + batch_size)
            batch = torch.from_numpy(np.array(X[rows], dtype=np.float32)).to(device)
            logits[rows] = network(batch).flatten().cpu().numpy()
    return logits


def predict_probability(
    network: nn.Module,
    X: npt.NDArray[np.float32],
    batch_size: int = 4096,
    device: torch.device | None = None,
) -> npt.NDArray[np.float64]:
    """(n,) float64 probabilities of class 1: float32 logits, sigmoid in float64.

    On the CPU unless told otherwise.
    """
    logits = predict_logits(network, X, batch_size, device or torch.device("cpu"))
    return np.asarray(expit(logits.astype(np.float64)))


class TorchClassifier(ClassifierMixin, BaseEstimator):
    """A trained binary network behind scikit-learn's interface: the last step of a Pipeline.

    Wraps `network`, (b, d) float32 to (b, 1) logits of class 1, its first layer an nn.Linear.
    It is fitted from the beginning; `fit` refuses, and `clone` copies the weights. It predicts on
    the CPU unless told otherwise, wherever the network was trained. Pickled, the weights travel as
    numpy arrays beside the network without weights: the same network gives the same bytes in every
    interpreter, where torch's own pickle holds memory addresses. The network's layers must be
    importable where it is loaded, so it is best made of torch's own.
    """

    def __init__(self, network: nn.Module, device: str = "cpu", batch_size: int = 4096) -> None:
        self.network = network
        self.device = device
        self.batch_size = batch_size

    @property
    def classes_(self) -> npt.NDArray[np.int64]:
        """The labels, in the order of `predict_proba`'s columns."""
        return np.array([0, 1])

    @property
    def n_features_in_(self) -> int:
        """The number of columns that X must have."""
        return next(m for m in self.network.modules() if isinstance(m, nn.Linear)).in_features

    def fit(self, X: Any, y: Any) -> "TorchClassifier":
        """Always raises NotImplementedError: the network is trained before it comes here."""
        raise NotImplementedError(
            "TorchClassifier holds a network that is trained already; train with lib.pytorch.train"
        )

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(n,) float32 logits of class 1; ValueError unless X is (n, n_features_in_) and finite."""
        rows = check_array(X, dtype=np.float32)
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[1]} columns, expected the {self.n_features_in_} features that "
                "the network was trained on"
            )
        return predict_logits(self.network, rows, self.batch_size, torch.device(self.device))

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(n, 2) float64 probabilities of class 0 and 1: float32 logits, sigmoid in float64."""
        logits = self.decision_function(X).astype(np.float64)
        return np.column_stack([expit(-logits), expit(logits)])

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """(n,) the likelier class, 0 or 1."""
        return self.classes_[(self.decision_function(X) > 0).astype(np.int64)]

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


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters and buffers by name, those too that its state dict leaves out."""
    for name, parameter in network.named_parameters(remove_duplicate=False):
        yield name, parameter.detach()
    yield from network.named_buffers(remove_duplicate=False)
