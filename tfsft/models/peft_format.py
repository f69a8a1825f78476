"""LoRA updates apart from the model, in the files that PEFT writes and reads."""

import json
import re
from pathlib import Path

import keras
import numpy as np

from tfsft.errors import UserError
from tfsft.models.freezing import Counts
from tfsft.models.lora import Form, adapted, projections, put_on, sizes
from tfsft.untrusted import check_folder

CONFIG, WEIGHTS, HEAD = "adapter_config.json", "adapter_model.safetensors", "head.safetensors"
_PREFIX = "base_model.model."

_BERT = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "feedforward_intermediate_dense": "intermediate.dense",
    "feedforward_output_dense": "output.dense",
}
_DISTILBERT = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_output": "attention.out_lin",
    "feedforward_intermediate_dense": "ffn.lin1",
    "feedforward_output_dense": "ffn.lin2",
}
_ALBERT = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "attention_output": "attention.dense",
    "feedforward_intermediate_dense": "ffn",
    "feedforward_output_dense": "ffn_output",
}
_LLAMA = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention_output": "self_attn.o_proj",
    "feedforward_gate_dense": "mlp.gate_proj",
    "feedforward_intermediate_dense": "mlp.up_proj",
    "feedforward_output_dense": "mlp.down_proj",
}
_GEMMA = {name: module for name, module in _LLAMA.items() if module.startswith("self_attn")} | {
    "ffw_gating": "mlp.gate_proj",
    "ffw_gating_2": "mlp.up_proj",
    "ffw_linear": "mlp.down_proj",
}
_SMOLLM3 = {f"{name}_proj": f"self_attn.{name}_proj" for name in "qkvo"} | {
    f"{name}_proj": f"mlp.{name}_proj" for name in ("gate", "up", "down")
}
_ALBERT_BLOCK = "encoder.albert_layer_groups.{}.albert_layers.{}"
# What transformers calls the encoder within a model with a head, a block, and what is in it.
_FAMILIES = {
    "AlbertBackbone": ("albert", _ALBERT_BLOCK, _ALBERT),
    "BertBackbone": ("bert", "encoder.layer.{}", _BERT),
    "DistilBertBackbone": ("distilbert", "transformer.layer.{}", _DISTILBERT),
    "RobertaBackbone": ("roberta", "encoder.layer.{}", _BERT),
    "XLMRobertaBackbone": ("roberta", "encoder.layer.{}", _BERT),
    "GemmaBackbone": ("model", "layers.{}", _GEMMA),  # and Gemma 2
    "Gemma3Backbone": ("model", "layers.{}", _GEMMA),
    "LlamaBackbone": ("model", "layers.{}", _LLAMA),
    "Llama3Backbone": ("model", "layers.{}", _LLAMA),
    "MistralBackbone": ("model", "layers.{}", _LLAMA),
    "MixtralBackbone": ("model", "layers.{}", _LLAMA),  # the attention; experts have no updates
    "QwenBackbone": ("model", "layers.{}", _LLAMA),
    "Qwen3Backbone": ("model", "layers.{}", _LLAMA),
    "SmolLM3Backbone": ("model", "layers.{}", _SMOLLM3),
}
_CAUSAL = "model"  # what such a family is called within a causal language model
# What PEFT calls the weights of an update, in the order that they have here.
_TENSORS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
# Variants of LoRA that compute something else from the same weights.
_VARIANTS = (
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "alpha_pattern",
    "rank_pattern",
    "lora_bias",
)
# Other ways to begin change the weights of the backbone too.
_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


def save_adapter(model: keras.Model, folder: str | Path, base: str) -> None:
    """Saves the updates that `add_lora` put on a model, and its head.

    `adapter_config.json` and `adapter_model.safetensors` are PEFT's: `PeftModel.from_pretrained`
    puts them on the Hugging Face model of the same weights, for the families that Hugging Face and
    KerasHub share. For others the modules have the names of the Keras layers. PEFT knows no
    such head; `head.safetensors` has it for `load_adapter`.

    Args:
        model: Has a layer named `backbone` with updates.
        folder: Is made where it is missing.
        base: Which pretrained weights the updates are for: a name, handle or folder.

    Raises:
        UserError: The model has no updates.
    """
    from safetensors.numpy import save_file

    backbone = model.get_layer("backbone")
    layers = adapted(backbone)
    if not layers:
        raise UserError(
            "The model has no LoRA updates to save.",
            "They come from add_lora, and are gone after merge_lora.",
            "Save the adapter before merging it.",
        )
    tensors, modules = {}, []
    causal = _FAMILIES.get(type(backbone).__name__, ("",))[0] == _CAUSAL
    prefix = f"{_PREFIX}{_CAUSAL}." if causal else _PREFIX
    for layer in layers:
        module = _module(backbone, layer)
        modules.append(module)
        for name, weight in zip(_TENSORS, layer.adapter.weights, strict=False):
            value = np.ascontiguousarray(np.asarray(weight).T)
            tensors[f"{prefix}{module}.{name}"] = value
    form = layers[0].adapter.form
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if causal else "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "r": form.rank,
        "lora_alpha": form.alpha,
        "lora_dropout": form.dropout,
        "use_rslora": form.stabilised,
        "use_dora": form.lengths,
        "target_modules": modules,
        "bias": "none",
        "inference_mode": True,
    }
    if _left_out(backbone, layers):
        config["layers_to_transform"] = sorted({_block(module) for module in modules})
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    head = {weight.path: np.asarray(weight) for weight in _head(model)}
    save_file(head, folder / HEAD)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_adapter(model: keras.Model, folder: str | Path, seed: int = 0) -> Counts:
    """Puts saved updates on a model, as `add_lora` does, and its head where one was saved too.

    The adapter is one of `save_adapter` or, for the families that Hugging Face and KerasHub share,
    one that PEFT saved: plain LoRA, with rank-stabilised scaling, or DoRA. When it cannot be used,
    the model stays as it was.

    Args:
        model: Has a layer named `backbone` with the weights that the adapter was trained on.
        folder: Holds adapter_config.json and adapter_model.safetensors.
        seed: Of the updates' dropout in further training.

    Returns:
        The parameters of the whole model, updates and head included.

    Raises:
        UserError: A file is missing or no adapter, or the adapter is for another model.
    """
    folder = Path(folder)
    if folder.is_dir():
        check_folder(folder)
    config, tensors = _config(folder), _tensors(folder / WEIGHTS)
    backbone = model.get_layer("backbone")
    form, updates = _form(config), []
    for layer in projections(backbone):
        into, out = sizes(layer)
        shapes = {"lora_A.weight": (form.rank, into), "lora_B.weight": (out, form.rank)}
        if form.lengths:
            shapes["lora_magnitude_vector"] = (out,)
        keys = {f"{_module(backbone, layer)}.{name}": shape for name, shape in shapes.items()}
        if any(key in tensors for key in keys):
            updates.append((layer, [_take(tensors, key, shape) for key, shape in keys.items()]))

    # The name of the encoder within a model with a head says nothing about where weights belong.
    if tensors or not updates:
        raise UserError(
            f"The adapter {folder} is not for this model: {len(tensors)} of its tensors have no "
            f"place in it{', like ' + min(tensors) if tensors else ''}.",
            f"A {type(backbone).__name__} has modules like "
            f"{_module(backbone, projections(backbone)[0])}; heads of PEFT are not loaded.",
            "Use the backbone that the adapter was trained on: "
            f"{config.get('base_model_name_or_path')}.",
        )
    layers = [layer for layer, _ in updates]
    left_out = _left_out(backbone, layers)
    if left_out and not config.get("layers_to_transform"):
        raise UserError(
            f"The adapter {folder} is for a smaller model: it has no update for "
            f"{_module(backbone, left_out[0])}.",
            "Expected one in every block.",
            "Use the backbone that the adapter was trained on: "
            f"{config.get('base_model_name_or_path')}.",
        )
    head = _saved_head(model, folder / HEAD)

    counts = put_on(model, layers, form, seed)
    for layer, saved in updates:
        for weight, value in zip(layer.adapter.weights, saved, strict=True):
            weight.assign(value.T)
    for weight, value in head:
        weight.assign(value)
    return counts


def _module(backbone: keras.Model, layer: keras.layers.Layer) -> str:
    """Returns what transformers calls a projection; its Keras path where they share no weights."""
    family = _FAMILIES.get(type(backbone).__name__)
    if family is None:
        return layer.path.replace("/", ".")
    _, block, names = family
    path = layer.path
    if "/" not in path:  # of SmolLM3, which builds a projection before its block has a path
        path = next(x.name for x in backbone.layers if layer in x._flatten_layers())
    return f"{block.format(*re.findall('[0-9]+', path))}.{names[layer.name]}"


def _block(module: str) -> int:
    """Returns the number of the block that a module is in, as PEFT reads it from the name."""
    numbers = re.findall(r"\.([0-9]+)\.", module)
    return int(numbers[-1] if numbers else re.findall("[0-9]+", module)[0])


def _left_out(backbone: keras.Model, layers: list[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Returns projections without an update that have one in another block."""
    names = {layer.name for layer in layers}
    return [x for x in projections(backbone) if x.name in names and x not in layers]


def _config(folder: Path) -> dict:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, rank, alpha = (config[key] for key in ("peft_type", "r", "lora_alpha"))
        if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float)):
            raise ValueError(f"r is {rank} and lora_alpha is {alpha}")
    except FileNotFoundError as error:
        raise _missing(folder / CONFIG) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / CONFIG} cannot be read: {error!r}",
            "Expected PEFT's configuration of an adapter, with peft_type, r and lora_alpha.",
        ) from error
    changed = [f"{key} {config[key]}" for key in _VARIANTS if config.get(key)]
    if kind != "LORA":
        changed.append(f"peft_type {kind}")
    if config.get("init_lora_weights") not in _STARTS:
        changed.append(f"init_lora_weights {config['init_lora_weights']}")
    if changed:
        raise UserError(
            f"The adapter {folder} is of a kind that tfsft does not compute: {', '.join(changed)}.",
            "Expected updates A B, all scaled by lora_alpha / r (use_rslora: by lora_alpha / "
            "sqrt(r)), with use_dora the lengths of each output's weights too.",
            "Merge such an adapter with PEFT, and use the merged model as the backbone.",
        )
    return config


def _form(config: dict) -> Form:
    return Form(
        config["r"],
        config["lora_alpha"],
        config.get("lora_dropout") or 0.0,
        stabilised=bool(config.get("use_rslora")),
        lengths=bool(config.get("use_dora")),
    )


def _tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads an adapter's tensors, by their name in the encoder."""
    prefixes = {f"{name}." for name, _, _ in _FAMILIES.values()}
    tensors = {}
    for key, value in _read(path).items():
        module = key.removeprefix(_PREFIX)
        prefix = next((p for p in prefixes if module.startswith(p)), "")
        tensors[module.removeprefix(prefix)] = value
    return tensors


def _read(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no safetensors file: {error}") from error


def _take(tensors: dict[str, np.ndarray], key: str, shape: tuple[int, int]) -> np.ndarray:
    value = tensors.pop(key, None)
    if value is None or value.shape != shape:
        raise UserError(
            f"The adapter does not fit this model: {key} "
            + ("is missing." if value is None else f"has the shape {value.shape}."),
            f"Expected {shape}.",
            "Use the backbone that the adapter was trained on.",
        )
    return value.astype("float32")


def _head(model: keras.Model) -> list[keras.Variable]:
    inside = {id(weight) for weight in model.get_layer("backbone").weights}
    return [weight for weight in model.weights if id(weight) not in inside]


def _saved_head(model: keras.Model, path: Path) -> list[tuple[keras.Variable, np.ndarray]]:
    """Returns the head's weights and their saved values; none where no head was saved."""
    if not path.is_file():
        return []
    saved, weights = _read(path), {weight.path: weight for weight in _head(model)}
    shapes = [
        {name: tuple(value.shape) for name, value in values.items()} for values in (saved, weights)
    ]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"The head in {path} is not this model's: {shapes[0]}.",
            f"Expected {shapes[1]}.",
            f"Build the model with the same classes, or delete {path.name} to begin a new head.",
        )
    return [(weights[name], value) for name, value in saved.items()]


def _missing(path: Path) -> UserError:
    return UserError(
        f"There is no {path}.",
        f"An adapter is a folder with {CONFIG} and {WEIGHTS}.",
        "PEFT writes both with model.save_pretrained(folder).",
    )
