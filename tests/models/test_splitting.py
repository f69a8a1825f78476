import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsft.models import cut_at_pixels, load_image_backbone, split_frozen, unfreeze


def resized(pictures):
    return np.asarray(keras.layers.Resizing(64, 64, antialias=True, dtype="uint8")(pictures))


def check_equal(model, pictures):
    trunk, top = split_frozen(model)
    features = trunk(resized(pictures))
    np.testing.assert_allclose(top(features), model(pictures), atol=1e-6)
    assert {id(w) for w in top.trainable_weights} == {id(w) for w in model.trainable_weights}
    assert not trunk.trainable_weights
    return trunk, top, features


@pytest.mark.parametrize(
    ("name", "which", "shape"),
    [
        ("resnet50:random", "none", (4, 2048)),
        ("resnet50:random", "auto", (4, 4, 4, 1024)),
        ("mobilenetv2:random", "all", (4, 64, 64, 3)),
        ("efficientnet_lite0", "auto", (4, 4, 4, 112)),
        ("efficientnet_lite0", "top_conv", (4, 2, 2, 320)),
        ("mobilenetv2:random", "auto", (4, 4, 4, 96)),  # not the six times wider map behind it
        pytest.param("efficientnetv2b0:random", "auto", (4, 4, 4, 112), marks=pytest.mark.slow),
    ],
)
def test_the_parts_are_the_whole(name, which, shape, load, classifier, pictures):
    model = classifier(load(name))
    unfreeze(model, which)
    trunk, _, features = check_equal(model, pictures)
    assert features.shape == shape
    assert bool(trunk.weights) == (which != "all")
    assert trunk.inputs[0].dtype == "uint8"


@pytest.mark.parametrize(("which", "shape"), [("none", (4, 16)), ("auto", (4, 17, 16))])
def test_a_transformer_is_split_before_its_encoder(
    tiny_vit, which, shape, load, classifier, pictures
):
    model = classifier(load(tiny_vit))
    unfreeze(model, which)
    assert check_equal(model, pictures)[2].shape == shape


def test_several_tensors_cross_where_a_block_is_cut(load, classifier, pictures):
    model = classifier(load("resnet50:random"))
    unfreeze(model, "conv5_block2_2_conv")
    _, top, features = check_equal(model, pictures)
    assert [tuple(x.shape[1:]) for x in features] == [(2, 2, 512), (2, 2, 2048)]
    assert len(top.inputs) == 2


def test_training_the_top_trains_the_model(load, classifier, pictures):
    """Two steps on cached features give the same weights as two steps on pictures."""
    model = classifier(load("efficientnet_lite0"), dropout=0.0)
    unfreeze(model, "auto")
    trunk, top = split_frozen(model)
    start = model.get_weights()
    trained = []
    for part, x in ((model, pictures), (top, trunk(resized(pictures)))):
        part.compile(
            keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", run_eagerly=True
        )
        for _ in range(2):
            part.train_on_batch(x, np.array([0, 1, 2, 0]))
        trained.append(model.get_weights())
        model.set_weights(start)
    assert max(np.abs(a - b).max() for a, b in zip(trained[0], start, strict=True)) > 1e-3
    for long, short in zip(*trained, strict=True):
        np.testing.assert_allclose(short, long, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        keras.layers.Dropout(0.5, name="changes"),
        keras.layers.GaussianNoise(1.0, name="changes"),
        keras.layers.BatchNormalization(center=False, scale=False, name="changes"),
        keras.layers.Dense(4, name="changes"),
    ],
)
def test_what_changes_in_training_stays_out_of_the_trunk(changes):
    x = inputs = keras.Input((4,))
    before = keras.layers.Dense(4, trainable=False)
    does_nothing = keras.layers.Dropout(0.0, name="does_nothing")
    too_late = keras.layers.Dense(4, trainable=False)
    for layer in (before, does_nothing, changes, too_late):
        x = layer(x)
    trunk, top = split_frozen(keras.Model(inputs, x))
    assert trunk.layers[1:] == [before, does_nothing]
    assert top.layers[1:] == [changes, too_late]


def test_an_inner_model_still_converts_its_input(pictures):
    pixels = keras.Input((64, 64, 3), dtype="float32")
    backbone = keras.Model(pixels, pixels * 3, name="backbone")
    inputs = keras.Input((64, 64, 3), dtype="uint8")
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(backbone(inputs)))
    check_equal(keras.Model(inputs, outputs), resized(pictures))


def test_a_model_saves_after_it_was_split(load, classifier, pictures, tmp_path):
    model = classifier(load("mobilenetv2:random"))
    unfreeze(model, "auto")
    split_frozen(model)
    split_frozen(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(pictures), model(pictures), atol=1e-6)


def test_mixed_precision_splits_to_the_same_numbers(classifier, pictures, mixed_bfloat16):
    model = classifier(load_image_backbone("efficientnet_lite0", 64))
    unfreeze(model, "auto")
    trunk, top = split_frozen(model)
    features = trunk(resized(pictures))
    assert features.dtype == "bfloat16"
    np.testing.assert_array_equal(top(features), model(pictures))


def test_pictures_have_a_gradient_behind_the_turning_of_their_channels(load, classifier, pictures):
    model = classifier(load("resnet50:random"))
    below, above = cut_at_pixels(model)
    x = tf.cast(below(resized(pictures)), "float32")
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = above(x, training=False)
        first = y[:, 0]
    np.testing.assert_allclose(y, model(pictures), atol=1e-6)
    assert np.abs(tape.gradient(first, x)).max() > 0
