"""Where the trials of a sweep are computed: processes of this machine, or a cluster of Ray.

An engine yields each job's result as soon as it is done; `lib.tuning` says what the jobs are.
Workers import this module as they start: what the driver alone needs (Optuna) has no place here.
"""

import hashlib
import math
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits

from lib.errors import ShortageError, UserError
from lib.nested import flat

RETRIES = 10  # of a task whose node was lost
SECONDS = 10  # for the head of a cluster to take a connection

Values = dict[str, Any]  # by dotted name
Job = tuple[Values, int | None]  # what is tried, and the budget of a rung
Result = dict[str, Any]  # metrics by dotted name and what else there was, or the error
Engine = Callable[[Mapping[Path, Job]], Iterator[tuple[Path, Result]]]


def on_this_machine(
    run: Callable[..., Mapping[str, Any]],
    data: Any,
    workers: int | None,
    jobs: Mapping[Path, Job],
) -> Iterator[tuple[Path, Result]]:
    """Processes of joblib, which stay from batch to batch; as many as there are cores, or fewer."""
    parallel = Parallel(
        n_jobs=workers or -1, return_as="generator_unordered", batch_size=1, pre_dispatch="all"
    )
    # Whoever leaves the other trials at an error says why.
    warnings.filterwarnings("ignore", ".*(but not used|been cancelled)", UserWarning, "joblib")
    try:
        yield from parallel(delayed(_named)(file, run, data, *job) for file, job in jobs.items())
    except TerminatedWorkerError:
        raise UserError(
            "A worker was killed: most often the machine was out of memory. With fewer workers, "
            "try again: the sweep goes on from where it was."
        ) from None


def on_ray(run: Callable[..., Mapping[str, Any]], data: Any) -> Engine:
    """Tasks of Ray, spread over the nodes of the cluster that RAY_ADDRESS names."""
    refuse_absent_cluster(*named_cluster())
    import ray

    try:
        ray.init(log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = os.environ["RAY_ADDRESS"]
        why = " ".join(str(error).split())
        raise UserError(f"RAY_ADDRESS is {where}, and no cluster is there: {why}") from None
    # The nodes work in clones of their own: all must have the code that this one has.
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
    """The variable that names a cluster, and what it says."""
    return "RAY_ADDRESS", os.environ.get("RAY_ADDRESS", "")


def refuse_absent_cluster(name: str, where: str) -> None:
    """UserError where nothing listens at a host:port: Ray would try for minutes.

    Other addresses (`auto`, ray://host:port) are left to Ray.

    Args:
        name: what a person has set to it.
        where: the address.
    """
    host, _, port = where.rpartition(":")
    if "://" in where or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"{name} is {where}, and no cluster is there: {error}. Mend it, or start the "
            "cluster (`make ray-head`)."
        ) from None


def sources() -> dict[str, str]:
    """The code of each module of `lib/` and `lab/` that is imported, hashed."""
    files = {
        name: module.__file__
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in ("lib", "lab") and getattr(module, "__file__", None)
    }
    return {
        name: hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for name, file in files.items()
        if file
    }


# ---- what workers do


def _one(run: Callable[..., Mapping[str, Any]], data: Any, values: Values, budget: Any) -> Result:
    """What a worker does for one trial; sums do not depend on the number of cores."""
    try:
        with threadpool_limits(1):
            returned = flat(run(data, values, budget))
        numbers = {
            key: value for key, each in returned.items() if (value := _number(each)) is not None
        }
    except ShortageError as error:  # it costs this trial, and the next start tries it again
        return {"raised": str(error)}
    except UserError as error:
        return {"error": str(error)}
    except (Exception, SystemExit) as error:  # so does a mistake
        return {"raised": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    metrics = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
    others = {key: type(each).__name__ for key, each in returned.items() if key not in numbers}
    return {"metrics": metrics, "others": others} if others else {"metrics": metrics}


def _number(value: Any) -> float | None:
    """A number as a float, numpy's and a tensor without dimensions too; None of all else."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    return float(value) if isinstance(value, Real) else None


def _named(file: Path, *arguments: Any) -> tuple[Path, Result]:
    return file, _one(*arguments)


def _one_on_a_node(shared: Any, code: Mapping[str, str], *job: Any) -> Result:
    """The same on a node, whose code must be the driver's."""
    others = [name for name, source in sources().items() if code.get(name, source) != source]
    if others:
        raise UserError(
            f"The node {os.uname().nodename} has another {others[0]} than the driver: check out "
            "the same commit on all nodes, and start their workers again."
        )
    return _one(*shared, *job)


if __name__ == "__main__":  # `make tune` asks before DVC removes what the last sweep left
    try:
        refuse_absent_cluster(*named_cluster())
    except UserError as error:
        sys.exit(str(error))
