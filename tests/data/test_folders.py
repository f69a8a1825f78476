"""Folders of class folders: what is found in them, passed over, and refused."""

import os

import numpy as np
import pytest

from tfsft.data.folders import list_folder, missing_folder
from tfsft.errors import UserError


def message(*words, **options):
    with pytest.raises(UserError) as caught:
        list_folder(*map(str, words), **options)
    assert caught.value.came
    assert caught.value.expected
    assert caught.value.fix
    return str(caught.value)


def test_class_folders(flowers):
    listing = list_folder(str(flowers))
    assert listing.class_names == ("roses", "tulips")
    assert listing.labels.tolist() == [0] * 10 + [1] * 20
    assert listing.ids[:2] == ["roses/0.png", "roses/1.png"]
    assert listing.ids[12] == "tulips/2.png"  # and not 10.png
    assert listing.storage.paths[0] == str(flowers / "roses" / "0.png")
    assert listing.sides is None
    assert listing.warnings == []
    assert list_folder(str(flowers) + "/").ids == listing.ids


def test_classes_are_sorted_as_people_do(write_pictures):
    for name in ["10", "9", "b", "A", "a2", "a10"]:
        folder = write_pictures(name, [1])
    assert list_folder(str(folder)).class_names == ("9", "10", "A", "a2", "a10", "b")


def test_what_is_no_picture_is_passed_over(flowers, write_pictures):
    write_pictures("roses/more/deep", [50])
    write_pictures(".hidden", [1])
    write_pictures("__MACOSX/roses", [1])
    write_pictures("roses/.ipynb_checkpoints", [1])
    for name in [".DS_Store", "._1.png", "Thumbs.db", "desktop.ini", "notes.txt", ".hidden.png"]:
        (flowers / "roses" / name).touch()
    os.mkfifo(flowers / "roses" / "pipe.png")
    listing = list_folder(str(flowers))
    assert listing.class_names == ("roses", "tulips")
    assert listing.ids[10:12] == ["roses/more/deep/0.png", "tulips/0.png"]
    assert listing.warnings == []


def test_suffixes_in_capitals_count(write_pictures):
    write_pictures("a", [1], suffix=".PNG")
    folder = write_pictures("b", [2], suffix=".JPeG")
    assert list_folder(str(folder)).ids == ["a/0.PNG", "b/0.JPeG"]


def test_unknown_files_are_counted_in_a_warning(flowers):
    for name in ["1.heic", "2.HEIC", "3.psd", "noname"]:
        (flowers / "roses" / name).touch()
    (warning,) = list_folder(str(flowers)).warnings
    assert "4 files" in warning
    assert "2 with .heic" in warning


def test_links_are_followed_but_not_in_circles(flowers, write_pictures, tmp_path):
    write_pictures("elsewhere/lilies", [1, 2])
    os.rename(tmp_path / "elsewhere", tmp_path / ".elsewhere")
    (flowers / "lilies").symlink_to(tmp_path / ".elsewhere" / "lilies")
    (tmp_path / ".elsewhere" / "lilies" / "up").symlink_to(tmp_path / ".elsewhere" / "lilies")
    (flowers / "roses" / "circle").symlink_to(flowers / "roses" / "circle")
    listing = list_folder(str(flowers))
    assert listing.ids[:2] == ["lilies/0.png", "lilies/1.png"]
    assert len(listing.ids) == 32


def test_a_broken_link_is_listed_so_that_it_can_be_named(flowers):
    (flowers / "roses" / "gone.png").symlink_to("nowhere.png")
    assert "roses/gone.png" in list_folder(str(flowers)).ids


@pytest.mark.parametrize("validation", ["validation", "val", "valid", "Val"])
def test_own_splits(write_pictures, validation):
    write_pictures("train/a", range(4))
    write_pictures("train/b", range(10, 14))
    write_pictures(f"{validation}/a", [20])
    write_pictures("test/b", [30, 31])
    folder = write_pictures("test/a", [32])
    listing = list_folder(str(folder))
    assert listing.class_names == ("a", "b")
    assert listing.sides.tolist() == [0] * 8 + [1] + [2] * 3
    assert listing.labels.tolist() == [0] * 4 + [1] * 4 + [0] + [0, 1, 1]
    assert listing.ids[8] == f"{validation}/a/0.png"


def test_a_class_called_train(write_pictures):
    write_pictures("train", range(3))
    folder = write_pictures("plane", range(5, 8))
    listing = list_folder(str(folder))
    assert listing.class_names == ("plane", "train")
    assert listing.sides is None


def test_folders_beside_splits_are_named(write_pictures):
    write_pictures("train/a", [1])
    write_pictures("train/b", [2])
    folder = write_pictures("unlabelled", [3])
    (warning,) = list_folder(str(folder)).warnings
    assert "unlabelled/" in warning


def test_splits_that_make_no_sense(write_pictures, tmp_path):
    write_pictures("one/test/a", [1])
    found = message(write_pictures("one/val/a", [1]) / "one")
    assert "no train/" in found
    write_pictures("two/train/a", [1])
    write_pictures("two/val/a", [1])
    found = message(write_pictures("two/valid/a", [1]) / "two")
    assert "val/, valid/" in found
    write_pictures("three/train/a", [1])
    write_pictures("three/train/b", [1])
    found = message(write_pictures("three/test", [1]) / "three")
    assert "three/test holds 1 pictures but no class folders" in found
    write_pictures("four/train/roses", [1])
    write_pictures("four/train/tulips", [1])
    found = message(write_pictures("four/test/rose", [1]) / "four")
    assert "'rose'" in found
    assert "Did you mean 'roses'?" in found


def test_no_class_folders(tmp_path, write_pictures):
    assert "holds no class folders" in message(tmp_path)
    assert "5 pictures but no class folders" in message(write_pictures(".", range(5)))


def test_one_class_folder(write_pictures):
    found = message(write_pictures("roses", [1]))
    assert "one class folder only: roses" in found
    write_pictures("photos/roses", [1])
    write_pictures("photos/tulips", [1])
    folder = write_pictures("more/photos/a", [1])
    write_pictures("more/photos/b", [1])
    assert f"--data {folder / 'more' / 'photos'}" in message(folder / "more")


def test_empty_classes_are_all_named(flowers):
    (flowers / "lilies").mkdir()
    (flowers / "orchids").mkdir()
    (flowers / "orchids" / "1.heic").touch()
    found = message(flowers)
    assert "2 class folders" in found
    assert "lilies" in found
    assert "orchids" in found
    assert "1 with .heic" in found


def test_pictures_beside_class_folders_are_counted(flowers, write_pictures):
    write_pictures(".", [1, 2])
    (warning,) = list_folder(str(flowers)).warnings
    assert warning.startswith("2 pictures")
    assert "0.png" in warning


def test_a_folder_that_may_not_be_read(flowers, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("tulips"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = message(flowers)
    assert "tulips" in found
    assert "permission denied" in found


def test_several_labels_and_numbers(flowers):
    listing = list_folder(str(flowers), task="multi")
    np.testing.assert_array_equal(listing.labels, np.eye(2)[[0] * 10 + [1] * 20])
    assert listing.labels.dtype == np.float32
    assert "table" in message(flowers, task="regression")


def test_classes_of_a_model(write_pictures):
    folder = write_pictures("tulips", range(3))
    listing = list_folder(str(folder), class_names=("roses", "tulips"))
    assert listing.class_names == ("roses", "tulips")
    assert listing.labels.tolist() == [1, 1, 1]
    assert "'tulips'" in message(folder, class_names=("roses", "lilies"))


def test_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "flowers").mkdir()
    found = str(missing_folder(str(tmp_path / "flower"), "a folder", "digits"))
    assert f"There is no {tmp_path / 'flower'}." in found
    assert "Did you mean 'flowers'?" in found
    found = str(missing_folder(str(tmp_path / "flower" / "train" / "roses"), "a folder", "digits"))
    assert f"There is no {tmp_path / 'flower'}." in found


def test_names_that_are_no_text(tmp_path, write_pictures):
    write_pictures("a", [1])
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/b\xff")
    try:
        os.mkdir(odd)
    except OSError:
        pytest.skip("this file system takes text only")
    write_pictures(odd, [2])
    listing = list_folder(str(tmp_path))
    assert listing.class_names == ("a", "b\\udcff")
    assert listing.ids[1].encode() == b"b\\udcff/0.png"
