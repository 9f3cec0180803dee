"""Plots of models and their training.

Each function returns a matplotlib `Figure`, which a notebook shows and `save_figure` writes. Pyplot
is not used: it has global state and takes half a second to import.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve

from lib.metrics import both_occur, confusion_counts, roc_auc

POINTS = 2000  # at most, of a curve or scatter plot: more make plots slower, not clearer
MANY = 10  # classes or curves; plots show less about each if there are more
MAX_NAME = 40  # characters
LETTER = 0.085  # inches
ROC_COLUMNS = ("model", "false_positive_rate", "true_positive_rate")

without_formulas = rc_context({"text.parse_math": False})  # for names with `$`
# Colour-blind people can tell them apart; the first six: Okabe and Ito 2008.
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#e69f00", "#56b4e9", "#332288", "#882255"),
)


@without_formulas
def plot_confusion_matrix(
    y: ArrayLike, predicted: ArrayLike, labels: Sequence[str], title: str = ""
) -> Figure:
    """A confusion matrix, with the count and the share of the true class in each cell.

    Args:
        y: (n,) true classes, from 0 to len(labels) - 1.
        predicted: (n,) predicted classes.
        labels: the classes' names. With more than 10, cells with a count of 0 are left empty.
        title: describes the rows, for example "network, validation".
    """
    counts = confusion_counts(y, predicted, len(labels))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [shortened(label) for label in labels]
    room = 0.6 * max(len(labels) - 3, 0)  # inches
    across = max(map(len, names)) * LETTER  # for names perpendicular to the axis
    if lengthwise := across < (3.3 + room) / len(labels):
        across = 0
    figure = Figure(figsize=(4.8 + room + across, 4.2 + room + across), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if len(labels) > MANY and not count:
            continue
        share = shares[row, column]
        colour = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{count}\n{share:.1%}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(labels)), names, rotation=0 if lengthwise else 90)
    axes.set_yticks(range(len(labels)), names, rotation=90 if lengthwise else 0, va="center")
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


@without_formulas
def plot_training_history(
    history: Mapping[str, Sequence[float]], best_epoch: int | None = None
) -> Figure:
    """Each measure by epoch, for training and validation.

    Args:
        history: columns epoch, and train_NAME and validation_NAME for each measure.
        best_epoch: marked with a line, if given.
    """
    measures = [name.removeprefix("train_") for name in history if name.startswith("train_")]
    figure = Figure(figsize=(4.5 * len(measures), 3.8), layout="constrained")
    grid = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(grid, measures, strict=True):
        for split, colour in zip(("train", "validation"), COLOURS, strict=False):
            values = history[f"{split}_{measure}"]
            axes.plot(history["epoch"], values, color=colour, label=split)
            alone = is_alone(values)
            x, y = np.asarray(history["epoch"])[alone], np.asarray(values)[alone]
            axes.scatter(x, y, color=colour)
        if best_epoch is not None:
            axes.axvline(best_epoch, color="grey", linestyle=":", label=f"best: epoch {best_epoch}")
        axes.set(xlabel="epoch", title=measure)
        axes.locator_params("x", integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
    legend = grid[0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=3, frameon=False)
    return figure


@without_formulas
def plot_roc_curves(
    probabilities: Mapping[str, ArrayLike],
    y: ArrayLike | Mapping[str, ArrayLike],
    title: str = "",
) -> Figure:
    """The ROC curves of several models or classes, with the largest area first in the legend.

    Args:
        probabilities: for each name, (n,) probability of class 1.
        y: (n,) true labels, 0 or 1; or such labels for each name, as from `one_versus_rest`. There
            is no curve if only one class occurs.
        title: describes the rows, for example "validation split".
    """
    truth = y if isinstance(y, Mapping) else dict.fromkeys(probabilities, y)
    areas = {n: roc_auc(truth[n], p) for n, p in probabilities.items() if both_occur(truth[n])}
    looks = looks_of(areas)
    names = sorted(areas, key=lambda name: -areas[name])
    labels = [f"{shortened(name)} ({areas[name]:.3f})" for name in names]
    columns = math.ceil(len(names) / 22)
    width = columns * (max(map(len, labels), default=0) * LETTER + 0.6)
    figure = Figure(figsize=(5.4 + width, 5.2), layout="compressed")
    axes = figure.subplots()
    for name in names:
        axes.plot(*roc(truth[name], probabilities[name]), **looks[name], alpha=0.85)
    lines = axes.get_lines()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.set_title(", ".join(filter(None, ("ROC curves", title))))
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    enlarge_corner(axes)
    if names:  # labels are passed, as matplotlib omits lines called `_other`
        title = "area under the curve"
        figure.legend(lines, labels, loc="outside right upper", title=title, ncols=columns)
    return figure


def looks_of(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A colour and a line style for each name, the same in all plots of the same names."""
    looks = [
        {"linestyle": s, "color": colour} for s in ("-", "--", "-.", ":") for colour in COLOURS
    ]
    return dict(zip(sorted(names, key=str), cycle(looks), strict=False))


def enlarge_corner(axes: Axes) -> None:
    """Below the diagonal, enlarge the corner where good ROC curves bend, if any does."""
    points = [np.asarray(line.get_data(), float) for line in axes.get_lines()]
    if any(((x < 0.2) & (y > 0.8) & ((x > 0) | (y < 1))).any() for x, y in points):
        inset = axes.inset_axes((0.55, 0.08, 0.41, 0.41), xlim=(-0.01, 0.2), ylim=(0.8, 1.01))
        for line, xy in zip(axes.get_lines(), points, strict=True):
            look: dict[str, Any] = {"color": line.get_color(), "linestyle": line.get_linestyle()}
            inset.plot(*xy, **look, linewidth=line.get_linewidth(), alpha=line.get_alpha())
        inset.tick_params(labelsize=8)
        inset.grid(alpha=0.3)
        axes.indicate_inset_zoom(inset)


def is_alone(y: Sequence[float]) -> NDArray[np.bool_]:
    """Which points have a gap on both sides, and no line to be seen in."""
    known = np.pad(np.isfinite(y), 1)
    return known[1:-1] & ~known[:-2] & ~known[2:]


def shortened(name: object, most: int = MAX_NAME) -> str:
    """A name, text or number, cut to the length that fits in a plot."""
    text = str(name)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def one_versus_rest(
    probability: ArrayLike, y: ArrayLike, class_names: Sequence[str]
) -> tuple[dict[str, ArrayLike], dict[str, ArrayLike]]:
    """For the ROC curve of each class: its (n,) probabilities, and whether each row is of it.

    Args:
        probability: (n, k) probability of each class.
        y: (n,) true classes, from 0 to k - 1; classes of no row or of all rows are left out.
        class_names: the k names.
    """
    truth = {name: np.asarray(y) == code for code, name in enumerate(class_names)}
    columns = dict(zip(class_names, np.asarray(probability).T, strict=True))
    drawn = [name for name, own in truth.items() if own.any() and not own.all()]
    return {name: columns[name] for name in drawn}, {name: truth[name] for name in drawn}


def plot_predicted(y: ArrayLike, predicted: ArrayLike, title: str = "") -> Figure:
    """Predicted numbers against the true ones, both (n,), with a line where they are equal.

    At most 20,000 rows are drawn, evenly chosen.
    """
    y, predicted = np.asarray(y), np.asarray(predicted)
    figure = Figure(figsize=(5.2, 5.0), layout="constrained")
    axes = figure.subplots()
    alpha = float(np.clip(200 / max(len(y), 1), 0.05, 0.6))
    some = _some(len(y), 10 * POINTS)
    axes.plot(y[some], predicted[some], ".", color=COLOURS[0], alpha=alpha, markeredgewidth=0)
    ends = [min(y.min(), predicted.min()), max(y.max(), predicted.max())]
    axes.plot(ends, ends, color="grey", linestyle=":")
    axes.set(xlabel="true", ylabel="predicted", title=title)
    write_out_large_numbers(axes)
    axes.grid(alpha=0.3)
    return figure


def write_out_large_numbers(axes: Axes) -> None:
    """Label axes beyond 10,000 as 1,250,000, not as 1.25 with 1e6 in the corner."""
    for axis in (axes.xaxis, axes.yaxis):
        if 1e4 <= (largest := max(map(abs, axis.get_view_interval()))) < 1e12:
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter("{x:,.0f}")
            if axis is axes.xaxis and largest >= 1e7:
                axis.set_tick_params(rotation=30)  # otherwise labels overlap


def roc_rows(
    probabilities: Mapping[str, ArrayLike], y: ArrayLike | Mapping[str, ArrayLike]
) -> list[dict[str, str | float]]:
    """The ROC curves as rows for a CSV file, which `dvc plots` draws: a row for each bend.

    If only one class occurs, there is no curve. As there may be no rows at all, pass ROC_COLUMNS as
    the file's header.
    """
    truth = y if isinstance(y, Mapping) else dict.fromkeys(probabilities, y)
    return [
        dict(zip(ROC_COLUMNS, (name, float(x), float(t)), strict=True))
        for name, probability in probabilities.items()
        if both_occur(truth[name])
        for x, t in zip(*roc(truth[name], probability), strict=True)
    ]


def predicted_rows(
    y: ArrayLike, predicted: ArrayLike, most: int = POINTS
) -> list[dict[str, float]]:
    """Pairs of true and predicted numbers, evenly chosen, for a CSV file that `dvc plots` draws.

    Args:
        y: (n,) true numbers.
        predicted: (n,) predicted numbers.
        most: the largest number of pairs: more make plots slower, not clearer.
    """
    y, predicted = np.asarray(y), np.asarray(predicted)
    return [{"actual": float(y[n]), "predicted": float(predicted[n])} for n in _some(len(y), most)]


def _some(n: int, most: int) -> NDArray[np.int64]:
    """The numbers of at most `most` of n rows, evenly chosen."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).astype(np.int64))


def confusion_rows(
    y: ArrayLike, predicted: ArrayLike, labels: Sequence[str]
) -> list[dict[str, str]]:
    """The confusion matrix as rows for a CSV file, which `dvc plots` draws: a row for each case.

    More than 10,000 cases are scaled down to some 10,000 rows with the same shares, and at least
    one row for each cell that has a case.
    """
    most, n_labels = 5 * POINTS, len(labels)
    y, predicted = np.asarray(y), np.asarray(predicted)
    if len(y) <= most:
        pairs = list(zip(y, predicted, strict=True))
    else:
        counts = confusion_counts(y, predicted, n_labels)
        rows = np.ceil(counts * (most / len(y))).astype(int)
        pairs = [cell for cell, n in np.ndenumerate(rows) for _ in range(n)]
    return [{"actual": labels[int(a)], "predicted": labels[int(b)]} for a, b in pairs]


def roc(y: ArrayLike, probability: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates, (k,) each, at the k thresholds where the curve bends.

    For more than 10,000 rows, at some 2,000 thresholds, spread evenly along both axes.
    """
    y, probability = np.asarray(y), np.asarray(probability)
    if len(y) <= 5 * POINTS:
        false_positive, true_positive, _ = roc_curve(y, probability)
        return false_positive, true_positive
    negatives, positives = np.sort(probability[y == 0]), np.sort(probability[y == 1])
    thresholds = np.concatenate([of[_some(len(of), POINTS // 2)] for of in (negatives, positives)])
    thresholds = np.append(np.unique(thresholds), np.inf)[::-1]
    rates = [1 - np.searchsorted(of, thresholds) / len(of) for of in (negatives, positives)]
    return rates[0], rates[1]


def save_figure(figure: Figure, path: Path | str | IO[bytes]) -> None:
    """Write a PNG with the same bytes for the same figure."""
    with warnings.catch_warnings():
        # Other fonts differ between machines: letters that this one lacks are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
