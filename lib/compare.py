"""Two revisions side by side: one HTML page that needs no internet, and the same as text.

lib/within --dev . python -m lib.compare [--from A] [--to B] [--out FILE]     (make compare A= B=)

Nothing: the work tree against the last commit. The plots are those that dvc.yaml defines, the two
revisions drawn over each other. What cannot be read is said on the page, which has all the rest.
"""

import argparse
import base64
import html
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.errors import UserError
from lib.files import replaced_file
from lib.revisions import Plot, Revision, changed_rows, changes, default_pair
from lib.viz import COLOURS

# What a metric's name tells; of others nobody knows whether more of it is better.
LOWER_IS_BETTER = ("loss", "brier", "error", "deviation", "rmse", "mae", "mse")
HIGHER_IS_BETTER = ("accuracy", "auc", "precision", "recall", "f1", "r2", "score")
OLD, NEW = "#9a6b1f", "#1b6ca8"
Rows = list[dict[str, str]]
Table = tuple[Sequence[str], Sequence[tuple[str, ...]]]

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1c2733; }}
body {{ max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin-bottom: .3rem; }}
h2 {{ font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #d8dee4; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #eceff2; }}
th {{ font-weight: 600; color: #56636f; }}
td:first-child {{ font-family: ui-monospace, monospace; font-size: .9em; }}
.better {{ color: #1a7f37; }}
.worse {{ color: #b3261e; }}
.key {{ margin: .1rem 0; }}
.key b {{ display: inline-block; min-width: 4rem; }}
.note {{ background: #fff7e0; border-left: 4px solid #d9a400; padding: .4rem .8rem; }}
.note {{ overflow-wrap: anywhere; }}
.plots {{ display: flex; flex-wrap: wrap; gap: 1.2rem; }}
figure {{ margin: 0; max-width: 32.5rem; }}
img {{ max-width: 100%; height: auto; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


# ---- what differs


def metrics_table(old: Revision, new: Revision) -> Table:
    """Every metric that differs, by how much, and whether that is better."""
    rows = []
    for key, before, after in changes(old.metrics, new.metrics):
        change = ""
        if all(isinstance(v, int | float) for v in (before, after)):
            by = after - before
            change = f"{by:+d}" if isinstance(by, int) else f"{by:+.4g}"
            if ".validation." in key or ".test." in key:
                change += judged(key, by)
        rows.append((key, shown(before), shown(after), change))
    return ("metric", "before", "after", "change"), rows


def judged(key: str, by: float) -> str:
    """Whether a metric that grew by so much is better now, as far as its name tells."""
    name = key.rpartition(".")[2]
    lower = any(word in name for word in LOWER_IS_BETTER)
    if not lower and not any(word in name for word in HIGHER_IS_BETTER):
        return ""
    return " better" if (by < 0) == lower else " worse"


def params_table(old: Revision, new: Revision) -> Table:
    """Every parameter that differs."""
    rows = [(key, shown(a), shown(b)) for key, a, b in changes(old.params, new.params)]
    return ("parameter", "before", "after"), rows


def data_table(old: Revision, new: Revision) -> Table:
    """Every path that DVC keeps and that differs: size, files, and rows of tables."""
    rows = []
    for path, before, after in changes(old.outs, new.outs):
        what = ""
        if before and after and path.endswith(".csv"):
            contents = [revision.content(path) for revision in (old, new)]
            if all(content is not None for content in contents):
                came, went = changed_rows(*contents)  # type: ignore[arg-type]
                what = f"{came} rows came, {went} went"
        rows.append((path, *(described(out) for out in (before, after)), what))
    return ("path", "before", "after", "rows"), rows


def described(out: Any, digits: int = 8) -> str:
    """Checksum, cut off after so many digits, and size of an out."""
    if out is None:
        return "–"
    files = f", {out.files} files" if out.files > 1 else ""
    return f"{out.md5[:digits]} ({size(out.size)}{files})"


def size(count: float) -> str:
    """Bytes as a person reads them."""
    return next(
        f"{count / unit:.3g} {name}"
        for name, unit in (("MB", 1e6), ("kB", 1e3), ("B", 1))
        if count >= unit or unit == 1
    )


def shown(value: Any) -> str:
    """A value as a person reads it."""
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


# ---- pictures


def draw(plot: Plot, tables: Mapping[str, Rows]) -> Figure:
    """One plot with every revision in it.

    Args:
        plot: what dvc.yaml says of it.
        tables: the rows of each revision, by its label, the older first.
    """
    if plot.template == "confusion":
        return draw_confusion(plot, tables)
    figure = Figure(figsize=(7.2, 3.9), layout="constrained")
    axes = figure.subplots()
    if plot.template.startswith("bar"):
        draw_bars(axes, plot, tables)
    else:
        draw_lines(axes, plot, tables)
    axes.set_title(plot.title, fontsize=11)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def draw_lines(axes: Axes, plot: Plot, tables: Mapping[str, Rows]) -> None:
    """A line for each column, and for each model where a column names them; older ones dashed."""
    lines: dict[str, str] = {}
    for rows, style in zip(tables.values(), revision_styles(tables), strict=True):
        groups = sorted({row.get("model", "") for row in rows})
        for group in groups:
            chosen = [row for row in rows if row.get("model", "") == group]
            for column in plot.y:
                name = group or column
                colour = lines.setdefault(name, COLOURS[len(lines) % len(COLOURS)])
                x, y = (numbers(chosen, key) for key in (plot.x, column))
                axes.plot(x, y, color=colour, **style)
    several = len(lines) > 1 or next(iter(lines), "") not in plot.y
    for name, colour in lines.items():
        if several:
            axes.plot([], [], color=colour, label=name.replace("_", " "))
    for label, style in zip(tables, revision_styles(tables), strict=True):
        axes.plot([], [], color="#444444", label=label, **style)
    axes.set(xlabel=plot.x.replace("_", " "), ylabel=", ".join(plot.y).replace("_", " "))
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def revision_styles(tables: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """How the lines of each revision look: the newest solid."""
    old: dict[str, Any] = {"linestyle": (0, (4, 2)), "alpha": 0.6, "linewidth": 1.2}
    return [old] * (len(tables) - 1) + [{"linestyle": "-", "alpha": 0.95, "linewidth": 1.5}]


def draw_bars(axes: Axes, plot: Plot, tables: Mapping[str, Rows]) -> None:
    """A bar for each row and revision, lengths from where they differ."""
    (name,) = plot.y
    last = list(tables.values())[-1]
    names = list(dict.fromkeys(row[name] for rows in (last, *tables.values()) for row in rows))
    height, values = 0.8 / len(tables), []
    for index, ((label, rows), colour) in enumerate(
        zip(tables.items(), (OLD, NEW)[-len(tables) :], strict=True)
    ):
        by_name = dict(zip((row[name] for row in rows), numbers(rows, plot.x), strict=True))
        lengths = [by_name.get(key, np.nan) for key in names]
        values += [value for value in lengths if np.isfinite(value)]
        places = np.arange(len(names)) + (index - (len(tables) - 1) / 2) * height
        axes.barh(places, lengths, height=height * 0.92, color=colour, label=label)
    axes.set_yticks(range(len(names)), [key.replace("_", " ") for key in names])
    axes.invert_yaxis()
    if values and min(values) > 0.5 and max(values) <= 1:
        axes.set_xlim(left=np.floor(min(values) * 20 - 1) / 20, right=1)
    axes.set_xlabel(plot.x.replace("_", " "))
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def draw_confusion(plot: Plot, tables: Mapping[str, Rows]) -> Figure:
    """The confusion matrices of the revisions beside each other."""
    (truth,) = plot.y
    classes = sorted(
        {row[key] for rows in tables.values() for row in rows for key in (truth, plot.x)}
    )
    figure = Figure(figsize=(3.3 * len(tables) + 0.4, 3.5), layout="constrained")
    grid = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (label, rows) in zip(grid, tables.items(), strict=True):
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        for row in rows:
            counts[classes.index(row[truth]), classes.index(row[plot.x])] += 1
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(count), ha="center", va="center", color=colour)
        axes.set_xticks(range(len(classes)), classes)
        axes.set_yticks(range(len(classes)), classes, rotation=90, va="center")
        axes.set_title(label, fontsize=9)
        axes.set(xlabel=plot.x, ylabel=truth)
    figure.suptitle(plot.title, fontsize=11)
    return figure


def numbers(rows: Rows, column: str) -> list[float]:
    """A column as numbers."""
    return [float(row[column]) for row in rows]


def pictures(old: Revision, new: Revision) -> list[tuple[str, Figure]]:
    """Title and picture of each plot of the newer revision; what cannot be drawn is noted there."""
    found = []
    for plot in new.plots:
        tables = {}
        for revision in (old, new):
            known = revision is new or plot.path in {other.path for other in old.plots}
            if known and (rows := revision.table(plot.path)):
                tables[revision.label] = rows
        if not tables:
            continue
        try:
            found.append((plot.title, draw(plot, tables)))
        except (KeyError, ValueError, TypeError) as error:
            new.missing.append(f"{plot.path} cannot be drawn as dvc.yaml says: {error!r}.")
    return found


# ---- the page and the text


def sections(old: Revision, new: Revision) -> list[tuple[str, Table]]:
    """Title and table of each thing that two revisions may differ in."""
    return [
        ("Metrics", metrics_table(old, new)),
        ("Parameters", params_table(old, new)),
        ("Data and models", data_table(old, new)),
    ]


def page(old: Revision, new: Revision) -> str:
    """The page, whole."""
    parts = [
        f'<p class="key"><b>before</b> {html.escape(old.label)} · {html.escape(old.subject)}</p>'
        f'<p class="key"><b>after</b> {html.escape(new.label)} · {html.escape(new.subject)}</p>'
    ]
    for title, (header, rows) in sections(old, new):
        parts.append(f"<h2>{title}</h2>")
        parts.append(html_table(header, rows) if rows else "<p>No difference.</p>")
    drawn = [
        f'<figure><img alt="{html.escape(title)}" src="{data_uri(figure)}"></figure>'
        for title, figure in pictures(old, new)
    ]
    parts += [
        "<h2>Plots</h2>",
        f'<div class="plots">{"".join(drawn)}</div>' if drawn else "<p>None.</p>",
    ]
    notes = [f'<p class="note">{html.escape(line)}</p>' for line in missing(old, new)]
    title = html.escape(f"{old.label} → {new.label}")
    return PAGE.format(title=title, body="\n".join([parts[0], *notes, *parts[1:]]))


def missing(*revisions: Revision) -> list[str]:
    """What could not be read, each said once."""
    return list(dict.fromkeys(line for revision in revisions for line in revision.missing))


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells that end in a judgement bear its colour."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = []
    for row in rows:
        judged = row[-1].rpartition(" ")[2]
        colour = f' class="{judged}"' if judged in ("better", "worse") else ""
        *cells, last = (html.escape(cell) for cell in row)
        lines.append("".join(f"<td>{cell}</td>" for cell in cells) + f"<td{colour}>{last}</td>")
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def data_uri(figure: Figure) -> str:
    """The picture itself, in the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def text(old: Revision, new: Revision) -> str:
    """The tables in Markdown."""
    parts = [f"{old.label} ({old.subject}) → {new.label} ({new.subject})"]
    for title, (header, rows) in sections(old, new):
        parts.append(f"{title}\n\n{markdown(header, rows)}" if rows else f"{title}: no difference.")
    return "\n\n".join(parts)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below each other."""
    lines = [tuple(header), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = [" | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in (padded[0], rule, *padded[1:]))


def main() -> None:
    """Write the page, print the text."""
    parser = argparse.ArgumentParser(prog="make compare")
    parser.add_argument("--from", dest="before", default="")
    parser.add_argument("--to", dest="after", default="")
    parser.add_argument("--out", type=Path, default=Path("build/compare.html"))
    given = parser.parse_args()
    before, after = default_pair()
    old, new = Revision(given.before or before), Revision(given.after or after)
    try:
        content = page(old, new)
    except UserError as error:
        sys.exit(f"compare: {error}")
    print(text(old, new))
    with replaced_file(given.out) as file:
        file.write_text(content, encoding="utf-8")
    for line in missing(old, new):
        print(f"\nMissing: {line}")
    print(f"\nPage: {given.out}")


if __name__ == "__main__":
    main()
