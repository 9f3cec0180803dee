"""The tracker: logs results to MLflow, in an environment of its own.

A process only computes and writes files; it does not use MLflow. `lab/processes/run` starts the
tracker beside it, which connects while the process computes, shows the curve of a training live,
and logs the stage from its files once the process has succeeded. `make relog` logs what could not
be logged at the time. Neither a server that is down nor a bug in logging code loses a result.
"""

import os
import re

from lib.text import one_line

# By default, mlflow retries for four minutes, or as long as a server says, sends telemetry and
# prints emoji; its server starts processes for evaluations by language models.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "AWS_MAX_ATTEMPTS": "2",
    "GIT_PYTHON_REFRESH": "quiet",
}

ARTIFACTS = "artifacts/"  # outs below it go to MLflow
# Why a model is not in the registry.
INSIDE = "is a folder inside an out, which has no checksum of its own: name a file, or the out"


def registered_name(project: str, model: str) -> str:
    """A model's name in MLflow's registry, which all projects on a server share."""
    return re.sub(r"[/:'\"\\`]", "-", one_line(f"{project}-{model}"))


def job_url() -> str:
    """The URL of this job's page on the hosting site; empty outside a job."""
    server, repository, run_id = (
        os.environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")
    )
    return f"{server}/{repository}/actions/runs/{run_id}" if run_id else ""
