"""The stages of dvc.yaml fit their processes: allowed imports, and the deps that DVC must know."""

import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

from lib.params import model_in
from lib.pipeline import files_of, in_root, read_pipeline
from lib.repository import ask_git

pytestmark = pytest.mark.unittest

ROOT = Path(__file__).resolve().parent.parent.parent
PROCESSES = sorted(main.parent.name for main in ROOT.glob("lab/processes/*/main.py"))
GRAPH = grimp.build_graph("lib", "lab", cache_dir=None)
RUN = re.compile(r"lab/processes/run ([\w-]+)")  # a process, perhaps in another language
# Each stage, as DVC resolves it, that starts a process in Python, or several.
STAGES = {
    stage.address: (stage, started)
    for stage in read_pipeline().stages
    if (started := {*RUN.findall(" && ".join(stage.commands))} & {*PROCESSES})
}


def imported(process):
    """The files of this repository that a process's main.py imports, directly or not."""
    main = f"lab.processes.{process}.main"
    return files_of({main} | GRAPH.find_upstream_modules(main), ROOT)


def runs_python_alone(stage):
    """Whether a stage starts no process in another language, which may read anything."""
    return {*RUN.findall(" && ".join(stage.commands))} <= {*PROCESSES}


def test_each_process_is_started_by_a_stage():
    assert set().union(*(started for _, started in STAGES.values())) == set(PROCESSES)


@pytest.mark.parametrize("stage", STAGES)
def test_the_deps_of_a_stage_are_what_its_main_imports_and_its_lock(stage):
    stage, started = STAGES[stage]
    deps = {path for path in stage.deps if path.endswith((".py", "Pipfile.lock"))}
    wanted = {f"lab/processes/{process}/Pipfile.lock" for process in started}
    wanted |= set().union(*map(imported, started))
    assert wanted - deps == set(), "a change in these would not run the stage again"
    if runs_python_alone(stage):
        assert deps - wanted == set(), "a change in these would run the stage for nothing"


def test_a_stage_lists_the_image_that_its_process_runs_in():
    for stage in read_pipeline().stages:
        for process in RUN.findall(" && ".join(stage.commands)):
            image = f"lab/processes/{process}/image"
            listed = image in stage.deps or not (ROOT / image).exists()
            assert listed, f"{image} is no dep: another image would not run {stage.address} again"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_the_parameter_sections_that_its_process_reads(stage):
    stage, started = STAGES[stage]
    models = [model_in(Path("lab/processes", process, "params.py")) for process in started]
    # Of two files with the same key, the second one's is `FILE:KEY` in stage.params.
    places = stage.elsewhere
    others = {place if place in stage.params else place.partition(":")[2] for place in places}
    listed = {key.partition(".")[0] for key in stage.params if key not in others}
    wanted = set().union(*(model.model_fields for model in models))
    assert wanted - listed == set(), "a change in these would not run the stage again"
    if runs_python_alone(stage):
        assert listed - wanted == set(), "a change in these would run the stage for nothing"


def test_git_ignores_what_dvc_keeps():
    """DVC removes the lines that it added to .gitignore when a later stage fails."""
    stages = [stage for stage in read_pipeline().stages if stage.commands]
    kept = {path for s in stages for path in {*s.written} - s.uncached if in_root(path)}
    # git tracks nothing behind a link, and check-ignore fails at the first such path.
    kept = {path for path in kept if not any(map(Path.is_symlink, (ROOT / path).parents))}
    asked = "".join(f"{path}\0{path}/\0" for path in kept)  # a line may match only folders
    environment = {"GIT_LITERAL_PATHSPECS": "0"}  # check-ignore does not support it
    answer = ask_git("check-ignore", "--stdin", "-z", folder=ROOT, stdin=asked, **environment)
    assert answer.returncode <= 1, answer.stderr
    ignored = {path.rstrip("/") for path in answer.stdout.split("\0")}
    why = (
        "`git add` would take these, and DVC then refuses to write them: a line each in .gitignore"
    )
    assert kept - ignored == set(), why


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_imports_no_other_process(process):
    above = {"lab/__init__.py", "lab/processes/__init__.py"}  # of the packages that it is in
    files = imported(process) - above
    foreign = [f for f in files if f.startswith("lab/") and f"/{process}/" not in f]
    assert foreign == []


def test_lib_does_not_import_its_users():
    for module in GRAPH.find_descendants("lib"):
        used = GRAPH.find_modules_directly_imported_by(module)
        assert all(name.startswith("lib") for name in used), f"{module} imports {used}"


def test_modules_of_processes_get_values_only():
    touches = re.compile(r"\b(environ\b|getenv|load_params|read_yaml|open\()")
    for main in [*ROOT.glob("lab/processes/*/main.py"), *ROOT.glob("lab/tuning/*/main.py")]:
        for file in set(main.parent.glob("*.py")) - {main}:
            if not (file.match("*_test.py") or file.match("test_*.py")):
                found = touches.findall(file.read_text())
                assert found == [], f"{file} touches files or the environment"


def test_every_lock_fits_its_pipfile_and_all_agree():
    verify = '"$(tools/environments/bootstrap)" -m tools.environments verify'
    done = subprocess.run(
        ["sh", "-c", verify], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_tracked_files_name_no_index():
    locks = list(ROOT.glob("**/Pipfile.lock"))
    assert len(locks) >= len(PROCESSES) + 1
    for lock in locks:
        assert '"sources": []' in lock.read_text(), lock
        assert "[[source]]" not in lock.with_name("Pipfile").read_text(), lock


@cache
def packages_of_modules():
    """The installed packages that contain a module, by the module's name."""
    return {m: {normal(p) for p in found} for m, found in packages_distributions().items()}


def normal(package):
    """A package's name, normalised as by package indexes."""
    return re.sub(r"[-_.]+", "-", package).lower()


def packages_in(pipfile):
    return {normal(package) for package in tomllib.loads(pipfile)["packages"]}


def not_named(modules, pipfile):
    """The modules in no package of a Pipfile; a package that is not installed may have any."""
    here, named = packages_of_modules(), packages_in(pipfile)
    unknown = named - set().union(*here.values())
    missing = {m for m in modules if not here.get(m, {normal(m)}) & named}
    return {m for m in missing if m in here or not unknown}


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_locks_what_it_imports(process):
    """Each third-party package that a process imports is named in its own Pipfile."""
    graph = grimp.build_graph("lib", "lab", include_external_packages=True, cache_dir=None)
    main = f"lab.processes.{process}.main"
    external = {m for m in graph.find_upstream_modules(main) if graph.is_module_squashed(m)}
    third_party = {m for m in external if m not in sys.stdlib_module_names}
    missing = not_named(third_party, (ROOT / "lab/processes" / process / "Pipfile").read_text())
    # Imported inside functions and optional: lib/splits.py's as_type="tensor".
    assert missing - {"torch", "mlflow"} == set()


def test_a_module_is_known_by_its_package():
    pipfile = '[packages]\npillow = "*"\nPyYAML = "*"\nscikit-learn = "*"\n'
    assert not_named({"PIL", "yaml", "sklearn", "numpy"}, pipfile) == {"numpy"}
    assert not_named({"cv2", "numpy"}, pipfile) == {"cv2", "numpy"}
    assert not_named({"cv2", "numpy"}, pipfile + 'opencv-not-here = "*"\n') == {"numpy"}


@pytest.mark.parametrize("process", PROCESSES)
def test_no_module_of_a_process_hides_a_package_that_it_locks(process):
    """Python looks for modules beside main.py first: `import xgboost` would find xgboost.py."""
    folder = ROOT / "lab/processes" / process
    packages = packages_in((folder / "Pipfile").read_text())
    for file in folder.glob("*.py"):
        hidden = packages & {normal(file.stem), *packages_of_modules().get(file.stem, ())}
        assert not hidden, f"{file.relative_to(ROOT)} hides the package {hidden}: rename the module"
