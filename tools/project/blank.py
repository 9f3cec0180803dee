"""Takes the example out of a project: `make blank`.

`lab/example.yml` lists it. Removed are its files, its stages and their outs, its sections of
params.yaml, its lines of .gitignore, and the passages on it in the team's pages. All of it must be
committed, so that `git checkout <commit> -- <path>` can restore it.
"""

import posixpath
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lib.errors import UserError
from lib.files import read_text
from lib.params import read_yaml
from lib.pipeline import MAIN, SWEEPS, Pipeline, Stage, read_pipeline
from lib.repository import ROOT, git_or_nothing
from tools.command import as_command
from tools.goals.judge import goal_files
from tools.project.remove import (
    delete,
    refuse_if_needed,
    refuse_interpolated,
    refuse_uncommitted,
    stages_of,
    without_lines,
    without_section,
    without_stages,
    written_by,
)

LIST = ROOT / "lab/example.yml"
GOALS = ROOT / "goals"

PIPELINE = """\
# The pipeline: what each stage reads (deps, params) and writes (outs, metrics). DVC runs a stage
# when something it reads has changed, and takes its results from the cache when they are there.
# `make process NAME=…` adds one.
stages: {}
"""


@dataclass
class Example:
    """The parts of the example that are still in the project."""

    names: list[str]  # of processes and sweeps
    sections: list[str]
    files: list[Path]  # and whole folders
    stages: list[Stage]


def find_example(pipeline: Pipeline) -> Example:
    """The parts that the list names and that exist."""
    listed = read_yaml(LIST) if LIST.exists() else {}
    processes, sweeps = listed.get("processes") or [], listed.get("sweeps") or []
    names, sections = [*processes, *sweeps], [*processes, *sweeps]
    files = [ROOT / "lab/processes" / name for name in processes]
    files += [ROOT / "lab/tuning" / name for name in sweeps]
    files += [ROOT / name for name in listed.get("files") or []]
    goals = [GOALS / name for name in listed.get("goals") or []]
    if goals and not goal_files() - set(goals):
        goals += [GOALS / "conftest.py", GOALS / "params.py"]
        sections.append("goals")
    found = [path for path in (*files, *goals, LIST) if path.exists()]
    stages = [stage for name in names for stage in stages_of(name, pipeline)]
    return Example(names, sections, found, stages)


def without_passages(text: str) -> str:
    """A page without its passages between <!-- example --> and <!-- /example -->."""
    passage = r"(?ms)^<!-- example -->$.*?^<!-- /example -->$\n*"
    return re.sub(passage, "", text).rstrip("\n") + "\n"


def pages() -> list[Path]:
    """The team's Markdown pages with passages on the example."""
    patterns = ("*.md", "lab/**/*.md", "goals/*.md", "lib/*.md", "runtimes/*.md")
    found = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return [path for path in found if "<!-- example -->" in path.read_text(encoding="utf-8")]


def pipelines(example: Example, pipeline: Pipeline) -> dict[Path, str]:
    """The text of each dvc.yaml and dvc.lock without the example; empty if nothing is left."""
    texts = {}
    for name in (MAIN, SWEEPS):
        folder = posixpath.dirname(name)
        own = [stage for stage in example.stages if stage.file == name]
        others = any(stage.file == name and stage not in own for stage in pipeline.stages)
        for file in (ROOT / name, (ROOT / name).with_suffix(".lock")):
            if file.exists() and own:
                text = without_stages(read_text(file), own, written_by(own), folder)
                texts[file] = text if others else ""
    if texts.get(ROOT / MAIN) == "":
        texts[ROOT / MAIN] = PIPELINE
    return texts


def blank() -> list[str]:
    """Remove the example; the paths that were removed.

    Raises:
        UserError: something else needs it, it is not all committed, or params.yaml cannot be cut;
            nothing is changed.
    """
    pipeline = read_pipeline()
    example = find_example(pipeline)
    if not example.files:
        return []
    gone = [str(path.relative_to(ROOT)) for path in example.files]
    written = written_by(example.stages)
    refuse_if_needed(example.names, example.stages, pipeline, gone)
    params, ignored = ROOT / "params.yaml", ROOT / ".gitignore"
    of_it = [page for page in pages() if page not in example.files]
    texts = pipelines(example, pipeline)
    refuse_interpolated(example.sections, pipeline, texts)
    if not git_or_nothing("rev-parse", "--verify", "--quiet", "HEAD"):
        raise UserError("git must have the example before it goes: `make start` first.")
    edited = [*example.files, params, ignored, *of_it, *texts]
    refuse_uncommitted(str(path.relative_to(ROOT)) for path in edited)
    texts[params] = read_text(params)
    for section in example.sections:
        texts[params] = without_section(texts[params], section)
    texts[ignored] = without_lines(read_text(ignored), {f"/{path}" for path in written})
    texts |= {page: without_passages(read_text(page)) for page in of_it}
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    emptied = [file for file, text in texts.items() if not text]
    for path in (*example.files, *(ROOT / out for out in written), *emptied):
        delete(path)
        with suppress(OSError):  # the folder is not empty
            path.parent.rmdir()
    if left := set(read_yaml(params)) & set(example.sections):
        raise UserError(f"params.yaml still has {', '.join(sorted(left))}: remove it by hand.")
    return gone


def main() -> None:
    """Remove the example; print what was removed and what to do next."""
    removed = blank()
    print(f"Removed: {', '.join(removed)}" if removed else "There was nothing left of the example.")
    print("Next: make process NAME=…, then make run. `git diff --stat` shows what has changed.")


if __name__ == "__main__":
    as_command(main)
