"""Ends with an error where results could not be logged because of a mistake, and says which.

    tools/within . python -m tools.tracking.check

The last step of `make run` and of a job: the results are there by then, and shared. A server that
is away is no mistake; `make relog` logs what it missed.
"""

from lib.errors import UserError
from tools.command import as_command
from tools.tracking import notes


def check() -> None:
    """UserError with the mistakes; notes are the clone's, and a stage may be another branch's."""
    notes_of = notes.everything()
    noted = {stage: note["error"] for stage, note in notes_of.items() if note.get("error")}
    if not noted:
        return
    from lib.pipeline import read_pipeline  # DVC takes a second, and there is mostly no mistake

    stages = [stage.address for stage in read_pipeline().stages]
    if mistakes := [noted[stage] for stage in stages if stage in noted]:
        raise UserError(
            "\n".join([*mistakes, "The results are complete. Fix it, then `make relog`."])
        )


if __name__ == "__main__":
    as_command(check)
