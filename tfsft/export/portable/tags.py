"""Texts whose words the model tags: pip install numpy tokenizers"""

import numpy as np
from tokens import inputs, pieces, special, task  # noqa: F401
from windows import most_context, windows
from words import split_words

width = 1  # inputs of one example


def outputs(run, text, spans=None, *, max_length, stride, tags, **_):
    """Returns what the model says of each word, [words, tags]; long texts are seen in windows."""
    start, end = special["start"], special["end"]
    ids, word = pieces(text, split_words(text) if spans is None else spans)
    views = windows(len(ids), max_length - len(start + end), stride)
    best = most_context(len(ids), views)
    found = np.zeros([word[-1] + 1 if word else 0, len(tags)], np.float32)
    for number, (first, last) in enumerate(views):
        row = start + ids[first:last] + end
        said = run(inputs(row, len(row)))[0][len(start) :]
        for place in range(first, last):
            if best[place] == number and (place == 0 or word[place] != word[place - 1]):
                found[word[place]] = said[place - first]
    return found


def answer(run, text, **settings):
    """Returns the words of a text with their tags and how sure these are."""
    found = outputs(run, text, **settings)
    words = [text[start:end] for start, end in split_words(text)]
    tags = [settings["tags"][place] for place in found.argmax(axis=1)]
    sure = map(float, found.max(axis=1))
    return {"input": text, "words": list(zip(words, tags, sure, strict=True))}
