"""Pictures show the numbers they are given, and are the same to the byte each time."""

import numpy as np
import pytest
from matplotlib.text import Text

from lib.viz import (
    confusion_rows,
    plot_confusion_matrix,
    plot_roc_curves,
    plot_training_history,
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


def test_a_confusion_matrix_shows_each_count_and_its_share_of_the_true_class():
    [axes] = plot_confusion_matrix(Y, PREDICTED, ("benign", "malignant")).axes
    assert [text.get_text() for text in axes.texts] == [
        "2\n66.7%",
        "1\n33.3%",
        "0\n0.0%",
        "2\n100.0%",
    ]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["benign", "malignant"]


def test_a_class_that_does_not_occur_has_a_row_all_the_same():
    [axes] = plot_confusion_matrix([0, 0], [0, 0], ("benign", "malignant")).axes
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


def test_roc_curves_of_several_models_are_in_one_picture_the_best_first():
    probabilities = {"coin": [0.5] * 5, "right": [0.1, 0.2, 0.3, 0.8, 0.9]}
    [axes] = plot_roc_curves(probabilities, Y).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["right (1.000)", "coin (0.500)"]


def test_rows_for_dvc_hold_the_same_curves_and_cases():
    rows = roc_rows({"right": [0.1, 0.2, 0.3, 0.8, 0.9]}, Y)
    assert {row["model"] for row in rows} == {"right"}
    assert (rows[0]["false_positive_rate"], rows[-1]["true_positive_rate"]) == (0, 1)
    cases = confusion_rows(Y, PREDICTED, ("benign", "malignant"))
    assert cases[2] == {"actual": "benign", "predicted": "malignant"}


def test_the_same_figure_is_written_as_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        save_figure(plot_training_history(HISTORY, 2), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_dollar_in_a_name_is_no_formula(tmp_path):
    figure = plot_confusion_matrix([0, 1], [0, 1], [r"$\frac", "a$b$"], title="$x")
    save_figure(figure, tmp_path / "picture.png")
    texts = [text.get_text() for text in figure.findobj(Text) if "$" in text.get_text()]
    assert {r"$\frac", "a$b$", "$x"} <= set(texts)
    assert not [t for t in figure.findobj(Text) if t.get_parse_math() and "$" in t.get_text()]
