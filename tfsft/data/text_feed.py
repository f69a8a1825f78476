"""The batches of a text source: tokenised once, bucketed by length, padded on the way."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfsft.data.chat_encoding import ChatEncoder
from tfsft.data.encoding import NO_TARGET, Encoder, QuestionEncoder, TagEncoder, encode_source
from tfsft.data.length_plan import LengthPlan
from tfsft.data.packing import PackedTable
from tfsft.data.pipeline import WHOLE, Part, Pipeline, as_planned, part_of
from tfsft.errors import UserError

HISTOGRAM_BINS = 40
INFERENCE_TOKENS = 4096  # of a batch; what more brings, is not worth its memory
SHARED_AT_LEAST = 0.1  # of the tokens; below that, moving them costs what it saves


class TextFeed:
    """Makes the pipelines of one text source, whose tokens are made at once or are in the cache.

    Args:
        source: Labelled texts, a `TextSource`.
        encoder: What makes tokens of them: `TextEncoder`, `TagEncoder`, `QuestionEncoder` or
            `ChatEncoder`.
        num_outputs: What a label is one of: classes, or tags.
        progress: Called with (done, total) while texts are tokenised.
    """

    def __init__(
        self,
        source: Any,
        encoder: Encoder,
        *,
        num_outputs: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ):
        self.source = source
        self.encoder = encoder
        self.num_outputs = num_outputs
        self.table = encode_source(source, encoder, progress)
        self.labels = source.labels
        if not source.class_names:
            self.labels = self.labels[:, None]  # a number is an output of width one

    def pipeline(
        self,
        batch_size: int,
        *,
        batch_tokens: int = 0,
        even: bool = False,
        multiple: int = 1,
        seed: int = 0,
        shuffle: bool = False,
        weights: np.ndarray | None = None,
        balance: np.ndarray | None = None,
        packing: bool = False,
        like: "TextPipeline | None" = None,
    ) -> "TextPipeline":
        """Returns the batches of this source.

        Args:
            batch_size, batch_tokens, multiple, seed, shuffle, balance: As for `LengthPlan`.
            even: Gives all batches of conversations about as many learned tokens.
            weights: Weight of each row of the table, float32 `[rows]`.
            packing: Puts several conversations into one row of up to `max_length` tokens; the
                padding mask then numbers them 1, 2, ... within their row.
            like: Batches to whose widths these are padded, too, as far as they fit in.
        """
        if packing:
            even = False  # packed rows are
            self.table = PackedTable(self.table, self.encoder.max_length, seed)
        plan = LengthPlan(
            self.table.lengths,
            batch_size,
            batch_tokens=batch_tokens,
            even=np.asarray(self.table.rows["trained"]) if even else None,
            multiple=multiple,
            seed=seed,
            shuffle=shuffle,
            balance=balance,
            widths=None if like is None else like.plan.widths,
        )
        return TextPipeline(plan, self, weights)

    def facts(self, pipeline: "TextPipeline") -> dict[str, Any]:
        """Returns what a person may want to know about the tokens of this source.

        Args:
            pipeline: Whose padding is meant.
        """
        facts, whole = self.table.facts, np.asarray(self.table.rows["full_length"])
        counts, edges = np.histogram(whole, HISTOGRAM_BINS)
        return {
            "examples": facts["examples"],
            "rows": len(self.table),
            **({"trained_tokens": facts["trained"]} if "trained" in facts else {}),
            "tokens": int(self.table.lengths.sum(dtype=np.int64)),
            "padding_share": pipeline.plan.padding_share(),
            "widths": pipeline.plan.widths.tolist(),
            "truncated" if self.truncates else "in_windows": facts["too_long"],
            "longest": int(whole.max()),
            "max_length": self.encoder.settings["max_length"],
            "unknown_share": facts["unknown"] / max(facts["pieces"], 1),
            "lengths": counts.tolist(),
            "edges": edges.tolist(),
        }

    @property
    def truncates(self) -> bool:
        """Whether what is too long loses its end, rather than being seen in windows."""
        return not isinstance(self.encoder, TagEncoder | QuestionEncoder)

    def targets(self, rows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns what the model should answer for some rows, and the weight of each answer.

        Returns:
            Texts: classes int64 `[batch]`, several as float32 `[batch, classes]`, or numbers
            float32 `[batch, 1]`; with weights `[batch]`. Tags: int32 `[batch, width]`, with weight
            0 where none is due. Questions: places int32 `[batch, 2]` of the answer's ends; with
            weights `[batch, 2]`. Conversations: 0 and the weight of each token, `[batch, width]`,
            as what they should answer is among the inputs.
        """
        table = self.table
        if isinstance(self.encoder, ChatEncoder):
            learned = table.padded("targets", rows, width, NO_TARGET) >= 0
            return np.zeros(learned.shape, "float32"), learned.astype("float32")
        if isinstance(self.encoder, TagEncoder):
            tags = table.padded("targets", rows, width, -1)
            return np.maximum(tags, 0), (tags >= 0).astype("float32")
        if isinstance(self.encoder, QuestionEncoder):
            ends = np.stack([table.rows["answer_start"][rows], table.rows["answer_end"][rows]], 1)
            return ends, np.ones(ends.shape, "float32")
        return self.labels[rows], np.ones(len(rows), "float32")


class TextPipeline(Pipeline):
    """The batches of a `TextFeed`, for any epoch from any step on.

    A batch is `(inputs, targets, weights)`; inputs are `token_ids`, `padding_mask` and, where
    the backbone has them, `segment_ids`, int32 `[batch, width]`. Integer targets come as
    one-hot vectors, those of questions over the places in the row. Of conversations, the third
    input is `targets`: the token that should follow each token, -1 where none is learned.

    Args:
        plan: The order of the rows.
        feed: Where they come from.
        weights: Weight of each row, float32 `[rows]`.
        labelled: False leaves targets out and gives every row the weight 1.
    """

    def __init__(
        self,
        plan: LengthPlan,
        feed: TextFeed,
        weights: np.ndarray | None = None,
        *,
        labelled: bool = True,
    ):
        super().__init__(
            plan,
            feed.labels,
            None,
            num_classes=feed.num_outputs,
            weights=weights,
            examples=feed.table,
        )
        self.feed = feed
        self.labelled = labelled

    def with_labels(self, labels: np.ndarray) -> "TextPipeline":
        """Returns the same batches with other targets, float32 `[rows, ...]`."""
        changed = super().with_labels(labels)
        changed.feed = copy.copy(self.feed)
        changed.feed.labels = labels
        return changed

    def in_order(self) -> "TextPipeline":
        """Returns the same rows once each, unshuffled and without labels, for inference: short ones
        in batches several times as large.
        """
        plan = LengthPlan(
            self.feed.table.lengths,
            self.plan.batch_size,
            batch_tokens=INFERENCE_TOKENS,
            multiple=self.plan.batch_size,
            shuffle=False,
            widths=self.plan.widths,
        )
        return TextPipeline(plan, self.feed, labelled=False)

    def epoch(self, epoch: int = 0, start: int = 0, part: Part = WHOLE) -> tf.data.Dataset:
        """Returns the batches of `epoch` from step `start` on, or a part of each."""
        rows, weights, widths = self.plan.epoch(epoch)

        def fetch(step: int) -> list[np.ndarray]:
            mine = part_of(rows[step], part), part_of(weights[step], part)
            return self._batch(*mine, widths[step])

        sample = fetch(0)
        batch = self.plan.fixed_batch and self.plan.fixed_batch // part[1]
        width = widths[0] if len(set(widths)) == 1 else None
        questions = isinstance(self.feed.encoder, QuestionEncoder)
        chats = isinstance(self.feed.encoder, ChatEncoder)
        by_token = isinstance(self.feed.encoder, TagEncoder | ChatEncoder) and self.labelled

        @tf.autograph.experimental.do_not_convert
        def load(step):  # noqa: ANN001
            kinds = [like.dtype for like in sample]
            parts = tf.numpy_function(fetch, [step], kinds, stateful=False)
            for i, (tensor, like) in enumerate(zip(parts, sample, strict=True)):
                # Inputs vary in width, and so do the targets and weights of single tokens.
                varies = i < len(sample) - 2 or by_token
                rest = [width] if varies and like.ndim > 1 else like.shape[1:]
                tensor.set_shape([batch, *rest])
            *inputs, targets, weights = parts
            if targets.dtype.is_integer and self.labelled:
                depth = tf.shape(inputs[0])[1] if questions else self.num_classes
                targets = tf.one_hot(targets, depth)
            names = ("token_ids", "padding_mask", "targets" if chats else "segment_ids")
            return dict(zip(names, inputs, strict=False)), targets, weights

        steps = tf.data.Dataset.range(start, self.steps)
        return as_planned(steps.map(load, num_parallel_calls=2))

    def _batch(self, rows: np.ndarray, weights: np.ndarray, width: int) -> list[np.ndarray]:
        table, tokenizer = self.feed.table, self.feed.encoder.tokenizer
        places = np.arange(width)
        inside = places < table.lengths[rows][:, None]
        mask = table.padded("segments", rows, width, 0) if "segments" in table.tokens else inside
        inputs = [table.padded("token_ids", rows, width, tokenizer.pad), mask.astype("int32")]
        if isinstance(self.feed.encoder, ChatEncoder):
            targets = table.padded("targets", rows, width, NO_TARGET)
            inputs.append(np.where(weights[:, None] > 0, targets, NO_TARGET))
        if tokenizer.uses_segments:
            second = table.rows["second"][rows][:, None]
            inputs.append(((places >= second) & inside).astype("int32"))
        if not self.labelled:
            return [*inputs, np.zeros(len(rows), "float32"), weights]
        targets, counts = self.feed.targets(rows, width)
        if self.weights is not None:
            weights = weights * self.weights[rows]
        return [*inputs, targets, counts * weights.reshape(-1, *[1] * (counts.ndim - 1))]


def shared_start(feeds: Iterable[TextFeed]) -> int:
    """Returns with how many tokens all rows begin alike, for `models.with_token_loss`.

    It is 0 where they are too few to matter.
    """
    tables = [feed.table for feed in feeds]
    starts = [table.start() for table in tables]
    length = min(map(len, starts))
    tokens = sum(int(table.lengths.sum(dtype=np.int64)) for table in tables)
    if length * sum(map(len, tables)) < SHARED_AT_LEAST * tokens:
        return 0
    others = np.stack([start[:length] for start in starts])
    differs = np.flatnonzero((others != others[0]).any(axis=0))
    return int(differs[0]) if len(differs) else length


def token_facts(
    feeds: Mapping[str, TextFeed],
    train: TextPipeline,
    held_out: Mapping[str, TextPipeline | None],
) -> dict[str, dict]:
    """Returns `TextFeed.facts` of each split, for config.json and the report."""
    pipelines = {"train": train, **held_out}
    return {name: feed.facts(pipelines[name]) for name, feed in feeds.items()}


def describe_tokens(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns what a person should know of the tokens of all splits, from `token_facts`."""
    train = facts["train"]
    learned = ""
    if "trained_tokens" in train:
        learned = f", of which {train['trained_tokens']:,} are learned"
    said = (
        f"Tokens: {train['tokens']:,} in {train['examples']:,} training texts{learned}; "
        f"{train['padding_share']:.1%} of a batch is padding."
    )
    for key, what in (("truncated", "were truncated"), ("in_windows", "are seen in windows")):
        counts = [split[key] for split in facts.values() if key in split]
        if sum(counts):
            longest = max(split["longest"] for split in facts.values())
            said += (
                f" {sum(counts):,} texts are longer than {train['max_length']} tokens and {what}; "
                f"the longest has {longest:,}."
            )
    unknown = max(split["unknown_share"] for split in facts.values())
    if unknown > 0.02:
        said += f" {unknown:.1%} of the tokens are unknown to the backbone: another may fit better."
    return said


def chat_feed(
    source: Any,
    encoder: ChatEncoder,
    *,
    on_bad: str = "stop",
    say: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TextFeed:
    """Returns a `TextFeed` of conversations, each of which has a token to learn.

    Args:
        source: Conversations.
        encoder: What makes tokens of them.
        on_bad: What to do about a conversation that loses its whole answer to the limit of tokens:
            "stop", or anything else to leave it out.
        say: Called with a sentence about what is left out.
        progress: As for `TextFeed`.

    Raises:
        UserError: There is such a conversation, and `on_bad` is "stop"; or there is no other.
    """
    feed = TextFeed(source, encoder, progress=progress)
    table = feed.table
    lost = np.flatnonzero(np.asarray(table.rows["trained"]) == 0)
    if not len(lost):
        return feed
    names = ", ".join(source.ids[int(row)] for row in table.rows["example"][lost[:3]])
    names += ", ..." if len(lost) > 3 else ""
    limit = encoder.max_length
    what = f"{len(lost):,} of {len(source):,} conversations have no answer to learn from ({names})"
    if on_bad == "stop" or len(lost) == len(source):
        need = int(table.rows["full_length"][lost].max())
        raise UserError(
            f"{what}: it is cut off at {limit:,} tokens, or there is none.",
            "An answer that begins within --max-length tokens.",
            f"Use --max-length {need} to keep all of them, or --on-bad skip to leave these out.",
        )
    if say is not None:
        say(f"{what} within {limit:,} tokens and are left out.")
    kept = np.setdiff1d(np.arange(len(source)), table.rows["example"][lost])
    return TextFeed(source.subset(kept), encoder, progress=progress)
