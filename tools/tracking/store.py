"""Where runs go: the server at MLFLOW_URL, or the store embedded in the repository.

The embedded store is `mlflow.db`, with artifacts in `mlruns/`. It is created under another name and
then moved into place, so that an interrupted or concurrent start never leaves half a database.
"""

import fcntl
import logging
import os
import re
import sqlite3
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from lib.errors import UserError
from lib.params import FILE, Project, check_params, read_yaml
from lib.repository import ROOT
from lib.text import shown_address, without_password
from tools.network import network_problem
from tools.tracking.address import check_address

REFUSED = re.compile(
    r"\b(401|403)\b|UNAUTHENTICATED|PERMISSION_DENIED|Access ?Denied|InvalidAccessKeyId|"
    "SignatureDoesNotMatch"
)
# Of these, the errors of a valid login without permission.
FORBIDDEN = re.compile(r"\b403\b|PERMISSION_DENIED|Access ?Denied")
# The client's messages for an HTML page and for a missing page; MLflow's own 404s name an error
# code.
NOT_MLFLOW = re.compile("not in a valid JSON format|failed with error code 40[45]")
TOO_LARGE = re.compile("413 Client Error|code 413|EntityTooLarge")
# MLflow's message for a deleted run or experiment.
DELETED = re.compile("must be in the 'active' state")
EXPERIMENTS = (".dvc", "tmp", "exps")  # where DVC runs `dvc exp run --temp` and `--queue`


def home() -> Path:
    """The repository root; in the temporary clone of a DVC experiment, that of its origin."""
    for parent in ROOT.parents:
        if parent.parts[-3:] == EXPERIMENTS:
            return parent.parents[2]
    return ROOT


LOCAL_FILE = home() / "mlflow.db"


def is_local() -> bool:
    """Whether runs go to the embedded store."""
    return not os.environ.get("MLFLOW_URL")


def tracking_uri() -> str:
    """MLflow's tracking URI; the file by a relative path, which needs no escaping."""
    return os.environ.get("MLFLOW_URL") or f"sqlite:///{os.path.relpath(LOCAL_FILE)}"


def shown_uri() -> str:
    """The address without user and password."""
    return shown_address(os.environ.get("MLFLOW_URL") or LOCAL_FILE.name)


def experiment_name() -> str:
    """The name of the project's experiment; UserError if params.yaml has none."""
    return check_params(read_yaml(ROOT / FILE), Project).experiment


def connect() -> Experiment:
    """Point mlflow at the store; the project's experiment, created if it is missing.

    Raises:
        MlflowException, OSError and others of MLflow's clients: the store cannot be reached.
        UserError: the experiment was deleted, or MLFLOW_URL is not a valid URL.
    """
    keep_quiet()
    if not is_local():
        check_address(os.environ["MLFLOW_URL"], os.environ.get("MLFLOW_TRACKING_TOKEN", ""))
    elif not LOCAL_FILE.exists():
        make_embedded()
    mlflow.set_tracking_uri(tracking_uri())
    client, name = client_of_this_version(), experiment_name()
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        place = (home() / "mlruns").as_uri() if is_local() else None
        try:
            experiment = client.get_experiment(client.create_experiment(name, place))
        except MlflowException as error:  # another tracker has created it meanwhile
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise error
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"the experiment {name} was deleted in MLflow: restore it there, or change "
            f"`experiment` in {FILE}."
        )
    mlflow.set_experiment(experiment_id=experiment.experiment_id)
    return experiment


def keep_quiet() -> None:
    """Silence the log messages of MLflow and its dependencies."""
    for name, level in (("alembic", "WARNING"), ("mlflow", "ERROR"), ("urllib3", "ERROR")):
        logging.getLogger(name).setLevel(level)


# ---- the embedded store


def migrate() -> None:
    """Migrate the embedded store to this version of MLflow, if needed.

    Raises:
        UserError: it was made by a newer MLflow, or is damaged.
    """
    keep_quiet()
    mlflow.set_tracking_uri(tracking_uri())
    client_of_this_version()


@contextmanager
def exclusive() -> Iterator[None]:
    """Lock the embedded store for one writer at a time; a server needs no lock."""
    if not is_local():
        yield
        return
    (home() / ".mlflow").mkdir(exist_ok=True)
    with (home() / ".mlflow" / "store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_embedded() -> None:
    """Create the store, or migrate a copy of it, and move it into place."""
    from mlflow.store.db import utils as database  # it imports alembic, which takes a second

    with exclusive():
        found = LOCAL_FILE.exists()
        if found:
            with suppress(MlflowException):
                database._verify_schema(engine_of(LOCAL_FILE))
                return  # another tracker has made it meanwhile
        for rest in LOCAL_FILE.parent.glob(f"{LOCAL_FILE.name}-new*"):
            rest.unlink()
        new = LOCAL_FILE.with_name(f"{LOCAL_FILE.name}-new")  # ignored by git, with its log files
        if found:
            with closing(sqlite3.connect(LOCAL_FILE)) as old, closing(sqlite3.connect(new)) as copy:
                old.backup(copy)
        make = database._upgrade_db if found else database._initialize_tables
        make(engine_of(new))
        with closing(sqlite3.connect(new)) as connection:
            # Lets `make ui` read while a run is logged, and halves the time of many small commits.
            connection.execute("PRAGMA journal_mode = WAL")
        for log in ("-wal", "-shm"):  # sqlite would apply them to the new database
            LOCAL_FILE.with_name(f"{LOCAL_FILE.name}{log}").unlink(missing_ok=True)
        new.replace(LOCAL_FILE)


def engine_of(file: Path) -> Any:
    """An SQLAlchemy engine for a database file, which keeps no connection open."""
    from sqlalchemy import NullPool, create_engine

    return create_engine(f"sqlite:///{os.path.relpath(file)}", poolclass=NullPool)


def checkpoint() -> None:
    """Write the embedded store's log back to its one file, which people may copy or remove."""
    if is_local() and LOCAL_FILE.exists():
        with closing(sqlite3.connect(LOCAL_FILE, timeout=1)) as connection:
            connection.execute(
                "PRAGMA wal_checkpoint(TRUNCATE)"
            )  # not if another process is using it


def client_of_this_version() -> mlflow.MlflowClient:
    """MLflow's client, after migrating an embedded store of an older MLflow.

    Raises:
        UserError: the embedded store was made by a newer MLflow, or is damaged.
    """
    try:
        return mlflow.MlflowClient()
    except Exception as error:  # also from sqlite and sqlalchemy
        if not is_damage(error) and "out-of-date database schema" not in str(error):
            raise
    try:
        make_embedded()
        return mlflow.MlflowClient()
    except Exception as error:  # from alembic and sqlite: many classes
        raise UserError(
            f"{LOCAL_FILE.name} is of a newer MLflow or damaged ({' '.join(str(error).split())}): "
            "move it away, a new one is made."
        ) from None


# ---- messages


def run_url(run: mlflow.entities.RunInfo) -> str:
    """The URL of a run; for the embedded store, how to look at it."""
    if is_local():
        return f"run {run.run_name} in {LOCAL_FILE.name} (`make ui` shows it)"
    return f"{shown_uri().rstrip('/')}/#/experiments/{run.experiment_id}/runs/{run.run_id}"


def reason(error: BaseException) -> str:
    """Why the store cannot be used, in one line, with what to do if that is known."""
    text = without_password(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, UserError):
        return text
    if is_damage(error):
        return f"{LOCAL_FILE.name} is damaged: move it away, a new one is made."
    if problem := network_problem(text):
        what = f"it {problem}"
    elif NOT_MLFLOW.search(text):
        what = (
            "it answers, but not as MLflow does (a login page, or a proxy?): check the path in "
            "MLFLOW_URL, and whether it begins with https://"
        )
    elif TOO_LARGE.search(text):
        what = (
            "it, or a proxy before it, takes no file as large as one of the results (413): raise "
            "the limit there"
        )
    elif REFUSED.search(text):
        may_not = "it does not let this login do that: give it EDIT on the experiment there, or"
        what = (
            f"{may_not if FORBIDDEN.search(text) else 'it refused the credentials:'} check "
            "MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN and the "
            "AWS_ keys"
        )
    elif DELETED.search(text):
        what = "the run, or its experiment, was deleted there while the process ran"
    elif "NoCredentials" in type(error).__name__:
        what = "the artifacts' storage wants credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"  # noqa: E501
    elif re.search("timed out|ConnectTimeout", text):
        what = "it did not answer in time"
    elif re.search(r"Connection refused|Failed to establish|Name or service|resolve", text):
        what = "nothing answers at this address: is the server up, and MLFLOW_URL right?"
    else:
        what = f"{type(error).__name__}:"
    cause = re.search(r"\(Caused by (.*)\)", text)  # the text before it repeats the request
    return f"{what} ({textwrap.shorten(cause[1] if cause else text, 300, placeholder=' …')})."


def is_final(error: BaseException) -> bool:
    """Whether waiting cannot help: the server or a proxy refuses, or a local file is unreadable."""
    if getattr(error, "filename", None):
        return True
    text = str(error)
    ours = (NOT_MLFLOW, TOO_LARGE, REFUSED, DELETED)
    return bool(network_problem(text)) or any(pattern.search(text) for pattern in ours)


def is_damage(error: BaseException) -> bool:
    """Whether the error says that the embedded store is damaged."""
    return is_local() and bool(re.search("not a database|image is malformed", str(error)))


def is_gone(error: MlflowException) -> bool:
    """Whether the run or experiment does not exist, or was deleted."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or bool(DELETED.search(str(error)))


def is_outage(error: BaseException) -> bool:
    """Whether an error comes from the store or the network, not from the logging code."""
    if isinstance(error, MlflowException):
        mistakes = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
        return is_damage(error) or is_gone(error) or error.error_code not in mistakes
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    ours = {"requests", "urllib3", "boto3", "botocore", "s3transfer", "sqlalchemy", "sqlite3"}
    return bool(modules & ours) or isinstance(error, ConnectionError | TimeoutError)
