"""Cuts a model where its frozen part ends, so that what never changes is computed once."""

import math
from collections.abc import Iterable
from typing import Any

import keras

from tfsft.models.graph import is_functional, nodes

POOLING = "pooling"  # the layer of a recipe that makes one vector of an example
_GIVEN_UP_AT_MOST = 8


def split_frozen(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Splits a model into what training cannot change and the rest; both share the model's layers.

    Models inside the model are opened, so that the cut may lie within the backbone. Training `top`
    trains `model`. Both stay valid until `unfreeze` changes what trains.

    Args:
        model: A functional model. If it has a layer `resize`, the trunk starts behind it, at
            pictures that are already of the right size.

    Returns:
        `trunk`, from uint8 pictures [n, image_size, image_size, 3], or from the model's own
        dict of inputs, to a tensor or a list of tensors, and `top`, from these to the output:
        `top(trunk(x))` is the model. A trunk without weights (`not trunk.weights`) is preprocessing
        alone, and not worth caching; nor is one whose outputs have no fixed size
        (`None in x.shape[1:]`), as of texts when more than their pooled vector is needed.
    """
    calls = _Calls(model)

    constant, frozen, changing = set(calls.sources), [], []
    for node in calls.nodes:
        if constant.issuperset(calls.inputs(node)) and _is_constant(node.operation):
            constant.update(calls.outputs(node))
            frozen.append(node)
        else:
            changing.append(node)
    cut = _narrow_cut(calls, frozen, changing)
    frozen, changing = frozen[:cut], frozen[cut:] + changing
    return _parts(calls, frozen, changing, calls.crossing(frozen, changing))


def cut_at_pixels(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Cuts a model where a picture becomes numbers that have a gradient.

    Args:
        model: From pictures; its layer `resize`, if it has one, is left out.

    Returns:
        `below`, from pictures of the right size to float `[n, height, width, channels]`, and
        `above`, from these to the output.

    Raises:
        ValueError: There is no such place.
    """
    calls = _Calls(model)
    for node in calls.nodes:
        (key, *others) = calls.outputs(node)
        x = calls.tensor[key]
        if not others and len(x.shape) == 4 and "float" in str(x.dtype):
            parts = calls.makers(key)
            if calls.crossing(*parts) == [key]:
                return _parts(calls, *parts, [key])
    raise ValueError("no float picture is all that the rest of the model sees")


def cut_at_tokens(model: keras.Model, name: str = "token_ids") -> tuple[keras.Model, keras.Model]:
    """Cuts a model behind the embedding of its tokens.

    Args:
        model: From a dict of inputs.
        name: Of the input with the tokens.

    Returns:
        `below`, from the inputs to a list of tensors, the first of which are the embeddings
        `[n, tokens, width]`, and `above`, from these to the output.

    Raises:
        ValueError: There is no such place.
    """
    calls = _Calls(model)
    for node in calls.nodes:
        made_of = {calls.tensor[key].name for key in calls.inputs(node)}
        key = calls.outputs(node)[0]
        x = calls.tensor[key]
        if made_of == {name} and len(x.shape) == 3 and "float" in str(x.dtype):
            parts = calls.makers(key)
            crossing = calls.crossing(*parts)
            return _parts(calls, *parts, [key, *(other for other in crossing if other != key)])
    raise ValueError(f"{name} is not embedded by a layer of its own")


def cut_at_states(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Cuts a language model behind the last states of its tokens, which logits are made of.

    Args:
        model: From embeddings `[n, tokens, width]` and what else they cross with, as
            `cut_at_tokens` returns it.

    Returns:
        `below`, to the states `[n, tokens, width]`, and `above`, from these, each for itself, to
        the logits. Where there are no such states, `below` is the model and `above` does nothing.
    """
    calls = _Calls(model)
    width = model.inputs[0].shape[-1]
    for node in reversed(calls.nodes):
        for key in calls.outputs(node):
            shape = calls.tensor[key].shape
            if len(shape) == 3 and shape[-1] == width:
                parts = calls.makers(key)
                if calls.crossing(*parts) == [key]:
                    return _parts(calls, *parts, [key])
    return model, keras.Model(model.output, model.output)


def cut_at_features(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Cuts a model of pictures behind the last of its features that still have a place.

    Args:
        model: As for `cut_at_pixels`.

    Returns:
        `below`, to a list of tensors, the first of which are the features: of a convolutional
        network `[n, height, width, channels]`, of a transformer `[n, tokens, width]`; and `above`,
        from these to the output.

    Raises:
        ValueError: There are none.
    """
    calls = _Calls(model)
    placed = [
        key
        for node in calls.nodes
        for key in calls.outputs(node)
        if len(calls.tensor[key].shape) in (3, 4) and key not in calls.results
    ]
    if not placed:
        raise ValueError("nothing in the model has a place in the picture")
    parts = calls.makers(placed[-1])
    crossing = calls.crossing(*parts)
    return _parts(calls, *parts, [placed[-1], *(key for key in crossing if key != placed[-1])])


def with_features(model: keras.Model) -> keras.Model:
    """Returns a model that also says what its head decides by, from the same layers.

    Args:
        model: As for `split_frozen`.

    Returns:
        From the same inputs as `split_frozen`'s trunk, or of its top, to [features `[n, d]`,
        output]. Features are what the layer `pooling` returns, else the last vector before the
        output.
    """
    calls = _Calls(model)
    vectors = {
        key: node.operation.name
        for node in calls.nodes
        for key in calls.outputs(node)
        if len(calls.tensor[key].shape) == 2 and key not in calls.results
    }
    # Of the part above a frozen trunk, this may be an input.
    vectors |= {key: POOLING for key in calls.sources if calls.tensor[key].name == POOLING}
    pooled = [key for key, name in vectors.items() if name == POOLING] or list(vectors)
    if not pooled:
        raise ValueError("the model has no vector before its output")
    start, tensors = calls.new_inputs()
    computed = calls.replay(calls.nodes, tensors)
    return keras.Model(start, [computed[pooled[-1]], computed[calls.results[0]]], name="features")


def pools(model: keras.Model) -> bool:
    """Tells whether a layer `pooling` makes what the head of a model decides by."""
    return is_functional(model) and any(layer.name == POOLING for layer in model.layers)


def _parts(
    calls: "_Calls", first: list, rest: list, crossing: list[int]
) -> tuple[keras.Model, keras.Model]:
    """Returns the first calls and the rest of them as models, with what crosses between."""
    start, tensors = calls.new_inputs()
    computed = calls.replay(first, tensors)
    trunk = keras.Model(start, _one_or_list(computed[key] for key in crossing), name="trunk")

    pooled = [k for node in first if node.operation.name == POOLING for k in calls.outputs(node)]
    inputs = {
        key: _input_like(calls.tensor[key], POOLING if key in pooled else f"crossing_{i}")
        for i, key in enumerate(crossing)
    }
    computed = calls.replay(rest, dict(inputs))
    outputs = _one_or_list(computed[key] for key in calls.results)
    return trunk, keras.Model(_one_or_list(inputs.values()), outputs, name="top")


def from_resized(model: keras.Model) -> keras.Model:
    """Returns the model without its layer `resize`, for pictures that have the right size already.

    It shares the model's layers: what trains on pictures of a pipeline need not resize them again.
    A model without such a layer is returned as it is.
    """
    if not is_functional(model) or not _resizing(model):
        return model
    calls = _Calls(model)
    start, tensors = calls.new_inputs()
    computed = calls.replay(calls.nodes, tensors)
    return keras.Model(start, _one_or_list(computed[key] for key in calls.results))


def _narrow_cut(calls: "_Calls", frozen: list, changing: list) -> int:
    """Returns how many of the frozen calls to leave in the trunk.

    All of them, unless giving up the last few at least halves what crosses: a MobileNet block first
    widens its input six-fold, and six times the memory costs more than doing that again.
    """
    if not any(getattr(node.operation, "weights", ()) for node in frozen):
        return len(frozen)
    sizes = {}
    for cut in range(len(frozen), max(len(frozen) - _GIVEN_UP_AT_MOST, 0), -1):
        crossing = calls.crossing(frozen[:cut], frozen[cut:] + changing)
        sizes[cut] = sum(_size(calls.tensor[key]) for key in crossing)
    best = min(sizes, key=sizes.get)
    return best if sizes[best] <= sizes[len(frozen)] / 2 else len(frozen)


class _Calls:
    """The calls of a model and of the models inside it, as one list.

    Tensors go by a key. The inputs of an inner model get the key of what it is called with, and the
    outputs of that call the key of the inner model's outputs.
    """

    def __init__(self, model: keras.Model):
        self.nodes: list = []
        self.tensor: dict[int, keras.KerasTensor] = {}
        self._key: dict[int, int] = {}
        self._opened: set[int] = set()
        resized = _resizing(model)
        self._start = resized[0].outputs[0] if resized else model.input
        self.sources = [self._add(x) for x in keras.tree.flatten(self._start)]
        self._walk(model, skip=resized)
        self.results = [self._key[id(x)] for x in model.outputs]

    def new_inputs(self) -> tuple[Any, dict[int, keras.KerasTensor]]:
        """Returns inputs like those that the calls start from, as they are nested and by key."""
        several = len(self.sources) > 1
        new = keras.tree.map_structure(
            lambda x: _input_like(x, x.name if several else "resized"), self._start
        )
        return new, dict(zip(self.sources, keras.tree.flatten(new), strict=True))

    def inputs(self, node: Any) -> list[int]:
        return [self._key[id(x)] for x in node.input_tensors]

    def outputs(self, node: Any) -> list[int]:
        return [self._key[id(x)] for x in node.outputs]

    def crossing(self, frozen: list, changing: list) -> list[int]:
        """Returns the tensors that the frozen calls hand to the changing ones, or to the output."""
        made = set(self.sources).union(*(self.outputs(node) for node in frozen))
        wanted = [key for node in changing for key in self.inputs(node)] + self.results
        return [key for key in dict.fromkeys(wanted) if key in made]

    def makers(self, key: int) -> tuple[list, list]:
        """Returns the calls that a tensor is made by, and all others, in their order."""
        wanted, first = {key}, set()
        for node in reversed(self.nodes):
            if wanted.intersection(self.outputs(node)):
                wanted.update(self.inputs(node))
                first.add(id(node))
        return tuple([n for n in self.nodes if (id(n) in first) == chosen] for chosen in (1, 0))

    def replay(self, calls: list, tensors: dict[int, Any]) -> dict[int, Any]:
        """Calls the same layers again, from other tensors; adds what they return."""
        for node in calls:
            known = {}
            for x in node.input_tensors:
                value = tensors[self._key[id(x)]]
                # An inner model converts what it is called with to the type of its input; what it
                # returns is a float, even where Keras calls it an integer as its input was.
                kept = value.dtype == x.dtype or ("float" in value.dtype and "int" in x.dtype)
                known[id(x)] = value if kept else keras.ops.cast(value, x.dtype)
            args, kwargs = node.arguments.fill_in(known)
            outputs = keras.tree.flatten(node.operation(*args, **kwargs))
            tensors |= dict(zip(self.outputs(node), outputs, strict=True))
        return tensors

    def _walk(self, model: keras.Model, skip: list) -> None:
        for node in nodes(model):
            inner = node.operation
            if node in skip:
                continue
            if is_functional(inner) and id(inner) not in self._opened:
                self._opened.add(id(inner))
                for inside, outside in zip(inner.inputs, node.input_tensors, strict=True):
                    self._key[id(inside)] = self._key[id(outside)]
                self._walk(inner, skip)
                for inside, outside in zip(inner.outputs, node.outputs, strict=True):
                    self._key[id(outside)] = self._key[id(inside)]
            else:
                self.nodes.append(node)
                for x in node.outputs:
                    self._add(x)

    def _add(self, x: keras.KerasTensor) -> int:
        self.tensor[id(x)] = x
        self._key[id(x)] = id(x)
        return id(x)


def _resizing(model: keras.Model) -> list:
    return [node for node in nodes(model) if node.operation.name == "resize"]


def _size(x: keras.KerasTensor) -> float:
    """Numbers in a tensor for one example; as many as may be where that varies."""
    return math.inf if None in x.shape[1:] else math.prod(x.shape[1:])


def _is_constant(operation: Any) -> bool:
    """Tells whether a layer stays as it is in training, and does what it does in inference."""
    if not isinstance(operation, keras.layers.Layer):
        return True
    if operation.trainable_variables:
        return False
    for layer in operation._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            return False
        draws = getattr(layer, "seed_generator", None) is not None
        if getattr(layer, "rate", 1.0 if draws else 0.0):
            return False
    return True


def _input_like(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.Input(x.shape[1:], dtype=x.dtype, name=name)


def _one_or_list(tensors: Iterable[Any]) -> Any:
    tensors = list(tensors)
    return tensors[0] if len(tensors) == 1 else tensors
