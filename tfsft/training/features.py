"""What a frozen trunk says about each example, computed once instead of in every epoch."""

import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from tfsft import models
from tfsft.data.pipeline import Pipeline
from tfsft.training.forward import Forward, run_batches

if TYPE_CHECKING:
    from tfsft.training.run import Run

MEMORY = 2 << 30  # bytes of features kept in memory; more goes to a memory-mapped file


class FrozenFeatures:
    """The outputs of a frozen trunk for every example, in memory or beyond a budget on disk.

    Training what is above the trunk on them gives the same result as the long way, to rounding, as
    long as the trunk sees every example unchanged in every epoch. Nothing is computed before the
    first batch is asked for.

    Args:
        trunk: Frozen model, from the pipeline's inputs to what is trained on.
        source: Unaugmented batches; its labels, weights and length are kept.
        strategy: Computes on all of its replicas, where `trunk` is no `Forward` with its own.
        memory: Bytes of features to hold in memory.
        folder: Where a larger file of features goes; it is removed with this object.
        progress: Called with (done, total) examples.
    """

    def __init__(
        self,
        trunk: keras.Model | Forward,
        source: Pipeline,
        *,
        strategy: tf.distribute.Strategy | None = None,
        memory: int = MEMORY,
        folder: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ):
        self.forward = trunk if isinstance(trunk, Forward) else Forward(trunk, strategy)
        self.trunk = self.forward.model
        self.source = source
        self.memory = memory
        self.folder = folder
        self.progress = progress
        self.on_disk = False
        self._parts = None
        self._ok = None
        self._files = None

    def __del__(self):
        if getattr(self, "_files", None) is not None:
            shutil.rmtree(self._files, ignore_errors=True)

    @property
    def bytes(self) -> int:
        """Size of all features together."""
        per_example = sum(
            math.prod(t.shape[1:]) * np.dtype(tf.as_dtype(t.dtype).as_numpy_dtype).itemsize
            for t in self.trunk.outputs
        )
        return per_example * self.source.plan.size

    @property
    def has_room(self) -> bool:
        """Whether memory or the disk can hold the features."""
        return (
            self.bytes <= self.memory or self.bytes < shutil.disk_usage(self.folder or ".").free / 2
        )

    def pipeline(self, like: Pipeline | None = None) -> Pipeline:
        """Returns batches of features, as those of a pipeline of the same examples.

        Args:
            like: Whose order, labels and weights they have; by default the source.
        """
        like = like or self.source
        return Pipeline(
            like.plan.by_count,
            like.labels,
            self._fetch,
            num_classes=like.num_classes,
            weights=like.weights,
        )

    def _fetch(self, rows: np.ndarray, seeds: np.ndarray) -> tf.data.Dataset:
        if self._parts is None:
            self._compute()
        batches = tf.data.Dataset.from_tensor_slices(rows)
        if not self.on_disk:
            return batches.map(self._gather)
        return batches.map(self._read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    @tf.autograph.experimental.do_not_convert
    def _gather(self, rows):  # noqa: ANN001
        return _only([tf.gather(part, rows) for part in self._parts]), tf.gather(self._ok, rows)

    def _read(self, rows):  # noqa: ANN001
        types = [tf.as_dtype(part.dtype) for part in self._parts]
        parts = tf.numpy_function(
            lambda rows: [part[rows] for part in self._parts], [rows], types, stateful=False
        )
        for part, array in zip(parts, self._parts, strict=True):
            part.set_shape([rows.shape[0], *array.shape[1:]])
        return _only(parts), tf.gather(self._ok, rows)

    def _compute(self) -> None:
        size = self.source.plan.size
        self.on_disk = self.bytes > self.memory
        parts = [self._allocate(i, size, output) for i, output in enumerate(self.trunk.outputs)]
        readable = np.empty(size, bool)
        done = 0
        if self.progress is not None:
            self.progress(0, size)
        for rows, outputs, ok in run_batches(self.forward, self.source):
            for part, output in zip(parts, outputs, strict=True):
                part[rows] = output
            readable[rows] = ok
            done += len(rows)
            if self.progress is not None:
                self.progress(done, size)
        with tf.device("CPU"):
            self._ok = tf.constant(readable)
            self._parts = parts if self.on_disk else [tf.constant(part) for part in parts]

    def _allocate(self, index: int, size: int, output: keras.KerasTensor) -> np.ndarray:
        shape = (size, *output.shape[1:])
        dtype = tf.as_dtype(output.dtype).as_numpy_dtype
        if not self.on_disk:
            return np.empty(shape, dtype)
        if self._files is None:
            self._files = tempfile.mkdtemp(prefix="features-", dir=self.folder)
        return np.memmap(Path(self._files) / f"{index}.bin", dtype, "w+", shape=shape)


def skip_frozen(
    run: "Run",
    model: keras.Model,
    train: Pipeline,
    validation: Pipeline | None,
    *,
    augmented: bool = False,
) -> tuple[keras.Model, Pipeline, Pipeline | None]:
    """Leaves out of the training what is frozen and sees the same in every epoch.

    Args:
        run: For its strategy, its folder and its progress bars.
        model: The recipe's model, with the layers to train set trainable.
        train: Its training batches; `validation`: those it is validated on.
        augmented: Whether the training examples change from epoch to epoch: then nothing can be
            left out.

    Returns:
        The network to train and the batches for it: the layers above the frozen trunk on the
            trunk's features, or
        the whole from the resized picture on.
    """
    run.frozen = None
    with run.strategy.scope():
        trunk, top = models.split_frozen(model)
        # What has a place for each token differs in size from batch to batch.
        varies = any(None in output.shape[1:] for output in trunk.outputs)
        if augmented or varies or not trunk.weights:
            return models.from_resized(model), train, validation

    run.frozen = frozen = FrozenTrunk(run, trunk, top)
    cached = []
    for name, pipeline in (("training", train), ("validation", validation)):
        cached.append(pipeline and frozen.pipeline(pipeline, name))
        if pipeline is not None and cached[-1] is None:
            run.frozen = None
            run.say(
                "The frozen features have no room in memory or on disk; computing them anew in "
                "every epoch."
            )
            return models.from_resized(model), train, validation
    return top, *cached


class FrozenTrunk:
    """The frozen part of a model, what is above it, and the features of all examples seen so far.

    Args:
        run: For its strategy, its folder and its progress bars.
        trunk, top: As `models.split_frozen` returns them.
    """

    def __init__(self, run: "Run", trunk: keras.Model, top: keras.Model):
        self.run = run
        self.trunk = trunk
        self.top = top
        self._forward = Forward(trunk, run.strategy, run.compiled)
        self._known: list[FrozenFeatures] = []

    def is_of(self, model: keras.Model) -> bool:
        """Tells whether trunk and top are the parts of a model."""
        weights = {id(w) for w in (*self.trunk.weights, *self.top.weights)}
        return {id(w) for w in model.weights} == weights

    def pipeline(self, pipeline: Pipeline, name: str = "") -> Pipeline | None:
        """Returns the batches of a pipeline as features; None where there is no room for them.

        Args:
            pipeline: Unaugmented; what its examples once were, is not computed again.
            name: Of its split, for the progress bar.
        """
        for known in self._known:
            if pipeline.examples is not None and known.source.examples is pipeline.examples:
                return known.pipeline(pipeline)
        title = f"Computing frozen features of {name} examples"
        progress = self.run.progress(title, "examples")
        kept = FrozenFeatures(
            self._forward,
            pipeline,
            folder=self.run.dir,
            progress=progress,
        )
        if self.run.workers.agree(int(not kept.has_room)):  # on any of the machines
            return None
        self._known.append(kept)
        return kept.pipeline()


def above_frozen(
    run: "Run", model: keras.Model, pipeline: Pipeline, name: str = ""
) -> tuple[keras.Model, Pipeline]:
    """Returns a model and its batches, from the features that training has left out.

    Args:
        run: Whose `skip_frozen` was called last.
        model: The recipe's model; any other is returned as it is, with its batches.
        pipeline: Unaugmented examples.
        name: Of their split.
    """
    frozen = run.frozen
    if frozen is None or pipeline.examples is None or not frozen.is_of(model):
        return model, pipeline
    known = frozen.pipeline(pipeline, name)
    return (model, pipeline) if known is None else (frozen.top, known)


def _only(parts: list) -> object:
    return parts[0] if len(parts) == 1 else tuple(parts)
