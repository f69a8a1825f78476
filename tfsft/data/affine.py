"""Turning, shearing, moving and scaling pictures by matrices that say where pixels come from.

A matrix maps a place in the result to a place in the source, both `(x, y, 1)` in pixels from the
centre of the picture. Matrices combine by multiplication: a picture is interpolated only once.
"""

import math

import tensorflow as tf


def rotation(degrees: tf.Tensor) -> tf.Tensor:
    """Returns the matrix that turns a picture counterclockwise."""
    angle = degrees * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _matrix([cos, -sin, 0.0], [sin, cos, 0.0])


def shear(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns the matrix that slants a picture by pixels per pixel."""
    return _matrix([1.0, x, 0.0], [y, 1.0, 0.0])


def translation(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns the matrix that moves a picture by pixels to the left and up."""
    return _matrix([1.0, 0.0, x], [0.0, 1.0, y])


def warp(image: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Interpolates a picture linearly; beyond its edge it goes on mirrored.

    Args:
        image: uint8 `[height, width, channels]`.
        matrix: float32 `[3, 3]`.

    Returns:
        uint8, of the same shape.
    """
    shape = tf.shape(image)
    centre_y, centre_x = tf.unstack(tf.cast(shape[:2] - 1, tf.float32) / 2)
    to_centre = _matrix([1.0, 0.0, -centre_x], [0.0, 1.0, -centre_y])
    from_centre = _matrix([1.0, 0.0, centre_x], [0.0, 1.0, centre_y])
    matrix = from_centre @ matrix @ to_centre
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image[None], tf.float32),
        transforms=tf.reshape(matrix, [1, 9])[:, :8],
        output_shape=shape[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    return tf.ensure_shape(tf.cast(tf.round(warped[0]), tf.uint8), image.shape)


def zoom(image: tf.Tensor, corner: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Blows up a box to the whole picture; four times as fast as `warp`.

    Args:
        image: uint8 `[height, width, channels]`.
        corner: Top and left edge of the box as shares of height and width, float32 `[2]`.
        size: Height and width of the box, likewise.

    Returns:
        uint8, of the same shape.
    """
    shape = tf.shape(image)[:2]
    zoomed = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=shape,
        scale=1 / size,
        translation=-corner * tf.cast(shape, tf.float32) / size,
        kernel_type="triangle",  # linear
        antialias=False,
    )
    return tf.ensure_shape(tf.cast(tf.round(zoomed[0]), tf.uint8), image.shape)


def _matrix(*rows: list) -> tf.Tensor:
    return tf.stack(
        [tf.stack([tf.cast(value, tf.float32) for value in row]) for row in rows] + [_LAST]
    )


_LAST = (0.0, 0.0, 1.0)
