"""Shows what a run left behind: a table of metrics, the pictures, and what differs from git.

lib/within . python -m lib.results
"""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from lib.files import read_json
from lib.params import load_params
from lib.tracking import flat

SPLITS = ("validation", "test")


def rows(dir_metrics: Path) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    """Split, model and measures, from each metrics file that has measures by split."""
    files = {file.stem: read_json(file) for file in sorted(dir_metrics.glob("*.json"))}
    for split in SPLITS:
        for stage, metrics in files.items():
            if isinstance(metrics.get(split), dict) and "accuracy" in metrics[split]:
                yield split, metrics.get("classifier", stage), metrics[split]


def results_table(dir_metrics: Path) -> Table | None:
    """A row for each split and model, a column for each measure; else a row for each metric."""
    found = list(rows(dir_metrics))
    measures = list(dict.fromkeys(name for _, _, values in found for name in values))
    if not found:
        return metrics_table(dir_metrics)
    table = Table("split", "model", *measures, title="Results", title_justify="left")
    for index, (split, model, values) in enumerate(found):
        last = index + 1 == len(found) or found[index + 1][0] != split
        cells = (f"{values[name]:.4f}" if name in values else "" for name in measures)
        table.add_row(split, model, *cells, end_section=last)
    return table


def metrics_table(dir_metrics: Path) -> Table | None:
    """Every metric of every stage, for projects that measure no model by split."""
    table = Table("stage", "metric", "value", title="Results", title_justify="left")
    for file in sorted(dir_metrics.glob("*.json")):
        for name, value in flat(read_json(file), ".").items():
            table.add_row(
                file.stem, name, f"{value:.4g}" if isinstance(value, float) else str(value)
            )
    return table if table.row_count else None


def outs(lock: str) -> dict[str, dict[str, str]]:
    """For each stage in a dvc.lock, the md5 of each of its outs."""
    stages = (YAML(typ="safe", pure=True).load(lock) or {}).get("stages", {})
    return {
        name: {out["path"]: out.get("md5", "") for out in stage.get("outs", [])}
        for name, stage in stages.items()
    }


def inputs(lock: str) -> dict[str, Any]:
    """For each stage in a dvc.lock, what it was computed from, without other stages' outs."""
    stages = (YAML(typ="safe", pure=True).load(lock) or {}).get("stages", {})
    made = {path for stage in outs(lock).values() for path in stage}
    return {
        name: (
            stage.get("params"),
            [(d["path"], d.get("md5")) for d in stage.get("deps", []) if d["path"] not in made],
        )
        for name, stage in stages.items()
    }


def difference(committed: str, current: str) -> list[str]:
    """What to say of results that are not those committed; nothing where they are."""
    before, after = outs(committed), outs(current)
    changed = [stage for stage in after if after[stage] != before.get(stage)]
    if not changed:
        return []
    lines = [f"These results differ from those committed: {', '.join(changed)}."]
    if inputs(committed) == inputs(current):
        lines.append(
            "Code, parameters and environments are the same: another processor gives other last "
            "bits, or what the data come from has changed."
        )
    lines.append(
        "`git add dvc.lock metrics && git commit` keeps them; `dvc checkout` after "
        "`git checkout dvc.lock metrics` brings the committed ones back, if the cache has them."
    )
    return lines


def main() -> None:
    """Print it all."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 120
    paths = load_params().paths
    table = results_table(Path(paths.dir_metrics))
    console.print(table or f"No metrics in {paths.dir_metrics} yet: `make run`.")
    for picture in sorted(Path("artifacts").rglob("*.png")):
        console.print(f"Picture: {picture}")
    console.print("Runs: `make ui` shows those in mlflow.db; `dvc plots show` draws the plots.")
    show = ["git", "show", "HEAD:dvc.lock"]
    committed = subprocess.run(show, capture_output=True, text=True, check=False).stdout
    if committed and Path("dvc.lock").exists():
        for line in difference(committed, Path("dvc.lock").read_text()):
            console.print(f"[yellow]{line}[/yellow]")


if __name__ == "__main__":
    main()
