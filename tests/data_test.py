"""Adding data in both ways that its chapter describes, in the sandbox.

A local dataset is added with that chapter's own commands. An external database is an SQLite file
outside of the repository; jobs get its path from the repository's settings.
"""

import hashlib
import json
import re
import secrets
import shutil
import sqlite3
from contextlib import closing

import pytest

from lib.params import read_yaml
from tests.conftest import ROOT, write_executable
from tests.rehearsal import rehearsing

pytestmark = pytest.mark.integration

# The runner's cache outlives a test: data that must not be in it are unique to each test run.
UNIQUE = secrets.token_hex(8)

COUNT = """#!/bin/sh
set -eu
mkdir -p artifacts/count metrics
find data/raw -name '*.csv' -exec cat {} + | sort > artifacts/count/all.csv
echo "{\\"validation\\": {\\"rows\\": $(wc -l < artifacts/count/all.csv)}}" > metrics/count.json
"""
COUNT_STAGE = """
  count:
    cmd: lab/processes/run count
    deps: [lab/processes/count/main, "data/raw/{data}"]
    outs: [artifacts/count]
    metrics:
      - metrics/count.json:
          cache: false
"""
QUERY = """#!/usr/bin/env python3
import csv, os, pathlib, sqlite3
database = sqlite3.connect(f"file:{os.environ['DATABASE']}?mode=ro", uri=True)
file = pathlib.Path("data/raw/patients.csv")
file.parent.mkdir(parents=True, exist_ok=True)
with file.open("w", newline="") as out:
    query = database.execute("SELECT id, name, age FROM patients ORDER BY id")
    csv.writer(out, lineterminator="\\n").writerows(query)
"""
QUERY_STAGE = """
  query:
    cmd: lab/processes/run query
    always_changed: true
    deps: [lab/processes/query/main]
    outs: ["data/raw/patients.csv"]
"""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A project with a running sandbox and no pipeline: each test has its own."""
    folder = tmp_path_factory.mktemp("data") / "a projëct"
    ignored = ("/artifacts/count", "/data/raw/patients.csv")
    with rehearsing(folder, dvc_yaml="stages: {}\n", ignored=ignored) as sandbox:
        yield sandbox


def pipeline(sandbox, stages, **processes):
    """Commit these stages and processes on a new branch, without data of other tests."""
    shutil.rmtree(sandbox.project.folder / "data", ignore_errors=True)
    sandbox.change()
    for name, script in processes.items():
        write_executable(sandbox.project.folder / "lab/processes" / name / "main", script)
    (sandbox.project.folder / "dvc.yaml").write_text(f"stages:{stages}")
    sandbox.project.commit("A pipeline")


def run(sandbox):
    """Push the branch and a tag: the results commit, or None, and the output."""
    sandbox.push()
    source = sandbox.git("rev-parse", "HEAD")
    tag, output = sandbox.tag()
    tip = sandbox.tip()
    if tip == source:
        return None, output
    assert f"Tag: {tag}" in sandbox.message(tip)
    changed = sandbox.origin("diff", "--name-only", source, tip).split()
    assert "dvc.lock" in changed
    assert set(changed) <= {"dvc.lock", "metrics/count.json"}, "only results"
    sandbox.git("pull", "--quiet", "sandbox", sandbox.branch)
    return tip, output


def rows(sandbox, commit):
    return json.loads(sandbox.show(commit, "metrics/count.json"))["validation"]["rows"]


def locked(sandbox, stage, kind):
    """The checksum of a stage's data in dvc.lock; `kind` is deps or outs."""
    found = read_yaml(sandbox.project.folder / "dvc.lock")["stages"][stage][kind]
    return next(entry["md5"] for entry in found if entry["path"].startswith("data/raw/"))


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


def commands_on_local_datasets(facts):
    """All commands of the chapter on data, with the sandbox's values for the placeholders."""
    chapter = (ROOT / "lab/processes/DATA.md").read_text()
    section = chapter.partition("\n## Local datasets\n")[2].partition("\n## ")[0]
    commands = "".join(re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
    places = {
        "https://<host>": facts["s3"],
        "<access key>": facts["access_key"],
        "<secret key>": facts["secret_key"],
        "<bucket>": "lab",
    }
    for place, name in places.items():
        assert place in commands
        commands = commands.replace(place, name)
    return commands


def contents(folder):
    """By path, each file's bytes."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix != ".dvc" and file.name != ".gitignore"
    }


def bucket_copy(sandbox, facts, folder):
    """The files that are now in the bucket under data/raw/scans."""
    credentials = {
        "AWS_ENDPOINT_URL": facts["s3"],
        "AWS_ACCESS_KEY_ID": facts["access_key"],
        "AWS_SECRET_ACCESS_KEY": facts["secret_key"],
    }
    sandbox.project.dvc("get-url", "s3://lab/data/raw/scans", str(folder), **credentials)
    return contents(folder)


def test_a_stage_gets_a_local_dataset_and_runs_again_for_each_new_version(sandbox, tmp_path):
    folder, project = sandbox.project.folder, sandbox.project
    pipeline(sandbox, COUNT_STAGE.format(data="scans"), count=COUNT)
    given = folder / "scans"
    (given / "site 2").mkdir(parents=True)
    (given / "a.csv").write_text(f"1,{UNIQUE}\n2,{UNIQUE}\n")
    (given / "größe b.csv").write_text(f"3,{UNIQUE}\n")
    (given / "site 2/x.bin").write_bytes(bytes(range(256)) + UNIQUE.encode())
    delivered = contents(given)

    facts = sandbox.facts()
    project.run("tools/within", "--dev", ".", "sh", "-ec", commands_on_local_datasets(facts))
    shutil.rmtree(given)

    assert contents(folder / "data/raw/scans") == delivered
    tracked = sandbox.git("ls-files", "-z", "data").split("\0")
    assert {f"data/raw/scans/{name}.dvc" for name in delivered} <= set(tracked)
    assert sandbox.git("status", "--porcelain") == ""

    commit, output = run(sandbox)
    assert commit, output
    assert "Running stage 'count'" in output
    assert rows(sandbox, commit) == 3
    first = locked(sandbox, "count", "deps")
    project.dvc("pull")
    assert project.dvc("status").strip() == "Data and pipelines are up to date."

    changed = folder / "data/raw/scans/größe b.csv"
    changed.write_text(f"3,{UNIQUE}\n4,{UNIQUE}\n")
    as_one = folder / "data/raw/masks"
    as_one.mkdir()
    (as_one / "1.png").write_text(UNIQUE)
    project.dvc("add", str(changed), str(as_one))
    project.commit("A second version, and a folder")

    commit, output = run(sandbox)
    problems = [line for line in output.splitlines() if "PROBLEM" in line]
    assert commit is None
    assert len(problems) == 1, output
    named = "data/raw/scans/größe b.csv, data/raw/masks"
    assert f"Not in the bucket: {named}: `dvc push` where the data are" in problems[0]
    assert "Running stage" not in output

    project.dvc("push")
    commit, output = run(sandbox)
    assert commit, output
    assert "Running stage 'count'" in output
    assert rows(sandbox, commit) == 4
    assert locked(sandbox, "count", "deps") != first

    assert bucket_copy(sandbox, facts, tmp_path / "again") == delivered, "old files are unchanged"


def test_only_a_changed_row_of_a_database_makes_a_new_version(sandbox, tmp_path):
    file = tmp_path / "hospital.db"

    def execute(*statements):
        with closing(sqlite3.connect(file)) as database, database:
            for statement in statements:
                database.execute(statement)

    execute(
        "CREATE TABLE patients (id INTEGER, name TEXT, age INTEGER)",
        f"INSERT INTO patients VALUES (1, 'Ada {UNIQUE}', 36), (2, 'Grace', 85)",
    )
    pipeline(
        sandbox, QUERY_STAGE + COUNT_STAGE.format(data="patients.csv"), count=COUNT, query=QUERY
    )
    # As the chapter says: a secret in the repository's settings, passed on by the workflow.
    sandbox.project.edit(
        ".github/workflows/experiments.yml",
        "    env:\n      RUN_REF:",
        '    env:\n      DATABASE: "${{ secrets.DATABASE }}"\n      RUN_REF:',
    )
    sandbox.project.commit("The database")
    settings = sandbox.project.folder / ".sandbox/secrets.yml"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"DATABASE": str(file)}))

    sandbox.project.dvc("repro", DATABASE=str(file))
    sandbox.project.commit("First results, made by hand")
    sandbox.project.dvc("push")
    assert locked(sandbox, "query", "outs") == md5(f"1,Ada {UNIQUE},36\n2,Grace,85\n")

    # The same rows, stored in another order: nothing has changed.
    execute(
        "DELETE FROM patients WHERE id = 1",
        f"INSERT INTO patients VALUES (1, 'Ada {UNIQUE}', 36)",
    )
    commit, output = run(sandbox)
    assert commit is None, "no new version without a change"
    assert "Nothing changed" in output
    assert "Job succeeded" in output
    assert "Running stage 'query'" in output, "the database must be asked"
    assert "Running stage 'count'" not in output

    execute("UPDATE patients SET age = 37 WHERE id = 1")
    commit, output = run(sandbox)
    assert commit, output
    assert "Running stage 'count'" in output
    second = md5(f"1,Ada {UNIQUE},37\n2,Grace,85\n")
    assert locked(sandbox, "query", "outs") == second
    assert locked(sandbox, "count", "deps") == second
