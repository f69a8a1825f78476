"""Exact match and F1 of answers, worked out by hand by the rules of the SQuAD scripts."""

import itertools
import json

import numpy as np
import pytest

from tfsft.evaluation import normalize_answer, question_metrics
from tfsft.evaluation.questions import answer_f1, best_threshold, exact_match


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Eiffel\nTower!", "eiffel tower"),
        ("a.n. other", "other"),  # punctuation goes first, so that "an" becomes an article
        ("U.S.A.", "usa"),
        ("An apple, the pear", "apple pear"),
        ("theatre", "theatre"),
        ("the", ""),
        ("l'été “là”", "lété “là”"),  # typographic marks are no ASCII punctuation
        ("東京。", "東京。"),
        ("$5,000", "5000"),
    ],
)
def test_answers_are_compared_without_what_does_not_matter(text, normal):
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("answers", "said", "exact", "f1"),
    [
        (["Denver Broncos"], "the denver broncos.", 1, 1),
        # said 3 words, right 2, shared 2: precision 2/3, recall 1, F1 = 2 * 2/3 / (5/3) = 4/5
        (["Denver Broncos"], "Denver Broncos team", 0, 0.8),
        # the best of several: against "blue" 0; against "dark blue sky" 2 of 3 said 2: 4/5
        (["red", "dark blue sky"], "dark blue", 0, 0.8),
        # each word counts as often as it is there: shared is 1 ("to"), 2 * 1 / (2 + 3)
        (["to be"], "to to to", 0, 0.4),
        (["cat"], "dog", 0, 0),
        (["cat"], "", 0, 0),
        ([], "", 1, 1),
        ([], "cat", 0, 0),
        ([], "the", 1, 1),  # nothing is left of it
        (["the", "cat"], "a", 0, 0),  # a right answer of which nothing is left is left out
        (["the"], "", 1, 1),
    ],
)
def test_one_answer_by_hand(answers, said, exact, f1):
    assert exact_match(answers, said) == exact
    assert answer_f1(answers, said) == pytest.approx(f1)


def test_the_parts_with_and_without_an_answer():
    answers = [["Denver Broncos"], ["Denver Broncos"], [], []]
    said = ["Denver Broncos", "Denver Broncos team", "", "no idea"]
    got = json.loads(json.dumps(question_metrics(answers, said), allow_nan=False))
    assert got == {
        "examples": 4,
        "exact": 0.5,
        "f1": pytest.approx((1 + 0.8 + 1 + 0) / 4),
        "has_answer": {"examples": 2, "exact": 0.5, "f1": pytest.approx(0.9)},
        "no_answer": {"examples": 2, "exact": 0.5, "f1": 0.5},
    }
    assert question_metrics(answers[:1], said[:1])["no_answer"] is None
    with pytest.raises(ValueError, match="0 questions"):
        question_metrics([], [])


def test_the_best_threshold_by_hand():
    # By rising score: p right, +1 | q has no answer, -1 | r right by 0.8 | s has no answer, -1.
    # From 2 (both without an answer): 3 | 2 | 2.8 | 1.8: best is 3 of 4, answering p alone. F1 of
    # r as exact match is 0, which leaves the best where it is.
    answers = [[], ["Denver Broncos"], ["cat"], []]
    candidates = ["x", "Denver Broncos team", "cat", "y"]
    scores = [0.9, 0.5, -2.0, 0.3]
    got = question_metrics(answers, ["", "", "cat", ""], scores, candidates)
    assert got["exact"] == got["best_exact"] == 0.75
    assert got["best_exact_threshold"] == got["best_f1_threshold"] == -2.0
    assert got["best_f1"] == 0.75
    # without q answering r pays as well: 2 of 3 are better than 1.8... for F1, not for exact match
    kept = [0, 1, 2]
    got = question_metrics(
        *([column[i] for i in kept] for column in (answers, candidates, scores, candidates))
    )
    assert (got["best_exact"], got["best_exact_threshold"]) == (2 / 3, -2.0)
    assert (got["best_f1"], got["best_f1_threshold"]) == (pytest.approx(2.8 / 3), 0.5)


@pytest.mark.parametrize("seed", range(40))
def test_no_threshold_does_better_and_the_best_one_does_what_it_says(seed):
    rng = np.random.default_rng(seed)
    n = 12
    has = rng.random(n) < 0.6
    candidates = [str(c) for c in rng.choice(["", "x"], n, p=[0.1, 0.9])]
    scores = np.where(has, rng.random(n), [not c for c in candidates])
    no_answer = rng.integers(-3, 4, n) if seed % 2 else rng.normal(size=n)  # with and without ties

    def at(threshold):
        return np.where(no_answer <= threshold, scores, ~has).mean()

    best, threshold = best_threshold(scores, candidates, has, no_answer)
    assert best == pytest.approx(at(threshold))
    ends = sorted({-np.inf, *no_answer})
    assert best == pytest.approx(max(at(end) for end in ends))
    steps = [-np.inf, *(np.mean(pair) for pair in itertools.pairwise(ends[1:])), np.inf]
    assert best == pytest.approx(max(at(step) for step in steps))
