"""Texts as a SavedModel of tags takes them: as they are; it finds the words by itself."""

import json
from pathlib import Path

import numpy as np

task = json.loads(Path(__file__).with_name("task.json").read_text(encoding="utf-8"))


def outputs(run, text, *_, tags, **__):
    """Returns where each word begins and ends, its tag and how probable this is, [words, 4]."""
    encoded = text.encode("utf-8", "replace")
    found = {name: values[0] for name, values in run({"texts": [encoded]}).items()}
    inside = found["starts"] >= 0
    words, starts, ends, chosen, sure = (
        found[name][inside] for name in ("words", "starts", "ends", "tags", "probabilities")
    )
    for word, start, end in zip(words, starts, ends, strict=True):
        if word.decode() != encoded.decode()[start:end]:
            raise ValueError(f"{word.decode()!r} does not begin at {start} and end at {end}")
    numbers = [tags.index(tag.decode()) for tag in chosen]
    return np.stack([starts, ends, np.array(numbers, np.int64), sure], axis=1)
