"""Where commands write is looked at before they begin."""

import os

import pytest

from tfsft.cli.out_path import OutPath
from tfsft.errors import UsageError


def test_what_can_be_written(tmp_path):
    assert OutPath().convert(str(tmp_path / "a.html"), None, None) == tmp_path / "a.html"
    deep = tmp_path / "a" / "b"
    assert OutPath(folder=True).convert(str(deep), None, None) == deep
    assert not deep.exists()


@pytest.mark.parametrize(
    ("folder", "name", "message"),
    [
        (False, "folder", "is a folder"),
        (False, "missing/a.html", "missing is no folder"),
        (False, "file/a.html", "file is no folder"),
        (True, "file", "is a file"),
        (True, "file/a", "file is no folder"),
    ],
)
def test_what_cannot_be_written(tmp_path, folder, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as caught:
        OutPath(folder).convert(str(tmp_path / name), None, None)
    assert message in caught.value.came


def test_a_folder_of_somebody_else(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, how: False)  # tests may run as root
    with pytest.raises(UsageError, match="may not write"):
        OutPath().convert(str(tmp_path / "a"), None, None)


def test_it_is_said_before_the_work(tfsft, tmp_path):
    done = tfsft("compare", "a", "b", "--out", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: --out {tmp_path} is a folder.")
