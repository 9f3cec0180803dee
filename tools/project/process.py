"""Adds a process to the pipeline: `make process NAME=train_prices AFTER=prepare_houses KIND=…`.

A process is a folder, rendered from `skeleton/`, with a section in params.yaml, a stage in
dvc.yaml, and its outs in .gitignore. Either all of it is written, or nothing. Its stage reads
AFTER: the outs of another stage, or a file such as a dataset that was added.
"""

import csv
import json
import keyword
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import grimp
from jinja2 import Environment, FileSystemLoader

from lib.errors import UserError
from lib.files import replaced_file
from lib.params import Section, read_yaml
from lib.pipeline import MAIN, Stage, files_of, read_pipeline
from lib.repository import BYTES, ROOT
from lib.text import some_of
from tools.command import as_command
from tools.environments.lock_file import entries, read_lock

SKELETON = Path(__file__).parent / "skeleton"
# Each kind's folders in the skeleton.
KINDS = {
    "empty": ("empty",),
    "table": ("table",),
    "sklearn": ("training", "sklearn"),
    "torch": ("training", "torch"),
}
TRAININGS = ("sklearn", "torch")
TASKS = ("regression", "classes", "binary")
# Names of modules and folders in the repository, and of imports in the skeleton's params.py.
TAKEN = {"conftest", "count", "goals", "lab", "lib", "log", "main", "params", "positive", "run"}
TAKEN |= {"section", "seed", "share", "tests", "tools"}
# Folders of outs: /data/data.csv, and sweeps write below /artifacts/tune.
TAKEN |= {"artifacts", "data", "metrics", "tune"}
# Packages that no lock may name yet, and modules whose names differ from their packages'.
MODULES = {"catboost", "cv2", "hydra", "jax", "keras", "lightgbm", "optuna", "polars", "prophet"}
MODULES |= {"ray", "seaborn", "shap", "skimage", "sklearn", "spacy", "statsmodels", "tensorflow"}
MODULES |= {"torchvision", "transformers", "wandb", "xgboost", "yaml"}
LOCKS = (
    "Pipfile.lock",
    "lab/*/Pipfile.lock",
    "lab/processes/*/Pipfile.lock",
    "tools/project/skeleton/*/Pipfile.lock",
)
YAML_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
LONGEST_NAME = 35  # `from lab.processes.NAME.NAME import (` fits into a line


@dataclass(frozen=True)
class Wanted:
    """The arguments, as typed."""

    name: str
    after: str = ""
    kind: str = ""
    task: str = ""
    target: str = ""


# ---- checking the arguments


def check(wanted: Wanted) -> None:
    """UserError if no such process can be added."""
    if not wanted.name:
        raise UserError(
            f"Say NAME=…, KIND={'|'.join(KINDS)}, AFTER=a stage or a file, and for a training "
            f"TASK={'|'.join(TASKS)} and TARGET=a column: lab/processes/README.md has examples."
        )
    check_name(wanted.name)
    if wanted.kind not in KINDS:
        raise UserError(f"KIND is {wanted.kind!r}: it must be {' or '.join(KINDS)}.")
    if wanted.kind not in TRAININGS:
        for what, value in (("TASK", wanted.task), ("TARGET", wanted.target)):
            if value:
                raise UserError(f"{what} is for KIND=sklearn and KIND=torch: leave it out here.")
    elif wanted.task not in TASKS:
        raise UserError(
            f"TASK is {wanted.task!r}: a training predicts numbers (TASK=regression), several "
            "classes (classes) or one of two (binary)."
        )
    elif not wanted.after:
        raise UserError(
            f"KIND={wanted.kind} learns from a table: say AFTER=, the stage that writes it or its "
            "file. `make process NAME=… KIND=table` adds a stage that does."
        )


def check_name(name: str) -> None:
    """UserError if a process cannot have this name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > LONGEST_NAME:
        raise UserError(
            f"NAME is {name!r}: it must be lower-case words with underscores, as in train_model, "
            f"of {LONGEST_NAME} characters at most, for it names a Python module."
        )
    taken = TAKEN | YAML_WORDS | sys.stdlib_module_names | set(dir(Section))
    if any(map(keyword.iskeyword, (name, type_name(name)))) or name in taken:
        raise UserError(
            f"NAME is {name!r}, a word of Python's, YAML's or the project's: choose another."
        )
    if name in MODULES | locked_packages():
        raise UserError(
            f"NAME is {name!r}, a package's name: a process that imports the package would find "
            f"its own module in its place. Choose another, as in train_{name}."
        )
    if (ROOT / "lab/processes" / name).exists():
        raise UserError(f"lab/processes/{name} exists already: choose another name.")
    for file, names in (
        (MAIN, {stage.entry for stage in stages().values()}),
        ("params.yaml", read_yaml(ROOT / "params.yaml")),
    ):
        if name in names:
            raise UserError(f"{name} is a name in {file} already: choose another.")


def locked_packages() -> set[str]:
    """The packages in the project's locks, as module names."""
    locks = [read_lock(file.parent) for pattern in LOCKS for file in ROOT.glob(pattern)]
    return {re.sub("[-.]", "_", name) for lock in locks for name in entries(lock)}


def stages() -> dict[str, Stage]:
    """The stages of dvc.yaml, by their names."""
    return {stage.name: stage for stage in read_pipeline().stages if stage.file == MAIN}


# ---- what it reads


def inputs(wanted: Wanted) -> list[str]:
    """The paths that the stage depends on: the outs of AFTER, or AFTER itself.

    Raises:
        UserError: AFTER is neither a stage with outs nor a file, or a table is needed and it has
            none.
    """
    after, known = wanted.after, stages()
    if not after:
        return []
    if after in known:
        outs = list(known[after].outs or known[after].metrics or known[after].plots)
        if not outs:
            raise UserError(
                f"AFTER is {after!r}, a stage that writes nothing: give it an out in dvc.yaml, or "
                "name another stage, or a file."
            )
        return outs if wanted.kind == "empty" else [table_among(after, outs)]
    file = Path(after)
    inside = not file.is_absolute() and ".." not in file.parts
    if inside and ((ROOT / file).exists() or (ROOT / f"{file}.dvc").exists()):
        if odd := re.search(r"[#:${}\"'\\\n]", after):
            raise UserError(
                f"AFTER has {odd[0]!r} in it, which dvc.yaml reads otherwise: rename it."
            )
        if wanted.kind != "empty" and file.suffix != ".csv":
            raise UserError(f"AFTER is {after!r}: KIND={wanted.kind} reads a table, a .csv file.")
        return [file.as_posix()]
    names = ", ".join(known) or "there is none yet"
    raise UserError(
        f"AFTER is {after!r}: it must be a stage of dvc.yaml ({names}), or a file of this project."
    )


def table_among(after: str, outs: Sequence[str]) -> str:
    """The only table among a stage's outs: one that dvc.yaml names, or a file on disk in them."""
    tables = [out for out in outs if out.endswith(".csv")]
    if not tables:
        on_disk = [file for out in outs for file in sorted((ROOT / out).rglob("*.csv"))]
        tables = [file.relative_to(ROOT).as_posix() for file in on_disk]
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise UserError(
            f"{after} writes several tables ({', '.join(tables)}): say which, as AFTER={tables[0]}."
        )
    raise UserError(
        f"{after} has written no table, a .csv file: `make run` first if it is to write one, or "
        "KIND=empty, which reads anything."
    )


def column_to_predict(wanted: Wanted, table: str) -> str:
    """TARGET, or the table's last column; empty if neither is known yet.

    Raises:
        UserError: the table exists and has no such column.
    """
    file = ROOT / table
    if not file.is_file():
        return wanted.target
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
        try:
            names = next(filter(None, csv.reader(opened)), [])  # like pandas: no empty lines
        except csv.Error as error:
            raise UserError(
                f"The names of {table}'s columns cannot be read ({error}): are they separated by "
                "commas, and is each quote closed?"
            ) from None
    header = [name for name in names if name != "split"]
    found = wanted.target or (header[-1] if header else "")
    if header.count(found) > 1:
        raise UserError(
            f"{table} has {header.count(found)} columns {found!r}: give each a name of its own, "
            "then say which is the TARGET."
        )
    if wanted.target and wanted.target not in header:
        raise UserError(
            f"TARGET is {wanted.target!r}: {table} has the columns "
            f"{some_of([*map(repr, header)], most=30)}."
        )
    return found


# ---- what is written


def rendered(wanted: Wanted) -> dict[str, str]:
    """The text of each file of the skeleton, by its name there, without `.jinja`."""
    read = inputs(wanted)
    table = read[0] if wanted.kind in ("table", *TRAININGS) and read else ""
    target = column_to_predict(wanted, table) if wanted.kind in TRAININGS else ""
    words = {
        "name": wanted.name,
        "title": wanted.name.replace("_", " "),
        "type": type_name(wanted.name),
        "after": wanted.after,
        "inputs": read,
        "kind": wanted.kind,
        "task": wanted.task,
        "table": table,
        "target": quoted(target),
    }
    found: dict[str, str] = {}
    for folder in KINDS[wanted.kind]:
        found |= filled_in(folder, words)
    return found


def filled_in(folder: str, words: Mapping[str, Any]) -> dict[str, str]:
    """The text of each file in a folder of the skeleton, by its name there, without `.jinja`."""
    environment = Environment(
        loader=FileSystemLoader(SKELETON), keep_trailing_newline=True, autoescape=False
    )
    found = {}
    for file in sorted((SKELETON / folder).iterdir()):
        if file.suffix == ".jinja" and file.name[0] != "_":
            template = environment.get_template(f"{folder}/{file.name}")
            text = template.render(words).strip("\n") + "\n"
            found[file.name.removesuffix(".jinja")] = text
        elif file.name[0] != "_":
            found[file.name] = file.read_text("utf-8")
    return found


def type_name(name: str) -> str:
    """The name of the type of a process's parameters."""
    return name.title().replace("_", "")


def quoted(text: str) -> str:
    """A name in YAML, quoted unless it is a plain word."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text) and text.lower() not in YAML_WORDS
    if not text or plain:
        return text
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    # In single quotes, a line break (as in spreadsheet headings) would become a space.
    return json.dumps(text, ensure_ascii=False)


def write_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Write the process's own files."""
    folder.mkdir()
    for file, text in files.items():
        (folder / file.replace("NAME", folder.name)).write_text(text, encoding="utf-8")
    tidy(str(folder))


def tidy(*paths: str) -> None:
    """Format Python files: import order and line breaks depend on the process's name."""
    for command in (["check", "--fix", "--select", "I"], ["format"]):
        subprocess.run(["ruff", *command, "--quiet", *paths], cwd=ROOT, check=True)


def stage_text(name: str, read: Sequence[str], written: str) -> str:
    """The stage's YAML; its deps are the lock and all files here that its main.py imports."""
    files = imported(f"lab.processes.{name}.main")
    deps = [*read, *sorted([f"lab/processes/{name}/Pipfile.lock", *files])]
    sections = [f"    - {section}" for section in sections_of(name)]
    lines = [
        f"{name}:",
        f"  desc: What {name} computes, in a line.",
        f"  cmd: lab/processes/run {name}",
        "  params:",
        *sections,
        "  deps:",
        *(f"    - {dep}" for dep in deps),
    ]
    return "\n".join(lines) + "\n" + textwrap.indent(written, "  ")


def imported(main: str) -> list[str]:
    """The files of this repository that a module imports, directly or indirectly, and its own."""
    try:
        graph = grimp.build_graph("lib", "lab", cache_dir=None)
    except grimp.exceptions.SourceSyntaxError as error:
        place = f"{os.path.relpath(error.filename, ROOT)}, line {error.lineno}"
        text = (error.text or "").strip()
        raise UserError(f"{place}: not Python ({text}). A merge left marks in it?") from None
    return sorted(files_of({main} | graph.find_upstream_modules(main)))


def sections_of(name: str) -> list[str]:
    """The sections of params.yaml that the class Params of the process's params.py has."""
    text = (ROOT / "lab/processes" / name / "params.py").read_text("utf-8")
    return re.findall(r"(?m)^    (\w+): ", text.rpartition("class Params(")[2])


def with_stage(text: str, stage: str) -> str:
    """dvc.yaml with a stage added after the others; everything else is unchanged."""
    text = re.sub(r"(?m)^stages:[ \t]*(\{\}|null|~)", "stages:", text)
    lines = text.splitlines(keepends=True)
    start = next((n for n, line in enumerate(lines, 1) if line.startswith("stages:")), None)
    if start is None:
        return f"{text}stages:\n{textwrap.indent(stage, '  ')}"
    end = next((n for n in range(start, len(lines)) if re.match(r"[^\s#]", lines[n])), len(lines))
    while end > start and re.match(r"#|\s*$", lines[end - 1]):  # comments on the next key
        end -= 1
    indent = next(
        (m[0] for line in lines[start:end] if (m := re.match(r" +(?=[^\s#])", line))), "  "
    )
    before = "".join(lines[:end])
    before += "" if before.endswith("\n") else "\n"
    before += "\n" if end > start else ""
    return before + textwrap.indent(stage, indent) + "".join(lines[end:])


def with_ignored(text: str, line: str) -> str:
    """.gitignore with a line added: after the other outs, or in the paragraph on DVC."""
    lines = text.splitlines(keepends=True)
    outs = [n for n, li in enumerate(lines, 1) if li.startswith(("/artifacts/", "/data/"))]
    start = next((n for n, li in enumerate(lines) if li.startswith("#") and "DVC" in li), 0)
    blank = (n for n, li in enumerate(lines) if n >= start and not li.strip())
    place = max(outs) if outs else next(blank, len(lines))
    return "".join([*lines[:place], f"{line}\n", *lines[place:]])


@contextmanager
def all_or_nothing(files: list[Path], folder: Path) -> Iterator[None]:
    """If the block raises, restore the files and remove the folder."""
    before = {file: file.read_bytes() for file in files if file.exists()}
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # first: makes room on a full disk
        for file in files:
            if file in before:
                replace(file, before[file])
            else:
                file.unlink(missing_ok=True)
        raise


def replace(file: Path, content: bytes) -> None:
    """Replace a file atomically, so that a full disk does not truncate it."""
    with replaced_file(file) as new:
        new.write_bytes(content)


def append(file: Path, text: str) -> None:
    """Add to the end of a file, on a line of its own."""
    content = file.read_bytes()
    newline = b"" if content.endswith(b"\n") else b"\n"
    replace(file, content + newline + text.encode())


def refuse_overlap(out: str) -> None:
    """UserError if a stage writes this path already, or a folder that it is in, or a file in it."""
    for stage in read_pipeline().stages:
        for path in stage.written:
            if PurePath(path).is_relative_to(out) or PurePath(out).is_relative_to(path):
                raise UserError(f"{stage.name} writes {path} already: choose another NAME.")


def add(wanted: Wanted) -> None:
    """Write the process.

    Raises:
        UserError: another stage writes its out, it cannot read the outs of AFTER, or the layout of
            dvc.yaml does not allow adding a stage; nothing was written.
    """
    name, read, files = wanted.name, inputs(wanted), rendered(wanted)
    folder = ROOT / "lab/processes" / name
    out = f"data/{name}.csv" if wanted.kind == "table" else f"artifacts/{name}"
    for path in (out, f"metrics/{name}.json"):
        refuse_overlap(path)
    section, outs = files.pop("params.yaml"), files.pop("dvc.yaml")
    params, pipeline, ignored = (ROOT / file for file in ("params.yaml", MAIN, ".gitignore"))
    with all_or_nothing([params, pipeline, ignored], folder):
        write_folder(folder, files)
        append(params, f"\n{name}:\n{section}")
        text = with_stage(pipeline.read_bytes().decode(*BYTES), stage_text(name, read, outs))
        replace(pipeline, text.encode(*BYTES))
        text = with_ignored(ignored.read_bytes().decode(*BYTES), f"/{out}")
        replace(ignored, text.encode(*BYTES))
        refuse_unless_added(name)


def refuse_unless_added(name: str) -> None:
    """UserError if dvc.yaml, which could be read before, cannot be read with this stage."""
    try:
        why = "" if name in stages() else "the stage is not in it"
    except UserError as error:
        why = str(error)
    if why:
        raise UserError(f"dvc.yaml is not written stage below stage: add this one by hand. ({why})")


def main() -> None:
    """Add the process and print what to do next."""
    name, after, kind, task, target = (*sys.argv[1:], *[""] * 5)[:5]
    wanted = Wanted(name, after, kind or "empty", task, target)
    try:
        check(wanted)
        add(wanted)
    except UserError as error:
        sys.exit(f"{error}\nNothing was written.")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: nothing was written.")
    print(
        f"Added: lab/processes/{name}, its section in params.yaml, its stage in dvc.yaml.\n"
        f"It runs: make run. Then put your own into {name}.py, main.py, params.py and "
        f"{name}_test.py; packages into its Pipfile, then make lock."
    )


if __name__ == "__main__":
    as_command(main)
