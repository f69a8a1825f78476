import keras
import numpy as np
import pytest

from tfsft.errors import UsageError
from tfsft.models import Counts, load_image_backbone, stages, unfreeze, weight_depths

HEAD = {"hidden", "probabilities"}


@pytest.fixture
def resnet(load):
    return load("resnet50:random")


def trained_layers(model):
    return {weight.path.split("/")[0] for weight in model.trainable_weights}


def test_stages_of_a_residual_network(resnet):
    grouped = stages(resnet.model)
    assert len(grouped) == 5
    for names, prefix in zip(grouped[1:], ("conv2", "conv3", "conv4", "conv5"), strict=True):
        convolutions = {name.split("_")[0] for name in names if name.endswith("_conv")}
        assert convolutions == {prefix}
    ordered = [layer.name for layer in resnet.model.layers[1:]]
    assert sorted(name for names in grouped for name in names) == sorted(ordered)


def test_squeeze_and_excitation_belongs_to_the_stage_of_its_map(load):
    first, *_, last = stages(load("mobilenetv3small:random").model)
    assert "expanded_conv_squeeze_excite_conv" not in last
    assert "expanded_conv_10_squeeze_excite_conv" in last
    assert "rescaling" in first


def test_pooling_at_the_end_is_no_stage():
    assert stages(load_image_backbone("vgg16:random", 64).model)[-1] == [
        "block4_pool",
        "block5_conv1",
        "block5_conv2",
        "block5_conv3",
        "block5_pool",
    ]


def test_stages_of_a_transformer_are_quarters_of_its_blocks(load, tiny_vit):
    assert stages(load(tiny_vit).model) == [
        ["vit_patching_and_embedding"],
        ["transformer_block_1"],
        ["transformer_block_2", "transformer_block_3"],
        ["transformer_block_4"],
        ["transformer_block_5", "transformer_block_6", "dropout", "ln"],
    ]


def test_none_trains_the_head_alone(resnet, classifier):
    model = classifier(resnet)
    assert unfreeze(model, "none") == Counts(2048 * 8 + 8 + 8 * 3 + 3, model.count_params())
    assert trained_layers(model) == HEAD


def test_auto_and_a_prefix_open_the_last_stage(resnet, classifier):
    model = classifier(resnet)
    counts = unfreeze(model, "auto")
    opened = trained_layers(model) - HEAD
    assert all(name.startswith("conv5") and name.endswith("_conv") for name in opened)
    # Three bottlenecks and a shortcut of ResNet50's last stage, biases included, by hand.
    bottleneck = 512 * 512 * 9 + 512 + 512 * 2048 + 2048
    inputs = [1024, 2048, 2048]
    by_hand = sum(n * 512 + 512 + bottleneck for n in inputs) + 1024 * 2048 + 2048
    assert counts.trainable == by_hand + 16_419
    assert unfreeze(model, "conv5") == counts
    assert trained_layers(model) - HEAD == opened
    unfreeze(model, "conv4")
    assert {name[:5] for name in trained_layers(model) - HEAD} == {"conv4", "conv5"}


def test_all_leaves_batch_norm_frozen(resnet, classifier):
    model = classifier(resnet)
    unfreeze(model, "all")
    assert {"conv1_conv", *HEAD} < trained_layers(model)
    assert not any(name.endswith("_bn") for name in trained_layers(model))
    unfreeze(model, "none")
    assert trained_layers(model) == HEAD


def test_an_unknown_layer_names_the_nearest(resnet, classifier):
    with pytest.raises(UsageError, match="Did you mean 'conv5_") as caught:
        unfreeze(classifier(resnet), "convv5_block1_1")
    assert "conv5_block1_1_conv to conv5_block3_out" in caught.value.expected


def test_half_an_encoder_trains(load, tiny_vit, classifier):
    model = classifier(load(tiny_vit))
    unfreeze(model, "auto")
    paths = [w.path for w in model.trainable_weights if w.path.split("/")[0] not in HEAD]
    assert {path.split("/")[1] for path in paths} == {
        "transformer_block_5",
        "transformer_block_6",
        "ln",
    }


@pytest.mark.parametrize("which", ["auto", "all"])
def test_a_training_step_moves_exactly_what_is_open(which, load, classifier, pictures):
    keras.utils.set_random_seed(0)
    model = classifier(load("efficientnet_lite0"), dropout=0.0)
    unfreeze(model, which)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", run_eagerly=True)
    before = model.get_weights()
    model.train_on_batch(pictures, np.array([0, 1, 2, 0]))
    after = model.get_weights()
    model.set_weights(before)
    open_paths = {weight.path for weight in model.trainable_weights}
    for weight, old, new in zip(model.weights, before, after, strict=True):
        assert np.array_equal(old, new) == (weight.path not in open_paths), weight.path


def test_depths_count_from_the_head(resnet, classifier):
    model = classifier(resnet)
    unfreeze(model, "all")
    depths = weight_depths(model)
    assert set(depths) == {weight.path for weight in model.trainable_weights}
    assert depths["probabilities/kernel"] == depths["hidden/bias"] == 0
    assert depths["conv5_block3_3_conv/kernel"] == 1
    assert depths["conv4_block1_1_conv/kernel"] == 2
    assert depths["conv1_conv/kernel"] == 5
    unfreeze(model, "none")
    assert set(weight_depths(model).values()) == {0}
