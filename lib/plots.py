"""Draws the pipeline's plots, with several revisions in each, for `make compare` and notebooks."""

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lib.revisions import Plot
from lib.viz import (
    COLOURS,
    LETTER,
    ROC_COLUMNS,
    enlarge_corner,
    is_alone,
    shortened,
    without_formulas,
    write_out_large_numbers,
)

OLD, NEW = "#9a6b1f", COLOURS[0]
READABLE = 20  # at most so many classes or bars are drawn with their names
Rows = list[dict[str, str]]
Legend = list[tuple[str, Artist]]
Look = Mapping[str, Any]
# Columns of a sweep's history, from lib/sweeps.py: trials are no curve.
TRIALS: dict[str, Look] = {
    "objective": {"linestyle": "", "marker": "o", "markersize": 4, "markevery": None},
    "best": {"drawstyle": "steps-post"},
}


@without_formulas
def draw(plot: Plot, tables: Mapping[str, Rows]) -> Figure:
    """One plot with every revision in it.

    Args:
        plot: its definition in dvc.yaml.
        tables: the rows of each revision by its label, the older first.
    """
    if plot.template.startswith("confusion"):
        return draw_confusion(plot, tables)
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    if plot.template.startswith("bar"):
        legend = draw_bars(axes, plot, tables)
        figure.set_figheight(max(3, 1.4 + 0.28 * len(axes.get_yticks())))
    elif plot.template.startswith("scatter"):
        legend = draw_points(axes, plot, tables)
    else:
        legend = draw_lines(axes, plot, tables)
    write_out_large_numbers(axes)
    axes.set_xlabel(shortened(plot.x))
    figure.suptitle(plot.title, fontsize=11, wrap=True)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if (plot.x, *plot.y) == ROC_COLUMNS[1:]:
        enlarge_corner(axes)
    # Labels are passed, as matplotlib omits lines called `_other`.
    labels = [shortened(label) for label, _ in legend]
    columns = max(1, int(6 / (0.6 + 0.9 * LETTER * max(map(len, labels)))))
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(labels) / columns))
    handles, look = [handle for _, handle in legend], {"fontsize": 9, "frameon": False}
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, **look)
    return figure


def draw_lines(axes: Axes, plot: Plot, tables: Mapping[str, Rows]) -> Legend:
    """A line for each column, or each model if a column `model` names them; old ones dashed.

    With more lines than colours, those of a revision have one colour.
    """
    models = sorted({row.get("model") or "" for rows in tables.values() for row in rows})
    names = list(dict.fromkeys(model or column for model in models for column in plot.y))
    colours = dict(zip(names, COLOURS, strict=False)) if len(names) <= len(COLOURS) else {}
    kinds = TRIALS if set(plot.y) == set(TRIALS) else {}
    several = len(names) > 1 or not set(names) <= set(plot.y)
    legend: dict[str, Artist] = {}
    looks = list(zip(tables, revision_styles(tables), revision_colours(tables), strict=True))
    for label, style, fill in looks:
        for model, column in product(models, plot.y):
            chosen = [row for row in tables[label] if (row.get("model") or "") == model]
            x, y = (numbers(chosen, key) for key in (plot.x, column))
            name = model or column
            look = {"color": colours.get(name, fill), **style, **kinds.get(column, {})}
            look |= {} if colours else {"linewidth": 0.5}
            alone: Look = {"marker": ".", "markevery": is_alone(y)}
            axes.plot(x, y, **{**alone, **look})
            if several and colours and chosen:
                (legend[name],) = axes.plot([], [], **look)
    for label, style, fill in looks:
        note = "" if colours else f" ({len(names)} lines)"
        (legend[label + note],) = axes.plot([], [], color="#444444" if colours else fill, **style)
    if all(x.is_integer() for rows in tables.values() for x in numbers(rows, plot.x)):
        axes.locator_params("x", integer=True, min_n_ticks=1)
    if len(plot.y) == 1:
        axes.set_ylabel(shortened(plot.y[0]))
    return list(legend.items())


def draw_points(axes: Axes, plot: Plot, tables: Mapping[str, Rows]) -> Legend:
    """A point for each row, the newer revision on top."""
    (name,) = plot.y
    legend: Legend = []
    for (label, rows), colour in zip(tables.items(), revision_colours(tables), strict=True):
        x, y = numbers(rows, plot.x), numbers(rows, name)
        few = float(np.clip(200 / max(len(rows), 1), 0.2, 0.8))
        look: Look = {"alpha": few, "markersize": 4 + 8 * few, "markeredgewidth": 0}
        axes.plot(x, y, ".", color=colour, **look)
        legend.append((label, Line2D([], [], marker="o", linestyle="", color=colour)))
    axes.set_ylabel(shortened(name))
    return legend


def revision_colours(tables: Mapping[str, Rows]) -> list[str]:
    """The colour of points and bars for each revision; NEW for the newest."""
    return [OLD] * (len(tables) - 1) + [NEW]


def revision_styles(tables: Mapping[str, Rows]) -> list[Look]:
    """The line style for each revision; solid for the newest."""
    old: Look = {"linestyle": (0, (4, 2)), "alpha": 0.6, "linewidth": 1.2, "fillstyle": "none"}
    return [old] * (len(tables) - 1) + [{"linestyle": "-", "alpha": 0.95, "linewidth": 1.5}]


def draw_bars(axes: Axes, plot: Plot, tables: Mapping[str, Rows]) -> Legend:
    """A bar for each row and revision; dots on an axis without zero if bars would look alike.

    Rings are of old revisions.
    """
    (name,) = plot.y
    found = [
        dict(zip([row[name] or "" for row in rows], numbers(rows, plot.x), strict=True))
        for rows in tables.values()
    ]
    names = list(dict.fromkeys(key for column in reversed(found) for key in column))
    if plot.template.endswith("sorted"):
        names.sort(key=lambda key: -np.nan_to_num(found[-1].get(key, np.nan), nan=-np.inf))
    drawn = names[:READABLE]
    values = np.array([[column.get(key, np.nan) for key in drawn] for column in found])
    sizes = np.abs(values[np.isfinite(values)])
    spread = np.ptp(values[np.isfinite(values)]) if sizes.size else 0
    places, height = np.arange(len(drawn)), 0.8 / len(tables)
    legend: Legend = []
    for index, (label, colour) in enumerate(zip(tables, revision_colours(tables), strict=True)):
        if 0 < spread < sizes.max(initial=0) / 4:
            ring: Look = {} if colour == NEW else {"fillstyle": "none", "markersize": 10}
            (dots,) = axes.plot(values[index], places, "o", color=colour, **ring)
            legend.append((label, dots))
        else:
            offset = (index - (len(tables) - 1) / 2) * height
            axes.barh(places + offset, values[index], height=height * 0.92, color=colour)
            legend.append((label, Patch(color=colour)))
    axes.set_yticks(places, [shortened(key) for key in drawn])
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    left_out = f"{len(drawn)} of {len(names):,} shown" if drawn != names else ""
    axes.set_ylabel(", ".join(filter(None, (shortened(name), left_out))))
    return legend


def draw_confusion(plot: Plot, tables: Mapping[str, Rows]) -> Figure:
    """The confusion matrices of the revisions, side by side."""
    (truth,) = plot.y
    found = {row[key] or "" for rows in tables.values() for row in rows for key in (truth, plot.x)}
    classes = sorted(found, key=lambda name: (int(name) if name.isdecimal() else np.inf, name))
    places = {name: place for place, name in enumerate(classes)}
    names = [shortened(name) for name in classes] if len(classes) <= READABLE else []
    side = max(3.3, 0.4 * len(names))  # inches
    across = max(map(len, names), default=0) * LETTER  # for a name from the matrix outwards
    if lengthwise := across * len(names) < side - 0.6:
        across = 0
    size = ((side + across) * len(tables) + 0.4, side + 0.2 + across)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (label, rows) in zip(grid, tables.items(), strict=True):
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        for row in rows:
            counts[places[row[truth] or ""], places[row[plot.x] or ""]] += 1
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (i, j), count in np.ndenumerate(counts) if names else ():
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(count), ha="center", va="center", color=colour)
        axes.set_xticks(range(len(names)), names, rotation=0 if lengthwise else 90)
        axes.set_yticks(range(len(names)), names, rotation=90 if lengthwise else 0, va="center")
        axes.set_title(label, fontsize=9)
        count = "" if names else f" ({len(classes):,} classes)"
        axes.set(xlabel=f"{shortened(plot.x)}{count}", ylabel=f"{shortened(truth)}{count}")
    figure.suptitle(plot.title, fontsize=11, wrap=True)
    return figure


def numbers(rows: Rows, column: str) -> list[float]:
    """A column as numbers, NaN for empty cells; ValueError names a cell that is not a number."""
    try:
        return [float(text := row[column] or "nan") for row in rows]
    except ValueError:
        raise ValueError(f"its column {column!r} has {text!r}, which is no number") from None
