"""A file is loaded only if its content is that in dvc.lock."""

import pytest

from lib.errors import UserError
from lib.locked import locked

pytestmark = pytest.mark.unittest

# As written by DVC 3.67: a folder with a/b ("1") and c ("2"), and a file ("3").
LOCK = """
schema: '2.0'
stages:
  one:
    cmd: x
    outs:
    - {path: folder, hash: md5, md5: FOLDER.dir, size: 2, nfiles: 2}
    - {path: file.bin, hash: md5, md5: eccbc87e4b5ce2fe28308fd9f2a7baf3, size: 1}
"""
FOLDER = "9d9726ee7000cb7415c9e39fa1e7a48d"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dvc.lock").write_text(LOCK.replace("FOLDER", FOLDER))
    (tmp_path / "folder/a").mkdir(parents=True)
    for name, text in (("folder/a/b", "1"), ("folder/c", "2"), ("file.bin", "3")):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", ["folder/a/b", "folder/c", "file.bin"])
def test_files_in_dvc_lock_are_loaded(folder, name):
    assert locked(name, folder) == folder / name


@pytest.mark.parametrize("name", ["folder/c", "file.bin", "folder/new", "other"])
def test_other_files_are_refused(folder, name):
    (folder / name).write_text("4")
    with pytest.raises(UserError, match=f"{name} is not what dvc.lock names"):
        locked(name, folder)


def test_files_that_dvc_ignores_are_ignored(folder):
    for name in (".DS_Store", "a/.b.new", ".c.old"):
        (folder / "folder" / name).write_text("5")
    assert locked("folder/c", folder) == folder / "folder/c"


def test_without_dvc_any_file_is_loaded(tmp_path):
    assert locked("model", tmp_path) == tmp_path / "model"
