"""Random access to pictures in files, arrays and blobs."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfsft.data import sources
from tfsft.data.sources import (
    ArrayStorage,
    BlobStorage,
    FileStorage,
    ImageSource,
    check_pictures,
    content_hash,
)


def make_source(storage, rows):
    ids = [f"picture {row}" for row in rows]
    keys = np.array([f"{row:032x}" for row in rows])
    groups = np.array([f"group {row % 2}" for row in rows])
    return ImageSource(storage, rows, ids, np.array(rows), ("a", "b"), keys, groups)


@pytest.fixture
def files(write_pictures):
    folder = write_pictures("a", range(6))
    return FileStorage([str(folder / "a" / f"{number}.png") for number in range(6)])


@pytest.fixture
def array(picture):
    return ArrayStorage(np.stack([picture(number) for number in range(6)]))


@pytest.fixture
def blob(files, tmp_path):
    # Zeros at the end are part of a picture, and must not get lost on the way into the graph.
    encoded = [Path(path).read_bytes() + b"\0\0\0" for path in files.paths]
    ends = np.cumsum([len(data) for data in encoded])
    (tmp_path / "pictures.bin").write_bytes(b"".join(encoded))
    return BlobStorage(tmp_path / "pictures.bin", np.concatenate([[0], ends[:-1]]), ends)


@pytest.fixture(params=["files", "array", "blob"])
def storage(request):
    return request.getfixturevalue(request.param)


def test_pictures_come_back_eagerly_and_in_a_graph(storage, picture):
    source = make_source(storage, [0, 1, 2, 3, 4, 5])
    dataset = tf.data.Dataset.range(6).map(source.image, num_parallel_calls=2)
    for number, (image, ok) in enumerate(dataset):
        assert bool(ok)
        assert image.dtype == tf.uint8
        np.testing.assert_array_equal(image, picture(number))
        np.testing.assert_array_equal(source.image(tf.constant(number, tf.int64))[0], image)


def test_a_source_first_used_in_a_graph_can_be_used_again(storage, picture):
    source = make_source(storage, [3, 4])
    for _ in range(2):  # tensors made inside the first graph would be out of reach for the second
        images = list(tf.data.Dataset.range(2).map(lambda row: source.image(row)[0]))
        np.testing.assert_array_equal(images[1], picture(4))


def test_a_subset_of_a_subset(storage, picture):
    source = make_source(storage, range(6)).subset(np.array([5, 3, 1])).subset(np.array([2, 0]))
    assert len(source) == 2
    assert source.ids == ["picture 1", "picture 5"]
    assert source.labels.tolist() == [1, 5]
    assert source.keys.tolist() == [f"{1:032x}", f"{5:032x}"]
    assert source.groups.tolist() == ["group 1", "group 1"]
    np.testing.assert_array_equal(source.image(0)[0], picture(1))
    np.testing.assert_array_equal(source.image(1)[0], picture(5))
    assert source.decoded_bytes(32) == 2 * 32 * 32 * 3


def test_the_key_is_the_hash_of_the_content(files, blob, array, picture):
    data = Path(files.paths[2]).read_bytes()
    key, reason = files.check(2)
    assert reason is None
    assert key == hashlib.blake2b(data, digest_size=16).hexdigest()
    assert blob.check(2) == (content_hash(data + b"\0\0\0"), None)
    assert array.check(2) == (content_hash(picture(2).tobytes()), None)


def test_a_file_name_that_is_no_text(tmp_path, picture):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe9.png")
    try:
        with open(path, "wb") as file:
            Image.fromarray(picture(1)).save(file, format="png")
    except OSError:
        pytest.skip("this file system takes text only")
    storage = FileStorage([path])
    assert storage.check(0)[1] is None
    np.testing.assert_array_equal(storage.image(tf.constant(0))[0], picture(1))


def test_bad_files_have_a_reason(tmp_path, monkeypatch, picture):
    good = tmp_path / "good.png"
    Image.fromarray(picture(1)).save(good)
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    names = ["empty.png", "text.png", "cut.png", "folder.png", "pipe.png", "broken.png"]
    names += ["circle.png", "missing.png", "null\0.png", "good.png"]
    storage = FileStorage([str(tmp_path / name) for name in names])
    reasons = [storage.check(row)[1] for row in range(len(names))]
    assert all(reasons[:-1])
    assert reasons[-1] is None
    assert reasons[3] == reasons[4] == "is not a file"
    assert reasons[5] == reasons[7] == "does not exist"
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 20)
    assert "larger" in storage.check(len(names) - 1)[1]


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, picture):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", path)

    Image.fromarray(picture(1)).save(tmp_path / "1.png")
    monkeypatch.setattr("builtins.open", refuse)
    assert FileStorage([str(tmp_path / "1.png")]).check(0)[1] == "cannot be read: Permission denied"


def test_all_pictures_are_checked_once_and_in_order(array, monkeypatch):
    seen = []
    check = ArrayStorage.check

    def watched(self, row):
        seen.append(row)
        return ("", "is bad") if row == 3 else check(self, row)

    monkeypatch.setattr(ArrayStorage, "check", watched)
    monkeypatch.setattr(sources, "ROWS_PER_JOB", 2)
    steps = []
    keys, reasons = check_pictures(array, np.array([5, 3, 1]), lambda *step: steps.append(step))
    assert sorted(seen) == [1, 3, 5]
    assert keys.tolist() == [check(array, 5)[0], "", check(array, 1)[0]]
    assert reasons == {1: "is bad"}
    assert steps == [(2, 3), (3, 3)]


def test_ctrl_c_does_not_wait_for_the_rest(array, monkeypatch):
    rows = np.zeros(10_000, np.int64)
    checked = []

    def watched(self, row):
        checked.append(row)
        return "", None

    def stop(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(ArrayStorage, "check", watched)
    with pytest.raises(KeyboardInterrupt):
        check_pictures(array, rows, stop)
    assert len(checked) < len(rows)
