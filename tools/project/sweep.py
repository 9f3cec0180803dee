"""Adds a sweep over a process: `make sweep NAME=train_prices`.

A sweep is a folder of `lab/tuning`, rendered from `skeleton/sweep`, with a section in params.yaml
and a stage in lab/tuning/dvc.yaml. It calls the functions that `make process` generates for a
training. Either all of it is written, or nothing.
"""

import re
import sys
import tomllib
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from lib.errors import UserError
from lib.files import read_text
from lib.params import read_yaml
from lib.pipeline import SWEEPS, read_pipeline
from lib.repository import ROOT
from tools.command import as_command
from tools.environments.lock_file import read_lock, versions
from tools.project.process import (
    LONGEST_NAME,
    all_or_nothing,
    append,
    filled_in,
    imported,
    replace,
    type_name,
    with_stage,
    write_folder,
)

ROOM = ROOT / "lab/tuning"
PIPELINE = """\
# Sweeps: which values of parameters do best. A pipeline of its own, so that `make run` neither runs
# them nor installs what they need; `make tune` runs it, and the tag tune-… on the runner.
# git keeps what they write: a reviewer sees the trials in the commit.
stages: {}
"""
# The functions that train and measure determine the kind and task of a process.
KINDS = {"train_network": "torch", "create_model": "sklearn"}
TASKS = {
    "regression_metrics": "regression",
    "multiclass_metrics": "classes",
    "classification_metrics": "binary",
}


@dataclass(frozen=True)
class Tuned:
    """The process that a sweep tunes."""

    name: str
    kind: str
    task: str
    table: str
    section: str  # the name of the type of its section
    drops: bool  # whether its section has `drop`

    @property
    def short(self) -> str:
        """The name of the sweep's folder of artifacts."""
        return self.name.removeprefix("train_")

    @property
    def sweep(self) -> str:
        """The name of the sweep."""
        return f"tune_{self.short}"


def tuned(name: str) -> Tuned:
    """Read what a sweep needs from a process's code.

    Raises:
        UserError: there is no such process, or it is not written as `make process` generates it.
    """
    folder = ROOT / "lab/processes" / name
    if not re.fullmatch(r"\w+", name) or not (folder / "main.py").is_file():
        known = ", ".join(sorted(file.parent.name for file in ROOT.glob("lab/processes/*/main.py")))
        raise UserError(f"NAME is {name!r}: it must be a process ({known or 'there is none'}).")
    texts = [folder / file for file in (f"{name}.py", "main.py", "params.py")]
    module, main, params = (read_text(file) if file.exists() else "" for file in texts)
    kinds = [kind for word, kind in KINDS.items() if re.search(rf"(?m)^def {word}\(", module)]
    tasks = [task for word, task in TASKS.items() if re.search(rf"\b{word}\b", module)]
    tables = re.findall(r'(?m)^TABLE = Path\("(.+)"\)$', main)
    sections = re.findall(rf"(?m)^    {name}: (\w+)$", params)
    if not (kinds and tasks and tables and sections):
        raise UserError(
            f"{name} is not written as `make process` writes a training (KIND=sklearn or torch): "
            "write its sweep by hand, as lab/tuning/README.md describes."
        )
    drops = bool(re.search(r"(?m)^    drop: list\[str\]$", params))
    return Tuned(name, kinds[0], tasks[0], tables[0], sections[0], drops)


def add(process: Tuned) -> None:
    """Write the sweep.

    Raises:
        UserError: the name is taken, or the layout of dvc.yaml does not allow adding a stage;
            nothing was written.
    """
    name, folder = process.sweep, ROOM / process.sweep
    params, pipeline = ROOT / "params.yaml", ROOT / SWEEPS
    content = read_yaml(params)
    if len(name) > LONGEST_NAME:
        raise UserError(f"{name} is longer than {LONGEST_NAME} characters: rename the process.")
    if folder.exists() or name in content:
        raise UserError(f"{name} is there already: change what it tries in params.yaml.")
    files = filled_in(
        "sweep",
        {
            "name": name,
            "short": process.short,
            "type": type_name(name),
            "tuned": process.name,
            "tuned_type": process.section,
            "kind": process.kind,
            "task": process.task,
            "table": process.table,
            "drops": process.drops,
        },
    )
    section = files.pop("params.yaml")
    with all_or_nothing([params, pipeline], folder):
        write_folder(folder, files)
        append(params, f"\n{name}:\n{section}")
        searched = set(read_yaml(params)[name]["space"])
        others = sorted(set(content.get(process.name) or {}) - searched)
        text = read_text(pipeline) if pipeline.exists() else PIPELINE
        text = with_plots(with_stage(text, stage_text(process, others)), process)
        replace(pipeline, text.encode())
        if not any(stage.name == name for stage in read_pipeline().stages):
            raise UserError(f"{SWEEPS} is not written stage below stage: add it by hand.")


def stage_text(process: Tuned, others: list[str]) -> str:
    """The stage's YAML; its params are those not searched, so that adopting runs no sweep again."""
    name = process.sweep
    deps = sorted(["lab/tuning/Pipfile.lock", *imported(f"lab.tuning.{name}.main")])
    lines = [
        f"{name}:",
        f"  desc: Which parameters of {process.name} do best.",
        "  wdir: ../..",
        f"  cmd: lab/processes/run {name}",
        "  params:",
        *(f"    - {key}" for key in ("random_seed", name)),
        "    # What is not searched; `make adopt` changes the rest, and no sweep runs again.",
        *(f"    - {process.name}.{key}" for key in others),
        "  deps:",
        *(f"    - {dep}" for dep in (process.table, *deps)),
        "  outs:",
        "    # persist: a sweep that fails leaves the results of the one before.",
        f"    - artifacts/tune/{process.short}:",
        "        cache: false",
        "        persist: true",
        "  metrics:",
        f"    - metrics/{name}.json:",
        "        cache: false",
        "        persist: true",
    ]
    return "\n".join(lines) + "\n"


def with_plots(text: str, process: Tuned) -> str:
    """The sweeps' dvc.yaml with plots of the sweep's history and parameter importances."""
    folder = f"../../artifacts/tune/{process.short}"
    title = process.name.replace("_", " ")
    heading = "" if re.search(r"(?m)^plots:", text) else "\nplots:\n"
    return f"""{text.rstrip()}
{heading}  - {title}, best so far by trial:
      x: step
      y:
        {folder}/history.csv: [objective, best]
  - {title}, importance of parameters:
      template: bar_horizontal
      x: importance
      y:
        {folder}/importances.csv: parameter
"""


def packages_missing(process: Tuned) -> list[str]:
    """The packages of the process's Pipfile that are not in the sweeps' Pipfile."""
    wanted, there = (
        {*map(canonicalize_name, tomllib.loads(read_text(folder / "Pipfile")).get("packages", {}))}
        for folder in (ROOT / "lab/processes" / process.name, ROOM)
    )
    return sorted(wanted - there)


def other_versions(process: Tuned) -> list[str]:
    """The packages of the process's Pipfile that sweeps have locked in another version."""
    folder = ROOT / "lab/processes" / process.name
    try:
        wanted, there = versions(read_lock(folder)), versions(read_lock(ROOM))
    except UserError:  # `make lock` tells it
        return []
    packages = tomllib.loads(read_text(folder / "Pipfile")).get("packages", {})
    named = {canonicalize_name(name) for name in packages}  # as locks have them
    return [
        f"{name} {there[name].strip('=')} ({process.name}: {wanted[name].strip('=')})"
        for name in sorted(named & wanted.keys() & there.keys())
        if there[name] != wanted[name]
    ]


def main() -> None:
    """Add the sweep and print what to do next."""
    try:
        process = tuned(sys.argv[1])
        add(process)
    except UserError as error:
        sys.exit(f"{error}\nNothing was written.")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: nothing was written.")
    print(
        f"Added: lab/tuning/{process.sweep}, its section in params.yaml, its stage in {SWEEPS}.\n"
        f"What is tried is in params.yaml. Next: make tune STAGES={process.sweep}, then\n"
        f"make adopt STAGES={process.sweep}."
    )
    if missing := packages_missing(process):
        print(f"But first, add to lab/tuning/Pipfile: {', '.join(missing)}; then make lock.")
    if differing := other_versions(process):
        print(
            f"WARNING: lab/tuning has locked {', '.join(differing)}, so the best values may "
            "differ. Name the same versions in lab/tuning/Pipfile; then make lock."
        )


if __name__ == "__main__":
    as_command(main)
