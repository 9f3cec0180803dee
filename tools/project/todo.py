"""Lists the marks that a project must still fill in, and invalid values: `make todo`.

Runs on the interpreter that `tools/environments/bootstrap` prints: it works before there is any
environment.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from lib.repository import ROOT, GitError, git_names
from tools.command import as_command
from tools.environments.lock_file import TEMPLATE_ONLY

OPEN, CLOSE = "TODO" + "(", ")"  # split, or this line would be a mark itself
NOT_OURS = {".git", ".venv", ".sandbox", "cache", "__pycache__"}
README, ITS_TEXT = "README.md", "PROJECT.md"  # a project's page, and its source in the template


@dataclass(frozen=True)
class Mark:
    """A value that a project fills in."""

    name: str
    what: str
    who: str  # knows it
    file: str
    line: str  # the line in the file, with {} for the value
    pattern: str
    expected: str
    default: str = ""  # what copier proposes
    also: tuple[str, ...] = ()  # files with further such lines

    @property
    def place(self) -> str:
        """The file that it is in now: for README.md, that is PROJECT.md until `make start`."""
        return ITS_TEXT if self.file == README and (ROOT / ITS_TEXT).exists() else self.file

    @property
    def text(self) -> str:
        """The mark's text in the template."""
        return f"{OPEN}{self.name}{CLOSE}"

    def found(self) -> list[tuple[str, int, str]]:
        """File, line number and value of each line of this form, those of `file` first."""
        before, after = self.line.split("{}")
        return [
            (file, number, line.rstrip()[len(before) :].removesuffix(after.rstrip()))
            for file in (self.place, *self.also)
            for number, line in enumerate(lines_of(ROOT / file), start=1)
            if line.startswith(before) and line.rstrip().endswith(after.rstrip())
        ]

    def allows(self, value: str) -> bool:
        """Whether a value is allowed."""
        return re.fullmatch(self.pattern, value) is not None


@dataclass(frozen=True)
class Problem:
    """A mark that is left, or a value that is not allowed."""

    place: str
    mark: Mark
    value: str = ""  # empty: left

    def __str__(self) -> str:
        if not self.value:
            known = f" ({self.mark.who} knows)" if self.mark.who != "you" else ""
            return f"{self.place}  {self.mark.text}: {self.mark.what}{known}."
        return (
            f"{self.place}  {self.mark.name} is {self.value!r}: it must be {self.mark.expected}. "
            f"({self.mark.what}.)"
        )


def marks() -> list[Mark]:
    """All marks in marks.yml."""
    content = yaml.safe_load((Path(__file__).parent / "marks.yml").read_text(encoding="utf-8"))
    return [Mark(name, **about) for name, about in content["marks"]["default"].items()]


def values() -> dict[str, str]:
    """The values that are filled in, by the mark's name."""
    found = {mark.name: mark.found() for mark in marks()}
    return {name: at[0][2] for name, at in found.items() if at and OPEN not in at[0][2]}


def problems() -> list[Problem]:
    """Every mark that is left, in any file, and every value that is not allowed."""
    known = {mark.text: mark for mark in marks()}
    text = re.compile("|".join(map(re.escape, known)))
    left = [
        Problem(f"{name}:{number}", known[match])
        for name in files()
        for number, line in enumerate(lines_of(ROOT / name), start=1)
        for match in text.findall(line)
        if name != ITS_TEXT or known[match].place == name  # `make start` fills in the others there
    ]
    for mark in known.values():
        if mark.place == README:  # the team's own words, once the project is started
            continue
        for file, number, value in mark.found():
            if OPEN not in value and not mark.allows(value):
                left.append(Problem(f"{file}:{number}", mark, value))
    return left


def files() -> Iterator[str]:
    """The files that git tracks or would track; without a repository, every file."""
    own = ("tests/", TEMPLATE_ONLY, OPEN)  # the template's own
    try:
        names = git_names("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    except GitError:
        names = every_file()
    yield from sorted(name for name in set(names) if name and not name.startswith(own))


def every_file() -> list[str]:
    """The files below the root, except for generated ones."""
    return [
        str(file.relative_to(ROOT))
        for file in ROOT.rglob("*")
        if file.is_file() and not NOT_OURS & set(file.relative_to(ROOT).parts)
    ]


def lines_of(file: Path) -> list[str]:
    """A file's lines; none if it does not exist."""
    try:  # marks are ASCII: any encoding will do
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def main() -> None:
    """Print what is left; exit with an error if anything is."""
    found = problems()
    for problem in found:
        print(problem)
    if found:
        sys.exit(f"{len(found)} to fill in or to correct: replace each value in its place.")
    print("Everything that a project must fill in is filled in.")


if __name__ == "__main__":
    as_command(main)
