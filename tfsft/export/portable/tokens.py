"""Texts as tokens: pip install numpy tokenizers"""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

task = json.loads(Path(__file__).with_name("task.json").read_text(encoding="utf-8"))
special = task["special_tokens"]
tokenizer = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))


def tokens(text):
    """Returns the tokens of a text, without special ones."""
    text = text.encode("utf-8", "replace").decode()  # halves of surrogate pairs
    return tokenizer.encode(text, add_special_tokens=False).ids


def inputs(ids, second):
    """Returns one row of tokens, whose second text begins at `second`, as the model takes it."""
    row = np.array([ids], np.int32)
    found = {"token_ids": row, "padding_mask": np.ones_like(row)}
    if special["segments"]:
        found["segment_ids"] = np.int32(np.arange(len(ids)) >= second)[None]
    if length := special["fixed_length"]:  # a model that takes no other
        fill = {"token_ids": special["pad"]}
        gap = [(0, 0), (0, length - len(ids))]
        found = {
            key: np.pad(of, gap, constant_values=fill.get(key, 0)) for key, of in found.items()
        }
    return found


def pieces(text, spans):
    """Returns the tokens of the words of a text, and which word each belongs to."""
    words = [tokens(special["word_prefix"] + text[start:end]) for start, end in spans]
    stand_in = special["pad"] if special["unknown"] is None else special["unknown"]
    words = [ids or [stand_in] for ids in words]  # a control character, say, has none
    return (
        [token for ids in words for token in ids],
        [place for place, ids in enumerate(words) for _ in ids],
    )
