"""A run folder on object storage, with fsspec's own storage in memory."""

import importlib.util
import shutil
import time
import uuid

import fsspec
import pytest

from tfsft.cli import main, remote_folder
from tfsft.cli.remote_folder import RemoteFolder, local_copy
from tfsft.errors import UsageError, UserError


@pytest.fixture
def url():
    return f"memory://bucket/{uuid.uuid4()}"


def there(url):
    """What lies at a URL, by name."""
    files, root = fsspec.core.url_to_fs(url)
    return {path[len(root) + 1 :]: files.cat_file(path) for path in files.find(root)}


def write(folder, **contents):
    for name, content in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


def test_what_is_written_is_copied_at_the_end_and_comes_back(url):
    with local_copy(url) as folder:
        assert list(folder.iterdir()) == []
        write(folder, log="a", checkpoints__1="b", checkpoints__2="c")
    assert not folder.exists()
    assert there(url) == {"log": b"a", "checkpoints/1": b"b", "checkpoints/2": b"c"}

    with local_copy(url) as folder:
        assert (folder / "checkpoints" / "1").read_text() == "b"
        (folder / "checkpoints" / "1").unlink()
        write(folder, checkpoints__3="d", log="longer")
    assert there(url) == {"log": b"longer", "checkpoints/2": b"c", "checkpoints/3": b"d"}


def test_only_what_changed_is_copied(url, tmp_path, monkeypatch):
    write(tmp_path, a="1", b="2")
    remote = RemoteFolder(url)
    remote.upload(tmp_path)
    copied = []
    put = remote.files.put_file
    monkeypatch.setattr(
        remote.files, "put_file", lambda *words: (copied.append(words[1][-1]), put(*words))
    )
    write(tmp_path, b="22", c="3")
    remote.upload(tmp_path)
    assert copied == ["b", "c"]


def test_what_goes_away_by_itself_is_not_copied(url):
    with local_copy(url) as folder:
        write(folder, log="a", checkpoints__1="b", features_="c")
        (folder / "features_").rename(folder / "features-x")
        (folder / ".writing-model.keras").write_text("half")
        (folder / "checkpoints" / ".writing-2").mkdir()
        (folder / "checkpoints" / ".writing-2" / "state").write_text("half")
    assert set(there(url)) == {"log", "checkpoints/1"}


def test_it_is_copied_while_the_run_goes_on(url, monkeypatch):
    monkeypatch.setattr(remote_folder, "SECONDS_BETWEEN_COPIES", 0.01)
    with local_copy(url) as folder:
        write(folder, log="a")
        for _ in range(500):
            if there(url):
                break
            time.sleep(0.01)
        assert there(url) == {"log": b"a"}


def test_other_workers_read_only(url):
    with local_copy(url) as folder:
        write(folder, log="chief")
    with local_copy(url, keep=False) as folder:
        write(folder, log="other", more="other")
    assert not folder.exists()
    assert there(url) == {"log": b"chief"}


def test_a_failed_run_is_copied_too(url):
    def run():
        with local_copy(url) as folder:
            write(folder, log="a")
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert there(url) == {"log": b"a"}


def test_a_run_that_cannot_be_copied_stays_here(url, monkeypatch):
    def refuse(*_):
        raise OSError("no such bucket")

    def run():
        with local_copy(url) as folder:
            write(folder, log="a")
            monkeypatch.setattr(RemoteFolder, "upload", refuse)
            folders.append(folder)

    folders = []
    with pytest.raises(UserError, match="no such bucket") as caught:
        run()
    assert str(folders[0]) in caught.value.expected
    assert (folders[0] / "log").read_text() == "a"
    shutil.rmtree(folders[0])


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("nowhere://a/b", "Protocol not known: nowhere"),
        ("gs://a/b", "Install what fsspec needs for it: gcsfs for gs"),
    ],
)
def test_storage_that_is_not_there(folder, expected):
    if folder.startswith("gs") and importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    with pytest.raises(UsageError) as caught:
        RemoteFolder(folder)
    assert expected in str(caught.value)


def test_folders_that_are_refused(url, toy_recipe, capsys):
    write_there, root = fsspec.core.url_to_fs(url)
    write_there.pipe_file(f"{root}/config.json", b'{"format": 1, "settings": {}}')
    assert main(["run", str(toy_recipe), "--run-dir", url]) == 2
    assert f"--resume {url} goes on with it." in capsys.readouterr().err
    assert main(["run", str(toy_recipe), "--resume", f"{url}/other"]) == 2
    assert f"{url}/other is not a run folder." in capsys.readouterr().err
