"""Adds a git remote and a DVC remote `sandbox` to the user's clone, and removes them again.

The DVC remote is made the default, in `.dvc/config.local`, which git ignores. An existing remote
and its credentials are not touched: `dvc pull -r NAME` reaches it all the time.
"""

from pathlib import Path

from lib.errors import UserError
from lib.repository import ROOT, ask_git, git
from lib.text import last_line, shown_address
from tools.dvc_config import read_config, write_config
from tools.sandbox.state import BUCKET, ORIGIN, State

REMOTE = "sandbox"
DVC_SECTION = f'remote "{REMOTE}"'
DVC_URL = f"s3://{BUCKET}/dvc"
CONFIG_LOCAL = ROOT / ".dvc" / "config.local"


# ---- git


def check_clone() -> None:
    """UserError if this is not a git repository, or has another remote `sandbox`."""
    if ask_git("rev-parse", "--git-dir").returncode:
        raise UserError(f"{ROOT} is not a git repository: type `git init` and commit first.")
    address = remote_address()
    if address and not is_ours(address):
        raise UserError(
            f"The git remote '{REMOTE}' leads to {address}, not to this sandbox: give it another "
            f"name (`git remote rename {REMOTE} NAME`)."
        )
    for file in (CONFIG_LOCAL.with_name("config"), CONFIG_LOCAL):
        url = read_config(file).get(DVC_SECTION, {}).get("url", DVC_URL)
        if url != DVC_URL:
            raise UserError(
                f"The DVC remote '{REMOTE}' of {file} leads to {shown_address(url)}, not to this "
                "sandbox: give it another name (`dvc remote rename`)."
            )


def remote_address() -> str:
    """The URL of the remote; empty if there is none."""
    return ask_git("config", "--get", f"remote.{REMOTE}.url").stdout.removesuffix("\n")


def is_ours(address: str) -> bool:
    """Whether a URL is this sandbox's origin, also from before the project was moved."""
    return Path(address) == ORIGIN or (
        Path(address).parts[-2:] == ORIGIN.parts[-2:] and not Path(address).exists()
    )


def add_git_remote() -> None:
    """Add the remote `sandbox`, or update its URL."""
    if remote_address():
        git("remote", "set-url", REMOTE, str(ORIGIN))
    else:
        git("remote", "add", REMOTE, str(ORIGIN))


def push_branch() -> str | None:
    """Push the current branch, without tags and hooks; its name, or None if HEAD is detached."""
    branch = ask_git("symbolic-ref", "--short", "--quiet", "HEAD").stdout.strip()
    if not branch:
        print("No branch is checked out, so none was pushed: `git push sandbox BRANCH` does it.")
        return None
    if ask_git("rev-parse", "--verify", "--quiet", "HEAD").returncode:
        raise UserError("There is no commit yet: commit first, then type `make sandbox`.")
    done = ask_git(
        *("push", "--quiet", "--no-verify", "--no-follow-tags", "--no-signed", REMOTE),
        f"refs/heads/{branch}:refs/heads/{branch}",
    )
    if done.returncode and "rejected" in done.stderr:
        print(
            f"The sandbox has commits on {branch} that are not here: `git pull {REMOTE} {branch}`."
        )
    elif done.returncode:
        raise UserError(f"{branch} could not be pushed: {last_line(done.stderr)}")
    return branch


def remove_git_remote() -> None:
    """Remove the remote with its branches."""
    if is_ours(remote_address() or "/"):
        git("remote", "remove", REMOTE)


# ---- DVC


def add_dvc_remote(state: State) -> None:
    """Make the sandbox's bucket DVC's default remote."""
    if not CONFIG_LOCAL.parent.is_dir():
        raise UserError(f"{CONFIG_LOCAL.parent} does not exist: type `dvc init` first.")
    config = read_config(CONFIG_LOCAL)
    default = config.get("core", {}).get("remote")
    if default != REMOTE:
        state.dvc_default = default
        state.write()
    config.setdefault("core", {})["remote"] = REMOTE
    config[DVC_SECTION] = {
        "url": DVC_URL,
        "endpointurl": state.s3,
        "access_key_id": state.access_key,
        "secret_access_key": state.secret_key,
    }
    write_config(CONFIG_LOCAL, config)


def remove_dvc_remote(default: str | None) -> None:
    """Remove the remote, and restore the clone's own default, if it had one."""
    config = read_config(CONFIG_LOCAL)
    if config.get(DVC_SECTION, {}).get("url") != DVC_URL:  # there is none, or it is not ours
        return
    del config[DVC_SECTION]
    if config.get("core", {}).get("remote") == REMOTE:
        if default:
            config["core"]["remote"] = default
        else:
            del config["core"]["remote"]
        if not config["core"]:
            del config["core"]
    write_config(CONFIG_LOCAL, config)
