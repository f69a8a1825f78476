"""What --deterministic costs: processor time of training with and without it, in turns.

    python scripts/benchmarks/determinism.py

On one of two cores (Xeon, AVX-512), the other one busy: 0.9% more processor time for texts (MiniLM,
17 steps of 16, 6.86 against 6.80 s), 4.3% less for pictures (EfficientNet-Lite0 with augmentation,
14 steps of 16, 3.94 against 4.11 s), so no cost that stands out from the noise.
"""

import time
from collections.abc import Callable

import keras
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

from tfsft import data, models, training
from tfsft.data.pipeline import Pipeline
from tfsft.recipes import image_cls, text_cls

ROUNDS = 4  # the first one, which builds the graphs, does not count


def texts() -> tuple[Pipeline, Callable[[], keras.Model]]:
    """Returns batches of short texts, and what makes a model for them."""
    splits = text_cls.load_data(text_cls.Config(limit=400))
    tokenizer = models.load_text_backbone("minilm").tokenizer
    encoder = data.TextEncoder(tokenizer, 64, pair=False)
    feed = data.TextFeed(splits.train, encoder, num_outputs=len(splits.class_names))
    return feed.pipeline(16, shuffle=True), lambda: text_cls.build_model(
        len(splits.class_names), models.load_text_backbone("minilm")
    )


def pictures() -> tuple[Pipeline, Callable[[], keras.Model]]:
    """Returns batches of augmented pictures, and what makes a model for them."""
    splits = image_cls.load_data(image_cls.Config(limit=320))
    augmenter = data.Augmenter("flip,crop,color", 64)
    feed = data.ImageFeed(splits.train, 64)

    def make() -> keras.Model:
        model = image_cls.build_model(len(splits.class_names), "efficientnet_lite0", 64)
        models.unfreeze(model, "all")
        return models.from_resized(model)

    return feed.pipeline(16, shuffle=True, augmenter=augmenter), make


def main() -> None:
    """Measures and prints a table."""
    keras.utils.set_random_seed(0)
    for name, prepare in (("texts", texts), ("pictures", pictures)):
        pipeline, make = prepare()
        tuners, seconds = {}, {True: 0.0, False: 0.0}
        for deterministic in seconds:
            tuners[deterministic] = training.FineTuner(make())
            tuners[deterministic].compile(
                keras.optimizers.AdamW(1e-4),
                "categorical_crossentropy",
                weighted_metrics=["accuracy"],
            )
        for number in range(ROUNDS):
            for deterministic in seconds:
                if deterministic:
                    tf.config.experimental.enable_op_determinism()
                else:
                    disable_op_determinism()
                start = time.process_time()
                tuners[deterministic].fit(pipeline, epochs=1)
                if number:
                    seconds[deterministic] += (time.process_time() - start) / (ROUNDS - 1)
        cost = seconds[True] / seconds[False] - 1
        print(
            f"{name:10} without {seconds[False]:6.2f} s, with {seconds[True]:6.2f} s: {cost:+.1%}"
        )


if __name__ == "__main__":
    main()
