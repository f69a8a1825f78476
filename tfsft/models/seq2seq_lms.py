"""Pretrained sequence-to-sequence models by name, each with its own tokenizer."""

import inspect
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import keras

from tfsft.errors import UserError
from tfsft.models.causal_lms import read_tokenizer
from tfsft.models.chat_tokenizer import ChatTokenizer
from tfsft.models.loading import (
    RANDOM,
    foreign_weights,
    fresh_layer_names,
    make_deterministic,
    presets_of,
    where,
)
from tfsft.models.text_backbones import hub_folder, offered

_STANDARD = "bart_base_en"


@dataclass(frozen=True)
class Seq2SeqLM:
    """A pretrained sequence-to-sequence model and the tokenizer that it was trained with.

    Args:
        model: KerasHub's, not compiled and without a preprocessor: from int32 `encoder_token_ids`,
            `encoder_padding_mask`, `decoder_token_ids` and `decoder_padding_mask` to logits
            `[batch, decoder tokens, vocabulary]`. It has a layer named `backbone`.
        tokenizer: From the same place as the weights.
        name: As it was asked for.
        source: Where the weights come from, for people to read.
        max_length: How many tokens encoder and decoder have positions for; None: any number.
        start, end: Tokens around an input; the latter end an answer, too.
        decoder_start: Tokens that a decoder begins with.
    """

    model: keras.Model
    tokenizer: ChatTokenizer
    name: str
    source: str
    max_length: int | None
    start: tuple[int, ...]
    end: tuple[int, ...]
    decoder_start: tuple[int, ...]


def resolve(name: str) -> tuple[str, str]:
    """Decides which model a name stands for, as `models.resolve` tells.

    Raises:
        UserError: `auto`, and the weights are neither here nor to be had.
    """
    if name != "auto":
        _where(name)
        return name, f"{name} was asked for by name."
    handle = presets_of(families())[_STANDARD]["kaggle_handle"].removeprefix("kaggle://")
    folder = hub_folder(handle)
    if (folder / "model.weights.h5").is_file():
        return _STANDARD, f"{_STANDARD}: its weights are in {folder}."
    if offered(handle):
        return _STANDARD, f"{_STANDARD}: its weights can be downloaded."
    raise UserError(
        f"--backbone auto takes {_STANDARD} of KerasHub, whose weights are not in "
        f"{os.fspath(folder)}, and kaggle.com does not offer them.",
        "No package index has weights of a sequence-to-sequence model.",
        "Give --backbone a local folder with a BART in Keras (save_to_preset) or Hugging Face "
        "format, or a T5 in Keras format; or run once where kaggle.com can be reached.",
    )


def load_seq2seq_lm(name: str) -> Seq2SeqLM:
    """Loads a pretrained sequence-to-sequence model with its tokenizer.

    All of its dropout is off.

    Args:
        name: `auto`; a KerasHub preset (`bart_base_en`, `bart_large_en_cnn`, `t5_small_multi`); a
            `kaggle://` or `hf://` handle; or a local folder in Keras (`save_to_preset`) or Hugging
            Face format. With `:random` at the end the weights stay random, for tests and timing.

    Raises:
        UsageError: There is no such model.
        UserError: It cannot be downloaded or read, or is of another kind.
    """
    if name == "auto":
        name, _ = resolve(name)
    place, preset = _where(name)
    pretrained = not name.endswith(RANDOM)
    with fresh_layer_names(), foreign_weights(preset, pretrained):
        model, config = _load(preset, pretrained)
    make_deterministic(model)
    tokenizer, _ = read_tokenizer(preset, name)
    begin, end = tokenizer.begin, tokenizer.end
    if "Bart" in type(model).__name__:
        begin = config.get("bos_token_id") if begin is None else begin
        start = () if begin is None else (begin,)
        decoder_start = (config.get("decoder_start_token_id") or end, *start)
    else:  # T5 begins a decoder with the token that pads
        start, decoder_start = (), (tokenizer.pad,)
    return Seq2SeqLM(
        model,
        tokenizer,
        name,
        f"{place} {preset}" + ("" if pretrained else ", random weights"),
        getattr(model.backbone, "max_sequence_length", None),
        start,
        (end,),
        decoder_start,
    )


def families() -> dict[str, type]:
    """Returns the models of KerasHub that are known here by the name of their backbone's class."""
    import keras_hub

    classes = keras_hub.models.BartSeq2SeqLM, keras_hub.models.T5Seq2SeqLM
    return {task.backbone_cls.__name__: task for task in classes}


def _load(preset: str, pretrained: bool) -> tuple[keras.Model, dict]:
    import keras_hub
    from keras_hub.src.utils.preset_utils import get_preset_loader  # tells the class before loading

    try:
        loader = get_preset_loader(preset)
        family = loader.check_backbone_class()
        task = families().get(family.__name__)
        if task is None:
            raise UserError(
                f"'{preset}' holds a {family.__name__}, which is no sequence-to-sequence model "
                "that is known here.",
                f"Expected one of {', '.join(sorted(families()))}.",
                "Language models like Llama are for chat_sft.",
            )
        options = {"dropout": 0.0} if "dropout" in inspect.signature(family).parameters else {}
        backbone = keras_hub.models.Backbone.from_preset(
            preset, load_weights=pretrained, name="backbone", **options
        )
        config = loader.config if "model_type" in loader.config else {}
        return task(backbone=backbone, preprocessor=None, name="seq2seq_lm"), config
    except UserError:
        raise
    except Exception as error:
        reason = textwrap.shorten(str(error).strip() or type(error).__name__, 200)
        here = Path(preset).is_dir()
        raise UserError(
            f"'{preset}' could not be loaded: {reason}",
            "A BART in Keras or Hugging Face format (config.json and model.safetensors), or a T5 "
            "in Keras format, which KerasHub does not convert."
            if here
            else "Its files are downloaded once, from the model hub.",
            "Save it from KerasHub with save_to_preset."
            if here
            else "Without network give --backbone a local folder.",
        ) from error


def _where(name: str) -> tuple[str, str]:
    return where(
        name,
        {"KerasHub preset": lambda: presets_of(families())},
        "auto, a BART or T5 among KerasHub's presets (bart_base_en, bart_large_en_cnn, "
        "t5_small_multi, ...), an hf:// or kaggle:// handle, or a local folder in Keras "
        "(save_to_preset) or, of BART, Hugging Face format.",
    )
