"""Computes the trials of a sweep: in processes of this machine, or on a Ray cluster.

An engine yields the result of each job of `lib.tuning` as soon as it is done. Workers import this
module when they start, so it imports nothing that only the driver needs, such as Optuna.
"""

import hashlib
import math
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits

from lib.errors import ShortageError, UserError
from lib.nested import flat

RETRIES = 10  # of a task whose node was lost
SECONDS = 10  # to connect to a cluster's head
SOURCES: dict[str, tuple[Any, str]] = {}  # what `sources` has read: a module's spec, and hash

Values = dict[str, Any]  # by dotted name
Job = tuple[Values, int | None]  # the values to try, and a rung's budget
Result = dict[str, Any]  # metrics by dotted name and types of other values, or the error
Engine = Callable[[Mapping[Path, Job]], Iterator[tuple[Path, Result]]]


def on_this_machine(
    run: Callable[..., Mapping[str, Any]],
    data: Any,
    workers: int | None,
    jobs: Mapping[Path, Job],
) -> Iterator[tuple[Path, Result]]:
    """Runs jobs in `workers` processes of joblib, by default one per core, reused for batches."""
    parallel = Parallel(
        n_jobs=workers or -1, return_as="generator_unordered", batch_size=1, pre_dispatch="all"
    )
    # After an error the other trials are dropped; the error itself is reported.
    warnings.filterwarnings("ignore", ".*(but not used|been cancelled)", UserWarning, "joblib")
    code = sources()
    tasks = (delayed(_named)(file, code, run, data, *job) for file, job in jobs.items())
    try:
        with without_interrupts():
            results = parallel(tasks)
        yield from results
    except TerminatedWorkerError:
        raise UserError(
            "A worker was killed: most often the machine was out of memory. With fewer workers, "
            "try again: the sweep goes on from where it was."
        ) from None


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which reaches all processes of a terminal.

    Workers would end with tracebacks of their own; the driver ends them.
    """
    if threading.current_thread() is not threading.main_thread():  # the only one that gets signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # processes that start inherit it
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def on_ray(run: Callable[..., Mapping[str, Any]], data: Any) -> Engine:
    """An engine of Ray tasks, spread over the nodes of the cluster at RAY_ADDRESS."""
    refuse_absent_cluster(*named_cluster())
    import ray

    try:
        ray.init(log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = os.environ["RAY_ADDRESS"]
        why = " ".join(str(error).split())
        raise UserError(f"RAY_ADDRESS is {where}, and no cluster is there: {why}") from None
    # Nodes work in clones of their own, which must have the same code as this one.
    code = sources()
    shared = ray.put((run, data))
    task = ray.remote(max_retries=RETRIES, scheduling_strategy="SPREAD")(_one_on_a_node)

    def compute(jobs: Mapping[Path, Job]) -> Iterator[tuple[Path, Result]]:
        waiting = {task.remote(shared, code, *job): file for file, job in jobs.items()}
        while waiting:
            done = ray.wait(list(waiting))[0][0]
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                why = " ".join(str(error).split())[:300]
                raise UserError(
                    f"The cluster lost a trial {RETRIES} times: {why} Try again: the sweep goes on "
                    "from where it was."
                ) from None
            yield waiting.pop(done), result

    return compute


def named_cluster() -> tuple[str, str]:
    """The variable with a cluster's address, and its value."""
    return "RAY_ADDRESS", os.environ.get("RAY_ADDRESS", "")


def refuse_absent_cluster(name: str, where: str) -> None:
    """UserError if nothing listens at a host:port: Ray would try for minutes.

    Other addresses (`auto`, ray://host:port) are left to Ray.

    Args:
        name: the variable with the address.
        where: the address.
    """
    host, _, port = where.rpartition(":")
    if "://" in where or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"{name} is {where}, and no cluster is there: {error}. Fix it, or start the "
            "cluster (`make ray-head`)."
        ) from None


def sources() -> dict[str, str]:
    """The hash of the source of each imported module of `lib/` and `lab/`.

    Each is read at the first call after its import, so that an edit counts only once the module is
    reloaded, which gives it another spec.
    """
    for name, module in list(sys.modules.items()):
        file, spec = getattr(module, "__file__", None), getattr(module, "__spec__", None)
        known, _ = SOURCES.get(name, (None, ""))
        if name.partition(".")[0] in ("lib", "lab") and file and (not known or known is not spec):
            SOURCES[name] = spec, hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return {name: source for name, (_, source) in SOURCES.items()}


# ---- on workers


def _one(run: Callable[..., Mapping[str, Any]], data: Any, values: Values, budget: Any) -> Result:
    """The result of one trial, in one thread: sums do not depend on the number of cores."""
    try:
        with threadpool_limits(1):
            returned = flat(run(data, values, budget))
        numbers = {
            key: value for key, each in returned.items() if (value := _number(each)) is not None
        }
    except ShortageError as error:  # fails this trial, which the next start of the sweep retries
        return {"raised": str(error)}
    except UserError as error:
        return {"error": str(error)}
    except (Exception, SystemExit) as error:  # likewise
        return {"raised": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    metrics = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
    others = {key: type(each).__name__ for key, each in returned.items() if key not in numbers}
    return {"metrics": metrics, "others": others} if others else {"metrics": metrics}


def _number(value: Any) -> float | None:
    """A number as a float, also of numpy or a tensor without dimensions; None for all else."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    return float(value) if isinstance(value, Real) else None


def _named(file: Path, code: Mapping[str, str], *arguments: Any) -> tuple[Path, Result]:
    """The result of `_one` with its file, in a worker, which must have the driver's code."""
    if name := _other_code(code):
        raise UserError(
            f"{name} is not as it was when the sweep began: start the sweep again (in a notebook, "
            "with a new kernel)."
        )
    return file, _one(*arguments)


def _one_on_a_node(shared: Any, code: Mapping[str, str], *job: Any) -> Result:
    """As `_one`, on a node, which must have the driver's code."""
    if name := _other_code(code):
        raise UserError(
            f"The node {os.uname().nodename} has another {name} than the driver: check out "
            "the same commit on all nodes, and start their workers again."
        )
    return _one(*shared, *job)


def _other_code(code: Mapping[str, str]) -> str:
    """A module whose code is not the driver's; empty if there is none."""
    return next((name for name, found in sources().items() if code.get(name, found) != found), "")
