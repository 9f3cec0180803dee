"""MLflow: where runs go, what tells them apart, and what happens when the server is away.

Results are files first. Logging is a function of those files, `log(mlflow, params)` in each
process's `main.py`, and `Logger` calls it in a process of its own: that one imports mlflow (1.5 s)
while this one computes, and can be left behind when a server does not answer. A result is never
lost to a server: `make relog` calls the same functions again, without computing anything.
"""

import gc
import hashlib
import json
import logging
import multiprocessing
import os
import re
import sqlite3
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from lib.files import read_json, write_json
from lib.params import Params, load_params, read_yaml

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
LOCAL_FILE = ROOT / "mlflow.db"
LOCAL_STORE = f"sqlite:///{LOCAL_FILE}"
ANSWER_WITHIN = 9.0  # seconds, for whatever is not an upload
BY_ITSELF_WITHIN = 120.0  # seconds, where no server but a slow disk is waited for

# Left alone, mlflow tries for four minutes, reports its use to its makers and prints emoji.
MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "AWS_MAX_ATTEMPTS": "2",
    "GIT_PYTHON_REFRESH": "quiet",
}


def tracking_uri() -> str:
    """The server at MLFLOW_URL, or the store in the repository's root."""
    return os.environ.get("MLFLOW_URL") or LOCAL_STORE


def without_password(uri: str) -> str:
    """The address as it may be shown: no user and password in it."""
    return re.sub(r"//[^/@]*@", "//", uri)


def connect(mlflow: ModuleType, experiment: str) -> None:
    """Point mlflow at the store and the experiment, made where it is not there yet."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its every retry
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(tracking_uri())
    if tracking_uri() == LOCAL_STORE and mlflow.get_experiment_by_name(experiment) is None:
        mlflow.create_experiment(experiment, artifact_location=(ROOT / "mlruns").as_uri())
        with sqlite3.connect(LOCAL_FILE) as database:
            # `make ui` may read while a run is logged, and 60 small commits take half the time.
            database.execute("PRAGMA journal_mode = WAL")
    mlflow.set_experiment(experiment)


# ---- where a run comes from


def run_tags(stage: str) -> dict[str, str]:
    """What traces a run to its code, data, parameters and machine."""
    pipeline = Pipeline.read(stage)
    deps = pipeline.dep_md5s()
    written = [path for path in (*deps, "params.yaml") if path not in pipeline.made]
    server, repository, run = (
        os.environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")
    )
    on_tag = os.environ.get("GITHUB_REF_TYPE") == "tag"
    tags = {
        "stage": stage,
        "fingerprint": pipeline.fingerprint(),
        "git.commit": git("rev-parse", "HEAD"),
        "git.tag": os.environ.get("GITHUB_REF_NAME", "") if on_tag else git("tag", "--points-at"),
        "git.branch": git("branch", "--show-current"),
        "git.dirty": str(bool(git("status", "--porcelain", "--", *written))).lower(),
        "workflow.run_url": f"{server}/{repository}/actions/runs/{run}" if run else "",
        **{f"dvc.dep.{path}": md5 for path, md5 in deps.items()},
    }
    tags["mlflow.source.git.commit"] = tags["git.commit"]  # these three MLflow's UI shows
    tags["mlflow.source.git.branch"] = tags["git.branch"]
    tags["mlflow.source.name"] = f"lab/processes/{stage}/main.py"
    return {key: value for key, value in tags.items() if value}


def git(*arguments: str) -> str:
    """What git answers, or nothing where it cannot (no repository, no commit)."""
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip().replace("\n", " ") if done.returncode == 0 else ""


@dataclass(frozen=True)
class Pipeline:
    """What DVC's files say of one stage."""

    stage: str
    definition: Mapping[str, Any]  # its entry in dvc.yaml; empty where it is not in there
    params: Mapping[str, Any]  # params.yaml
    known: Mapping[str, str]  # md5 of each out of every stage, from dvc.lock
    made: frozenset[str]  # what any stage writes

    @classmethod
    def read(cls, stage: str) -> "Pipeline":
        """From the files in the repository's root, as they are now."""
        pipeline, lock = (
            {} if not file.exists() else read_yaml(file)
            for file in (ROOT / "dvc.yaml", ROOT / "dvc.lock")
        )
        outs = [
            out for entry in (lock.get("stages") or {}).values() for out in entry.get("outs", [])
        ]
        stages, params = pipeline.get("stages") or {}, read_yaml(ROOT / "params.yaml")
        return cls(
            stage,
            stages.get(stage) or {},
            params,
            {out["path"]: out["md5"] for out in outs if "md5" in out},
            frozenset(
                path
                for each in stages.values()
                for kind in ("outs", "metrics")
                for path in filled_in(each.get(kind, []), params)
            ),
        )

    def paths(self, kind: str) -> list[str]:
        """The stage's deps, outs or metrics."""
        return filled_in(self.definition.get(kind, []), self.params)

    def dep_md5s(self) -> dict[str, str]:
        """The md5 of each dep, as DVC has it: from dvc.lock, from .dvc files, of files."""
        md5s = {}
        for path in self.paths("deps"):
            tracked = ROOT / f"{path}.dvc"
            if path in self.known:
                md5s[path] = self.known[path]
            elif tracked.exists():
                md5s[path] = read_yaml(tracked)["outs"][0]["md5"]
            else:
                md5s[path] = content_md5(ROOT / path)
        return {path: md5 for path, md5 in md5s.items() if md5}

    def fingerprint(self) -> str:
        """The same for two runs on the same deps and parameters that had the same outs.

        Nothing for a process that is not in the root's dvc.yaml: what it depends on is not known.
        """
        if not self.definition:
            return ""
        keys = [key for key in self.definition.get("params", []) if isinstance(key, str)]
        values = {key: look_up(self.params, key) for key in keys}
        outs = {
            path: content_md5(ROOT / path) for path in (*self.paths("outs"), *self.paths("metrics"))
        }
        content = json.dumps([self.stage, self.dep_md5s(), values, outs], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def filled_in(entries: Sequence[Any], params: Mapping[str, Any]) -> list[str]:
    """The paths in a list of dvc.yaml, `${…}` filled in from params.yaml."""
    plain = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    return [re.sub(r"\$\{([\w.]+)\}", lambda m: str(look_up(params, m[1])), p) for p in plain]


def look_up(mapping: Any, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        mapping = mapping[part]
    return mapping


def content_md5(path: Path) -> str:
    """The md5 of a file's bytes, or of the names and md5s of a folder's files.

    Of a folder whose files DVC tracks one by one, the `.dvc` files are what counts.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = sorted(path.rglob("*.dvc")) or sorted(path.rglob("*"))
    names = [(str(f.relative_to(path)), content_md5(f)) for f in files if f.is_file()]
    return (
        hashlib.md5(json.dumps(names).encode(), usedforsecurity=False).hexdigest() if names else ""
    )


# ---- what a run holds


def log_history(mlflow: ModuleType, history: Mapping[str, Sequence[float]]) -> None:
    """Log columns as curves over the column `epoch`, in as few requests as MLflow allows."""
    run, now = mlflow.active_run().info.run_id, int(time.time() * 1000)
    points = [
        mlflow.entities.Metric(name, value, now, int(epoch))
        for name, column in history.items()
        if name != "epoch"
        for epoch, value in zip(history["epoch"], column, strict=True)
    ]
    for start in range(0, len(points), 1000):
        mlflow.MlflowClient().log_batch(run, metrics=points[start : start + 1000])


def flat(nested: Mapping[str, Any], separator: str = "_") -> dict[str, Any]:
    """{"validation": {"accuracy": 1}} as {"validation_accuracy": 1}."""
    return dict(leaves(nested, separator))


def leaves(nested: Mapping[str, Any], separator: str) -> Iterator[tuple[str, Any]]:
    """Each value of nested mappings with its keys joined."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}{separator}{k}", v) for k, v in leaves(value, separator))
        else:
            yield key, value


# ---- logging that cannot hold up a result


class Logger:
    """Calls `log(mlflow)` in a forked process, which connects to MLflow while this one computes."""

    def __init__(
        self,
        stage: str,
        log: Callable[[Any, Params], None],
        register: Callable[[Any, Params, str], None] | None = None,
        *,
        once: bool = False,
    ) -> None:
        """Start connecting.

        Args:
            stage: whose run it will be.
            log: gets the mlflow module and the parameters, and logs one run.
            register: gets both and the id of the run, be it this one or one that is there already.
            once: log nothing where MLflow has this very run already.
        """
        self.stage, self.once, self.run_id = stage, once, ""
        fork = multiprocessing.get_context("fork")
        self.events, child = fork.Pipe()
        arguments = (self.events, child, stage, log, register, once)
        self.process = fork.Process(target=log_when_told, args=arguments, daemon=True)
        self.process.start()
        child.close()

    def finish(self) -> bool:
        """Have the run logged, now that its files are there; say so, and whether it went well.

        A stage that ran again and found nothing new, as a query does, is not logged again.
        """
        fingerprint = Pipeline.read(self.stage).fingerprint()
        outcome = "" if self.once else logged_from_here(self.stage, fingerprint)
        outcome = outcome or self.wait()
        self.process.kill()
        if outcome.startswith(("logged", "already")):
            logger.info("MLflow: %s", outcome)
            if self.run_id:
                remember(self.stage, fingerprint, outcome, self.run_id)
            return True
        logger.warning(
            "WARNING: MLflow at %s: %s The results are complete on disk; log them with `make relog`"
            " when it is back.",
            without_password(tracking_uri()),
            outcome,
        )
        return False

    def wait(self) -> str:
        """Tell the other process to log; what came of it, in a line."""
        patience = BY_ITSELF_WITHIN if tracking_uri() == LOCAL_STORE else ANSWER_WITHIN
        limit: float | None = BY_ITSELF_WITHIN
        try:
            self.events.send("log")
            while self.events.poll(limit):
                event, said = self.events.recv()
                if event == "outcome":
                    return str(said)
                if event == "run":
                    self.run_id = str(said)
                limit = None if event == "uploading" else patience
        except (EOFError, BrokenPipeError):
            return "the process that logs was killed."
        return f"no answer within {limit or 0:.0f} seconds."


def log_when_told(
    parent: Connection,
    events: Connection,
    stage: str,
    log: Callable[[Any, Params], None],
    register: Callable[[Any, Params, str], None] | None,
    once: bool,
) -> None:
    """What the forked process does: connect, wait for the word, log, tell how it went."""
    parent.close()
    gc.disable()  # imports make many objects that stay: looking through them takes 0.3 s
    outcome = ""
    try:
        for key, value in MLFLOW_SETTINGS.items():
            os.environ.setdefault(key, value)
        import mlflow

        events.send(("imported", ""))
        params = load_params()
        connect(mlflow, params.experiment)
        events.send(("connected", ""))
    except Exception as error:
        outcome = reason(error)
    try:
        events.recv()
    except (EOFError, KeyboardInterrupt):  # the parent failed, was killed, or was interrupted
        return
    if not outcome:
        outcome = log_now(Attentive(mlflow, events), stage, params, log, register, once)
    events.send(("outcome", outcome))


def log_now(
    mlflow: Any,
    stage: str,
    params: Params,
    log: Callable[[Any, Params], None],
    register: Callable[[Any, Params, str], None] | None,
    once: bool,
) -> str:
    """The outcome in a line: logged, already there, or what went wrong."""
    try:
        known = logged_already(mlflow, stage) if once else None
        if known is None:
            log(mlflow, params)
        info = known or mlflow.last_active_run().info
        if register:
            register(mlflow, params, info.run_id)
        if known:
            return f"already logged: {run_url(info)}"
        mlflow.events.send(("run", info.run_id))
        return f"logged: {run_url(info)}"
    except Exception as error:
        return reason(error)


def logged_from_here(stage: str, fingerprint: str) -> str:
    """The outcome of the last run of a stage, if that had the same results and is still there."""
    if not fingerprint:
        return ""
    note = ROOT / ".mlflow" / f"{stage}.json"
    if not note.exists() or (tracking_uri() == LOCAL_STORE and not LOCAL_FILE.exists()):
        return ""
    last = read_json(note)
    if (last["fingerprint"], last["uri"]) != (fingerprint, without_password(tracking_uri())):
        return ""
    return "already " + str(last["outcome"]).removeprefix("already ")


def remember(stage: str, fingerprint: str, outcome: str, run_id: str) -> None:
    """Note what was logged, for `logged_from_here` and for the results commit."""
    uri = without_password(tracking_uri())
    note = {"fingerprint": fingerprint, "uri": uri, "outcome": outcome, "run_id": run_id}
    (ROOT / ".mlflow").mkdir(exist_ok=True)
    write_json(ROOT / ".mlflow" / f"{stage}.json", note)


class Attentive:
    """The mlflow module, whose every call tells the parent that it went on, or why it did not.

    After the first failure nothing more is tried: the `with` blocks that are still open would each
    ask the dead server once more.
    """

    def __init__(self, mlflow: ModuleType, events: Connection) -> None:
        self.mlflow, self.events = mlflow, events

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.mlflow, name)
        if not callable(attribute) or isinstance(attribute, type):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            self.events.send(("uploading" if "artifact" in name else "calling", name))
            try:
                return attribute(*args, **kwargs)
            except Exception as error:
                self.events.send(("outcome", reason(error)))
                os._exit(1)

        return call


def logged_already(mlflow: Any, stage: str) -> Any:
    """The finished run with this fingerprint, or None; unfinished ones are marked killed."""
    client = mlflow.MlflowClient()
    pipeline = Pipeline.read(stage)
    if not pipeline.fingerprint():
        return None
    wanted = f"tags.fingerprint = '{pipeline.fingerprint()}' and tags.stage = '{stage}'"
    experiment = client.get_experiment_by_name(pipeline.params["experiment"])
    for run in client.search_runs([experiment.experiment_id], filter_string=wanted):
        if run.info.status == "FINISHED":
            return run.info
        client.set_terminated(run.info.run_id, "KILLED")
    return None


def run_url(info: Any) -> str:
    """Where a person looks at a run."""
    if tracking_uri() == LOCAL_STORE:
        return f"run {info.run_name} in mlflow.db (`make ui` shows it)"
    address = without_password(tracking_uri()).rstrip("/")
    return f"{address}/#/experiments/{info.experiment_id}/runs/{info.run_id}"


def reason(error: BaseException) -> str:
    """One line for what went wrong, with what to do where that is known."""
    text = without_password(" ".join(str(error).split())) or type(error).__name__
    if re.search(r"\b(401|403)\b|Access ?Denied|InvalidAccessKeyId|SignatureDoesNotMatch", text):
        what = "it refused the credentials: check MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN and the AWS_ keys"  # noqa: E501
    elif "NoCredentials" in type(error).__name__:
        what = (
            "the artifact store wants credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    elif re.search(r"timed out|Read timed out|ConnectTimeout", text):
        what = "it did not answer in time"
    elif re.search(r"Connection refused|Failed to establish|Name or service|resolve", text):
        what = "nothing answers at this address: is the server up, and MLFLOW_URL right?"
    else:
        what = f"{type(error).__name__}:"
    return f"{what} ({textwrap.shorten(text, 300, placeholder=' …')})."
