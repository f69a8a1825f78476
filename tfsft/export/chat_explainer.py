"""Which words of a prompt an answer leans on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfsft import models
from tfsft.errors import UserError
from tfsft.evaluation.explanations import Explanation, Reason
from tfsft.evaluation.predictions import Prediction
from tfsft.export.attribution import integrated_gradients
from tfsft.export.chat_predictor import ChatPredictor
from tfsft.export.explainer import Explainer, check_count, output_slopes, reason
from tfsft.training.answering import last_turn

TOKENS = 1024  # of conversations that go through the model at once


class ChatExplainer(Explainer):
    """Explains an answer by the tokens of its prompt."""

    worst = 4  # each takes a minute
    most = 400
    baseline = "the same prompt with a blank in place of each token"
    unit = "the logarithm of the probability of the whole answer"
    predictor: ChatPredictor

    def __init__(self, predictor: ChatPredictor):
        super().__init__(predictor)
        self.below, above = models.cut_at_tokens(predictor.model)
        states, self.head = models.cut_at_states(above)
        self.slopes = output_slopes(states, self.score, 0, 1)
        tokenizer = predictor.tokenizer
        self.control = list(tokenizer.control.values())
        blank, _ = tokenizer.encode([" "])
        self.blank = int(blank[0]) if len(blank) else tokenizer.pad

    def read(self, inputs: Sequence[str], table: str | None = None) -> tuple[dict, list]:
        """Returns the conversations that are meant."""
        examples, bad = super().read(inputs, table)
        check_count(len(examples["ids"]), "conversations")
        return examples, bad

    def chosen(self, source: Any, rows: np.ndarray) -> dict[str, list]:
        """Returns some labelled conversations, without their last answers."""
        chats = [last_turn(messages)[0] for messages in source.column("messages", rows)]
        return {"chats": chats, "ids": [source.ids[int(row)] for row in rows]}

    def explain(
        self,
        examples: Mapping[str, list],
        known: Mapping[str, Prediction] | None = None,
        said: Sequence[Mapping[str, Any]] | None = None,
    ) -> Iterator[Explanation]:
        """Yields which tokens of each prompt its answer leans on."""
        encoder, room = self.predictor.encoder, self.predictor.task["positions"]
        prompts = [np.array(encoder.prompt(chat), np.int32) for chat in examples["chats"]]
        for name, prompt in zip(examples["ids"], prompts, strict=True):
            if len(prompt) >= room:
                raise UserError(
                    f"The prompt {name[:60]!r} has {len(prompt):,} tokens.",
                    f"The model reads fewer than {room:,}.",
                    "Cut it to the part that you want to look at.",
                )
        texts, found = self.predictor.answerer().answer(examples["chats"])
        for name, prompt, text, answer in zip(examples["ids"], prompts, texts, found, strict=True):
            label = (known or {}).get(name)
            ids = np.array(answer.ids, np.int32)[: room - len(prompt)]
            yield Explanation(
                id=name,
                prediction=text,
                probability=None,
                label=None if label is None else str(label.label),
                reasons=(self.why(prompt, ids),) if len(ids) else (),
                notes=() if len(ids) else ("It answers nothing.",),
            )

    def score(self, states: tf.Tensor, first: tf.Tensor, answer: tf.Tensor) -> tf.Tensor:
        """Returns the log-probability of an answer whose tokens come after the place `first`."""
        said = tf.cast(self.head(states[:, first:], training=False), tf.float32)
        labels = tf.repeat(answer[None], tf.shape(said)[0], axis=0)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, said)
        return -tf.reduce_sum(losses, axis=1)

    def why(self, prompt: np.ndarray, answer: np.ndarray) -> Reason:
        """Returns what the log-probability of an answer owes to the tokens of a prompt.

        Args:
            prompt: Tokens.
            answer: Tokens.
        """
        row = np.concatenate([prompt, answer])[None, :-1]
        blank = row.copy()
        inside = ~np.isin(prompt, self.control)
        blank[0, : len(prompt)][inside] = self.blank
        names = {tensor.name for tensor in self.predictor.model.inputs}
        both = np.concatenate([row, blank])
        given = {"token_ids": both, "padding_mask": np.ones_like(both)}
        given = {name: value for name, value in given.items() if name in names}
        embedded, *rest = tf.nest.flatten(self.below(given))
        point, start = tf.cast(embedded, tf.float32).numpy()
        first = len(prompt) - 1  # what says the first token of the answer

        found = integrated_gradients(
            self.slopes,
            point,
            start,
            *(x[:1] for x in rest),
            tf.constant(first),
            tf.constant(answer, tf.int32),
            batch=max(1, TOKENS // row.size),
            most=self.most,
            until=self.until,
        )
        weights = found.values[: len(prompt)].tolist()
        # A line break has a share, too, and must be seen.
        words = [w.replace("\n", "↵\n") for w in self.predictor.tokenizer.pieces(prompt.tolist())]
        pieces = tuple(zip(words, weights, strict=True))
        return reason("What the answer leans on", found, passages=(("", pieces),))
