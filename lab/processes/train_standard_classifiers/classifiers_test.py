"""The classifiers are what their names say and are compared fairly, and the best is kept."""

import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lab.processes.prepare_data.cancer_data import FEATURES, TARGET, load_cancer_data
from lab.processes.train_standard_classifiers import classifiers, main
from lab.processes.train_standard_classifiers.classifiers import (
    CLASSIFIERS,
    best_classifier,
    draw_rows,
    measure,
    train_classifiers,
)
from lab.processes.train_standard_classifiers.log import log
from lab.processes.train_standard_classifiers.params import Params
from lib.errors import UserError
from lib.files import read_csv, read_json
from lib.params import check_params, read_yaml
from lib.splits import load_data_splits

pytestmark = pytest.mark.unittest

ROOT = Path(__file__).resolve().parent.parent.parent.parent


@pytest.fixture
def splits(temp_data_dir):
    return load_data_splits(temp_data_dir)


@pytest.fixture
def params():
    """params.yaml, with five trees or rounds instead of more."""
    content = read_yaml(ROOT / "params.yaml")
    for section in content["train_standard_classifiers"].values():
        if "n_estimators" in (section if isinstance(section, dict) else ()):
            section["n_estimators"] = 5
    return check_params(content, Params)


@pytest.fixture
def settings(params):
    return params.train_standard_classifiers.model_dump(exclude={"max_rows"})


@pytest.fixture
def trained(params, temp_data_dir, tmp_path, monkeypatch):
    """The folder in which the process has run, as its paths are relative."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "PROCESSED", temp_data_dir)
    main.train(params)
    return tmp_path


def test_each_classifier_of_the_parameters_is_trained_in_order(splits, settings):
    trained = list(train_classifiers(splits, settings, random_seed=0))
    assert [one.name for one in trained] == list(settings) == list(CLASSIFIERS)
    for one in trained:
        assert one.validation.shape == splits.y_val.shape
        assert measure(one, splits)["validation"]["accuracy"] > 0.9, one.name


def test_a_classifier_trained_with_others_equals_one_trained_alone(splits, settings):
    together = {one.name: one for one in train_classifiers(splits, settings, random_seed=3)}
    for name in settings:
        [alone] = train_classifiers(splits, {name: settings[name]}, random_seed=3)
        assert np.array_equal(alone.test, together[name].test), name


# ---- with more rows than max_rows


def test_with_max_rows_rows_are_drawn_from_everywhere():
    rows = draw_rows(1000, 300, random_seed=0)
    assert len(set(rows)) == 300
    assert np.array_equal(rows, np.sort(rows))
    assert rows[0] < 4
    assert rows[-1] >= 996
    assert np.array_equal(rows, draw_rows(1000, 300, random_seed=0))
    assert not np.array_equal(rows, draw_rows(1000, 300, random_seed=1))


def test_naive_bayes_learns_from_all_rows_and_others_from_drawn_rows(splits, settings, monkeypatch):
    monkeypatch.setattr(classifiers, "PART_ROWS", 50)
    names = ("logistic_regression", "gaussian_naive_bayes")
    some = {name: settings[name] for name in names}
    n = len(splits.X_train)
    line, bayes = train_classifiers(splits, some, random_seed=0, max_rows=200)
    _, whole = train_classifiers(splits, some, random_seed=0)
    assert (line.rows, bayes.rows, whole.rows) == (200, n, n)
    np.testing.assert_allclose(bayes.test, whole.test, rtol=1e-3, atol=1e-6)  # in float32
    drawn = draw_rows(n, 200, random_seed=0)
    alone = LogisticRegression(**settings["logistic_regression"], random_state=0)
    alone.fit(splits.X_train[drawn], splits.y_train[drawn])
    expected = alone.predict_proba(splits.X_val)[:, 1]
    np.testing.assert_allclose(line.validation, expected, rtol=1e-3)


def test_the_metrics_show_the_number_of_training_rows(params, temp_data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "PROCESSED", temp_data_dir)
    section = params.train_standard_classifiers.model_copy(update={"max_rows": 200})
    main.train(params.model_copy(update={"train_standard_classifiers": section}))
    rows = {row["classifier"]: row["trained_on_rows"] for row in read_csv(main.METRICS_OF_ALL)}
    assert rows.pop("gaussian_naive_bayes") == "386"
    assert set(rows.values()) == {"200"}
    assert read_json(main.METRICS)["trained_on_rows"] in (200, 386)


IMPOSSIBLE = {
    "more neighbours than rows": ("k_nearest_neighbours", {"n_neighbors": 500}),
    "more than an integer of the machine holds": (
        "random_forest",
        {"n_estimators": 1, "max_depth": 10**30},
    ),
    "probabilities that are not numbers": ("gaussian_naive_bayes", {"var_smoothing": 1e300}),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_a_parameter_that_cannot_work_with_these_data_is_named(splits, case):
    name, params = IMPOSSIBLE[case]
    with pytest.raises(UserError) as caught:
        list(train_classifiers(splits, {name: params}, random_seed=0))
    message, (key, value) = str(caught.value), list(params.items())[-1]
    assert message.startswith(f"train_standard_classifiers.{name} (")
    assert f"{key} {value}" in message
    assert "\n" not in message


@pytest.mark.parametrize("strength", [1e-300, 1e300])
@pytest.mark.parametrize("name", ["logistic_regression", "linear_svc"])
def test_a_regularisation_that_keeps_a_solver_running_is_refused(name, strength):
    content = read_yaml(ROOT / "params.yaml")
    content["train_standard_classifiers"][name]["C"] = strength
    with pytest.raises(UserError, match=rf"train_standard_classifiers\.{name}\.C is 1e"):
        check_params(content, Params)


def test_probabilities_match_scikit_learn(splits, settings):
    [one] = train_classifiers(splits, {"logistic_regression": {"C": 0.3}}, random_seed=0)
    reference = LogisticRegression(C=0.3, random_state=0).fit(splits.X_train, splits.y_train)
    assert np.array_equal(one.test, reference.predict_proba(splits.X_test)[:, 1])


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [((0.9, 0.95), (0.1, 0.9), "b"), ((0.9, 0.9), (0.2, 0.1), "b"), ((0.9, 0.9), (0.1, 0.1), "a")],
)
def test_the_best_is_by_accuracy_then_by_loss_then_the_first(accuracies, losses, best):
    metrics = {
        name: {"validation": {"accuracy": accuracy, "log_loss": loss}}
        for name, accuracy, loss in zip("ab", accuracies, losses, strict=True)
    }
    assert best_classifier(metrics) == best


def test_the_saved_model_accepts_raw_features_in_a_new_interpreter(trained, tmp_path):
    np.save(tmp_path / "raw.npy", load_cancer_data()[list(FEATURES)].to_numpy())
    script = (
        "import joblib, numpy, sys; "
        "p = joblib.load(sys.argv[1]).predict_proba(numpy.load(sys.argv[2])); "
        "numpy.save(sys.argv[3], p)"
    )
    files = [
        trained / main.ARTIFACTS / "model.joblib",
        tmp_path / "raw.npy",
        tmp_path / "probabilities.npy",
    ]
    # In another folder and without this repository, as it needs only scikit-learn.
    subprocess.run([sys.executable, "-I", "-c", script, *files], cwd=tmp_path, check=True)
    fresh = np.load(files[2])
    assert np.array_equal(fresh, joblib.load(files[0]).predict_proba(np.load(files[1])))
    accuracy = np.mean((fresh[:, 1] >= 0.5) == load_cancer_data()[TARGET])
    assert accuracy > 0.95, "raw features must be scaled inside"


def test_metrics_of_the_best_are_those_in_the_table_of_all(trained):
    best = read_json(trained / main.METRICS)
    table = {row["classifier"]: row for row in read_csv(trained / main.METRICS_OF_ALL)}
    row = table[best["classifier"]]
    assert float(row["validation_accuracy"]) == best["validation"]["accuracy"]
    assert float(row["test_log_loss"]) == best["test"]["log_loss"]
    assert best["validation"]["accuracy"] == max(
        float(r["validation_accuracy"]) for r in table.values()
    )


def test_each_classifier_is_logged_as_a_nested_run(trained, params):
    mlflow = MagicMock()
    log(mlflow, params.model_dump())
    table = read_csv(trained / main.METRICS_OF_ALL)
    runs = [call.kwargs for call in mlflow.start_run.call_args_list]
    assert runs == [{"run_name": row["classifier"], "nested": True} for row in table]
    for row, logged, metrics in zip(
        table, mlflow.log_params.call_args_list, mlflow.log_metrics.call_args_list, strict=True
    ):
        assert logged.args[0]["classifier"] == row["classifier"]
        assert metrics.args[0]["validation_accuracy"] == float(row["validation_accuracy"])
        assert len(metrics.args[0]) == 12
