"""Language models in the format of Hugging Face: their weights by name, and the whole folder."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfsft.errors import UserError
from tfsft.models.chat_tokenizer import ChatTokenizer

# KerasHub's class, what Hugging Face calls it, and its class there
_LLAMA_TYPES = {
    "Llama3Backbone": ("llama", "LlamaForCausalLM"),
    "MistralBackbone": ("mistral", "MistralForCausalLM"),
    "QwenBackbone": ("qwen2", "Qwen2ForCausalLM"),
    "Qwen3Backbone": ("qwen3", "Qwen3ForCausalLM"),
}
_GEMMAS = ("GemmaBackbone", "Gemma3Backbone")
_POSITIONS = {"llama": 8192, "mistral": 32768, "qwen2": 32768, "qwen3": 40960, "gemma": 8192}
_POSITIONS |= {"gemma2": 8192, "gemma3_text": 32768}
_LINEAR_ROPE = ("rope_scaling_factor", "rope_position_scaling_factor")


def save_hugging_face(
    model: keras.Model,
    tokenizer: ChatTokenizer,
    folder: str | Path,
    *,
    template: str,
    stop: tuple[int, ...],
    positions: int | None = None,
) -> None:
    """Writes a causal language model as a folder that transformers and `load_causal_lm` load.

    Args:
        model: KerasHub's, with a layer named `backbone`; low-rank updates are merged.
        tokenizer: Of the model.
        folder: Exists.
        template: Its chat template, in Jinja.
        stop: Tokens that end an answer.
        positions: How many tokens it was made for; None: as usual for the family.

    Raises:
        UserError: Hugging Face has no such model, or KerasHub does not read it from there.
    """
    folder = Path(folder)
    backbone = model.get_layer("backbone")
    config, tensors = _contents(backbone, positions)
    files = tokenizer.hugging_face_files()
    files["tokenizer_config.json"] |= {"chat_template": template}
    if "tokenizer.model" in files:
        kind = "GemmaTokenizer" if type(backbone).__name__ in _GEMMAS else "LlamaTokenizer"
        files["tokenizer_config.json"]["tokenizer_class"] = kind
    if config.get("max_position_embeddings"):
        files["tokenizer_config.json"]["model_max_length"] = config["max_position_embeddings"]
    tokens = {
        "bos_token_id": tokenizer.begin,
        "eos_token_id": list(stop) if len(stop) > 1 else stop[0],
        "pad_token_id": tokenizer.pad,
    }
    files["config.json"] = config | tokens | {"torch_dtype": backbone.variable_dtype}
    files["generation_config.json"] = {"do_sample": False} | tokens
    write_files(folder, files, tensors)


def write_files(
    folder: Path, files: dict[str, dict | bytes], tensors: dict[str, np.ndarray]
) -> None:
    """Writes files by their names, and weights."""
    from safetensors.numpy import save_file

    for name, content in files.items():
        if not isinstance(content, bytes):
            content = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
        (folder / name).write_bytes(content)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load_exactly(backbone: keras.Model, preset: str) -> None:
    """Loads the weights of a Llama-type backbone again: KerasHub rounds Mistral's to float16."""
    from keras_hub.src.utils.transformers.safetensor_utils import SafetensorLoader

    with SafetensorLoader(preset) as loader:
        for name, variable in _llama_variables(backbone).items():
            tensor = loader.get_tensor(name)
            if "embed_tokens" not in name:
                tensor = tensor.T.reshape(variable.shape)
            variable.assign(tensor)


def _contents(
    backbone: keras.Model, positions: int | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns what belongs into config.json, and the tensors."""
    family = type(backbone).__name__
    if family == "GPT2Backbone":
        return _gpt2(backbone)
    if family in _GEMMAS:
        return _gemma(backbone, positions)
    if family not in _LLAMA_TYPES:
        raise _not_possible(f"The run's model is a {family}.")
    kind, architecture = _LLAMA_TYPES[family]
    linear = [name for name in _LINEAR_ROPE if getattr(backbone, name, 1.0) != 1.0]
    if linear:
        raise _not_possible(f"Its positions are scaled ({linear[0]}), which would be lost.")
    config = _sizes(backbone, kind, architecture, positions) | {
        "rope_theta": backbone.rope_max_wavelength,
        "hidden_act": "silu",
        "tie_word_embeddings": bool(getattr(backbone, "tie_word_embeddings", False)),
    }
    head = getattr(backbone, "head_dim", None) or backbone.hidden_dim // backbone.num_query_heads
    config["head_dim"] = head
    if kind == "llama":
        config |= {"attention_bias": False, "mlp_bias": False}
        config["rope_scaling"] = _llama3_rope(backbone)
        if config["rope_scaling"] and not positions:
            config["max_position_embeddings"] = 131072
    elif kind == "mistral":
        config["sliding_window"] = backbone.sliding_window
    else:
        windows = "use_sliding_window_attention" if kind == "qwen2" else "sliding_window_size"
        if getattr(backbone, windows):
            raise _not_possible("All its layers see a sliding window, which would be lost.")
        config |= {"use_sliding_window": False, "sliding_window": None}
        config["max_window_layers"] = backbone.num_layers
        if kind == "qwen3":
            config["attention_bias"] = False
    return config, _tensors(_llama_variables(backbone))


def _sizes(
    backbone: keras.Model, kind: str, architecture: str, positions: int | None
) -> dict[str, Any]:
    """Returns what all of these families say of themselves in config.json."""
    return {
        "architectures": [architecture],
        "model_type": kind,
        "vocab_size": backbone.vocabulary_size,
        "hidden_size": backbone.hidden_dim,
        "intermediate_size": backbone.intermediate_dim,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_query_heads,
        "num_key_value_heads": backbone.num_key_value_heads,
        "max_position_embeddings": positions or _POSITIONS[kind],
        "rms_norm_eps": backbone.layer_norm_epsilon,
        "attention_dropout": 0.0,
    }


def _tensors(
    variables: dict[str, keras.Variable], *, heads_first: bool = False
) -> dict[str, np.ndarray]:
    """Returns weights as Hugging Face has them: matrices `[out, in]`, heads and width in one axis.

    Args:
        variables: By their names there.
        heads_first: Kernels of heads are `[heads, in, width]`, and not `[in, heads, width]`.
    """
    tensors = {}
    for name, variable in variables.items():
        array = np.asarray(keras.ops.convert_to_numpy(variable))
        if name.endswith("o_proj.weight"):  # from heads and their width
            array = array.reshape(-1, array.shape[-1]).T
        elif name.endswith(".bias"):
            array = array.reshape(-1)
        elif array.ndim > 1 and "embed_tokens" not in name:
            if heads_first and array.ndim == 3:
                array = array.transpose(1, 0, 2)
            array = array.reshape(array.shape[0], -1).T
        tensors[name] = np.ascontiguousarray(array)
    return tensors


def _llama_variables(backbone: keras.Model) -> dict[str, keras.Variable]:
    """Returns the weights of a Llama, Mistral or Qwen by their names at Hugging Face."""
    embedding = backbone.get_layer("token_embedding")
    found = {"model.embed_tokens.weight": embedding.embeddings}
    if not embedding.tie_weights:
        found["lm_head.weight"] = embedding.reverse_embeddings
    for i in range(backbone.num_layers):
        layer = backbone.get_layer(f"transformer_layer_{i}")
        attention = layer._self_attention_layer
        parts = {
            "input_layernorm.weight": layer._self_attention_layernorm.scale,
            "post_attention_layernorm.weight": layer._feedforward_layernorm.scale,
            "mlp.gate_proj.weight": layer._feedforward_gate_dense.kernel,
            "mlp.up_proj.weight": layer._feedforward_intermediate_dense.kernel,
            "mlp.down_proj.weight": layer._feedforward_output_dense.kernel,
            "self_attn.o_proj.weight": attention._output_dense.kernel,
        }
        for short, name in (("q", "query"), ("k", "key"), ("v", "value")):
            dense = getattr(attention, f"_{name}_dense")
            parts[f"self_attn.{short}_proj.weight"] = dense.kernel
            if dense.bias is not None:  # of Qwen2
                parts[f"self_attn.{short}_proj.bias"] = dense.bias
            norm = getattr(attention, f"_{name}_dense_layer_norm", None)
            if norm is not None:  # of Qwen3
                parts[f"self_attn.{short}_norm.weight"] = norm.scale
        found |= {f"model.layers.{i}.{name}": variable for name, variable in parts.items()}
    found["model.norm.weight"] = backbone.get_layer("sequence_output_layernorm").scale
    return found


def _llama3_rope(backbone: keras.Model) -> dict[str, Any] | None:
    if backbone.rope_frequency_adjustment_factor is None:
        return None
    return {
        "rope_type": "llama3",
        "factor": backbone.rope_frequency_adjustment_factor,
        "low_freq_factor": backbone.rope_low_freq_factor,
        "high_freq_factor": backbone.rope_high_freq_factor,
        "original_max_position_embeddings": backbone.rope_pretraining_sequence_length,
    }


def _gemma(
    backbone: keras.Model, positions: int | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    third = type(backbone).__name__ == "Gemma3Backbone"
    norms = {backbone.use_post_attention_norm, backbone.use_post_ffw_norm}
    if len(norms) > 1 or (third and not (all(norms) and backbone.use_query_key_norm)):
        raise _not_possible("Its layers have other norms than those of Gemma.")
    kind = "gemma3_text" if third else "gemma2" if all(norms) else "gemma"
    architecture = f"{kind.removesuffix('_text').capitalize()}ForCausalLM"
    config = _sizes(backbone, kind, architecture, positions) | {
        "intermediate_size": backbone.intermediate_dim // (1 if third else 2),
        "head_dim": backbone.head_dim,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "rope_theta": 1_000_000.0 if third else 10_000.0,
    }
    scale = backbone.head_dim
    if not backbone.query_head_dim_normalize:
        scale = backbone.hidden_dim // backbone.num_query_heads
    if kind == "gemma":
        if scale != backbone.head_dim or backbone.use_sliding_window_attention:
            raise _not_possible("Its attention is not that of Gemma.")
    else:
        every = 6 if third else 2  # of these layers the last one sees everything
        config |= {
            "query_pre_attn_scalar": scale,
            "attn_logit_softcapping": backbone.attention_logit_soft_cap,
            "final_logit_softcapping": backbone.final_logit_soft_cap,
            "sliding_window": backbone.sliding_window_size,
            "layer_types": [
                "sliding_attention"
                if backbone.use_sliding_window_attention and (i + 1) % every
                else "full_attention"
                for i in range(backbone.num_layers)
            ],
        }
    if third:
        if backbone.use_bidirectional_attention:
            raise _not_possible("Its tokens see those after them.")
        ropes = {
            "sliding_attention": (10_000.0, backbone.local_rope_scaling_factor),
            "full_attention": (1_000_000.0, backbone.global_rope_scaling_factor),
        }
        config["rope_local_base_freq"] = 10_000.0
        config["rope_parameters"] = {
            name: {"rope_theta": theta, "rope_type": "linear", "factor": factor}
            for name, (theta, factor) in ropes.items()
        }
    return config, _tensors(_gemma_variables(backbone, kind), heads_first=True)


def _gemma_variables(backbone: keras.Model, kind: str) -> dict[str, keras.Variable]:
    """Returns the weights of a Gemma by their names at Hugging Face."""
    found = {"model.embed_tokens.weight": backbone.get_layer("token_embedding").embeddings}
    before = "post_attention" if kind == "gemma" else "pre_feedforward"  # the feed-forward part
    for i in range(backbone.num_layers):
        layer = backbone.get_layer(f"decoder_block_{i}")
        attention = layer.attention
        parts = {
            "input_layernorm.weight": layer.pre_attention_norm.scale,
            f"{before}_layernorm.weight": layer.pre_ffw_norm.scale,
            "mlp.gate_proj.weight": layer.gating_ffw.kernel,
            "mlp.up_proj.weight": layer.gating_ffw_2.kernel,
            "mlp.down_proj.weight": layer.ffw_linear.kernel,
            "self_attn.o_proj.weight": attention.output_dense.kernel,
        }
        if kind != "gemma":
            parts["post_attention_layernorm.weight"] = layer.post_attention_norm.scale
            parts["post_feedforward_layernorm.weight"] = layer.post_ffw_norm.scale
        for short, name in (("q", "query"), ("k", "key"), ("v", "value")):
            parts[f"self_attn.{short}_proj.weight"] = getattr(attention, f"{name}_dense").kernel
            norm = getattr(attention, f"{name}_norm", None)
            if norm is not None:  # of Gemma 3
                parts[f"self_attn.{short}_norm.weight"] = norm.scale
        found |= {f"model.layers.{i}.{name}": variable for name, variable in parts.items()}
    found["model.norm.weight"] = backbone.get_layer("final_normalization").scale
    return found


def _gpt2(backbone: keras.Model) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from keras_hub.src.utils.transformers.export.gpt2 import get_gpt2_config, get_gpt2_weights_map

    config = get_gpt2_config(backbone) | {"architectures": ["GPT2LMHeadModel"]}
    config |= {"tie_word_embeddings": True}
    tensors = get_gpt2_weights_map(backbone)
    return config, {
        name: np.ascontiguousarray(keras.ops.convert_to_numpy(tensor))
        for name, tensor in tensors.items()
    }


def _not_possible(what: str) -> UserError:
    return UserError(
        f"{what} It cannot be written for Hugging Face.",
        "Llama, Mistral, Qwen2, Qwen3, Gemma 1 to 3 (of text) and GPT-2.",
        "Use --format keras, which takes every family.",
    )
