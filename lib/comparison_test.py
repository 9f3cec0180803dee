"""How values are shown, which metrics are judged, and tables of results of any task."""

import io
import json
import subprocess
from types import SimpleNamespace

import pytest

from lib.comparison import (
    Best,
    as_markdown,
    best_model,
    change,
    cut,
    judged,
    measured,
    metrics_table,
    params_table,
    results_table,
    rows_changed,
    shown,
    size,
)
from lib.pipeline import Out
from lib.revisions import Revision

pytestmark = pytest.mark.unittest

NAN = float("nan")


@pytest.fixture
def revision(tmp_path):
    """Makes a work tree with these metrics files, each of a stage of its own."""

    def make(**files):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        (root / ".dvc").mkdir(parents=True)
        (root / ".dvc/config").touch()
        subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
        stages = {
            name: {"cmd": "x", "metrics": [{f"{name}.json": {"cache": False}}]} for name in files
        }
        for name, content in files.items():
            (root / f"{name}.json").parent.mkdir(exist_ok=True)
            (root / f"{name}.json").write_text(json.dumps(content))
        (root / "dvc.yaml").write_text(json.dumps({"stages": stages}))
        return Revision("", root)

    return make


# ---- values


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (999_700, "1 MB"), (12_345, "12.3 kB"), (1.5e12, "1.5 TB")],
)
def test_byte_counts_have_readable_units(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (38124.9, "38,124.90"),
        (60000, "60,000"),
        (0.97674418, "0.9767"),
        (NAN, "nan"),
        (None, "–"),
        (True, "true"),
        ([200, 100, 100], "[200, 100, 100]"),
        (list(range(1500)), "[0, 1, 2, … 1,500 in all]"),
        ([[1, 2], [3, 4]], "[[2 in all], [2 in all]]"),
        ("two\nlines\x1b[31m", "two lines\\x1b[31m"),
        ("x" * 200, "x" * 79 + "…"),
    ],
)
def test_every_value_has_one_form(value, text):
    assert shown(value) == text


# ---- the judgement


@pytest.mark.parametrize(
    ("key", "by", "verdict"),
    [
        ("m.test.accuracy", 0.1, " better"),
        ("m.test.log_loss", 0.1, " worse"),
        ("m.test.brier_score", -0.1, " better"),
        ("m.test.rmse", 0.1, " worse"),
        ("m.test.rows", 5, ""),
        ("m.test.recall.false", 0.1, " better"),
        ("m.missing_share.credit_score", 0.1, ""),
        ("missing_rows.rmse", 0.1, " worse"),
        ("m.rmse", -56.2, " better"),
        ("m.test.accuracy", 0, ""),
        ("m.test.accuracy", NAN, ""),
    ],
)
def test_a_metric_is_judged_only_if_its_name_is_clear(key, by, verdict):
    assert judged(key, by) == verdict


def test_a_difference_too_small_to_see_is_not_judged():
    assert change("accuracy", 0.97670001, 0.97670002) == "+1e-08"
    assert change("accuracy", 0.5, 0.6) == "+0.1 better"
    assert change("accuracy", None, 0.6) == ""
    assert change("accuracy", NAN, 0.6) == ""
    assert change("accuracy", 10**400, 0.6) == ""
    assert change("rows", 5, 7) == "+2"


# ---- results


def test_the_table_has_a_row_for_each_measured_model(revision):
    header, rows = results_table(
        revision(
            sizes={"rows": 3},
            a={"classifier": "forest", "test": {"accuracy": 0.5}},
            b={"test": {"accuracy": 0.6, "recall": 1}},
        )
    )
    assert len(rows) == 2
    assert list(header) == ["split", "model", "accuracy", "recall"]
    assert [row[1] for row in rows] == ["forest", "b"]
    assert rows[1] == ("test", "b", "0.6", "1")
    assert rows[0] == ("test", "forest", "0.5", "")


def test_without_metrics_the_table_is_empty(revision):
    assert results_table(revision())[1] == []


def test_house_prices_have_results_and_a_best_model(revision):
    houses = revision(
        linear={"validation": {"rmse": 38181.2, "r2": 0.81}, "test": {"rmse": 39000.0, "r2": 0.8}},
        forest={"validation": {"rmse": 38125.0, "r2": 0.8}, "test": {"rmse": 40000.0, "r2": NAN}},
    )
    header, rows = results_table(houses)
    assert header == ("split", "model", "rmse", "r2")
    assert rows == [
        ("validation", "linear", "38,181.20", "0.81"),
        ("validation", "forest", "38,125.00", "0.80"),
        ("test", "linear", "39,000.00", "0.80"),
        ("test", "forest", "40,000.00", "nan"),
    ]
    assert best_model(measured(houses)) == Best(["forest"], ["rmse"], "validation", [])


def test_metrics_without_splits_have_rows_and_a_best_model(revision):
    flat = revision(a={"rmse": 3.0, "epochs": 5}, b={"rmse": 2.0, "curve": [1, 2], "none": None})
    header, rows = results_table(flat)
    assert header == ("metric", "value")
    assert rows == [
        ("a.rmse", "3"),
        ("a.epochs", "5"),
        ("b.rmse", "2"),
        ("b.curve", "[1, 2]"),
        ("b.none", "–"),
    ]
    assert best_model(measured(flat)) == Best(["b"], ["rmse"], "", [])


def test_ties_are_decided_by_the_next_measure(revision):
    level = revision(
        a={"validation": {"accuracy": 0.9, "log_loss": 0.3}},
        b={"validation": {"accuracy": 0.9, "log_loss": 0.2}},
        c={"validation": {"accuracy": None, "log_loss": 0.1}},
    )
    best = Best(["b"], ["accuracy", "log_loss"], "validation", ["c"])
    assert best_model(measured(level)) == best
    assert best_model([]) is None


@pytest.mark.parametrize(
    ("models", "best"),
    [
        ({"a": {"rmse": NAN}, "b": {"rmse": None}}, None),
        ({"a": {"rmse": NAN}, "b": {"rmse": 2.0}}, (["b"], ["rmse"], ["a"])),
        ({"a": {"rmse": NAN, "r2": 0.1}, "b": {"rmse": None, "r2": 0.2}}, (["b"], ["r2"], [])),
        ({"a": {"rmse": 2.0}, "b": {"rmse": 2.0}, "c": {"rmse": 3.0}}, (["a", "b"], ["rmse"], [])),
        ({"a": {"rmse": 2.0}, "b": {"accuracy": 0.9}}, None),
        ({"a": {"rmse": 2.0, "r2": 0.1}, "b": {"r2": 0.2}}, (["b"], ["r2"], [])),
        ({"a": {"rmse": 2.0, "r2": 0.1}}, (["a"], ["rmse"], [])),
        ({"p": {"loss": 1}, "a": {"rmse": 5}, "b": {"rmse": 1}}, (["b"], ["rmse"], ["p"])),
    ],
)
def test_the_best_model_is_decided_by_shared_numeric_measures_or_tied(revision, models, best):
    found = measured(revision(**{name: {"test": values} for name, values in models.items()}))
    assert best_model(found) == (best and Best(best[0], best[1], "test", best[2]))


def test_a_model_without_the_split_is_not_compared(revision):
    both = {"validation": {"rmse": 5.0}, "test": {"rmse": 5.0}}
    assert best_model(measured(revision(a=both, b={"test": {"rmse": 1.0}}))) is None
    found = best_model(measured(revision(a=both, b={"test": {"rmse": 1.0}}, c=both)))
    assert found == Best(["a", "c"], ["rmse"], "validation", ["b"])


def test_models_with_one_name_are_shown_by_file(revision):
    rows = measured(
        revision(
            a={"model": "forest", "test": {"auc": 1}}, b={"model": "forest", "test": {"auc": 0}}
        )
    )
    assert [row.model for row in rows] == ["a", "b"]
    assert measured(revision(a={"model": {"rmse": 1}}))[0].model == "a"


def test_other_values_of_a_split_are_not_columns(revision):
    nested = {"auc": 0.9, "confusion": [[1, 2], [3, 4]], "by_class": {"cat": {"recall": 1}}}
    header, rows = results_table(revision(a={"test": nested}))
    assert (header, rows) == (("split", "model", "auc"), [("test", "a", "0.9")])


def test_column_shares_and_measures_by_class_are_not_splits(revision):
    found = measured(
        revision(
            table={"rows": {"train": 3, "test": 1}, "missing_share": {"credit_score": 0.03}},
            model={"test": {"rmse": 2.0}, "recall": {"true": 1.0, "false": 0.5}},
        )
    )
    assert [(row.split, row.model, dict(row.values)) for row in found] == [
        ("test", "model", {"rmse": 2.0})
    ]


def test_many_measures_are_rows(revision):
    many = {f"recall_{n}": n / 8 for n in range(1500)}
    header, rows = results_table(revision(a={"validation": many, "test": many}, b={"test": many}))
    assert header == ("measure", "validation a", "test a", "test b")
    assert len(rows) == 1500
    assert rows[1] == ("recall_1", "0.125", "0.125", "0.125")


def test_many_measures_of_many_models_have_a_row_each(revision):
    many = {f"recall_{n}": 0.5 for n in range(13)}
    header, rows = results_table(revision(**{f"m{n}": {"test": many} for n in range(13)}))
    assert header == ("metric", "value")
    assert len(rows) == 13 * 13


# ---- what differs


def test_a_lower_rmse_is_better(revision):
    old, new = (revision(prices={"test": {"rmse": rmse}}) for rmse in (38181.2, 38125.0))
    _, rows = metrics_table(old, new)
    assert rows == [("prices.test.rmse", "38,181.20", "38,125.00", "-56.20 better")]


def test_lists_are_left_out_if_only_scalars_are_wanted(revision):
    old, new = revision(a={}), revision(a={"curve": [1], "auc": 1, "name": "x"})
    assert len(metrics_table(old, new)[1]) == 3
    scalars = metrics_table(old, new, scalars_only=True)[1]
    assert [row[0] for row in scalars] == ["a.auc", "a.name"]


def test_lists_that_look_equal_are_shown_whole(revision):
    matrices = [[50, 3], [2, 40]], [[51, 2], [2, 40]]
    old, new = (revision(a={"confusion": each, "curve": each[0]}) for each in matrices)
    assert metrics_table(old, new)[1] == [
        ("a.confusion", "[[50, 3], [2, 40]]", "[[51, 2], [2, 40]]", ""),
        ("a.curve", "[50, 3]", "[51, 2]", ""),
    ]


def test_a_file_has_one_name_in_both_revisions_despite_a_new_namesake(revision):
    old, new = revision(a={"auc": 1}), revision(a={"auc": 1}, **{"below/a": {"auc": 0}})
    assert metrics_table(old, new)[1] == [("below/a.auc", "–", "0", "")]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("a,b\n1,2\n", "a,b\n1,2\n3,4\n", "1 rows came, 0 went"),
        ("a,b\n1,2\n", "a,c\n1,2\n", "0 rows came, 0 went, other columns"),
        ("a,b\n1,2\n", "a,b\r\n1,2\r\n", "0 rows came, 0 went"),
        ("", "a,b\n1,2\n", "1 rows came, 0 went, other columns"),
    ],
)
def test_the_header_is_not_a_row(before, after, expected):
    def revision(text):
        out = Out("0", len(text), 1)
        opened = io.BytesIO(text.encode())
        return SimpleNamespace(outs={"a.csv": out}, opened=lambda _: opened)

    assert rows_changed("a.csv", revision(before), revision(after)) == expected


def test_differing_parameters_are_shown(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, depth in zip(folders, ("null", "20241231"), strict=True):
        folder.mkdir()
        (folder / "params.yaml").write_text(f"same: 1\nforest: {{depth: {depth}}}\n")
    _, rows = params_table(*(Revision("", folder) for folder in folders))
    assert rows == [("forest.depth", "null", "20241231")], "it may be a seed or a date"


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("[[8], [16, 8]]", "[[8], [32, 8]]", ("[[8], [16, 8]]", "[[8], [32, 8]]")),
        (
            "[1, 2, 3, 4, 5, 6, 7]",
            "[1, 2, 3, 4, 5, 6, 8]",
            ("[1, 2, 3, 4, 5, 6, 7]", "[1, 2, 3, 4, 5, 6, 8]"),
        ),
        ("[0.00030001, null]", "[0.0003, true]", ("[0.00030001, null]", "[0.0003, true]")),
        ("[{a: größe}]", "adam", ('[{"a": "größe"}]', "adam")),
        ("[]", "null", ("[]", "null")),
    ],
)
def test_the_difference_of_parameters_is_visible(tmp_path, before, after, shown):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, value in zip(folders, (before, after), strict=True):
        folder.mkdir()
        (folder / "params.yaml").write_text(f"key: {value}\n")
    _, rows = params_table(*(Revision("", folder) for folder in folders))
    assert rows == [("key", *shown)]


def test_a_missing_parameter_is_not_shown_as_null(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/params.yaml").write_text("key: 1\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/params.yaml").write_text("other: 1\n")
    _, rows = params_table(Revision("", tmp_path / "a"), Revision("", tmp_path / "b"))
    assert rows == [("key", "1", "–"), ("other", "–", "1")]


# ---- as text


def test_long_tables_are_cut_and_counted_and_keep_top_level_rows():
    rows = [*((f"a.by_class.{n}.recall", "1") for n in range(1283)), ("a.recall", "1")]
    kept, more = cut(rows)
    assert len(kept) == 50
    assert more == "… and 1,234 more"
    assert ("a.recall", "1") in kept
    text = as_markdown((("metric", "value"), rows))
    assert text.endswith("\n\n… and 1,234 more")
    assert text.count("\n") == 53


def test_keys_cannot_break_a_table():
    text = as_markdown((("a|b", "c"), [("<b>|\n", "`x`")]))
    assert text.splitlines() == [
        "| a\\|b    | c     |",
        "| ------- | ----- |",
        "| \\<b>\\|  | \\`x\\` |",
    ]
