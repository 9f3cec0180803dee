"""Ends with an error where results could not be logged because of a mistake, and says which.

    tools/within . python -m tools.tracking.check

The last step of `make run` and of a job: the results are there by then, and shared. A server that
is away is no mistake; `make relog` logs what it missed.
"""

import sys

from lib.errors import UserError
from lib.pipeline import read_pipeline
from tools.tracking import notes


def check() -> None:
    """UserError with the mistakes; notes are the clone's, and a stage may be another branch's."""
    noted = [notes.read(stage.address) for stage in read_pipeline().stages]
    if mistakes := [note["error"] for note in noted if note.get("error")]:
        raise UserError(
            "\n".join([*mistakes, "The results are complete. Mend it, then `make relog`."])
        )


if __name__ == "__main__":
    try:
        check()
    except UserError as error:
        sys.exit(str(error))
