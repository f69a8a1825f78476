"""Answers of a sequence-to-sequence model, the likeliest token after the other."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfsft.models.generation import Generated
from tfsft.models.sampling import likeliest


class Seq2SeqGenerator:
    """Generates with the attention caches of KerasHub's sequence-to-sequence models.

    An input is encoded once; of the decoder every token is computed once.

    Args:
        model: From `load_seq2seq_lm`.
        start: Tokens that the decoder begins with.
        stop: Tokens that end an answer.
        pad: A token to fill rows up with.
    """

    def __init__(self, model: keras.Model, *, start: Sequence[int], stop: Sequence[int], pad: int):
        self.model = model
        self.start = tuple(start)
        self.stop = tuple(stop)
        self.pad = pad
        self._loop = self._make_loop()

    def answer(
        self,
        inputs: Sequence[Sequence[int]],
        *,
        max_new_tokens: int = 128,
        batch_size: int = 16,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Generated]:
        """Answers inputs, those of alike lengths together.

        Args:
            inputs: Tokens of each.
            max_new_tokens: Most tokens of an answer; no more than the decoder has positions for.
            batch_size: Inputs at a time.
            progress: Called with (done, total) answers.

        Returns:
            The answers, in the order of the inputs.
        """
        positions = getattr(self.model.backbone, "max_sequence_length", None)
        if positions is not None:
            max_new_tokens = max(min(max_new_tokens, positions - len(self.start)), 1)
        found: list[Generated | None] = [None] * len(inputs)
        order = sorted(range(len(inputs)), key=lambda place: len(inputs[place]))
        for begin in range(0, len(order), batch_size):
            places = order[begin : begin + batch_size]
            tokens = np.full((len(places), len(inputs[places[-1]])), self.pad, np.int32)
            mask = np.zeros_like(tokens)
            for row, place in enumerate(places):
                tokens[row, : len(inputs[place])] = inputs[place]
                mask[row, : len(inputs[place])] = 1
            written = self._loop(tokens, mask, tf.constant(max_new_tokens))
            written, ends = (np.asarray(part) for part in written)
            for row, end, place in zip(written, ends, places, strict=True):
                stopped = bool(row[end - 1] in self.stop)
                ids = row[len(self.start) : end - stopped].tolist()
                found[place] = Generated(ids, stopped)
            if progress is not None:
                progress(begin + len(places), len(order))
        return found

    def _make_loop(self) -> Callable:
        model, first = self.model, len(self.start)
        rows = tf.TensorSpec([None, None], "int32")

        @tf.function(autograph=False, input_signature=[rows, rows, tf.TensorSpec([], "int32")])
        def loop(inputs, mask, new):  # noqa: ANN001
            batch = tf.shape(inputs)[0]
            head = tf.tile(tf.constant([self.start], "int32"), [batch, 1])
            tokens = tf.concat([head, tf.fill([batch, new], self.pad)], axis=1)
            size = first + new
            places = tf.range(size)
            encoded = model.call_encoder(token_ids=inputs, padding_mask=mask)
            own, cross = model._initialize_cache(inputs, tokens)

            def after(some, own, index, cross, cross_index):  # noqa: ANN001
                logits, _, own, cross = model.call_decoder_with_cache(
                    encoder_hidden_states=encoded,
                    encoder_padding_mask=mask,
                    decoder_token_ids=some,
                    self_attention_cache=own,
                    self_attention_cache_update_index=index,
                    cross_attention_cache=cross,
                    cross_attention_cache_update_index=cross_index,
                )
                return likeliest(tf.cast(logits[:, -1], "float32")), own, cross

            chosen, own, cross = after(head, own, 0, cross, 0)

            def step(i, chosen, tokens, ends, done, own):  # noqa: ANN001
                chosen = tf.where(done, self.pad, chosen)
                tokens = tf.where(places == i, chosen[:, None], tokens)
                ends = tf.where(done, ends, i + 1)
                stops = tf.reduce_any(chosen[:, None] == tf.constant(self.stop, "int32"), axis=1)
                following, own, _ = after(chosen[:, None], own, i, cross, None)
                return i + 1, following, tokens, ends, done | stops, own

            any_batch = tf.TensorShape([None])
            _, _, tokens, ends, _, _ = tf.while_loop(
                lambda i, chosen, tokens, ends, done, own: (i < size) & ~tf.reduce_all(done),
                step,
                (first, chosen, tokens, tf.fill([batch], first), tf.zeros([batch], "bool"), own),
                parallel_iterations=1,
                shape_invariants=(
                    tf.TensorShape([]),
                    any_batch,
                    tf.TensorShape([None, None]),
                    any_batch,
                    any_batch,
                    tf.TensorShape([None] * own.shape.rank),
                ),
            )
            return tokens, ends

        return loop
