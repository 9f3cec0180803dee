"""Starts a process: what each `main.py` ends with.

    if __name__ == "__main__":
        start(prepare, Params)

Arguments after the process's name in `lab/processes/run NAME …` are in `sys.argv[1:]`.
"""

import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from lib.errors import UserError
from lib.params import load_params

Model = TypeVar("Model", bound=BaseModel)


def start(compute: Callable[[Model], None], params: type[Model]) -> None:
    """Call `compute` with this process's parameters.

    After a UserError only its message is shown; after any other error, a line with the process and
    file, and the traceback from `compute` on.

    Args:
        compute: reads files, calls the process's module, writes files.
        params: the type of its parameters, from its params.py.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    file = Path(sys.argv[0]).resolve()
    try:
        compute(load_params(params))
    except UserError as error:
        sys.exit(f"{file.parent.name}: {error}")
    except Exception as error:  # a process may raise anything
        frames = error.__traceback__ and error.__traceback__.tb_next
        lines = "".join(traceback.format_exception(type(error), error, frames)).rstrip("\n")
        sys.exit(f"{file.parent.name}: {file.name} failed.\n{lines}")
    except KeyboardInterrupt:
        sys.exit(130)
