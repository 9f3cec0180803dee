"""Ends with an error where results could not be logged because of a mistake, and says which.

    tools/within . python -m tools.tracking.check

The last step of `make run` and of a job: the results are there by then, and shared. A server that
is away is no mistake; `make relog` logs what it missed.
"""

import sys

from tools.tracking import notes

if __name__ == "__main__":
    mistakes = [note["error"] for note in notes.everything().values() if note.get("error")]
    if mistakes:
        sys.exit("\n".join([*mistakes, "The results are complete. Mend it, then `make relog`."]))
