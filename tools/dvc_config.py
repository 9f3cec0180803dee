"""Reads and writes DVC's settings in `.dvc/config` and `.dvc/config.local`.

DVC's own writer handles only ASCII: any other character leaves the file empty.

Called by credentials, preflight and the sandbox.
"""

from collections.abc import Mapping
from pathlib import Path

from configobj import ConfigObj, ConfigObjError  # type: ignore[import-untyped]

from lib.errors import UserError
from lib.files import read_text, replaced_file


def read_config(file: Path) -> ConfigObj:
    """The settings by section; empty if the file does not exist.

    Raises:
        UserError: it cannot be read. No value is shown: it may be a secret.
    """
    lines = read_text(file).splitlines() if file.exists() else []
    try:
        config = ConfigObj(lines, encoding="utf-8", write_empty_values=True)
    except ConfigObjError as error:
        line = error.errors[0].line_number
        raise UserError(
            f"{file}, line {line}: DVC reads lines such as `key = value` below a [section], each "
            "of them once: fix the file, or remove it."
        ) from None
    if config.scalars:
        raise UserError(
            f"{file}: '{config.scalars[0]}' stands below no [section], where DVC reads nothing: "
            "fix the file, or remove it."
        )
    return config


def write_config(file: Path, config: ConfigObj) -> None:
    """Replace the file, readable only by its owner; without settings, remove it."""
    lines = config.write()
    if not b"".join(lines).strip():
        file.unlink(missing_ok=True)
        return
    with replaced_file(file.resolve()) as new:
        new.touch()
        new.chmod(0o600)
        new.write_bytes(b"\n".join(lines) + b"\n")


def set_values(file: Path, wanted: Mapping[str, Mapping[str, str]]) -> None:
    """Set these values, by section and key; everything else in the file stays.

    Raises:
        UserError: the file cannot be read, or cannot hold a value; it is unchanged.
    """
    config = read_config(file)
    for section, values in wanted.items():
        for key, value in values.items():
            if not can_hold(value):
                raise UserError(
                    f"{file} cannot hold what was given as {key}: DVC would read something else. "
                    "Give one without %(…)s, line breaks, or triple quotes of both kinds; "
                    "nothing was written."
                )
        config.setdefault(section, {}).update(values)
    write_config(file, config)


def can_hold(value: str) -> bool:
    """Whether DVC would read this value back unchanged."""
    try:
        lines = b"\n".join(ConfigObj({"key": value}, encoding="utf-8").write()).decode()
        return bool(ConfigObj(lines.splitlines())["key"] == value)
    except (ConfigObjError, UnicodeError):  # quotes, interpolation; lone surrogates
        return False
