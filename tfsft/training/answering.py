"""What a language model is worth: how likely it finds good answers, and which it gives itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsft import evaluation, models
from tfsft.data.chat_encoding import ChatEncoder
from tfsft.data.seq2seq_encoding import Seq2SeqEncoder
from tfsft.data.text_feed import TextPipeline, shared_start
from tfsft.evaluation.predictions import Prediction
from tfsft.training.finetuner import FineTuner

Conversation = Sequence[Mapping[str, str]]
Progress = Callable[[int, int], None] | None


class Answerer:
    """Answers conversations with a model whose weights may change from call to call.

    Args:
        model: A causal language model, or one of sequence to sequence.
        encoder: Makes its prompts and reads its answers: a `data.ChatEncoder`, or a
            `data.Seq2SeqEncoder`.
        max_new_tokens: Most tokens of an answer.
        batch_size: Conversations answered at a time.
        **sampling: As for `models.Generator.answer`; without, the likeliest token is taken.
    """

    def __init__(
        self,
        model: keras.Model,
        encoder: Any,
        *,
        max_new_tokens: int = 128,
        batch_size: int = 16,
        **sampling: Any,
    ):
        self.encoder = encoder
        self.options = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, **sampling}
        ends = {"stop": encoder.stop, "pad": encoder.tokenizer.pad}
        if isinstance(encoder, Seq2SeqEncoder):
            self.generator = models.Seq2SeqGenerator(model, start=encoder.decoder_start, **ends)
        else:
            room = encoder.max_length + max_new_tokens
            self.generator = models.Generator(model, max_length=room, **ends)

    def answer(
        self, conversations: Sequence[Conversation], progress: Progress = None
    ) -> tuple[list[str], list[Any]]:
        """Returns the answers as texts, and as `models.Generated`.

        Args:
            conversations: Each ends with a message of the user.
            progress: Called with (done, total) answers.
        """
        prompts = [self.encoder.prompt(conversation) for conversation in conversations]
        found = self.generator.answer(prompts, progress=progress, **self.options)
        return [self.encoder.tokenizer.decode(answer.ids).strip() for answer in found], found


def last_turn(conversation: Conversation) -> tuple[list[Mapping[str, str]], str]:
    """Returns what comes before the last message of the assistant, and that message."""
    place = max(i for i, message in enumerate(conversation) if message["role"] == "assistant")
    return list(conversation[:place]), conversation[place]["content"]


def token_loss(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Returns the losses that `models.with_token_loss` computed, `[batch, tokens]`."""
    return outputs[..., 0]


def token_metrics() -> list[keras.metrics.Metric]:
    """Returns the share of targets that were the likeliest token, as a metric."""
    return [keras.metrics.MeanMetricWrapper(_hits, name="accuracy")]


def _hits(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return outputs[..., 1]


def token_scores(
    model: keras.Model, pipeline: TextPipeline, strategy: tf.distribute.Strategy | None = None
) -> dict[str, float]:
    """Returns loss (nats), perplexity and accuracy over the tokens that have a target.

    Args:
        model: A causal language model.
        pipeline: Of conversations.
        strategy: Computes on all of its replicas.
    """
    with (strategy or tf.distribute.get_strategy()).scope():
        chats = isinstance(pipeline.feed.encoder, ChatEncoder)
        shared = shared_start([pipeline.feed]) if chats else 0
        tuner = FineTuner(models.with_token_loss(model, shared=shared))
        tuner.compile(None, loss=token_loss, weighted_metrics=token_metrics())
    scores = tuner.evaluate(pipeline, return_dict=True, verbose=0)
    loss = float(scores["loss"])
    return {
        "loss": loss,
        "perplexity": float(np.exp(min(loss, 700.0))),
        "token_accuracy": float(scores["accuracy"]),
    }


def score_chats(
    model: keras.Model,
    pipeline: TextPipeline,
    source: Any,
    *,
    answerer: Answerer,
    limit: int | None = None,
    strategy: tf.distribute.Strategy | None = None,
    progress: Progress = None,
) -> tuple[dict, list[Prediction]]:
    """Scores a language model on conversations, whose last answer it also gives itself.

    Args:
        model: A causal language model.
        pipeline: The conversations.
        source: The same, for their texts.
        answerer: Gives the answers.
        limit: Answers so many of them, evenly spread; None answers all.
        strategy, progress: As for `score_labels`.
    """
    metrics: dict = token_scores(model, pipeline, strategy)
    chosen = spread(len(source), limit)
    turns = [last_turn(conversation) for conversation in source.column("messages", chosen)]
    prompts, references = [prompt for prompt, _ in turns], [answer for _, answer in turns]
    answers, found = answerer.answer(prompts, progress)
    metrics |= evaluation.generation_metrics(
        references,
        answers,
        stopped=[answer.stopped for answer in found],
        lengths=[len(answer.ids) for answer in found],
    )
    metrics["answers"] = len(chosen)
    rows = evaluation.generation_predictions(
        [source.ids[int(row)] for row in chosen],
        [prompt[-1]["content"] if prompt else "" for prompt in prompts],
        references,
        answers,
    )
    return metrics, rows


def spread(size: int, limit: int | None) -> np.ndarray:
    """Returns at most `limit` places out of `size`, evenly spread, int64."""
    if not limit or size <= limit:
        return np.arange(size)
    return np.linspace(0, size - 1, limit).round().astype(np.int64)
