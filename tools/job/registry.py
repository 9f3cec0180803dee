"""Moves the alias `champion` in MLflow's registry to the models that main has.

registry           after a push to main: fails if a model is not in the registry
registry --of-run  at the end of a run: only if the results went to main

The models are those that `artifacts:` in dvc.yaml names; a version is found by the checksum that it
was registered with.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.index import DataIndexError

from lib.errors import UserError
from lib.params import read_yaml
from lib.pipeline import MAIN
from lib.repository import ROOT
from tools.job.job import ask_mlflow, main, read_note, summarise
from tools.job.preflight import point_dvc_at_this_platform
from tools.tracking import registered_name

ALIAS, BRANCH = "champion", "main"


def champion() -> None:
    """Move the alias for each model; UserError names those that are not in the registry."""
    point_dvc_at_this_platform()
    problems, known = [], models()
    if not known:
        print("dvc.yaml names no model in artifacts: there is no champion.")
    for name, md5 in known.items():
        if not md5:
            print(f"{name} is not computed yet: a run by tag makes it.", flush=True)
            continue
        try:
            print(move(name, md5), flush=True)
        except UserError as error:
            problems.append(f"{name}: {error}")
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


def models() -> dict[str, str]:
    """The md5 of each model that dvc.yaml names, by name; empty if its stage has not run yet."""
    try:
        with Repo(str(ROOT)) as repo:
            named = repo.artifacts.read()
            new = [Path(out.fs_path) for out in repo.index.outs if not out.hash_info]
            root = Path(repo.root_dir)
        files = DVCFileSystem(str(ROOT))
        return {
            name: "" if is_in(root / artifact.path, new) else dvc_md5(files.info(artifact.path))
            for file, artifacts in named.items()
            if file == MAIN  # only its models are registered
            for name, artifact in artifacts.items()
            if artifact.type == "model"
        }
    except KeyError:
        raise UserError(
            "The models of this commit cannot be determined: a model in artifacts: of dvc.yaml is "
            "not one of DVC's files, or its folder is not in the bucket (then `dvc push` where it "
            "is, and re-run this job)."
        ) from None
    except DataIndexError as error:
        raise UserError(
            "The models of this commit cannot be determined: the listing of a model's folder "
            f"cannot be read ({error.__cause__ or error}). Is S3 up? Else `dvc push` where the "
            "results are, then re-run this job."
        ) from None
    except (DvcException, OSError) as error:
        raise UserError(f"The models of this commit cannot be determined: {error}") from None


def is_in(path: Path, outs: Sequence[Path]) -> bool:
    """Whether a path is one of these outs, or below one."""
    return any(path.is_relative_to(out) for out in outs)


def dvc_md5(info: Mapping[str, Any]) -> str:
    """The md5 of a file; if it is in the work tree too, DVC's info is nested."""
    return str(info.get("dvc_info", info)["md5"])


def move(name: str, md5: str) -> str:
    """Move the alias to the version with this md5; a line that says so."""
    model = registered_name(str(read_yaml(ROOT / "params.yaml")["experiment"]), name)
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
