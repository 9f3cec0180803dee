"""Writes both trained models as ONNX with their cards, once they say the same as the originals."""

import logging
from pathlib import Path
from typing import Any

from lib.files import read_columns, read_json, replaced_directory, write_json
from lib.params import Params
from lib.process import start
from lib.registry import register_models
from lib.tracking import flat, run_tags

STAGE = "export_models"
logger = logging.getLogger(__name__)


def export(params: Params) -> None:
    """Write `<model>.onnx` and `<model>.md` for each model, and how far they are off."""
    import joblib
    import numpy as np

    from lab.processes.export_models.model_card import model_card
    from lab.processes.export_models.onnx_models import export_model, to_bytes

    paths = params.paths
    names = read_json(Path(paths.dir_processed) / "names.json")
    X = np.array(read_columns(Path(paths.dir_raw) / "breast_cancer.csv", names["features"]))
    sizes = read_json(Path(paths.dir_metrics) / "prepare_data.json")
    best = read_json(Path(paths.dir_metrics) / "train_standard_classifiers.json")
    network = read_json(Path(paths.dir_metrics) / "train_dnn_pytorch.json")
    kind = best.pop("classifier")
    models = {
        "standard_classifier": (
            Path(paths.dir_standard_classifiers) / "model.joblib",
            f"The best of seven classifiers of scikit-learn: {kind.replace('_', ' ')}.",
            best,
        ),
        "densenet": (
            Path(paths.dir_dnn_pytorch) / "densenet.joblib",
            "A densely connected network with batch norm, trained with PyTorch.",
            network,
        ),
    }
    found: dict[str, Any] = {}
    with replaced_directory(paths.dir_onnx) as folder:
        for name, (file, what, metrics) in models.items():
            exported, found[name] = export_model(
                name,
                joblib.load(file),
                X,
                names["features"],
                names["classes"],
                params.export_models.tolerance,
            )
            content = to_bytes(exported)
            (folder / f"{name}.onnx").write_bytes(content)
            found[name]["size_bytes"] = len(content)
            card = model_card(name, what, names, sizes, metrics, found[name])
            (folder / f"{name}.md").write_text(card, encoding="utf-8")
            logger.info(
                "%s.onnx: %.0f kB, at most %.1e off", name, len(content) / 1e3, off(found[name])
            )
    write_json(Path(paths.dir_metrics) / f"{STAGE}.json", found)


def off(found: dict[str, Any]) -> float:
    """The largest deviation of a model."""
    return max(found["max_deviation"], found["max_deviation_on_edge_values"])


def log(mlflow: Any, params: Params) -> None:
    """Log a run with both models, their cards, and how far they are off."""
    found = flat(read_json(Path(params.paths.dir_metrics) / f"{STAGE}.json"))
    with mlflow.start_run(run_name=STAGE, tags=run_tags(STAGE)):
        texts = {key: value for key, value in found.items() if isinstance(value, str)}
        mlflow.log_params({**params.export_models.model_dump(), **texts})
        mlflow.log_metrics({key: value for key, value in found.items() if key not in texts})
        mlflow.log_artifacts(params.paths.dir_onnx)


def register(mlflow: Any, params: Params, run_id: str) -> None:
    """Make both models versions in MLflow's registry."""
    register_models(mlflow, params, run_id, run_tags(STAGE), params.paths.dir_onnx)


if __name__ == "__main__":
    start(export, log, register)
