"""BART and T5 in the format of Hugging Face."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfsft.errors import UserError
from tfsft.models.chat_tokenizer import TOKENS, ChatTokenizer
from tfsft.models.hugging_face_format import write_files

Variables = dict[str, keras.Variable]
_OFFSET = 2  # places that BART's table of positions has before the first one there
# Its "gelu" of T5 is an approximation.
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu_python", "silu": "silu"}


def save_hugging_face_seq2seq(
    model: keras.Model,
    tokenizer: ChatTokenizer,
    folder: str | Path,
    *,
    start: tuple[int, ...],
    end: tuple[int, ...],
    decoder_start: tuple[int, ...],
    prefix: str = "",
    max_new_tokens: int | None = None,
) -> None:
    """Writes a sequence-to-sequence model as a folder that transformers load.

    Args:
        model: KerasHub's BART or T5, with a layer named `backbone`.
        tokenizer: Of the model.
        folder: Exists.
        start, end: Tokens around an input; the latter end an answer, too.
        decoder_start: Tokens that a decoder begins with.
        prefix: Text before every input; there it is noted, and not put there.
        max_new_tokens: Most tokens of an answer.

    Raises:
        UserError: The model is of another family, or has what Hugging Face's has not.
    """
    folder, backbone = Path(folder), model.get_layer("backbone")
    write = {"BartBackbone": _bart, "T5Backbone": _t5}.get(type(backbone).__name__)
    if write is None:
        raise _not_possible(f"The run's model is a {type(backbone).__name__}.")
    config, tensors = write(backbone)
    files = tokenizer.hugging_face_files()
    options = files["tokenizer_config.json"]
    if TOKENS in files:
        files[TOKENS]["post_processor"] = _around(tokenizer, start, end)
    else:
        files["spiece.model"] = files.pop("tokenizer.model")
        options["tokenizer_class"] = "T5Tokenizer"
        options["extra_ids"] = 0
    tokens = {
        "bos_token_id": start[0] if start else None,
        "eos_token_id": end[0],
        "pad_token_id": tokenizer.pad,
        "decoder_start_token_id": decoder_start[0],
        "forced_bos_token_id": decoder_start[1] if len(decoder_start) > 1 else None,
    }
    generation = {"do_sample": False, "num_beams": 1} | tokens
    if max_new_tokens is not None:
        generation["max_new_tokens"] = max_new_tokens + len(decoder_start) - 1
    if prefix:
        config["prefix"] = prefix
    files["config.json"] = config | tokens | {"torch_dtype": backbone.variable_dtype}
    files["generation_config.json"] = generation
    write_files(folder, files, tensors)


def _around(tokenizer: ChatTokenizer, start: tuple[int, ...], end: tuple[int, ...]) -> dict:
    """Returns what puts tokens around a text, as tokenizer.json says it."""
    texts = {token: text for text, token in tokenizer.control.items()}
    special = lambda token: {"SpecialToken": {"id": texts[token], "type_id": 0}}  # noqa: E731
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single = [*map(special, start), text, *map(special, end)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}, *map(special, end)],
        "special_tokens": {
            texts[token]: {"id": texts[token], "ids": [token], "tokens": [texts[token]]}
            for token in {*start, *end}
        },
    }


def _bart(backbone: keras.Model) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns what belongs into config.json of a BART, and the tensors."""
    config = {
        "architectures": ["BartForConditionalGeneration"],
        "model_type": "bart",
        "vocab_size": backbone.vocabulary_size,
        "d_model": backbone.hidden_dim,
        "num_hidden_layers": backbone.num_layers,
        "max_position_embeddings": backbone.max_sequence_length,
        "activation_function": "gelu",
        "scale_embedding": False,
        "dropout": 0.0,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
    }
    for side in ("encoder", "decoder"):
        config |= {
            f"{side}_layers": backbone.num_layers,
            f"{side}_attention_heads": backbone.num_heads,
            f"{side}_ffn_dim": backbone.intermediate_dim,
        }
    found: Variables = {"shared.weight": backbone.token_embedding.embeddings}
    for side in ("encoder", "decoder"):
        norm = getattr(backbone, f"{side}_embeddings_layer_norm")
        found |= _norm(f"{side}.layernorm_embedding", norm)
        positions = getattr(backbone, f"{side}_position_embedding").position_embeddings
        found[f"{side}.embed_positions.weight"] = positions
        for i, layer in enumerate(getattr(backbone, f"{side}_transformer_layers")):
            parts = {"self_attn": layer._self_attention_layer}
            norms = {"self_attn_layer_norm": layer._self_attention_layer_norm}
            norms["final_layer_norm"] = layer._feedforward_layer_norm
            if side == "decoder":
                parts["encoder_attn"] = layer._cross_attention_layer
                norms["encoder_attn_layer_norm"] = layer._cross_attention_layer_norm
            dense = {
                f"{part}.{short}_proj": getattr(attention, f"{name}_dense")
                for part, attention in parts.items()
                for short, name in zip(
                    ("q", "k", "v", "out"), ("query", "key", "value", "output"), strict=True
                )
            }
            dense["fc1"] = layer._feedforward_intermediate_dense
            dense["fc2"] = layer._feedforward_output_dense
            for name, norm in norms.items():
                found |= _norm(f"{side}.layers.{i}.{name}", norm)
            for name, of in dense.items():
                found[f"{side}.layers.{i}.{name}.weight"] = of.kernel
                found[f"{side}.layers.{i}.{name}.bias"] = of.bias
    tensors = {}
    for name, variable in found.items():
        array = keras.ops.convert_to_numpy(variable)
        if "embed_positions" in name:
            array = np.pad(array, [(_OFFSET, 0), (0, 0)])
        elif name.endswith(".bias"):
            array = array.reshape(-1)
        elif name.endswith("out_proj.weight"):  # from heads and their width
            array = array.reshape(-1, array.shape[-1]).T
        elif name.endswith(("_proj.weight", "fc1.weight", "fc2.weight")):
            array = array.reshape(array.shape[0], -1).T
        tensors[f"model.{name}"] = np.ascontiguousarray(array)
    tensors["final_logits_bias"] = np.zeros([1, backbone.vocabulary_size], np.float32)
    return config, tensors


def _norm(name: str, layer: keras.layers.Layer) -> Variables:
    return {f"{name}.weight": layer.gamma, f"{name}.bias": layer.beta}


def _t5(backbone: keras.Model) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns what belongs into config.json of a T5, and the tensors."""
    gated = backbone.use_gated_activation
    name = backbone.activation.__name__
    first = backbone.encoder_transformer_layers[0].self_attention
    if name not in _ACTIVATIONS:
        raise _not_possible(f"Its activation is {name}.")
    config = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": backbone.vocabulary_size,
        "d_model": backbone.hidden_dim,
        "d_kv": first.key_value_dim,
        "d_ff": backbone.intermediate_dim,
        "num_layers": backbone.num_layers,
        "num_decoder_layers": backbone.num_layers,
        "num_heads": backbone.num_heads,
        "relative_attention_num_buckets": first.relative_attention_buckets,
        "relative_attention_max_distance": first.relative_attention_max_distance,
        "dropout_rate": 0.0,
        "layer_norm_epsilon": backbone.layer_norm_epsilon,
        "feed_forward_proj": ("gated-" if gated else "") + _ACTIVATIONS[name],
        "is_encoder_decoder": True,
        "tie_word_embeddings": backbone.tie_embedding_weights,
    }
    found: Variables = {"shared.weight": backbone.token_embedding.embeddings}
    if not backbone.tie_embedding_weights:
        found["lm_head.weight"] = backbone.token_embedding.reverse_embeddings
    for side in ("encoder", "decoder"):
        norm = getattr(backbone, f"{side}_layer_norm")
        found[f"{side}.final_layer_norm.weight"] = norm.weight
        for i, layer in enumerate(getattr(backbone, f"{side}_transformer_layers")):
            parts = [("SelfAttention", layer.self_attention, layer.self_attention_layer_norm)]
            if side == "decoder":
                cross = layer.cross_attention, layer.cross_attention_layer_norm
                parts.append(("EncDecAttention", *cross))
            for place, (part, attention, norm) in enumerate(parts):
                begin = f"{side}.block.{i}.layer.{place}"
                for short, long in zip("qkvo", ("query", "key", "value", "output"), strict=True):
                    projector = getattr(attention, f"{long}_projector")
                    found[f"{begin}.{part}.{short}.weight"] = projector.kernel
                if attention.use_relative_attention_bias:
                    bias = f"{begin}.{part}.relative_attention_bias.weight"
                    found[bias] = attention.relative_attention_bias
                found[f"{begin}.layer_norm.weight"] = norm.weight
            begin = f"{side}.block.{i}.layer.{len(parts)}"
            dense = {"wi_0" if gated else "wi": layer.input_projector, "wo": layer.output_projector}
            if gated:
                dense["wi_1"] = layer.gate_projector
            for name, of in dense.items():
                found[f"{begin}.DenseReluDense.{name}.weight"] = of.kernel
            found[f"{begin}.layer_norm.weight"] = layer.layer_norm.weight
    as_they_are = ("shared.weight", "bias.weight", "norm.weight")
    return config, {
        name: np.ascontiguousarray(array if name.endswith(as_they_are) else array.T)
        for name, array in ((n, keras.ops.convert_to_numpy(v)) for n, v in found.items())
    }


def _not_possible(why: str) -> UserError:
    return UserError(
        why,
        "A BART or a T5 as Hugging Face has them.",
        "Use --format keras.",
    )
