"""A look at labelled texts before training on them: what is in them and what is wrong with them."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfsft.data import findings
from tfsft.data.chat_inspection import ChatInspection, inspect_chats
from tfsft.data.inspection import (
    Inspection,
    counts_by_class,
    describe_bad,
    describe_copies,
    describe_near_empty,
    inspect_images,
    near_empty_classes,
    repeated_ids,
)
from tfsft.data.labels import shorten
from tfsft.data.splits import BadExample, Splits
from tfsft.data.text_source import BATCH_ROWS, TextSource

CJK = "\u3040-\u30ff\u3400-\u9fff"  # a character counts as a word
WORD = re.compile(f"[{CJK}]|[^\\W{CJK}]+")
SHOWN = 1000  # ids to remember of each kind


@dataclass(frozen=True)
class TextInspection:
    """What was found in labelled texts.

    Args:
        counts: Examples of each class in each split: `counts["train"]["spam"]`; without classes,
            of each split under the name "".
        bad: Rows that were left out.
        duplicates: Ids of each content that occurs more than once in one split.
        leaks: Ids of each content that occurs in more than one split.
        skew: How many times as many training examples the largest class has as the smallest.
        near_empty: Classes with few training examples, and how many.
        characters, words: Shortest, median and longest text; of questions, of their contexts.
        wordless: Ids of texts that are empty or hold punctuation alone.
        garbled: Ids of texts that were probably read in a wrong encoding.
        warnings: What was found while the data was loaded.
        notes: How the data was read.
    """

    counts: dict[str, dict[str, int]]
    bad: tuple[BadExample, ...]
    duplicates: tuple[tuple[str, ...], ...]
    leaks: tuple[tuple[str, ...], ...]
    skew: float
    near_empty: dict[str, int]
    characters: tuple[int, int, int]
    words: tuple[int, int, int]
    wordless: tuple[str, ...]
    garbled: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def summary(self) -> list[str]:
        """Returns what there is to say about good examples, a sentence each."""
        (short, middle, long), (few, half, many) = self.characters, self.words
        return [
            *self.notes,
            f"Texts: {few} to {many} words, half of them up to {half}; {short} to {long} "
            f"characters, half of them up to {middle}.",
        ]

    def problems(self) -> list[str]:
        """Returns what a person should look at, a sentence each; empty when all is well."""
        found = []
        found += describe_bad(self.bad, "examples")
        found += self.warnings
        found += describe_copies(self.duplicates, "texts")
        found += describe_near_empty(self.near_empty)
        if self.wordless:
            found.append(
                f"{len(self.wordless)} texts hold punctuation alone: {shorten(self.wordless)}."
            )
        found += findings.describe_garbled(self.garbled, "texts")
        return found


def inspect_texts(
    splits: Splits, *, progress: Callable[[int, int], None] | None = None
) -> TextInspection:
    """Looks at labels and contents of all texts.

    Args:
        splits: From `load_texts`, `load_tags` or `load_questions`.
        progress: Called with (done, total) while texts are read.
    """
    sources = splits.sources()
    total = sum(map(len, sources.values()))
    characters, words = np.empty(total, np.int64), np.empty(total, np.int64)
    wordless: list[str] = []
    garbled: list[str] = []
    done = 0
    for source in sources.values():
        for start in range(0, len(source), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            texts = _texts(source, rows)
            for place, text in enumerate(texts, done):
                characters[place] = len(text)
                words[place] = len(WORD.findall(text))
                if not words[place] and _is_wordless(text) and len(wordless) < SHOWN:
                    wordless.append(source.ids[start + place - done])
                if findings.MOJIBAKE.search(text) and len(garbled) < SHOWN:
                    garbled.append(source.ids[start + place - done])
            done += len(texts)
            if progress:
                progress(done, total)
    duplicates, leaks = repeated_ids(sources)
    return TextInspection(
        counts={split: counts_by_class(source) for split, source in sources.items()},
        bad=splits.bad,
        duplicates=duplicates,
        leaks=leaks,
        skew=findings.skew(splits.train.labels, splits.class_names)[0],
        near_empty=near_empty_classes(splits.train),
        characters=findings.three_lengths(characters),
        words=findings.three_lengths(words),
        wordless=tuple(wordless),
        garbled=tuple(garbled),
        warnings=splits.warnings,
        notes=splits.notes,
    )


def inspect(
    splits: Splits, *, progress: Callable[[int, int], None] | None = None
) -> Inspection | TextInspection | ChatInspection:
    """Looks at a data set, whatever its examples are."""
    look = inspect_images
    if isinstance(splits.train, TextSource):
        look = inspect_chats if splits.train.has("messages") else inspect_texts
    return look(splits, progress=progress)


def _texts(source: TextSource, rows: slice) -> list[str]:
    if source.has("context"):
        return source.column("context", rows)
    texts = source.column("text", rows)
    if not source.has("pair"):
        return texts
    pairs = source.column("pair", rows)
    return [f"{text} {pair}" for text, pair in zip(texts, pairs, strict=True)]


def _is_wordless(text: str) -> bool:
    return all(unicodedata.category(letter)[0] in "PZC" for letter in text)
