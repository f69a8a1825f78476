"""Llama-type models in llama.cpp's GGUF format, as the folder of Hugging Face they came from."""

import json
from pathlib import Path
from typing import Any

import numpy as np

_LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_CONTROL = 3  # GGUF's type of a token that no text holds


def convert_llama(path: Path, folder: Path) -> None:
    """Writes config.json, model.safetensors, tokenizer.json and tokenizer_config.json.

    The weights are dequantised to float32. llama.cpp turns neighbouring numbers of a query or key
    by one angle, Hugging Face those half a head apart: the rows of both projections go back to
    where they were.

    Args:
        path: A GGUF file of the architecture `llama` with a tokenizer of byte pairs.
        folder: Where the files go.
    """
    from gguf import GGUFReader, dequantize
    from safetensors.numpy import save_file

    reader = GGUFReader(str(path))
    about = {name: field.contents() for name, field in reader.fields.items()}
    heads = about["llama.attention.head_count"]
    key_heads = about.get("llama.attention.head_count_kv", heads)

    tensors = {}
    for tensor in reader.tensors:
        value = dequantize(tensor.data, tensor.tensor_type).astype("float32")
        part = tensor.name.split(".")
        if part[0] == "blk":
            kind = part[2]
            if kind in ("attn_q", "attn_k"):
                value = _halves_apart(value, heads if kind == "attn_q" else key_heads)
            name = f"model.layers.{part[1]}.{_LAYERS[kind]}.weight"
        else:
            name = f"{_OUTSIDE[part[0]]}.weight"
        tensors[name] = np.ascontiguousarray(value)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    tokens = about["tokenizer.ggml.tokens"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(tokens),
        "hidden_size": about["llama.embedding_length"],
        "intermediate_size": about["llama.feed_forward_length"],
        "num_hidden_layers": about["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "max_position_embeddings": about["llama.context_length"],
        # Stored in single precision: 1e-5 reads 9.999999747378752e-06.
        "rms_norm_eps": float(
            np.format_float_positional(np.float32(about["llama.attention.layer_norm_rms_epsilon"]))
        ),
        "rope_theta": about["llama.rope.freq_base"],
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "bos_token_id": about["tokenizer.ggml.bos_token_id"],
        "eos_token_id": about["tokenizer.ggml.eos_token_id"],
        "torch_dtype": "float32",
    }
    _write(folder / "config.json", config)
    _write(folder / "tokenizer.json", _tokenizer(about))
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    special = {
        name: tokens[about[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in names.items()
        if f"tokenizer.ggml.{key}_token_id" in about
    }
    options = {
        **special,
        "chat_template": about["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": about["llama.context_length"],
        "tokenizer_class": "GPT2Tokenizer",
    }
    _write(folder / "tokenizer_config.json", options)


def _halves_apart(rows: np.ndarray, heads: int) -> np.ndarray:
    """Returns the rows of a projection `[out, in]` in the order of Hugging Face."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, rows.shape[1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _tokenizer(about: dict[str, Any]) -> dict[str, Any]:
    """Returns tokenizer.json of byte pairs that single digits come before, as SmolLM has it."""
    kinds = about["tokenizer.ggml.pre"]
    if about["tokenizer.ggml.model"] != "gpt2" or kinds != "smollm":
        raise ValueError(f"the tokenizer {about['tokenizer.ggml.model']}, {kinds} is not known")
    tokens = about["tokenizer.ggml.tokens"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    byte_level |= {"use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, token in enumerate(tokens)
            if about["tokenizer.ggml.token_type"][number] == _CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in about["tokenizer.ggml.merges"]],
        },
    }


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
