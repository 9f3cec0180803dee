"""The servers of the sandbox, S3 (SeaweedFS) and MLflow, on loopback and free ports.

A running server is kept if it was started with the same settings (a hash of them is in its mark)
and answers; otherwise it is replaced. Data are kept.
"""

import hashlib
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lib.errors import UserError
from lib.text import last_line
from tools.environments import surroundings
from tools.sandbox.processes import Mark, end, ours, start
from tools.sandbox.state import BUCKET, FOLDER, State, write_private

SERVICES = ("s3", "master", "volume", "filer")  # of SeaweedFS, each with a gRPC port too
PORTS = {
    "s3": (*SERVICES, *(f"{service}.grpc" for service in SERVICES), "admin"),
    "mlflow": ("mlflow",),
}
ADMIN_GRPC = 10000  # offset from admin's port, which SeaweedFS's worker expects
PATIENCE = 90.0  # seconds within which a server must answer


@dataclass(frozen=True)
class Server:
    """How one server is started, and checked for readiness."""

    part: str
    title: str
    address: str
    command: list[str]
    settings: dict[str, str]  # environment variables besides the user's
    answers: Callable[[], bool]

    @property
    def folder(self) -> Path:
        """The folder of its data."""
        return FOLDER / self.part

    @property
    def log(self) -> Path:
        """The file with its output."""
        return FOLDER / f"{self.part}.log"

    @property
    def mark(self) -> Mark:
        """The mark of its process, with a hash of its settings."""
        content = json.dumps([self.command, sorted(self.settings.items())])
        return Mark(self.part, hashlib.sha256(content.encode()).hexdigest()[:16])

    def runs(self) -> bool:
        """Whether it runs with these settings and answers."""
        return set(ours(self.part).values()) == {self.mark} and self.answers()


def s3_server(state: State) -> Server:
    """SeaweedFS with one bucket; its other services are off, or need the keys of `secure`."""
    ports = [f"-{name}.port={state.ports[name]}" for name in (*SERVICES, "admin")]
    ports += [f"-{name}.port.grpc={state.ports[f'{name}.grpc']}" for name in SERVICES]
    command = [
        *(executable("weed"), "-logtostderr=true", "mini", "-dir=.", f"-bucket={BUCKET}"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"),
        *("-disableHttp", "-s3.allowedOrigins=none"),
        *("-master.telemetry=false", "-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"),
    ]
    return Server("s3", "S3", state.s3, command, s3_keys(state), lambda: bucket_works(state))


def secure(folder: Path) -> None:
    """Write keys with which SeaweedFS's services authenticate to each other, to its folder.

    Without them, anyone who reaches its other ports (another user, for some even a web page) could
    read, replace and delete objects. `weed shell` uses them if it is started in this folder.
    """
    if (folder / "security.toml").exists():
        return
    from cryptography import x509  # a dependency of mlflow
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sandbox")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))  # valid even if the clock is wrong
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = serialization.Encoding.PEM
    write_private(folder / "tls.key", key.private_bytes(pem, *private).decode())
    write_private(folder / "tls.pem", certificate.public_bytes(pem).decode())
    parts = (*SERVICES, "admin", "worker", "client")
    lines = [
        '[grpc]\nca = "tls.pem"',
        *(f'[grpc.{part}]\ncert = "tls.pem"\nkey = "tls.key"' for part in parts),
        *(f'[jwt.{w}]\nkey = "{secrets.token_hex(32)}"' for w in ("signing", "signing.read")),
    ]
    write_private(folder / "security.toml", "\n".join(lines) + "\n")  # last: the others exist


def mlflow_server(state: State) -> Server:
    """MLflow with SQLite; artifacts in the bucket, proxied or written by clients."""
    root = f"s3://{BUCKET}/mlflow-artifacts"
    artifacts = {
        "proxied": ["--artifacts-destination", root],
        "direct": ["--no-serve-artifacts", "--default-artifact-root", root],
    }
    # A relative path: the project's path may have characters that are invalid in a URI.
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(state.ports["mlflow"])),
        *("--backend-store-uri", "sqlite:///mlflow.db", *artifacts[state.artifacts]),
    ]
    settings = {
        **s3_keys(state),
        "MLFLOW_S3_ENDPOINT_URL": state.s3,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",
    }
    health = f"{state.mlflow}/health"
    return Server(
        "mlflow", "MLflow", state.mlflow, command, settings, lambda: status(health) == 200
    )


def s3_keys(state: State) -> dict[str, str]:
    """The bucket's credentials, as variables of SeaweedFS and boto3."""
    return {
        "AWS_ACCESS_KEY_ID": state.access_key,
        "AWS_SECRET_ACCESS_KEY": state.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def executable(name: str) -> str:
    """A command of the sandbox's own environment."""
    return str(Path(sys.executable).with_name(name))


def servers(state: State) -> list[Server]:
    """Both servers."""
    return [s3_server(state), mlflow_server(state)]


def start_servers(state: State) -> None:
    """Start the servers that do not run yet; UserError if one fails.

    If another program takes a chosen port before the server does, other ports are chosen.
    """
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    choose_ports(state)
    while True:
        state.write()
        try:
            bring_up(state)
            return
        except UserError as error:
            if not choose_ports(state):
                raise
            print(f"{error}\nA port of it was taken meanwhile: now with others.", flush=True)


def bring_up(state: State) -> None:
    """Start the servers that do not run with these settings, and wait for them."""
    began = time.monotonic()
    started = {server.part: start_one(server) for server in servers(state) if not server.runs()}
    for server in servers(state):
        if server.part in started:
            wait_for(server, started[server.part])
            print(f"{server.title}: ready ({time.monotonic() - began:.0f} s)", flush=True)


def start_one(server: Server) -> subprocess.Popen[bytes]:
    """End what is left of a server, and start it."""
    end(ours(server.part))
    server.folder.mkdir(exist_ok=True)
    if server.part == "s3":
        secure(server.folder)
    (server.folder / "mini.options").unlink(missing_ok=True)  # the ports of the last start
    print(f"{server.title}: starting …", flush=True)
    # Servers inherit no settings from the user's shell.
    return start(
        server.mark, server.command, environment() | server.settings, server.folder, server.log
    )


def wait_for(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers; UserError if it ended, or does not answer in time."""
    deadline = time.monotonic() + PATIENCE
    while not server.answers():
        if process.poll() is not None:
            why = last_line(server.log.read_text(errors="replace"))
            problem = f"ended while it started: {why}"
        elif time.monotonic() > deadline:
            problem = f"did not answer at {server.address} within {PATIENCE:.0f} seconds"
        else:
            time.sleep(0.1)
            continue
        end(ours(server.part))
        raise UserError(f"{server.title} {problem} (log: {server.log}). Type `make sandbox` again.")


# ---- variables that servers and jobs inherit


# The variables that installers get, and a few more.
KEPT = surroundings.KEPT | {"PYTHON", "CUDA_VISIBLE_DEVICES"}
KEPT |= {"AWS_CA_BUNDLE", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"}
KEPT |= {"DOCKER_HOST", "CONTAINER_ENGINE", "CONTAINER_OPTIONS", "CONTAINERS_CONF"}
KEPT_PREFIXES = ("LC_", "XDG_", "PIP_", "UV_")


def environment() -> dict[str, str]:
    """The variables that describe this machine.

    Not those that change what a job does (PYTHONPATH, MLFLOW_*, AWS_*, GIT_*, …), which a runner
    would not have either.
    """
    kept = {n: v for n, v in os.environ.items() if n in KEPT or n.startswith(KEPT_PREFIXES)}
    virtual = {str(Path(sys.executable).parent), f"{os.environ.get('VIRTUAL_ENV')}/bin"}
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    kept["PATH"] = os.pathsep.join(place for place in path if place not in virtual)
    direct = {"127.0.0.1", "localhost", *filter(None, os.environ.get("no_proxy", "").split(","))}
    return kept | dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(sorted(direct)))


# ---- ports


def choose_ports(state: State) -> bool:
    """Keep a server's ports if they are free or its own; else choose new ones.

    Returns:
        Whether any are new.
    """
    before = dict(state.ports)
    # Below the ephemeral range, so that they are free after a crash, too.
    ports = iter(random.sample(range(20000, 32000), 12000))
    for part, names in PORTS.items():
        known = all(name in state.ports for name in names)
        if known and (ours(part) or all(usable(name, state.ports[name]) for name in names)):
            continue
        if part == "s3":
            remove_sockets(state)
        for name in names:
            taken = state.ports.values()
            state.ports[name] = next(p for p in ports if p not in taken and usable(name, p))
    return state.ports != before


def usable(name: str, port: int) -> bool:
    """Whether a port is free, and for admin also its gRPC port."""
    return free(port) and (name != "admin" or free(port + ADMIN_GRPC))


def free(port: int) -> bool:
    """Whether a server could listen on a port."""
    with socket.socket() as probe:
        # Like a server: ignore connections that a crashed one left in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def remove_sockets(state: State) -> None:
    """Remove the socket files that a killed SeaweedFS leaves in /tmp."""
    ports = {name: state.ports.get(f"{name}.grpc", 0) for name in SERVICES}
    for name, port in (*ports.items(), ("admin", state.ports.get("admin", 0) + ADMIN_GRPC)):
        Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)


# ---- whether they answer


def status(address: str) -> int | None:
    """The HTTP status of an address; None if nothing answers."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(address, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def bucket_works(state: State) -> bool:
    """Whether an object can be written to the bucket and removed from it."""
    if status(state.s3) is None:
        return False
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    s3 = boto3.client(
        "s3",
        endpoint_url=state.s3,
        aws_access_key_id=state.access_key,
        aws_secret_access_key=state.secret_key,
        region_name="us-east-1",
        config=Config(
            connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1}, proxies={}
        ),
    )
    try:
        s3.put_object(Bucket=BUCKET, Key=".sandbox", Body=b"")
        s3.delete_object(Bucket=BUCKET, Key=".sandbox")
    except (BotoCoreError, ClientError):
        return False
    return True


def remove_data() -> None:
    """Remove `.sandbox/`."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    if FOLDER.exists():
        raise UserError(f"{FOLDER} could not be removed whole: remove it by hand.")
