"""Errors as users see them: a single line, or a traceback that begins in their own code."""

import traceback
from pathlib import Path


class UserError(Exception):
    """A mistake in data, parameters or the environment; users see only the message.

    It says in one line what was found, what was expected and what to do, with the full name of the
    key, file or column.
    """


class ShortageError(UserError):
    """A shortage, such as of memory, that a retry may not have: it is not kept as a result."""


def traceback_from(error: BaseException, file: Path | str) -> str:
    """The traceback from the first frame in a file on, without the callers.

    A syntax error in the file has no frame: the line that Python cannot parse is shown.
    """
    wanted, frame = Path(file).parts, error.__traceback__
    while frame and Path(frame.tb_frame.f_code.co_filename).parts[-len(wanted) :] != wanted:
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame)).rstrip("\n")
