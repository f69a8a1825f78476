"""Optimizers by name, with weight decay where it belongs and, if asked for, a rate of its own for
each layer.
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

OPTIMIZERS = ("adam", "adamw", "sgd", "lion", "muon")
# Weight decay pulls matrices towards zero; biases and normalisation have no reason to be there.
NOT_DECAYED = ("bias", "gamma", "beta", "scale", "embedding", "magnitude")


def make_optimizer(
    name: str,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    ema: float = 0.0,
    rate_factors: Mapping[str, float] | None = None,
    exclude_layers: tuple[str, ...] = (),
) -> keras.optimizers.Optimizer:
    """Returns a Keras optimizer.

    Args:
        name: One of `OPTIMIZERS`.
        learning_rate: A rate or a schedule.
        weight_decay: Decoupled weight decay (adamw, sgd, lion, muon), never on biases,
            normalisation or embeddings.
        momentum: sgd's, with Nesterov's correction.
        ema: Momentum of an exponential moving average of the weights; 0 keeps none.
        rate_factors: Factor on the rate, and on the decay, of each variable by its path; 1 where
            not named.
        exclude_layers: muon: layers, by words in their path, that are trained with adamw (the
            output layer).
    """
    common = {"learning_rate": learning_rate}
    if ema:
        common |= {"use_ema": True, "ema_momentum": ema}
    decay = weight_decay or None
    optimizer = {
        "adam": lambda: keras.optimizers.Adam(**common),
        "adamw": lambda: keras.optimizers.AdamW(weight_decay=weight_decay, **common),
        "sgd": lambda: keras.optimizers.SGD(
            momentum=momentum, nesterov=momentum > 0, weight_decay=decay, **common
        ),
        "lion": lambda: keras.optimizers.Lion(weight_decay=decay, **common),
        "muon": lambda: keras.optimizers.Muon(
            weight_decay=decay,
            adam_weight_decay=decay,
            exclude_layers=list(exclude_layers),
            **common,
        ),
    }[name]()
    optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    if name in ("adam", "adamw"):
        _fuse_adam(optimizer)
    if rate_factors:
        _scale_rates(optimizer, rate_factors)
    return optimizer


def current_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Returns the learning rate of the next update, whether a schedule or a variable says it."""
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def _fuse_adam(optimizer: keras.optimizers.Adam) -> None:
    """Makes an update one operation a variable instead of a dozen, and decay two instead of four.

    The formulas are Keras's. What counts is how often all weights pass through memory: with a large
    vocabulary that took Keras's optimizer longer than the matrix products of a small batch.
    """
    update_step = optimizer.update_step

    def fused_update(gradient, variable, learning_rate) -> None:  # noqa: ANN001
        if isinstance(gradient, tf.IndexedSlices):
            return update_step(gradient, variable, learning_rate)
        dtype = variable.dtype
        step = tf.cast(optimizer.iterations + 1, dtype)
        index = optimizer._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=optimizer._momentums[index].value.handle,
            v=optimizer._velocities[index].value.handle,
            beta1_power=tf.cast(optimizer.beta_1, dtype) ** step,
            beta2_power=tf.cast(optimizer.beta_2, dtype) ** step,
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.cast(optimizer.beta_1, dtype),
            beta2=tf.cast(optimizer.beta_2, dtype),
            epsilon=tf.cast(optimizer.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )
        return None

    def one_pass_decay(variables) -> None:  # noqa: ANN001
        def decay(variable) -> None:  # noqa: ANN001
            if optimizer._use_weight_decay(variable):
                rate = tf.cast(optimizer.learning_rate, variable.dtype)
                kept = 1.0 - rate * tf.cast(optimizer.weight_decay, variable.dtype)
                variable.assign(variable * kept)

        def everywhere(strategy, variables) -> None:  # noqa: ANN001
            for variable in variables:
                strategy.extended.update(variable.value, decay, group=False)

        if optimizer.weight_decay:
            tf.__internal__.distribute.interim.maybe_merge_call(
                everywhere, optimizer._distribution_strategy, variables
            )

    optimizer.update_step = fused_update
    optimizer._apply_weight_decay = one_pass_decay


def _scale_rates(optimizer: keras.optimizers.Optimizer, factors: Mapping[str, float]) -> None:
    """Multiplies the rate of each update and each decay by its variable's factor.

    Scaling gradients instead would change nothing: Adam and its kin divide it out again.
    """
    update_step, apply_decay = optimizer.update_step, optimizer._apply_weight_decay
    # muon has a second one, for what it trains with adamw
    decays = {
        name: getattr(optimizer, name, None) for name in ("weight_decay", "adam_weight_decay")
    }
    decays = {name: value for name, value in decays.items() if value is not None}

    def factor_of(variable) -> float:  # noqa: ANN001
        known = optimizer._trainable_variables[optimizer._get_variable_index(variable)]
        return factors.get(known.path, 1.0)

    def scaled_update(gradient, variable, learning_rate) -> None:  # noqa: ANN001
        update_step(gradient, variable, learning_rate * factor_of(variable))

    def scaled_decay(variables) -> None:  # noqa: ANN001
        for variable in variables:
            factor = factor_of(variable)
            for name, whole in decays.items():
                setattr(optimizer, name, whole * factor)
            apply_decay([variable])
        for name, whole in decays.items():
            setattr(optimizer, name, whole)

    optimizer.update_step = scaled_update
    optimizer._apply_weight_decay = scaled_decay
