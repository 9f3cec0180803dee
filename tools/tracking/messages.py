"""What the tracker prints to stderr, beside the process's own output."""

import sys
import traceback

from lib.errors import UserError
from lib.pipeline import Stage
from lib.text import one_line
from tools.tracking import notes, runs, store


def say(message: str) -> None:
    """Print one line."""
    print(f"MLflow: {one_line(message)}", file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print one line as a warning."""
    print(f"WARNING: {one_line(message)}", file=sys.stderr, flush=True)


def report_failure(stage: Stage, error: Exception) -> None:
    """Print why a stage was not logged: an outage as a warning; a bug as an error, and note it."""
    if isinstance(error, runs.LogError):
        message = f"logging {stage.address} failed: a mistake in {error}"
    elif store.is_outage(error) or isinstance(error, UserError | OSError):
        not_away = isinstance(error, UserError) or store.is_final(error)
        then = "afterwards" if not_away else "when it is back"
        warn(
            f"MLflow at {store.shown_uri()}: {store.reason(error)} The results are complete on "
            f"disk; log them with `make relog` {then}."
        )
        return
    else:
        lines = "".join(traceback.format_exception(error))
        message = f"logging {stage.address} failed: a mistake in tools/tracking\n{lines}"
    print(f"ERROR: {message}", file=sys.stderr, flush=True)
    notes.remember_error(stage.address, message.partition("\n")[0])
