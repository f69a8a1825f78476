"""Image backbones that KerasHub loads: presets, `kaggle://` and `hf://` handles, local folders."""

import inspect
import json
import textwrap
from pathlib import Path

import keras

from tfsft.errors import UserError
from tfsft.models.applications import rescaling


def hub_presets() -> list[str]:
    """Returns the names of KerasHub's presets whose backbone takes pictures of a given size."""
    import keras_hub

    names = []
    for backbone in vars(keras_hub.models).values():
        is_backbone = inspect.isclass(backbone) and issubclass(backbone, keras_hub.models.Backbone)
        if is_backbone and _shape_argument(backbone):
            names += backbone.presets
    return sorted(set(names))


def load_from_hub(
    preset: str, image_size: int, pretrained: bool = True
) -> tuple[keras.Model, list[keras.layers.Layer]]:
    """Loads an image backbone and its preprocessing through KerasHub.

    Args:
        preset: A preset's name, a handle, or a local folder in Keras, Hugging Face or timm format.
        image_size: Side of the square input, in pixels.
        pretrained: False leaves the weights random; a remote preset's configuration is still read.

    Returns:
        The backbone, for pictures [n, image_size, image_size, 3], and its preprocessing.

    Raises:
        UserError: The preset cannot be fetched, is no image backbone, or not of this image size.
    """
    import keras_hub
    from keras_hub.src.utils.preset_utils import get_preset_loader  # tells the class before loading

    local = Path(preset).is_dir()
    try:
        backbone_class = get_preset_loader(preset).check_backbone_class()
        shape_argument = _shape_argument(backbone_class)
        if shape_argument is None:
            raise UserError(
                f"'{preset}' holds a {backbone_class.__name__}, which is not an image backbone.",
                "Expected a model that takes pictures and returns a feature map or tokens.",
            )
        model = keras_hub.models.Backbone.from_preset(
            preset,
            load_weights=pretrained,
            name="backbone",
            **{shape_argument: (image_size, image_size, 3)},
            **(_extra_arguments(Path(preset)) if local else {}),
        )
    except UserError:
        raise
    except Exception as error:
        reason = textwrap.shorten(str(error).strip() or type(error).__name__, 200)
        if local:
            raise UserError(
                f"The folder {preset} could not be loaded for {image_size} pixels: {reason}",
                "Expected config.json and weights in the format of Keras (save_to_preset), Hugging "
                "Face (vit, deit, swin, dinov2, ...) or timm (resnet, efficientnet, mobilenet, "
                "densenet, vgg, hgnetv2, cspnet), in a family that KerasHub converts.",
                "A transformer may work at its own --image-size only.",
            ) from error
        raise UserError(
            f"'{preset}' could not be loaded for {image_size} pixels: {reason}",
            "Its files are downloaded once, from the model hub.",
            "Without network give --backbone a local folder, or use --backbone auto. "
            "A transformer may work at its own --image-size only.",
        ) from error
    return model, [_preprocessing(preset)]


def _shape_argument(backbone_class: type) -> str | None:
    arguments = inspect.signature(backbone_class.__init__).parameters
    return next((name for name in ("image_shape", "input_shape") if name in arguments), None)


def _extra_arguments(folder: Path) -> dict:
    """Arguments of the backbone that a timm configuration cannot say (see `starters`)."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config.get("keras_hub", {})


def _preprocessing(preset: str) -> keras.layers.Layer:
    """Turns the preset's ImageConverter into a Keras layer; without one, pictures stay 0..255."""
    import keras_hub

    try:
        converter = keras_hub.layers.ImageConverter.from_preset(preset)
    except (ValueError, OSError):
        converter = None  # a backbone saved alone has none
    scale = 1.0 if converter is None or converter.scale is None else converter.scale
    offset = 0.0 if converter is None or converter.offset is None else converter.offset
    return rescaling(scale, offset)
