"""The best span over windows, against trying all spans; tags of words over windows."""

import numpy as np
import pytest

from tfsft.evaluation.decoding import AnswerDecoder, TagDecoder


def brute_force(windows, longest):
    """Scores of the best span over all windows, and of "no answer", by trying everything."""
    best = max(
        (starts[i] + ends[j], words[i], words[j])
        for starts, ends, words in windows
        for i in range(len(words))
        for j in range(i, min(len(words), i + longest))
        if words[i] >= 0 and words[j] >= 0
    )
    return best, min(starts[0] + ends[0] for starts, ends, _ in windows)


@pytest.mark.parametrize("seed", range(20))
def test_best_span_over_windows(seed):
    random = np.random.default_rng(seed)
    words = np.array([[-1, -1, *range(0, 8), -1], [-1, -1, *range(5, 13), -1]])
    logits = random.normal(size=(2, 2, 11))
    decoder = AnswerDecoder(1, max_answer_length=3, no_answer=True)
    for i in (1, 0):  # in any order of windows
        decoder.add(np.array([0]), logits[i : i + 1], words[i : i + 1])
    (answer,) = decoder.answers()
    windows = [(logits[i, 0], logits[i, 1], words[i]) for i in range(2)]
    (score, first, last), none = brute_force(windows, 3)
    assert answer.span == (first, last)
    assert answer.no_answer_score == pytest.approx(none - score)
    assert (answer.first, answer.last) == ((first, last) if score >= none else (-1, -1))
    assert 0 < answer.probability <= 1
    (shares,) = decoder.shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[answer.first, answer.last] == answer.probability == max(shares.values())
    assert shares[first, last] / shares[-1, -1] == pytest.approx(np.exp(score - none))


def test_where_there_is_always_an_answer():
    logits = np.full((1, 2, 4), -5.0)
    logits[0, :, 0] = 10  # the start token
    decoder = AnswerDecoder(1, no_answer=False)
    decoder.add(np.array([0]), logits, np.array([[-1, 0, 1, -1]]))
    assert decoder.answers()[0].first == 0


def test_threshold_moves_the_choice():
    logits = np.zeros((1, 2, 3))
    logits[0, :, 0] = 1.0  # "no answer" scores 2, the word 0
    words = np.array([[-1, 0, -1]])
    for threshold, first in ((1.9, -1), (2.1, 0)):
        decoder = AnswerDecoder(1, threshold=threshold)
        decoder.add(np.array([0]), logits, words)
        assert decoder.answers()[0].first == first


def test_ends_that_do_not_fit_each_other():
    """The best starts all lie behind the best ends."""
    width = 60
    starts, ends = np.arange(width, dtype=float), -np.arange(width, dtype=float)
    decoder = AnswerDecoder(1, no_answer=False)
    decoder.add(np.array([0]), np.stack([starts, ends])[None], np.arange(width)[None])
    assert decoder.answers()[0].first >= 0


def test_a_context_without_words_has_no_answer():
    decoder = AnswerDecoder(1, no_answer=False)
    decoder.add(np.array([0]), np.zeros((1, 2, 3)), np.full((1, 3), -1))
    assert decoder.answers()[0].span is None


def test_tags_of_words_over_windows():
    decoder = TagDecoder(np.array([3, 0, 2]))
    outputs = np.zeros((3, 4, 2))
    outputs[..., 0] = 0.4
    outputs[0, 1] = [0.1, 0.9]  # the first word of the first text
    outputs[2, 3] = [0.2, 0.8]  # the second of the third
    words = np.array([[-1, 0, 1, -1], [-1, -1, 2, -1], [-1, 0, -1, 1]])
    decoder.add(np.array([0, 0, 2]), outputs, words)
    tags = [(t.tolist(), pytest.approx(p.tolist())) for t, p in decoder.texts()]
    assert tags == [([1, 0, 0], [0.9, 0.4, 0.4]), ([], []), ([0, 1], [0.4, 0.8])]
