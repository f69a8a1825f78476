"""Pictures become the same batches whether decoded once or on the way; bad ones weigh nothing."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from stateful import stateful_operations

from tfsft.data import Augmenter, ImageFeed, ImageSource
from tfsft.data.image_feed import explain_unreadable
from tfsft.data.pipeline import as_planned
from tfsft.data.sources import FileStorage
from tfsft.errors import UserError

SIZE = 16


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for i in range(25):
        pixels = random.integers(0, 255, (20 + i, 30, 3)).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.{('png', 'jpg')[i % 2]}")
    return tmp_path


def source_of(folder):
    paths = sorted(str(path) for path in folder.iterdir())
    labels = np.arange(len(paths)) % 3
    keys = np.array([str(i) for i in range(len(paths))])
    names = ("a", "b", "c")
    return ImageSource(FileStorage(paths), np.arange(len(paths)), paths, labels, names, keys)


def batches(pipeline, epoch=0, start=0):
    return [[np.asarray(part) for part in batch] for batch in pipeline.epoch(epoch, start)]


def assert_same(first, second):
    assert len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("names", ["none", "flip,crop", "flip,mixup"])
def test_decoded_once_equals_decoded_on_the_way(folder, names):
    source = source_of(folder)
    augmenter = Augmenter(names, SIZE) if names != "none" else None
    options = {"seed": 3, "shuffle": True, "augmenter": augmenter}
    once = ImageFeed(source, SIZE).pipeline(8, **options)
    on_the_way = ImageFeed(source, SIZE, memory=0).pipeline(8, **options)
    assert_same(batches(once, 1), batches(on_the_way, 1))


def test_no_pictures_make_no_batches(folder):
    assert batches(ImageFeed(source_of(folder).subset(np.arange(0)), SIZE).pipeline(8)) == []


def test_a_bad_picture_is_refused_each_time(folder):
    (folder / "00.png").write_bytes(b"no picture")
    feed = ImageFeed(source_of(folder), SIZE)
    for _ in range(2):
        with pytest.raises(UserError, match="1 of 25 pictures cannot be decoded"):
            feed.pipeline(8).epoch()


@pytest.mark.parametrize(
    ("names", "memory"),
    [("none", 0), ("none", 2 << 30), ("flip,rotation,crop,color,mixup", 0), ("randaugment", 0)],
)
def test_nothing_keeps_it_from_working_in_parallel(folder, names, memory):
    """Where operations are deterministic, TensorFlow lets data sets with a state do so."""
    augmenter = Augmenter(names, SIZE) if names != "none" else None
    feed = ImageFeed(source_of(folder), SIZE, memory=memory)
    assert stateful_operations(feed.pipeline(8, augmenter=augmenter).epoch()) == set()
    decoding = as_planned(tf.data.Dataset.range(3).map(feed._read, num_parallel_calls=2))
    assert stateful_operations(decoding) == set()


@pytest.mark.parametrize(
    ("names", "memory"), [("none", 2 << 30), ("flip,crop", 0), ("flip,mixup", 0)]
)
def test_the_parts_of_a_batch_are_the_whole(folder, names, memory):
    """What several workers see, with the same augmentation and mixing as one alone."""
    augmenter = Augmenter(names, SIZE) if names != "none" else None
    feed = ImageFeed(source_of(folder), SIZE, memory=memory)
    pipeline = feed.pipeline(8, seed=3, shuffle=True, augmenter=augmenter)
    parts = [[[np.asarray(x) for x in b] for b in pipeline.epoch(1, 1, (i, 4))] for i in range(4)]
    joined = [
        [np.concatenate(arrays) for arrays in zip(*step, strict=True)]
        for step in zip(*parts, strict=True)
    ]
    assert parts[0][0][0].shape[0] == 2
    assert_same(joined, batches(pipeline, 1, 1))


@pytest.mark.parametrize("names", ["none", "flip,crop,cutmix"])
def test_an_epoch_can_start_anywhere(folder, names):
    augmenter = Augmenter(names, SIZE) if names != "none" else None
    pipeline = ImageFeed(source_of(folder), SIZE).pipeline(8, shuffle=True, augmenter=augmenter)
    whole = batches(pipeline, 5)
    for start in (1, 3):
        assert_same(batches(pipeline, 5, start), whole[start:])


def test_batches_are_the_pictures_of_the_plan(folder):
    """Against Pillow and NumPy: PNG pictures of the network's size arrive unchanged."""
    for path in folder.iterdir():
        with Image.open(path) as image:
            pixels = np.asarray(image.resize((SIZE, SIZE)))
        path.unlink()
        Image.fromarray(pixels).save(path.with_suffix(".png"))
    source = source_of(folder)
    pipeline = ImageFeed(source, SIZE).pipeline(8, seed=1, shuffle=True)
    rows, weights = pipeline.plan.epoch(4)
    for step, (images, targets, batch_weights) in enumerate(batches(pipeline, 4)):
        for image, target, row in zip(images, targets, rows[step], strict=True):
            np.testing.assert_array_equal(image, np.asarray(Image.open(source.ids[row])))
            assert target.argmax() == source.labels[row]
            assert target.sum() == 1
        np.testing.assert_array_equal(batch_weights, weights[step])


def test_weights_multiply(folder):
    source = source_of(folder)
    weights = np.linspace(1, 2, len(source)).astype("float32")
    pipeline = ImageFeed(source, SIZE).pipeline(8, weights=weights)
    found = np.concatenate([w for _, _, w in batches(pipeline)])
    np.testing.assert_array_equal(found[: len(source)], weights)
    assert not found[len(source) :].any()


def damage(path):
    """Breaks the picture data and leaves header and end: only decoding tells."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(bytes(content))


def test_a_picture_that_cannot_be_decoded_weighs_nothing(folder):
    before = batches(ImageFeed(source_of(folder), SIZE).pipeline(8))
    damage(folder / "04.png")
    for memory in (1 << 30, 0):
        feed = ImageFeed(source_of(folder), SIZE, memory=memory, on_bad="skip")
        after = batches(feed.pipeline(8))
        weights = np.concatenate([w for _, _, w in after])
        assert np.flatnonzero(weights[:25] == 0).tolist() == [4]
        others = np.arange(32) != 4
        images = [np.concatenate([x for x, _, _ in some])[others] for some in (before, after)]
        np.testing.assert_array_equal(*images)


def test_a_picture_that_cannot_be_decoded_stops_with_its_name(folder):
    damage(folder / "04.png")
    with pytest.raises(UserError, match=r"1 of 25 pictures cannot be decoded: .*04\.png"):
        batches(ImageFeed(source_of(folder), SIZE).pipeline(8))
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        batches(ImageFeed(source_of(folder), SIZE, memory=0).pipeline(8))
    explained = explain_unreadable(raised.value)
    assert str(folder / "04.png") in explained.came


def test_more_than_one_bad_picture_in_ten_stops_anyway(folder):
    for i in (0, 2, 4):
        damage(folder / f"{i:02}.png")
    with pytest.raises(UserError, match="3 of 25"):
        batches(ImageFeed(source_of(folder), SIZE, on_bad="skip").pipeline(8))


def test_numbers_are_columns(folder):
    source = source_of(folder)
    source.class_names, source.labels = (), np.linspace(0, 1, 25).astype("float32")
    _, targets, _ = batches(ImageFeed(source, SIZE).pipeline(8))[0]
    np.testing.assert_array_equal(targets, source.labels[:8, None])
