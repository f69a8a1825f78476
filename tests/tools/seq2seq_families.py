"""Tiny real sequence-to-sequence models with their tokenizers, as folders of Keras."""

import io
import json
from pathlib import Path

import keras

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
WORDS = ["ada", "bob", "cleo", "dan", "eve", "finn", "gil", "hal", "ida", "jo"]


def tiny_bart(folder, *, positions=64, hidden=32, seed=0):
    """Writes a BART of two blocks with random weights; returns the folder."""
    import keras_hub
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    content = json.loads(trained.to_str())["model"]
    merges = [" ".join(m) if isinstance(m, list) else m for m in content["merges"]]
    tokenizer = keras_hub.models.BartTokenizer(vocabulary=content["vocab"], merges=merges)
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.BartBackbone(
        vocabulary_size=len(content["vocab"]),
        num_layers=2,
        num_heads=2,
        hidden_dim=hidden,
        intermediate_dim=2 * hidden,
        max_sequence_length=positions,
    )
    return _save(folder, backbone, tokenizer)


def tiny_t5(folder, *, tied=True, seed=0):
    """Writes a T5 of two blocks with random weights; returns the folder."""
    import keras_hub
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"{a} is {b}." for a in WORDS for b in WORDS]),
        model_writer=model,
        vocab_size=60,
        model_type="unigram",
        bos_id=-1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        pad_piece="<pad>",
        eos_piece="</s>",
        unk_piece="<unk>",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = keras_hub.models.T5Tokenizer(proto=model.getvalue())
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.T5Backbone(
        vocabulary_size=int(tokenizer.vocabulary_size()),
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        tie_embedding_weights=tied,
    )
    return _save(folder, backbone, tokenizer)


def _save(folder, backbone, tokenizer):
    backbone.save_to_preset(str(folder))
    tokenizer.save_to_preset(str(folder))
    return Path(folder)
