"""The pictures of a sweep show every trial, with values in order."""

from types import SimpleNamespace

import optuna
import pytest

from lib.sweeps import plot_history, plot_importances, plot_slices
from lib.tuning import Trial
from lib.viz import save_figure

pytestmark = pytest.mark.unittest

LONG = "a name of more than forty letters, number {}"


def sweep_of(values, states=(), **kinds):
    """A sweep with these values, states (else complete) and distributions."""
    states = [*states, *["complete"] * len(values)]
    trials = [
        Trial(n, each, state, None, None if state == "failed" else n / 10, {}, "")
        for n, (each, state) in enumerate(zip(values, states, strict=False))
    ]
    study = SimpleNamespace(trials=[SimpleNamespace(distributions=kinds)])
    settings = SimpleNamespace(objective="loss", better="smaller")
    return SimpleNamespace(trials=trials, study=study, settings=settings)


def labels_of(axes):
    axes.figure.draw_without_rendering()
    return [label.get_text() for label in axes.get_xticklabels()]


def test_pruned_and_failed_trials_are_counted_and_pruned_ones_marked():
    figure = plot_history(sweep_of([{"x": n} for n in range(5)], ["pruned", "failed", "pruned"]))
    [axes] = figure.axes
    assert axes.get_title() == "Trials: 2 complete, 1 failed, 2 pruned"
    assert list(axes.lines[0].get_xdata()) == [0, 2]
    assert list(axes.lines[1].get_xdata()) == [3, 4]
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_a_parameter_without_an_importance_is_named_with_the_reason():
    trials = sweep_of([{"kind": "a", "x": 1, "b.y": 2}, {"kind": "b", "x": 1}]).trials
    [axes] = plot_importances({"kind": 1.0}, trials).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "b.y", "kind"]
    assert [text.get_text() for text in axes.texts] == ["not known", "not in all trials"]


def test_values_are_in_order_numbers_first():
    sweep = sweep_of([{"depth": value} for value in (4, 2, None, 10, "a")])
    [axes] = plot_slices(sweep).axes
    assert labels_of(axes) == ["2", "4", "10", "None", "a"]
    points = axes.collections[0].get_offsets()
    assert points[:, 0].tolist() == [1, 0, 3, 2, 4]
    assert points[:, 1].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_numbers_to_choose_from_stand_side_by_side():
    kind = optuna.distributions.CategoricalDistribution(["16", "256"])
    [axes] = plot_slices(sweep_of([{"size": 256}, {"size": 16}], size=kind)).axes
    assert labels_of(axes) == ["16", "256"]


def test_turned_labels_end_at_their_ticks():
    sweep = sweep_of([{"kind": LONG.format(n)} for n in range(3)])
    labels = plot_slices(sweep).axes[0].get_xticklabels()
    found = {(label.get_ha(), label.get_rotation(), label.get_rotation_mode()) for label in labels}
    assert found == {("right", 30, "anchor")}


@pytest.mark.parametrize("values", [(0.002, 0.009), (0.003, 0.0031), (1e-5, 10), (0.1,)])
def test_numbers_beside_a_logarithmic_axis_are_plain(values):
    log = optuna.distributions.FloatDistribution(1e-9, 1e9, log=True)
    [axes] = plot_slices(sweep_of([{"lr": value} for value in values], lr=log)).axes
    labels = [label.replace("−", "-") for label in labels_of(axes) if label]
    assert len(labels) > 1
    assert [float(label) for label in labels] == sorted(map(float, labels))
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


def test_pruned_trials_are_crosses_in_every_panel_with_one_scale():
    figure = plot_slices(sweep_of([{"x": n, "y": n} for n in range(3)], ["pruned"]))
    for axes in figure.axes:
        assert list(axes.lines[0].get_xdata()) == [0]
        assert len(axes.collections[0].get_offsets()) == 2
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim()
    assert "×: pruned" in figure.get_suptitle()


def test_many_values_and_long_names_fit(tmp_path):
    values = [{"имя": LONG.format(n), LONG.format(n % 6): True, "x": n} for n in range(57)]
    sweep = sweep_of(values, ["pruned", "failed"])
    sweep.settings.objective = LONG.format("of an objective")
    figures = plot_history(sweep), plot_importances({}, sweep.trials), plot_slices(sweep)
    for figure in figures:
        save_figure(figure, tmp_path / "picture.png")
    figures[2].draw_without_rendering()
    boxes = [label.get_window_extent() for label in figures[2].axes[0].get_xticklabels()]
    assert len(boxes) <= 12
    assert all(box.x0 >= 0 for box in boxes)
