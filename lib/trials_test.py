"""A sweep's trials reach MLflow whatever their metrics and parameters are called."""

from unittest.mock import MagicMock

import pytest

from lib.trials import log_trials

pytestmark = pytest.mark.unittest


def test_names_that_mlflow_refuses_are_logged_as_those_of_a_stage_are():
    mlflow = MagicMock()
    mlflow.search_runs.return_value = []
    row = {"trial": 0, "state": "complete", "values.C & D": 0.5}
    metrics = {"metrics.recall.<=50K": 0.25, "metrics.precision@10": 0.75}
    log_trials(mlflow, [row | metrics])
    mlflow.log_params.assert_called_once_with({"state": "complete", "C _ D": 0.5})
    mlflow.log_metrics.assert_called_once_with({"recall.__50K": 0.25, "precision_10": 0.75})
