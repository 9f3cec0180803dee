"""Tests of the runtime before its release: `make rehearse FILE=build/cancer-….krt`.

`runtime` is the archive itself, served over gRPC (tools/krt/rehearse.py).
"""

import csv
import json
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import pytest

RAW = Path(__file__).resolve().parents[2] / "data/raw/breast_cancer.csv"


@pytest.fixture(scope="session")
def model(runtime):
    """The model in the archive, to be run directly."""
    return onnxruntime.InferenceSession(runtime.asset("assets/model.onnx"))


@pytest.fixture(scope="session")
def rows(model):
    """Every raw row, as features by name."""
    names = json.loads(model.get_modelmeta().custom_metadata_map["feature_names"])
    with RAW.open(encoding="utf-8", newline="") as file:
        return [{name: float(row[name]) for name in names} for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def expected(model, rows):
    """The probability of each class for every row, from the model in Python."""
    classes = json.loads(model.get_modelmeta().custom_metadata_map["class_names"])
    X = np.array([list(row.values()) for row in rows])
    (probabilities,) = model.run(["probabilities"], {"features": X})
    return [dict(zip(classes, map(float, row), strict=True)) for row in probabilities]


def test_every_row_gets_the_models_own_probability(runtime, rows, expected):
    answers = runtime.call_many("Predict", [{"features": row} for row in rows])
    for answer, wanted in zip(answers, expected, strict=True):
        assert dict(answer.probabilities) == pytest.approx(wanted, abs=1e-6)
        assert answer.label == max(answer.probabilities, key=answer.probabilities.get)
        assert not answer.error


def test_a_thousand_requests_in_flight_are_all_answered_each_with_its_own(runtime, rows, expected):
    chosen = [n % len(rows) for n in range(1_000)]
    answers = runtime.call_many("Predict", [{"features": rows[n]} for n in chosen])
    for n, answer in zip(chosen, answers, strict=True):
        assert dict(answer.probabilities) == pytest.approx(expected[n], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean radius": None}, "'mean radius' is missing"),
        ({"mean redness": 1.0}, "'mean redness' is not known"),
        ({"mean radius": float("nan")}, "'mean radius' is no finite number"),
        ({"mean radius": float("-inf")}, "'mean radius' is no finite number"),
        ({"mean radius": 1e300}, "'mean radius' is 1e+300"),
    ],
)
def test_a_request_that_cannot_be_scored_is_told_why(runtime, rows, change, said):
    changed = {name: value for name, value in (rows[0] | change).items() if value is not None}
    answer = runtime.call("Predict", features=changed)
    assert said in answer.error
    assert not answer.label
    assert not answer.probabilities


def test_features_that_are_too_large_for_the_model_together_are_told(runtime, rows):
    answer = runtime.call("Predict", features=dict.fromkeys(rows[0], 3.4e38))
    assert "the model has no finite probability for them" in answer.error
    assert not answer.label
    assert not answer.probabilities


def test_an_empty_request_is_told_why(runtime):
    assert "and 27 more are missing: all 30 are needed" in runtime.call("Predict").error


def test_bytes_that_are_no_request_are_refused(runtime):
    with pytest.raises(grpc.RpcError) as refused:
        runtime.call_bytes("Predict", b"\xff\xff\xff")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "is no PredictRequest" in refused.value.details()


def test_it_still_answers_after_all_of_this(runtime, rows, expected):
    answer = runtime.call("Predict", features=rows[0])
    assert dict(answer.probabilities) == pytest.approx(expected[0], abs=1e-6)
