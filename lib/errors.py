"""Errors, told to whoever can mend them: in a line, or from their own code on."""

import traceback
from pathlib import Path


class UserError(Exception):
    """A mistake in data, parameters or surroundings; its message is all that is shown of it.

    The message says, in one line, what was found, what was expected and what to do, with the
    key, file or column by its full name.
    """


class ShortageError(UserError):
    """Something was short, such as memory, that another start may have: no result to be kept."""


def traceback_from(error: BaseException, file: Path | str) -> str:
    """A traceback from a file's first frame on: what called it is not its author's.

    Of an error in its syntax, which has no frame, the line is shown that Python cannot read.
    """
    wanted, frame = Path(file).parts, error.__traceback__
    while frame and Path(frame.tb_frame.f_code.co_filename).parts[-len(wanted) :] != wanted:
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame)).rstrip("\n")
