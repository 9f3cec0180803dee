"""Takes the example out of a project: `make blank`.

Files and folders are removed, the example's sections and lines go from params.yaml and .gitignore,
what the team's pages say of it goes, and dvc.yaml has no stages any more. git must have all of it:
what goes can be brought back with `git checkout <commit> -- <path>`.
"""

import re
import shutil
import sys
from collections.abc import Container, Iterable
from pathlib import Path

from lib.errors import UserError
from lib.files import read_text
from lib.params import Project, read_yaml
from lib.pipeline import read_pipeline
from lib.repository import ROOT, GitError, git, uncommitted

KEPT_SECTIONS = Project.model_fields  # of params.yaml
CHAPTERS = {"README.md", "DATA.md", "EXPERIMENTS.md", "PIPELINE.md", "SCALE.md"}
CHAPTERS |= {"TESTING.md", "WINE.md"}
KEPT_IN_PROCESSES = {"run", "stages_test.py", "__pycache__", *CHAPTERS}
SWEEPS = ("lab/tuning/*/main.py", "lab/tuning/dvc.yaml", "lab/tuning/dvc.lock", "artifacts/tune")

PIPELINE = """\
# The pipeline: what each stage reads (deps, params) and writes (outs, metrics). DVC runs a stage
# when something it reads has changed, and takes its results from the cache when they are there.
# `make process NAME=…` adds one.
stages: {}
"""


def example_files() -> list[Path]:
    """What is removed whole: processes, sweeps, goals, notebooks, runtimes, metrics, dvc.lock."""
    processes = ROOT.glob("lab/processes/*")
    found = [path for path in processes if path.name not in KEPT_IN_PROCESSES]
    for pattern in ("goals/*.py", "lab/analysis/*.ipynb", "metrics/*", "dvc.lock"):
        found += ROOT.glob(pattern)
    for pattern in SWEEPS:
        for path in ROOT.glob(pattern):
            found.append(path.parent if path.name == "main.py" else path)
    found += (manifest.parent for manifest in ROOT.glob("runtimes/*/krt.yml"))
    return sorted(found)


def without_sections(text: str, kept: Container[str]) -> str:
    """params.yaml without its other sections, and without the comments directly above these."""
    for name in re.findall(r"(?m)^(\w+):", text):
        if name not in kept:
            text = without_section(text, name)
    return text.rstrip("\n") + "\n"


def without_section(text: str, name: str) -> str:
    """params.yaml without one section, and without the comments directly above it."""
    section = rf"(?m)^(?:#.*\n)*{name}:.*\n(?:(?:[ \t].*)?\n)*"
    return re.sub(section, "", text.rstrip("\n") + "\n", count=1).rstrip("\n") + "\n"


def without_lines(text: str, gone: Container[str]) -> str:
    """A text without these lines."""
    return "".join(line for line in text.splitlines(True) if line.rstrip("\r\n") not in gone)


def without_passages(text: str) -> str:
    """A page without what stands between <!-- example --> and <!-- /example -->."""
    passage = r"(?ms)^<!-- example -->$.*?^<!-- /example -->$\n*"
    return re.sub(passage, "", text).rstrip("\n") + "\n"


def pages() -> list[Path]:
    """The team's pages in Markdown that speak of the example."""
    patterns = ("*.md", "lab/**/*.md", "goals/*.md", "lib/*.md", "runtimes/*.md")
    found = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return [path for path in found if "<!-- example -->" in path.read_text(encoding="utf-8")]


def blank() -> list[str]:
    """Take the example out; the names of what was removed.

    Raises:
        UserError: git does not have all of it, or params.yaml cannot be cut; nothing is changed.
    """
    outs = [out for stage in read_pipeline().stages for out in stage.outs]
    files = example_files()
    of_it = [page for page in pages() if page not in files]
    pipeline, params, ignored = (ROOT / name for name in ("dvc.yaml", "params.yaml", ".gitignore"))
    check_that_git_has([*files, pipeline, params, ignored, *of_it])
    texts = {
        pipeline: PIPELINE,
        params: without_sections(read_text(params), KEPT_SECTIONS),
        ignored: without_lines(read_text(ignored), {f"/{out}" for out in outs}),
    } | {page: without_passages(read_text(page)) for page in of_it}
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    for path in (*files, *(ROOT / out for out in outs)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if left := set(read_yaml(params)) - set(KEPT_SECTIONS):
        raise UserError(f"params.yaml still has {', '.join(sorted(left))}: remove it by hand.")
    return [str(path.relative_to(ROOT)) for path in files]


def check_that_git_has(paths: Iterable[Path]) -> None:
    """Raise UserError where something would be lost."""
    names = [str(path.relative_to(ROOT)) for path in paths]
    try:
        git("rev-parse", "--verify", "--quiet", "HEAD")
        changed = uncommitted(names, "--untracked-files=all")
    except GitError:
        raise UserError("git must have the example before it goes: `make start` first.") from None
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise UserError(
            f"Not committed: {', '.join(changed[:5])}{more}. Commit or discard that first: git "
            "must be able to bring back what goes."
        )


def main() -> None:
    """Print what went, and what is next."""
    try:
        removed = blank()
    except UserError as error:
        sys.exit(str(error))
    print(f"Removed: {', '.join(removed)}" if removed else "There was nothing left of the example.")
    print("Next: make process NAME=…, then make run. `git diff --stat` shows what has changed.")


if __name__ == "__main__":
    main()
