"""The parameters of every process, typed: what `params.yaml` may say.

`load_params` is the first thing that a process does, so that a misspelled key, a wrong type or an
impossible value stops it before it touches data. To check a file without running anything:

    lib/within . python -m lib.params
"""

import difflib
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lib.errors import UserError

# YAML writes a float without a fraction as an integer: 1 is a fine learning rate.
Real = Annotated[float, BeforeValidator(lambda v: float(v) if type(v) is int else v)]
Positive = Annotated[Real, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[Real, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


def inside(path: str) -> str:
    """The path, if it stays in the repository."""
    if not path or path[0] in "/~" or {"..", "."} & set(path.split("/")):
        raise ValueError("a folder inside the repository")
    return path


Folder = Annotated[str, AfterValidator(inside)]


class ParamsError(UserError):
    """params.yaml is not what it must be."""


class Section(BaseModel):
    """A mapping in params.yaml: every key known, every value of its type, nothing changed later."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Paths(Section):
    """Folders of the pipeline's files, relative to the repository's root."""

    dir_raw: Folder
    dir_processed: Folder
    dir_standard_classifiers: Folder
    dir_dnn_pytorch: Folder
    dir_onnx: Folder
    dir_metrics: Folder

    @model_validator(mode="after")
    def differ(self) -> "Paths":
        """Two outs of DVC cannot be in one place."""
        if len(set(self.model_dump().values())) < len(type(self).model_fields):
            raise ValueError("different folders: two of them are the same folder")
        return self


class PrepareData(Section):
    """How the rows are checked and split."""

    test_size: Share
    validation_size: Share
    max_duplicated: Annotated[Real, Field(ge=0, le=1)]


class LogisticRegression(Section):
    """C: the inverse of the strength of regularisation."""

    C: Positive


class GaussianNaiveBayes(Section):
    """var_smoothing: the share of the largest variance that is added to each."""

    var_smoothing: Positive


class KNearestNeighbours(Section):
    """n_neighbors: how many rows vote."""

    n_neighbors: Count


class RandomForest(Section):
    """n_estimators trees, grown to max_depth, or until pure."""

    n_estimators: Count
    max_depth: Count | None


class LinearSVC(Section):
    """C: the inverse of the strength of regularisation."""

    C: Positive


class Boosting(Section):
    """n_estimators rounds, each with this weight."""

    n_estimators: Count
    learning_rate: Positive


class TrainStandardClassifiers(Section):
    """scikit-learn's own parameters, for each classifier."""

    logistic_regression: LogisticRegression
    gaussian_naive_bayes: GaussianNaiveBayes
    k_nearest_neighbours: KNearestNeighbours
    random_forest: RandomForest
    linear_svc: LinearSVC
    gradient_boosting: Boosting
    ada_boost: Boosting


class TrainDnnPytorch(Section):
    """The network and its training."""

    hidden: Annotated[list[Count], Field(min_length=1)]
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]  # batch norm needs two rows
    lr: Positive
    patience: Count | None
    checkpoint_every: Count
    num_threads: Count


class ExportModels(Section):
    """tolerance: by how much a probability in ONNX may differ from the original's."""

    tolerance: Share


class Goals(Section):
    """What the results must reach; no stage depends on it."""

    accuracy: Share
    recall_malignant: Share
    brier_score: Share
    log_loss: Positive
    above_best_on_main: Annotated[Real, Field(ge=0)]
    shared_rows: Annotated[int, Field(ge=0)]
    noise: Share
    changed_by_noise: Annotated[Real, Field(ge=0, lt=1)]
    milliseconds_per_row: Positive
    megabytes: Positive


class Params(Section):
    """All of params.yaml."""

    random_seed: Annotated[int, Field(ge=0, lt=2**32)]  # what numpy takes
    experiment: Annotated[str, Field(min_length=1)]
    paths: Paths
    prepare_data: PrepareData
    train_standard_classifiers: TrainStandardClassifiers
    train_dnn_pytorch: TrainDnnPytorch
    export_models: ExportModels
    goals: Goals


def load_params(file: Path | str = "params.yaml") -> Params:
    """The parameters in a YAML file (YAML 1.2, as DVC reads it).

    Raises:
        ParamsError: the file is missing, is not YAML, or a key or value in it is not as `Params`
            has it; the message has one line for each, with the key's full name.
    """
    return check_params(read_yaml(file), str(file))


def read_yaml(file: Path | str) -> Any:
    """What a YAML 1.2 file says.

    Raises:
        ParamsError: the file is missing or not YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{file} is not there: run from the repository's root.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{file} is not YAML: {' '.join(str(error).split())}") from None


def check_params(content: Any, source: str = "params.yaml") -> Params:
    """The typed parameters of what a YAML file says; raises as `load_params` does."""
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        lines = [f"{source}: {describe(problem)}" for problem in error.errors()]
        raise ParamsError("\n".join(lines)) from None


def describe(problem: Any) -> str:
    """One of pydantic's problems in a line: the key, what was found, what is allowed."""
    *parents, last = problem["loc"] or ("the file",)
    key = ".".join(map(str, (*parents, last)))
    if problem["type"] == "extra_forbidden":
        known = known_keys(parents)
        close = difflib.get_close_matches(str(last), known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{key} is not known: {hint}Allowed here: {', '.join(known)}."
    if problem["type"] == "missing":
        return f"{key} is missing: write it."
    found = problem["input"] if not isinstance(problem["input"], dict) else "a mapping"
    allowed = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{key} is {found!r}: it must be {allowed}."


def known_keys(parents: list[str | int]) -> list[str]:
    """The keys that a section may have."""
    section: Any = Params
    for parent in parents:
        section = section.model_fields[parent].annotation
    return list(section.model_fields)


if __name__ == "__main__":
    try:
        load_params(*sys.argv[1:])
    except ParamsError as error:
        sys.exit(str(error))
