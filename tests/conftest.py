"""What the tests of the template share: copies of it, as a user has it, and servers."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
LONGEST = ("tracker", "copy", "faults", "goals", "analysis", "distributed", "adopt", "blank")

# Some tests replace DVC's settings, and no test may send usage statistics.
os.environ["DVC_NO_ANALYTICS"] = "true"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest: `make test` gives whole files to its workers."""
    place = {ROOT / f"tests/{name}_test.py": n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


class Project:
    """A new repository with the files of this working tree, committed on a branch."""

    first_run = ""  # the output of `make run`, in the fixture `finished`

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for name in filter(None, listed.decode().split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        self.git("init", "--quiet", "--initial-branch", "work")
        self.commit("Copy")

    @classmethod
    def at(cls, folder: Path) -> "Project":
        """The project that a folder already contains."""
        project = object.__new__(cls)
        project.folder = folder
        return project

    def copied(self, folder: Path, *left_out: str) -> "Project":
        """A copy of all files, tracked or not, in its current state."""
        ignore = shutil.ignore_patterns(*left_out)
        return self.at(shutil.copytree(self.folder, folder, symlinks=True, ignore=ignore))

    def environment(self, **extra: str) -> dict[str, str]:
        """The variables of a shell outside of the environment that these tests run in."""
        path = os.environ["PATH"].split(os.pathsep)
        own = str(Path(sys.executable).parent)
        keep = {
            k: v
            for k, v in os.environ.items()
            if k not in ("VIRTUAL_ENV", "PYTHONPATH", "MLFLOW_URL")
        }
        identity = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "Test"), ("EMAIL", "test@example.org"))
        }
        return {**keep, "PATH": os.pathsep.join(p for p in path if p != own), **identity, **extra}

    def start(self, *command: str, **extra: str) -> "Started":
        return Started(
            command,
            cwd=self.folder,
            env=self.environment(**extra),
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, ok: bool = True, **extra: str) -> str:
        """The output of a command, both streams; it must succeed, or with `ok=False` fail."""
        with self.start(*command, **extra) as process:
            output, _ = process.communicate(timeout=1200)  # the machine may be busy
        assert (process.returncode == 0) == ok, f"{command} ended {process.returncode}:\n{output}"
        return output

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--no-verify", "--message", message)

    def dvc(self, *arguments: str, ok: bool = True, **extra: str) -> str:
        return self.run("tools/within", ".", "dvc", *arguments, ok=ok, **extra)

    def give_pipeline(self, dvc_yaml: str) -> None:
        """Replace the example's pipeline by another one, and remove its results."""
        (self.folder / "dvc.yaml").write_text(dvc_yaml)
        (self.folder / "dvc.lock").unlink()
        shutil.rmtree(self.folder / "metrics")
        for sweeps in self.folder.glob("lab/tuning/dvc.*"):
            sweeps.unlink()

    def publish(self) -> None:
        """Create a bare origin beside the project, and push the branch."""
        self.git("init", "--quiet", "--bare", "--initial-branch", "work", "../origin")
        self.git("remote", "add", "origin", "../origin")
        self.git("push", "--quiet", "origin", "work")

    def mypy(self) -> None:
        """Check types, with the cache of `make check`: without it, packages take a minute."""
        known = ROOT / ".mypy_cache"
        if known.is_dir():
            shutil.copytree(known, self.folder / known.name, dirs_exist_ok=True)
        self.run("tools/within", "--dev", ".", "mypy")

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.folder / file).read_text()
        assert old in text, f"{old!r} is not in {file}"
        (self.folder / file).write_text(text.replace(old, new))


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until a condition is true: its value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not true after {seconds} s"
        time.sleep(0.05)
    return found


def write_executable(file: Path, text: str) -> None:
    """Write an executable script, and create its folder if needed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


class Started(subprocess.Popen[str]):
    """A command in its own process group, killed with all its children when the block ends."""

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        if self.stdout:
            self.stdout.close()


def interrupted(process: Started, begun: Path) -> str:
    """The output of a command that gets Ctrl-C as soon as this file exists, and must end."""
    with process:
        wait_for(begun.exists)
        os.killpg(process.pid, signal.SIGINT)
        return process.communicate(timeout=60)[0]


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A project after its first `make run`, committed, with the output of that command.

    Made once for all files and workers: read it, or copy it and change the copy.
    """
    # With several workers, each has its own folder below this one.
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp().parent if parallel else tmp_path_factory.getbasetemp()
    folder, output = base / "finished" / "a projëct", base / "finished" / "first-run.txt"
    with FileLock(base / "finished.lock"):
        if not output.exists():
            project = Project(folder)
            (folder / "dvc.lock").unlink()  # so that results are new, and committed as such
            project.commit("Without results")
            text = project.run("make", "run")
            project.commit("Results")
            output.write_text(text)
    project = Project.at(folder)
    project.first_run = output.read_text()
    return project


@pytest.fixture
def project(tmp_path) -> Project:
    """A copy for one test, in a folder with a space and an umlaut in its name."""
    folder = tmp_path / "a projëct"
    return Project(folder)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> Path:
    """A file with a self-signed certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=own"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "own.pem"]
    subprocess.run(make, cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "own.pem").read_bytes())
    return both


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server_that(
    handle: Callable[[BaseHTTPRequestHandler], None], certificate: Path | None = None
) -> Iterator[str]:
    """The address of a server on a free port that gives each request to `handle`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            handle(self)

        do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def answer(status: int, text: str, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """A handler for `server_that` that gives the same answer to each request."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("Content-Length", 0)))
        body = text.encode()
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    return handle


def mlflow_client(address: str) -> Any:
    """MLflow's own client, for a server or for a store in a file."""
    from mlflow import MlflowClient  # takes two seconds, so only if needed

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")  # keeps no file open
        return MlflowClient(address)


def logged_runs(address: str, expression: str = "") -> list[dict[str, Any]]:
    """The runs at an address that match a filter, newest first, as MLflow's client shows them."""
    client = mlflow_client(address)
    experiments = [found.experiment_id for found in client.search_experiments()]
    return [
        {
            "name": run.info.run_name,
            "status": run.info.status,
            "tags": run.data.tags,
            "params": run.data.params,
            "metrics": run.data.metrics,
            "files": [file.path for file in client.list_artifacts(run.info.run_id)],
            "steps": {
                name: [point.step for point in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            },
        }
        for run in client.search_runs(experiments, expression)
    ]


@contextmanager
def mlflow_server(folder: Path, port: int, environment: str = "--dev .") -> Iterator[str]:
    """An MLflow server from this project's or another environment, with its store in `folder`."""
    address = f"http://127.0.0.1:{port}"
    command = [
        *("tools/within", *environment.split(), "mlflow", "server"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/server.db"),
        *("--artifacts-destination", f"{folder}/artifacts"),
    ]
    log = folder / "server.log"
    with log.open("a") as output:
        process = Started(
            command,
            cwd=ROOT,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    with process:
        assert comes_up(address, process), log.read_text()
        yield address


def comes_up(address: str, server: subprocess.Popen[Any]) -> bool:
    """Wait until an MLflow server answers: whether it did."""
    deadline = time.monotonic() + 90
    while not answers(address):
        if server.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
