"""Texts cut into the pieces that tokens stand for."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfsft.data.ragged import Ragged
from tfsft.data.words import split_words
from tfsft.evaluation.explanations import Piece

SHORT = 2000  # characters; longer texts are cut at words, not at their pieces


def token_spans(tokenizer: Any, text: str) -> list[tuple[int, int, int, int]]:
    """Returns which characters of a text its tokens stand for.

    A tokenizer does not say it; but the beginning of a text has the first tokens of the whole,
    where it does not end in the middle of one.

    Returns:
        First character, the one after the last, first token, the one after the last; of all tokens
        in their order. Tokens that cannot be told apart are together.
    """
    places = range(1, len(text) + 1)
    if len(text) > SHORT:
        places = [end for _, end in split_words(text)]
    rows = Ragged(*tokenizer.encode([text, *(text[:place] for place in places)]))
    whole = rows[0]
    ends = {}
    for place, row in zip(places, itertools.islice(rows_of(rows), 1, None), strict=True):
        if len(row) and np.array_equal(row, whole[: len(row)]):
            ends[len(row)] = place  # the last one: spaces belong to what they follow
    if len(whole):
        ends[len(whole)] = len(text)
    spans, start, first = [], 0, 0
    for count in sorted(ends):
        later = [ends[other] for other in ends if other > count]
        if ends[count] > start and all(ends[count] < place for place in later):
            spans.append((start, ends[count], first, count))
            start, first = ends[count], count
    return spans


def rows_of(ragged: Ragged) -> Iterator[np.ndarray]:
    """Yields the rows."""
    return (ragged[row] for row in range(len(ragged)))


def pieces_of(
    text: str, spans: Sequence[tuple[int, int, int, int]], weights: Mapping[int, float]
) -> tuple[Piece, ...]:
    """Returns a text as pieces with what their tokens add; None where the model saw none of them.

    Args:
        text: The text.
        spans: From `token_spans`.
        weights: By the place of the token.
    """
    pieces = []
    for start, end, first, last in spans:
        seen = [float(weights[i]) for i in range(first, last) if i in weights]
        words, place = text[start:end], len(text[start:end].rstrip()) or end - start
        pieces.append((words[:place], sum(seen) if seen else None))
        pieces.append((words[place:], 0.0 if seen else None))
    pieces.append((text[spans[-1][1] if spans else 0 :], None))
    return tuple(piece for piece in pieces if piece[0])


def words_coloured(
    text: str, starts: Sequence[int], ends: Sequence[int], weights: Mapping[int, float]
) -> tuple[Piece, ...]:
    """Returns a text as its words with what each adds, and what is between them."""
    pieces, place = [], 0
    for word, (start, end) in enumerate(zip(starts, ends, strict=True)):
        pieces += [(text[place:start], 0.0), (text[start:end], weights.get(word))]
        place = end
    return tuple(piece for piece in [*pieces, (text[place:], 0.0)] if piece[0])


def sums(words: np.ndarray, weights: np.ndarray) -> dict[int, float]:
    """Returns the sum of the weights of each word's tokens, by word."""
    found: dict[int, float] = {}
    for word, weight in zip(words.tolist(), weights.tolist(), strict=True):
        found[word] = found.get(word, 0.0) + weight
    return found
