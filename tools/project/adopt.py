"""Writes the best values of sweeps into params.yaml: `make adopt`.

Which section they are of, and what they are, the metrics of a sweep's stage say (lib/sweeps.py).
Comments stay, and a person commits.

    tools/within . python -m tools.project.adopt [STAGE…]
"""

import difflib
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, SequenceNode

from lib.errors import UserError
from lib.files import read_json, read_text, replaced_file
from lib.params import FILE, check_all, parse_yaml, read_yaml
from lib.pipeline import Stage, read_pipeline
from lib.repository import ROOT

MUST_HAVE = {"tunes", "objective", "best", "best_trial", "trials", "values"}


def adopt(names: Sequence[str]) -> list[str]:
    """Write the best values into params.yaml; what to say of it, in lines.

    Raises:
        UserError: no sweep has run, a name is none of a sweep, or params.yaml would be invalid;
            nothing is changed.
    """
    found = sweeps(read_pipeline().stages, names)
    read_yaml(ROOT / FILE)  # what is wrong with it is told
    before = after = read_text(ROOT / FILE)
    lines = []
    for stage, sweep in found.items():
        after, taken = put(after, sweep["tunes"], sweep["values"])
        if not taken:
            raise UserError(
                f"{stage}: {FILE} has no {sweep['tunes']} with what was tried: `make tune` again."
            )
        what = ", ".join(taken)
        lines.append(
            f"{stage}: {sweep['objective']} {sweep['best']:.4g}, reached by {what} "
            f"(trial {sweep['best_trial']} in trials.csv, which has {sweep['trials']})."
        )
    if after == before:
        return [*lines, f"{FILE} has these values already."]
    with replaced_file(ROOT / FILE) as new:
        new.write_text(after, encoding="utf-8")
    try:
        check_all(ROOT)
    except UserError:
        (ROOT / FILE).write_text(before, encoding="utf-8")
        raise
    old, now = before.splitlines(), after.splitlines()
    return [*lines, *difflib.unified_diff(old, now, FILE, FILE, lineterm="", n=0)]


def sweeps(stages: Sequence[Stage], names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What each sweep found, by its stage's name."""
    found, waiting = {}, []
    for stage in stages:
        for path in stage.metrics:
            if not (ROOT / path).exists():
                waiting.append(stage.name)
            elif (
                isinstance(content := read_json(ROOT / path), dict) and content.keys() >= MUST_HAVE
            ):
                found[stage.name] = content
    if unknown := [name for name in names if name not in found]:
        known = ", ".join(found) or "none"
        raise UserError(
            f"STAGES: {unknown[0]} is no sweep that has run. There are: {known}. `make tune` runs "
            "one."
        )
    if not found:
        raise UserError("No sweep has run here: `make tune` first.")
    return {name: found[name] for name in names or found}


def put(text: str, section: str, values: Mapping[str, Any]) -> tuple[str, list[str]]:
    """A YAML text with values in it, by their dotted names in a section; and what it took of them.

    Everything else stays as it is written, and so does a value that is the same already.
    """
    taken, edits = [], list[tuple[int, int, str]]()
    for name, value in values.items():
        node, content = YAML(pure=True).compose(text), parse_yaml(text)
        for key in (section, *name.split(".")):
            pairs = node.value if isinstance(node, MappingNode) else []
            found = next((pair for pair in pairs if pair[0].value == key), None)
            if not found:
                break
            (above, node), content = found, content.get(key)
        else:
            after = text.index(":", above.end_mark.index) + 1
            edits += changes(text, node, after, content, value)
            taken.append(f"{name} {value}")
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text, taken


def changes(
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
    if old == new:
        return
    start, end = node.start_mark.index, last(node).end_mark.index
    end = start + len(text[start:end].rstrip())
    if isinstance(node, SequenceNode) and isinstance(new, list) and len(new) == len(old):
        for item, (was, will) in zip(node.value, zip(old, new, strict=True), strict=True):
            yield from changes(text, item, 0, was, will)
    elif after and (start == end or (isinstance(node, CollectionNode) and not node.flow_style)):
        yield after, after, f" {flow(new)}"
        if start < end:
            yield len(text[:start].rstrip()), end, ""
    else:
        yield start, end, flow(new)


def last(node: Node) -> Node:
    """The node with which a block of lines ends: its own end is where the next key begins."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        return last(node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1])
    return node


def flow(value: Any) -> str:
    """A value as YAML has it within a line."""
    text, yaml = io.StringIO(), YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = True, sys.maxsize
    yaml.dump(value, text)
    return text.getvalue().removesuffix("...\n").strip()


def main() -> None:
    """Print it."""
    try:
        print(*adopt(sys.argv[1:]), sep="\n")
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
