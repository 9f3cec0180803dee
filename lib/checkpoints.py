"""Checkpoints of a training: always complete, and used only by the training that wrote them."""

import hashlib
import io
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.loaders import Loader

logger = logging.getLogger(__name__)


def write_checkpoint(path: Path, state: dict[str, Any], origin: str) -> None:
    """Write a checkpoint for `read_checkpoint`; at any moment the file is complete, old or new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    torch.save(state, data)
    _unfinished(path).write_bytes(_seal(origin, data.getvalue()) + data.getvalue())
    _unfinished(path).replace(path)


def read_checkpoint(path: Path, origin: str, epochs: int) -> dict[str, Any] | None:
    """The state that `write_checkpoint` wrote for the same origin; None with a warning otherwise.

    None without one if there is no file. The hash in the file covers its content and the origin, so
    torch only unpickles what this training wrote.
    """
    _unfinished(path).unlink(missing_ok=True)
    if not path.exists():
        return None
    content = path.read_bytes()
    seal, data = content[:32], content[32:]
    if seal != _seal(origin, data):
        reason = "it is damaged or of other data, parameters, code, Python, torch or thread count"
    else:
        saved: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if len(saved["records"]) <= epochs:
            return saved
        reason = f"it holds {len(saved['records'])} epochs, expected at most {epochs}"
    logger.warning("Checkpoint %s is not used, training starts afresh: %s", path, reason)
    return None


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".unfinished")


def _seal(origin: str, data: bytes) -> bytes:
    return hashlib.sha256(origin.encode() + data).digest()


def description(module: nn.Module) -> tuple[Any, ...]:
    """What defines a network or a loss beside its tensors: its `repr`, settings and code."""
    torchs_own = vars(nn.Module())
    settings = [
        (name, members(type(part)), {k: v for k, v in vars(part).items() if k not in torchs_own})
        for name, part in module.named_modules()
    ]
    return repr(module), settings_of(settings)


def members(kind: type) -> list[Any]:
    """The functions and values of a class and its bases; torch's own are known by its version."""
    classes = [each for each in kind.__mro__ if each.__module__.partition(".")[0] != "torch"]
    found: list[Any] = [kind.__module__]
    for name, member in ((n, m) for each in classes for n, m in vars(each).items()):
        inner = member
        if isinstance(member, staticmethod | classmethod):
            inner = member.__func__
        elif isinstance(member, property):
            inner = member.fget
        if isinstance(inner, FunctionType) or not name.startswith("__"):
            found.append((name, inner))
    return found


def settings_of(value: Any, depth: int = 12) -> Any:
    """A value's content, the same in each interpreter: in containers, partials and closures, too.

    Of a function, its code and docstring count, but not its comments, nor the functions and
    constants of its module that it uses; of other code, only the name, and of an object whose
    `repr` is a memory address, its type.
    """
    inside: Any = ()
    if isinstance(value, nn.Parameter):
        return "a parameter"  # is in the state
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta:
        value = value.detach().cpu()
        value = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:  # its repr is shortened
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return str(value.dtype), value.shape, content
    if isinstance(value, Mapping):
        inside = [*value.items()]
    elif isinstance(value, list | tuple):
        inside = value
    elif isinstance(value, set | frozenset):
        inside = sorted(value, key=repr)
    elif isinstance(value, partial):
        inside = value.func, value.args, value.keywords
    elif isinstance(value, FunctionType):
        defaults = value.__defaults__, value.__kwdefaults__
        inside = value.__qualname__, value.__code__, defaults, closed_over(value)
    elif isinstance(value, CodeType):
        depth += 2  # code inside code is read to its end: it cannot contain itself
        inside = value.co_code, value.co_names, value.co_consts
    elif isinstance(value, torch.device):
        return value.type  # each worker has its own card
    elif " at 0x" not in (text := repr(value)):
        return text
    else:
        return getattr(value, "__qualname__", type(value).__qualname__)
    return type(value).__name__, [settings_of(each, depth - 1) for each in inside if depth]


def closed_over(function: FunctionType) -> list[Any]:
    """The values of the variables around a function that it uses, if they have one yet."""
    found = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            found.append(cell.cell_contents)
    return found


def fingerprint(
    modules: tuple[nn.Module, ...], loaders: tuple[Loader, ...], values: tuple[Any, ...]
) -> str:
    """Hash of all that a training's result depends on; of data, only TensorDatasets are read.

    Of other data, only the length counts. Reading all data takes a few hundredths of an epoch.
    """
    batches = [
        (len(loader), getattr(loader.sampler, "sizes", loader.batch_size)) for loader in loaders
    ]
    shuffled = [getattr(loader.sampler, "generator", None) is not None for loader in loaders]
    # Sums are split over the threads, so their number changes the last bits.
    arithmetic = (torch.__version__, torch.get_num_threads())
    described = [description(module) for module in modules]
    digest = hashlib.sha256(repr((arithmetic, described, values, batches, shuffled)).encode())
    tensors = [tensor for module in modules for tensor in module.state_dict().values()]
    for loader in loaders:
        tensors += getattr(loader.dataset, "tensors", ())
        if loader.generator:
            tensors.append(loader.generator.get_state())
    for tensor in tensors:
        digest.update(repr((tensor.shape, tensor.dtype)).encode())
        content = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(content.view(torch.uint8).numpy().data)  # numpy has no bfloat16
    return digest.hexdigest()


def random_states(network: nn.Module, generator: torch.Generator | None) -> dict[str, Tensor]:
    """The states of the random generators: torch's, the device's and the loader's."""
    states = {"cpu": torch.get_rng_state()}
    device = next(network.parameters()).device.type
    if device != "cpu":
        states[device] = getattr(torch, device).get_rng_state()
    if generator:
        states["loader"] = generator.get_state()
    return states


def set_random_states(
    network: nn.Module, generator: torch.Generator | None, states: dict[str, Tensor]
) -> None:
    """Restore the states that `random_states` returned."""
    torch.set_rng_state(states["cpu"])
    device = next(network.parameters()).device.type
    if device != "cpu":
        getattr(torch, device).set_rng_state(states[device])
    if generator:
        generator.set_state(states["loader"])
