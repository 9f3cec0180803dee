"""MLflow's model registry: a version for each model that was trained on what is committed.

The newest version bears the alias `candidate`. That `champion` follows main is the workflow's part
(.github/scripts/registry.py).
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.params import Params, read_yaml
from lib.tracking import ROOT, content_md5, filled_in, tracking_uri, without_password

ALIAS = "candidate"
logger = logging.getLogger(__name__)


def register_models(
    mlflow: Any, params: Params, run_id: str, tags: Mapping[str, str], folder: str
) -> None:
    """Make the models in a folder that a run has logged versions in the registry.

    Which files are models, and what they are called, `artifacts:` in dvc.yaml says. Nothing happens
    without a server, or with uncommitted code. A server that cannot do it costs a line, no result.

    Args:
        mlflow: the module, connected.
        params: whose `experiment` the names begin with.
        run_id: of the run.
        tags: what traces the files as they are now (lib.tracking.run_tags).
        folder: what was logged, to the root of the run's artifacts.
    """
    if not tracking_uri().startswith("http") or tags["git.dirty"] == "true":
        return
    try:
        client = mlflow.MlflowClient()
        run = client.get_run(run_id)
        for name, path in models_in(Path(folder)).items():
            version = register(client, run, params.experiment, name, path, tags)
            logger.info("MLflow: %s is version %s, %s", name, version, ALIAS)
    except Exception as error:  # the client's, the server's and the network's own, of many classes
        said = without_password(" ".join(str(error).split()))[:200]
        logger.warning("WARNING: the models are not in MLflow's registry: %s", said)


def register(
    client: Any, run: Any, project: str, model: str, path: Path, tags: Mapping[str, str]
) -> str:
    """The version that this model has, made where there is none, with the alias moved to it."""
    name = re.sub(r"[/:'\"]", "-", f"{project}-{model}")  # all projects on a server share names
    about = {"project": project, "dvc.md5": content_md5(path)}
    about["dvc.path"] = str(path.relative_to(ROOT))
    about |= {key: tags[key] for key in ("git.commit", "git.tag", "git.branch") if key in tags}
    try:  # to ask for the name by a filter finds nothing on servers of the 2.x line
        client.get_registered_model(name)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name)
    versions = [
        found
        for found in client.search_model_versions(f"name = '{name}'")
        if found.tags.get("dvc.md5") == about["dvc.md5"]
    ]
    if not versions:
        source = f"{run.info.artifact_uri}/{path.name}"
        made = client.create_model_version(
            name, source, run.info.run_id, tags=about, await_creation_for=0
        )
        versions = [made]
    version = max(versions, key=lambda found: int(found.version)).version
    client.set_registered_model_alias(name, ALIAS, version)
    return str(version)


def models_in(folder: Path) -> dict[str, Path]:
    """The files in a folder that dvc.yaml names as models."""
    definition = read_yaml(ROOT / "dvc.yaml") if (ROOT / "dvc.yaml").exists() else {}
    params = read_yaml(ROOT / "params.yaml")
    entries = (definition.get("artifacts") or {}).items()
    models = {
        n: ROOT / filled_in([e["path"]], params)[0] for n, e in entries if e.get("type") == "model"
    }
    return {name: path for name, path in models.items() if path.parent == ROOT / folder}
