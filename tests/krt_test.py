"""Each rule of the format, broken once: the problem names the key and the value.

Also what a build refuses or reports, where that needs no commit.
"""

import copy
import gzip
import io
import json
import os
import subprocess
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lib.errors import UserError
from tools.krt import archive, build
from tools.krt import check as krt
from tools.krt.check import check
from tools.krt.format import read

pytestmark = pytest.mark.unittest

ROOT = Path(__file__).resolve().parent.parent
PROTO = """
syntax = "proto3";
// service Old { rpc Gone (A) returns (B); }
service Public { rpc Predict (A) returns (B) { option x = "}"; } rpc Explain(A) returns (B); }
"""
V2 = {
    "version": "cancer-v1",
    "krtVersion": "v2",
    "description": "Scores biopsies.",
    "entrypoint": {"proto": "public_input.proto", "image": "konstellation/kre-entrypoint:3.3.6"},
    "config": {"variables": ["LOG_LEVEL"], "files": ["cert"]},
    "workflows": [
        {
            "name": "scoring",
            "entrypoint": "Predict",
            "exitpoint": "output",
            "nodes": [
                {
                    "name": "model",
                    "image": "localhost:5000/team/kre-py-onnx:1.0.0",
                    "src": "src/model/main.py",
                    "gpu": False,
                    "replicas": 2,
                    "subscriptions": ["entrypoint"],
                    "objectStore": {"name": "scores", "scope": "project"},
                },
                {
                    "name": "output",
                    "image": "kre-py",
                    "src": "src/output/main.py",
                    "subscriptions": ["model.sure", "model"],
                },
            ],
        }
    ],
}
V1 = {
    "version": "cancer-v1",
    "description": "Scores biopsies.",
    "entrypoint": {"proto": "public_input.proto", "image": "konstellation/kre-entrypoint:1.0"},
    "config": {"variables": ["A_B"], "files": ["CERT"]},
    "nodes": [{"name": "model", "image": "kre-py:1", "src": "src/model/main.py", "gpu": True}],
    "workflows": [{"name": "scoring", "entrypoint": "Predict", "sequential": ["model"]}],
}


def process(name, kind, subscriptions, **other):
    limits = {
        "CPU": {"request": "100m", "limit": "0.5"},
        "memory": {"request": "100Mi", "limit": "1Gi"},
    }
    return {
        "name": name,
        "type": kind,
        "image": "team/x:1",
        "subscriptions": subscriptions,
        "resourceLimits": limits,
        **other,
    }


KAI = {
    "version": "v1.0.0",
    "description": "Scores biopsies.",
    "config": {"a": "b"},
    "workflows": [
        {
            "name": "scoring",
            "type": "serving",
            "processes": [
                process("ask", "trigger", ["answer"]),
                process("model", "task", ["ask"]),
                process("answer", "exit", ["model.sure"]),
            ],
        }
    ],
}
FILES = {
    "public_input.proto": PROTO,
    "src/model/main.py": "",
    "src/output/main.py": "",
    "docs/README.md": "Docs",
}


def text_of(manifest):
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(manifest, stream)
    return stream.getvalue()


def entry(name, content=b"", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), link
    return info, content


def packed(file, entries):
    with tarfile.open(file, "w:gz") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return file


def entries(manifest=V2, files=FILES):
    """The entries of an archive in the engine's order: each folder before its content."""
    folders = {"/".join(n.split("/")[:d]) for n in files for d in range(1, n.count("/") + 1)}
    yield entry("krt.yml", text_of(manifest).encode())
    yield from (entry(folder, kind=tarfile.DIRTYPE) for folder in sorted(folders))
    yield from (entry(name, content.encode()) for name, content in files.items())


def changed(manifest, path, value):
    manifest = copy.deepcopy(manifest)
    part = manifest
    for key in path[:-1]:
        part = part[key]
    if value is None:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return manifest


# ---- building


@pytest.mark.parametrize(
    ("goals", "state", "all_met", "text"),
    [
        ([], "", False, "none were set"),
        (["results_test.py"], "met", True, "met"),
        (["results_test.py"], "not applicable", True, "none applies"),
        (["results_test.py"], "missed", False, "some are missed; built all the same"),
    ],
)
def test_an_archive_says_that_goals_are_met_only_if_there_are_goals(
    monkeypatch, goals, state, all_met, text
):
    monkeypatch.setattr(build, "goal_files", lambda: goals)
    verdicts = {"summary": "x", "all_met": all_met, "goals": [{"state": state}]}
    monkeypatch.setattr(build, "judge", lambda: (verdicts, ""))
    _, verdict = build.judged_goals(anyway=True)
    assert f"| goals | {text} |" in build.provenance("cancer-v1", {}, {}, verdict, [])


@pytest.mark.parametrize(
    ("assets", "message"),
    [
        ({"src/model/main.py": "dvc.yaml"}, "src/model/main.py is a file of the runtime itself"),
        ({"krt.yml": "dvc.yaml"}, "krt.yml is a file of the runtime itself"),
        ({"assets": "dvc.yaml", "assets/x": "dvc.lock"}, "assets would be a file and a folder"),
        ({"assets/x": "a", "assets/x/y/z": "b"}, "assets/x would be a file and a folder"),
        ({"src": "dvc.yaml"}, "src would be a file and a folder"),
        ({"src/model/main.py/x": "dvc.yaml"}, "src/model/main.py would be a file and a folder"),
        ({"docs": "dvc.yaml"}, "docs would be a file and a folder"),
    ],
)
def test_an_asset_cannot_replace_another_file(assets, message):
    with pytest.raises(UserError, match=f"runtimes/cancer/assets.yml: {message}"):
        build.refuse_collisions("cancer", assets, ["krt.yml", "src/model/main.py"])


def test_assets_beside_the_runtimes_own_files_are_accepted():
    assets = {"assets/x": "dvc.yaml", "src/model/words.txt": "a", "docs/README.md": "README.md"}
    build.refuse_collisions("cancer", assets, ["krt.yml", "src/model/main.py"])


@pytest.mark.parametrize("path", ["/etc/x", "", "./x", "a//b", "a/../b", "assets/", "."])
def test_an_assets_path_must_be_that_of_a_file_in_the_archive(tmp_path, monkeypatch, path):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    file = tmp_path / "runtimes/cancer/assets.yml"
    file.parent.mkdir(parents=True)
    file.write_text(f"{path!r}: dvc.yaml\n")
    with pytest.raises(UserError, match=f"runtimes/cancer/assets.yml: {path!r} "):
        build.assets_of("cancer")


LOCKED = {
    "_meta": {"hash": {"sha256": ""}, "sources": []},
    "default": {"numpy": {"version": "==2.0.2"}, "ruamel-yaml": {"version": "==0.19.1"}},
    "develop": {},
}


@pytest.fixture
def image(tmp_path, monkeypatch):
    """The path of a runtime's Dockerfile; its lock exists."""
    monkeypatch.setattr(build, "ROOT", tmp_path)
    file = tmp_path / "runtimes/cancer/image/Dockerfile"
    file.parent.mkdir(parents=True)
    (tmp_path / "runtimes/cancer/Pipfile.lock").write_text(json.dumps(LOCKED))
    return file


@pytest.mark.parametrize(
    ("line", "package", "locked"),
    [
        ("RUN pip install numpy==2.0.1", "numpy==2.0.1", "==2.0.2"),
        ("RUN pip install a==1 \\\n    'numpy[x]==2.0'", "numpy==2.0", "==2.0.2"),
        ("RUN pip install Ruamel_yaml==0.18.0", "Ruamel_yaml==0.18.0", "==0.19.1"),
    ],
)
def test_an_image_with_another_version_than_the_rehearsals_is_refused(image, line, package, locked):
    image.write_text(f"FROM x\n{line}\n")
    with pytest.raises(UserError) as raised:
        build.refuse_other_versions("cancer")
    assert f"runtimes/cancer/image/Dockerfile installs {package}, and " in str(raised.value)
    assert f"runtimes/cancer/Pipfile.lock, which the rehearsal uses, has {locked}" in str(
        raised.value
    )


@pytest.mark.parametrize(
    "line",
    [
        "RUN pip install numpy==2.0.2 ruamel.yaml==0.19.1",
        "RUN pip install numpy==2.0.* numpy==${VERSION} numpy gunicorn==23.0.0",
        "  # numpy==1.0 is too old",
    ],
)
def test_an_image_with_the_rehearsals_versions_passes(image, line):
    image.write_text(f"FROM x\n{line}\n")
    build.refuse_other_versions("cancer")


def test_a_runtime_without_an_image_of_its_own_passes(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    build.refuse_other_versions("cancer")


@pytest.mark.parametrize("text", ["<<<<<<< HEAD", "[]", "{}", '{"default": []}'])
def test_a_broken_lock_beside_an_image_is_reported(image, text):
    image.write_text("FROM x\n")
    (image.parent.parent / "Pipfile.lock").write_text(text)
    with pytest.raises(UserError, match=r"runtimes/cancer/Pipfile\.lock is not a lock file"):
        build.refuse_other_versions("cancer")


# ---- checking


@pytest.mark.parametrize("manifest", [V1, V2], ids=["v1", "v2"])
def test_a_good_archive_has_no_problem(tmp_path, manifest):
    assert check(packed(tmp_path / "good.krt", entries(manifest))) == []


NODE, WORKFLOW = ("workflows", 0, "nodes", 1), ("workflows", 0)
BROKEN_V2 = [
    (("version",), "Cancer", "version is 'Cancer': it must match"),
    (("version",), "x" * 20, "at most 19 characters"),
    (("version",), "cancer-", "version is 'cancer-'"),
    (("version",), None, "version is missing"),
    (("krtVersion",), None, "krtVersion is missing"),
    (("krtVersion",), "v3", "krtVersion is 'v3': it must be 'v2'"),
    (("description",), None, "description is missing"),
    (("entrypoint", "image"), None, "entrypoint.image is missing"),
    (("entrypoint", "image"), "Not An Image", "entrypoint.image is 'Not An Image'"),
    (("entrypoint", "proto"), "public.txt", "entrypoint.proto is 'public.txt'"),
    (
        ("entrypoint", "proto"),
        "other.proto",
        "entrypoint.proto is 'other.proto': it must be a file",
    ),
    (("config", "variables"), ["log"], "config.variables[0] is 'log'"),
    (("workflows",), [], "workflows is []"),
    ((*WORKFLOW, "name"), "sc_oring", "workflows[0].name is 'sc_oring'"),
    ((*WORKFLOW, "entrypoint"), "Gone", "entrypoint is 'Gone': it must be an rpc in public_input"),
    ((*WORKFLOW, "exitpoint"), "nobody", "workflows[0].exitpoint is 'nobody'"),
    ((*WORKFLOW, "exitpoint"), None, "workflows[0].exitpoint is missing"),
    ((*NODE, "name"), "model", "'model' comes 2 times"),
    ((*NODE, "name"), "entrypoint", "nodes[1].name is 'entrypoint': that is taken"),
    (
        (*NODE, "src"),
        "src/output",
        "nodes[1].src is 'src/output': it must be a file of the archive, it",
    ),
    ((*NODE, "src"), "src/none.py", "nodes[1].src is 'src/none.py'"),
    ((*NODE, "subscriptions"), [], "nodes[1].subscriptions is []"),
    (
        (*NODE, "subscriptions"),
        ["modle"],
        "nodes[1].subscriptions[0] is 'modle': it must be a node",
    ),
    ((*NODE, "gpu"), "yes", "nodes[1].gpu is 'yes'"),
    ((*NODE, "replicas"), 0, "nodes[1].replicas is 0"),
    ((*NODE, "objectStore"), {"name": "a", "scope": "all"}, "objectStore.scope is 'all'"),
]
BROKEN_V1 = [
    (("config", "files"), ["cert.pem"], "config.files[0] is 'cert.pem'"),
    (("nodes", 0, "name"), "Model", "nodes[0].name is 'Model'"),
    (("nodes", 0, "src"), "src/x.py", "nodes[0].src is 'src/x.py'"),
    (("workflows", 0, "sequential"), ["model", "other"], "sequential[1] is 'other'"),
    (("workflows", 0, "sequential"), [], "sequential is []"),
    (("workflows", 0, "entrypoint"), "Predikt", "entrypoint is 'Predikt': it must be an rpc"),
]
PROCESSES = ("workflows", 0, "processes")
BROKEN_KAI = [
    (("version",), "1.0", "version is '1.0'"),
    (("config",), {"a": [1]}, "config.a is list"),
    (("config",), {"\x1b[2J": [1]}, r"config.\x1b[2J is list"),
    (("workflows", 0, "type"), "batch", "workflows[0].type is 'batch'"),
    ((*PROCESSES, 1, "name"), "x" * 21, "at most 20 characters"),
    ((*PROCESSES, 1, "type"), "worker", "processes[1].type is 'worker'"),
    ((*PROCESSES, 0, "type"), "task", "has no trigger"),
    ((*PROCESSES, 1, "subscriptions"), [], "a task subscribes to a process"),
    ((*PROCESSES, 1, "subscriptions"), ["model"], "does not subscribe to itself"),
    ((*PROCESSES, 1, "subscriptions"), ["ask", "ask"], "'ask' comes 2 times"),
    ((*PROCESSES, 1, "subscriptions"), ["nobody"], "is 'nobody': it must be a process of it"),
    ((*PROCESSES, 1, "subscriptions"), ["answer"], "a task subscribes to no exit"),
    ((*PROCESSES, 0, "subscriptions"), ["model"], "a trigger subscribes to exits only"),
    ((*PROCESSES, 0, "resourceLimits"), None, "resourceLimits is missing"),
    ((*PROCESSES, 0, "resourceLimits", "CPU", "limit"), "50m", "CPU.limit is '50m'"),
    ((*PROCESSES, 0, "resourceLimits", "CPU", "limit"), "099m", "CPU.limit is '099m'"),
    ((*PROCESSES, 0, "resourceLimits", "memory", "limit"), "99M", "memory.limit is '99M'"),
    ((*PROCESSES, 0, "resourceLimits", "memory", "limit"), "1GB", "memory.limit is '1GB'"),
    (
        (*PROCESSES, 0, "networking"),
        {"targetPort": 80, "destinationPort": 80, "protocol": "TCP"},
        "networking.protocol is 'TCP'",
    ),
]


def as_yaml(manifest, path, text):
    """The manifest's YAML with this text in place of a value, as if written by hand."""
    return text_of(changed(manifest, path, "HERE")).replace("HERE", text)


@pytest.mark.parametrize(
    ("manifest", "path", "text"),
    [
        (V2, ("config", "variables"), ""),
        (V2, ("config", "files"), "~"),
        (V2, ("config",), ""),
        (V2, (*NODE, "objectStore"), "null"),
        (V2, (*NODE, "replicas"), ""),
        (V2, ("description",), "2024"),
        (V2, ("version",), "1"),
        (V1, ("config", "variables"), ""),
        (V1, ("nodes", 0, "gpu"), ""),
    ],
    ids=str,
)
def test_an_empty_value_or_a_number_passes_as_in_the_engine(tmp_path, manifest, path, text):
    texts = [entry("krt.yml", as_yaml(manifest, path, text).encode()), *list(entries())[1:]]
    assert check(packed(tmp_path / "x.krt", texts)) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("config",), ""),
        (("config",), "{a: 1, b: true, c: , d: 0.5}"),
        ((*PROCESSES, 0, "networking"), "{targetPort: 80, destinationPort: 81}"),
        ((*PROCESSES, 0, "networking"), "{targetPort: 80, destinationPort: 81, protocol: ''}"),
        ((*PROCESSES, 0, "resourceLimits", "CPU"), "{request: 100m}"),
        ((*PROCESSES, 0, "resourceLimits", "CPU"), "{request: 0.5, limit: 1}"),
        ((*PROCESSES, 0, "resourceLimits", "memory"), "{request: 100M, limit: }"),
        ((*PROCESSES, 0, "replicas"), ""),
    ],
    ids=str,
)
def test_missing_values_that_have_defaults_pass(tmp_path, path, text):
    file = tmp_path / "version.yaml"
    file.write_text(as_yaml(KAI, path, text))
    assert check(file) == []


def test_defaults_are_those_of_the_engine():
    content = changed(KAI, (*PROCESSES, 0, "resourceLimits", "CPU", "limit"), None)
    content = changed(
        content, (*PROCESSES, 0, "networking"), {"targetPort": 1, "destinationPort": 2}
    )
    manifest, _ = read(content, archive=False)
    process = manifest.workflows[0].processes[0]
    assert process.resourceLimits.CPU.limit == "100m"
    assert process.networking.protocol == "HTTP"


@pytest.mark.parametrize(("path", "value", "message"), BROKEN_V2, ids=str)
def test_a_broken_rule_of_v2_is_named_with_key_and_value(tmp_path, path, value, message):
    problems = check(packed(tmp_path / "x.krt", entries(changed(V2, path, value))))
    assert any(message in problem for problem in problems), problems


@pytest.mark.parametrize(("path", "value", "message"), BROKEN_V1, ids=str)
def test_a_broken_rule_of_v1_is_named_with_key_and_value(tmp_path, path, value, message):
    problems = check(packed(tmp_path / "x.krt", entries(changed(V1, path, value))))
    assert any(message in problem for problem in problems), problems


@pytest.mark.parametrize(("path", "value", "message"), BROKEN_KAI, ids=str)
def test_a_broken_rule_of_kai_is_named_with_key_and_value(tmp_path, path, value, message):
    file = tmp_path / "version.yaml"
    file.write_text(text_of(KAI))
    assert check(file) == []
    file.write_text(text_of(changed(KAI, path, value)))
    assert any(message in problem for problem in check(file)), check(file)


def test_all_problems_are_reported_at_once(tmp_path):
    manifest = changed(changed(V2, ("version",), "X"), (*NODE, "replicas"), 0)
    problems = check(packed(tmp_path / "x.krt", [*entries(manifest), entry("/etc/passwd")]))
    assert len(problems) == 3


def sparse():
    """A sparse file of 400 MB, with one block in the archive."""
    info, content = entry("big", b"0\n".ljust(512, b"\0"))
    about = {"major": "1", "minor": "0", "name": "big", "realsize": str(400 * 2**20)}
    info.pax_headers = {f"GNU.sparse.{key}": value for key, value in about.items()}
    return info, content


FOLDER = tarfile.DIRTYPE
HOSTILE = [
    (entry("../evil"), "leads out of the archive"),
    (entry("a/../../evil"), "leads out of the archive"),
    (entry("/etc/passwd"), "is absolute"),
    (entry("C:/evil"), "is absolute"),
    (entry("./x"), "a '.' in its name"),
    (entry("a\\b"), "backslash"),
    (entry("a\x1b[2J"), "cannot be printed"),
    (entry("link", kind=tarfile.SYMTYPE, link="/etc"), "is a link"),
    (entry("link", kind=tarfile.LNKTYPE, link="krt.yml"), "is a link"),
    (entry("device", kind=tarfile.CHRTYPE), "neither file nor folder"),
    (entry("pipe", kind=tarfile.FIFOTYPE), "neither file nor folder"),
    (entry("krt.yml", b"version: other"), "'krt.yml' comes twice"),
    (entry("docs", kind=FOLDER), "'docs' comes twice"),
    (entry("new/file"), "'new/file' comes before its folder: 'new'"),
    (entry("new/folder", kind=FOLDER), "'new/folder' comes before its folder"),
    (entry("krt.yml/x"), "is below 'krt.yml', which is a file"),
    (entry("x" * 300), "is too long"),
    (sparse(), "is a sparse file"),
]


@pytest.mark.parametrize(("hostile", "message"), HOSTILE, ids=[message for _, message in HOSTILE])
def test_a_hostile_entry_is_named_and_nothing_is_unpacked(tmp_path, hostile, message):
    problems = check(packed(tmp_path / "x.krt", [*entries(), hostile]))
    assert [message in problem for problem in problems] == [True], problems
    assert [file.name for file in tmp_path.iterdir()] == ["x.krt"]


def test_a_decompression_bomb_is_refused(tmp_path):
    file = tmp_path / "x.krt"
    with gzip.open(file, "wb") as out:
        info, _ = entry("assets")
        info.size = 2**31
        out.write(info.tobuf())
        for _ in range(100):
            out.write(bytes(2**20))
    assert any("a bomb" in problem for problem in check(file))


def header(kind, content, name="x"):
    """A header of this type with its content, as in a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def record(key, value):
    """A record of an extended header."""
    body = f" {key}={value}\n"
    size = len(body) + 1
    while len(f"{size}{body}") != size:
        size += 1
    return f"{size}{body}".encode()


def raw(*blocks):
    return gzip.compress(b"".join(blocks) + bytes(1024))


def many_records(count):
    return b"".join(record(f"k{n}", "v") for n in range(count))


EXTENDED = {
    "digits": raw(header(tarfile.XHDTYPE, b"1" * 180_000), header(tarfile.REGTYPE, b"")),
    "records that each entry inherits": raw(
        header(tarfile.XGLTYPE, many_records(1000)),
        *(header(tarfile.REGTYPE, b"", f"f{n}") for n in range(3000)),
    ),
    "a chain": raw(*(header(tarfile.XHDTYPE, record("path", "a")) for _ in range(3000))),
    "a long name": raw(header(tarfile.GNUTYPE_LONGNAME, b"a" * 2**24)),
    "broken records": raw(header(tarfile.XHDTYPE, b"9999 path=a\n")),
    "a negative size": raw(
        header(tarfile.XHDTYPE, record("size", "-1")), header(tarfile.REGTYPE, b"")
    ),
    "a size beyond the end": raw(
        header(tarfile.XHDTYPE, record("size", str(2**31))), header(tarfile.REGTYPE, b"")
    ),
    "an entry after the end": raw(bytes(512), header(tarfile.REGTYPE, b"", "../evil")),
}


@pytest.mark.parametrize("content", EXTENDED.values(), ids=EXTENDED)
def test_extended_headers_take_little_time_and_memory(tmp_path, content):
    file = tmp_path / "x.krt"
    file.write_bytes(content)
    tracemalloc.start()
    began = time.process_time()
    problems = check(file)
    took, (_, most) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert problems
    assert (took < 2, most < 30e6) == (True, True), (took, most, problems[:3])


def test_a_name_in_an_extended_header_is_the_entrys_name(tmp_path):
    long = "docs/" + "ü" * 100
    assert check(packed(tmp_path / "x.krt", [*entries(), entry(long)])) == []
    with tarfile.open(tmp_path / "y.krt", "w:gz", format=tarfile.GNU_FORMAT) as new:
        for info, content in [*entries(), entry(long), entry("docs/" + "../" * 50 + "evil")]:
            new.addfile(info, io.BytesIO(content))
    (problem,) = check(tmp_path / "y.krt")
    assert "leads out of the archive" in problem


def test_the_checked_file_is_the_one_that_is_unpacked(tmp_path):
    file = packed(tmp_path / "x.krt", [*entries(), entry("docs/" + "ü" * 100, b"long")])
    assert check(file) == []
    with file.open("rb") as opened:
        packed(tmp_path / "other.krt", [entry("evil", b"")]).replace(file)
        archive.unpack(opened, tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"krt.yml", *FILES, "docs/" + "ü" * 100, "x.krt"}


def test_too_large_manifests_and_protos_are_refused(tmp_path):
    others, text = list(entries())[1:], "a: [" + "1," * 2**20 + "]"
    file = packed(tmp_path / "x.krt", [entry("krt.yml", text.encode()), *others])
    assert "krt.yml has 2,097,157 bytes" in check(file)[0]
    protos = [entry(f"p{n}.proto", b" " * 2**20) for n in range(6)]
    assert any("all protos together" in p for p in check(packed(file, [*entries(), *protos])))


def test_a_problem_lists_only_a_few_names(tmp_path):
    manifest = copy.deepcopy(V2)
    node = manifest["workflows"][0]["nodes"][1]
    manifest["workflows"][0]["nodes"] += [
        {**node, "name": f"n{n}", "subscriptions": ["nobody"]} for n in range(200)
    ]
    problems = check(packed(tmp_path / "x.krt", entries(manifest)))
    assert len(problems) == 200
    assert max(map(len, problems)) < 400
    assert "and 183 more" in problems[0]


def test_too_many_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "ENTRIES", 5)
    assert any("more than 5 entries" in p for p in check(packed(tmp_path / "x.krt", entries())))


def test_a_file_that_is_not_an_archive_is_refused(tmp_path):
    file = packed(tmp_path / "x.krt", entries())
    whole = file.read_bytes()
    for content, expected in (
        (b"", "no gzip file"),
        (b"PK\x03\x04", "no gzip file"),
        (whole[: len(whole) // 2], "cannot be unpacked to its end"),
        (whole[:-8] + bytes(8), "cannot be unpacked to its end"),
        (gzip.compress(b"x" * 2000), "not a valid tar"),
    ):
        file.write_bytes(content)
        assert any(expected in problem for problem in check(file)), (expected, check(file))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: &x [1]\nb: [*x, *x]", "YAML alias"),
        ("a: [", "not YAML"),
        ("a: 1\na: 2", "not YAML"),
        pytest.param("[" * 5000, "nested more than 50", id="deep"),
        ("version: !!bool maybe", "not YAML"),
        ("version: !!int ''", "not YAML"),
        ("- 1", "it must be a mapping"),
        ("!!python/object:os.system x", "YAML"),
    ],
    ids=str,
)
def test_a_manifest_that_is_not_a_plain_mapping_is_refused(tmp_path, text, error):
    others = list(entries())[1:]
    problems = check(packed(tmp_path / "x.krt", [entry("krt.yml", text.encode()), *others]))
    assert problems, text[:20]
    assert any(error in problem or "nested too deeply" in problem for problem in problems), problems


RPCS = [
    ("service S { rpc A (X) returns (Y); rpc B(X) returns (Y) {} }", {"A", "B"}),
    (
        'service S { rpc A (X) returns (Y) { option (g.http) = { get: "/{a}" }; } rpc B (X)',
        {"A", "B"},
    ),
    ("// service S { rpc A (X) }\n/* rpc B ( */ service T { rpc C (X) returns (Y); }", {"C"}),
    ('option x = "service S { rpc A ("; message rpc { service b = 1; rpc c = 2; }', set()),
    ("service S {} message M { rpc A = 1; }", set()),
    ("/* " * 300_000, set()),
    ('"' * 300_000, set()),
]


@pytest.mark.parametrize(("proto", "rpcs"), RPCS, ids=[proto[:40] for proto, _ in RPCS])
def test_only_rpcs_in_services_are_found_whatever_is_around_them(proto, rpcs):
    assert krt.methods(proto) == rpcs


def test_a_manifest_in_the_wrong_folder_is_located(tmp_path):
    moved = [entry("a", kind=FOLDER), entry("a/krt.yml", text_of(V2).encode())]
    (problem,) = check(packed(tmp_path / "x.krt", moved))
    assert "must be at the archive's root: it is at 'a/krt.yml'" in problem


# ---- serving an archive from elsewhere

PREDICT = 'syntax = "proto3"; message A {} service S { rpc Predict (A) returns (A); }'


def serve(file, **variables):
    """The error of serving an archive, which must fail."""
    command = ("tools/within", "tools/krt", "python", "-m", "tools.krt.serve", str(file))
    environment = {**os.environ, "RUNTIME_ALLOW": "", **variables}
    done = subprocess.run(
        [*command, "--name", "cancer"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.integration
def test_a_file_name_is_not_taken_as_an_option_of_protoc(tmp_path):
    manifest = changed(V2, ("entrypoint", "proto"), "@a.proto")
    arguments = f"--descriptor_set_out={tmp_path}/escaped\n{PREDICT}\n"
    files = {**FILES, "@a.proto": arguments, PREDICT: PREDICT}
    error = serve(packed(tmp_path / "x.krt", entries(manifest, files)))
    assert not (tmp_path / "escaped").exists()
    assert "@a.proto:1:1: Expected top-level statement" in error


@pytest.mark.integration
def test_a_module_in_an_archive_cannot_replace_protoc(tmp_path):
    code = f"open({str(tmp_path / 'escaped')!r}, 'w')"
    shadows = {"grpc_tools/__init__.py": code, "grpc_tools/protoc.py": code}
    files = {**FILES, "public_input.proto": PREDICT + "}", **shadows}
    error = serve(packed(tmp_path / "x.krt", entries(files=files)))
    assert not (tmp_path / "escaped").exists()
    assert "protoc: public_input.proto:1:" in error


SWAP = """
import sys
from pathlib import Path
from tools.krt import serve

file, other = map(Path, sys.argv[1:])
real = serve.check
serve.check = lambda checked: (real(checked), other.replace(file))[0]  # right after the check
with serve.unpacked(file) as (folder, *_):
    print(sorted(path.name for path in folder.rglob("*") if path.is_file()))
"""


@pytest.mark.integration
def test_an_archive_swapped_in_after_the_check_is_not_unpacked(tmp_path):
    file = packed(tmp_path / "x.krt", entries(files={**FILES, "public_input.proto": PREDICT}))
    other = packed(tmp_path / "y.krt", [*entries(), entry("../evil")])
    command = ["tools/within", "tools/krt", "python", "-c", SWAP, str(file), str(other)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "['README.md', 'krt.yml', 'main.py', 'main.py', 'public_input.proto']\n"


@pytest.mark.integration
@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "DATABASE_URL"])
def test_an_archive_gets_a_secret_only_if_it_is_allowed_by_name(tmp_path, name):
    files = {**FILES, "public_input.proto": PREDICT}
    manifest = changed(V2, ("config", "variables"), [name])
    file = packed(tmp_path / "x.krt", entries(manifest, files))
    refused = serve(file, **{name: "hidden"})
    assert f"config.variables asks for {name}, which may be a secret" in refused
    allowed = serve(file, **{name: "hidden", "RUNTIME_ALLOW": f"OTHER {name}"})
    assert "has no default_handler" in allowed


@pytest.mark.integration
def test_the_command_has_the_right_code_and_message(tmp_path):
    good = packed(tmp_path / "good.krt", entries())
    bad = packed(tmp_path / "bad.krt", [*entries(), entry("../evil")])
    for file, code, message in (
        (good, 0, "good.krt is as the engine takes it"),
        (bad, 2, "bad.krt: 1 to fix"),
        (tmp_path / "none.krt", 2, "does not exist"),
        ("", 2, "Which file?"),
    ):
        command = ["make", "runtime-check", f"FILE={file}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert message in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
