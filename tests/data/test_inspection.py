"""What `tfsft check` can say about pictures."""

import numpy as np
import pytest
from PIL import Image

from tfsft.data.inspection import difference_hash, inspect_images
from tfsft.data.loading import load_images


def test_a_clean_data_set_has_no_problems(write_pictures):
    write_pictures("a", range(30), size=(40, 50))
    folder = write_pictures("b", range(100, 130), size=(60, 70))
    steps = []
    found = inspect_images(load_images(str(folder)), progress=lambda *step: steps.append(step))
    assert found.problems() == []
    assert found.counts == {
        "train": {"a": 22, "b": 22},
        "validation": {"a": 4, "b": 4},
        "test": {"a": 4, "b": 4},
    }
    assert found.skew == 1.0
    assert found.sampled == 60
    assert found.sizes[0] == (50, 40)
    assert found.sizes[1] in [(50, 40), (70, 60)]
    assert found.sizes[2] == (70, 60)
    assert found.grey_share == 0.0
    assert steps[-1] == (60, 60)


def test_everything_that_can_be_wrong(write_pictures, tmp_path, picture):
    write_pictures("train/a", [*range(40), 0, 0], size=(40, 40))  # two copies of 0
    write_pictures("train/A", range(100, 105), size=(40, 40))
    write_pictures("test/a", [1, 2, 300], size=(40, 40))  # two leaks
    folder = write_pictures("test/A", [301], size=(20, 90))
    (tmp_path / "train" / "a" / "5.png").write_bytes(b"")
    grey = np.repeat(picture(400, (40, 40))[..., :1], 3, -1)
    Image.fromarray(grey[..., 0]).save(tmp_path / "test" / "a" / "grey.png")
    smaller = Image.fromarray(picture(104, (8, 9))).resize((270, 240), Image.Resampling.NEAREST)
    smaller.save(tmp_path / "train" / "A" / "9.png")
    smaller.resize((128, 128)).save(tmp_path / "test" / "A" / "9.jpg", quality=70)

    splits = load_images(str(folder), on_bad="skip", validation_fraction=0)
    found = inspect_images(splits)
    assert found.counts == {"train": {"A": 6, "a": 41}, "test": {"A": 2, "a": 4}}
    assert [example.id for example in found.bad] == ["train/a/5.png"]
    assert found.duplicates == (("train/a/0.png", "train/a/40.png", "train/a/41.png"),)
    assert found.leaks == (
        ("train/a/1.png", "test/a/0.png"),
        ("train/a/2.png", "test/a/1.png"),
    )
    (pair,) = found.near_duplicates
    assert (pair.first, pair.second) == ("train/A/9.png", "test/A/9.jpg")
    assert (pair.first_split, pair.second_split) == ("train", "test")
    assert found.skew == pytest.approx(41 / 6)
    assert found.near_empty == {"A": 6}
    assert found.sampled == 53
    assert found.grey_share == pytest.approx(1 / 53)
    assert found.sizes == ((40, 40), (40, 40), (270, 240))
    text = "\n".join(found.problems())
    for part in [
        "1 pictures cannot be used: train/a/5.png",
        "'A' and 'a' differ only by case",
        "2 examples are in more than one split",
        "2 pictures are exact copies in the same split",
        "1 pairs of pictures in different splits look almost the same: train/A/9.png",
        "fewer than 10 training examples: A (6)",
    ]:
        assert part in text
    assert len(found.problems()) == 6


def test_a_sample_is_bounded_and_the_same_every_time(write_pictures):
    write_pictures("a", range(30), size=(40, 40))
    folder = write_pictures("b", range(100, 130), size=(10, 10))
    splits = load_images(str(folder))
    first = inspect_images(splits, sample=5)
    assert first.sampled == 15
    assert first == inspect_images(splits, sample=5)
    assert any("10 x 10" in problem for problem in first.problems())


def test_small_or_empty_pictures_are_not_taken_for_each_other():
    found = inspect_images(load_images("digits", limit=600))
    assert found.near_duplicates == ()
    assert found.grey_share == 1.0
    assert found.sizes == ((8, 8),) * 3


def test_pictures_of_one_colour_are_not_taken_for_each_other(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for level in range(10):
            colour = (20 * level, 9, 90 if name == "a" else 50)
            Image.new("RGB", (64, 64), colour).save(tmp_path / name / f"{level}.png")
    assert inspect_images(load_images(str(tmp_path))).near_duplicates == ()


def test_several_labels_and_numbers():
    several = inspect_images(load_images("digits", task="multi", limit=200), sample=5)
    assert sum(several.counts["train"].values()) > 100
    numbers = inspect_images(load_images("digits", task="regression", limit=200), sample=5)
    assert numbers.counts["train"].keys() == {""}
    assert numbers.near_empty == {}


def test_the_difference_hash():
    ramp = np.repeat(np.arange(0, 252, 28, dtype=np.uint8)[None, :, None], 8, 0).repeat(3, -1)
    assert difference_hash(ramp).all()
    assert not difference_hash(ramp[:, ::-1]).any()
    step = ramp.copy()
    step[2, 4:] = 0  # darker to the right once, then level
    expected = np.ones((8, 8), bool)
    expected[2, 3:] = False
    np.testing.assert_array_equal(difference_hash(step).reshape(8, 8), expected)
    large = step.repeat(10, 0).repeat(10, 1)
    np.testing.assert_array_equal(difference_hash(large), difference_hash(step))
