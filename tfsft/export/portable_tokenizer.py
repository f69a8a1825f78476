"""Tokenizers of encoders as a tokenizer.json, which Hugging Face's library of tokenizers reads."""

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors

from tfsft.errors import UserError
from tfsft.models import TextTokenizer

LONGEST_WORD = 100  # a longer one is unknown, in BERT's own tokenizer and in KerasHub's


def write_tokenizer(tokenizer: TextTokenizer, path: Path) -> None:
    """Writes a tokenizer.json that gives the same tokens.

    Texts never contain special tokens: what looks like one is text, as in training.

    Raises:
        UserError: There is no such thing for this kind of tokenizer.
    """
    layer = tokenizer.keras_tokenizer
    if hasattr(layer, "split_on_cjk"):
        made = _word_pieces(tokenizer)
    elif hasattr(layer, "merges"):
        made = _byte_pairs(tokenizer)
    elif hasattr(layer, "proto"):
        made = _sentence_pieces(tokenizer)
    else:
        raise UserError(
            f"{type(layer).__name__} is not a kind of tokenizer that tokenizer.json has.",
            "Word pieces, byte pairs or sentence pieces.",
            "Use --format saved_model, which has the tokenizer inside.",
        )
    made.post_processor = _packing(tokenizer)
    made.save(str(path))


def special_tokens(tokenizer: TextTokenizer) -> dict[str, Any]:
    """Returns what task.json says about the tokens around a text."""
    return {
        "start": list(tokenizer.start),
        "separator": list(tokenizer.separator),
        "end": list(tokenizer.end),
        "pad": tokenizer.pad,
        "unknown": tokenizer.unknown,
        "segments": tokenizer.uses_segments,
        "word_prefix": tokenizer.word_prefix,
    }


def _cleaning(tokenizer: TextTokenizer) -> list[normalizers.Normalizer]:
    """Returns how accents and capitals are removed, in the order of `TextTokenizer.graph`."""
    settings = tokenizer.settings
    found = []
    if settings["strip_accents"]:
        form = getattr(normalizers, settings["unicode_form"])()
        found += [form, normalizers.Replace(Regex(r"\p{Mn}"), "")]
    if settings["lowercase"]:
        found.append(normalizers.Lowercase())
    return found


def _word_pieces(tokenizer: TextTokenizer) -> Tokenizer:
    layer = tokenizer.keras_tokenizer
    vocabulary = {token: place for place, token in enumerate(layer.vocabulary)}
    made = Tokenizer(
        tokenizers.models.WordPiece(
            vocabulary,
            unk_token=layer.oov_token,
            continuing_subword_prefix=layer.suffix_indicator,
            max_input_chars_per_word=LONGEST_WORD,
        )
    )
    chinese = normalizers.BertNormalizer(
        clean_text=False,
        handle_chinese_chars=bool(tokenizer.settings["split_on_cjk"]),
        strip_accents=False,
        lowercase=False,
    )
    made.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"[\t\n\r\p{Z}]"), " "),
            normalizers.Replace(Regex(r"[\p{Cc}\p{Cf}\p{Co}\x{FFFD}]"), ""),
            *_cleaning(tokenizer),
            chinese,
        ]
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(layer.suffix_indicator)
    return made


def _byte_pairs(tokenizer: TextTokenizer) -> Tokenizer:
    layer = tokenizer.keras_tokenizer
    merges = [tuple(merge.split(" ")) for merge in layer.merges]
    made = Tokenizer(tokenizers.models.BPE(dict(layer.vocabulary), merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=layer.add_prefix_space)
    made.decoder = decoders.ByteLevel()
    if cleaning := _cleaning(tokenizer):
        made.normalizer = normalizers.Sequence(cleaning)
    return made


def _sentence_pieces(tokenizer: TextTokenizer) -> Tokenizer:
    """Returns the same unigram model; the ids are those of the layer, which may shift them."""
    from sentencepiece import sentencepiece_model_pb2

    layer = tokenizer.keras_tokenizer
    proto = layer.proto
    model = sentencepiece_model_pb2.ModelProto.FromString(proto)
    if model.trainer_spec.model_type != 1:
        raise UserError(
            "The model's sentence pieces are no unigram model.",
            "A tokenizer.json is written of unigram models.",
            "Use --format saved_model, which has the tokenizer inside.",
        )
    scores = {piece.piece: piece.score for piece in model.pieces if piece.type in (1, 4)}
    lowest = min(scores.values())  # decides what an unknown character costs
    pieces = [layer.id_to_token(place) for place in range(tokenizer.vocabulary_size)]
    # No text has a space once it is normalised, so what is no piece of text is never found in one.
    vocabulary = [
        (piece, scores[piece]) if piece in scores else (f" {piece}", lowest) for piece in pieces
    ]
    made = Tokenizer(tokenizers.models.Unigram(vocabulary, tokenizer.unknown, False))
    steps = _cleaning(tokenizer)
    if charsmap := model.normalizer_spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(charsmap))
    if model.normalizer_spec.remove_extra_whitespaces:
        steps += [
            normalizers.Strip(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    made.normalizer = normalizers.Sequence(steps)
    made.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="always" if model.normalizer_spec.add_dummy_prefix else "never", split=False
    )
    made.decoder = decoders.Metaspace()
    return made


def _packing(tokenizer: TextTokenizer) -> processors.TemplateProcessing:
    """Returns where special tokens go, for programs that let the tokenizer put them there."""
    names = {
        token: f"<{token}>" for token in {*tokenizer.start, *tokenizer.separator, *tokenizer.end}
    }
    layer = tokenizer.keras_tokenizer
    names = {token: layer.id_to_token(token) for token in names}
    start, middle, end = (
        [f"{names[token]}:{segment}" for token in tokens]
        for tokens, segment in ((tokenizer.start, 0), (tokenizer.separator, 0), (tokenizer.end, 0))
    )
    last = [f"{names[token]}:1" for token in tokenizer.end]
    return processors.TemplateProcessing(
        single=[*start, "$A:0", *end],
        pair=[*start, "$A:0", *middle, "$B:1", *last],
        special_tokens=[(name, token) for token, name in names.items()],
    )
