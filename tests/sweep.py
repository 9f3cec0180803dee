"""A sweep of quick trials, for tuning_test.py, in the environment of lab/tuning.

    tools/within lab/tuning python -m tests.sweep FOLDER WORKERS SECONDS [NODES [kill]]

Writes FOLDER/trials.csv, and to FOLDER/computed a line when a trial begins and one when it ends.
With NODES, on a cluster of Ray that has so many; with `kill`, the last is killed while it works.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lib.files import write_csv
from lib.params import Real, Section
from lib.space import Tuning, space_of
from lib.sweeps import trial_rows
from lib.tuning import fingerprint, suggest, tune


class Model(Section):
    """What is tuned."""

    x: Real
    wait: int


SPACE = space_of(Model).model_validate(
    {"x": {"uniform": [-1.0, 1.0]}, "wait": {"choice": [1, 2, 3]}}
)
SETTINGS = {"objective": "loss", "better": "smaller", "trials": 16, "batch": 8}


def trial(data: tuple[str, float], values: dict[str, float], _: object) -> dict[str, float]:
    """The loss of x, after up to three times so many seconds: not the first is done first."""
    folder, seconds = data
    node = os.environ.get("RAY_RAYLET_PID", str(os.getppid()))
    for line in ("begins", "ends"):
        with Path(folder, "computed").open("a") as file:
            file.write(f"{line} {values['x']} {node}\n")
        if line == "begins":
            time.sleep(seconds * values["wait"])
    return {"loss": (values["x"] - 0.3) ** 2}


def lines(folder: str) -> list[list[str]]:
    """What was computed so far: begins or ends, x, node."""
    file = Path(folder, "computed")
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


@contextmanager
def cluster(folder: str, nodes: int, killed: bool) -> Iterator[None]:
    """A cluster of Ray on this machine, one processor a node."""
    from ray.cluster_utils import Cluster

    found = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    added = [found.add_node(num_cpus=1) for _ in range(nodes - 1)]
    found.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = found.address

    def kill() -> None:
        own = str(added[-1].all_processes["raylet"][0].process.pid)
        while not working(folder, own):
            time.sleep(0.01)
        found.remove_node(added[-1], allow_graceful=False)

    if killed:
        threading.Thread(target=kill, daemon=True).start()
    try:
        yield
    finally:
        import ray

        ray.shutdown()
        found.shutdown()


def working(folder: str, node: str) -> bool:
    """Whether a node has a trial that it has begun and not ended, and another has ended one."""
    found = lines(folder)
    begun = {x for line, x, where in found if where == node and line == "begins"}
    ended = {x for line, x, where in found if where == node and line == "ends"}
    return bool(begun - ended) and any(where != node for line, _, where in found if line == "ends")


def main() -> None:
    """The command that the module's docstring shows."""
    folder, workers, seconds, *rest = sys.argv[1:]
    settings = Tuning.model_validate(SETTINGS | {"workers": int(workers)})

    def sweep() -> None:
        began = time.monotonic()
        found = tune(
            partial(suggest, space=SPACE),
            trial,
            (folder, float(seconds)),
            settings,
            seed=0,
            origin=fingerprint(0),
            folder=Path(folder, "trials"),
        )
        print(f"seconds {time.monotonic() - began:.2f}")
        write_csv(Path(folder, "trials.csv"), trial_rows(found))

    if rest:
        with cluster(folder, int(rest[0]), "kill" in rest):
            sweep()
    else:
        sweep()


if __name__ == "__main__":
    # By its name, so that workers import it.
    from tests import sweep

    sweep.main()
