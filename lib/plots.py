"""Draws the pipeline's plots, with several revisions in each, for `make compare` and notebooks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lib.revisions import Plot
from lib.viz import COLOURS, LETTER, shortened, without_formulas, write_out_large_numbers

OLD, NEW = "#9a6b1f", "#1b6ca8"
READABLE = 20  # at most so many classes, bars or lines are labelled
Rows = list[dict[str, str]]


@without_formulas
def draw(plot: Plot, tables: Mapping[str, Rows]) -> Figure:
    """One plot with every revision in it.

    Args:
        plot: its definition in dvc.yaml.
        tables: the rows of each revision by its label, the older first.
    """
    if plot.template.startswith("confusion"):
        return draw_confusion(plot, tables)
    figure = Figure(figsize=(7.2, 3.9), layout="constrained")
    axes = figure.subplots()
    if plot.template.startswith("bar"):
        draw_bars(axes, plot, tables)
    elif plot.template.startswith("scatter"):
        draw_points(axes, plot, tables)
    else:
        draw_lines(axes, plot, tables)
    write_out_large_numbers(axes)
    axes.set_xlabel(plot.x.replace("_", " "))
    axes.set_title(plot.title, fontsize=11, wrap=True)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_lines(axes: Axes, plot: Plot, tables: Mapping[str, Rows]) -> None:
    """A line for each column, or each model if a column `model` names them; old ones dashed."""
    lines: dict[str, str] = {}
    for rows, style in zip(tables.values(), revision_styles(tables), strict=True):
        groups = sorted({row.get("model", "") for row in rows})
        for group in groups:
            chosen = [row for row in rows if row.get("model", "") == group]
            for column in plot.y:
                name = group or column
                colour = lines.setdefault(name, COLOURS[len(lines) % len(COLOURS)])
                x, y = (numbers(chosen, key) for key in (plot.x, column))
                axes.plot(x, y, color=colour, marker=".", markevery=is_alone(y), **style)
    several = len(lines) > 1 or next(iter(lines), "") not in plot.y
    for name, colour in lines.items():
        if several and len(lines) <= READABLE:
            axes.plot([], [], color=colour, label=name.replace("_", " "))
    for label, style in zip(tables, revision_styles(tables), strict=True):
        axes.plot([], [], color="#444444", label=label, **style)
    axes.set_ylabel(", ".join(plot.y).replace("_", " "))


def is_alone(y: Sequence[float]) -> NDArray[np.bool_]:
    """Which points have a gap on both sides, and no line to be seen in."""
    known = np.pad(np.isfinite(y), 1)
    return known[1:-1] & ~known[:-2] & ~known[2:]


def draw_points(axes: Axes, plot: Plot, tables: Mapping[str, Rows]) -> None:
    """A point for each row, the newer revision on top."""
    (name,) = plot.y
    for (label, rows), colour in zip(tables.items(), revision_colours(tables), strict=True):
        x, y = numbers(rows, plot.x), numbers(rows, name)
        axes.plot(x, y, ".", color=colour, alpha=0.4, markeredgewidth=0, label=label)
    axes.set_ylabel(name.replace("_", " "))


def revision_colours(tables: Mapping[str, Rows]) -> list[str]:
    """The fill colour of points and bars for each revision; NEW for the newest."""
    return [OLD] * (len(tables) - 1) + [NEW]


def revision_styles(tables: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """The line style for each revision; solid for the newest."""
    old: dict[str, Any] = {"linestyle": (0, (4, 2)), "alpha": 0.6, "linewidth": 1.2}
    return [old] * (len(tables) - 1) + [{"linestyle": "-", "alpha": 0.95, "linewidth": 1.5}]


def draw_bars(axes: Axes, plot: Plot, tables: Mapping[str, Rows]) -> None:
    """A bar for each row and revision; the axis starts where values between 0.5 and 1 differ."""
    (name,) = plot.y
    last = list(tables.values())[-1]
    names = list(dict.fromkeys(row[name] for rows in (last, *tables.values()) for row in rows))
    names = names[:READABLE]
    height, values = 0.8 / len(tables), []
    for index, ((label, rows), colour) in enumerate(
        zip(tables.items(), revision_colours(tables), strict=True)
    ):
        by_name = dict(zip((row[name] for row in rows), numbers(rows, plot.x), strict=True))
        lengths = [by_name.get(key, np.nan) for key in names]
        values += [value for value in lengths if np.isfinite(value)]
        places = np.arange(len(names)) + (index - (len(tables) - 1) / 2) * height
        axes.barh(places, lengths, height=height * 0.92, color=colour, label=label)
    axes.set_yticks(range(len(names)), [key.replace("_", " ") for key in names])
    axes.invert_yaxis()
    if values and min(values) > 0.5 and max(values) <= 1:
        axes.set_xlim(left=np.floor(min(values) * 20 - 1) / 20, right=1)


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
        axes.set(xlabel=plot.x, ylabel=truth)
    figure.suptitle(plot.title, fontsize=11, wrap=True)
    return figure


def numbers(rows: Rows, column: str) -> list[float]:
    """A column as numbers, NaN for empty cells; ValueError names a cell that is not a number."""
    try:
        return [float(text := row[column] or "nan") for row in rows]
    except ValueError:
        raise ValueError(f"its column {column!r} has {text!r}, which is no number") from None
