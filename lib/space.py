"""A sweep's section of `params.yaml`: which values to try, how many, and the objective.

A process that tunes another defines its section by the other's:

    class TuneModel(Tuning):
        space: space_of(TrainModel)

Then each name in `space` must be a parameter of `TrainModel`, and the ends of its range valid
values for it. Parameters that no trial reads cannot be searched: name them to `space_of` and
`fixed`. This module needs only pydantic, so that the whole file can be checked anywhere.
"""

import math
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)

from lib.params import Count, Real, Section

KINDS = ("uniform", "log", "integer", "log_integer", "choice")
Finite = Annotated[Real, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]  # Optuna computes with floats
Reals = Annotated[list[Finite], Field(min_length=2, max_length=2)]
Integers = Annotated[list[Whole], Field(min_length=2, max_length=2)]


class Range(Section):
    """The values to search for one parameter: exactly one of these.

    uniform and log: real numbers from the first to the last, in the second case uniform in the
    logarithm. integer and log_integer: the same for whole numbers. choice: any in the list.
    """

    uniform: Reals | None = None
    log: Reals | None = None
    integer: Integers | None = None
    log_integer: Integers | None = None
    choice: Annotated[list[Any], Field(min_length=2)] | None = None

    @property
    def kind(self) -> str:
        """The one of KINDS that is given."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def values(self) -> list[Any]:
        """Its two ends, or the values to choose from."""
        return list(getattr(self, self.kind))

    @model_validator(mode="after")
    def check(self) -> "Range":
        """ValueError unless it is a valid range."""
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"one of {', '.join(KINDS)} (found: {', '.join(given) or 'none'})")
        if self.kind != "choice" and self.values[0] >= self.values[1]:
            raise ValueError(f"a range from low to high (found {self.kind}: {self.values})")
        if self.kind != "choice" and math.isinf(self.values[1] - self.values[0]):
            raise ValueError(f"a range of finite width (found {self.kind}: {self.values})")
        if self.kind.startswith("log") and self.values[0] <= 0:
            raise ValueError(f"above 0 for {self.kind} (found {self.values})")
        return self


def _rising(rungs: list[int]) -> list[int]:
    if any(low >= high for low, high in pairwise(rungs)):
        raise ValueError("budgets that rise")
    return rungs


Rungs = Annotated[list[Count], Field(min_length=2), AfterValidator(_rising)]


class Tuning(Section):
    """The settings of a sweep; see `lib.tuning.tune` for their effects."""

    objective: Annotated[str, Field(min_length=1)]
    better: Literal["larger", "smaller"]
    trials: Count
    batch: Count
    rungs: Rungs | None = None
    workers: Count | None

    budget: ClassVar[str] = ""  # the parameter that rungs set

    @model_validator(mode="after")
    def check(self) -> "Tuning":
        """ValueError if nothing is searched, or a parameter that rungs set."""
        space = getattr(self, "space", None)  # only sweeps that tune a process have one
        if space is None:
            return self
        if not any(getattr(space, name) for name in type(space).model_fields):
            raise ValueError("a section whose space has a range for at least one parameter")
        if self.rungs and self.budget in dict(ranges(space)):
            raise ValueError(
                f"a section without rungs, or without a range of {self.budget}, which they set"
            )
        return self


def _no_range(found: Any) -> None:
    if found is not None:
        raise ValueError("left out: it cannot be searched, for no trial reads it")


NoRange = Annotated[None, BeforeValidator(_no_range)]


def space_of(model: type[BaseModel], without: Collection[str] = ()) -> type[Section]:
    """The type of a search space for a section: an optional range for each parameter.

    Args:
        model: the section.
        without: its parameters that no trial reads, and so cannot be searched.
    """
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if name in without:
            fields[name] = (NoRange, None)
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            fields[name] = (space_of(kind) | None, None)
        else:
            allowed: Any = kind
            for constraint in field.metadata:
                allowed = Annotated[allowed, constraint]
            fields[name] = (Annotated[Range, AfterValidator(_each_is(allowed))] | None, None)
    return create_model(f"{model.__name__}Space", __base__=Section, **fields)


def _each_is(allowed: Any) -> Any:
    """A validator for ranges of a parameter of this type: it must allow each of their values."""
    adapter: TypeAdapter[Any] = TypeAdapter(allowed)

    def check(found: Range) -> Range:
        for value in found.values:
            try:
                adapter.validate_python(value, strict=True)
            except ValidationError as error:
                message = error.errors()[0]["msg"].removeprefix("Input should be ")
                raise ValueError(
                    f"a range of values that this parameter may have: {value!r} must be {message}"
                ) from None
        return found

    return check


def ranges(space: Section, above: str = "") -> Iterator[tuple[str, Range]]:
    """The dotted name and the range of each parameter that is searched."""
    for name in type(space).model_fields:
        found = getattr(space, name)
        if isinstance(found, Range):
            yield f"{above}{name}", found
        elif found is not None:
            yield from ranges(found, f"{above}{name}.")


def fixed(section: BaseModel, space: Section, without: Collection[str] = ()) -> dict[str, Any]:
    """The parameters of a section that are not searched, and so the same in each trial.

    Args:
        section: the section that is tuned.
        space: its search space.
        without: the parameters that no trial reads, as for `space_of`.
    """
    found: dict[str, Any] = {}
    for name, value in section.model_dump(exclude=set(without)).items():
        searched = getattr(space, name)
        if searched is None:
            found[name] = value
        elif not isinstance(searched, Range):
            found[name] = fixed(getattr(section, name), searched)
    return found


def is_better(new: float, old: float, better: str) -> bool:
    """Whether a value is better than another; NaN is worse than any number."""
    if math.isnan(new) or math.isnan(old):
        return math.isnan(old) and not math.isnan(new)
    return new > old if better == "larger" else new < old
