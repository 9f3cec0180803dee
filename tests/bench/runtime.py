"""Seconds of one prediction: from a served .krt, and from onnxruntime directly (for `make bench`).

    tools/within tools/krt python tests/bench/runtime.py FILE TURNS

Prints JSON: for each turn, both sides' median of a hundred predictions, and for the served runtime
also the time per prediction with a thousand in flight.
"""

import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime

from tools.krt.rehearse import served


def seconds(work: Callable[[], object]) -> float:
    """How many seconds a piece of work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Take turns."""
    file, turns = Path(sys.argv[1]), int(sys.argv[2])
    with Path("data/raw/breast_cancer.csv").open(encoding="utf-8") as rows:
        row = next(csv.DictReader(rows))
    features = {name: float(value) for name, value in row.items() if name != "malignant"}
    X = np.array([list(features.values())])
    many = [{"features": features}] * 1000
    taken: dict[str, list[float]] = {"served": [], "direct": [], "in flight": []}
    with served(file) as runtime:
        session = onnxruntime.InferenceSession(runtime.asset("assets/model.onnx"))
        ways: dict[str, Callable[[], object]] = {
            "served": lambda: runtime.call("Predict", features=features),
            "direct": lambda: session.run(["probabilities"], {"features": X}),
        }
        for _ in range(turns):
            for name, way in ways.items():
                taken[name].append(median(seconds(way) for _ in range(100)))
            taken["in flight"].append(seconds(lambda: runtime.call_many("Predict", many)) / 1000)
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
