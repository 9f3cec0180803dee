"""Gives a process another name: `make rename-process FROM=train_model TO=train_prices`.

Its folder and module, its section in params.yaml, its stage, and the files that bear its name
(artifacts, data, metrics) are renamed, wherever the project names them. dvc.lock is told what the
files that changed by that are now, so that no stage runs again.
"""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lib.errors import UserError
from lib.pipeline import read_pipeline
from lib.repository import ROOT, ask_git, git
from tools.project.process import check_name
from tools.project.remove import refuse_uncommitted, stages_of, still_named
from tools.tracking import notes

OTHERS = ("lib/", "tools/", "tests/", ".github/", ".vscode/", "lab/docs/", "CHANGELOG.md")
LEFT_ALONE = (*OTHERS, "lab/example.yml")  # what gets another name is the team's own


def rename(old: str, new: str) -> list[str]:
    """Rename it; the files that changed.

    Raises:
        UserError: there is no such process, the new name cannot be, or something is not committed;
            nothing is changed.
    """
    folder = ROOT / "lab/processes" / old
    if not re.fullmatch(r"\w+", old) or not folder.is_dir():
        raise UserError(f"FROM is {old!r}: it must be a process, a folder in lab/processes.")
    check_name(new)
    refuse_uncommitted(["."])
    own = stages_of(old, read_pipeline())
    written = [path for stage in own for path in (*stage.outs, *stage.metrics, *stage.plots)]
    moved = moved_paths(old, new, [*written, f".checkpoints/{old}.pt", f"artifacts/{old}"])
    if there := [
        to for path, to in moved.items() if (ROOT / path).exists() and (ROOT / to).exists()
    ]:
        raise UserError(f"{there[0]} exists already: choose another name, or move it away.")
    texts = dict(changed_texts(old, new))
    before = {file: (ROOT / file).read_bytes() for file in texts}
    for file, text in texts.items():
        (ROOT / file).write_bytes(text.encode())
    for path, to in moved.items():
        if (ROOT / path).exists():
            (ROOT / to).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).rename(ROOT / to)
    folder = folder.rename(folder.with_name(new))
    for module in folder.glob(f"{old}*.py"):
        module.rename(module.with_name(module.name.replace(old, new, 1)))
    for stage in own:
        if note := notes.read(stage.address):
            address = re.sub(rf"\b{old}\b", new, stage.address)
            notes.write(address, **{key: v for key, v in note.items() if key != "stage"})
            notes.file_of(stage.address).unlink()
    paths = {file: ROOT / renamed(file, old, new) for file in texts}
    if python := [str(path) for path in paths.values() if path.suffix == ".py"]:
        # The order of imports, and where a line breaks, depend on the name.
        for command in (["check", "--fix", "--select", "I"], ["format"]):
            subprocess.run(["ruff", *command, "--quiet", *python], cwd=ROOT, check=True)
    changed = {file: (content, paths[file].read_bytes()) for file, content in before.items()}
    for lock in (ROOT / "dvc.lock", *ROOT.glob("lab/*/dvc.lock")):
        note_in_lock(lock, changed, old, new)
    return sorted(texts)


def changed_texts(old: str, new: str) -> Iterator[tuple[str, str]]:
    """Name and new text of each file of the project that names the process."""
    inside = f"lab/processes/{old}/"
    # A name of several words means nothing else, unless it is a function's that all may call.
    distinct = "_" in old and ask_git("grep", "-qw", old, "--", "lib").returncode
    for file in git("ls-files", "-z").split("\0"):
        if not file or file.startswith(LEFT_ALONE) or not (ROOT / file).is_file():
            continue
        try:
            text = (ROOT / file).read_bytes().decode()
        except UnicodeDecodeError:
            continue
        changed = renamed(text, old, new)
        if distinct and not file.endswith("Pipfile.lock"):
            changed = re.sub(rf"\b{old}\b", new, changed)
            title, new_title = old.replace("_", " "), new.replace("_", " ")
            changed = re.sub(rf"\b{title}, (?=validation|\w+ )", f"{new_title}, ", changed)
        if file.startswith((inside, "lab/tuning/")):
            changed = re.sub(rf"\b{type_name(old)}\b", type_name(new), changed)
        if Path(file).name in ("params.yaml", "dvc.yaml", "dvc.lock", "params.py"):
            changed = re.sub(rf"(?m)^( *(?:- )?){old}(?=[:.@]|[ \t]*$)", rf"\g<1>{new}", changed)
        if file.startswith("metrics/"):
            changed = re.sub(rf'("tunes": "){old}"', rf'\g<1>{new}"', changed)
        if file.endswith((".py", ".ipynb")):
            changed = re.sub(rf"\bparams\.{old}\b", f"params.{new}", changed)
            changed = re.sub(rf"""(["']){old}\1""", rf"\g<1>{new}\g<1>", changed)
        if changed != text:
            yield file, changed


def renamed(text: str, old: str, new: str) -> str:
    """A text with the process's module, command and files under their new name."""
    text = re.sub(rf"\b(lab[./]processes[./]){old}\b", rf"\g<1>{new}", text)
    text = re.sub(rf"\b(lab[./]processes[./]{new}[./]){old}(?=\b|_test\b)", rf"\g<1>{new}", text)
    text = re.sub(rf"(lab/processes/run ){old}\b", rf"\g<1>{new}", text)
    return re.sub(
        rf"(?<![\w-])((?:artifacts|data|metrics|\.checkpoints)/){old}(?![\w-])",
        rf"\g<1>{new}",
        text,
    )


def moved_paths(old: str, new: str, paths: list[str]) -> dict[str, str]:
    """Where the files that bear the name are now: folders once, not what is in them."""
    found: dict[str, str] = {}
    for path in sorted(set(paths), key=len):
        first = re.match(rf"(artifacts|data|metrics|\.checkpoints)/{old}(?![\w-])[^/]*", path)
        if first:
            found[first[0]] = renamed(first[0], old, new)
    return found


def type_name(name: str) -> str:
    """What `make process` calls the type of a process's parameters."""
    return name.title().replace("_", "")


def note_in_lock(file: Path, changed: dict[str, tuple[bytes, bytes]], old: str, new: str) -> None:
    """Have a dvc.lock name these files by what is in them now, where it had what was before."""
    if not file.exists():
        return
    text = file.read_text("utf-8")
    for name, (before, after) in changed.items():
        path = re.escape(renamed(name, old, new))
        former = hashlib.md5(before, usedforsecurity=False).hexdigest()
        current = hashlib.md5(after, usedforsecurity=False).hexdigest()
        text = re.sub(
            rf"(- path: {path}\n +hash: md5\n +md5: ){former}(\n +size: )\d+",
            rf"\g<1>{current}\g<2>{len(after)}",
            text,
        )
    file.write_text(text, encoding="utf-8")


def main() -> None:
    """Rename it, and print what changed."""
    old, new = (*sys.argv[1:], "", "")[:2]
    try:
        changed = rename(old, new)
    except UserError as error:
        sys.exit(f"{str(error).replace('NAME is', 'TO is')}\nNothing was renamed.")
    print(f"{old} is {new} now, in {', '.join(changed)}. No stage runs again by that.")
    if left := still_named(old, []):
        print(f"The word is still in: {', '.join(left)}")


if __name__ == "__main__":
    main()
