"""Language models as presets of KerasHub, with their own tokenizer and chat template."""

from pathlib import Path

import keras
import numpy as np

from tfsft.models import seq2seq_lms
from tfsft.models.causal_lms import CHAT, TEMPLATE, complete_config, families
from tfsft.models.chat_tokenizer import ChatTokenizer

_SAMPLES = ["Hello there, how are you today?", "two  plus 2\n\nis four.", "äöü 你好 🎉"]


def save_preset(
    model: keras.Model,
    tokenizer: ChatTokenizer,
    folder: str | Path,
    *,
    template: str | None = None,
) -> bool:
    """Writes a language model as a folder that KerasHub and `load_causal_lm` load, or, of a
    sequence-to-sequence model, `load_seq2seq_lm`.

    Args:
        model: KerasHub's, with a layer named `backbone`; low-rank updates are merged.
        tokenizer: Of the model; both read it as it is.
        folder: Exists.
        template: Its chat template, in Jinja; None: it has none.

    Returns:
        Whether KerasHub has a tokenizer that gives the same tokens; without it the folder holds the
        model and our tokenizer alone.
    """
    folder = Path(folder)
    backbone = model.get_layer("backbone")
    complete_config(backbone)
    task = (families() | seq2seq_lms.families())[type(backbone).__name__]
    layer = _keras_tokenizer(tokenizer, task)
    preprocessor = None if layer is None else task.preprocessor_cls(tokenizer=layer)
    task(backbone=backbone, preprocessor=preprocessor).save_to_preset(str(folder))
    if layer is not None and not _same(tokenizer, type(layer), folder):
        layer = None
        for name in ("tokenizer.json", "preprocessor.json"):
            (folder / name).unlink(missing_ok=True)
        for path in sorted((folder / "assets").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        task(backbone=backbone, preprocessor=None).save_to_preset(str(folder))
    tokenizer.save(folder / CHAT)
    if template is not None:
        (folder / TEMPLATE).write_text(template, encoding="utf-8")
    return layer is not None


def _keras_tokenizer(tokenizer: ChatTokenizer, task: type) -> keras.layers.Layer | None:
    try:
        return tokenizer.keras_layer(task.preprocessor_cls.tokenizer_cls)
    except Exception:  # its class asks for other control tokens, or has another kind of vocabulary
        return None


def _same(tokenizer: ChatTokenizer, layer: type, folder: Path) -> bool:
    """Says whether what KerasHub reads from a folder makes the same tokens."""
    try:
        again = layer.from_preset(str(folder))
        return all(
            np.array_equal(np.asarray(again(text)), tokenizer.encode([text])[0])
            for text in _SAMPLES
        ) and all(again.token_to_id(text) == token for text, token in tokenizer.control.items())
    except Exception:  # raised by whatever reads the vocabulary
        return False
