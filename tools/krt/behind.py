"""Says which stages behind files have not run since something that they read changed.

    tools/within . python -m tools.krt.behind PATH…

A line for each stage, of the commit and not of the work tree. It needs DVC, which is not in the
environment that builds runtimes.
"""

import sys

from lib.pipeline import outdated_stages, read_pipeline
from lib.text import some_of
from tools.command import as_command


def main() -> None:
    """Print them."""
    needed = read_pipeline("HEAD").behind(sys.argv[1:])
    for each in outdated_stages("HEAD"):
        if each.changed and each.stage.address in needed:
            print(f"{each.stage.address} has not run since {some_of(each.changed)} changed")


if __name__ == "__main__":
    as_command(main)
