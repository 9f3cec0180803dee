"""The tracker: logs results to MLflow, in an environment of its own.

A process computes and writes files, and knows nothing of MLflow. `lab/processes/run` starts the
tracker beside it, which connects while the process computes, shows the curve of a training while
it runs, and logs the stage from its files once the process has ended well. `make relog` logs what
a server missed. A result is never lost to a server, nor to a mistake in what logs.
"""

import re

# Left alone, mlflow tries for four minutes, reports its use to its makers and prints emoji.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "AWS_MAX_ATTEMPTS": "2",
    "GIT_PYTHON_REFRESH": "quiet",
}


def without_password(text: str) -> str:
    """The text with no user and password in any address."""
    return re.sub(r"//[^/@\s]*@", "//", text)
