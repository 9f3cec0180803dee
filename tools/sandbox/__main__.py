"""The whole platform on one machine: S3, MLflow, a git origin and a runner.

    up             start or repair it (ARTIFACTS=direct: clients write to S3)
    status         show servers, addresses and the latest jobs (--json: for programs)
    dispatch REF   like the button "Run workflow", with this ref
    down           stop it and remove everything

These are the commands of `python -m tools.sandbox`, in the environment of its Pipfile.lock.

Called by `make sandbox`, `make sandbox-status` and `make sandbox-down`.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from lib.errors import UserError
from lib.repository import ask_git
from tools.command import as_command
from tools.sandbox.clone import (
    add_dvc_remote,
    add_git_remote,
    check_clone,
    push_branch,
    remove_dvc_remote,
    remove_git_remote,
)
from tools.sandbox.origin import make_origin, shown, write_settings
from tools.sandbox.processes import end_all, ours
from tools.sandbox.runner import dispatch, job_number, remove_links, run_tag_prefix
from tools.sandbox.servers import remove_data, remove_sockets, servers, start_servers
from tools.sandbox.state import ARTIFACT_MODES, JOBS, ORIGIN, State, alone

NEXT = """\

The sandbox is up. A run by tag:

  dvc push                    # data that you added, which a job gets from the bucket
  git push sandbox {branch}
  git tag {tag}
  git push sandbox {tag}      # the run, live

Its results, afterwards:

  git pull sandbox {branch} && dvc pull    # dvc as in `make shell`
  git clone {origin} FOLDER && cp .dvc/config.local FOLDER/.dvc/    # a second clone, with its keys
  MLflow   {mlflow}

Once more: `git push sandbox :TAG`, then push the tag again. What a run printed: {jobs}
While the sandbox is up, plain `dvc pull` and `dvc push` mean its bucket (S3 {s3});
`dvc pull -r NAME` means your own remote. `make sandbox-down` ends it and forgets everything.
"""


def up(artifacts: str) -> None:
    """Start everything that is not running yet."""
    check_clone()
    with alone():
        state = State.read() or State()
        state.artifacts = artifacts or state.artifacts
        start_servers(state)
        if not ours("job"):
            remove_links()
        head = ask_git("symbolic-ref", "--short", "--quiet", "HEAD").stdout.strip()
        make_origin(head or "main")
        write_settings(state)
        add_git_remote()
        add_dvc_remote(state)
        branch = push_branch()
    print(
        NEXT.format(
            branch=branch or "main",
            tag=f"{run_tag_prefix().rstrip('-')}-v0.0.1",
            mlflow=state.mlflow,
            s3=state.s3,
            origin=shown(ORIGIN),
            jobs=shown(JOBS),
        )
    )


def down() -> None:
    """Stop everything that is running and remove it."""
    with alone():
        state = State.read()
        end_all()
        remove_dvc_remote(state.dvc_default if state else None)
        remove_git_remote()
        remove_links()
        if state:
            remove_sockets(state)
        remove_data()
    print("The sandbox is gone.")


def status(as_json: bool) -> bool:
    """Print the state of the servers and jobs; whether all servers run."""
    state = State.read()
    if state is None:
        print("{}" if as_json else "There is no sandbox: `make sandbox` makes one.")
        return False
    running = {server.part: server.runs() for server in servers(state)}
    if as_json:
        facts = {
            "mlflow": state.mlflow,
            "s3": state.s3,
            "access_key": state.access_key,
            "secret_key": state.secret_key,
            "artifacts": state.artifacts,
            "origin": str(ORIGIN),
            "ports": state.ports,
            "running": running,
            "pids": {pid: mark.part for pid, mark in ours().items()},
        }
        print(json.dumps(facts, indent=2))
        return all(running.values())
    for server in servers(state):
        where = "runs" if running[server.part] else f"DOES NOT RUN (log: {shown(server.log)})"
        print(f"{server.title:8} {server.address:26} {where}")
    print(f"{'origin':8} {shown(ORIGIN)}")
    for folder in sorted(JOBS.glob("*-*"), key=job_number)[-10:]:
        result = folder / "result"
        unfinished = "running" if ours("job") else "was killed"
        outcome = result.read_text().strip() if result.exists() else unfinished
        print(f"{'job':8} {shown(folder)}: {outcome}")
    return all(running.values())


def main() -> None:
    """Run the command in the module's docstring."""
    parser = argparse.ArgumentParser(prog="sandbox", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up")
    commands.add_parser("down")
    commands.add_parser("dispatch").add_argument("ref")
    commands.add_parser("status").add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not Path("/proc/self/environ").exists():
        raise UserError(
            "it needs Linux, where /proc tells which processes are its own: type this in the "
            "devcontainer, or on a machine with Linux."
        )
    try:
        run(given)
    except BrokenPipeError:
        raise
    except OSError as error:  # such as a full disk or missing permissions
        raise UserError(str(error)) from None


def run(given: argparse.Namespace) -> None:
    """Run one of the commands."""
    if given.command == "up":
        artifacts = os.environ.get("ARTIFACTS", "")
        if artifacts not in ("", *ARTIFACT_MODES):
            raise UserError(f"ARTIFACTS is '{artifacts}': it is proxied or direct.")
        up(artifacts)
    elif given.command == "down":
        down()
    elif given.command == "dispatch":
        sys.exit(0 if dispatch(given.ref) else 1)
    else:
        sys.exit(0 if status(given.json) else 1)


if __name__ == "__main__":
    as_command(main, "sandbox: ")
