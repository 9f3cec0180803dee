"""Says which stages behind files have not run since something that they read changed.

    tools/within . python -m tools.krt.behind PATH…

A line for each stage, of the commit and not of the work tree. It needs DVC, which is not in the
environment that builds runtimes.
"""

import sys
from collections.abc import Iterable

from lib.pipeline import Pipeline, outdated_stages, read_pipeline
from lib.text import some_of
from tools.command import as_command


def behind(paths: Iterable[str], pipeline: Pipeline) -> set[str]:
    """The addresses of the stages that files come from, by whatever many steps."""
    found: set[str] = set()
    waiting = [*paths]
    while waiting:
        stage, _ = pipeline.writer(waiting.pop())
        if stage and stage.address not in found:
            found.add(stage.address)
            waiting += stage.deps
    return found


def main() -> None:
    """Print them."""
    needed = behind(sys.argv[1:], read_pipeline("HEAD"))
    for each in outdated_stages("HEAD"):
        if each.changed and each.stage.address in needed:
            print(f"{each.stage.address} has not run since {some_of(each.changed)} changed")


if __name__ == "__main__":
    as_command(main)
