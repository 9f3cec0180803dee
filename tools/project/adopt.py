"""Writes the best values of sweeps into params.yaml: `make adopt`.

Which section they are of, and what they are, the metrics of a sweep's stage say (lib/sweeps.py).
Comments stay, and a person commits.

    tools/within . python -m tools.project.adopt [STAGE…]
"""

import difflib
import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML

from lib.errors import UserError
from lib.files import read_json, read_text, replaced_file
from lib.params import FILE, check_all, read_yaml
from lib.pipeline import Stage, read_pipeline
from lib.repository import ROOT

MUST_HAVE = {"tunes", "objective", "best", "best_trial", "trials", "values"}


def adopt(names: Sequence[str]) -> list[str]:
    """Write the best values into params.yaml; what to say of it, in lines.

    Raises:
        UserError: no sweep has run, a name is none of a sweep, or params.yaml would be invalid;
            nothing is changed.
    """
    found = sweeps(read_pipeline().stages, names)
    before = read_text(ROOT / FILE)
    read_yaml(ROOT / FILE)  # what is wrong with it is told
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.representer.add_representer(type(None), null)
    content = yaml.load(before)
    lines = []
    for stage, sweep in found.items():
        taken = put(content.get(sweep["tunes"]), sweep["values"])
        if not taken:
            raise UserError(
                f"{stage}: {FILE} has no {sweep['tunes']} with what was tried: `make tune` again."
            )
        what = ", ".join(taken)
        lines.append(
            f"{stage}: {sweep['objective']} {sweep['best']:.4g}, reached by {what} "
            f"(trial {sweep['best_trial']} in trials.csv, which has {sweep['trials']})."
        )
    text = io.StringIO()
    yaml.dump(content, text)
    after = text.getvalue()
    if after == before:
        return [*lines, f"{FILE} has these values already."]
    with replaced_file(ROOT / FILE) as new:
        new.write_text(after, encoding="utf-8")
    try:
        check_all(ROOT)
    except UserError:
        (ROOT / FILE).write_text(before, encoding="utf-8")
        raise
    old, now = before.splitlines(), after.splitlines()
    return [*lines, *difflib.unified_diff(old, now, FILE, FILE, lineterm="", n=0)]


def null(representer: Any, _: None) -> Any:
    """None as it is written in params.yaml; ruamel would leave it out."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def sweeps(stages: Sequence[Stage], names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What each sweep found, by its stage's name."""
    found, waiting = {}, []
    for stage in stages:
        for path in stage.metrics:
            if not (ROOT / path).exists():
                waiting.append(stage.name)
            elif (
                isinstance(content := read_json(ROOT / path), dict) and content.keys() >= MUST_HAVE
            ):
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


def put(section: Any, values: Mapping[str, Any]) -> list[str]:
    """Write values by their dotted names into a section that has these; what was written."""
    taken = []
    for name, value in values.items():
        *above, last = name.split(".")
        place = section
        for key in above:
            place = place.get(key) if isinstance(place, Mapping) else None
        if isinstance(place, Mapping) and last in place:
            place[last] = value  # type: ignore[index]
            move_comment(place, last, f"{last}: {value!r}")
            taken.append(f"{name} {value}")
    return taken


def move_comment(place: Any, key: str, written: str) -> None:
    """Leave two spaces before a comment that stands after a value, as yamllint wants it."""
    _, _, after, *_ = place.ca.items.get(key) or (None, None, None)
    if after:
        _, column = place.lc.key(key)
        mark = after.start_mark
        mark.column = max(mark.column, column + len(written) + 2)


def main() -> None:
    """Print it."""
    try:
        print(*adopt(sys.argv[1:]), sep="\n")
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
