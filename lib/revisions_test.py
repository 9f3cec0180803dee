"""What a revision's files may look like: all that DVC allows, and what a merge leaves."""

import pytest

from lib import revisions
from lib.compare import judged
from lib.errors import UserError
from lib.revisions import Revision

pytestmark = pytest.mark.unittest


@pytest.fixture
def work_tree(tmp_path, monkeypatch):
    """A work tree of its own."""
    monkeypatch.setattr(revisions, "ROOT", tmp_path)
    return tmp_path


def test_plots_that_only_dvc_can_draw_are_named_and_the_others_found(work_tree):
    (work_tree / "dvc.yaml").write_text(
        """
stages: {}
plots:
  - Loss: {x: epoch, y: {history.csv: [train, validation]}}
  - scores.csv: {x: a, y: b}
  - other.csv:
  - No x: {y: {a.csv: b}}
  - A file for x: {x: {a.csv: b}, y: {a.csv: c}}
  - plain.csv
"""
    )
    revision = Revision("")
    assert [(plot.path, plot.x, list(plot.y)) for plot in revision.plots] == [
        ("history.csv", "epoch", ["train", "validation"]),
        ("scores.csv", "a", ["b"]),
    ]
    assert len(revision.missing) == 4


def test_what_a_merge_left_is_told_in_a_line(work_tree):
    (work_tree / "params.yaml").write_text("<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> b\n")
    with pytest.raises(UserError, match=r"params.yaml of work tree is no YAML"):
        _ = Revision("").params


def test_metrics_that_cannot_be_read_are_missing(work_tree):
    (work_tree / "dvc.yaml").write_text("stages: {a: {cmd: x, metrics: [m.json: {cache: false}]}}")
    (work_tree / "m.json").write_text("<<<<<<<")
    revision = Revision("")
    assert revision.metrics == {}
    assert revision.missing == ["m.json of work tree is no JSON: a merge?"]


@pytest.mark.parametrize(
    ("key", "by", "said"),
    [
        ("m.test.accuracy", 0.1, " better"),
        ("m.test.log_loss", 0.1, " worse"),
        ("m.test.brier_score", -0.1, " better"),
        ("m.test.rmse", 0.1, " worse"),
        ("m.test.rows", 5, ""),
    ],
)
def test_a_metric_is_judged_only_where_its_name_tells(key, by, said):
    assert judged(key, by) == said
