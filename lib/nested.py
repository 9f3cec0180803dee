"""Flattens nested mappings, for tables, CSV files and MLflow, and changes values in them."""

from collections.abc import Mapping
from typing import Any


def flat(nested: Any, separator: str = ".", above: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}, at any depth; keys become text, with `above` as prefix."""
    found, left = {}, [(above, nested)]
    while left:
        key, value = left.pop()
        if isinstance(value, Mapping):
            below = [(f"{key}{separator}{k}" if key else str(k), v) for k, v in value.items()]
            left += reversed(below)
        else:
            found[key] = value
    return found


def with_values(nested: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a nested mapping with these values, by dotted name, in place of its own."""
    changed: dict[str, Any] = dict(nested)
    for name, value in values.items():
        key, _, below = name.partition(".")
        changed[key] = with_values(changed.get(key, {}), {below: value}) if below else value
    return changed
