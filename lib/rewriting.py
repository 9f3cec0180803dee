"""New values in a YAML file that a person writes: nothing else of it changes.

A round trip through a parser keeps comments, and gives lines, lists and quotes its own form.
"""

import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, SequenceNode

from lib.params import parse_yaml


def put(text: str, section: str, values: Mapping[str, Any]) -> tuple[str, list[str]]:
    """A YAML text with values in it, by their dotted names in a section; and what it took of them.

    Everything else stays as it is written, and so does a value that is the same already.
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
            taken.append(f"{name} {value}")
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text, taken


def _changes(
    text: str, node: Node, after: int, old: Any, new: Any
) -> Iterator[tuple[int, int, str]]:
    """Where a text is to be replaced, from and to, and by what, for a node to have a new value.

    Args:
        text: the YAML.
        node: what it has now.
        after: where the colon before it ends, behind which lists of several lines and empty values
            are put; 0 in a list.
        old: what the node says.
        new: what it shall say.
    """
    if _flow(old) == _flow(new):  # not `old == new`, which holds of True and 1
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
    """The node with which a block of lines ends: its own end is where the next key begins."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        return _last(node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1])
    return node


def _flow(value: Any) -> str:
    """A value as YAML has it within a line, also in a list or a mapping that is written so."""
    text, yaml = io.StringIO(), YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = True, sys.maxsize
    yaml.dump({0: value}, text)
    return text.getvalue().strip().removeprefix("{0: ").removesuffix("}")
