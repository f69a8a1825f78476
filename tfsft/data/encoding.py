"""From texts to the tokens a model is given: packing, truncation, windows and their targets."""

import contextlib
import ctypes
import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tfsft.cache import cache_folder, made_once
from tfsft.data.ragged import Ragged, joined
from tfsft.data.token_table import FORMAT, TokenTable, write_tokens
from tfsft.data.windows import most_context, windows
from tfsft.data.words import split_words
from tfsft.errors import UsageError

ROWS_PER_JOB = 512
NO_TARGET = -1
QUESTION_TOKENS = 64  # most of a question; the rest of the room belongs to its context

Chunk = tuple[Mapping[str, Ragged], Mapping[str, np.ndarray], dict]


class Tokenizer(Protocol):
    """What the encoders need of `models.TextTokenizer`."""

    start: tuple[int, ...]
    separator: tuple[int, ...]
    end: tuple[int, ...]
    pad: int
    unknown: int | None
    uses_segments: bool
    fingerprint: str

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens of texts one after another, and the offsets of each text."""

    def encode_words(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the same for words as they are inside of a sentence."""


class Encoder(Protocol):
    """Turns the cells of some examples into rows of tokens."""

    columns: tuple[str, ...]
    settings: dict[str, Any]
    tokenizer: Tokenizer

    def encode(self, cells: Mapping[str, list], first: int) -> Chunk:
        """Encodes examples `first`, `first + 1`, ... of a source."""


class TextEncoder:
    """Encodes a text, or a pair of texts, as one row: start, text, (separator, pair,) end.

    What is longer than the limit is truncated, of a pair the longer text first; `full_length` says
    how long it was. Of long texts both ends may tell more than the start alone (Sun et al.,
    arXiv:1905.05583).

    Args:
        tokenizer: Of the backbone.
        max_length: Most tokens in a row, special ones included.
        pair: Whether an example has two texts.
        truncate: What a longer text loses: its `end` or its `middle`.
    """

    def __init__(
        self, tokenizer: Tokenizer, max_length: int, *, pair: bool = False, truncate: str = "end"
    ):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.truncate = truncate
        self.columns = ("text", "pair") if pair else ("text",)
        self.settings = {
            "encoder": "texts",
            "max_length": max_length,
            "columns": self.columns,
            "truncate": truncate,
        }
        special = len(tokenizer.start) + len(tokenizer.end)
        self.room = max_length - special - (len(tokenizer.separator) if pair else 0)
        _check_room(self.room, max_length)

    def encode(self, cells: Mapping[str, list], first: int) -> Chunk:
        """Encodes examples; one row each."""
        tokenizer = self.tokenizer
        parts = [Ragged(*tokenizer.encode(cells[name])) for name in self.columns]
        lengths = [part.lengths for part in parts]
        whole = sum(lengths)
        if len(parts) == 1:
            kept = [parts[0].shortened(np.full(len(whole), self.room), self.truncate)]
            tokens = joined([tokenizer.start, kept[0], tokenizer.end])
            second = tokens.lengths
        else:
            # Each may have half of the room, and what the other one leaves of its half.
            a = np.minimum(
                lengths[0], np.maximum(self.room - self.room // 2, self.room - lengths[1])
            )
            kept = [
                part.shortened(room, self.truncate)
                for part, room in zip(parts, (a, self.room - a), strict=True)
            ]
            head = [tokenizer.start, kept[0], tokenizer.separator]
            tokens = joined([*head, kept[1], tokenizer.end])
            second = joined(head).lengths
        special = tokens.lengths - sum(part.lengths for part in kept)
        rows = {
            "second": second.astype("int32"),
            "example": np.arange(first, first + len(whole)),
            "full_length": (whole + special).astype("int32"),
        }
        return {"token_ids": tokens}, rows, _facts(parts, tokenizer, whole > self.room)


class TagEncoder:
    """Encodes sentences that have a tag for each word; long ones in overlapping windows.

    The target of a word is on its first token. A word that is in two windows counts in the one
    where it is further from the edge, so that every word counts once.

    Args:
        tokenizer: Of the backbone.
        max_length: Most tokens in a window, special ones included.
        stride: Tokens that two neighbouring windows share.
    """

    columns = ("text", "starts", "ends", "tags")

    def __init__(self, tokenizer: Tokenizer, max_length: int, *, stride: int = 32):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.stride = stride
        self.settings = {"encoder": "tags", "max_length": max_length, "stride": stride}
        self.room = max_length - len(tokenizer.start) - len(tokenizer.end)
        _check_room(self.room, max_length, stride)

    def encode(self, cells: Mapping[str, list], first: int) -> Chunk:
        """Encodes examples; one row for each window.

        `targets` has the tag of the word that a token begins, or `NO_TARGET`; `words` its place in
        the example.
        """
        pieces, words = tokens_of_words(self.tokenizer, cells)
        columns: dict[str, list] = {"token_ids": [], "targets": [], "words": []}
        examples, full_lengths = [], []
        head, tail = len(self.tokenizer.start), len(self.tokenizer.end)
        for example in range(len(pieces)):
            ids, word = pieces[example], words[example]
            begins = np.diff(word, prepend=-1) != 0
            tags = np.asarray(cells["tags"][example], np.int32)
            targets = np.where(begins, tags[word] if len(word) else 0, NO_TARGET)
            spans = windows(len(ids), self.room, self.stride)
            best = most_context(len(ids), spans)
            for number, (start, stop) in enumerate(spans):
                counts = begins[start:stop] & (best[start:stop] == number)
                outside = [NO_TARGET]
                columns["token_ids"].append(
                    [*self.tokenizer.start, *ids[start:stop], *self.tokenizer.end]
                )
                for name, values in (("targets", targets), ("words", word)):
                    chosen = np.where(counts, values[start:stop], NO_TARGET)
                    columns[name].append([*outside * head, *chosen, *outside * tail])
                examples.append(first + example)
                full_lengths.append(len(ids) + head + tail)
        tokens = {name: Ragged.of(rows, "int32") for name, rows in columns.items()}
        rows = {
            "second": tokens["token_ids"].lengths.astype("int32"),
            "example": np.array(examples, np.int64),
            "full_length": np.array(full_lengths, np.int32),
        }
        return tokens, rows, _facts([pieces], self.tokenizer, pieces.lengths > self.room)


class QuestionEncoder:
    """Encodes questions with their contexts; long contexts in overlapping windows.

    A row is start, question, separator, a window of the context, end. Where the (first) answer lies
    in the window, `answer_start` and `answer_end` are the places of its first and last token; where
    not, they are 0, the place of the start token.

    Args:
        tokenizer: Of the backbone.
        max_length: Most tokens in a row, special ones included.
        stride: Tokens of the context that two neighbouring windows share.
    """

    columns = ("question", "context", "answers")

    def __init__(self, tokenizer: Tokenizer, max_length: int, *, stride: int = 128):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.stride = stride
        self.settings = {"encoder": "questions", "max_length": max_length, "stride": stride}
        special = len(tokenizer.start) + len(tokenizer.separator) + len(tokenizer.end)
        self.question_tokens = min(QUESTION_TOKENS, max_length // 2)
        self.room = max_length - special - self.question_tokens
        _check_room(self.room, max_length, stride)

    @staticmethod
    def words(context: str) -> list[tuple[int, int]]:
        """Returns where the words begin and end that an answer is made of, in characters."""
        return split_words(context)

    def encode(self, cells: Mapping[str, list], first: int) -> Chunk:
        """Encodes examples; one row for each window.

        `words` has the place of each token's word in the context, as `split_words` cuts it, or
        `NO_TARGET` outside of the context.
        """
        tokenizer = self.tokenizer
        questions = Ragged(*tokenizer.encode(cells["question"]))
        spans_of_words = [self.words(context) for context in cells["context"]]
        contexts = {
            "text": cells["context"],
            "starts": [[start for start, _ in spans] for spans in spans_of_words],
            "ends": [[end for _, end in spans] for spans in spans_of_words],
        }
        pieces, words = tokens_of_words(tokenizer, contexts)
        columns: dict[str, list] = {"token_ids": [], "words": []}
        rows: dict[str, list] = {
            name: [] for name in ("second", "example", "full_length", "answer_start", "answer_end")
        }
        for example in range(len(pieces)):
            question = [*tokenizer.start, *questions[example][: self.question_tokens]]
            question += tokenizer.separator
            ids, word = pieces[example], words[example]
            room = self.max_length - len(question) - len(tokenizer.end)
            answer = _answer_tokens(cells["answers"][example], contexts, example, word)
            for start, stop in windows(len(ids), room, self.stride):
                columns["token_ids"].append([*question, *ids[start:stop], *tokenizer.end])
                outside = [NO_TARGET]
                columns["words"].append(
                    [
                        *outside * len(question),
                        *word[start:stop],
                        *outside * len(tokenizer.end),
                    ]
                )
                inside = answer is not None and start <= answer[0] and answer[1] < stop
                shift = len(question) - start
                rows["answer_start"].append(answer[0] + shift if inside else 0)
                rows["answer_end"].append(answer[1] + shift if inside else 0)
                rows["second"].append(len(question))
                rows["example"].append(first + example)
                rows["full_length"].append(len(question) + len(ids) + len(tokenizer.end))
        tokens = {name: Ragged.of(values, "int32") for name, values in columns.items()}
        arrays = {
            name: np.array(values, "int64" if name == "example" else "int32")
            for name, values in rows.items()
        }
        cut = np.array(questions.lengths + pieces.lengths > self.room)
        return tokens, arrays, _facts([questions, pieces], tokenizer, cut)


def encode_source(
    source: Any, encoder: Encoder, progress: Callable[[int, int], None] | None = None
) -> TokenTable:
    """Returns a source as tokens: from the cache, or made now, in parallel, and kept there.

    Args:
        source: A `TextSource`; the tokens of `PlainTexts` are not kept.
        encoder: What makes tokens of its cells.
        progress: Called with (done, total) examples while tokens are made.
    """
    if source.fingerprint is None:
        with tempfile.TemporaryDirectory(prefix="tfsft-tokens-") as folder:
            write_tokens(Path(folder), encoded_chunks(source, encoder, progress))
            return TokenTable(Path(folder))  # what is mapped stays when its name goes
    identity = [FORMAT, source.fingerprint, encoder.tokenizer.fingerprint, encoder.settings]
    name = hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()

    def make(folder: Path) -> None:
        write_tokens(folder, encoded_chunks(source, encoder, progress))

    table = TokenTable(made_once(cache_folder() / "tokens" / name, make))
    _give_memory_back()
    return table


def _give_memory_back() -> None:
    """Lets go of the memory that glibc keeps of what reading and splitting took, for what it is
    worth: of a million texts 150 MiB.
    """
    with contextlib.suppress(OSError, AttributeError):  # another system
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def encoded_chunks(
    source: Any, encoder: Encoder, progress: Callable[[int, int], None] | None = None
) -> Iterator[Chunk]:
    """Yields the tokens of a source in its order, some rows at a time."""

    def encode(start: int) -> Chunk:
        rows = np.arange(start, min(start + ROWS_PER_JOB, len(source)))
        cells = {name: source.column(name, rows) for name in encoder.columns}
        return encoder.encode(cells, start)

    workers = os.cpu_count() or 1
    starts = iter(range(0, len(source), ROWS_PER_JOB))
    waiting: deque = deque()
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                while len(waiting) < 2 * workers and (start := next(starts, None)) is not None:
                    waiting.append(pool.submit(encode, start))
                if not waiting:
                    return
                yield waiting.popleft().result()
                done = min(done + ROWS_PER_JOB, len(source))
                if progress is not None:
                    progress(done, len(source))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest


def tokens_of_words(tokenizer: Tokenizer, cells: Mapping[str, list]) -> tuple[Ragged, Ragged]:
    """Returns the tokens of each example, and for each token the place of its word."""
    words, counts = [], []
    for text, starts, ends in zip(cells["text"], cells["starts"], cells["ends"], strict=True):
        words += [text[start:end] for start, end in zip(starts, ends, strict=True)]
        counts.append(len(starts))
    pieces = Ragged(*tokenizer.encode_words(words))
    if (pieces.lengths == 0).any():  # a control character, say; it has a tag all the same
        stand_in = tokenizer.unknown if tokenizer.unknown is not None else tokenizer.pad
        empty = Ragged.cut(
            np.full(int((pieces.lengths == 0).sum()), stand_in, pieces.values.dtype),
            (pieces.lengths == 0).astype(int),
        )
        pieces = joined([pieces, empty])
    of_example = Ragged.cut(np.arange(len(words)), counts)
    lengths = [
        int(pieces.offsets[stop] - pieces.offsets[start])
        for start, stop in zip(of_example.offsets[:-1], of_example.offsets[1:], strict=True)
    ]
    word = np.repeat(of_example.places, pieces.lengths)
    return Ragged.cut(pieces.values, lengths), Ragged.cut(word, lengths)


def _answer_tokens(
    answers: list[Mapping[str, Any]], contexts: Mapping[str, list], example: int, word: np.ndarray
) -> tuple[int, int] | None:
    """Returns the first and the last token of the first answer; None where there is none."""
    if not answers or not len(word):
        return None
    start = answers[0]["start"]
    stop = start + len(answers[0]["text"])
    starts, ends = np.array(contexts["starts"][example]), np.array(contexts["ends"][example])
    touched = np.flatnonzero((ends > start) & (starts < stop))
    if not len(touched):
        return None
    tokens = np.flatnonzero((word >= touched[0]) & (word <= touched[-1]))
    return int(tokens[0]), int(tokens[-1])


def _facts(parts: Sequence[Ragged], tokenizer: Tokenizer, too_long: np.ndarray) -> dict[str, int]:
    unknown = sum(int((part.values == tokenizer.unknown).sum()) for part in parts)
    return {
        "examples": len(too_long),
        "pieces": sum(len(part.values) for part in parts),
        "unknown": unknown,
        "too_long": int(too_long.sum()),
    }


def _check_room(room: int, max_length: int, stride: int = 0) -> None:
    if room <= stride:
        raise UsageError(
            f"--max-length {max_length} leaves room for {max(room, 0)} tokens"
            + (f", and windows share {stride}." if stride else "."),
            "More than the special tokens" + (" and the tokens windows share." if stride else "."),
            f"Try --max-length {max_length - room + max(2 * stride, 16)}"
            + (f", or --stride {max(room // 3, 0)}." if stride and room > 0 else "."),
        )
