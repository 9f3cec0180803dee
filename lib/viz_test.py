"""Plots show the numbers they are given, and have the same bytes each time."""

import math
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from sklearn.metrics import roc_curve

from lib.plots import draw
from lib.revisions import Plot
from lib.viz import (
    COLOURS,
    ROC_COLUMNS,
    confusion_rows,
    one_versus_rest,
    plot_confusion_matrix,
    plot_predicted,
    plot_roc_curves,
    plot_training_history,
    predicted_rows,
    roc_rows,
    save_figure,
)

pytestmark = pytest.mark.unittest

Y = np.array([0, 0, 0, 1, 1])
PREDICTED = np.array([0, 0, 1, 1, 1])
HISTORY = {
    "epoch": [1, 2, 3],
    "train_loss": [0.9, 0.5, 0.3],
    "validation_loss": [0.8, 0.6, 0.7],
    "train_accuracy": [0.5, 0.8, 0.9],
    "validation_accuracy": [0.6, 0.9, 0.8],
}


def legend_of(figure):
    """The texts of a figure's legend."""
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_confusion_matrix_shows_each_count_and_its_share_of_the_true_class():
    [axes] = plot_confusion_matrix(Y, PREDICTED, ("no", "yes")).axes
    assert [text.get_text() for text in axes.texts] == [
        "2\n66.7%",
        "1\n33.3%",
        "0\n0.0%",
        "2\n100.0%",
    ]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["no", "yes"]
    [axes] = plot_confusion_matrix(Y, PREDICTED, np.array([7, 8])).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["7", "8"]


def test_a_class_that_does_not_occur_still_has_a_row():
    [axes] = plot_confusion_matrix([0, 0], [0, 0], ("no", "yes")).axes
    assert len(axes.texts) == 4


def test_a_training_history_draws_four_curves_and_marks_the_best_epoch():
    loss, accuracy = plot_training_history(HISTORY, best_epoch=2).axes
    assert [list(line.get_ydata()) for line in loss.lines[:2]] == [
        HISTORY["train_loss"],
        HISTORY["validation_loss"],
    ]
    assert [list(line.get_ydata()) for line in accuracy.lines[:2]] == [
        HISTORY["train_accuracy"],
        HISTORY["validation_accuracy"],
    ]
    assert list(loss.lines[2].get_xdata()) == [2, 2]
    figure = plot_training_history(HISTORY, best_epoch=2)
    assert legend_of(figure) == ["train", "validation", "best: epoch 2"]
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert not [axes for axes in figure.axes if box.overlaps(axes.get_window_extent())]


def test_roc_curves_of_several_models_share_a_picture_best_first():
    probabilities = {"coin": [0.5] * 5, "right": [0.1, 0.2, 0.3, 0.8, 0.9]}
    assert legend_of(plot_roc_curves(probabilities, Y)) == ["right (1.000)", "coin (0.500)"]


def test_a_name_has_the_same_colour_whatever_its_curve_and_as_in_the_plots_of_revisions():
    found = []
    for good in ("a", "b"):
        curves = {name: [0.1, 0.2, 0.6, 0.7, 0.8 if name == good else 0.3] for name in "ba"}
        figure = plot_roc_curves(curves, Y)
        lines = dict(zip(legend_of(figure), figure.legends[0].get_lines(), strict=True))
        found.append({name[0]: line.get_color() for name, line in lines.items()})
        rows = [{key: str(value) for key, value in row.items()} for row in roc_rows(curves, Y)]
        plot = Plot("ROC", "roc.csv", *ROC_COLUMNS[1:2], ROC_COLUMNS[2:], "simple")
        lines = draw(plot, {"work tree": rows}).legends[0].get_lines()
        found.append(dict(zip("ab", (line.get_color() for line in lines), strict=False)))
    assert found == [{"a": COLOURS[0], "b": COLOURS[1]}] * 4


@pytest.mark.parametrize("title", ["", "validation split"])
def test_a_roc_picture_says_what_it_shows(title):
    axes = plot_roc_curves({"model": [0.1, 0.2, 0.3, 0.8, 0.9]}, Y, title).axes[0]
    assert axes.get_title() == ("ROC curves, validation split" if title else "ROC curves")


def test_the_corner_is_enlarged_if_a_curve_bends_there():
    y = [0] * 20 + [1] * 20
    good, bad = ([*range(20), *range(shift, shift + 20)] for shift in (18, 2))
    (inset,) = plot_roc_curves({"model": good}, y).axes[0].child_axes
    assert inset.get_xlim()[1] == 0.2
    assert list(inset.lines[0].get_ydata())[-1] == 1
    assert plot_roc_curves({"model": bad}, y).axes[0].child_axes == []
    perfect = {"model": [*range(40)]}
    assert plot_roc_curves(perfect, y).axes[0].child_axes == [], "nothing to see"


def test_a_curve_that_leaves_the_axis_in_the_corner_is_enlarged():
    y = [0, 0, *[1] * 10]
    assert plot_roc_curves({"model": [1, 8, 5, *[9] * 9]}, y).axes[0].child_axes


def test_data_of_one_class_have_no_roc_curve():
    [axes] = plot_roc_curves({"model": [0.2, 0.3]}, [1, 1]).axes
    assert len(axes.lines) == 1, "the diagonal"
    assert roc_rows({"model": [0.2, 0.3]}, [1, 1]) == []


def test_a_value_between_gaps_is_a_point_and_epochs_are_whole_numbers():
    history = {"epoch": [1, 2], "train_loss": [0.5, 0.4], "validation_loss": [0.5, math.nan]}
    [axes] = plot_training_history(history).axes
    assert axes.collections[1].get_offsets().tolist() == [[1, 0.5]]
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_a_history_of_any_measures_has_a_panel_for_each():
    history = {"epoch": [1], "train_loss": [2.0], "validation_loss": [3.0]}
    [loss] = plot_training_history(history).axes
    assert list(loss.lines[1].get_ydata()) == [3.0]
    names = [f"{split}_{m}" for m in ("loss", "rmse", "r2") for split in ("train", "validation")]
    panels = plot_training_history({"epoch": [1], **{name: [0.5] for name in names}}).axes
    assert [axes.get_title() for axes in panels] == ["loss", "rmse", "r2"]


def test_each_class_that_occurs_has_a_curve_against_the_rest():
    probability = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]]
    curves, truth = one_versus_rest(probability, [0, 1, 1], ("cat", "dog", "hen"))
    assert legend_of(plot_roc_curves(curves, truth)) == ["cat (1.000)", "dog (1.000)"]
    assert {row["model"] for row in roc_rows(curves, truth)} == {"cat", "dog"}


def test_a_confusion_matrix_of_many_classes_has_room_for_them():
    few, many = (
        plot_confusion_matrix([0], [0], [str(n) for n in range(k)]).get_size_inches()
        for k in (2, 10)
    )
    assert many[0] > few[0] + 3


@pytest.mark.parametrize("k", [2, 3, 12])
@pytest.mark.parametrize("name", ["{}", "a class with a name of many words, number {}"])
def test_names_of_classes_do_not_overlap(k, name):
    figure = plot_confusion_matrix([0], [0], [name.format(n) for n in range(k)], "validation")
    FigureCanvasAgg(figure).draw()
    [axes] = figure.axes
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        boxes = [label.get_window_extent() for label in labels]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_empty_cells_of_many_classes_have_no_text():
    [axes] = plot_confusion_matrix([0, 10], [0, 3], [str(n) for n in range(11)]).axes
    assert [text.get_text() for text in axes.texts] == ["1\n100.0%", "1\n100.0%"]


@pytest.mark.parametrize("k", [2, 12, 100])
def test_every_curve_is_named_beside_the_picture(k):
    curves = {f"_{n}": [0.5] * 4 + [n / 100] for n in range(k)}
    figure = plot_roc_curves(curves, Y)
    FigureCanvasAgg(figure).draw()
    [axes] = figure.axes
    [legend] = figure.legends
    assert {text.get_text().split(" ")[0] for text in legend.get_texts()} == set(curves)
    box = legend.get_window_extent()
    assert figure.bbox.x1 >= box.x1
    assert box.y0 >= 0
    assert not box.overlaps(axes.get_window_extent())
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines[:-1]}
    assert len(looks) == min(k, 32)


def test_predicted_numbers_are_drawn_with_true_ones():
    [axes] = plot_predicted([1.0, 5.0], [2.0, 4.0]).axes
    points, line = axes.lines
    assert list(points.get_xdata()) == [1, 5]
    assert list(points.get_ydata()) == [2, 4]
    assert list(line.get_xdata()) == list(line.get_ydata()) == [1, 5]


def test_many_predicted_numbers_are_sampled():
    numbers = np.arange(20_000.0)
    rows = predicted_rows(numbers, numbers + 1)
    assert len(rows) == 2000
    assert rows[0] == {"actual": 0, "predicted": 1}
    assert rows[-1] == {"actual": 19_999, "predicted": 20_000}
    assert predicted_rows([1.0], [2.0]) == [{"actual": 1, "predicted": 2}]


def test_rows_for_dvc_have_the_same_curves_and_cases():
    rows = roc_rows({"right": [0.1, 0.2, 0.3, 0.8, 0.9]}, Y)
    assert {row["model"] for row in rows} == {"right"}
    assert (rows[0]["false_positive_rate"], rows[-1]["true_positive_rate"]) == (0, 1)
    cases = confusion_rows(Y, PREDICTED, ("no", "yes"))
    assert cases[2] == {"actual": "no", "predicted": "yes"}
    as_truth = [np.asarray(values) > 0 for values in (Y, PREDICTED)]
    assert confusion_rows(*as_truth, ("no", "yes")) == cases


def test_the_same_figure_is_written_as_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        save_figure(plot_training_history(HISTORY, 2), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["名前", "हिन्दी", "🎉"])
def test_letters_that_the_font_lacks_are_no_warning(tmp_path, name):
    figure = plot_confusion_matrix([0, 1], [0, 1], [name, "b"])
    save_figure(figure, tmp_path / "picture.png")


def test_a_dollar_in_a_name_is_no_formula(tmp_path):
    figure = plot_confusion_matrix([0, 1], [0, 1], [r"$\frac", "a$b$"], title="$x")
    save_figure(figure, tmp_path / "picture.png")
    texts = [text.get_text() for text in figure.findobj(Text) if "$" in text.get_text()]
    assert {r"$\frac", "a$b$", "$x"} <= set(texts)
    assert not [t for t in figure.findobj(Text) if t.get_parse_math() and "$" in t.get_text()]


def test_large_numbers_are_written_out():
    figure = plot_predicted([1e5, 2.2e6], [1.2e5, 2e6])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert "2,000,000" in {label.get_text() for label in axes.get_xticklabels()}
    assert axes.yaxis.get_offset_text().get_text() == ""


@pytest.mark.parametrize("largest", [9.9e4, 9.9e5, 9.9e6, 1.4e9, 9.9e11])
def test_tick_labels_do_not_overlap(largest):
    figure = plot_predicted([0.2 * largest, largest], [0.2 * largest, largest])
    figure.draw_without_rendering()
    labels = [label for label in figure.axes[0].get_xticklabels() if label.get_text()]
    assert len(labels) > 2
    for one, other in pairwise(labels):
        left, right = one.get_window_extent(), other.get_window_extent()
        height = one.get_fontsize() * figure.dpi / 72
        between = (right.x1 - left.x1) * math.sin(math.radians(one.get_rotation()))
        assert left.x1 < right.x0 or between > height, (
            "the labels are side by side, or their lines do not touch"
        )


# ---- of many rows


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(0)
    y = (rng.random(50_000) < 0.3).astype(int)
    return y, np.clip(0.3 * y + rng.random(50_000) * 0.7, 0, 1).round(3)  # rounded: many are equal


def test_the_roc_curve_of_many_rows_is_thinned_and_lies_on_the_exact_one(many):
    y, probability = many
    exact = {tuple(p) for p in np.transpose(roc_curve(y, probability, drop_intermediate=False)[:2])}
    found = roc_rows({"model": probability}, y)
    points = [(row["false_positive_rate"], row["true_positive_rate"]) for row in found]
    assert len(points) <= 2001
    assert points[0] == (0, 0)
    assert points[-1] == (1, 1)
    assert points == sorted(points)
    distances = [min(abs(x - a) + abs(t - b) for a, b in exact) for x, t in points[::40]]
    assert max(distances) < 1e-12


def test_the_confusion_table_of_many_rows_has_the_same_shares(many):
    y, probability = many
    predicted = (probability > 0.5).astype(int)
    rows = confusion_rows(y, predicted, ("no", "yes"))
    assert 10_000 <= len(rows) <= 10_004
    wrong = sum(row["actual"] != row["predicted"] for row in rows) / len(rows)
    assert wrong == pytest.approx(np.mean(y != predicted), abs=1e-3)


def test_a_scatter_plot_samples_many_rows(many):
    [axes] = plot_predicted(*many).axes
    assert len(axes.lines[0].get_xdata()) == 20_000
