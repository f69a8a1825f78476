import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_image

from tfsft.data import affine


@pytest.fixture(scope="module")
def photo():
    """A real photograph, higher than wide."""
    return np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize((48, 60)))


def scipy_warp(image, matrix, mode="reflect"):
    """The same by SciPy, whose coordinates are (y, x) from the corner."""
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    matrix = swap @ np.asarray(matrix, float) @ swap
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre + matrix[:2, 2] - matrix[:2, :2] @ centre
    channels = [
        scipy.ndimage.affine_transform(
            image[..., k].astype(float), matrix[:2, :2], offset, order=1, mode=mode
        )
        for k in range(3)
    ]
    return np.stack(channels, -1)


@pytest.mark.parametrize(
    "make_matrix",
    [
        lambda: affine.rotation(tf.constant(12.0)),
        lambda: affine.rotation(tf.constant(-75.0)),
        lambda: affine.shear(0.2, -0.1),
        lambda: affine.translation(3.5, -7.25),
        lambda: affine.translation(40.0, 0.0),
        lambda: affine.translation(2.0, 1.0) @ affine.rotation(tf.constant(9.0)),
    ],
    ids=["turn", "turn back", "shear", "move", "move far", "turn and move"],
)
def test_warp_is_what_scipy_gives(photo, make_matrix):
    matrix = make_matrix()
    result = affine.warp(photo, matrix)
    assert result.dtype == tf.uint8
    assert np.abs(result.numpy() - scipy_warp(photo, matrix)).max() <= 0.51  # rounding


def test_the_identity_changes_nothing(photo):
    np.testing.assert_array_equal(affine.warp(photo, tf.eye(3)), photo)


def test_a_right_angle_counterclockwise(photo):
    square = photo[:48]
    np.testing.assert_array_equal(
        affine.warp(square, affine.rotation(tf.constant(90.0))), np.rot90(square)
    )


def test_the_edge_is_mirrored(photo):
    moved = affine.warp(photo, affine.translation(5.0, 0.0)).numpy()
    np.testing.assert_array_equal(moved[:, :-5], photo[:, 5:])
    np.testing.assert_array_equal(moved[:, -5:], photo[:, :-6:-1])


@pytest.mark.parametrize(
    ("corner", "size"),
    [([0.0, 0.0], [1.0, 1.0]), ([0.1, 0.25], [0.6, 0.7]), ([0.0, 0.31], [0.71, 0.69])],
)
def test_zoom_is_what_scipy_gives(photo, corner, size):
    height, width = photo.shape[:2]
    result = affine.zoom(photo, tf.constant(corner), tf.constant(size)).numpy()
    centre = np.array(corner) + np.array(size) / 2 - 0.5
    matrix = [[size[1], 0, centre[1] * width], [0, size[0], centre[0] * height], [0, 0, 1]]
    assert np.abs(result - scipy_warp(photo, matrix, "nearest")).max() <= 0.51


def test_zoom_crops(photo):
    result = affine.zoom(photo, tf.constant([0.0, 0.5]), tf.constant([0.5, 0.5])).numpy()
    expected = Image.fromarray(photo[:30, 24:]).resize((48, 60), Image.Resampling.BILINEAR)
    inside = np.s_[2:-2, 2:-2]  # at its edge the box has neighbours, and the crop has none
    difference = result[inside].astype(int) - np.asarray(expected)[inside]
    assert np.abs(difference).max() <= 1


def test_all_shapes_and_tf_data(photo):
    matrix = affine.rotation(tf.constant(12.0))
    dataset = tf.data.Dataset.from_tensors(photo).map(lambda image: affine.warp(image, matrix))
    assert dataset.element_spec.shape.as_list() == [60, 48, 3]
    np.testing.assert_array_equal(dataset.get_single_element(), affine.warp(photo, matrix))
