"""Tiny real language models with their tokenizers, as folders of Hugging Face or Keras."""

import json
from pathlib import Path

import numpy as np

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n'"
    " }}{% endif %}"
)
_TEXTS = [
    "Hello there, how are you today?",
    "What is your name?",
    "My name is Ada.",
    "two plus two",
]


def byte_pairs(vocabulary_size=400):
    """Returns a trained tokenizer of byte pairs, whose ids begin with the control tokens."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(CONTROL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS * 4, trainer)
    return tokenizer


def sentence_pieces(gemma):
    """Returns a trained model of SentencePiece, with the control tokens of Gemma or Mistral."""
    import io

    import sentencepiece

    names = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3} if gemma else {}
    names |= {"pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>"} if gemma else {}
    turns = ["<start_of_turn>", "<end_of_turn>"] if gemma else []
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXTS * 4),
        model_writer=model,
        vocab_size=320,
        model_type="BPE",
        byte_fallback=True,
        user_defined_symbols=turns,
        add_dummy_prefix=not gemma,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
        **names,
    )
    return model.getvalue()


def tiny_causal_lm(folder, family="llama", *, hidden=32, layers=2, seed=0, pieces=False):
    """Writes a small random language model as a folder of Hugging Face; returns its path.

    Args:
        folder: Is made where it is missing.
        family: "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text",
            "smollm3" or "gpt2".
        pieces: Of Gemma and Mistral: with a model of SentencePiece, and no chat template.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if pieces:
        (folder / "tokenizer.model").write_bytes(sentence_pieces(family.startswith("gemma")))
        size = 320
    else:
        tokenizer = byte_pairs()
        tokenizer.save(str(folder / "tokenizer.json"))
        options = {"bos_token": CONTROL[1], "eos_token": CONTROL[2], "pad_token": CONTROL[2]}
        options |= {"unk_token": CONTROL[0], "chat_template": TEMPLATE}
        (folder / "tokenizer_config.json").write_text(json.dumps(options))
        size = tokenizer.get_vocab_size()
    random = np.random.default_rng(seed)

    def normal(*shape):
        return random.normal(0, 0.2, shape).astype("float32")

    heads, key_heads, inner = 4, 2, hidden * 2
    tensors = {}
    if family == "gpt2":
        config = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "n_positions": 128}
        config |= {"vocab_size": size, "layer_norm_epsilon": 1e-5, "resid_pdrop": 0.1}
        tensors = {"wte.weight": normal(size, hidden), "wpe.weight": normal(128, hidden)}
        for i in range(layers):
            for name, shape in {
                "attn.c_attn": (hidden, 3 * hidden),
                "attn.c_proj": (hidden, hidden),
                "mlp.c_fc": (hidden, 4 * hidden),
                "mlp.c_proj": (4 * hidden, hidden),
            }.items():
                tensors[f"h.{i}.{name}.weight"] = normal(*shape)
                tensors[f"h.{i}.{name}.bias"] = normal(shape[1])
            for name in ("ln_1", "ln_2"):
                tensors[f"h.{i}.{name}.weight"] = 1 + normal(hidden)
                tensors[f"h.{i}.{name}.bias"] = normal(hidden)
        tensors |= {"ln_f.weight": 1 + normal(hidden), "ln_f.bias": normal(hidden)}
    else:
        config = {
            "vocab_size": size,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": key_heads,
            "max_position_embeddings": 256,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": family not in ("mistral", "mixtral"),
        }
        if family == "mistral":
            config["sliding_window"] = 64
        if family == "qwen2":
            config |= {"use_sliding_window": False, "sliding_window": 64, "max_window_layers": 2}
        if family == "qwen3":
            config |= {"use_sliding_window": False, "sliding_window": None}
        if family == "smollm3":
            config |= {"no_rope_layers": [1, 0], "layer_types": ["full_attention"] * layers}
            config |= {"attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0}
        if family == "mixtral":
            config |= {"sliding_window": 64, "output_router_logits": False}
            config |= {"num_local_experts": 2, "num_experts_per_tok": 1}
        if family.startswith("gemma"):
            config |= {"sliding_window": 64, "query_pre_attn_scalar": hidden // heads}
            config["hidden_act"] = "gelu_pytorch_tanh"
            config |= {"final_logit_softcapping": None, "attn_logit_softcapping": None}
        config["head_dim"] = hidden // heads
        size_of_keys = hidden // heads * key_heads
        tensors = {"model.embed_tokens.weight": normal(size, hidden)}
        for i in range(layers):
            for name, shape in {
                "self_attn.q_proj": (hidden, hidden),
                "self_attn.k_proj": (size_of_keys, hidden),
                "self_attn.v_proj": (size_of_keys, hidden),
                "self_attn.o_proj": (hidden, hidden),
                "mlp.gate_proj": (inner, hidden),
                "mlp.up_proj": (inner, hidden),
                "mlp.down_proj": (hidden, inner),
            }.items():
                tensors[f"model.layers.{i}.{name}.weight"] = normal(*shape)
                if family == "qwen2" and name[10:11] in "qkv" and name.startswith("self"):
                    tensors[f"model.layers.{i}.{name}.bias"] = normal(shape[0])
            norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
            if family in ("gemma2", "gemma3_text"):
                norms |= {f"{place}_feedforward_layernorm": hidden for place in ("pre", "post")}
            if family in ("qwen3", "gemma3_text"):
                norms |= {f"self_attn.{part}_norm": hidden // heads for part in "qk"}
            for name, length in norms.items():
                tensors[f"model.layers.{i}.{name}.weight"] = 1 + normal(length)
            if family == "mixtral":
                for part in ("gate", "up", "down"):
                    del tensors[f"model.layers.{i}.mlp.{part}_proj.weight"]
                experts = f"model.layers.{i}.block_sparse_moe"
                tensors[f"{experts}.gate.weight"] = normal(2, hidden)
                for j in range(2):
                    for name in ("w1", "w2", "w3"):
                        shape = (hidden, inner) if name == "w2" else (inner, hidden)
                        tensors[f"{experts}.experts.{j}.{name}.weight"] = normal(*shape)
        tensors["model.norm.weight"] = 1 + normal(hidden)
        if not config["tie_word_embeddings"]:
            tensors["lm_head.weight"] = normal(size, hidden)
    config["model_type"] = family
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
