"""A look at conversations before training on them: what is in them and what is wrong with them."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tfsft.data import findings
from tfsft.data.inspection import describe_bad, describe_copies, repeated_ids
from tfsft.data.labels import shorten
from tfsft.data.splits import BadExample, Splits
from tfsft.data.text_source import BATCH_ROWS, TextSource

ROLES = ("system", "user", "assistant")
SHOWN = 1000  # ids to remember of each kind
FEW = 10  # training conversations

Three = tuple[int, int, int]


@dataclass(frozen=True)
class ChatInspection:
    """What was found in conversations.

    Args:
        counts: Conversations in each split, under the name "".
        messages: How many messages there are of each role.
        turns: Fewest, median and most answers of a conversation.
        characters: Shortest, median and longest message of each role that occurs.
        systems: How many conversations have a system message, and how many different ones.
        bad: Rows that were left out.
        duplicates: Ids of each conversation that occurs more than once in one split.
        leaks: Ids of each conversation that occurs in more than one split.
        several_answers: Ids of conversations with the same messages up to the first answer, which
            is not the same.
        garbled: Ids of conversations that were probably read in a wrong encoding.
        echoes: Ids of conversations in which an answer repeats the message before it.
        warnings: What was found while the data was loaded.
        notes: How the data was read.
    """

    counts: dict[str, dict[str, int]]
    messages: dict[str, int]
    turns: Three
    characters: dict[str, Three]
    systems: tuple[int, int]
    bad: tuple[BadExample, ...]
    duplicates: tuple[tuple[str, ...], ...]
    leaks: tuple[tuple[str, ...], ...]
    several_answers: tuple[tuple[str, ...], ...]
    garbled: tuple[str, ...]
    echoes: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def summary(self) -> list[str]:
        """Returns what there is to say about good conversations, a sentence each."""
        few, half, many = self.turns
        said = {"system": "System messages", "user": "Messages of the user", "assistant": "Answers"}
        systems = "No conversation has a system message."
        if self.systems[0]:
            systems = (
                f"{self.systems[0]} conversations have a system message, {self.systems[1]} of them "
                "different."
            )
        return [
            *self.notes,
            f"Answers in a conversation: {few} to {many}, half of them up to {half}.",
            *(
                f"{said[role]}: {self.messages[role]}, of {short} to {long} characters, half of "
                f"them up to {middle}."
                for role, (short, middle, long) in self.characters.items()
            ),
            systems,
        ]

    def problems(self) -> list[str]:
        """Returns what a person should look at, a sentence each; empty when all is well."""
        found = []
        found += describe_bad(self.bad, "rows")
        found += self.warnings
        found += describe_copies(self.duplicates, "conversations")
        if self.several_answers:
            shown = shorten((" = ".join(ids[:3]) for ids in self.several_answers), 3)
            found.append(
                f"{len(self.several_answers)} questions stand with different answers: {shown}. "
                "The model learns a mixture of them; keep one if only one is right."
            )
        if self.echoes:
            found.append(
                f"{len(self.echoes)} conversations have an answer that repeats the message before "
                f"it: {shorten(self.echoes)}."
            )
        found += findings.describe_garbled(self.garbled, "conversations")
        train = self.counts["train"][""]
        if train < FEW:
            found.append(f"There are only {train} conversations to train on.")
        return found


def inspect_chats(
    splits: Splits, *, progress: Callable[[int, int], None] | None = None
) -> ChatInspection:
    """Looks at all conversations.

    Args:
        splits: From `load_chats`.
        progress: Called with (done, total) while conversations are read.
    """
    sources = splits.sources()
    total = sum(map(len, sources.values()))
    turns = np.zeros(total, np.int32)
    systems, openings, answers = (np.zeros(total, np.uint64) for _ in range(3))
    lengths: dict[str, list[np.ndarray]] = {role: [] for role in ROLES}
    garbled: list[str] = []
    echoes: list[str] = []
    done = 0
    for source, start, chats in _parts(splits):
        sizes: dict[str, list[int]] = {role: [] for role in ROLES}
        for place, messages in enumerate(chats):
            name = source.ids[start + place] if len(garbled) + len(echoes) < 2 * SHOWN else ""
            for message in messages:
                sizes[message["role"]].append(len(message["content"]))
            if name and any(findings.MOJIBAKE.search(m["content"]) for m in messages):
                garbled.append(name)
            if name and _echoes(messages):
                echoes.append(name)
            first = next(n for n, m in enumerate(messages) if m["role"] == "assistant")
            turns[done + place] = sum(m["role"] == "assistant" for m in messages)
            if messages[0]["role"] == "system":
                systems[done + place] = _number(messages[0]["content"])
            openings[done + place] = _number(*(m["content"] for m in messages[:first]))
            answers[done + place] = _number(messages[first]["content"])
        for role, found in sizes.items():
            lengths[role].append(np.array(found, np.int64))
        done += len(chats)
        if progress:
            progress(done, total)
    everything = {role: np.concatenate(parts) for role, parts in lengths.items()}
    duplicates, leaks = repeated_ids(sources)
    return ChatInspection(
        counts={split: {"": len(source)} for split, source in sources.items()},
        messages={role: len(found) for role, found in everything.items()},
        turns=findings.three_lengths(turns),
        characters={
            role: findings.three_lengths(found) for role, found in everything.items() if len(found)
        },
        systems=(int((systems != 0).sum()), len(np.unique(systems[systems != 0]))),
        bad=splits.bad,
        duplicates=duplicates,
        leaks=leaks,
        several_answers=_several(splits, openings, answers),
        garbled=tuple(garbled[:SHOWN]),
        echoes=tuple(echoes[:SHOWN]),
        warnings=splits.warnings,
        notes=splits.notes,
    )


def _parts(splits: Splits) -> Iterator[tuple[TextSource, int, list]]:
    for source in splits.sources().values():
        for start in range(0, len(source), BATCH_ROWS):
            yield source, start, source.column("messages", slice(start, start + BATCH_ROWS))


def _several(
    splits: Splits, openings: np.ndarray, answers: np.ndarray
) -> tuple[tuple[str, ...], ...]:
    """Returns the ids of the same beginnings with different first answers."""
    ids = splits.everything().ids
    differing = (
        rows for rows in findings.duplicates(openings) if (answers[rows] != answers[rows[0]]).any()
    )
    return tuple(tuple(ids[row] for row in rows[:3].tolist()) for rows in differing)


def _echoes(messages: list[dict[str, str]]) -> bool:
    return any(
        after["role"] == "assistant" and before["content"].lower() == after["content"].lower()
        for before, after in itertools.pairwise(messages)
    )


def _number(*texts: str) -> int:
    # Within one process Python's own hash does, and never for 0, which stands for nothing.
    return (hash(texts) & (2**64 - 1)) or 1
