"""Sets values in a hand-written YAML text without changing anything else in it.

A round trip through a parser would keep comments, but reformat lines, lists and quotes.
"""

import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, SequenceNode

from lib.params import parse_yaml


def put(text: str, section: str, values: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Set values in a section of a YAML text.

    Args:
        text: the YAML.
        section: a top-level key.
        values: the new values, by dotted key below the section.

    Returns:
        The new text, and `key value` for each value whose key it has.
    """
    root, parsed = YAML(pure=True).compose(text), parse_yaml(text)
    taken, edits = [], list[tuple[int, int, str]]()
    for name, value in values.items():
        node, content = root, parsed
        for key in (section, *name.split(".")):
            pairs = node.value if isinstance(node, MappingNode) else []
            found = next((pair for pair in pairs if pair[0].value == key), None)
            if not found:
                break
            (above, node), content = found, content.get(key)
        else:
            after = text.index(":", above.end_mark.index) + 1
            edits += _changes(text, node, after, content, value)
            taken.append(f"{name} {_flow(value)}")
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text, taken


def _changes(
    text: str, node: Node, after: int, old: Any, new: Any
) -> Iterator[tuple[int, int, str]]:
    """The edits (start, end, replacement) that give a node a new value.

    Args:
        text: the YAML.
        node: the node.
        after: the position after the colon before it, where multi-line lists and empty values are
            inserted; 0 in a list.
        old: the node's value.
        new: its new value.
    """
    if _flow(old) == _flow(new):  # not `old == new`, as True == 1
        return
    start, end = node.start_mark.index, _last(node).end_mark.index
    end = start + len(text[start:end].rstrip())
    if isinstance(node, SequenceNode) and isinstance(new, list) and len(new) == len(old):
        for item, (was, will) in zip(node.value, zip(old, new, strict=True), strict=True):
            yield from _changes(text, item, 0, was, will)
    elif after and (start == end or (isinstance(node, CollectionNode) and not node.flow_style)):
        yield after, after, f" {_flow(new)}"
        if start < end:
            yield len(text[:start].rstrip()), end, ""
    else:
        yield start, end, _flow(new)


def _last(node: Node) -> Node:
    """The last node of a block, whose own end is only where the next key begins."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        return _last(node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1])
    return node


def _flow(value: Any) -> str:
    """A value in YAML's flow style, on one line."""
    text, yaml = io.StringIO(), YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = True, sys.maxsize
    yaml.dump({0: value}, text)
    return text.getvalue().strip().removeprefix("{0: ").removesuffix("}")
