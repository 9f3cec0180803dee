"""An MLflow server may be down, slow, refusing or old: results are complete, and logged later."""

import base64
import json
import re
import shutil
import socket
import time
from contextlib import contextmanager
from itertools import product
from types import SimpleNamespace

import mlflow
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException

from lib.errors import UserError
from lib.pipeline import Model
from tests.conftest import (
    Project,
    answer,
    comes_up,
    free_port,
    logged_runs,
    mlflow_server,
    server_that,
)
from tools.tracking import registry
from tools.tracking.address import check_address
from tools.tracking.runs import patient

pytestmark = pytest.mark.integration


@pytest.fixture
def prepared(project):
    """A project with a function that runs prepare_data and returns its output and duration."""

    def run(*arguments, ok=True, **extra):
        started = time.monotonic()
        output = project.run("lab/processes/run", "prepare_data", *arguments, ok=ok, **extra)
        return output, time.monotonic() - started

    project.prepare = run
    return project


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """A project that no test changes."""
    return Project(tmp_path_factory.mktemp("untouched"))


def results(project):
    folder = project.folder
    assert json.loads((folder / "metrics/prepare_data.json").read_text())["rows"]["train"] == 386
    assert (folder / "data/processed/scaler.joblib").exists()


ASKS = ("tools/within", ".", "python", "-m", "tools.job.preflight", "--connections")
LOGS = ("tools/within", "tools/tracking", "python", "-m", "tools.tracking", "relog")


# ---- addresses


def test_passwords_with_any_characters_reach_only_their_host(untouched):
    asked = {"host": [], "other": []}

    def note(place, then):
        def handle(request):
            asked[place].append(request.headers.get("Authorization"))
            then(request)

        return handle

    with server_that(note("other", answer(200, "{}"))) as other:

        def elsewhere(request):
            request.send_response(302)
            request.send_header("Location", other.replace("127.0.0.1", "localhost"))
            request.send_header("Content-Length", "0")
            request.end_headers()

        with server_that(note("host", elsewhere)) as host:
            address = host.replace("//", "//user:s3cr@t-w%2Frd@")
            output = untouched.run(*ASKS, ok=False, MLFLOW_URL=address)
    login = base64.b64encode(b"user:s3cr@t-w/rd").decode()
    assert asked == {"host": [f"Basic {login}"], "other": [None]}
    assert f"MLflow at {host} leads to {other.replace('127.0.0.1', 'localhost')}, " in output
    assert not re.search("s3cr|t-w|rd@", output), output


ANOTHER = "but not as MLflow does (a login page, or a proxy?)"
FAULTS = {
    "down": (None, "nothing answers at this address"),
    "slow": (lambda _: time.sleep(60), "answer"),
    "broken": (answer(503, "Service Unavailable"), "503"),
    "busy for a minute": (answer(429, "Too Many Requests", Retry_After="60"), "429"),
    "wrong credentials": (answer(401, "Unauthorized"), "MLFLOW_TRACKING_USERNAME"),
    "not MLflow": (answer(200, "<html>hello</html>"), ANOTHER),
}
UNKNOWN = '{"error_code": "UNAUTHENTICATED", "message": "You are not authenticated."}'
REFUSALS = {
    "MLflow's own 401": (401, UNKNOWN, "MLFLOW_TRACKING_USERNAME"),
    "MLflow's own 403": (403, "Permission denied", "MLFLOW_TRACKING_USERNAME"),
    "a proxy's 403": (403, "<html>Forbidden</html>", "MLFLOW_TRACKING_USERNAME"),
    "a login page": (200, "<html>hello</html>", ANOTHER),
    "JSON of another server": (200, "[]", ANOTHER),
    "a proxy's limit": (413, "<html>Request Entity Too Large</html>", "413"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_server_loses_no_results_and_is_reported_soon(prepared, fault):
    _, normal = prepared.prepare()
    handle, expected = FAULTS[fault]
    if handle is None:
        output, seconds = prepared.prepare(
            MLFLOW_URL=f"http://user:s3cr@t-word@127.0.0.1:{free_port()}"
        )
    else:
        with server_that(handle) as address:
            with_login = address.replace("//", "//user:s3cr@t-word@")
            output, seconds = prepared.prepare(MLFLOW_URL=with_login)
    assert expected in output
    assert "The results are complete on disk; log them with `make relog`" in output
    assert not re.search("s3cr|t-word", output)
    assert "Traceback" not in output
    assert seconds < normal + 20, "ten seconds, and as many on a busy machine"
    results(prepared)


def test_results_of_a_failed_process_are_not_called_complete(prepared):
    asked = prepared.folder / "asked"
    main = prepared.folder / "lab/processes/prepare_data/main.py"
    main.write_text(f"""
import time
from pathlib import Path

while not Path({str(asked)!r}).exists():
    time.sleep(0.1)
raise SystemExit(3)
""")

    def refuse(request):
        asked.touch()
        answer(401, "Unauthorized")(request)

    with server_that(refuse) as address:
        output, _ = prepared.prepare(ok=False, MLFLOW_URL=address)
    assert "complete on disk" not in output
    assert "make relog" not in output


def test_a_server_that_never_accepts_is_given_up(prepared):
    # A listening socket that never accepts is the least helpful server there is.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        output, seconds = prepared.prepare(MLFLOW_URL=address)
    assert "make relog" in output
    assert seconds < 40, "ten seconds, and the start on a busy machine"
    results(prepared)


@pytest.mark.parametrize(
    "address",
    [
        "http://somebody:the-password@127.0.0.1:1/",
        "http://somebody:pa@the-password@127.0.0.1:1/",
        "http://somebody:pa/the-password@127.0.0.1:1/",
        "http://somebody:pa?#the-password@127.0.0.1:1/",
        "http://somebody:pa the-password@127.0.0.1:1/",
        "http://somebody:pa\\the-password@127.0.0.1:1/",
        "http://the-password@127.0.0.1:1",
        "somebody:the-password@127.0.0.1:1",
        "http://[::1",
        "ftp://127.0.0.1/x",
        "nonsense",
    ],
)
def test_any_bad_mlflow_url_gives_one_line_from_preflight_without_password(untouched, address):
    output = untouched.run(*ASKS, ok=False, MLFLOW_URL=address)
    assert re.search("\nMLflow at .* (cannot be used|was not reached|does not answer)", output), (
        output
    )
    assert "127.0.0.1" in output or "@" not in address
    assert "the-password" not in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://host/team/mlflow/#/experiments/1", "leave out everything from # or"),
        ("https://host/?workspace=a", "leave out everything from # or"),
        ("http://user:p%C3%A9@host/", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ("http://ł:the-password@host/", "the login in MLFLOW_URL is not ASCII"),
    ],
)
def test_ambiguous_addresses_are_refused_before_a_request_is_sent(address, expected):
    with pytest.raises(UserError, match=expected) as refused:
        check_address(address)
    assert not re.search("p%C3%A9|é|ł|the-password", str(refused.value))
    for plain in ("https://host/team/mlflow/", "http://user:s3cr@t-w%2Frd@host", "databricks"):
        check_address(plain)


def test_an_address_is_shown_once_in_a_line(untouched):
    output = untouched.run(*LOGS, ok=False, MLFLOW_URL="http://host/#/experiments/1")
    assert "experiments/1: MLFLOW_URL is the address of" in output
    assert output.count("MLflow at") == 1


@pytest.mark.parametrize("token", ["s3cret\n", "s3 cret", "s3crét"])
def test_tokens_invalid_in_headers_are_refused_and_hidden(token):
    with pytest.raises(
        UserError, match="MLFLOW_TRACKING_TOKEN has a space, a line break"
    ) as caught:
        check_address("https://host", token)
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_and_other_servers_are_not_called_down(untouched, case):
    status, text, expected = REFUSALS[case]
    with server_that(answer(status, text)) as address:
        asked = untouched.run(*ASKS, ok=False, MLFLOW_URL=address)
        logged = untouched.run(*LOGS, ok=False, MLFLOW_URL=address)
    assert f"MLflow at {address} answers" in asked
    assert "MLflow answers" not in asked
    assert expected in asked
    assert expected in logged
    assert ("give it EDIT on the experiment there" in logged) == (status == 403)
    assert "`make relog` afterwards" in logged
    assert "Traceback" not in asked + logged


def test_a_login_in_netrc_is_named_as_a_cause_of_a_refusal(untouched, tmp_path):
    (tmp_path / "netrc").write_text("default login anonymous password me\n")
    with server_that(answer(401, "no")) as address:
        asked = untouched.run(*ASKS, ok=False, MLFLOW_URL=address, NETRC=str(tmp_path / "netrc"))
        assert "; the login in .netrc for this server, or its `default`, is used first" in asked
        assert ".netrc" not in untouched.run(*ASKS, ok=False, MLFLOW_URL=address)


def test_a_server_gets_time_to_store_an_artifact(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    for name, megabytes in (("small", 1), ("large", 300)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(megabytes * 10**6)
    for path, seconds in ((tmp_path / "small", 5), (tmp_path, 304)):
        with patient(path):
            assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == seconds
    assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 4
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "900")
    with patient(tmp_path):
        assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 1200


@pytest.mark.parametrize("there", [False, True])
def test_a_first_model_is_registered_if_a_server_hides_models_of_others(monkeypatch, there):
    """`--app-name basic-auth` does so if users see nothing without a grant."""
    made = {"registered_model": {"name": "a-network"}}
    version = {"model_version": {"name": "a-network", "version": "1"}}
    refused, granted = (403, "Permission denied"), (200, json.dumps(made | version))
    taken = (400, '{"error_code": "RESOURCE_ALREADY_EXISTS"}')
    answers_to = {
        "registered-models/get": refused,
        "registered-models/create": taken if there else granted,
        "model-versions/search": (200, "{}"),
        "model-versions/create": refused if there else granted,
        "registered-models/alias": granted,
    }

    def handle(request):
        asked = request.path.partition("?")[0].removeprefix("/api/2.0/mlflow/")
        answer(*answers_to[asked])(request)
        if asked == "registered-models/create" and not there:  # its creator may see it
            answers_to["registered-models/get"] = granted

    run = SimpleNamespace(run_id="1", artifact_uri="mlflow-artifacts:/1")
    model = Model("network", "params.yaml", "model")
    with server_that(handle) as address:
        monkeypatch.setattr(mlflow, "MlflowClient", lambda: MlflowClient(address))
        monkeypatch.setattr(registry, "experiment_name", lambda: "a")
        if not there:
            assert registry.register(run, model, "model.pt", {"dvc.md5": "0"}) == (
                "version 1, candidate"
            )
            return
        with pytest.raises(MlflowException, match=r"model-versions/create .* 403"):
            registry.register(run, model, "model.pt", {"dvc.md5": "0"})


def test_a_path_that_mlflow_does_not_have_is_reported(untouched):
    with server_that(answer(404, "<html>Not Found</html>")) as address:
        asked = untouched.run(*ASKS, ok=False, MLFLOW_URL=address)
        logged = untouched.run(*LOGS, ok=False, MLFLOW_URL=address)
    assert f"MLflow at {address} answers 404: check the path in MLFLOW_URL" in asked
    assert "check the path in MLFLOW_URL" in logged
    assert "`make relog` afterwards" in logged


def test_a_refusing_or_missing_proxy_is_named_without_its_password(untouched):
    with server_that(answer(407, "<html>Who?</html>")) as proxy:
        for host, way in product(("http", "https"), (proxy, f"http://127.0.0.1:{free_port()}")):
            login = way.replace("//", "//user:the-password@")
            given = {"MLFLOW_URL": f"{host}://mlflow.invalid", f"{host}_proxy": login}
            for output in (untouched.run(*each, ok=False, **given) for each in (ASKS, LOGS)):
                assert f"MLflow at {host}://mlflow.invalid" in output
                assert "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY" in output
                assert "the-password" not in output


def test_a_proxy_of_another_kind_is_reported(untouched):
    given = {"MLFLOW_URL": "http://mlflow.invalid", "http_proxy": "socks5h://127.0.0.1:9"}
    for output in (untouched.run(*each, ok=False, **given) for each in (ASKS, LOGS)):
        assert "the proxy is down, refuses, or is not an HTTP proxy: check HTTP_PROXY" in output


TRUSTED = {  # the last two are read by MLflow's own client
    "SSL_CERT_FILE": "",
    "MLFLOW_TRACKING_SERVER_CERT_PATH": "",
    "MLFLOW_TRACKING_INSECURE_TLS": "true",
}


def test_an_untrusted_certificate_is_not_reported_as_an_outage(untouched, certificate):
    with server_that(answer(200, "{}"), certificate) as address:
        asked = untouched.run(*ASKS, ok=False, MLFLOW_URL=address)
        logged = untouched.run(*LOGS, ok=False, MLFLOW_URL=address)
        for name, value in TRUSTED.items():
            others = dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "")
            given = others | {name: value or str(certificate)}
            output = untouched.run(*ASKS, ok=False, MLFLOW_URL=address, **given)
            assert f"MLflow answers: {address}" in output
    for output in (asked, logged):
        assert "does not trust (self-signed certificate)" in output
        assert "have SSL_CERT_FILE name" in output
    assert "`make relog` afterwards" in logged


def test_relogging_missing_results_says_how_to_get_them(project):
    output = project.run("make", "relog", "STAGES=export_models", ok=False)
    assert "export_models: missing: artifacts/onnx. `dvc pull` or `make run` brings it." in output
    shutil.rmtree(project.folder / "artifacts/tune")
    output = project.run("make", "relog", "STAGES=lab/tuning/dvc.yaml:tune_dnn_pytorch", ok=False)
    assert "`dvc pull` or `make tune STAGES=tune_dnn_pytorch` brings it." in output
    assert "no stage is called exprt" in project.run("make", "relog", "STAGES=exprt", ok=False)


def test_make_ui_serves_the_runs_and_starts_no_needless_processes(prepared):
    prepared.prepare()
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with prepared.start("make", "ui", f"PORT={port}") as server:
        assert comes_up(address, server)
        assert [run["name"] for run in logged_runs(address)] == ["prepare_data"]
        started = psutil.Process(server.pid).children(recursive=True)
        assert not [p for p in started if "mlflow.server.jobs" in " ".join(p.cmdline())]


@pytest.mark.parametrize("environment", ["--dev .", "tests/mlflow-2"], ids=["3.x", "2.x"])
def test_what_a_server_missed_is_logged_once_when_it_is_back(project, tmp_path, environment):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    project.edit("params.yaml", "epochs: 120", "epochs: 3")
    (project.folder / "lab/tuning/dvc.yaml").unlink()  # its committed results would be logged, too
    project.dvc("repro", MLFLOW_URL=address)
    assert "MLflow" in project.run("make", "relog", ok=False, MLFLOW_URL=address)
    with mlflow_server(tmp_path, port, environment):
        assert project.run("make", "relog", MLFLOW_URL=address).count("MLflow: logged") == 4
        again = project.run("make", "relog", MLFLOW_URL=address)
        assert again.count("MLflow: already logged") == 4
        assert "candidate" not in again, "uncommitted models are not registered"
        runs, commit = logged_runs(address), project.git("rev-parse", "HEAD").strip()
        project.commit("Results")
        again = project.run("make", "relog", MLFLOW_URL=address)
        assert again.count("MLflow: already logged") == 4
        assert "MLflow: densenet is version 1, candidate" in again
        again = project.run("make", "relog", "STAGES=export_models", MLFLOW_URL=address)
        assert "MLflow: densenet is version 1, candidate" in again, "the same model: no second one"
    by_name = {run["name"]: run for run in runs}
    assert len(runs) == 11, "four processes and seven classifiers, each once"
    assert {run["status"] for run in runs} == {"FINISHED"}
    assert {run["tags"]["git.commit"] for run in runs} == {commit}
    dnn = by_name["train_dnn_pytorch"]
    assert dnn["tags"]["git.dirty"] == "true", "params.yaml was edited and not committed"
    assert "dvc.dep.lib/pytorch.py" in dnn["tags"]
    assert {"densenet.pt", "densenet.joblib", "training_history.png"} <= set(dnn["files"])
    assert dnn["metrics"]["train_loss"] > 0
    forest = by_name["random_forest"]
    assert forest["params"] == {
        "classifier": "random_forest",
        "n_estimators": "100",
        "max_depth": "None",
    }
    assert "mlflow.parentRunId" in forest["tags"]


def test_a_server_that_dies_while_logging_gets_the_run_later(prepared, tmp_path):
    # A proxy decides when: it passes on some requests, and then refuses all.
    port = free_port()
    with mlflow_server(tmp_path, port) as address, dying_proxy(port, lives=8) as proxy:
        prepared.run("lab/processes/run", "prepare_data")
        output = prepared.run("lab/processes/run", "train_standard_classifiers", MLFLOW_URL=proxy)
        assert "make relog" in output
        assert (prepared.folder / "artifacts/standard_classifiers/model.joblib").exists()
        partial = logged_runs(address, "tags.stage = 'train_standard_classifiers'")
        assert "RUNNING" in {run["status"] for run in partial}
        relog = ("make", "relog", "STAGES=train_standard_classifiers")
        assert "MLflow: logged" in prepared.run(*relog, MLFLOW_URL=address)
        runs = logged_runs(address, "tags.stage = 'train_standard_classifiers'")
    finished = [run["name"] for run in runs if run["status"] == "FINISHED"]
    assert finished.count("train_standard_classifiers") == 1
    assert "RUNNING" not in {run["status"] for run in runs}


@contextmanager
def dying_proxy(port, lives):
    """Pass on `lives` requests to a port of this machine, then refuse all."""
    left = [lives]

    def pass_on(request):
        if left[0] <= 0:
            request.connection.close()
            return
        left[0] -= 1
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length)
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            head = f"{request.command} {request.path} HTTP/1.0\r\n"
            kept = {
                k: v for k, v in request.headers.items() if k.lower() not in ("connection", "host")
            }
            head += "".join(
                f"{k}: {v}\r\n" for k, v in {**kept, "Host": f"127.0.0.1:{port}"}.items()
            )
            upstream.sendall(head.encode() + b"\r\n" + body)
            while chunk := upstream.recv(65536):
                request.wfile.write(chunk)

    with server_that(pass_on) as address:
        yield address
