"""Fails if a bug in logging code kept results from being logged, and prints the error.

    tools/within . python -m tools.tracking.check

The last step of `make run` and of a job: by then the results are complete, and shared. A server
that is down is no failure here; `make relog` logs what it missed.
"""

from lib.errors import UserError
from tools.command import as_command
from tools.tracking import notes


def check() -> None:
    """UserError with the errors noted for stages of this branch; a clone's branches share notes."""
    notes_of = notes.everything()
    noted = {stage: note["error"] for stage, note in notes_of.items() if note.get("error")}
    if not noted:
        return
    from lib.pipeline import read_pipeline  # it imports DVC: a second that is rarely needed

    stages = [stage.address for stage in read_pipeline().stages]
    if mistakes := [noted[stage] for stage in stages if stage in noted]:
        raise UserError(
            "\n".join([*mistakes, "The results are complete. Fix it, then `make relog`."])
        )


if __name__ == "__main__":
    as_command(check)
