"""Lists the stages that files depend on and that are outdated.

    tools/within . python -m tools.krt.outdated PATH…

Prints a line for each such stage of HEAD, not of the work tree. A command of its own, as DVC is not
in the environment that builds runtimes.
"""

import sys

from lib.pipeline import outdated_stages, read_pipeline
from lib.text import some_of
from tools.command import as_command


def main() -> None:
    """Print a line for each outdated stage."""
    needed = read_pipeline("HEAD").upstream(sys.argv[1:])
    for each in outdated_stages("HEAD"):
        if each.changed and each.stage.address in needed:
            print(f"{each.stage.address} has not run since {some_of(each.changed)} changed")


if __name__ == "__main__":
    as_command(main)
