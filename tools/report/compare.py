"""Compares two revisions, as text and as one self-contained HTML page.

tools/within --dev . python -m tools.report.compare [--from A] [--to B]

`make compare A= B=` calls it. Without names, it compares the work tree with the last commit, or
with the commit before if nothing is uncommitted; without A, the last commit with B. The plots are
those that dvc.yaml defines, with both revisions in each. What cannot be read is listed; the rest is
shown.
"""

import argparse
import base64
import io
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment
from matplotlib.figure import Figure

from lib.comparison import (
    Table,
    as_markdown,
    cut,
    data_table,
    metrics_table,
    params_table,
    results_table,
)
from lib.errors import UserError
from lib.files import replaced_file
from lib.plots import draw
from lib.revisions import WORK_TREE, Revision, default_pair
from lib.text import one_line
from lib.viz import save_figure
from tools.command import as_command

FILE = Path("build/compare.html")
MAX_ROWS, MAX_PICTURES = 500, 50  # on the page

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ old.label }} → {{ new.label }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2733; }
body { max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .3rem; }
h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #d8dee4; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #eceff2; }
th { font-weight: 600; color: #56636f; }
td:first-child { font-family: ui-monospace, monospace; font-size: .9em; }
.better { color: #1a7f37; }
.worse { color: #b3261e; }
.key { margin: .1rem 0; }
.key b { display: inline-block; min-width: 4rem; }
.note { background: #fff7e0; border-left: 4px solid #d9a400; padding: .4rem .8rem; }
.note { overflow-wrap: anywhere; }
.plots { display: flex; flex-wrap: wrap; gap: 1.2rem; }
figure { margin: 0; max-width: 32.5rem; }
img { max-width: 100%; height: auto; }
</style>
</head>
<body>
<h1>{{ old.label }} → {{ new.label }}</h1>
<p class="key"><b>before</b> {{ old.label }} · {{ old.subject }}</p>
<p class="key"><b>after</b> {{ new.label }} · {{ new.subject }}</p>
{% for line in notes %}
<p class="note">{{ line }}</p>
{% endfor %}
{% for title, header, rows, more, nothing in tables %}
<h2>{{ title }}</h2>
{% if rows %}
<table>
<tr>{% for name in header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}
<tr>{% for text in row %}
{% set judged = text.split()[-1] if loop.last and text.endswith((" better", " worse")) %}
<td{% if judged %} class="{{ judged }}"{% endif %}>{{ text }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% if more %}<p>{{ more }}.</p>{% endif %}
{% else %}
<p>{{ nothing }}</p>
{% endif %}
{% endfor %}
<h2>Plots</h2>
<div class="plots">
{% for title, address in plots %}
<figure><img alt="{{ title }}" src="{{ address }}"></figure>
{% endfor %}
</div>
{% if unchanged %}<p>Unchanged: {{ unchanged }}.</p>{% elif not plots %}<p>None.</p>{% endif %}
</body>
</html>
"""
# Every value that is filled in is escaped, and put on one line.
HTML = Environment(autoescape=True, trim_blocks=True, finalize=lambda text: one_line(str(text)))


def sections(old: Revision, new: Revision) -> list[tuple[str, Table]]:
    """Title and table for metrics, parameters and data: what differs between two revisions."""
    tables: dict[str, Callable[[Revision, Revision], Table]] = {
        "Metrics": metrics_table,
        "Parameters": params_table,
        "Data and models": data_table,
    }
    found = []
    for title, table in tables.items():
        try:
            found.append((title, table(old, new)))
        except UserError as error:
            new.missing.append(str(error))
            found.append((title, ((), [])))
    return found


def pictures(old: Revision, new: Revision) -> tuple[list[tuple[str, str]], list[str]]:
    """Title and data: URI of each plot of the newer revision, and the titles of unchanged ones.

    Those that fail are noted in `missing`.
    """
    found: list[tuple[str, str]] = []
    unchanged: list[str] = []
    known = {plot.path for plot in old.plots}
    for plot in new.plots[:MAX_PICTURES]:
        both = (old, new) if plot.path in known else (new,)
        read = [(each.label, rows) for each in both if (rows := each.table(plot.path))]
        tables = dict(read)
        if len(read) == 2 and read[0][1] == read[1][1]:
            unchanged.append(plot.title)
            continue
        try:
            found += [(plot.title, data_uri(draw(plot, tables)))] if tables else []
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            why = f"it has no column {error}" if isinstance(error, KeyError) else error
            new.missing.append(f"{plot.path} cannot be drawn as dvc.yaml says: {why}.")
    if (left := len(new.plots) - MAX_PICTURES) > 0:
        new.missing.append(f"{left:,} more plots: `dvc plots show` draws them.")
    return found, unchanged


# ---- the page


def page(old: Revision, new: Revision) -> str:
    """The HTML page."""
    found = [(title, table, "No difference.") for title, table in sections(old, new)]
    results = results_table(new)
    nothing = "Some could not be read: see above." if new.missing else "No metrics yet."
    found.append((f"Results of {new.label}", results, nothing))
    tables = [
        (title, header, *cut(rows, MAX_ROWS), nothing) for title, (header, rows), nothing in found
    ]
    figures, same = pictures(old, new)
    content = {
        "tables": tables,
        "plots": figures,
        "unchanged": "; ".join(same),
        "notes": (*old.outdated, *new.outdated, *missing(old, new)),
    }
    return HTML.from_string(PAGE).render(old=old, new=new, **content)


def data_uri(figure: Figure) -> str:
    """A figure as a PNG in a data: URI."""
    buffer = io.BytesIO()
    save_figure(figure, buffer)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


# ---- the text


def text(old: Revision, new: Revision) -> str:
    """The tables in Markdown."""
    parts = [one_line(f"{old.label} ({old.subject}) → {new.label} ({new.subject})")]
    for title, table in sections(old, new):
        parts.append(f"{title}\n\n{as_markdown(table)}" if table[1] else f"{title}: no difference.")
    results = results_table(new)
    if results[1]:
        parts.append(f"Results of {new.label}\n\n{as_markdown(results)}")
    return "\n\n".join(parts)


def missing(*revisions: Revision) -> list[str]:
    """What could not be read in these revisions, without repetitions."""
    return list(dict.fromkeys(line for revision in revisions for line in revision.missing))


def main() -> None:
    """Write the page and print the text."""
    parser = argparse.ArgumentParser(prog="make compare")
    parser.add_argument("--from", dest="before", default="")
    parser.add_argument("--to", dest="after", default="")
    given = parser.parse_args()
    old = Revision(given.before or ("HEAD" if given.after else default_pair()[0]))
    new = Revision(given.after or WORK_TREE)
    content = page(old, new)
    print(text(old, new))
    with replaced_file(FILE) as file:
        file.write_text(content, encoding="utf-8")
    for line in (*old.outdated, *new.outdated):
        print(f"\nOutdated: {one_line(line)}")
    for line in missing(old, new):
        print(f"\nMissing: {one_line(line)}")
    print(f"\nPage: {FILE}")


if __name__ == "__main__":
    as_command(main, "compare: ")
