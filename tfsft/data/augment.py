"""Random changes of training pictures, each a pure function of a seed."""

import math

import numpy as np
import tensorflow as tf

from tfsft.data import affine
from tfsft.data.randaugment import rand_augment
from tfsft.errors import UsageError, nearest

PER_IMAGE = ("flip", "rotation", "crop", "color", "randaugment")  # in the order they are applied
PER_BATCH = ("mixup", "cutmix")
AUGMENTATIONS = PER_IMAGE + PER_BATCH

MAX_ROTATION = 15.0  # degrees to either side
MIN_CROP_AREA = 0.5  # share of the picture
MAX_CROP_ASPECT = 4 / 3  # of width to height, or the other way round
MAX_BRIGHTNESS = 0.2  # share of the range from black to white
MAX_CONTRAST = MAX_SATURATION = 0.2  # more or less than what the picture has
MAX_HUE = 0.02  # share of the colour circle
MIXUP_ALPHA = 0.2  # most pairs keep nearly all of one picture
CUTMIX_ALPHA = 1.0  # every share is equally likely

# Grey and two axes of colour, of the NTSC: saturation is a factor on the two, hue an angle between.
_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float32
)
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


class Augmenter:
    """Augments pictures in tf.data; the same seed gives the same picture, whatever comes before.

    flip mirrors left and right; rotation turns (what comes from beyond the edge is mirrored); crop
    zooms into a random box; color changes brightness, contrast, saturation and hue a little;
    randaugment draws two of 14 operations; mixup blends a picture with another of its batch;
    cutmix pastes a box of another into it.

    Args:
        names: Augmentations, with commas between; an empty text or "none" is no augmentation.
        image_size: Height and width of the pictures, in pixels.
        num_operations, magnitude: See `rand_augment`.

    Raises:
        UsageError: A name is unknown or comes twice.

    Example:
        augmenter = Augmenter("flip,crop", 224)
        dataset.map(lambda image, seed: augmenter.image(image, seed))
    """

    def __init__(
        self, names: str, image_size: int, *, num_operations: int = 2, magnitude: float = 9
    ):
        self.names = parse_names(names)
        self.image_size = image_size
        self.num_operations = num_operations
        self.magnitude = magnitude

    @property
    def mixes(self) -> bool:
        """Whether pictures of a batch are mixed by `batch`, and labels become shares."""
        return any(name in PER_BATCH for name in self.names)

    def image(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments one picture.

        Args:
            image: uint8 `[image_size, image_size, 3]`.
            seed: int32 `[2]`.

        Returns:
            uint8 `[image_size, image_size, 3]`.
        """
        image = tf.ensure_shape(image, [self.image_size, self.image_size, 3])
        # Each name has a seed of its own: adding one does not change what the others do.
        seeds = {name: _fold_in(seed, number) for number, name in enumerate(AUGMENTATIONS)}
        if "flip" in self.names:
            image = tf.image.stateless_random_flip_left_right(image, seeds["flip"])
        if "rotation" in self.names:
            image = _random_rotation(image, seeds["rotation"])
        if "crop" in self.names:
            image = _random_crop(image, seeds["crop"])
        if "color" in self.names:
            image = _random_color(image, seeds["color"])
        if "randaugment" in self.names:
            image = rand_augment(image, seeds["randaugment"], self.num_operations, self.magnitude)
        return image

    def batch(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixes the pictures of a batch in pairs.

        Mixup is by Zhang et al. (arXiv:1710.09412), cutmix by Yun et al. (arXiv:1905.04899).
        Where both are wanted, each picture gets one of them at random. Examples of weight zero are
        filler: they stay as they are, and no other example is mixed with them.

        Args:
            images: uint8 `[batch, image_size, image_size, 3]`.
            labels: float `[batch, classes]`; they are mixed as the pixels are.
            weights: float `[batch]`.
            seed: int32 `[2]`.

        Returns:
            Images and labels, of the same shapes and types.
        """
        if not self.mixes:
            return images, labels
        partner = _partners(weights > 0, _fold_in(seed, 0))
        kept = self._kept_shares(tf.shape(images)[0], seed)
        mask, pixels = kept[..., None], tf.cast(images, tf.float32)
        mixed = mask * pixels + (1 - mask) * tf.gather(pixels, partner)
        share = tf.cast(tf.reduce_mean(kept, [1, 2]), labels.dtype)[:, None]
        return (
            tf.ensure_shape(tf.cast(tf.round(mixed), images.dtype), images.shape),
            share * labels + (1 - share) * tf.gather(labels, partner),
        )

    def _kept_shares(self, batch_size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns how much of each pixel stays, float32 `[batch, image_size, image_size]`."""
        size = self.image_size
        blend = _beta(MIXUP_ALPHA, batch_size, _fold_in(seed, 1))[:, None, None]
        blend = tf.tile(blend, [1, size, size])
        if "cutmix" not in self.names:
            return blend
        cut = 1 - _beta(CUTMIX_ALPHA, batch_size, _fold_in(seed, 2))
        centre = size * tf.random.stateless_uniform([batch_size, 2, 1], _fold_in(seed, 3))
        distance = tf.abs(tf.range(size, dtype=tf.float32) + 0.5 - centre)
        inside = distance < size * tf.sqrt(cut)[:, None, None] / 2  # [batch, 2, size]
        outside = 1 - tf.cast(inside[:, 0, :, None] & inside[:, 1, None, :], tf.float32)
        if "mixup" not in self.names:
            return outside
        coin = tf.random.stateless_uniform([batch_size, 1, 1], _fold_in(seed, 4))
        return tf.where(coin < 0.5, blend, outside)


def parse_names(names: str) -> tuple[str, ...]:
    """Returns the augmentations of a list with commas.

    Raises:
        UsageError: A name is unknown or comes twice.
    """
    found = tuple(name.strip() for name in names.split(",") if name.strip())
    if found == ("none",):
        return ()
    for place, name in enumerate(found):
        if name in found[:place]:
            raise UsageError(
                f"The augmentation '{name}' is named twice.",
                "Each augmentation is applied once.",
                f"Use --augment {','.join(dict.fromkeys(found))}.",
            )
        if name not in AUGMENTATIONS:
            raise UsageError(
                f"There is no augmentation '{name}'.{nearest(name, AUGMENTATIONS)}",
                f"Any of {', '.join(AUGMENTATIONS)}, with commas between; or none alone.",
                "Change --augment.",
            )
    return found


_fold_in = tf.random.experimental.stateless_fold_in


def _random_rotation(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    degrees = tf.random.stateless_uniform([], seed, -MAX_ROTATION, MAX_ROTATION)
    return affine.warp(image, affine.rotation(degrees))


def _random_crop(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    area, aspect, *place = tf.unstack(tf.random.stateless_uniform([4], seed))
    area = MIN_CROP_AREA + (1 - MIN_CROP_AREA) * area
    aspect = MAX_CROP_ASPECT ** (2 * aspect - 1)
    size = tf.minimum(tf.sqrt(tf.stack([area / aspect, area * aspect])), 1)
    return affine.zoom(image, tf.stack(place) * (1 - size), size)


def _random_color(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    draws = tf.unstack(tf.random.stateless_uniform([4], seed, -1.0))
    brightness, contrast, saturation, hue = draws
    return change_color(
        image,
        MAX_BRIGHTNESS * brightness,
        1 + MAX_CONTRAST * contrast,
        1 + MAX_SATURATION * saturation,
        MAX_HUE * hue,
    )


def change_color(
    image: tf.Tensor,
    brightness: tf.Tensor | float = 0.0,
    contrast: tf.Tensor | float = 1.0,
    saturation: tf.Tensor | float = 1.0,
    hue: tf.Tensor | float = 0.0,
) -> tf.Tensor:
    """Changes the colours of a picture, all in one pass over its pixels.

    Args:
        image: uint8 `[height, width, 3]`.
        brightness: What is added, as a share of the range from black to white.
        contrast: Factor on the distance from the mean grey.
        saturation: Factor on the distance of each pixel from its grey.
        hue: Turn of the colours about their grey, as a share of the colour circle.

    Returns:
        uint8, of the same shape.
    """
    angle = 2 * math.pi * hue
    along, across = saturation * tf.cos(angle), saturation * tf.sin(angle)
    in_yiq = tf.stack([1.0, 0.0, 0.0, 0.0, along, -across, 0.0, across, along])
    matrix = contrast * _FROM_YIQ @ tf.reshape(in_yiq, [3, 3]) @ _TO_YIQ
    pixels = tf.reshape(tf.cast(image, tf.float32), [-1, 3])
    grey = tf.tensordot(tf.reduce_mean(pixels, 0), _TO_YIQ[0], 1)
    shift = (1 - contrast) * grey + 255 * brightness
    changed = tf.matmul(pixels, matrix, transpose_b=True) + shift
    return tf.reshape(tf.saturate_cast(tf.round(changed), tf.uint8), tf.shape(image))


def _partners(real: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns the row to mix with each: the next on a random ring of real rows; filler, itself."""
    ring = tf.random.experimental.stateless_shuffle(tf.where(real)[:, 0], seed)
    rows = tf.range(tf.size(real, tf.int64), dtype=tf.int64)
    return tf.tensor_scatter_nd_update(rows, ring[:, None], tf.roll(ring, 1, 0))


def _beta(alpha: float, count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws from the symmetric Beta distribution, as a ratio of Gamma draws; float32 `[count]`."""
    gamma = tf.random.stateless_gamma([count, 2], seed, alpha, dtype=tf.float64)
    total = tf.maximum(tf.reduce_sum(gamma, 1), 1e-300)
    return tf.cast(gamma[:, 0] / total, tf.float32)
