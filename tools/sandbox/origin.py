"""The bare repository of the sandbox, and its variables and secrets, as on GitHub."""

import json
import re
from pathlib import Path
from shlex import quote

from lib.files import replaced_file
from lib.repository import ROOT, git
from tools.sandbox.clone import DVC_URL
from tools.sandbox.processes import FOLDER_MARK, PART_MARK
from tools.sandbox.state import FOLDER, JOBS, ORIGIN, State, write_private

FIND_LINKS = "SANDBOX_PIP_FIND_LINKS"
LABEL = "sandbox"  # the label of its only runner
OF_A_JOB = "SANDBOX_ORIGIN"  # set in jobs: their pushes start no jobs, as with GitHub's token
VARIABLES, SECRETS = FOLDER / "variables.yml", FOLDER / "secrets.yml"

# It finds the project relative to itself. Jobs are marked as the sandbox's, whoever pushes.
HOOK = f"""\
#!/bin/sh
[ -z "${{{OF_A_JOB}-}}" ] || exit 0
root=$(CDPATH='' cd -- ../.. && pwd)
if [ ! -e "$root/tools/sandbox/runner.py" ]; then
    echo "sandbox: this checkout has no tools/sandbox/runner.py, so no run is started."
    exit
fi
export {FOLDER_MARK}="$root/.sandbox" {PART_MARK}=job {FIND_LINKS}="${{PIP_FIND_LINKS-}}"
unset GIT_DIR GIT_QUARANTINE_PATH
exec "$root/tools/within" "$root/tools/sandbox" python -m tools.sandbox.runner
"""

SETTINGS = {
    "core.hooksPath": "hooks",  # the user may have set it globally
    "gc.auto": "0",
    "maintenance.auto": "false",
    "receive.autogc": "false",
    "receive.shallowUpdate": "true",
}


def make_origin(branch: str) -> None:
    """Make the bare repository, or complete one that a killed `up` left."""
    JOBS.mkdir(exist_ok=True)
    # HEAD is set only once; `git init` keeps an existing repository.
    ready = (ORIGIN / "hooks" / "post-receive").exists()
    form = ("--bare", "--template=", "--object-format=sha1")
    git("init", "--quiet", *form, str(ORIGIN), folder=FOLDER)
    if not ready:
        git("symbolic-ref", "HEAD", f"refs/heads/{branch}", folder=ORIGIN)
    for key, value in SETTINGS.items():
        git("config", key, value, folder=ORIGIN)
    with replaced_file(ORIGIN / "hooks" / "post-receive") as hook:
        hook.write_text(HOOK)
        hook.chmod(0o755)


def write_settings(state: State, *, keep: bool = False) -> None:
    """Write the variables and secrets that jobs get, as on a repository's settings page.

    Ones that were added by hand are kept. With `keep`, as for a job, so are changes to the
    sandbox's own: a wrong secret, or another server, can be tried until the next `make sandbox`.
    """
    merge(
        VARIABLES,
        {
            "MLFLOW_URL": state.mlflow,
            "MLFLOW_S3_ENDPOINT_URL": state.s3,
            "DVC_REMOTE_URL": DVC_URL,
            "RUNNER_LABELS": json.dumps([LABEL]),
        },
        keep,
    )
    merge(
        SECRETS,
        {
            "MINIO_ACCESS_KEY_ID": state.access_key,
            "MINIO_SECRET_ACCESS_KEY": state.secret_key,
            "GITHUB_TOKEN": state.token,
        },
        keep,
    )


def merge(file: Path, settings: dict[str, str], keep: bool) -> None:
    """Write settings to a file; with `keep`, only those that it lacks."""
    there = read_settings(file)
    merged = settings | there if keep else there | settings
    write_private(file, json.dumps(merged, indent=2) + "\n")


def read_settings(file: Path) -> dict[str, str]:
    """The settings in a file; empty if it is missing or invalid."""
    try:
        settings = json.loads(file.read_text())
        return {str(name): str(value) for name, value in settings.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def repository() -> str:
    """OWNER/NAME, for GITHUB_REPOSITORY."""
    return f"sandbox/{re.sub(r'[^A-Za-z0-9._-]+', '-', ROOT.name) or 'project'}"


def shown(path: Path) -> str:
    """A path relative to the project's root, quoted for a shell."""
    return quote(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path))
