"""What tests of processes share: a data directory, quick parameters, a stand-in for MLflow."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import pytest

from lab.processes.prepare_data.cancer_data import load_cancer_data, prepare_cancer_data
from lib.params import Params, check_params, read_yaml
from lib.splits import save_data_splits

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(name="temp_data_dir", scope="module")
def temporary_cancer_data_directory(tmp_path_factory):
    """A directory with the splits and the scaler, as prepare_data leaves them."""
    folder = tmp_path_factory.mktemp("data")
    splits, scaler = prepare_cancer_data(
        load_cancer_data(), test_size=0.15, validation_size=0.2, random_seed=0
    )
    save_data_splits(splits, folder)
    joblib.dump(scaler, folder / "scaler.joblib")
    return folder


@pytest.fixture(scope="session")
def quick_params_factory() -> Callable[[Path], Params]:
    """params.yaml with small models, all of it below a folder."""

    def create(folder: Path) -> Params:
        content = read_yaml(ROOT / "params.yaml")
        content["train_dnn_pytorch"] |= {"epochs": 3, "hidden": [16, 8], "checkpoint_every": 1}
        for section in content["train_standard_classifiers"].values():
            section |= {key: 5 for key in section if key == "n_estimators"}
        params = check_params(content)
        folders = {name: str(folder / path) for name, path in params.paths.model_dump().items()}
        # Only here are folders outside the repository allowed: model_copy does not validate.
        return params.model_copy(update={"paths": params.paths.model_copy(update=folders)})

    return create


@pytest.fixture
def quick_params(tmp_path, temp_data_dir, quick_params_factory) -> Params:
    """params.yaml, with small models, reading `temp_data_dir` and writing below `tmp_path`."""
    params = quick_params_factory(tmp_path)
    folders = {"dir_processed": str(temp_data_dir)}
    return params.model_copy(update={"paths": params.paths.model_copy(update=folders)})


@dataclass
class Run:
    """What was logged to one run of the stand-in."""

    name: str
    parent: "Run | None"
    tags: dict[str, str]
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)

    @property
    def info(self) -> SimpleNamespace:
        return SimpleNamespace(run_id=self.name)


class MLflowStandIn:
    """Has the part of mlflow's interface that processes use, and remembers what was logged."""

    entities = SimpleNamespace(
        Metric=lambda key, value, _, step: SimpleNamespace(key=key, value=value, step=step)
    )

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.active: list[Run] = []

    @contextmanager
    def start_run(self, run_name: str, tags: dict[str, str], nested: bool = False) -> Iterator[Run]:
        assert nested == bool(self.active), "a run inside another must be nested, and only that"
        run = Run(run_name, self.active[-1] if self.active else None, tags)
        self.runs.append(run)
        self.active.append(run)
        yield run
        self.active.pop()

    def active_run(self) -> Run:
        return self.active[-1]

    def log_params(self, params: dict[str, Any]) -> None:
        assert not params.keys() & self.active[-1].params.keys(), "a parameter is logged once"
        self.active[-1].params |= params

    def log_metrics(self, metrics: dict[str, float], step: int = 0) -> None:
        for name, value in metrics.items():
            self.active[-1].metrics.setdefault(name, []).append((step, float(value)))

    def log_artifacts(self, local_dir: str) -> None:
        self.active[-1].artifacts += sorted(path.name for path in Path(local_dir).iterdir())

    def MlflowClient(self) -> SimpleNamespace:  # noqa: N802 # mlflow's own name
        return SimpleNamespace(log_batch=self.log_batch)

    def log_batch(self, run_id: str, metrics: list[SimpleNamespace]) -> None:
        assert run_id == self.active[-1].name
        for metric in metrics:
            self.log_metrics({metric.key: metric.value}, step=metric.step)


@pytest.fixture
def mlflow_stand_in() -> MLflowStandIn:
    """Replaces mlflow: give it to a `log` function and look at its `runs`."""
    return MLflowStandIn()
