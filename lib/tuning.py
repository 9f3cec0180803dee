"""Searches for the best parameters in a sweep, which gives the same bytes however it is run.

Optuna suggests values; processes on this machine, or a cluster, train with them. Notable:

- Optuna suggests a batch of trials at once and gets their results in order when all are done. So
  the values depend on the seed and the size of a batch, not on the number of workers or on which
  of them is first.
- Finished trials are never computed again. Each result is written at once to a file named after all
  that it depends on, where a sweep that was killed, or is given more trials, finds it.
- One machine needs no cluster: joblib starts processes. If RAY_ADDRESS names a Ray cluster, the
  same functions run as its tasks; one that is lost with its node is computed on another.
- A worker gets data and values and returns metrics: it writes and logs nothing.
"""

import hashlib
import json
import logging
import math
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from lib.better import better_when
from lib.engines import Job, Result, Values, on_ray, on_this_machine, sources
from lib.errors import UserError
from lib.files import read_json, write_json
from lib.params import Section, unknown
from lib.progress import progress
from lib.space import Tuning, is_better, ranges

KEPT = ("metrics", "others", "error")  # keys of a result to reuse; `raised` is tried again

optuna.logging.set_verbosity(optuna.logging.WARNING)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """One trial: its values and its result."""

    number: int
    values: Values
    state: str  # complete, pruned (worse than others in its batch) or failed
    budget: int | None  # of the last rung it reached
    objective: float | None
    metrics: Mapping[str, float | None]
    reason: str  # why it failed


@dataclass(frozen=True)
class Sweep:
    """All trials in order, the best complete one, and Optuna's study."""

    trials: Sequence[Trial]
    best: Trial
    study: optuna.Study
    settings: Tuning


def tune(
    ask: Callable[[optuna.Trial], Values],
    run: Callable[[Any, Values, int | None], Mapping[str, Any]],
    data: Any,
    settings: Tuning,
    *,
    seed: int,
    origin: str,
    folder: Path,
    on_trial: Callable[[Trial], None] | None = None,
) -> Sweep:
    """Run a sweep and return its trials.

    With rungs, the trials of a batch run with the first budget, the better half of them (of equals,
    the earlier) with the next, and so on: successive halving, decided in trial order.
    Source: Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943

    Args:
        ask: returns the values of a trial (`suggest`).
        run: returns metrics, nested or not, for data, values and a rung's budget; a function that
            workers can import, or a partial of one.
        data: the first argument of `run`.
        settings: the number of trials, batches, workers, and the objective.
        seed: of the suggested values.
        origin: a name for all else that a result depends on (`fingerprint`).
        folder: where each result is kept as soon as it is computed.
        on_trial: called with each trial, in order.

    Raises:
        UserError: every trial failed, the objective is not among the metrics, a worker was killed,
            or there is no cluster at RAY_ADDRESS.
    """
    _warn_of_direction(settings)
    sampler = optuna.samplers.TPESampler(seed=seed)
    directions = optuna.study.StudyDirection
    direction = directions.MAXIMIZE if settings.better == "larger" else directions.MINIMIZE
    study = optuna.create_study(sampler=sampler, direction=direction)
    engine = on_ray(run, data) if os.environ.get("RAY_ADDRESS") else None
    engine = engine or partial(on_this_machine, run, data, settings.workers)
    trials: list[Trial] = []
    sizes = batch_sizes(settings)
    with told_if_interrupted(), progress("trials", sum(sum(runs) for runs in sizes)) as advance:
        best = math.nan

        def judged(result: Result) -> float | None:
            nonlocal best
            value = objective_of(result, settings.objective)
            if value is not None and is_better(value, best, settings.better):
                best = value
            return value

        def compute(jobs: Sequence[Job]) -> list[Result]:
            files = [folder / origin[:16] / f"{_digest(job)}.json" for job in jobs]
            found = {file: result for file in files if (result := _read(file)) is not None}
            missing = {f: job for f, job in zip(files, jobs, strict=True) if f not in found}
            for result in found.values():
                judged(result)
                advance(f"kept, best {_shown(best)}")
            for file, result in engine(missing):
                values, budget = missing[file]
                write_json(file, {"values": values, "budget": budget, **result})
                found[file] = result
                advance(f"{settings.objective} {_shown(judged(result))}, best {_shown(best)}")
            return [found[file] for file in files]

        for runs in sizes:
            asked = [study.ask() for _ in range(runs[0])]
            values = [ask(trial) for trial in asked]
            reached = _run_batch(values, settings, compute)
            for trial, tried, rungs in zip(asked, values, reached, strict=True):
                trials.append(_tell(study, trial, tried, rungs, settings))
                if on_trial:
                    on_trial(trials[-1])
    return Sweep(trials, _best(trials, settings), study, settings)


@contextmanager
def told_if_interrupted() -> Iterator[None]:
    """After Ctrl-C, say that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        logger.warning("Interrupted: finished trials are kept, and the next start goes on there.")
        raise


def _warn_of_direction(settings: Tuning) -> None:
    """A warning if the objective's name tells the opposite of `better` (lib/better.py)."""
    known = {1: "larger", -1: "smaller"}.get(better_when(settings.objective), settings.better)
    if settings.better != known:
        logger.warning(
            "better is %s, but by its name %s is better when it is %s: is that meant?",
            settings.better,
            settings.objective,
            known,
        )


def suggest(trial: optuna.Trial, space: Section, above: str = "") -> Values:
    """A value for each parameter in a space, by dotted name, with `above` as prefix."""
    found: Values = {}
    for name, each in ranges(space, above):
        kind, values = each.kind, each.values
        if kind == "choice":  # as text: Optuna does not accept lists
            texts = [json.dumps(value) for value in values]
            found[name] = json.loads(trial.suggest_categorical(name, texts))
        elif kind.endswith("integer"):
            found[name] = trial.suggest_int(name, *values, log=kind.startswith("log"))
        else:
            found[name] = trial.suggest_float(name, *values, log=kind == "log")
    return found


def fingerprint(*parts: Any) -> str:
    """A hash of the parts, the imported code of `lib/` and `lab/`, and the environment.

    Args:
        parts: arrays, pandas's frames and series, and values that JSON can hold.
    """
    digest = hashlib.sha256(Path(sys.prefix).name.encode())  # named after its lock's hash
    for name, source in sorted(sources().items()):
        digest.update(f"{name} {source}".encode())
    for part in parts:
        if hasattr(part, "iloc"):
            from pandas.util import hash_pandas_object  # not in every sweep's environment

            names = list(part.columns) if part.ndim == 2 else part.name
            digest.update(repr((names, part.shape)).encode())
            digest.update(hash_pandas_object(part).to_numpy().data)
        elif isinstance(part, np.ndarray):
            digest.update(repr((part.shape, part.dtype.str)).encode())
            if part.dtype.hasobject:  # its memory holds addresses
                for each in part.flat:
                    digest.update(pickle.dumps(each))
            else:  # as bytes: some types, such as dates, have no buffer
                digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def batch_sizes(settings: Tuning) -> list[list[int]]:
    """For each batch, the number of trials at each rung, if none fails."""
    sizes = []
    for start in range(0, settings.trials, settings.batch):
        runs = [min(settings.batch, settings.trials - start)]
        for _ in (settings.rungs or [0])[1:]:
            runs.append(math.ceil(runs[-1] / 2))
        sizes.append(runs)
    return sizes


def objective_of(result: Result, name: str) -> float | None:
    """The value of a metric; None if the trial failed or the value is not finite.

    Raises:
        UserError: there is no such metric.
    """
    metrics = result.get("metrics", {name: None})
    others = result.get("others", {})
    if name in others or not any(metrics):
        kinds = dict.fromkeys(metrics, "float") | others
        returned = ", ".join(f"{key} ({kind})" if key else kind for key, kind in kinds.items())
        raise UserError(
            f"objective: a trial returned no number that is called {name}, but "
            f"{returned or 'nothing'}: return it as a number, or name another."
        )
    if name not in metrics:
        why = unknown(name, name, list(metrics), "name another.")
        raise UserError(f"objective: {why}")
    found: float | None = metrics[name]
    return found


def _run_batch(
    values: Sequence[Values], settings: Tuning, compute: Callable[[Sequence[Job]], list[Result]]
) -> list[list[tuple[int | None, Result]]]:
    """For each of a batch's values, the budgets of the rungs that it reached, and the results."""
    reached: list[list[tuple[int | None, Result]]] = [[] for _ in values]
    left = list(range(len(values)))
    budgets: Sequence[int | None] = settings.rungs or [None]
    for budget in budgets:
        results = compute([(values[n], budget) for n in left])
        objectives = {}
        for n, result in zip(left, results, strict=True):
            reached[n].append((budget, result))
            if (value := objective_of(result, settings.objective)) is not None:
                objectives[n] = -value if settings.better == "larger" else value
        left = sorted(sorted(objectives, key=lambda n: objectives[n])[: math.ceil(len(left) / 2)])
    return reached


def _tell(
    study: optuna.Study,
    asked: optuna.Trial,
    values: Values,
    rungs: Sequence[tuple[int | None, Result]],
    settings: Tuning,
) -> Trial:
    """Report a trial that reached these rungs to Optuna, and return it."""
    for budget, result in rungs:
        reported = objective_of(result, settings.objective)
        if budget is not None and reported is not None:
            asked.report(reported, budget)
    budget, result = rungs[-1]
    objective = objective_of(result, settings.objective)
    reason = result.get("error") or result.get("raised", "")
    if objective is None:
        state = "failed"
        reason = reason or f"{settings.objective} is no finite number."
        study.tell(asked, state=optuna.trial.TrialState.FAIL)
    elif len(rungs) < len(settings.rungs or [None]):
        state = "pruned"
        study.tell(asked, state=optuna.trial.TrialState.PRUNED)
    else:
        state = "complete"
        study.tell(asked, objective)
    metrics = result.get("metrics", {})
    return Trial(asked.number, values, state, budget, objective, metrics, reason)


def _best(trials: Sequence[Trial], settings: Tuning) -> Trial:
    """The best complete trial; of equals, the first. UserError if none is complete."""
    best: Trial | None = None
    for trial in trials:
        if trial.state == "complete" and trial.objective is not None:
            before = best.objective if best else None
            if before is None or is_better(trial.objective, before, settings.better):
                best = trial
    if best is None:
        failed = [trial for trial in trials if trial.state == "failed"]
        raise UserError(
            f"No trial is complete: {len(failed)} of {len(trials)} failed, and rungs ended the "
            f"others. The first that failed: {failed[0].reason}"
            if len(failed) < len(trials)
            else f"All {len(trials)} trials failed. The first: {failed[0].reason}"
        )
    return best


def _read(file: Path) -> Result | None:
    """The result in a trial's file; None if the file is missing or damaged."""
    try:
        content = read_json(file)
        return {key: content[key] for key in KEPT if key in content} or None
    except (FileNotFoundError, UserError, TypeError):
        return None


def _digest(job: Job) -> str:
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:24]


def _shown(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"
