"""The bare repository that a rehearsal pushes to, and what GitHub would know beside it."""

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
LABEL = "sandbox"  # of its one runner
OF_A_JOB = "SANDBOX_ORIGIN"  # set in jobs: what they push starts nothing, as with GitHub's token
VARIABLES, SECRETS = FOLDER / "variables.yml", FOLDER / "secrets.yml"

# It finds the project by its own place. Whatever pushes, jobs are the sandbox's processes.
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
    "core.hooksPath": "hooks",  # the user's own may say otherwise for all repositories
    "gc.auto": "0",
    "maintenance.auto": "false",
    "receive.autogc": "false",
    "receive.shallowUpdate": "true",
}


def make_origin(branch: str) -> None:
    """Make the bare repository, or repair one that a killed `up` left half made."""
    JOBS.mkdir(exist_ok=True)
    # Once a branch was pushed, HEAD stays: `git init` leaves what is there.
    ready = (ORIGIN / "hooks" / "post-receive").exists()
    git("init", "--quiet", "--bare", "--template=", str(ORIGIN), folder=FOLDER)
    if not ready:
        git("symbolic-ref", "HEAD", f"refs/heads/{branch}", folder=ORIGIN)
    for key, value in SETTINGS.items():
        git("config", key, value, folder=ORIGIN)
    with replaced_file(ORIGIN / "hooks" / "post-receive") as hook:
        hook.write_text(HOOK)
        hook.chmod(0o755)


def write_settings(state: State, *, keep: bool = False) -> None:
    """What a repository's settings page holds: the variables and secrets that jobs get.

    Further ones, added by hand, stay; with `keep`, as for a job, so do the sandbox's own as they
    were changed: a wrong secret, or another server, can be tried until the next `make sandbox`.
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
    """Set these in a file of settings, or only those that it lacks."""
    there = read_settings(file)
    merged = settings | there if keep else there | settings
    write_private(file, json.dumps(merged, indent=2) + "\n")


def read_settings(file: Path) -> dict[str, str]:
    """A file of settings; empty if it is missing or broken."""
    try:
        settings = json.loads(file.read_text())
        return {str(name): str(value) for name, value in settings.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def repository() -> str:
    """OWNER/NAME, as jobs are told."""
    return f"sandbox/{re.sub(r'[^A-Za-z0-9._-]+', '-', ROOT.name) or 'project'}"


def shown(path: Path) -> str:
    """A path as it is typed in the project's root."""
    return quote(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path))
