"""Writes the results of a sweep: a table of its trials, plots, and the best values."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from lib.curves import append_to_curve
from lib.files import replaced_directory, write_csv, write_json
from lib.space import Tuning, is_better
from lib.trials import METRICS, VALUES, append_trial
from lib.tuning import Sweep, Trial
from lib.viz import COLOURS, save_figure, shortened, without_formulas


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
        save_figure(plot_history(sweep), folder / "history.png")
        save_figure(plot_importances(found, sweep.trials), folder / "importances.png")
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
    values = searched(sweep.trials)
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


def searched(trials: Iterable[Trial]) -> list[str]:
    """The parameters that any of the trials has."""
    return list(dict.fromkeys(name for trial in trials for name in trial.values))


@without_formulas
def plot_history(sweep: Sweep) -> Figure:
    """The objective of each trial, pruned ones as crosses, and the best so far."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    states = Counter(trial.state for trial in sweep.trials)
    for state, marker, colour in (("pruned", "x", "grey"), ("complete", "o", COLOURS[0])):
        trials = [trial for trial in sweep.trials if trial.state == state]
        known = [(t.number, t.objective) for t in trials if t.objective is not None]
        label = f"{state}, last value" if state == "pruned" else state
        if known:
            axes.plot(*zip(*known, strict=True), marker, color=colour, markersize=5, label=label)
    rows = history_rows(sweep.trials, sweep.settings.better)
    steps, best = [row["step"] for row in rows], [row["best"] for row in rows]
    axes.step(steps, best, where="post", color=COLOURS[1], label="best so far")
    counts = ", ".join(f"{n:,} {state}" for state, n in sorted(states.items()))
    axes.set(xlabel="trial", ylabel=shortened(sweep.settings.objective), title=f"Trials: {counts}")
    axes.locator_params("x", integer=True, min_n_ticks=1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


@without_formulas
def plot_importances(found: dict[str, float], trials: Sequence[Trial]) -> Figure:
    """The importance of each parameter, the largest on top; those without one are named, too."""
    names = sorted(searched(trials), key=lambda name: found.get(name, -1))
    figure = Figure(figsize=(6.4, 1.2 + 0.35 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), [found.get(name, 0) for name in names], color=COLOURS[0])
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    for place, name in enumerate(names):
        if name not in found:
            everywhere = all(name in trial.values for trial in trials if trial.state == "complete")
            why = "not known" if everywhere else "not in all trials"
            axes.text(0.01, place, why, va="center", color="dimgrey", fontstyle="italic")
    axes.set(xlabel="importance", xlim=(0, 1))
    return figure


@without_formulas
def plot_slices(sweep: Sweep) -> Figure:
    """The objective against the values of each parameter, later trials darker."""
    known = [t for t in sweep.trials if t.state != "failed" and t.objective is not None]
    kinds = {name: kind for t in sweep.study.trials for name, kind in t.distributions.items()}
    names = searched(known)
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.2 * rows), layout="constrained")
    pruned = "; ×: pruned, last value" if any(t.state == "pruned" for t in known) else ""
    figure.supylabel(shortened(sweep.settings.objective), fontsize=9)
    figure.suptitle(f"later trials darker{pruned}", fontsize=9)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for name, axes in zip(names, grid.flat, strict=False):
        having = [trial for trial in known if name in trial.values]
        values = [trial.values[name] for trial in having]
        is_choice = isinstance(kinds.get(name), optuna.distributions.CategoricalDistribution)
        if is_choice or not all(type(value) in (int, float) for value in values):
            values = places(axes, values)
        elif getattr(kinds.get(name), "log", False):
            set_log_scale(axes, max(values) / min(values))
        x, y = np.array(values, float), np.array([trial.objective for trial in having])
        number = np.array([trial.number for trial in having])
        done = np.array([trial.state == "complete" for trial in having])
        axes.plot(x[~done], y[~done], "x", color="grey", markersize=5)
        axes.scatter(
            x[done],
            y[done],
            c=number[done],
            cmap="Blues",
            vmin=-len(sweep.trials) / 3,
            vmax=len(sweep.trials),
            edgecolors="grey",
            linewidths=0.4,
            zorder=3,
        )
        axes.set_xlabel(shortened(name), fontsize=9)
        axes.grid(alpha=0.3)
    return figure


def places(axes: Axes, values: Sequence[Any]) -> list[int]:
    """The place of each value on an axis of names: numbers first, ascending, then text."""
    texts = {str(value): value for value in values}
    order = sorted(texts, key=lambda t: (0, texts[t]) if type(texts[t]) in (int, float) else (1, t))
    some = slice(None, None, -(-len(order) // 12))  # more labels would overlap
    labels = [shortened(text, 20) for text in order[some]]
    axes.set_xticks(range(len(order))[some], labels)
    if sum(map(len, labels)) > 24:
        axes.tick_params("x", rotation=30)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.margins(x=0.1)
    return [order.index(str(value)) for value in values]


def set_log_scale(axes: Axes, ratio: float) -> None:
    """Make x logarithmic, with plain numbers beside it, as powers would need formulas."""
    axes.set_xscale("log")
    subs = (1, 2, 5) if ratio < 20 else (1, 3) if ratio < 1000 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
