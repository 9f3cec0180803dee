"""Makes text from elsewhere safe to show: in a terminal, in Markdown, without passwords."""

import os
import re
from collections.abc import Sequence

LINE_ENDS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
# Terminal control codes, bidirectional overrides, invisible characters, lone surrogates.
HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
# Variables whose addresses are recognised in a text as a whole.
ADDRESSES = ("MLFLOW_URL", "MLFLOW_TRACKING_URI")


def one_line(text: str) -> str:
    """Text on one line, with control characters escaped."""
    spaced = LINE_ENDS.sub(" ", text)
    return HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), spaced)


def last_line(text: str) -> str:
    """The last line that is not empty, without passwords."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return without_password(lines[-1]) if lines else "it ended without a message"


def sentence(text: str) -> str:
    """Text with its first letter capitalised."""
    return text[:1].upper() + text[1:]


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if names[most:] else ""
    return f"{', '.join(names[:most])}{more}"


def cell(text: str) -> str:
    """Text escaped for a cell of a Markdown table: no markup, links, images or formulas."""
    return re.sub(r"([\\|<`*$]|\](?=[(\[]))", r"\\\1", one_line(text))


def prose(text: str) -> str:
    """A message escaped for Markdown, except for its `code`."""
    markup = r"(`[^`]*`)|([\\<$*]|\](?=[(\[]))"
    return re.sub(markup, lambda found: found[1] or f"\\{found[2]}", one_line(text))


def without_password(text: str) -> str:
    """Text without user and password in its URLs."""
    for value in filter(None, map(os.environ.get, ADDRESSES)):
        text = text.replace(value, shown_address(value))
    return re.sub(r"(?<=//)[^\s/?#]*@", "", text)


def shown_address(address: str) -> str:
    """An address without user and password, which end at the last `@`, as for HTTP clients.

    Also if a password has an unescaped `/`, `?` or `#`, which HTTP clients misread.
    """
    scheme, slashes, rest = address.partition("//")
    if not slashes:
        return address.rpartition("@")[2]
    server = re.split("[/?#]", rest)[0]
    if "@" in server:
        return f"{scheme}//{rest[server.rindex('@') + 1 :]}"
    return f"{scheme}//{rest.rpartition('@')[2]}" if ":" in server else address
