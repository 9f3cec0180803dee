"""Measures the speeds that tests/README.md states, each against a reference.

    tools/within --dev . python -m tests.bench [--quick] [--repeat N] [--only NAME...] [--json FILE]

`make bench` calls it. Seconds differ from machine to machine, ratios hardly: so this template and
its reference take turns (A B A B …), and the medians are compared. The measurements are

    pipeline  all stages, nothing cached, environments in place, against one plain script
              (script.py)
    repro     `dvc repro` with nothing changed, against `dvc status`
    epoch     a training epoch on 200,000 rows, against bare slicing and the per-row DataLoader
    checks    DVC with listings checked, against DVC; a command in an environment that is compared
              with its seal (ENVIRONMENTS_KEY), against one that is not compared
    start     `lab/processes/run NAME` to the first line of main.py, against python main.py
    data      prepare_data and a training epoch on 10 million rows, against 1 million: memory; and
              prepare_data against the same in memory: seconds
    sweeps    trials on two workers against one; 50 short trials, and the overhead of each, against
              a plain loop
    runtime   a prediction through the rehearsed runtime, against onnxruntime called directly
    setup     the environments of `make run`, against `pip install` of the same packages into one

It is no test: a missed goal is shown, not an error. `setup` and `data` take minutes, and `data`
takes 8 GB of disk; --quick leaves both out. Everything happens in copies of the working tree, in a
temporary folder that is removed afterwards.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.conftest import Project

if TYPE_CHECKING:
    from torch import Tensor

    from lib.splits import Splits

# What a run leaves that makes the next one faster: outs, DVC's cache, logged runs.
LEFT_BY_RUNS = ("data", "artifacts", ".dvc/cache", ".mlflow", ".checkpoints", "mlruns")
STORE = "mlflow.db"
ROWS, FEATURES, BATCH_SIZE, LR, SEED = 200_000, 30, 1024, 0.001, 1
PROCESSES = "lab/processes"


@dataclass(frozen=True)
class Comparison:
    """One line of the table: the seconds (or MB) of each turn on both sides, and the goal.

    `goal` is an upper bound of the ratio of the medians, or with `in_seconds` of their difference.
    """

    what: str
    reference: str
    template_seconds: list[float]
    reference_seconds: list[float]
    goal: float
    in_seconds: bool = False
    unit: str = "s"

    @property
    def value(self) -> float:
        """The ratio of the medians, or their difference in seconds."""
        ours, theirs = median(self.template_seconds), median(self.reference_seconds)
        return ours - theirs if self.in_seconds else ours / theirs

    def line(self) -> tuple[str, ...]:
        """The cells of this line."""
        show = (lambda number: f"{number:+.3g} s") if self.in_seconds else "{:.2f} ×".format
        return (
            self.what,
            f"{median(self.template_seconds):.3g} {self.unit}",
            self.reference,
            f"{median(self.reference_seconds):.3g} {self.unit}",
            show(self.value),
            f"≤ {show(self.goal).lstrip('+')}",
            "yes" if self.value <= self.goal else "NO",
        )


def say(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)


def seconds(work: Callable[[], object]) -> float:
    """How many seconds a piece of work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def take_turns(
    competitors: Mapping[str, Callable[[], object]],
    turns: int,
    before: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """The seconds of each competitor's turns; `before` is called before each, not measured."""
    taken: dict[str, list[float]] = {name: [] for name in competitors}
    for turn in range(1, turns + 1):
        for name, work in competitors.items():
            before()
            taken[name].append(seconds(work))
            if turns <= 5:
                say(f"  {turn}/{turns} {name}: {taken[name][-1]:.3f} s")
    return taken


def copy_project(folder: Path) -> Project:
    """A copy of the working tree, committed."""
    return Project(folder)


def environment_of(project: Project, *folder: str) -> Path:
    """The virtual environment of a folder's lock, made if it does not exist yet."""
    command = ("tools/within", *folder, "sh", "-c", 'echo "$VIRTUAL_ENV"')
    return Path(project.run(*command).splitlines()[-1])


def site_packages(environment: Path) -> str:
    """The folder of an environment's packages."""
    return str(next(environment.glob("lib/python3*/site-packages")))


# ---- pipeline


def measure_pipeline(scratch: Path, turns: int) -> list[Comparison]:
    """The pipeline with nothing cached, against the script with mlflow-skinny and full MLflow.

    With mlflow-skinny, the script has the packages of all processes and of the tracker: the
    network's environment, then what it lacks from the others'. With full MLflow, which takes
    longer to import, the script runs in the development environment.
    """
    ours, theirs = copy_project(scratch / "pipeline"), copy_project(scratch / "script")
    (theirs.folder / "dvc.lock").unlink()  # without DVC, no checksum to check a pickle against
    network = environment_of(ours, f"{PROCESSES}/train_dnn_pytorch")
    others = ("prepare_data", "train_standard_classifiers", "export_models")
    packages = [network, *(environment_of(ours, f"{PROCESSES}/{name}") for name in others)]
    packages.append(environment_of(ours, "tools/tracking"))
    path = os.pathsep.join([str(theirs.folder), *map(site_packages, packages)])
    full = environment_of(ours, "--dev", ".")

    def script(python: Path, path: str) -> Callable[[], str]:
        command = (str(python / "bin/python"), "tests/bench/script.py")
        return lambda: theirs.run(*command, PYTHONPATH=path, MLFLOW_DISABLE_TELEMETRY="true")

    side_by_side = ("tools/within", ".", "python", "-m", "tools.job.side_by_side")
    competitors = {
        "pipeline": lambda: ours.dvc("repro"),
        "pipeline, JOBS=2": lambda: ours.run(*side_by_side, "2", "dvc.yaml"),
        "plain script, mlflow-skinny": script(network, path),
        "plain script, full mlflow": script(full, str(theirs.folder)),
    }
    for work in competitors.values():  # creates the stores and warms the disk's cache
        work()
    if differing := differing_outputs(ours.folder, theirs.folder):
        say(f"  NOT THE SAME WORK: pipeline and script differ in {', '.join(differing)}")
    stores = {project: (project.folder / STORE).read_bytes() for project in (ours, theirs)}

    def forget() -> None:
        (ours.folder / "dvc.lock").unlink(missing_ok=True)
        for project, store in stores.items():
            for name in LEFT_BY_RUNS:
                shutil.rmtree(project.folder / name, ignore_errors=True)
            (project.folder / STORE).write_bytes(store)

    taken = take_turns(competitors, turns, forget)
    pipeline, at_once = taken.pop("pipeline"), taken.pop("pipeline, JOBS=2")
    return [
        Comparison(f"pipeline, nothing cached{how}", name, ours_took, script, goal)
        for name, script in taken.items()
        for how, ours_took, goal in (("", pipeline, 1.5), (", JOBS=2", at_once, 1))
    ]


def differing_outputs(*folders: Path) -> list[str]:
    """The outputs of a run that are not the same bytes in two folders.

    Pickles are left out: their bytes depend on which equal strings are one object in a process.
    """

    def outputs(folder: Path) -> set[tuple[str, str]]:
        return {
            (str(file.relative_to(folder)), hashlib.sha256(file.read_bytes()).hexdigest())
            for place in ("data", "artifacts", "metrics")
            for file in (folder / place).rglob("*")
            if file.is_file() and file.suffix != ".joblib"
        }

    first, second = map(outputs, folders)
    return sorted({name for name, _ in first ^ second})


# ---- repro


def measure_repro(scratch: Path, turns: int) -> list[Comparison]:
    """`dvc repro` with nothing changed: prepare_data runs nevertheless, as a query would."""
    project = copy_project(scratch / "repro")
    for _ in range(2):  # the second time, results are unchanged and logged
        project.dvc("repro")
    competitors = {
        "dvc repro": lambda: project.dvc("repro"),
        "dvc status": lambda: project.dvc("status"),
    }
    repro, status = take_turns(competitors, turns).values()
    return [Comparison("dvc repro, nothing changed", "dvc status", repro, status, 1.5, True)]


# ---- checks


def measure_checks(scratch: Path, turns: int) -> list[Comparison]:
    """Checks before use: listings of folders, and in jobs with a key, environments."""
    project = copy_project(scratch / "checks")
    project.dvc("repro")
    guarded = ("tools/within", ".", "python", "-m", "tools.job.guarded_dvc", "status")
    process = ("tools/within", f"{PROCESSES}/prepare_data", "true")

    def start(key: str) -> str:
        # In separate folders: with a key, environments without a seal are made again.
        cache, environments = str(scratch / "cache"), str(scratch / "environments")
        return project.run(
            *process, XDG_CACHE_HOME=cache, WORKON_HOME=environments, ENVIRONMENTS_KEY=key
        )

    start("of the bench")
    competitors: dict[str, Callable[[], object]] = {
        "guarded dvc status": lambda: project.run(*guarded),
        "dvc status": lambda: project.dvc("status"),
        "with a key": lambda: start("of the bench"),
        "without": lambda: start(""),
    }
    checked, plain, with_key, without = take_turns(competitors, turns).values()
    return [
        Comparison("dvc status, listings checked", "dvc status", checked, plain, 0.5, True),
        Comparison("start, environment compared", "not compared", with_key, without, 2, True),
    ]


# ---- epoch


def measure_epoch(scratch: Path, turns: int) -> list[Comparison]:
    """One epoch of the network on rows on disk, as the process trains it."""
    import torch

    from lab.processes.train_dnn_pytorch.params import Params
    from lib.params import load_params
    from lib.pytorch import seed_everything

    settings = load_params(Params).train_dnn_pytorch
    torch.set_num_threads(settings.num_threads)
    splits = large_splits(scratch)
    X, y = torch.tensor(splits.X_train), torch.tensor(splits.y_train, dtype=torch.float32)
    seed_everything(SEED)  # switches to torch's deterministic algorithms, for all three

    from lab.processes.train_dnn_pytorch.densenet import train_densenet

    competitors = {
        "create_dataloader": lambda: train_densenet(
            splits,
            seed=SEED,
            hidden=settings.hidden,
            epochs=1,
            batch_size=BATCH_SIZE,
            lr=LR,
            patience=None,
            device=torch.device("cpu"),
        ),
        "bare slicing in memory": lambda: train_bare(X, y, settings.hidden),
        "per-row DataLoader": lambda: train_per_row(X, y, settings.hidden),
    }
    take_turns(competitors, 1)  # warm-up: the first steps of a process allocate
    ours, slicing, per_row = take_turns(competitors, turns).values()
    _, *references = competitors
    what = f"training epoch, {ROWS:,} rows"
    return [
        Comparison(what, name, ours, theirs, goal)
        for name, theirs, goal in zip(references, (slicing, per_row), (1.1, 0.5), strict=True)
    ]


def large_splits(scratch: Path) -> "Splits":
    """Random rows to train on, memory-mapped, and a few to validate on."""
    import numpy as np

    from lib.splits import Splits, load_data_splits, save_data_splits

    random = np.random.default_rng(SEED)
    X = random.standard_normal((ROWS, FEATURES), dtype=np.float32)
    y = (X[:, 0] + random.standard_normal(ROWS) > 0).astype(np.int64)
    names = tuple(f"feature {number}" for number in range(FEATURES))
    few = slice(0, 8)
    splits = Splits(X, X[few], X[few], y, y[few], y[few], names, ("no", "yes"))
    folder = scratch / "splits"
    folder.mkdir()
    save_data_splits(splits, folder)
    return load_data_splits(folder)


def train_bare(X: "Tensor", y: "Tensor", hidden: list[int]) -> None:
    """An epoch in the shortest possible code: rows in order, one slice per batch."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    from lab.processes.train_dnn_pytorch.densenet import create_densenet

    network = create_densenet(FEATURES, hidden).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=LR, fused=True)
    for start in range(0, len(X), BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        loss = binary_cross_entropy_with_logits(network(X[rows]).flatten(), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train_per_row(X: "Tensor", y: "Tensor", hidden: list[int]) -> None:
    """An epoch of the template's own loop, with a DataLoader as in torch's tutorials."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from lab.processes.train_dnn_pytorch.densenet import create_densenet
    from lib.pytorch import accuracy, train

    train(
        create_densenet(FEATURES, hidden),
        DataLoader(TensorDataset(X, y), batch_size=BATCH_SIZE, shuffle=True),
        DataLoader(TensorDataset(X[:8], y[:8]), batch_size=BATCH_SIZE),
        loss=torch.nn.BCEWithLogitsLoss(),
        metrics={"accuracy": accuracy},
        lr=LR,
        epochs=1,
        patience=None,
        device=torch.device("cpu"),
    )


# ---- data


def measure_data(scratch: Path, turns: int) -> list[Comparison]:
    """Memory on ten times the rows, which should be the same, and time against all in memory."""

    def turn(*arguments: str | Path) -> dict[str, float]:
        command = [sys.executable, "-m", "tests.bench.data", *map(str, arguments)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found: dict[str, float] = json.loads(done.stdout)
        say(f"  {' '.join(map(str, arguments[:1]))}: {found}")
        return found

    folder = scratch / "data"
    for millions in (1, 10):
        turn("make", folder / str(millions), str(millions))
    taken: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(turns):
        for what, millions in (("drawn", 1), ("drawn", 10), ("hashed", 1), ("hashed", 10)):
            out = folder / "out"
            taken.setdefault((what, millions), []).append(turn(what, folder / str(millions), out))
            if what == "drawn":
                taken.setdefault(("train", millions), []).append(turn("train", out))
            shutil.rmtree(out)
        taken.setdefault(("in-memory", 1), []).append(turn("in-memory", folder / "1", out))
        shutil.rmtree(out)
    shutil.rmtree(folder)

    def column(what: str, millions: int, name: str) -> list[float]:
        return [found[name] for found in taken[what, millions]]

    names = {"drawn": "prepare_data, drawn", "hashed": "prepare_data, hashed", "train": "training"}
    goals = {"drawn": 1.5, "hashed": 1.1, "train": 1.1}
    memory = [
        Comparison(
            f"{name}, 10 million rows",
            "1 million",
            column(what, 10, "megabytes"),
            column(what, 1, "megabytes"),
            goals[what],
            unit="MB",
        )
        for what, name in names.items()
    ]
    chunks, at_once = (column(what, 1, "seconds") for what in ("drawn", "in-memory"))
    speed = Comparison("prepare_data, 1 million rows", "in memory", chunks, at_once, 0.5)
    return [*memory, speed]


# ---- sweeps


def measure_sweeps(scratch: Path, turns: int) -> list[Comparison]:
    """Trials of the example's network: of half a second or more, and of about 60 ms.

    Two loops at once, each with half of the trials, show the most that two cores can gain.
    """
    project = copy_project(scratch / "sweeps")
    project.dvc("repro", "prepare_data")
    long, half, short = ("50", "60"), ("50", "30"), ("5", "50")  # epochs and trials

    def seconds_of(*arguments: str, at_once: int = 1) -> float:
        command = ("tools/within", "lab/tuning", "python", "-m", "tests.bench.sweep", *arguments)
        with ThreadPoolExecutor(at_once) as pool:
            outputs = list(pool.map(lambda _: project.run(*command), range(at_once)))
        return max(float(output.splitlines()[-1]) for output in outputs)

    cases = {
        "one worker": partial(seconds_of, *long, "1"),
        "two workers": partial(seconds_of, *long, "2"),
        "one loop": partial(seconds_of, *long, "0"),
        "two loops": partial(seconds_of, *half, "0", at_once=2),
        "short, one worker": partial(seconds_of, *short, "1"),
        "short, two workers": partial(seconds_of, *short, "2"),
        "short, loop": partial(seconds_of, *short, "0"),
        "short, one warm worker": partial(seconds_of, *short, "1", "warm"),
        "short, warm loop": partial(seconds_of, *short, "0", "warm"),
    }
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(turns):
        for name, case in cases.items():
            taken[name].append(case())
            say(f"  {name}: {taken[name][-1]:.2f} s")
    warm, loop = ([s / 50 for s in taken[f"short, {n}"]] for n in ("one warm worker", "warm loop"))
    long_trials, short_trials = f"{long[1]} trials", "50 short trials"
    return [
        Comparison(
            f"{long_trials}, two workers",
            "one worker",
            taken["two workers"],
            taken["one worker"],
            round(1 / 1.5, 2),
        ),
        Comparison(
            f"{long_trials}, two loops at once",
            "one loop",
            taken["two loops"],
            taken["one loop"],
            round(1 / 1.5, 2),
        ),
        Comparison(
            f"{short_trials}, one worker",
            "a plain loop",
            taken["short, one worker"],
            taken["short, loop"],
            1.5,
        ),
        Comparison(
            f"{short_trials}, two workers",
            "a plain loop",
            taken["short, two workers"],
            taken["short, loop"],
            1.5,
        ),
        Comparison("a short trial, warm", "a turn of the loop", warm, loop, 0.05, True),
    ]


# ---- start


def measure_start(scratch: Path, turns: int) -> list[Comparison]:
    """The time between the command and the first line of a process."""
    project = copy_project(scratch / "start")
    main = f"{PROCESSES}/prepare_data/main.py"
    (project.folder / main).write_text("import time\nprint(time.time(), flush=True)\n")
    python = environment_of(project, f"{PROCESSES}/prepare_data") / "bin/python"
    commands = {"run": (f"{PROCESSES}/run", "prepare_data"), "python": (str(python), main)}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(turns):
        for name, command in commands.items():
            began = time.time()
            output = project.run(*command, PYTHONPATH=str(project.folder))
            taken[name].append(float(output.split()[0]) - began)
    what = "run NAME, to the first line of main.py"
    return [Comparison(what, "python main.py", taken["run"], taken["python"], 0.05, True)]


# ---- runtime


def measure_runtime(scratch: Path, turns: int) -> list[Comparison]:
    """One prediction over gRPC and through the nodes: alone, and with a thousand in flight."""
    project = copy_project(scratch / "runtime")
    project.dvc("repro")
    project.commit("Results")
    project.run("make", "runtime", "VERSION=bench", "ANYWAY=yes")
    script = ("tools/within", "tools/krt", "python", "tests/bench/runtime.py")
    output = project.run(*script, "build/cancer-bench.krt", str(turns))
    taken = json.loads(output.splitlines()[-1])
    alone, direct, in_flight = taken["served"], taken["direct"], taken["in flight"]
    return [
        Comparison("a prediction, served", "onnxruntime", alone, direct, 0.02, True),
        Comparison("the same, 1,000 in flight", "onnxruntime", in_flight, direct, 0.005, True),
    ]


# ---- setup


def measure_setup(scratch: Path, turns: int) -> list[Comparison]:
    """All environments of `make run`, including pipenv's own, against one with all packages.

    Both find every package in their caches: pip's, and uv's.
    """
    project = copy_project(scratch / "setup")
    requirements = scratch / "requirements.txt"
    requirements.write_text("\n".join(pinned_packages(project.folder)) + "\n")
    fresh, cache = scratch / "fresh", str(scratch / "pip-cache")
    caches = ("env", f"PIP_CACHE_DIR={cache}", f"UV_CACHE_DIR={scratch / 'uv-cache'}")
    homes = (*caches, f"XDG_DATA_HOME={fresh}/data", f"XDG_CACHE_HOME={fresh}/cache")
    python = str(Path(sys.executable).resolve())
    packages = ("--quiet", "--no-deps", "--requirement", str(requirements))

    def make_environments() -> None:
        command = f'"$(tools/environments/bootstrap)" -m tools.environments make . {PROCESSES}/*/'
        project.run(*homes, "sh", "-c", command)

    def pip_install() -> None:
        project.run(python, "-m", "venv", str(fresh / "one"))
        project.run(*caches, f"{fresh}/one/bin/python", "-m", "pip", "install", *packages)

    say("  filling the caches")
    pip_install()
    make_environments()
    shutil.rmtree(fresh)
    competitors = {"make run's environments": make_environments, "pip install": pip_install}
    taken = take_turns(competitors, turns, lambda: shutil.rmtree(fresh, ignore_errors=True))
    shutil.rmtree(fresh, ignore_errors=True)
    ours, theirs = taken.values()
    return [Comparison("set-up, packages cached", "pip install into one", ours, theirs, 0.5)]


def pinned_packages(folder: Path) -> list[str]:
    """The packages that the locks name for `make run`, each once, as requirements."""
    locks = [folder / "Pipfile.lock", *sorted(folder.glob(f"{PROCESSES}/*/Pipfile.lock"))]
    packages: dict[str, dict[str, str]] = {}
    for lock in locks:
        packages |= json.loads(lock.read_text())["default"]
    return [
        name + entry["version"] + (f" ; {entry['markers']}" if "markers" in entry else "")
        for name, entry in sorted(packages.items())
    ]


# ---- output


MEASUREMENTS: dict[str, Callable[[Path, int], list[Comparison]]] = {
    "pipeline": measure_pipeline,
    "repro": measure_repro,
    "checks": measure_checks,
    "epoch": measure_epoch,
    "data": measure_data,
    "sweeps": measure_sweeps,
    "start": measure_start,
    "runtime": measure_runtime,
    "setup": measure_setup,
}


def table(comparisons: list[Comparison]) -> str:
    """The comparisons as text, columns aligned."""
    header = ("what", "here", "against", "takes", "so", "goal", "reached")
    lines = [header, *(comparison.line() for comparison in comparisons)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main() -> None:
    """Run the measurements that the arguments name, and print them."""
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave out set-up and data")
    parser.add_argument(
        "--repeat", type=int, metavar="N", help="turns of each (5; set-up, data: 1)"
    )
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument("--json", metavar="FILE", help="write all turns there; - is stdout")
    arguments = parser.parse_args()
    comparisons = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # removes the folder, too
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        # DVC keeps a database per repository outside of it: here, it is removed with the rest.
        os.environ["DVC_SITE_CACHE_DIR"] = f"{folder}/dvc"
        for name in arguments.only:
            if name in ("setup", "data") and arguments.quick:
                continue
            say(f"{name} …")
            turns = arguments.repeat or (1 if name in ("setup", "data") else 5)
            comparisons += MEASUREMENTS[name](Path(folder), turns)
    if arguments.json:
        content = [{**asdict(c), "value": c.value} for c in comparisons]
        text = json.dumps(content, indent=2) + "\n"
        if arguments.json == "-":
            print(text)
        else:
            Path(arguments.json).write_text(text)
    print(table(comparisons))


if __name__ == "__main__":
    main()
