"""Results in the terminal, in a comparison, at a milestone and on the page of a run.

For any task: house prices, whose RMSE is better when lower; many classes; and metrics files as
users write them.
"""

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from lib.comparison import Best
from lib.errors import UserError
from lib.plots import draw
from lib.revisions import Plot, Revision
from tests.conftest import Project
from tools.report.compare import pictures
from tools.report.milestone import best_sentence, without_times
from tools.report.results import difference, lines_below

pytestmark = pytest.mark.integration

PIPELINE = """
stages:
  prices:
    matrix: {model: [linear, forest]}
    cmd: "true"
    metrics:
      - metrics/${item.model}.json:
          cache: false
"""
COMMIT = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "commit", "--quiet")
HOUSES = {
    "linear": {"validation": {"rmse": 38181.2, "r2": 0.81}, "test": {"rmse": 39000.0, "r2": 0.8}},
    "forest": {"validation": {"rmse": 39125.0, "r2": 0.8}, "test": {"rmse": 40000.0, "r2": 0.79}},
}
HOSTILE = {
    "a|b": 1,
    "<img src=x>": float("nan"),
    "[/red]": None,
    "two\nlines": [1] * 99,
    "`c`": "d",
    "[x](http://elsewhere)": 2,
    "$x$ ![p][q]": 3,
    "\x1b[2J\u202egone": 4,
}


def write_metrics(project, **files):
    """Write metrics files as a stage would."""
    for name, content in files.items():
        (project.folder / f"metrics/{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """Committed house prices: HEAD has a better RMSE than the commit before."""
    folder = tmp_path_factory.mktemp("report") / "a projëct"
    project = Project(folder)
    project.give_pipeline(PIPELINE)
    (folder / "metrics").mkdir()
    for file in folder.glob("goals/*_test.py"):
        file.unlink()
    write_metrics(project, **HOUSES)
    project.dvc("commit", "--force", "--quiet")
    project.commit("House prices")
    write_metrics(project, linear=HOUSES["linear"] | {"validation": {"rmse": 38125.0, "r2": 0.81}})
    project.dvc("commit", "--force", "--quiet")
    project.commit("Better house prices")
    return project


@pytest.fixture
def project(houses, tmp_path):
    """A copy for one test."""
    return houses.copied(tmp_path / "copy")


def results(project, ok=True):
    return project.run("tools/within", ".", "python", "-m", "tools.report.results", ok=ok)


def compare(project, *options):
    command = ("tools/within", "--dev", ".", "python", "-m", "tools.report.compare", *options)
    return project.run(*command), (project.folder / "build/compare.html").read_text()


def run_page(project):
    """The summary page of a run whose results are in the work tree."""
    page = project.folder / "summary.md"
    command = ("tools/within", ".", "python", "-m", "tools.report.run_page")
    printed = project.run(*command, GITHUB_STEP_SUMMARY=str(page))
    assert page.read_text().strip() == printed.strip()
    return printed


class Cells(HTMLParser):
    """The texts of a page, and those of its table cells by class."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.marked, self.mark = [], {}, None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.mark = dict(attributes).get("class") if tag == "td" else None

    def handle_endtag(self, _):
        self.mark = None

    def handle_data(self, data):
        self.texts.append(data)
        if self.mark:
            self.marked.setdefault(self.mark, []).append(data)


# ---- a project that predicts prices


def test_the_terminal_shows_the_results_of_any_task(houses):
    output = results(houses)
    assert re.search(r"split +┃ model +┃ rmse +┃ r2", output)
    assert re.search(r"validation │ linear │ 38,125 │ 0.81", output)
    assert "These results differ" not in output


INTERRUPTED = """
import runpy
import sys

from lib import comparison


def interrupted(_revision):
    raise KeyboardInterrupt


comparison.results_table = interrupted
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("tool", ["tools.report.results", "tools.report.compare"])
def test_an_interrupt_ends_a_report_without_a_traceback(houses, tool):
    command = ("tools/within", "--dev", ".", "python", "-c", INTERRUPTED, tool)
    process = houses.start(*command)
    output, _ = process.communicate(timeout=120)
    assert (process.returncode, output) == (130, "")


def test_tables_wider_than_the_terminal_cut_no_model_and_no_number(project):
    classes = {"validation": {"accuracy": 0.91234, "precision": 0.5, "recall": 0.5, "roc_auc": 0.5}}
    prices = {"validation": {"rmse": 1744.65, "mae": 1350.81, "median_absolute_error": 9.5}}
    names = ["classes_by_forest", "prices_by_forest_of_trees", "prices_by_forest_of_stumps"]
    write_metrics(project, **dict(zip(names, (classes, prices, prices), strict=True)))
    stages = {
        name: {"cmd": "true", "metrics": [{f"metrics/{name}.json": {"cache": False}}]}
        for name in names
    }
    (project.folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    output = results(project)
    assert "…" not in output.partition("Runs:")[0]
    assert max(map(len, output.partition("Runs:")[0].splitlines())) <= 120
    assert re.search(r"│ validation │ classes_by_forest +│ 0.9123", output)
    for name in names[1:]:
        assert re.search(rf"│ validation │ {name} .*│ 1,744.65 │", output)
        assert re.search(rf"│ validation │ {name} .*│ 9.5(00)? +│\n", output), "in a table below"


def test_a_lower_rmse_is_better_in_the_text_and_on_the_page(houses):
    output, page = compare(houses, "--from", "HEAD~1", "--to", "HEAD")
    assert re.search(r"linear.validation.rmse \| 38,181.20 \| 38,125.00 \| -56.20 better", output)
    assert re.search(r"\| validation \| linear \| 38,125 \| 0.81", output), "the table of results"
    assert Cells(page).marked == {"better": ["-56.20 better"]}


def test_one_given_revision_is_compared_with_the_last_commit(houses):
    output, _ = compare(houses, "--to", "HEAD~1")
    assert re.match(r"HEAD \(.*\) → HEAD~1 \(", output), "even if nothing is uncommitted"
    assert re.search(r"linear.validation.rmse \| 38,125.00 \| 38,181.20 \| \+56.20 worse", output)


def test_a_lower_rmse_is_better_on_the_page_of_a_run(project):
    write_metrics(project, linear=HOUSES["linear"] | {"validation": {"rmse": 38000.0, "r2": 0.9}})
    page = run_page(project)
    assert "| `linear.validation.rmse` | 38,125 | 38,000 | -125 better |" in page
    assert "| `linear.validation.r2` | 0.81 | 0.90 | +0.09 better |" in page
    assert "| validation | linear | 38,000 | 0.90 |" in page


def test_a_milestone_names_the_best_model_by_its_metric(project):
    text = milestone_of(project)
    assert "**Best model:** linear, by rmse on the validation split." in text
    assert re.search(r"\| validation \| linear \| 38,125 \| 0.81", text)


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        (
            Best(["a"], ["accuracy", "log_loss"], "test", []),
            "a, by accuracy, then log_loss on the test split.",
        ),
        (Best(["a"], ["mae"], "", ["b", "c"]), "a, by mae (not compared: b, c)."),
        (Best(["a", "b"], ["rmse", "r2"], "", []), "a and b, level in rmse, r2."),
        (
            None,
            "cannot be said: the models share no numeric measure that can be judged.",
        ),
    ],
)
def test_a_milestone_names_the_deciding_metrics_and_ties(best, expected):
    assert best_sentence(best) == expected


def milestone_of(project):
    """The text of a milestone."""
    command = ("tools/within", "--dev", ".", "python", "-m", "tools.report.milestone", "prices")
    project.run(*command)
    (file,) = (project.folder / "lab/docs").glob("????-??-??-prices.md")
    return file.read_text()


def test_a_milestone_shows_all_parameters_and_changes_since_a_stage_ran(project):
    form = "\n  form: {cmd: 'true', params: [{form.yaml: [depth]}], outs: [form.csv]}\n"
    (project.folder / "dvc.yaml").write_text(PIPELINE + form)
    (project.folder / "form.yaml").write_text("depth: 4\n")
    (project.folder / "form.csv").write_text("1\n")
    with (project.folder / ".gitignore").open("a") as ignored:
        ignored.write("/form.csv\n")
    project.dvc("commit", "--force", "--quiet")
    project.commit("A form")
    text = milestone_of(project)
    assert "form.yaml:depth: 4\n```" in text
    assert "has not run" not in text
    (project.folder / "form.yaml").write_text("depth: 5\n")
    project.commit("Deeper, and not run")
    text = milestone_of(project)
    assert re.search(r"- form of HEAD \(\w+\) has not run since depth changed", text)
    assert "form.yaml:depth: 5" in text


def picture_line(project):
    """The line on pictures in a milestone."""
    return milestone_of(project).partition("## Pictures\n\n")[2].partition("\n")[0]


def test_pictures_come_from_stages_unless_missing_or_too_many(project):
    scan = project.folder / "data/raw/scans/1.png"
    scan.parent.mkdir(parents=True)
    scan.write_bytes(b"a patient's")
    project.dvc("add", "--quiet", "data/raw/scans")
    out = project.folder / "artifacts/prices"
    drawn = "\n  draw: {cmd: 'true', outs: [artifacts/prices]}\n"
    (project.folder / "dvc.yaml").write_text(PIPELINE + drawn)
    with (project.folder / ".gitignore").open("a") as ignored:
        ignored.write("/artifacts/prices\n")
    out.mkdir(parents=True)
    (out / "model.bin").write_text("no picture")
    project.dvc("commit", "--force", "--quiet")
    project.commit("A model")
    assert picture_line(project) == "No pictures."
    shutil.rmtree(out)
    assert picture_line(project) == "None on disk: `dvc pull` gets them."
    out.mkdir()
    for n in range(51):
        (out / f"{n}.png").touch()
    output = results(project)
    assert "Picture: " not in output
    assert "51 pictures are in artifacts/prices." in output


def test_a_milestone_shows_no_values_of_timing_goals():
    goal = {"goal": "≤ 3 ms; ≥ 0.5", "reached": "time 2 ms; test 0.9", "message": ""}
    assert without_times(goal)["reached"] == ""
    for wanted in ("≥ 0.5", "≤ 30 min"):  # an error of a predicted duration is a result
        other = goal | {"goal": wanted, "reached": "test 0.9"}
        assert without_times(other) == other


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        *[(name, "lines") for name in ("", "linear", "simple", "smooth")],
        *[(name, "points") for name in ("scatter", "scatter_jitter")],
        *[(name, "bars") for name in ("bar_horizontal", "bar_horizontal_sorted")],
        *[(name, "matrix") for name in ("confusion", "confusion_normalized")],
    ],
)
def test_each_template_of_dvc_has_its_kind_of_picture(template, kind):
    rows = [{"a": "1", "b": "2"}, {"a": "2", "b": "1"}]
    (axes,) = draw(Plot("Which", "cases.csv", "a", ["b"], template), {"work tree": rows}).axes
    lined = [line for line in axes.lines if line.get_linestyle() != "None"]
    found = {"matrix": axes.images, "bars": axes.patches, "lines": lined, "points": axes.lines}
    assert next(name for name, drawn in found.items() if drawn) == kind


@pytest.mark.parametrize("losses", [["0.5"], ["", "0.5", ""]])
def test_a_point_without_neighbours_is_visible(losses):
    rows = [{"epoch": str(n), "loss": loss} for n, loss in enumerate(losses)]
    figure = draw(Plot("Loss", "history.csv", "epoch", ["loss"], ""), {"work tree": rows})
    figure.savefig(picture := io.BytesIO())
    pixels = imread(io.BytesIO(picture.getvalue()))[..., :3]
    colour = to_rgb(figure.axes[0].lines[0].get_color())
    assert (np.abs(pixels - colour).max(axis=2) < 0.1).any()


@pytest.mark.parametrize("revisions", [1, 2])
@pytest.mark.parametrize(
    "classes", [["no", "yes"], [f"kind number {n}" for n in range(8)], [*map(str, range(20))]]
)
def test_class_names_are_in_order_and_do_not_overlap(classes, revisions):
    rows = [{"predicted": name, "actual": name} for name in reversed(classes)]
    plot = Plot("Which", "cases.csv", "predicted", ["actual"], "confusion")
    figure = draw(plot, {f"revision {n}": rows for n in range(revisions)})
    figure.draw_without_rendering()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = axis.get_ticklabels()
        assert [label.get_text() for label in labels] == classes
        boxes = [label.get_window_extent() for label in labels]
        assert not [one for one, other in pairwise(boxes) if one.overlaps(other)]
        assert all(figure.bbox.containsx(x) for box in boxes for x in (box.x0, box.x1))


def test_a_truncated_row_has_a_class_without_a_name():
    rows = [{"actual": "a", "predicted": None}, {"actual": "a", "predicted": "a"}]
    plot = Plot("Which", "cases.csv", "predicted", ["actual"], "confusion")
    (axes,) = draw(plot, {"work tree": rows}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["", "a"]


def test_a_matrix_of_many_classes_has_no_tick_labels_or_counts():
    rows = [{"predicted": str(n), "actual": str(n)} for n in range(100, 200)]
    plot = Plot("Which", "cases.csv", "predicted", ["actual"], "confusion")
    (axes,) = draw(plot, {"work tree": rows}).axes
    assert not [*axes.get_xticks(), *axes.get_yticks(), *axes.texts]


@pytest.mark.parametrize("template", ["confusion", "simple"])
@pytest.mark.parametrize("revisions", [1, 2])
def test_no_title_of_a_plot_is_cut(template, revisions):
    rows = [{"predicted": "1", "actual": "0"}, {"predicted": "0", "actual": "1"}]
    title = "Which of the classes were predicted, " * 4
    plot = Plot(title, "cases.csv", "predicted", ["actual"], template)
    figure = draw(plot, {f"revision {n}": rows for n in range(revisions)})
    figure.draw_without_rendering()
    texts = figure.findobj(lambda part: getattr(part, "get_text", str)() == title)
    (box,) = [text.get_window_extent() for text in texts]
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


# ---- metrics as users write them


def test_any_metrics_content_is_shown_everywhere(project):
    write_metrics(project, linear=HOSTILE, forest={"deep": {"er": {"precision@10": 0.5}}})
    output, (text, page), on_page = results(project), compare(project), run_page(project)
    for found in (output, text, on_page):
        assert "Traceback" not in found
        assert "forest.deep.er.precision@10" in found
        assert re.search("nan", found)
    assert "linear.[/red]" in output
    assert "linear.a\\|b" in text
    assert "`linear.a\\|b`" in on_page
    assert "[1, 1, 1, … 99 in all]" in on_page
    for found in (text, on_page):
        assert not re.search(r"(?<!\\)\](?=[(\[])|(?<!\\)\$", re.sub("`.*?`", "", found))
    for found in (output, text, page, on_page):
        assert not re.search("\x1b\\[2J|\u202e", found)
        assert re.search(r"\\+x1b\[2J\\+u202egone", found)
    assert "<img src=x" not in page
    assert "linear.<img src=x>" in " ".join(Cells(page).texts)
    tables = [line for line in (*text.splitlines(), *on_page.splitlines()) if line[:1] == "|"]
    columns = [len(re.findall(r"(?<!\\)\|", line)) - 1 for line in tables]
    assert set(columns) <= {2, 4}, "no key adds a column or ends a row"


def test_warnings_on_the_page_of_a_run_show_no_markup_and_no_password(project):
    line = "WARNING: MLflow at http://u:pw@w@host: <b>![x](http://elsewhere)\x1b[2J"
    note = project.folder / ".dvc/tmp/run.json"
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps({"name": "run-1", "warnings": [line], "shared": "a`<b>"}))
    on_page = run_page(project)
    assert r"> WARNING: MLflow at http://host: \<b>![x\](http://elsewhere)\\x1b[2J" in on_page
    assert r"Results: a`\<b>." in on_page
    note.unlink()


def test_parameters_with_aliases_are_refused_the_rest_is_shown(project):
    bomb = "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9 if n else '1'}]\n" for n in range(9))
    (project.folder / "params.yaml").write_text(bomb)
    output, _ = compare(project)
    assert "Missing: work tree: params.yaml has a YAML alias ('*a0', line 2)" in output
    assert "linear.validation.rmse" in output


def test_results_show_the_numbers_that_differ_from_the_last_commit(project):
    changed = {"validation": {"rmse": 38000.0, "r2": 0.81}, "rare": {"mae": 1.0}}
    write_metrics(project, linear=HOUSES["linear"] | changed)
    project.dvc("commit", "--force", "--quiet")
    _, title, below = results(project).partition("Since the last commit")
    assert title
    assert re.findall(r"│ (linear\S+) ", below) == ["linear.validation.rmse"], "not what is new"
    assert "-125" in below
    assert "better" in below


@pytest.mark.parametrize("content", [b"<<<<<<< HEAD", b"\xff\xfe\x00", b""])
def test_unreadable_metrics_are_named_everywhere(project, content):
    (project.folder / "metrics/linear.json").write_bytes(content)
    (project.folder / "metrics/forest.json").unlink()
    for output in (results(project), compare(project)[0], run_page(project)):
        assert "metrics/linear.json of work tree is not " in output
        assert "metrics/forest.json of work tree is not here: \\`make run\\`" in output or (
            "metrics/forest.json of work tree is not here: `make run`" in output
        )
        assert "Traceback" not in output


def test_an_unreadable_pipeline_gives_one_line_everywhere(project):
    (project.folder / "dvc.yaml").write_text("<<<<<<< HEAD\n")
    for output in (results(project, ok=False), *compare(project), run_page(project)):
        assert "work tree: DVC cannot read the pipeline" in output
        assert "its metrics, data and plots are not shown." in output
        assert "No metrics yet" not in output
        assert "Traceback" not in output
    assert "Metrics are as before." not in output
    assert "No metrics yet." not in output


def test_merge_conflict_marks_in_dvc_lock_are_reported(project):
    (project.folder / "dvc.lock").write_text("schema: '2.0'\n<<<<<<< HEAD\nstages: {}\n=======\n")
    for output in (results(project, ok=False), *compare(project), run_page(project)):
        assert re.search(
            r"dvc.lock.{1,200}: a merge left marks in it: take either side, then .{3,20}; its",
            output,
        )
        assert "d.v.c" not in output


@pytest.mark.parametrize(
    ("state", "title"),
    [
        ("", "Results before this run"),
        ("failed", "Results before this run"),
        ("did not end", "Results before this run"),
        ("ran", "Results"),
        ("unchanged", "Results"),
    ],
)
def test_results_not_made_by_a_run_are_not_shown_as_its_own(project, state, title):
    note = project.folder / ".dvc/tmp/run.json"
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps({"stages": {"linear": {"state": state}} if state else {}}))
    assert f"### {title}\n" in run_page(project)
    note.unlink()


def test_thousands_of_metrics_are_cut_and_counted_everywhere(project):
    classes = {f"class_{n}": {"precision": 0.5, "recall": 0.5, "f1": 0.5} for n in range(1500)}
    write_metrics(project, linear={"accuracy": 0.5, "classes": classes}, forest={"rmse": 1})
    output, (text, page), on_page = results(project), compare(project), run_page(project)
    assert "… and 4,452 more" in output
    for found in (text, on_page):
        assert "… and 4,460 more" in found, "with the removed metrics of houses"
    assert "linear.accuracy" in on_page, "less nested metrics are kept"
    assert len(output) + len(text) + len(on_page) < 60_000
    assert len(page) < 300_000


def test_an_unreadable_revision_does_not_hide_the_other(project):
    good = (project.folder / "dvc.yaml").read_text()
    (project.folder / "dvc.yaml").write_text("stages: [\n")
    (project.folder / "params.yaml").write_text("<<<<<<< HEAD\na: 1\n=======\n")
    project.commit("Broken")
    (project.folder / "dvc.yaml").write_text(good)
    (project.folder / "params.yaml").write_text("random_seed: 1\n")
    output, _ = compare(project, "--from", "HEAD", "--to", "")
    assert re.search(r"Missing: HEAD \(\w+\): DVC cannot read the pipeline", output)
    assert re.search(r"Missing: params.yaml of HEAD \(\w+\) is not YAML", output)
    assert "linear.validation.rmse" in output


def test_tables_with_rows_are_drawn_and_a_missing_column_is_named(tmp_path):
    for name in ("north.csv", "south.csv"):
        (tmp_path / name).write_text("step,mean_of_two\n1,\n2,3.5\n3,4\n")
    (tmp_path / "none.csv").write_text("parameter,importance\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    ways = {"template": "bar_horizontal", "x": "importance"}
    plots = [{name: ways | {"y": {name: "parameter"}}} for name in ("none.csv", "other.csv")]
    both = {"north.csv": "mean_of_two", "south.csv": ["mean_of_two"]}
    plots.append({"means": {"x": "step", "y": both}})
    (tmp_path / "days.csv").write_text("day,rain\n2026-01-02,3\n")
    plots.append({"days.csv": {"x": "day", "y": "rain"}})
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {}, "plots": plots}))
    here = Revision("", tmp_path)
    before = Revision("", tmp_path)
    before.contents["south.csv"] = b"step,mean_of_two\n1,2\n"
    before.contents["days.csv"] = before.contents["other.csv"] = None
    drawn, unchanged = pictures(before, here)
    assert [title for title, _ in drawn] == ["means, south.csv"]
    assert unchanged == ["means, north.csv"]
    no_column, no_number = here.missing
    assert no_column == "other.csv cannot be drawn as dvc.yaml says: it has no column 'parameter'."
    assert "its column 'day' has '2026-01-02', which is no number." in no_number


# ---- what differs from what is committed


LOCK = """
stages:
  first:
    cmd: a
    deps: [{{path: code.py, md5: {code}}}]
    params: {{params.yaml: {{seed: {seed}}}}}
    outs: [{{path: data, md5: {data}}}]
  second:
    cmd: {cmd}
    deps: [{{path: data, md5: {data}}}]
    outs: [{{path: model, md5: {model}}}]
  third:
    cmd: c
    deps: [{{path: model/weights.bin, md5: {weights}}}]
    outs: [{{path: model.onnx, md5: {weights}}}]
"""


def lock(code="c", seed=1, data="d", cmd="b", model="m", weights="w"):
    return LOCK.format(code=code, seed=seed, data=data, cmd=cmd, model=model, weights=weights)


def test_equal_results_give_no_message():
    assert difference(lock(), lock()) == []
    assert difference(lock(), lock(code="other")) == [], "the results are the same anyway"


def test_other_results_from_the_same_inputs_name_the_processor_or_data():
    output = difference(lock(), lock(model="other"))
    assert output[0] == "These results differ from those committed: second."
    assert "another processor gives other last bits" in output[1]


def test_a_file_in_an_output_folder_is_not_an_input_of_its_own():
    output = difference(lock(), lock(model="other", weights="other"))
    assert output[0] == "These results differ from those committed: second, third."
    assert "another processor gives other last bits" in output[1]


@pytest.mark.parametrize("changed", [{"code": "x"}, {"seed": 2}, {"cmd": "x"}])
def test_other_results_from_other_inputs_are_expected(changed):
    output = difference(lock(), lock(model="other", **changed))
    assert output[0] == "These results differ from those committed: second."
    assert "processor" not in " ".join(output)


def test_a_stage_that_was_never_committed_is_named():
    assert "first, second, third" in difference("stages: {}", lock())[0]


DATA = "outs: [{{path: x.csv, md5: {}, hash: md5}}]\n"


def test_results_of_another_pipeline_are_compared_with_the_commit(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    (other := tmp_path / "lab/other").mkdir(parents=True)
    stage = {
        "cmd": "true",
        "deps": ["../../new.py"],
        "outs": ["data"],
        "metrics": [{"own/m.json": {"cache": False}}],
    }
    reads = {"cmd": "true", "deps": ["own/m.json"]}
    (other / "dvc.yaml").write_text(json.dumps({"stages": {"fit": stage, "reads": reads}}))
    noted = {"schema": "2.0", "stages": {"fit": {"cmd": "true", "outs": []}}}
    (other / "dvc.lock").write_text(json.dumps(noted))
    (data := tmp_path / "x.csv.dvc").write_text(DATA.format("a" * 32))
    for command in (("init", "--quiet"), ("add", "--all"), (*COMMIT, "--message", "results")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert lines_below(Revision("", tmp_path)) == []
    noted["stages"]["fit"]["outs"] = [{"path": "data", "md5": "a" * 32}]
    (other / "dvc.lock").write_text(json.dumps(noted))
    output = lines_below(Revision("", tmp_path))
    assert output[0] == "These results differ from those committed: lab/other/dvc.yaml:fit."
    assert "`git add lab/other/dvc.lock lab/other/own && git commit`" in output[-1]
    (other / "own").mkdir()
    (other / "own/m.json").write_text("{}\n")
    (tmp_path / "new.py").touch()
    (tmp_path / "params.yaml").write_text("a: 1\n")
    data.write_text(DATA.format("b" * 32))  # as DVC does, when they have changed
    output = lines_below(Revision("", tmp_path))
    what = "lab/other/dvc.lock lab/other/own new.py params.yaml x.csv.dvc"
    assert f"`git add {what} && git commit`" in output[-1]
    assert "`git checkout lab/other/dvc.lock lab/other/own`" in output[-1]
    (other / "dvc.lock").write_text("<<<<<<< HEAD\n")
    subprocess.run(["git", *COMMIT, "--all", "--message", "a bad merge"], cwd=tmp_path, check=True)
    (other / "dvc.lock").write_text(json.dumps(noted))
    (output,) = lines_below(Revision("", tmp_path))
    assert output.startswith("lab/other/dvc.lock, as committed: this is not a dvc.lock: did a")
    shutil.rmtree(tmp_path / ".git")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    assert lines_below(Revision("", tmp_path)) == [], "no commit yet"


@pytest.mark.parametrize("lock", ["<<<<<<< HEAD", "stages: [1]", "stages: {a: 3}", "7"])
def test_an_unreadable_lock_is_a_one_line_error(lock):
    with pytest.raises(UserError, match="this is not a dvc"):
        difference("stages: {}", lock)
