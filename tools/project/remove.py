"""Takes a process out of the pipeline: `make remove-process NAME=train_model`.

Removed are its folder, its section in params.yaml, its stage with plots and models in dvc.yaml and
dvc.lock, its outs and metrics, and their lines in .gitignore. All of it must be committed, so that
`git checkout HEAD -- <path>` can restore it.
"""

import posixpath
import re
import shutil
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path, PurePath
from typing import Any

from ruamel.yaml import YAML

from lib.errors import UserError
from lib.files import read_text
from lib.params import YamlTextError, parse_yaml, read_yaml
from lib.pipeline import MAIN, Pipeline, Stage, read_pipeline
from lib.repository import ROOT, ask_git, uncommitted
from lib.text import some_of
from tools.command import as_command
from tools.tracking import notes

EDITED = ("params.yaml", MAIN, "dvc.lock", ".gitignore")


def remove(name: str) -> list[str]:
    """Remove a process; lines that report it.

    Raises:
        UserError: there is no such process, others depend on it, or it is not all committed;
            nothing is changed.
    """
    pipeline = read_pipeline()
    own = stages_of(name, pipeline)
    check(name, own, pipeline)
    written = written_by(own)
    refuse_uncommitted([f"lab/processes/{name}", *EDITED, *written])
    readers = read_by_others(name, pipeline)
    section = name in read_yaml(ROOT / "params.yaml")
    # Everything is read before anything is written.
    texts = texts_without(name, own, pipeline, section=section and not readers)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    for path in (f"lab/processes/{name}", *written):
        delete(ROOT / path)
    left = ROOT / "artifacts" / name
    for folder in (*sorted(left.rglob("*/"), reverse=True), left):  # inner ones first
        with suppress(OSError):  # it has files of another stage, or a person's
            folder.rmdir()
    for note in (*ROOT.glob(f".checkpoints/{name}.*"), *(notes.file_of(s.address) for s in own)):
        note.unlink(missing_ok=True)
    parts = {
        "stage": own,
        "section": section and not readers,
        "outs": [path for stage in own for path in stage.outs],
        "metrics": [path for stage in own for path in stage.metrics],
    }
    *gone, last = [part for part, there in parts.items() if there] or ["folder"]
    with_it = f"{', '.join(gone)} and {last}" if gone else last
    messages = [f"Removed: {name}, with its {with_it}. `git diff` shows it."]
    if left.exists():
        messages.append(f"artifacts/{name} stays: it has files that {name} did not write.")
    if section and readers:
        messages.append(f"Its section stays: {readers[0]}.")
    if named := still_named(name, written):
        messages.append(f"Still named in: {', '.join(named)}")
    return messages


def check(name: str, own: Sequence[Stage], pipeline: Pipeline) -> None:
    """UserError if there is no such process, or something else depends on it."""
    refuse_shared(name, own, pipeline)
    if not re.fullmatch(r"\w+", name) or not ((ROOT / "lab/processes" / name).is_dir() or own):
        known = ", ".join(sorted(file.parent.name for file in ROOT.glob("lab/processes/*/main*")))
        raise UserError(f"NAME is {name!r}: it must be a process ({known or 'there is none'}).")
    if elsewhere := [stage for stage in own if stage.file != MAIN]:
        raise UserError(
            f"{elsewhere[0].name} in {elsewhere[0].file} starts {name}: take it out there first."
        )
    refuse_if_needed([name], own, pipeline, [f"lab/processes/{name}"])


def texts_without(
    name: str, own: Sequence[Stage], pipeline: Pipeline, *, section: bool
) -> dict[Path, str]:
    """The new texts of the files that name a process; without its section if `section` is True."""
    written = written_by(own)
    texts = {path: read_text(path) for file in EDITED if (path := ROOT / file).exists()}
    for file in texts.keys() & {ROOT / MAIN, ROOT / "dvc.lock"}:
        texts[file] = without_stages(texts[file], own, written)
    params, ignored = ROOT / "params.yaml", ROOT / ".gitignore"
    if section:
        refuse_interpolated([name], pipeline, texts)
        texts[params] = without_section(texts[params], name)
    others = {path for stage in pipeline.stages for path in stage.written} - {*written}
    usual = {f"artifacts/{name}", f"data/{name}.csv"}
    free = {path for path in usual if not any(PurePath(o).is_relative_to(path) for o in others)}
    lines = {f"/{path}" for path in {*written, *free}}
    texts[ignored] = without_lines(texts[ignored], lines)
    return texts


def delete(path: Path) -> None:
    """Remove a file, folder or link, if it exists; never the target of a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def stages_of(name: str, pipeline: Pipeline) -> list[Stage]:
    """The stages that start a process; with `matrix`, several."""
    command = re.compile(rf"lab/processes/run {re.escape(name)}(?![\w-])")
    return [s for s in pipeline.stages if command.search(" && ".join(s.commands))]


def refuse_shared(name: str, own: Sequence[Stage], pipeline: Pipeline) -> None:
    """UserError if a stage that would be removed also starts another process."""
    entries = {(stage.file, stage.entry) for stage in own}
    for stage in pipeline.stages:
        started = re.findall(r"lab/processes/run ([\w-]+)", " && ".join(stage.commands))
        others = sorted({*started} - {name})
        if others and (stage.file, stage.entry) in entries:
            raise UserError(
                f"{stage.name} in {stage.file} starts {others[0]}, too: take {name} out of it "
                "first, by hand."
            )


def written_by(stages: Iterable[Stage]) -> list[str]:
    """The paths that stages write."""
    return [path for stage in stages for path in stage.written]


def refuse_if_needed(
    names: Sequence[str],
    own: Sequence[Stage],
    pipeline: Pipeline,
    gone: Sequence[str],
) -> None:
    """UserError if another stage reads what the processes write, or a file imports their code.

    Args:
        names: the processes.
        own: their stages.
        pipeline: all stages.
        gone: the files and folders that are removed with them.
    """
    others = [stage for stage in pipeline.stages if stage not in own]
    for writer, reader in product(own, others):
        for out, dep in product(map(PurePath, writer.written), map(PurePath, reader.deps)):
            if dep.is_relative_to(out) or out.is_relative_to(dep):
                raise UserError(
                    f"{reader.name} reads {dep}, which {writer.name} writes: change it first."
                )
    with_them = (*gone, "tools", "tests")
    for name in names:
        for file in files_with(rf"lab[./](processes|tuning)[./]{name}\b", "*.py", "*.ipynb"):
            if not any(PurePath(file).is_relative_to(path) for path in with_them):
                raise UserError(f"{file} imports {name}: change it first.")


def refuse_interpolated(
    sections: Sequence[str], pipeline: Pipeline, texts: Mapping[Path, str]
) -> None:
    """UserError if a dvc.yaml interpolates a section by `${…}`: DVC would fail without it.

    Args:
        sections: the sections of params.yaml that are removed.
        pipeline: all stages.
        texts: the new texts of files that change.
    """
    files = {MAIN, *(stage.file for stage in pipeline.stages)}
    for file in sorted(name for name in files if Path(name).name == MAIN):
        text = texts[ROOT / file] if ROOT / file in texts else read_text(ROOT / file)
        content = parse_yaml(text, aliases=True) or {}
        chosen = list(chosen_by_vars(content, posixpath.dirname(file)))
        if file != MAIN and not chosen:
            continue  # it has a params.yaml of its own
        values = str(content)  # without comments, which DVC does not read
        for section in sections:
            if any(section in keys for keys in chosen):
                raise UserError(f"{file} names {section} in its `vars`: change it first.")
            if found := re.search(rf"{interpolated(section)}[^}}]*}}", values):
                raise UserError(f"{file} reads {found[0]}: change it first.")


def chosen_by_vars(content: Mapping[str, Any], folder: str) -> Iterator[list[str]]:
    """The keys that each entry of `vars` in a dvc.yaml selects from the root's params.yaml.

    An entry is `path`, which selects everything (`[""]`), or `path:key,key`.
    """
    stages = [stage for stage in (content.get("stages") or {}).values() if stage]
    for part in (content, *(stage.get("do", stage) for stage in stages)):
        place = posixpath.join(folder, part.get("wdir", "") if part is not content else "")
        for text in part.get("vars") or ():
            path, _, keys = text.partition(":") if isinstance(text, str) else ("", "", "")
            if posixpath.normpath(posixpath.join(place, path)) == "params.yaml":
                yield keys.split(",")


def interpolated(section: str) -> str:
    """A pattern for `${` followed by the name of a section of params.yaml."""
    return rf"(?<!\\)(\$\{{\s*){section}(?=\s*[.\[}}])"


def read_by_others(name: str, pipeline: Pipeline) -> list[str]:
    """Sentences on other stages that read the process's section of params.yaml."""
    own = stages_of(name, pipeline)
    return [
        f"{stage.name} reads {key}"
        for stage in pipeline.stages
        for key in stage.params
        if stage not in own and key.partition(".")[0] == name
    ]


def refuse_uncommitted(paths: Iterable[str]) -> None:
    """UserError if one of these paths has uncommitted changes."""
    if changed := uncommitted(sorted(set(paths)), "--untracked-files=all"):
        raise UserError(
            f"Not committed: {some_of(changed)}. Commit or discard that first: git must be able to "
            "restore it."
        )


# ---- editing params.yaml, .gitignore, dvc.yaml and dvc.lock; everything else in them is unchanged


def without_section(text: str, name: str) -> str:
    """params.yaml without one section, and without the comments directly above it."""
    content, lines = YAML().load(text), text.splitlines(keepends=True)
    if name in content:
        cut(lines, *content.lc.key(name))
    left = "".join(lines).rstrip("\n") + "\n"
    refuse_grafted("params.yaml", text, left, depth=1)
    return left


def without_lines(text: str, gone: Container[str]) -> str:
    """A text without these lines."""
    return "".join(line for line in text.splitlines(True) if line.rstrip("\r\n") not in gone)


def without_stages(
    text: str, own: Sequence[Stage], written: Sequence[str], folder: str = ""
) -> str:
    """The text without these stages, and without plots and models of their outs.

    Args:
        text: a dvc.yaml or dvc.lock.
        own: the stages.
        written: their outs, relative to the repository's root.
        folder: the folder of the file.
    """
    content = YAML().load(text)
    # In dvc.lock, each item of a matrix has an entry.
    names = {name for stage in own for name in (stage.entry, stage.name)}
    cuts = [content["stages"].lc.key(name) for name in content.get("stages") or {} if name in names]
    cuts += entries_that_name(content, written, folder)
    lines = text.splitlines(keepends=True)
    for number, indent in sorted(cuts, reverse=True):
        cut(lines, number, indent)
    left = without_empty_keys("".join(lines))
    refuse_grafted("dvc.yaml", text, left, depth=2)
    return left


def refuse_grafted(name: str, text: str, left: str, depth: int) -> None:
    """UserError if the content left in a file is not the old content without some entries.

    Args:
        name: the file's name.
        text: its old text.
        left: its new text.
        depth: down to which level whole entries may be missing.
    """
    try:
        after, before = (parse_yaml(each, aliases=True) or {} for each in (left, text))
        whole = is_part(after, before, depth)
    except YamlTextError:
        whole = False
    if not whole:
        raise UserError(
            f"{name} is written so that nothing can be cut out of it without hurting what is left: "
            "indent comments and lists like what they stand in, or remove it there by hand."
        )


def is_part(left: Any, whole: Any, depth: int) -> bool:
    """Whether `left` is `whole` without some entries of mappings and lists, down to a depth."""
    if depth and isinstance(left, dict) and isinstance(whole, dict):
        return all(k in whole and is_part(v, whole[k], depth - 1) for k, v in left.items())
    if depth and isinstance(left, list) and isinstance(whole, list):
        return all(item in whole for item in left)
    return bool(left == whole)


def entries_that_name(
    content: Any, written: Sequence[str], folder: str
) -> Iterator[tuple[int, int]]:
    """Line and indent of each top-level plot, model and metric that names one of these paths."""

    def is_written(found: Any) -> bool:
        place = posixpath.normpath(posixpath.join(folder, str(found)))
        return any(PurePath(place).is_relative_to(path) for path in written)

    for name, model in (content.get("artifacts") or {}).items():
        if is_written(model.get("path")):
            yield content["artifacts"].lc.key(name)
    for section in ("plots", "metrics"):
        entries: Any = content.get(section) or []
        if not isinstance(entries, list):
            continue
        for n, entry in enumerate(entries):
            if any(map(is_written, paths_of(entry))):
                line, column = entries.lc.item(n)  # type: ignore[attr-defined]  # ruamel's
                yield line, column - 2


def paths_of(entry: Any) -> list[str]:
    """The files that a top-level plot or metric names."""
    if isinstance(entry, str):
        return [entry]
    files = [(definition or {}).get("y") for definition in entry.values()]
    return [*entry, *(path for y in files if isinstance(y, dict) for path in y)]


def cut(lines: list[str], number: int, indent: int) -> None:
    """Remove the block that begins on a line, with the comments directly above it."""
    end = last = number + 1
    while end < len(lines) and (is_filler(lines[end]) or indent_of(lines[end]) > indent):
        end += 1
        last = last if is_filler(lines[end - 1]) else end
    # Comments at the end that are not indented deeper belong to the next block.
    after = (n for n in range(last, end) if lines[n].strip() and indent_of(lines[n]) <= indent)
    end = next(after, end)
    while end > number + 1 and not lines[end - 1].strip() and end == len(lines):
        end -= 1
    start = number
    while start and lines[start - 1].startswith(" " * indent + "#"):
        start -= 1
    del lines[start:end]


def is_filler(line: str) -> bool:
    """Whether a line is empty or a comment."""
    return not line.strip() or line.lstrip().startswith("#")


def indent_of(line: str) -> int:
    """The number of leading spaces."""
    return len(line) - len(line.lstrip(" "))


def without_empty_keys(text: str) -> str:
    """Clean up keys that lost their last entry: `stages: {}`; others are removed."""
    text = re.sub(r"(?m)^stages:[ \t]*\n(?=\s*(?:^\S|\Z))", "stages: {}\n\n", text)
    text = re.sub(
        r"(?m)(?:^#.*\n)*^(?:plots|artifacts|metrics):[ \t]*\n(?=\s*(?:^\S|\Z))", "", text
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"


def still_named(name: str, written: list[str]) -> list[str]:
    """The files of the project that still mention the process or its outs."""
    words = "|".join(map(re.escape, {name, *written}))
    templates = (":!tools", ":!tests", ":!lib", ":!Makefile", ":!CHANGELOG.md")
    return files_with(rf"(^|\W)({words})(\W|$)", ".", *templates)


def files_with(pattern: str, *paths: str) -> list[str]:
    """The tracked files at these paths (or git wildcards) with a line that matches."""
    found = ask_git("grep", "-IlzE", pattern, "--", *paths, GIT_LITERAL_PATHSPECS="0")
    return [name for name in found.stdout.split("\0") if name]


def main() -> None:
    """Remove the process; print what was removed and where it is still named."""
    name = (*sys.argv[1:], "")[0]
    try:
        print(*remove(name), sep="\n")
    except UserError as error:
        sys.exit(f"{error}\nNothing was removed.")


if __name__ == "__main__":
    as_command(main)
