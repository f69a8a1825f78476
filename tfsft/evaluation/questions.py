"""Exact match and F1 of answers to questions, as SQuAD defines them.

Answers are compared in lower case, without ASCII punctuation, English articles and doubled spaces;
F1 is over their words. Of several right answers the one that fits best counts. A question without
an answer is answered rightly by the empty text. Figures are shares, 0 to 1.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Returns an answer as it is compared."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split())


def exact_match(answers: Sequence[str], prediction: str) -> float:
    """Returns 1.0 if an answer is one of the right ones, else 0.0; see `question_metrics`."""
    said = normalize_answer(prediction)
    return float(any(normalize_answer(answer) == said for answer in _right(answers)))


def answer_f1(answers: Sequence[str], prediction: str) -> float:
    """Returns how well the words of an answer fit the right answer they fit best."""
    return max(_f1(answer, prediction) for answer in _right(answers))


def question_metrics(
    answers: Sequence[Sequence[str]],
    predictions: Sequence[str],
    no_answer_scores: Sequence[float] | None = None,
    candidates: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Returns exact match and F1 over all questions, those with and those without an answer.

    Args:
        answers: The right answers of each question; none where it has no answer.
        predictions: What the model answers in the end; empty for "no answer".
        no_answer_scores: How much speaks for "no answer", larger for more. If given, the
            thresholds are searched above which "no answer" would have scored best; they are tuned
            on these very questions, so use those of validation questions.
        candidates: The best answer of each question whatever its score, for that search;
            `predictions` when not given.

    Returns:
        `examples`, `exact`, `f1`; `has_answer` and `no_answer` with the same three, None where
        there are no such questions; with scores also `best_exact`, `best_exact_threshold`,
        `best_f1` and `best_f1_threshold`.
    """
    if not len(answers) == len(predictions) > 0:
        raise ValueError(f"{len(answers)} questions, {len(predictions)} predictions")
    has_answer = [bool(right) for right in answers]
    scores = _scores(answers, predictions)
    metrics = _means(scores) | {
        name: _means([pair for pair, has in zip(scores, has_answer, strict=True) if has is part])
        for name, part in (("has_answer", True), ("no_answer", False))
    }
    if no_answer_scores is not None:
        candidates = predictions if candidates is None else candidates
        tried = _scores(answers, candidates)
        for place, name in enumerate(("exact", "f1")):
            metrics[f"best_{name}"], metrics[f"best_{name}_threshold"] = best_threshold(
                [pair[place] for pair in tried], candidates, has_answer, no_answer_scores
            )
    return metrics


def best_threshold(
    scores: Sequence[float],
    candidates: Sequence[str],
    has_answer: Sequence[bool],
    no_answer_scores: Sequence[float],
) -> tuple[float, float]:
    """Returns the best mean score, and the no-answer score above which "no answer" is then given.

    Args:
        scores: What each candidate scores.
        candidates: The answers; an empty one is right where there is no answer.
        has_answer: Whether each question has an answer.
        no_answer_scores: How much speaks for "no answer".
    """
    order = sorted(range(len(scores)), key=lambda i: no_answer_scores[i])
    lowest = float(no_answer_scores[order[0]])
    # It begins with "no answer" everywhere and gives one candidate after the other.
    best = total = float(sum(not has for has in has_answer))
    threshold = 0.0 if lowest > 0 else math.nextafter(lowest, -math.inf)
    for place, i in enumerate(order):
        if has_answer[i]:
            total += scores[i]
        elif candidates[i]:
            total -= 1
        following = order[place + 1] if place + 1 < len(order) else None
        # No threshold lies between equal scores.
        tied = following is not None and no_answer_scores[following] == no_answer_scores[i]
        if total > best and not tied:
            best, threshold = total, float(no_answer_scores[i])
    return best / len(scores), threshold


def _right(answers: Sequence[str]) -> Sequence[str]:
    """The right answers that have words to compare; else none but the empty one."""
    return [answer for answer in answers if normalize_answer(answer)] or [""]


def _f1(answer: str, prediction: str) -> float:
    right, said = normalize_answer(answer).split(), normalize_answer(prediction).split()
    if not right or not said:
        return float(right == said)
    shared = (Counter(right) & Counter(said)).total()
    return 2 * shared / (len(right) + len(said))


def _scores(
    answers: Sequence[Sequence[str]], predictions: Sequence[str]
) -> list[tuple[float, float]]:
    return [
        (exact_match(right, said), answer_f1(right, said))
        for right, said in zip(answers, predictions, strict=True)
    ]


def _means(scores: Sequence[tuple[float, float]]) -> dict[str, Any] | None:
    if not scores:
        return None
    exact, f1 = (math.fsum(column) / len(scores) for column in zip(*scores, strict=True))
    return {"examples": len(scores), "exact": exact, "f1": f1}
