"""Adds a process to the pipeline: `make process NAME=train_model AFTER=prepare_wine`.

It is a folder, filled in from `skeleton/`, and what is appended to three files: a section to
params.yaml, a stage to dvc.yaml, its out to .gitignore. All of it is there at the end, or nothing.
"""

import keyword
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grimp
from jinja2 import Template

from lib.errors import UserError
from lib.params import read_yaml
from lib.pipeline import MAIN, Stage, read_pipeline
from lib.repository import BYTES, ROOT

SKELETON = Path(__file__).parent / "skeleton"
# Names of modules and folders here, and of what the skeleton's params.py imports.
TAKEN = {"conftest", "goals", "lab", "lib", "log", "main", "params", "positive", "run", "section"}
TAKEN |= {"tests", "tools"}

SECTION = """
{name}:
  factor: 2.0  # what each value is multiplied by
"""

STAGE = """\
{name}:
  desc: What {name} computes, in a line.
  cmd: lab/processes/run {name}
  params:
    - {name}
  deps:
{deps}
  outs:
    - artifacts/{name}
  metrics:
    - metrics/{name}.json:
        cache: false
"""


def check_names(name: str, after: str) -> None:
    """Raise UserError where no such process can be added."""
    stages = {stage.name: stage for stage in read_pipeline().stages if stage.file == MAIN}
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > 40:
        raise UserError(
            f"NAME is {name!r}: it must be lower-case words with underscores, as in train_model, "
            "of 40 characters at most, for it names a Python module."
        )
    if keyword.iskeyword(name) or name in TAKEN | sys.stdlib_module_names:
        raise UserError(f"NAME is {name!r}, a name of Python's or the project's: choose another.")
    if (ROOT / "lab/processes" / name).exists():
        raise UserError(f"lab/processes/{name} exists already: choose another name.")
    for file, names in (
        (MAIN, {stage.partition("@")[0] for stage in stages}),
        ("params.yaml", read_yaml(ROOT / "params.yaml")),
    ):
        if name in names:
            raise UserError(f"{name} is a name in {file} already: choose another.")
    if after:
        check_predecessor(after, stages)


def check_predecessor(after: str, stages: dict[str, Stage]) -> None:
    """Raise UserError where the skeleton cannot read what this stage writes."""
    if after not in stages:
        known = ", ".join(stages) or "there is none yet"
        raise UserError(f"AFTER is {after!r}: it must be a stage of dvc.yaml ({known}).")
    outs = stages[after].outs
    if f"artifacts/{after}" not in outs:
        raise UserError(
            f"{after} does not write artifacts/{after}, which the new process would read: leave "
            f"AFTER out, read what {after} writes ({', '.join(outs)}), and add it to deps."
        )


# ---- what is written


def write_folder(name: str, after: str) -> None:
    """The process's own files, from the skeleton."""
    folder = ROOT / "lab/processes" / name
    folder.mkdir()
    words = {"name": name, "after": after, "type": name.title().replace("_", "")}
    for file in SKELETON.iterdir():
        text = file.read_text("utf-8")
        if file.suffix == ".jinja":
            text = Template(text, keep_trailing_newline=True).render(words)
        target = folder / file.name.removesuffix(".jinja").replace("NAME", name)
        target.write_text(text, encoding="utf-8")
    # The order of imports, and where a line breaks, depend on the name.
    for command in (["check", "--fix", "--select", "I"], ["format"]):
        subprocess.run(["ruff", *command, "--quiet", str(folder)], cwd=ROOT, check=True)


def stage_text(name: str, after: str) -> str:
    """The stage, with the lock and every file of this repository that its main.py imports."""
    main = f"lab.processes.{name}.main"
    try:
        graph = grimp.build_graph("lib", "lab", cache_dir=None)
    except grimp.exceptions.SourceSyntaxError as error:
        place = f"{os.path.relpath(error.filename, ROOT)}, line {error.lineno}"
        text = (error.text or "").strip()
        raise UserError(f"{place}: not Python ({text}). A merge left marks in it?") from None
    modules = {main} | graph.find_upstream_modules(main)
    files = [file for m in modules if (ROOT / (file := m.replace(".", "/") + ".py")).is_file()]
    deps = [f"artifacts/{after}"] if after else []
    deps += sorted([f"lab/processes/{name}/Pipfile.lock", *files])
    return STAGE.format(name=name, deps="\n".join(f"    - {dep}" for dep in deps))


def with_stage(text: str, stage: str) -> str:
    """dvc.yaml with a stage after the others; all else stays to the byte."""
    text = re.sub(r"(?m)^stages:[ \t]*(\{\}|null|~)", "stages:", text)
    lines = text.splitlines(keepends=True)
    start = next((n for n, line in enumerate(lines, 1) if line.startswith("stages:")), None)
    if start is None:
        return f"{text}stages:\n{textwrap.indent(stage, '  ')}"
    end = next((n for n in range(start, len(lines)) if re.match(r"[^\s#]", lines[n])), len(lines))
    while end > start and re.match(r"#|\s*$", lines[end - 1]):  # comments on what comes after
        end -= 1
    indent = next(
        (m[0] for line in lines[start:end] if (m := re.match(r" +(?=[^\s#])", line))), "  "
    )
    before = "".join(lines[:end])
    before += "" if before.endswith("\n") else "\n"
    before += "\n" if end > start else ""
    return before + textwrap.indent(stage, indent) + "".join(lines[end:])


def with_ignored(text: str, line: str) -> str:
    """.gitignore with a line more, where the other outs are: at the end of its first paragraph."""
    lines = text.splitlines(keepends=True)
    outs = [n for n, li in enumerate(lines, 1) if li.startswith(("/artifacts/", "/data/"))]
    blank = (n for n, li in enumerate(lines) if not li.strip())
    place = max(outs) if outs else next(blank, len(lines))
    return "".join([*lines[:place], f"{line}\n", *lines[place:]])


@contextmanager
def all_or_nothing(files: list[Path], folder: Path) -> Iterator[None]:
    """Put files back as they were, and remove the folder, when the block does not end well."""
    before = {file: file.read_bytes() for file in files}
    try:
        yield
    except BaseException:
        for file, content in before.items():
            file.write_bytes(content)
        shutil.rmtree(folder, ignore_errors=True)
        raise


def append(file: Path, text: str) -> None:
    """Add to the end of a file, on a line of its own."""
    content = file.read_bytes()
    newline = b"" if content.endswith(b"\n") else b"\n"
    file.write_bytes(content + newline + text.encode())


def add(name: str, after: str) -> None:
    """Write it all.

    Raises:
        UserError: dvc.yaml is written so that no stage can be added; nothing was written.
    """
    params, pipeline, ignored = (ROOT / file for file in ("params.yaml", MAIN, ".gitignore"))
    with all_or_nothing([params, pipeline, ignored], ROOT / "lab/processes" / name):
        write_folder(name, after)
        append(params, SECTION.format(name=name))
        text = with_stage(pipeline.read_bytes().decode(*BYTES), stage_text(name, after))
        pipeline.write_bytes(text.encode(*BYTES))
        text = with_ignored(ignored.read_bytes().decode(*BYTES), f"/artifacts/{name}")
        ignored.write_bytes(text.encode(*BYTES))
        if name not in {stage.name for stage in read_pipeline().stages}:
            raise UserError("dvc.yaml is not written stage below stage: add this one by hand.")


def main() -> None:
    """Add it, and print where to go on."""
    name, after = (*sys.argv[1:], "", "")[:2]
    try:
        check_names(name, after)
        add(name, after)
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
    main()
