"""Texts to token ids: one face for the tokenizers of all encoder families, and its folder."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfsft.errors import UserError
from tfsft.models.chat_tokenizer import SETTINGS, ChatTokenizer, load_chat_tokenizer
from tfsft.untrusted import check_folder

FORMAT = 1
_SETTINGS = "settings.json"


class TextTokenizer:
    """Turns texts into token ids as an encoder was trained on, without special tokens.

    A text is packed as `start + A + end`, a pair as `start + A + separator + B + end`.

    Args:
        keras_tokenizer: The tokenizer layer of KerasHub, of any encoder family. It is taken over:
            its own lower-casing is turned off, as it differs from BERT's.
        name: Of the backbone that it belongs to.
        uses_segments: Whether the backbone takes `segment_ids`.
        lowercase: Whether texts are lower-cased first; None: what the layer says.
        strip_accents: Whether accents are removed first; None: what the layer says.
        unicode_form: The Unicode form in which accents are looked for.
        packing: Special tokens by name, as `settings` returns them; None: those of the family.
    """

    def __init__(
        self,
        keras_tokenizer: keras.layers.Layer,
        *,
        name: str,
        uses_segments: bool,
        lowercase: bool | None = None,
        strip_accents: bool | None = None,
        unicode_form: str = "NFD",
        packing: dict | None = None,
    ):
        self.keras_tokenizer = layer = keras_tokenizer
        self.name = name
        self.uses_segments = uses_segments
        self._word_pieces = hasattr(layer, "split_on_cjk")
        self._byte_pairs = hasattr(layer, "merges")
        self._lowercase = getattr(layer, "lowercase", False) if lowercase is None else lowercase
        self._strip_accents = (
            getattr(layer, "strip_accents", False) if strip_accents is None else strip_accents
        )
        self._unicode_form = unicode_form
        layer.sequence_length = None
        if self._word_pieces:
            layer.lowercase = layer.strip_accents = layer.special_tokens_in_strings = False
        if self._byte_pairs:
            layer.unsplittable_tokens = []  # or "</s>" in a text would end it

        packing = packing or _packing(layer)
        self.start, self.separator, self.end = (
            tuple(packing[key]) for key in ("start", "separator", "end")
        )
        self.pad, self.unknown, self.mask = (packing[key] for key in ("pad", "unknown", "mask"))
        self.vocabulary_size = int(layer.vocabulary_size())
        self._flat = self._function()

    def graph(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Encodes inside a graph: what a served model calls is what `encode` runs.

        Args:
            texts: Strings [n].

        Returns:
            Token ids, int32 [n, (tokens)].
        """
        if self._word_pieces:
            texts = _without_invisible(texts)
        if self._strip_accents:
            texts = _without_accents(texts, self._unicode_form)
        if self._lowercase:
            texts = tf.strings.lower(texts, encoding="utf-8")
        return tf.cast(self.keras_tokenizer(texts), "int32")

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes texts, in one graph of TensorFlow; several threads may call it at once.

        Args:
            texts: Any strings. A piece of text that looks like a special token is plain text.

        Returns:
            The tokens of all texts in a row, int32 [tokens], and where each text begins and the
            last one ends, int64 [n + 1]. An empty text has no tokens.
        """
        # A lone half of a surrogate pair has no UTF-8, and JSON lets it through.
        encoded = [text.encode("utf-8", "replace") for text in texts]
        with tf.device("CPU"):
            strings = tf.constant(encoded, tf.string, [len(encoded)])
            try:
                flat, offsets = self._flat(strings)
            except tf.errors.NotFoundError:
                # Setting TensorFlow's seed drops SentencePiece models, which its kernels own.
                self.keras_tokenizer.set_proto(self.keras_tokenizer.proto)
                self._flat = self._function()
                flat, offsets = self._flat(strings)
        return flat.numpy(), offsets.numpy()

    def encode_words(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes single words as they would be inside a sentence, behind a space.

        Returns:
            As `encode`. A word of invisible characters alone may have no tokens.
        """
        return self.encode([self.word_prefix + word for word in words])

    @property
    def word_prefix(self) -> str:
        """What stands before a word inside a sentence."""
        return " " if self._byte_pairs and not self.keras_tokenizer.add_prefix_space else ""

    def _function(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        def flat(texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            tokens = self.graph(texts)
            return tokens.values, tokens.row_splits

        return flat

    @property
    def settings(self) -> dict:
        """All there is to know beside the vocabulary, as plain values."""
        return {
            "format": FORMAT,
            "name": self.name,
            "uses_segments": self.uses_segments,
            "lowercase": self._lowercase,
            "strip_accents": self._strip_accents,
            "unicode_form": self._unicode_form,
            "split_on_cjk": getattr(self.keras_tokenizer, "split_on_cjk", None),
            "packing": {
                key: getattr(self, key)
                for key in ("start", "separator", "end", "pad", "unknown", "mask")
            },
        }

    @property
    def fingerprint(self) -> str:
        """A hash of vocabulary and settings: equal ones encode alike, whatever they are called."""
        layer = self.keras_tokenizer
        settings = {key: value for key, value in self.settings.items() if key != "name"}
        settings |= {"class": type(layer).__name__, "config": _plain_config(layer)}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        vocabulary = getattr(layer, "proto", None)
        if vocabulary is None:
            vocabulary = json.dumps([layer.vocabulary, getattr(layer, "merges", None)]).encode()
        digest.update(vocabulary)
        return digest.hexdigest()

    def save(self, folder: str | Path) -> None:
        """Writes all that `load_tokenizer` needs into a folder, in KerasHub's format."""
        folder = Path(folder)
        layer = self.keras_tokenizer
        flags = {"lowercase": self._lowercase, "strip_accents": self._strip_accents}
        try:
            if self._word_pieces:  # for whoever loads the folder with KerasHub
                vars(layer).update(flags)
            layer.save_to_preset(str(folder))
        finally:
            if self._word_pieces:
                vars(layer).update(dict.fromkeys(flags, False))
        text = json.dumps(self.settings, indent=2) + "\n"
        (folder / _SETTINGS).write_text(text, encoding="utf-8")


def load_tokenizer(folder: str | Path) -> TextTokenizer | ChatTokenizer:
    """Loads what `save` of either kind wrote; needs no backbone and no network.

    Raises:
        UserError: The folder is not there or not whole.
    """
    import keras_hub  # noqa: F401  (knows the classes)

    folder = Path(folder)
    if folder.is_dir():
        check_folder(folder)
    if (folder / SETTINGS).is_file():
        return load_chat_tokenizer(folder)
    try:
        settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        config = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        layer = keras.saving.deserialize_keras_object(config)
        layer.load_assets(str(folder / "assets" / "tokenizer"))
        if settings["split_on_cjk"] is not None:
            layer.split_on_cjk = settings["split_on_cjk"]  # KerasHub's own config leaves it out
        names = ("name", "uses_segments", "lowercase", "strip_accents", "unicode_form", "packing")
        return TextTokenizer(layer, **{name: settings[name] for name in names})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"The tokenizer in {folder} cannot be read: {error}",
            f"Expected the folder that a run wrote: {_SETTINGS}, tokenizer.json and assets/.",
            "Copy the whole run folder, the tokenizer's folder included.",
        ) from error


def hugging_face_tokenizer(preset: str, model_type: str) -> tuple[keras.layers.Layer, dict]:
    """Makes a tokenizer from the files of a Hugging Face model as Hugging Face understands them.

    Args:
        preset: A local folder or an `hf://` handle.
        model_type: From the model's config.json.

    Returns:
        The layer, and arguments of `TextTokenizer` that the layer does not know.

    Raises:
        FileNotFoundError: There is no vocabulary.
        ValueError: It is not the kind of tokenizer that the family has.
    """
    import keras_hub
    from keras_hub.src.utils.preset_utils import check_file_exists, get_file, load_json

    def read(name: str) -> dict:
        return load_json(preset, name) if check_file_exists(preset, name) else {}

    options = read("tokenizer_config.json")
    kind = options.get("tokenizer_class") or ""
    if kind.startswith("BertJapanese"):
        raise ValueError(f"{kind} splits words with a dictionary, which KerasHub does not.")
    sentence_pieces = "XLMRoberta" in kind
    if model_type in ("bert", "distilbert") and not sentence_pieces:
        fast = read("tokenizer.json")
        rules = fast.get("normalizer") or {}
        lowercase = options.get("do_lower_case", rules.get("lowercase", True))
        accents = options.get("strip_accents", rules.get("strip_accents"))
        chinese = options.get("tokenize_chinese_chars", rules.get("handle_chinese_chars", True))
        vocabulary = fast.get("model", {}).get("vocab")
        if check_file_exists(preset, "vocab.txt") or not vocabulary:
            lines = Path(get_file(preset, "vocab.txt")).read_text(encoding="utf-8")
            vocabulary = lines.removesuffix("\n").split("\n")
        family = "BertTokenizer" if model_type == "bert" else "DistilBertTokenizer"
        layer = getattr(keras_hub.models, family)(
            [token.rstrip("\r") for token in vocabulary],
            lowercase=lowercase,
            strip_accents=lowercase if accents is None else accents,
            split_on_cjk=chinese,
        )
        return layer, {}
    if model_type == "roberta":
        space = bool(options.get("add_prefix_space"))
        return keras_hub.models.Tokenizer.from_preset(preset, add_prefix_space=space), {}
    layer = keras_hub.models.Tokenizer.from_preset(preset)
    if model_type == "albert":
        return layer, {
            "lowercase": options.get("do_lower_case", True),
            "strip_accents": not options.get("keep_accents", False),
            "unicode_form": "NFKD",
        }
    return layer, {}


def _packing(layer: keras.layers.Layer) -> dict:
    """Special tokens where the family's own preprocessor of KerasHub puts them."""
    import keras_hub
    from keras_hub.src.utils.preset_utils import list_subclasses

    base = keras_hub.models.TextClassifierPreprocessor
    own = [c for c in list_subclasses(base) if c.backbone_cls is layer.backbone_cls]
    preprocessor = min(own, key=lambda c: len(c.__mro__), default=base)(layer)
    preprocessor.build(None)
    packer = preprocessor.packer
    unknown = getattr(layer, "unk_token_id", getattr(layer, "_unk_token_id", None))
    if hasattr(layer, "oov_token"):
        unknown = layer.token_to_id(layer.oov_token)
    packing = {
        "start": packer.start_value,
        "separator": packer.sep_value,
        "end": packer.end_value,
    }
    packing = {key: tuple(map(int, value)) for key, value in packing.items()}
    mask = getattr(layer, "mask_token_id", None)
    single = {"pad": layer.pad_token_id, "unknown": unknown, "mask": mask}
    return packing | {key: None if x is None else int(x) for key, x in single.items()}


def _without_invisible(texts: tf.Tensor) -> tf.Tensor:
    """Any space is a space, and invisible characters go, as in BERT's own tokenizer.

    KerasHub's splits at invisible characters, which breaks Persian words and emoji, and does not
    split at no-break or ideographic spaces, which makes the words around them one unknown word.
    """
    texts = tf.strings.regex_replace(texts, r"[\t\n\r\p{Z}]", " ")
    return tf.strings.regex_replace(texts, r"[\p{Cc}\p{Cf}\p{Co}\x{FFFD}]", "")


def _without_accents(texts: tf.Tensor, form: str) -> tf.Tensor:
    import tensorflow_text as tf_text

    return tf.strings.regex_replace(tf_text.normalize_utf8(texts, form), r"\p{Mn}", "")


def _plain_config(layer: keras.layers.Layer) -> dict:
    config = layer.get_config()
    return {key: config[key] for key in sorted(config) if key not in ("name", "dtype")}
