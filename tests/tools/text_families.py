"""A random encoder of each family, small enough for a test, in folders as KerasHub writes them."""

import io
import json
import string

import numpy as np
from safetensors.numpy import save_file

SENTENCES = (
    "the quick brown fox jumps over the lazy dog",
    "a word, and another one: nothing new under the sun!",
    "fine tuning moves what was learned before to what is wanted now",
    "where the rows are few the lessons are short, and (mostly) true",
)
FAMILIES = (
    "albert",
    "bert",
    "deberta_v3",
    "distil_bert",
    "electra",
    "roberta",
    "xlm_roberta",
)
BLOCKS = 3
SIZE = {"num_layers": BLOCKS, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def save_tiny(family: str, folder, **changes) -> None:
    """Writes a random backbone with dropout 0.1 and its tokenizer into a folder."""
    import keras
    import keras_hub

    tokenizer = tiny_tokenizer(family)
    size = SIZE | {"max_sequence_length": 64, "vocabulary_size": tokenizer.vocabulary_size()}
    size |= {"dropout": 0.1} | changes
    if family == "albert":
        size |= {"embedding_dim": 8}
    elif family == "electra":
        size["vocab_size"] = size.pop("vocabulary_size")
        size |= {"embedding_dim": 8}
    elif family == "roformer_v2":
        size.pop("max_sequence_length")
        size |= {"head_size": 8}
    elif family == "deberta_v3":
        size |= {"bucket_size": 8}
    prefix = type(tokenizer).__name__.removesuffix("Tokenizer")
    keras.utils.set_random_seed(0)
    backbone = getattr(keras_hub.models, f"{prefix}Backbone")(**size)
    for weight in backbone.weights:  # as drawn they are so small that mistakes do not show
        if weight.path.split("/")[-1] in ("kernel", "embeddings", "rel_embedding"):
            weight.assign(keras.random.normal(weight.shape, stddev=0.3))
    backbone.save_to_preset(str(folder))
    tokenizer.save_to_preset(str(folder))


def tiny_tokenizer(family: str):
    """Returns KerasHub's tokenizer of a family with a vocabulary made from `SENTENCES`."""
    from keras_hub import models

    if family == "roberta":
        return models.RobertaTokenizer(*byte_pairs())
    if family == "xlm_roberta":
        return models.XLMRobertaTokenizer(sentence_pieces(unk_id=0, bos_id=1, eos_id=2))
    if family == "deberta_v3":
        specials = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
        pieces = {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]"}
        return models.DebertaV3Tokenizer(sentence_pieces(**specials, **pieces, unk_piece="[UNK]"))
    if family == "albert":
        specials = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1}
        controls = {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
        return models.AlbertTokenizer(sentence_pieces(**specials, **controls))
    names = {
        "bert": models.BertTokenizer,
        "distil_bert": models.DistilBertTokenizer,
        "electra": models.ElectraTokenizer,
        "roformer_v2": models.RoformerV2Tokenizer,
    }
    return names[family](word_pieces(), lowercase=True)


def word_pieces() -> list[str]:
    """Returns a vocabulary of letters, marks and the words of the sentences."""
    letters = string.ascii_lowercase
    words = sorted({word for line in SENTENCES for word in line.split() if word.isalpha()})
    single = [*letters, *string.punctuation, *(f"##{letter}" for letter in letters)]
    return [*BERT_SPECIALS, *dict.fromkeys([*single, *words])]


def byte_pairs() -> tuple[dict[str, int], list[str]]:
    """Returns the vocabulary and merges of a byte-level BPE."""
    import json

    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(
        SENTENCES, vocab_size=340, min_frequency=1, special_tokens=specials, show_progress=False
    )
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [
        merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]
    ]


def sentence_pieces(**specials) -> bytes:
    """Returns a trained SentencePiece model."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        vocab_size=60,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
        **specials,
    )
    return model.getvalue()


def hugging_face_bert(folder, vocabulary=None, **changes):
    """Writes a random BERT of one block in Hugging Face's format."""
    vocabulary = vocabulary or word_pieces()
    config = {"model_type": "bert", "vocab_size": len(vocabulary), "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 12}
    config |= {"max_position_embeddings": 24, "type_vocab_size": 2} | changes
    rng = np.random.default_rng(0)
    shapes = {
        "embeddings.word_embeddings.weight": (len(vocabulary), 8),
        "embeddings.position_embeddings.weight": (24, 8),
        "embeddings.token_type_embeddings.weight": (2, 8),
        "pooler.dense.weight": (8, 8),
        "pooler.dense.bias": (8,),
    }
    block = "encoder.layer.0"
    for name in ("self.query", "self.key", "self.value", "output.dense"):
        shapes[f"{block}.attention.{name}.weight"] = (8, 8)
        shapes[f"{block}.attention.{name}.bias"] = (8,)
    shapes[f"{block}.intermediate.dense.weight"] = (12, 8)
    shapes[f"{block}.intermediate.dense.bias"] = (12,)
    shapes[f"{block}.output.dense.weight"] = (8, 12)
    shapes[f"{block}.output.dense.bias"] = (8,)
    for name in ("embeddings", f"{block}.attention.output", f"{block}.output"):
        shapes[f"{name}.LayerNorm.weight"] = shapes[f"{name}.LayerNorm.bias"] = (8,)
    tensors = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return folder
