"""Takes the example out of a project, and leaves the house: `make blank`.

git must have all of it: what goes can be brought back with `git checkout <commit> -- <path>`.
"""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent.parent

# What stays, where the rest is the example's.
PARAMETERS = {"random_seed", "experiment", "paths", "goals"}  # of goals, none of its thresholds
FOLDERS = {"dir_raw", "dir_processed", "dir_metrics"}
PROCESSES = {"run", "conftest.py", "stages_test.py", "README.md"}  # in lab/processes

PIPELINE = """\
# The pipeline: what each stage reads (deps, params) and writes (outs, metrics). DVC runs a stage
# when something it reads has changed, and takes its results from the cache when they are there.
# `make process NAME=…` adds one.
stages: {}
"""


def read_yaml(name: str) -> dict[str, object]:
    """A YAML file in the root; nothing where it is not there."""
    file = ROOT / name
    return YAML(typ="safe", pure=True).load(file.read_text("utf-8")) or {} if file.exists() else {}


def example_files() -> list[Path]:
    """What is removed as it stands: processes, goals, notebooks, runtimes, metrics, dvc.lock."""
    found = [file for file in (ROOT / "lab/processes").glob("*") if file.name not in PROCESSES]
    found += (ROOT / "goals").glob("*_test.py")
    found += (ROOT / "lab/analysis").glob("*.ipynb")
    found += (file.parent for file in (ROOT / "runtimes").glob("*/krt.yml"))
    found += (ROOT / "metrics").glob("*")
    found += [ROOT / "dvc.lock"]
    return sorted(file for file in found if file.exists() and file.name != "__pycache__")


def outs(*only: str) -> list[str]:
    """The paths of what the stages (or only these) write, with the parameters filled in."""
    folders = read_yaml("params.yaml").get("paths", {})
    stages: dict[str, Any] = read_yaml("dvc.yaml").get("stages") or {}  # type: ignore[assignment]
    listed = [out for name in only or stages for out in stages[name].get("outs", [])]
    plain = [out if isinstance(out, str) else next(iter(out)) for out in listed]
    return [
        re.sub(r"\$\{paths\.(\w+)\}", lambda m: str(folders.get(m[1], "")), out)  # type: ignore[attr-defined]
        for out in plain
    ]


# ---- files of which a part is the example's


def without_lines(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text without these lines, first to last, counted from one."""
    gone = {number for first, last in spans for number in range(first, last + 1)}
    lines = text.splitlines(keepends=True)
    return "".join(line for number, line in enumerate(lines, start=1) if number not in gone)


def blank_parameters(text: str) -> str:
    """params.yaml with the sections and folders that stay."""
    sections = re.split(r"(?m)^(?=\w+:)", text)
    kept = [s for s in sections if (s.partition(":")[0] in PARAMETERS) or not s[:1].isalpha()]
    folder = re.compile(r"  (dir_\w+):")
    kept = [
        re.sub(r"(?s)^goals:.*", "goals: {}  # what goals/ asks of the results\n", s) for s in kept
    ]
    lines = "".join(kept).rstrip("\n").splitlines(keepends=True)
    gone = [m for line in lines if (m := folder.match(line)) and m[1] not in FOLDERS]
    return "".join(li for li in lines if not any(li.startswith(m[0]) for m in gone)) + "\n"


def blank_model(text: str) -> str:
    """lib/params.py without the fields that go, and without the classes that only they used."""
    classes = {c.name: c for c in ast.parse(text).body if isinstance(c, ast.ClassDef)}
    spans = []
    for name, stay in (("Params", PARAMETERS), ("Paths", FOLDERS), ("Goals", set[str]())):
        if name not in classes:
            continue
        fields = [node for node in classes[name].body if isinstance(node, ast.AnnAssign)]
        gone = [f for f in fields if isinstance(f.target, ast.Name) and f.target.id not in stay]
        spans += [(field.lineno, field.end_lineno or 0) for field in gone]
    text = without_lines(text, spans)
    while True:
        tree = ast.parse(text)
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        unused = [
            c
            for c in tree.body
            if isinstance(c, ast.ClassDef)
            and c.name not in used
            and any(isinstance(base, ast.Name) and base.id == "Section" for base in c.bases)
        ]
        if not unused:
            return text
        text = without_lines(text, [(c.lineno, c.end_lineno or 0) for c in unused])


def blank_fixtures(text: str, names: set[str]) -> str:
    """A conftest.py without what the example's processes, parameters and tests alone ask for."""
    tree, spans, gone = ast.parse(text), [], set(names)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and gone & set((node.module or "").split(".")):
            spans.append((node.lineno, node.end_lineno or 0))
            gone |= {alias.name for alias in node.names}
    left = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.Assign)]
    while example := [node for node in left if gone & mentioned(node)]:
        for node in example:
            left.remove(node)
            decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
            first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
            spans.append((first, node.end_lineno or 0))
            gone |= called(node)
    return without_lines(text, spans)


def called(node: ast.FunctionDef | ast.Assign) -> set[str]:
    """What others call a function, a fixture (which may bear another name), or a constant."""
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    keywords = [k for d in node.decorator_list if isinstance(d, ast.Call) for k in d.keywords]
    named = {ast.literal_eval(k.value) for k in keywords if k.arg == "name"}
    return {node.name, *(str(name) for name in named)}


def mentioned(node: ast.AST) -> set[str]:
    """The names, arguments and strings in a piece of code."""
    nodes = list(ast.walk(node))
    found = {n.id for n in nodes if isinstance(n, ast.Name)}
    found |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    return found | {str(n.value) for n in nodes if isinstance(n, ast.Constant)}


def blank_launch(text: str) -> str:
    """.vscode/launch.json without the processes that go."""
    text = re.sub(r'"options": \[[^\]]*\]', '"options": []', text)
    return re.sub(r'("options": \[\],\s*"default": )"\w*"', r'\1""', text)


# ---- all of it


def new_texts() -> dict[Path, str]:
    """What the files that stay will say."""
    names = set(read_yaml("dvc.yaml").get("stages") or {})  # type: ignore[call-overload]
    sections = {key for key in read_yaml("params.yaml") if key not in PARAMETERS}
    ignored = {f"/{out}" for out in outs()}
    edits = {
        "dvc.yaml": lambda _: PIPELINE,
        "params.yaml": blank_parameters,
        "lib/params.py": blank_model,
        "lab/processes/conftest.py": lambda text: blank_fixtures(text, names | sections),
        "goals/conftest.py": lambda text: blank_fixtures(text, names),
        ".gitignore": lambda text: without_lines(
            text,
            [(n, n) for n, line in enumerate(text.splitlines(), start=1) if line in ignored],
        ),
        ".vscode/launch.json": blank_launch,
    }
    there = {ROOT / name: edit for name, edit in edits.items() if (ROOT / name).exists()}
    return {file: edit(file.read_text("utf-8")) for file, edit in there.items()}


def blank() -> list[str]:
    """Do it; the names of what was removed."""
    files, texts = example_files(), new_texts()
    made = [ROOT / out for out in outs() if (ROOT / out).exists()]
    check_that_git_has_them([*files, *texts])
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    for file in (*files, *made):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    tidy = [str(file) for file in texts if file.suffix == ".py"]
    for command in (["check", "--quiet", "--fix", "--select", "F401,I001"], ["format", "--quiet"]):
        subprocess.run(["ruff", *command, *tidy], cwd=ROOT, check=True)
    return [str(file.relative_to(ROOT)) for file in files]


def check_that_git_has_them(files: list[Path]) -> None:
    """End with what to do where something would be lost."""
    paths = [str(file.relative_to(ROOT)) for file in files]
    done = subprocess.run(
        ["git", "status", "--porcelain", "-z", "--untracked-files=all", "--", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit("git must have the example before it goes: `make start` first.")
    if changed := [entry[3:] for entry in done.stdout.split("\0") if entry]:
        sys.exit(
            f"Not committed: {', '.join(changed[:5])}{' …' if changed[5:] else ''}. Commit or "
            "discard that first: git must be able to bring back what goes."
        )


def main() -> None:
    """Say what went, and what is next."""
    removed = blank()
    print(f"Removed: {', '.join(removed)}" if removed else "There was nothing left of the example.")
    print("Next: make process NAME=…, then make run. `git diff --stat` shows what has changed.")


if __name__ == "__main__":
    main()
