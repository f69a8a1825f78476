"""From --data to splits: what is kept, what is refused, and what a person is told."""

import numpy as np
import pytest
from PIL import Image

from tfsft.data.loading import load_images
from tfsft.errors import UsageError, UserError


def message(*words, error=UserError, **options):
    with pytest.raises(error) as caught:
        load_images(*map(str, words), **options)
    assert caught.value.came
    assert caught.value.expected
    assert caught.value.fix
    return str(caught.value)


def ids(splits):
    return {name: set(source.ids) for name, source in splits.sources().items()}


def label_of(source, name):
    return source.class_names[source.labels[source.ids.index(name)]]


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits = load_digits()
    splits = load_images("digits")
    assert splits.class_names == tuple("0123456789")
    share = int(np.rint(np.bincount(digits.target) * 0.15).sum())
    sizes = [len(source) for source in splits.sources().values()]
    assert sizes == [1797 - 2 * share, share, share]
    for source in splits.sources().values():
        for position in (0, len(source) - 1):
            number = int(source.ids[position].removeprefix("digits/"))
            assert source.labels[position] == digits.target[number]
            image, ok = source.image(position)
            assert ok
            assert image.shape == (8, 8, 3)
            difference = image.numpy() / 255 - digits.images[number][..., None] / 16
            assert np.abs(difference).max() <= 0.5 / 255 + 1e-9
    assert splits.warnings == ()
    assert splits.bad == ()


def test_digits_as_numbers_and_as_several_labels():
    numbers = load_images("digits", task="regression")
    assert numbers.train.labels.dtype == np.float32
    assert numbers.class_names == ()
    several = load_images("digits", task="multi")
    assert several.train.labels.shape == (len(several.train), 10)
    assert (several.train.labels.sum(1) == 1).all()


def test_a_folder_is_split_by_class(flowers):
    splits = load_images(str(flowers))
    assert splits.class_names == ("roses", "tulips")
    counts = [np.bincount(source.labels).tolist() for source in splits.sources().values()]
    assert counts == [[6, 14], [2, 3], [2, 3]]
    assert set.union(*ids(splits).values()) == {f"roses/{n}.png" for n in range(10)} | {
        f"tulips/{n}.png" for n in range(20)
    }
    for source in splits.sources().values():
        for name in source.ids:
            assert name.startswith(label_of(source, name))
    assert splits.warnings == ()


def test_the_split_depends_on_content_and_seed_and_not_on_names(flowers, tmp_path):
    before = load_images(str(flowers))
    for folder in ("roses", "tulips"):
        for path in (flowers / folder).iterdir():
            path.rename(path.with_name(f"renamed-{99 - int(path.stem)}.png"))
    after = load_images(str(flowers))
    for name, source in before.sources().items():
        assert set(source.keys) == set(after.sources()[name].keys)
    assert ids(load_images(str(flowers), seed=1)) != ids(after)


def test_the_fingerprint_stands_for_pictures_labels_and_splits(flowers, picture):
    first = load_images(str(flowers)).fingerprint
    assert first == load_images(str(flowers)).fingerprint
    assert len(first) == 32
    others = {load_images(str(flowers), seed=1).fingerprint}
    (flowers / "roses").rename(flowers / "rosa")
    others.add(load_images(str(flowers)).fingerprint)
    Image.fromarray(picture(999)).save(flowers / "rosa" / "1.png")
    others.add(load_images(str(flowers)).fingerprint)
    assert len(others | {first}) == 4


def test_all_splits_together(flowers):
    splits = load_images(str(flowers))
    everything = splits.everything()
    assert len(everything) == 30
    for row, name in enumerate(everything.ids):
        assert name.startswith(label_of(everything, name))
        pixels = np.asarray(Image.open(flowers / name))
        np.testing.assert_array_equal(everything.image(row)[0], pixels)


def test_fractions_of_zero(flowers):
    assert load_images(str(flowers), test_fraction=0).test is None
    splits = load_images(str(flowers), validation_fraction=0, test_fraction=0)
    assert splits.validation is splits.test is None
    assert len(splits.train) == 30


def test_own_splits_are_kept_and_missing_validation_is_made(write_pictures):
    write_pictures("train/a", range(20))
    write_pictures("train/b", range(20, 40))
    write_pictures("test/a", range(40, 43))
    folder = write_pictures("test/b", range(43, 45))
    splits = load_images(str(folder))
    assert len(splits.test) == 5
    assert all(name.startswith("test/") for name in splits.test.ids)
    assert np.bincount(splits.validation.labels).tolist() == [3, 3]
    assert all(name.startswith("train/") for name in splits.validation.ids)
    assert len(splits.train) == 34
    assert load_images(str(folder), validation_fraction=0).validation is None

    write_pictures("valid/a", range(50, 52))
    write_pictures("valid/b", range(52, 54))
    splits = load_images(str(folder))
    assert [len(source) for source in splits.sources().values()] == [40, 4, 5]


def test_own_train_alone_gets_no_test(write_pictures):
    write_pictures("train/a", range(20))
    folder = write_pictures("train/b", range(20, 40))
    splits = load_images(str(folder))
    assert splits.test is None
    assert len(splits.validation) == 6


def test_a_table(flowers):
    lines = [f"{name}/{number}.png,{name}" for name in ("roses", "tulips") for number in range(10)]
    (flowers / "table.csv").write_text("\n".join(["path,label", *lines]))
    splits = load_images(str(flowers / "table.csv"))
    assert sum(map(len, splits.sources().values())) == 20
    assert splits.class_names == ("roses", "tulips")


def test_groups_stay_on_one_side(flowers):
    lines = [
        f"{name}/{number}.png,{name},p{number % 5}"
        for name in ("roses", "tulips")
        for number in range(10)
    ]
    (flowers / "table.csv").write_text("\n".join(["path,label,patient", *lines]))
    splits = load_images(str(flowers / "table.csv"), group_column="patient")
    groups = [set(source.groups) for source in splits.sources().values()]
    assert set.union(*groups) == {f"p{number}" for number in range(5)}
    assert sum(map(len, groups)) == 5


def test_numbers_from_a_table(flowers):
    lines = [f"tulips/{number}.png,{number / 2}" for number in range(20)]
    (flowers / "table.csv").write_text("\n".join(["path,height", *lines]))
    splits = load_images(str(flowers / "table.csv"), task="regression")
    assert splits.class_names == ()
    assert splits.train.labels.dtype == np.float32
    for source in splits.sources().values():
        for name, label in zip(source.ids, source.labels, strict=True):
            assert name == f"tulips/{int(label * 2)}.png"


def spoil(folder, numbers):
    for number in numbers:
        (folder / "tulips" / f"{number}.png").write_bytes(b"")


def test_bad_pictures_stop(flowers):
    spoil(flowers, [3, 4, 5, 6, 7, 8, 9])
    found = message(flowers)
    assert "7 of 30 pictures" in found
    assert "tulips/3.png is empty" in found
    assert "tulips/7.png is empty" in found
    assert "tulips/8.png" not in found
    assert "2 more" in found
    assert "--on-bad skip" in found


def test_bad_pictures_are_skipped_and_listed(flowers):
    spoil(flowers, [3, 4])
    splits = load_images(str(flowers), on_bad="skip")
    assert [example.id for example in splits.bad] == ["tulips/3.png", "tulips/4.png"]
    assert all(example.reason for example in splits.bad)
    found = set.union(*ids(splits).values())
    assert len(found) == sum(map(len, splits.sources().values())) == 28
    assert "tulips/3.png" not in found
    for source in splits.sources().values():  # nothing has taken another's place
        for row, name in enumerate(source.ids):
            expected = np.asarray(Image.open(flowers / name))
            np.testing.assert_array_equal(source.image(row)[0], expected)


def test_many_bad_pictures_stop_even_when_skipped(flowers):
    spoil(flowers, [3, 4, 5])
    load_images(str(flowers), on_bad="skip")  # one in ten
    spoil(flowers, [6])
    assert "4 of 30" in message(flowers, on_bad="skip")
    assert len(load_images(str(flowers), on_bad="list").bad) == 4


def test_a_class_with_too_few_pictures_is_named(flowers, write_pictures):
    write_pictures("lilies", [500, 501])
    write_pictures("orchids", [600])
    found = message(flowers)
    assert "lilies (2), orchids (1)" in found
    assert "At least 3" in found
    assert "lilies (2)" not in message(flowers, test_fraction=0)
    found = load_images(str(flowers), test_fraction=0, validation_fraction=0)
    assert len(found.class_names) == 4


def test_copies_do_not_count_for_the_splits(flowers, write_pictures):
    write_pictures("lilies", [500, 500, 501, 501])
    assert "lilies (2)" in message(flowers)


def test_all_labels_the_same(flowers):
    (flowers / "table.csv").write_text("path,label\ntulips/1.png,a\ntulips/2.png,a\n")
    assert "At least two classes" in message(flowers / "table.csv")


def test_no_training_pictures(flowers):
    (flowers / "table.csv").write_text(
        "path,label,split\ntulips/1.png,a,test\nroses/2.png,b,test\n"
    )
    assert "no training pictures" in message(flowers / "table.csv")


def test_a_limit_is_quick_and_keeps_every_class(write_pictures, monkeypatch):
    from tfsft.data.sources import FileStorage

    write_pictures("a", range(100))
    write_pictures("b", range(100, 140))
    folder = write_pictures("c", range(200, 203))
    opened = []
    check = FileStorage.check
    monkeypatch.setattr(
        FileStorage, "check", lambda self, row: opened.append(row) or check(self, row)
    )
    splits = load_images(str(folder), limit=29)
    assert len(opened) == 31
    labels = np.concatenate([source.labels for source in splits.sources().values()])
    assert np.bincount(labels).tolist() == [20, 8, 3]
    assert ids(splits) == ids(load_images(str(folder), limit=29))
    assert ids(load_images(str(folder), limit=143)) == ids(load_images(str(folder)))


def test_a_limit_with_own_splits(write_pictures):
    for split, first, count in [("train", 0, 40), ("val", 100, 20), ("test", 200, 20)]:
        write_pictures(f"{split}/a", range(first, first + count))
        folder = write_pictures(f"{split}/b", range(first + 500, first + 500 + count))
    splits = load_images(str(folder), limit=40)
    assert [len(source) for source in splits.sources().values()] == [20, 10, 10]


def test_progress_is_told(flowers):
    steps = []
    load_images(str(flowers), progress=lambda *step: steps.append(step))
    assert steps[-1] == (30, 30)


def test_the_same_picture_under_two_classes_is_named(flowers, write_pictures):
    write_pictures("roses", [100], first=10)  # tulips/0.png
    splits = load_images(str(flowers))
    (warning,) = splits.warnings
    assert "roses/10.png (roses) and tulips/0.png (tulips)" in warning
    sides = [
        name for name, found in ids(splits).items() if {"roses/10.png", "tulips/0.png"} & found
    ]
    assert len(sides) == 1


def test_skew_is_told(write_pictures):
    write_pictures("a", range(130))
    folder = write_pictures("b", range(200, 206))
    (warning,) = load_images(str(folder)).warnings  # 90 to 4
    assert "--class-weight balanced" in warning
    assert "a has" in warning
    write_pictures("b", range(206, 220), first=6)
    assert load_images(str(folder)).warnings == ()


def test_class_names_that_look_the_same_are_told(write_pictures):
    for start, name in enumerate(["Cat", "cat", "dog", "do g"]):
        folder = write_pictures(name, range(10 * start, 10 * start + 5))
    cats, dogs = load_images(str(folder)).warnings
    assert "'Cat' and 'cat'" in cats
    assert "'do g' and 'dog'" in dogs


def test_duplicates_across_own_splits_are_told(write_pictures):
    write_pictures("train/a", range(10))
    write_pictures("train/b", range(10, 20))
    write_pictures("test/a", [3, 4, 30])
    folder = write_pictures("test/b", [31])
    warnings = load_images(str(folder)).warnings
    (leak,) = (warning for warning in warnings if "more than one split" in warning)
    assert leak.startswith("2 examples")
    assert "train/a/3.png" in leak
    assert "= test/a/0.png (test)" in leak


def test_groups_across_own_splits_are_told(flowers):
    lines = [
        f"tulips/{n}.png,{'ab'[n % 2]},p{n // 4},{'train' if n < 14 else 'test'}" for n in range(20)
    ]
    (flowers / "table.csv").write_text("\n".join(["path,label,patient,split", *lines]))
    warnings = load_images(str(flowers / "table.csv"), group_column="patient").warnings
    assert any(warning == "1 groups are in more than one split: p3." for warning in warnings)


def test_classes_missing_from_a_split_are_told(write_pictures):
    write_pictures("train/a", range(10))
    write_pictures("train/b", range(10, 20))
    folder = write_pictures("test/a", [30])
    assert load_images(str(folder)).warnings == ("No test examples of b.",)


def test_classes_of_a_model(flowers):
    names = ("tulips", "lilies", "roses")
    splits = load_images(str(flowers), class_names=names, validation_fraction=0, test_fraction=0)
    assert splits.class_names == names
    assert np.bincount(splits.train.labels).tolist() == [20, 0, 10]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("flowerz", ["There is no flowerz", "Did you mean 'flowers'?"]),
        ("flowers/table.csb", ["There is no", "Did you mean 'table.csv'?"]),
        ("digit", ["Did you mean 'digits'?"]),
        ("flowers/roses/0.png", ["single picture", "Give the folder above"]),
        ("flowers/archive.zip", ["unknown kind", "Unpack"]),
        ("flowers/roses", ["10 pictures but no class folders"]),
    ],
)
def test_data_that_is_none(tmp_path, write_pictures, monkeypatch, data, words):
    monkeypatch.chdir(tmp_path)
    write_pictures("flowers/roses", range(10))
    for name in ("archive.zip", "table.csv"):
        (tmp_path / "flowers" / name).touch()
    found = message(data)
    assert all(word in found for word in words)


def test_permission_denied(tmp_path, monkeypatch):
    def refuse(path, *words, **options):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.stat", refuse)
    assert "permission denied" in message(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_bad": "skp"}, ["'skp'", "Did you mean 'skip'?"]),
        ({"task": "several"}, ["'several'", "single, multi, regression"]),
        ({"limit": 0}, ["--limit 0"]),
        ({"test_fraction": 1.5}, ["--test-fraction 1.5"]),
        ({"validation_fraction": 0.6, "test_fraction": 0.5}, ["leave nothing"]),
        ({"tfds_dir": "x"}, ["--tfds-dir"]),
        ({"label_column": "x"}, ["--label-column x"]),
        ({"group_column": "x"}, ["--group-column x"]),
    ],
)
def test_arguments_out_of_range(flowers, options, words):
    found = message(flowers, error=UsageError, **options)
    assert all(word in found for word in words)


def test_a_folder_called_digits_is_not_taken_silently(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (warning,) = load_images("digits", limit=100).warnings
    assert "./digits" in warning
