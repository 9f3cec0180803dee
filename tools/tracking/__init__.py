"""The tracker: logs results to MLflow, in an environment of its own.

A process computes and writes files, and knows nothing of MLflow. `lab/processes/run` starts the
tracker beside it, which connects while the process computes, shows the curve of a training while
it runs, and logs the stage from its files once the process has ended well. `make relog` logs what
a server missed. A result is never lost to a server, nor to a mistake in what logs.
"""

import os
import re

from lib.text import one_line

# Left alone, mlflow tries for four minutes, or for as long as a server says, reports its use to its
# makers and prints emoji; its server starts processes for evaluations by language models.
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


def registered_name(project: str, model: str) -> str:
    """What a model is called in MLflow's registry, where all projects on a server share names."""
    return re.sub(r"[/:'\"\\`]", "-", one_line(f"{project}-{model}"))


def job_url() -> str:
    """The address of this job's page on the hosting site; nothing outside a runner."""
    server, repository, run_id = (
        os.environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")
    )
    return f"{server}/{repository}/actions/runs/{run_id}" if run_id else ""
