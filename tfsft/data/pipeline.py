"""Batches for training and evaluation: plan -> fetch -> transform -> prefetch."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfsft.data.plan import BatchPlan

Part = tuple[int, int]
WHOLE = (0, 1)


class Pipeline:
    """Yields the batches of any epoch from any step on; what `FineTuner.fit` and `predict` read.

    Args:
        plan: The order of the examples.
        labels: What the model should answer, `[size, ...]`; integers become one-hot vectors.
        fetch: Called with the rows `[steps, batch]` and seeds `[steps, batch, 2]` of what is left
            of an epoch; returns a dataset of batches `(inputs, ok)`. `ok` is False where an example
            could not be read: it then counts with weight zero, and nothing takes its place.
        num_classes: Width of the one-hot vectors.
        weights: Weight of each example beside the plan's filler weights, float32 `[size]`.
        finish: Changes a whole batch `(inputs, targets, weights, seed)` into `(inputs, targets)`,
            in graph.
        examples: What the examples are: those of two pipelines with the same object here are the
            same; None where nothing is known, or where they change from epoch to epoch.
    """

    def __init__(
        self,
        plan: BatchPlan,
        labels: np.ndarray,
        fetch: Callable[[np.ndarray, np.ndarray], tf.data.Dataset],
        *,
        num_classes: int | None = None,
        weights: np.ndarray | None = None,
        finish: Callable | None = None,
        examples: Any = None,
    ):
        self.plan = plan
        self.labels = labels
        self.fetch = fetch
        self.num_classes = num_classes
        self.weights = weights
        self.finish = finish
        self.examples = examples

    @property
    def steps(self) -> int:
        """Batches in one epoch."""
        return self.plan.steps

    def epoch(self, epoch: int = 0, start: int = 0, part: Part = WHOLE) -> tf.data.Dataset:
        """Returns the batches of `epoch` from step `start` on: `(inputs, targets, weights)`.

        Every random choice depends on (seed, epoch, row, place in the epoch) alone, so the
        batches from step `start` on are the very ones an uninterrupted epoch would give.

        Args:
            epoch, start: Which batches.
            part: (i, n) gives the i-th of n equal parts of each batch.
        """
        rows, weights = self.plan.epoch(epoch)
        rows, weights = rows[start:], weights[start:]
        if self.weights is not None:
            weights = weights * self.weights[rows]
        seeds = _Seeds(self.plan.seed, epoch, rows, np.arange(start, self.steps))
        before, after = (part, WHOLE) if self.finish is None else (WHOLE, part)
        rows, weights, row_seeds = (part_of(a, before, 1) for a in (rows, weights, seeds.rows))
        inputs = self.fetch(rows, row_seeds)
        rest = tf.data.Dataset.from_tensor_slices((self.labels[rows], weights, seeds.steps))
        integers = np.issubdtype(self.labels.dtype, np.integer)

        @tf.autograph.experimental.do_not_convert
        def join(fetched, rest):  # noqa: ANN001
            (inputs, ok), (targets, weights, seed) = fetched, rest
            if integers:
                targets = tf.one_hot(targets, self.num_classes)
            weights *= tf.cast(ok, weights.dtype)
            if self.finish is not None:
                inputs, targets = self.finish(inputs, targets, weights, seed)
            return tf.nest.map_structure(
                lambda rows: part_of(rows, after), (inputs, targets, weights)
            )

        return as_planned(tf.data.Dataset.zip(inputs, rest).map(join))

    def with_labels(self, labels: np.ndarray) -> "Pipeline":
        """Returns the same batches with other targets, float32 `[size, ...]`."""
        changed = copy.copy(self)
        changed.labels = labels
        return changed

    def in_order(self) -> "Pipeline":
        """Returns the same examples once each, unshuffled and without labels, for inference."""
        plan = BatchPlan(self.plan.size, self.plan.batch_size, shuffle=False)
        return Pipeline(plan, np.zeros(self.plan.size, np.float32), self.fetch)


def part_of(rows: Any, part: Part, axis: int = 0) -> Any:
    """Returns the i-th of n equal parts of an array or a tensor along an axis."""
    index, count = part
    if count == 1:
        return rows
    size = rows.shape[axis] // count
    return rows[(slice(None),) * axis + (slice(index * size, (index + 1) * size),)]


def as_planned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns batches that are made ahead of time, two of them, and come as the plan says."""
    options = tf.data.Options()
    options.deterministic = True
    # The thread that tunes buffers can miss that an iterator ends, which then waits for up to a
    # minute until it looks again.
    options.autotune.enabled = False
    # The plan is global already; sharding it again would lose examples.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(2).with_options(options)


class _Seeds:
    """Seeds for stateless operations, two numbers each.

    `rows` `[steps, batch, 2]` tell apart the examples, and the times an example comes in an epoch;
    `steps` `[steps, 2]` tell apart the batches.
    """

    def __init__(self, seed: int, epoch: int, rows: np.ndarray, steps: np.ndarray):
        salt = np.random.SeedSequence([seed, epoch]).generate_state(2).astype(np.int32)
        places = steps[:, None] * rows.shape[1] + np.arange(rows.shape[1])
        self.rows = np.stack([rows ^ salt[0], places ^ salt[1]], -1).astype(np.int32)
        self.steps = np.stack([steps ^ salt[1], np.full(len(steps), salt[0])], -1).astype(np.int32)
