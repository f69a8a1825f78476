"""Which layers of a backbone train: by stage, or from a layer to the output."""

from dataclasses import dataclass

import keras
import numpy as np

from tfsft.errors import UsageError, nearest
from tfsft.models.graph import nodes

_TOKEN_GROUPS = 4


@dataclass(frozen=True)
class Counts:
    """How many parameters a model has.

    Args:
        trainable: Those that training changes.
        total: All.
    """

    trainable: int
    total: int


def unfreeze(model: keras.Model, which: str, dropout: float = 0.0) -> Counts:
    """Sets which layers of the layer `backbone` inside a model train; the head always does.

    Batch norm layers of the backbone stay frozen, which in Keras also keeps them in inference mode:
    their statistics come from more pictures than a fine-tuning sees. So do layers whose result the
    model does not use, like BERT's pooler behind the vectors of the tokens.

    Args:
        model: A model with a layer named `backbone`. It needs compiling again afterwards.
        which: `none`; `auto`, the last stage; `all`; or how a layer's name begins: that layer and
            all that run after it train.
        dropout: Rate of the backbone's own dropout layers within what trains; 0 in what does not.

    Returns:
        The parameters of the whole model, head included.

    Raises:
        UsageError: No layer's name begins like that.
    """
    backbone = model.get_layer("backbone")
    units = _units(backbone)
    last = max(stage for stage, _ in units)
    if which in ("none", "all"):
        first_open = 0 if which == "all" else len(units)
        opened = [layer for _, layer in units[first_open:]]
    elif which == "auto":
        opened = [layer for stage, layer in units if stage == last]
    else:
        names = [layer.name for _, layer in units]
        first = next((i for i, name in enumerate(names) if name.startswith(which)), None)
        if not which or first is None:
            raise UsageError(
                f"No layer of the backbone begins with '{which}'.{nearest(which, names)}",
                "Stages, first to last layer: "
                + "; ".join(f"{s[0]} to {s[-1]}" for s in stages(backbone))
                + ".",
                "Use --unfreeze none, auto, all, or the beginning of a layer's name.",
            )
        opened = [layer for _, layer in units[first:]]

    backbone.trainable = bool(opened)
    for _, layer in units:
        layer.trainable = any(layer is other for other in opened)
    unused = _unused(model, backbone)
    for layer in backbone._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization) or layer in unused:
            layer.trainable = False
    for _, layer in units:
        # A layer that was built without dropout has no seed to draw from.
        for inner in layer._flatten_layers():
            if isinstance(inner, keras.layers.Dropout) and hasattr(inner, "seed_generator"):
                inner.rate = dropout if layer.trainable else 0.0
    return count_parameters(model)


def count_parameters(model: keras.Model) -> Counts:
    """Counts the numbers in a model's weights."""
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return Counts(trainable, model.count_params())


def stages(backbone: keras.Model) -> list[list[str]]:
    """Divides a backbone into stages by its structure alone.

    In a convolutional backbone a stage is what works at one spatial size: the layers from one that
    makes the map smaller to the next such. In a transformer the blocks are divided into quarters.

    Returns:
        Names of layers in the order in which they run, for each stage, that of the input first.
    """
    grouped: dict[int, list[str]] = {}
    for stage, layer in _units(backbone):
        grouped.setdefault(stage, []).append(layer.name)
    return [grouped[stage] for stage in sorted(grouped)]


def weight_depths(model: keras.Model) -> dict[str, int]:
    """Tells how far from the output each trainable weight is, for layer-wise rates.

    A transformer is counted block by block, as ELECTRA and BEiT define layer-wise decay.

    Returns:
        By the weight's path: 0 for the head; 1 for the backbone's last stage or, in a transformer,
        its last block; 2 for the one before. A transformer's embeddings are the furthest.
    """
    depths = {weight.path: 0 for weight in model.trainable_weights}
    backbone = model.get_layer("backbone")
    units = _units_by_size(backbone) if _makes_maps(backbone) else _units_by_block(backbone)
    last = max(number for number, _ in units)
    for number, layer in units:
        depths |= {weight.path: last + 1 - number for weight in layer.trainable_weights}
    return depths


def _units(backbone: keras.Model) -> list[tuple[int, keras.layers.Layer]]:
    """Returns (stage, layer) of the layers that freeze as a whole, in the order they run in."""
    if _makes_maps(backbone):
        return _units_by_size(backbone)
    units = _units_by_block(backbone)
    blocks = max(block for block, _ in units)
    groups = min(_TOKEN_GROUPS, blocks)
    # The last group is rounded up.
    return [((block * groups + blocks - 1) // max(blocks, 1), layer) for block, layer in units]


def _makes_maps(backbone: keras.Model) -> bool:
    return any(len(x.shape) == 4 for x in backbone.outputs)


def _unused(model: keras.Model, backbone: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a backbone whose results go nowhere: they would get no gradient."""
    wanted = {id(x) for x in model.outputs}
    wanted |= {id(x) for node in nodes(model) for x in node.input_tensors}
    needed = {
        id(inside)
        for node in nodes(model)
        if node.operation is backbone
        for inside, outside in zip(backbone.outputs, node.outputs, strict=True)
        if id(outside) in wanted
    }
    used, ordered = [], nodes(backbone)
    for node in reversed(ordered):
        if needed.intersection(id(x) for x in node.outputs):
            used.append(node.operation)
            needed.update(id(x) for x in node.input_tensors)
    return [node.operation for node in ordered if node.operation not in used]


def _units_by_size(backbone: keras.Model) -> list[tuple[int, keras.layers.Layer]]:
    # A layer's size is the largest map that depends on it: squeeze-and-excitation looks at a single
    # pixel on the way, and still works for the map that it weights.
    size_of: dict[int, int] = {}  # by layer
    needed: dict[int, int] = {}  # by tensor
    ordered = nodes(backbone)
    for node in reversed(ordered):
        size = max(max(_area(x.shape), needed.get(id(x), 0)) for x in node.outputs)
        for x in node.input_tensors:
            needed[id(x)] = max(size, needed.get(id(x), 0))
        size_of[id(node.operation)] = max(size, size_of.get(id(node.operation), 0))

    layers = {id(node.operation): node.operation for node in ordered}  # each once, in order
    layers = {k: v for k, v in layers.items() if isinstance(v, keras.layers.Layer)}
    learned = {size_of[key] for key, layer in layers.items() if _learns(layer)}
    stage_of, start, stage = {}, None, 0
    for size in sorted({size_of[key] for key in layers}, reverse=True):
        # Convolutions without padding nibble at the edges; a stage ends where a third is gone.
        # Padding before everything and pooling after it are no stages: they learn nothing.
        if size in learned and (start is None or size < 0.45 * start):
            stage += start is not None
            start = size
        stage_of[size] = stage
    return [(stage_of[size_of[key]], layer) for key, layer in layers.items()]


def _learns(layer: keras.layers.Layer) -> bool:
    return bool(layer.weights) and not isinstance(layer, keras.layers.Normalization)


def _area(shape: tuple[int | None, ...]) -> int:
    return (shape[1] or 0) * (shape[2] or 0) if len(shape) == 4 else 0


def _units_by_block(backbone: keras.Model) -> list[tuple[int, keras.layers.Layer]]:
    """Returns (block, layer): 0 before the first block; what follows a block belongs to it."""
    units = _expand([node.operation for node in nodes(backbone)])
    units = list({id(layer): layer for layer in units}.values())  # ALBERT runs one several times
    kinds = [type(layer) for layer in units if _is_composite(layer)]
    block = max(reversed(kinds), key=kinds.count, default=None)

    numbered, seen = [], 0
    for layer in units:
        seen += type(layer) is block
        numbered.append((seen, layer))
    return numbered


def _expand(operations: list) -> list[keras.layers.Layer]:
    """Opens layers that hold a row of blocks, like an encoder, and leaves others whole."""
    units = []
    for layer in operations:
        if not isinstance(layer, keras.layers.Layer):
            continue
        inner = layer._flatten_layers(recursive=False, include_self=False)
        kinds = [type(x) for x in inner if _is_composite(x)]
        if any(kinds.count(kind) > 1 for kind in kinds):
            units += _expand(inner)
        else:
            units.append(layer)
    return units


def _is_composite(layer: keras.layers.Layer) -> bool:
    return bool(layer.weights) and any(layer._flatten_layers(include_self=False))
