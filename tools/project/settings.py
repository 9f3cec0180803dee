"""The settings that runs need on the hosting site: secrets, who may use them, and variables.

    make settings           lists them
    make settings SET=yes   sets them with gh; values come from the environment
    make doctor             says which are missing

Secrets are in environments, each with rules on which tags and branches may use it: repository
secrets would be available to the workflows of every branch. Secrets are passed to gh on stdin, so
that they appear in no command line and are not written to disk.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from lib.errors import UserError
from lib.repository import ROOT
from tools.command import as_command, captured
from tools.project.todo import marks, values

MAIN = ("branch", "main")
SECRETS = {  # secret: (variable that has its value, description)
    "MINIO_ACCESS_KEY_ID": ("AWS_ACCESS_KEY_ID", "the runs' S3 access key"),
    "MINIO_SECRET_ACCESS_KEY": ("AWS_SECRET_ACCESS_KEY", "and its secret"),
}
LOGIN = {
    f"MLFLOW_TRACKING_{name}": (f"MLFLOW_TRACKING_{name}", f"optional: MLflow's {what}")
    for name, what in {"USERNAME": "user", "PASSWORD": "password", "TOKEN": "token"}.items()
}
SEAL = {
    "ENVIRONMENTS_KEY": (
        "ENVIRONMENTS_KEY",
        "optional: long random text, with which runs use only environments that are as installed",
    )
}
RELEASES = (ROOT / ".github/workflows/runtimes.yml").exists()  # an optional part
OF_ENVIRONMENT = {"experiments": SECRETS | LOGIN | SEAL} | (
    {"releases": SECRETS | SEAL} if RELEASES else {}
)
VARIABLES = {
    "RUNNER_LABELS": "optional: other labels than the workflow names, as a list in JSON",
    "TESTS_LABELS": 'optional: those of the runners of tests; else ["self-hosted", "tests"]',
    "RUN_CONTAINER": "optional: a container for the jobs, in JSON (tools/image/README.md)",
    "MLFLOW_URL": "optional: another MLflow server than the workflow names",
    "MLFLOW_S3_ENDPOINT_URL": "optional: another S3 server than .dvc/config names",
    "DVC_REMOTE_URL": "optional: another bucket than .dvc/config names",
    "JOBS": "optional: how many stages may run at once",
    "RAY_ADDRESS": "optional: a cluster of Ray for sweeps (lab/tuning/README.md)",
}
LABELS = (list, 'a list in JSON, as in ["self-hosted", "gpu"]')
IN_JSON = {
    "RUNNER_LABELS": LABELS,
    "TESTS_LABELS": LABELS,
    "RUN_CONTAINER": (dict, 'what GitHub takes for `container`, in JSON, as in {"image": "…"}'),
}
OF_GITHUB = ("ubuntu-", "windows-", "macos-")  # labels of runners that GitHub always has
TAGS = "refs/tags/runtime-*"
ADMINS_AND_MAINTAINERS = (5, 2)  # ids of GitHub's roles
RULESET = {  # a run's tag may be pushed again; a release's must not change
    "name": "releases",
    "target": "tag",
    "enforcement": "active",
    "conditions": {"ref_name": {"include": [TAGS], "exclude": []}},
    "rules": [{"type": kind} for kind in ("creation", "update", "deletion")],
    "bypass_actors": [
        {"actor_id": role, "actor_type": "RepositoryRole", "bypass_mode": "always"}
        for role in ADMINS_AND_MAINTAINERS
    ],
}
# Settings for pull requests from forks of a private repository.
FORKS = "actions/permissions/fork-pr-workflows-private-repos"
NO_FORKS = {
    "run_workflows_from_fork_pull_requests": False,
    "send_write_tokens_to_workflows": False,
    "send_secrets_and_variables": False,
    "require_approval_for_fork_pr_workflows": True,
}


def rules() -> dict[str, set[tuple[str, str]]]:
    """Which tags and branches may use each environment; UserError if run_tag is not filled in."""
    if not (tag := values().get("run_tag")):
        raise UserError("The prefix of a run's tags is not filled in yet: make todo.")
    of_environment = {
        "experiments": {("tag", f"{tag}*"), ("tag", "tune-*"), MAIN},
        "releases": {("tag", "runtime-*")},
    }
    return {name: of_environment[name] for name in OF_ENVIRONMENT}


# ---- reading the settings


def ask(path: str, of: str = "repos/{owner}/{repo}") -> Any:
    """The JSON answer of the hosting site's API for this repository; None for 404."""
    done = gh("api", f"{of}/{path}".rstrip("/"))
    if done.returncode:
        if "HTTP 404" in done.stderr:
            return None
        raise UserError(why(done))
    return json.loads(done.stdout)


def gh(*arguments: str, value: str = "") -> subprocess.CompletedProcess[str]:
    """Run gh, without prompts; the finished process."""
    command, patience = ["gh", *arguments], {"GH_PROMPT_DISABLED": "1", "NO_COLOR": "1"}
    try:
        return captured(command, input=value, env=os.environ | patience, timeout=30)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "no answer within 30 seconds")


def why(done: subprocess.CompletedProcess[str]) -> str:
    """Why gh failed, in one line."""
    return " ".join(done.stderr.split()) or "gh gave no reason"


def there(path: str, key: str) -> list[Any]:
    """The list under a key of the API's answer; empty if there is none."""
    return list((ask(f"{path}?per_page=100") or {}).get(key, []))


def names(path: str) -> set[str]:
    """The names of the secrets at a path of the API."""
    return {str(secret["name"]) for secret in there(path, "secrets")}


def policies(environment: str) -> set[tuple[str, str]]:
    """Kind and pattern of the tags and branches that may use an environment."""
    found = there(f"environments/{environment}/deployment-branch-policies", "branch_policies")
    return {(policy.get("type", "branch"), policy["name"]) for policy in found}


def has_rules(environment: dict[str, Any] | None) -> bool:
    """Whether an environment is restricted to its policies."""
    policy = (environment or {}).get("deployment_branch_policy") or {}
    return bool(policy.get("custom_branch_policies"))


def has_ruleset() -> bool:
    """Whether the ruleset that restricts release tags is active."""
    known = ask("rulesets?per_page=100") or []
    ours = [rule for rule in known if rule["name"] == RULESET["name"]]
    return any(rule["enforcement"] == "active" for rule in ours)


def forks_run() -> bool:
    """Whether pull requests from forks run without approval, if that can be queried."""
    try:
        forks = ask(FORKS) or {}
    except UserError:  # the API has it only for private repositories
        return False
    asked = forks.get("require_approval_for_fork_pr_workflows", False)
    return bool(forks.get("run_workflows_from_fork_pull_requests")) and not asked


def labels(named: str) -> list[str]:
    """The labels that a runner must have: of the variable RUNNER_LABELS, or else the given ones."""
    variable = ask("actions/variables/RUNNER_LABELS") or {}
    try:
        return list(map(str, json.loads(variable.get("value") or f"[{named}]")))
    except (ValueError, TypeError):
        raise UserError("the variable RUNNER_LABELS is no list in JSON") from None


def runners(wanted: list[str]) -> list[str]:
    """The runners that are online and have these labels, of the repository and the organisation.

    Only their administrators may list them.
    """
    found = (ask("actions/runners?per_page=100") or {}).get("runners", [])
    with suppress(UserError):
        found += (ask("actions/runners?per_page=100", "orgs/{owner}") or {}).get("runners", [])
    return [
        runner["name"]
        for runner in found
        if runner["status"] == "online"
        and {label.lower() for label in wanted} <= {of["name"].lower() for of in runner["labels"]}
    ]


def missing() -> Iterator[str]:
    """Lines on settings that are missing; UserError if they cannot be queried."""
    if ask("") is None:
        raise UserError("gh finds no such repository.")
    for environment, expected in rules().items():
        title = f"environment {environment}"
        found = ask(f"environments/{environment}")
        if found is None:
            yield f"{title}: it does not exist"
            continue
        if not has_rules(found):
            yield f"{title}: every branch may use its secrets"
        else:
            allowed = policies(environment)
            yield from (f"{title}: no {kind} {n}" for kind, n in sorted(expected - allowed))
            for kind, name in sorted(allowed - expected):
                yield f"{title}: {kind} {name} may use its secrets as well: remove it there"
        for secret in sorted(SECRETS.keys() - names(f"environments/{environment}/secrets")):
            yield f"{title}: no secret {secret}"
    for secret in sorted(names("actions/secrets") & {*SECRETS, *LOGIN, *SEAL, "ACCESS_TOKEN"}):
        yield f"{secret} is a secret of the repository, for every branch: gh secret delete {secret}"
    if RELEASES and not has_ruleset():
        yield "tags runtime-*: everybody who may push may push them"
    if forks_run():
        yield "pull requests of forks: they run without being asked"


# ---- writing the settings


def put(method: str, path: str, content: dict[str, Any], what: str) -> bool:
    """Send a request to the API, and print whether it succeeded."""
    done = gh(
        *("api", "--method", method, f"repos/{{owner}}/{{repo}}/{path}", "--input", "-"),
        value=json.dumps(content),
    )
    print(f"{what}: {f'NOT set: {why(done)}' if done.returncode else 'set'}", flush=True)
    return done.returncode == 0


def set_rules() -> int:
    """Set the environments, their rules, and the ruleset; how many requests failed."""
    done = []
    for environment, expected in rules().items():
        path = f"environments/{environment}"
        found = ask(path)
        if not has_rules(found):
            only = {"protected_branches": False, "custom_branch_policies": True}
            content = kept(found or {}) | {"deployment_branch_policy": only}
            done.append(put("PUT", path, content, f"environment {environment}"))
        for kind, name in sorted(expected - policies(environment)):
            policy = {"type": kind, "name": name}
            what = f"environment {environment}, {kind} {name}"
            done.append(put("POST", f"{path}/deployment-branch-policies", policy, what))
    if RELEASES and not has_ruleset():
        done.append(put("POST", "rulesets", RULESET, "ruleset for tags runtime-*"))
    if forks_run():
        done.append(put("PUT", FORKS, NO_FORKS, "pull requests of forks"))
    return done.count(False)


def kept(environment: dict[str, Any]) -> dict[str, Any]:
    """An environment's other protection rules, which an update would remove."""
    content: dict[str, Any] = {}
    for rule in environment.get("protection_rules", []):
        if rule["type"] == "wait_timer":
            content["wait_timer"] = rule["wait_timer"]
        if rule["type"] == "required_reviewers":
            content["prevent_self_review"] = rule.get("prevent_self_review", False)
            content["reviewers"] = [
                {"type": reviewer["type"], "id": reviewer["reviewer"]["id"]}
                for reviewer in rule["reviewers"]
            ]
    return content


def wanted() -> Iterator[tuple[str, str, str, str, tuple[str, ...]]]:
    """Kind, name, source variable, description, and options of gh for each secret and variable."""
    for environment, secrets in OF_ENVIRONMENT.items():
        for name, about in secrets.items():
            yield "secret", name, *about, ("--env", environment)
    for name, what in VARIABLES.items():
        yield "variable", name, name, what, ()


def mistake(name: str, value: str) -> str:
    """What is wrong with a variable's value; empty if it may be valid."""
    if name not in IN_JSON:
        return ""
    kind, expected = IN_JSON[name]
    try:
        content = json.loads(value)
    except ValueError:
        content = None
    if not isinstance(content, kind):
        return f"it must be {expected}"
    if name == "RUNNER_LABELS":
        (mark,) = (mark for mark in marks() if mark.name == "runner_labels")
        if not mark.allows(", ".join(map(json.dumps, content))):
            return f"it must be {mark.expected}"
    return ""


def set_values() -> int:
    """Set the secrets and variables that the environment has values for; how many failed."""
    failed = 0
    for kind, name, source, _, where in wanted():
        shown = f"{kind:8} {name}{' in ' + where[1] if where else ''}"
        if not (value := os.environ.get(source, "").strip()):
            print(f"{shown}: {source} is not set here, left as it is")
            continue
        if why_not := mistake(name, value):
            print(f"{shown}: NOT set: {why_not}")
            failed += 1
            continue
        done = gh(kind, "set", name, *where, value=value)
        failed += done.returncode != 0
        print(f"{shown}: {f'NOT set: {why(done)}' if done.returncode else 'set'}", flush=True)
    return failed


def main() -> None:
    """List the settings, or set them."""
    if not os.environ.get("SET"):
        print("On the repository's page: Settings.\n")
        for environment, allowed in rules().items():
            shown = ", ".join(f"{kind} {name}" for kind, name in sorted(allowed, reverse=True))
            print(f"Environments: {environment}, which only {shown} may use. Its secrets:")
            for name, (source, what) in OF_ENVIRONMENT[environment].items():
                print(f"  {name:26} {what} (from {source})")
        print("Secrets and variables, Actions: variables, and no secrets:")
        for name, what in VARIABLES.items():
            print(f"  {name:26} {what}")
        if RELEASES:
            print(
                "Rules: a ruleset for tags runtime-*, which admins and maintainers alone may push."
            )
        print("Actions, General: pull requests of forks run once a person says so, or never.")
        print("\nWith gh and the values in the environment: make settings SET=yes")
        return
    if not shutil.which("gh"):
        sys.exit("gh is missing: install it and `gh auth login`, or use the settings page.")
    if gh("auth", "status").returncode:
        sys.exit("gh is not logged in: `gh auth login`, then again.")
    if failed := set_rules() + set_values():
        sys.exit(f"{failed} could not be set.")


if __name__ == "__main__":
    as_command(main)
