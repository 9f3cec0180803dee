"""Releases runtimes on a tag runtime-*: builds, checks and rehearses a .krt, then uploads it.

runtime-NAME-VERSION releases one runtime, runtime-VERSION every one in runtimes/. A file in the
bucket is never replaced by a different one.
"""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from dvc.repo import Repo

from lib.errors import UserError
from lib.repository import ROOT, git
from lib.text import cell, last_line
from tools.job.job import main, read_note, run_live, summarise
from tools.job.storage import storage_answers, why_storage_failed
from tools.krt.names import TAG, is_version, named, names
from tools.tracking import job_url

BUILT = re.compile(r"^(\S+\.krt): (.*)$", re.MULTILINE)
FOLDER = "krt"  # in the bucket


def release() -> None:
    """Release what the tag names: all of it, or if anything fails, nothing."""
    tag = str(read_note()["name"])
    wanted = runtimes_of(tag)
    print(f"{tag}: {', '.join(f'{name} {version}' for name, version in wanted)}", flush=True)
    pull_models()
    built = [(name, *build(name, version)) for name, version in wanted]
    rehearsed = [(file, what, rehearse(file, name)) for name, file, what in built]
    bucket = Bucket()
    for file, *_ in rehearsed:
        bucket.refuse_another(file)
    for file, what, answered in rehearsed:
        address = bucket.upload(file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        summarise(
            f"### {file.name}\n\n| | |\n| --- | --- |\n| where | `{address}` |\n"
            f"| sha256 | `{digest}` |\n| commit | `{git('rev-parse', 'HEAD')}` |\n"
            f"| content | {cell(what)} |\n| rehearsal | {answered} |\n| run | {job_url()} |\n"
        )
        print(f"{address}: sha256 {digest}", flush=True)


def pull_models() -> None:
    """Pull data and models; UserError if some are not in the bucket, or it does not answer."""
    pull = [sys.executable, "-m", "tools.job.guarded_dvc", "pull", "--quiet"]
    if subprocess.run(pull, cwd=ROOT, check=False).returncode:
        storage_answers()  # raises if the bucket does not answer
        raise UserError(
            "Not all data and models could be pulled from the bucket (see above why). If some are "
            "missing there, `dvc push` where they are, then re-run this job."
        )


def runtimes_of(tag: str) -> list[tuple[str, str]]:
    """Name and version of each runtime that a tag releases."""
    if not (known := names()):
        raise UserError("There is no runtime in runtimes/, so there is nothing to release.")
    rest = tag.removeprefix(TAG)
    if name := named(rest):
        return [(name, rest.removeprefix(f"{name}-"))]
    if rest in known:
        raise UserError(f"{tag} names the runtime {rest} and no version: push {TAG}{rest}-v1.")
    if not is_version(rest):
        raise UserError(
            f"{tag} begins with no runtime's name ({', '.join(known)}), and '{rest}' is not taken "
            f"for a version of all, such as v1: push {TAG}NAME-VERSION, or {TAG}v1."
        )
    return [(name, rest) for name in known]


def build(name: str, version: str) -> tuple[Path, str]:
    """Build and check a runtime: its file, and a line on its content, with every warning."""
    printed = step("build", name, f"--version={version}")
    match = BUILT.search(printed)
    assert match, printed
    file = ROOT / match[1]
    step("check", str(file))
    warned = [line for line in printed.splitlines() if line.startswith("WARNING: ")]
    return file, "; ".join([match[2], *warned])


def rehearse(file: Path, name: str) -> str:
    """Run a runtime's rehearsal: pytest's summary line."""
    return last_line(step("rehearse", str(file), "--name", name)).strip("= ")


def step(module: str, *arguments: str) -> str:
    """Run a module of tools/krt, printing live; its output, or UserError with the last line."""
    command = ["tools/within", "tools/krt", "python", "-m", f"tools.krt.{module}", *arguments]
    lines: list[str] = []

    def show(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    code = run_live(command, show)
    printed = "\n".join(lines)
    if code:
        why = last_line(printed).strip("=! ").removeprefix("_pytest.outcomes.Exit: ")
        raise UserError(f"Not released. {why}")
    return printed


class Bucket:
    """The folder for releases in the bucket of DVC's remote."""

    def __init__(self) -> None:
        with Repo(str(ROOT)) as repo:
            remote = repo.cloud.get_remote()
        if remote.fs.protocol != "s3":
            raise UserError(f"Releases go to S3, and DVC's remote is {remote.fs.protocol}.")
        self.fs, self.folder = remote.fs, f"{remote.path.split('/')[0]}/{FOLDER}"

    def refuse_another(self, file: Path) -> None:
        """UserError if the bucket has a file of this name with different content."""
        path = f"{self.folder}/{file.name}"
        try:
            other = self.fs.exists(path) and self.fs.cat_file(path) != file.read_bytes()
        except Exception as error:  # of s3fs, botocore, aiohttp or the operating system
            raise UserError(f"S3 {why_storage_failed(error, 'read')}") from None
        if other:
            raise UserError(
                f"s3://{path} is there already with other content, and a release is never "
                "replaced: tag the commit with another version."
            )

    def upload(self, file: Path) -> str:
        """Upload a file, and refuse it if the job of another tag was faster; its address."""
        path = f"{self.folder}/{file.name}"
        try:
            if not self.fs.exists(path):
                # Not in place of what another job has uploaded while this upload goes on.
                self.fs.put_file(str(file), path, mode="create")
        except FileExistsError:
            pass
        except Exception as error:  # as above
            if "PreconditionFailed" not in str(error.__cause__):  # S3's word for FileExistsError
                raise UserError(f"{file.name}: S3 {why_storage_failed(error)}") from None
        self.refuse_another(file)
        return f"s3://{path}"


if __name__ == "__main__":
    main(release)
