"""Adding data, both ways that its chapter names, on the platform that `make sandbox` starts.

A local dataset goes the way of that chapter's own commands. An external database is an SQLite file
that is no part of the repository; where it is, a job learns from the repository's settings.
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

# The runner's cache outlives a test: what is new to it must be new each time.
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
    """A project with its sandbox up, and no pipeline yet: each test brings its own."""
    folder = tmp_path_factory.mktemp("data") / "a projëct"
    ignored = ("/artifacts/count", "/data/raw/patients.csv")
    with rehearsing(folder, dvc_yaml="stages: {}\n", ignored=ignored) as sandbox:
        yield sandbox


def pipeline(sandbox, stages, **processes):
    """A branch with these stages and processes, committed, without the data of another."""
    shutil.rmtree(sandbox.project.folder / "data", ignore_errors=True)
    sandbox.change()
    for name, script in processes.items():
        write_executable(sandbox.project.folder / "lab/processes" / name / "main", script)
    (sandbox.project.folder / "dvc.yaml").write_text(f"stages:{stages}")
    sandbox.project.commit("A pipeline")


def run(sandbox):
    """Push the branch and a tag: the commit with its results, or None, and what was said."""
    sandbox.push()
    source = sandbox.git("rev-parse", "HEAD")
    tag, said = sandbox.tag()
    tip = sandbox.tip()
    if tip == source:
        return None, said
    assert f"Tag: {tag}" in sandbox.message(tip)
    changed = sandbox.origin("diff", "--name-only", source, tip).split()
    assert "dvc.lock" in changed
    assert set(changed) <= {"dvc.lock", "metrics/count.json"}, "results and nothing else"
    sandbox.git("pull", "--quiet", "sandbox", sandbox.branch)
    return tip, said


def rows(sandbox, commit):
    return json.loads(sandbox.show(commit, "metrics/count.json"))["validation"]["rows"]


def locked(sandbox, stage, kind):
    """The checksum of a stage's data, by the results that are pulled: kind is deps or outs."""
    found = read_yaml(sandbox.project.folder / "dvc.lock")["stages"][stage][kind]
    return next(entry["md5"] for entry in found if entry["path"].startswith("data/raw/"))


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


def commands_on_local_datasets(facts):
    """Everything that the chapter on data says to type, with the sandbox's names in the places."""
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
    """Every file's bytes, by its path."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix != ".dvc" and file.name != ".gitignore"
    }


def bucket_copy(sandbox, facts, folder):
    """What lies in the bucket under data/raw/scans by now."""
    credentials = {
        "AWS_ENDPOINT_URL": facts["s3"],
        "AWS_ACCESS_KEY_ID": facts["access_key"],
        "AWS_SECRET_ACCESS_KEY": facts["secret_key"],
    }
    sandbox.project.dvc("get-url", "s3://lab/data/raw/scans", str(folder), **credentials)
    return contents(folder)


def test_a_local_dataset_is_there_when_its_stage_runs_and_new_versions_run_it_again(
    sandbox, tmp_path
):
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

    commit, said = run(sandbox)
    assert commit, said
    assert "Running stage 'count'" in said
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

    commit, said = run(sandbox)
    problems = [line for line in said.splitlines() if "PROBLEM" in line]
    assert commit is None
    assert len(problems) == 1, said
    named = "data/raw/scans/größe b.csv, data/raw/masks"
    assert f"Not in the bucket: {named}: `dvc push` where the data are" in problems[0]
    assert "Running stage" not in said

    project.dvc("push")
    commit, said = run(sandbox)
    assert commit, said
    assert "Running stage 'count'" in said
    assert rows(sandbox, commit) == 4
    assert locked(sandbox, "count", "deps") != first

    assert bucket_copy(sandbox, facts, tmp_path / "again") == delivered, "nobody touches it"


def test_a_changed_row_of_a_database_makes_a_new_version_and_nothing_makes_none(sandbox, tmp_path):
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
    # As the chapter says: a secret in the repository's settings, handed on by the workflow.
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

    # The same rows, stored anew in another order: nothing has changed.
    execute(
        "DELETE FROM patients WHERE id = 1",
        f"INSERT INTO patients VALUES (1, 'Ada {UNIQUE}', 36)",
    )
    commit, said = run(sandbox)
    assert commit is None, "no change, no version"
    assert "Nothing changed" in said
    assert "Job succeeded" in said
    assert "Running stage 'query'" in said, "only asking tells"
    assert "Running stage 'count'" not in said

    execute("UPDATE patients SET age = 37 WHERE id = 1")
    commit, said = run(sandbox)
    assert commit, said
    assert "Running stage 'count'" in said
    second = md5(f"1,Ada {UNIQUE},37\n2,Grace,85\n")
    assert locked(sandbox, "query", "outs") == second
    assert locked(sandbox, "count", "deps") == second
