"""What the hosting site must know: secrets and variables of the repository, on its settings page.

    make settings           lists them
    make settings SET=yes   sets them with gh; values come from the environment

A secret goes to gh on its standard input: it is in no command line and on no disk.
"""

import os
import shutil
import subprocess
import sys

SECRETS = {
    "MINIO_ACCESS_KEY_ID": ("AWS_ACCESS_KEY_ID", "the runs' S3 access key"),
    "MINIO_SECRET_ACCESS_KEY": ("AWS_SECRET_ACCESS_KEY", "and its secret"),
    "ACCESS_TOKEN": (
        "ACCESS_TOKEN",
        "optional: an app's or machine user's, whose pushes start workflows",
    ),
}
VARIABLES = {
    "MLFLOW_URL": "optional: another MLflow server than the workflow names",
    "MLFLOW_S3_ENDPOINT_URL": "optional: another S3 server than .dvc/config names",
    "DVC_REMOTE_URL": "optional: another bucket than .dvc/config names",
}


def wanted() -> list[tuple[str, str, str, str]]:
    """Kind, name, where its value comes from, what it is."""
    return [("secret", name, *about) for name, about in SECRETS.items()] + [
        ("variable", name, name, what) for name, what in VARIABLES.items()
    ]


def set_with_gh() -> int:
    """Set those whose value the environment has: how many failed."""
    failed = 0
    for kind, name, source, _ in wanted():
        if not (value := os.environ.get(source, "").strip()):
            print(f"{kind:8} {name}: {source} is not set here, left as it is")
            continue
        done = subprocess.run(
            ["gh", kind, "set", name], input=os.fsencode(value), capture_output=True, check=False
        )
        failed += done.returncode != 0
        why = " ".join(done.stderr.decode("utf-8", "replace").split()) or "gh gave no reason"
        print(f"{kind:8} {name}: {f'NOT set: {why}' if done.returncode else 'set'}")
    return failed


def main() -> None:
    """List, or set."""
    if not os.environ.get("SET"):
        print("On the repository's page: Settings, Secrets and variables, Actions.\n")
        for kind, name, source, what in wanted():
            print(f"{kind:8} {name:24} {what}" + (f" (from {source})" if kind == "secret" else ""))
        print("\nWith gh and these in the environment: make settings SET=yes")
        return
    if not shutil.which("gh"):
        sys.exit("gh is missing: install it and `gh auth login`, or use the settings page.")
    if subprocess.run(["gh", "auth", "status"], capture_output=True, check=False).returncode:
        sys.exit("gh is not logged in: `gh auth login`, then again.")
    if failed := set_with_gh():
        sys.exit(f"{failed} could not be set.")


if __name__ == "__main__":
    main()
