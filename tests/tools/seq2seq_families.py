"""Tiny real sequence-to-sequence models with their tokenizers, as folders of Keras."""

import io
import json
from pathlib import Path

import keras

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
WORDS = ["ada", "bob", "cleo", "dan", "eve", "finn", "gil", "hal", "ida", "jo"]


def byte_pairs():
    """Returns a trained tokenizer of byte pairs, whose ids begin as BART's do."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    trained.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return trained


def hugging_face_bart(folder):
    """Writes what a BART of Hugging Face has beside its weights; returns the folder."""
    trained = byte_pairs()
    trained.save(str(Path(folder) / "tokenizer.json"))
    options = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (Path(folder) / "tokenizer_config.json").write_text(json.dumps(options))
    config = {
        "model_type": "bart",
        "vocab_size": trained.get_vocab_size(),
        "num_hidden_layers": 1,
        "encoder_attention_heads": 2,
        "d_model": 16,
        "encoder_ffn_dim": 32,
        "dropout": 0.1,
        "max_position_embeddings": 48,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    }
    (Path(folder) / "config.json").write_text(json.dumps(config))
    return Path(folder)


def tiny_bart(folder, *, positions=64, hidden=32, seed=0):
    """Writes a BART of two blocks with random weights; returns the folder."""
    import keras_hub

    trained = byte_pairs()
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


def write_rewriter_run(folder, backbone, *, prefix=""):
    """Writes what a run of seq2seq leaves of a model; returns its path."""
    from tfsft import models

    folder = Path(folder)
    folder.mkdir(parents=True)
    lm = models.load_seq2seq_lm(str(backbone))
    lm.model.save(folder / "model.keras")
    lm.tokenizer.save(folder / "tokenizer")
    task = {
        "task": "text_generation",
        "labels": "chat",
        "class_names": [],
        "max_new_tokens": 8,
        "tokenizer": "tokenizer",
        "max_length": 24,
        "max_target_length": 16,
        "start": lm.start,
        "end": lm.end,
        "decoder_start": lm.decoder_start,
        "prefix": prefix,
    }
    (folder / "task.json").write_text(json.dumps(task))
    (folder / "config.json").write_text("{}")
    return folder
