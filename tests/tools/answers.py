"""What answers say, for comparing them."""

import numpy as np


def numbers(answer):
    """All that is a float in an answer."""
    if isinstance(answer, dict):
        return [x for key in sorted(answer) for x in numbers(answer[key])]
    if isinstance(answer, list):
        return [x for item in answer for x in numbers(item)]
    return [answer] if isinstance(answer, float) else []


def likeliest(predictor, prompt, count):
    """Continues a prompt by the whole model, one token after another, without a cache.

    Returns:
        The tokens that are new: at most `count`, without the one that ends an answer.
    """
    ids = list(prompt)
    while len(ids) < len(prompt) + count:
        batch = np.array([ids], np.int32)
        logits = predictor.model({"token_ids": batch, "padding_mask": np.ones_like(batch)})
        token = int(np.asarray(logits)[0, -1].argmax())
        if token in predictor.encoder.stop:
            break
        ids.append(token)
    return ids[len(prompt) :]
