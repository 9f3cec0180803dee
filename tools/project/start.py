"""After copying: removes what belongs only to the template, and makes the first commit.

    make start                      a copy that `copier copy` made
    make start TEMPLATE=<address>   a copy made by hand: later updates come from there
    make start EXAMPLE=no           without the example, as copier asks
    make start RUNTIMES=no SANDBOX=no   a copy made by hand, without these parts

It can be called again at any time: what is done already is left as it is.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from lib.errors import UserError
from lib.repository import ROOT, ask_git
from tools.command import as_command
from tools.environments.lock_file import TEMPLATE_ONLY
from tools.project.parts import ANSWERS, answers, parts, rendered
from tools.project.todo import CLOSE, ITS_TEXT, OPEN, README, files, problems, values

EXAMPLE = ROOT / "lab/example.yml"


def start(template: str, wanted: dict[str, bool]) -> list[str]:
    """Do what is left to do; a line for each step done.

    Args:
        template: its address; empty if copier knows it, or no updates are wanted.
        wanted: by name, whether the example and each optional part is wanted.
    """
    done = []
    copier = ROOT / TEMPLATE_ONLY
    without = [name for name in parts() if not wanted[name]]
    is_new = git("rev-parse", "--verify", "--quiet", "HEAD").returncode != 0
    if is_new:
        run("var", "GIT_COMMITTER_IDENT")  # nothing is removed before it is sure to be committed
    if copier.exists():
        done += remember(template, wanted)
        write_passages(without)
        done += write_page()
        done += remove(template_files(copier), "removed, for it is the template's own")
        done += remove([ROOT / name for part in without for name in parts()[part]], "not wanted")
    elif left := [
        name for name in without if any((ROOT / path).exists() for path in parts()[name])
    ]:
        how = f"`copier update {' '.join(f'--data {name}=false' for name in left)}`"
        if not (ROOT / ANSWERS).exists():
            how = f"remove {', '.join(path for name in left for path in parts()[name])}"
        raise UserError(f"This project was started with {' and '.join(left)}: commit, then {how}.")
    if git("rev-parse", "--git-dir").returncode:
        run("init", "--quiet", "--initial-branch", "main")
        done.append("git: a repository with the branch main")
    without_example = not (wanted["example"] and answers().get("example", True))
    if is_new:
        run("add", "--all")
        run("commit", "--quiet", "--no-verify", "--message", "Start from the template")
        done.append("git: a first commit")
        if without_example:
            done.append(blank())  # in a second commit: git keeps it in the first
    else:
        if done:
            done.append("Commit this: git add --all && git commit")
        if without_example and EXAMPLE.exists():
            done.append("The example is still here: when all is committed, `make blank`.")
    return done


def template_files(copier: Path) -> list[Path]:
    """The files that copier excludes, and those whose names it fills in."""
    parts = list(yaml.load_all(copier.read_text(encoding="utf-8"), IncludingNothing))
    listed = next(part["_exclude"] for part in parts if part and "_exclude" in part)
    names = [name.removeprefix("/") for name in listed if name.startswith("/")]
    return [ROOT / name for name in names] + list(ROOT.glob(f"{OPEN}*"))


class IncludingNothing(yaml.SafeLoader):
    """Reads copier.yml, ignoring copier's `!include` tag."""


IncludingNothing.add_constructor("!include", lambda *_: None)


def remember(template: str, wanted: dict[str, bool]) -> list[str]:
    """Write the answers file as copier would: the template's address, version, and the answers."""
    versions = re.findall(
        r"^## \[(\d+\.\d+\.\d+)\]",
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    if (ROOT / ANSWERS).exists() or not template or not versions:
        return []
    noted = {"_commit": f"v{versions[0]}", "_src_path": template} | wanted | values()
    (file,) = ROOT.glob(f"{OPEN}_*")
    comment = file.read_text(encoding="utf-8").partition("\n")[0]
    text = yaml.safe_dump(noted, indent=4, allow_unicode=True, sort_keys=True)
    (ROOT / ANSWERS).write_text(f"{comment}\n{text}", encoding="utf-8")
    return [f"{ANSWERS}: updates come from {template}"]


def blank() -> str:
    """Remove the example by `make blank`, in a commit of its own; a line on it."""
    if subprocess.run(
        ["make", "blank"], cwd=ROOT, stdout=subprocess.DEVNULL, check=False
    ).returncode:
        sys.exit("The example is still there: `make blank`, then commit.")
    run("commit", "--all", "--quiet", "--no-verify", "--message", "Without the example")
    return "the example: removed, in a second commit (git keeps it in the first)"


def write_passages(without: list[str]) -> None:
    """Remove passages on these parts from all pages, and the comments around the others."""
    for page in (ROOT / name for name in files() if name.endswith(".md")):
        text = page.read_text(encoding="utf-8")
        page.write_text(rendered(text, without), encoding="utf-8")


def write_page() -> list[str]:
    """Replace the template's README by the project's own."""
    if not (ROOT / ITS_TEXT).exists():
        return []
    page = (ROOT / ITS_TEXT).read_text(encoding="utf-8")
    for name, value in values().items():
        page = page.replace(f"{OPEN}{name}{CLOSE}", value)
    (ROOT / README).write_text(page, encoding="utf-8")
    return [f"{README}: the project's own"]


def remove(paths: list[Path], why: str) -> list[str]:
    """Remove files and folders; a line with those that existed."""
    there = [path for path in paths if path.exists()]
    for path in there:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    names = ", ".join(str(path.relative_to(ROOT)) for path in there)
    return [f"{why}: {names}"] if there else []


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A finished git command, in this folder's repository, never in one above it."""
    return ask_git(*arguments, GIT_CEILING_DIRECTORIES=str(ROOT.parent))


def run(*arguments: str) -> None:
    """Run a git command; exit with the reason if it fails."""
    done = git("-c", "core.hooksPath=/dev/null", *arguments)
    if done.returncode:
        why = " ".join(done.stderr.split())
        if re.search(r"user\.email|\bident(ity)?\b", why):
            why = "git does not know you: `git config --global user.name …` and `… user.email …`"
        sys.exit(f"git {arguments[0]}: {why}. Then type `make start` again.")


def main() -> None:
    """Check that all marks are filled in, then start; print what was done and what is next."""
    if left := problems():
        print(*left, sep="\n")
        sys.exit(f"{len(left)} to fill in before the project can start (`make todo` lists them).")
    by_hand = (ROOT / TEMPLATE_ONLY).exists()
    asked = ("example", *parts())
    given = dict(zip(asked, sys.argv[1:], strict=False))
    for name, answer in given.items():
        if answer not in ("", "yes", "no"):
            sys.exit(f"{name.upper()} is {answer!r}: it must be yes or no.")
    wanted = {name: given.get(name) != "no" for name in asked}
    done = start(" ".join(sys.argv[1 + len(asked) :]), wanted)
    print(*(done or ["Nothing was left to do."]), sep="\n")
    if by_hand and not (ROOT / ANSWERS).exists():
        print(f"No {ANSWERS}: this project gets no updates (make start TEMPLATE=<address>).")
    runs = "make run" if (ROOT / "dvc.lock").exists() else "make process"
    print(f"Next: make doctor, {runs}. Then add the remote and push.")


if __name__ == "__main__":
    as_command(main)
