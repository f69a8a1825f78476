"""A model's answers to the batches of a pipeline, traced once whoever asks for them."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsft.data.pipeline import Pipeline
from tfsft.training.fused import faster
from tfsft.training.strategy import distribute, whole


class Forward:
    """A model's answers to batches, traced once for all the pipelines it is used with.

    Args:
        model: From the inputs of a pipeline on.
        strategy: Computes on all of its replicas.
        compiled: As for `faster`.
    """

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy | None = None,
        compiled: Collection[keras.layers.Layer] = (),
    ):
        self.model = model
        self.strategy = strategy or tf.distribute.get_strategy()

        @tf.function(reduce_retracing=True, autograph=False)
        def answers(inputs):  # noqa: ANN001
            with faster(model, compiled):
                return self.strategy.run(
                    lambda x: tf.nest.flatten(model(x, training=False)), (inputs,)
                )

        @tf.function(reduce_retracing=True, autograph=False)
        def gather(values):  # noqa: ANN001
            return [whole(self.strategy, value) for value in values]

        self._answers = answers
        self._gather = gather

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model."""
        return self.model(*args, **kwargs)

    def step(self, batches: Iterator) -> tuple[Any, list]:
        """Takes a batch from an iterator of `distribute`.

        Returns:
            The batch, and the outputs of the model one after another, both for each replica.
        """
        batch = next(batches)
        # An iterator knows in which sizes its batches differ; from these alone the second size
        # would be traced anew.
        (inputs, *_), (spec, *_) = map(
            keras.utils.unpack_x_y_sample_weight, (batch, batches.element_spec)
        )
        return batch, self._answers.get_concrete_function(spec)(inputs)

    def rows(self, batches: Iterator) -> list[np.ndarray]:
        """Takes a batch; returns the outputs `[batch, ...]` and the weights `[batch]`, of all
        replicas and processes.
        """
        (_, _, weights), outputs = self.step(batches)
        return [value.numpy() for value in self._gather([*outputs, weights])]


def run_batches(
    model: keras.Model | Forward,
    pipeline: Pipeline,
    strategy: tf.distribute.Strategy | None = None,
) -> Iterator[tuple[np.ndarray, list[np.ndarray], np.ndarray]]:
    """Runs a model over all examples of a pipeline, each of them once.

    Of several workers each computes its part of a batch, and all of them get the whole.

    Yields:
        For each batch: which examples these are, int64 `[batch]`; the model's outputs, a list of
        arrays `[batch, ...]`; and whether each example was readable, bool `[batch]`.
    """
    forward = model if isinstance(model, Forward) else Forward(model, strategy)
    pipeline = pipeline.in_order()
    rows, planned, *_ = pipeline.plan.epoch(0)
    batches = iter(distribute(forward.strategy, pipeline))
    for step in range(pipeline.steps):
        real = int((planned[step] > 0).sum())  # the others fill up the batch, at its end
        *outputs, weights = (value[:real] for value in forward.rows(batches))
        yield rows[step][:real], outputs, weights > 0


def predict(
    model: keras.Model | Forward,
    pipeline: Pipeline,
    strategy: tf.distribute.Strategy | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a model over all examples of a pipeline.

    Args:
        model: From the pipeline's inputs to one tensor `[batch, ...]` of fixed size, which is its
            last output.
        pipeline: Its labels are not looked at.
        strategy: Computes on all of its replicas.
        progress: Called with (done, total) examples.

    Returns:
        outputs: `[size, ...]` in the order of the examples, and ok: bool `[size]`, False where one
            was unreadable.
    """
    size, done = pipeline.plan.size, 0
    outputs, ok = None, np.zeros(size, bool)
    for rows, (*_, output), readable in run_batches(model, pipeline, strategy):
        if outputs is None:
            outputs = np.empty((size, *output.shape[1:]), output.dtype)
        outputs[rows], ok[rows] = output, readable
        done += len(rows)
        if progress is not None:
            progress(done, size)
    return outputs, ok
