"""Plots of several revisions show their differences, and name what they leave out."""

import io

import pytest

from lib.plots import draw
from lib.revisions import Plot
from lib.viz import save_figure

pytestmark = pytest.mark.unittest

LONG = "_a_name_of_more_than_forty_letters_имя_{}"


def bars(*columns, template="bar_horizontal"):
    """A bar chart of these values by name, a dict for each revision."""
    tables = {
        f"revision {n}": [{"name": k, "value": str(v)} for k, v in column.items()]
        for n, column in enumerate(columns)
    }
    return draw(Plot("Values", "values.csv", "value", ["name"], template), tables)


def legend_of(figure):
    """The texts of a figure's legend."""
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.9, 0.5], "bars"),
        ([-1, 1], "bars"),
        ([0.97, 0.97], "bars"),
        (["nan", "nan"], "bars"),
        ([0.97, 0.95], "dots"),
        ([38_000, 39_000], "dots"),
        ([-3.1, -3], "dots"),
    ],
)
def test_bars_start_at_zero_and_what_would_look_alike_are_dots(values, kind):
    [axes] = bars(dict(zip("ab", values, strict=True))).axes
    low, high = axes.get_xlim()
    assert bool(axes.patches) == (kind == "bars")
    assert (low <= 0 <= high) == (kind == "bars")


def test_equal_dots_of_two_revisions_are_both_to_be_seen():
    [axes] = bars({"a": 0.97, "b": 0.95}, {"a": 0.97, "b": 0.96}).axes
    old, new = axes.lines
    assert old.get_fillstyle() == "none"
    assert old.get_markersize() > new.get_markersize()


def test_the_number_of_bars_that_are_left_out_is_shown():
    [axes] = bars({str(n): n for n in range(57)}).axes
    assert axes.get_ylabel() == "name, 20 of 57 shown"
    [axes] = bars({str(n): n for n in range(20)}).axes
    assert axes.get_ylabel() == "name"


def test_a_sorted_template_has_the_longest_bars_of_the_newest_revision_on_top():
    figure = bars({"a": 3, "b": 2}, {"a": 1, "b": 2, "c": "nan"}, template="bar_horizontal_sorted")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "a", "c"]


def test_trials_are_points_and_the_best_so_far_has_steps():
    rows = [{"step": str(n), "objective": str(n % 3), "best": "0"} for n in range(5)]
    plot = Plot("Best", "history.csv", "step", ["objective", "best"], "")
    [axes] = draw(plot, {"a": rows}).axes
    objective, best = (line for line in axes.lines if len(line.get_xdata()))
    assert objective.get_linestyle() == "None"
    assert objective.get_marker() == "o"
    assert best.get_drawstyle() == "steps-post"


def test_names_in_legends_are_as_they_are_written():
    rows = [{"x": str(n), "y": str(n), "model": name} for n in range(3) for name in ("_a", "b_c")]
    figure = draw(Plot("Lines", "lines.csv", "x", ["y"], ""), {"work tree": rows})
    assert legend_of(figure) == ["_a", "b_c", "work tree"]


def test_more_lines_than_colours_have_the_colour_of_their_revision_and_are_counted():
    rows = [{"x": str(x), "y": str(n), "model": f"{n}"} for n in range(57) for x in range(3)]
    figure = draw(Plot("Lines", "lines.csv", "x", ["y"], ""), {"old": rows, "new": rows})
    assert legend_of(figure) == ["old (57 lines)", "new (57 lines)"]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 2


@pytest.mark.parametrize("template", ["", "bar_horizontal", "scatter", "confusion"])
@pytest.mark.parametrize("k", [1, 6, 57])
def test_long_names_in_any_letters_are_drawn_with_the_same_bytes_each_time(template, k):
    names = [LONG.format(n) for n in range(k)]
    y = "name" if template in ("bar_horizontal", "confusion") else "y"
    rows = [{"x": str(n), "y": "1e6", "name": name, "model": name} for n, name in enumerate(names)]
    plot, written = Plot("Long " * 30, "names.csv", "x", [y], template), []
    for _ in range(2):
        figure = draw(plot, dict.fromkeys(names[:2], rows))
        save_figure(figure, buffer := io.BytesIO())
        written.append(buffer.getvalue())
        for box in (legend.get_window_extent() for legend in figure.legends):
            assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
            assert not box.overlaps(figure.axes[0].get_window_extent())
    assert written[0] == written[1]
