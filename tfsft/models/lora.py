"""Low-rank updates (LoRA) of a frozen backbone: put on, trained, and folded into its weights.

A projection x W + b becomes x W + (alpha / rank) x A B + b, with A [in, rank] and B [rank, out] on
the whole projection, as in the paper and in PEFT. Keras's own `enable_lora` factorises the kernel
of an EinsumDense along its last axis: another, larger update, which does not survive a reload.

Two variants: rank-stabilised scaling (arXiv:2312.03732) has alpha / sqrt(rank) for alpha / rank.
DoRA (arXiv:2402.09353) trains a length m for each output besides: a projection is
m (W + (alpha / rank) A B) / |W + (alpha / rank) A B|, with the norm of each output's weights.
"""

import math
import string
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from tfsft.errors import UsageError, UserError, nearest
from tfsft.models.freezing import Counts, count_parameters

VARIANTS = ("lora", "rslora", "dora")
TARGETS = ("query", "key", "value", "output", "feedforward")
# What KerasHub calls the projections of a transformer's block.
_ATTENTION = {"query": "query", "key": "key", "value": "value", "attention_output": "output"}
_ATTENTION |= {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"}
_FEEDFORWARD = ("feedforward", "ffw", "ffn", "gate_proj", "up_proj", "down_proj")


def add_lora(
    model: keras.Model,
    rank: int,
    alpha: float = 16.0,
    targets: Sequence[str] = ("query", "value"),
    dropout: float = 0.0,
    seed: int = 0,
    variant: str = "lora",
) -> Counts:
    """Freezes the layer `backbone` inside a model and lets low-rank updates of it train instead.

    The model computes what it did: B starts at zero, A as PEFT draws it. The head trains as before.
    Do not call `unfreeze` afterwards: it would open the kernels and close the updates.

    Args:
        model: A model with a layer named `backbone`, a transformer. It needs compiling again
            afterwards.
        rank: Rank of each update.
        alpha: The updates are scaled by `alpha / rank`, with rslora by `alpha / sqrt(rank)`.
        targets: Which projections of every block get one: `query`, `key`, `value`, `output` (of the
            attention), `feedforward` (all of its projections); or `all`.
        dropout: Share of what goes into the updates that is dropped in training.
        seed: Of A and of the dropout.
        variant: `lora`; `rslora`, with rank-stabilised scaling; or `dora`, which trains the length
            of each output's weights apart from their direction.

    Returns:
        The parameters of the whole model, updates and head included.

    Raises:
        UsageError: There is no such variant; or no such target, or not in this backbone; or it has
            updates already.
    """
    if variant not in VARIANTS:
        raise UsageError(
            f"There is no variant of LoRA '{variant}'.{nearest(variant, VARIANTS)}",
            f"Variants: {', '.join(VARIANTS)}.",
        )
    if rank < 1:
        raise UsageError(f"LoRA of rank {rank} was asked for.", "A rank is a whole number from 1.")
    wanted = {target.strip() for target in targets}
    if not wanted:
        raise UsageError("No LoRA targets were given.", f"Targets: {', '.join(TARGETS)}; or all.")
    for target in sorted(wanted - {*TARGETS, "all"}):
        raise UsageError(
            f"There is no LoRA target '{target}'.{nearest(target, [*TARGETS, 'all'])}",
            f"Targets: {', '.join(TARGETS)}; or all.",
        )
    found = {layer: role_of(layer) for layer in projections(model.get_layer("backbone"))}
    has = [target for target in TARGETS if target in found.values()]
    for target in sorted(wanted - {*has, "all"} if has else wanted):
        raise UsageError(
            f"The backbone has no projection for the LoRA target '{target}'.",
            f"It has: {', '.join(has)}." if has else "LoRA is for transformers.",
        )
    chosen = [layer for layer, role in found.items() if {role, "all"} & wanted]
    form = Form(rank, alpha, dropout, stabilised=variant == "rslora", lengths=variant == "dora")
    return put_on(model, chosen, form, seed)


def parse_targets(text: str) -> tuple[str, ...]:
    """Returns the targets in a list with commas, as `add_lora` takes them.

    Raises:
        UsageError: There is no such target.
    """
    targets = tuple(word.strip() for word in text.split(","))
    for target in targets:
        if target not in (*TARGETS, "all"):
            raise UsageError(
                f"There is no LoRA target '{target}'.{nearest(target, [*TARGETS, 'all'])}",
                f"Targets: {', '.join(TARGETS)}; or all.",
            )
    return targets


def merge_lora(model: keras.Model) -> None:
    """Folds the updates into the kernels, in float32, and makes the layers Keras's own again.

    The model computes the same, saves to `.keras`, and loads without this package. Its backbone
    stays frozen; `unfreeze` opens it.
    """
    backbone = model.get_layer("backbone")
    for layer in adapted(backbone):
        adapter = layer.adapter
        layer.kernel.assign(adapter.merged(layer.kernel))
        # What was compiled before goes on adding x A B: now nothing.
        adapter.b.assign(np.zeros(adapter.b.shape))
        if adapter.lengths is not None:
            adapter.lengths.assign(adapter.norms(layer.kernel))
        adapter.take_off(layer)
    backbone.trainable = False
    _forget_compiled(model)


@contextmanager
def lora_off(model: keras.Model) -> Iterator[None]:
    """Takes the updates off for a while: inside, the model is the original one, bit for bit.

    What was compiled before, a `Generator` too, goes on with the updates: make it anew inside.
    """
    layers = adapted(model.get_layer("backbone"))
    kinds = [type(layer) for layer in layers]
    for layer in layers:
        layer.__class__ = type(layer).__bases__[-1]
    _forget_compiled(model)
    try:
        yield
    finally:
        for layer, kind in zip(layers, kinds, strict=True):
            layer.__class__ = kind
        _forget_compiled(model)


@dataclass(frozen=True)
class Form:
    """What the updates of a model have in common.

    Args:
        rank: Of each.
        alpha: Their scale, before it is divided.
        dropout: Share of what goes into them that is dropped in training.
        stabilised: Divided by the root of the rank, instead of the rank.
        lengths: The length of each output's weights trains too (DoRA).
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    stabilised: bool = False
    lengths: bool = False

    @property
    def scale(self) -> float:
        """What A B is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.stabilised else self.rank)


def put_on(
    model: keras.Model, layers: Sequence[keras.layers.Layer], form: Form, seed: int
) -> Counts:
    """Puts an update on each of these projections; freezes all else of the backbone."""
    backbone = model.get_layer("backbone")
    if adapted(backbone):
        raise UsageError(
            "The backbone has LoRA updates already.",
            "A model has one set of them.",
            "Merge them with merge_lora first, or build the model anew.",
        )
    for i, layer in enumerate(layers):
        _Adapter.put_on(layer, form, seed + i)
    _train_only(backbone, layers)
    _forget_compiled(model)
    return count_parameters(model)


def adapted(backbone: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers that have an update, in the order in which they were built."""
    return [layer for layer in _inner(backbone) if isinstance(layer, _Adapted)]


def projections(backbone: keras.Model) -> list[keras.layers.Layer]:
    """Returns the projections of a transformer's blocks, in the order in which they were built."""
    return [layer for layer in _inner(backbone) if role_of(layer) and _Einsums.fit(layer)]


def role_of(layer: keras.layers.Layer) -> str | None:
    """Tells which target a layer is, by its name."""
    if layer.name.startswith(_FEEDFORWARD):
        return "feedforward"
    return _ATTENTION.get(layer.name)


def sizes(layer: keras.layers.Layer) -> tuple[int, int]:
    """Returns how many numbers go into a projection and come out: heads x size counts as one."""
    into, out = _Einsums(layer).shapes
    return int(np.prod(into)), int(np.prod(out))


class _Einsums:
    """How a projection is computed, and how it is with a rank between its input and output.

    Args:
        layer: A Dense or EinsumDense.
    """

    def __init__(self, layer: keras.layers.Layer):
        equation = getattr(layer, "equation", "...x,xy->...y").replace(" ", "")
        (source, kernel), result = equation.split("->")[0].split(","), equation.split("->")[1]
        rank = next(letter for letter in string.ascii_letters if letter not in equation)
        into = "".join(letter for letter in kernel if letter not in result)
        out = "".join(letter for letter in kernel if letter not in source)
        between = "".join(letter for letter in result if letter not in out) + rank

        # Over the last axes of the input: a product of matrices, not one for each example.
        lead = source.removesuffix(into)
        self.flat = "." in equation or (result, kernel) == (lead + out, into + out)
        self.plain = len(into) + len(out) == len(kernel) and set(into) <= set(source)
        self.down = f"{source},{into}{rank}->{between}"
        self.up = f"{between},{rank}{out}->{result}"
        size = dict(zip(kernel, layer.kernel.shape, strict=True))
        self.equation = equation
        self.shapes = [size[letter] for letter in into], [size[letter] for letter in out]
        self._product = f"{into}{rank},{rank}{out}->{kernel}"
        self._into = [kernel.index(letter) for letter in into]
        # The result from its first output axis on; what a number for each output is spread over.
        spread = result[min(result.index(letter) for letter in out) :] if out else ""
        self._order = [out.index(letter) for letter in spread if letter in out]
        self._spread = [size[letter] if letter in out else 1 for letter in spread]

    @staticmethod
    def fit(layer: keras.layers.Layer) -> bool:
        """Tells whether a layer is a projection that can have an update."""
        kinds = (keras.layers.Dense, keras.layers.EinsumDense)
        return isinstance(layer, kinds) and not layer.quantization_mode and _Einsums(layer).plain

    def project(self, x: keras.KerasTensor, kernel: keras.KerasTensor) -> keras.KerasTensor:
        """Returns x W."""
        if not self.flat:
            return ops.einsum(self.equation, x, kernel)
        rows, shape = self.rows(x)
        return ops.reshape(ops.matmul(rows, ops.reshape(kernel, (rows.shape[1], -1))), shape)

    def rows(self, x: keras.KerasTensor) -> tuple[keras.KerasTensor, tuple]:
        """Returns an input as a matrix `[..., in]`, and the shape of the result."""
        into, out = self.shapes
        lead = ops.shape(x)[: len(x.shape) - len(into)]
        return ops.reshape(x, (-1, math.prod(into))), (*lead, *out)

    def product(self, a: keras.KerasTensor, b: keras.KerasTensor) -> keras.KerasTensor:
        """Returns A B in the kernel's own shape."""
        into, out = self.shapes
        return ops.einsum(self._product, ops.reshape(a, (*into, -1)), ops.reshape(b, (-1, *out)))

    def norms(self, kernel: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the length of each output's weights, `[out]`: heads x size counts as one axis."""
        return ops.reshape(ops.sqrt(ops.sum(ops.square(kernel), self._into)), (-1,))

    def spread(self, values: keras.KerasTensor) -> keras.KerasTensor:
        """Returns a number for each output, `[out]`, in a shape that goes with the result."""
        values = ops.reshape(values, self.shapes[1])
        return ops.reshape(ops.transpose(values, self._order), self._spread)

    def spread_kernel(self, values: np.ndarray) -> np.ndarray:
        """Returns a number for each output, `[out]`, in a shape that goes with the kernel."""
        return np.expand_dims(np.reshape(values, self.shapes[1]), self._into)


@dataclass(frozen=True)
class _Adapter:
    """The update of one projection."""

    a: keras.Variable  # [in, rank]
    b: keras.Variable  # [rank, out]
    lengths: keras.Variable | None  # [out]
    form: Form
    seeds: keras.random.SeedGenerator | None
    einsums: _Einsums

    @property
    def weights(self) -> list[keras.Variable]:
        """What trains."""
        return [weight for weight in (self.a, self.b, self.lengths) if weight is not None]

    def __call__(
        self, layer: keras.layers.Layer, x: keras.KerasTensor, training: bool | None
    ) -> keras.KerasTensor:
        """Returns what a projection computes with its update, before bias and activation."""
        plain = base = self.einsums.project(x, layer.kernel)
        if self.seeds and training:
            x = keras.random.dropout(x, self.form.dropout, seed=self.seeds)
            base = self.einsums.project(x, layer.kernel) if self.lengths is not None else base
        update = self.update(x)
        if self.lengths is None:
            return plain + update
        # The norm counts as a constant, as in the paper. An output without weights stays zero.
        norms = ops.stop_gradient(self.norms(layer.kernel))
        factors = ops.divide_no_nan(ops.cast(self.lengths, "float32"), norms)
        # What is dropped counts in the change alone, as in PEFT: A B and all that m does.
        change, factors = (
            ops.cast(self.einsums.spread(y), plain.dtype) for y in (factors - 1.0, factors)
        )
        return plain + change * base + factors * update

    def update(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Returns scale x A B, without ever making the product of A and B."""
        if self.einsums.flat:
            # Matrices and not batches of them: in bfloat16 oneDNN's product of such is wrong on
            # processors with AMX where the rank is odd.
            rows, shape = self.einsums.rows(x)
            narrow = ops.matmul(rows, self.a) * self.form.scale
            return ops.reshape(ops.matmul(narrow, self.b), shape)
        into, out = self.einsums.shapes
        narrow = ops.einsum(self.einsums.down, x, ops.reshape(self.a, (*into, -1)))
        narrow = narrow * self.form.scale
        return ops.einsum(self.einsums.up, narrow, ops.reshape(self.b, (-1, *out)))

    def norms(self, kernel: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the length of each output's weights with the update, `[out]`, float32."""
        kernel, a, b = (ops.cast(x, "float32") for x in (kernel, self.a, self.b))
        return self.einsums.norms(kernel + self.form.scale * self.einsums.product(a, b))

    def merged(self, kernel: keras.Variable) -> np.ndarray:
        """Returns the kernel with the update in it, float32."""
        a, b = (ops.cast(x, "float32") for x in (self.a, self.b))
        changed = np.asarray(kernel).astype("float32")
        changed = changed + self.form.scale * np.asarray(self.einsums.product(a, b))
        if self.lengths is None:
            return changed
        factors = ops.divide_no_nan(ops.cast(self.lengths, "float32"), self.norms(kernel))
        return changed * self.einsums.spread_kernel(np.asarray(factors))

    @staticmethod
    def put_on(layer: keras.layers.Layer, form: Form, seed: int) -> None:
        """Gives a layer new weights, and the class that uses them."""
        into, out = sizes(layer)
        bound = into**-0.5  # Kaiming's uniform distribution with a = sqrt(5)
        start = keras.initializers.RandomUniform(-bound, bound, seed=seed)
        seeds = lengths = None
        layer._tracker.unlock()
        a = layer.add_weight((into, form.rank), start, "float32", name="lora_a")
        b = layer.add_weight((form.rank, out), "zeros", "float32", name="lora_b")
        if form.lengths:
            lengths = layer.add_weight((out,), "ones", "float32", name="lora_magnitude")
        if form.dropout:
            with keras.name_scope(layer.name, caller=layer):
                seeds = keras.random.SeedGenerator(seed, name="lora_dropout")
            layer._tracker.add_to_store("seed_generators", seeds)
        layer._tracker.lock()
        layer.adapter = _Adapter(a, b, lengths, form, seeds, _Einsums(layer))
        if lengths is not None:
            lengths.assign(layer.adapter.norms(layer.kernel))
        # The graph of a model holds the layer itself: only its class can change.
        layer.__class__ = _WITH[type(layer)]

    def take_off(self, layer: keras.layers.Layer) -> None:
        """Makes a layer what it was."""
        for weight in self.weights:
            layer._untrack_variable(weight)
        layer._tracker.untrack(self.seeds)
        del layer.adapter
        layer.__class__ = type(layer).__bases__[-1]


class _Adapted:
    """What a Dense and an EinsumDense with an update have in common."""

    adapter: _Adapter

    def call(self, inputs, training=None):  # noqa: ANN001
        x = self.adapter(self, inputs, training)
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)

    def save_own_variables(self, store) -> None:  # noqa: ANN001
        super().save_own_variables(store)
        for weight in self.adapter.weights:
            store[weight.name] = weight

    def load_own_variables(self, store) -> None:  # noqa: ANN001
        super().load_own_variables(store)
        for weight in self.adapter.weights:
            weight.assign(store[weight.name])

    def get_config(self) -> dict:
        raise UserError(
            f"The model has LoRA updates ({self.path}), which no file of Keras can describe.",
            fix="Call models.merge_lora(model) first; models.save_adapter saves them apart.",
        )


class _AdaptedDense(_Adapted, keras.layers.Dense):
    pass


class _AdaptedEinsumDense(_Adapted, keras.layers.EinsumDense):
    pass


_WITH = {
    keras.layers.Dense: _AdaptedDense,
    keras.layers.EinsumDense: _AdaptedEinsumDense,
}


def _inner(layer: keras.layers.Layer) -> Iterable[keras.layers.Layer]:
    """Yields the layers within a layer, each once, in the order in which they were built."""
    seen = {}
    for inner in layer._layers:
        for x in (inner, *_inner(inner)):
            seen[id(x)] = x
    return seen.values()


def _train_only(backbone: keras.Model, layers: Sequence[keras.layers.Layer]) -> None:
    """Freezes a backbone but for the updates of some layers."""

    # A layer with nothing to train is frozen itself, and not only its weights: that is what
    # BatchNormalization goes by. A layer that holds others passes its flag on to them.
    def visit(layer: keras.layers.Layer) -> None:
        layer.trainable = any(x in layers for x in (layer, *_inner(layer)))
        for inner in layer._layers:
            visit(inner)

    visit(backbone)
    updates = {id(w) for layer in layers for w in layer.adapter.weights}
    for weight in backbone.trainable_weights:
        weight.trainable = id(weight) in updates


def _forget_compiled(model: keras.Model) -> None:
    model.train_function = model.test_function = model.predict_function = None
