"""Ends with an error where results could not be logged because of a mistake, and says which.

    tools/within . python -m tools.tracking.check

The last step of `make run` and of a job: the results are there by then, and shared. A server that
is away is no mistake; `make relog` logs what it missed.
"""

import sys

from lib.pipeline import read_pipeline
from tools.tracking import notes

if __name__ == "__main__":
    # Notes are the clone's: one may be of a stage that another branch has.
    noted = [notes.read(stage.address) for stage in read_pipeline().stages]
    mistakes = [note["error"] for note in noted if note.get("error")]
    if mistakes:
        sys.exit("\n".join([*mistakes, "The results are complete. Mend it, then `make relog`."]))
