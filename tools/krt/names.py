"""The runtimes of this repository, and which of them a tag or a version is of."""

from lib.repository import ROOT

MANIFEST = "krt.yml"
TAG = "runtime-"  # what the tags of releases begin with


def names() -> list[str]:
    """All of them."""
    return sorted(file.parent.name for file in (ROOT / "runtimes").glob(f"*/{MANIFEST}"))


def named(text: str) -> str:
    """The one with whose name and a hyphen a text begins; of several the longest, empty: none."""
    return max((name for name in names() if text.startswith(f"{name}-")), key=len, default="")
