"""Lists the template's files with their hashes, to find those that a project has edited.

`tools/project/manifest` has a line for each file: the sha256 of its text, and its name. A page with
passages on optional parts has a line for each of its renderings. A commit hook of the template
writes it; in a project, `make doctor` compares the files with it.

    python -m tools.project.manifest

Line endings and permissions do not count, and values that a project has filled in are compared as
the marks that they replace.
"""

import hashlib
from collections.abc import Iterator

from lib.repository import ROOT, git_names
from tools.command import as_command
from tools.environments.lock_file import TEMPLATE_ONLY
from tools.project.parts import gone, renderings
from tools.project.todo import Mark, marks

FILE = ROOT / "tools/project/manifest"
TEMPLATES = (
    "tools",
    ".devcontainer",
    ".dockerignore",
    ".github",
    ".vscode",
    ".editorconfig",
    ".pre-commit-config.yaml",
    ".yamllint",
    "Makefile",
    "SECURITY.md",
    "mypy.ini",
    "pytest.ini",
    "ruff.toml",
)


def written() -> str:
    """The manifest of the files that git has now."""
    known = marks()
    names = git_names("ls-files", "-z", "--cached", "--", *TEMPLATES)
    own = FILE.relative_to(ROOT).as_posix()
    listed = sorted(name for name in names if name != own and (ROOT / name).exists())
    return "".join(f"{one}  {name}\n" for name in listed for one in digests(name, known))


def digests(name: str, known: list[Mark]) -> list[str]:
    """The sha256 of each rendering of a file, with filled-in values replaced by their marks."""
    content = (ROOT / name).read_bytes().replace(b"\r\n", b"\n")
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    for mark in known:
        for file, number, _ in mark.found():
            if file == name:
                lines[number - 1] = mark.line.replace("{}", mark.text)
    texts = (text.encode("utf-8", "surrogateescape") for text in renderings("\n".join(lines)))
    return sorted(hashlib.sha256(text).hexdigest() for text in texts)


def differences() -> Iterator[tuple[str, str]]:
    """Name and state, `edited` or `missing`, of each file that differs from the template."""
    known, absent = marks(), tuple(f"{name}/" for name in gone())
    expected: dict[str, set[str]] = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ", 1)
        expected.setdefault(name, set()).add(digest)
    for name, allowed in expected.items():
        if (ROOT / name).exists():
            if not allowed.issuperset(digests(name, known)):
                yield name, "edited"
        elif not f"{name}/".startswith(absent):
            yield name, "missing"


def main() -> None:
    """Write the manifest, in the template only."""
    if (ROOT / TEMPLATE_ONLY).exists():
        FILE.write_text(written(), encoding="utf-8")


if __name__ == "__main__":
    as_command(main)
