"""The curve of a training while it runs: a row for each epoch, appended to a file.

`lab/processes/run` names that file in the variable LIVE_CURVE and the tracker follows it, so that
MLflow shows the training before it ends. A process in another language does the same: a line with
the columns' names, the first of them `epoch` or `step`, then a line of numbers for each.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def append_to_curve(row: Mapping[str, float]) -> None:
    """Append a row, the same columns each time; nothing happens where nobody follows, or can.

    Args:
        row: `epoch` or `step`, counted from any number, then any figures by their names.
    """
    name = os.environ.get("LIVE_CURVE")
    if not name:
        return
    line = ",".join(map(str, row.values())) + "\n"
    with suppress(OSError):  # a disk that is full ends no training
        header = "" if Path(name).exists() else ",".join(row) + "\n"
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(header + line)
