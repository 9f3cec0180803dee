"""What a run did, as a page that is read in half a minute.

report.py                 the work tree against the last commit       (make report)
report.py --from A --to B any two revisions                           (make report A=… B=…)
report.py --summary       the run of this job, onto its summary page
"""

import argparse
import json
import os
import re
from collections.abc import Sequence

from job import (
    ROOT,
    add_to_note,
    at,
    changes,
    flat,
    git,
    main,
    metrics_at,
    read_note,
    shown,
    summarise,
)

LOWER_IS_BETTER = ("loss", "brier", "error")


def params_at(revision: str) -> dict[str, object]:
    """params.yaml as dotted keys."""
    from ruamel.yaml import YAML

    return flat(YAML(typ="safe", pure=True).load(at(revision, "params.yaml") or "{}"))


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def metrics_section(before: str, after: str) -> str:
    """Every metric that changed, with what it was and whether it is better."""
    rows = []
    for key, old, new in changes(metrics_at(before), metrics_at(after)):
        both = all(isinstance(value, int | float) for value in (old, new))
        whole = isinstance(old, int) and isinstance(new, int)
        step = (f"{new - old:+d}" if whole else f"{new - old:+.4f}") if both else ""
        rows.append((f"`{key}`", shown(old), shown(new), step + judged(key, old, new, both)))
    if not rows:
        return "Metrics are as before."
    return table(("metric", "before", "after", "change"), rows)


def judged(key: str, old: object, new: object, both: bool) -> str:
    """Better or worse, where a metric's name tells."""
    if not both or shown(old) == shown(new) or (".validation." not in key and ".test." not in key):
        return ""
    lower = any(word in key for word in LOWER_IS_BETTER)
    return " better" if (new < old) == lower else " worse"  # type: ignore[operator]


def params_section(before: str, after: str) -> str:
    """Every parameter that changed."""
    old, new = params_at(before), params_at(after)
    rows = [
        (f"`{key}`", *(str(at.get(key, "–")) for at in (old, new))) for key, *_ in changes(old, new)
    ]
    return table(("parameter", "before", "after"), rows) if rows else "Parameters are as before."


def stages_section(stages: dict[str, dict[str, object]]) -> str:
    """Each stage, how it went, how long it took, and its run in MLflow."""
    rows = [
        (
            name,
            str(stage["state"]),
            f"{stage['seconds']:.1f} s" if "seconds" in stage else "",
            mlflow_link(name),
        )
        for name, stage in stages.items()
    ]
    return table(("stage", "went", "took", "MLflow"), rows) if rows else "No stage was started."


def mlflow_link(stage: str) -> str:
    """A link to the run that a stage was logged as here, if it was."""
    note = ROOT / ".mlflow" / f"{stage}.json"
    outcome = json.loads(note.read_text())["outcome"] if note.exists() else ""
    address = re.search(r"https?://\S+", outcome)
    return f"[run]({address[0]})" if address else ""


def goals_section(note: dict[str, object]) -> str:
    """Each goal, what it wants and what was reached."""
    goals = dict(note.get("goals") or {})  # type: ignore[call-overload]
    if not goals:
        return "No goals were judged."
    rows = [
        (cell(goal["title"]), goal["goal"], cell(goal["reached"] or goal["said"]), goal["state"])
        for goal in goals["goals"]
    ]
    head = f"**{goals['summary'].capitalize()}.**"
    return f"{head}\n\n{table(('goal', 'wanted', 'reached', ''), rows)}" if rows else head


def cell(text: str) -> str:
    """What may stand in a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def run_section(note: dict[str, object]) -> str:
    """What ran, where its results are, and what is missing in MLflow."""
    lines = [f"**{note.get('name', '?')}**, commit `{str(note.get('commit', ''))[:10]}`"]
    if shared := note.get("shared"):
        commit = str(note.get("results_commit", ""))[:10]
        lines.append(f"Results: {f'commit `{commit}` on `{shared}`' if commit else shared}.")
    else:
        lines.append("Results were **not** shared: the log says why.")
    url = os.environ.get("MLFLOW_URL", "")
    warnings = [str(line) for line in note.get("warnings", [])]  # type: ignore[attr-defined]
    lines.append(
        f"> [!WARNING]\n> {warnings[0]}"
        if warnings
        else f"MLflow: {url}"
        if url
        else "MLflow: local"
    )
    return "\n\n".join(lines)


def report() -> None:
    """Print, or put onto the summary page, what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="before", default="")
    parser.add_argument("--to", dest="after", default="")
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    note = read_note() if given.summary else {}
    # Of a run: against the commit that it was started from; its results are in the work tree.
    before = given.before or "HEAD"
    parts = (
        [
            "## Run",
            run_section(note),
            "### Goals",
            goals_section(note),
            "### Stages",
            stages_section(note.get("stages", {})),
        ]
        if note
        else []
    )
    parts += ["### Metrics", metrics_section(before, given.after)]
    # Parameters do not change in a run: those of its commit against the one before.
    parent = given.before or (f"{git('rev-parse', 'HEAD')}~1" if note else "HEAD")
    parts += ["### Parameters", params_section(parent, given.after)]
    text = "\n\n".join(parts)
    print(text)
    if given.summary:
        summarise(text)
        add_to_note(reported=True)


if __name__ == "__main__":
    main(report)
