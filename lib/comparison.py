"""Results as tables: what a revision reached, and what differs between two.

`make compare`, `make results`, the page of a run, milestone reports and the results commit show
the same tables, the same values and the same judgement of a metric, which are made here. A table is
a header and rows of text; `markdown` writes one.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from lib.pipeline import Out
from lib.revisions import Revision, changed_rows, changes, flat_metrics, names_of
from lib.text import cell, one_line

Table = tuple[Sequence[str], Sequence[tuple[str, ...]]]

LONGEST = 50  # rows of a list that a person reads
WIDEST = 12  # measures side by side
COUNTED = 2_000_000_000  # bytes of a table whose rows are compared

# What the words of a metric's name tell; of other names nobody knows whether more is better.
LOWER = """loss losses logloss crossentropy brier error errors deviation deviance rmse rmsle mae mse
    msle mape smape wape nll perplexity hinge wer cer fid eer fpr fnr false misclassification
    bouldin"""
HIGHER = """accuracy acc auc auroc auprc rocauc ap map precision recall sensitivity specificity f1
    f2 fbeta r2 d2 explained ndcg mrr dice iou jaccard kappa mcc matthews bleu rouge psnr ssim
    silhouette likelihood skill tpr tnr"""
NOT_QUALITY = """count n num number support size rows samples epoch epochs step steps iteration
    iterations index threshold weight std stddev stderr drop gap difference diff delta"""
LOWER_WORDS, HIGHER_WORDS, NEUTRAL_WORDS = (
    frozenset(words.split()) for words in (LOWER, HIGHER, NOT_QUALITY)
)
GENERIC_WORDS = frozenset(
    {"score", "scores"}
)  # higher, unless another word says lower: brier_score
MODEL_KEYS = ("model", "classifier", "regressor", "estimator")


# ---- values


def shown(value: Any) -> str:
    """A value as a person reads it: at least four significant digits, and no long text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return shown_float(value)
    if isinstance(value, list | tuple):
        return shown_list(value)
    text = one_line(str(value))
    return text if len(text) <= 80 else f"{text[:79]}…"


def shown_float(value: float) -> str:
    """Four significant digits, and never fewer than stand before the point."""
    size = abs(value)
    if 1000 <= size < 100_000:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.0f}" if 100_000 <= size < 1e16 else f"{value:.4g}"


def shown_list(values: Sequence[Any]) -> str:
    """The first few of them, and how many there are."""
    few = values if len(values) <= 6 else values[:3]
    texts = [f"[{len(v)} in all]" if isinstance(v, list | tuple) else shown(v) for v in few]
    return f"[{', '.join(texts)}{f', … {len(values)} in all' if len(few) < len(values) else ''}]"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value can be subtracted: a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


# ---- whether a metric is better


def better_when(key: str) -> int:
    """1 where more of a metric is better, -1 where less is, 0 where its name does not tell.

    The last part of the key that has letters tells: `precision` of `test.precision@0.5`. A name
    whose words say both is not judged, nor is a count, a threshold or a deviation of a metric.
    """
    parts = [part for part in key.split(".") if re.search("[a-zA-Z]", part)]
    words = words_of(parts[-1]) if parts else []
    lower, higher = LOWER_WORDS & set(words), HIGHER_WORDS & set(words)
    if NEUTRAL_WORDS & set(words) or (lower and higher):
        return 0
    found = -1 if lower else 1 if higher or GENERIC_WORDS & set(words) else 0
    return -found if is_negated(words) else found


def words_of(name: str) -> list[str]:
    """The words of a name in any style: `log_loss`, `logLoss`, `Log-Loss`, `R2`, `ROC AUC`."""
    name = re.sub("cross[_ -]?entropy", "crossentropy", name, flags=re.IGNORECASE)
    parts = re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+", name)
    return [part.lower() for part in parts]


def is_negated(words: Sequence[str]) -> bool:
    """Whether it is a loss with its sign turned, as scikit-learn's, or a likelihood's negative."""
    if "likelihood" in words:
        return bool({"neg", "negative"} & set(words))
    return "neg" in words and bool(LOWER_WORDS & set(words[words.index("neg") :]))


def judged(key: str, by: float) -> str:
    """Whether a metric that grew by so much is better now, as far as its name tells."""
    gain = better_when(key) * by
    return " better" if gain > 0 else " worse" if gain < 0 else ""


# ---- what a revision reached


@dataclass(frozen=True)
class Measured:
    """What was measured of a model on a split; no split where the file names none."""

    split: str
    model: str
    values: Mapping[str, Any]


def measured(revision: Revision) -> list[Measured]:
    """What the metrics files of a revision say of models, split after split."""
    files = revision.metrics_files
    models = model_names(files, names_of(files))
    found = [
        Measured(split, models[path], values)
        for path, content in files.items()
        if isinstance(content, Mapping)
        for split, values in measures_of(content)
    ]
    place = {split: n for n, split in enumerate(dict.fromkeys(row.split for row in found))}
    return sorted(found, key=lambda row: place[row.split])


def measures_of(content: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each split's measures in a metrics file, and last those that are of no split.

    A mapping without text is a split's measures where one of its numbers can be judged.
    """
    for split, values in content.items():
        if isinstance(values, Mapping) and not any(isinstance(v, str) for v in values.values()):
            measures = {str(k): v for k, v in values.items() if v is None or numeric(v)}
            if any(map(better_when, measures)):
                yield str(split), measures
    own = {str(k): v for k, v in content.items() if numeric(v) and better_when(str(k))}
    if own:
        yield "", own


def numeric(value: Any) -> bool:
    """Whether a value is a number, finite or not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def model_names(files: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """What each file's model is called: as the file says, if no other says the same, or as it."""
    own = {
        path: next((v for key in MODEL_KEYS if isinstance(v := content.get(key), str)), "")
        for path, content in files.items()
        if isinstance(content, Mapping)
    }
    often = Counter(own.values())
    return {path: name if name and often[name] == 1 else names[path] for path, name in own.items()}


def results_table(revision: Revision) -> Table:
    """A row for each split and model, a column for each measure; else a row for each metric."""
    found = measured(revision)
    measures = list(dict.fromkeys(name for row in found for name in row.values))
    if not any(row.split for row in found) or len(measures) > WIDEST:
        return ("metric", "value"), [(key, shown(v)) for key, v in revision.metrics.items()]
    columns = [column([row.values.get(name, "") for row in found]) for name in measures]
    cells = zip(*columns, strict=True)
    rows = [(row.split or "–", row.model, *texts) for row, texts in zip(found, cells, strict=True)]
    return ("split", "model", *measures), rows


def column(values: Sequence[Any]) -> list[str]:
    """The values of one measure as shown, with as many decimals (up to four) for each."""
    texts = [shown(value) for value in values]
    decimals = [len(text.partition(".")[2]) for text in texts if "e" not in text]
    wanted = min(max(decimals, default=0), 4)
    return [
        f"{value:.{wanted}f}"
        if is_number(value) and "e" not in text and len(text.partition(".")[2]) < wanted
        else text
        for value, text in zip(values, texts, strict=True)
    ]


def best_model(found: Sequence[Measured]) -> tuple[str, str, str] | None:
    """The best model, the measure that says so, and on which split; None where none tells.

    It is the first measure that can be judged, on the validation split where there is one; models
    that are level there are told apart by the next.
    """
    split = chosen_split([row.split for row in found])
    rows = [row for row in found if row.split == split]
    measures = [
        m for m in dict.fromkeys(name for row in rows for name in row.values) if better_when(m)
    ]

    def merit(row: Measured) -> list[float]:
        values = {name: row.values.get(name) for name in measures}
        return [v * better_when(k) if is_number(v) else float("-inf") for k, v in values.items()]

    return (max(rows, key=merit).model, measures[0], split) if measures else None


def chosen_split(splits: Sequence[str]) -> str:
    """The split that models are chosen on: validation, else test, else the first."""
    for wanted in ("val", "dev", "test"):
        for split in splits:
            if split.lower().startswith(wanted):
                return split
    return splits[0] if splits else ""


# ---- what differs


def metric_changes(old: Revision, new: Revision) -> list[tuple[str, Any, Any]]:
    """Key, value before and value after of each metric that differs."""
    names = names_of({*old.metrics_files, *new.metrics_files})
    before, after = (flat_metrics(revision.metrics_files, names) for revision in (old, new))
    return changes(before, after)


def metrics_table(old: Revision, new: Revision, *, scalars_only: bool = False) -> Table:
    """Every metric that differs, by how much, and whether that is better; lists too, or not."""
    rows = [
        (key, shown(before), shown(after), change(key, before, after))
        for key, before, after in metric_changes(old, new)
        if not (scalars_only and (isinstance(before, list) or isinstance(after, list)))
    ]
    return ("metric", "before", "after", "change"), rows


def change(key: str, before: Any, after: Any) -> str:
    """By how much a number differs, and whether that is better; empty for all else."""
    if not (is_number(before) and is_number(after)):
        return ""
    by = after - before
    text = f"{'+' if by > 0 else ''}{shown(by)}"
    return text if shown(before) == shown(after) else text + judged(key, by)


def params_table(old: Revision, new: Revision) -> Table:
    """Every parameter that differs."""
    rows = [(key, shown(a), shown(b)) for key, a, b in changes(old.params, new.params)]
    return ("parameter", "before", "after"), rows


def data_table(old: Revision, new: Revision) -> Table:
    """Every path that DVC keeps and that differs: size, files, and rows of tables."""
    rows = [
        (path, described(before), described(after), rows_changed(path, old, new))
        for path, before, after in changes(old.outs, new.outs)
    ]
    return ("path", "before", "after", "rows"), rows


def rows_changed(path: str, old: Revision, new: Revision) -> str:
    """How many rows of a table came and went; empty where it is none, or large."""
    outs = [revision.outs.get(path) for revision in (old, new)]
    if not path.endswith(".csv") or not all(out and out.size <= COUNTED for out in outs):
        return ""
    read = old
    try:
        with old.opened(path) as before:
            read = new
            with new.opened(path) as after:
                came, went = changed_rows(before, after)
    except Exception as error:  # DVC's, the bucket's and the disk's own, of many classes
        read.missing.append(read.not_here(path, error))
        return ""
    return f"{came} rows came, {went} went"


def described(out: Out | None, digits: int = 8) -> str:
    """Checksum, cut off after so many digits, and size of an out."""
    if out is None:
        return "–"
    files = f", {out.files} files" if out.files > 1 else ""
    return f"{out.md5[:digits]} ({size(out.size)}{files})"


def size(count: float) -> str:
    """Bytes as a person reads them."""
    return next(
        f"{count / unit:.3g} {name}"
        for name, unit in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1))
        if count >= unit or unit == 1
    )


# ---- tables as text


def cut(rows: Sequence[tuple[str, ...]], most: int = LONGEST) -> tuple[list[tuple[str, ...]], str]:
    """At most so many rows, and a line that counts the others: of keys, the less nested stay."""
    if len(rows) <= most:
        return list(rows), ""
    first = sorted(rows, key=lambda row: row[0].count("."))[:most]
    return first, f"… and {len(rows) - most:,} more"


def code(text: str) -> str:
    """A key as code in a cell of a Markdown table."""
    inner = one_line(text).replace("|", "\\|")
    return f"`` {inner} ``" if "`" in inner else f"`{inner}`"


def as_markdown(table: Table, *, key: Callable[[str], str] = cell, aligned: bool = True) -> str:
    """A table in Markdown, cut where it is too long for a reader; `key` writes the first column."""
    header, rows = table
    kept, more = cut(rows)
    lines = [(key(row[0]), *map(cell, row[1:])) for row in kept]
    return "\n\n".join(filter(None, (markdown([*map(cell, header)], lines, aligned=aligned), more)))


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], *, aligned: bool = True) -> str:
    """A Markdown table of cells that `cell` or `code` made, its columns below each other or not."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(map(len, texts)) if aligned else 3 for texts in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    padding = widths if aligned else [0] * len(widths)
    padded = (map(str.ljust, line, padding) for line in lines)
    return "\n".join(f"| {' | '.join(texts)} |" for texts in padded)
