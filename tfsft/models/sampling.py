"""Which token comes next: the likeliest, or one drawn by the rules that people know."""

import numpy as np
import tensorflow as tf


def likeliest(logits: tf.Tensor) -> tf.Tensor:
    """Returns the likeliest token of each row, int32 `[batch]`."""
    return tf.argmax(logits, axis=-1, output_type="int32")


def penalised(logits: tf.Tensor, seen: tf.Tensor, penalty: tf.Tensor) -> tf.Tensor:
    """Makes tokens that came before less likely, as the CTRL paper does (Keskar et al., 2019).

    Args:
        logits: float32 `[batch, vocabulary]`.
        seen: Tokens that came before, int32 `[batch, tokens]`; -1 where there is none.
        penalty: Positive logits are divided by it, negative ones multiplied.
    """
    rows = tf.broadcast_to(tf.range(tf.shape(seen)[0])[:, None], tf.shape(seen))
    places = tf.boolean_mask(tf.stack([rows, seen], axis=-1), seen >= 0)
    came = tf.scatter_nd(places, tf.ones(tf.shape(places)[:1]), tf.shape(logits)) > 0
    lower = tf.where(logits > 0, logits / penalty, logits * penalty)
    return tf.where(came, lower, logits)


def drawn(
    logits: tf.Tensor,
    chance: tf.Tensor,
    temperature: tf.Tensor,
    top_k: tf.Tensor,
    top_p: tf.Tensor,
) -> tf.Tensor:
    """Draws a token: temperature, then the `top_k` likeliest, then the fewest that make `top_p`.

    Args:
        logits: float32 `[batch, vocabulary]`.
        chance: float32 `[batch]`, from 0 to less than 1: the place among the probabilities that are
            left, from the likeliest on.
        temperature: Above 0.
        top_k: 0 keeps all.
        top_p: 1 keeps all.

    Returns:
        int32 `[batch]`.
    """
    ranked, tokens = tf.math.top_k(logits / temperature, tf.shape(logits)[-1])
    size = tf.shape(logits)[-1]
    inside = tf.range(size) < tf.where(top_k > 0, top_k, size)
    shares = tf.nn.softmax(tf.where(inside, ranked, float("-inf")))
    # A token is kept as long as those before it make less than top_p; the first one always is.
    before = tf.cumsum(shares, axis=-1, exclusive=True)
    shares = tf.where((before < top_p) | (tf.range(size) == 0), shares, 0.0)
    ends = tf.cumsum(shares, axis=-1)
    place = tf.reduce_sum(tf.cast(ends <= chance[:, None] * ends[:, -1:], "int32"), axis=-1)
    # Rounding may end beyond what is left.
    last = tf.reduce_sum(tf.cast(shares > 0, "int32"), axis=-1) - 1
    return tf.gather(tokens, tf.minimum(place, last), batch_dims=1)


def chances(seed: int, row: int, count: int) -> np.ndarray:
    """Returns the numbers that decide the draws of one answer, float32 `[count]`."""
    return np.random.default_rng([seed, row]).random(count, np.float32)
