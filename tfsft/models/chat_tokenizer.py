"""The tokens of a causal language model: text, and control tokens that no text can forge."""

import hashlib
import inspect
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from tfsft.errors import UserError

FORMAT = 1
SETTINGS, TOKENS, PIECES = "chat.json", "tokenizer.json", "vocabulary.spm"
# What ends a turn in the templates of the known families: a poor choice for padding.
_ENDS = ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|end|>", "</s>", "<|endoftext|>")
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How the byte-pair families of KerasHub cut a text before they merge bytes; the rest as GPT-2.
_SPLITS = {
    "Llama3Tokenizer": _LLAMA3,
    "SmolLM3Tokenizer": _LLAMA3,
    "QwenTokenizer": _LLAMA3.replace("{1,3}", ""),
    "Qwen3Tokenizer": _LLAMA3.replace("{1,3}", ""),
    "QwenMoeTokenizer": _LLAMA3.replace("{1,3}", ""),
    "Qwen3MoeTokenizer": _LLAMA3.replace("{1,3}", ""),
}


class _Codec(Protocol):
    """Turns texts into ids and back; one for each kind of vocabulary."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...
    def decode(self, ids: Sequence[int], control: bool) -> str: ...
    def save(self, folder: Path) -> None: ...


class ChatTokenizer:
    """Turns texts into token ids and back, as a causal language model was trained on.

    Control tokens are known by name and never come out of a text: what a person writes that looks
    like one is plain characters.

    Args:
        codec: For the kind of vocabulary.
        control: Control tokens by their text.
        begin: Token that a text begins with, if the family needs one.
        end: Token that ends a text.
        pad: Fills rows up. It is hidden by the mask, but must end nothing: whoever looks for the
            end of an answer would find it in the padding. So it is the family's own where that
            ends no turn, and else the token for unknown text, or another control token.
        vocabulary_size: Number of ids.
        name: Of the model it belongs to.
    """

    uses_segments = False
    unknown = None

    def __init__(
        self,
        codec: _Codec,
        *,
        control: dict[str, int],
        begin: int | None,
        end: int,
        pad: int,
        vocabulary_size: int,
        name: str = "",
    ):
        self._codec = codec
        self.control = control
        self.begin = begin
        self.end = end
        self.pad = pad
        self.vocabulary_size = vocabulary_size
        self.name = name

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes texts; several threads may call it at once.

        Returns:
            The tokens of all texts in a row, int32 [tokens], and where each text begins and the
            last one ends, int64 [n + 1]. None of them is a control token.
        """
        # A lone half of a surrogate pair has no UTF-8, and JSON lets it through.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        rows = self._codec.encode(clean)
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        flat = np.fromiter((token for row in rows for token in row), np.int32, int(offsets[-1]))
        return flat, offsets.astype(np.int64)

    def decode(self, ids: Sequence[int], *, control: bool = False) -> str:
        """Returns the text of tokens; bytes that are no whole letter are �.

        Args:
            ids: Any of them.
            control: Whether control tokens are written out too.
        """
        return self._codec.decode([int(token) for token in ids], control)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns what each token reads, for showing."""
        return [self.decode([token], control=True) for token in ids]

    @property
    def settings(self) -> dict:
        """All there is to know beside the vocabulary, as plain values."""
        names = ("control", "begin", "end", "pad", "vocabulary_size", "name")
        kind = type(self._codec).__name__
        return {"format": FORMAT, "kind": kind} | {name: getattr(self, name) for name in names}

    @property
    def fingerprint(self) -> str:
        """A hash of vocabulary and settings: equal ones encode alike, whatever they are called."""
        settings = {key: value for key, value in self.settings.items() if key != "name"}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        digest.update(self._codec.identity())
        return digest.hexdigest()

    def save(self, folder: str | Path) -> None:
        """Writes all that `load_tokenizer` needs into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._codec.save(folder)
        text = json.dumps(self.settings, indent=2, ensure_ascii=False) + "\n"
        (folder / SETTINGS).write_text(text, encoding="utf-8")

    def hugging_face_files(self) -> dict[str, dict | bytes]:
        """Returns tokenizer_config.json, and tokenizer.json or SentencePiece's tokenizer.model."""
        texts = {token: text for text, token in self.control.items()}
        options = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": texts.get(self.begin),
            "eos_token": texts[self.end],
            "pad_token": texts.get(self.pad) or self.decode([self.pad], control=True),
            "clean_up_tokenization_spaces": False,
        }
        if isinstance(self._codec, _SentencePieces):
            options |= {"add_bos_token": self.begin is not None, "add_eos_token": False}
            options["added_tokens_decoder"] = {
                str(token): {"content": text, "special": True, "normalized": False}
                for token, text in sorted(texts.items())
            }
            return {"tokenizer.model": self._codec.proto, "tokenizer_config.json": options}
        if self.begin is not None and self._codec.begins_with() is None:
            options["add_bos_token"] = True
        return {
            TOKENS: json.loads(self._codec.tokenizer.to_str()),
            "tokenizer_config.json": options,
        }

    def keras_layer(self, kind: type) -> keras.layers.Layer:
        """Returns the same as a layer of KerasHub.

        Args:
            kind: Its class.

        Raises:
            Exception: The class takes another kind of vocabulary, or other control tokens.
        """
        if isinstance(self._codec, _SentencePieces):
            return kind(self._codec.proto)
        content = json.loads(self._codec.tokenizer.to_str())
        vocabulary = dict(content["model"]["vocab"])
        vocabulary |= {token["content"]: token["id"] for token in content["added_tokens"]}
        merges = [m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]]
        options: dict = {"unsplittable_tokens": sorted(self.control)}
        if "eos_token" in inspect.signature(kind).parameters:  # of Llama 3
            texts = {token: text for text, token in self.control.items()}
            end = texts[self.end]
            options = {"bos_token": texts.get(self.begin, end), "eos_token": end}
            options["misc_special_tokens"] = set(self.control)
        return kind(vocabulary=vocabulary, merges=merges, **options)


def load_chat_tokenizer(folder: Path) -> ChatTokenizer:
    """Loads what `ChatTokenizer.save` wrote.

    Raises:
        UserError: The folder is not whole.
    """
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        codec = {kind.__name__: kind for kind in (_Fast, _SentencePieces)}[settings["kind"]]
        names = ("control", "begin", "end", "pad", "vocabulary_size", "name")
        return ChatTokenizer(codec.load(folder), **{name: settings[name] for name in names})
    except Exception as error:  # the library of tokenizers raises plain ones
        raise UserError(
            f"The tokenizer in {folder} cannot be read: {error}",
            f"Expected the folder that a run wrote: {SETTINGS} and the vocabulary.",
            "Copy the whole run folder, the tokenizer's folder included.",
        ) from error


def from_hugging_face(content: dict, options: dict, name: str) -> ChatTokenizer:
    """Makes a tokenizer from the files of a Hugging Face model.

    Args:
        content: tokenizer.json.
        options: tokenizer_config.json; may be empty.
        name: Of the model.
    """
    codec = _Fast(json.dumps(content))
    added = content.get("added_tokens") or []
    control = {token["content"]: token["id"] for token in added if token.get("special")}
    ids = {token["content"]: token["id"] for token in added}

    def special(key: str) -> int | None:
        value = options.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        return ids.get(text, codec.tokenizer.token_to_id(text) if text else None)

    begin = codec.begins_with()
    if begin is None and options.get("add_bos_token"):
        begin = special("bos_token")
    end = special("eos_token")
    if end is None:
        end = next((control[text] for text in _ENDS if text in control), None)
    if end is None:
        raise ValueError("it names no token that ends a text (eos_token)")
    for token in {end, begin} - {None, *control.values()}:
        control[codec.tokenizer.id_to_token(token)] = token
    first = [special("pad_token"), special("unk_token")]
    pad = _padding(control, end, begin, first)
    size = codec.tokenizer.get_vocab_size(with_added_tokens=True)
    return ChatTokenizer(
        codec, control=control, begin=begin, end=end, pad=pad, vocabulary_size=size, name=name
    )


def from_keras(layer: keras.layers.Layer, name: str) -> ChatTokenizer:
    """Makes a tokenizer from a layer of KerasHub, of byte pairs or sentence pieces."""
    special = {text: layer.token_to_id(text) for text in layer.special_tokens if text}
    end = layer.end_token_id
    begin = getattr(layer, "start_token_id", None)
    if hasattr(layer, "merges"):
        codec = _Fast.of_byte_pairs(layer, special)
        if begin == end:  # of GPT-2, where one token does both, no text begins with it
            begin = None
    else:
        codec = _SentencePieces.of_layer(layer, special)
    pad = _padding(special, end, begin, [layer.pad_token_id])
    return ChatTokenizer(
        codec,
        control=special,
        begin=begin,
        end=end,
        pad=pad,
        vocabulary_size=int(layer.vocabulary_size()),
        name=name,
    )


def _padding(
    control: dict[str, int], end: int, begin: int | None, first: Iterable[int | None]
) -> int:
    ends = {end, *(control[text] for text in _ENDS[:-1] if text in control)}
    others = [begin, *control.values(), 0, 1]
    return next(token for token in (*first, *others) if token is not None and token not in ends)


class _Fast:
    """Any tokenizer.json, by Hugging Face's library of tokenizers."""

    def __init__(self, content: str):
        import tokenizers

        self.tokenizer = tokenizers.Tokenizer.from_str(content)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True  # as plain characters

    @classmethod
    def of_byte_pairs(cls, layer: keras.layers.Layer, special: dict[str, int]) -> "_Fast":
        """Returns the tokenizer of a vocabulary and its merges."""
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers

        merges = [tuple(merge.split(" ")) for merge in layer.merges]
        vocabulary = {token: int(number) for token, number in layer.vocabulary.items()}
        tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
        split = getattr(layer, "split_pattern", None) or _SPLITS.get(type(layer).__name__)
        space = bool(getattr(layer, "add_prefix_space", False))
        cut = pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=split is None)
        if split is not None:
            isolated = pre_tokenizers.Split(tokenizers.Regex(split), "isolated")
            cut = pre_tokenizers.Sequence([isolated, cut])
        tokenizer.pre_tokenizer = cut
        tokenizer.decoder = decoders.ByteLevel()
        in_order = sorted(special, key=special.__getitem__)
        tokenizer.add_special_tokens([tokenizers.AddedToken(t, special=True) for t in in_order])
        return cls(tokenizer.to_str())

    @classmethod
    def load(cls, folder: Path) -> "_Fast":
        return cls((folder / TOKENS).read_text(encoding="utf-8"))

    def begins_with(self) -> int | None:
        """Returns the token that is put before every text, if there is one."""
        ids = self.tokenizer.encode("a").ids
        plain = self.tokenizer.encode("a", add_special_tokens=False).ids
        return ids[0] if ids[: len(plain)] != plain else None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        found = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def decode(self, ids: Sequence[int], control: bool) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=not control)

    def identity(self) -> bytes:
        return self.tokenizer.to_str().encode()

    def save(self, folder: Path) -> None:
        (folder / TOKENS).write_text(self.tokenizer.to_str(pretty=True), encoding="utf-8")


class _SentencePieces:
    """A SentencePiece model, by its own library.

    Args:
        proto: The model's bytes.
        control: Its control tokens.
    """

    def __init__(self, proto: bytes, control: dict[str, int]):
        import sentencepiece

        self.proto = proto
        self.model = sentencepiece.SentencePieceProcessor(model_proto=proto)
        self._control = control

    @classmethod
    def of_layer(cls, layer: keras.layers.Layer, special: dict[str, int]) -> "_SentencePieces":
        """Returns the tokenizer of a layer; symbols like `<start_of_turn>` are control tokens."""
        codec = cls(layer.proto, special)
        size = codec.model.vocab_size()
        symbols = {codec.model.id_to_piece(token): token for token in range(size)}
        special |= {s: token for s, token in symbols.items() if s.endswith("_of_turn>")}
        return codec

    @classmethod
    def load(cls, folder: Path) -> "_SentencePieces":
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        return cls((folder / PIECES).read_bytes(), settings["control"])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        # The library takes its symbols out of any text; cut in two, they are characters.
        cuts = []
        for text in texts:
            for symbol in self._control:
                text = text.replace(symbol, f"{symbol[:1]}\0{symbol[1:]}")
            cuts.append(text.split("\0"))
        rows = iter(self.model.encode([part for cut in cuts for part in cut]))
        return [[token for _ in cut for token in next(rows)] for cut in cuts]

    def decode(self, ids: Sequence[int], control: bool) -> str:
        names = {token: text for text, token in self._control.items()}
        text, plain = "", []
        for token in ids:
            if token in names:
                text += self.model.decode(plain) + (names[token] if control else "")
                plain = []
            else:
                plain.append(token)
        return text + self.model.decode(plain)

    def identity(self) -> bytes:
        return self.proto

    def save(self, folder: Path) -> None:
        (folder / PIECES).write_bytes(self.proto)
