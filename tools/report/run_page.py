"""The summary page of a run: goals, stages, results, and what changed.

tools/within . python -m tools.report.run_page

The workflow's step "Report" calls it, also after a failure. The results are in the work tree, HEAD
is the commit that was run, and the note of the earlier steps (tools/job/job.py) has the rest.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from lib.comparison import (
    LONGEST,
    Table,
    as_markdown,
    code,
    markdown,
    metrics_table,
    params_table,
    results_table,
)
from lib.errors import UserError
from lib.repository import git
from lib.revisions import WORK_TREE, Revision
from lib.text import cell, prose, sentence, shown_address, without_password
from tools.job.experiment import UNFINISHED
from tools.job.job import main, read_note, summarise
from tools.tracking import notes

UNMET = ("missed", "not judged")  # states of goals that come first


def run_page() -> None:
    """Print the page and add it to the summary that the hosting site shows."""
    note = read_note()
    before, after = Revision(git("rev-parse", "HEAD")), Revision(WORK_TREE)
    results, metrics = results_table(after), metrics_table(before, after)
    unread = "Some could not be read: see below." if after.missing else ""
    states = {stage["state"] for stage in note.get("stages", {}).values()}
    ran = note.get("shared") or states - {"failed", UNFINISHED}
    sections = {
        "## Run": run_section(note),
        "### Goals": goals_section(note.get("goals")),
        "### Stages": stages_section(note.get("stages", {})),
        f"### Results{'' if ran else ' before this run'}": table_section(
            results, unread or "No metrics yet."
        ),
        "### Metrics": table_section(metrics, unread or "Metrics are as before."),
        "### Parameters": params_section(before),
        "### Missing": "\n".join(f"- {cell(line)}" for line in after.missing[:LONGEST]),
    }
    text = "\n\n".join(f"{title}\n\n{content}" for title, content in sections.items() if content)
    print(without_password(text))
    summarise(text)


def table_section(table: Table, nothing: str) -> str:
    """A table in Markdown with its keys as code, or a sentence if it is empty."""
    key = cell if table[0][0] == "split" else code
    return as_markdown(table, key=key, aligned=False) if table[1] else nothing


def params_section(run: Revision) -> str:
    """The parameters that the commit changed; the run itself changes none."""
    if not run.ask_git("rev-parse", "--verify", "--quiet", f"{run.commit}^"):
        return "This is the first commit."
    try:
        changed = params_table(Revision(f"{run.commit}^"), run)
    except UserError as error:
        return cell(str(error))
    return table_section(changed, "Parameters are as before.")


def stages_section(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """Each stage, how it went, how long it took, and its run in MLflow; failures first."""
    names = sorted(stages, key=lambda name: stages[name]["state"] != "failed")
    rows = [
        (
            cell(name),
            cell(str(stages[name]["state"])),
            f"{stages[name]['seconds']:.1f} s" if "seconds" in stages[name] else "",
            mlflow_link(name),
        )
        for name in names[:LONGEST]
    ]
    table = markdown(("stage", "went", "took", "MLflow"), rows, aligned=False)
    more = f"\n\n… and {len(names) - LONGEST:,} more" if names[LONGEST:] else ""
    return table + more if rows else "No stage was started."


def mlflow_link(stage: str) -> str:
    """A link to the MLflow run of a stage, if it was logged here."""
    address = re.search(r"https?://\S+", notes.read(stage).get("outcome", ""))
    return f"[run]({address[0]})" if address else ""


def goals_section(goals: Mapping[str, Any] | None, *, aligned: bool = False) -> str:
    """The verdicts as a table; also used by milestones."""
    if not goals:
        return "No goals were judged."
    head = f"**{sentence(goals['summary'])}.**"
    rows = [
        (goal["title"], goal["goal"], goal["reached"] or goal["message"], goal["state"])
        for goal in sorted(goals["goals"], key=lambda goal: goal["state"] not in UNMET)
    ]
    table = as_markdown((("goal", "wanted", "reached", ""), rows[:LONGEST]), aligned=aligned)
    more = f"… and {len(rows) - LONGEST:,} more" if len(rows) > LONGEST else ""
    return "\n\n".join(filter(None, (head, table if rows else "", more)))


def run_section(note: Mapping[str, Any]) -> str:
    """What ran, where its results are, and what is missing in MLflow."""
    lines = [f"**{prose(note.get('name', '?'))}**, commit `{str(note.get('commit', ''))[:10]}`"]
    if shared := note.get("shared"):
        commit = str(note.get("results_commit", ""))[:10]
        where = f"commit `{commit}` on {code(shared)}" if commit else prose(shared)
        lines.append(f"Results: {where}.")
    else:
        lines.append("Results were **not** shared: the log says why.")
    url = shown_address(os.environ.get("MLFLOW_URL", ""))
    warnings = note.get("warnings") or []
    lines.append(
        f"> [!WARNING]\n> {prose(warnings[0])}" if warnings else f"MLflow: {url or 'local'}"
    )
    return "\n\n".join(lines)


if __name__ == "__main__":
    main(run_page)
