"""The parameters of prepare_data: its sections of params.yaml, and the values allowed in them."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from lib.params import Real, Section, Seed, Share


class PrepareData(Section):
    """How the rows are checked and split."""

    split: Literal["stratified", "hashed"]
    id_column: Annotated[str, Field(min_length=1)] | None
    test_size: Share
    validation_size: Share
    max_duplicated: Annotated[Real, Field(ge=0, le=1)]

    @field_validator("id_column")
    @classmethod
    def _needed_by_hash(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("split") == "hashed":
            raise ValueError("the name of a column, where split is hashed")
        return value


class Params(Section):
    """What this process reads."""

    random_seed: Seed
    prepare_data: PrepareData
