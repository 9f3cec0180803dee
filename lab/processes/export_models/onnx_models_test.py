"""Models in ONNX agree with the originals, load with few packages, and have model cards."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from sklearn.linear_model import Perceptron
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from lab.processes.export_models import main, onnx_models
from lab.processes.export_models.onnx_models import (
    ExportError,
    create_session,
    edge_rows,
    export_model,
    predict,
)
from lab.processes.export_models.params import Params
from lab.processes.prepare_data.cancer_data import FEATURES, TARGET, load_cancer_data
from lab.processes.prepare_data.main import prepare
from lab.processes.prepare_data.params import Params as PrepareParams
from lab.processes.train_dnn_pytorch.densenet import create_densenet
from lab.processes.train_dnn_pytorch.main import train as train_network
from lab.processes.train_dnn_pytorch.params import Params as NetworkParams
from lab.processes.train_standard_classifiers.classifiers import CLASSIFIERS, create_classifier
from lab.processes.train_standard_classifiers.main import train as train_classifiers
from lab.processes.train_standard_classifiers.params import Params as ClassifierParams
from lib.files import read_json
from lib.params import check_params, load_params, read_yaml
from lib.pytorch import TorchClassifier

pytestmark = pytest.mark.unittest

ROOT = Path(__file__).resolve().parent.parent.parent.parent
FRAME = load_cancer_data()
X, Y = FRAME[list(FEATURES)].to_numpy(), FRAME[TARGET].to_numpy()
NAMES = {"feature_names": FEATURES, "class_names": ("benign", "malignant")}


@pytest.fixture(scope="module")
def scaler():
    return StandardScaler().fit(X[:400])


def fitted(scaler, classifier):
    rows = scaler.transform(X[:400]).astype(np.float32)
    return Pipeline([("scaler", scaler), ("classifier", classifier.fit(rows, Y[:400]))])


def network(scaler, hidden=(200, 100, 100)):
    torch.manual_seed(0)
    layers = create_densenet(X.shape[1], hidden)
    rows = torch.tensor(scaler.transform(X[:400]), dtype=torch.float32)
    for _ in range(3):  # so that batch norm has seen something
        layers.train()(rows)
    return Pipeline([("scaler", scaler), ("network", TorchClassifier(layers.eval()))])


@pytest.fixture(params=[*CLASSIFIERS, "densenet"])
def model(request, scaler):
    if request.param == "densenet":
        return network(scaler)
    return fitted(scaler, create_classifier(request.param, {}, 0))


def test_each_onnx_model_agrees_with_its_original_on_new_rows(model):
    exported, found = export_model("model", model, X[:500], **NAMES)
    assert found["max_deviation"] <= 1e-5
    assert found["max_deviation_on_edge_values"] <= 1e-5
    new = np.abs(X[500:] * np.random.default_rng(0).normal(1, 0.2, X[500:].shape))
    assert np.abs(predict(create_session(exported), new) - model.predict_proba(new)).max() <= 1e-5


def test_every_model_has_one_input_and_one_output_of_the_same_types(model):
    exported, _ = export_model("model", model, X, **NAMES)
    session = create_session(exported)
    (features,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (features.name, features.shape, features.type) == (
        "features",
        ["n", 30],
        "tensor(double)",
    )
    assert (probabilities.name, probabilities.shape) == ("probabilities", ["n", 2])
    assert probabilities.type == "tensor(float)"
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == ["benign", "malignant"]
    assert json.loads(metadata["feature_names"]) == list(FEATURES)
    for n in (1, 7):
        assert predict(session, X[:n]).shape == (n, 2)


HASHES = """
import hashlib
from sklearn.preprocessing import StandardScaler
from lab.processes.export_models.onnx_models import to_bytes
from lab.processes.export_models.onnx_models_test import *
scaler = StandardScaler().fit(X[:400])
models = [fitted(scaler, create_classifier(name, {}, 0)) for name in CLASSIFIERS]
for model in (*models, network(scaler)):
    print(hashlib.sha256(to_bytes(export_model("model", model, X, **NAMES)[0])).hexdigest())
"""


def test_the_bytes_of_each_model_are_the_same_in_another_interpreter():
    def hashes(seed):
        command, environment = (
            [sys.executable, "-c", HASHES],
            {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
        )
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    once = hashes("1")
    assert len(once) == len(CLASSIFIERS) + 1
    assert hashes("2") == once


def test_the_order_of_opsets_does_not_change_bytes(scaler):
    classifier = fitted(scaler, create_classifier("logistic_regression", {}, 0))[-1]

    def content(order):
        graph, opsets = onnx_models.classifier_graph(classifier, X.shape[1], "float64")
        assert len(opsets) > 1
        dtype = onnx_models.TYPES["float64"]
        found = onnx_models.assemble("model", scaler, graph, opsets[::order], dtype, {})
        return onnx_models.to_bytes(found)

    assert content(1) == content(-1)


def test_edge_values_are_zeros_denormals_negative_and_huge_numbers_in_each_column(scaler):
    rows = edge_rows(X, network(scaler))
    single = np.finfo(np.float32)
    for value in (0.0, single.smallest_subnormal, -single.tiny, -1.0, 1e30, -1e30):
        assert (rows == np.float64(value)).any(axis=0).all(), value
    assert np.isfinite(scaler.transform(rows).astype(np.float32)).all()


def test_a_model_that_no_form_agrees_with_is_refused_in_one_line(scaler, monkeypatch):
    model = fitted(scaler, create_classifier("random_forest", {}, 0))
    with pytest.raises(ExportError, match=r"^model in ONNX must agree .* within 1e-12") as raised:
        export_model("model", model, X, **NAMES, tolerance=1e-12)
    assert "in float64: max_deviation" in str(raised.value)
    assert "in float32: max_deviation" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_wrong_translation_is_noticed(scaler, monkeypatch):
    model = network(scaler)
    right = onnx_models.network_graph

    def without_batch_norm(layers):
        graph = right(layers)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name == "epsilon":
                    attribute.f = 0.1
        return graph

    monkeypatch.setattr(onnx_models, "network_graph", without_batch_norm)
    with pytest.raises(ExportError, match="does not"):
        export_model("densenet", model, X, **NAMES)


def test_an_unknown_layer_is_named(scaler):
    layers = nn.Sequential(nn.Linear(30, 4), nn.Tanh(), nn.Linear(4, 1)).eval()
    model = Pipeline([("scaler", scaler), ("network", TorchClassifier(layers))])
    with pytest.raises(ExportError, match="has a layer Tanh"):
        export_model("densenet", model, X, **NAMES)


ALONE = """
import builtins, sys
NOT_NEEDED = ("sklearn", "torch", "onnx", "skl2onnx", "joblib", "pandas", "scipy", "lib")
original = builtins.__import__
def only(name, *args, **kwargs):
    relative = len(args) > 3 and args[3]
    if not relative and name.split(".")[0] in NOT_NEEDED:
        raise ImportError(name + " is not needed")
    return original(name, *args, **kwargs)
builtins.__import__ = only
"""


@pytest.fixture(scope="module")
def params():
    return load_params(Params, ROOT / "params.yaml")


@pytest.fixture(scope="module")
def pipeline(params, tmp_path_factory):
    """The folder in which the whole pipeline has run, with small models."""
    content = read_yaml(ROOT / "params.yaml")
    content["train_dnn_pytorch"] |= {"epochs": 3, "hidden": [16, 8], "checkpoint_every": 1}
    for section in content["train_standard_classifiers"].values():
        if isinstance(section, dict) and "n_estimators" in section:
            section["n_estimators"] = 5
    folder = tmp_path_factory.mktemp("pipeline")
    threads = torch.get_num_threads()
    with contextlib.chdir(folder):  # all paths of a process are relative
        prepare(check_params(content, PrepareParams))
        train_classifiers(check_params(content, ClassifierParams))
        train_network(check_params(content, NetworkParams))
        main.export(params)
    torch.set_num_threads(threads)  # the process has changed it, also for other tests
    return folder


@pytest.mark.parametrize("name", ["standard_classifier", "densenet"])
def test_the_code_on_a_card_needs_only_onnxruntime_and_numpy(pipeline, name):
    folder = pipeline / main.ARTIFACTS
    (code,) = re.findall(r"```python\n(.*?)```", (folder / f"{name}.md").read_text(), re.DOTALL)
    script = ALONE + code + "\nprint(probabilities.shape)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *_, shape = done.stdout.splitlines()
    assert shape == "(1, 2)"
    assert '"malignant"' in done.stdout.replace("'", '"')


def test_the_process_writes_the_same_models_cards_and_metrics_again(pipeline, params, monkeypatch):
    folder = pipeline / main.ARTIFACTS
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    expected = [
        f"{n}.{suffix}" for n in ("densenet", "standard_classifier") for suffix in ("md", "onnx")
    ]
    assert sorted(files) == expected
    for name, one in read_json(pipeline / main.METRICS).items():
        assert one["max_deviation"] <= params.export_models.tolerance
        assert one["size_bytes"] == len(files[f"{name}.onnx"])
        onnx.checker.check_model(onnx.load_from_string(files[f"{name}.onnx"]))
    monkeypatch.chdir(pipeline)
    main.export(params)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files


def test_a_card_shows_the_metrics_and_has_no_gaps(pipeline):
    metrics = read_json(pipeline / main.NETWORK_METRICS)
    card = (pipeline / main.ARTIFACTS / "densenet.md").read_text()
    for heading in ("Data", "Metrics", "Intended use", "Limits", "How to load it"):
        assert f"\n## {heading}\n" in card
    assert f"{metrics['test']['brier_score']:.4f}" in card
    assert "$" not in card


def test_a_classifier_that_cannot_be_exported_is_an_error(scaler):
    for classifier in (Perceptron(), SVC(kernel=lambda a, b: a @ b.T)):
        with pytest.raises(Exception, match=r"predict_proba|probabilit|kernel"):
            export_model("model", fitted(scaler, classifier), X, **NAMES)


def test_a_pipeline_of_other_steps_is_refused(scaler):
    with pytest.raises(ExportError, match="a StandardScaler and one classifier"):
        export_model("model", make_pipeline(scaler, scaler, Perceptron()), X, **NAMES)
