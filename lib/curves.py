"""Appends a row for each epoch of a running training to a file.

`lab/processes/run` sets the variable LIVE_CURVE to that file and the tracker follows it, so that
MLflow shows the training before it ends. Processes in other languages do the same: a line with the
columns' names, the first of them `epoch` or `step`, then a line of numbers for each.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def append_to_curve(row: Mapping[str, float]) -> None:
    """Append a row, with the same columns each time, if LIVE_CURVE is set and can be written to.

    Args:
        row: `epoch` or `step`, counted from any number, then any figures by name.
    """
    name = os.environ.get("LIVE_CURVE")
    if not name:
        return
    line = ",".join(map(str, row.values())) + "\n"
    with suppress(OSError):  # a full disk must not end the training
        header = "" if Path(name).exists() else ",".join(row) + "\n"
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(header + line)
