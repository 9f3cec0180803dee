"""Revisions are read in every form that DVC allows, and with the marks of a merge conflict."""

import hashlib
import json
import subprocess
import tracemalloc

import pytest

from lib.errors import UserError
from lib.nested import flat
from lib.revisions import Revision, changed_rows, changes, default_pair, names_of

pytestmark = pytest.mark.unittest

GIT = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org"]


@pytest.fixture
def work_tree(tmp_path):
    """A repository with DVC and a commit."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    (tmp_path / ".dvc/.gitignore").write_text("/tmp\n/cache\n")
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=tmp_path, check=True)
    commit(tmp_path)
    return tmp_path


def commit(folder):
    subprocess.run([*GIT, "add", "--all"], cwd=folder, check=True)
    message = ["commit", "--quiet", "--allow-empty", "--message", "A commit"]
    subprocess.run([*GIT, *message], cwd=folder, check=True)


def one_metric(folder, name, content):
    """A pipeline with this one metrics file."""
    stage = {"cmd": "x", "metrics": [{name: {"cache": False}}]}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": {"a": stage}}))
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return Revision("", folder)


def test_parameters_of_other_files_are_listed_by_file(work_tree):
    (work_tree / "params.yaml").write_text("seed: 1\n")
    (work_tree / "extra.yaml").write_text("seed: 2\nforest: {depth: 3}\n")
    stage = {"cmd": "x", "params": ["seed", {"extra.yaml": ["seed", "forest"]}]}
    (work_tree / "dvc.yaml").write_text(json.dumps({"stages": {"a": stage}}))
    wanted = {"seed": 1, "extra.yaml:seed": 2, "extra.yaml:forest.depth": 3}
    commit(work_tree)
    assert Revision("", work_tree).params == Revision("HEAD", work_tree).params == wanted


def one_stage_that_ran(folder):
    """A committed stage with each kind of input, as recorded in dvc.lock, and its metrics."""
    md5s = {}
    files = {"given.csv": "1\n", "m.json": "{}", "params.yaml": "a: {b: 1, c: 1}\n"}
    for name, text in files.items():
        (folder / name).write_text(text)
        md5s[name] = hashlib.md5(text.encode()).hexdigest()
    metrics = [{"m.json": {"cache": False}}]
    given = {"deps": ["given.csv", "made.csv"], "params": ["a"], "metrics": metrics}
    stages = {"make": {"cmd": "x", "outs": ["made.csv"]}, "a": {"cmd": "x", **given}}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    made = {"path": "made.csv", "hash": "md5", "md5": "0" * 32, "size": 1}
    deps = [{"path": "given.csv", "hash": "md5", "md5": md5s["given.csv"]}, made]
    outs = [{"path": "m.json", "hash": "md5", "md5": md5s["m.json"]}]
    params = {"params.yaml": {"a": {"b": 1, "c": 1}}}
    noted = {
        "make": {"cmd": "x", "outs": [made]},
        "a": {"cmd": "x", "deps": deps, "params": params, "outs": outs},
    }
    (folder / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": noted}))
    (folder / ".gitignore").write_text("/made.csv\n")
    commit(folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("README.md", "", "Hello", ""),
        ("params.yaml", "c: 1", "c: 2", "a of {} has not run since a changed: its results are"),
        ("given.csv", "1", "2", "a of {} has not run since given.csv changed: its results are"),
        ("dvc.yaml", '"x", "deps"', '"y", "deps"', "a of {} has not run since its command changed"),
        ("dvc.lock", '"0000', '"1111', "a of {} has not run since made.csv changed: its results"),
        ("m.json", "{}", "{ }", "m.json of {} is not what a wrote: somebody changed it since"),
    ],
    ids=["not an input", "parameter", "dep", "command", "missing dep", "result"],
)
def test_results_made_from_other_inputs_are_reported(work_tree, file, old, new, expected):
    one_stage_that_ran(work_tree)
    assert Revision("", work_tree).outdated == Revision("HEAD", work_tree).outdated == []
    text = (work_tree / file).read_text() if old else ""
    (work_tree / file).write_text(text.replace(old, new, 1) if old else new)
    before = Revision("", work_tree).outdated
    commit(work_tree)
    revision = Revision("HEAD", work_tree)
    for label, lines in (("work tree", before), (revision.label, revision.outdated)):
        assert [line.startswith(expected.format(label)) for line in lines] == (
            [True] if expected else []
        )
    assert Revision("HEAD~1", work_tree).outdated == []


@pytest.mark.parametrize(("dep", "md5"), [("code", f"{'1' * 32}.dir"), ("link", "1" * 32)])
def test_deps_incomplete_in_a_commit_do_not_count_as_changed(work_tree, dep, md5):
    one_stage_that_ran(work_tree)
    lock = json.loads((work_tree / "dvc.lock").read_text())
    lock["stages"]["a"]["deps"].append({"path": dep, "hash": "md5", "md5": md5})
    (work_tree / "dvc.lock").write_text(json.dumps(lock))
    text = (work_tree / "dvc.yaml").read_text()
    (work_tree / "dvc.yaml").write_text(text.replace('["given.csv"', f'["{dep}", "given.csv"'))
    (work_tree / "code").mkdir()
    (work_tree / "code/main").write_text("x")
    (work_tree / "link").symlink_to("code/main")
    commit(work_tree)
    assert Revision("HEAD", work_tree).outdated == []
    assert f"{dep} changed" in Revision("", work_tree).outdated[0]


def test_a_frozen_stage_is_not_outdated(work_tree):
    one_stage_that_ran(work_tree)
    text = (work_tree / "dvc.yaml").read_text()
    frozen = text.replace('"x", "deps"', '"y", "frozen": true, "deps"')
    (work_tree / "dvc.yaml").write_text(frozen)
    (work_tree / "given.csv").write_text("2\n")
    assert Revision("", work_tree).outdated == []


def test_a_missing_result_names_its_command(work_tree):
    (work_tree / "lab/tuning").mkdir(parents=True)
    for file, stage in (("dvc.yaml", "a"), ("lab/tuning/dvc.yaml", "tune_a"), ("b/dvc.yaml", "b")):
        (work_tree / file).parent.mkdir(exist_ok=True)
        content = {
            "stages": {stage: {"cmd": "x", "metrics": [{f"{stage}.json": {"cache": False}}]}}
        }
        (work_tree / file).write_text(json.dumps(content))
    revision = Revision("", work_tree)
    assert revision.metrics == {}
    assert revision.missing == [
        "a.json of work tree is not here: `make run` writes it.",
        "b/b.json of work tree is not here: `make run PIPELINE=b/dvc.yaml` writes it.",
    ], "a sweep that has not run is not missing"


def test_plots_that_only_dvc_can_draw_are_named_and_others_found(work_tree):
    (work_tree / "dvc.yaml").write_text(
        """
stages: {}
plots:
  - Loss: {x: epoch, y: {history.csv: [train, validation]}}
  - scores.csv: {x: a, y: b}
  - other.csv:
  - a.png
  - pictures
  - No x: {y: {a.csv: b}}
  - A file for x: {x: {a.csv: b}, y: {a.csv: c}}
  - plain.csv
"""
    )
    revision = Revision("", work_tree)
    assert [(plot.path, plot.x, list(plot.y)) for plot in revision.plots] == [
        ("history.csv", "epoch", ["train", "validation"]),
        ("scores.csv", "a", ["b"]),
    ]
    assert len(revision.missing) == 4


def test_points_and_bars_of_several_columns_are_one_plot_each(work_tree):
    plots = [
        {"P": {"x": "a", "y": {"p.csv": ["b", "c"]}, "template": "scatter"}},
        {"L": {"x": "a", "y": {"l.csv": ["b", "c"]}, "template": "linear"}},
        {"B": {"x": "a", "y": {"b.csv": ["b"]}, "template": "bar_horizontal"}},
    ]
    (work_tree / "dvc.yaml").write_text(json.dumps({"stages": {}, "plots": plots}))
    assert [(plot.title, plot.y) for plot in Revision("", work_tree).plots] == [
        ("P, b", ["b"]),
        ("P, c", ["c"]),
        ("L", ["b", "c"]),
        ("B", ["b"]),
    ]


def test_a_stages_plots_that_only_dvc_can_draw_are_named_not_pictures(work_tree):
    plots = ["a.csv", {"b.json": {"y": "loss"}}, {"c.tsv": {"x": "a", "y": "b"}}, "d.png", "e"]
    stage = {"cmd": "x", "plots": plots}
    (work_tree / "dvc.yaml").write_text(json.dumps({"stages": {"a": stage}}))
    revision = Revision("", work_tree)
    assert [plot.path for plot in revision.plots] == ["c.tsv"]
    assert [line.split("'")[1] for line in revision.missing] == ["a.csv", "b.json"]


def test_merge_marks_are_a_one_line_error(work_tree):
    (work_tree / "params.yaml").write_text("<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> b\n")
    with pytest.raises(UserError, match=r"params.yaml of work tree is not YAML \(line \d"):
        _ = Revision("", work_tree).params


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", "<<<<<<<", "m.json of work tree is not JSON ("),
        ("m.json", "", "m.json of work tree is not JSON ("),
        ("m.json", b'{"gr\xf6\xdfe": 1}', "m.json of work tree is not UTF-8 (byte 4)"),
        ("m.json", "[" * 100_000, "m.json of work tree is not JSON ("),
        ("m.yaml", "a: [1", "m.yaml of work tree is not YAML (line "),
        ("m.yaml", "a: 1\na: 2\n", "m.yaml of work tree is not YAML (line "),
        ("m.yaml", "a: &x 1\nb: *x\n", "m.yaml of work tree has a YAML alias ('*x', line 2)"),
        ("m.toml", "a = ", "m.toml of work tree is not TOML ("),
    ],
)
def test_unreadable_metrics_are_missing(work_tree, name, content, message):
    revision = one_metric(work_tree, name, content)
    assert revision.metrics == {}
    (line,) = revision.missing
    assert line.startswith(message)
    assert "\n" not in line


def test_a_missing_metrics_file_is_named(work_tree):
    revision = one_metric(work_tree, "m.json", "{}")
    (work_tree / "m.json").unlink()
    assert revision.metrics == {}
    assert revision.missing == ["m.json of work tree is not here: `make run` writes it."]
    commit(work_tree)
    revision = Revision("main", work_tree)
    assert revision.metrics == {}
    assert revision.missing[0].startswith("m.json of main (")


def test_a_cached_metrics_file_of_a_stage_that_never_ran_is_not_to_be_fetched(work_tree):
    stages = {"a": {"cmd": "x", "metrics": ["m.json"]}}
    (work_tree / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    commit(work_tree)
    revision = Revision("main", work_tree)
    assert revision.metrics == {}
    (line,) = revision.missing
    assert line.endswith("is not here: that commit does not have it.")


def test_storage_without_a_dvc_package_is_reported(work_tree):
    stages = {"a": {"cmd": "x", "deps": ["gs://bucket/rows.csv"]}}
    (work_tree / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    revision = Revision("", work_tree)
    assert revision.metrics == {}
    assert "cannot read the pipeline: gs is supported, but requires" in revision.missing[0]


def test_a_folder_of_metrics_is_reported(work_tree):
    (work_tree / "m").mkdir()
    (work_tree / "m/a.json").write_text("{}")
    stage = {"cmd": "x", "metrics": [{"m": {"cache": False}}]}
    out = {"path": "m", "hash": "md5", "md5": f"{'0' * 32}.dir", "size": 2, "nfiles": 1}
    (work_tree / "dvc.yaml").write_text(json.dumps({"stages": {"a": stage}}))
    noted = {"schema": "2.0", "stages": {"a": {"cmd": "x", "outs": [out]}}}
    (work_tree / "dvc.lock").write_text(json.dumps(noted))
    commit(work_tree)
    for revision in (Revision("", work_tree), Revision("HEAD", work_tree)):
        assert revision.metrics == {}
        what = f"m of {revision.label} is a folder: name each file of it as a metric or plot."
        assert revision.missing == [what]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.json", '\ufeff{"a": {"b": 1, "precision@10": 0.5}, "c": [1, 2], "d": null}'),
        ("m.yaml", "a: {b: 1, 'precision@10': 0.5}\nc: [1, 2]\nd:\n"),
        ("m.metrics", "a: {b: 1, 'precision@10': 0.5}\nc: [1, 2]\nd: null\n"),
    ],
)
def test_metrics_are_read_as_users_write_them(work_tree, name, content):
    revision = one_metric(work_tree, name, content)
    wanted = {"m.a.b": 1, "m.a.precision@10": 0.5, "m.c": [1, 2], "m.d": None}
    assert revision.metrics == wanted
    assert revision.missing == []


def test_metrics_in_toml_are_read(work_tree):
    revision = one_metric(work_tree, "m.toml", "rmse = 3.5\n[test]\nrmse = nan\n")
    assert revision.metrics["m.rmse"] == 3.5
    assert str(revision.metrics["m.test.rmse"]) == "nan"


@pytest.mark.parametrize("content", ["0.93", "[1, 2]", "{}", "null"])
def test_a_metrics_file_may_hold_anything(work_tree, content):
    value = json.loads(content)
    wanted = {"m": value} if value else {}
    assert one_metric(work_tree, "m.json", content).metrics == wanted


@pytest.mark.parametrize(
    ("content", "kind"), [('[{"rmse": 1}]', "a list"), ('"rmse"', "text"), ("0.93", "")]
)
def test_a_metrics_file_without_names_is_reported(work_tree, content, kind):
    revision = one_metric(work_tree, "m.json", content)
    expected = f"m.json of work tree is {kind}: a mapping of names to values is expected."
    assert revision.metrics == {"m": json.loads(content)}
    assert revision.missing == ([expected] if kind else [])


def test_stages_are_resolved_as_by_dvc(work_tree):
    (work_tree / "params.yaml").write_text("folder: scores\n")
    (work_tree / "dvc.yaml").write_text(
        """
vars:
  - ending: json
stages:
  sweep:
    matrix: {kind: [forest, tree]}
    cmd: x
    metrics: ["${folder}/${item.kind}.${ending}": {cache: false}]
  each:
    foreach: [a, b]
    do:
      cmd: x
      metrics: ["${item}/m.json": {cache: false}]
"""
    )
    (work_tree / "below").mkdir()
    (work_tree / "below/dvc.yaml").write_text(
        """
stages:
  deep:
    cmd: x
    metrics: [deep.json: {cache: false}]
  aside:
    wdir: ../${folder}
    frozen: true
    cmd: x ${ending}
    metrics: [aside.json: {cache: false}]
vars: [../params.yaml, ending: json]
"""
    )
    written = ("scores/forest", "scores/tree", "a/m", "b/m", "below/deep", "scores/aside")
    for number, name in enumerate(written):
        (work_tree / name).parent.mkdir(exist_ok=True)
        (work_tree / f"{name}.json").write_text(json.dumps({"rmse": number}))
    wanted = {"forest.rmse": 0, "tree.rmse": 1, "a/m.rmse": 2, "b/m.rmse": 3, "deep.rmse": 4}
    wanted["aside.rmse"] = 5
    here = Revision("", work_tree)
    assert here.metrics == wanted
    assert here.pipeline.result_files == sorted(
        [*(f"{name}.json" for name in written), "dvc.lock", "below/dvc.lock"]
    )
    commit(work_tree)
    assert Revision("main", work_tree).metrics == wanted


def test_metrics_files_have_their_shortest_unique_names():
    stem = {"metrics/svc.json": "svc", "a.b.json": "a.b"}
    path = {"a/m.json": "a/m", "b/m.json": "b/m"}
    whole = {name: name for name in ("metrics/one.yaml", "metrics/one.toml")}
    assert names_of([*stem, *path, *whole]) == stem | path | whole


def test_a_revision_is_read_as_it_was(work_tree):
    one_metric(work_tree, "m.json", '{"rmse": 1}')
    (work_tree / "bytes").write_bytes(b"\xff\x00\n")
    commit(work_tree)
    one_metric(work_tree, "m.json", '{"rmse": 2}')
    assert Revision("main", work_tree).metrics == {"m.rmse": 1}
    assert Revision("main", work_tree).content("bytes") == b"\xff\x00\n"
    assert Revision("", work_tree).metrics == {"m.rmse": 2}
    assert default_pair(work_tree) == ("HEAD", "")
    commit(work_tree)
    assert default_pair(work_tree) == ("HEAD~1", "")


def test_a_revision_without_a_pipeline_is_empty(work_tree):
    revision = Revision("main", work_tree)
    found = (revision.metrics, revision.outs, revision.plots, revision.params, revision.missing)
    assert found == ({}, {}, [], {}, [])


def test_a_revision_from_before_dvc_is_empty(work_tree):
    subprocess.run([*GIT, "rm", "-rq", "--cached", ".dvc"], cwd=work_tree, check=True)
    message = ["commit", "--quiet", "--message", "No DVC"]
    subprocess.run([*GIT, *message], cwd=work_tree, check=True)
    revision = Revision("main", work_tree)
    assert (revision.metrics, revision.missing) == ({}, [])


@pytest.mark.parametrize(
    "broken",
    ["stages: [", "stages: {a: {}}", "stages: {a: {cmd: '${no.such}'}}", "<<<<<<<", "datasets: 3"],
)
def test_a_broken_pipeline_in_an_old_revision_is_one_line(work_tree, broken):
    (work_tree / "dvc.yaml").write_text(broken)
    (work_tree / "params.yaml").write_text("a: 1\n")
    commit(work_tree)
    revision = Revision("main", work_tree)
    assert revision.metrics == {}
    (line,) = revision.missing
    assert line.startswith("main (")
    assert "DVC cannot read the pipeline" in line
    assert "\n" not in line
    assert revision.params == {"a": 1}, "the rest is read"


def test_keys_that_dvc_rejects_in_a_stage_are_named(work_tree):
    (work_tree / "dvc.yaml").write_text("stages: {a: {cmd: b, dep: [c]}}")
    revision = Revision("", work_tree)
    assert revision.metrics == {}
    (line,) = revision.missing
    assert "dvc.yaml' validation failed (stages.a.dep: extra keys not allowed)" in line


def test_an_unknown_revision_is_an_error_and_not_an_empty_one(work_tree):
    with pytest.raises(UserError, match="'none' is no commit, branch or tag of this clone"):
        _ = Revision("none", work_tree).metrics


def test_a_dvc_experiment_is_a_revision_by_its_name(work_tree):
    for name, value in (("slower", 1), ("wide", 2)):
        one_metric(work_tree, "m.json", json.dumps({"a": value}))
        commit(work_tree)
        ref = f"refs/exps/ab/{'c' * 38}/{name}"
        subprocess.run([*GIT, "update-ref", ref, "HEAD"], cwd=work_tree, check=True)
        subprocess.run([*GIT, "reset", "-q", "--hard", "HEAD~1"], cwd=work_tree, check=True)
    slower, wide = (Revision(name, work_tree) for name in ("slower", "wide"))
    assert (slower.metrics, wide.metrics) == ({"m.a": 1}, {"m.a": 2})
    assert wide.label.startswith("wide (")
    with pytest.raises(UserError, match="Nor is it an experiment"):
        _ = Revision("wid", work_tree).commit


def test_revisions_missing_in_a_shallow_clone_get_advice(work_tree, tmp_path_factory):
    commit(work_tree)
    clone = tmp_path_factory.mktemp("clones") / "shallow"
    command = ["git", "clone", "--quiet", "--depth=1", work_tree.as_uri(), str(clone)]
    subprocess.run(command, check=True)
    with pytest.raises(UserError, match="`git fetch --tags --unshallow` gets what others have"):
        _ = Revision("HEAD~1", clone).metrics


def test_invalid_csv_is_reported(work_tree):
    (work_tree / "wide.csv").write_text("a\n" + "x" * 200_000 + "\n")
    revision = Revision("", work_tree)
    assert revision.table("wide.csv") is None
    assert revision.missing[0].startswith("wide.csv of work tree is not CSV (")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "epoch,loss\n1,0.5\n2,\n"),
        ("a.tsv", "epoch\tloss\n1\t0.5\n2\t\n"),
        ("a.json", '[{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": null}]'),
        ("a.json", '{"of": "x", "a": {"b": [{"epoch": 1}, {"epoch": 2}]}, "c": [{"loss": 0.5}]}'),
        ("a.yaml", "- {epoch: 1, loss: 0.5}\n- {epoch: 2, loss: null}\n"),
    ],
)
def test_plots_are_read_from_any_kind_of_table_dvc_draws(work_tree, name, content):
    (work_tree / name).write_text(content)
    wanted = [{"epoch": "1", "loss": "0.5"}, {"epoch": "2", "loss": ""}]
    assert Revision("", work_tree).table(name) == wanted


def test_a_plot_of_bad_json_is_reported(work_tree):
    (work_tree / "a.json").write_text("[{]")
    revision = Revision("", work_tree)
    assert revision.table("a.json") is None
    assert revision.missing[0].startswith("a.json of work tree is not JSON (")


def test_deeply_nested_keys_are_joined():
    deep = current = {}
    for _ in range(5000):
        current["k"] = current = {}
    current["end"] = 1
    assert list(flat(deep).values()) == [1]
    assert flat({"a": {"b": 1, "c": {}}, "d": {1: None}}) == {"a.b": 1, "d.1": None}


def test_nan_equals_nan():
    nan = {"a": float("nan"), "b": [float("nan")], "c": 1}
    again = {"a": float("nan"), "b": [float("nan")], "c": 2}
    assert changes(nan, again) == [("c", 1, 2)]


# ---- rows of tables


def test_added_and_removed_rows_are_counted_at_any_position():
    assert changed_rows([b"a\n", b"b\n", b"b\n"], [b"b\n", b"a\n", b"c"]) == (1, 1)
    assert changed_rows([b"a\n", b"b"], [b"a\r\n", b"b\r\n", b"b\r\n"]) == (1, 0)
    assert changed_rows([], [b"a\n"]) == (1, 0)


def test_rows_are_compared_in_little_memory():
    def rows(inserted):
        yield b"id,value\n"
        for n in range(100_000):
            yield f"{'other' * (n == inserted)}{n},{'x' * 80}\n".encode()

    tracemalloc.start()
    try:
        assert changed_rows(rows(-1), rows(50_000)) == (1, 1)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
