"""Files are complete or absent."""

import math
from pathlib import Path

import numpy as np
import pytest
from dvc_data.hashfile.istextfile import istextblock

from lib.errors import UserError
from lib.files import read_columns, read_csv, read_json, replaced_directory, write_csv, write_json

pytestmark = pytest.mark.unittest


def read_a(path):
    return read_columns(path, ["a"])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_successful_block_replaces_the_directory(tmp_path):
    target = tmp_path / "below" / "out"
    for content in ("old", "new"):
        with replaced_directory(target) as folder:
            (folder / content).touch()
    assert names(target) == ["new"], "no earlier content is left"
    assert names(target.parent) == ["out"]


def fill_half(folder):
    (folder / "half").touch()
    (folder / "missing" / "file").touch()


def test_a_block_that_raises_changes_nothing(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(FileNotFoundError), replaced_directory(target) as folder:
        fill_half(folder)
    assert names(target) == ["old"]
    assert names(tmp_path) == ["out"]


def test_a_failed_replacement_keeps_the_directory(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").touch()
    rename = Path.rename

    def fail(self, target):
        if self.name == ".out.new":
            raise OSError("full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="full"), replaced_directory(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert names(tmp_path / "out") == ["old"]
    assert names(tmp_path) == ["out"]


def test_a_table_without_rows_has_its_header(tmp_path):
    write_csv(tmp_path / "none.csv", [], ("a", "b"))
    assert (tmp_path / "none.csv").read_text() == "a,b\n"


def test_after_a_kill_partial_files_go_and_moved_files_return(tmp_path):
    half, moved = tmp_path / ".out.new", tmp_path / ".out.old"
    for folder, file in ((half, "half"), (moved, "old")):
        folder.mkdir()
        (folder / file).touch()
    with pytest.raises(RuntimeError), replaced_directory(tmp_path / "out"):
        raise RuntimeError
    assert names(tmp_path / "out") == ["old"]
    assert names(tmp_path) == ["out"]


def test_a_csv_keeps_every_digit(tmp_path):
    values = [0.1 + 0.2, 1 / 3, math.pi * 1e-300]
    write_csv(tmp_path / "a.csv", [{"name": 'ä,"b"', "value": value} for value in values])
    rows = read_csv(tmp_path / "a.csv")
    assert [float(row["value"]) for row in rows] == values
    assert rows[0]["name"] == 'ä,"b"'


def test_a_csv_saved_by_a_spreadsheet_has_its_column_names(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
    assert read_columns(tmp_path / "a.csv", ["a", "b"]) == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('a,b,c\n1,2,"q\nz"\n3,x,r\n', "line 4, 'b': 'x' is no number"),
        ("a,b\n1,2\n\n3,x\n", "line 4, 'b': 'x' is no number"),
        ("a\n", "column 'b' is missing"),
        ("", "column 'a' is missing"),
    ],
)
def test_errors_in_columns_name_the_line(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        read_columns(tmp_path / "a.csv", ["a", "b"])


def test_invalid_json_values_are_refused_and_keep_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1})
    for value, shown in ((math.nan, "nan"), (np.float32("-inf"), "-inf")):
        with pytest.raises(
            UserError, match=rf"a\.json: test\.1\.b is {shown}, and JSON has no such"
        ):
            write_json(tmp_path / "a.json", {"test": [1.5, {"b": value}]})
    with pytest.raises(TypeError, match="PosixPath is not JSON"):
        write_json(tmp_path / "a.json", {"b": tmp_path})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": 1\n}\n'
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_json, b'{"a": 1,\n<<<<<<< HEAD\n', "data.json, line 2: not JSON"),
        (read_json, b"[" * 100_000, "data.json: not JSON"),
        (read_json, b'{"a": 1,\n"gr\xf6\xdfe": 2}', "data.json, line 2: not UTF-8"),
        (read_csv, b"a,b\n1,\xf6\n", "data.json cannot be read as CSV in UTF-8"),
        (read_a, b"a,b\n1,2\nx,3\n", "data.json, line 3, 'a': 'x' is no number"),
        (read_a, b"b\n1\n", "data.json: column 'a' is missing"),
    ],
)
def test_unreadable_files_are_named_with_the_line(tmp_path, read, content, message):
    file = tmp_path / "data.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(file)


def test_json_accepts_numpy_numbers(tmp_path):
    content = {"a": np.float32(0.5), "b": np.int64(2), "c": np.bool_(True), "d": np.arange(2)}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == {"a": 0.5, "b": 2, "c": True, "d": [0, 1]}


def test_json_with_few_latin_letters_is_no_binary_file_for_dvc(tmp_path):
    content = {"площадь квартиры": 1, "价格": {"最大": 2}}
    write_json(tmp_path / "file.json", content)
    assert istextblock((tmp_path / "file.json").read_bytes()[:512])
    assert read_json(tmp_path / "file.json") == content


def test_json_keeps_letters_and_escapes_what_utf8_lacks(tmp_path):
    content = {"Größe m²": 1, "\udcff": 2}
    write_json(tmp_path / "file.json", content)
    assert '"Größe m²": 1' in (tmp_path / "file.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "file.json") == content
