"""Several conversations in one row of tokens, none of which sees another."""

from functools import partial
from typing import Any

import keras
from keras import ops

from tfsft.errors import UserError

# Their positions are angles between tokens, the same wherever a conversation begins in its row; and
# they make their mask in one place. Tests compare each of them with unpacked rows.
FAMILIES = ("LlamaBackbone", "Llama3Backbone", "MistralBackbone", "QwenBackbone")


def allow_packing(backbone: keras.Model) -> None:
    """Lets `padding_mask` number the segments of a row: 1, 2, ... and 0 for padding.

    A token then sees the earlier tokens of its own segment only. With a mask of 0 and 1, what is
    said of tokens stays as it was. Saved models know nothing of it.

    Raises:
        UserError: In this family, conversations in one row would see each other.
    """
    name = type(backbone).__name__
    if name not in FAMILIES:
        raise UserError(
            f"--packing was asked for with a {name}.",
            "Positions that count from any token, and an attention mask that can tell "
            f"conversations apart: {', '.join(FAMILIES)}.",
            "Leave --packing out: batches of alike lengths waste little as they are.",
        )
    for layer in backbone.transformer_layers:
        layer._compute_self_attention_mask = partial(
            _own_segment, type(layer)._compute_self_attention_mask, layer
        )


def _own_segment(compute: Any, layer: keras.layers.Layer, **given: Any) -> Any:
    mask = compute(layer, **given)
    segments = given.get("decoder_padding_mask")
    if segments is None:  # in generation, where a row is one conversation
        return mask
    same = ops.equal(ops.expand_dims(segments, 2), ops.expand_dims(segments, 1))
    return ops.logical_and(ops.cast(mask, "bool"), same)
