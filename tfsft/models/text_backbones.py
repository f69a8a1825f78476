"""Pretrained text encoders by name, each with its own tokenizer."""

import json
import os
import textwrap
import threading
from dataclasses import dataclass
from pathlib import Path

import keras

from tfsft.errors import UserError
from tfsft.models import starters
from tfsft.models.loading import (
    RANDOM,
    foreign_weights,
    fresh_layer_names,
    make_deterministic,
    where,
)
from tfsft.models.tokenizers import TextTokenizer, hugging_face_tokenizer

_STANDARD, _STARTER = "bert_base_en_uncased", "minilm"
_ANSWER_SECONDS = 5
_CONVERTED = ("albert", "bert", "distilbert", "roberta", "xlm-roberta")
# What these say of a text depends on how far it is padded. FNet's Fourier transform mixes padding
# into every token; KerasHub's RoFormerV2 hides padding where it asks and not where it is asked.
_WITHOUT_MASK = ("FNetBackbone", "RoformerV2Backbone")
_PROTEINS = ("ESMBackbone",)


@dataclass(frozen=True)
class TextBackbone:
    """A pretrained text encoder and the tokenizer that it was trained with.

    Args:
        model: KerasHub's backbone, named `backbone`. It takes a dict of int32 [batch, tokens], of
            `inputs` the ones that it has.
        tokenizer: From the same place as the weights.
        name: As it was asked for.
        source: Where the weights come from, for people to read.
        max_length: How many tokens it has positions for, special tokens included; None: any number.
    """

    model: keras.Model
    tokenizer: TextTokenizer
    name: str
    source: str
    max_length: int | None

    @property
    def inputs(self) -> tuple[str, ...]:
        """What a batch needs: `token_ids`, `padding_mask` and, in some families, `segment_ids`."""
        segments = ("segment_ids",) if self.tokenizer.uses_segments else ()
        return ("token_ids", "padding_mask", *segments)

    def sequence(self, inputs: dict[str, keras.KerasTensor]) -> keras.KerasTensor:
        """Calls the model; returns a vector for each token, [batch, tokens, hidden].

        Args:
            inputs: By name, int32 [batch, tokens]; `padding_mask` is 1 at tokens, 0 at padding.
        """
        known = {name: inputs[name] for name in self.model.input}
        outputs = self.model(known, training=False)
        return outputs["sequence_output"] if isinstance(outputs, dict) else outputs


def resolve(name: str) -> tuple[str, str]:
    """Decides which text backbone a name stands for, as `models.resolve` tells."""
    if name != "auto":
        _where(name)
        return name, f"{name} was asked for by name."
    handle = _presets()[_STANDARD]["kaggle_handle"].removeprefix("kaggle://")
    folder = hub_folder(handle)
    if (folder / "model.weights.h5").is_file():
        return _STANDARD, f"{_STANDARD}: its weights are in {folder}."
    if offered(handle):
        return _STANDARD, f"{_STANDARD}: its weights can be downloaded."
    return _STARTER, (
        f"{_STARTER}: the weights of {_STANDARD} are not in {folder} and kaggle.com does not offer "
        "them, so the starter from the package index takes its place."
    )


def load_text_backbone(name: str) -> TextBackbone:
    """Loads a pretrained text encoder and its tokenizer.

    All of its dropout is off; `unfreeze` turns it on for what trains.

    Args:
        name: `auto`; a starter (`minilm`); a KerasHub preset (`bert_base_en_uncased`,
            `roberta_base_en`); a `kaggle://` or `hf://` handle; or a local folder in Keras
            (`save_to_preset`) or Hugging Face format. With `:random` at the end the weights stay
            random, for tests and timing.

    Raises:
        UsageError: There is no such model.
        UserError: It cannot be downloaded or read, or is no text encoder that can be fine-tuned.
    """
    if name == "auto":
        name, _ = resolve(name)
    place, key = _where(name)
    pretrained = not name.endswith(RANDOM)
    preset = str(starters.starter_path(key)) if place == "starter" else key
    source = f"{place} {preset}" if place != "starter" else f"starter {Path(preset).name}"

    with fresh_layer_names(), foreign_weights(preset, pretrained):
        model, layer, normalization = _load(preset, pretrained)
    make_deterministic(model)
    tokenizer = TextTokenizer(
        layer, name=name, uses_segments="segment_ids" in model.input, **normalization
    )
    limit = getattr(model, "max_sequence_length", None)
    return TextBackbone(
        model, tokenizer, name, source + ("" if pretrained else ", random weights"), limit
    )


def _load(preset: str, pretrained: bool) -> tuple[keras.Model, keras.layers.Layer, dict]:
    import keras_hub
    from keras_hub.src.utils.preset_utils import get_preset_loader  # tells the class before loading

    try:
        loader = get_preset_loader(preset)
        hugging_face = "model_type" in loader.config
        family = loader.check_backbone_class()
        _refuse_unknown(preset, family)
        # Only a layer that begins with dropout has the seed that it needs when the rate changes.
        model = keras_hub.models.Backbone.from_preset(
            preset, load_weights=pretrained, name="backbone", dropout=0.1
        )
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(preset, error) from error
    try:
        if hugging_face:
            return model, *hugging_face_tokenizer(preset, loader.config["model_type"])
        return model, keras_hub.models.Tokenizer.from_preset(preset), {}
    except Exception as error:
        reason = textwrap.shorten(str(error).strip() or type(error).__name__, 200)
        raise UserError(
            f"'{preset}' has weights but no tokenizer that can be read: {reason}",
            "Expected the vocabulary beside the weights: vocab.txt (bert, distilbert), vocab.json "
            "and merges.txt (roberta), spiece.model (albert), sentencepiece.bpe.model "
            "(xlm-roberta); or assets/tokenizer/ in a folder of KerasHub.",
            "Copy these files from where the model comes from, or save the tokenizer there.",
        ) from error


def _refuse_unknown(preset: str, family: type) -> None:
    name = family.__name__
    if name in _WITHOUT_MASK:
        raise UserError(
            f"'{preset}' holds a {name}, which cannot leave padding out.",
            "What it says about a text depends on how far the batch is padded.",
            "Use another encoder, like BERT, DistilBERT, RoBERTa, ALBERT, ELECTRA or DeBERTa.",
        )
    if name not in families():
        raise UserError(
            f"'{preset}' holds a {name}, which is not a text encoder.",
            f"Expected one of {', '.join(families())}.",
        )


def families() -> dict[str, type]:
    """Returns the backbone classes of KerasHub that encode texts, by name.

    They are those that KerasHub classifies with, and ELECTRA, for which it has no classifier.
    """
    import keras_hub
    from keras_hub.src.utils.preset_utils import list_subclasses

    preprocessors = list_subclasses(keras_hub.models.TextClassifierPreprocessor)
    classes = {p.backbone_cls for p in preprocessors if p.backbone_cls}
    names = {c.__name__: c for c in classes | {keras_hub.models.ElectraBackbone}}
    return {n: names[n] for n in sorted(names) if n not in (*_WITHOUT_MASK, *_PROTEINS)}


def _unreadable(preset: str, error: Exception) -> UserError:
    reason = textwrap.shorten(str(error).strip() or type(error).__name__, 200)
    if not Path(preset).is_dir():
        return UserError(
            f"'{preset}' could not be loaded: {reason}",
            "Its files are downloaded once, from the model hub.",
            "Without network give --backbone a local folder, or use --backbone auto.",
        )
    config = json.loads((Path(preset) / "config.json").read_text(encoding="utf-8"))
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type and model_type not in _CONVERTED:
        return UserError(
            f"The folder {preset} holds a Hugging Face model of type '{model_type}', which "
            "KerasHub does not convert to a text encoder.",
            f"Types that it converts: {', '.join(_CONVERTED)}.",
            "Other families, like ELECTRA and DeBERTa, load as KerasHub presets by name.",
        )
    return UserError(
        f"The folder {preset} could not be loaded: {reason}",
        "Expected config.json and weights in the format of Keras (save_to_preset) or Hugging Face "
        f"(model.safetensors; {', '.join(_CONVERTED)}).",
    )


def _presets() -> dict[str, dict]:
    presets: dict[str, dict] = {}
    for family in families().values():
        presets |= family.presets
    return presets


def _where(name: str) -> tuple[str, str]:
    return where(
        name,
        {"starter": lambda: starters.names("text"), "KerasHub preset": _presets},
        "auto, minilm, a text encoder among KerasHub's presets (bert_base_en_uncased, "
        "distil_bert_base_en, roberta_base_en, deberta_v3_base_en, ...), an hf:// or kaggle:// "
        "handle, or a local folder in Keras (save_to_preset) or Hugging Face format.",
    )


def hub_folder(handle: str) -> Path:
    """Returns where kagglehub keeps a preset that was downloaded."""
    cache = Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub")
    return cache.expanduser() / "models" / handle


def offered(handle: str) -> bool:
    """Fetches a preset's smallest file, to know whether the rest can be; never waits for long."""
    answer = []

    def ask() -> None:
        import kagglehub

        try:
            path = kagglehub.model_download(handle, "config.json", force_download=True)
            answer.append(json.loads(Path(path).read_text(encoding="utf-8")))
        except Exception:  # no network, a proxy's page, a login: all mean that it is not offered
            pass

    # A thread, because kagglehub tries again and no timeout covers a silent name server.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    return bool(answer)
