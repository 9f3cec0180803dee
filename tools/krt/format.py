"""The rules for manifests: krt.yml of KRT v1 and v2, and the YAML file of a KAI version.

`read(content)` checks a parsed manifest; `check.py` opens archives. The rules are those of the
engine, and some that it does not check but fails on later: references to unknown names,
subscriptions to nobody, duplicate node names.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from lib.text import some_of

NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
VARIABLE = r"^[A-Z0-9]([_A-Z0-9]*[A-Z0-9])?$"
LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
HOST = rf"{LABEL}(\.{LABEL})*(:[0-9]+)?"
PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
IMAGE = (
    rf"^({HOST}/)?{PART}(/{PART})*(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?$"
)
MEMORY = r"^\d+(Ei?|Pi?|Ti?|Gi?|Mi?|k|Ki)$"
ENTRYPOINT = "entrypoint"  # a v2 node subscribes to it for requests; no node may have this name

MAX_NAMES = 20  # in a message


def as_text(value: Any) -> Any:
    """A scalar as text, as the engine reads it: `limit: 0.5` is "0.5"."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float | date) else value


SCALAR = BeforeValidator(as_text)
# In a mapping of strings, null is the empty string.
Value = Annotated[str, BeforeValidator(lambda value: as_text("" if value is None else value))]
Name = Annotated[str, StringConstraints(pattern=NAME, max_length=19), SCALAR]
KaiName = Annotated[str, StringConstraints(pattern=NAME, max_length=20), SCALAR]
Variable = Annotated[str, StringConstraints(pattern=VARIABLE), SCALAR]
Image = Annotated[str, StringConstraints(pattern=IMAGE), SCALAR]
Text = Annotated[str, StringConstraints(min_length=1), SCALAR]


class Part(BaseModel):
    """A mapping in a manifest; unknown keys are ignored, as by the engine."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def without_nothing(cls, content: Any) -> Any:
        """Drop keys with the value null, as the engine does."""
        if not isinstance(content, dict):
            return content
        return {key: value for key, value in content.items() if value is not None}


class Entrypoint(Part):
    """The public service, and the image that serves it."""

    proto: Annotated[str, StringConstraints(pattern=r"\.proto$"), SCALAR]
    image: Image


class Workflow(Part):
    """An rpc, and the nodes that answer it."""

    name: Name
    entrypoint: Text


# ---- v1


class ConfigV1(Part):
    """Variables and files that the runtime is configured with."""

    variables: list[Variable] = []
    files: list[Variable] = []


class NodeV1(Part):
    """A node; workflows name it."""

    name: Name
    image: Image
    src: Text
    gpu: bool = False


class WorkflowV1(Workflow):
    """One whose nodes answer one after the other."""

    sequential: Annotated[list[Annotated[str, SCALAR]], Field(min_length=1)]


class ManifestV1(Part):
    """krt.yml of the engine's generations 1 to 7."""

    version: Name
    description: Text
    entrypoint: Entrypoint
    config: ConfigV1 | None = None
    nodes: Annotated[list[NodeV1], Field(min_length=1)]
    workflows: Annotated[list[WorkflowV1], Field(min_length=1)]

    def contradictions(self) -> Iterator[str]:
        """Problems between parts: duplicates and unknown references."""
        yield from twice("nodes", (node.name for node in self.nodes))
        yield from twice("workflows", (workflow.name for workflow in self.workflows))
        names = {node.name for node in self.nodes}
        for w, workflow in enumerate(self.workflows):
            for n, name in enumerate(workflow.sequential):
                if name not in names:
                    yield unknown(f"workflows[{w}].sequential[{n}]", name, names, "a node's name")

    def sources(self) -> dict[str, str]:
        """For each key that names a file of the archive, the file."""
        sources = {f"nodes[{n}].src": node.src for n, node in enumerate(self.nodes)}
        return {"entrypoint.proto": self.entrypoint.proto} | sources


# ---- v2


class ConfigV2(Part):
    """Variables and files that the runtime is configured with."""

    variables: list[Variable] = []
    files: list[Text] = []


class ObjectStoreV2(Part):
    """Where a node keeps objects."""

    name: Text
    scope: Literal["workflow", "project"] = "workflow"


class NodeV2(NodeV1):
    """A node, and whose messages it gets."""

    replicas: Annotated[int, Field(ge=1)] = 1
    subscriptions: Annotated[list[Text], Field(min_length=1)]
    objectStore: ObjectStoreV2 | None = None  # noqa: N815 # the format's own name


class WorkflowV2(Workflow):
    """One with the node whose message is the answer."""

    exitpoint: Text
    nodes: Annotated[list[NodeV2], Field(min_length=1)]


class ManifestV2(Part):
    """krt.yml of the engine's generation 8."""

    version: Name
    krtVersion: Literal["v2"]  # noqa: N815 # the format's own name
    description: Text
    entrypoint: Entrypoint
    config: ConfigV2 | None = None
    workflows: Annotated[list[WorkflowV2], Field(min_length=1)]

    def contradictions(self) -> Iterator[str]:
        """Problems between parts: duplicates and unknown references."""
        yield from twice("workflows", (workflow.name for workflow in self.workflows))
        for w, workflow in enumerate(self.workflows):
            at, names = f"workflows[{w}]", {node.name for node in workflow.nodes}
            yield from twice(f"{at}.nodes", (node.name for node in workflow.nodes))
            if workflow.exitpoint not in names:
                yield unknown(f"{at}.exitpoint", workflow.exitpoint, names, "a node of it")
            for n, node in enumerate(workflow.nodes):
                if node.name == ENTRYPOINT:
                    yield f"{at}.nodes[{n}].name is 'entrypoint': that is taken, rename it."
                for s, subscription in enumerate(node.subscriptions):
                    target = subscription.partition(".")[0]
                    if target not in {*names, ENTRYPOINT}:
                        key = f"{at}.nodes[{n}].subscriptions[{s}]"
                        yield unknown(key, subscription, {*names, ENTRYPOINT}, "a node of it")

    def sources(self) -> dict[str, str]:
        """For each key that names a file of the archive, the file."""
        sources = {
            f"workflows[{w}].nodes[{n}].src": node.src
            for w, workflow in enumerate(self.workflows)
            for n, node in enumerate(workflow.nodes)
        }
        return {"entrypoint.proto": self.entrypoint.proto} | sources


# ---- KAI


class ObjectStoreKai(Part):
    """Where a process keeps objects."""

    name: Text
    scope: Literal["product", "workflow"] = "workflow"


class Networking(Part):
    """A port to open."""

    targetPort: Annotated[int, Field(ge=1, le=65535)]  # noqa: N815 # the format's own name
    destinationPort: Annotated[int, Field(ge=1, le=65535)]  # noqa: N815 # the same
    protocol: Literal["HTTP", "GRPC"] = "HTTP"

    @model_validator(mode="before")
    @classmethod
    def with_protocol(cls, content: Any) -> Any:
        """Replace an empty protocol by the default."""
        if isinstance(content, dict) and content.get("protocol") == "":
            return {**content, "protocol": "HTTP"}
        return content


class Resource(Part):
    """A request and a limit, which defaults to the request."""

    @model_validator(mode="before")
    @classmethod
    def with_limit(cls, content: Any) -> Any:
        """Fill in the default limit, as the engine does."""
        if isinstance(content, dict) and content.get("limit") in (None, ""):
            return {**content, "limit": content.get("request")}
        return content


class Cpu(Resource):
    """Cores, or thousandths of one."""

    request: Annotated[str, StringConstraints(pattern=r"^(\d+(\.\d+)?|\d{3}m)$"), SCALAR]
    limit: Annotated[str, StringConstraints(pattern=r"^(\d+(\.\d+)?|\d{3}m)$"), SCALAR]


class Memory(Resource):
    """Bytes with a unit."""

    request: Annotated[str, StringConstraints(pattern=MEMORY), SCALAR]
    limit: Annotated[str, StringConstraints(pattern=MEMORY), SCALAR]


class ResourceLimits(Part):
    """The resources that a process requests, and their limits."""

    CPU: Cpu
    memory: Memory


class Process(Part):
    """A process, and whose messages it gets."""

    name: KaiName
    type: Literal["trigger", "task", "exit"]
    image: Image
    replicas: Annotated[int, Field(ge=1)] = 1
    gpu: bool = False
    config: dict[str, Value] = {}
    objectStore: ObjectStoreKai | None = None  # noqa: N815 # the format's own name
    secrets: Any = None
    subscriptions: list[Text] = []
    networking: Networking | None = None
    resourceLimits: ResourceLimits  # noqa: N815 # the same


class WorkflowKai(Part):
    """Processes that belong together."""

    name: KaiName
    type: Literal["data", "training", "feedback", "serving"]
    config: dict[str, Value] = {}
    processes: Annotated[list[Process], Field(min_length=1)]


class ManifestKai(Part):
    """The YAML file of a version."""

    version: Annotated[str, StringConstraints(pattern=r"^v\d+\.\d+\.\d+$"), SCALAR]
    description: Text
    config: dict[str, Value] = {}
    workflows: Annotated[list[WorkflowKai], Field(min_length=1)]

    def contradictions(self) -> Iterator[str]:
        """Problems between parts: duplicates and unknown references."""
        yield from twice("workflows", (workflow.name for workflow in self.workflows))
        for w, workflow in enumerate(self.workflows):
            at, types = f"workflows[{w}]", {p.name: p.type for p in workflow.processes}
            yield from twice(f"{at}.processes", (process.name for process in workflow.processes))
            for kind in ("trigger", "exit"):
                if kind not in types.values():
                    yield f"{at}.processes has no {kind}: a workflow has at least one."
            for p, process in enumerate(workflow.processes):
                yield from subscribed(f"{at}.processes[{p}]", process, types)
                yield from limited(f"{at}.processes[{p}].resourceLimits", process.resourceLimits)


def subscribed(at: str, process: Process, types: Mapping[str, str]) -> Iterator[str]:
    """The problems with a process's subscriptions."""
    yield from twice(f"{at}.subscriptions", process.subscriptions)
    if not process.subscriptions and process.type != "trigger":
        yield f"{at}.subscriptions is empty: a {process.type} subscribes to a process."
    for s, subscription in enumerate(process.subscriptions):
        key, target = f"{at}.subscriptions[{s}]", subscription.partition(".")[0]
        if target == process.name:
            yield f"{key} is {subscription!r}: a process does not subscribe to itself."
        elif target not in types:
            yield unknown(key, subscription, types, "a process of it")
        elif (types[target] == "exit") != (process.type == "trigger"):
            whom = "exits only" if process.type == "trigger" else "no exit"
            yield f"{key} is {subscription!r}: a {process.type} subscribes to {whom}."


def limited(at: str, limits: ResourceLimits) -> Iterator[str]:
    """The limits that are below the request."""
    for name, pair in (("CPU", limits.CPU), ("memory", limits.memory)):
        if amount(pair.limit) < amount(pair.request):
            yield f"{at}.{name}.limit is {pair.limit!r}: it must not be below {pair.request!r}."


UNITS = {f"{unit}{i}": (1024 if i else 1000) ** n
         for n, unit in enumerate("kMGTPE", start=1) for i in ("", "i")}  # fmt: skip
UNITS |= {"": 1, "m": 1 / 1000, "Ki": 1024}


def amount(text: str) -> float:
    """A quantity as a number."""
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


# ---- any of them

Manifest = ManifestV1 | ManifestV2 | ManifestKai


def twice(key: str, names: Iterable[str]) -> Iterator[str]:
    """A line for each duplicate name."""
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{key}: {name!r} comes {count} times: each needs a name of its own."


def unknown(key: str, name: str, known: Iterable[str], what: str) -> str:
    """The message about a reference to an unknown name."""
    return f"{key} is {name!r}: it must be {what}: {some_of(sorted(known), MAX_NAMES)}."


def kind(content: Mapping[str, Any], *, archive: bool) -> type[Manifest]:
    """Which of the three formats the content is meant to be."""
    if not archive:
        return ManifestKai
    return ManifestV1 if "nodes" in content and "krtVersion" not in content else ManifestV2


def read(content: Any, *, archive: bool) -> tuple[Manifest | None, list[str]]:
    """The manifest (None if it is invalid), and its problems, one per line."""
    if not isinstance(content, dict):
        return None, [f"it holds {type(content).__name__}: it must be a mapping."]
    try:
        manifest = kind(content, archive=archive).model_validate(content)
    except ValidationError as error:
        return None, [described(problem) for problem in error.errors()]
    return manifest, list(manifest.contradictions())


def described(problem: Any) -> str:
    """One of pydantic's errors in one line: key, value, what is expected."""
    parts = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in problem["loc"])
    key = parts.removeprefix(".")
    if problem["type"] == "missing":
        return f"{key} is missing: it is required."
    found = problem["input"]
    shown = type(found).__name__ if isinstance(found, dict | list) and found else repr(found)
    allowed = problem["msg"].removeprefix("Input should ").removeprefix("String should ")
    return f"{key} is {shown[:100]}: it must {allowed}."
