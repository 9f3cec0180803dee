"""What a project may be without, and what the template's pages say of it.

Copier asks for each part that marks.yml names, and `make start` takes it out of a copy that was
made by hand. A page speaks of a part between two comments of HTML that copier understands, whose
texts are `% if runtimes %` and `% endif %`. Neither they nor what a project is without get into it.
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
OPEN = "<!--" + "%"  # in one piece, copier would read it here
# As Jinja does, copier's engine, with trim_blocks: the end of a comment's line goes with it.
PASSAGE = re.compile(rf"{OPEN} if (\w+) %-->\n?(.*?){OPEN} endif %-->\n?", re.DOTALL)


def parts() -> dict[str, list[str]]:
    """Files and folders of each part."""
    content = yaml.safe_load((Path(__file__).parent / "marks.yml").read_text(encoding="utf-8"))
    return dict(content["parts"]["default"])


def gone() -> list[str]:
    """Files and folders of the parts that are not wanted, or of which nothing is there.

    An update takes out what is no longer wanted, and leaves what of it is the team's.
    """
    wanted = answers()
    absent = [
        names
        for part, names in parts().items()
        if not wanted.get(part, True) or not any((ROOT / name).exists() for name in names)
    ]
    return [name for names in absent for name in names]


def answers() -> dict[str, Any]:
    """What copier was answered; empty where nothing is noted, UserError where it is unreadable."""
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
    """A page of a project that is without these parts."""
    return PASSAGE.sub(lambda found: "" if found[1] in without else found[2], text)


def renderings(text: str) -> set[str]:
    """What a page can be in a project."""
    named = sorted({found[1] for found in PASSAGE.finditer(text)})
    choices = product(*([(), (name,)] for name in named))
    return {rendered(text, {name for one in choice for name in one}) for choice in choices}
