"""RandAugment: a few random operations, all at one magnitude (Cubuk et al., arXiv:1909.13719).

Pixel operations give what the functions of the same name in Pillow's ImageOps and ImageEnhance
give. All take pictures as uint8 `[height, width, 3]`.
"""

import functools

import tensorflow as tf

from tfsft.data import affine

MAX_MAGNITUDE = 10


def rand_augment(
    image: tf.Tensor, seed: tf.Tensor, num_operations: int = 2, magnitude: float = 9
) -> tf.Tensor:
    """Applies `num_operations` of the 14 operations, drawn with replacement.

    Args:
        image: uint8 `[height, width, 3]`.
        seed: int32 `[2]`; the result is a function of it.
        num_operations: How many, one after the other.
        magnitude: How strong each is, from 0 to 10.

    Returns:
        uint8, of the same shape.
    """
    for step in range(num_operations):
        draw = tf.random.experimental.stateless_fold_in(seed, step)
        which, sign = tf.unstack(
            tf.random.stateless_uniform([2], draw, 0, 2 * len(OPERATIONS), tf.int32)
        )
        level = magnitude / MAX_MAGNITUDE * (1 - 2 * tf.cast(sign % 2, tf.float32))
        image = tf.ensure_shape(_apply(which // 2, image, level), image.shape)
    return image


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to the full range."""
    low = tf.cast(tf.reduce_min(image, [0, 1]), tf.float64)[:, None]
    high = tf.cast(tf.reduce_max(image, [0, 1]), tf.float64)[:, None]
    scale = 255 / tf.maximum(high - low, 1)
    values = tf.range(256, dtype=tf.float64)
    table = tf.where(high > low, tf.cast(values * scale - low * scale, tf.int32), _VALUES)
    return _look_up(image, table)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Spreads the values of each channel so that all are about equally frequent."""
    pixels = tf.reshape(tf.cast(image, tf.int32), [-1, 3]) + 256 * tf.range(3)
    counts = tf.reshape(tf.math.bincount(tf.reshape(pixels, [-1]), minlength=768), [3, 256])
    used = tf.where(counts > 0, _VALUES, 0)
    count_of_highest = tf.gather(counts, tf.reduce_max(used, 1), batch_dims=1)
    step = (tf.reduce_sum(counts, 1) - count_of_highest)[:, None] // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    return _look_up(image, tf.where(step > 0, (step // 2 + below) // tf.maximum(step, 1), _VALUES))


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts the values from a threshold (0 to 256) up."""
    return tf.where(tf.cast(image, tf.float32) < threshold, image, 255 - image)


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the highest bits (0 to 8) of each value."""
    shift = tf.cast(8 - bits, tf.int32)
    kept = tf.bitwise.left_shift(tf.bitwise.right_shift(tf.cast(image, tf.int32), shift), shift)
    return tf.cast(kept, tf.uint8)


def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with the grey picture: 0 is grey, 1 the picture, more is more colourful."""
    return _blend(_grey(image)[..., None], image, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with the mean grey: 0 is grey all over, 1 the picture."""
    mean = tf.reduce_mean(tf.cast(_grey(image), tf.float32))
    return _blend(tf.cast(tf.floor(mean + 0.5), tf.int32), image, factor)


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with black: 0 is black, 1 the picture."""
    return _blend(tf.constant(0), image, factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with a smoothed picture: 0 is smooth, 1 the picture, more is sharper."""
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32)[..., None, None] / 13
    smooth = tf.nn.depthwise_conv2d(
        tf.cast(image[None], tf.float32), tf.tile(kernel, [1, 1, 3, 1]), [1, 1, 1, 1], "VALID"
    )
    smooth = tf.cast(tf.floor(smooth[0] + 0.5), tf.int32)
    pixels = tf.cast(image, tf.int32)  # the edge stays as it is
    smooth = tf.concat([pixels[1:-1, :1], smooth, pixels[1:-1, -1:]], 1)
    return _blend(tf.concat([pixels[:1], smooth, pixels[-1:]], 0), image, factor)


def translate(image: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Moves the picture by shares of its width and height."""
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    return affine.warp(image, affine.translation(x * width, y * height))


# The sign of the level, from -1 to 1, is the direction. Level 1 is the end of the paper's ranges;
# translation by 100 of 331 pixels and the threshold of solarize are as in the authors' code.
OPERATIONS = {
    "identity": lambda image, level: image,
    "autocontrast": lambda image, level: autocontrast(image),
    "equalize": lambda image, level: equalize(image),
    "rotate": lambda image, level: affine.warp(image, affine.rotation(30 * level)),
    "solarize": lambda image, level: solarize(image, 256 * tf.abs(level)),
    "color": lambda image, level: color(image, 1 + 0.9 * level),
    "posterize": lambda image, level: posterize(image, tf.round(8 - 4 * tf.abs(level))),
    "contrast": lambda image, level: contrast(image, 1 + 0.9 * level),
    "brightness": lambda image, level: brightness(image, 1 + 0.9 * level),
    "sharpness": lambda image, level: sharpness(image, 1 + 0.9 * level),
    "shear_x": lambda image, level: affine.warp(image, affine.shear(0.3 * level, 0.0)),
    "shear_y": lambda image, level: affine.warp(image, affine.shear(0.0, 0.3 * level)),
    "translate_x": lambda image, level: translate(image, 100 / 331 * level, 0.0),
    "translate_y": lambda image, level: translate(image, 0.0, 100 / 331 * level),
}

_VALUES = range(256)


@tf.function(autograph=False)  # a trace takes a second: one serves both steps and all epochs
def _apply(which: tf.Tensor, image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    branches = [functools.partial(apply, image, level) for apply in OPERATIONS.values()]
    return tf.switch_case(which, branches)


def _look_up(image: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Maps the values of each channel by a `[3, 256]` table."""
    table = tf.cast(tf.clip_by_value(table, 0, 255), tf.uint8)
    channels = [tf.gather(table[k], tf.cast(image[..., k], tf.int32)) for k in range(3)]
    return tf.stack(channels, -1)


def _grey(image: tf.Tensor) -> tf.Tensor:
    """Returns int32 `[height, width]`: luma of ITU-R 601-2 in Pillow's fixed-point arithmetic."""
    weighted = tf.cast(image, tf.int32) * tf.constant([19595, 38470, 7471])
    return tf.bitwise.right_shift(tf.reduce_sum(weighted, -1) + 0x8000, 16)


def _blend(other: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    other, pixels = tf.cast(other, tf.float32), tf.cast(image, tf.float32)
    return tf.cast(tf.clip_by_value(other + factor * (pixels - other), 0, 255), tf.uint8)
