"""The stages of lab/tuning/dvc.yaml fit their sweeps, and `make run` does not run them."""

import json
import re
from pathlib import Path

import grimp
import pytest

from lib.nested import flat
from lib.params import load_params, model_in
from lib.pipeline import files_of, read_pipeline
from lib.space import ranges

pytestmark = pytest.mark.unittest

ROOT = Path(__file__).resolve().parent.parent.parent
SWEEPS = sorted(main.parent.name for main in ROOT.glob("lab/tuning/*/main.py"))
GRAPH = grimp.build_graph("lib", "lab", include_external_packages=True, cache_dir=None)
PIPELINE = read_pipeline()
ENGINES = {"optuna", "ray"}


def imported(main):
    """The files of this repository that a main.py imports, directly or not."""
    return files_of({main} | GRAPH.find_upstream_modules(main), ROOT)


def test_each_sweep_has_a_stage_of_its_name():
    stages = [stage.name for stage in PIPELINE.stages if stage.file == "lab/tuning/dvc.yaml"]
    assert sorted(stages) == SWEEPS


@pytest.mark.parametrize("name", SWEEPS)
def test_the_deps_of_a_stage_are_what_its_main_imports_and_the_lock(name):
    deps = {path for path in PIPELINE.find(name).deps if path.endswith((".py", "Pipfile.lock"))}
    assert deps == imported(f"lab.tuning.{name}.main") | {"lab/tuning/Pipfile.lock"}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_stage_lists_its_section_and_the_tuned_values_not_searched(name):
    """Otherwise `make adopt` would cause a sweep to run again, or other changes would not."""
    model = model_in(Path("lab/tuning") / name / "params.py")
    params, stage = load_params(model, ROOT / "params.yaml"), PIPELINE.find(name)
    (tuned,) = set(model.model_fields) - {"random_seed", name}
    searched = {key for key, _ in ranges(getattr(params, name).space)}
    every = set(flat(getattr(params, tuned).model_dump()))
    listed = {key: value for key, value in stage.params.items() if key.startswith(tuned)}
    # A choice may search a whole section, and so all parameters below it.
    fixed = {key for key in every if not any(f"{key}.".startswith(f"{s}.") for s in searched)}
    assert set(flat(listed)) == {f"{tuned}.{key}" for key in fixed}
    assert set(stage.params) - set(listed) == {"random_seed", name}


@pytest.mark.parametrize("name", SWEEPS)
def test_workers_do_not_import_what_only_the_driver_needs(name):
    for module in (f"lab.tuning.{name}.trial", "lib.engines"):
        used = GRAPH.find_upstream_modules(module)
        assert used & {"optuna", "matplotlib", "pydantic", "ruamel"} == set(), module


def test_make_run_imports_and_installs_no_engine():
    for main in ROOT.glob("lab/processes/*/main.py"):
        used = GRAPH.find_upstream_modules(f"lab.processes.{main.parent.name}.main")
        assert used & (ENGINES | {"lib.engines", "lib.tuning", "lib.sweeps"}) == set(), main
    locks = [ROOT / "Pipfile.lock", ROOT / "tools/tracking/Pipfile.lock"]
    for lock in [*locks, *ROOT.glob("lab/processes/*/Pipfile.lock"), *ROOT.glob("goals/*.lock")]:
        assert set(json.loads(lock.read_text())["default"]) & ENGINES == set(), lock
    made = re.findall(r"(?m)^environments:.*\n\t(.*)", (ROOT / "Makefile").read_text())
    assert len(made) == 1
    assert "tuning" not in made[0]
