"""Trains on several workers: `make train WORKERS=2`.

The number of workers is a parameter, because the last bits of the results depend on it: it is
written into params.yaml, and the stage is run.
"""

import subprocess
import sys

from lib.errors import UserError
from lib.files import read_text, replaced_file
from lib.params import FILE, read_yaml
from lib.pipeline import MAIN, in_root, read_pipeline
from lib.repository import ROOT
from tools.command import as_command
from tools.job import guarded_dvc
from tools.rewriting import put

KEY = "workers"


def train(workers: str, name: str) -> int:
    """Run a stage with this many workers; the exit code.

    Args:
        workers: how many.
        name: the stage; if empty, the only one that has the parameter `workers`.

    Raises:
        UserError: there is no such stage, or several; one of its deps is missing; or `workers` is
            not a number.
    """
    if not workers.isdecimal() or int(workers) < 1:
        raise UserError(f"WORKERS is {workers!r}: it must be a number such as 2.")
    params = read_yaml(ROOT / FILE)
    stages = {s.name: s for s in read_pipeline().stages if s.file == MAIN}
    sections = {each: params.get(each) for each in stages}
    able = [n for n, section in sections.items() if isinstance(section, dict) and KEY in section]
    if not able:
        raise UserError(
            f"No stage has {KEY} in its section of {FILE}: lab/processes/SCALE.md says how a "
            "training gets them."
        )
    if (name or len(able) != 1) and name not in able:
        raise UserError(f"NAME is {name!r}: the stages that have {KEY} are {', '.join(able)}.")
    stage = name or able[0]
    if missing := [d for d in stages[stage].deps if in_root(d) and not (ROOT / d).exists()]:
        raise UserError(
            f"{', '.join(missing)} is not here, which {stage} reads: `make run`, or `dvc pull`."
        )
    text, _ = put(read_text(ROOT / FILE), stage, {KEY: int(workers)})
    with replaced_file(ROOT / FILE) as new:
        new.write_text(text, encoding="utf-8")
    dvc = (sys.executable, "-m", guarded_dvc.__name__, "exp", "run", "--single-item", stage)
    return subprocess.run(dvc, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    as_command(lambda: train(*sys.argv[1:]))
