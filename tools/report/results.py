"""Shows the results on disk: the table of metrics, the pictures, and differences from git.

tools/within . python -m tools.report.results

`make run` ends with it, `make results` shows it again.
"""

import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from lib.comparison import LONGEST, Table, cut, measured, metrics_table, results_table
from lib.errors import UserError
from lib.params import FILE, YamlTextError, parse_yaml
from lib.pipeline import MAIN, SWEEPS, Stage, in_root
from lib.revisions import WORK_TREE, Revision
from lib.text import one_line, some_of
from tools.command import as_command

MAX_PICTURES = 50  # of one out
MAX_CHANGES = 10


def in_width(table: Table, width: int) -> list[Table]:
    """Split a table that is too wide into several, each with the columns that name the rows.

    Rows without a value in a part are left out of it.
    """
    header, rows = table
    names = (0,) if header[0] == "measure" else (0, 1)
    wide = [max(map(cell_len, texts)) + 3 for texts in zip(header, *rows, strict=True)]
    parts: list[list[int]] = [[]]
    for n in range(len(names), len(header)):
        if parts[-1] and sum(wide[m] for m in (*names, *parts[-1], n)) >= width:
            parts.append([])
        parts[-1].append(n)
    found: list[Table] = []
    for part in parts:
        filled = [row for row in rows if not part or any(row[n] for n in part)]
        first, *others = [tuple(row[n] for n in (*names, *part)) for row in (header, *filled)]
        found.append((first, others))
    return found


def terminal_table(table: Table) -> RichTable:
    """A rich table with a line between splits."""
    header, rows = table
    columns = [Column(Text(name), overflow="fold") for name in header]
    drawn = RichTable(*columns)
    ends = [row[0] != after[0] for row, after in pairwise(rows)]
    for row, end in zip(rows, [*ends, False], strict=True):
        drawn.add_row(*map(Text, row), end_section=end and header[0] == "split")
    return drawn


def show(title: str, table: Table, console: Console, most: int = LONGEST) -> None:
    """Print a table, split if the terminal is narrow, and how many rows are left out."""
    header, rows = table
    kept, more = cut(rows, most)
    cells = [tuple(map(one_line, row)) for row in (header, *kept)]
    console.print(title, style="italic")
    for part in in_width((cells[0], cells[1:]), console.width):
        console.print(terminal_table(part), soft_wrap=False)
    if more:
        console.print(more)


def values_beside(revision: Revision, table: Table) -> int:
    """How many values in the metrics files are not in the table."""
    if table[0][0] == "metric":
        return 0
    return len(revision.metrics) - sum(len(row.values) for row in measured(revision))


def pictures(revision: Revision) -> tuple[list[Path], list[str]]:
    """The PNG files on disk that stages write, relative to the root, without those of sweeps.

    For an out with more than MAX_PICTURES, such as a data set of pictures, a line with their
    number.
    """
    stages = [s for s in revision.pipeline.stages if s.commands and s.file != SWEEPS]
    written = (path for stage in stages for path in (*stage.outs, *stage.plots))
    few: list[Path] = []
    many: list[str] = []
    for path in dict.fromkeys(written):
        place = revision.root / path
        files = sorted(place.rglob("*.png")) if place.is_dir() else [place]
        found = [f.relative_to(revision.root) for f in files if f.suffix == ".png" and f.exists()]
        if len(found) > MAX_PICTURES:
            many.append(f"{len(found):,} pictures are in {path}.")
        else:
            few += found
    return few, many


# ---- what differs from git


def stages_in(lock: str) -> dict[str, Any]:
    """The stages in the text of a dvc.lock; UserError if it is not one."""
    try:
        stages = (parse_yaml(lock, aliases=True) or {}).get("stages") or {}
        return {name: dict(stage) for name, stage in stages.items()}
    except (YamlTextError, ValueError, TypeError, AttributeError):
        raise UserError("this is not a dvc.lock: did a merge leave conflict marks in it?") from None


def outs(stages: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """For each stage in a dvc.lock, the md5 of each of its outs."""
    return {
        name: {out["path"]: out.get("md5", "") for out in stage.get("outs", [])}
        for name, stage in stages.items()
    }


def inputs(stages: Mapping[str, Any]) -> dict[str, Any]:
    """For each stage in a dvc.lock, what it was computed from, without other stages' outs."""
    made = {path for stage in outs(stages).values() for path in stage}
    return {
        name: (
            stage.get("cmd"),
            [out["path"] for out in stage.get("outs", [])],
            stage.get("params"),
            [
                (dep["path"], dep.get("md5"))
                for dep in stage.get("deps", [])
                if not any(PurePosixPath(dep["path"]).is_relative_to(out) for out in made)
            ],
        )
        for name, stage in stages.items()
    }


def difference(
    committed: str,
    current: str,
    prefix: str = "",
    places: str = "dvc.lock metrics",
    also: str = "",
) -> list[str]:
    """Lines on how results differ from those committed; empty if they do not.

    Args:
        committed: the text of a dvc.lock in the last commit.
        current: its text in the work tree.
        prefix: put before the names of stages.
        places: the paths of these results in git, for a shell command.
        also: likewise those of changed files that they were computed from.
    """
    before, after = stages_in(committed), stages_in(current)
    written = outs(before)
    changed = [f"{prefix}{name}" for name, out in outs(after).items() if out != written.get(name)]
    if not changed:
        return []
    lines = [f"These results differ from those committed: {some_of(changed, 10)}."]
    if inputs(before) == inputs(after):
        lines.append(
            "Code, parameters and environments are the same: another processor gives other last "
            "bits, or the source of the data has changed."
        )
    kept = f"{places} {also}".strip()
    lines.append(
        f"`git add {kept} && git commit` keeps them; `dvc checkout` after `git checkout {places}` "
        "brings the committed ones back, if the cache has them."
    )
    return lines


def lines_below(revision: Revision) -> Sequence[str]:
    """How the results of each dvc.yaml differ from those committed; sweeps are left out."""
    stages, head = revision.pipeline.stages, Revision("HEAD", revision.root)
    lines: list[str] = []
    for file in dict.fromkeys(stage.file for stage in stages if stage.commands):
        lock = str(PurePosixPath(file).with_suffix(".lock"))
        current = revision.text(lock)
        try:
            committed = head.text(lock)
        except UserError:  # no commit yet
            return []
        if file == SWEEPS or not committed or not current:
            continue
        own = [stage for stage in stages if stage.file == file]
        in_git = {path for stage in own for path in stage.uncached}
        folders = sorted({path.rpartition("/")[0] or path for path in in_git if in_root(path)})
        prefix = "" if file == MAIN else f"{file}:"
        places = shlex.join([lock, *folders])
        also = revision.uncommitted([*inputs_in_git(own), *revision.pipeline.data_files])
        try:
            lines += difference(committed, current, prefix, places, shlex.join(sorted(also)))
        except UserError as error:
            lines.append(f"{lock}, as committed: {error}")
    return lines


def inputs_in_git(stages: Sequence[Stage]) -> list[str]:
    """The files that git may track of those that define stages, or that they read from others."""
    files = {FILE}
    for stage in stages:
        deps = {path for path in stage.deps if in_root(path)}
        pipfiles = {path.removesuffix(".lock") for path in deps if path.endswith("Pipfile.lock")}
        files |= {stage.file, *deps, *pipfiles, *(key.partition(":")[0] for key in stage.elsewhere)}
    return sorted(files - {path for stage in stages for path in stage.written})


def changes_since_commit(revision: Revision) -> Table:
    """The numbers that differ from the last commit's: those that are better or worse, if any is."""
    try:
        header, rows = metrics_table(Revision("HEAD", revision.root), revision, scalars_only=True)
    except UserError:  # what cannot be read there is no news of this run
        return (), []
    in_both = [row for row in rows if row[-1]]
    return header, [row for row in in_both if row[-1].endswith(("better", "worse"))] or in_both


def main() -> None:
    """Print the results, pictures and differences."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if not console.is_terminal:
        console.width = 120
    revision = Revision(WORK_TREE)
    if not revision.pipeline.stages and revision.missing:
        raise UserError(one_line(revision.missing[0]))
    stages = [stage for stage in revision.pipeline.stages if stage.commands]  # not `dvc add` data
    table = results_table(revision)
    if table[1]:
        show("Results", table, console)
    elif not stages:
        console.print("There is no stage yet: make process NAME=…")
    else:
        console.print("No metrics yet: `make run`.")
    if left := values_beside(revision, table):
        console.print(f"{left:,} more value{'s' * (left > 1)} in metrics/.")
    few, many = pictures(revision)
    for line in (*(f"Picture: {picture}" for picture in few), *many):
        console.print(line)
    if stages:
        console.print("Runs: `make ui` shows those in mlflow.db; `dvc plots show` draws the plots.")
    differing = lines_below(revision)
    if differing and (changed := changes_since_commit(revision))[1]:
        show("Since the last commit", changed, console, MAX_CHANGES)
    for line in (*revision.outdated, *differing, *revision.missing):
        console.print(Text(one_line(line), style="yellow"))


if __name__ == "__main__":
    as_command(main, "results: ")
