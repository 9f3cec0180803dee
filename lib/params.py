"""Typed parameters: reads a process's sections of `params.yaml`, and checks the whole file.

A process's `params.py` defines the sections that it reads:

    class Params(Section):
        random_seed: Seed
        train_model: TrainModel

Its `main.py` first calls `load_params(Params)`, so that a misspelled key, a wrong type or an
impossible value stops it before it touches data. To check the whole file against all `params.py`
without running anything:

    python -m lib.params
"""

import difflib
import importlib
import os
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from lib.errors import UserError, traceback_from
from lib.files import read_text

FILE = "params.yaml"
# At the root; not searched for pipelines, as they have many files.
DATA = ("data", "artifacts")
NESTING = 50  # levels of YAML, at most

# In YAML, a float without a fraction is an integer: 1 is a valid learning rate.
Real = Annotated[float, BeforeValidator(lambda v: float(v) if type(v) is int else v)]
Positive = Annotated[Real, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[Real, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy takes


class ParamsError(UserError):
    """params.yaml, or a `params.py` that checks it, is invalid."""


class YamlTextError(Exception):
    """A text is not valid YAML, or not accepted; the message continues after the file's name."""


class Section(BaseModel):
    """A mapping in params.yaml: no unknown keys, values of exactly their types, immutable."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Project(Section):
    """The keys that params.yaml has in every project."""

    random_seed: Seed
    experiment: Annotated[str, Field(min_length=1)]


Model = TypeVar("Model", bound=BaseModel)


# ---- one process's parameters


def load_params(model: type[Model], file: Path | str = FILE) -> Model:
    """The sections of a YAML file (YAML 1.2, as DVC reads it) that are the model's fields.

    Raises:
        ParamsError: the file is missing or not YAML, or keys or values in these sections do not fit
            the model; the message has a line for each, with the key's full name.
    """
    return check_params(read_yaml(file), model, str(file))


def read_yaml(file: Path | str, *, aliases: bool = False) -> Any:
    """The content of a YAML 1.2 file; aliases are only for DVC's files, in which DVC allows them.

    Raises:
        ParamsError: the file is missing, or `parse_yaml` does not accept it.
    """
    try:
        return parse_yaml(read_text(file), aliases=aliases)
    except FileNotFoundError:
        raise ParamsError(
            f"{file} is missing: run from the repository's root, or `git checkout {file}`."
        ) from None
    except YamlTextError as error:
        raise ParamsError(f"{file} {error}") from None
    except UserError as error:
        raise ParamsError(str(error)) from None


def parse_yaml(text: str, *, aliases: bool = False) -> Any:
    """The content of a YAML 1.2 text; by default without aliases, which can expand to any size.

    Raises:
        YamlTextError: it is not YAML, has an alias or is nested too deep; the message continues
            after the text's name.
    """
    try:
        depth = 0
        for event in () if aliases else YAML(typ="safe", pure=True).parse(text):
            if isinstance(event, AliasEvent):
                line = event.start_mark.line + 1
                raise YamlTextError(
                    f"has a YAML alias ('*{event.anchor}', line {line}): write out what it "
                    "stands for."
                )
            depth += isinstance(event, CollectionStartEvent)
            depth -= isinstance(event, CollectionEndEvent)
            if depth > NESTING:
                raise YamlTextError(f"is nested more than {NESTING} deep.")
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        # The last four come from invalid dates and tags (!!int '', !!bool maybe).
        why = line_of(error) or f" ({' '.join(str(error).split())})"
        marks = " A merge left marks in it." if "\n<<<<<<< " in f"\n{text}" else ""
        raise YamlTextError(f"is not YAML{printable(why)}.{marks}") from None


def line_of(error: BaseException) -> str:
    """The line and problem of a YAML parser's error, in brackets; empty for another error.

    DVC raises its own error, with the parser's inside.
    """
    found: Any = getattr(error, "exc", error)
    while found:
        if mark := getattr(found, "problem_mark", None):
            return f" (line {mark.line + 1}: {found.problem})"
        found = found.__cause__
    return ""


def check_params(content: Any, model: type[Model], source: str = FILE) -> Model:
    """The typed parameters in the content of a YAML file; raises as `load_params`."""
    sections = content
    if isinstance(content, Mapping):  # without other processes' sections
        sections = {key: value for key, value in content.items() if key in model.model_fields}
    try:
        return model.model_validate(sections)
    except ValidationError as error:
        lines = [f"{source}: {describe(problem, model)}" for problem in error.errors()]
        raise ParamsError("\n".join(lines)) from None


# ---- messages

# Replaces pydantic's text for these.
ALLOWED = {
    "model_type": "a mapping (key: value)",
    "dict_type": "a mapping (key: value)",
    "string_type": "a text",
}


def describe(problem: Any, model: type[BaseModel]) -> str:
    """A line for one of pydantic's errors: the key, what was found, what is allowed."""
    kind, value = problem["type"], problem["input"]
    *parents, last = problem["loc"] or ("the file",)
    key = printable(".".join(map(str, (*parents, last))))
    if kind in ("extra_forbidden", "invalid_key"):  # the latter: a key that is not text
        return unknown(key, printable(str(last)), known_keys(model, parents))
    if kind == "missing":
        return f"{key} is missing: write it."
    found = "empty" if value is None and not problem["loc"] else as_yaml(value)
    # "Input should be …", "Value error, …", "List should have at least 1 item after validation, …"
    message = problem["msg"].removeprefix("Assertion failed, ").partition(" after validation")[0]
    must = re.sub(r"^\w+ should ", "it must ", re.sub("^Value error, ", "it must be ", message))
    if kind in ALLOWED:
        must = f"it must be {ALLOWED[kind]}"
    if kind == "string_type" and isinstance(value, int | float | date):
        must += ", so put it in quotes"
    return f"{key} is {found}: {must}."


def as_yaml(value: Any) -> str:
    """A value as it is written in YAML."""
    if isinstance(value, Mapping):
        return "a mapping"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(as_yaml, value))}]"
    return str(value) if isinstance(value, date) else repr(value)


def printable(text: str) -> str:
    """Text with control characters, which a terminal would obey, replaced by their codes."""
    # Not lib.text.one_line: every stage would depend on it.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def unknown(key: str, last: str, known: Sequence[str], advice: str = "remove it.") -> str:
    """The message for an unknown key; with the advice if no known one is similar."""
    close = difflib.get_close_matches(last, known, n=1)
    hint = f"did you mean {close[0]}?" if close else advice
    allowed = f" Allowed here: {', '.join(known)}." if known else ""
    return f"{key} is not known: {hint}{allowed}"


def known_keys(model: Any, parents: Sequence[str | int]) -> list[str]:
    """The keys allowed below `parents`, through lists, mappings and unions."""
    found = list(models_at(model, parents))
    return list(dict.fromkeys(key for each in found for key in each.model_fields))


def models_at(kind: Any, parents: Sequence[str | int]) -> Iterator[type[BaseModel]]:
    """The sections that the type at `parents` inside a type may be."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from models_at(inner[0], parents)
    elif origin in (Union, types.UnionType):
        # In a union, pydantic's location has the name of the type that it tried.
        rest = parents[1:] if parents and str(parents[0]) in map(name_of, inner) else parents
        for alternative in inner:
            yield from models_at(alternative, rest)
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        if not parents:
            yield kind
        elif parents[0] in kind.model_fields:
            yield from models_at(kind.model_fields[str(parents[0])].annotation, parents[1:])
    elif inner and parents:  # a list's items, a mapping's values
        yield from models_at(inner[-1] if inner[-1] is not ... else inner[0], parents[1:])


def name_of(kind: Any) -> str:
    """Pydantic's name for a type in a union."""
    return str(getattr(kind, "__name__", kind))


# ---- the whole file


def check_all(root: Path = Path(), file: str = FILE) -> None:
    """Check every section of the project's params.yaml with the `params.py` that reads it.

    Sections with the name of a process in another language, which has none, and keys that a
    dvc.yaml reads are not checked.

    Raises:
        ParamsError: with a line for each problem in the file, or the reason why a `params.py` or a
            dvc.yaml cannot be read.
    """
    content = read_yaml(root / file)
    models: list[type[BaseModel]] = [Project, *models_below(root)]
    problems: dict[str, None] = {}  # in order, each once: two processes may share a section
    for model in models:
        try:
            check_params(content, model, file)
        except ParamsError as error:
            problems |= dict.fromkeys(str(error).splitlines())
    if isinstance(content, Mapping):
        problems |= dict.fromkeys(
            f"{file}: {printable(key)} is {value}, and DVC takes no dates: put it in quotes."
            for key, value in dates_in(content)
        )
        known = list(dict.fromkeys(key for model in models for key in model.model_fields))
        known += [main.parent.name for main in root.glob("lab/processes/*/main")]
        unread = [str(key) for key in content if key not in known]
        read = set(keys_of_pipelines(root)) if unread else set()
        for key in map(printable, (key for key in unread if key not in read)):
            problems[f"{file}: {unknown(key, key, sorted(set(known)))}"] = None
    if problems:
        raise ParamsError("\n".join(problems))


def dates_in(content: Any, name: str = "") -> Iterator[tuple[str, date]]:
    """The dates and times in YAML, each with its dotted name."""
    if isinstance(content, date):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from dates_in(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from dates_in(value, f"{name}.{number}")


def keys_of_pipelines(root: Path) -> Iterator[str]:
    """The top-level keys of params.yaml that a dvc.yaml has in `${…}` or a stage's `params`."""
    for folder, below, files in os.walk(root):
        inside = Path(folder).parent == root and Path(folder).name in DATA
        below[:] = [name for name in below if name[0] != "." and not inside]
        if "dvc.yaml" in files:
            file = Path(folder, "dvc.yaml")
            for text in params_listed(read_yaml(file, aliases=True)):
                yield text.partition(".")[0]
            yield from re.findall(r"\$\{\s*([\w-]+)", read_text(file))


def params_listed(node: Any, *, below: bool = False) -> Iterator[str]:
    """Each value below a key `params`, at any depth."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from params_listed(value, below=below or key == "params")
    elif isinstance(node, list):
        for value in node:
            yield from params_listed(value, below=below)
    elif below:
        yield str(node)


def models_below(root: Path) -> Iterator[type[BaseModel]]:
    """The class `Params` of each `params.py` in lab/ and goals/."""
    for module in sorted([*root.glob("lab/*/params.py"), *root.glob("lab/*/*/params.py")]):
        yield model_in(module.relative_to(root))
    if (root / "goals/params.py").exists():
        yield model_in(Path("goals/params.py"))


def model_in(file: Path) -> type[BaseModel]:
    """The class `Params` of a file; its path is relative to a folder in `sys.path`."""
    try:
        module = importlib.import_module(".".join(file.with_suffix("").parts))
    except (Exception, SystemExit) as error:  # an import may raise anything
        message = f"{file} cannot be imported."
        if isinstance(error, ImportError):
            message += " It may import lib.params and pydantic alone."
        raise ParamsError(f"{message}\n{traceback_from(error, file)}") from None
    model = getattr(module, "Params", None)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ParamsError(
            f"{file} has no class Params derived from Section: write what the process reads."
        )
    return model


if __name__ == "__main__":
    try:
        check_all()
    except UserError as error:
        sys.exit(str(error))
