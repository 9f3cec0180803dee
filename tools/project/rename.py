"""Gives a process another name: `make rename-process FROM=train_model TO=train_prices`.

Its folder and module, its section in params.yaml, its stage, and the files with its name
(artifacts, data, metrics) are renamed everywhere in the project. The checksums of the files that
this changes are updated in dvc.lock, so that no stage runs again. A name of several words is
replaced wherever it occurs, except in how-to pages, whose names are examples; one such as `train`,
which is also an English word, a split and a function, only where it must be the process. The
remaining occurrences are printed.
"""

import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from lib.errors import UserError
from lib.locked import digest
from lib.nested import flat
from lib.params import read_yaml
from lib.pipeline import Stage, read_pipeline
from lib.repository import ROOT, ask_git, git_names
from tools.command import as_command
from tools.project.process import check_name, tidy, type_name
from tools.project.remove import interpolated, refuse_uncommitted, stages_of, still_named
from tools.tracking import notes

OTHERS = ("lib/", "tools/", "tests/", ".github/", ".vscode/", "lab/docs/", "CHANGELOG.md")
DATA = ("lib", "*.csv", "*.tsv", "*.sql", ":!metrics", ":!artifacts")
LEFT_ALONE = (*OTHERS, "lab/example.yml")  # only the team's own files are changed

# How-to pages, whose names of processes are examples, except in passages on the example.
CHAPTERS = r"(goals|runtimes|lab/(analysis|processes|tuning))/(?!EXAMPLE)[A-Z]+\.md"
PASSAGES = r"(?ms)^<!-- example -->$.*?^<!-- /example -->$"

Rule = tuple[str, str, str]  # patterns of a file's name and of its text, and the replacement


def rename(old: str, new: str) -> list[str]:
    """Rename a process; the files that changed.

    Raises:
        UserError: there is no such process, the new name is invalid or taken, or something is not
            committed; nothing is changed.
    """
    folder = ROOT / "lab/processes" / old
    if not re.fullmatch(r"\w+", old) or not folder.is_dir():
        raise UserError(f"FROM is {old!r}: it must be a process, a folder in lab/processes.")
    check_name(new)
    refuse_uncommitted(["."])
    pipeline = read_pipeline()
    own = stages_of(old, pipeline)
    refuse_unseen(own, old)
    # The outs of all stages: a sweep over the process has its name in them, too.
    written = [path for stage in pipeline.stages for path in stage.written]
    written = [path for path in written if not path.startswith(f"lab/processes/{old}/")]
    moved = moved_paths(old, new, [*written, f".checkpoints/{old}.pt", f"artifacts/{old}"])
    moved = {path: to for path, to in moved.items() if (ROOT / path).exists()}
    if taken := [to for to in moved.values() if (ROOT / to).exists()]:
        raise UserError(f"{taken[0]} exists already: choose another name, or move it away.")
    rules = rules_of(old, new)
    texts = dict(changed_texts(old, new, rules))
    before = {file: (ROOT / file).read_bytes() for file in texts}
    for file, text in texts.items():
        (ROOT / file).write_bytes(text.encode())
    move_files(folder, new, moved, rules)
    move_notes(own, old, new)
    places = {file: renamed(place_of(file, moved), rules) for file in texts}
    if python := [file for file in places.values() if file.endswith(".py")]:
        tidy(*python)
    changed = {place: (before[file], (ROOT / place).read_bytes()) for file, place in places.items()}
    for lock in pipeline.locks:
        note_in_lock(ROOT / renamed(place_of(lock, moved), rules), changed)
    return sorted(texts)


def move_files(folder: Path, new: str, moved: Mapping[str, str], rules: Sequence[Rule]) -> None:
    """Move the outs of a process, then its folder and the files in it that have its name."""
    for path, to in moved.items():
        (ROOT / to).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).rename(ROOT / to)
    folder = folder.rename(folder.with_name(new))
    for file in sorted(folder.iterdir()):
        file.rename(ROOT / renamed(file.relative_to(ROOT).as_posix(), rules))


def move_notes(stages: Sequence[Stage], old: str, new: str) -> None:
    """Move the tracker's notes on the runs of these stages to their new addresses."""
    for stage in stages:
        address = re.sub(whole(old), new, stage.address)
        if address != stage.address and (note := notes.read(stage.address)):
            notes.write(address, **{key: v for key, v in note.items() if key != "stage"})
            notes.file_of(stage.address).unlink()


def place_of(file: str, moved: Mapping[str, str]) -> str:
    """The new path of a file that may be in a moved folder."""
    for path, to in moved.items():
        if PurePath(file).is_relative_to(path):
            return PurePath(to, PurePath(file).relative_to(path)).as_posix()
    return file


def changed_texts(old: str, new: str, rules: Sequence[Rule]) -> Iterator[tuple[str, str]]:
    """Path and new text of each of the project's files that names the process."""
    for file in git_names("ls-files", "-z"):
        if file.startswith(LEFT_ALONE) or not (ROOT / file).is_file():
            continue
        try:
            text = (ROOT / file).read_bytes().decode()
        except UnicodeDecodeError:
            continue
        changed = (renamed_chapter if re.fullmatch(CHAPTERS, file) else renamed)(text, rules, file)
        if file.endswith(".py") and file.startswith((f"lab/processes/{old}/", "lab/tuning/")):
            changed = with_identifier(changed, type_name(old), type_name(new))
        elif Path(file).name in ("dvc.yaml", "dvc.lock"):
            changed = in_pipeline(changed, old, new)
        if changed != text:
            yield file, changed


def rules_of(old: str, new: str) -> list[Rule]:
    """The ways in which files name a process; those for all files apply to paths as well."""
    title, code, end = old.replace("_", " "), r"\.(py|ipynb)$", r"(?![\w-])"
    rules = [
        ("", rf"(?<=\blab[./]processes[./]){old}{end}", new),
        (
            "",
            rf"(?<=\blab[./]processes[./]{new}[./])(test_)?{old}(?=(?:_test)?{end})",
            rf"\g<1>{new}",
        ),
        ("", rf"(?<=lab/processes/run ){old}{end}", new),
        ("", rf"(?<![\w-])((?:artifacts|data|metrics|\.checkpoints)/){old}{end}", rf"\g<1>{new}"),
        (r"^params\.yaml$", rf"(?m)^{old}(?=[ \t]*:)", new),
        (r"/params\.py$", rf"(?ms)(^class Params\b(?:(?!^\S).)*?^    ){old}(?=:)", rf"\g<1>{new}"),
        (r"^metrics/", rf'(?<="tunes": "){old}(?=")', new),
        (code, rf"(?<=\bparams\.){old}\b", new),
        (code, rf"""(?<=\btunes=["']){old}(?=["'])""", new),
    ]
    for file in (ROOT / "lab/processes" / old).glob(f"{old}.*"):  # read by the process's own code
        to = file.name.replace(old, new, 1)
        rules.append(
            (rf"^lab/processes/{old}/", rf"""(?<=["']){re.escape(file.name)}(?=["'])""", to)
        )
    if is_distinct(old):
        other = r".(?<!Pipfile\.lock)$"
        rules += [
            (other, whole(old), new),
            (other, rf"\b{title}(?=, (?:validation|\w+ ))", new.replace("_", " ")),
        ]
    return rules


def is_distinct(name: str) -> bool:
    """Whether a name can only mean the process: several words, and not used in lib/ or for data."""
    places = (*DATA, f":!lab/processes/{name}")
    found = ask_git("grep", "-qw", name, "--", *places, GIT_LITERAL_PATHSPECS="0")
    values = flat(read_yaml(ROOT / "params.yaml")).values()
    is_value = any(name in (value if isinstance(value, list) else [value]) for value in values)
    return "_" in name and bool(found.returncode) and not is_value


def whole(name: str) -> str:
    """A pattern for the whole name: `train-r` is another process than `train`."""
    return rf"(?<![\w-]){name}(?![\w-])"


def refuse_unseen(own: list[Stage], name: str) -> None:
    """UserError if a stage computes the name of the process that it starts, as by `matrix`."""
    for stage in () if is_distinct(name) else own:
        content = YAML().load((ROOT / stage.file).read_text("utf-8"))
        defined = str(content["stages"].get(stage.entry))
        if not re.search(rf"lab/processes/run {whole(name)}", defined):
            raise UserError(
                f"{stage.name} in {stage.file} starts {name} without naming it: name it there "
                "first, in a stage of its own."
            )


def with_identifier(text: str, old: str, new: str) -> str:
    """Python code with an identifier renamed; comments and strings are unchanged."""
    lines = text.split("\n")
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return text
    for token in reversed(tokens):
        if token.type == tokenize.NAME and token.string == old:
            row, column = token.start
            line = lines[row - 1]
            lines[row - 1] = f"{line[:column]}{new}{line[column + len(old) :]}"
    return "\n".join(lines)


def in_pipeline(text: str, old: str, new: str) -> str:
    """A dvc.yaml or dvc.lock with stages, sections and models renamed."""
    lines = text.split("\n")
    # An alias has the place of its anchor again.
    for row, column in sorted({*places(YAML().load(text) or {}, old)}, reverse=True):
        line = lines[row]
        lines[row] = line[:column] + line[column:].replace(old, new, 1)
    return re.sub(interpolated(old), rf"\g<1>{new}", "\n".join(lines))


def places(content: Any, name: str) -> Iterator[tuple[int, int]]:
    """Row and column of each key and item that is the process's name."""
    for table in filter(None, (content.get("stages"), content.get("artifacts"))):
        yield from (table.lc.key(key) for key in table if key.partition("@")[0] == name)
    for stage in (content.get("stages") or {}).values():
        yield from sections(stage.get("do", stage).get("params") or [], name)


def sections(listed: Any, name: str) -> Iterator[tuple[int, int]]:
    """The same for keys of params.yaml, as listed in a stage or in dvc.lock."""
    if isinstance(listed, CommentedMap):  # by file
        for file, keys in listed.items():
            if Path(file).name == "params.yaml" and isinstance(keys, CommentedMap):  # in dvc.lock
                yield from (keys.lc.key(key) for key in keys if key.partition(".")[0] == name)
            elif Path(file).name == "params.yaml":
                yield from sections(keys or [], name)
        return
    for n, item in enumerate(listed):
        if isinstance(item, CommentedMap):
            yield from sections(item, name)
        elif item.partition(".")[0] == name:
            yield listed.lc.item(n)


def renamed(text: str, rules: Sequence[Rule], file: str = "") -> str:
    """A path, or the text of a file, with the process renamed."""
    for files, pattern, replacement in rules:
        if re.search(files, file):
            text = re.sub(pattern, replacement, text)
    return text


def renamed_chapter(text: str, rules: Sequence[Rule], file: str) -> str:
    """A how-to page with the process renamed in its passages on the example."""
    return re.sub(PASSAGES, lambda passage: renamed(passage[0], rules, file), text)


def moved_paths(old: str, new: str, paths: list[str]) -> dict[str, str]:
    """The new path of each file or folder with the name; not of files in such folders."""
    found: dict[str, str] = {}
    place = (
        r"(?:[^/]+/)*?[^/]*?" if is_distinct(old) else r"(?:artifacts|data|metrics|\.checkpoints)/"
    )
    for path in sorted(set(paths), key=len):
        if first := re.match(rf"({place}){whole(old)}([^/]*)", path):
            found[first[0]] = f"{first[1]}{new}{first[2]}"
    return found


def note_in_lock(file: Path, changed: Mapping[str, tuple[bytes, bytes]]) -> None:
    """Update the checksums of files in a dvc.lock, if it had those from before."""
    if not file.exists():
        return
    text = file.read_text("utf-8")
    for name, (before, after) in changed.items():
        text = re.sub(
            rf"(- path: {re.escape(name)}\n +hash: md5\n +md5: ){digest(before)}(\n +size: )\d+",
            rf"\g<1>{digest(after)}\g<2>{len(after)}",
            text,
        )
    file.write_text(text, encoding="utf-8")


def main() -> None:
    """Rename the process and print what changed."""
    old, new = (*sys.argv[1:], "", "")[:2]
    try:
        changed = rename(old, new)
    except UserError as error:
        sys.exit(f"{str(error).replace('NAME is', 'TO is')}\nNothing was renamed.")
    print(f"{old} is {new} now, in {', '.join(changed)}. No stage runs again by that.")
    if left := still_named(old, []):
        print(f"The word is still in (is it the process there?): {', '.join(left)}")


if __name__ == "__main__":
    as_command(main)
