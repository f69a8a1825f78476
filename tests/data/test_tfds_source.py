"""Data sets of tensorflow-datasets: a small real one is prepared, and read back."""

import errno
import os
import shutil
import sys

import numpy as np
import pytest

from tfsft.data import tfds_source
from tfsft.data.loading import load_images
from tfsft.data.tfds_source import list_tfds
from tfsft.errors import UsageError, UserError

COUNTS = {"train": 12, "validation": 4, "test": 4}


def pixels(split, row):
    return np.random.default_rng([len(split), row]).integers(0, 256, (9, 11, 3), np.uint8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with two prepared data sets, which only tensorflow-datasets' files describe."""
    import tensorflow_datasets as tfds

    class TinyPictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Random pictures."""

        VERSION = tfds.core.Version("1.2.3")
        BUILDER_CONFIGS = [  # noqa: RUF012
            tfds.core.BuilderConfig(name="full", description="With all splits."),
            tfds.core.BuilderConfig(name="alone", description="With train only."),
        ]

        def _info(self):
            label = tfds.features.ClassLabel(names=["zebra", "ant"])
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "id": tfds.features.Text(),
                        "image": tfds.features.Image(shape=(None, None, 3)),
                        "label": label,
                        "tags": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=3)),
                        "age": np.float32,
                        "owner": tfds.features.Text(),
                    }
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, manager):
            counts = COUNTS if self.builder_config.name == "full" else {"train": 12}
            return {split: self._generate_examples(split, n) for split, n in counts.items()}

        def _generate_examples(self, split, count):
            for row in range(count):
                yield (
                    f"{row:03d}",
                    {
                        "id": f"{split} {row}",
                        "image": pixels(split, row),
                        "label": -1 if split == "test" and row == 3 else row % 2,
                        "tags": [row % 3, 2],
                        "age": row / 2,
                        "owner": f"owner {row // 4}",
                    },
                )

    class NoPictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Text alone."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"text": "x"}

    folder = str(tmp_path_factory.mktemp("tfds"))
    for config in ("full", "alone"):
        TinyPictures(config=config, data_dir=folder).download_and_prepare()
    NoPictures(data_dir=folder).download_and_prepare()
    return folder


def message(*words, error=UserError, **options):
    with pytest.raises(error) as caught:
        list_tfds(*words, **options)
    assert caught.value.came
    assert caught.value.expected
    assert caught.value.fix
    return str(caught.value)


def by_pixels(source):
    """What each picture of a source is, found by its pixels: (split, row)."""
    known = {pixels(split, row).tobytes(): (split, row) for split in COUNTS for row in range(12)}
    return [known[source.image(row)[0].numpy().tobytes()] for row in range(len(source))]


def test_own_splits_labels_and_pixels(prepared):
    splits = load_images("tfds:tiny_pictures:full", tfds_dir=prepared)
    assert splits.class_names == ("zebra", "ant")
    for name, source in splits.sources().items():
        rows = by_pixels(source)
        assert {split for split, _ in rows} == {name}
        assert source.labels.tolist() == [row % 2 for _, row in rows]
        assert sorted(row for _, row in rows) == list(range(COUNTS[name] - (name == "test")))
    assert splits.train.ids[:2] == ["tiny_pictures/train/0", "tiny_pictures/train/1"]
    assert (
        "1 pictures of tfds:tiny_pictures:full have no label and were not used." in splits.warnings
    )


def test_a_data_set_with_train_alone_is_split(prepared):
    splits = load_images("tfds:tiny_pictures:alone", tfds_dir=prepared)
    assert [len(source) for source in splits.sources().values()] == [8, 2, 2]


def test_several_labels_and_numbers_and_groups(prepared):
    listing = list_tfds("tfds:tiny_pictures:alone", tfds_dir=prepared, task="multi")
    assert listing.class_names == ("0", "1", "2")
    assert sorted(map(tuple, listing.labels.tolist())) == sorted(
        (float(row % 3 == 0), float(row % 3 == 1), 1.0) for row in range(12)
    )
    splits = load_images(
        "tfds:tiny_pictures:alone", tfds_dir=prepared, task="regression", group_column="owner"
    )
    for source in splits.sources().values():
        rows = [row for _, row in by_pixels(source)]
        assert source.labels.tolist() == [row / 2 for row in rows]
        assert source.groups.tolist() == [f"owner {row // 4}" for row in rows]


def test_the_copy_is_made_once_and_where_it_belongs(prepared, cache, monkeypatch):
    first = list_tfds("tfds:tiny_pictures:full", tfds_dir=prepared)
    (folder,) = (cache / "tfds").iterdir()  # and nothing half made beside it
    assert sorted(path.name for path in folder.iterdir()) == ["examples.parquet", "pictures.bin"]
    monkeypatch.setattr(tfds_source, "_copy", None)
    again = list_tfds("tfds:tiny_pictures:full", tfds_dir=prepared)
    assert again.ids == first.ids
    assert again.storage.check(3) == first.storage.check(3)


def test_a_data_set_that_was_prepared_anew_is_copied_anew(prepared, cache, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(prepared, folder)
    list_tfds("tfds:tiny_pictures:full", tfds_dir=str(folder))
    for path in folder.rglob("*.tfrecord*"):
        os.utime(path, (1, 1))
    list_tfds("tfds:tiny_pictures:full", tfds_dir=str(folder))
    assert len(list((cache / "tfds").iterdir())) == 2


def test_the_folder_of_the_data_set_itself(prepared):
    folder = os.path.join(prepared, "tiny_pictures", "full", "1.2.3")
    assert len(list_tfds("tfds:tiny_pictures", tfds_dir=folder).ids) == 19
    assert len(list_tfds("tfds:tiny_pictures/full:1.2.3", tfds_dir=prepared).ids) == 19


def test_classes_of_a_model(prepared):
    names = ("ant", "bee", "zebra")
    listing = list_tfds("tfds:tiny_pictures:alone", tfds_dir=prepared, class_names=names)
    assert listing.class_names == names
    assert set(listing.labels.tolist()) == {0, 2}
    found = message("tfds:tiny_pictures:alone", tfds_dir=prepared, class_names=("ant", "zebras"))
    assert "Did you mean 'zebras'?" in found


def test_data_sets_without_pictures_or_labels(prepared):
    found = message("tfds:no_pictures", tfds_dir=prepared)
    assert "text (Text)" in found
    assert "An Image and a label" in found
    found = message("tfds:tiny_pictures:full", tfds_dir=prepared, label_column="owner")
    assert "label (ClassLabel)" in found
    assert "owner (Text)" in found
    message("tfds:tiny_pictures:full", tfds_dir=prepared, group_column="nobody")


def test_names_that_are_unknown(prepared):
    found = message("tfds:tiny_picture", tfds_dir=prepared)
    assert "Did you mean 'tiny_pictures'?" in found
    assert "Did you mean 'tf_flowers'?" in message("tfds:tf_flower", tfds_dir=prepared)
    message("tfds:", error=UsageError)


def test_a_data_set_that_cannot_be_downloaded(tmp_path, monkeypatch):
    """A machine without network is told so at once, and what to do."""

    def no_network(*words):
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    found = message("tfds:tf_flowers", tfds_dir=str(tmp_path))
    assert "not prepared" in found
    assert "no network" in found
    assert "--tfds-dir" in found
    assert str(tmp_path) in found


def test_no_space_for_the_copy(prepared, cache, monkeypatch):
    def full(*words):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tfds_source, "_copy", full)
    found = message("tfds:tiny_pictures:full", tfds_dir=prepared)
    assert "No space left" in found
    assert "TFSFT_CACHE" in found
    assert list((cache / "tfds").iterdir()) == []


def test_another_process_makes_the_same_copy(prepared, cache, monkeypatch):
    copy = tfds_source._copy

    def overtaken(folder, *words):
        copy(folder, *words)
        name = sys._getframe(2).f_locals["folder"]
        shutil.copytree(folder, name)

    monkeypatch.setattr(tfds_source, "_copy", overtaken)
    assert len(list_tfds("tfds:tiny_pictures:full", tfds_dir=prepared).ids) == 19
    assert len(list((cache / "tfds").iterdir())) == 1
