"""From pairs of texts to the tokens of an encoder and of a decoder."""

from collections.abc import Mapping, Sequence

import numpy as np

from tfsft.data.chat_encoding import ChatTokenizer
from tfsft.data.chat_templates import Message
from tfsft.data.encoding import NO_TARGET, Chunk
from tfsft.data.ragged import Ragged
from tfsft.errors import UsageError


class Seq2SeqEncoder:
    """Encodes what is to be rewritten and what should come of it as one row of a table.

    A row has the tokens of the encoder, and from `second` on those of the decoder, which are the
    target behind the tokens that a decoder begins with. Each of the decoder's has the token that
    should follow. What is longer than its limit loses its end; of a target also the token that
    ends it, so that nobody learns to stop there.

    Args:
        tokenizer: Of the model.
        max_length: Most tokens of an input.
        max_target_length: Most tokens of a target.
        start, end: What stands around an input.
        decoder_start: What a decoder begins with. It is given and not learned.
        prefix: Text before every input, such as "summarize: " for T5.

    `stop` are the tokens that end an answer.
    """

    columns = ("messages",)

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        max_length: int,
        max_target_length: int,
        *,
        start: Sequence[int] = (),
        end: Sequence[int],
        decoder_start: Sequence[int],
        prefix: str = "",
    ):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.max_target_length = max_target_length
        self.start = tuple(start)
        self.stop = tuple(end)
        self.decoder_start = tuple(decoder_start)
        self.prefix = prefix
        self.settings = {
            "encoder": "seq2seq",
            "max_length": max_length,
            "max_target_length": max_target_length,
            "start": self.start,
            "end": self.stop,
            "decoder_start": self.decoder_start,
            "prefix": prefix,
        }
        special = len(self.start) + len(self.stop)
        if max_length <= special:
            raise UsageError(
                f"--max-length {max_length} leaves no room for an input.",
                f"More than the {special} tokens around it.",
                f"Try --max-length {special + 16}.",
            )

    def encode(self, cells: Mapping[str, list], first: int) -> Chunk:
        """Encodes conversations whose last message is the target; one row each."""
        rows = cells["messages"]
        inputs, whole = self._inputs([self.text(messages[:-1]) for messages in rows])
        wanted = Ragged(*self.tokenizer.encode([messages[-1]["content"] for messages in rows]))
        given = np.array(self.decoder_start, np.int32)
        ids, targets, trained, cut = [], [], [], 0
        for place in range(len(rows)):
            following = np.concatenate([wanted[place], self.stop])[: self.max_target_length]
            cut += len(wanted[place]) + len(self.stop) > self.max_target_length
            unlearned = len(inputs[place]) + len(given) - 1
            ids.append(np.concatenate([inputs[place], given, following[:-1]]))
            targets.append(np.concatenate([np.full(unlearned, NO_TARGET), following]))
            trained.append(len(following))
        tokens = {"token_ids": Ragged.of(ids, "int32"), "targets": Ragged.of(targets, "int32")}
        too_long = whole > self.max_length
        arrays = {
            "second": np.array([len(tokens) for tokens in inputs], np.int32),
            "example": np.arange(first, first + len(rows)),
            "full_length": whole.astype("int32"),
            "trained": np.array(trained, np.int32),
        }
        facts = {
            "examples": len(rows),
            "pieces": int(whole.sum()),
            "unknown": 0,
            "too_long": int(too_long.sum()),
            "trained": sum(trained),
            "cut_targets": int(cut),
        }
        return tokens, arrays, facts

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Returns the tokens of an input."""
        (tokens,), _ = self._inputs([self.text(messages)])
        return tokens.tolist()

    def text(self, messages: Sequence[Message]) -> str:
        """Returns the text of an input; several messages are put below each other."""
        return self.prefix + "\n".join(message["content"] for message in messages)

    def _inputs(self, texts: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns the tokens of the encoder, and how many there were before any was cut off."""
        found = Ragged(*self.tokenizer.encode(texts))
        special = len(self.start) + len(self.stop)
        rows = [
            np.concatenate([self.start, found[i][: self.max_length - special], self.stop])
            for i in range(len(found))
        ]
        return [row.astype(np.int32) for row in rows], found.lengths + special
