"""Folders of finished runs about conversations, without training."""

import json
from pathlib import Path

from tfsft import data, models


def write_chat_run(folder, backbone, *, template="auto", system_prompt=""):
    """Writes what a run of chat_sft leaves of a model; returns its path.

    Args:
        folder: Is made where it is missing.
        backbone: As `models.load_causal_lm` takes it.
        template: As the recipe's.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lm = models.load_causal_lm(str(backbone))
    lm.model.save(folder / "model.keras")
    lm.tokenizer.save(folder / "tokenizer")
    chosen = data.choose_template(template, lm.template, lm.tokenizer)
    task = {
        "task": "chat",
        "labels": "chat",
        "class_names": [],
        "system_prompt": system_prompt,
        "template": chosen.source,
        "train_on": "completion",
        "max_length": 64,
        "positions": lm.max_length,
        "max_new_tokens": 8,
        "tokenizer": "tokenizer",
    }
    (folder / "task.json").write_text(json.dumps(task))
    (folder / "config.json").write_text("{}")
    return folder
