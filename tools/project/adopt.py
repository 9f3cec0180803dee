"""Writes the best values of sweeps into params.yaml: `make adopt`.

The metrics file of a sweep's stage (lib/sweeps.py) names the section and has the values. Comments
in params.yaml are kept; committing is left to the user.

    tools/within . python -m tools.project.adopt [STAGE…]
"""

import difflib
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, get_args

from pydantic import BaseModel

from lib.errors import UserError
from lib.files import read_json, read_text, replaced_file
from lib.params import FILE, check_all, models_below, read_yaml
from lib.pipeline import Stage, changed_since, open_repo, read_pipeline
from lib.repository import ROOT
from lib.text import some_of
from tools.command import as_command
from tools.rewriting import put

MUST_HAVE = {"tunes", "objective", "best", "best_trial", "trials", "values"}


def adopt(names: Sequence[str]) -> list[str]:
    """Write the best values into params.yaml; lines that report it, with the difference.

    Raises:
        UserError: no sweep has run, a name is not that of a sweep, two tune the same process, or
            params.yaml would be invalid; nothing is changed.
    """
    stages = read_pipeline().stages
    found = sweeps(stages, names)
    read_yaml(ROOT / FILE)  # UserError if it is invalid
    before = after = read_text(ROOT / FILE)
    lines = []
    refuse_two_of_one(found)
    for name, sweep in found.items():
        after, taken = put(after, sweep["tunes"], sweep["values"])
        absent = left_out(name, sweep, before)
        if not taken:
            raise UserError(
                absent
                or f"{name}: {FILE} has no {sweep['tunes']} with what was tried: `make tune` again."
            )
        what = ", ".join(taken)
        lines.append(
            f"{name}: {sweep['objective']} {sweep['best']:.4g}, reached by {what} "
            f"(trial {sweep['best_trial']} in trials.csv, which has {sweep['trials']})."
        )
        if absent:
            lines.append(f"WARNING: {absent}")
    ran = [stage for stage in stages if stage.name in found]
    for stage in ran:
        lines += searched_params(stage, found[stage.name])
    lines += warnings(ran)
    if after == before:
        return [*lines, f"{FILE} has these values already."]
    with replaced_file(ROOT / FILE) as new:
        new.write_text(after, encoding="utf-8")
        try:
            check_all(ROOT, new.name)
        except UserError as error:
            raise UserError(str(error).replace(new.name, FILE)) from None
    old, now = before.splitlines(), after.splitlines()
    return [*lines, *difflib.unified_diff(old, now, FILE, FILE, lineterm="", n=0)]


def sweeps(stages: Sequence[Stage], names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The metrics of each sweep that has run, by its stage's name."""
    found = {}
    for stage in stages:
        for file in (ROOT / path for path in stage.metrics if path.endswith(".json")):
            content = read_json(file) if file.exists() else None
            if isinstance(content, dict) and content.keys() >= MUST_HAVE:
                found[stage.name] = content
    if unknown := [name for name in names if name not in found]:
        known = ", ".join(found) or "none"
        raise UserError(
            f"STAGES: {unknown[0]} is no sweep that has run. There are: {known}. `make tune` runs "
            "one."
        )
    if not found:
        raise UserError("No sweep has run here: `make tune` first.")
    return {name: found[name] for name in names or found}


def refuse_two_of_one(found: Mapping[str, Mapping[str, Any]]) -> None:
    """UserError if two sweeps tune one process: no trial had the best values of both."""
    for one, other in combinations(found, 2):
        if found[one]["tunes"] == found[other]["tunes"]:
            raise UserError(
                f"{one} and {other} both tune {found[one]['tunes']}, and no trial had the best "
                f"values of both: say which, as STAGES={other}."
            )


def left_out(name: str, sweep: Mapping[str, Any], text: str) -> str:
    """A message if params.yaml leaves a parameter that was searched to its default; else empty."""
    section, values = sweep["tunes"], sweep["values"]
    absent = [f"{section}.{key}" for key in values if not put(text, section, {key: None})[1]]
    models = [*models_below(ROOT)]
    left = [key for key in absent if any(has_field(model, key) for model in models)]
    if not left:
        return ""
    return (
        f"{name}: {FILE} has no {some_of(left)}, so that is not adopted: add it, then `make adopt` "
        "again."
    )


def has_field(model: type[BaseModel], name: str) -> bool:
    """Whether a model has a field of this dotted name."""
    key, _, below = name.partition(".")
    if key not in model.model_fields or not below:
        return key in model.model_fields
    kind = model.model_fields[key].annotation
    inner = (each for each in (kind, *get_args(kind)) if isinstance(each, type))
    return any(issubclass(each, BaseModel) and has_field(each, below) for each in inner)


def searched_params(stage: Stage, sweep: Mapping[str, Any]) -> list[str]:
    """A warning if the stage's `params` in dvc.yaml include values that the sweep searches."""
    searched = [f"{sweep['tunes']}.{key}." for key in sweep["values"]]
    listed = [
        key  # or a section that contains it
        for key in stage.params
        if any(f"{key}.".startswith(one) or one.startswith(f"{key}.") for one in searched)
    ]
    if not listed:
        return []
    return [
        f"WARNING: {stage.name}: {stage.file} lists {some_of(listed)} in its `params`, "
        "with what it searches: list the others alone there, or what is adopted makes it run again."
    ]


def warnings(stages: Sequence[Stage]) -> list[str]:
    """A line for each sweep whose parameters, code or data have changed since it ran."""
    lines = []
    with open_repo() as repo:
        for stage in stages:
            chain = changed_since(repo.stage.collect(stage.address, with_deps=True))
            if changed := [*dict.fromkeys(name for names in chain for name in names)]:
                lines.append(
                    f"WARNING: {stage.name}: changed since it ran: {some_of(changed)}. Bring that "
                    "back, or `make run` and `make tune`."
                )
    return lines


def main() -> None:
    """Adopt the values and print the report."""
    print(*adopt(sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    as_command(main)
