"""What goals are judged with: the files that a run left behind, and a note of each verdict.

A goal is a test whose docstring's first line is its title and the rest its reason. It asks for
what it needs by naming a fixture, and ends in `reached(value, at_least=threshold)`. A goal whose
stages are not in dvc.yaml is not applicable; a file that is missing is said in a line. What was
found stands in `.goals.json` afterwards, which `make goals` and the workflow read.
"""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.errors import UserError
from lib.files import read_columns, read_json, write_json
from lib.params import Goals, Params, load_params, read_yaml
from lib.splits import Splits, load_data_splits

ROOT = Path(__file__).resolve().parent.parent
NOTE = ROOT / ".goals.json"
MODELS = {"standard_classifier": "train_standard_classifiers", "densenet": "train_dnn_pytorch"}
FOUND = pytest.StashKey[dict[str, str]]()
VERDICTS = pytest.StashKey[dict[str, dict[str, str]]]()
BROKEN: dict[str, dict[str, str]] = {}  # files; a report of collection knows no configuration


# ---- what goals ask for


@pytest.fixture(scope="session")
def params() -> Params:
    """All of params.yaml."""
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def goals(params) -> Goals:
    """The thresholds."""
    return params.goals


@pytest.fixture(scope="session")
def stages() -> set[str]:
    """The names in dvc.yaml."""
    return set(read_yaml(ROOT / "dvc.yaml").get("stages") or {})


def need(stages: set[str], *wanted: str) -> None:
    """Skip the goal where the pipeline has not got these stages."""
    if missing := [stage for stage in wanted if stage not in stages]:
        pytest.skip(f"no stage {', '.join(missing)} in dvc.yaml")


@pytest.fixture(scope="session")
def metrics(params, stages) -> dict[str, Mapping[str, Any]]:
    """For each model, its measures on `validation` and `test`."""
    need(stages, *MODELS.values())
    folder = ROOT / params.paths.dir_metrics
    return {model: read_json(folder / f"{stage}.json") for model, stage in MODELS.items()}


@pytest.fixture(scope="session")
def splits(params, stages) -> Splits:
    """The splits that the models were trained and measured on."""
    need(stages, "prepare_data")
    return load_data_splits(ROOT / params.paths.dir_processed)


@pytest.fixture(scope="session")
def features(params, stages) -> np.ndarray:
    """(n, d) float64: every row of the raw data."""
    need(stages, "prepare_data")
    names = read_json(ROOT / params.paths.dir_processed / "names.json")["features"]
    return np.array(read_columns(ROOT / params.paths.dir_raw / "breast_cancer.csv", names))


@pytest.fixture(scope="session")
def model_files(params, stages) -> dict[str, Path]:
    """For each model, its file as it would be deployed."""
    need(stages, "export_models")
    return {model: ROOT / params.paths.dir_onnx / f"{model}.onnx" for model in MODELS}


@pytest.fixture(scope="session")
def models(model_files) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """For each model, what takes (n, d) raw features and gives (n, 2) probabilities."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    def load(file: Path) -> Callable[[np.ndarray], np.ndarray]:
        file.stat()  # FileNotFoundError, which onnxruntime has not
        session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
        return lambda X: session.run(["probabilities"], {"features": X})[0]

    return {model: load(file) for model, file in model_files.items()}


@pytest.fixture(scope="session")
def best_on_main(params, stages) -> dict[str, float]:
    """For each model, the lowest test log loss in the history of main, on splits of these sizes.

    As far back as this clone knows: in a shallow one, not far. Skips where main has no results.
    """
    need(stages, "prepare_data", *MODELS.values())
    folder = params.paths.dir_metrics
    splits, files = (
        f"{folder}/prepare_data.json",
        {m: f"{folder}/{s}.json" for m, s in MODELS.items()},
    )
    sizes = read_json(ROOT / splits)
    for name in MAIN:
        listed = git("log", "-500", "--format=%H", f"refs/{name}", "--", splits, *files.values())
        commits = [c for c in listed.split() if same(git("show", f"{c}:{splits}"), sizes)]
        best = {}
        for model, file in files.items():
            texts = filter(None, (git("show", f"{commit}:{file}") for commit in commits))
            if found := [json.loads(text)["test"]["log_loss"] for text in texts]:
                best[model] = float(min(found))
        if best:
            return best
    pytest.skip("main has no result to compare with yet")


# Where main is: on a server, under its own name there, or here. A job's checkout has no branch.
MAIN = ("remotes/origin/HEAD", "remotes/origin/main", "remotes/origin/master", "heads/main")


def git(*arguments: str) -> str:
    """What git answers, or nothing where it cannot."""
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else ""


def same(text: str, content: Any) -> bool:
    """Whether a JSON text says this."""
    return bool(text) and bool(json.loads(text) == content)


@pytest.fixture
def reached(request) -> Callable[..., None]:
    """Says what was reached, and fails unless each value is at least, or at most, the threshold."""

    def say(
        found: Mapping[str, float],
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        unit: str = "",
    ) -> None:
        sign, threshold = ("≥", at_least) if at_least is not None else ("≤", at_most)
        assert threshold is not None, "a goal has a threshold"
        shown = ", ".join(f"{what} {value:.4g}{unit}".strip() for what, value in found.items())
        request.node.stash[FOUND] = {"goal": f"{sign} {threshold:.4g}{unit}", "reached": shown}
        far = [v for v in found.values() if not (v >= threshold if sign == "≥" else v <= threshold)]
        if far:
            pytest.fail(f"reached {shown}; the goal is {sign} {threshold:.4g}{unit}", pytrace=False)

    return say


# ---- the verdicts


def pytest_configure(config: pytest.Config) -> None:
    """Forget what an earlier judgement found."""
    config.stash[VERDICTS] = {}
    NOTE.unlink(missing_ok=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Note the verdict on a goal."""
    report = yield
    if call.when == "call" or report.skipped or report.failed:
        title, _, reason = (getattr(item, "obj", None).__doc__ or item.name).strip().partition("\n")
        found = item.stash.get(FOUND, {"goal": "", "reached": ""})
        if report.skipped:
            state, said = "not applicable", getattr(call.excinfo and call.excinfo.value, "msg", "")
        elif report.passed:
            state, said = "met", ""
        elif found["goal"]:
            state, said = "missed", ""
        else:
            state, said = "not judged", explain(call.excinfo.value if call.excinfo else None)
        item.config.stash[VERDICTS][item.nodeid] = {
            "title": title.rstrip("."),
            "reason": " ".join(reason.split()),
            "state": state,
            **found,
            "said": said,
        }
    return report


def explain(error: BaseException | None) -> str:
    """Why a goal could not be judged, in a line."""
    if isinstance(error, FileNotFoundError):
        file = Path(str(error.filename))
        where = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
        return f"{where} is not there: `make run`, or `dvc pull`."
    if isinstance(error, UserError):
        return str(error).replace("\n", " ")
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note a file of goals that cannot even be read."""
    if report.failed:
        *_, last = str(report.longrepr).strip().splitlines()
        name = Path(str(report.nodeid)).name
        nothing = {"reason": "", "goal": "", "reached": ""}
        said = {"title": name, "state": "not judged", "said": last.removeprefix("E").strip()}
        BROKEN[report.nodeid] = said | nothing


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write `.goals.json`."""
    found = [*BROKEN.values(), *session.config.stash[VERDICTS].values()]
    judged = [goal for goal in found if goal["state"] != "not applicable"]
    met = [goal for goal in judged if goal["state"] == "met"]
    summary = f"{len(met)} of {len(judged)} goals met" if judged else "no goal applies"
    write_json(NOTE, {"summary": summary, "all_met": len(met) == len(judged), "goals": found})
