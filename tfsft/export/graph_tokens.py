"""What the encoders of `data.encoding` do, as operations of TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from tfsft.data import TextEncoder
from tfsft.export.graph_words import split_words
from tfsft.models import TextTokenizer

Part = Sequence[int] | tf.RaggedTensor


def shortened(
    rows: tf.RaggedTensor, counts: tf.Tensor | int, truncate: str = "end"
) -> tf.RaggedTensor:
    """Returns at most `counts` `[n]` tokens of each row, as `data.ragged.Ragged.shortened`."""
    lengths = rows.row_lengths()
    counts = tf.minimum(lengths, counts)
    if truncate == "end":
        return slices(rows, tf.zeros_like(counts), counts)
    tail = counts // 2
    parts = (
        slices(rows, tf.zeros_like(counts), counts - tail),
        slices(rows, lengths - tail, lengths),
    )
    return tf.concat(parts, axis=1)


def slices(rows: tf.RaggedTensor, starts: tf.Tensor, stops: tf.Tensor) -> tf.RaggedTensor:
    """Returns tokens `starts` to `stops` `[n]` of each row `[n, (tokens)]`."""
    begins = rows.row_starts()
    places = tf.ragged.range(begins + starts, begins + stops)
    return places.with_values(tf.gather(rows.values, places.values))


def joined(parts: Sequence[Part]) -> tf.RaggedTensor:
    """Puts rows one behind the other; a sequence of ints is the same in every row."""
    rows = next(part for part in parts if isinstance(part, tf.RaggedTensor))
    n = rows.nrows()
    full = []
    for part in parts:
        if not isinstance(part, tf.RaggedTensor):
            values = tf.constant(part, rows.dtype, [len(part)])
            lengths = tf.fill([n], tf.constant(len(part), tf.int64))
            part = tf.RaggedTensor.from_row_lengths(tf.tile(values, [n]), lengths, validate=False)
        full.append(part)
    return tf.concat(full, axis=1)


def padded(rows: tf.RaggedTensor, fill: int) -> tf.Tensor:
    """Pads rows to the longest, and to one place where there are none at all."""
    values = rows.to_tensor(fill)
    short = tf.maximum(1 - tf.shape(values)[1], 0)
    return tf.pad(values, [[0, 0], [0, short]], constant_values=fill)


def model_inputs(
    tokenizer: TextTokenizer, tokens: tf.RaggedTensor, second: tf.Tensor | None = None
) -> dict[str, tf.Tensor]:
    """Pads rows to the longest.

    Args:
        tokenizer: What made the tokens.
        tokens: int32 `[n, (tokens)]`.
        second: Where the second text begins in each row, int64 `[n]`; None if there is none.
    """
    lengths = tokens.row_lengths()[:, None]
    ids = padded(tokens, tokenizer.pad)
    places = tf.range(tf.shape(ids, tf.int64)[1])
    inside = places < lengths
    inputs = {"token_ids": ids, "padding_mask": tf.cast(inside, tf.int32)}
    if tokenizer.uses_segments:
        second = lengths[:, 0] if second is None else second
        inputs["segment_ids"] = tf.cast((places >= second[:, None]) & inside, tf.int32)
    return inputs


def pack_texts(encoder: TextEncoder, texts: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
    """Packs texts, or pairs of texts, as the encoder does.

    Args:
        encoder: Of the run.
        texts: One tensor `[n]` of strings, or two.
    """
    tokenizer, room = encoder.tokenizer, tf.constant(encoder.room, tf.int64)
    truncate = encoder.truncate
    parts = [tokenizer.graph(text) for text in texts]
    if len(parts) == 1:
        kept = shortened(parts[0], room, truncate)
        return model_inputs(tokenizer, joined([tokenizer.start, kept, tokenizer.end]))
    lengths = [part.row_lengths() for part in parts]
    a = tf.minimum(lengths[0], tf.maximum(room - room // 2, room - lengths[1]))
    head = [tokenizer.start, shortened(parts[0], a, truncate), tokenizer.separator]
    tokens = joined([*head, shortened(parts[1], room - a, truncate), tokenizer.end])
    return model_inputs(tokenizer, tokens, joined(head).row_lengths())


class GraphPieces:
    """The words of texts and their tokens, as `data.encoding` takes them.

    Args:
        tokenizer: Of the backbone.
        texts: Strings `[n]`.

    `words`, `starts`, `ends` are those of `GraphWords`; `tokens` are int32 `[n, (tokens)]`, `word`
    the place of each token's word in its text, int64 `[n, (tokens)]`, and `begins` the first token
    of each word among the tokens of all texts, int64 `[words of all texts]`.
    """

    def __init__(self, tokenizer: TextTokenizer, texts: tf.Tensor):
        split = split_words(texts)
        self.words, self.starts, self.ends = split.words, split.starts, split.ends
        pieces = tokenizer.graph(tokenizer.word_prefix + split.words)
        # A control character, say, has no tokens, and counts all the same.
        stand_in = tokenizer.unknown if tokenizer.unknown is not None else tokenizer.pad
        empty = tf.cast(pieces.row_lengths() == 0, tf.int64)
        fill = tf.fill([tf.reduce_sum(empty)], tf.constant(stand_in, pieces.dtype))
        fill = tf.RaggedTensor.from_row_lengths(fill, empty, validate=False)
        pieces = tf.concat([pieces, fill], axis=1)

        splits = tf.gather(pieces.row_splits, self.starts.row_splits)
        self.tokens = tf.RaggedTensor.from_row_splits(pieces.values, splits, validate=False)
        places = tf.ragged.range(self.starts.row_lengths()).values
        self.word = self.tokens.with_values(tf.repeat(places, pieces.row_lengths()))
        self.begins = pieces.row_starts()


@dataclass(frozen=True)
class GraphWindows:
    """Windows over the tokens of n texts.

    Args:
        text: The text of each window, int64 `[windows]`.
        starts, stops: Where it begins and ends in the text's tokens, int64 `[windows]`.
    """

    text: tf.Tensor
    starts: tf.Tensor
    stops: tf.Tensor

    def of(self, rows: tf.RaggedTensor) -> tf.RaggedTensor:
        """Returns what is in each window, of `[n, (tokens)]`."""
        return slices(tf.gather(rows, self.text), self.starts, self.stops)


def windows(lengths: tf.Tensor, room: tf.Tensor | int, stride: int) -> GraphWindows:
    """Returns the windows that `data.encoding.windows` gives.

    Args:
        lengths: Tokens of each text, int64 `[n]`.
        room: Tokens in a window, one number or int64 `[n]`.
        stride: Tokens that two neighbouring windows share.
    """
    room = tf.broadcast_to(tf.cast(room, tf.int64), tf.shape(lengths))
    step = room - stride
    rest = tf.maximum(lengths - room, 0)
    numbers = tf.ragged.range(1 + (rest + step - 1) // step)
    text = numbers.value_rowids()
    starts = tf.minimum(numbers.values * tf.gather(step, text), tf.gather(rest, text))
    return GraphWindows(text, starts, starts + tf.gather(tf.minimum(room, lengths), text))


def most_context(lengths: tf.Tensor, spans: GraphWindows) -> tf.Tensor:
    """Returns for each token of all texts the window in which it is furthest from an edge.

    Args:
        lengths: Tokens of each text, int64 `[n]`.
        spans: Windows over them.

    Returns:
        As `data.encoding.most_context`, int64 `[tokens of all texts]`.
    """
    ends = tf.cumsum(lengths)
    place = tf.ragged.range(spans.starts, spans.stops)
    window = place.value_rowids()
    text, start, stop = (
        tf.gather(of, window) for of in (spans.text, spans.starts, spans.stops)
    )  # fmt: skip
    length = tf.gather(lengths, text)
    before = tf.where(start == 0, length, place.values - start)
    after = tf.where(stop == length, length, stop - 1 - place.values)
    # The first of equally good windows: numbers count less than any difference in context.
    count = tf.maximum(tf.shape(spans.text, tf.int64)[0], 1)
    merit = tf.minimum(before, after) * count - window
    token = tf.gather(ends - lengths, text) + place.values
    best = tf.math.unsorted_segment_max(merit, token, tf.reduce_sum(lengths))
    return tf.math.floormod(-best, count)
