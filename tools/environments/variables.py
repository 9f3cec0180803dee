"""Reads the variables in `.env` as data, with python-dotenv, as pipenv does.

Nothing in the file is executed, and it means the same to `pipenv run`, `tools/within` and the
installer. `tools/within` must start in milliseconds, without Python: it gets the variables as shell
code, cached in the environment under the file's hash.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from dotenv.main import resolve_variables
from dotenv.parser import parse_stream
from dotenv.variables import Literal, Variable, parse_variables

from lib.errors import UserError
from lib.repository import ROOT

FILE = ROOT / ".env"
IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]*")
BY_WITHIN = ("PYTHONPATH", "VIRTUAL_ENV")  # tools/within sets them itself


def values() -> dict[str, str]:
    """The current value of each variable that `.env` sets."""
    resolved = resolve_variables(bindings(), override=True)
    return {name: value for name, value in resolved.items() if value is not None}


def script(file: Path) -> str:
    """Shell code for `tools/within` that puts NAME=VALUE before its command; kept in `file`.

    Everything is quoted except for references to environment variables.
    """
    text = "\n".join(words()) + "\n"
    try:
        new = file.with_name(f"{file.name}.{os.getpid()}")
        new.write_text(text, encoding="utf-8")
        new.replace(file)
    except OSError:  # a read-only environment or a full disk: it is computed each time
        pass
    return text


def bindings() -> Iterator[tuple[str, str | None]]:
    """Names and uninterpolated values, in the file's order."""
    for line, name, value in statements():
        if name is None:
            print(unreadable(line), file=sys.stderr)
        else:
            yield name, value


def statements() -> Iterator[tuple[int, str | None, str | None]]:
    """Line, name and value of each statement; the name is None if it cannot be parsed."""
    content = FILE.read_bytes() if FILE.is_file() else b""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f".env, line {line}: it is not UTF-8: save the file as UTF-8.") from None
    for found in parse_stream(StringIO(text, newline=None)):
        original = found.original.string
        blank = len(re.findall(r"\r\n|\n|\r", original[: len(original) - len(original.lstrip())]))
        line = found.original.line + blank
        if found.error:
            yield line, None, None
        elif found.key is not None:
            if "\0" in f"{found.key}{found.value}" or "=" in found.key:
                raise UserError(f".env, line {line}: {found.key!r} cannot be set: remove it.")
            yield line, found.key, found.value


def unreadable(line: int) -> str:
    """The warning about a statement that python-dotenv cannot parse; pipenv skips it, too."""
    return f".env, line {line} cannot be read and is left out: is a quote open there?"


def words() -> Iterator[str]:
    """The lines of the shell code."""
    known: dict[str, str] = {}  # each name with its value as shell code
    mentioned: set[str] = set()  # names without a value: not set, and empty in references
    defaults = 0
    for line, name, value in statements():
        if name is None:
            yield f"echo {shlex.quote(unreadable(line))} >&2"
            continue
        parts = []
        for atom in parse_variables(value or ""):
            assert isinstance(atom, Literal | Variable)  # there is no other kind
            if isinstance(atom, Literal):
                parts.append(shlex.quote(atom.value))
            elif atom.name in known:
                parts.append(known[atom.name])
            elif IDENTIFIER.fullmatch(atom.name):
                defaults += 1
                yield f"_default{defaults}={shlex.quote(atom.default or '')}"
                parts.append(f'"${{{atom.name}-$_default{defaults}}}"')
            else:  # no shell can have such a variable
                parts.append(shlex.quote(atom.default or ""))
        known[name] = "".join(parts)
        (mentioned.add if value is None else mentioned.discard)(name)
    set_here = {name: text for name, text in known.items() if name not in mentioned}
    path = set_here.pop("PATH", None)
    pairs = [f"{shlex.quote(n)}={text}" for n, text in set_here.items() if n not in BY_WITHIN]
    if pairs:
        yield f'set -- {" ".join(pairs)} "$@"'
    if path is not None:
        yield f"PATH={path}"
