"""Writes the results of a sweep: a table of its trials, plots, and the best values."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import optuna
from matplotlib.figure import Figure

from lib.curves import append_to_curve
from lib.files import replaced_directory, write_csv, write_json
from lib.space import Tuning, is_better
from lib.trials import METRICS, VALUES, append_trial
from lib.tuning import Sweep, Trial
from lib.viz import COLOURS, save_figure, without_formulas


def show_live(settings: Tuning) -> Callable[[Trial], None]:
    """A function to call with each trial, so that MLflow shows the sweep while it runs."""
    trials: list[Trial] = []

    def append(trial: Trial) -> None:
        trials.append(trial)
        append_trial(trial_row(trial, trial.values, trial.metrics))
        if trial.state == "complete":
            append_to_curve(history_rows(trials, settings.better)[-1])

    return append


def write_sweep(sweep: Sweep, artifacts: Path, metrics: Path, *, seed: int, tunes: str) -> None:
    """Write the trials and plots to a folder, and the best values to a metrics file.

    Args:
        sweep: from `lib.tuning.tune`.
        artifacts: gets trials.csv, history.csv, importances.csv, plots of the last two, and
            slices.png.
        metrics: gets the number of trials, the best one and its values, which `make adopt` reads.
        seed: of the forest that estimates the importance of each parameter.
        tunes: the section of params.yaml that is tuned.
    """
    history, found = history_rows(sweep.trials, sweep.settings.better), importances(sweep, seed)
    with replaced_directory(artifacts) as folder:
        write_csv(folder / "trials.csv", trial_rows(sweep))
        write_csv(folder / "history.csv", history)
        rows = [{"parameter": name, "importance": value} for name, value in found.items()]
        write_csv(folder / "importances.csv", rows, ["parameter", "importance"])
        save_figure(plot_history(history, sweep.settings.objective), folder / "history.png")
        save_figure(plot_importances(found), folder / "importances.png")
        save_figure(plot_slices(sweep), folder / "slices.png")
    states = [trial.state for trial in sweep.trials]
    write_json(
        metrics,
        {
            "tunes": tunes,
            "objective": sweep.settings.objective,
            "best": sweep.best.objective,
            "best_trial": sweep.best.number,
            "trials": len(states),
            "pruned": states.count("pruned"),
            "failed": states.count("failed"),
            "values": dict(sweep.best.values),
        },
    )


def trial_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """A row for each trial: its state and objective, its values and metrics."""
    values = dict.fromkeys(name for trial in sweep.trials for name in trial.values)
    metrics = dict.fromkeys(name for trial in sweep.trials for name in trial.metrics)
    return [trial_row(trial, values, metrics) for trial in sweep.trials]


def trial_row(trial: Trial, values: Iterable[str], metrics: Iterable[str]) -> dict[str, Any]:
    """The row of a trial, with columns for these values and metrics."""
    return {
        "trial": trial.number,
        "state": trial.state,
        "objective": trial.objective,
        "budget": trial.budget,
        **{f"{VALUES}{name}": trial.values.get(name) for name in values},
        **{f"{METRICS}{name}": trial.metrics.get(name) for name in metrics},
        "reason": trial.reason,
    }


def history_rows(trials: Sequence[Trial], better: str) -> list[dict[str, Any]]:
    """The objective of each complete trial, and the best so far."""
    best, rows = math.nan, []
    for trial in trials:
        if trial.state == "complete" and trial.objective is not None:
            best = trial.objective if is_better(trial.objective, best, better) else best
            rows.append({"step": trial.number, "objective": trial.objective, "best": best})
    return rows


def importances(sweep: Sweep, seed: int) -> dict[str, float]:
    """The importance of each parameter that all trials have; empty if it cannot be computed.

    Source: Hutter, Hoos and Leyton-Brown 2014, fANOVA
    """
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    try:
        found = optuna.importance.get_param_importances(sweep.study, evaluator=evaluator)
    except (ValueError, RuntimeError, AssertionError):
        return {}  # fewer than two trials, all objectives are equal, or their squares overflow
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


@without_formulas
def plot_history(rows: Sequence[dict[str, Any]], objective: str) -> Figure:
    """The objective of each trial and the best so far, from `history_rows`."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    steps = [row["step"] for row in rows]
    axes.plot(steps, [row["objective"] for row in rows], "o", color=COLOURS[0], label="trial")
    axes.step(
        steps, [row["best"] for row in rows], where="post", color=COLOURS[1], label="best so far"
    )
    axes.set(xlabel="trial", ylabel=objective)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


@without_formulas
def plot_importances(found: dict[str, float]) -> Figure:
    """The importance of each parameter, the largest on top."""
    names = sorted(found, key=lambda name: found[name])
    figure = Figure(figsize=(6.4, 1.2 + 0.35 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [found[name] for name in names], color=COLOURS[0])
    axes.set(xlabel="importance", xlim=(0, 1))
    return figure


@without_formulas
def plot_slices(sweep: Sweep) -> Figure:
    """The objective against the values of each parameter, later trials darker."""
    done = [trial for trial in sweep.trials if trial.state == "complete"]
    names = list(dict.fromkeys(name for trial in done for name in trial.values))
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.0 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    logarithmic = {
        name
        for trial in sweep.study.trials
        for name, kind in trial.distributions.items()
        if getattr(kind, "log", False)
    }
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    for name, axes in zip(names, grid, strict=False):
        having = [trial for trial in done if name in trial.values]
        found = [trial.values[name] for trial in having]
        x = found if all(isinstance(v, int | float) for v in found) else list(map(str, found))
        axes.scatter(
            x,
            [trial.objective for trial in having],
            c=[trial.number for trial in having],
            cmap="Blues",
            vmin=-len(sweep.trials) / 3,
            vmax=len(sweep.trials),
            edgecolors="grey",
            linewidths=0.4,
        )
        if name in logarithmic:
            axes.set_xscale("log")
        if x is not found:
            axes.tick_params(axis="x", rotation=30)
        axes.set(xlabel=name, ylabel=sweep.settings.objective)
        axes.grid(alpha=0.3)
    return figure
