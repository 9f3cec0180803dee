"""A project with a running sandbox: what the tests of runs by tag share.

The pipeline here is one stage of a few lines of shell: what is tested is the way from the tag to
the results, and what can go wrong on it.
"""

import contextlib
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.params import read_yaml
from tests.conftest import ROOT, Project, wait_for, write_executable

SANDBOX = ("tools/within", "tools/sandbox", "python", "-m", "tools.sandbox")
DVC_YAML = """
stages:
  quick:
    cmd: lab/processes/run quick
    params: [random_seed]
    deps: [lab/processes/quick/main]
    outs: [artifacts/quick]
    metrics:
      - metrics/quick.json:
          cache: false
"""
# Waits while the file `hold` exists, so that a test can do something in the middle of a run.
MAIN = """#!/bin/sh
echo "the secret is $AWS_SECRET_ACCESS_KEY"
while [ -e '{hold}' ]; do touch '{hold}.seen'; sleep 0.05; done
mkdir -p artifacts/quick metrics
grep random_seed params.yaml > artifacts/quick/model.txt
seed=$(sed -n 's/random_seed: \\([0-9]*\\).*/\\1/p' params.yaml)
echo "{{\\"validation\\": {{\\"accuracy\\": 0.$seed}}}}" > metrics/quick.json
"""


class Sandbox:
    """A project with a running sandbox."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.number, self.branch, self.base = 0, "", ""
        self.hold = project.folder / "hold"

    def up(self) -> str:
        return self.project.run("make", "sandbox")

    def down(self) -> str:
        return self.project.run("make", "sandbox-down")

    def git(self, *arguments: str) -> str:
        return self.project.git(*arguments).strip()

    def origin(self, *arguments: str) -> str:
        """The output of git in the bare origin."""
        return self.git(f"--git-dir={self.git('remote', 'get-url', 'sandbox')}", *arguments)

    def change(self) -> str:
        """Create a branch for one test, with a commit that changes the seed: the commit's hash."""
        self.number += 1
        self.branch = f"branch-{self.number}"
        self.git("checkout", "--quiet", "--force", "-B", self.branch, self.base)
        text = (self.project.folder / "params.yaml").read_text().splitlines(keepends=True)
        changed = [
            f"random_seed: {1000 + self.number}\n" if line.startswith("random_seed") else line
            for line in text
        ]
        (self.project.folder / "params.yaml").write_text("".join(changed))
        self.commit(f"Change {self.number}")
        return self.git("rev-parse", "HEAD")

    def add_a_stage_that_logs(self) -> None:
        """Add the example's first stage, to run after the one that can be held, and commit."""
        file = self.project.folder / "dvc.yaml"
        stages = read_yaml(file)["stages"]
        logs = read_yaml(ROOT / "dvc.yaml")["stages"]["prepare_data"]
        logs["deps"] += stages["quick"]["outs"]
        file.write_text(json.dumps({"stages": stages | {"prepare_data": logs}}))  # JSON is YAML
        self.project.commit("A stage that logs")

    def push(self) -> None:
        self.git("push", "--quiet", "sandbox", self.branch)

    def commit(self, message: str) -> None:
        """Commit all changes, and push them."""
        self.project.commit(message)
        self.push()

    def tag(self, name: str = "", revision: str = "HEAD", *options: str) -> tuple[str, str]:
        """Push a tag, and wait for its run to end: the tag, and the output of the push."""
        name = name or f"run-example-{self.number}-{time.monotonic_ns()}"
        self.git("tag", *options, name, revision)
        return name, self.project.run("git", "push", "sandbox", f"refs/tags/{name}")

    def dispatch(self, ref: str) -> str:
        """Press the button *Run workflow*: the run's output."""
        return self.project.run(*SANDBOX, "dispatch", ref)

    def tag_meanwhile(self, meanwhile) -> tuple[str, str]:
        """Push a tag, and call `meanwhile` while its stage is running."""
        self.hold.touch()
        seen = Path(f"{self.hold}.seen")
        seen.unlink(missing_ok=True)
        result: list[tuple[str, str]] = []
        thread = threading.Thread(target=lambda: result.append(self.tag()))
        thread.start()
        try:
            wait_for(lambda: seen.exists() or not thread.is_alive())
            assert seen.exists(), f"the stage did not start: {result}"
            meanwhile()
        finally:
            self.hold.unlink()
            thread.join(timeout=180)
        return result[0]

    def tip(self, branch: str = "") -> str:
        return self.origin("rev-parse", f"refs/heads/{branch or self.branch}")

    def message(self, commit: str) -> str:
        return self.origin("show", "-s", "--format=%B", commit)

    def show(self, commit: str, path: str) -> str:
        return self.origin("show", f"{commit}:{path}")

    def facts(self) -> dict[str, Any]:
        """The output of `sandbox status --json`: addresses, keys, processes."""
        process = self.project.start(*SANDBOX, "status", "--json")
        output, _ = process.communicate(timeout=60)
        return dict(json.loads(output))

    def kill(self, part: str, how: signal.Signals = signal.SIGKILL) -> list[int]:
        """Send a signal to the processes of one part of the platform: their ids."""
        pids = [int(pid) for pid, its_part in self.facts()["pids"].items() if its_part == part]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # a child ended with its parent
                os.kill(pid, how)
        return pids

    def summary(self, tag: str) -> str:
        """The summary page of a tag's job."""
        (folder,) = (self.project.folder / ".sandbox/jobs").glob(f"{tag}-*")
        return (folder / "summary.md").read_text()

    def versions(self, model: str) -> dict[str, dict[str, str]]:
        """For each alias of a model in MLflow's registry, the tags of its version."""
        project = read_yaml(self.project.folder / "params.yaml")["experiment"]
        base = f"{self.facts()['mlflow']}/api/2.0/mlflow/registered-models"
        found = {}
        for alias in ("candidate", "champion"):
            query = urllib.parse.urlencode({"name": f"{project}-{model}", "alias": alias})
            try:
                with urllib.request.urlopen(f"{base}/alias?{query}", timeout=20) as answer:
                    version = json.loads(answer.read())["model_version"]
            except urllib.error.HTTPError:
                continue
            tags = {tag["key"]: tag["value"] for tag in version["tags"]}
            found[alias] = tags | {"version": version["version"]}
        return found

    def bucket(self, path: str) -> bytes:
        """The content of a file in the bucket, empty if there is none."""
        script = (
            "import sys, dvc.repo\n"
            "remote = dvc.repo.Repo('.').cloud.get_remote()\n"
            "path = remote.path.split('/')[0] + '/' + sys.argv[1]\n"
            "print((remote.fs.cat_file(path) if remote.fs.exists(path) else b'').hex())"
        )
        found = self.project.run("tools/within", ".", "python", "-c", script, path)
        return bytes.fromhex(found.splitlines()[-1] if found.strip() else "")

    @contextlib.contextmanager
    def settings(self, file: str, **changed: str) -> Iterator[None]:
        """Change variables or secrets on the origin's settings page within the block."""
        page = self.project.folder / f".sandbox/{file}.yml"
        before = page.read_text()
        page.write_text(json.dumps(json.loads(before) | changed))
        try:
            yield
        finally:
            page.write_text(before)

    def weed(self, *commands: str) -> str:
        """The output of these commands in SeaweedFS's own shell."""
        ports = self.facts()["ports"]
        where = [f"-{s}=127.0.0.1:{ports[s]}.{ports[f'{s}.grpc']}" for s in ("master", "filer")]
        lines = "".join(f"{command}\\n" for command in commands)
        # In this folder it finds the keys that SeaweedFS's parts share.
        script = (
            f"cd .sandbox/s3 && printf '{lines}' | timeout 60 weed shell {' '.join(where)} 2>&1"
        )
        return self.project.run("tools/within", "tools/sandbox", "sh", "-c", script)


@contextlib.contextmanager
def rehearsing(
    folder: Path, *, dvc_yaml: str = DVC_YAML, ignored: tuple[str, ...] = ("/artifacts/quick",)
) -> Iterator[Sandbox]:
    """A project in this folder, with this pipeline, no results and a running sandbox."""
    project = Project(folder)
    write_executable(folder / "lab/processes/quick/main", MAIN.format(hold=folder / "hold"))
    project.give_pipeline(dvc_yaml)
    rules = (folder / ".gitignore").read_text()
    (folder / ".gitignore").write_text("\n".join([rules, *ignored, "/hold*", ""]))
    project.commit("A pipeline of its own")
    with running(project) as sandbox:
        yield sandbox


@contextlib.contextmanager
def running(project: Project) -> Iterator[Sandbox]:
    """A project's sandbox, which runs for the length of the block."""
    sandbox = Sandbox(project)
    sandbox.base = sandbox.git("rev-parse", "HEAD")
    try:
        sandbox.up()
        yield sandbox
    finally:
        sandbox.down()


def results_of(sandbox: Sandbox, tag: str, branch: str = "") -> str:
    """The newest commit of a branch, which must have the results of this tag."""
    tip = sandbox.tip(branch)
    assert f"Tag: {tag}" in sandbox.message(tip)
    return tip
