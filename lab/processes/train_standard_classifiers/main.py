"""Trains seven classifiers of scikit-learn, and saves the best one and pictures of all."""

from collections.abc import Mapping
from pathlib import Path

import joblib
from sklearn.pipeline import Pipeline

from lab.processes.train_standard_classifiers.classifiers import (
    Trained,
    best_classifier,
    measure,
    rows_learnt,
    train_classifiers,
)
from lab.processes.train_standard_classifiers.params import Params
from lib.files import replaced_directory, write_csv, write_json
from lib.nested import flat
from lib.process import start
from lib.progress import progress
from lib.splits import Splits, load_data_splits
from lib.viz import (
    ROC_COLUMNS,
    confusion_rows,
    plot_confusion_matrix,
    plot_roc_curves,
    roc_rows,
    save_figure,
)

PROCESSED = Path("data/processed")
ARTIFACTS = Path("artifacts/standard_classifiers")
METRICS = Path("metrics/train_standard_classifiers.json")
METRICS_OF_ALL = Path("metrics/classifiers.csv")


def train(params: Params) -> None:
    """Write the best classifier with its pictures, and the metrics of the best and of all."""
    settings = params.train_standard_classifiers.model_dump()
    max_rows = settings.pop("max_rows")
    splits = load_data_splits(PROCESSED)
    trained, metrics = {}, {}
    with progress("classifiers", len(settings)) as advance:
        for one in train_classifiers(splits, settings, params.random_seed, max_rows):
            trained[one.name] = one
            metrics[one.name] = measure(one, splits)
            advance(f"{one.name} {metrics[one.name]['validation']['accuracy']:.4f}")
    best = best_classifier(metrics)

    scaler = joblib.load(PROCESSED / "scaler.joblib")
    with replaced_directory(ARTIFACTS) as folder:
        model = Pipeline([("scaler", scaler), ("classifier", trained[best].model)])
        joblib.dump(model, folder / "model.joblib")
        draw(folder, splits, trained, best)
    learnt = rows_learnt(trained.values(), len(splits.y_train))
    rows = [{"classifier": k} | flat(v, "_") | learnt.get(k, {}) for k, v in metrics.items()]
    write_csv(METRICS_OF_ALL, rows)
    write_json(METRICS, {"classifier": best, **metrics[best], **learnt.get(best, {})})


def draw(folder: Path, splits: Splits, trained: Mapping[str, Trained], best: str) -> None:
    """Write the ROC curves of all and the confusion matrix of the best, on the validation split."""
    probabilities = {name: one.validation for name, one in trained.items()}
    predicted = (probabilities[best] >= 0.5).astype(int)
    names = splits.class_names
    write_csv(folder / "roc_curves.csv", roc_rows(probabilities, splits.y_val), ROC_COLUMNS)
    write_csv(folder / "confusion_matrix.csv", confusion_rows(splits.y_val, predicted, names))
    roc = plot_roc_curves(probabilities, splits.y_val, "validation split")
    save_figure(roc, folder / "roc_curves.png")
    confusion = plot_confusion_matrix(splits.y_val, predicted, names, f"{best}, validation")
    save_figure(confusion, folder / "confusion_matrix.png")


if __name__ == "__main__":
    start(train, Params)
