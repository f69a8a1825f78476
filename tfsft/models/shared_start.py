"""The tokens that all rows of a batch begin with, computed once and not once for each row.

Conversations with one assistant begin with the same system prompt, often most of their tokens. No
token sees a later one, so that what a causal language model computes of these is the same in every
row. All rows of a batch become one, `[start, rest of row 1, rest of row 2, ...]`, in which every
layer works token by token; positions stay those of the single rows, and attention looks at rows as
they were. The result is that of single rows, and so are the gradients: those of the start are
summed over the rows.
"""

import contextlib
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from tfsft.models.graph import changed
from tfsft.models.packing import FAMILIES


def shares_start(backbone: keras.Model) -> bool:
    """Tells whether `SharedStart` knows the layers of a causal language model."""
    return type(backbone).__name__ in FAMILIES


class SharedStart(keras.layers.Layer):
    """A backbone that computes the start of its rows once.

    Args:
        backbone: Of one of the families of `shares_start`.
        length: How many tokens all rows of a batch have in common at their start; each has
            more.
    """

    def __init__(self, backbone: keras.Model, length: int):
        super().__init__(name="shared_start", dtype="float32", autocast=False)
        self.backbone = backbone
        self.length = length

    def compute_output_spec(
        self, token_ids: keras.KerasTensor, padding_mask: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Returns the shape and type of the states."""
        states = self.backbone.output
        return keras.KerasTensor((*token_ids.shape, states.shape[-1]), states.dtype)

    def call(self, token_ids: tf.Tensor, padding_mask: tf.Tensor) -> tf.Tensor:
        """Returns what the backbone computes: from int32 `[batch, tokens]` to its states `[batch,
        tokens, hidden]`.
        """
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        rows = _Rows(self.length, tf.shape(token_ids))
        with tf.control_dependencies([rows.check(token_ids)]):
            inputs = {name: rows.join(x) for name, x in inputs.items()}
        layers = self.backbone.transformer_layers
        # The same for all layers, and made once.
        mask = layers[0]._compute_self_attention_mask(
            decoder_sequence=token_ids,
            decoder_padding_mask=padding_mask,
            decoder_attention_mask=None,
            self_attention_cache=None,
            self_attention_cache_update_index=None,
        )
        cos_sin = _cos_sin(layers[0]._self_attention_layer, rows.positions())
        with contextlib.ExitStack() as changes:
            for layer in layers:
                attention = layer._self_attention_layer
                rotary = attention.rotary_embedding_layer
                for inner, name, value in (
                    (layer, "_compute_self_attention_mask", lambda **_: mask),
                    (attention, "_compute_attention", partial(_attend, attention, rows)),
                    (rotary, "_compute_cos_sin_embedding", lambda *_: cos_sin),
                ):
                    changes.enter_context(changed(inner, name, value))
            states = self.backbone(inputs)
        return rows.part(states)


class _Rows:
    """How rows become one and are parted again.

    Args:
        start: Tokens that they have in common.
        shape: Of the rows, int32 `[2]`.
    """

    def __init__(self, start: int, shape: tf.Tensor):
        self.start = start
        self.number, self.width = shape[0], shape[1]

    def check(self, ids: tf.Tensor) -> tf.Operation:
        """Fails where rows do not begin alike."""
        starts = ids[:, : self.start]
        alike = tf.reduce_all(starts == starts[:1])
        return tf.debugging.Assert(alike, ["The rows of a batch begin with other tokens."])

    def join(self, x: tf.Tensor) -> tf.Tensor:
        """Returns `[1, start + rows x rest, ...]` of `[rows, tokens, ...]`."""
        start, rest = self._cut(x)
        return tf.concat([start[:1], tf.reshape(rest, [1, -1, *x.shape[2:]])], axis=1)

    def part(self, x: tf.Tensor) -> tf.Tensor:
        """Returns `[rows, tokens, ...]` of `[1, start + rows x rest, ...]`."""
        start, rest = self._cut(x)
        more = x.shape[2:]
        start = tf.broadcast_to(start, [self.number, self.start, *more])
        rest = tf.reshape(rest, [self.number, self.width - self.start, *more])
        return tf.concat([start, rest], axis=1)

    def _cut(self, x: tf.Tensor) -> list[tf.Tensor]:
        # By split: the gradient of a slice takes ten times as long.
        return tf.split(x, [self.start, tf.shape(x)[1] - self.start], axis=1)

    def positions(self) -> tf.Tensor:
        """Returns the place in its own row of each token of the joined row, float32."""
        start, rest = tf.range(self.start), tf.range(self.start, self.width)
        return tf.cast(tf.concat([start, tf.tile(rest, [self.number])], axis=0), "float32")


def _cos_sin(attention: keras.layers.Layer, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what the rotary embedding of a layer multiplies tokens at these places by."""
    rotary = attention.rotary_embedding_layer
    size = attention._query_dense.kernel.shape[-1]
    like = tf.zeros([1, 1, 1, size], rotary.compute_dtype)  # [batch, tokens, heads, size]
    return rotary._compute_cos_sin_embedding(like, 0, positions[None])


def _attend(
    attention: keras.layers.Layer,
    rows: _Rows,
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    *args: Any,
    **kwargs: Any,
) -> tf.Tensor:
    parted = (rows.part(x) for x in (query, key, value))
    return rows.join(type(attention)._compute_attention(attention, *parted, *args, **kwargs))
