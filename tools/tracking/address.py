"""Validates MLflow's address and token, which a client would print in its error messages."""

import re
from urllib.parse import unquote

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from lib.errors import UserError


def check_address(address: str, token: str = "") -> None:
    """UserError, without the address, if clients would misread part of a login, or print it."""
    try:
        parts = parse_url(address)
        behind = (parts.path or "", parts.query or "", parts.fragment or "")
        broken = ":" in (parts.netloc or "") and not parts.auth and "@" in "".join(behind)
    except LocationParseError:
        broken = True
    if address != "databricks" and not re.match(r"(?i)https?://[^/]", address):
        raise UserError("MLFLOW_URL must begin with https:// or http://, and name a server.")
    if broken or re.search(r"[\s\\\x00-\x1f\x7f]", address):
        raise UserError(
            "MLFLOW_URL is not a valid URL. "
            "In a user or password, write / ? # % and spaces as %2F %3F %23 %25 %20."
        )
    if parts.query or parts.fragment:
        raise UserError(
            "MLFLOW_URL is the address of the "
            "server, not of a page on it: leave out everything from # or ? on."
        )
    if re.search(r"[^!-~]", token):
        raise UserError(
            "MLFLOW_TRACKING_TOKEN has a "
            "space, a line break or a character that is not ASCII in it: set it again, without."
        )
    if not unquote(parts.auth or "").isascii():
        raise UserError(
            "the login in MLFLOW_URL is not "
            "ASCII, which servers and clients read differently. Leave it out, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
