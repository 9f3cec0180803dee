"""The one kind of error that is its reader's to mend."""


class UserError(Exception):
    """A mistake in data, parameters or surroundings; its message is all that is shown of it.

    The message says, in one line, what was found, what was expected and what to do, with the
    key, file or column by its full name.
    """
