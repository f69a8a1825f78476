"""Memory of one update of smollm2 with the loss in chunks, and with the logits of all tokens.

    python scripts/benchmarks/loss_memory.py
    python scripts/benchmarks/loss_memory.py --lengths 128 256 512 1024 --batch-size 8

Both train low-rank updates of rank 8 on the same tokens, of which the last half have a target. Each
measurement is a process of its own; what is printed is the most memory it held beyond what it held
with the model loaded.
"""

import argparse
import resource
import subprocess
import sys

MIB = 1024  # of the kibibytes that the system counts in


def main() -> None:
    """Prints one line for each length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--one", choices=["plain", "chunks"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        loss, used = measure(args.one, args.batch_size, args.lengths[0])
        print(f"{loss:.6f} {used:.1f}")
        return
    print(" tokens | all logits, MiB | in chunks, MiB | plain / chunks | losses")
    for length in args.lengths:
        found = []
        for kind in ("plain", "chunks"):
            command = [sys.executable, __file__, "--one", kind, "--lengths", str(length)]
            command += ["--batch-size", str(args.batch_size)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append([float(word) for word in done.stdout.split()])
        (plain_loss, plain), (loss, chunks) = found
        sizes = f"{plain:15.0f} | {chunks:14.0f} | {plain / chunks:14.2f}"
        print(f"{length:7} | {sizes} | {plain_loss:.5f} {loss:.5f}", flush=True)


def measure(kind: str, batch: int, length: int) -> tuple[float, float]:
    """Makes one update; returns its loss and the MiB it took."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tfsft import models

    model = models.load_causal_lm("smollm2").model
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

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loss = float(update())
    return loss, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / MIB


if __name__ == "__main__":
    main()
