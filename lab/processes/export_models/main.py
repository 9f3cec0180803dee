"""Writes both trained models as ONNX, checked against the originals, with their model cards."""

import logging
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from lab.processes.export_models.model_card import model_card
from lab.processes.export_models.onnx_models import export_model, to_bytes
from lab.processes.export_models.params import Params
from lib.files import read_columns, read_json, replaced_directory, write_json
from lib.locked import locked
from lib.process import start

RAW = Path("data/raw/breast_cancer.csv")
NAMES = Path("data/processed/names.json")
SIZES = Path("metrics/prepare_data.json")
CLASSIFIER = Path("artifacts/standard_classifiers/model.joblib")
CLASSIFIER_METRICS = Path("metrics/train_standard_classifiers.json")
NETWORK = Path("artifacts/dnn_pytorch/densenet.joblib")
NETWORK_METRICS = Path("metrics/train_dnn_pytorch.json")
ARTIFACTS = Path("artifacts/onnx")
METRICS = Path("metrics/export_models.json")

logger = logging.getLogger(__name__)


def export(params: Params) -> None:
    """Write `<model>.onnx` and `<model>.md` for each model, and their deviations as metrics."""
    names = read_json(NAMES)
    X = np.array(read_columns(RAW, names["features"]))
    best = read_json(CLASSIFIER_METRICS)
    kind = best.pop("classifier").replace("_", " ")
    models = {
        "standard_classifier": (
            CLASSIFIER,
            f"The best of seven classifiers of scikit-learn: {kind}.",
            best,
        ),
        "densenet": (
            NETWORK,
            "A densely connected network with batch norm, trained with PyTorch.",
            read_json(NETWORK_METRICS),
        ),
    }
    found: dict[str, Any] = {}
    with replaced_directory(ARTIFACTS) as folder:
        for name, (file, what, metrics) in models.items():
            exported, found[name] = export_model(
                name,
                joblib.load(locked(file)),
                X,
                names["features"],
                names["classes"],
                params.export_models.tolerance,
            )
            content = to_bytes(exported)
            (folder / f"{name}.onnx").write_bytes(content)
            found[name]["size_bytes"] = len(content)
            card = model_card(name, what, names, read_json(SIZES), metrics, found[name])
            (folder / f"{name}.md").write_text(card, encoding="utf-8")
            deviation = largest_deviation(found[name])
            logger.info("%s.onnx: %.0f kB, deviates by %.1e", name, len(content) / 1e3, deviation)
    write_json(METRICS, found)


def largest_deviation(found: dict[str, Any]) -> float:
    """The largest difference between a model's probabilities and the original's."""
    return max(found["max_deviation"], found["max_deviation_on_edge_values"])


if __name__ == "__main__":
    start(export, Params)
