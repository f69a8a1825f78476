import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from tfsft.data import randaugment
from tfsft.data.randaugment import OPERATIONS, rand_augment

PHOTO = np.asarray(Image.fromarray(load_sample_image("flower.jpg")).resize((64, 48)))
PICTURES = {
    "photo": PHOTO,
    "pale": (PHOTO // 3 + 90).astype(np.uint8),
    "flat": np.full([8, 9, 3], 77, np.uint8),
    "two values": np.where(np.arange(600).reshape(10, 20, 3) % 7 == 0, 30, 200).astype(np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, [40, 30, 3], np.uint8),
}
FACTORS = [0.0, 0.1, 0.5, 1.0, 1.3, 1.9]

pictures = pytest.mark.parametrize("image", PICTURES.values(), ids=PICTURES)


def assert_same(result, expected, tolerance=0):
    assert result.dtype == tf.uint8
    assert np.abs(result.numpy().astype(int) - np.asarray(expected)).max() <= tolerance


# Every operation against Pillow


@pictures
def test_autocontrast(image):
    expected = ImageOps.autocontrast(Image.fromarray(image))
    assert_same(randaugment.autocontrast(tf.constant(image)), expected)


@pictures
def test_equalize(image):
    expected = ImageOps.equalize(Image.fromarray(image))
    assert_same(randaugment.equalize(tf.constant(image)), expected)


@pictures
@pytest.mark.parametrize("threshold", [0, 1, 128, 230, 256])
def test_solarize(image, threshold):
    expected = ImageOps.solarize(Image.fromarray(image), threshold)
    assert_same(randaugment.solarize(tf.constant(image), float(threshold)), expected)


@pictures
@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize(image, bits):
    expected = ImageOps.posterize(Image.fromarray(image), bits)
    assert_same(randaugment.posterize(tf.constant(image), tf.constant(float(bits))), expected)


@pictures
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", ["Color", "Contrast", "Brightness", "Sharpness"])
def test_enhancements(image, name, factor):
    expected = getattr(ImageEnhance, name)(Image.fromarray(image)).enhance(factor)
    # Pillow blends in float32 and cuts off; where the compiler fuses the product and the sum, one
    # level may differ.
    assert_same(getattr(randaugment, name.lower())(tf.constant(image), factor), expected, 1)


def pillow_affine(image, a, b, c, d, e, f):
    """Pillow's transform about the centre of the picture."""
    y, x = np.array(image.shape[:2]) / 2
    data = (a, b, x + c - a * x - b * y, d, e, y + f - d * x - e * y)
    size = image.shape[1], image.shape[0]
    return Image.fromarray(image).transform(size, Image.Transform.AFFINE, data, Image.BILINEAR)


GEOMETRIC = {  # (what turns, slants or moves at level 0.9), by Pillow
    "rotate": lambda image: Image.fromarray(image).rotate(27, Image.BILINEAR),
    "shear_x": lambda image: pillow_affine(image, 1, 0.27, 0, 0, 1, 0),
    "shear_y": lambda image: pillow_affine(image, 1, 0, 0, 0.27, 1, 0),
    "translate_x": lambda image: pillow_affine(image, 1, 0, 90 / 331 * 64, 0, 1, 0),
    "translate_y": lambda image: pillow_affine(image, 1, 0, 0, 0, 1, 90 / 331 * 48),
}


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_operations(name):
    # Pillow leaves black what comes from beyond the edge: a white picture shows where not to look.
    inside = np.asarray(GEOMETRIC[name](np.full_like(PHOTO, 255))).min(-1) == 255
    inside[[0, -1]] = inside[:, [0, -1]] = False
    assert inside.mean() > 0.4
    result = OPERATIONS[name](tf.constant(PHOTO), tf.constant(0.9)).numpy()
    difference = result.astype(int) - np.asarray(GEOMETRIC[name](PHOTO))
    assert np.abs(difference[inside]).max() <= 2


# The draw


def test_the_paper_has_these_14_operations():
    assert len(OPERATIONS) == 14


def test_magnitude_zero_keeps_the_geometry_and_colours():
    for name in set(OPERATIONS) - {"autocontrast", "equalize", "solarize"}:
        np.testing.assert_array_equal(OPERATIONS[name](tf.constant(PHOTO), 0.0), PHOTO)


def test_each_operation_is_drawn_about_equally_often_in_both_directions():
    counts = dict.fromkeys([(name, sign) for name in OPERATIONS for sign in (-1, 1)], 0)
    candidates = {
        (name, sign): OPERATIONS[name](tf.constant(PHOTO), tf.constant(sign * 0.9)).numpy()
        for name, sign in counts
    }

    draw = tf.function(lambda seed: rand_augment(tf.constant(PHOTO), seed, num_operations=1))
    for number in range(420):
        image = draw(tf.constant([number, 5])).numpy().astype(int)
        # Within a graph a product and a sum may be fused, and a level differ by one.
        off = {key: np.abs(image - other).max() for key, other in candidates.items()}
        (*_, key) = [key for key, most in off.items() if most <= 1]
        counts[key] += 1
    totals = {name: counts[name, -1] + counts[name, 1] for name in OPERATIONS}
    assert all(12 <= total <= 50 for total in totals.values()), totals  # 30 expected, sigma 5
    for name in ["rotate", "shear_x", "translate_y", "brightness", "color"]:
        assert min(counts[name, -1], counts[name, 1]) >= 5


def test_eager_graph_and_order_give_the_same():
    seeds = np.array([[number, 1] for number in range(12)], np.int32)
    dataset = tf.data.Dataset.from_tensor_slices(seeds)
    dataset = dataset.map(lambda seed: rand_augment(tf.constant(PHOTO), seed), tf.data.AUTOTUNE)
    assert dataset.element_spec.shape.as_list() == [48, 64, 3]
    for seed, image in zip(seeds, dataset, strict=True):
        np.testing.assert_array_equal(rand_augment(tf.constant(PHOTO), seed), image)
