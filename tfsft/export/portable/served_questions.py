"""Questions and contexts as a SavedModel takes them: as they are."""

import json
from pathlib import Path

import numpy as np

task = json.loads(Path(__file__).with_name("task.json").read_text(encoding="utf-8"))


def outputs(run, question, context, **_):
    """Returns where the answer begins and ends, and how probable it is, [3]."""
    given = {"question": question, "context": context}
    encoded = {name: [text.encode("utf-8", "replace")] for name, text in given.items()}
    found = {name: values[0] for name, values in run(encoded).items()}
    start, end = found["start"], found["end"]
    said = encoded["context"][0].decode()[max(start, 0) : max(end, 0)]
    if found["answer"].decode() != said:
        raise ValueError(f"{found['answer'].decode()!r} is not what begins at {start}")
    return np.array([start, end, found["probability"]], np.float64)
