"""The model that is trained: Keras's `compile` and `fit` with a loss that is exact however a batch
is cut up.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsft.data.pipeline import Pipeline
from tfsft.errors import UserError
from tfsft.models.graph import changed, is_functional
from tfsft.training.distillation import Distillation, labels_of
from tfsft.training.fused import compilable, faster, pays
from tfsft.training.lean import rounded_kernels
from tfsft.training.strategy import distribute, is_multiworker

SEEDS_APART = 1_000_003  # a prime far from the differences between the seeds of layers


class FineTuner(keras.Model):
    """Wraps a model and trains it by `compile` and `fit` as any other.

    The loss is the weighted sum over the *global* batch divided by the global sum of weights: over
    all replicas and all accumulated parts. Regularisation counts once an update. Gradients are
    clipped after they are summed. So one device, two replicas, two processes and four accumulated
    parts give the same weights to rounding, with uneven last batches too.

    Args:
        model: What is trained; its weights change in place.
        accumulate: Parts each replica's share of a batch is computed in, one after another: the
            update is that of the whole batch, the memory that of one part.
        clip_norm: Largest global norm of the gradients; None does not clip.

    Raises:
        UserError: In `compile`, for what would make the result depend on how a batch is cut up.
    """

    def __init__(self, model: keras.Model, *, accumulate: int = 1, clip_norm: float | None = None):
        super().__init__(name="fine_tuner")
        self.model = model
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self._compiled: set[keras.layers.Layer] = set()
        self._rounded: dict[keras.layers.Layer, tf.Tensor] = {}
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Calls the wrapped model."""
        with faster(self.model, self._compiled, self._rounded):
            return self.model(inputs, training=training)

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer,
        loss: str | keras.losses.Loss,
        weighted_metrics: Sequence[str | keras.metrics.Metric] | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures training; metrics are weighted, so that filler examples never count.

        Args:
            optimizer: A Keras optimizer; clipping and accumulation are FineTuner's.
            loss: Per-example loss, `[batch, ...]` in the shape of the weights; its own reduction is
                not used.
            weighted_metrics: As in Keras.
            **kwargs: Passed on to Keras: `run_eagerly`, `jit_compile`.
        """
        for name in ("metrics", "loss_weights"):
            if kwargs.get(name) is not None:
                raise UserError(
                    f"FineTuner.compile was given {name}=.",
                    "Filler examples have weight zero and must not count, so every metric is "
                    "weighted.",
                    "Use weighted_metrics= with one loss.",
                )
        if kwargs.get("steps_per_execution", 1) != 1:
            raise UserError(
                "FineTuner.compile was given steps_per_execution=.",
                "Keras fails with it under several replicas, and updates could not be counted.",
                "Leave it out.",
            )
        for name, instead in (
            ("clipnorm", "FineTuner(clip_norm=...)"),
            ("global_clipnorm", "FineTuner(clip_norm=...)"),
            ("clipvalue", "FineTuner(clip_norm=...)"),
            ("gradient_accumulation_steps", "FineTuner(accumulate=...)"),
            ("ema_overwrite_frequency", "use_ema=True alone"),
        ):
            if getattr(optimizer, name, None):
                raise UserError(
                    f"The optimizer has {name}={getattr(optimizer, name)}.",
                    "Inside an optimizer it acts on each replica alone, or fails under several.",
                    f"Use {instead}.",
                )
        self._per_example_loss = _per_example(loss)
        self._functions: dict[Any, Any] = {}  # what is done with metrics, over workers
        super().compile(optimizer=optimizer, loss=loss, weighted_metrics=weighted_metrics, **kwargs)
        if self.optimizer is not None:
            inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
            # It would sum over all replicas what `train_step` has summed already.
            inner._all_reduce_sum_gradients = lambda gradients_and_variables: (
                gradients_and_variables
            )

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict:
        """Keras's metrics, which judge by the labels alone where a teacher's answers are there."""
        if isinstance(self.loss, Distillation):
            y = labels_of(y, y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def train_step(self, data: Any) -> dict:
        """One update on one global batch, from a replica's point of view."""
        x, y, weights = _unpack(data)
        replica = tf.distribute.get_replica_context()
        variables = self.trainable_variables
        total = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(weights))
        gradients = self._share_of_gradients(x, y, weights, total, variables)
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        gradients = self._with_regularisation(gradients, variables)
        if self.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm * self._loss_scale())
        self.optimizer.apply(gradients, variables)
        return self._results()

    def test_step(self, data: Any) -> dict:
        """Loss and metrics of one batch."""
        x, y, weights = _unpack(data)
        self._measure(x, y, self(x, training=False), weights)
        return self._results()

    def _results(self) -> dict:
        """What Keras takes the mean of over replicas; over workers it averages rows."""
        results = self.get_metrics_result()
        if is_multiworker(self.distribute_strategy):
            return {name: tf.reshape(value, [1]) for name, value in results.items()}
        return results

    def _share_of_gradients(self, x, y, weights, total, variables) -> list[tf.Tensor]:  # noqa: ANN001
        """What this replica's examples add to the gradients of the global mean, part by part."""

        def part_gradients(x, y, weights):  # noqa: ANN001
            with tf.GradientTape() as tape:
                outputs = self(x, training=True)
                losses = self._per_example_loss(y, outputs)
                # Divided here and not afterwards, which would be a pass over all gradients.
                loss = tf.math.divide_no_nan(tf.reduce_sum(losses * weights), total)
                loss *= self._loss_scale()
            self._measure(x, y, outputs, weights)
            gradients = tape.gradient(
                loss, [v.value for v in variables], unconnected_gradients="zero"
            )
            return [tf.convert_to_tensor(gradient) for gradient in gradients]

        if self.accumulate == 1:
            return part_gradients(x, y, weights)
        parts = tf.nest.map_structure(self._cut, (x, y, weights))
        sums = [tf.zeros(v.shape, v.dtype) for v in variables]

        def body(i, sums):  # noqa: ANN001
            part = tf.nest.map_structure(lambda t: t[i], parts)
            return i + 1, [s + g for s, g in zip(sums, part_gradients(*part), strict=True)]

        # One part at a time: parallel parts would need the memory that accumulation saves.
        _, sums = tf.while_loop(
            lambda i, _: i < self.accumulate, body, (0, sums), parallel_iterations=1
        )
        return sums

    def _cut(self, tensor: tf.Tensor) -> tf.Tensor:
        size = tensor.shape[0]  # None of batches by tokens; their plan sees to it that it divides
        if size is not None and size % self.accumulate:
            raise UserError(
                f"A replica's share of a batch is {size} examples.",
                f"It must be a multiple of --accumulate {self.accumulate}.",
                "Choose a --batch-size that replicas times --accumulate divides.",
            )
        examples, *rest = tf.unstack(tf.shape(tensor))
        cut = tf.reshape(tensor, [self.accumulate, examples // self.accumulate, *rest])
        part = None if size is None else size // self.accumulate
        return tf.ensure_shape(cut, [self.accumulate, part, *tensor.shape[1:]])

    def _with_regularisation(self, gradients, variables) -> list[tf.Tensor]:  # noqa: ANN001
        regularised = [v for v in variables if v.regularizer is not None]
        if not regularised:
            return gradients
        with tf.GradientTape() as tape:
            loss = tf.add_n([v.regularizer(v) for v in regularised]) * self._loss_scale()
        extra = tape.gradient(loss, [v.value for v in variables], unconnected_gradients="zero")
        return [g + e for g, e in zip(gradients, extra, strict=True)]

    def _measure(self, x, y, outputs, weights) -> None:  # noqa: ANN001
        losses = self._per_example_loss(y, outputs)
        if weights.shape.rank > 1:  # of tokens; Keras would divide by how wide this batch is
            dimensions = weights.shape.rank
            y, outputs, losses, weights = tf.nest.map_structure(
                lambda t: tf.reshape(t, tf.concat([[-1], tf.shape(t)[dimensions:]], 0)),
                (y, outputs, losses, weights),
            )
        penalties = [v.regularizer(v) for v in self.trainable_variables if v.regularizer]
        self._loss_tracker.update_state(losses + sum(penalties, 0.0), sample_weight=weights)
        self.compute_metrics(x, y, outputs, sample_weight=weights)

    def _loss_scale(self) -> tf.Tensor | float:
        """Factor that keeps float16 gradients from vanishing; LossScaleOptimizer divides it out
        again.
        """
        return self.optimizer.scale_loss(1.0) if self.optimizer is not None else 1.0

    def fit(
        self,
        x: Any = None,
        *args: Any,
        validation_data: Any = None,
        epochs: int = 1,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        phase: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains on a `Pipeline`; anything else goes to Keras's `fit` as it is.

        Args:
            x: Batches by (epoch, step); each epoch is read for exactly its number of steps.
            *args: For Keras, when `x` is not a Pipeline.
            validation_data: A `Pipeline` as well.
            epochs: Passes over the data.
            callbacks: Keras callbacks besides the phase's.
            phase: A `training.Phase` from `Run.phase`: gives its callbacks and the place to go on
                from. A phase that is finished returns at once.
            **kwargs: For Keras.

        Returns:
            Keras's History.
        """
        if not isinstance(x, Pipeline):
            self._refuse_among_workers("fit")
            return super().fit(
                x,
                *args,
                validation_data=validation_data,
                epochs=epochs,
                callbacks=callbacks,
                **kwargs,
            )
        if phase is not None and phase.finished:
            return keras.callbacks.History()
        with self.distribute_strategy.scope():
            self.optimizer.build(self.trainable_variables)
        first_epoch, first_step = 0, 0
        if phase is not None:
            first_epoch, first_step = phase.begin(
                self,
                epochs=epochs,
                steps=x.steps,
                batch_size=x.plan.batch_size,
                size=x.plan.size,
            )
            callbacks = [*(callbacks or ()), *phase.callbacks]
            shapes = len(getattr(x.plan, "widths", "1"))
            updates = min(x.steps * epochs, phase.max_updates or x.steps * epochs)
            if pays(phase.run.jit, self.distribute_strategy, updates, shapes):
                self._compiled = compilable(self.model)
                phase.run.compiled |= self._compiled
        shared = _SharedCallbacks(
            callbacks, add_history=True, model=self, epochs=epochs, steps=x.steps
        )
        self.stop_training = phase is not None and phase.ended
        with self._dropout_apart(), self._kernels_rounded_once():
            shared.begin()
            held_out, filler = None, self._sees_batches()
            for epoch in range(first_epoch, epochs):
                if self.stop_training:
                    break
                batches = distribute(
                    self.distribute_strategy, x, epoch, first_step, self.accumulate, filler=filler
                )
                if validation_data is not None and held_out is None:
                    held_out = distribute(self.distribute_strategy, validation_data)
                    kwargs["validation_steps"] = validation_data.steps
                kwargs["steps_per_epoch"] = x.steps - first_step
                self._fit_epoch(batches, epoch, held_out, shared, kwargs)
                first_step = 0
            # With a moving average of the weights, the model ends with the average.
            self.optimizer.finalize_variable_values(self.trainable_variables)
            shared.end()
        return self.history

    def _sees_batches(self) -> bool:
        """Tells whether what a layer computes depends on the whole batch, its filler included."""
        kind = keras.layers.BatchNormalization
        return any(isinstance(layer, kind) and layer.trainable for layer in self._flatten_layers())

    @contextlib.contextmanager
    def _kernels_rounded_once(self) -> Iterator[None]:
        """Keeps frozen kernels in the number format they are computed in, where memory is no
        graphics card's. What is traced meanwhile is forgotten, for they may change afterwards.
        """
        if (
            self.distribute_strategy.num_replicas_in_sync == 1
            and not tf.config.list_physical_devices("GPU")
        ):
            self._rounded = rounded_kernels(self.model)
        try:
            yield
        finally:
            if self._rounded:
                self._rounded = {}
                self.train_function = self.test_function = None

    def _fit_epoch(self, batches, epoch, held_out, callbacks, kwargs) -> None:  # noqa: ANN001
        # Keras would overwrite weights with their moving average after every epoch: `fit` does it
        # once, at the end.
        self._build_metrics(batches.element_spec)
        finalize = self.optimizer.finalize_variable_values
        self.optimizer.finalize_variable_values = lambda variables: None
        try:
            super().fit(
                batches,
                initial_epoch=epoch,
                epochs=epoch + 1,
                validation_data=held_out,
                callbacks=callbacks,
                verbose=0,
                shuffle=False,
                **kwargs,
            )
        finally:
            self.optimizer.finalize_variable_values = finalize

    def _build_metrics(self, spec: Any) -> None:
        """Creates the variables of the metrics before the first step, so that a saved state fits
        in.
        """
        any_size = [self.accumulate, *[2] * 9]  # where batches differ in size

        def zeros(spec):  # noqa: ANN001
            if not isinstance(spec, tf.TensorSpec):  # of several replicas in this process
                spec = spec._value_specs[0]
            shape = [n or any_size[i] for i, n in enumerate(spec.shape)]
            return tf.zeros(shape, spec.dtype)

        batch = tf.nest.map_structure(zeros, spec)
        # Shapes are known, and a large network takes seconds to trace.
        known = self._zeros if is_functional(self.model) else None
        with self.distribute_strategy.scope(), changed(self, "call", known):
            self._symbolic_build(data_batch=batch)

    def _zeros(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns zeros in the shapes of the answers to some inputs."""
        shape = tf.nest.flatten(inputs)[0].shape  # of examples, or of tokens

        def zeros(answer: keras.KerasTensor) -> tf.Tensor:
            last = len(shape) - 1
            sizes = [size or shape[min(i, last)] for i, size in enumerate(answer.shape)]
            return tf.zeros(sizes, answer.dtype)

        return tf.nest.map_structure(zeros, self.model.output)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Keras builds the metrics from a batch that it averages, which fails over workers."""
        if not is_multiworker(self.distribute_strategy):
            super()._maybe_symbolic_build(iterator, data_batch)

    def reset_metrics(self) -> None:
        """Sets all metrics to zero; over workers each its own, without asking the others."""
        if not is_multiworker(self.distribute_strategy):
            return super().reset_metrics()
        if "reset" not in self._functions:
            self._functions["reset"] = tf.function(
                lambda: self.distribute_strategy.run(
                    lambda: [metric.reset_state() for metric in self.metrics] and None
                )
            )
        return self._functions["reset"]()

    def read(self, variables: Sequence[keras.Variable]) -> list[np.ndarray]:
        """Returns the values of variables of metrics, summed over workers in one go.

        Over workers, reading one by one compiles a sum each time.
        """
        if not is_multiworker(self.distribute_strategy):
            return [np.asarray(variable) for variable in variables]
        key = tuple(map(id, variables))
        if key not in self._functions:

            @tf.function
            def values() -> list[tf.Tensor]:
                with self.distribute_strategy.scope():
                    return [tf.identity(variable.value) for variable in variables]

            self._functions[key] = values
        return [value.numpy() for value in self._functions[key]()]

    @contextlib.contextmanager
    def _dropout_apart(self) -> Iterator[None]:
        """Moves the seeds of each replica but the first apart, so that their masks differ.

        Seeds advance in step on all replicas, so what the first replica has is what a checkpoint
        needs.
        """
        strategy = self.distribute_strategy
        layers = self.model._flatten_layers()
        seeds = [g.state for layer in layers for g in getattr(layer, "_seed_generators", ())]
        if strategy.num_replicas_in_sync == 1 or not seeds:
            yield
            return

        @tf.function
        def move(sign):  # noqa: ANN001
            def move_own() -> None:
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                for seed in seeds:
                    step = tf.cast([sign * SEEDS_APART, 0], seed.dtype)
                    seed.assign(seed + step * tf.cast(replica, seed.dtype))

            strategy.run(move_own)

        move(tf.constant(1))
        yield
        move(tf.constant(-1))

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's `evaluate`, for a `Pipeline` too."""
        if isinstance(x, Pipeline):
            kwargs["steps"] = x.steps
            x = distribute(self.distribute_strategy, x)
            self._build_metrics(x.element_spec)
        elif not isinstance(x, tf.distribute.DistributedDataset):
            self._refuse_among_workers("evaluate")
        return super().evaluate(x, *args, **kwargs)

    def _refuse_among_workers(self, method: str) -> None:
        if is_multiworker(self.distribute_strategy):
            raise UserError(
                f"FineTuner.{method} was given data that is no Pipeline.",
                "Each of several workers needs its own part of each batch.",
                "Use a data.Pipeline, or train in one process.",
            )


class _SharedCallbacks(keras.callbacks.CallbackList):
    """One list of callbacks over many calls of Keras's `fit`: training begins and ends once."""

    def begin(self) -> None:
        super().on_train_begin()

    def end(self) -> None:
        super().on_train_end(None)

    def on_train_begin(self, logs: dict | None = None) -> None:
        pass

    def on_train_end(self, logs: dict | None = None) -> None:
        pass


def _per_example(loss: str | keras.losses.Loss) -> Any:
    """Returns a loss before Keras reduces it, in float32 whatever the model computes in."""
    loss = keras.losses.get(loss)
    compute = loss.call if isinstance(loss, keras.losses.Loss) else loss
    return lambda y, outputs: tf.cast(compute(y, tf.cast(outputs, "float32")), "float32")


def _unpack(data: Any) -> tuple:
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    if weights is None:
        weights = tf.ones(tf.shape(y)[:1])
    return x, y, weights
