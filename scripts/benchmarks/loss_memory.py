"""Memory of one update with the loss in chunks, and with the logits of all tokens.

    python scripts/benchmarks/loss_memory.py
    python scripts/benchmarks/loss_memory.py --layers 4 --lengths 128 256 512 1024

Both train low-rank updates of rank 8 on the same tokens, of which the last half have a target. The
model is smollm2 (30 layers, 49,152 tokens), or with `--layers` a random one of the same width with
so many layers and the 151,936 tokens of Qwen. Each measurement is a process of its own; what is
printed is the most memory it held beyond what it held with the model loaded. Linux only.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

MIB = 1024  # of the kibibytes that the system counts in


def main() -> None:
    """Prints one line for each length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--one", choices=["plain", "chunks"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        loss, used = measure(args.one, args.batch_size, args.lengths[0], args.layers)
        print(f"{loss:.6f} {used:.1f}")
        return
    print(" tokens | all logits, MiB | in chunks, MiB | plain / chunks | losses")
    for length in args.lengths:
        found = []
        for kind in ("plain", "chunks"):
            command = [sys.executable, __file__, "--one", kind, "--lengths", str(length)]
            command += ["--batch-size", str(args.batch_size), "--layers", str(args.layers)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append([float(word) for word in done.stdout.split()])
        (plain_loss, plain), (loss, chunks) = found
        sizes = f"{plain:15.0f} | {chunks:14.0f} | {plain / chunks:14.2f}"
        print(f"{length:7} | {sizes} | {plain_loss:.5f} {loss:.5f}", flush=True)


def measure(kind: str, batch: int, length: int, layers: int) -> tuple[float, float]:
    """Makes one update; returns its loss and the MiB it took."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tfsft import models

    keras.utils.set_random_seed(0)
    model = small(layers) if layers else models.load_causal_lm("smollm2").model
    models.add_lora(model, rank=8)
    tokens = np.random.default_rng(0).integers(1000, 40000, [batch, length]).astype("int32")
    targets = np.where(np.arange(length) < length // 2, -1, np.roll(tokens, -1, 1)).astype("int32")
    inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    if kind == "chunks":
        model = models.with_token_loss(model)
        inputs["targets"] = targets
    optimizer = keras.optimizers.AdamW(1e-4)
    optimizer.build(model.trainable_variables)
    learned = tf.constant(targets >= 0, "float32")

    @tf.function
    def update() -> tf.Tensor:
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            if kind == "chunks":
                losses = outputs[..., 0]
            else:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    np.maximum(targets, 0), tf.cast(outputs, "float32")
                )
            loss = tf.reduce_sum(losses * learned) / tf.reduce_sum(learned)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    update.get_concrete_function()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before = status("VmRSS")
    loss = float(update())
    return loss, (status("VmHWM") - before) / MIB


def small(layers: int) -> "keras.Model":  # noqa: F821
    """Returns a random model of few layers and many tokens."""
    import keras_hub

    backbone = keras_hub.models.Llama3Backbone(
        vocabulary_size=151_936,
        num_layers=layers,
        num_query_heads=9,
        num_key_value_heads=3,
        hidden_dim=576,
        intermediate_dim=1536,
        tie_word_embeddings=True,
        name="backbone",
    )
    return keras_hub.models.Llama3CausalLM(backbone=backbone, preprocessor=None)


def status(name: str) -> int:
    """Returns a figure of this process, in kibibytes."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


if __name__ == "__main__":
    main()
