"""Cuts a model where its frozen part ends, so that what never changes is computed once."""

from collections.abc import Iterable
from typing import Any

import keras

from tfsft.models.graph import is_functional, nodes


def split_frozen(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Splits a model into what training cannot change and the rest; both share the model's layers.

    Models inside the model are opened, so that the cut may lie within the backbone. Training `top`
    trains `model`. Both stay valid until `unfreeze` changes what trains.

    Args:
        model: A functional model. If it has a layer `resize`, the trunk starts behind it, at
            pictures that are already of the right size.

    Returns:
        `trunk`, from uint8 pictures [n, image_size, image_size, 3] to a tensor or a list of
        tensors, and `top`, from these to the output: `top(trunk(x))` is the model. A trunk without
        weights (`not trunk.weights`) is preprocessing alone, and not worth caching.
    """
    calls = _Calls(model)
    source = calls.source

    constant, changing = {source}, []
    for node in calls.nodes:
        if constant.issuperset(calls.inputs(node)) and _is_constant(node.operation):
            constant.update(calls.outputs(node))
        else:
            changing.append(node)
    wanted = [key for node in changing for key in calls.inputs(node)] + calls.results
    crossing = [key for key in dict.fromkeys(wanted) if key in constant]

    pictures = _input_like(calls.tensor[source], "resized")
    frozen = calls.replay([n for n in calls.nodes if n not in changing], {source: pictures})
    trunk = keras.Model(pictures, _one_or_list(frozen[key] for key in crossing), name="trunk")

    inputs = {
        key: _input_like(calls.tensor[key], f"crossing_{i}") for i, key in enumerate(crossing)
    }
    trained = calls.replay(changing, dict(inputs))
    outputs = _one_or_list(trained[key] for key in calls.results)
    return trunk, keras.Model(_one_or_list(inputs.values()), outputs, name="top")


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
        resized = [node for node in nodes(model) if node.operation.name == "resize"]
        start = resized[0].outputs[0] if resized else model.inputs[0]
        self.source = self._add(start)
        self._walk(model, skip=resized)
        self.results = [self._key[id(x)] for x in model.outputs]

    def inputs(self, node: Any) -> list[int]:
        return [self._key[id(x)] for x in node.input_tensors]

    def outputs(self, node: Any) -> list[int]:
        return [self._key[id(x)] for x in node.outputs]

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
