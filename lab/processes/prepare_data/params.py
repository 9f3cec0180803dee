"""The parameters of prepare_data: its sections of params.yaml, and what each value may be."""

from typing import Annotated

from pydantic import Field

from lib.params import Real, Section, Seed, Share


class PrepareData(Section):
    """How the rows are checked and split."""

    test_size: Share
    validation_size: Share
    max_duplicated: Annotated[Real, Field(ge=0, le=1)]


class Params(Section):
    """What this process reads."""

    random_seed: Seed
    prepare_data: PrepareData
