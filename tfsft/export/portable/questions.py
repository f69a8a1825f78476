"""Questions that the model answers from contexts: pip install numpy tokenizers"""

import numpy as np
from decoding import AnswerDecoder
from tokens import inputs, pieces, special, task, tokens  # noqa: F401
from windows import windows
from words import split_words

width = 2  # inputs of one example: question, context
QUESTION_TOKENS = 64  # at most, and at most half of a row


def rows(run, question, context, *, max_length, stride, **_):
    """Yields the logits [2, tokens] of each window, and the word of each token, -1 outside."""
    asked = tokens(question)[: min(QUESTION_TOKENS, max_length // 2)]
    head, end = special["start"] + asked + special["separator"], special["end"]
    ids, word = pieces(context, split_words(context))
    for first, last in windows(len(ids), max_length - len(head + end), stride):
        row = head + ids[first:last] + end
        words = [-1] * len(head) + word[first:last] + [-1] * len(end)
        yield run(inputs(row, len(head)))[0][:, : len(row)], np.array(words)


def outputs(run, question, context, **settings):
    """Returns the logits of all windows, one behind the other, [2, tokens]."""
    return np.concatenate(
        [logits for logits, _ in rows(run, question, context, **settings)], axis=1
    )


def answer(run, question, context, *, max_answer_length, no_answer, **rest):
    """Returns the answer to a question, empty where the context has none."""
    decoder = AnswerDecoder(1, max_answer_length=max_answer_length, no_answer=no_answer)
    for logits, words in rows(run, question, context, **rest):
        decoder.add(np.array([0]), logits[None], words[None])
    (found,) = decoder.answers()
    spans = split_words(context)
    text = "" if found.first < 0 else context[spans[found.first][0] : spans[found.last][1]]
    return {"input": question, "answer": text, "probability": found.probability}
