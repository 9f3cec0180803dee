"""What results say in the terminal, in a comparison, at a milestone and on the page of a run.

Of any task: house prices, whose RMSE is better when it is lower; many classes; and metrics files as
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
    """Metrics files, as a stage would write them."""
    for name, content in files.items():
        (project.folder / f"metrics/{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """House prices, committed: HEAD has a better RMSE than the commit before."""
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
    """The page of a run whose results are in the work tree."""
    page = project.folder / "summary.md"
    command = ("tools/within", ".", "python", "-m", "tools.report.run_page")
    printed = project.run(*command, GITHUB_STEP_SUMMARY=str(page))
    assert page.read_text().strip() == printed.strip()
    return printed


class Cells(HTMLParser):
    """The texts of a page, and of those of a class."""

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
    said = results(houses)
    assert re.search(r"split +┃ model +┃ rmse +┃ r2", said)
    assert re.search(r"validation │ linear │ 38,125 │ 0.81", said)
    assert "These results differ" not in said


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
    said, _ = process.communicate(timeout=120)
    assert (process.returncode, said) == (130, "")


def test_no_model_and_no_number_is_cut_off_where_a_table_is_wider_than_the_terminal(project):
    classes = {"validation": {"accuracy": 0.91234, "precision": 0.5, "recall": 0.5, "roc_auc": 0.5}}
    prices = {"validation": {"rmse": 1744.65, "mae": 1350.81, "median_absolute_error": 9.5}}
    names = ["classes_by_forest", "prices_by_forest_of_trees", "prices_by_forest_of_stumps"]
    write_metrics(project, **dict(zip(names, (classes, prices, prices), strict=True)))
    stages = {
        name: {"cmd": "true", "metrics": [{f"metrics/{name}.json": {"cache": False}}]}
        for name in names
    }
    (project.folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    said = results(project)
    assert "…" not in said.partition("Runs:")[0]
    assert max(map(len, said.partition("Runs:")[0].splitlines())) <= 120
    assert re.search(r"│ validation │ classes_by_forest +│ 0.9123", said)
    for name in names[1:]:
        assert re.search(rf"│ validation │ {name} .*│ 1,744.65 │", said)
        assert re.search(rf"│ validation │ {name} .*│ 9.5(00)? +│\n", said), "in a table below"


def test_an_rmse_that_falls_is_better_in_the_text_and_on_the_page(houses):
    said, page = compare(houses, "--from", "HEAD~1", "--to", "HEAD")
    assert re.search(r"linear.validation.rmse \| 38,181.20 \| 38,125.00 \| -56.20 better", said)
    assert re.search(r"\| validation \| linear \| 38,125 \| 0.81", said), "the table of results"
    assert Cells(page).marked == {"better": ["-56.20 better"]}


def test_another_revision_alone_is_compared_with_the_last_commit(houses):
    said, _ = compare(houses, "--to", "HEAD~1")
    assert re.match(r"HEAD \(.*\) → HEAD~1 \(", said), "though nothing is uncommitted"
    assert re.search(r"linear.validation.rmse \| 38,125.00 \| 38,181.20 \| \+56.20 worse", said)


def test_an_rmse_that_falls_is_better_on_the_page_of_a_run(project):
    write_metrics(project, linear=HOUSES["linear"] | {"validation": {"rmse": 38000.0, "r2": 0.9}})
    page = run_page(project)
    assert "| `linear.validation.rmse` | 38,125 | 38,000 | -125 better |" in page
    assert "| `linear.validation.r2` | 0.81 | 0.90 | +0.09 better |" in page
    assert "| validation | linear | 38,000 | 0.90 |" in page


def test_a_milestone_names_the_best_model_by_what_is_measured(project):
    text = milestone_of(project)
    assert "**Best model:** linear, by rmse on the validation split." in text
    assert re.search(r"\| validation \| linear \| 38,125 \| 0.81", text)


@pytest.mark.parametrize(
    ("best", "said"),
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
def test_a_milestone_says_by_what_a_model_is_best_and_which_are_level(best, said):
    assert best_sentence(best) == said


def milestone_of(project):
    """The text of a milestone."""
    command = ("tools/within", "--dev", ".", "python", "-m", "tools.report.milestone", "prices")
    project.run(*command)
    (file,) = (project.folder / "lab/docs").glob("????-??-??-prices.md")
    return file.read_text()


def test_a_milestone_tells_parameters_of_all_files_and_what_changed_since_a_stage_ran(project):
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


def pictures_told(project):
    """What a milestone says of pictures."""
    return milestone_of(project).partition("## Pictures\n\n")[2].partition("\n")[0]


def test_pictures_are_those_that_stages_write_unless_they_are_missing_or_too_many(project):
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
    assert pictures_told(project) == "No pictures."
    shutil.rmtree(out)
    assert pictures_told(project) == "None on disk: `dvc pull` gets them."
    out.mkdir()
    for n in range(51):
        (out / f"{n}.png").touch()
    said = results(project)
    assert "Picture: " not in said
    assert "51 pictures are in artifacts/prices." in said


def test_of_a_goal_on_times_a_milestone_tells_no_number():
    goal = {"goal": "≤ 3 ms; ≥ 0.5", "reached": "time 2 ms; test 0.9", "message": ""}
    assert without_times(goal)["reached"] == ""
    other = goal | {"goal": "≥ 0.5", "reached": "test 0.9"}
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
def test_a_point_without_neighbours_is_to_be_seen(losses):
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
def test_names_of_classes_are_in_order_and_stand_beside_each_other(classes, revisions):
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


def test_a_row_that_ends_early_has_a_class_without_a_name():
    rows = [{"actual": "a", "predicted": None}, {"actual": "a", "predicted": "a"}]
    plot = Plot("Which", "cases.csv", "predicted", ["actual"], "confusion")
    (axes,) = draw(plot, {"work tree": rows}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["", "a"]


def test_a_matrix_of_many_classes_has_no_numbers_that_could_be_taken_for_them():
    rows = [{"predicted": str(n), "actual": str(n)} for n in range(100, 200)]
    plot = Plot("Which", "cases.csv", "predicted", ["actual"], "confusion")
    (axes,) = draw(plot, {"work tree": rows}).axes
    assert not [*axes.get_xticks(), *axes.get_yticks(), *axes.texts]


@pytest.mark.parametrize("template", ["confusion", "simple"])
@pytest.mark.parametrize("revisions", [1, 2])
def test_the_title_of_a_plot_is_whole(template, revisions):
    rows = [{"predicted": "1", "actual": "0"}, {"predicted": "0", "actual": "1"}]
    title = "Which of the classes were predicted, " * 4
    plot = Plot(title, "cases.csv", "predicted", ["actual"], template)
    figure = draw(plot, {f"revision {n}": rows for n in range(revisions)})
    figure.draw_without_rendering()
    texts = figure.findobj(lambda part: getattr(part, "get_text", str)() == title)
    (box,) = [text.get_window_extent() for text in texts]
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


# ---- metrics as users write them


def test_whatever_metrics_hold_is_shown_everywhere(project):
    write_metrics(project, linear=HOSTILE, forest={"deep": {"er": {"precision@10": 0.5}}})
    said, (text, page), on_page = results(project), compare(project), run_page(project)
    for found in (said, text, on_page):
        assert "Traceback" not in found
        assert "forest.deep.er.precision@10" in found
        assert re.search("nan", found)
    assert "linear.[/red]" in said
    assert "linear.a\\|b" in text
    assert "`linear.a\\|b`" in on_page
    assert "[1, 1, 1, … 99 in all]" in on_page
    for found in (text, on_page):
        assert not re.search(r"(?<!\\)\](?=[(\[])|(?<!\\)\$", re.sub("`.*?`", "", found))
    for found in (said, text, page, on_page):
        assert not re.search("\x1b\\[2J|\u202e", found)
        assert re.search(r"\\+x1b\[2J\\+u202egone", found)
    assert "<img src=x" not in page
    assert "linear.<img src=x>" in " ".join(Cells(page).texts)
    tables = [line for line in (*text.splitlines(), *on_page.splitlines()) if line[:1] == "|"]
    columns = [len(re.findall(r"(?<!\\)\|", line)) - 1 for line in tables]
    assert set(columns) <= {2, 4}, "no key makes a column or ends a row"


def test_a_line_from_elsewhere_is_no_markup_and_no_password_on_the_page_of_a_run(project):
    line = "WARNING: MLflow at http://u:pw@w@host: <b>![x](http://elsewhere)\x1b[2J"
    note = project.folder / ".dvc/tmp/run.json"
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps({"name": "run-1", "warnings": [line], "shared": "a`<b>"}))
    on_page = run_page(project)
    assert r"> WARNING: MLflow at http://host: \<b>![x\](http://elsewhere)\\x1b[2J" in on_page
    assert r"Results: a`\<b>." in on_page
    note.unlink()


def test_parameters_with_aliases_are_refused_and_all_else_is_shown(project):
    bomb = "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9 if n else '1'}]\n" for n in range(9))
    (project.folder / "params.yaml").write_text(bomb)
    said, _ = compare(project)
    assert "Missing: work tree: params.yaml has a YAML alias ('*a0', line 2)" in said
    assert "linear.validation.rmse" in said


@pytest.mark.parametrize("content", [b"<<<<<<< HEAD", b"\xff\xfe\x00", b""])
def test_metrics_that_cannot_be_read_are_told_by_their_name_everywhere(project, content):
    (project.folder / "metrics/linear.json").write_bytes(content)
    (project.folder / "metrics/forest.json").unlink()
    for said in (results(project), compare(project)[0], run_page(project)):
        assert "metrics/linear.json of work tree is not " in said
        assert "metrics/forest.json of work tree is not here: \\`make run\\`" in said or (
            "metrics/forest.json of work tree is not here: `make run`" in said
        )
        assert "Traceback" not in said


def test_a_pipeline_that_dvc_cannot_read_is_told_in_a_line_everywhere(project):
    (project.folder / "dvc.yaml").write_text("<<<<<<< HEAD\n")
    for said in (results(project, ok=False), *compare(project), run_page(project)):
        assert "work tree: DVC cannot read the pipeline" in said
        assert "its metrics, data and plots are not shown." in said
        assert "No metrics yet" not in said
        assert "Traceback" not in said
    assert "Metrics are as before." not in said
    assert "No metrics yet." not in said


def test_marks_that_a_merge_left_in_the_notes_of_stages_are_told(project):
    (project.folder / "dvc.lock").write_text("schema: '2.0'\n<<<<<<< HEAD\nstages: {}\n=======\n")
    for said in (results(project, ok=False), *compare(project), run_page(project)):
        assert re.search(r"dvc.lock.{1,200}: a merge left marks in it; its metrics", said)
        assert "d.v.c" not in said


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
def test_results_that_no_stage_of_a_run_made_are_not_told_as_its_own(project, state, title):
    note = project.folder / ".dvc/tmp/run.json"
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps({"stages": {"linear": {"state": state}} if state else {}}))
    assert f"### {title}\n" in run_page(project)
    note.unlink()


def test_thousands_of_metrics_are_cut_and_counted_everywhere(project):
    classes = {f"class_{n}": {"precision": 0.5, "recall": 0.5, "f1": 0.5} for n in range(1500)}
    write_metrics(project, linear={"accuracy": 0.5, "classes": classes}, forest={"rmse": 1})
    said, (text, page), on_page = results(project), compare(project), run_page(project)
    assert "… and 4,452 more" in said
    for found in (text, on_page):
        assert "… and 4,460 more" in found, "with those of houses, which are gone"
    assert "linear.accuracy" in on_page, "what is less nested stays"
    assert len(said) + len(text) + len(on_page) < 60_000
    assert len(page) < 300_000


def test_a_revision_that_cannot_be_read_costs_its_own_half_alone(project):
    good = (project.folder / "dvc.yaml").read_text()
    (project.folder / "dvc.yaml").write_text("stages: [\n")
    (project.folder / "params.yaml").write_text("<<<<<<< HEAD\na: 1\n=======\n")
    project.commit("Broken")
    (project.folder / "dvc.yaml").write_text(good)
    (project.folder / "params.yaml").write_text("random_seed: 1\n")
    said, _ = compare(project, "--from", "HEAD", "--to", "")
    assert re.search(r"Missing: HEAD \(\w+\): DVC cannot read the pipeline", said)
    assert re.search(r"Missing: params.yaml of HEAD \(\w+\) is not YAML", said)
    assert "linear.validation.rmse" in said


def test_of_tables_those_with_rows_are_drawn_gaps_too_and_a_missing_column_is_told(tmp_path):
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
    titles = [title for title, _ in pictures(here, here)]
    assert titles == ["means, north.csv", "means, south.csv"]
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


def test_nothing_is_said_of_the_same_results():
    assert difference(lock(), lock()) == []
    assert difference(lock(), lock(code="other")) == [], "the results are the same all the same"


def test_other_results_of_the_same_inputs_are_laid_to_the_processor_or_the_data():
    said = difference(lock(), lock(model="other"))
    assert said[0] == "These results differ from those committed: second."
    assert "another processor gives other last bits" in said[1]


def test_a_file_in_a_folder_that_a_stage_wrote_is_no_input_of_its_own():
    said = difference(lock(), lock(model="other", weights="other"))
    assert said[0] == "These results differ from those committed: second, third."
    assert "another processor gives other last bits" in said[1]


@pytest.mark.parametrize("changed", [{"code": "x"}, {"seed": 2}, {"cmd": "x"}])
def test_other_results_of_other_inputs_are_no_surprise(changed):
    said = difference(lock(), lock(model="other", **changed))
    assert said[0] == "These results differ from those committed: second."
    assert "processor" not in " ".join(said)


def test_a_stage_that_was_never_committed_is_named():
    assert "first, second, third" in difference("stages: {}", lock())[0]


def test_results_of_another_pipeline_are_told_from_those_committed_too(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    (other := tmp_path / "lab/other").mkdir(parents=True)
    stage = {"cmd": "true", "outs": ["data"], "metrics": [{"own/m.json": {"cache": False}}]}
    (other / "dvc.yaml").write_text(json.dumps({"stages": {"fit": stage}}))
    noted = {"schema": "2.0", "stages": {"fit": {"cmd": "true", "outs": []}}}
    (other / "dvc.lock").write_text(json.dumps(noted))
    for command in (("init", "--quiet"), ("add", "--all"), (*COMMIT, "--message", "results")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert lines_below(Revision("", tmp_path)) == []
    noted["stages"]["fit"]["outs"] = [{"path": "data", "md5": "a" * 32}]
    (other / "dvc.lock").write_text(json.dumps(noted))
    said = lines_below(Revision("", tmp_path))
    assert said[0] == "These results differ from those committed: lab/other/dvc.yaml:fit."
    assert "`git add lab/other/dvc.lock lab/other/own && git commit`" in said[-1]
    (other / "dvc.lock").write_text("<<<<<<< HEAD\n")
    subprocess.run(["git", *COMMIT, "--all", "--message", "a bad merge"], cwd=tmp_path, check=True)
    (other / "dvc.lock").write_text(json.dumps(noted))
    (said,) = lines_below(Revision("", tmp_path))
    assert said.startswith("lab/other/dvc.lock, as committed: this is not a dvc.lock: did a")


@pytest.mark.parametrize("lock", ["<<<<<<< HEAD", "stages: [1]", "stages: {a: 3}", "7"])
def test_a_lock_that_cannot_be_read_is_an_error_in_a_line(lock):
    with pytest.raises(UserError, match="this is not a dvc"):
        difference("stages: {}", lock)
