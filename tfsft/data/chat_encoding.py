"""From conversations to tokens, and which of them are learned."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from tfsft.data.chat_templates import ChatTemplate, Message, Piece
from tfsft.data.encoding import NO_TARGET, Chunk
from tfsft.data.ragged import Ragged
from tfsft.errors import UsageError


class ChatTokenizer(Protocol):
    """What the encoder needs of `models.ChatTokenizer`."""

    control: dict[str, int]
    pad: int
    uses_segments: bool
    fingerprint: str

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens of texts one after another, and the offsets of each text."""


class ChatEncoder:
    """Encodes a conversation as one row of tokens, each with the token that should follow it.

    What is longer than the limit loses its end; `full_length` says how long it was.

    Args:
        tokenizer: Of the model.
        template: How conversations are written down.
        max_length: Most tokens in a row.
        train_on: What is learned: "completion", every answer of the assistant and the token that
            ends it; "last", the last answer alone; or "all", every token.

    `stop` are the tokens that end an answer.
    """

    columns = ("messages",)

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        template: ChatTemplate,
        max_length: int,
        *,
        train_on: str = "completion",
    ):
        if train_on not in ("completion", "all", "last"):
            raise UsageError(f"--train-on {train_on} is unknown.", "completion, all or last.")
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length
        self.train_on = train_on
        self.stop = tuple(tokenizer.control[text] for text in template.ends)
        self.settings = {
            "encoder": "chats",
            "max_length": max_length,
            "template": template.source,
            "train_on": train_on,
        }

    def encode(self, cells: Mapping[str, list], first: int) -> Chunk:
        """Encodes conversations; one row each."""
        rows = self.tokens(cells["messages"])
        ids, targets, whole, trained = [], [], [], []
        for tokens, learned in rows:
            # The last token follows and is followed by none.
            kept = slice(0, min(max(len(tokens) - 1, 1), self.max_length))
            following = np.where(learned, tokens, NO_TARGET)[1:]
            if len(tokens) == 1:
                following = np.array([NO_TARGET], np.int32)
            ids.append(tokens[kept])
            targets.append(following[kept])
            whole.append(max(len(tokens) - 1, 1))
            trained.append(int((following[kept] >= 0).sum()))
        tokens = {"token_ids": Ragged.of(ids, "int32"), "targets": Ragged.of(targets, "int32")}
        cut = np.array(whole) > self.max_length
        rows = {
            "example": np.arange(first, first + len(ids)),
            "full_length": np.array(whole, np.int32),
            "trained": np.array(trained, np.int32),
        }
        facts = {
            "examples": len(ids),
            "pieces": sum(whole),
            "unknown": 0,
            "too_long": int(cut.sum()),
            "trained": sum(trained),
            "without_target": sum(number == 0 for number in trained),
        }
        return tokens, rows, facts

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Returns the tokens up to where the assistant begins to answer.

        Args:
            messages: The last one is the user's.
        """
        ((tokens, _),) = self._tokens([self.template.pieces(messages, generate=True)])
        return tokens.tolist()

    def tokens(
        self, conversations: Sequence[Sequence[Message]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the tokens of whole conversations, int32, and which are learned, bool."""
        return self._tokens([self.template.pieces(messages) for messages in conversations])

    def _tokens(self, conversations: list[list[Piece]]) -> list[tuple[np.ndarray, np.ndarray]]:
        # What stands between two control tokens is tokenised as one text, as Hugging Face does; but
        # an answer on its own, as it comes when it is generated.
        runs: list[list[tuple[str | int, int | None]]] = []
        texts: list[str] = []
        for pieces in conversations:
            row: list = []
            for piece in pieces:
                if piece.control:
                    row.append((self.tokenizer.control[piece.text], piece.answer))
                elif row and isinstance(row[-1][0], str) and row[-1][1] == piece.answer:
                    row[-1] = (row[-1][0] + piece.text, piece.answer)
                else:
                    row.append((piece.text, piece.answer))
            runs.append(row)
            texts += [part for part, _ in row if isinstance(part, str)]
        encoded = Ragged(*self.tokenizer.encode(texts))
        number, found = 0, []
        for row in runs:
            last = max((answer for _, answer in row if answer is not None), default=None)
            ids, learned = [], []
            for part, answer in row:
                if isinstance(part, str):
                    part_ids = encoded[number]
                    number += 1
                else:
                    part_ids = np.array([part], np.int32)
                ids.append(part_ids)
                wanted = {
                    "all": True,
                    "completion": answer is not None,
                    "last": answer is not None and answer == last,
                }[self.train_on]
                learned.append(np.full(len(part_ids), wanted))
            tokens = np.concatenate([*ids, np.empty(0, np.int32)]).astype(np.int32)
            found.append((tokens, np.concatenate([*learned, np.empty(0, bool)]).astype(bool)))
        return found
