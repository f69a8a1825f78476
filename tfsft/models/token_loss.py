"""The loss of a language model without its logits: computed where a target is, some at a time.

The logits of one batch are `batch x tokens x vocabulary` numbers, often more than everything else
in training takes together, and most of them belong to tokens that nobody asked for.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from tfsft.models.shared_start import SharedStart, shares_start

LOGITS = 1 << 24  # made at a time, 64 MiB in float32
NO_TARGET = -1


def with_token_loss(model: keras.Model, logits: int = LOGITS, shared: int = 0) -> keras.Model:
    """Returns the network that trains a language model.

    It shares all layers and weights with the model, which goes on returning logits.

    Args:
        model: KerasHub's: causal, from `token_ids` and `padding_mask` to logits; or of sequence to
            sequence, whose targets belong to the tokens of the decoder.
        logits: How many of them are made at a time, at most.
        shared: With how many tokens all rows of a batch begin alike; they are computed once, where
            the family allows it.

    Returns:
        A model with one more input, `targets` int32 `[batch, tokens]`: the token that should follow
        each token, -1 where none is due. Its output is float32 `[batch, tokens, 2]`: the negative
        log-likelihood of each target in nats, and whether it was the likeliest token (1 or 0); both
        are 0 without a target.
    """
    inputs = {tensor.name: tensor for tensor in model.inputs}
    targets = keras.Input((None,), dtype="int32", name="targets")
    head, node, _ = model.output._keras_history
    if isinstance(head, keras.layers.ReversibleEmbedding) and not head.quantization_mode:
        states, project = head._inbound_nodes[node].input_tensors[0], _projection(head)
    else:  # a head of the family's own: its logits are all made
        states, project = model.output, None
    if shared and states._keras_history.operation.name == "backbone":
        backbone = model.get_layer("backbone")
        if shares_start(backbone):
            start = SharedStart(backbone, shared)
            states = start(inputs["token_ids"], inputs["padding_mask"])
    outputs = _TokenLoss(project, max(1, logits // model.output.shape[-1]))(states, targets)
    return keras.Model({**inputs, "targets": targets}, outputs, name="token_loss_network")


def _projection(head: keras.layers.ReversibleEmbedding) -> Callable:
    """Returns the kernel of the output layer, and what makes logits of states with it."""
    tied, cap = head.tie_weights, head.logit_soft_cap
    variable = head._embeddings if tied else head.reverse_embeddings
    dtype = head.reverse_dtype or head.compute_dtype

    def project(states: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        states, kernel = tf.cast(states, dtype), tf.cast(kernel, dtype)
        logits = tf.cast(tf.matmul(states, kernel, transpose_b=tied), "float32")
        return logits if cap is None else tf.tanh(logits / cap) * cap

    return lambda: (variable, project)


class _TokenLoss(keras.layers.Layer):
    """Loss and hit of each token; the only weights it sees are the model's.

    Args:
        projection: From `_projection`; None takes its input as logits.
        chunk: Tokens whose logits are made at a time.
    """

    def __init__(self, projection: Callable | None, chunk: int):
        super().__init__(name="token_loss", dtype="float32", autocast=False)
        self.projection = projection
        self.chunk = chunk

    def compute_output_shape(self, states_shape, targets_shape):  # noqa: ANN001
        return (*targets_shape, 2)

    def call(self, states, targets):  # noqa: ANN001
        places = tf.where(targets >= 0)
        wanted = tf.gather_nd(targets, places)
        states = tf.gather_nd(states, places)
        if self.projection is None:
            losses, right = _losses(tf.cast(states, "float32"), wanted)
        else:
            variable, project = self.projection()
            losses, right = _chunked(
                states, variable.value, wanted, project, self.chunk, variable.trainable
            )
        found = tf.stack([losses, right], axis=-1)
        shape = tf.concat([tf.shape(targets, "int64"), [2]], axis=0)
        return tf.scatter_nd(places, found, shape)


def _losses(logits: tf.Tensor, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(wanted, logits)
    right = tf.equal(tf.argmax(logits, axis=-1, output_type="int32"), wanted)
    return losses, tf.cast(right, "float32")


def _chunked(
    states: tf.Tensor,
    kernel: tf.Tensor,
    wanted: tf.Tensor,
    project: Callable,
    chunk: int,
    kernel_trains: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns loss and hit of some tokens, whose logits never exist all at once.

    The gradient of the states is made on the way forward, where the logits are at hand; that of the
    kernel, if it trains, needs the gradients of the losses and makes the logits once more.

    Args:
        states: What the tokens' logits are made of, `[tokens, hidden]`.
        kernel: The other half, as `project` takes it.
        wanted: Targets, int32 `[tokens]`.
    """

    @tf.custom_gradient
    def compute(states, kernel):  # noqa: ANN001
        number = tf.shape(states)[0]

        def part(start):  # noqa: ANN001
            place = slice(start, tf.minimum(start + chunk, number))
            return states[place], wanted[place]

        def forward(i, start, *found):  # noqa: ANN001
            some, targets = part(start)
            with tf.GradientTape() as tape:
                tape.watch(some)
                losses, right = _losses(project(some, kernel), targets)
            values = losses, right, tape.gradient(losses, some)
            written = [a.write(i, value) for a, value in zip(found, values, strict=True)]
            return i + 1, start + chunk, *written

        def array(dtype, *rest):  # noqa: ANN001
            shape = [None, *rest]
            return tf.TensorArray(
                dtype, 1, dynamic_size=True, infer_shape=False, element_shape=shape
            )

        arrays = array("float32"), array("float32"), array(states.dtype, states.shape[-1])
        # Without any target there is one part, an empty one.
        *_, losses, right, slopes = tf.while_loop(
            lambda i, start, *_: tf.logical_or(i == 0, start < number),
            forward,
            (0, 0, *arrays),
            parallel_iterations=1,
        )
        slopes = slopes.concat()

        def backward(upstream, _):  # noqa: ANN001
            of_states = slopes * tf.cast(upstream, slopes.dtype)[:, None]
            if not kernel_trains:
                return of_states, None

            def add(start, total):  # noqa: ANN001
                some, targets = part(start)
                with tf.GradientTape() as tape:
                    tape.watch(kernel)
                    losses, _ = _losses(project(some, kernel), targets)
                    loss = tf.reduce_sum(losses * upstream[start : start + chunk])
                return start + chunk, total + tf.convert_to_tensor(tape.gradient(loss, kernel))

            _, of_kernel = tf.while_loop(
                lambda start, _: start < number,
                add,
                (0, tf.zeros_like(kernel)),
                parallel_iterations=1,
            )
            return of_states, of_kernel

        return (losses.concat(), right.concat()), backward

    return compute(states, kernel)
