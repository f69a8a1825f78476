"""What a SavedModel says of held-out texts in which it finds words or answers by itself.

It says only which tag or answer it chose, and how probable that is. This much can be compared with
what the run says of every choice: see `claimed`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfsft import evaluation
from tfsft.evaluation.decoding import NO_ANSWER
from tfsft.export.judging import Judge, Outputs, answer_decoder, run_outputs
from tfsft.export.predictor import Predictor


def claimed(ours: np.ndarray, chosen: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns what the export says of all choices, where it differs least from the run.

    What it did not choose is less probable than what it did, and else as the run says. So the
    largest difference is that of the choice, or that by which the run prefers another one.

    Args:
        ours: What the run says, `[n, choices]`.
        chosen: Numbers of the export's choices, int `[n]`.
        probabilities: Of these, `[n]`.
    """
    probabilities = np.asarray(probabilities, ours.dtype)[:, None]
    found = np.minimum(ours, np.nextafter(probabilities, ours.dtype.type(-1)))
    found[np.arange(len(ours)), chosen] = probabilities[:, 0]
    return found


class ServedTags(Judge):
    """Compares the tags of the words that `serve` finds; outputs are `[words, tags]`.

    Of the score, a word of the data has the tag of the found word in which it begins.
    """

    def __init__(self, predictor: Predictor, source: Any):
        super().__init__(predictor, source)
        self.words = predictor.plain({"text": source.column("text")}, source.ids)

    def ours(self) -> list[np.ndarray]:
        """Returns what the run says of these words."""
        return run_outputs(self.predictor, self.words)

    def theirs(self, ours: Outputs, replayed: Outputs) -> list[np.ndarray]:
        """Returns `[words, tags]`, of begin, end, tag and probability; nothing of other words."""
        columns = ours, replayed, self.words.column("starts"), self.words.column("ends")
        found = []
        for run, export, starts, ends in zip(*columns, strict=True):
            same = np.array_equal(export[:, :2].T, [starts, ends])
            found.append(
                claimed(run, export[:, 2].astype(int), export[:, 3]) if same else np.empty(0)
            )
        return found

    def score(self, outputs: Outputs, answers: Sequence[list[str]]) -> float | None:
        """Returns F1 of the entities in the words of the data."""
        columns = answers, self.words.column("starts"), self.source.column("starts")
        said = []
        for tags, found, wanted in zip(*columns, strict=True):
            places = np.searchsorted(found, wanted, side="right") - 1
            said.append([tags[place] for place in places])
        metrics = evaluation.tag_metrics(self.true_tags(), said, self.predictor.class_names)
        return metrics["f1"]


class ServedAnswers(Judge):
    """Compares answers to questions; outputs are the probabilities `[1, answers]` of the best ones.

    `spans` has where these begin and end in the context, for each question.
    """

    def ours(self) -> list[np.ndarray]:
        """Returns what the run says of the answers that it thinks best."""
        logits = run_outputs(self.predictor, self.source)
        decoder = answer_decoder(self.predictor, self.source, logits)
        self.spans: list[list[tuple[int, int]]] = []
        found = []
        for context, shares in zip(self.source.column("context"), decoder.shares(), strict=True):
            words = self.predictor.encoder.words(context)
            self.spans.append(
                [
                    span if span == NO_ANSWER else (words[span[0]][0], words[span[1]][1])
                    for span in shares
                ]
            )
            found.append(np.array([list(shares.values())], np.float32))
        return found

    def theirs(self, ours: Outputs, replayed: Outputs) -> list[np.ndarray]:
        """Returns `[1, answers]`, of begin, end and probability; empty for an answer unheard of."""
        found = []
        for run, spans, (start, end, probability) in zip(ours, self.spans, replayed, strict=True):
            span = (int(start), int(end))
            known = span in spans
            chosen = np.array([spans.index(span) if known else 0])
            found.append(claimed(run, chosen, [probability]) if known else np.empty(0))
        return found

    def answers(self, outputs: Outputs) -> list[str]:
        """Returns the likeliest answers."""
        columns = outputs, self.spans, self.source.column("context")
        said = []
        for shares, spans, context in zip(*columns, strict=True):
            start, end = spans[int(shares.argmax())]
            said.append(context[max(start, 0) : max(end, 0)])
        return said


SERVED = {"token_classification": ServedTags, "question_answering": ServedAnswers}
