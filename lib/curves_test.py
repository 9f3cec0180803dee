"""A training appends its curve for the tracker, and a full disk does not end it."""

import pytest

from lib.curves import append_to_curve
from lib.trials import SO_FAR, append_trial, trials_so_far

pytestmark = pytest.mark.unittest


def test_rows_are_appended_below_one_header(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVE_CURVE", str(tmp_path / "curve.csv"))
    for epoch in (1, 2):
        append_to_curve({"epoch": epoch, "loss": 0.5})
        append_trial({"trial": epoch})
    assert (tmp_path / "curve.csv").read_text() == "epoch,loss\n1,0.5\n2,0.5\n"
    assert trials_so_far(tmp_path) == [{"trial": 1}, {"trial": 2}]


@pytest.mark.parametrize("place", ["folder that is gone", "full disk"])
def test_a_training_continues_if_nothing_can_be_written(tmp_path, monkeypatch, place):
    monkeypatch.setenv("LIVE_CURVE", str(tmp_path / place / "curve.csv"))
    if place == "full disk":
        (tmp_path / place).mkdir()
        for name in ("curve.csv", SO_FAR):
            (tmp_path / place / name).symlink_to("/dev/full")
    append_to_curve({"epoch": 1, "loss": 0.5})
    append_trial({"trial": 1})
