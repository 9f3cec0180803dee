"""A report on the committed results, for readers who do not run code: `lab/docs/DATE-NAME.md`.

tools/within --dev . python -m tools.report.milestone NAME     (make milestone NAME=…)

It fills in `lab/docs/template.md`. A report that is written again under the same name keeps the
text between `<!-- author: … -->` and `<!-- /author -->`. The date is the commit's, so that the same
commit gives the same report.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template
from urllib.parse import quote

from lib.comparison import (
    Best,
    as_markdown,
    best_model,
    code,
    described,
    measured,
    metrics_table,
    params_table,
    results_table,
)
from lib.errors import UserError
from lib.files import read_text, replaced_directory, replaced_file
from lib.pipeline import SWEEPS
from lib.repository import ROOT, git, uncommitted
from lib.revisions import Revision
from lib.text import cell, prose, some_of
from tools.command import as_command, first_error, run
from tools.goals.judge import goal_files, judge
from tools.report.results import pictures
from tools.report.run_page import goals_section

DOCS = Path("lab/docs")
MAX_OUTS = 200  # outs listed with their checksums
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
AUTHOR = re.compile(
    r"(<!--[ \t]*author:[ \t]*([\w-]+)[ \t]*-->[ \t]*\n)(.*?)(<!--[ \t]*/author[ \t]*-->)",
    re.DOTALL,
)
TIMES = ("ns", "µs", "us", "ms")  # units of run times; a result may be in seconds or hours
COMMIT = re.compile(r"\| commit \| `([0-9a-f]{40})` \|")


def milestone(name: str) -> Path:
    """Write the report on the last commit; its path.

    Raises:
        UserError: the name is invalid, or results are not committed.
    """
    if not NAME.fullmatch(name) or len(name) > 60:
        raise UserError(
            f"NAME is '{name}': it must be lower-case letters, digits and single hyphens, at most "
            "60, for example NAME=first-model."
        )
    now = Revision("HEAD")
    results = now.pipeline.result_files or ["dvc.lock"]
    if changed := uncommitted(["params.yaml", "goals", "lib", *results, *now.pipeline.data_files]):
        raise UserError(
            f"{some_of(changed)}: not committed. A report rests on a commit: commit them first."
        )
    date = git("show", "-s", "--format=%cs", now.commit)
    refuse_other_data()
    file = DOCS / f"{date}-{name}.md"
    former = sorted(DOCS.glob(f"????-??-??-{name}.md"))
    words = {key: text for old in former for key, text in author_words(old).items()}
    content = keep(report(name, date, now, file), words)
    with replaced_file(file) as new:
        new.write_text(content, encoding="utf-8")
    for old in former:
        if old != file:
            old.unlink()
            shutil.rmtree(old.with_suffix(""), ignore_errors=True)
    return file


def refuse_other_data() -> None:
    """UserError if data, models or pictures on disk, which goals read, are not the commit's."""
    done = run("dvc", "data", "status", "--granular", "--json", ok=False)
    if done.returncode:
        raise UserError(f"The data on disk cannot be checked: {first_error(done.stderr)}.")
    found = json.loads(done.stdout).get("uncommitted", {})
    if other := [path for kind in ("modified", "added") for path in found.get(kind, [])]:
        raise UserError(f"{some_of(other)}: not of this commit. `dvc checkout` brings its own.")


def report(name: str, date: str, now: Revision, file: Path) -> str:
    """The filled-in template, with its default text in the author's passages."""
    results, best = results_table(now), best_model(measured(now))
    notes = [f"- {cell(line)}" for line in (*now.outdated, *now.missing)]
    tag = git("tag", "--points-at", now.commit).replace("\n", ", ")
    provenance = [
        ("commit", f"`{now.commit}`"),
        ("tag", tag or "–"),
        *(
            (code(path), described(out, digits=32))
            for path, out in list(now.outs.items())[:MAX_OUTS]
        ),
    ]
    if (left := len(now.outs) - MAX_OUTS) > 0:
        provenance.append(("…", f"and {left:,} more, in dvc.lock of the commit"))
    # safe_: other dollar signs of the template stay as they are.
    if not (template := DOCS / "template.md").is_file():
        raise UserError(
            "lab/docs/template.md is missing: bring an earlier one back with `git checkout`, or "
            "copy the template's."
        )
    return Template(read_text(template)).safe_substitute(
        title=name.replace("-", " ").capitalize(),
        name=name,
        date=date,
        commit=now.commit[:10],
        tag=f", tag `{tag}`" if tag else "",
        results="\n\n".join([as_markdown(results) if results[1] else "No metrics yet.", *notes]),
        best=best_sentence(best),
        goals=goals(),
        since=since(now, file),
        pictures=copied_pictures(now, file.with_suffix("")),
        provenance="\n".join(f"| {what} | {which} |" for what, which in provenance),
        params="\n".join([now.text("params.yaml").strip(), *other_params(now)]),
    )


def other_params(now: Revision) -> list[str]:
    """Parameters that stages read from files other than params.yaml, as lines of YAML."""
    found = {key: value for stage in now.pipeline.stages for key, value in stage.elsewhere.items()}
    return [
        f"{key}: {json.dumps(value, ensure_ascii=False, default=str)}"
        for key, value in found.items()
    ]


def best_sentence(best: Best | None) -> str:
    """Which model is best, and by which measures; or which are equal."""
    if best is None:
        return "cannot be said: the models share no numeric measure that can be judged."
    where = f" on the {best.split} split" if best.split else ""
    where += f" (not compared: {', '.join(best.left_out)})" if best.left_out else ""
    if len(best.models) > 1:
        return cell(f"{' and '.join(best.models)}, level in {', '.join(best.measures)}{where}.")
    return cell(f"{best.models[0]}, by {', then '.join(best.measures)}{where}.")


def goals() -> str:
    """The verdicts on the goals as a table."""
    if not goal_files():
        return goals_section(None)
    found, _ = judge()
    told = [without_times(goal) for goal in found["goals"]]
    return goals_section(found | {"goals": told}, aligned=True)


def without_times(goal: dict[str, str]) -> dict[str, str]:
    """A verdict, without the value if it is a run time, which differs each time."""
    measured = any(wanted.rpartition(" ")[2] in TIMES for wanted in goal["goal"].split("; "))
    return goal | {"reached": ""} if measured else goal


def since(now: Revision, file: Path) -> str:
    """The differences from the previous milestone."""
    earlier = [f for f in sorted(DOCS.glob("????-??-??-*.md")) if f.stem[11:] != file.stem[11:]]
    for last in reversed([f for f in earlier if f.stem[:10] <= file.stem[:10]]):
        match = COMMIT.search(read_text(last))
        if not match or match[1] == now.commit:
            continue
        old = Revision(match[1])
        try:
            tables = [metrics_table(old, now), params_table(old, now)]
        except UserError:
            return f"[{last.stem}]({last.name}) rests on a commit that is missing in this clone."
        parts = [f"Against [{last.stem}]({last.name}):"]
        parts += [as_markdown(table) for table in tables if table[1]]
        return "\n\n".join(parts if len(parts) > 1 else [f"{parts[0]} no difference."])
    return "This is the first."


def copied_pictures(now: Revision, folder: Path) -> str:
    """Copy the pipeline's pictures to a folder beside the report; the Markdown that shows them."""
    found, many = pictures(now)
    if not (found or many):
        missing = any(pictures_missing(now))
        return "None on disk: `dvc pull` gets them." if missing else "No pictures."
    with replaced_directory(folder) as new:
        for picture in found:
            shutil.copyfile(ROOT / picture, new / flat_name(picture))
    shown = [
        f"![{p.parent.name}, {p.stem}]({quote(f'{folder.name}/{flat_name(p)}')})" for p in found
    ]
    return "\n\n".join((*shown, *map(prose, many)))


def pictures_missing(now: Revision) -> Iterator[str]:
    """The outs that are missing on disk and are, or may contain, pictures."""
    for stage in now.pipeline.stages:
        for path, out in stage.noted.items():
            may_hold = path.endswith(".png") or out.md5.endswith(".dir")
            if stage.commands and stage.file != SWEEPS and may_hold and not (ROOT / path).exists():
                yield path


def flat_name(picture: Path) -> str:
    """The file name of a picture beside the report."""
    return "-".join(picture.parts)


def author_words(file: Path) -> dict[str, str]:
    """The author's passages in a report, by their names; UserError if the marks do not pair."""
    text = read_text(file).replace("\r\n", "\n")
    found = {match[2]: match[3] for match in AUTHOR.finditer(text)}
    begun = re.findall(r"<!--\s*author:\s*([\w-]*)", text)
    if begun != list(found):
        raise UserError(
            f"{file.name}: the marks of your passages ({', '.join(begun)}) do not pair. Each "
            "begins with a name of its own, <!-- author: NAME -->, and ends with <!-- /author -->."
        )
    return found


def keep(text: str, words: dict[str, str]) -> str:
    """The text with the author's passages put back; those without a place come at the end."""
    places = {match[2] for match in AUTHOR.finditer(text)}
    kept = AUTHOR.sub(lambda m: m[1] + words.get(m[2], m[3]) + m[4], text)
    homeless = [
        f"\n<!-- author: {key} -->\n{text}<!-- /author -->\n"
        for key, text in words.items()
        if key not in places
    ]
    return kept + "".join(homeless)


def main() -> None:
    """Write the report and print its path."""
    file = milestone(sys.argv[1] if len(sys.argv) > 1 else "")
    print(f"{file}: write your words between the marks, then `git add lab/docs`.")


if __name__ == "__main__":
    as_command(main, "milestone: ")
