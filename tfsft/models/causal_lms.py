"""Pretrained causal language models by name, each with its own tokenizer and chat template."""

import inspect
import json
import textwrap
from dataclasses import dataclass
from pathlib import Path

import keras

from tfsft.errors import UserError
from tfsft.models import starters
from tfsft.models.chat_tokenizer import (
    PIECES,
    SETTINGS,
    TOKENS,
    ChatTokenizer,
    from_hugging_face,
    from_keras,
    load_chat_tokenizer,
)
from tfsft.models.hugging_face_format import load_exactly
from tfsft.models.loading import (
    RANDOM,
    foreign_weights,
    fresh_layer_names,
    make_deterministic,
    presets_of,
    where,
)

CHAT = "assets/chat"  # our own tokenizer in a preset of KerasHub
TEMPLATE = "chat_template.jinja"
_STARTER = "smollm2"
_INPUTS = {"token_ids", "padding_mask"}


@dataclass(frozen=True)
class CausalLM:
    """A pretrained causal language model and the tokenizer that it was trained with.

    Args:
        model: KerasHub's, not compiled and without a preprocessor: from int32 `token_ids` and
            `padding_mask` `[batch, tokens]` to logits `[batch, tokens, vocabulary]`. It has a layer
            named `backbone`.
        tokenizer: From the same place as the weights.
        name: As it was asked for.
        source: Where the weights come from, for people to read.
        max_length: How many tokens it has positions for; None: any number.
        template: Its own chat template, in Jinja, where there is one.
    """

    model: keras.Model
    tokenizer: ChatTokenizer
    name: str
    source: str
    max_length: int | None
    template: str | None


def resolve(name: str) -> tuple[str, str]:
    """Decides which language model a name stands for, as `models.resolve` tells."""
    if name != "auto":
        _where(name)
        return name, f"{name} was asked for by name."
    return _STARTER, f"{_STARTER}: the starter of language models, from the package index."


def load_causal_lm(name: str) -> CausalLM:
    """Loads a pretrained causal language model with its tokenizer and its chat template.

    All of its dropout is off.

    Args:
        name: `auto`; a starter (`smollm2`); a KerasHub preset (`gemma3_instruct_1b`,
            `llama3.2_instruct_1b`, `gpt2_base_en`); a `kaggle://` or `hf://` handle; or a local
            folder in Keras (`save_to_preset`) or Hugging Face format. With `:random` at the end the
            weights stay random, for tests and timing.

    Raises:
        UsageError: There is no such model.
        UserError: It cannot be downloaded or read, or is no language model of text alone.
    """
    if name == "auto":
        name, _ = resolve(name)
    place, key = _where(name)
    pretrained = not name.endswith(RANDOM)
    preset = str(starters.starter_path(key)) if place == "starter" else key
    source = f"{place} {preset}" if place != "starter" else f"starter {Path(preset).name}"

    with fresh_layer_names(), foreign_weights(preset, pretrained):
        model, positions = _load(preset, pretrained)
    make_deterministic(model)
    tokenizer, template = read_tokenizer(preset, name)
    source += "" if pretrained else ", random weights"
    return CausalLM(model, tokenizer, name, source, positions, template)


def families() -> dict[str, type]:
    """Returns KerasHub's causal language models by the name of their backbone's class."""
    import keras_hub
    from keras_hub.src.utils.preset_utils import list_subclasses

    classes = list_subclasses(keras_hub.models.CausalLM)
    return {
        c.backbone_cls.__name__: c
        for c in classes
        if c.backbone_cls is not None and not issubclass(c, keras_hub.models.Seq2SeqLM)
    }


def _load(preset: str, pretrained: bool) -> tuple[keras.Model, int | None]:
    import keras_hub
    from keras_hub.src.utils.preset_utils import get_preset_loader  # tells the class before loading

    try:
        loader = get_preset_loader(preset)
        family = loader.check_backbone_class()
        task = families().get(family.__name__)
        if task is None:
            raise _no_language_model(preset, family.__name__)
        options = {"dropout": 0.0} if "dropout" in inspect.signature(family).parameters else {}
        if "model_type" in loader.config:
            options |= _left_out(family, loader.config)
        backbone = keras_hub.models.Backbone.from_preset(
            preset, load_weights=pretrained, name="backbone", **options
        )
        if "model_type" in loader.config and pretrained and family.__name__ == "MistralBackbone":
            load_exactly(backbone, preset)
        complete_config(backbone)
        names = {tensor.name for tensor in backbone.inputs}
        if names != _INPUTS:
            raise UserError(
                f"'{preset}' holds a {family.__name__}, which takes {', '.join(sorted(names))}.",
                "Expected a language model of text alone.",
                "Use one like smollm2, Llama, Gemma, Qwen, Mistral, Phi-3 or GPT-2.",
            )
        model = task(backbone=backbone, preprocessor=None, name="causal_lm")
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(preset, error) from error
    positions = getattr(backbone, "max_sequence_length", None)
    if "model_type" in loader.config:
        positions = positions or loader.config.get("max_position_embeddings")
    return model, positions


def complete_config(backbone: keras.Model) -> None:
    """Makes a backbone save what its class forgets: of Llama, whether its embeddings are tied."""
    config = backbone.get_config()
    takes = inspect.signature(type(backbone)).parameters
    forgotten = {
        name: getattr(backbone, name)
        for name in takes
        if name not in config and isinstance(getattr(backbone, name, None), bool | int | float)
    }
    if forgotten:
        backbone.get_config = lambda: config | forgotten


def _left_out(family: type, config: dict) -> dict:
    """Returns what KerasHub's converter does not take over from Hugging Face's config."""
    epsilon = config.get("rms_norm_eps")
    takes = "layer_norm_epsilon" in inspect.signature(family).parameters
    return {"layer_norm_epsilon": epsilon} if takes and epsilon is not None else {}


def read_tokenizer(preset: str, name: str) -> tuple[ChatTokenizer, str | None]:
    """Returns the tokenizer of a model, and its chat template where there is one.

    Args:
        preset: Where the model is, as KerasHub takes it.
        name: What the model is called.

    Raises:
        UserError: It cannot be read.
    """
    from keras_hub.src.utils.preset_utils import check_file_exists, get_file, load_json

    try:
        options = {}
        if check_file_exists(preset, "tokenizer_config.json"):
            options = load_json(preset, "tokenizer_config.json")
        template = options.get("chat_template")
        if isinstance(template, list):  # several by name
            named = {entry["name"]: entry["template"] for entry in template}
            template = named.get("default")
        if template is None and check_file_exists(preset, TEMPLATE):
            template = Path(get_file(preset, TEMPLATE)).read_text(encoding="utf-8")
        if check_file_exists(preset, f"{CHAT}/{SETTINGS}"):  # written by `save_preset`
            for file in (TOKENS, PIECES):
                if check_file_exists(preset, f"{CHAT}/{file}"):
                    get_file(preset, f"{CHAT}/{file}")
            return load_chat_tokenizer(
                Path(get_file(preset, f"{CHAT}/{SETTINGS}")).parent
            ), template
        content = {}
        if check_file_exists(preset, "tokenizer.json"):
            content = load_json(preset, "tokenizer.json")
        if "model" in content:
            return from_hugging_face(content, options, name), template
        return from_keras(_tokenizer_class(preset).from_preset(preset), name), template
    except Exception as error:
        reason = textwrap.shorten(str(error).strip() or type(error).__name__, 200)
        raise UserError(
            f"'{preset}' has weights but no tokenizer that can be read: {reason}",
            "Expected tokenizer.json and tokenizer_config.json beside Hugging Face weights, or "
            "assets/tokenizer/ in a folder of KerasHub.",
            "Copy these files from where the model comes from, or save the tokenizer there.",
        ) from error


def _tokenizer_class(preset: str) -> type:
    """Returns KerasHub's class for the tokenizer of a model, by the files that are there.

    KerasHub takes any of those that belong to the backbone: Mistral has one of SentencePiece and
    one of byte pairs, Llama its own and Moonshine's, which inherits from it.
    """
    import keras_hub
    from keras_hub.src.utils.preset_utils import (
        check_file_exists,
        get_preset_loader,
        list_subclasses,
    )

    base = keras_hub.models.Tokenizer
    loader = get_preset_loader(preset)
    if "model_type" not in loader.config:  # Keras's own format names the class
        return base
    pieces = check_file_exists(preset, "tokenizer.model")
    reads_pieces = keras_hub.tokenizers.SentencePieceTokenizer
    backbone = loader.check_backbone_class()
    return min(
        (kind for kind in list_subclasses(base) if kind.backbone_cls is backbone),
        key=lambda kind: (issubclass(kind, reads_pieces) != pieces, len(kind.__mro__)),
        default=base,
    )


def _no_language_model(preset: str, family: str) -> UserError:
    return UserError(
        f"'{preset}' holds a {family}, which is not a causal language model.",
        f"Expected one of {', '.join(sorted(families()))}.",
        "Encoders like BERT are for text_cls, token_cls and extractive_qa.",
    )


def _unreadable(preset: str, error: Exception) -> UserError:
    reason = textwrap.shorten(str(error).strip() or type(error).__name__, 200)
    if not Path(preset).is_dir():
        return UserError(
            f"'{preset}' could not be loaded: {reason}",
            "Its files are downloaded once, from the model hub.",
            "Without network give --backbone a local folder, or use --backbone auto.",
        )
    config = json.loads((Path(preset) / "config.json").read_text(encoding="utf-8"))
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind:
        return UserError(
            f"The folder {preset} holds a Hugging Face model of type '{kind}', which KerasHub "
            f"could not convert: {reason}",
            "It converts gemma, gemma2, gemma3, gpt2, llama, mistral, mixtral, qwen2, qwen3, "
            "smollm3 and others.",
            "Other families load as KerasHub presets by name.",
        )
    return UserError(
        f"The folder {preset} could not be loaded: {reason}",
        "Expected config.json and weights in the format of Keras (save_to_preset) or Hugging Face "
        "(model.safetensors).",
    )


def _where(name: str) -> tuple[str, str]:
    return where(
        name,
        {
            "starter": lambda: starters.names("chat"),
            "KerasHub preset": lambda: presets_of(families()),
        },
        "auto, smollm2, a causal language model among KerasHub's presets (gemma3_instruct_1b, "
        "llama3.2_instruct_1b, qwen2.5_instruct_0.5b_en, gpt2_base_en, ...), an hf:// or kaggle:// "
        "handle, or a local folder in Keras (save_to_preset) or Hugging Face format.",
    )
