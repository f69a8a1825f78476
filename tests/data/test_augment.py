import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_image

from tfsft.data import augment
from tfsft.data.augment import AUGMENTATIONS, PER_IMAGE, Augmenter
from tfsft.errors import UsageError

SIZE = 32
PHOTO = np.asarray(Image.fromarray(load_sample_image("flower.jpg")).resize((SIZE, SIZE)))


def seeds(count, second=0):
    return np.array([[number, second] for number in range(count)], np.int32)


def augmented(names, count, second=0, **options):
    """The photo under many seeds, through tf.data."""
    augmenter = Augmenter(names, SIZE, **options)
    dataset = tf.data.Dataset.from_tensor_slices(seeds(count, second))
    dataset = dataset.map(lambda seed: augmenter.image(tf.constant(PHOTO), seed), tf.data.AUTOTUNE)
    return np.stack(list(dataset.as_numpy_iterator()))


# Names


@pytest.mark.parametrize("names", ["none", "", " none "])
def test_no_augmentation(names):
    augmenter = Augmenter(names, SIZE)
    assert augmenter.names == ()
    assert not augmenter.mixes
    np.testing.assert_array_equal(augmenter.image(PHOTO, [1, 2]), PHOTO)
    labels = np.eye(2, dtype=np.float32)
    images, mixed = augmenter.batch(np.stack([PHOTO, PHOTO]), labels, np.ones(2), [1, 2])
    assert images.shape == (2, SIZE, SIZE, 3)
    np.testing.assert_array_equal(mixed, labels)


def test_names():
    augmenter = Augmenter("flip, mixup", SIZE)
    assert augmenter.names == ("flip", "mixup")
    assert augmenter.mixes
    assert not Augmenter(",".join(PER_IMAGE), SIZE).mixes


def test_a_wrong_name_is_told_the_right_one():
    with pytest.raises(UsageError, match="Did you mean 'rotation'"):
        Augmenter("flip,rotaton", SIZE)
    with pytest.raises(UsageError, match="named twice"):
        Augmenter("flip,crop,flip", SIZE)
    with pytest.raises(UsageError, match="no augmentation 'none'"):
        Augmenter("flip,none", SIZE)


# One picture


@pytest.mark.parametrize("name", PER_IMAGE)
def test_a_picture_is_a_function_of_the_seed(name):
    images = augmented(name, 40)
    np.testing.assert_array_equal(images, augmented(name, 40))
    assert len(np.unique(images, axis=0)) == (2 if name == "flip" else 40) or name == "randaugment"
    assert len(np.unique(np.concatenate([images, augmented(name, 40, 1)]), axis=0)) > 1
    augmenter = Augmenter(name, SIZE)
    for seed in (3, 8):
        np.testing.assert_array_equal(augmenter.image(PHOTO, [seed, 0]), images[seed])


def test_both_halves_of_the_seed_count():
    assert not np.array_equal(augmented("crop", 5, 0), augmented("crop", 5, 1))


def test_types_and_shapes_in_a_pipeline():
    augmenter = Augmenter(",".join(AUGMENTATIONS), SIZE)
    dataset = tf.data.Dataset.from_tensor_slices(seeds(8))
    dataset = dataset.map(lambda seed: (augmenter.image(tf.constant(PHOTO), seed), seed[0] % 3))
    dataset = dataset.batch(4, drop_remainder=True)
    dataset = dataset.map(
        lambda images, labels: augmenter.batch(images, tf.one_hot(labels, 3), tf.ones(4), [1, 2])
    )
    images, labels = dataset.element_spec
    assert images == tf.TensorSpec([4, SIZE, SIZE, 3], tf.uint8)
    assert labels == tf.TensorSpec([4, 3], tf.float32)
    assert len(list(dataset)) == 2


def test_flip_mirrors_half_of_the_pictures():
    images = augmented("flip", 200)
    mirrored = (images == PHOTO[:, ::-1]).all((1, 2, 3))
    assert ((images == PHOTO).all((1, 2, 3)) ^ mirrored).all()
    assert 70 <= mirrored.sum() <= 130


def test_adding_one_augmentation_does_not_change_the_others():
    flip, both = augmented("flip", 20), augmented("crop,flip", 20)
    crop = augmented("crop", 20)
    unflipped = (flip == PHOTO).all((1, 2, 3))
    np.testing.assert_array_equal(both[unflipped], crop[unflipped])
    assert (both[~unflipped] != crop[~unflipped]).any((1, 2, 3)).all()


def gradient(axis):
    """A picture that tells each pixel's place along an axis, finely enough to read it back."""
    ramp = np.linspace(40, 215, 256)
    return np.broadcast_to(ramp[:, None, None] if axis == 0 else ramp[None, :, None], [256, 256, 3])


def test_crops_keep_half_to_all_of_the_picture_in_modest_shapes():
    augmenter = Augmenter("crop", 256)
    per_pixel = (215 - 40) / 255
    areas = []
    for seed in seeds(60):
        shares = []
        for axis in (0, 1):
            image = augmenter.image(gradient(axis).astype(np.uint8), seed).numpy().astype(float)
            line = image[:, 128, 0] if axis == 0 else image[128, :, 0]
            slope = np.polyfit(np.arange(246), line[5:-5], 1)[0]
            shares.append(slope / per_pixel)
            assert line.min() >= 39
            assert line.max() <= 215
        areas.append(shares[0] * shares[1])
        assert 0.745 <= shares[1] / shares[0] <= 1.34
    assert 0.48 <= min(areas) <= 0.6
    assert 0.85 <= max(areas) <= 1.01


def test_rotation_stays_within_15_degrees():
    augmenter = Augmenter("rotation", 256)
    angles = []
    for seed in seeds(60):
        image = augmenter.image(gradient(0).astype(np.uint8), seed).numpy()[..., 0].astype(float)
        middle = image[96:160, 96:160]
        down = np.polyfit(np.arange(64), middle.mean(1), 1)[0]
        across = np.polyfit(np.arange(64), middle.mean(0), 1)[0]
        angles.append(np.degrees(np.arctan2(across, down)))
    assert -15.5 < min(angles) < -10
    assert 10 < max(angles) < 15.5


def test_colour_changes_are_modest():
    images = augmented("color", 100).astype(float)
    shift = (images - PHOTO).mean((1, 2, 3)) / 255
    assert 0.08 < shift.std() < 0.14  # uniform in +-0.2: 0.115
    assert np.abs(shift).max() < 0.25
    for image in images[:20]:
        correlation = np.corrcoef(image.ravel(), PHOTO.ravel())[0, 1]
        assert correlation > 0.9


def levels_apart(first, second):
    return np.abs(np.asarray(first, int) - np.asarray(second, int)).max()


@pytest.mark.parametrize("factor", [0.0, 0.8, 1.2])
def test_contrast_and_saturation_are_those_of_pillow(factor):
    photo = Image.fromarray(PHOTO)
    expected = ImageEnhance.Contrast(photo).enhance(factor)
    assert levels_apart(augment.change_color(PHOTO, contrast=factor), expected) <= 1
    expected = ImageEnhance.Color(photo).enhance(factor)
    assert levels_apart(augment.change_color(PHOTO, saturation=factor), expected) <= 1


def test_brightness_is_added():
    expected = np.clip(PHOTO.astype(int) + 51, 0, 255)
    assert levels_apart(augment.change_color(PHOTO, brightness=0.2), expected) == 0


@pytest.mark.parametrize("turn", [0.02, -0.02, 0.25])
def test_hue_turns_the_colours_and_leaves_the_grey(turn):
    pale = PHOTO // 4 + 96  # nothing is cut off
    before, after = (
        tf.image.rgb_to_yiq(np.asarray(image, np.float64) / 255).numpy()
        for image in (pale, augment.change_color(pale, hue=turn))
    )
    np.testing.assert_allclose(after[..., 0], before[..., 0], atol=0.003)
    color = (before[..., 1] + 1j * before[..., 2]) * np.exp(2j * np.pi * turn)
    np.testing.assert_allclose(after[..., 1] + 1j * after[..., 2], color, atol=0.006)


def test_changes_of_colour_come_one_after_the_other():
    pale = PHOTO // 4 + 96
    steps = pale
    for change in ({"brightness": 0.1}, {"contrast": 1.2}, {"saturation": 0.8}, {"hue": 0.02}):
        steps = augment.change_color(steps, **change)
    assert levels_apart(augment.change_color(pale, 0.1, 1.2, 0.8, 0.02), steps) <= 2


def test_randaugment_takes_its_strength():
    mild = augmented("randaugment", 15, magnitude=1).astype(float)
    strong = augmented("randaugment", 15, magnitude=9).astype(float)
    assert np.abs(mild - PHOTO).mean() < np.abs(strong - PHOTO).mean()


# Batches


@pytest.fixture
def batch():
    """Eight different pictures of six classes; rows 2 and 5 are filler."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, [8, SIZE, SIZE, 3], np.uint8)
    labels = np.eye(8, dtype=np.float32)
    weights = np.array([1, 1, 0, 2.5, 1, 0, 0.1, 1], np.float32)
    return images, labels, weights


REAL, FILLER = [0, 1, 3, 4, 6, 7], [2, 5]


def mixed(names, batch, seed):
    images, labels = Augmenter(names, SIZE).batch(*batch, np.array(seed, np.int32))
    assert images.dtype == tf.uint8
    assert labels.dtype == tf.float32
    return images.numpy(), labels.numpy()


def partner_and_share(label, row):
    """With one class a row, the label itself says who was mixed in and how much of `row` stays."""
    others = np.flatnonzero(np.delete(np.arange(8), row)[label[np.arange(8) != row] > 0])
    assert len(others) <= 1
    partner = next((k for k in range(8) if k != row and label[k] > 0), row)
    return partner, label[row]


@pytest.mark.parametrize("seed", [[0, 0], [1, 0], [7, 3]])
def test_mixup_blends_pixels_as_labels(batch, seed):
    images, labels = mixed("mixup", batch, seed)
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
    for row in REAL:
        partner, share = partner_and_share(labels[row], row)
        expected = share * batch[0][row].astype(float) + (1 - share) * batch[0][partner]
        assert np.abs(images[row] - expected).max() <= 0.502


@pytest.mark.parametrize("seed", [[0, 0], [1, 0], [7, 3]])
def test_cutmix_labels_are_the_exact_share_of_pixels(batch, seed):
    images, labels = mixed("cutmix", batch, seed)
    cuts = 0
    for row in REAL:
        partner, share = partner_and_share(labels[row], row)
        if partner == row:
            continue
        own = (images[row] == batch[0][row]).all(-1)
        pasted = (images[row] == batch[0][partner]).all(-1)
        assert (own ^ pasted).all()
        np.testing.assert_allclose(own.mean(), share, rtol=1e-6)
        y, x = np.nonzero(pasted)
        assert pasted.sum() == (np.ptp(y) + 1) * (np.ptp(x) + 1)  # one box
        cuts += 1
    assert cuts >= 3


@pytest.mark.parametrize("names", ["mixup", "cutmix", "mixup,cutmix"])
def test_filler_is_untouched_and_unused(batch, names):
    for seed in seeds(20):
        images, labels = mixed(names, batch, seed)
        np.testing.assert_array_equal(images[FILLER], batch[0][FILLER])
        np.testing.assert_allclose(labels[FILLER], batch[1][FILLER], rtol=1e-6)
        assert not labels[np.ix_(REAL, FILLER)].any()


def test_everyone_is_mixed_with_another_and_used_once(batch):
    for seed in seeds(20):
        _, labels = mixed("mixup", batch, seed)
        partners = [partner_and_share(labels[row], row)[0] for row in REAL]
        moved = [partner for row, partner in zip(REAL, partners, strict=True) if partner != row]
        assert len(set(moved)) == len(moved)
        assert len(moved) >= 1


def test_pairs_change_with_the_seed(batch):
    pairs = {tuple(mixed("mixup", batch, seed)[1].argsort(1)[:, -2]) for seed in seeds(10)}
    assert len(pairs) > 5


@pytest.mark.parametrize("real", [0, 1])
def test_batches_with_nobody_to_mix_with(batch, real):
    images, labels, _ = batch
    weights = np.float32(np.arange(8) < real)
    new_images, new_labels = mixed("mixup,cutmix", (images, labels, weights), [1, 2])
    np.testing.assert_array_equal(new_images, images)
    np.testing.assert_allclose(new_labels, labels, atol=1e-6)


def test_both_mix_each_picture_in_one_of_the_two_ways(batch):
    boxes = blends = 0
    for seed in seeds(20):
        images, labels = mixed("mixup,cutmix", batch, seed)
        for row in REAL:
            partner, share = partner_and_share(labels[row], row)
            if not 0.02 < share < 0.98:
                continue
            pure = (images[row] == batch[0][row]) | (images[row] == batch[0][partner])
            boxes += pure.all()
            blends += not pure.all()
    assert boxes > 20
    assert blends > 10


def test_numbers_and_several_labels_are_mixed_too(batch):
    images, _, weights = batch
    numbers = np.arange(8, dtype=np.float32)[:, None]
    several = np.float32(np.arange(24).reshape(8, 3) % 2)
    shares = mixed("cutmix", batch, [4, 2])[1]
    np.testing.assert_allclose(
        mixed("cutmix", (images, numbers, weights), [4, 2])[1], shares @ numbers, rtol=1e-5
    )
    np.testing.assert_allclose(
        mixed("cutmix", (images, several, weights), [4, 2])[1], shares @ several, rtol=1e-5
    )


def test_boxes_have_the_area_of_their_share_where_they_fit():
    shares = Augmenter("cutmix", SIZE)._kept_shares(4000, tf.constant([1, 2])).numpy()
    rng = np.random.default_rng(0)
    side = np.sqrt(rng.uniform(size=[100_000, 1])) / 2  # half of the side of a box
    centre = rng.uniform(size=[100_000, 2])
    cut = np.minimum(centre + side, 1) - np.maximum(centre - side, 0)
    assert abs(shares.mean() - (1 - cut.prod(1).mean())) < 0.015


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha):
    import scipy.stats

    draws = augment._beta(alpha, 4000, tf.constant([3, 4])).numpy()
    assert np.isfinite(draws).all()
    assert scipy.stats.kstest(draws, scipy.stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_batches_are_the_same_eagerly_and_in_tf_data(batch):
    augmenter = Augmenter("mixup,cutmix", SIZE)
    dataset = tf.data.Dataset.from_tensors(batch)
    dataset = dataset.map(lambda *batch: augmenter.batch(*batch, tf.constant([5, 6])))
    for one, other in zip(
        dataset.get_single_element(), augmenter.batch(*batch, [5, 6]), strict=True
    ):
        np.testing.assert_array_equal(one, other)
