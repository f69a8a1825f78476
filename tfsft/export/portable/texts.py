"""Texts, or pairs of texts, as the model takes them: pip install numpy tokenizers"""

from labels import named
from tokens import inputs, special, task, tokens

width = len(task["inputs"])  # of one example


def shortened(ids, count, truncate):
    """Returns at most `count` tokens: the start, or start and end."""
    tail = count // 2 if truncate == "middle" else 0
    return ids if len(ids) <= count else ids[: count - tail] + ids[len(ids) - tail :]


def outputs(run, *texts, max_length, truncate="end", **_):
    """Returns what the model says of one text, or one pair, [classes]."""
    start, middle, end = special["start"], special["separator"], special["end"]
    parts = [tokens(text) for text in texts]
    if len(parts) == 1:
        ids = start + shortened(parts[0], max_length - len(start + end), truncate) + end
        return run(inputs(ids, len(ids)))[0]
    room = max_length - len(start + middle + end)
    first = min(len(parts[0]), max(room - room // 2, room - len(parts[1])))
    head = start + shortened(parts[0], first, truncate) + middle
    return run(inputs(head + shortened(parts[1], room - first, truncate) + end, len(head)))[0]


def answer(run, *texts, class_names, labels, **rest):
    """Returns what the model says of one text, or one pair, in words."""
    found = named(outputs(run, *texts, **rest), class_names, labels)
    return {"input": texts if len(texts) > 1 else texts[0]} | found
