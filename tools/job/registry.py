"""Moves the alias `champion` in MLflow's registry to the models that main has.

registry           after a push to main: fails if a model is not in the registry
registry --of-run  at the end of a run: only if the results went to main

The models are those that `artifacts:` in dvc.yaml names; a version is found by the checksum that it
was registered with.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo
from dvc_data.index import DataIndexError

from lib.errors import UserError
from lib.params import FILE, Project, check_params, read_yaml
from lib.pipeline import MAIN
from lib.repository import ROOT
from tools.job.job import ask_mlflow, main, read_note, summarise
from tools.job.storage import point_dvc_at_this_platform
from tools.tracking import ARTIFACTS, INSIDE, registered_name
from tools.tracking.stages import md5_of_file

ALIAS, BRANCH = "champion", "main"


@dataclass(frozen=True)
class Known:
    """A model that dvc.yaml names."""

    name: str
    md5: str = ""
    why: str = ""  # no version of it can be champion; a verb comes first


def champion() -> None:
    """Move the alias for each model; UserError names those that are not in the registry."""
    point_dvc_at_this_platform()
    problems, named = [], models()
    if not named:
        print("dvc.yaml names no model in artifacts: there is no champion.")
    for model in named:
        try:
            line = f"{model.name} {model.why}." if model.why else move(model.name, model.md5)
            print(line, flush=True)
        except UserError as error:
            problems.append(f"{model.name}: {error}")
    if problems:
        after = (
            f"There, {ALIAS} stays as it was: when MLflow is up and has the results (with "
            "MLFLOW_URL set, `git pull && dvc pull && make relog`), re-run this job."
        )
        raise UserError("\n".join([*problems, after]))


def of_run() -> None:
    """Move the aliases after a run; a failure is only a warning, as the results are shared."""
    note = read_note()
    if note.get("branch") != BRANCH or "aside" in note or "shared" not in note:
        print(f"The results are not on {BRANCH}: {ALIAS} stays.")
        return
    if note.get("outdated"):
        print(f"The results are not those of {BRANCH}: {ALIAS} stays.")
        return
    try:
        champion()
    except UserError as error:
        print(f"WARNING  {error}")
        summarise(f"> [!WARNING]\n> {error}\n")


def models() -> list[Known]:
    """The models that dvc.yaml names."""
    try:
        with Repo(str(ROOT)) as repo:
            named = repo.artifacts.read().get(MAIN, {})
            outs = [out for out in repo.index.outs if out.is_in_repo]
        files = DVCFileSystem(str(ROOT))
        return [
            known(name, normpath(artifact.path), outs, files)
            for name, artifact in named.items()
            if artifact.type == "model"
        ]
    except DataIndexError as error:
        raise UserError(
            "The models of this commit cannot be determined: the listing of a model's folder "
            f"cannot be read ({error.__cause__ or error}). Is S3 up? Else `dvc push` where the "
            "results are, then re-run this job."
        ) from None
    except (DvcException, OSError) as error:
        raise UserError(f"The models of this commit cannot be determined: {error}") from None


def known(name: str, path: str, outs: Sequence[Output], files: DVCFileSystem) -> Known:
    """What is known of the model at a path, relative to the root."""
    out = next((out for out in outs if Path(ROOT, path).is_relative_to(out.fs_path)), None)
    if out is None:
        return Known(name, why=f"is not in the registry: {path} is in no out of a stage")
    if not path.startswith(ARTIFACTS) or not out.stage.cmd:
        return Known(name, why=f"is not in the registry: no stage writes it below {ARTIFACTS}")
    if not out.hash_info:
        return Known(name, why="is not computed yet: a run by tag makes it")
    if Path(ROOT, path) == Path(out.fs_path):
        return Known(name, out.hash_info.value)
    try:
        info = files.info(path)
    except FileNotFoundError:
        return Known(name, why=f"is not in the registry: {out} has no file {path}")
    md5 = info.get("dvc_info", info).get("md5")  # nested if it is in the work tree, too
    if not md5 and info["type"] == "file":  # in a folder that git keeps
        md5 = md5_of_file(ROOT / path)
    return Known(name, md5) if md5 else Known(name, why=f"is not in the registry: it {INSIDE}")


def move(name: str, md5: str) -> str:
    """Move the alias to the version with this md5; a line that says so."""
    project = check_params(read_yaml(ROOT / FILE), Project)
    model = registered_name(project.experiment, name)
    if not re.fullmatch(r"[0-9a-f]{32}(\.dir)?", md5):
        raise UserError(f"dvc.lock has {md5!r}, which is no md5.")
    wanted = f"name = '{model}' AND tags.`dvc.md5` = '{md5}'"
    found = ask_mlflow("model-versions/search", filter=wanted, max_results="100")
    versions = [version for version in found.get("model_versions", []) if version["name"] == model]
    if not versions:
        raise UserError(
            f"MLflow's registry has no version with md5 {md5}, because the run that made it did "
            "not reach the server."
        )
    newest = max(versions, key=lambda version: int(version["version"]))
    alias = {"name": newest["name"], "alias": ALIAS, "version": newest["version"]}
    ask_mlflow("registered-models/alias", alias)
    return f"{ALIAS} is {newest['name']} version {newest['version']}"


if __name__ == "__main__":
    main(of_run if "--of-run" in sys.argv else champion)
