import ast
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from tfsft import models
from tfsft.errors import UsageError, UserError
from tfsft.models import backbones, load_image_backbone, resolve
from tfsft.models.applications import application_preprocessing, applications
from tfsft.models.hub import hub_presets


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty Keras cache, and a server that never answers."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(backbones, "_STANDARD_URL", "http://10.255.255.1/weights.h5")
    return tmp_path


def test_auto_takes_the_starter_without_network_and_does_not_wait_long(no_network):
    start = time.monotonic()
    name, reason = resolve("auto")
    assert time.monotonic() - start < 8
    assert name == "efficientnet_lite0"
    assert reason.startswith("efficientnet_lite0: the ImageNet weights of resnet50 are not in")


def test_auto_takes_resnet50_where_its_weights_are_cached(no_network):
    (no_network / "models").mkdir()
    (no_network / "models" / backbones._STANDARD_FILE).write_bytes(b"weights")
    assert resolve("auto")[0] == "resnet50"


def test_auto_takes_resnet50_where_a_server_offers_its_weights(no_network, monkeypatch):
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    size = [94_765_736]

    class Server(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", str(size[0]))
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(backbones, "_STANDARD_URL", f"http://127.0.0.1:{server.server_port}/w.h5")
    assert resolve("auto")[0] == "resnet50"
    size[0] = 1234  # a login page
    assert resolve("auto")[0] == "efficientnet_lite0"
    server.shutdown()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet51", "Did you mean 'resnet50'"),
        ("resnet_50_imagenett", "Did you mean 'resnet_50_imagenet'"),
        ("efficientnet-lite0", "Did you mean 'efficientnet_lite0'"),
        ("./models/mine", "There is no folder"),
        ("s3://bucket/model", "Known handles"),
    ],
)
def test_an_unknown_name_is_a_wrong_option(name, message):
    for function in (resolve, lambda name: load_image_backbone(name, 64)):
        with pytest.raises(UsageError, match=message):
            function(name)


def test_a_folder_without_a_model_is_a_wrong_option(tmp_path):
    with pytest.raises(UsageError, match=r"has no config\.json"):
        resolve(str(tmp_path))


def test_a_broken_folder_says_what_was_expected(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "alexnet"}')
    with pytest.raises(UserError, match="could not be loaded") as caught:
        load_image_backbone(str(tmp_path), 64)
    assert "timm" in caught.value.expected


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", unreachable)
    with pytest.raises(UserError, match="ImageNet weights of vgg19 could not be") as caught:
        load_image_backbone("vgg19", 32)
    assert caught.value.exit_code == 1
    assert "--backbone auto" in caught.value.fix


def test_a_picture_size_that_is_too_small_is_a_wrong_option():
    with pytest.raises(UsageError, match="16 is too small for resnet50"):
        load_image_backbone("resnet50:random", 16)


def test_no_preset_hides_behind_an_application():
    assert not set(applications()) & set(hub_presets())


@pytest.mark.parametrize("name", sorted(applications()))
def test_preprocessing_is_that_of_keras(name):
    import keras.applications as reference

    pictures = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype("float32")
    x = pictures
    for layer in application_preprocessing(name):
        x = layer(x)
    modules = [value for value in vars(reference).values() if hasattr(value, "preprocess_input")]
    builder = applications()[name]
    (module, *_) = [m for m in modules if hasattr(m, builder.__name__)] or [reference.mobilenet_v3]
    expected = module.preprocess_input(pictures.copy())
    np.testing.assert_allclose(x, expected, atol=1e-5)


def test_caffe_style_by_hand():
    """Blue, green, red minus the means that Caffe's ImageNet models subtract."""
    x = np.array([[[[10, 20, 30]]]], "uint8")
    for layer in application_preprocessing("resnet50"):
        x = layer(x)
    np.testing.assert_allclose(x[0, 0, 0], [30 - 103.939, 20 - 116.779, 10 - 123.68], atol=1e-4)


def test_a_folder_brings_its_own_preprocessing(load, tiny_vit):
    backbone = load(tiny_vit)
    (layer,) = backbone.preprocessing
    x = np.full((1, 2, 2, 3), 102, "uint8")
    np.testing.assert_allclose(layer(x)[0, 0, 0], [1.0, -1.0, -0.1], atol=1e-6)
    assert backbone.model.name == "backbone"
    assert backbone.model.output_shape == (None, 17, 16)


def test_a_backbone_computes_the_same_in_training(load, tiny_vit):
    """Keras hands training=True to inner models whatever their call said: dropout has to be off."""
    for name in (tiny_vit, "efficientnetv2b0:random"):
        model = load(name).model
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        x = np.random.default_rng(0).random((2, 64, 64, 3), "float32")
        np.testing.assert_array_equal(model(x, training=True), model(x, training=False))


def test_layer_names_do_not_depend_on_what_was_built_before():
    counted = [keras.layers.Activation("relu").name for _ in range(2)]
    first = load_image_backbone("mobilenetv3small:random", 32).model
    second = load_image_backbone("mobilenetv3small:random", 32).model
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert [w.path for w in first.weights] == [w.path for w in second.weights]
    counted.append(keras.layers.Activation("relu").name)
    assert len(set(counted)) == 3  # outside, Keras goes on counting


def test_preprocessing_stays_in_float32_under_a_mixed_policy(mixed_bfloat16):
    mixed = load_image_backbone("efficientnetb0:random", 32)
    lite = load_image_backbone("efficientnet_lite0", 32)
    assert [layer.compute_dtype for layer in mixed.preprocessing] == ["float32"]
    assert [layer.compute_dtype for layer in lite.preprocessing] == ["float32"]
    assert mixed.model.get_layer("rescaling").compute_dtype == "float32"
    assert mixed.model.get_layer("normalization").compute_dtype == "float32"
    assert mixed.model.get_layer("stem_conv").compute_dtype == "bfloat16"


def test_a_saved_model_loads_with_keras_alone(load, classifier, pictures, tmp_path):
    caffe_style = replace(
        load("mobilenetv3small:random"), preprocessing=application_preprocessing("resnet50")
    )
    check_saved_model(classifier(caffe_style), pictures, tmp_path, ("tfsft", "keras_hub"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "tiny_vit"])
def test_a_saved_model_loads_with_keras_hub(load, name, tiny_vit, classifier, pictures, tmp_path):
    model = classifier(load(tiny_vit if name == "tiny_vit" else name))
    check_saved_model(model, pictures, tmp_path, ("tfsft",))


def check_saved_model(model, pictures, folder, strangers):
    """Another process, in safe mode and without the packages named, predicts the same."""
    model.save(folder / "model.keras")
    np.save(folder / "pictures.npy", pictures)
    code = f"""
import sys, keras, numpy as np
model = keras.models.load_model("model.keras")
np.save("probabilities.npy", model(np.load("pictures.npy")))
assert not any(name.startswith({strangers}) for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(folder / "probabilities.npy"), model(pictures), atol=1e-6)


def test_keras_hub_is_imported_only_where_it_is_needed():
    """It takes seconds, and resnet50 does without."""
    for file in Path(models.__file__).parent.glob("*.py"):
        for statement in ast.parse(file.read_text()).body:
            assert not ast.unparse(statement).startswith(("import keras_hub", "from keras_hub"))
