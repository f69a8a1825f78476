"""What a graph packs and cuts is what the encoders of `data` pack and cut, token for token."""

import functools
import random

import numpy as np
import pytest
import tensorflow as tf
from text_families import tiny_tokenizer
from text_runs import TEXTS

from tfsft import data
from tfsft.data import encoding
from tfsft.export.graph_tokens import GraphPieces, most_context, pack_texts, windows
from tfsft.models.tokenizers import TextTokenizer

FRAGMENTS = [
    "fox", "dog ", "the quick ", "brown", " ", ",", "!", "😀", "👩\u200d👧", "中文", "مرحبا", "é",
    "e\u0301", "\u200d", "\u200b", "\n", "\x00", "\x07", "[SEP]", "</s>", "\u00a0", "ß", "İ",
]  # fmt: skip


@pytest.fixture(scope="module")
def make_tokenizer():
    @functools.cache
    def make(family):
        layer = tiny_tokenizer(family)
        return TextTokenizer(layer, name="tiny", uses_segments=family == "bert")

    return make


def random_texts(count, seed):
    rng = random.Random(seed)
    return ["".join(rng.choices(FRAGMENTS, k=rng.choice((0, 1, 5, 40)))) for _ in range(count)]


def graph(function, count):
    """Returns a function of lists of strings that runs in a graph."""
    signature = [tf.TensorSpec([None], tf.string)] * count
    traced = tf.function(function, input_signature=signature, autograph=False)
    return lambda *texts: traced(*(tf.constant(t, tf.string, [len(t)]) for t in texts))


@pytest.mark.parametrize("family", ["bert", "deberta_v3"])
@pytest.mark.parametrize("truncate", ["end", "middle"])
@pytest.mark.parametrize(("pair", "max_length"), [(False, 9), (True, 10), (True, 32)])
def test_texts_are_packed_as_by_the_encoder(make_tokenizer, family, pair, max_length, truncate):
    tokenizer = make_tokenizer(family)
    columns = {"text": TEXTS + random_texts(60, 0), "pair": TEXTS[::-1] + random_texts(60, 1)}
    encoder = data.TextEncoder(tokenizer, max_length, pair=pair, truncate=truncate)
    tokens, rows, _ = encoder.encode(columns, 0)
    expected = tokens["token_ids"]

    pack = graph(lambda *texts: pack_texts(encoder, texts), len(encoder.columns))
    packed = {k: v.numpy() for k, v in pack(*(columns[c] for c in encoder.columns)).items()}
    assert packed["token_ids"].shape[1] == expected.lengths.max()
    for i, length in enumerate(expected.lengths):
        padding = [tokenizer.pad] * (packed["token_ids"].shape[1] - length)
        assert packed["token_ids"][i].tolist() == [*expected[i], *padding]
        assert packed["padding_mask"][i].tolist() == [1] * length + [0] * len(padding)
        if tokenizer.uses_segments:
            second = rows["second"][i]
            segments = [0] * second + [1] * (length - second) + [0] * len(padding)
            assert packed["segment_ids"][i].tolist() == segments
    assert ("segment_ids" in packed) == tokenizer.uses_segments


@pytest.mark.parametrize("family", ["bert", "deberta_v3", "roberta"])
def test_words_have_the_encoders_tokens(make_tokenizer, family):
    tokenizer = make_tokenizer(family)
    texts = TEXTS + random_texts(60, 2)
    spans = [data.split_words(text) for text in texts]
    cells = {
        "text": texts,
        "starts": [[start for start, _ in row] for row in spans],
        "ends": [[end for _, end in row] for row in spans],
    }
    expected, words = encoding.tokens_of_words(tokenizer, cells)

    def pieces(texts):
        found = GraphPieces(tokenizer, texts)
        return found.tokens, found.word, found.begins

    tokens, word, begins = graph(pieces, 1)(texts)
    assert tokens.to_list() == [row.tolist() for row in expected]
    assert word.to_list() == [row.tolist() for row in words]
    firsts = np.flatnonzero(
        np.concatenate([np.diff(row, prepend=-1) != 0 for row in words])
    )  # fmt: skip
    assert begins.numpy().tolist() == firsts.tolist()


@pytest.mark.parametrize(("room", "stride"), [(5, 0), (5, 2), (6, 5), (1, 0), (40, 3)])
def test_windows_are_the_encoders(room, stride):
    lengths = np.arange(0, 33)
    spans = windows(tf.constant(lengths, tf.int64), room, stride)
    expected = [encoding.windows(length, room, stride) for length in lengths]
    found = [spans.text.numpy(), spans.starts.numpy(), spans.stops.numpy()]
    assert np.stack(found, axis=1).tolist() == [
        [text, *span] for text, row in enumerate(expected) for span in row
    ]

    first_windows = np.cumsum([0, *map(len, expected)])[:-1]
    best = [
        first + encoding.most_context(length, row)
        for first, length, row in zip(first_windows, lengths, expected, strict=True)
    ]
    found = most_context(tf.constant(lengths, tf.int64), spans)
    assert found.numpy().tolist() == np.concatenate(best).tolist()


def test_each_text_may_have_its_own_room():
    lengths, rooms = [10, 10, 3], [4, 12, 3]
    spans = windows(tf.constant(lengths, tf.int64), tf.constant(rooms), 1)
    expected = [encoding.windows(*sizes, 1) for sizes in zip(lengths, rooms, strict=True)]
    found = zip(spans.starts.numpy().tolist(), spans.stops.numpy().tolist(), strict=True)
    assert list(found) == [span for row in expected for span in row]
