"""Text that comes from elsewhere, as it may be shown."""

import re

LINE_ENDS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
# What steers a terminal, turns the order of letters round, is not seen, or is no character.
HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def one_line(text: str) -> str:
    """Text on one line, with every control character shown by its code."""
    spaced = LINE_ENDS.sub(" ", text)
    return HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), spaced)
