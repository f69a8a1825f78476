"""What an exported model does with strings: a class for each task, which gives the function that is
served.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsft.data import QuestionEncoder, TagEncoder, TextEncoder
from tfsft.data.images import resize
from tfsft.evaluation.decoding import CANDIDATES
from tfsft.export.graph_tokens import (
    GraphPieces,
    GraphWindows,
    joined,
    model_inputs,
    most_context,
    pack_texts,
    padded,
    shortened,
    windows,
)

Outputs = dict[str, tf.Tensor]


def serve_pictures(model: keras.Model, task: dict[str, Any]) -> tuple[Callable, list]:
    """Returns the function from pictures to answers, and what it takes."""
    size = model.inputs[0].shape[1:]

    def serve(pictures: tf.Tensor) -> Outputs:
        return _labels(model(pictures, training=False), task)

    return serve, [tf.TensorSpec([None, *size], tf.uint8, "pictures")]


def serve_encoded(model: keras.Model, task: dict[str, Any]) -> tuple[Callable, list]:
    """Returns the function from the bytes of picture files to answers, and what it takes.

    JPEG, PNG, GIF, BMP and WebP are decoded as Pillow does, but for orientation in EXIF.
    """
    size = task["image_size"]

    def read(encoded: tf.Tensor) -> tf.Tensor:
        return resize(_decoded(encoded), size)

    def serve(image_bytes: tf.Tensor) -> Outputs:
        kind = tf.TensorSpec([size, size, 3], tf.uint8)
        pictures = tf.map_fn(read, image_bytes, fn_output_signature=kind)
        return _labels(model(pictures, training=False), task)

    return serve, [_strings("image_bytes")]


def serve_texts(
    model: keras.Model, encoder: TextEncoder, task: dict[str, Any]
) -> tuple[Callable, list]:
    """Returns the function from texts, or pairs of texts, to answers, and what it takes."""

    def answer(*texts: tf.Tensor) -> Outputs:
        inputs = pack_texts(encoder, [_valid(text) for text in texts])
        return _labels(model(inputs, training=False), task)

    if "pair" in task["inputs"]:
        return lambda text, pair: answer(text, pair), [_strings("text"), _strings("pair")]
    return lambda texts: answer(texts), [_strings("texts")]


def serve_tags(
    model: keras.Model, encoder: TagEncoder, task: dict[str, Any]
) -> tuple[Callable, list]:
    """Returns the function from texts to their words with tags, and what it takes.

    Long texts are seen in windows, as in training. Rows are padded to the text with most words:
    words and tags with "", places with -1, probabilities with 0.
    """
    tokenizer = encoder.tokenizer

    def serve(texts: tf.Tensor) -> Outputs:
        pieces = GraphPieces(tokenizer, _valid(texts))
        lengths = pieces.tokens.row_lengths()
        spans = windows(lengths, encoder.room, encoder.stride)
        tokens = joined([tokenizer.start, spans.of(pieces.tokens), tokenizer.end])
        outputs = model(model_inputs(tokenizer, tokens), training=False)

        # Each word is read where its first token has most context.
        text = pieces.starts.value_rowids()
        window = tf.gather(most_context(lengths, spans), pieces.begins)
        place = pieces.begins - tf.gather(pieces.tokens.row_starts(), text)
        place += len(tokenizer.start) - tf.gather(spans.starts, window)
        found = tf.gather_nd(outputs, tf.stack([window, place], axis=1))
        tags = tf.gather(tf.constant(task["tags"]), tf.argmax(found, axis=1))
        words = pieces.starts.with_values
        return {
            "words": words(pieces.words).to_tensor(),
            "starts": pieces.starts.to_tensor(-1),
            "ends": pieces.ends.to_tensor(-1),
            "tags": words(tags).to_tensor(),
            "probabilities": words(tf.reduce_max(found, axis=1)).to_tensor(),
        }

    return serve, [_strings("texts")]


def serve_answers(
    model: keras.Model, encoder: QuestionEncoder, task: dict[str, Any]
) -> tuple[Callable, list]:
    """Returns the function from questions and contexts to answers, and what it takes.

    "No answer" is an empty one that starts and ends at -1.
    """
    tokenizer = encoder.tokenizer

    def serve(question: tf.Tensor, context: tf.Tensor) -> Outputs:
        context = _valid(context)
        pieces = GraphPieces(tokenizer, context)
        asked = shortened(tokenizer.graph(_valid(question)), encoder.question_tokens)
        special = len(tokenizer.start) + len(tokenizer.separator) + len(tokenizer.end)
        room = encoder.max_length - special - asked.row_lengths()
        spans = windows(pieces.tokens.row_lengths(), room, encoder.stride)
        head = [tokenizer.start, tf.gather(asked, spans.text), tokenizer.separator]
        second = joined(head).row_lengths()
        tokens = joined([*head, spans.of(pieces.tokens), tokenizer.end])
        outputs = model(model_inputs(tokenizer, tokens, second), training=False)

        word = spans.of(pieces.word)
        outside = tf.RaggedTensor.from_row_lengths(
            tf.fill([tf.reduce_sum(second)], tf.constant(-1, tf.int64)), second, validate=False
        )
        words = padded(joined([outside, word, [-1] * len(tokenizer.end)]), -1)
        first_word, last_word, probability = _best_answers(
            outputs, words, spans, tf.shape(context)[0], task
        )
        # One more place, as a context without words has none.
        starts, ends = (joined([of, [0]]) for of in (pieces.starts, pieces.ends))
        known = first_word >= 0
        rows = tf.range(tf.shape(context)[0], dtype=tf.int64)
        start, end = (
            tf.gather_nd(places, tf.stack([rows, tf.maximum(word, 0)], axis=1))
            for places, word in ((starts, first_word), (ends, last_word))
        )
        length = tf.where(known, end - start, 0)
        return {
            "answer": tf.strings.substr(context, tf.where(known, start, 0), length, "UTF8_CHAR"),
            "start": tf.where(known, start, -1),
            "end": tf.where(known, end, -1),
            "probability": tf.cast(probability, tf.float32),
        }

    return serve, [_strings("question"), _strings("context")]


def _best_answers(
    logits: tf.Tensor, words: tf.Tensor, spans: GraphWindows, count: tf.Tensor, task: dict[str, Any]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds the best span over the windows of each question, as `AnswerDecoder` does.

    Args:
        logits: float32 `[windows, 2, width]`.
        words: Place of each token's word in the context, -1 outside, int64 `[windows, width]`.
        spans: The windows.
        count: Number of questions.
        task: The run's task.json.

    Returns:
        First and last word, int64 `[n]`, -1 for "no answer"; and the answer's probability, float64
        `[n]`.
    """
    none = tf.cast(logits[:, 0, 0], tf.float64) + tf.cast(logits[:, 1, 0], tf.float64)
    none = tf.math.unsorted_segment_min(none, spans.text, count)

    # In each window, pairs of the best places, and the best single token where no pair is allowed
    inside = words >= 0
    starts, ends = (tf.where(inside, logits[:, i], -np.inf) for i in range(2))
    best = tf.minimum(CANDIDATES, tf.shape(words)[1])
    (first_score, firsts), (last_score, lasts) = (tf.math.top_k(x, best) for x in (starts, ends))
    scores = tf.cast(first_score[:, :, None], tf.float64) + tf.cast(
        last_score[:, None, :], tf.float64
    )
    lengths = lasts[:, None, :] - firsts[:, :, None]
    allowed = (lengths >= 0) & (lengths < task["max_answer_length"]) & (scores > -np.inf)
    single_score, single = (x[:, 0] for x in tf.math.top_k(starts + ends, 1))
    alone = ~tf.reduce_any(allowed, axis=[1, 2]) & (single_score > -np.inf)
    shape = tf.shape(lengths)

    def flat(pairs: tf.Tensor, one: tf.Tensor) -> tf.Tensor:
        pairs = tf.reshape(tf.broadcast_to(pairs, shape), [shape[0], -1])
        return tf.concat([pairs, one[:, None]], axis=1)

    word_of = lambda token: tf.gather(words, token, batch_dims=1)  # noqa: E731
    single_word = tf.gather(words, single, batch_dims=1)
    kept = flat(allowed, alone)
    score, first_word, last_word, question = (
        tf.boolean_mask(x, kept)
        for x in (
            flat(scores, tf.cast(single_score, tf.float64)),
            flat(word_of(firsts)[:, :, None], single_word),
            flat(word_of(lasts)[:, None, :], single_word),
            tf.broadcast_to(spans.text[:, None], tf.shape(kept)),
        )
    )

    # A span that several windows or tokens propose counts once, with its best score
    base = tf.reduce_max(tf.concat([tf.reshape(words, [-1]), [0]], 0)) + 1
    keys, span = tf.unique((question * base + first_word) * base + last_word, tf.int64)
    score = tf.math.unsorted_segment_max(score, span, tf.shape(keys, tf.int64)[0])
    of_question = tf.RaggedTensor.from_value_rowids(
        tf.stack([keys, tf.range(tf.shape(keys, tf.int64)[0])], axis=1),
        keys // (base * base),
        tf.cast(count, tf.int64),
        validate=False,
    )
    table = of_question.with_values(score).to_tensor(-np.inf)
    table = tf.pad(table, [[0, 0], [0, 1]], constant_values=-np.inf)  # at least one column
    top, column = tf.math.top_k(table, tf.minimum(CANDIDATES, tf.shape(table)[1]))
    key = of_question.with_values(keys).to_tensor(0)
    key = tf.gather(tf.pad(key, [[0, 0], [0, 1]]), column[:, 0], batch_dims=1)

    found = top[:, 0] > -np.inf
    shares = tf.concat([top, none[:, None]] if task["no_answer"] else [top], axis=1)
    shares = tf.nn.softmax(shares, axis=1)
    refused = ~found
    if task["no_answer"]:
        refused |= none > top[:, 0]
    probability = tf.where(refused, shares[:, -1], shares[:, 0])
    # Where nothing at all can be said, "no answer" is certain.
    probability = tf.where(tf.math.is_nan(probability), tf.ones_like(probability), probability)
    return (
        tf.where(refused, tf.constant(-1, tf.int64), key // base % base),
        tf.where(refused, tf.constant(-1, tf.int64), key % base),
        probability,
    )


def _labels(outputs: tf.Tensor, task: dict[str, Any]) -> Outputs:
    """Names what a model of classes, or of numbers, says."""
    if task["labels"] == "regression":
        return {"value": outputs[:, 0]}
    found = {"probabilities": outputs}
    if task["labels"] == "single":
        found["label"] = tf.gather(tf.constant(task["class_names"]), tf.argmax(outputs, axis=1))
    return found


def _decoded(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the pixels of a picture file, uint8 `[height, width, 3]`, transparency on white."""

    def jpeg() -> tf.Tensor:
        return tf.io.decode_jpeg(encoded, 3, fancy_upscaling=True, dct_method="INTEGER_ACCURATE")

    def png() -> tf.Tensor:
        image = tf.cast(tf.io.decode_png(encoded, 4), tf.float32)
        opaque = image[..., 3:] / 255.0
        return tf.cast(tf.round(image[..., :3] * opaque + 255.0 * (1.0 - opaque)), tf.uint8)

    def other() -> tf.Tensor:
        image = tf.io.decode_image(encoded, 3, expand_animations=False)
        return tf.ensure_shape(image, [None, None, 3])

    def begins(magic: bytes) -> tf.Tensor:
        return tf.strings.substr(encoded, 0, len(magic)) == magic

    rest = lambda: tf.cond(begins(b"\x89PNG"), png, other)  # noqa: E731
    return tf.cond(begins(b"\xff\xd8\xff"), jpeg, rest)


def _valid(texts: tf.Tensor) -> tf.Tensor:
    """Replaces what is no UTF-8."""
    return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")


def _strings(name: str) -> tf.TensorSpec:
    return tf.TensorSpec([None], tf.string, name)
