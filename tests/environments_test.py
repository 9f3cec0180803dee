"""`tools/within` makes environments once and completely, and uses none of another user's."""

import hashlib
import http.server
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import zipfile
from pathlib import Path

import pytest

from tests.conftest import answer, server_that, wait_for, write_executable

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent

PIPFILE = """
[packages]
six = "==1.17.0"

[requires]
python_version = "3.11"
"""
MAIN = """
import sys, six, lib.errors
print("six", six.__version__, sys.prefix, sys.argv[1:])
"""


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A Pipfile.lock for PIPFILE, resolved once."""
    project = copy_project(tmp_path_factory.mktemp("locked"))
    process = project / "lab/processes/small"
    process.mkdir()
    (process / "Pipfile").write_text(PIPFILE)
    done = command(project, project, 'make lock FOLDERS="lab/processes/small"')
    assert (process / "Pipfile.lock").exists(), done.stderr
    return (process / "Pipfile.lock").read_text()


@pytest.fixture
def project(tmp_path, locked):
    """The scripts of this repository and one process, called small."""
    return small(tmp_path / "a project with spaces, ünï¢ode", locked)


def small(folder, locked):
    project = copy_project(folder)
    process = project / "lab/processes/small"
    process.mkdir()
    (process / "Pipfile").write_text(PIPFILE)
    (process / "Pipfile.lock").write_text(locked)
    (process / "main.py").write_text(MAIN)
    return project


@pytest.fixture(scope="module")
def shared(tmp_path_factory, locked):
    """A folder in which the environment of the small process exists already."""
    data = tmp_path_factory.mktemp("shared")
    done = run(small(data / "first", locked), data)
    assert done.returncode == 0, done.stderr
    return data


FILES = list((ROOT / "tools/environments").iterdir())


def copy_project(folder):
    environments = [f"tools/environments/{file.name}" for file in FILES if file.is_file()]
    scripts = [f"lib/{name}.py" for name in ("errors", "files", "repository", "text")]
    scripts += ["tools/within", "tools/run", "tools/command.py"]
    for script in (*environments, *scripts, "lab/processes/run", ".env", "Makefile"):
        (folder / script).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / script, folder / script)
    return folder


def environment(data, **extra):
    return {**os.environ, "XDG_DATA_HOME": str(data / "data"), "WORKON_HOME": "", **extra}


def command(project, data, line, **extra):
    return subprocess.run(
        ["sh", "-c", line],
        cwd=project,
        env=environment(data, **extra),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run(project, data, arguments="small", **extra):
    return command(project, data, f"lab/processes/run {arguments}", **extra)


def made(data):
    return sorted(p.name for p in (data / "data/virtualenvs").iterdir() if p.is_dir())


NO_NETWORK = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0"}


def test_a_process_runs_in_the_environment_named_after_its_lock(project, tmp_path, locked):
    done = run(project, tmp_path, "small --flag 'two words'")
    name = "small-" + hashlib.sha256(locked.encode()).hexdigest()[:12]
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("six 1.17.0")
    assert name in done.stdout
    assert "['--flag', 'two words']" in done.stdout
    assert made(tmp_path) == [name]


def test_an_existing_environment_is_used_offline_and_by_other_clones(project, tmp_path):
    run(project, tmp_path)
    again = run(project, tmp_path, **NO_NETWORK)
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    clone = shutil.copytree(project, tmp_path / "clone")
    other = run(clone, tmp_path, **NO_NETWORK)
    assert (other.returncode, other.stdout) == (0, again.stdout)


def test_a_folder_reached_by_a_link_has_the_environment_of_its_own_name(project, shared, tmp_path):
    (tmp_path / "link").symlink_to(project / "lab/processes/small")
    line = "'{}/tools/within' '{}/link' python -c 'import sys; print(sys.prefix)'"
    done = command(project, shared, line.format(project, tmp_path))
    assert Path(done.stdout.strip()).name in made(shared), done.stdout + done.stderr


def test_an_unknown_name_lists_the_known_ones(project, tmp_path):
    (project / "lab/processes/shell").mkdir()
    write_executable(project / "lab/processes/shell/main", "#!/bin/sh\n")
    for wrong in ("smal", "", "../processes/small", "."):
        done = run(project, tmp_path, f"'{wrong}'")
        assert done.returncode == 2, f"{wrong!r} was accepted"
        assert "Known: shell small." in done.stderr


@pytest.mark.parametrize("arguments", ["", ".", "--dev", "--dev ."])
def test_a_missing_command_is_reported(project, tmp_path, arguments):
    done = command(project, tmp_path, f"tools/within {arguments}")
    assert (done.returncode, done.stderr.partition(":")[0]) == (2, "usage"), done.stderr


def test_a_process_in_another_language_runs_by_the_same_command(project, tmp_path):
    (project / "lab/processes/shell").mkdir()
    script = '#!/bin/sh\necho "$PWD" "$@"\n'
    write_executable(project / "lab/processes/shell/main", script)
    done = run(project, tmp_path, "shell one 'two three'")
    assert done.stdout == f"{project} one two three\n"


def test_an_outdated_lock_says_to_run_make_lock(project, tmp_path):
    run(project, tmp_path)
    pipfile = project / "lab/processes/small/Pipfile"
    pipfile.write_text(PIPFILE.replace("1.17.0", "1.16.0"))
    done = run(project, tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "lab/processes/small/Pipfile.lock no longer fits its Pipfile: run `make lock`."
    )
    pipfile.write_text(PIPFILE + "\n# a comment changes nothing\n")
    assert run(project, tmp_path, **NO_NETWORK).returncode == 0


@pytest.mark.parametrize("lock", [None, "<<<<<<< HEAD\n{}\n"])
@pytest.mark.parametrize("kind", ["lab/processes", "runtimes"])
def test_a_missing_pipfile_is_reported_before_its_lock(project, tmp_path, kind, lock):
    place = project / kind / "bare"
    place.mkdir(parents=True)
    if lock:
        (place / "Pipfile.lock").write_text(lock)
    done = command(project, tmp_path, f"tools/within {kind}/bare true")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"{kind}/bare/Pipfile is missing: write it ({kind}/README.md says what is in it), then "
        "run `make lock`."
    )


@pytest.mark.parametrize("text", [None, "", "{}", "<<<<<<< HEAD\n{}\n"])
def test_a_missing_or_broken_lock_says_to_run_make_lock(project, tmp_path, text):
    lock = project / "lab/processes/small/Pipfile.lock"
    lock.unlink() if text is None else lock.write_text(text)
    done = run(project, tmp_path)
    assert done.returncode == 1
    assert "run `make lock`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lock_fits_whatever_the_sites_index(project, tmp_path):
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://site.example/simple\n")
    line = '"$(tools/environments/bootstrap)" -m tools.environments verify'
    done = command(project, tmp_path, line, PIP_CONFIG_FILE=str(tmp_path / "pip.conf"))
    assert done.returncode == 0, done.stderr


def test_an_unreachable_index_is_reported_in_one_line(project, tmp_path):
    done = run(project, tmp_path, **NO_NETWORK)
    assert done.returncode == 1
    assert "/six/ error sending request" in done.stderr
    assert "pip config list" in done.stderr
    assert "Traceback" not in done.stderr
    assert run(project, tmp_path).returncode == 0, "with a network, the next try succeeds"


def test_a_killed_installation_is_redone_and_never_used(project, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        first = subprocess.Popen(
            ["lab/processes/run", "small"],
            cwd=project,
            env=environment(tmp_path, PIP_INDEX_URL=index, PIP_NO_CACHE_DIR="1"),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: list(tmp_path.glob("data/virtualenvs/small-*/bin/python")))
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    [half] = tmp_path.glob("data/virtualenvs/small-*/")
    assert not (half / "complete").exists()
    (half / "left-over").touch()
    done = run(project, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (half / "left-over").exists()
    assert not (half / "tmp").exists()
    (half / "bin/python").unlink()
    (half / "bin/python").write_text("")  # exists, but cannot be started
    done = run(project, tmp_path)
    assert done.returncode == 0, done.stderr


def test_simultaneous_starts_make_one_environment(project, tmp_path):
    starts = [
        subprocess.Popen(
            ["lab/processes/run", "small"],
            cwd=project,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    ends = [start.communicate(timeout=300) for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0], ends
    assert len({out for out, _ in ends}) == 1
    [name] = made(tmp_path)
    created = (tmp_path / f"data/virtualenvs/{name}.log").read_text().count("uv venv")
    assert created == 1


def test_clean_removes_unused_environments_and_says_how_much_it_freed(project, tmp_path, locked):
    run(project, tmp_path)
    [old] = made(tmp_path)
    lock = project / "lab/processes/small/Pipfile.lock"
    lock.write_text(locked + "\n")
    run(project, tmp_path)
    new = next(name for name in made(tmp_path) if name != old)

    kept = command(project, tmp_path, "make clean")
    assert f"kept {old}" in kept.stdout, "used recently, perhaps by another clone"
    assert "make clean DAYS=0" in kept.stdout
    listed = command(project, tmp_path, "make list").stdout
    assert all(name in listed for name in (old, new))

    removed = command(project, tmp_path, "make clean DAYS=0")
    assert f"removed {old}" in removed.stdout
    assert re.search(r"^\d+ MB freed\.$", removed.stdout, re.MULTILINE)
    assert made(tmp_path) == [new]


# ---- .env


DOTENV = r"""
PYTHONPATH=.
DATABASE_URL=postgresql://h/x?a=1&b=2
export EXPORTED=yes
SPACES = around it   # a comment
HASH=a#b
SINGLE='it\'s $HOME ${HOME}'
DOUBLE="a \"quote\", a \ttab, `id` $(id) ${HOME}"
LINES="one
two"
DEFAULT=${NOWHERE:-a default's "text" $(id)}
KEPT=${FROM_OUTSIDE:-unused}
EMPTY=${SET_TO_NOTHING:-unused}
FIRST=${NOWHERE}1
SECOND=${FIRST}2
FIRST=again ${FIRST}
UID=1000
env=prod
name.with-dots=1
DOTTED=${name.with-dots}
NO_VALUE
'QUOTED'=name
UNICODE=ünï¢ode
DOLLAR=$HOME \$HOME
NOTHING=
PATH=/somewhere:${PATH}
SUBSTITUTED=$(touch executed)`touch executed`
"""
SHOW = "import json, os, sys; json.dump(dict(os.environ), sys.stdout)"


def seen_within(project, data, **extra):
    """The variables of a command in the small process's environment, and stderr."""
    (project / "seen.py").write_text(SHOW)
    line = "tools/within lab/processes/small python -I seen.py"
    done = command(project, data, line, **extra)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def seen_by_pipenv(project, **extra):
    """The variables that pipenv reads from the same file, as for `pipenv run`."""
    read = "from pipenv.vendor.dotenv import load_dotenv; load_dotenv('.env', override=True); "
    done = command(
        project, project, f'"$(tools/environments/bootstrap)" -c "{read}{SHOW}"', **extra
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "text",
    [
        DOTENV.encode(),
        DOTENV.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + DOTENV.encode(),
        b"",
    ],
    ids=["plain", "CRLF", "BOM", "empty"],
)
def test_dotenv_is_read_as_by_pipenv_and_none_of_it_is_executed(project, shared, text):
    (project / ".env").write_bytes(text)
    given = {"FROM_OUTSIDE": "outside 'it'", "SET_TO_NOTHING": "", "name": "kept", "root": "kept"}
    ours, error = seen_within(project, shared, **given)
    theirs = seen_by_pipenv(project, **given)
    assert not (project / "executed").exists()
    assert error == ""
    prefix, theirs["PATH"] = ours["PATH"].partition(":")[0] + ":", theirs["PATH"].strip()
    assert ours.pop("PATH") == prefix + theirs.pop("PATH")
    assert ours.pop("PYTHONPATH") == str(project)
    # These differ by nature: those of the environment itself, of a shell and of pipenv's Python.
    own = {"PYTHONPATH", "VIRTUAL_ENV", "XDG_DATA_HOME", "_", "SHLVL", "PWD", "OLDPWD"}
    own |= {"PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "PYTHONIOENCODING", "no_proxy", "NO_PROXY"}
    own |= {"SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_DISABLE_PIP_VERSION_CHECK"}
    assert {k: v for k, v in ours.items() if k not in own} == {
        k: v for k, v in theirs.items() if k not in own
    }


def test_a_changed_dotenv_is_read_again(project, shared):
    for value in ("one", "two", "one"):
        (project / ".env").write_text(f"CHANGING={value}\n")
        assert seen_within(project, shared)[0]["CHANGING"] == value


def test_an_unreadable_line_of_dotenv_is_reported_and_left_out(project, shared):
    (project / ".env").write_text("A=1\n\nB='open\nC=3\n")
    for _ in range(2):
        seen, error = seen_within(project, shared)
        assert (seen["A"], seen["C"]) == ("1", "3")
        assert "B" not in seen
        assert error == ".env, line 3 cannot be read and is left out: is a quote open there?\n"


@pytest.mark.parametrize("text", [b"A=1\nB=caf\xe9\n", b"A=1\nB=\0\n", b"A=1\n'a=b'=1\n"])
def test_a_dotenv_with_invalid_variables_is_refused_in_one_line(project, shared, text):
    (project / ".env").write_bytes(text)
    done = command(project, shared, "tools/within lab/processes/small true")
    assert done.returncode == 1
    assert re.fullmatch(r"\.env, line 2: .*\n", done.stderr), done.stderr


# ---- surroundings


@pytest.mark.parametrize(
    "name",
    [
        *("a:b", "a;b", "a'b", 'a"b', "a$HOME", "a\\b", "a%b", "a#b", "a=b", "a*[b]", "a\nb", "ä"),
        "a{b}",
    ],
)
def test_a_clone_in_any_folder_works_or_is_refused_in_one_line(shared, tmp_path, locked, name):
    project = small(tmp_path / name, locked)
    done = run(project, shared)
    if ":" in name:
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert "has a colon in its name" in line
        made = command(project, shared, "make environments")
        assert made.returncode != 0
        assert "has a colon in its name" in made.stderr, "refused before anything runs"
    elif "{" in name:
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert "has a brace in its name" in line
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("six 1.17.0")
        line = f"tools/within lab/processes/small '{tmp_path}/command=1' two"
        write_executable(tmp_path / "command=1", '#!/bin/sh\necho "one $1"\n')
        assert command(project, shared, line).stdout == "one two\n"


@pytest.mark.parametrize("name", ["HOME", "WORKON_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"])
def test_a_relative_folder_for_environments_is_refused(project, name):
    variables = {"PATH": os.environ["PATH"], "HOME": str(project / "home"), name: "a folder"}
    line = ["tools/within", "lab/processes/small", "true"]
    done = subprocess.run(
        line, cwd=project, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "let HOME, WORKON_HOME, XDG_CACHE_HOME and XDG_DATA_HOME begin with '/'" in done.stderr
    assert not (project / "a folder").exists()
    assert not (project / "home").exists()


@pytest.fixture(scope="module")
def unusual(tmp_path_factory, locked):
    """A first start for a user with all settings that could mislead Python and pip."""
    data = tmp_path_factory.mktemp("unusual")
    project = small(data / "project", locked)
    (data / "pip.conf").write_text("[global]\nuser = true\nrequire-virtualenv = true\n")
    elsewhere, cache = str(data / "elsewhere"), data / "a cache, ünï¢ode"
    names = ("PYTHONHOME", "PYTHONUSERBASE", "PIP_TARGET", "PIP_PREFIX", "PIP_CONSTRAINT")
    settings = dict.fromkeys(names, elsewhere) | {"PIP_CONFIG_FILE": str(data / "pip.conf")}
    settings |= {"PIP_USER": "1", "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "ascii"}
    done = run(project, data, XDG_CACHE_HOME=str(cache), LC_ALL="C", **settings)
    assert done.returncode == 0, done.stderr
    return done, project, cache


def test_the_users_settings_of_python_and_pip_change_nothing(unusual):
    done, project, _ = unusual
    assert done.stdout.startswith("six 1.17.0")
    assert not project.with_name("elsewhere").exists()


def test_the_pipenv_of_the_bootstrap_can_be_called_by_hand(unusual):
    _, project, cache = unusual
    line = '"$(dirname "$(tools/environments/bootstrap)")/pipenv" --version'
    done = command(project, project.parent, line, XDG_CACHE_HOME=str(cache))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pipenv, version")
    made = [place.name for place in cache.iterdir() if place.name.startswith("bootstrap")]
    assert len(made) == 1, "no temporary folder is left"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "sh"])
def test_make_shell_has_the_environments_python_whatever_the_shell_reads(
    project, shared, tmp_path, shell
):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    conda = tmp_path / "conda"
    conda.mkdir()
    write_executable(conda / "python", "#!/bin/sh\necho conda\n")
    home = tmp_path / "home"
    (home / ".config/fish").mkdir(parents=True)
    for file in (".bashrc", ".zshrc", ".shrc"):
        (home / file).write_text(f'PATH="{conda}:$PATH" MINE=read\nexport MINE\n')
    (home / ".config/fish/config.fish").write_text(
        f'set -gx PATH "{conda}" $PATH; set -gx MINE read\n'
    )
    # Both are common with zsh: start files elsewhere, and files beside them.
    (home / ".config/zsh").mkdir()
    (home / ".zshenv").write_text("ZDOTDIR=$HOME/.config/zsh\n")
    (home / ".zshrc").rename(home / ".config/zsh/own.zsh")
    (home / ".config/zsh/.zshrc").write_text(". $ZDOTDIR/own.zsh\n")
    (home / "small").symlink_to(project / "lab/processes/small")
    done = subprocess.run(
        [project / "tools/within", project / "lab/processes/small", "sh", "-c", SHELL_LINE],
        cwd=project,
        env=environment(
            shared, HOME=str(home), SHELL=shutil.which(shell), ENV=str(home / ".shrc"), TERM="dumb"
        ),
        input="python -c \"import sys, os; print(sys.prefix, os.environ['MINE'])\"\nexit\n",
        capture_output=True,
        text=True,
        check=False,
    )
    [made] = (shared / "data/virtualenvs").glob("small-*/")
    assert f"{made} read" in done.stdout, done.stdout + done.stderr


SHELL_LINE = "exec tools/environments/shell -i"


SPY = """
import os, pathlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "spy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("spy.py", f"SEEN = {dict(os.environ)!r}")
        about = "Metadata-Version: 2.1\\nName: spy\\nVersion: 1.0\\n"
        wheel.writestr("spy-1.0.dist-info/METADATA", about)
        about = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("spy-1.0.dist-info/WHEEL", about)
        wheel.writestr("spy-1.0.dist-info/RECORD", "")
    return name
"""


def source_package(folder, requires=()):
    """A package that is built at its installation, and keeps the variables that its build saw."""
    project = f"[build-system]\nrequires = {list(requires)}\n"
    project += 'build-backend = "backend"\nbackend-path = ["."]\n'
    information = "Metadata-Version: 2.1\nName: spy\nVersion: 1.0\n"
    with tarfile.open(folder / "spy-1.0.tar.gz", "w:gz") as archive:
        for name, text in {
            "pyproject.toml": project + '[project]\nname = "spy"\nversion = "1.0"\n',
            "backend.py": SPY,
            "PKG-INFO": information,
        }.items():
            content = text.encode()
            about = tarfile.TarInfo(f"spy-1.0/{name}")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return folder / "spy-1.0.tar.gz"


def lock_by_hand(project, name, **packages):
    """A process whose lock has these packages, by name, each with its entry."""
    process = project / "lab/processes" / name
    process.mkdir(exist_ok=True)
    (process / "Pipfile").write_text(
        "[packages]\n" + "".join(f'{package} = "*"\n' for package in packages)
    )
    hashed = "from pathlib import Path; from tools.environments.locks import pipfile_hash; "
    hashed += f"print(pipfile_hash(Path('lab/processes/{name}').resolve()))"
    done = command(project, project, f'"$(tools/environments/bootstrap)" -c "{hashed}"')
    meta = {"hash": {"sha256": done.stdout.strip()}, "requires": {}, "sources": []}
    lock = {"_meta": meta, "default": packages, "develop": {}}
    (process / "Pipfile.lock").write_text(json.dumps(lock))
    imports = f"import {', '.join(packages)}\n"
    shown = ", ".join(f"{package}.__version__" for package in packages)
    (process / "main.py").write_text(f"{imports}print({shown})\n")
    return process


def hashed(file, version="==1.0"):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"hashes": [f"sha256:{digest}"], "version": version}


def test_a_packages_build_sees_no_secret_of_the_caller(project, tmp_path):
    spy = source_package(tmp_path)
    process = lock_by_hand(project, "watched", spy=hashed(spy))
    (process / "main.py").write_text("import spy; print(spy.SEEN)")
    names = ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "GIT_TOKEN", "PIP_PASSWORD", "X")
    secrets = dict.fromkeys(names, "s3cr3t")
    done = run(project, tmp_path, "watched", PIP_FIND_LINKS=str(tmp_path), **secrets)
    assert done.returncode == 0, done.stderr
    assert "PATH" in done.stdout
    assert "s3cr3t" not in done.stdout


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("has no hashes", {"hashes": []}),
        ("has no hashes", {"hashes": None}),
        ("'md5:0' for a hash", {"hashes": ["md5:0"]}),
        ("has 'path'", {"path": "./six"}),
        ("has 'git', 'ref'", {"git": "https://git.example/six", "ref": "main"}),
        ("has 'file'", {"file": "https://site.example/six-1.17.0-py3-none-any.whl"}),
        ("has 'index'", {"index": "https://site.example/simple"}),
        ("has no exact version but '*'", {"version": "*"}),
        ("has no exact version but None", {"version": None}),
        ("has no exact version", {"version": "==1.0 --index-url=https://site.example"}),
        ("has the markers", {"markers": "python_version > '3'\n--index-url=https://site.example"}),
        ("has the extras", {"extras": ["a]\n"]}),
    ],
)
def test_a_lock_entry_that_no_hash_secures_is_refused(project, shared, message, change):
    lock = project / "lab/processes/small/Pipfile.lock"
    content = json.loads(lock.read_text())
    content["develop"] = {"other": content["default"]["six"] | change}
    lock.write_text(json.dumps(content))
    lines = ['"$(tools/environments/bootstrap)" -m tools.environments verify']
    if change == {"hashes": []}:
        lines.append("lab/processes/run small")
    for line in lines:
        done = command(project, shared, line)
        assert done.returncode == 1, done.stdout
        [found] = done.stderr.splitlines()
        assert found.startswith("lab/processes/small/Pipfile.lock: 'other' ")
        assert message in found
        assert found.endswith(": run `make lock`.")


# ---- installation


def test_environments_share_the_files_of_their_packages(project, tmp_path):
    file = wheel(tmp_path, "alone")
    for name in ("one", "two"):
        lock_by_hand(project, name, alone=hashed(file))
        given = {"UV_CACHE_DIR": str(tmp_path / "uv"), **only_from(tmp_path)}
        done = run(project, tmp_path, name, **given)
        assert done.stdout == "1.0\n", done.stderr
    inodes = {path.stat().st_ino for path in tmp_path.glob("data/*/*/lib/*/*/alone.py")}
    assert len(inodes) == 1
    output = command(project, tmp_path, "make list", UV_CACHE_DIR=str(tmp_path / "uv")).stdout
    assert re.search(r"one-\w{12} +\d+ MB of its own +\d+ MB shared", output)
    assert "MB in uv's cache" in output
    keyed = run(
        project,
        tmp_path / "keyed",
        "one",
        **sealed_bootstrap(project, tmp_path, "of the job"),
        **only_from(tmp_path),
    )
    assert keyed.stdout == "1.0\n", keyed.stderr
    [own] = tmp_path.glob("keyed/data/*/*/lib/*/*/alone.py")
    assert own.stat().st_nlink == 1, "a job with secrets shares no files"


def only_from(folder):
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}


def sealed_bootstrap(project, tmp_path, key):
    """The variables of a job with a key, whose bootstrap is sealed with it already."""
    found = command(project, tmp_path, "tools/environments/bootstrap").stdout
    place = tmp_path / "cache" / Path(found).parents[1].name
    shutil.copytree(Path(found).parents[1], place, symlinks=True)
    keyed = {"ENVIRONMENTS_KEY": key, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    sealing = f"python3.11 -I tools/environments/seal.py write '{place}'"
    assert command(project, tmp_path, sealing, **keyed).returncode == 0
    return keyed


def test_a_file_other_than_the_locked_one_is_not_installed(project, tmp_path):
    file = wheel(tmp_path, "alone")
    lock_by_hand(project, "one", alone=hashed(file))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("planted.py", "")
    done = run(project, tmp_path, "one", **only_from(tmp_path), UV_CACHE_DIR=str(tmp_path / "uv"))
    assert done.returncode == 1
    assert "Hash mismatch for `alone==1.0`" in done.stderr
    assert done.stderr.count("\n") == 2, "one line at the start, one at the end"


def test_build_requirements_are_checked_by_hash_too(project, tmp_path):
    file = source_package(tmp_path, requires=["alone"])
    wheel(tmp_path, "alone")
    lock_by_hand(project, "watched", spy=hashed(file))
    done = run(project, tmp_path, "watched", **only_from(tmp_path))
    assert done.returncode == 1
    assert "alone" in done.stderr
    assert "hash" in done.stderr.lower()
    assert done.stderr.count("\n") == 2


def test_pips_settings_are_used_and_no_password_of_an_index_is_shown(project, tmp_path):
    asked = []

    class Index(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(200 if self.path != "/simple/six/" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"user:s3cr3t@127.0.0.1:{server.server_port}/simple"
        (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = http://{address}\n")
        given = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_NO_CACHE_DIR": "1"}
        done = run(project, tmp_path, **given)
        server.shutdown()
    assert done.returncode == 1
    assert ("/simple/six/", "Basic dXNlcjpzM2NyM3Q=") in asked
    logs = "".join(log.read_text() for log in tmp_path.glob("data/*/*.log"))
    assert "s3cr3t" not in done.stderr + logs


@pytest.mark.parametrize("status", [401, 403, 407])
def test_a_refused_login_is_not_reported_as_a_missing_package(project, tmp_path, status):
    with server_that(answer(status, "Who are you?")) as address:
        index = f"{address}/simple".replace("//", "//user:s3cr3t@")
        given = {"PIP_INDEX_URL": index, "PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": os.devnull}
        own_cache = {"UV_CACHE_DIR": str(tmp_path / "cache")}
        done = run(project, tmp_path, PIP_FIND_LINKS=str(tmp_path), **given, **own_cache)
    assert done.returncode == 1
    assert f"{status} " in done.stderr
    assert "its login" in done.stderr
    assert "s3cr3t" not in done.stderr


@pytest.mark.parametrize("login", ["user:12/34s3cr3t", "token/s3cr3t"])
def test_a_password_with_a_slash_is_refused_and_not_shown(project, tmp_path, login):
    done = run(project, tmp_path, PIP_INDEX_URL=f"https://{login}@127.0.0.1:9/simple")
    assert "pip's index-url is not a valid URL (127.0.0.1:9/simple): in a password" in done.stderr
    logs = "".join(log.read_text() for log in tmp_path.glob("data/*/*.log"))
    assert "s3cr3t" not in done.stderr + logs


def test_an_unusable_cache_causes_only_a_warning(project, tmp_path, locked):
    (tmp_path / "file").touch()
    done = run(project, tmp_path, UV_CACHE_DIR=str(tmp_path / "file/uv"))
    assert done.stdout.startswith("six 1.17.0"), done.stderr
    assert [line for line in done.stderr.splitlines() if "cannot be written to" in line]
    memory = Path("/dev/shm")
    if memory.is_dir() and memory.stat().st_dev != tmp_path.stat().st_dev:
        with tempfile.TemporaryDirectory(dir=memory) as cache:
            (project / "lab/processes/small/Pipfile.lock").write_text(locked + "\n")
            done = run(project, tmp_path, UV_CACHE_DIR=cache)
        assert done.stdout.startswith("six 1.17.0"), done.stderr
        assert [line for line in done.stderr.splitlines() if "is on another file system" in line]


def test_a_home_that_is_unset_or_not_writable_is_reported_in_one_line(project, tmp_path):
    (tmp_path / "file").touch()
    unusable = str(tmp_path / "file/home")
    without = {"XDG_CACHE_HOME": "", "XDG_DATA_HOME": "", "WORKON_HOME": ""}
    for line in ("tools/within lab/processes/small true", "tools/environments/bootstrap"):
        done = command(project, tmp_path, f"unset HOME; {line}", **without)
        assert "HOME: is not set: let it name a folder" in done.stderr
        assert done.returncode != 0
    done = run(project, tmp_path, **without | {"HOME": unusable})
    assert "Set HOME, or XDG_CACHE_HOME, to a folder that you may write to." in done.stderr
    done = run(project, tmp_path, WORKON_HOME=unusable)
    assert f"{unusable} cannot be made (Not a directory): set HOME, or WORKON_HOME," in done.stderr
    assert "Traceback" not in done.stderr


def test_pipenv_can_be_used_by_hand(project, tmp_path):
    file = wheel(tmp_path, "alone")
    process = lock_by_hand(project, "one", alone=hashed(file))
    pipenv = '"$(tools/environments/bootstrap)"'
    line = f"PATH=$(dirname {pipenv}):$PATH; cd '{process}' && pipenv sync && "
    line += "pipenv run python -c 'import alone; print(alone.__version__)'"
    given = {"PIPENV_IGNORE_VIRTUALENVS": "1", "WORKON_HOME": str(tmp_path / "by hand")}
    done = command(project, tmp_path, line, **only_from(tmp_path), **given)
    assert done.stdout.splitlines()[-1:] == ["1.0"], done.stdout + done.stderr


def test_packages_are_compiled_whatever_the_users_setting(project, shared):
    done = run(project, shared, PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0, done.stderr
    assert list(shared.glob("data/virtualenvs/small-*/lib/*/site-packages/__pycache__/six.*.pyc"))


# ---- what an environment contains


def test_code_planted_in_an_environment_is_not_run_by_a_job_with_secrets(project, shared, tmp_path):
    keyed = sealed_bootstrap(project, tmp_path, "of the job")
    within = tmp_path / "data/virtualenvs"
    [place] = (shared / "data/virtualenvs").glob("small-*[0-9a-f]/")
    shutil.copytree(place, within / place.name, symlinks=True)
    sealing = f"python3.11 -I tools/environments/seal.py write '{within / place.name}'"
    assert command(project, tmp_path, sealing, **keyed).returncode == 0
    ran = tmp_path / "ran"

    # Files added since are removed.
    evil = f"import os; os.system('touch \"{ran}\"')\n"
    for packages in tmp_path.glob("**/site-packages"):
        (packages / "sitecustomize.py").write_text(evil)
        (packages / "planted.pth").write_text(evil)
    dotenv = hashlib.sha256((project / ".env").read_bytes()).hexdigest()[:12]
    next(within.iterdir()).joinpath(f"variables-{dotenv}").write_text(f'touch "{ran}"\n')
    done = run(project, tmp_path, **keyed, **NO_NETWORK)
    assert done.stdout.startswith("six 1.17.0"), done.stderr
    assert not ran.exists()

    # An environment with a changed file is made again.
    [python] = within.glob("*/bin/python")
    python.unlink()
    write_executable(python, f'#!/bin/sh\ntouch "{ran}"\n')
    again = run(project, tmp_path, **keyed)
    assert again.stdout == done.stdout, again.stderr
    assert not ran.exists()
    checking = f"python3.11 -I tools/environments/seal.py check '{python.parents[1]}'"
    assert command(project, tmp_path, checking, **keyed).returncode == 0
    other = keyed | {"ENVIRONMENTS_KEY": "another"}
    assert command(project, tmp_path, checking, **other).returncode == 1


def wheel(folder, name, version="1.0", requires=()):
    """A package with one module, which only has a version."""
    module, lines = name.replace("-", "_"), [f"Requires-Dist: {need}" for need in requires]
    information = f"{module}-{version}.dist-info"
    file = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in {
            f"{module}.py": f'__version__ = "{version}"\n',
            f"{information}/METADATA": "\n".join(
                ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, ""]
            ),
            f"{information}/WHEEL": "\n".join(
                ["Wheel-Version: 1.0", "Root-Is-Purelib: true", "Tag: py3-none-any", ""]
            ),
            f"{information}/RECORD": "",
        }.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return file


def test_a_python_planted_as_the_bootstrap_is_not_run_by_a_job_with_secrets(project, tmp_path):
    file = wheel(tmp_path, "pipenv")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    packages = project / "tools/environments/requirements.txt"
    packages.write_text(f"pipenv==1.0 --hash=sha256:{digest}\n")
    given = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PIP_FIND_LINKS": str(tmp_path)}
    given |= {"ENVIRONMENTS_KEY": "of the job", "PIP_NO_INDEX": "1"}
    planted = tmp_path / f"cache/bootstrap-{hashlib.sha256(packages.read_bytes()).hexdigest()[:12]}"
    (planted / "bin").mkdir(parents=True)
    write_executable(planted / "bin/python", f'#!/bin/sh\ntouch "{tmp_path}/ran"\n')
    line = '"$(tools/environments/bootstrap)" -c "import pipenv; print(pipenv.__version__)"'
    done = command(project, tmp_path, line, **given)
    assert done.stdout == "1.0\n", done.stderr
    assert not (tmp_path / "ran").exists()
    again = command(project, tmp_path, line, **given)
    assert (again.stdout, again.stderr) == ("1.0\n", ""), "the sealed bootstrap is used"


def test_an_environment_of_another_user_is_not_used(project, shared, tmp_path):
    if os.geteuid():
        pytest.skip("only root can give files away")
    shutil.copytree(shared / "data", tmp_path / "data", symlinks=True)
    [made] = (tmp_path / "data/virtualenvs").glob("small-*[0-9a-f]/")
    for path in (made, *made.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    done = run(project, tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert "belongs to another user" in line
    assert "WORKON_HOME" in line


def test_the_bootstrap_installs_only_packages_with_the_right_hashes(project, tmp_path):
    packages = project / "tools/environments/requirements.txt"
    packages.write_text(f"certifi==2026.10.19.post1 --hash=sha256:{'0' * 64}\n")
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = command(project, tmp_path, "tools/environments/bootstrap", **cache)
    assert done.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_bootstrap_names_the_cause_if_it_cannot_reach_an_index(project, tmp_path):
    own = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_RETRIES": "1"}
    own |= {"PIP_INDEX_URL": "https://host.invalid/simple", "PIP_EXTRA_INDEX_URL": ""}
    unreached = {"HTTPS_PROXY": "http://127.0.0.1:9", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    unreached |= {"https_proxy": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
    done = command(project, tmp_path, "tools/environments/bootstrap", **own, **unreached)
    assert done.returncode == 1
    assert re.search(r"Cannot connect to proxy.*Check the index .* and the proxy", done.stderr)


def test_an_environment_in_use_is_not_removed(project, tmp_path, shared, locked):
    shutil.copytree(shared / "data", tmp_path / "data", symlinks=True)
    [name] = made(tmp_path)
    held = "exec tools/within lab/processes/small python -c 'print(1, flush=True); input()'"
    with subprocess.Popen(
        ["sh", "-c", held],
        cwd=project,
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "1\n"
        lock = project / "lab/processes/small/Pipfile.lock"
        lock.write_text(locked + "\n")
        output = command(project, tmp_path, "make clean DAYS=0").stdout
        assert f"kept {name}: in use by process {process.pid}." in output
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait() == 0
    assert f"removed {name}" in command(project, tmp_path, "make clean DAYS=0").stdout
    assert list((tmp_path / "data/virtualenvs").iterdir()) == []


def test_a_half_made_environment_is_listed_and_removed(project, shared, tmp_path):
    half = tmp_path / "data/virtualenvs/gone-0123456789ab"
    half.mkdir(parents=True)
    half.with_name(f"{half.name}.lock").touch()
    assert "half made" in command(project, tmp_path, "make list").stdout
    assert f"removed {half.name}" in command(project, tmp_path, "make clean DAYS=0").stdout
    assert list(half.parent.iterdir()) == []


def test_without_git_one_line_says_that_it_is_missing(project, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname", "env"):
        (tools / tool).symlink_to(shutil.which(tool))
    variables = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": str(tools), "PYTHON": ""}
    no_git = command(project, tmp_path, "tools/environments/bootstrap", **variables)
    assert (no_git.returncode, no_git.stderr.count("\n")) == (1, 1)
    assert "git is missing" in no_git.stderr


INSTALLER = """
from tools.environments.installer import for_uv, remedy
assert "built with setuptools alone" in remedy("no trusted hash was provided for: `wheel`")
assert "for Linux with glibc" in remedy("torch has no wheels with a matching platform tag")
assert "Check the index that pip is set up with" in remedy("Connection refused")
settings = {"cert": "~/ca.pem", "client-cert": "~/me.pem", "find-links": "~/wheels ~me-not/x"}
found = for_uv(settings, {})
assert found["SSL_CERT_FILE"] == "/home/some/ca.pem"
assert found["SSL_CLIENT_CERT"] == "/home/some/me.pem"
assert found["UV_FIND_LINKS"] == "/home/some/wheels,~me-not/x"
"""


def test_installers_get_paths_below_home_and_each_failure_has_its_remedy():
    python = subprocess.run(
        [ROOT / "tools/environments/bootstrap"], capture_output=True, text=True, check=True
    ).stdout.strip()
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/home/some"}
    subprocess.run([python, "-c", INSTALLER], env=settings, check=True)
