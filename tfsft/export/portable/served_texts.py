"""Texts, or pairs of texts, as a SavedModel takes them: as they are."""

import json
from pathlib import Path

from labels import scores

task = json.loads(Path(__file__).with_name("task.json").read_text(encoding="utf-8"))


def outputs(run, *texts, **_):
    """Returns what the model says of one text, or one pair, [classes]."""
    names = ("texts",) if len(texts) == 1 else ("text", "pair")
    encoded = [[text.encode("utf-8", "replace")] for text in texts]
    return scores(run(dict(zip(names, encoded, strict=True))))
