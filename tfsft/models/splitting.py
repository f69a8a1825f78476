"""Cuts a model where its frozen part ends, so that what never changes is computed once."""

import math
from collections.abc import Iterable
from typing import Any

import keras

from tfsft.models.graph import is_functional, nodes

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
    crossing = calls.crossing(frozen, changing)

    start, tensors = calls.new_inputs()
    computed = calls.replay(frozen, tensors)
    trunk = keras.Model(start, _one_or_list(computed[key] for key in crossing), name="trunk")

    inputs = {
        key: _input_like(calls.tensor[key], f"crossing_{i}") for i, key in enumerate(crossing)
    }
    computed = calls.replay(changing, dict(inputs))
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

    def replay(self, calls: list, tensors: dict[int, Any]) -> dict[int, Any]:
        """Calls the same layers again, from other tensors; adds what they return."""
        for node in calls:
            known = {}
            for x in node.input_tensors:
                value = tensors[self._key[id(x)]]
                # An inner model converts what it is called with to the type of its input.
                known[id(x)] = value if value.dtype == x.dtype else keras.ops.cast(value, x.dtype)
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
