"""Trains seven classifiers of scikit-learn, keeps the best, and shows how all of them did."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.files import read_csv, read_json, replaced_directory, write_csv, write_json
from lib.params import Params
from lib.process import start
from lib.progress import progress
from lib.tracking import flat, run_tags

if TYPE_CHECKING:
    from lab.processes.train_standard_classifiers.classifiers import Trained
    from lib.splits import Splits

STAGE = "train_standard_classifiers"


def train(params: Params) -> None:
    """Write the best classifier with its pictures, and the metrics of the best and of all."""
    import joblib
    from sklearn.pipeline import Pipeline

    from lab.processes.train_standard_classifiers.classifiers import (
        best_classifier,
        measure,
        train_classifiers,
    )
    from lib.splits import load_data_splits

    paths, settings = params.paths, params.train_standard_classifiers.model_dump()
    splits = load_data_splits(paths.dir_processed)
    trained, metrics = {}, {}
    with progress("classifiers", len(settings)) as advance:
        for one in train_classifiers(splits, settings, params.random_seed):
            trained[one.name] = one
            metrics[one.name] = measure(one, splits)
            advance(f"{one.name} {metrics[one.name]['validation']['accuracy']:.4f}")
    best = best_classifier(metrics)

    scaler = joblib.load(Path(paths.dir_processed) / "scaler.joblib")
    with replaced_directory(paths.dir_standard_classifiers) as folder:
        model = Pipeline([("scaler", scaler), ("classifier", trained[best].model)])
        joblib.dump(model, folder / "model.joblib")
        draw(folder, splits, trained, best)
    dir_metrics = Path(paths.dir_metrics)
    write_csv(
        dir_metrics / "classifiers.csv", [{"classifier": k} | flat(v) for k, v in metrics.items()]
    )
    write_json(dir_metrics / f"{STAGE}.json", {"classifier": best, **metrics[best]})


def draw(folder: Path, splits: "Splits", trained: dict[str, "Trained"], best: str) -> None:
    """Write the ROC curves of all and the confusion matrix of the best, on the validation split."""
    from lib.viz import (
        confusion_rows,
        plot_confusion_matrix,
        plot_roc_curves,
        roc_rows,
        save_figure,
    )

    probabilities = {name: one.validation for name, one in trained.items()}
    predicted = (probabilities[best] >= 0.5).astype(int)
    names = splits.class_names
    write_csv(folder / "roc_curves.csv", roc_rows(probabilities, splits.y_val))
    write_csv(folder / "confusion_matrix.csv", confusion_rows(splits.y_val, predicted, names))
    roc = plot_roc_curves(probabilities, splits.y_val, "validation")
    save_figure(roc, folder / "roc_curves.png")
    confusion = plot_confusion_matrix(splits.y_val, predicted, names, f"{best}, validation")
    save_figure(confusion, folder / "confusion_matrix.png")


def log(mlflow: Any, params: Params) -> None:
    """Log a run with the best classifier's results, and a nested run for each classifier."""
    settings, dir_metrics = (
        params.train_standard_classifiers.model_dump(),
        Path(params.paths.dir_metrics),
    )
    best = read_json(dir_metrics / f"{STAGE}.json")
    tags = run_tags(STAGE)
    with mlflow.start_run(run_name=STAGE, tags=tags):
        mlflow.log_params({"random_seed": params.random_seed, "classifier": best.pop("classifier")})
        mlflow.log_metrics(flat(best))
        for row in read_csv(dir_metrics / "classifiers.csv"):
            name = row.pop("classifier")
            with mlflow.start_run(run_name=name, nested=True, tags=tags):
                mlflow.log_params({"classifier": name, **settings[name]})
                mlflow.log_metrics({key: float(value) for key, value in row.items()})
        mlflow.log_artifacts(params.paths.dir_standard_classifiers)


if __name__ == "__main__":
    start(train, log)
