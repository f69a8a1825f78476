"""Words in a graph are those that `data.split_words` finds."""

import random
import sys

import pytest
import tensorflow as tf

from tfsft.data import split_words
from tfsft.export import graph_words


@pytest.fixture(scope="module")
def in_graph():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def split(texts):
        found = graph_words.split_words(texts)
        return found.starts.with_values(found.words), found.starts, found.ends

    return lambda texts: [x.to_list() for x in split(tf.constant(texts, tf.string, [len(texts)]))]


def check(in_graph, texts):
    for text, words, starts, ends in zip(texts, *in_graph(texts), strict=True):
        spans = split_words(text)
        assert list(zip(starts, ends, strict=True)) == spans, ascii(text)
        assert [word.decode() for word in words] == [text[a:b] for a, b in spans]


def test_characters_of_all_of_unicode(in_graph):
    rng = random.Random(0)
    letters = [chr(n) for n in range(sys.maxunicode + 1) if not 0xD800 <= n <= 0xDFFF]
    rng.shuffle(letters)
    check(in_graph, ["".join(letters[i : i + 50]) for i in range(0, 200_000, 50)])


def test_any_order_of_kinds(in_graph):
    rng = random.Random(0)
    pool = "ab1 \u200d\u200d\u0301\u0300\t\n.,😀❤️中あ한مر़ि\u00a0\x00\x07\ufeff²Ⅷ_\u2028\u3000"
    check(in_graph, ["".join(rng.choices(pool, k=rng.randrange(20))) for _ in range(5000)])


def test_no_texts(in_graph):
    assert in_graph([]) == [[], [], []]
    check(in_graph, ["", " ", "a b"])
