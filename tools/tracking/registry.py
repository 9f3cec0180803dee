"""MLflow's model registry: a version for each model that was trained from committed code.

The newest version has the alias `candidate`. The alias `champion`, which follows main, is moved by
the workflow (tools/job/registry.py).
"""

import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import mlflow
from mlflow.entities import RunInfo
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lib.pipeline import Model
from lib.pipeline import place as place_of
from lib.repository import ROOT, ask_git
from lib.text import one_line, without_password
from tools.tracking import INSIDE, registered_name
from tools.tracking.results import artifacts_of
from tools.tracking.stages import Tracked, md5_of, md5_of_file
from tools.tracking.store import experiment_name, is_local

ALIAS = "candidate"


def register_models(run: RunInfo, tracked: Tracked, tags: Mapping[str, str]) -> None:
    """Register the models among a stage's outs: the entries of `artifacts:` in dvc.yaml.

    Does nothing without a server or with uncommitted code. An error of the server is a warning.

    Args:
        run: the run that has the stage's outs as its artifacts.
        tracked: the stage.
        tags: its `provenance`.
    """
    if is_local() or tags.get("git.dirty") == "true":
        return
    try:
        for model, place in models_of(tracked):
            if md5 := md5_of_model(tracked, model.path):
                what = f"is {register(run, model, place, {**tags, 'dvc.md5': md5})}"
            else:
                what = f"is not registered: it {INSIDE}"
            print(f"MLflow: {one_line(model.name)} {what}", file=sys.stderr)
    except Exception as error:  # of the client, server or network: many classes
        why = without_password(" ".join(str(error).split()))[:200]
        print(
            f"WARNING: MLflow: the models are not in its registry, or one is there without the "
            f"alias {ALIAS}: {why}. When that is fixed, `make relog`.",
            file=sys.stderr,
        )


def md5_of_model(tracked: Tracked, path: str) -> str:
    """DVC's md5 of a file, or of a folder that is an out; empty for a folder inside an out."""
    if not (ROOT / path).is_dir():
        return md5_of_file(ROOT / path)
    top = tracked.dvc.repo.root_dir
    return next((md5_of(out) for out in tracked.dvc.outs if place_of(out, top) == path), "")


def models_of(tracked: Tracked) -> Iterator[tuple[Model, str]]:
    """Each model that the stage writes, and its path among the run's artifacts."""
    places = artifacts_of(tracked.stage)
    for model, (out, place) in product(tracked.pipeline.artifacts, places.items()):
        path = Path(model.path)
        if model.kind == "model" and path.is_relative_to(out):
            inner = path.relative_to(out) if Path(out).is_dir() else path.name
            yield model, (Path(place) / inner).as_posix()  # "." for all of the run's artifacts


def register(run: RunInfo, model: Model, place: str, tags: Mapping[str, str]) -> str:
    """Find or create the version with the md5 in `tags`, and move the alias to it.

    Returns:
        The version and what has the alias, as `version 3, candidate`.
    """
    client, project = mlflow.MlflowClient(), experiment_name()
    name = registered_name(project, model.name)
    kept = ("dvc.md5", "git.commit", "git.tag", "git.branch")
    about = {"project": project, "dvc.path": model.path}
    about |= {key: tags[key] for key in kept if key in tags}
    try:  # not asked for first: a server with logins refuses that for a model that does not exist
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = [
        found
        for found in client.search_model_versions(f"name = '{name}'")
        if found.tags.get("dvc.md5") == about["dvc.md5"] and is_kept(client, found.run_id)
    ]
    if not versions:
        source = f"{run.artifact_uri}/{place}".removesuffix("/.")
        versions = [
            client.create_model_version(name, source, run.run_id, tags=about, await_creation_for=0)
        ]
    version = max(versions, key=lambda found: int(found.version))
    if later := later_candidate(client, version, about.get("git.commit", "")):
        return f"version {version.version} ({ALIAS} is version {later})"
    client.set_registered_model_alias(name, ALIAS, version.version)
    return f"version {version.version}, {ALIAS}"


def later_candidate(client: mlflow.MlflowClient, version: ModelVersion, commit: str) -> str:
    """The number of the candidate, if its commit comes after this one, as in a re-run; or empty."""
    try:
        candidate = client.get_model_version_by_alias(version.name, ALIAS)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST" or "not found" in str(error):
            return ""
        raise
    theirs = candidate.tags.get("git.commit", "")
    if candidate.version == version.version or commit == theirs:
        return ""
    is_older = ask_git("merge-base", "--is-ancestor", commit, theirs).returncode == 0
    return str(candidate.version) if is_older else ""


def is_kept(client: mlflow.MlflowClient, run_id: str | None) -> bool:
    """Whether the run of a version still exists: its file is deleted with it."""
    try:
        return not run_id or bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
