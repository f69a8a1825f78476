"""From what a model says of each token to what it says of words and of contexts."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

CANDIDATES = 20  # places looked at for each end of an answer
NO_ANSWER = (-1, -1)  # first and last word


@dataclass(frozen=True)
class Answer:
    """The best answer to a question.

    Args:
        first, last: Place of its first and last word in the context; -1 for "no answer".
        probability: Of this answer among the best ones and "no answer", 0 to 1.
        no_answer_score: How much more speaks for "no answer" than for the best span.
        span: First and last word of the best span, whether or not it is the answer; None where the
            context has no words.
    """

    first: int
    last: int
    probability: float
    no_answer_score: float
    span: tuple[int, int] | None


class AnswerDecoder:
    """Collects the windows of questions and finds the best span over all windows of each.

    As in Devlin et al. 2019: the score of a span is the sum of its ends' logits; that of "no
    answer" is the sum at the start token, in the window where that is least; a question has no
    answer if this is more than the best span's score by over `threshold`.

    Args:
        examples: Number of questions.
        max_answer_length: Most tokens in an answer.
        no_answer: Whether there may be no answer.
        threshold: How much more must speak for "no answer".
    """

    def __init__(
        self,
        examples: int,
        *,
        max_answer_length: int = 30,
        no_answer: bool = True,
        threshold: float = 0.0,
    ):
        self.max_answer_length = max_answer_length
        self.no_answer = no_answer
        self.threshold = threshold
        self._spans: list[dict[tuple[int, int], float]] = [{} for _ in range(examples)]
        self._none = np.full(examples, np.inf)

    def add(self, examples: np.ndarray, logits: np.ndarray, words: np.ndarray) -> None:
        """Takes in some windows.

        Args:
            examples: int `[batch]`, the question of each window.
            logits: float `[batch, 2, width]`, of the first and of the last token of the answer.
            words: int `[batch, width]`, the place of each token's word in the context; negative
                outside of the context.
        """
        for example, (starts, ends), word in zip(examples, logits, words, strict=True):
            self._none[example] = min(self._none[example], float(starts[0]) + float(ends[0]))
            inside = np.flatnonzero(word >= 0)
            found = self._spans[example]
            firsts = inside[np.argsort(-starts[inside], kind="stable")[:CANDIDATES]]
            lasts = inside[np.argsort(-ends[inside], kind="stable")[:CANDIDATES]]
            scores = starts[firsts][:, None].astype(np.float64) + ends[lasts][None, :]
            lengths = lasts[None, :] - firsts[:, None]
            allowed = (lengths >= 0) & (lengths < self.max_answer_length)
            if not allowed.any() and len(inside):
                # The best places do not fit each other: the best single token does.
                both = starts[inside] + ends[inside]
                firsts = lasts = inside[[int(both.argmax())]]
                scores, allowed = both.max().reshape(1, 1), np.ones((1, 1), bool)
            for i, j in np.argwhere(allowed):
                span = (int(word[firsts[i]]), int(word[lasts[j]]))
                found[span] = max(found.get(span, -np.inf), float(scores[i, j]))

    def answers(self) -> list[Answer]:
        """Returns the answer to each question, in their order."""
        return [
            self._answer(spans, none) for spans, none in zip(self._spans, self._none, strict=True)
        ]

    def shares(self) -> list[dict[tuple[int, int], float]]:
        """Returns the probabilities of the best answers to each question, the best span first.

        They are by the first and the last word; (-1, -1) is "no answer", and comes last.
        """
        return [
            self._shares(self._best(spans), none)
            for spans, none in zip(self._spans, self._none, strict=True)
        ]

    def _answer(self, spans: dict[tuple[int, int], float], none: float) -> Answer:
        best = self._best(spans)
        shares = self._shares(best, none)
        span, score = next(iter(best.items()), (None, none))
        difference = float(none - score) if best else 0.0
        if span is None or (self.no_answer and difference > self.threshold):
            return Answer(*NO_ANSWER, shares[NO_ANSWER], difference, span)
        return Answer(*span, shares[span], difference, span)

    def _best(self, spans: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
        return dict(sorted(spans.items(), key=lambda item: -item[1])[:CANDIDATES])

    def _shares(
        self, best: dict[tuple[int, int], float], none: float
    ) -> dict[tuple[int, int], float]:
        scores = best | ({NO_ANSWER: none} if self.no_answer else {})
        if not scores:
            return {NO_ANSWER: 1.0}
        shares = np.array(list(scores.values()))
        shares = np.exp(shares - shares.max())
        return dict(zip(scores, (shares / shares.sum()).tolist(), strict=True))


class TagDecoder:
    """Collects the windows of tagged texts and gives the tag of each word.

    Args:
        num_words: Words of each text, int `[texts]`; each has one token in one window.
    """

    def __init__(self, num_words: np.ndarray):
        self.starts = np.concatenate([[0], np.cumsum(num_words)])
        self.tags = np.zeros(self.starts[-1], np.int32)
        self.probabilities = np.ones(self.starts[-1], np.float32)

    def add(self, examples: np.ndarray, outputs: np.ndarray, words: np.ndarray) -> None:
        """Takes in some windows.

        Args:
            examples: int `[batch]`, the text of each window.
            outputs: Probabilities, float `[batch, width, tags]`.
            words: int `[batch, width]`, the place of the word that a token stands for; negative
                where it stands for none.
        """
        row, token = np.nonzero(words >= 0)
        places = self.starts[examples[row]] + words[row, token]
        found = outputs[row, token]
        self.tags[places] = found.argmax(axis=-1)
        self.probabilities[places] = found.max(axis=-1)

    def texts(self) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Yields the tags of each text, int `[words]`, and their probabilities, float `[words]`."""
        for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
            yield self.tags[start:stop], self.probabilities[start:stop]
