"""Adds a process to the pipeline: `make process NAME=train_model AFTER=prepare_wine`.

Its folder is a copy of `skeleton/`, filled in; its section of parameters,
its type, its stage and what else names it are written into the files that have them. All of it is
there at the end, or nothing.
"""

import ast
import keyword
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grimp
from jinja2 import Template

from lib.project.blank import ROOT, outs, read_yaml

SKELETON = Path(__file__).parent / "skeleton"
PARAMETER = "factor"
TAKEN = ("main", "conftest", "run", "lab", "lib", "goals", "tests")

STAGE = """\
  {name}:
    desc: What {name} computes, in a line.
    cmd: lab/processes/run {name}
    params:
      - random_seed
      - {name}
    deps:
{deps}
    outs:
      - artifacts/{name}
    metrics:
      - ${{paths.dir_metrics}}/{name}.json:
          cache: false
"""


def refusals(name: str, after: str) -> Iterator[str]:
    """Why it cannot be added; nothing where it can."""
    params = read_yaml("params.yaml")
    stages: Mapping[str, object] = read_yaml("dvc.yaml").get("stages") or {}  # type: ignore[assignment]
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > 40:
        yield (
            f"NAME is {name!r}: it must be lower-case words with underscores, as in train_model, "
            "of 40 characters at most, for it names a Python module."
        )
    elif keyword.iskeyword(name) or name in {*sys.stdlib_module_names, *TAKEN}:
        yield f"NAME is {name!r}, a name of Python's or the project's own: choose another."
    elif (ROOT / "lab/processes" / name).exists():
        yield f"lab/processes/{name} is there already: choose another name."
    elif name in stages or name in params:
        where = "dvc.yaml" if name in stages else "params.yaml"
        yield f"{name} is a name in {where} already: choose another."
    if after and after not in stages:
        known = ", ".join(stages) or "there is none yet"
        yield f"AFTER is {after!r}: it must be a stage of dvc.yaml ({known})."
    elif after and f"artifacts/{after}" not in outs(after):
        yield (
            f"{after} does not write artifacts/{after}, which the new process would read: leave "
            f"AFTER out, read what {after} writes ({', '.join(outs(after))}), and add it to deps."
        )


# ---- what files will say


def folder_texts(name: str, after: str) -> dict[str, str]:
    """The new process's own files, by their names."""
    texts = {}
    for file in SKELETON.iterdir():
        text = file.read_text("utf-8")
        if file.suffix == ".jinja":
            text = Template(text, keep_trailing_newline=True).render(name=name, after=after)
        texts[file.name.removesuffix(".jinja").replace("NAME", name)] = text
    return texts


def class_name(name: str) -> str:
    """train_model as TrainModel."""
    return "".join(word.capitalize() for word in name.split("_"))


def model_with(text: str, name: str) -> str:
    """lib/params.py with a section for the process, before Params and as its last field."""
    params = next(
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.name == "Params"
    )
    lines = text.splitlines(keepends=True)
    last = max(node.end_lineno or 0 for node in params.body if isinstance(node, ast.AnnAssign))
    lines.insert(last, f"    {name}: {class_name(name)}\n")
    section = (
        f"class {class_name(name)}(Section):\n"
        f'    """{PARAMETER}: what each value is multiplied by."""\n\n'
        f"    {PARAMETER}: Positive\n\n\n"
    )
    lines.insert(params.lineno - 1, section)
    return "".join(lines)


def pipeline_with(text: str, stage: str) -> str:
    """dvc.yaml with a stage after the others."""
    text = re.sub(r"(?m)^stages:\s*(\{\}|null|~)?[ ]*$", "stages:", text, count=1)
    head, _, rest = text.partition("\nstages:")
    # The stages end where a line begins that is neither indented nor empty.
    end = re.search(r"(?m)^(?=\S)", rest.lstrip("\n")) if rest.strip() else None
    skipped = len(rest) - len(rest.lstrip("\n"))
    cut = skipped + end.start() if end else len(rest)
    stages, after = rest[:cut].rstrip("\n"), rest[cut:]
    before = f"{head}\nstages:" if head or text.startswith("\nstages:") else "stages:"
    joined = f"{before}{stages}\n" + ("\n" if stages.strip() else "") + stage
    return joined + (f"\n{after}" if after else "")


def stage_text(name: str, after: str) -> str:
    """The stage: with every file of this repository that the process imports."""
    main = f"lab.processes.{name}.main"
    graph = grimp.build_graph("lib", "lab", cache_dir=None)
    modules = {main} | graph.find_upstream_modules(main)
    files = sorted(module.replace(".", "/") + ".py" for module in modules)
    deps = [f"artifacts/{after}"] if after else []
    deps += [f"lab/processes/{name}/Pipfile.lock"]
    deps += [file for file in files if (ROOT / file).is_file()]
    return STAGE.format(name=name, deps="\n".join(f"      - {dep}" for dep in deps))


def with_option(text: str, name: str) -> str:
    """.vscode/launch.json with the process among those that can be debugged."""

    def add(match: re.Match[str]) -> str:
        listed = match[1].strip()
        return f'"options": [{listed}, "{name}"]' if listed else f'"options": ["{name}"]'

    text = re.sub(r'"options": \[([^\]]*)\]', add, text, count=1)
    return re.sub(r'("options": \[[^\]]*\],\s*"default": )""', rf'\1"{name}"', text)


def with_ignored(text: str, name: str) -> str:
    """.gitignore with its out, where the others are."""
    lines = text.splitlines(keepends=True)
    place = max(
        (n for n, li in enumerate(lines, start=1) if li.startswith(("/artifacts/", "/data/"))),
        default=0,
    )
    lines.insert(place, f"/artifacts/{name}\n")
    return "".join(lines)


# ---- writing


@contextmanager
def all_or_nothing(files: list[Path], folder: Path) -> Iterator[None]:
    """Put files back as they were, and remove the folder, when the block does not end well."""
    before = {file: file.read_bytes() for file in files if file.exists()}
    try:
        yield
    except BaseException:
        for file, content in before.items():
            file.write_bytes(content)
        shutil.rmtree(folder, ignore_errors=True)
        raise


def add(name: str, after: str) -> None:
    """Write it all."""
    folder = ROOT / "lab/processes" / name
    params, model = ROOT / "params.yaml", ROOT / "lib/params.py"
    pipeline, ignore = ROOT / "dvc.yaml", ROOT / ".gitignore"
    launch = ROOT / ".vscode/launch.json"
    with all_or_nothing([params, model, pipeline, ignore, launch], folder):
        folder.mkdir()
        for file, text in folder_texts(name, after).items():
            (folder / file).write_text(text, encoding="utf-8")
        section = f"\n{name}:\n  {PARAMETER}: 2.0  # what each value is multiplied by\n"
        params.write_text(params.read_text("utf-8").rstrip("\n") + "\n" + section, "utf-8")
        model.write_text(model_with(model.read_text("utf-8"), name), "utf-8")
        stage = stage_text(name, after)
        pipeline.write_text(pipeline_with(pipeline.read_text("utf-8"), stage), "utf-8")
        ignore.write_text(with_ignored(ignore.read_text("utf-8"), name), "utf-8")
        if launch.exists():
            launch.write_text(with_option(launch.read_text("utf-8"), name), "utf-8")


def main() -> None:
    """Add it, and say where to go on."""
    name, after = (*sys.argv[1:], "", "")[:2]
    if reasons := list(refusals(name, after)):
        sys.exit("\n".join([*reasons, "Nothing was written."]))
    try:
        add(name, after)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: nothing was written.")
    print(
        f"lab/processes/{name} is there, with a section in params.yaml and lib/params.py and a "
        f"stage in dvc.yaml.\nIt runs: make run. Then put your own into {name}.py, main.py and "
        f"{name}_test.py; packages into its Pipfile, then make lock."
    )


if __name__ == "__main__":
    main()
