"""The batches of pairs of texts: inputs for an encoder, and for a decoder what should follow."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfsft.data.encoding import NO_TARGET
from tfsft.data.length_plan import LengthPlan
from tfsft.data.pipeline import WHOLE, Part, as_planned, part_of
from tfsft.data.seq2seq_encoding import Seq2SeqEncoder
from tfsft.data.text_feed import TextFeed, TextPipeline

INPUTS = (
    "encoder_token_ids",
    "encoder_padding_mask",
    "decoder_token_ids",
    "decoder_padding_mask",
    "targets",
)
DECODER_STEP = 8  # the width of a decoder is a multiple of it, so that there are few


class Seq2SeqFeed(TextFeed):
    """Makes the pipelines of pairs of texts.

    Args:
        source: Conversations, a `TextSource`; the last message of each is the target.
        encoder: What makes tokens of them.
        progress: As for `TextFeed`.
    """

    def __init__(
        self,
        source: Any,
        encoder: Seq2SeqEncoder,
        *,
        progress: Callable[[int, int], None] | None = None,
    ):
        super().__init__(source, encoder, progress=progress)

    def pipeline(
        self, batch_size: int, *, seed: int = 0, shuffle: bool = False
    ) -> "Seq2SeqPipeline":
        """Returns the batches of this source, whose inputs are of alike lengths.

        Args:
            batch_size, seed, shuffle: As for `LengthPlan`.
        """
        lengths = self.table.rows["second"]
        plan = LengthPlan(lengths, batch_size, seed=seed, shuffle=shuffle)
        return Seq2SeqPipeline(plan, self)


class Seq2SeqPipeline(TextPipeline):
    """The batches of a `Seq2SeqFeed`, for any epoch from any step on.

    A batch is `(inputs, zeros, weights)`. Inputs are int32: `encoder_token_ids` and
    `encoder_padding_mask` `[batch, width]`; `decoder_token_ids`, `decoder_padding_mask` and
    `targets` `[batch, other width]`, the last of which is the token that should follow each token
    of the decoder, -1 where none is learned. Weights are 1 where one is.
    """

    def epoch(self, epoch: int = 0, start: int = 0, part: Part = WHOLE) -> tf.data.Dataset:
        """Returns the batches of `epoch` from step `start` on, or a part of each."""
        rows, weights, widths = self.plan.epoch(epoch)

        def fetch(step: int) -> list[np.ndarray]:
            mine = part_of(rows[step], part), part_of(weights[step], part)
            return self._batch(*mine, widths[step])

        kinds = ["int32"] * len(INPUTS) + ["float32"] * 2
        batch = self.plan.fixed_batch and self.plan.fixed_batch // part[1]

        @tf.autograph.experimental.do_not_convert
        def load(step):  # noqa: ANN001
            parts = tf.numpy_function(fetch, [step], kinds, stateful=False)
            for tensor in parts:
                tensor.set_shape([batch, None])
            *inputs, targets, weights = parts
            return dict(zip(INPUTS, inputs, strict=True)), targets, weights

        steps = tf.data.Dataset.range(start, self.steps)
        return as_planned(steps.map(load, num_parallel_calls=2))

    def _batch(self, rows: np.ndarray, weights: np.ndarray, width: int) -> list[np.ndarray]:
        table, pad = self.feed.table, self.feed.encoder.tokenizer.pad
        first, whole = table.rows["second"][rows][:, None], table.lengths[rows][:, None]
        longest = int((whole - first).max())
        places = np.arange(width), np.arange(-(-longest // DECODER_STEP) * DECODER_STEP)
        inside = places[0] < first, places[1] < whole - first
        begins = table.offsets[rows][:, None]

        def cells(name: str, part: int, padding: int) -> np.ndarray:
            column = table.tokens[name]
            found = np.minimum(begins + part * first + places[part], len(column) - 1)
            return np.where(inside[part], column[found], np.int32(padding)).astype(np.int32)

        targets = np.where(weights[:, None] > 0, cells("targets", 1, NO_TARGET), NO_TARGET)
        return [
            cells("token_ids", 0, pad),
            inside[0].astype("int32"),
            cells("token_ids", 1, pad),
            inside[1].astype("int32"),
            targets.astype("int32"),
            np.zeros(targets.shape, "float32"),
            (targets >= 0).astype("float32"),
        ]
