"""The optional parts of the template, and the passages on them in its pages.

Copier asks about each part that marks.yml names; `make start` removes unwanted parts from a copy
made by hand. A passage on a part is between two HTML comments, `% if runtimes %` and `% endif %`,
which copier evaluates: a project's pages have neither the comments nor passages on missing parts.
"""

import re
from collections.abc import Container
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from lib.errors import UserError
from lib.repository import ROOT

ANSWERS = ".copier-answers.yml"
OPEN = "<!--" + "%"  # split, or copier would evaluate it here
# Like Jinja with trim_blocks, which copier uses: the line break after a comment is removed too.
PASSAGE = re.compile(rf"{OPEN} if (\w+) %-->\n?(.*?){OPEN} endif %-->\n?", re.DOTALL)


def parts() -> dict[str, list[str]]:
    """The files and folders of each part."""
    content = yaml.safe_load((Path(__file__).parent / "marks.yml").read_text(encoding="utf-8"))
    return dict(content["parts"]["default"])


def gone() -> list[str]:
    """Files and folders of the parts that are not wanted, or of which nothing exists.

    An update removes a part that is no longer wanted, except for the team's own files.
    """
    wanted = answers()
    absent = [
        names
        for part, names in parts().items()
        if not wanted.get(part, True) or not any((ROOT / name).exists() for name in names)
    ]
    return [name for names in absent for name in names]


def answers() -> dict[str, Any]:
    """The answers to copier's questions; empty without its file, UserError if it is invalid."""
    try:
        return dict(yaml.safe_load((ROOT / ANSWERS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, ValueError, TypeError):
        raise UserError(
            f"{ANSWERS} is not what copier wrote (merged by hand?): take that of another commit, "
            f"`git checkout <commit> -- {ANSWERS}`."
        ) from None


def rendered(text: str, without: Container[str]) -> str:
    """The page as a project without these parts has it."""
    return PASSAGE.sub(lambda found: "" if found[1] in without else found[2], text)


def renderings(text: str) -> set[str]:
    """All texts that a page can have in a project."""
    named = sorted({found[1] for found in PASSAGE.finditer(text)})
    choices = product(*([(), (name,)] for name in named))
    return {rendered(text, {name for one in choice for name in one}) for choice in choices}
