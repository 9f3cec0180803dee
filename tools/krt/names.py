"""The runtimes of this repository, and which one a tag or version names."""

import re

from lib.repository import ROOT

MANIFEST = "krt.yml"
TAG = "runtime-"  # prefix of release tags


def names() -> list[str]:
    """The names of all runtimes."""
    return sorted(file.parent.name for file in (ROOT / "runtimes").glob(f"*/{MANIFEST}"))


def named(text: str) -> str:
    """The runtime whose name and a hyphen a text starts with, the longest such; empty if none."""
    return max((name for name in names() if text.startswith(f"{name}-")), key=len, default="")


def is_version(text: str) -> bool:
    """Whether a text can be the version of all runtimes, and not NAME-VERSION misspelled."""
    return "-" not in text or bool(re.match(r"[vV]?\d", text))
