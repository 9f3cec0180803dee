"""The fixtures of goals, which read the results of a run.

A goal whose stages are not in dvc.yaml is not applicable. `reached`, which each goal calls at its
end, is defined in tools/goals.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from goals.params import Goals, Params
from lib.files import read_columns, read_json
from lib.nested import flat
from lib.numbers import is_number
from lib.params import load_params, read_yaml
from lib.repository import ROOT, git_or_nothing
from lib.splits import Splits, load_data_splits

RAW = ROOT / "data/raw/breast_cancer.csv"
PROCESSED = ROOT / "data/processed"
ONNX = ROOT / "artifacts/onnx"
SIZES = "metrics/prepare_data.json"
METRICS = {
    "standard_classifier": "metrics/train_standard_classifiers.json",
    "densenet": "metrics/train_dnn_pytorch.json",
}
TRAINING = ("train_standard_classifiers", "train_dnn_pytorch")
# The refs of main, on a server or here; the checkout of a job has no local branch.
MAIN = ("remotes/origin/HEAD", "remotes/origin/main", "remotes/origin/master", "heads/main")


@pytest.fixture(scope="session")
def params() -> Params:
    """The thresholds, and the seed."""
    return load_params(Params, ROOT / "params.yaml")


@pytest.fixture(scope="session")
def goals(params) -> Goals:
    """The thresholds."""
    return params.goals


@pytest.fixture(scope="session")
def stages() -> set[str]:
    """The names in dvc.yaml."""
    return set(read_yaml(ROOT / "dvc.yaml", aliases=True).get("stages") or {})


def need(stages: set[str], *wanted: str) -> None:
    """Skip the goal if the pipeline lacks one of these stages."""
    if missing := [stage for stage in wanted if stage not in stages]:
        pytest.skip(f"no stage {', '.join(missing)} in dvc.yaml")


@pytest.fixture(scope="session")
def metrics(stages) -> dict[str, Mapping[str, Any]]:
    """For each model, its measures on `validation` and `test`."""
    need(stages, *TRAINING)
    return {model: read_json(ROOT / file) for model, file in METRICS.items()}


@pytest.fixture(scope="session")
def splits(stages) -> Splits:
    """The splits that the models were trained and evaluated on."""
    need(stages, "prepare_data")
    return load_data_splits(PROCESSED)


@pytest.fixture(scope="session")
def features(stages) -> np.ndarray:
    """(n, d) float64: every row of the raw data."""
    need(stages, "prepare_data")
    return np.array(read_columns(RAW, read_json(PROCESSED / "names.json")["features"]))


@pytest.fixture(scope="session")
def model_files(stages) -> dict[str, Path]:
    """For each model, the file to deploy."""
    need(stages, "export_models")
    return {model: ONNX / f"{model}.onnx" for model in METRICS}


@pytest.fixture(scope="session")
def models(model_files) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """For each model, a function from (n, d) raw features to (n, 2) probabilities."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    def load(file: Path) -> Callable[[np.ndarray], np.ndarray]:
        session = onnxruntime.InferenceSession(file.read_bytes(), options, ["CPUExecutionProvider"])
        return lambda X: session.run(["probabilities"], {"features": X})[0]

    return {model: load(file) for model, file in model_files.items()}


@pytest.fixture(scope="session")
def best_on_main(stages) -> dict[str, float]:
    """For each model, the lowest test log loss in the history of main, on splits of these sizes.

    A shallow clone has only part of the history. Skips if main has no results.
    """
    need(stages, "prepare_data", *TRAINING)
    sizes = read_json(ROOT / SIZES)
    for branch in MAIN:
        changed = ("--", SIZES, *METRICS.values())
        commits = git_or_nothing("log", "-500", "--format=%H", f"refs/{branch}", *changed).split()
        alike = [commit for commit in commits if content_at(commit, SIZES) == sizes]
        losses = {
            model: [
                loss
                for commit in alike
                if is_number(loss := flat(content_at(commit, file)).get("test.log_loss"))
            ]
            for model, file in METRICS.items()
        }
        if best := {model: float(min(found)) for model, found in losses.items() if found}:
            return best
    pytest.skip("main has no result to compare with yet")


def content_at(commit: str, file: str) -> Any:
    """The content of a JSON file in a commit; None if it does not exist, or is no JSON."""
    with suppress(ValueError):
        return json.loads(git_or_nothing("show", f"{commit}:{file}"))
    return None
