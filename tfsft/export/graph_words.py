"""`data.split_words` as operations of TensorFlow, for models that are served without Python."""

import sys
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import tensorflow as tf

from tfsft.data.words import JOINER, letter_kind

# Kinds of characters, a letter each, so that words are a regular expression over kinds. What
# follows a joiner belongs to the word before, but does not change what this word is.
_SPACE, _JOINER = " ", "j"
_CODES = {"letter": "l", "single": "s", "mark": "m", " ": _SPACE}
_JOINED = "j+[^ j]|[mj]"
_WORD = f"l(?:{_JOINED}|l)*|s(?:{_JOINED})*|(?:{_JOINED})+"


@dataclass(frozen=True)
class GraphWords:
    """The words of n texts.

    Args:
        words: Strings `[words of all texts]`.
        starts, ends: Where each begins and ends, in characters of its text, int64 `[n, (words)]`.
    """

    words: tf.Tensor
    starts: tf.RaggedTensor
    ends: tf.RaggedTensor


def split_words(texts: tf.Tensor) -> GraphWords:
    """Splits texts `[n]` exactly as `data.split_words` does."""
    import tensorflow_text as tf_text

    firsts, codes = _kind_ranges()
    letters = tf.strings.unicode_decode(texts, "UTF-8")
    ranges = tf.searchsorted(tf.constant(firsts), letters.values, side="right") - 1
    kinds = tf.gather(tf.constant(codes), ranges)
    written = tf.strings.unicode_encode(letters.with_values(kinds), "UTF-8")
    _, starts, ends = tf_text.regex_split_with_offsets(written, f"({_WORD}| +)", "[^ ].*")
    # Every character but space is in a word, so the words are what is left, cut by their lengths.
    inside = tf.boolean_mask(letters.values, kinds != ord(_SPACE))
    cut = tf.RaggedTensor.from_row_lengths(inside, ends.values - starts.values, validate=False)
    return GraphWords(tf.strings.unicode_encode(cut, "UTF-8"), starts, ends)


@cache
def _kind_ranges() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns where runs of characters of one kind begin in Unicode, and the code of each kind."""

    def code(number: int) -> str:
        letter = chr(number)
        return _JOINER if letter == JOINER else _CODES[letter_kind.__wrapped__(letter)]

    runs = groupby(range(sys.maxunicode + 1), code)
    firsts, codes = zip(*((next(run), ord(kind)) for kind, run in runs), strict=True)
    return firsts, codes
